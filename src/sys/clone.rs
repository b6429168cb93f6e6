//! Namespaces and new processes: clone3(2), setns(2), unshare(2).

use super::fs::own;
use super::{Error, Result, check};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

pub const NEWTIME: u64 = 0x80;
pub const NEWNS: u64 = libc::CLONE_NEWNS as u64;
pub const NEWCGROUP: u64 = libc::CLONE_NEWCGROUP as u64;
pub const NEWUTS: u64 = libc::CLONE_NEWUTS as u64;
pub const NEWIPC: u64 = libc::CLONE_NEWIPC as u64;
pub const NEWUSER: u64 = libc::CLONE_NEWUSER as u64;
pub const NEWPID: u64 = libc::CLONE_NEWPID as u64;
pub const NEWNET: u64 = libc::CLONE_NEWNET as u64;

/// For [`unshare`]: a new mount namespace without any mount but an empty, immutable root, where the caller then is. Linux 7.1.
pub const EMPTY_NEWNS: u64 = 0x10_0000;

const CLONE_PIDFD: u64 = 0x1000;
const CLONE_PARENT: u64 = 0x8000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// struct clone_args of clone3(2), 88 bytes (Linux 5.7).
#[repr(C)]
#[derive(Default)]
pub(super) struct CloneArgs {
    pub(super) flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Which side of [`clone3`] this is.
pub enum Side {
    Parent { pid: i32, pidfd: OwnedFd },
    Child,
}

/// Forks with new namespaces (`NEW*` flags), straight into `cgroup` if given; `sibling` makes the child one of the
/// caller's parent.
///
/// The child is a copy of a process with one thread (checked), so that it may allocate; it must leave by execve or
/// [`super::process::exit_now`] only.
pub fn clone3(namespaces: u64, cgroup: Option<BorrowedFd>, sibling: bool) -> Result<Side> {
    let call = || format!("clone3 flags={namespaces:#x}");
    if !one_thread() {
        return Err(Error::new(
            call() + ": husk has more than one thread",
            libc::EUSERS,
        ));
    }
    let mut pidfd: i32 = -1;
    let mut args = CloneArgs {
        flags: namespaces | CLONE_PIDFD,
        pidfd: &raw mut pidfd as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..Default::default()
    };
    if let Some(fd) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = fd.as_raw_fd() as u64;
    }
    if sibling {
        args.flags |= CLONE_PARENT;
        args.exit_signal = 0; // CLONE_PARENT takes the caller's own
    }
    // SAFETY: without CLONE_VM and with no stack given this is a fork: the child runs on a copy of this stack. There is one
    // thread, so no lock of libc's can be held by another. The kernel writes the pidfd in the parent only.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &args, size_of::<CloneArgs>()) };
    match check(pid, call)? {
        0 => Ok(Side::Child),
        pid => Ok(Side::Parent {
            pid: pid as i32,
            pidfd: own(pidfd as libc::c_long),
        }),
    }
}

/// A process that does nothing but keep a new user namespace, until it is killed or its parent ends. It may be made by a
/// process with threads, for it makes system calls only.
pub fn hold_user_namespace() -> Result<(i32, OwnedFd)> {
    let mut pidfd: i32 = -1;
    let args = CloneArgs {
        flags: NEWUSER | CLONE_PIDFD,
        pidfd: &raw mut pidfd as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..Default::default()
    };
    // SAFETY: as in `clone3`, but that other threads may hold locks of libc's: the child takes none, as its two
    // functions are plain system calls (signal-safety(7)).
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &args, size_of::<CloneArgs>()) };
    if pid == 0 {
        loop {
            // SAFETY: no pointers.
            unsafe {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                libc::pause();
            }
        }
    }
    let pid = check(pid, || "clone3 NEWUSER".into())?;
    Ok((pid as i32, own(pidfd as libc::c_long)))
}

/// Whether this is the only thread: unshare(2) of `CLONE_THREAD` does nothing then, and is `EINVAL` otherwise.
fn one_thread() -> bool {
    // SAFETY: no pointers.
    unsafe { libc::unshare(libc::CLONE_THREAD) == 0 }
}

/// Joins the namespaces `flags` names: those of the process that a pidfd is, or the one that an nsfs descriptor is.
pub fn setns(fd: BorrowedFd, flags: u64) -> Result<()> {
    // SAFETY: no pointers.
    check(
        unsafe { libc::setns(fd.as_raw_fd(), flags as i32) } as libc::c_long,
        || format!("setns flags={flags:#x}"),
    )
    .map(drop)
}

pub fn unshare(flags: u64) -> Result<()> {
    // SAFETY: no pointers.
    check(
        unsafe { libc::unshare(flags as i32) } as libc::c_long,
        || format!("unshare flags={flags:#x}"),
    )
    .map(drop)
}
