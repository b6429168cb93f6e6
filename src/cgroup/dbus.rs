//! As much of D-Bus as talking to systemd takes: method calls, their answers, and one signal, over a Unix socket.
//!
//! There is no thread, and nothing is read or connected unless a container has a unit. Every call has a deadline.

use crate::plan::systemd::Value;
use crate::sys::socket;
use anyhow::{Context, Result, bail};
use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long systemd may take for one call. It answers in milliseconds, unless it is reloading or the machine is very busy.
pub const PATIENCE: Duration = Duration::from_secs(30);

const CALL: u8 = 1;
const RETURN: u8 = 2;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;

/// Header fields (D-Bus specification, "Message Format").
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

/// The largest message that the specification allows.
const MAX_MESSAGE: usize = 128 << 20;

/// What the other side answered instead of a result.
#[derive(Debug)]
pub struct Refused {
    /// "org.freedesktop.systemd1.NoSuchUnit"
    pub name: String,
    pub text: String,
}

impl std::error::Error for Refused {}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let short = self.name.rsplit('.').next().unwrap_or_default();
        write!(f, "{} ({short})", self.text)
    }
}

/// Whom a call goes to.
#[derive(Clone, Copy)]
pub struct Target {
    pub destination: &'static str,
    pub path: &'static str,
    pub interface: &'static str,
}

const BUS: Target = Target {
    destination: "org.freedesktop.DBus",
    path: "/org/freedesktop/DBus",
    interface: "org.freedesktop.DBus",
};

/// Where a socket is: a path, or with `@` a name in the abstract namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address(pub PathBuf);

impl Address {
    /// The first Unix socket of an address as DBUS_SESSION_BUS_ADDRESS has it.
    pub fn parse(text: &str) -> Option<Address> {
        text.split(';').find_map(|one| {
            one.strip_prefix("unix:")?.split(',').find_map(|pair| {
                let (key, value) = pair.split_once('=')?;
                let value = unescape(value)?;
                match key {
                    "path" => Some(Address(value.into())),
                    "abstract" => Some(Address(format!("@{value}").into())),
                    _ => None,
                }
            })
        })
    }
}

/// "%20" is a blank.
fn unescape(text: &str) -> Option<String> {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        out.push(match b {
            b'%' => {
                let digits = [bytes.next()?, bytes.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            b => b,
        });
    }
    String::from_utf8(out).ok()
}

/// A connection.
pub struct Connection {
    socket: UnixStream,
    patience: Duration,
    serial: u32,
    /// Received, not yet looked at.
    buffer: Vec<u8>,
    /// Signals that came while an answer was waited for.
    signals: Vec<Message>,
    /// A message bus in between, not the service itself.
    bus: bool,
}

impl Connection {
    /// Connects and says who we are: `uid`, or None in a user namespace, where the other side knows better.
    /// The other side may take `patience` for each call.
    pub fn open(
        address: &Address,
        bus: bool,
        uid: Option<u32>,
        patience: Duration,
    ) -> Result<Connection> {
        let socket = socket::connect_within(&address.0, patience)?;
        let mut c = Connection {
            socket: socket.into(),
            patience,
            serial: 0,
            buffer: Vec::new(),
            signals: Vec::new(),
            bus,
        };
        c.greet(uid)
            .with_context(|| format!("log in at '{}'", address.0.display()))?;
        Ok(c)
    }

    fn greet(&mut self, uid: Option<u32>) -> Result<()> {
        let deadline = Instant::now() + self.patience;
        let token: String = uid.map_or(String::new(), |u| {
            u.to_string().bytes().map(|b| format!("{b:02x}")).collect()
        });
        // All in one: systemd leaves a call unread that comes in one packet with BEGIN, until more comes. After its OK it has read BEGIN.
        let hello = match uid {
            Some(_) => format!("\0AUTH EXTERNAL {token}\r\nBEGIN\r\n"),
            None => "\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n".into(),
        };
        self.socket.write_all(hello.as_bytes())?;
        loop {
            match self.line(deadline)?.split(' ').next() {
                Some("OK") => break,
                Some("DATA") if uid.is_none() => {}
                _ => bail!("permission denied: it does not take this user for who it is"),
            }
        }
        if self.bus {
            self.call(BUS, "Hello", &[])?;
        }
        Ok(())
    }

    fn line(&mut self, deadline: Instant) -> Result<String> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|w| w == b"\r\n") {
                let line = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
                self.buffer.drain(..end + 2);
                return Ok(line);
            }
            self.fill(deadline)?;
        }
    }

    /// Reads what is there, waiting for something until the deadline.
    fn fill(&mut self, deadline: Instant) -> Result<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            bail!("no answer within {:?}", self.patience);
        }
        self.socket.set_read_timeout(Some(left))?;
        let mut chunk = [0u8; 4096];
        match self.socket.read(&mut chunk) {
            Ok(0) => bail!("the connection was closed"),
            Ok(n) => self.buffer.extend_from_slice(&chunk[..n]),
            Err(e)
                if [
                    ErrorKind::Interrupted,
                    ErrorKind::WouldBlock,
                    ErrorKind::TimedOut,
                ]
                .contains(&e.kind()) => {}
            Err(e) => return Err(failed(&e)),
        }
        Ok(())
    }

    /// Asks the bus for the signals of an interface; nothing to do where there is no bus.
    pub fn subscribe(&mut self, rule: &str) -> Result<()> {
        if self.bus {
            self.call(BUS, "AddMatch", &[Value::Str(rule.into())])?;
        }
        Ok(())
    }

    /// Calls a method and waits for its answer.
    pub fn call(&mut self, to: Target, method: &str, args: &[Value]) -> Result<Message> {
        self.serial += 1;
        let serial = self.serial;
        let destination = self.bus.then_some(to.destination);
        let message = encode(serial, to, destination, method, args);
        let sent = self.socket.write_all(&message).map_err(|e| failed(&e));
        sent.with_context(|| method.to_string())?;
        let deadline = Instant::now() + self.patience;
        loop {
            let m = self.receive(deadline).with_context(|| method.to_string())?;
            match m.kind {
                RETURN if m.reply_to == serial => return Ok(m),
                ERROR if m.reply_to == serial => {
                    let text = Reader::new(&m.body).string().unwrap_or_default();
                    return Err(Refused {
                        name: m.member,
                        text,
                    }
                    .into());
                }
                SIGNAL => self.signals.push(m),
                _ => {}
            }
        }
    }

    /// Waits for the next signal of this name that fits.
    pub fn signal(&mut self, name: &str, fits: impl Fn(&Message) -> bool) -> Result<Message> {
        let deadline = Instant::now() + self.patience;
        loop {
            while let Some(m) = (!self.signals.is_empty()).then(|| self.signals.remove(0)) {
                if m.member == name && fits(&m) {
                    return Ok(m);
                }
            }
            let m = self.receive(deadline)?;
            if m.kind == SIGNAL {
                self.signals.push(m);
            }
        }
    }

    fn receive(&mut self, deadline: Instant) -> Result<Message> {
        loop {
            if let Some(size) = whole(&self.buffer)?
                && self.buffer.len() >= size
            {
                let message = decode(&self.buffer[..size]);
                self.buffer.drain(..size);
                return message.context("an answer that is not D-Bus's");
            }
            self.fill(deadline)?;
        }
    }
}

/// std's errors say "(os error 2)"; husk's are the kernel's words alone.
fn failed(e: &std::io::Error) -> anyhow::Error {
    match e.raw_os_error() {
        Some(errno) => anyhow::anyhow!(crate::sys::errno_text(errno)),
        None => anyhow::anyhow!("{e}"),
    }
}

/// A message received: what is needed of it.
#[derive(Debug, Default, PartialEq)]
pub struct Message {
    kind: u8,
    reply_to: u32,
    /// The signal's name, or the error's.
    member: String,
    body: Vec<u8>,
}

impl Message {
    pub fn body(&self) -> Reader<'_> {
        Reader::new(&self.body)
    }
}

/// Reads values, each at its alignment. None: the message is too short, or not what it should be.
pub struct Reader<'a> {
    data: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn new(data: &'a [u8]) -> Self {
        Reader { data, at: 0 }
    }

    fn bytes(&mut self, n: usize) -> Option<&'a [u8]> {
        let bytes = self.data.get(self.at..self.at.checked_add(n)?)?;
        self.at += n;
        Some(bytes)
    }

    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn byte(&mut self) -> Option<u8> {
        self.bytes(1).map(|b| b[0])
    }

    pub fn u32(&mut self) -> Option<u32> {
        self.align(4);
        Some(u32::from_le_bytes(self.bytes(4)?.try_into().ok()?))
    }

    /// A string or an object's path.
    pub fn string(&mut self) -> Option<String> {
        let n = self.u32()? as usize;
        let text = String::from_utf8(self.bytes(n)?.into()).ok()?;
        self.bytes(1)?;
        Some(text)
    }

    fn signature(&mut self) -> Option<&'a [u8]> {
        let n = self.byte()?.into();
        let text = self.bytes(n)?;
        self.bytes(1)?;
        Some(text)
    }
}

/// How long the message is that begins here; None as long as that is not known.
fn whole(buffer: &[u8]) -> Result<Option<usize>> {
    if buffer.len() < 16 {
        return Ok(None);
    }
    if buffer[0] != b'l' || buffer[3] != 1 {
        bail!("an answer in another byte order or version of D-Bus");
    }
    let number =
        |at: usize| u32::from_le_bytes(buffer[at..at + 4].try_into().expect("4 bytes")) as usize;
    let size = (16 + number(12)).next_multiple_of(8) + number(4);
    if size > MAX_MESSAGE {
        bail!("an answer of {size} bytes");
    }
    Ok(Some(size))
}

fn decode(data: &[u8]) -> Option<Message> {
    let mut r = Reader::new(data);
    let kind = r.bytes(4)?[1];
    let body = r.u32()? as usize;
    r.u32()?; // its serial
    let fields = r.u32()? as usize;
    let end = r.at + fields;
    let mut m = Message {
        kind,
        ..Message::default()
    };
    while r.at < end {
        r.align(8);
        let field = r.byte()?;
        match r.signature()? {
            b"s" | b"o" => {
                let text = r.string()?;
                if field == MEMBER || field == ERROR_NAME {
                    m.member = text;
                }
            }
            b"u" => {
                let n = r.u32()?;
                if field == REPLY_SERIAL {
                    m.reply_to = n;
                }
            }
            b"g" => _ = r.signature()?,
            _ => return None,
        }
    }
    r.align(8);
    m.body = r.bytes(body)?.into();
    Some(m)
}

fn encode(
    serial: u32,
    to: Target,
    destination: Option<&str>,
    method: &str,
    args: &[Value],
) -> Vec<u8> {
    let mut body = Writer::default();
    let mut signature = String::new();
    for arg in args {
        signature += &arg.signature();
        body.value(arg);
    }
    let mut w = Writer::default();
    w.0.extend([b'l', CALL, 0, 1]);
    w.u32(body.0.len() as u32);
    w.u32(serial);
    w.u32(0); // the fields' length
    let start = w.0.len();
    let texts = [
        (PATH, "o", Some(to.path)),
        (INTERFACE, "s", Some(to.interface)),
        (MEMBER, "s", Some(method)),
        (DESTINATION, "s", destination),
        (
            SIGNATURE,
            "g",
            Some(signature.as_str()).filter(|s| !s.is_empty()),
        ),
    ];
    for (field, kind, text) in texts {
        let Some(text) = text else { continue };
        w.align(8);
        w.0.push(field);
        w.signature(kind);
        match kind {
            "g" => w.signature(text),
            _ => w.string(text),
        }
    }
    let length = (w.0.len() - start) as u32;
    w.0[start - 4..start].copy_from_slice(&length.to_le_bytes());
    w.align(8);
    w.0.extend(body.0);
    w.0
}

#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn u32(&mut self, n: u32) {
        self.align(4);
        self.0.extend(n.to_le_bytes());
    }

    fn string(&mut self, text: &str) {
        self.u32(text.len() as u32);
        self.0.extend(text.bytes());
        self.0.push(0);
    }

    fn signature(&mut self, text: &str) {
        self.0.push(text.len() as u8);
        self.0.extend(text.bytes());
        self.0.push(0);
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Bool(b) => self.u32(u32::from(*b)),
            Value::Byte(n) => self.0.push(*n),
            Value::I16(n) => self.number(&n.to_le_bytes()),
            Value::U16(n) => self.number(&n.to_le_bytes()),
            Value::I32(n) => self.number(&n.to_le_bytes()),
            Value::U32(n) => self.u32(*n),
            Value::I64(n) => self.number(&n.to_le_bytes()),
            Value::U64(n) => self.number(&n.to_le_bytes()),
            Value::Double(n) => self.number(&n.to_le_bytes()),
            Value::Str(text) => self.string(text),
            Value::Array(of, items) => {
                self.u32(0);
                let length = self.0.len() - 4;
                self.align(alignment(of));
                let start = self.0.len();
                for item in items {
                    self.value(item);
                }
                let size = (self.0.len() - start) as u32;
                self.0[length..length + 4].copy_from_slice(&size.to_le_bytes());
            }
            Value::Struct(fields) => {
                self.align(8);
                for field in fields {
                    self.value(field);
                }
            }
            Value::Variant(inner) => {
                self.signature(&inner.signature());
                self.value(inner);
            }
        }
    }

    /// Aligned to its size.
    fn number(&mut self, bytes: &[u8]) {
        self.align(bytes.len());
        self.0.extend(bytes);
    }
}

fn alignment(signature: &str) -> usize {
    match signature.as_bytes().first() {
        Some(b'y' | b'v' | b'g') => 1,
        Some(b'n' | b'q') => 2,
        Some(b'x' | b't' | b'd' | b'(') => 8,
        _ => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn addresses() {
        let path = |p: &str| Some(Address(p.into()));
        for (text, want) in [
            ("unix:path=/run/user/1000/bus", path("/run/user/1000/bus")),
            ("tcp:host=x;unix:guid=5,path=/a%20b", path("/a b")),
            ("unix:abstract=/tmp/x,guid=1", path("@/tmp/x")),
            ("unix:tmpdir=/tmp", None),
            ("", None),
        ] {
            assert_eq!(Address::parse(text), want, "{text}");
        }
    }

    /// A systemd that hangs, or is being stopped by a debugger.
    #[test]
    fn nobody_is_waited_for_without_end() {
        let dir = tempfile::tempdir().unwrap();
        let address = Address(dir.path().join("silent"));
        let patience = Duration::from_millis(50);
        let open = || Connection::open(&address, false, Some(0), patience).map(drop);
        let failure = || format!("{:#}", open().unwrap_err());
        let listener = UnixListener::bind(&address.0).unwrap();
        assert!(failure().ends_with("silent': no answer within 50ms"));
        // one that lets us in and does not answer the call
        drop(listener.accept());
        let server = std::thread::spawn(move || {
            let mut c = listener.accept().unwrap().0;
            c.write_all(b"OK 00\r\n").unwrap();
            std::thread::sleep(Duration::from_millis(500));
        });
        let mut c = Connection::open(&address, false, Some(0), patience).unwrap();
        let to = Target {
            destination: "d",
            path: "/p",
            interface: "i",
        };
        let failure = c.call(to, "Ping", &[]).unwrap_err();
        assert_eq!(format!("{failure:#}"), "Ping: no answer within 50ms");
        server.join().unwrap();
    }

    /// The same message as `busctl` makes.
    #[test]
    fn a_call_as_bytes() {
        let to = Target {
            destination: "d",
            path: "/p",
            interface: "i",
        };
        let args = [Value::Str("x".into()), Value::Array("(st)".into(), vec![])];
        let bytes = encode(7, to, None, "M", &args);
        let want = b"l\x01\0\x01\x10\0\0\0\x07\0\0\0\x3c\0\0\0\
            \x01\x01o\0\x02\0\0\0/p\0\0\0\0\0\0\
            \x02\x01s\0\x01\0\0\0i\0\0\0\0\0\0\0\
            \x03\x01s\0\x01\0\0\0M\0\0\0\0\0\0\0\
            \x08\x01g\0\x06sa(st)\0\0\0\0\0\
            \x01\0\0\0x\0\0\0\0\0\0\0\0\0\0\0";
        let text = |b: &[u8]| b.escape_ascii().to_string();
        assert_eq!(text(&bytes), text(want));
    }

    #[test]
    fn values_are_aligned() {
        let mut w = Writer::default();
        w.value(&Value::Byte(1));
        w.value(&Value::U64(2));
        w.value(&Value::Variant(Box::new(Value::Bool(true))));
        assert_eq!(
            w.0,
            b"\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x01b\0\0\x01\0\0\0"
        );
    }

    #[test]
    fn messages_are_read_back() {
        let to = Target {
            destination: "d.e",
            path: "/p",
            interface: "i.j",
        };
        let bytes = encode(
            3,
            to,
            Some("d.e"),
            "Member",
            &[Value::U32(9), Value::Str("text".into())],
        );
        assert_eq!(whole(&bytes[..15]).unwrap(), None);
        assert_eq!(whole(&bytes).unwrap(), Some(bytes.len()));
        let m = decode(&bytes).unwrap();
        assert_eq!((m.kind, m.member.as_str()), (CALL, "Member"));
        let mut body = m.body();
        assert_eq!((body.u32(), body.string()), (Some(9), Some("text".into())));
        assert_eq!(body.u32(), None);
        for short in 16..bytes.len() {
            assert!(decode(&bytes[..short]).is_none());
        }
        assert!(whole(b"B\x01\0\x01\0\0\0\0\0\0\0\0\0\0\0\0").is_err());
        assert!(whole(b"l\x01\0\x01\0\0\0\x10\0\0\0\0\0\0\0\0").is_err());
    }
}
