//! sd_notify(3), passed on: husk's caller learns when the container's process is ready, and which process that is.

use crate::log;
use crate::plan::notify::{DIRECTORY, SOCKET};
use crate::sys::errno::{EAGAIN, ENOENT};
use crate::sys::process::{self, POLLIN};
use crate::sys::socket::{self, Kind};
use crate::sys::{Result, fs};
use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

/// The directory that a container sees, in its state directory.
pub fn make_directory(state: BorrowedFd) -> Result<()> {
    fs::mkdirat(state, DIRECTORY, 0o755)?;
    fs::fchmodat(state, DIRECTORY, 0o755) // whatever the umask
}

/// The container's socket, and that of husk's caller.
pub struct Proxy {
    inside: OwnedFd,
    caller: OsString,
}

impl Proxy {
    /// Makes the container's socket. None for a container that was made without a way to one.
    pub fn listen(state: BorrowedFd, caller: OsString) -> Result<Option<Proxy>> {
        let flags = fs::O_RDONLY | fs::O_DIRECTORY;
        let dir = match fs::openat(state, DIRECTORY, flags, 0) {
            Err(e) if e.errno() == ENOENT => return Ok(None),
            dir => dir?,
        };
        match fs::unlinkat(dir.as_fd(), SOCKET, false) {
            Err(e) if e.errno() != ENOENT => return Err(e),
            _ => {}
        }
        // by way of the descriptor: a socket's address holds only 107 bytes
        let path = format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd());
        let inside = socket::bind(path.as_ref(), Kind::Datagrams)?;
        fs::fchmodat(dir.as_fd(), SOCKET, 0o777)?; // whoever the process is
        fs::set_nonblocking(inside.as_fd())?;
        Ok(Some(Proxy { inside, caller }))
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.inside.as_fd()
    }

    /// Whether the process has said by now that it is ready. What else it says has no reader. One that never stops talking gets no more
    /// than its turn: the rest is there the next time.
    pub fn is_ready(&self) -> Result<bool> {
        const TURN: usize = 16;
        let mut buffer = [0; 4096];
        for _ in 0..TURN {
            let n = match fs::read(self.fd(), &mut buffer) {
                Err(e) if e.errno() == EAGAIN => return Ok(false),
                n => n?,
            };
            if is_ready(&buffer[..n]) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Waits until the process is ready or has ended, and passes that on; for a husk that then leaves. The container runs on whatever
    /// becomes of that.
    pub fn wait(&self, pid: i32, pidfd: BorrowedFd) {
        let told = || loop {
            let events = process::poll(&[(self.fd(), POLLIN), (pidfd, POLLIN)], None)?;
            if self.is_ready()? {
                return self
                    .tell(pid)
                    .map_or(Ok(()), |caller| barrier(caller.as_fd()));
            }
            if events[1] != 0 {
                return Ok(());
            }
        };
        let told: Result<()> = told();
        told.unwrap_or_else(|e| log::warn(format_args!("NOTIFY_SOCKET: {e}")));
    }

    /// Tells the caller that it is ready, and which process to watch. The container runs on whether or not anybody listens.
    pub fn tell(&self, pid: i32) -> Option<OwnedFd> {
        let connected = socket::connect(Path::new(&self.caller), Kind::Datagrams);
        // in one message, so that nobody sees the one without the other
        let text = format!("READY=1\nMAINPID={pid}\n");
        let told = connected.and_then(|caller| {
            socket::send(caller.as_fd(), text.as_bytes(), &[])?;
            Ok(caller)
        });
        told.inspect_err(|e| log::warn(format_args!("NOTIFY_SOCKET: {e}")))
            .ok()
    }
}

/// Whether one message says so.
pub fn is_ready(message: &[u8]) -> bool {
    message.split(|b| *b == b'\n').any(|l| l == b"READY=1")
}

/// sd_notify_barrier(3): waits until the caller has dealt with all that was sent, which it could not ascribe to a process that is gone.
fn barrier(caller: BorrowedFd) -> Result<()> {
    const PATIENCE: Duration = Duration::from_secs(30);
    let (ours, theirs) = socket::pair()?;
    socket::send(caller, b"BARRIER=1", &[theirs.as_fd()])?;
    drop(theirs);
    if process::poll(&[(ours.as_fd(), POLLIN)], Some(PATIENCE))?[0] == 0 {
        log::warn("NOTIFY_SOCKET: it has not answered to BARRIER=1 within 30 seconds");
    }
    Ok(())
}
