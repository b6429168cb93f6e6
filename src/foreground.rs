//! `run` and `exec` without --detach: husk stays until the process ends, passes signals on and relays its terminal.
//!
//! One thread: signals are read from a descriptor, and one poll(2) waits for all there is. In order: [`Foreground::begin`]
//! before the process is made, [`Foreground::attach`] before it runs, [`Foreground::wait`] once it does.

use crate::apply::notify::Proxy;
use crate::log;
use crate::sys::errno::{EAGAIN, EIO};
use crate::sys::fs::{CWD, O_NOCTTY, O_RDWR};
use crate::sys::process::{End, POLLERR, POLLHUP, POLLIN, POLLOUT};
use crate::sys::signal::{SIGCHLD, SIGPIPE, SIGURG, SIGWINCH, Signals};
use crate::sys::{self, tty};
use anyhow::{Context, Result};
use std::io::{stderr, stdin, stdout};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

pub struct Foreground {
    signals: Signals,
    relay: Option<Relay>,
    notify: Option<Proxy>,
}

impl Foreground {
    /// From here on signals wait to be passed on. Children must unblock all signals before they execute anything.
    ///
    /// A subreaper gets the orphans of the process as its own children, and reaps them.
    pub fn begin(subreaper: bool) -> Result<Foreground> {
        if subreaper {
            sys::process::set_subreaper()?;
        }
        Ok(Foreground {
            signals: Signals::catch()?,
            relay: None,
            notify: None,
        })
    }

    /// Takes the master of the process's terminal: gives it the size of husk's own, which goes into raw mode.
    pub fn attach(&mut self, master: OwnedFd) -> Result<()> {
        self.relay = Some(Relay::new(master).context("attach the terminal")?);
        Ok(())
    }

    /// Passes on, once, that the process is ready (sd_notify(3)). The process to watch is husk: it stays.
    pub fn relay_ready(&mut self, notify: Option<Proxy>) {
        self.notify = notify;
    }

    /// Returns how the process ended, after all of its output has been written. `pid` is a child. `at_end` is called first of all when a
    /// child has ended, which need not be that one.
    pub fn wait(mut self, pid: i32, pidfd: BorrowedFd, mut at_end: impl FnMut()) -> Result<End> {
        loop {
            self.wait_for_events()?;
            if let Some(notify) = &self.notify
                && notify.is_ready()?
            {
                notify.tell(sys::process::pid());
                self.notify = None;
            }
            while let Some(signal) = self.signals.next()? {
                match signal {
                    SIGCHLD => {
                        at_end();
                        if let Some(end) = reap(pid) {
                            self.drain();
                            return Ok(end);
                        }
                    }
                    SIGWINCH if self.relay.is_some() => self.resize(),
                    // what husk itself caused, and what Go's runtime sends around
                    SIGPIPE | SIGURG => {}
                    signal => forward(pidfd, signal),
                }
            }
        }
    }

    fn wait_for_events(&mut self) -> Result<()> {
        let mut set = vec![(self.signals.fd(), POLLIN)];
        set.extend(self.notify.as_ref().map(|notify| (notify.fd(), POLLIN)));
        match &mut self.relay {
            Some(relay) => relay.step(&set),
            None => sys::process::poll(&set, None).map(drop),
        }
        .context("wait for the process")
    }

    fn resize(&self) {
        if let Some(relay) = &self.relay {
            relay.resize();
        }
    }

    fn drain(&mut self) {
        if let Some(relay) = &mut self.relay {
            relay.drain();
        }
    }
}

/// Reaps everything that has ended; returns how the process itself did.
fn reap(pid: i32) -> Option<End> {
    let mut of_process = None;
    while let Some((ended, end)) = sys::process::wait_any() {
        if ended == pid {
            of_process = Some(end);
        }
    }
    of_process
}

/// The process may have ended in the same moment, which SIGCHLD will tell.
fn forward(pidfd: BorrowedFd, signal: i32) {
    if let Err(e) = sys::process::pidfd_send_signal(pidfd, signal) {
        log::debug(format_args!("pass a signal on: {e}"));
    }
}

/// Bytes that one write to a pipe takes without waiting once poll(2) has said that it is writable (PIPE_BUF).
const CHUNK: usize = 4096;

/// What goes between husk's stdin and stdout and the pty of the process.
struct Relay {
    master: OwnedFd,
    /// Kept open, so that the master does not report a hangup whenever the process happens to have closed its terminal.
    _slave: Option<OwnedFd>,
    host: Option<Host>,
    /// Read from stdin, not yet taken by the pty.
    input: Vec<u8>,
    /// Read from the pty, not yet written to stdout.
    output: Vec<u8>,
    stdin_open: bool,
    stdout_open: bool,
    master_open: bool,
}

impl Relay {
    fn new(master: OwnedFd) -> Result<Relay> {
        sys::fs::set_nonblocking(master.as_fd())?;
        // The terminal that the output ends up on does that already, and a pipe or file must not get "\r\n".
        tty::clear_onlcr(master.as_fd())?;
        let relay = Relay {
            _slave: tty::open_peer(master.as_fd()).ok(),
            host: Host::find()?,
            master,
            input: Vec::new(),
            output: Vec::new(),
            stdin_open: true,
            stdout_open: true,
            master_open: true,
        };
        relay.resize();
        Ok(relay)
    }

    /// Waits for bytes or for what else is in the set, and moves the bytes.
    fn step(&mut self, others: &[(BorrowedFd, i16)]) -> sys::Result<()> {
        let (stdin, stdout) = (stdin(), stdout());
        let want = |flag: bool, events: i16| if flag { events } else { 0 };
        let master = want(self.master_open && self.output.is_empty(), POLLIN)
            | want(self.master_open && !self.input.is_empty(), POLLOUT);
        let mut set = others.to_vec();
        let mut add = |fd, events| {
            if events == 0 {
                return None; // not even in the set: a hangup is reported unasked, again and again
            }
            set.push((fd, events));
            Some(set.len() - 1)
        };
        let at_master = add(self.master.as_fd(), master);
        let at_stdin = add(
            stdin.as_fd(),
            want(self.stdin_open && self.input.is_empty(), POLLIN),
        );
        let at_stdout = add(stdout.as_fd(), want(!self.output.is_empty(), POLLOUT));
        let events = sys::process::poll(&set, None)?;
        let ready = |at: Option<usize>| at.map_or(0, |i| events[i]);
        if ready(at_stdin) != 0 {
            self.read_stdin();
        }
        if ready(at_stdout) != 0 {
            self.write_output();
        }
        if ready(at_master) & POLLOUT != 0 {
            self.write_input();
        }
        if ready(at_master) & (POLLIN | POLLHUP | POLLERR) != 0 && self.output.is_empty() {
            self.read_master();
        }
        Ok(())
    }

    fn read_stdin(&mut self) {
        let mut buf = [0; CHUNK];
        match sys::fs::read(stdin().as_fd(), &mut buf) {
            Ok(n) if n > 0 => self.input.extend(&buf[..n]),
            Err(e) if e.errno() == EAGAIN => {}
            _ => self.stdin_open = false,
        }
    }

    fn write_input(&mut self) {
        match sys::fs::write_some(self.master.as_fd(), &self.input) {
            Ok(n) => drop(self.input.drain(..n)),
            Err(e) if e.errno() == EAGAIN => {}
            Err(_) => self.input.clear(),
        }
    }

    /// Whether there was something.
    fn read_master(&mut self) -> bool {
        let mut buf = [0; CHUNK];
        match sys::fs::read(self.master.as_fd(), &mut buf) {
            Ok(n) if n > 0 => {
                self.output.extend(&buf[..n]);
                true
            }
            Err(e) if e.errno() == EAGAIN => false,
            Err(e) if e.errno() == EIO => {
                self.master_open = false; // nobody has the slave
                false
            }
            _ => {
                self.master_open = false;
                false
            }
        }
    }

    /// With nobody left to read it, output is thrown away: the process must not wait for ever.
    fn write_output(&mut self) {
        if !self.stdout_open {
            return self.output.clear();
        }
        let chunk = &self.output[..self.output.len().min(CHUNK)];
        match sys::fs::write_some(stdout().as_fd(), chunk) {
            Ok(n) => drop(self.output.drain(..n)),
            Err(e) if e.errno() == EAGAIN => wait_writable(stdout().as_fd()),
            Err(_) => self.stdout_open = false,
        }
    }

    /// The process has ended: everything that it wrote can be read by now, since a read of the master waits for the kernel's
    /// work on its buffers. Others that still have the terminal are not waited for, however much they write.
    fn drain(&mut self) {
        const MORE_THAN_A_PTY_HOLDS: usize = 64 * 1024;
        let mut total = 0;
        loop {
            total += self.output.len();
            while !self.output.is_empty() {
                self.write_output();
            }
            if total > MORE_THAN_A_PTY_HOLDS || !self.read_master() {
                return;
            }
        }
    }

    /// A terminal whose size cannot be asked for is no reason to stop.
    fn resize(&self) {
        if let Some(host) = &self.host
            && let Err(e) = copy_size(host.tty.as_fd(), self.master.as_fd())
        {
            log::debug(format_args!("resize the terminal: {e}"));
        }
    }
}

fn copy_size(from: BorrowedFd, to: BorrowedFd) -> sys::Result<()> {
    tty::set_size(to, tty::size(from)?)
}

fn wait_writable(fd: BorrowedFd) {
    let _ = sys::process::poll(&[(fd, POLLOUT)], None);
}

/// husk's own terminal, in raw mode as long as this value lives.
struct Host {
    tty: OwnedFd,
    before: tty::Modes,
}

impl Host {
    /// The terminal that any of husk's standard descriptors is, else the controlling one; without one there is nothing to relay
    /// sizes from and no mode to change.
    fn find() -> Result<Option<Host>> {
        let (stderr, stdout, stdin) = (stderr(), stdout(), stdin());
        let standard = [stderr.as_fd(), stdout.as_fd(), stdin.as_fd()];
        let tty = match standard.into_iter().find(|fd| tty::is_terminal(*fd)) {
            Some(fd) => fd.try_clone_to_owned()?,
            None => match sys::fs::openat(CWD, "/dev/tty", O_RDWR | O_NOCTTY, 0) {
                Ok(fd) => fd,
                Err(_) => return Ok(None),
            },
        };
        let before = tty::set_raw(tty.as_fd())?;
        Ok(Some(Host { tty, before }))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = tty::restore(self.tty.as_fd(), &self.before);
    }
}
