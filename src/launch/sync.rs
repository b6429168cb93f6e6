//! What parent and child tell each other: one message a packet on a SEQPACKET pair, a tag and its text, descriptors by
//! `SCM_RIGHTS`.

use crate::sys::errno::EPIPE;
use crate::sys::{self, socket};
use anyhow::{Result, anyhow, bail};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The largest message: an error chain that is longer loses its end.
const LIMIT: usize = 16 * 1024;

/// In the order in which they can occur.
#[derive(Debug)]
pub enum Msg {
    /// Parent: the network namespace that it has made.
    Network(OwnedFd),
    /// Parent: ids are mapped and limits written; the mount sources that only the parent can open come with it, in plan order.
    Go(Vec<OwnedFd>),
    /// Hop's first child: the pid of init.
    Pid(i32),
    /// Child: map the ids of this detached mount, `mounts[index]` of the config.
    Map(usize, OwnedFd),
    /// Child: the mounts are made; run the hooks of the runtime's namespaces.
    Hooks,
    /// Child: about to become another user; set its limits, which root of a user namespace may not raise.
    Limits,
    /// Parent: what was asked for is done.
    Done,
    /// Child: the terminal's master, when the parent relays it.
    Console(OwnedFd),
    /// Child: nothing is left but the gate and execve; the listener of its system calls, if its filter has one.
    Ready(Option<OwnedFd>),
    /// Parent: pass the gate.
    Start,
    /// Child: the whole error chain, its last words.
    Error(String),
}

impl Msg {
    fn tag(&self) -> u8 {
        match self {
            Msg::Network(_) => b'n',
            Msg::Go(_) => b'g',
            Msg::Pid(_) => b'p',
            Msg::Map(..) => b'm',
            Msg::Hooks => b'h',
            Msg::Limits => b'l',
            Msg::Done => b'd',
            Msg::Console(_) => b'c',
            Msg::Ready(_) => b'r',
            Msg::Start => b's',
            Msg::Error(_) => b'e',
        }
    }

    pub(crate) fn decode(data: &[u8], mut fds: Vec<OwnedFd>) -> Option<Msg> {
        let (tag, rest) = data.split_first()?;
        let text = || String::from_utf8_lossy(rest).into_owned();
        Some(match tag {
            b'n' => Msg::Network(fds.pop()?),
            b'g' => Msg::Go(fds),
            b'p' => Msg::Pid(text().parse().ok()?),
            b'm' => Msg::Map(text().parse().ok()?, fds.pop()?),
            b'h' => Msg::Hooks,
            b'l' => Msg::Limits,
            b'd' => Msg::Done,
            b'c' => Msg::Console(fds.pop()?),
            b'r' => Msg::Ready(fds.pop()),
            b's' => Msg::Start,
            b'e' => Msg::Error(text()),
            _ => return None,
        })
    }
}

/// One end of the pair.
pub struct Channel(OwnedFd);

impl From<OwnedFd> for Channel {
    fn from(fd: OwnedFd) -> Self {
        Channel(fd)
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Channel {
    pub fn pair() -> Result<(Channel, Channel)> {
        let (a, b) = socket::pair()?;
        Ok((Channel(a), Channel(b)))
    }

    pub fn send(&self, msg: &Msg) -> sys::Result<()> {
        let mut data = vec![msg.tag()];
        let mut fds: Vec<BorrowedFd> = Vec::new();
        match msg {
            Msg::Pid(pid) => data.extend(pid.to_string().bytes()),
            Msg::Error(text) => data.extend(text.bytes().take(LIMIT - 1)),
            Msg::Go(sources) => fds.extend(sources.iter().map(AsFd::as_fd)),
            Msg::Map(index, tree) => {
                data.extend(index.to_string().bytes());
                fds.push(tree.as_fd());
            }
            Msg::Network(fd) | Msg::Console(fd) => fds.push(fd.as_fd()),
            Msg::Ready(listener) => fds.extend(listener.iter().map(AsFd::as_fd)),
            _ => {}
        }
        // the kernel takes only so many descriptors a packet: further ones follow in packets of the same tag
        let mut chunks = fds.chunks(socket::MAX_FDS);
        socket::send(self.0.as_fd(), &data, chunks.next().unwrap_or_default())?;
        chunks.try_for_each(|chunk| socket::send(self.0.as_fd(), &data, chunk))
    }

    /// The parent's way to send: fails with what the child said before it left, if it did.
    pub fn tell(&self, msg: &Msg) -> Result<()> {
        let Err(e) = self.send(msg) else {
            return Ok(());
        };
        if e.errno() != EPIPE {
            return Err(e.into()); // it is still there, and may have nothing to say
        }
        match self.recv() {
            Ok(Some(Msg::Error(text))) => Err(anyhow!(text)),
            Ok(None) => Err(super::Silent.into()),
            _ => Err(e.into()),
        }
    }

    /// The child's last message. It may be under its container's filter by now: one write(2), which more profiles allow than sendmsg(2).
    pub fn last_words(&self, e: &anyhow::Error) {
        let text = format!("{e:#}");
        let data: Vec<u8> = [b'e'].into_iter().chain(text.bytes()).take(LIMIT).collect();
        _ = sys::fs::write(self.0.as_fd(), &data);
    }

    /// The next message; None when the other end is closed.
    pub fn recv(&self) -> Result<Option<Msg>> {
        // most are one byte: room for the largest would be four pages of the stack to fault in
        let length = socket::wait(self.0.as_fd())?;
        if length == 0 {
            return Ok(None);
        }
        let mut buf = vec![0u8; length];
        let (n, fds) = socket::recv(self.0.as_fd(), &mut buf)?;
        match Msg::decode(&buf[..n], fds) {
            Some(msg) => Ok(Some(msg)),
            None => bail!(
                "unknown message {:?} between husk's processes",
                buf[0] as char
            ),
        }
    }

    /// The child's wait for `Network`.
    pub fn recv_network(&self) -> Result<OwnedFd> {
        match self.recv()? {
            Some(Msg::Network(fd)) => Ok(fd),
            Some(other) => bail!("expected Network, got {other:?}"),
            None => bail!("husk's parent process is gone"),
        }
    }

    /// The child's wait for `Go`.
    pub fn recv_go(&self, sources: usize) -> Result<Vec<OwnedFd>> {
        let mut all = Vec::new();
        loop {
            match self.recv()? {
                Some(Msg::Go(fds)) => all.extend(fds),
                Some(other) => bail!("expected Go, got {other:?}"),
                None => bail!("husk's parent process is gone"),
            }
            if all.len() >= sources {
                return Ok(all);
            }
        }
    }

    /// Whether `Start` comes, rather than the end.
    pub fn started(&self) -> Result<bool> {
        match self.recv()? {
            Some(Msg::Start) => Ok(true),
            Some(other) => bail!("expected Start, got {other:?}"),
            None => Ok(false),
        }
    }

    /// The child's request for something that only the parent can do.
    pub fn ask(&self, request: Msg) -> Result<()> {
        self.send(&request)?;
        self.expect(Msg::Done)
    }

    /// The child's wait for a message without content.
    pub fn expect(&self, wanted: Msg) -> Result<()> {
        match self.recv()? {
            Some(got) if got.tag() == wanted.tag() => Ok(()),
            Some(other) => bail!("expected {wanted:?}, got {other:?}"),
            None => bail!("husk's parent process is gone"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words_are_heard_of_a_child_that_did_not_listen() {
        let (a, b) = Channel::pair().unwrap();
        a.send(&Msg::Done).unwrap();
        b.send(&Msg::Error("x".into())).unwrap();
        drop(b);
        assert!(matches!(a.recv().unwrap(), Some(Msg::Error(t)) if t == "x"));
        assert!(a.recv().unwrap().is_none());
        let (a, b) = Channel::pair().unwrap();
        a.send(&Msg::Done).unwrap();
        drop(b);
        assert!(a.recv().unwrap().is_none());
    }

    #[test]
    fn telling_a_child_that_has_left_gives_its_last_words() {
        for read in [false, true] {
            let (a, b) = Channel::pair().unwrap();
            a.send(&Msg::Go(Vec::new())).unwrap();
            if read {
                b.recv_go(0).unwrap();
            }
            b.last_words(&anyhow!("x"));
            drop(b);
            let e = a.tell(&Msg::Start).unwrap_err();
            assert_eq!(e.to_string(), "x", "Go was read: {read}");
        }
    }

    #[test]
    fn messages_survive_the_socket() {
        let (a, b) = Channel::pair().unwrap();
        a.send(&Msg::Error("mount 'x': no such file or directory".into()))
            .unwrap();
        a.send(&Msg::Pid(42)).unwrap();
        a.send(&Msg::Ready(None)).unwrap();
        assert!(matches!(b.recv().unwrap(), Some(Msg::Error(t)) if t.ends_with("directory")));
        assert!(matches!(b.recv().unwrap(), Some(Msg::Pid(42))));
        assert!(b.expect(Msg::Ready(None)).is_ok());
        drop(a);
        assert!(b.recv().unwrap().is_none());
    }

    #[test]
    fn more_sources_than_one_packet_takes_arrive_in_order() {
        let (a, b) = Channel::pair().unwrap();
        let null = || sys::fs::open("/dev/null", sys::fs::O_PATH, 0).unwrap();
        a.send(&Msg::Go((0..300).map(|_| null()).collect()))
            .unwrap();
        assert_eq!(b.recv_go(300).unwrap().len(), 300);
    }

    #[test]
    fn an_error_longer_than_a_packet_is_cut() {
        let (a, b) = Channel::pair().unwrap();
        a.send(&Msg::Error("x".repeat(2 * LIMIT))).unwrap();
        assert!(matches!(b.recv().unwrap(), Some(Msg::Error(t)) if t.len() == LIMIT - 1));
    }

    #[test]
    fn last_words_are_an_error() {
        let (a, b) = Channel::pair().unwrap();
        a.last_words(&anyhow::anyhow!("operation not permitted").context("execve '/x'"));
        let expected = "execve '/x': operation not permitted";
        assert!(matches!(b.recv().unwrap(), Some(Msg::Error(t)) if t == expected));
    }

    #[test]
    fn garbage_is_refused() {
        assert!(Msg::decode(b"?", vec![]).is_none());
        assert!(Msg::decode(b"pnan", vec![]).is_none());
        assert!(Msg::decode(b"c", vec![]).is_none());
        assert!(Msg::decode(b"n", vec![]).is_none());
        assert!(Msg::decode(b"m1", vec![]).is_none());
        assert!(Msg::decode(b"", vec![]).is_none());
    }
}
