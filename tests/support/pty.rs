//! Terminals: a pty of the test's own, and the socket that a detached container's pty comes through.

use super::process::{dir, serial};
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{PtyMaster, grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use std::fs::{File, OpenOptions};
use std::io::{IoSliceMut, Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// The master's side of a pty.
pub struct Pty {
    master: File,
    /// All that was read so far.
    pub text: String,
}

impl Pty {
    /// A new one, with its slave.
    pub fn open() -> (Pty, File) {
        let master: PtyMaster =
            posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY).expect("posix_openpt");
        grantpt(&master).expect("grantpt");
        unlockpt(&master).expect("unlockpt");
        let name = ptsname_r(&master).expect("ptsname");
        let slave = OpenOptions::new()
            .read(true)
            .write(true)
            .open(name)
            .expect("open the slave");
        let master: OwnedFd = master.into();
        (Pty::from(master), slave)
    }

    fn from(master: OwnedFd) -> Pty {
        Pty {
            master: master.into(),
            text: String::new(),
        }
    }

    /// Reads until the text has this, or the last slave is closed.
    #[track_caller]
    pub fn read_until(&mut self, what: &str) -> &str {
        super::process::step(format!("read {what:?} from the pty"));
        let end = Instant::now() + Duration::from_secs(10);
        while !self.text.contains(what) {
            let left = end.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "waited 10 s for {what:?} on the pty: {:?}",
                self.text
            );
            assert!(
                self.read(left),
                "the pty ended without {what:?}: {:?}",
                self.text
            );
        }
        &self.text
    }

    /// Reads until the last slave is closed.
    #[track_caller]
    pub fn read_all(&mut self) -> &str {
        let end = Instant::now() + Duration::from_secs(10);
        while self.read(Duration::from_millis(100)) {
            assert!(
                Instant::now() < end,
                "waited 10 s for the end of the pty: {:?}",
                self.text
            );
        }
        &self.text
    }

    /// False when no slave is open any more.
    fn read(&mut self, wait: Duration) -> bool {
        let mut fds = [PollFd::new(self.master.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(wait).expect("timeout");
        if poll(&mut fds, timeout).expect("poll") == 0 {
            return true;
        }
        let mut buffer = [0; 4096];
        match self.master.read(&mut buffer) {
            Ok(0) | Err(_) => false,
            Ok(n) => {
                self.text.push_str(&String::from_utf8_lossy(&buffer[..n]));
                true
            }
        }
    }

    pub fn write(&mut self, text: &str) {
        self.master
            .write_all(text.as_bytes())
            .expect("write to the pty");
    }

    pub fn resize(&self, rows: u16, columns: u16) {
        let size = libc::winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        // SAFETY: TIOCSWINSZ reads one winsize.
        let rc = unsafe { libc::ioctl(self.master.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
        assert_eq!(rc, 0, "TIOCSWINSZ");
    }
}

/// Starts a command as a terminal's foreground process, as a shell would.
pub fn on_terminal(cmd: super::Cmd, slave: &File) -> super::process::Running {
    use std::os::unix::process::CommandExt;
    let of = || Stdio::from(slave.try_clone().expect("dup"));
    let mut cmd = cmd.stdio(of(), of(), of());
    let session = || {
        nix::unistd::setsid()?;
        // SAFETY: TIOCSCTTY takes an integer.
        match unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // SAFETY: the closure makes two system calls.
    unsafe { cmd.command().pre_exec(session) };
    cmd.spawn()
}

/// The next connection; fails the test when none comes within 10 seconds.
#[track_caller]
pub fn accept(listener: &UnixListener) -> UnixStream {
    let mut fds = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
    let ready = poll(&mut fds, PollTimeout::from(10_000u16)).expect("poll");
    assert_eq!(ready, 1, "waited 10 s for a connection");
    listener.accept().expect("accept").0
}

/// A console socket, or a pidfd socket: one descriptor comes out of it.
pub struct FdSocket {
    pub path: PathBuf,
    listener: UnixListener,
}

impl FdSocket {
    pub fn new() -> FdSocket {
        let path = dir().join(format!("socket{}", serial()));
        FdSocket {
            listener: UnixListener::bind(&path).expect("bind"),
            path,
        }
    }

    pub fn arg(&self) -> &str {
        self.path.to_str().expect("UTF-8")
    }

    /// The descriptor and the words sent along.
    #[track_caller]
    pub fn receive(&self) -> (OwnedFd, String) {
        super::process::step("receive a descriptor");
        let stream = accept(&self.listener);
        let mut text = [0; 4096];
        let mut space = nix::cmsg_space!([std::os::fd::RawFd; 4]);
        let (count, fds) = {
            let mut iov = [IoSliceMut::new(&mut text)];
            let flags = MsgFlags::MSG_CMSG_CLOEXEC;
            let message = recvmsg::<()>(stream.as_raw_fd(), &mut iov, Some(&mut space), flags)
                .expect("recvmsg");
            let mut fds = Vec::new();
            for c in message.cmsgs().expect("control messages") {
                if let ControlMessageOwned::ScmRights(all) = c {
                    fds.extend(all);
                }
            }
            (message.bytes, fds)
        };
        assert_eq!(fds.len(), 1, "descriptors in one message");
        assert!(count > 0, "conmon and the shim want some bytes too");
        let text = String::from_utf8_lossy(&text[..count]).into_owned();
        // SAFETY: the kernel has just made this descriptor for us.
        (unsafe { OwnedFd::from_raw_fd(fds[0]) }, text)
    }

    pub fn pty(&self) -> Pty {
        Pty::from(self.receive().0)
    }
}
