//! `husk create`, and what `run` has in common with it.

use crate::cgroup::systemd;
use crate::cli::{self, CgroupManager, Creation};
use crate::host::Host;
use crate::launch::{self, Container, Progress, Request};
use crate::plan::cgroup::{Manager, Placement};
use crate::plan::{self, Options, Plan, annotations, intel_rdt};
use crate::state::{ContainerId, Root, State, StateDir, Status, process_stat};
use crate::sys::{fs, process};
use crate::{apply, config, log, state};
use anyhow::{Context, Error, Result, anyhow, bail};
use oci_spec::runtime::Spec;
use std::ffi::{CString, OsString};
use std::os::fd::AsFd;
use std::path::Path;

pub fn run(global: &cli::Global, args: cli::Create) -> Result<i32> {
    let made = make(global, &args.creation, &args.id, Ending::Detached)?;
    let pid = made.container.pid;
    if let Err(e) = write_pid_file(args.creation.pid_file.as_deref(), pid) {
        return Err(made.undo(e));
    }
    Ok(0)
}

/// What happens once the container is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// `create`: husk leaves, `start` comes later.
    Detached,
    /// `run --detach`: started, then husk leaves.
    StartedDetached,
    /// `run`: husk stays.
    Foreground,
}

/// A container that is ready, with what husk keeps of it.
pub struct Made {
    pub dir: StateDir,
    pub state: State,
    pub plan: Plan,
    pub container: Container,
}

impl Made {
    /// Undoes everything after an error in a later step.
    pub fn undo(self, e: Error) -> Error {
        let e = self.container.undo(e);
        after_failure(self.dir, &self.state, &self.plan, e)
    }
}

/// Reads the bundle, plans, and brings the container up to its gate. On failure nothing is left behind.
pub fn make(global: &cli::Global, creation: &Creation, id: &str, ending: Ending) -> Result<Made> {
    let id = ContainerId::new(id)?;
    let root = Root::new(global)?;
    let bundle = std::path::absolute(&creation.bundle)?;
    let config = match &creation.config {
        Some(path) => path.clone(),
        None => bundle.join("config.json"),
    };
    let (json, mut spec) = read_config(&config)?;
    let notify = notify_socket().is_some() && offer_notify_socket(&mut spec, &root, &id);
    let mut host = Host::probe(&spec, spec.process().as_ref())?;
    host.find_kernel();
    let by_path = matches!(global.cgroup_manager, CgroupManager::Cgroupfs);
    host.find_cgroup(&spec, by_path)?;
    if let Some(class) = intel_rdt::class(&spec, id.as_str()) {
        host.find_resctrl(&class)?;
    }
    let listen_fds = listen_fds();
    let preserve_fds = creation.preserve_fds.saturating_add(listen_fds);
    let options = Options {
        id: id.to_string(),
        bundle: bundle.clone(),
        no_pivot: creation.no_pivot,
        no_new_keyring: creation.no_new_keyring,
        console_socket: creation.console_socket.is_some(),
        detach: ending != Ending::Foreground,
        rootless: global.rootless.choice(),
        cgroup_manager: match global.cgroup_manager {
            CgroupManager::Cgroupfs => Manager::Fs,
            CgroupManager::Systemd => Manager::Systemd {
                user: systemd::is_users(&host, global.rootless.choice()),
            },
            CgroupManager::Disabled => Manager::Disabled,
        },
    };
    let mut plan = Plan::new(&spec, &host, &options).map_err(|v| v.in_file(&config))?;
    for warning in &plan.warnings {
        log::warn(warning);
    }
    if let Some(p) = &mut plan.process {
        socket_activation(&mut p.env, listen_fds);
    }
    check_preserved(preserve_fds)?;

    let dir = StateDir::claim(&root, &id)?;
    let mut state = State {
        oci_version: spec.version().clone(),
        id: id.to_string(),
        bundle,
        rootfs: plan.rootfs.path.clone(),
        created: log::timestamp(),
        owner: host.euid,
        annotations: spec
            .annotations()
            .clone()
            .unwrap_or_default()
            .into_iter()
            .collect(),
        own_pid_namespace: plan.namespaces.is_new(crate::plan::namespaces::Kind::Pid),
        own_keyring: plan.new_keyring,
        poststart: plan.hooks.poststart.clone(),
        poststop: plan.hooks.poststop.clone(),
        intel_rdt: plan.intel_rdt.as_ref().map(|rdt| state::IntelRdt {
            class: rdt.class.clone(),
            monitor: rdt.monitor.clone(),
            remove: rdt.remove(),
        }),
        ..State::default()
    };
    // before there is a cgroup: what a killed husk leaves must be found
    state.cgroup = host.cgroup.as_ref().map(|c| state::Cgroup {
        mountpoint: c.mountpoint.clone(),
        path: plan.cgroup.path.clone(),
        scope: match &plan.cgroup.placement {
            Placement::Systemd(unit) => Some(systemd::Scope::from(&**unit)),
            _ => None,
        },
    });
    let launched = dir.save(&state).and_then(|()| {
        if notify {
            apply::notify::make_directory(dir.fd())?;
        }
        let hook_state = state.clone();
        let receiver = annotations::get(&spec, annotations::PIDFD_RECEIVER);
        let request = Request {
            plan: &plan,
            host: &host,
            state: &hook_state,
            gate_in: (ending == Ending::Detached).then(|| dir.fd()),
            console_socket: creation.console_socket.as_deref(),
            pidfd_socket: creation.pidfd_socket.as_deref().or(receiver.map(Path::new)),
            preserve_fds,
            at_once: ending != Ending::Detached
                && creation.pid_file.is_none()
                && notify_socket().is_none(),
        };
        launch::create(&request, |progress| match progress {
            Progress::Begun { pid, cgroup } => {
                state.pid = pid;
                state.cgroup = cgroup.and_then(|path| {
                    let path = path.into();
                    state.cgroup.take().map(|c| state::Cgroup { path, ..c })
                });
                state.start_time = process_stat(pid)?.map_or(0, |s| s.start_time);
                dir.save(&state)?;
                save_config(&dir, &json)
            }
            Progress::Ready => {
                state.ready = true;
                dir.publish()
            }
        })
    });
    match launched {
        Ok(container) => Ok(Made {
            dir,
            state,
            plan,
            container,
        }),
        Err(e) => Err(after_failure(dir, &state, &plan, e)),
    }
}

/// The container's process is gone; so go its hooks' last turn and its directory.
fn after_failure(dir: StateDir, state: &State, plan: &Plan, mut e: Error) -> Error {
    if state.pid != 0 {
        let json = state.for_hooks(Status::Stopped, 0);
        apply::hooks::run_all("poststop", &plan.hooks.poststop, &json, &state.bundle);
    }
    if let Err(left) = dir.remove() {
        e = anyhow!("{e:#}; then {left:#}");
    }
    e
}

/// config.json as it is and as it reads.
fn read_config(path: &Path) -> Result<(Vec<u8>, Spec)> {
    // not a FIFO, at which husk would wait, deaf to signals, for somebody to write
    let json = match fs::stat(path) {
        Ok(stat) if stat.kind() == fs::S_IFIFO => bail!(
            "read '{}': it is a FIFO, not a regular file",
            path.display()
        ),
        Ok(_) => fs::read_at(fs::CWD, path),
        Err(e) => Err(e),
    }
    .map_err(|e| anyhow!("{e}; --bundle names the bundle, and 'husk spec' writes a config.json"))?;
    let mut warnings = Vec::new();
    let spec =
        config::parse_spec(&json, &mut warnings).with_context(|| path.display().to_string())?;
    for warning in &warnings {
        log::warn(warning);
    }
    Ok((json, spec))
}

/// A copy for `exec`: the bundle may change or go while the container lives.
fn save_config(dir: &StateDir, json: &[u8]) -> Result<()> {
    let flags = fs::O_WRONLY | fs::O_CREAT | fs::O_EXCL;
    fs::openat(dir.fd(), "config.json", flags, 0o600)
        .and_then(|fd| fs::write_all(fd.as_fd(), json))
        .with_context(|| format!("keep a copy of config.json in '{}'", dir.path().display()))
}

/// Written under another name first: whoever waits for the file finds the whole pid in it.
pub fn write_pid_file(path: Option<&Path>, pid: i32) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    let write = || -> Result<()> {
        let name = path.file_name().context("not a file name")?;
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        let tmp = path.with_file_name(hidden);
        let fd = fs::open(&tmp, fs::O_WRONLY | fs::O_CREAT | fs::O_TRUNC, 0o644)?;
        let written = fs::write_all(fd.as_fd(), pid.to_string().as_bytes())
            .and_then(|()| fs::renameat(fs::CWD, &tmp, path));
        if written.is_err() {
            _ = fs::unlinkat(fs::CWD, &tmp, false);
        }
        Ok(written?)
    };
    write().with_context(|| {
        format!(
            "write the pid file '{}'; give --pid-file a path that can be written",
            path.display()
        )
    })
}

/// Where the caller wants to be told that the container's process is ready (sd_notify(3)).
pub fn notify_socket() -> Option<OsString> {
    std::env::var_os("NOTIFY_SOCKET").filter(|s| !s.is_empty())
}

/// Gives the container a way to say so. False, with a warning, if there is none.
fn offer_notify_socket(spec: &mut Spec, root: &Root, id: &ContainerId) -> bool {
    let directory = root.path.join(id.as_str()).join(plan::notify::DIRECTORY);
    let added = plan::notify::add(spec, &directory);
    if let Err(why) = added {
        log::warn(format_args!("NOTIFY_SOCKET: {why}"));
    }
    added.is_ok()
}

/// How many sockets a service manager has passed (sd_listen_fds(3)): they go on to the container.
pub fn listen_fds() -> u32 {
    std::env::var("LISTEN_FDS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(0)
}

/// Tells the container's pid 1 of them.
pub fn socket_activation(env: &mut Vec<CString>, listen_fds: u32) {
    if listen_fds == 0 {
        return;
    }
    env.extend(
        [format!("LISTEN_FDS={listen_fds}"), "LISTEN_PID=1".into()]
            .map(|e| CString::new(e).expect("no NUL in a number")),
    );
    if let Some(names) = std::env::var_os("LISTEN_FDNAMES")
        .and_then(|n| CString::new(format!("LISTEN_FDNAMES={}", n.to_str()?)).ok())
    {
        env.push(names);
    }
}

/// Whether the caller has passed what is to be preserved; husk's own descriptors are all close-on-exec.
pub fn check_preserved(count: u32) -> Result<()> {
    for fd in 3..i32::try_from(count).unwrap_or(i32::MAX).saturating_add(3) {
        if !process::is_inherited(fd) {
            bail!("--preserve-fds: descriptor {fd} of {count} is not open; pass it to husk");
        }
    }
    Ok(())
}
