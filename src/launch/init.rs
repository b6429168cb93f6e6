//! The child's list: what the container's init does, from its first instruction to execve.
//!
//! The numbers are those of the parent's list in [`super`].

use super::gate;
use super::hop;
use super::sync::{Channel, Msg};
use crate::apply::{
    self, console, devices, hooks, labels, landlock, mounts, paths, process as attributes, rootfs,
    seccomp, sysctl, users,
};
use crate::cgroup::CgroupDir;
use crate::plan::Plan;
use crate::plan::cgroup::Placement;
use crate::plan::namespaces::{Join, Kind};
use crate::plan::process::Process;
use crate::plan::rootfs::Enter;
use crate::root::Root;
use crate::state::{State, Status};
use crate::sys::process::Vector;
use crate::sys::{cap, fs, process, socket};
use crate::{log, plan};
use anyhow::{Context, Result, anyhow, bail};
use std::cell::Cell;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The kernel wants it of who restricts itself without no_new_privs.
const CAP_SYS_ADMIN: u64 = 1 << 21;

/// Where the ready process waits for its start, and where an error goes from then on.
pub enum Gate {
    /// `create`: a socket in the state directory; husk itself is gone by then.
    Socket(OwnedFd),
    /// `run`: the channel, since husk waits.
    Channel,
}

/// What init knows besides the plan.
pub struct Init<'a> {
    pub plan: &'a Plan,
    /// For the hooks; the pid is not in it.
    pub state: &'a State,
    /// Namespaces that are for init to join.
    pub join: &'a [&'a Join],
    pub parent: Channel,
    pub gate: Gate,
    /// Connected; takes the terminal's master. Without it the parent does.
    pub console: Option<OwnedFd>,
    /// The container's cgroup on the host, if it has one: init was cloned into it.
    pub cgroup: Option<&'a CgroupDir>,
    pub preserve_fds: u32,
}

/// Runs the list. Returns only when init must leave; every error has been reported by then.
pub fn main(init: Init) {
    let prepared = match prepare(&init) {
        Ok(prepared) => prepared,
        Err(e) => {
            _ = init.parent.send(&Msg::Error(format!("{e:#}")));
            return;
        }
    };
    // 11: the gate
    let waited = match &init.gate {
        Gate::Socket(listener) => {
            // husk is about to leave; pid 1 of a namespace ignores every signal that it has no handler for
            process::exit_on_end_signals();
            log::close();
            process::trim();
            process::block_signals(false)
                .map_err(Into::into)
                .and_then(|()| gate::wait(listener))
                .map(Some)
        }
        Gate::Channel => init.parent.started().and_then(|yes| {
            if yes {
                Ok(None)
            } else {
                bail!("husk's parent process is gone")
            }
        }),
    };
    match waited {
        Ok(starter) => {
            let Err(e) = start(&init, prepared);
            starter.as_ref().unwrap_or(&init.parent).last_words(&e);
        }
        // silence would be taken for execve
        Err(e) => init.parent.last_words(&e),
    }
}

/// Up to and with `Ready`.
fn prepare(init: &Init) -> Result<Option<Prepared>> {
    let plan = init.plan;
    close_all_but(init)?;
    // 5: while the parent makes a network namespace, saves the state, writes limits and id maps
    hop::make(&plan.namespaces)?;
    let in_network = Cell::new(!plan.namespaces.network_by_parent);
    if plan.namespaces.is_new(Kind::Network) && in_network.get() {
        socket::loopback_up().context("bring up the loopback interface")?;
    }
    let network = || match in_network.replace(true) {
        true => Ok(false),
        false => hop::enter_network(init.parent.recv_network()?.as_fd()).map(|()| true),
    };
    let go = |sources| network().and_then(|_| init.parent.recv_go(sources));
    let sources = mounts::count_for_child(plan);
    // ids, mounts and a cgroup of the parent's are for now, all else that comes with Go is for the process
    let by_systemd = matches!(plan.cgroup.placement, Placement::Systemd(_));
    // what is copied into a tmpfs counts for the limits
    let copies = plan.mounts.iter().any(|m| m.copy_up);
    let go_first = plan.users.is_some() || sources > 0 || by_systemd || copies;
    let sources = if go_first { go(sources)? } else { Vec::new() };
    process::set_dumpable(false)?;
    // 6: namespaces; the words in brackets, here and below, are runc's, which its tests look for
    log::step(6, "init: entering namespaces (nsexec container setup)");
    process::setsid()?;
    hop::enter(&plan.namespaces, init.join, init.cgroup.is_some())?;
    if let Some(maps) = &plan.users {
        users::check_claim(maps)?;
    }
    if plan.new_keyring {
        join_keyring(
            &init.state.id,
            plan.process.as_ref(),
            !plan.namespaces.is_host(Kind::User),
        )?;
    }
    names(plan)?;
    // 7: the root file system, every mount by its descriptor
    log::step(
        7,
        "init: making the root file system and mounts (child process in init())",
    );
    let enter = Cell::new(plan.rootfs.enter);
    let root = rootfs::prepare(plan)?;
    let pivot = || rootfs::pivot_instead(&root, &plan.rootfs, &enter);
    let map = |index, tree| init.parent.ask(Msg::Map(index, tree));
    let own = own_cgroup(plan)?;
    let cgroup = init.cgroup.or(own.as_ref());
    let between = mounts::Between {
        map: &map,
        pivot: &pivot,
        network: &network,
    };
    let mounted = mounts::mount_all(&root, plan, sources, cgroup, &enter, between)?;
    if !go_first {
        go(0)?;
    }
    devices::make(&root, &plan.devices, enter.get() == Enter::Attach)?;
    let terminal = plan
        .process
        .as_ref()
        .filter(|p| p.terminal)
        .map(|p| terminal(&root, p, init))
        .transpose()?;
    // 8: hooks of the runtime's namespaces, then those of the container's that still see the host's files
    if !plan.hooks.prestart.is_empty() || !plan.hooks.create_runtime.is_empty() {
        init.parent.ask(Msg::Hooks)?;
    }
    if !plan.hooks.create_container.is_empty() {
        fs::fchdir(root.fd.as_fd())?;
        run_hooks(
            init,
            "createContainer",
            &plan.hooks.create_container,
            Status::Creating,
            None,
        )?;
    }
    // 9: in the root
    log::step(9, "init: entering the root");
    let root = rootfs::leave(root, &plan.rootfs, &enter)?;
    if let Some(p) = &plan.process {
        working_directory(&root, p)?;
    }
    mounted.make_read_only()?;
    sysctl::write(mounted.proc.as_ref(), &plan.sysctl)?;
    paths::mask(&root, &plan.masked, plan.mount_label.as_deref())?;
    paths::make_readonly(&root, &plan.readonly)?;
    rootfs::enter(&root, &plan.rootfs, enter.get())?;
    rootfs::finish(&root, &plan.rootfs)?;
    drop((root, mounted));
    // 10: the process
    log::step(
        10,
        "init: becoming the process (init: closing the pipe to signal completion)",
    );
    let mut prepared = match &plan.process {
        Some(p) => Some(become_process(
            p,
            terminal,
            plan.users.as_ref(),
            plan.seccomp.as_ref(),
            plan.landlock.as_ref(),
            &init.parent,
        )?),
        None => None,
    };
    let listener = match &mut prepared {
        Some(prepared) => prepared.listen()?,
        None => None,
    };
    init.parent.send(&Msg::Ready(listener))?;
    Ok(prepared)
}

/// From the gate to execve.
fn start(init: &Init, prepared: Option<Prepared>) -> Result<std::convert::Infallible> {
    let mut prepared = prepared.ok_or_else(|| {
        anyhow!("process: missing in config.json; a container needs one to be started")
    })?;
    if !init.plan.hooks.start_container.is_empty() {
        // as with runc, the filter is for them too
        prepared.filter.load()?;
    }
    run_hooks(
        init,
        "startContainer",
        &init.plan.hooks.start_container,
        Status::Created,
        Some(&prepared.env),
    )?;
    // 12: execve
    execute(prepared, init.preserve_fds)
}

/// Shared by init and `exec`.
pub fn join_keyring(id: &str, process: Option<&Process>, user_namespace: bool) -> Result<()> {
    let label = process.and_then(|p| p.selinux_label.as_ref());
    if let Some(label) = label {
        labels::selinux_keys(label)?;
    }
    attributes::join_keyring(id, user_namespace)
}

/// Where systemd has put this process, if it must be shown without a cgroup namespace.
fn own_cgroup(plan: &Plan) -> Result<Option<CgroupDir>> {
    match (&plan.cgroup.placement, &plan.cgroup.mountpoint) {
        (Placement::Systemd(_), Some(mountpoint)) if !plan.namespaces.is_new(Kind::Cgroup) => {
            CgroupDir::own(mountpoint).map(Some)
        }
        _ => Ok(None),
    }
}

/// Closes what the parent has open: its lock on the state directory, the cgroup, and whatever husk's caller let it inherit.
fn close_all_but(init: &Init) -> Result<()> {
    let gate = match &init.gate {
        Gate::Socket(listener) => Some(listener.as_raw_fd()),
        Gate::Channel => None,
    };
    let keep = [
        Some(init.parent.as_fd().as_raw_fd()),
        gate,
        init.console.as_ref().map(AsRawFd::as_raw_fd),
        log::raw_fd(),
    ];
    process::close_all_but(3 + init.preserve_fds as i32, keep.into_iter().flatten())
        .context("close inherited descriptors")
}

fn names(plan: &Plan) -> Result<()> {
    if let Some(name) = &plan.hostname {
        process::sethostname(name).context("hostname")?;
    }
    if let Some(name) = &plan.domainname {
        process::setdomainname(name).context("domainname")?;
    }
    Ok(())
}

fn run_hooks(
    init: &Init,
    kind: &str,
    list: &[plan::hooks::Hook],
    status: Status,
    env: Option<&[CString]>,
) -> Result<()> {
    if list.is_empty() {
        return Ok(());
    }
    // the pid as the container sees it
    hooks::run(
        kind,
        list,
        &init.state.for_hooks(status, process::pid()),
        None,
        env,
    )
}

/// Opens the container's terminal and hands its master out; returns the slave.
fn terminal(root: &Root, p: &Process, init: &Init) -> Result<OwnedFd> {
    let (master, slave) = console::open(root, p.uid)?;
    console::bind(root, slave.as_fd())?;
    if let Some((rows, columns)) = p.console_size {
        console::resize(master.as_fd(), rows, columns)?;
    }
    hand_out(master, init.console.as_ref(), &init.parent)?;
    Ok(slave)
}

/// Gives the master to the console socket or, without one, to the parent.
pub fn hand_out(master: OwnedFd, console: Option<&OwnedFd>, parent: &Channel) -> Result<()> {
    match console {
        Some(socket) => socket::send(socket.as_fd(), console::NAME.as_bytes(), &[master.as_fd()])
            .context("send the terminal to the console socket")?,
        None => parent.send(&Msg::Console(master))?,
    }
    Ok(())
}

/// Makes the working directory when it is missing, while the root can still be written.
fn working_directory(root: &Root, p: &Process) -> Result<()> {
    let cwd = Path::new(std::ffi::OsStr::from_bytes(p.cwd.to_bytes()));
    if root.open(cwd).is_err() {
        root.mkdir_all(cwd, 0o755)
            .with_context(|| format!("process.cwd: make '{}'", cwd.display()))?;
    }
    Ok(())
}

/// A process with nothing left to do but execve.
pub struct Prepared {
    path: CString,
    args: Vec<CString>,
    env: Vec<CString>,
    filter: Filter,
}

impl Prepared {
    /// Loads a filter that has a listener, early: the parent must still be there to hand it to the agent.
    pub fn listen(&mut self) -> Result<Option<OwnedFd>> {
        match &self.filter.ready {
            Some(ready) if ready.listens => self.filter.load(),
            _ => Ok(None),
        }
    }
}

/// Landlock rules and a filter of system calls, laid upon the process once.
struct Filter {
    rules: Option<OwnedFd>,
    ready: Option<seccomp::Ready>,
    no_new_privileges: bool,
}

impl Filter {
    fn load(&mut self) -> Result<Option<OwnedFd>> {
        let (rules, ready) = (self.rules.take(), self.ready.take());
        if !self.no_new_privileges && (rules.is_some() || ready.is_some()) {
            // the kernel wants it for both; execve, which makes new sets, takes it away
            let mut sets = cap::get()?;
            sets.effective |= sets.permitted & CAP_SYS_ADMIN;
            cap::set(&sets)?;
        }
        if let Some(rules) = rules {
            landlock::restrict(&rules)?;
        }
        ready.map_or(Ok(None), |ready| seccomp::load(&ready))
    }
}

/// Becomes the process that the plan describes: terminal, ids, capabilities, working directory, executable. Shared by init and `exec`.
pub fn become_process(
    p: &Process,
    terminal: Option<OwnedFd>,
    users: Option<&plan::users::IdMaps>,
    filter: Option<&plan::seccomp::Filter>,
    rules: Option<&plan::landlock::Landlock>,
    parent: &Channel,
) -> Result<Prepared> {
    match terminal {
        Some(slave) => console::attach(slave.as_fd())?,
        None => apply::process::own_stdio(p.uid)?,
    }
    if let Some(persona) = p.personality {
        process::personality(persona).context("linux.personality")?;
    }
    if let Some(policy) = &p.memory_policy {
        attributes::memory_policy(policy)?;
    }
    let granted = attributes::bound(p)?;
    if granted.missing != 0 {
        log::warn(format_args!(
            "process.capabilities: {} cannot be given: husk does not have them itself",
            attributes::names(granted.missing)
        ));
    }
    // by root, to whom these files belong; for whatever is executed from here on
    if let Some(profile) = &p.apparmor_profile {
        labels::apparmor(profile)?;
    }
    if let Some(label) = &p.selinux_label {
        labels::selinux(label)?;
    }
    // as root first, since the user may have no right to walk there; as the user, where root of a user namespace has none
    let inside = attributes::working_directory(&p.cwd);
    let rules = rules.map(landlock::ready).transpose()?.flatten();
    let env = attributes::environment(p)?;
    // 10: as late as can be, so that a small limit does not hinder the set-up
    match users {
        Some(_) if !p.rlimits.is_empty() => parent.ask(Msg::Limits)?,
        _ => attributes::rlimits(0, p)?,
    }
    attributes::user(p, users.is_some_and(|m| m.deny_setgroups))?;
    if let Some(filter) = filter {
        log::debug(format_args!("seccomp filter flags: {}", filter.flags)); // runc's words, which its tests look for
    }
    let kept = match (filter, &rules) {
        (None, None) => 0,
        _ if p.no_new_privileges => 0,
        _ => CAP_SYS_ADMIN,
    };
    attributes::capabilities(&granted, kept)?;
    if inside.is_err() {
        attributes::working_directory(&p.cwd)?;
    }
    if p.no_new_privileges {
        process::set_no_new_privs()?;
    }
    let path = attributes::executable(p, &env)?;
    Ok(Prepared {
        path,
        args: p.args.clone(),
        env,
        filter: Filter {
            rules,
            ready: filter.map(seccomp::ready),
            no_new_privileges: p.no_new_privileges,
        },
    })
}

/// execve, with nothing open but the first three descriptors and those that were asked for. Returns only the error.
///
/// The filter is loaded as late as can be: after it there is only execve, and what reports that execve failed, a write and an exit. (What
/// startContainer hooks and a listener need is more: they come before.)
pub fn execute(mut prepared: Prepared, preserve_fds: u32) -> Result<std::convert::Infallible> {
    // the error's way out is among what is closed: by execve itself
    process::close_from(3, true).context("mark descriptors close-on-exec")?;
    for fd in 3..3 + preserve_fds as i32 {
        process::keep_on_exec(fd)?;
    }
    process::default_sigpipe();
    process::block_signals(false)?;
    let (args, env) = (Vector::new(&prepared.args), Vector::new(&prepared.env));
    prepared.filter.load()?;
    let e = process::execve(&prepared.path, &args, &env);
    Err(e.into())
}
