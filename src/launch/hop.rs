//! From the host's namespaces into the container's: one clone or two, as the plan says.

use super::sync::{Channel, Msg};
use crate::plan::namespaces::{Hop, Join, Kind, Namespaces};
use crate::sys::clone::{self, Side};
use crate::sys::errno::{EINVAL, EPERM};
use crate::sys::{fs, process, socket};
use anyhow::{Context, Result, anyhow, bail};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

impl Kind {
    /// The flag of clone3(2) and setns(2).
    pub fn flag(self) -> u64 {
        match self {
            Kind::User => clone::NEWUSER,
            Kind::Ipc => clone::NEWIPC,
            Kind::Uts => clone::NEWUTS,
            Kind::Network => clone::NEWNET,
            Kind::Pid => clone::NEWPID,
            Kind::Mount => clone::NEWNS,
            Kind::Cgroup => clone::NEWCGROUP,
            Kind::Time => clone::NEWTIME,
        }
    }
}

/// A new process: its pid in husk's pid namespace, and itself.
pub struct Spawned {
    pub pid: i32,
    pub pidfd: OwnedFd,
}

/// Clones the container's init, which runs `init` with the namespaces that it still has to join, and never comes back.
///
/// `map` is called with the pid of the first process that is in a new user namespace (or just new), before anything else
/// happens in it: it writes the id maps and what must be written from outside before the process changes its ids.
pub fn spawn(
    ns: &Namespaces,
    cgroup: Option<BorrowedFd>,
    map: impl FnOnce(i32) -> Result<()>,
    init: impl FnOnce(&[&Join]),
) -> Result<Spawned> {
    match ns.hop {
        Hop::One => one(ns, cgroup, map, init),
        Hop::Two => two(ns, cgroup, map, init),
    }
}

/// The flags of the clone that makes init. A cgroup namespace is rooted where the process is, so it is made together
/// with the move into the cgroup or, without one, by init itself. Init also makes what the plan gives to it ([`make`]).
fn flags(ns: &Namespaces, into_cgroup: bool) -> u64 {
    let skip = |k: &Kind| match k {
        Kind::Cgroup => !into_cgroup,
        Kind::Time => ns.time_offsets.is_some(),
        Kind::Mount => true,
        Kind::Network if ns.network_by_parent => true,
        k => ns.by_init.contains(k),
    };
    ns.new.iter().filter(|k| !skip(k)).map(|k| k.flag()).sum()
}

/// Init's part, of which its parent has nothing to wait for.
pub fn make(ns: &Namespaces) -> Result<()> {
    let flags: u64 = ns.by_init.iter().map(|k| k.flag()).sum();
    if flags != 0 {
        clone::unshare(flags).context("make the container's namespaces")?;
    }
    Ok(())
}

/// The parent's part: a network namespace for init, with its loopback interface up. husk is in its own again on return, that of `socket`:
/// procfs, which has nothing yet for a process that has just begun, would take long to tell.
pub fn make_network(socket: BorrowedFd) -> Result<OwnedFd> {
    let own = socket::network_namespace(socket).context("find husk's own network namespace")?;
    let back = || {
        clone::setns(own.as_fd(), clone::NEWNET).context("come back to husk's network namespace")
    };
    // before there is anything to come back from: what cannot be is told by a husk that is where it was
    back()?;
    clone::unshare(clone::NEWNET).context("make the container's namespaces")?;
    let made = (|| {
        let socket = socket::loopback_up().context("bring up the loopback interface")?;
        socket::network_namespace(socket.as_fd()).context("find the container's network namespace")
    })();
    back()?;
    made
}

/// Init's way into what its parent has made.
pub fn enter_network(network: BorrowedFd) -> Result<()> {
    clone::setns(network, clone::NEWNET).context("enter the container's network namespace")
}

fn one(
    ns: &Namespaces,
    cgroup: Option<BorrowedFd>,
    map: impl FnOnce(i32) -> Result<()>,
    init: impl FnOnce(&[&Join]),
) -> Result<Spawned> {
    let mut early = Early::default();
    early.join(ns.join.iter())?;
    early.offsets(ns)?;
    let side = clone::clone3(flags(ns, cgroup.is_some()), cgroup, false)
        .context("make the container's process");
    if let Ok(Side::Child) = side {
        init(&early.later);
        process::exit_now(1);
    }
    let left = early.leave();
    let Side::Parent { pid, pidfd } = side? else {
        unreachable!("the child has left above")
    };
    if let Err(e) = left.and_then(|()| map(pid)) {
        process::kill(pid, process::SIGKILL)?;
        process::wait(pid)?;
        return Err(e);
    }
    Ok(Spawned { pid, pidfd })
}

fn two(
    ns: &Namespaces,
    cgroup: Option<BorrowedFd>,
    map: impl FnOnce(i32) -> Result<()>,
    init: impl FnOnce(&[&Join]),
) -> Result<Spawned> {
    let (ours, theirs) = Channel::pair()?;
    let user = if ns.is_new(Kind::User) {
        clone::NEWUSER
    } else {
        0
    };
    match clone::clone3(user, cgroup, false).context("make the first process")? {
        Side::Child => {
            drop(ours);
            if let Err(e) = second(ns, cgroup.is_some(), &theirs, init) {
                _ = theirs.send(&Msg::Error(format!("{e:#}")));
            }
            process::exit_now(1);
        }
        Side::Parent {
            pid: first,
            pidfd: _,
        } => {
            drop(theirs);
            let pid = map(first).and_then(|()| {
                ours.tell(&Msg::Go(Vec::new()))?;
                match ours.recv()? {
                    Some(Msg::Pid(pid)) => Ok(pid),
                    Some(Msg::Error(text)) => Err(anyhow!(text)),
                    Some(other) => bail!("expected Pid, got {other:?}"),
                    None => bail!("the first process ended before the container's"),
                }
            });
            drop(ours);
            process::wait(first)?;
            let pid = pid?;
            Ok(Spawned {
                pid,
                pidfd: process::pidfd_open(pid)?,
            })
        }
    }
}

/// The first process of two: into the user namespace, then on to init. Returns only on failure.
fn second(
    ns: &Namespaces,
    in_cgroup: bool,
    parent: &Channel,
    init: impl FnOnce(&[&Join]),
) -> Result<()> {
    parent.recv_go(0)?;
    // with the host's rights what the host owns, then with the user namespace's what that owns
    let mut early = Early::default();
    early.join(ns.join.iter())?;
    if let Some(user) = ns.joined(Kind::User) {
        join(user)?;
        early.later.retain(|j| j.kind != Kind::User);
    }
    if !ns.is_host(Kind::User) {
        become_root()?;
    }
    let again = std::mem::take(&mut early.later);
    early.join(again.into_iter())?;
    early.offsets(ns)?;
    let rest = flags(ns, in_cgroup) & !clone::NEWUSER;
    match clone::clone3(rest, None, true).context("make the container's process")? {
        Side::Child => init(&early.later),
        Side::Parent { pid, .. } => {
            parent.send(&Msg::Pid(pid))?;
            process::exit_now(0);
        }
    }
    Ok(())
}

/// What is entered before the last clone: a pid namespace counts only for children, the offsets of a time namespace can only be
/// written while it is empty, and a namespace that the host owns can only be joined with the host's rights.
#[derive(Default)]
struct Early<'a> {
    /// The namespaces left, to come back to.
    back: Vec<(OwnedFd, u64)>,
    /// What is for init to join.
    later: Vec<&'a Join>,
}

impl<'a> Early<'a> {
    fn join(&mut self, joins: impl Iterator<Item = &'a Join>) -> Result<()> {
        for j in joins {
            // a mount namespace changes what paths mean, a cgroup namespace what CLONE_INTO_CGROUP may reach
            let name = match j.kind {
                Kind::Ipc => "ipc",
                Kind::Uts => "uts",
                Kind::Network => "net",
                Kind::Pid => "pid",
                Kind::Time => "time",
                Kind::User | Kind::Mount | Kind::Cgroup => {
                    self.later.push(j);
                    continue;
                }
            };
            let back = self_ns(name)?;
            match join(j) {
                Ok(()) => self.back.push((back, j.kind.flag())),
                Err(e)
                    if e.downcast_ref::<crate::sys::Error>()
                        .is_some_and(|e| e.errno() == EPERM) =>
                {
                    self.later.push(j)
                }
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn offsets(&mut self, ns: &Namespaces) -> Result<()> {
        let Some(offsets) = &ns.time_offsets else {
            return Ok(());
        };
        self.back.push((self_ns("time")?, clone::NEWTIME));
        clone::unshare(clone::NEWTIME).context("make a time namespace")?;
        fs::write_at(fs::CWD, "/proc/self/timens_offsets", offsets.as_bytes()).with_context(|| {
            format!(
                "linux.timeOffsets: write {:?} to timens_offsets",
                offsets.trim_end()
            )
        })
    }

    fn leave(self) -> Result<()> {
        for (fd, flag) in self.back.iter().rev() {
            clone::setns(fd.as_fd(), *flag).context("come back from the container's namespaces")?;
        }
        Ok(())
    }
}

fn self_ns(name: &str) -> Result<OwnedFd> {
    Ok(fs::open(
        &*format!("/proc/self/ns/{name}"),
        fs::O_RDONLY,
        0,
    )?)
}

/// Init's own part: joins what is left, and makes what can only be made from inside.
pub fn enter(ns: &Namespaces, later: &[&Join], into_cgroup: bool) -> Result<()> {
    for j in later {
        join(j)?;
    }
    if ns.is_new(Kind::Cgroup) && !into_cgroup {
        clone::unshare(clone::NEWCGROUP).context("make a cgroup namespace")?;
    }
    if !ns.is_host(Kind::User) {
        become_root()?;
    }
    Ok(())
}

/// Joins by path: the file must be a namespace of the wanted kind, which setns(2) checks by its flag.
fn join(j: &Join) -> Result<()> {
    let what = || format!("linux.namespaces: join {} '{}'", j.kind, j.path.display());
    let fd = fs::open(j.path.as_path(), fs::O_RDONLY, 0).with_context(what)?;
    match clone::setns(fd.as_fd(), j.kind.flag()) {
        Err(e) if e.errno() == EINVAL => Err(anyhow!(
            "it is no {} namespace that can be joined: {e}",
            j.kind
        )),
        joined => joined.map_err(Into::into),
    }
    .with_context(what)
}

/// Takes the user namespace's root ids; until then the process has the overflow ids, which own nothing.
fn become_root() -> Result<()> {
    process::setresgid(0)
        .context("become root of the user namespace; map container id 0 in linux.gidMappings")?;
    process::setresuid(0)
        .context("become root of the user namespace; map container id 0 in linux.uidMappings")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(kinds: &[Kind]) -> Namespaces {
        Namespaces {
            new: kinds.to_vec(),
            ..Default::default()
        }
    }

    #[test]
    fn a_cgroup_namespace_is_cloned_only_into_its_cgroup() {
        let ns = new(&[Kind::Pid, Kind::Cgroup]);
        assert_eq!(flags(&ns, true), clone::NEWPID | clone::NEWCGROUP);
        assert_eq!(flags(&ns, false), clone::NEWPID);
    }

    #[test]
    fn what_init_makes_is_not_cloned() {
        let mut ns = new(&[Kind::Mount, Kind::Pid, Kind::Network]);
        assert_eq!(flags(&ns, true), clone::NEWPID | clone::NEWNET);
        ns.by_init = vec![Kind::Network];
        assert_eq!(flags(&ns, true), clone::NEWPID);
        ns.by_init = Vec::new();
        ns.network_by_parent = true;
        assert_eq!(flags(&ns, true), clone::NEWPID);
    }

    #[test]
    fn a_time_namespace_with_offsets_is_never_cloned_into() {
        let mut ns = new(&[Kind::Mount, Kind::Time]);
        assert_eq!(flags(&ns, true), clone::NEWTIME);
        ns.time_offsets = Some("boottime 5 0\n".into());
        assert_eq!(flags(&ns, true), 0);
    }
}
