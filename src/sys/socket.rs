//! Unix sockets: the pair between a parent and a container's init, and descriptors sent over a named one.

use super::{Result, check, lift};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr,
    setsockopt, sockopt,
};
use nix::sys::time::TimeVal;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The kernel's limit on descriptors in one message (`SCM_MAX_FD`).
pub const MAX_FDS: usize = 253;

/// A connected pair of SEQPACKET sockets: message borders are kept, and the end of the peer is an empty read.
pub fn pair() -> Result<(OwnedFd, OwnedFd)> {
    lift(
        nix::sys::socket::socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        ),
        || "socketpair".into(),
    )
}

/// What a named socket carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Stream,
    Packets,
    Datagrams,
}

fn unix_socket(kind: Kind) -> nix::Result<OwnedFd> {
    let kind = match kind {
        Kind::Stream => SockType::Stream,
        Kind::Packets => SockType::SeqPacket,
        Kind::Datagrams => SockType::Datagram,
    };
    nix::sys::socket::socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC, None)
}

/// Connects to a path or, where that begins with `@`, to a name in the abstract namespace (unix(7)).
pub fn connect(path: &Path, kind: Kind) -> Result<OwnedFd> {
    let call = || format!("connect to '{}'", path.display());
    connect_with(lift(unix_socket(kind), call)?, path)
}

/// The same for a stream, whose listener and reader make us wait no longer than `limit` at a time: then it is `EAGAIN`.
pub fn connect_within(path: &Path, limit: Duration) -> Result<OwnedFd> {
    let call = || format!("connect to '{}'", path.display());
    let fd = lift(unix_socket(Kind::Stream), call)?;
    let time = TimeVal::new(limit.as_secs() as i64, limit.subsec_micros().into());
    lift(setsockopt(&fd, sockopt::SendTimeout, &time), call)?;
    connect_with(fd, path)
}

fn connect_with(fd: OwnedFd, path: &Path) -> Result<OwnedFd> {
    let call = || format!("connect to '{}'", path.display());
    let addr = match path.as_os_str().as_bytes() {
        [b'@', name @ ..] => UnixAddr::new_abstract(name),
        _ => UnixAddr::new(path),
    };
    let addr = lift(addr, call)?;
    lift(nix::sys::socket::connect(fd.as_raw_fd(), &addr), call)?;
    Ok(fd)
}

/// Makes a socket at a path.
pub fn bind(path: &Path, kind: Kind) -> Result<OwnedFd> {
    let call = || format!("bind '{}'", path.display());
    let fd = lift(unix_socket(kind), call)?;
    let addr = lift(UnixAddr::new(path), call)?;
    lift(nix::sys::socket::bind(fd.as_raw_fd(), &addr), call)?;
    Ok(fd)
}

/// Connects a stream socket that answers `EAGAIN` rather than wait, from the start: a listener that takes nobody does not stop us.
pub fn try_connect(path: &Path) -> Result<OwnedFd> {
    let call = || format!("connect to '{}'", path.display());
    let fd = lift(unix_socket(Kind::Stream), call)?;
    super::fs::set_nonblocking(fd.as_fd())?;
    connect_with(fd, path)
}

/// Makes a listening socket at a path.
pub fn listen(path: &Path, kind: Kind) -> Result<OwnedFd> {
    let call = || format!("listen on '{}'", path.display());
    let fd = bind(path, kind)?;
    lift(
        nix::sys::socket::listen(&fd, nix::sys::socket::Backlog::MAXCONN),
        call,
    )?;
    Ok(fd)
}

/// Waits for a connection.
pub fn accept(listener: BorrowedFd) -> Result<OwnedFd> {
    loop {
        match nix::sys::socket::accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC) {
            Err(nix::errno::Errno::EINTR) => continue,
            // SAFETY: the kernel has just made this descriptor, so nothing else owns it.
            r => return lift(r, || "accept".into()).map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }),
        }
    }
}

/// The user that a connected peer was when it connected.
pub fn peer_uid(fd: BorrowedFd) -> Result<u32> {
    let credentials = nix::sys::socket::getsockopt(&fd, nix::sys::socket::sockopt::PeerCredentials);
    lift(credentials, || "getsockopt SO_PEERCRED".into()).map(|c| c.uid())
}

/// The path that a socket was bound to; None: it has none.
pub fn own_path(fd: BorrowedFd) -> Result<Option<PathBuf>> {
    let address = nix::sys::socket::getsockname::<UnixAddr>(fd.as_raw_fd());
    lift(address, || "getsockname".into()).map(|a| a.path().map(PathBuf::from))
}

/// Sends one message with descriptors; a peer that is gone is `EPIPE`, never a signal.
pub fn send(fd: BorrowedFd, data: &[u8], fds: &[BorrowedFd]) -> Result<()> {
    let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let control = [ControlMessage::ScmRights(&raw)];
    let control = if raw.is_empty() {
        &[][..]
    } else {
        &control[..]
    };
    loop {
        match nix::sys::socket::sendmsg::<()>(
            fd.as_raw_fd(),
            &[IoSlice::new(data)],
            control,
            MsgFlags::MSG_NOSIGNAL,
            None,
        ) {
            Err(nix::errno::Errno::EINTR) => continue,
            Err(nix::errno::Errno::ECONNRESET) => continue, // as in `wait`: the next try is EPIPE
            r => return lift(r, || "sendmsg".into()).map(drop),
        }
    }
}

/// Waits for a message and gives its size; 0 is the peer's end.
pub fn wait(fd: BorrowedFd) -> Result<usize> {
    loop {
        let flags = libc::MSG_PEEK | libc::MSG_TRUNC;
        // SAFETY: a buffer of no bytes; with MSG_TRUNC the kernel tells the whole size.
        let n = unsafe { libc::recv(fd.as_raw_fd(), std::ptr::null_mut(), 0, flags) };
        match check(n as libc::c_long, || "recv".into()) {
            Err(e) if e.errno() == libc::EINTR => continue,
            // told once, and before its last words, of a peer that left without having read all that was sent to it
            Err(e) if e.errno() == libc::ECONNRESET => continue,
            n => return n.map(|n| n as usize),
        }
    }
}

/// Receives one message into `buf` with at most [`MAX_FDS`] descriptors; 0 bytes is the peer's end.
pub fn recv(fd: BorrowedFd, buf: &mut [u8]) -> Result<(usize, Vec<OwnedFd>)> {
    let mut control = nix::cmsg_space!([RawFd; MAX_FDS]);
    loop {
        let mut iov = [IoSliceMut::new(buf)];
        let msg = match nix::sys::socket::recvmsg::<()>(
            fd.as_raw_fd(),
            &mut iov,
            Some(&mut control),
            MsgFlags::MSG_CMSG_CLOEXEC,
        ) {
            Err(nix::errno::Errno::EINTR) => continue,
            Err(nix::errno::Errno::ECONNRESET) => continue, // as in `wait`
            r => lift(r, || "recvmsg".into())?,
        };
        let mut fds = Vec::new();
        for c in lift(msg.cmsgs(), || "recvmsg: control data".into())? {
            if let ControlMessageOwned::ScmRights(raw) = c {
                // SAFETY: the kernel has just made these descriptors for this process, so nothing else owns them.
                fds.extend(
                    raw.into_iter()
                        .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }),
                );
            }
        }
        return Ok((msg.bytes, fds));
    }
}

/// Brings the loopback interface of the present network namespace up; returns a socket of it.
pub fn loopback_up() -> Result<OwnedFd> {
    let fd = lift(
        nix::sys::socket::socket(
            AddressFamily::Inet,
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC,
            None,
        ),
        || "socket".into(),
    )?;
    // SAFETY: struct ifreq is plain data, for which zeroes are a value.
    let mut req: libc::ifreq = unsafe { std::mem::zeroed() };
    req.ifr_name[0] = b'l' as libc::c_char;
    req.ifr_name[1] = b'o' as libc::c_char;
    req.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the request is a whole struct ifreq with a terminated name.
    check(
        unsafe { libc::ioctl(fd.as_raw_fd(), libc::SIOCSIFFLAGS as _, &req) } as libc::c_long,
        || "ioctl SIOCSIFFLAGS 'lo'".into(),
    )
    .map(|_| fd)
}

/// The network namespace that a socket is of, as a descriptor of nsfs (ioctl SIOCGSKNS, Linux 4.10).
pub fn network_namespace(socket: BorrowedFd) -> Result<OwnedFd> {
    const SIOCGSKNS: u32 = 0x894c;
    // SAFETY: no pointers.
    check(
        unsafe { libc::ioctl(socket.as_raw_fd(), SIOCGSKNS as _) } as libc::c_long,
        || "ioctl SIOCGSKNS".into(),
    )
    .map(super::fs::own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_takes_nobody_is_waited_for_in_vain() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("full");
        let listener = bind(&path, Kind::Stream).unwrap();
        nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
        let limit = Duration::from_millis(50);
        let _first = connect_within(&path, limit).unwrap();
        let begun = std::time::Instant::now();
        let e = connect_within(&path, limit).unwrap_err();
        assert_eq!(e.errno(), nix::libc::EAGAIN, "{e}");
        assert!(begun.elapsed() >= limit);
    }
}
