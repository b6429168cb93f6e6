//! Signals as something to read (signalfd(2)) rather than something that interrupts.

use super::{Result, check, lift};
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, signal, sigprocmask};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

pub use libc::{SIGCHLD, SIGINT, SIGKILL, SIGPIPE, SIGTERM, SIGURG, SIGWINCH};

/// All signals, blocked and read from a descriptor instead.
#[derive(Debug)]
pub struct Signals {
    fd: OwnedFd,
    before: SigSet,
}

impl Signals {
    pub fn catch() -> Result<Signals> {
        // A caller may have ignored SIGCHLD, and then the kernel reaps children itself: no exit code for us (wait(2)).
        lift(
            // SAFETY: SIG_DFL installs no handler.
            unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) },
            || "signal SIGCHLD".into(),
        )?;
        let mut before = SigSet::empty();
        let all = SigSet::all();
        lift(
            sigprocmask(SigmaskHow::SIG_SETMASK, Some(&all), Some(&mut before)),
            || "sigprocmask".into(),
        )?;
        use nix::sys::signalfd::{SfdFlags, SignalFd};
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let fd = lift(SignalFd::with_flags(&all, flags), || "signalfd".into())?;
        Ok(Signals {
            fd: OwnedFd::from(fd),
            before,
        })
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        std::os::fd::AsFd::as_fd(&self.fd)
    }

    /// The number of the next signal that has come; None when there is no more.
    pub fn next(&self) -> Result<Option<i32>> {
        // SAFETY: struct signalfd_siginfo is plain data, for which zeroes are a value; the kernel fills it.
        let mut info: libc::signalfd_siginfo = unsafe { std::mem::zeroed() };
        let size = size_of::<libc::signalfd_siginfo>();
        // SAFETY: the buffer is a whole struct, of the size given.
        let n = unsafe { libc::read(self.fd.as_raw_fd(), (&raw mut info).cast(), size) };
        if n < 0 && [libc::EAGAIN, libc::EINTR].contains(&super::last_errno()) {
            return Ok(None);
        }
        check(n as libc::c_long, || "read signalfd".into())?;
        Ok(Some(info.ssi_signo as i32))
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.before), None);
    }
}
