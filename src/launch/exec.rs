//! `exec`: another process in a running container. The parent's list and the child's, with init's tail.
//!
//! ```text
//!     parent                                       child
//!  1  state read, plan made (cmd)
//!  2  cgroup of the container found
//!  4  clone, straight into that cgroup             waits for Go
//!  5                                       ── Go →
//!  6                                               all namespaces joined with one setns
//! 10  rlimits, scheduler, affinity    ← Ready ──   terminal, user, capabilities, executable found
//! 11                                  ── Start →   (Go is enough, if there is nothing to do in between)
//! 12  end of the channel = execve worked           filter, execve
//! ```

use super::init;
use super::sync::{Channel, Msg};
use super::{hand_over, needs_nobody, pass, unexpected, until_ready};
use crate::apply::{console, intel_rdt, process as attributes};
use crate::cgroup::CgroupDir;
use crate::cgroup::systemd::{self, Scope};
use crate::log;
use crate::plan::landlock::Landlock;
use crate::plan::namespaces::Kind;
use crate::plan::process::Process;
use crate::plan::seccomp::Filter;
use crate::plan::users::IdMaps;
use crate::root::Root;
use crate::seal;
use crate::state::{State, Status};
use crate::sys::clone::{self, Side};
use crate::sys::errno::{EACCES, EBUSY, EOPNOTSUPP, EPERM};
use crate::sys::{fs, process, socket};
use anyhow::{Context, Error, Result, anyhow, bail};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

pub struct Request<'a> {
    pub id: &'a str,
    /// The container's.
    pub state: &'a State,
    pub process: &'a Process,
    pub seccomp: Option<&'a Filter>,
    pub landlock: Option<&'a Landlock>,
    pub users: Option<&'a IdMaps>,
    /// Init, whose namespaces are joined.
    pub target: BorrowedFd<'a>,
    pub target_pid: i32,
    /// Those of its namespaces that are not the host's.
    pub kinds: &'a [Kind],
    /// husk has no rights of its own in them: the user namespace comes first, in a process in between.
    pub rootless: bool,
    pub cgroup: Option<&'a CgroupDir>,
    pub cgroup_mount: &'a Path,
    /// The unit of systemd that has the cgroup.
    pub scope: Option<&'a Scope>,
    /// --cgroup: it is this one or none.
    pub sub_cgroup: bool,
    pub new_keyring: bool,
    pub console_socket: Option<&'a Path>,
    pub pidfd_socket: Option<&'a Path>,
    pub preserve_fds: u32,
    /// Nothing is for the caller to do before the start.
    pub at_once: bool,
}

impl Request<'_> {
    fn starts_at_once(&self) -> bool {
        self.at_once && needs_nobody(self.process, self.seccomp, self.users.is_some())
    }
}

/// A process that is ready to be started.
pub struct Ready {
    pub pid: i32,
    pub pidfd: OwnedFd,
    /// The terminal's master, when nobody else took it.
    pub master: Option<OwnedFd>,
    channel: Channel,
    started: bool,
}

impl Ready {
    /// 11, 12: returns once execve has happened.
    pub fn start(&self) -> Result<()> {
        pass(&self.channel, self.started)
    }

    /// Ends the process after an error in a later step.
    pub fn undo(self, e: Error) -> Error {
        end(self.pid, self.pidfd, e)
    }
}

fn end(pid: i32, pidfd: OwnedFd, e: Error) -> Error {
    _ = process::pidfd_send_signal(pidfd.as_fd(), 9);
    match process::wait(pid) {
        Ok(end) if e.is::<super::Silent>() => anyhow!("{e}: it {end}"),
        Ok(_) => e,
        Err(wait) => anyhow!("{e:#}; then {wait}"),
    }
}

/// The parent's list up to `Ready`.
pub fn exec(request: &Request) -> Result<Ready> {
    let p = request.process;
    let console = request
        .console_socket
        .map(|p| socket::connect(p, socket::Kind::Stream))
        .transpose()
        .context("--console-socket")?;
    let pidfd_socket = request
        .pidfd_socket
        .map(|p| socket::connect(p, socket::Kind::Stream))
        .transpose()
        .context("--pidfd-socket")?;
    // 4
    let (ours, theirs) = Channel::pair()?;
    let mut ours = Some(ours);
    let mut child = || {
        drop(ours.take());
        let Err(e) = list(request, &theirs, console.as_ref());
        theirs.last_words(&e);
        process::exit_now(1);
    };
    let (pid, pidfd, outside) = if request.rootless {
        through_user_namespace(request, &mut child)?
    } else {
        directly(request, &mut child)?
    };
    drop(theirs);
    let ours = ours.expect("only the child takes it");
    let started = request.starts_at_once();
    let ready: Result<Option<OwnedFd>> = (|| {
        if let Some(scope) = outside {
            move_in(request, scope, pid)?;
        }
        if !request.rootless {
            attributes::oom_score_adj(pid, p)?;
        }
        if let Some(mask) = &p.affinity_initial {
            process::sched_setaffinity(pid, mask).context("process.execCPUAffinity.initial")?;
            log::debug(format_args!(
                "step 5: (nsexec): affinity: {}",
                hexadecimal(mask)
            ));
        }
        if let Some(socket) = &pidfd_socket {
            socket::send(socket.as_fd(), b"pidfd", &[pidfd.as_fd()])
                .context("send the pidfd to the pidfd socket")?;
        }
        if let Some(rdt) = &request.state.intel_rdt {
            let groups = [Some(&rdt.class), rdt.monitor.as_ref()];
            groups
                .into_iter()
                .flatten()
                .try_for_each(|group| intel_rdt::enter(group, pid))?;
        }
        if started {
            attributes::from_outside(pid, p, None)?;
        }
        // 5
        ours.tell(&Msg::Go(Vec::new()))?;
        if started {
            // what it says first comes after it has closed what it has of husk's mount: the last close takes long
            process::poll(&[(ours.as_fd(), process::POLLIN)], None)?;
            seal::release();
        }
        // 10
        let (master, listener) = until_ready(&ours, started, pid, Some(p), |request| {
            Err(unexpected(request))
        })?;
        let container = || request.state.for_hooks(Status::Running, request.target_pid);
        hand_over(request.seccomp, listener, pid, container)?;
        if !started {
            attributes::from_outside(pid, p, p.affinity_final.as_deref())?;
        }
        Ok(master)
    })();
    match ready {
        Ok(master) => Ok(Ready {
            pid,
            pidfd,
            master,
            channel: ours,
            started,
        }),
        Err(e) => Err(end(pid, pidfd, e)),
    }
}

/// A mask of CPUs, whose first word has the first 64.
fn hexadecimal(mask: &[u64]) -> String {
    let words = mask.iter().rev().skip_while(|w| **w == 0);
    let digits: String = words.map(|w| format!("{w:016x}")).collect();
    format!("0x{}", digits.trim_start_matches('0'))
}

fn flags(kinds: &[Kind]) -> u64 {
    kinds.iter().map(|k| k.flag()).sum()
}

/// The child joins everything itself, but for the pid namespace, which counts only for what is cloned after.
fn directly<'a>(request: &Request<'a>, child: &mut impl FnMut()) -> Result<Born<'a>> {
    if request.kinds.contains(&Kind::Pid) {
        clone::setns(request.target, clone::NEWPID)
            .context("join the container's pid namespace")?;
    }
    let (side, outside) = clone_into(request)?;
    match side {
        Side::Child => {
            child();
            process::exit_now(1)
        }
        Side::Parent { pid, pidfd } => Ok((pid, pidfd, outside)),
    }
}

/// A process in between takes the user namespace's rights and joins everything; its sibling is born inside.
fn through_user_namespace<'a>(request: &Request<'a>, child: &mut impl FnMut()) -> Result<Born<'a>> {
    let (ours, theirs) = Channel::pair()?;
    let (side, outside) = clone_into(request)?;
    match side {
        Side::Child => {
            drop(ours);
            let sibling = (|| {
                // while /proc still takes this process for the user's
                attributes::oom_score_adj(process::pid(), request.process)?;
                clone::setns(request.target, flags(request.kinds))
                    .context("join the container's namespaces")?;
                clone::clone3(0, None, true).context("make the process")
            })();
            match sibling {
                Ok(Side::Child) => child(),
                Ok(Side::Parent { pid, .. }) => _ = theirs.send(&Msg::Pid(pid)),
                Err(e) => _ = theirs.send(&Msg::Error(format!("{e:#}"))),
            }
            process::exit_now(0)
        }
        Side::Parent { pid: first, .. } => {
            drop(theirs);
            let answer = ours.recv()?;
            process::wait(first)?;
            match answer {
                Some(Msg::Pid(pid)) => Ok((pid, process::pidfd_open(pid)?, outside)),
                Some(Msg::Error(text)) => bail!(text),
                _ => bail!("the first process ended before the container's"),
            }
        }
    }
}

/// The process, and the unit of systemd that it is still to be moved into.
type Born<'a> = (i32, OwnedFd, Option<&'a Scope>);

/// Clones into the container's cgroup. Where processes of the container have made it an inner one (systemd, Docker in it), the kernel
/// allows no process there: pid 1's own cgroup is taken then. A user may not go into what his systemd has from what his session has:
/// systemd moves the process then, if the container has a unit.
fn clone_into<'a>(request: &Request<'a>) -> Result<(Side, Option<&'a Scope>)> {
    let at = |cgroup: Option<BorrowedFd>| clone::clone3(0, cgroup, false);
    let side = match at(request.cgroup.map(CgroupDir::fd)) {
        Err(e) if [EACCES, EPERM].contains(&e.errno()) && request.scope.is_some() => {
            let side = at(None).context("make a process")?;
            return Ok((side, request.scope));
        }
        // as runc: he may have logged in another way, and his processes there may not come over
        Err(e)
            if [EACCES, EPERM].contains(&e.errno()) && request.rootless && !request.sub_cgroup =>
        {
            log::warn(format_args!(
                "the process is outside of the container's cgroup, whose limits do not hold for it ({e}); execute husk in the session or unit that the container was created in"
            ));
            at(None).context("make a process")
        }
        Err(e) if request.sub_cgroup => Err(anyhow!(
            "--cgroup: adding pid of the process to cgroups: {e}"
        )),
        Err(e) if e.errno() == EBUSY || e.errno() == EOPNOTSUPP => {
            let cgroup = CgroupDir::of_pid(request.cgroup_mount, request.target_pid)
                .context("find the cgroup of the container's pid 1")?;
            at(Some(cgroup.fd())).context("make a process in the cgroup of the container's pid 1")
        }
        r => r.context("make a process in the container's cgroup"),
    };
    Ok((side?, None))
}

/// The same choice of a cgroup as [`clone_into`]'s, by systemd.
fn move_in(request: &Request, scope: &Scope, pid: i32) -> Result<()> {
    let root = request.state.cgroup.as_ref().map(|c| c.path.as_path());
    let below = |cgroup: &CgroupDir| {
        let path = cgroup.path().strip_prefix(root.unwrap_or(Path::new("")));
        path.unwrap_or(Path::new("")).to_path_buf()
    };
    let own = request.cgroup.map(below).unwrap_or_default();
    match systemd::attach(scope, &own, pid) {
        Err(e) if !request.sub_cgroup => {
            let first = below(&CgroupDir::of_pid(
                request.cgroup_mount,
                request.target_pid,
            )?);
            if first == own {
                return Err(e);
            }
            systemd::attach(scope, &first, pid)
        }
        r => r.context("--cgroup"),
    }
}

/// The child's list. Returns only errors.
fn list(
    request: &Request,
    parent: &Channel,
    console: Option<&OwnedFd>,
) -> Result<std::convert::Infallible> {
    let p = request.process;
    let keep = [
        Some(parent.as_fd().as_raw_fd()),
        Some(request.target.as_raw_fd()),
        console.map(AsRawFd::as_raw_fd),
        log::raw_fd(),
    ];
    process::close_all_but(3 + request.preserve_fds as i32, keep.into_iter().flatten())?;
    parent.recv_go(0)?;
    process::set_dumpable(false)?;
    process::setsid()?;
    // 6; the words in brackets are runc's, which its tests look for
    log::step(
        6,
        "exec: joining namespaces (nsexec container setup, child process in init())",
    );
    if !request.rootless {
        let rest: Vec<Kind> = request
            .kinds
            .iter()
            .copied()
            .filter(|k| *k != Kind::Pid)
            .collect();
        clone::setns(request.target, flags(&rest)).context("join the container's namespaces")?;
    }
    if request.kinds.contains(&Kind::User) {
        process::setresgid(0)?;
        process::setresuid(0)?;
    }
    if request.new_keyring {
        init::join_keyring(request.id, Some(p), request.kinds.contains(&Kind::User))?;
    }
    let terminal = if p.terminal {
        let root = Root {
            fd: fs::open(c"/", fs::O_PATH | fs::O_DIRECTORY, 0)?,
        };
        let (master, slave) = console::open(&root, p.uid)?;
        if let Some((rows, columns)) = p.console_size {
            console::resize(master.as_fd(), rows, columns)?;
        }
        init::hand_out(master, console, parent)?;
        Some(slave)
    } else {
        None
    };
    // 10
    log::step(10, "exec: becoming the process (setns_init: about to exec)");
    let mut prepared = init::become_process(
        p,
        terminal,
        request.users,
        request.seccomp,
        request.landlock,
        parent,
    )?;
    parent.send(&Msg::Ready(prepared.listen()?))?;
    // 11
    if !request.starts_at_once() && !parent.started()? {
        bail!("husk's parent process is gone");
    }
    // 12
    init::execute(prepared, request.preserve_fds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_masks_read_as_numbers() {
        assert_eq!(hexadecimal(&[0x13, 0]), "0x13");
        assert_eq!(hexadecimal(&[1, 0xa, 0]), "0xa0000000000000001");
    }
}
