//! The loop: one poll(2) over everything that may become ready, and what is to be done then.

use crate::args::Flags;
use crate::events::Publisher;
use crate::io::{self, Copy, Logger};
use crate::runtime::Runtime;
use crate::task::{Container, Exit};
use crate::ttrpc::{Answer, Connection, Failure, Reply};
use anyhow::{Context, Result};
use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::ttrpc::proto::MESSAGE_TYPE_REQUEST;
use containerd_shim_protos::ttrpc::{Code, Request};
use husk::log;
use husk::sys::errno::EAGAIN;
use husk::sys::fs::O_RDONLY;
use husk::sys::process::{POLLIN, POLLPRI, SIGKILL};
use husk::sys::signal::{SIGCHLD, SIGINT, SIGTERM, Signals};
use husk::sys::{fs, process, socket};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// For the last events once containerd has asked the shim to leave.
const FAREWELL: Duration = Duration::from_secs(5);

/// For a logger that has got the end of its input.
const LOGGER_END: Duration = Duration::from_secs(10);

/// Between two tries to accept a connection, when descriptors or memory are short.
const BREATH: Duration = Duration::from_millis(500);

/// What a finished command leads to: it gets what that has printed.
pub type Then = Box<dyn FnOnce(&mut Shim, Answer<Vec<u8>>)>;
/// What a moment leads to.
pub type Later = Box<dyn FnOnce(&mut Shim)>;

/// What a descriptor that has become readable leads to.
pub type Ready = Box<dyn FnOnce(&mut Shim, OwnedFd)>;

/// A runtime's command under way.
struct Job {
    runtime: Runtime,
    log_size: u64,
    output: Option<File>,
    then: Then,
}

/// Something that waits for a descriptor to become readable.
pub struct Parked {
    /// The process that is not made until then.
    pub owner: u64,
    pub fd: OwnedFd,
    pub then: Ready,
}

/// Something that waits for the last output of a process, but not for ever.
struct Drain {
    owner: u64,
    until: Instant,
    then: Later,
}

pub struct Shim {
    pub namespace: String,
    pub containers: BTreeMap<String, Container>,
    pub copies: BTreeMap<u64, Copy>,
    pub publisher: Publisher,
    pub parked: BTreeMap<u64, Parked>,
    listener: OwnedFd,
    /// Not while there is nothing to accept a connection with.
    accepting: bool,
    signals: Signals,
    connections: BTreeMap<u64, Connection>,
    jobs: HashMap<i32, Job>,
    drains: Vec<Drain>,
    timers: Vec<(Instant, Later)>,
    /// Loggers that run, and whose output each takes.
    loggers: BTreeMap<i32, u64>,
    /// Ends of processes that nobody knows yet: a runtime's command under way may tell whose they are.
    strays: BTreeMap<i32, Exit>,
    serial: u64,
    /// As soon as what is being made has been given up.
    pub leaving: bool,
    stop: Option<Instant>,
}

#[derive(Clone)]
enum Source {
    Signals,
    Listener,
    Publisher,
    Connection(u64),
    Copy(u64),
    Parked(u64),
    Memory(String),
}

/// The long-lived shim: it listens on descriptor 0, which `start` has given to it.
pub fn serve(flags: &Flags) -> Result<()> {
    let level = if flags.debug {
        log::Level::Debug
    } else {
        log::Level::Warning
    };
    log::init(None, log::Format::Text, level)?;
    let listener = fs::standard(0).try_clone_to_owned()?;
    fs::set_nonblocking(listener.as_fd())?;
    // the runtime's commands without a stdin of their own inherit this one
    process::dup_onto(fs::open("/dev/null", O_RDONLY, 0)?.as_fd(), 0)?;
    process::raise_file_limit()?;
    process::set_subreaper()?;
    fs::chdir("/")?; // the bundle is not to be held
    let address = std::env::var("TTRPC_ADDRESS").ok();
    let mut shim = Shim {
        namespace: flags.namespace.clone(),
        containers: BTreeMap::new(),
        copies: BTreeMap::new(),
        publisher: Publisher::new(&flags.namespace, address),
        parked: BTreeMap::new(),
        listener,
        accepting: true,
        signals: Signals::catch()?,
        connections: BTreeMap::new(),
        jobs: HashMap::new(),
        drains: Vec::new(),
        timers: Vec::new(),
        loggers: BTreeMap::new(),
        strays: BTreeMap::new(),
        serial: 0,
        leaving: false,
        stop: None,
    };
    let result = shim.run();
    if shim.stop.is_none() {
        shim.hide();
    }
    result
}

impl Shim {
    fn run(&mut self) -> Result<()> {
        let mut buf = None;
        while !self.is_done() {
            let ready = self.wait().context("wait for something to do")?;
            for (source, events) in ready {
                if events != 0 {
                    self.handle(source, &mut buf)?;
                }
            }
            self.finish_drains();
            self.tick();
        }
        Ok(())
    }

    fn is_done(&self) -> bool {
        let flushed = || self.connections.values().all(Connection::is_flushed);
        self.stop
            .is_some_and(|until| (self.publisher.is_idle() && flushed()) || until <= Instant::now())
    }

    /// It leaves when its last words are said. Before it answers nobody finds it any more: containerd may start another for the same
    /// container at once, which would take this one for its own.
    pub fn stop(&mut self) {
        if self.stop.is_none() {
            self.hide();
            self.stop = Some(Instant::now() + FAREWELL);
        }
    }

    /// Once only: the next shim has the same path.
    fn hide(&self) {
        if let Ok(Some(path)) = socket::own_path(self.listener.as_fd()) {
            let _ = std::fs::remove_file(path);
        }
    }

    fn wait(&self) -> husk::sys::Result<Vec<(Source, i16)>> {
        let mut sources = Vec::with_capacity(8);
        let mut set: Vec<(BorrowedFd, i16)> = Vec::with_capacity(8);
        let mut add = |source, (fd, events): (_, i16)| {
            sources.push(source);
            set.push((fd, events));
        };
        // first: a kill for want of memory is to be known before the end that it causes
        for (id, container) in &self.containers {
            if let Some(events) = &container.memory_events {
                add(Source::Memory(id.clone()), (events.as_fd(), POLLPRI));
            }
        }
        add(Source::Signals, (self.signals.fd(), POLLIN));
        if self.accepting {
            add(Source::Listener, (self.listener.as_fd(), POLLIN));
        }
        if let Some(poll) = self.publisher.poll() {
            add(Source::Publisher, poll);
        }
        for (id, connection) in &self.connections {
            add(
                Source::Connection(*id),
                (connection.fd(), connection.wants()),
            );
        }
        for (key, copy) in &self.copies {
            add(Source::Copy(*key), copy.poll());
        }
        for (key, parked) in &self.parked {
            add(Source::Parked(*key), (parked.fd.as_fd(), POLLIN));
        }
        let limit = self
            .next_deadline()
            .map(|t| t.saturating_duration_since(Instant::now()));
        let events = process::poll(&set, limit)?;
        Ok(sources.into_iter().zip(events).collect())
    }

    fn next_deadline(&self) -> Option<Instant> {
        let drains = self.drains.iter().map(|d| d.until);
        let timers = self.timers.iter().map(|t| t.0);
        drains
            .chain(timers)
            .chain(self.publisher.deadline())
            .chain(self.stop)
            .min()
    }

    /// Anything may have gone by the time its turn comes.
    fn handle(&mut self, source: Source, buf: &mut Option<Vec<u8>>) -> Result<()> {
        match source {
            Source::Signals => self.take_signals()?,
            Source::Listener => self.accept(),
            Source::Publisher => self.publisher.step(),
            Source::Connection(id) => self.serve_connection(id),
            Source::Memory(id) => self.check_memory(&id),
            Source::Copy(key) => {
                // a shim whose containers say nothing needs none
                let buf = buf.get_or_insert_with(io::buffer);
                if self.copies.get_mut(&key).is_some_and(|c| !c.step(buf)) {
                    self.copies.remove(&key);
                }
            }
            Source::Parked(key) => {
                if let Some(parked) = self.parked.remove(&key) {
                    (parked.then)(self, parked.fd);
                }
            }
        }
        Ok(())
    }

    fn take_signals(&mut self) -> Result<()> {
        while let Some(signal) = self.signals.next()? {
            match signal {
                SIGCHLD => self.reap(),
                SIGTERM | SIGINT => self.stop(),
                _ => {}
            }
        }
        Ok(())
    }

    /// Ends of processes come before what the runtime's commands lead to, which may ask for them.
    fn reap(&mut self) {
        let mut finished = Vec::new();
        while let Some((pid, end)) = process::wait_any() {
            if self.jobs.contains_key(&pid) {
                finished.push((pid, end));
                continue;
            }
            let exit = Exit::now(end.code() as u32);
            if self.process_ended(pid, exit.clone()) {
                continue;
            }
            if self.loggers.remove(&pid).is_some() {
                log::debug(format_args!("logger {pid} {end}"));
            } else if !self.jobs.is_empty() {
                self.strays.insert(pid, exit);
            }
        }
        for (pid, end) in finished {
            let Some(job) = self.jobs.remove(&pid) else {
                continue;
            };
            let printed = job.output.map(|f| read_back(&f)).unwrap_or_default();
            let result = if end.code() == 0 {
                Ok(printed)
            } else {
                let words = job.runtime.last_words(job.log_size).unwrap_or_else(|| {
                    let said = String::from_utf8_lossy(&printed);
                    match said.trim() {
                        "" => format!("'{}' {end}", job.runtime.binary().display()),
                        said => said.into(),
                    }
                });
                Err(Failure::new(Code::UNKNOWN, words))
            };
            (job.then)(self, result);
        }
        if self.jobs.is_empty() {
            self.strays.clear();
        }
    }

    pub fn take_stray(&mut self, pid: i32) -> Option<Exit> {
        self.strays.remove(&pid)
    }

    /// Executes a command of the runtime. `streams` are its own already; else what it prints is kept for `then`.
    pub fn spawn(
        &mut self,
        runtime: &Runtime,
        command: Command,
        streams: bool,
        then: Then,
    ) -> Answer<()> {
        self.execute(runtime, command, streams, then).map(drop)
    }

    /// The same, and gives the pid, which is the command's own until `then`.
    pub fn execute(
        &mut self,
        runtime: &Runtime,
        mut command: Command,
        streams: bool,
        then: Then,
    ) -> Answer<i32> {
        let output = if streams {
            None
        } else {
            let file = File::from(fs::memfd(c"output")?);
            let clone = || file.try_clone().map_err(anyhow::Error::from);
            command.stdout(clone()?).stderr(clone()?);
            Some(file)
        };
        let log_size = runtime.log_size();
        log::debug(format_args!("execute {command:?}"));
        let child = command.spawn().map_err(|e| {
            let cause = e.raw_os_error().map(husk::sys::errno_text);
            let cause = cause.unwrap_or_else(|| e.to_string());
            Failure::new(
                Code::UNKNOWN,
                format!(
                    "execute '{}': {cause}; set BinaryName to the runtime's path",
                    runtime.binary().display()
                ),
            )
        })?;
        let job = Job {
            runtime: runtime.clone(),
            log_size,
            output,
            then,
        };
        let pid = child.id() as i32;
        self.jobs.insert(pid, job);
        Ok(pid)
    }

    fn accept(&mut self) {
        loop {
            let connection = match socket::accept(self.listener.as_fd()) {
                Ok(fd) => match socket::peer_uid(fd.as_fd()) {
                    Ok(uid) if uid == process::euid() => Connection::new(fd),
                    _ => continue,
                },
                Err(e) if e.errno() == EAGAIN => return,
                Err(e) => {
                    log::warn(format_args!("accept a connection: {e}"));
                    self.accepting = false;
                    return self.later(BREATH, |shim| shim.accepting = true);
                }
            };
            if let Ok(connection) = connection {
                let id = self.next_serial();
                self.connections.insert(id, connection);
            }
        }
    }

    fn serve_connection(&mut self, id: u64) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        connection.send();
        let mut alive = connection.receive();
        while let Some(connection) = self.connections.get_mut(&id) {
            match connection.next() {
                Ok(Some(frame)) if frame.kind == MESSAGE_TYPE_REQUEST => {
                    let reply = Reply {
                        connection: id,
                        stream: frame.stream,
                    };
                    match Request::parse_from_bytes(&frame.payload) {
                        Ok(request) => self.dispatch(request, reply),
                        Err(e) => {
                            let e = Failure::new(Code::INVALID_ARGUMENT, format!("request: {e}"));
                            self.respond(reply, Err(e));
                        }
                    }
                }
                Ok(Some(_)) => {} // no method here streams
                Ok(None) => break,
                Err(e) => {
                    log::warn(format_args!(
                        "read a request: {e}; the connection is closed"
                    ));
                    alive = false;
                    break;
                }
            }
        }
        if !alive {
            self.connections.remove(&id);
        }
    }

    pub fn respond(&mut self, reply: Reply, result: Answer<Vec<u8>>) {
        if let Some(connection) = self.connections.get_mut(&reply.connection) {
            connection.respond(reply.stream, result);
        }
    }

    pub fn answer<M: Message>(&mut self, reply: Reply, result: Answer<M>) {
        let bytes = result.and_then(|message| {
            let bytes = message.write_to_bytes();
            bytes.map_err(|e| Failure::new(Code::INTERNAL, format!("encode a response: {e}")))
        });
        self.respond(reply, bytes);
    }

    pub fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    pub fn add_copies(&mut self, copies: Vec<Copy>) {
        for copy in copies {
            let key = self.next_serial();
            self.copies.insert(key, copy);
        }
    }

    pub fn drop_copies(&mut self, owner: u64, which: impl Fn(&Copy) -> bool) {
        self.copies.retain(|_, c| c.owner != owner || !which(c));
    }

    /// Goes on when all output of a process has been written, or the time is up.
    pub fn drain(&mut self, owner: u64, limit: Duration, then: Later) {
        self.drains.push(Drain {
            owner,
            until: Instant::now() + limit,
            then,
        });
    }

    fn finish_drains(&mut self) {
        let now = Instant::now();
        let mut at = 0;
        while let Some(drain) = self.drains.get(at) {
            let owner = drain.owner;
            if drain.until > now && self.copies.values().any(|c| c.owner == owner && c.output) {
                at += 1;
                continue;
            }
            let drain = self.drains.remove(at);
            self.drop_copies(owner, |_| true);
            (drain.then)(self);
        }
    }

    /// Whether it has to say that it is ready, and where it does.
    pub fn add_logger(&mut self, logger: Logger, owner: u64) -> (bool, OwnedFd) {
        self.loggers.insert(logger.pid, owner);
        (logger.strict, logger.ready)
    }

    /// None: there is none, or it has ended.
    fn logger_of(&self, owner: u64) -> Option<i32> {
        let found = self.loggers.iter().find(|(_, o)| **o == owner);
        found.map(|(pid, _)| *pid)
    }

    /// The process was not made, and has no use for it.
    pub fn kill_logger(&mut self, owner: u64) {
        if let Some(pid) = self.logger_of(owner) {
            let _ = process::kill(pid, SIGKILL);
        }
    }

    /// Its input has come to an end, and so should it.
    pub fn end_logger(&mut self, owner: u64) {
        if self.logger_of(owner).is_none() {
            return;
        }
        self.later(LOGGER_END, move |shim| {
            if let Some(pid) = shim.logger_of(owner) {
                log::warn(format_args!("logger {pid} does not end with its input"));
                let _ = process::kill(pid, SIGTERM);
            }
        });
    }

    pub fn later(&mut self, delay: Duration, then: impl FnOnce(&mut Shim) + 'static) {
        self.timers.push((Instant::now() + delay, Box::new(then)));
    }

    fn tick(&mut self) {
        let now = Instant::now();
        self.publisher.tick(now);
        while let Some(at) = self.timers.iter().position(|t| t.0 <= now) {
            let (_, then) = self.timers.swap_remove(at);
            then(self);
        }
    }
}

/// All of a file that a child has written.
fn read_back(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; file.metadata().map_or(0, |m| m.len() as usize)];
    let n = file.read_at(&mut bytes, 0).unwrap_or(0);
    bytes.truncate(n);
    bytes
}

/// The path that a command is to be given for what only a descriptor is.
pub fn written(text: &[u8]) -> Result<File> {
    let file = File::from(fs::memfd(c"input")?);
    file.write_all_at(text, 0)?;
    Ok(file)
}

/// For a socket within a directory whose path may be too long for an address: by its descriptor it never is.
pub fn short_path(dir: &OwnedFd, name: &str) -> PathBuf {
    use std::os::fd::AsRawFd;
    format!("/proc/self/fd/{}/{name}", dir.as_raw_fd()).into()
}
