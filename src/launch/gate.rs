//! The gate of a created container: a listening socket in its state directory, held open by init alone.
//!
//! `start` connects, and what follows on the connection is what `run` says on its own channel: `Start`, then either an error or the
//! end that execve brings. So nothing can be lost: an error after the gate reaches `start`, and a socket that nobody
//! listens on any more tells that execve has happened, or that init is gone.

use super::sync::Channel;
use crate::sys::errno::{ECONNREFUSED, ENOENT, EPROTOTYPE};
use crate::sys::{Result, fs, socket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// The socket's name in the state directory.
pub const NAME: &str = "start.sock";
/// What a socket's address holds (unix(7)), without the end.
const ADDRESS: usize = 107;

/// By way of the descriptor: a socket's address holds only 107 bytes, and who has not locked the directory may find another one by
/// its path.
fn path(dir: BorrowedFd) -> PathBuf {
    format!("/proc/self/fd/{}/{NAME}", dir.as_raw_fd()).into()
}

pub fn make(dir: BorrowedFd) -> Result<OwnedFd> {
    socket::listen(path(dir).as_ref(), socket::Kind::Packets)
}

/// Init's wait: the first connection on which something is said. One that is closed without a word was only a look.
pub fn wait(listener: &OwnedFd) -> anyhow::Result<Channel> {
    loop {
        let channel = Channel::from(socket::accept(listener.as_fd())?);
        if channel.started()? {
            return Ok(channel);
        }
    }
}

/// The way to a waiting init; None when nobody waits. `locked` is the directory's path, which spares the look at procfs.
pub fn connect(dir: BorrowedFd, locked: &Path) -> Result<Option<Channel>> {
    let by_path =
        Some(locked.join(NAME)).filter(|p| p.is_absolute() && p.as_os_str().len() <= ADDRESS);
    let address = by_path.unwrap_or_else(|| path(dir));
    let connected = reach(dir, &address, socket::Kind::Packets)?;
    Ok(connected.map(Channel::from))
}

/// Whether init waits, without waking it: the kernel tells a socket of another type from one that nobody has any more.
pub fn look(dir: BorrowedFd) -> Result<Option<()>> {
    match reach(dir, &path(dir), socket::Kind::Datagrams) {
        Err(e) if e.errno() == EPROTOTYPE => Ok(Some(())),
        reached => reached.map(|fd| fd.map(drop)),
    }
}

fn reach(dir: BorrowedFd, address: &Path, kind: socket::Kind) -> Result<Option<OwnedFd>> {
    // `start` removes it, and most who ask do so of a running container: a look is ten times cheaper than a socket
    match fs::lstatat(dir, NAME) {
        Err(e) if e.errno() == ENOENT => return Ok(None),
        there => there?,
    };
    match socket::connect(address, kind) {
        Err(e) if e.errno() == ENOENT || e.errno() == ECONNREFUSED => Ok(None),
        connected => connected.map(Some),
    }
}
