//! `husk exec`: another process in a running container.

use super::create::{check_preserved, listen_fds, socket_activation, write_pid_file};
use crate::cgroup::CgroupDir;
use crate::foreground::Foreground;
use crate::host::Host;
use crate::launch::exec::{Request, exec};
use crate::plan::namespaces::Kind;
use crate::plan::{self, Options};
use crate::state::{Root, State, StateDir, Status};
use crate::sys::fs;
use crate::sys::fs::Lock;
use crate::{cli, config, log};
use anyhow::{Context, Result, bail};
use oci_spec::runtime::{Capability, LinuxCapabilities, Process, Spec};
use std::os::fd::AsFd;
use std::path::Path;

pub fn run(global: &cli::Global, args: cli::Exec) -> Result<i32> {
    let root = Root::new(global)?;
    let id = args.id();
    // shared: several at once, but none while the container is being made or deleted
    let dir = StateDir::open_locked(&root, id, Lock::Shared)?;
    let (state, status, init) = dir.load_with_init()?;
    match status {
        Status::Created | Status::Running => {}
        Status::Paused if args.ignore_paused => {}
        Status::Paused => {
            bail!("cannot exec in a paused container '{id}' (use --ignore-paused to override)")
        }
        Status::Stopped => bail!("cannot exec in a stopped container '{id}'"),
        Status::Creating => bail!("cannot exec in container '{id}' while it is being created"),
    }
    let Some(init) = init else {
        bail!("cannot exec in a stopped container '{id}'")
    };
    let mut warnings = Vec::new();
    let spec = config::parse_spec(&fs::read_at(dir.fd(), "config.json")?, &mut Vec::new())
        .context("the saved config.json")?;
    let described = describe(&spec, &args, &mut warnings)?;
    let host = Host::probe(&spec, Some(&described))?;
    let options = Options {
        detach: args.detach,
        console_socket: args.console_socket.is_some(),
        ..Options::default()
    };
    let mut plan = plan::exec(&spec, &described, &host, &options)?;
    for warning in warnings.iter().chain(&plan.warnings) {
        log::warn(warning);
    }
    let listen_fds = listen_fds();
    let preserve_fds = args.preserve_fds.saturating_add(listen_fds);
    check_preserved(preserve_fds)?;
    socket_activation(&mut plan.process.env, listen_fds);
    let cgroup = cgroup(&state, &args.cgroup)?;
    let request = Request {
        id,
        state: &state,
        process: &plan.process,
        seccomp: plan.seccomp.as_ref(),
        landlock: plan.landlock.as_ref(),
        users: plan.users.as_ref(),
        target: init.as_fd(),
        target_pid: state.pid,
        kinds: &plan.kinds,
        rootless: host.rootless() && plan.kinds.contains(&Kind::User),
        cgroup: cgroup.as_ref(),
        cgroup_mount: state
            .cgroup
            .as_ref()
            .map_or(Path::new("/sys/fs/cgroup"), |c| &c.mountpoint),
        scope: state.cgroup.as_ref().and_then(|c| c.scope.as_ref()),
        sub_cgroup: !args.cgroup.is_empty(),
        new_keyring: state.own_keyring,
        console_socket: args.console_socket.as_deref(),
        pidfd_socket: args.pidfd_socket.as_deref(),
        preserve_fds,
        at_once: args.pid_file.is_none(),
    };
    let mut foreground = if args.detach {
        None
    } else {
        Some(Foreground::begin(true)?)
    };
    let mut ready = exec(&request)?;
    let started = (|| {
        if let (Some(foreground), Some(master)) = (&mut foreground, ready.master.take()) {
            foreground.attach(master)?;
        }
        write_pid_file(args.pid_file.as_deref(), ready.pid)?;
        ready.start()
    })();
    if let Err(e) = started {
        return Err(ready.undo(e));
    }
    let Some(foreground) = foreground else {
        return Ok(0);
    };
    drop(dir);
    Ok(foreground
        .wait(ready.pid, ready.pidfd.as_fd(), || ())?
        .code())
}

/// The process as the OCI describes one: from --process, or the container's own changed by the options.
fn describe(spec: &Spec, args: &cli::Exec, warnings: &mut Vec<String>) -> Result<Process> {
    if let Some(file) = &args.process {
        let mut described = read_process(file, warnings)?;
        inherit(&mut described, spec);
        return Ok(described);
    }
    let Some(mut p) = spec.process().clone() else {
        bail!("process: missing in the container's config.json; describe one with --process")
    };
    if args.argv().is_empty() {
        bail!("no command given; name one after the container's id, or use --process");
    }
    p.set_args(Some(args.argv().to_vec()));
    p.set_terminal(Some(args.tty));
    if let Some(cwd) = &args.cwd {
        p.set_cwd(cwd.into());
    }
    p.env_mut()
        .get_or_insert_default()
        .extend(args.env.iter().cloned());
    if let Some(user) = args.user {
        p.user_mut().set_uid(user.uid);
        // as runc: without a group it is root's
        p.user_mut().set_gid(user.gid.unwrap_or(0));
    }
    if !args.additional_gids.is_empty() {
        p.user_mut()
            .additional_gids_mut()
            .get_or_insert_default()
            .extend(&args.additional_gids);
    }
    if let Some(label) = &args.process_label {
        p.set_selinux_label(Some(label.clone()));
    }
    if let Some(profile) = &args.apparmor {
        p.set_apparmor_profile(Some(profile.clone()));
    }
    if args.no_new_privs {
        p.set_no_new_privileges(Some(true));
    }
    if !args.cap.is_empty() {
        add_capabilities(&mut p, &args.cap)?;
    }
    Ok(p)
}

fn read_process(file: &Path, warnings: &mut Vec<String>) -> Result<Process> {
    let json = fs::read_at(fs::CWD, file).context("--process")?;
    config::parse_process(&json, warnings).with_context(|| file.display().to_string())
}

/// What the file leaves out is as for the container's own process, as with runc.
fn inherit(described: &mut Process, spec: &Spec) {
    let Some(own) = spec.process() else { return };
    let absent = |label: &Option<String>| label.as_deref().unwrap_or_default().is_empty();
    if described.capabilities().is_none() {
        described.set_capabilities(own.capabilities().clone());
    }
    if absent(described.apparmor_profile()) {
        described.set_apparmor_profile(own.apparmor_profile().clone());
    }
    if absent(described.selinux_label()) {
        described.set_selinux_label(own.selinux_label().clone());
    }
    if described.rlimits().as_ref().is_none_or(Vec::is_empty) {
        described.set_rlimits(own.rlimits().clone());
    }
    if described.io_priority().is_none() {
        described.set_io_priority(*own.io_priority());
    }
    if described.scheduler().is_none() {
        described.set_scheduler(own.scheduler().clone());
    }
    if described.exec_cpu_affinity().is_none() {
        described.set_exec_cpu_affinity(own.exec_cpu_affinity().clone());
    }
    if described.oom_score_adj().is_none() {
        described.set_oom_score_adj(own.oom_score_adj());
    }
}

/// Into the bounding, effective and permitted sets, and the ambient one where the container has an inheritable set for it; never into the
/// inheritable set itself (CVE-2022-29162).
fn add_capabilities(p: &mut Process, names: &[String]) -> Result<()> {
    let mut all: LinuxCapabilities = p.capabilities().clone().unwrap_or_else(|| {
        let mut none = LinuxCapabilities::default();
        for set in [
            LinuxCapabilities::set_bounding,
            LinuxCapabilities::set_effective,
            LinuxCapabilities::set_permitted,
            LinuxCapabilities::set_inheritable,
            LinuxCapabilities::set_ambient,
        ] {
            set(&mut none, None);
        }
        none
    });
    for name in names {
        let Ok(cap) = serde_json::from_value::<Capability>(name.as_str().into()) else {
            bail!("--cap: '{name}' is not a capability such as CAP_NET_ADMIN")
        };
        let with = |set: &Option<_>| -> Option<std::collections::HashSet<Capability>> {
            let mut set: std::collections::HashSet<Capability> = set.clone().unwrap_or_default();
            set.insert(cap);
            Some(set)
        };
        let (bounding, effective, permitted) = (
            with(all.bounding()),
            with(all.effective()),
            with(all.permitted()),
        );
        all.set_bounding(bounding);
        all.set_effective(effective);
        all.set_permitted(permitted);
        if all.inheritable().as_ref().is_some_and(|s| !s.is_empty()) {
            let ambient = with(all.ambient());
            all.set_ambient(ambient);
        }
    }
    p.set_capabilities(Some(all));
    Ok(())
}

/// The container's cgroup, or the one below it that --cgroup names. None when the container has none.
fn cgroup(state: &State, sub: &[String]) -> Result<Option<CgroupDir>> {
    let Some(own) = &state.cgroup else {
        if sub.is_empty() {
            return Ok(None);
        }
        bail!("--cgroup: the container has no cgroup of its own");
    };
    let dir = CgroupDir::open(&own.mountpoint, &own.path)?;
    let Some(sub) = sub.last() else {
        // one that is gone was replaced from inside; pid 1 knows by what
        let Some(dir) = dir else {
            return CgroupDir::of_pid(&own.mountpoint, state.pid).map(Some);
        };
        return match own.scope.as_ref().and_then(|s| s.subgroup.as_ref()) {
            Some(below) => dir.sub(Path::new(below)).map(Some),
            None => Ok(Some(dir)),
        };
    };
    if sub.contains(':') {
        bail!(
            "--cgroup: unknown controller in '{sub}': cgroup v2 has one hierarchy for all; give the path alone"
        );
    }
    let dir = dir.with_context(|| {
        format!(
            "--cgroup: the container's cgroup '{}' is gone",
            own.path.display()
        )
    })?;
    dir.sub(Path::new(sub)).context("--cgroup").map(Some)
}
