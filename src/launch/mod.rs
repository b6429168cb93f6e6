//! The only two ordered lists in the program: the parent's, here, and the container init's, in [`init`]. They take no
//! decisions: those are in the plan. The step numbers stand in both.
//!
//! ```text
//!     parent                                       child
//!  1  id claimed, config read, plan made (cmd)
//!  2  cgroup made
//!  3  gate made
//!  4  clone, straight into the cgroup,
//!     or systemd makes one around the child
//!  5  network namespace, loopback    ── Network →  meanwhile mount, ipc and uts namespaces
//!     state and config saved, limits,
//!     id maps, resctrl,                   ── Go →
//!     network devices moved
//!  6                                               namespaces joined, names
//!  7  device program loaded meanwhile              root file system, mounts, devices, terminal
//!     run: 11, if nothing is to be done before
//!                                         ← Map ── (a source within a user namespace's root is to be id-mapped)
//!     ids mapped                         ── Done →
//!  8                                    ← Hooks ── (if there are any)
//!     prestart, createRuntime hooks      ── Done → createContainer hooks
//!  9                                               mount namespace (Linux 7), sysctl, masks, pivot_root or chroot
//! 10                                   ← Limits ── (in a user namespace)
//!     rlimits                            ── Done → rlimits, user, capabilities, executable found
//!     scheduler, affinity               ← Ready ── waits at the gate
//!     state complete, pid file (cmd)
//! 11  start                              ── gate → startContainer hooks
//! 12  end of the channel = execve worked           filter, execve
//! ```
//!
//! Init makes the network namespace itself, with the others, where its parent could not come back from it or does not own it
//! ([`crate::plan::namespaces::Namespaces::network_by_parent`]). It waits for what its parent sends as late as it can: for `Network` until the first mount
//! that shows it or is of it (sysfs, what is bound from procfs), and for `Go`, without ids, sources, copies or a cgroup that comes with it, until all mounts are made.
//!
//! Up to Linux 6 the mount namespace of step 5 is a copy of the host's, and step 9 leaves the host's mounts by
//! pivot_root(2) and umount2(2). From Linux 7.0 on init makes the container's tree in the host's mount namespace, where it is attached to
//! nothing and nobody sees it. Step 9 then makes a mount namespace without any mounts and attaches the tree there as its root: there is
//! nothing to leave. The plan says which way ([`crate::plan::rootfs::attaches`]). Until that step init can go over to the old way at any
//! time, with what it has made so far ([`crate::apply::rootfs::pivot_instead`]).
//!
//! `exec` has the same tail: see [`exec`].

pub mod exec;
pub mod gate;
pub mod hop;
pub mod init;
pub mod sync;

use crate::apply::{
    hooks, intel_rdt, mounts, net_devices, process as attributes, seccomp, sysctl, users,
};
use crate::cgroup::{self, Prepared};
use crate::host::Host;
use crate::log;
use crate::plan::Plan;
use crate::plan::namespaces::Kind;
use crate::plan::process::Process;
use crate::plan::seccomp::Filter;
use crate::seal;
use crate::state::{State, Status};
use crate::sys::{fs, process, socket};
use anyhow::{Context, Error, Result, anyhow};
use init::{Gate, Init};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use sync::{Channel, Msg};

/// What `create` and `run` ask for.
pub struct Request<'a> {
    pub plan: &'a Plan,
    pub host: &'a Host,
    /// For the hooks; the pid is not in it yet.
    pub state: &'a State,
    /// The state directory, for the gate of `create`; `run` stays and needs none.
    pub gate_in: Option<BorrowedFd<'a>>,
    pub console_socket: Option<&'a Path>,
    pub pidfd_socket: Option<&'a Path>,
    pub preserve_fds: u32,
    /// The container is to be started, and nothing is for the caller to do before.
    pub at_once: bool,
}

impl Request<'_> {
    fn starts_at_once(&self) -> bool {
        let Plan {
            process,
            seccomp,
            users,
            hooks,
            mounts,
            ..
        } = self.plan;
        let alone = process
            .as_ref()
            .is_some_and(|p| needs_nobody(p, seccomp.as_ref(), users.is_some()));
        let hooks = [
            &hooks.prestart,
            &hooks.create_runtime,
            &hooks.start_container,
        ];
        self.at_once
            && alone
            && self.pidfd_socket.is_none()
            && hooks.iter().all(|h| h.is_empty())
            && mounts.iter().all(|m| m.idmap.is_none())
    }
}

/// Whether `Start` may be said before the process is ready, which spares it a wait: nothing is to be done for it then, and it asks
/// for nothing on its way.
fn needs_nobody(p: &Process, filter: Option<&Filter>, in_user_namespace: bool) -> bool {
    let listens = filter.is_some_and(|f| f.listener.is_some());
    let asks = p.terminal || listens || (in_user_namespace && !p.rlimits.is_empty());
    let affinity = p.affinity_initial.is_some() || p.affinity_final.is_some();
    !asks && !affinity && p.scheduler.is_none() && p.io_priority.is_none()
}

/// A container that is ready to be started.
pub struct Container {
    pub pid: i32,
    pub pidfd: OwnedFd,
    pub cgroup: Option<Prepared>,
    /// The terminal's master, when nobody else took it.
    pub master: Option<OwnedFd>,
    channel: Channel,
    started: bool,
    intel_rdt: Vec<PathBuf>,
    net_devices: Option<net_devices::Moved>,
}

/// What state.json must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress<'a> {
    /// There is a process with this pid, in a cgroup of its own (its path below the mount) or not; a killed husk leaves something to
    /// delete from now on.
    Begun {
        pid: i32,
        cgroup: Option<&'a Path>,
    },
    Ready,
}

/// The parent's list up to `Ready`. `record` keeps the state.
///
/// On failure nothing is left but what the caller made.
pub fn create(
    request: &Request,
    mut record: impl FnMut(Progress) -> Result<()>,
) -> Result<Container> {
    let plan = request.plan;
    let console = request
        .console_socket
        .map(|p| socket::connect(p, socket::Kind::Stream))
        .transpose()
        .context("--console-socket")?;
    let pidfd_socket = request
        .pidfd_socket
        .map(|p| socket::connect(p, socket::Kind::Stream))
        .transpose()
        .context("--pidfd-socket, run.oci.pidfd_receiver")?;
    sysctl::refuse_hosts(&plan.sysctl, &plan.namespaces)?;
    // 2
    log::step(2, "making the cgroup");
    let cgroup = cgroup::prepare(request.host, &plan.cgroup)?;
    let started = request.starts_at_once();
    let mut undo = Undo {
        cgroup,
        child: None,
        intel_rdt: Vec::new(),
        net_devices: None,
    };
    let made = (|| {
        // 3
        log::step(3, "making the gate");
        let gate = match request.gate_in {
            Some(dir) => Gate::Socket(gate::make(dir)?),
            None => Gate::Channel,
        };
        // 4
        log::step(4, "cloning init");
        let (ours, theirs) = Channel::pair()?;
        let mut ours = Some(ours);
        let cgroup = undo.cgroup.as_ref();
        let spawned = hop::spawn(
            &plan.namespaces,
            cgroup.map(|c| c.dir.fd()),
            |pid| first_words(pid, plan),
            |join| {
                drop(ours.take());
                let cgroup = cgroup.map(|c| &c.dir);
                let Request {
                    state,
                    preserve_fds,
                    ..
                } = *request;
                init::main(Init {
                    plan,
                    state,
                    join,
                    parent: theirs,
                    gate,
                    console,
                    cgroup,
                    preserve_fds,
                });
            },
        )?;
        let ours = ours.expect("only the child takes it");
        let pid = spawned.pid;
        undo.child = Some(pid);
        let mut network = None;
        if plan.namespaces.network_by_parent {
            let made = network.insert(Msg::Network(hop::make_network(ours.as_fd())?));
            ours.tell(made)?;
        }
        if undo.cgroup.is_none() {
            undo.cgroup = cgroup::prepare_around(request.host, &plan.cgroup, pid)?;
        }
        let cgroup = undo.cgroup.as_ref();
        // 5
        log::step(5, "writing limits and id maps, moving network devices");
        record(Progress::Begun {
            pid,
            cgroup: cgroup.map(|c| c.dir.path()),
        })?;
        if let Some(c) = cgroup {
            c.limit(&plan.cgroup)?;
        }
        if let Some(rdt) = &plan.intel_rdt {
            intel_rdt::apply(rdt, pid)?;
            undo.intel_rdt = rdt.remove();
        }
        if !plan.net_devices.is_empty() {
            let network = match network {
                Some(Msg::Network(made)) => made,
                _ => find_network(plan, pid)?,
            };
            undo.net_devices = Some(net_devices::move_all(&plan.net_devices, network.as_fd())?);
        }
        ours.tell(&Msg::Go(mounts::open_for_child(plan, pid)?))?;
        // 7
        log::step(7, "loading the device program");
        if let Some(c) = cgroup {
            c.devices(&plan.cgroup)?;
        }
        let outside = || match &plan.process {
            Some(p) => attributes::from_outside(pid, p, None),
            None => Ok(()),
        };
        if started {
            outside()?;
            ours.tell(&Msg::Start)?;
        }
        seal::release();
        // 8 to 10
        log::step(8, "waiting until init is ready");
        let run_hooks = || {
            let json = request.state.for_hooks(Status::Creating, pid);
            let run =
                |kind, hooks| hooks::run(kind, hooks, &json, Some(&request.state.bundle), None);
            run("prestart", &plan.hooks.prestart)?;
            run("createRuntime", &plan.hooks.create_runtime)
        };
        let (master, listener) = until_ready(
            &ours,
            started,
            pid,
            plan.process.as_ref(),
            |request| match request {
                Msg::Hooks => run_hooks(),
                Msg::Map(index, tree) => mounts::map_for_child(plan, *index, tree.as_fd(), pid),
                other => Err(unexpected(other)),
            },
        )?;
        let container = || request.state.for_hooks(Status::Creating, pid);
        hand_over(plan.seccomp.as_ref(), listener, pid, container)?;
        if let Some(socket) = pidfd_socket {
            socket::send(socket.as_fd(), b"pidfd", &[spawned.pidfd.as_fd()])
                .context("send the pidfd to the pidfd socket")?;
        }
        if !started {
            outside()?;
        }
        record(Progress::Ready)?;
        Ok((spawned, ours, master))
    })();
    match made {
        Ok((spawned, channel, master)) => Ok(Container {
            pid: spawned.pid,
            pidfd: spawned.pidfd,
            cgroup: undo.cgroup.take(),
            master,
            channel,
            started,
            intel_rdt: std::mem::take(&mut undo.intel_rdt),
            net_devices: undo.net_devices.take(),
        }),
        Err(e) => Err(undo.after(e)),
    }
}

impl Container {
    /// Passes the gate of `run` and waits until execve has happened.
    pub fn start(&self) -> Result<()> {
        pass(&self.channel, self.started)
    }

    /// Ends what [`create`] made, after an error in a later step.
    pub fn undo(self, e: Error) -> Error {
        Undo {
            cgroup: self.cgroup,
            child: Some(self.pid),
            intel_rdt: self.intel_rdt,
            net_devices: self.net_devices,
        }
        .after(e)
    }
}

/// Sends `Start`, if that has not been, and waits for the end of the channel, which execve brings; anything else on it is the error.
pub fn pass(channel: &Channel, started: bool) -> Result<()> {
    if !started {
        channel.tell(&Msg::Start)?;
        seal::release();
    }
    match channel.recv()? {
        None => Ok(()),
        Some(Msg::Error(text)) => Err(LastWords(text).into()),
        Some(other) => Err(unexpected(&other)),
    }
}

/// What kept a started process from running its program, in its own words.
#[derive(Debug)]
pub struct LastWords(String);

impl std::error::Error for LastWords {}

impl std::fmt::Display for LastWords {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

fn unexpected(msg: &Msg) -> Error {
    anyhow!("unexpected {msg:?} from the container's process")
}

/// What must be written before the first process of the container leaves the host's user namespace.
fn first_words(pid: i32, plan: &Plan) -> Result<()> {
    if let Some(p) = &plan.process {
        attributes::oom_score_adj(pid, p)?;
    }
    match &plan.users {
        Some(maps) if plan.namespaces.is_new(Kind::User) => users::map(pid, maps),
        _ => Ok(()),
    }
}

/// The container's network namespace, for the host's interfaces that its config names.
fn find_network(plan: &Plan, pid: i32) -> Result<OwnedFd> {
    let network = match plan.namespaces.joined(Kind::Network) {
        Some(join) => fs::open(join.path.as_path(), fs::O_RDONLY, 0),
        None => fs::open(&*format!("/proc/{pid}/ns/net"), fs::O_RDONLY, 0),
    };
    network.context("linux.netDevices: find the container's network namespace")
}

/// Gives the listener of the process `pid` to the agent, with the container's state as JSON.
fn hand_over(
    filter: Option<&Filter>,
    fd: Option<OwnedFd>,
    pid: i32,
    container: impl Fn() -> Vec<u8>,
) -> Result<()> {
    let listener = filter.and_then(|f| f.listener.as_ref());
    match (listener, fd) {
        (Some(to), Some(fd)) => seccomp::send_listener(to, fd.as_fd(), pid, &container()),
        _ => Ok(()),
    }
}

/// Serves the child until it is ready; returns the terminal's master and the listener of its filter if it sent them. `answer` does what
/// only `create` can be asked for. A child that has its `Start` already is gone from the channel when this returns.
fn until_ready(
    channel: &Channel,
    started: bool,
    pid: i32,
    process: Option<&Process>,
    answer: impl Fn(&Msg) -> Result<()>,
) -> Result<(Option<OwnedFd>, Option<OwnedFd>)> {
    if started {
        // it asks for nothing ([`needs_nobody`]): one wait for all that it says
        process::poll(&[(channel.as_fd(), 0)], None)?;
    }
    let mut master = None;
    loop {
        match channel.recv()? {
            Some(Msg::Limits) => {
                process.map_or(Ok(()), |p| attributes::rlimits(pid, p))?;
                channel.tell(&Msg::Done)?;
            }
            Some(Msg::Console(fd)) => master = Some(fd),
            Some(Msg::Ready(listener)) => return Ok((master, listener)),
            Some(Msg::Error(text)) => return Err(anyhow!(text)),
            Some(request) => {
                answer(&request)?;
                channel.tell(&Msg::Done)?;
            }
            None => return Err(Silent.into()),
        }
    }
}

/// The child ended without a word; how is only known once it is reaped.
#[derive(Debug)]
struct Silent;

impl std::error::Error for Silent {}

impl std::fmt::Display for Silent {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "the container's process ended during its set-up")
    }
}

/// What [`create`] has made so far, to be unmade in reverse.
struct Undo {
    cgroup: Option<Prepared>,
    child: Option<i32>,
    /// Groups of resctrl.
    intel_rdt: Vec<PathBuf>,
    net_devices: Option<net_devices::Moved>,
}

impl Undo {
    /// The first error is the one reported; what goes wrong here is appended.
    fn after(self, mut e: Error) -> Error {
        if let Some(pid) = self.child {
            // reads how it ended before killing it: a silent child is dead already
            let silent = e.is::<Silent>();
            if !silent {
                _ = process::kill(pid, 9);
            }
            match process::wait(pid) {
                Ok(end) if silent => e = explain(end, self.cgroup.as_ref()),
                Ok(_) => {}
                Err(wait) => e = anyhow!("{e:#}; then {wait}"),
            }
        }
        if let Some(devices) = self.net_devices {
            e = devices.put_back(e);
        }
        if let Err(undo) = intel_rdt::remove(&self.intel_rdt) {
            e = anyhow!("{e:#}; then {undo:#}");
        }
        if let Some(Err(undo)) = self.cgroup.map(Prepared::undo) {
            e = anyhow!("{e:#}; then {undo:#}");
        }
        e
    }
}

/// Says why a child died that could not say so itself.
fn explain(end: process::End, cgroup: Option<&Prepared>) -> Error {
    let why = match cgroup.map(|c| c.dir.oom_kills()) {
        Some(Ok(Some(1..))) => ": out of memory within linux.resources.memory.limit; raise it",
        // systemd has removed the cgroup with its last process
        Some(Ok(None)) if end == process::End::Killed(process::SIGKILL) => {
            ": perhaps out of memory; if so raise linux.resources.memory.limit"
        }
        _ => "",
    };
    anyhow!("{Silent}: it {end}{why}")
}
