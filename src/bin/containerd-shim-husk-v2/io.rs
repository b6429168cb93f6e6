//! Standard streams. Between a process and containerd's fifos there is a pipe or a terminal of its own: a container gets no file
//! of the host's, and outlives whoever reads.

use crate::runtime::Options;
use crate::task::Stdio;
use anyhow::{Context, Result, anyhow, bail};
use husk::sys::errno::EAGAIN;
use husk::sys::fs::{self, O_APPEND, O_CREAT, O_NONBLOCK, O_RDONLY, O_RDWR, O_WRONLY};
use husk::sys::process::{self, POLLIN, POLLOUT};
use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio as Source};
use std::rc::Rc;

/// What moves in one read: as much as a pipe holds.
const CHUNK: usize = 64 * 1024;
/// Reads of one stream before another gets its turn.
const TURNS: usize = 8;

/// One direction of a stream.
pub struct Copy {
    /// The serial of the process.
    pub owner: u64,
    /// From the process, rather than to it.
    pub output: bool,
    from: Rc<OwnedFd>,
    /// None: nobody takes it any more, and it is thrown away, for the process must not wait for ever.
    to: Option<Rc<OwnedFd>>,
    pending: Vec<u8>,
}

impl Copy {
    /// What to wait for.
    pub fn poll(&self) -> (BorrowedFd<'_>, i16) {
        match &self.to {
            Some(to) if !self.pending.is_empty() => ((**to).as_fd(), POLLOUT),
            _ => ((*self.from).as_fd(), POLLIN),
        }
    }

    /// Moves what can be moved. False: it has come to its end, and is to be dropped.
    pub fn step(&mut self, buf: &mut [u8]) -> bool {
        for _ in 0..TURNS {
            if !self.pending.is_empty() {
                let pending = std::mem::take(&mut self.pending);
                self.write(&pending);
                if !self.pending.is_empty() {
                    return true;
                }
            }
            match fs::read((*self.from).as_fd(), buf) {
                Ok(0) => return false,
                Ok(n) => self.write(&buf[..n]),
                Err(e) => return e.errno() == EAGAIN, // EIO: nobody has the terminal
            }
            if self.to.is_none() && !self.output {
                return false; // the process has closed its stdin
            }
        }
        true
    }

    fn write(&mut self, mut data: &[u8]) {
        let Some(to) = &self.to else { return };
        while !data.is_empty() {
            match fs::write_some((**to).as_fd(), data) {
                Ok(n) => data = &data[n..],
                Err(e) if e.errno() == EAGAIN => {
                    self.pending = data.to_vec();
                    return;
                }
                Err(e) => {
                    if self.output {
                        husk::log::warn(format_args!("write output: {e}; the rest is dropped"));
                    }
                    self.to = None;
                    return;
                }
            }
        }
    }
}

pub fn buffer() -> Vec<u8> {
    vec![0; CHUNK]
}

/// A program that takes the output, as nerdctl has one.
pub struct Logger {
    pub pid: i32,
    /// It closes this, or writes a byte, once it is ready.
    pub ready: OwnedFd,
    /// Of `binary-v2`: without the byte it is not.
    pub strict: bool,
}

/// The streams of one process before it is made.
pub struct Io {
    /// The serial of the process.
    pub owner: u64,
    /// For the process, unless it has a terminal.
    streams: Option<[Option<OwnedFd>; 3]>,
    pub copies: Vec<Copy>,
    pub keeper: Option<OwnedFd>,
    pub logger: Option<Logger>,
    terminal_in: Option<OwnedFd>,
    terminal_out: Option<OwnedFd>,
}

impl Io {
    pub fn open(
        owner: u64,
        stdio: &Stdio,
        options: &Options,
        namespace: &str,
        id: &str,
    ) -> Result<Io> {
        let mut io = Io {
            owner,
            streams: None,
            copies: Vec::new(),
            keeper: None,
            logger: None,
            terminal_in: None,
            terminal_out: None,
        };
        let stdin = if stdio.stdin.is_empty() {
            None
        } else {
            let path = Path::new(&stdio.stdin);
            let fifo =
                fs::open(path, O_RDONLY | O_NONBLOCK, 0).context("open the fifo of stdin")?;
            let keeper = fs::open(path, O_WRONLY | O_NONBLOCK, 0);
            io.keeper = Some(keeper.context("open the fifo of stdin")?);
            Some(fifo)
        };
        let output = Output::parse(&stdio.stdout)?;
        if stdio.terminal {
            io.terminal_in = stdin;
            io.terminal_out = match output {
                Output::Nowhere => None,
                Output::Fifo(path) => Some(open_fifo(&path)?),
                Output::File(path) => Some(open_file(&path)?),
                Output::Program { .. } => {
                    let [(out, writer), (err, _)] = [pipe()?, pipe()?];
                    io.logger = Some(start_logger(&output, out, err, namespace, id)?);
                    Some(writer)
                }
            };
            return Ok(io);
        }
        let mut streams = [None, None, None];
        if let Some(fifo) = stdin {
            let (reader, writer) = pipe()?;
            streams[0] = Some(reader);
            io.copy(fifo, writer, false)?;
        }
        match output {
            Output::Program { .. } => {
                let [(out, out_writer), (err, err_writer)] = [pipe()?, pipe()?];
                streams[1] = Some(out_writer);
                streams[2] = Some(err_writer);
                io.logger = Some(start_logger(&output, out, err, namespace, id)?);
            }
            Output::File(path) => {
                for stream in &mut streams[1..] {
                    let (reader, writer) = pipe()?;
                    *stream = Some(writer);
                    io.copy(reader, open_file(&path)?, true)?;
                }
            }
            Output::Nowhere | Output::Fifo(_) => {
                let names = [&stdio.stdout, &stdio.stderr];
                for (stream, name) in streams[1..].iter_mut().zip(names) {
                    let Output::Fifo(path) = Output::parse(name)? else {
                        continue;
                    };
                    let (reader, writer) = pipe()?;
                    *stream = Some(writer);
                    io.copy(reader, open_fifo(&path)?, true)?;
                }
            }
        }
        if (options.io_uid, options.io_gid) != (0, 0) {
            for stream in streams.iter().flatten() {
                fs::chownat(stream.as_fd(), c"", options.io_uid, options.io_gid)
                    .context("give the streams to IoUid and IoGid")?;
            }
        }
        io.streams = Some(streams);
        Ok(io)
    }

    /// Gives the process's ends to a command that hands its own streams on.
    pub fn give(&mut self, command: &mut Command) {
        let [stdin, stdout, stderr] = self.streams.take().unwrap_or_default();
        let source = |fd: Option<OwnedFd>| fd.map_or_else(Source::null, Source::from);
        command
            .stdin(source(stdin))
            .stdout(source(stdout))
            .stderr(source(stderr));
    }

    /// Joins the terminal's master with what it was opened for.
    pub fn attach(&mut self, master: &Rc<OwnedFd>) -> Result<()> {
        fs::set_nonblocking((**master).as_fd())?;
        if let Some(fifo) = self.terminal_in.take() {
            self.push(Rc::new(fifo), Rc::clone(master), false);
        }
        let sink = match self.terminal_out.take() {
            Some(sink) => sink,
            None => fs::open("/dev/null", O_WRONLY, 0)?,
        };
        fs::set_nonblocking(sink.as_fd())?;
        self.push(Rc::clone(master), Rc::new(sink), true);
        Ok(())
    }

    fn copy(&mut self, from: OwnedFd, to: OwnedFd, output: bool) -> Result<()> {
        // for our end of a pipe alone: each end is an open file of its own
        fs::set_nonblocking(from.as_fd())?;
        fs::set_nonblocking(to.as_fd())?;
        self.push(Rc::new(from), Rc::new(to), output);
        Ok(())
    }

    fn push(&mut self, from: Rc<OwnedFd>, to: Rc<OwnedFd>, output: bool) {
        self.copies.push(Copy {
            owner: self.owner,
            output,
            from,
            to: Some(to),
            pending: Vec::new(),
        });
    }
}

/// Streams that could not be made have no use for a logger; it has not been reaped, since nobody else knows of it yet.
impl Drop for Io {
    fn drop(&mut self) {
        if let Some(logger) = &self.logger {
            let _ = process::kill(logger.pid, process::SIGKILL);
        }
    }
}

/// Opened for both, a fifo waits for nobody and never breaks when its reader goes away: containerd may be restarted.
fn open_fifo(path: &Path) -> Result<OwnedFd> {
    fs::open(path, O_RDWR | O_NONBLOCK, 0).context("open a fifo for output")
}

fn open_file(path: &Path) -> Result<OwnedFd> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).with_context(|| format!("make '{}'", dir.display()))?;
    }
    Ok(fs::open(path, O_WRONLY | O_APPEND | O_CREAT, 0o644)?)
}

/// The reading and the writing end.
fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = std::io::pipe().context("make a pipe")?;
    Ok((reader.into(), writer.into()))
}

#[derive(Debug, PartialEq, Eq)]
enum Output {
    Nowhere,
    Fifo(PathBuf),
    File(PathBuf),
    Program {
        path: PathBuf,
        arguments: Vec<OsString>,
        strict: bool,
    },
}

impl Output {
    fn parse(uri: &str) -> Result<Output> {
        let Some((scheme, rest)) = uri.split_once("://") else {
            return Ok(match uri {
                "" => Output::Nowhere,
                path => Output::Fifo(path.into()),
            });
        };
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let path = PathBuf::from(decoded(path));
        Ok(match scheme {
            "fifo" => Output::Fifo(path),
            "file" => Output::File(path),
            "binary" | "binary-v2" => {
                let pairs = query.split('&').filter(|pair| !pair.is_empty());
                let arguments = pairs.flat_map(|pair| {
                    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                    [key, value].map(|s| decoded(&s.replace('+', " ")))
                });
                Output::Program {
                    path,
                    arguments: arguments.collect(),
                    strict: scheme == "binary-v2",
                }
            }
            _ => {
                bail!("unknown scheme '{scheme}' of '{uri}'; it is fifo, file, binary or binary-v2")
            }
        })
    }
}

/// `%41` is an A.
fn decoded(text: &str) -> OsString {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = (bytes[at] == b'%')
            .then(|| text.get(at + 1..at + 3))
            .flatten();
        if let Some(byte) = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            out.push(byte);
            at += 3;
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    OsString::from_vec(out)
}

/// The protocol of containerd's logging packages: descriptors 3 and 4 are the output, 5 is closed when it may begin.
fn start_logger(
    output: &Output,
    out: OwnedFd,
    err: OwnedFd,
    namespace: &str,
    id: &str,
) -> Result<Logger> {
    let Output::Program {
        path,
        arguments,
        strict,
    } = output
    else {
        unreachable!("only a program is started");
    };
    let (ready, writer) = pipe()?;
    let mut command = Command::new(path);
    command
        .args(arguments)
        .env_clear()
        .env("CONTAINER_ID", id)
        .env("CONTAINER_NAMESPACE", namespace)
        .stdin(Source::null())
        .stdout(Source::null())
        .stderr(Source::null());
    process::unblock_signals(&mut command);
    process::limit_files(&mut command);
    process::pass_fds(&mut command, vec![out, err, writer]);
    let child = command.spawn().map_err(|e| {
        let cause = e.raw_os_error().map(husk::sys::errno_text);
        anyhow!(
            "start logger '{}': {}",
            path.display(),
            cause.unwrap_or_else(|| e.to_string())
        )
    })?;
    Ok(Logger {
        pid: child.id() as i32,
        ready,
        strict: *strict,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn outputs_are_paths_or_uris() {
        assert_eq!(Output::parse("").unwrap(), Output::Nowhere);
        assert_eq!(
            Output::parse("/run/f").unwrap(),
            Output::Fifo("/run/f".into())
        );
        assert_eq!(
            Output::parse("file:///var/log/a%20b").unwrap(),
            Output::File("/var/log/a b".into())
        );
        assert_eq!(
            Output::parse("binary:///bin/log?mode=json&x=%2Ftmp").unwrap(),
            Output::Program {
                path: "/bin/log".into(),
                arguments: ["mode", "json", "x", "/tmp"].map(OsString::from).to_vec(),
                strict: false
            }
        );
        let e = Output::parse("npipe://x").unwrap_err().to_string();
        assert!(e.starts_with("unknown scheme 'npipe'"), "{e}");
    }

    #[test]
    fn a_copy_waits_for_the_reader_and_loses_nothing() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let (mut sink, target) = std::io::pipe().unwrap();
        let mut io = Io::open(1, &Stdio::default(), &Options::default(), "n", "i").unwrap();
        io.copy(reader.into(), target.into(), true).unwrap();
        let mut copy = io.copies.pop().unwrap();
        let mut buf = buffer();
        writer.write_all(&[1; 40_000]).unwrap();
        assert!(copy.step(&mut buf));
        writer.write_all(&[2; 40_000]).unwrap();
        assert!(copy.step(&mut buf));
        assert_eq!(copy.poll().1, POLLOUT);
        drop(writer);
        let mut got = vec![0; 50_000];
        sink.read_exact(&mut got).unwrap();
        assert!(!copy.step(&mut buf));
        drop(copy);
        sink.read_to_end(&mut got).unwrap();
        assert_eq!(got.len(), 80_000);
        assert!(got.iter().filter(|b| **b == 2).count() == 40_000);
    }
}
