//! `husk start`: the gate of a created container.

use super::create::notify_socket;
use crate::apply::notify::Proxy;
use crate::launch::{self, gate};
use crate::state::{Root, State, StateDir, Status};
use crate::sys::fs::Lock;
use crate::sys::{fs, process};
use crate::{apply, cli};
use anyhow::{Context, Result, bail};
use std::os::fd::AsFd;
use std::time::Duration;

pub fn run(global: &cli::Global, args: cli::Start) -> Result<i32> {
    let root = Root::new(global)?;
    let dir = StateDir::open_locked(&root, &args.id, Lock::Exclusive)?;
    let (state, status, init) = dir.load_at_gate()?;
    let init = match (status, init) {
        (Status::Created, Some(init)) => init,
        (Status::Stopped, _) => bail!(
            "cannot start a container that has stopped; delete '{}' and create it anew",
            args.id
        ),
        (Status::Running, _) => bail!("cannot start an already running container: '{}'", args.id),
        (status, _) => bail!(
            "cannot start a container in the {status} state: '{}'",
            args.id
        ),
    };
    let notify = match notify_socket() {
        Some(caller) => Proxy::listen(dir.fd(), caller).context("NOTIFY_SOCKET")?,
        None => None,
    };
    launch::pass(&init, false).inspect_err(|_| await_end(&state))?;
    fs::unlinkat(dir.fd(), gate::NAME, false)?;
    if !state.poststart.is_empty() {
        run_poststart(&state)?;
    }
    if let Some(notify) = notify
        && let Some(process) = state.init()?
    {
        // others may use the container meanwhile
        dir.unlock()?;
        notify.wait(state.pid, process.as_fd());
    }
    Ok(0)
}

/// The runtime-spec from 1.3 on: a container whose poststart hook fails is stopped.
fn run_poststart(state: &State) -> Result<()> {
    let json = state.for_hooks(Status::Running, state.pid);
    if let Err(e) = apply::hooks::run(
        "poststart",
        &state.poststart,
        &json,
        Some(&state.bundle),
        None,
    ) {
        if let Some(init) = state.init()? {
            process::pidfd_send_signal(init.as_fd(), 9)?;
            process::pidfd_wait(init.as_fd(), None)?;
        }
        return Err(e);
    }
    Ok(())
}

/// A process that could not run its program is about to end; then it can be deleted.
fn await_end(state: &State) {
    const PATIENCE: Duration = Duration::from_secs(2);
    if let Ok(Some(init)) = state.init() {
        _ = process::pidfd_wait(init.as_fd(), Some(PATIENCE));
    }
}
