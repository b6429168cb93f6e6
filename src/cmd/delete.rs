//! `husk delete`: may be called again after any failure, and on whatever a killed husk has left.

use super::kill;
use crate::apply::{hooks, intel_rdt};
use crate::cgroup::systemd;
use crate::state::{self, ContainerId, Root, State, StateDir, Status};
use crate::sys::fs::Lock;
use crate::sys::process::{self, SIGKILL};
use crate::{cli, error, log, sys};
use anyhow::{Context, Result, bail};
use std::os::fd::AsFd;
use std::time::Duration;

/// How long killed processes may take to be gone; only one that is stuck in the kernel takes more than milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

pub fn run(global: &cli::Global, args: cli::Delete) -> Result<i32> {
    let root = Root::new(global)?;
    let id = ContainerId::new(&args.id)?;
    if args.force {
        // Before the wait for the lock: a create or start that hangs has it, and ends with its process.
        kill_unlocked(&root, &id);
    }
    let dir = match StateDir::find(&root, &id)? {
        Some(dir) => dir.lock(Lock::Exclusive)?,
        None => None,
    };
    let Some(dir) = dir else {
        state::sweep(&root, &id)?;
        if args.force {
            return Ok(0);
        }
        return Err(state::not_found(&root, id.as_str()));
    };
    match dir.load() {
        Ok(Some(state)) => delete(dir, &state, args.force)?,
        Ok(None) => dir.remove()?,
        // what cannot be read now may be later, and names the cgroup
        Err(e) if args.force && !e.chain().any(|cause| cause.is::<sys::Error>()) => {
            log::warn(error::text(&e));
            dir.remove()?;
        }
        Err(e) => return Err(e),
    }
    Ok(0)
}

fn kill_unlocked(root: &Root, id: &ContainerId) {
    let kill = || -> Result<()> {
        if let Some(dir) = StateDir::find(root, id)?
            && let Some(state) = dir.load()?
        {
            kill::send(&state, state.init()?.as_ref(), SIGKILL)?;
        }
        Ok(())
    };
    if let Err(e) = kill() {
        log::debug(format_args!("kill '{id}': {}", error::text(&e)));
    }
}

fn delete(dir: StateDir, state: &State, force: bool) -> Result<()> {
    let id = dir.id().clone();
    if !force {
        let mut status = dir.status(state)?;
        if status == Status::Running && just_ends(state)? {
            status = dir.status(state)?;
        }
        match status {
            // one that was never started is killed: nothing is lost, and runc does the same
            Status::Stopped | Status::Created => {}
            status => bail!(
                "cannot delete container {id} that is not stopped: {status}; stop it with kill, or use delete --force"
            ),
        }
    }
    destroy(dir, state).with_context(|| format!("delete '{id}'"))
}

/// The end of `run`: somebody else's delete may have come first, or be at work.
pub fn after_run(dir: StateDir, state: &State) -> Result<()> {
    match dir.lock(Lock::Exclusive)? {
        Some(dir) => destroy(dir, state),
        None => Ok(()),
    }
}

/// Whoever has just killed it, or seen its last words, deletes it before the kernel is done with it.
fn just_ends(state: &State) -> Result<bool> {
    const GRACE: Duration = Duration::from_millis(100);
    match state.init()? {
        Some(init) => Ok(process::pidfd_wait(init.as_fd(), Some(GRACE))?),
        None => Ok(true),
    }
}

/// Ends what still runs and removes cgroup and state, in this order: until the last step a failed delete can be repeated.
fn destroy(dir: StateDir, state: &State) -> Result<()> {
    if state.pid == 0 {
        leave_to_others(state)?;
    } else {
        end(state)?;
    }
    dir.remove()?;
    // The container is gone whatever they say (runtime-spec, "Lifecycle", step 13).
    let json = state.for_hooks(Status::Stopped, 0);
    hooks::run_all("poststop", &state.poststop, &json, &state.bundle);
    Ok(())
}

/// Kills what is left, and removes the cgroup.
fn end(state: &State) -> Result<()> {
    let init = state.init()?;
    kill::send(state, init.as_ref(), SIGKILL)?;
    if let Some(init) = init
        && !process::pidfd_wait(init.as_fd(), Some(PATIENCE))?
    {
        bail!("container init still running after SIGKILL; it does not leave the kernel");
    }
    remove_cgroup(state)?;
    match &state.intel_rdt {
        Some(rdt) => intel_rdt::remove(&rdt.remove),
        None => Ok(()),
    }
}

/// systemd first, who would else find its unit without a cgroup. Where it does not answer, or is gone with the user's session, the cgroup
/// goes without it.
fn remove_cgroup(state: &State) -> Result<()> {
    if let Some(scope) = state.cgroup.as_ref().and_then(|c| c.scope.as_ref())
        && let Err(e) = systemd::stop(scope)
    {
        log::warn(error::text(&e));
    }
    match state.open_cgroup()? {
        Some(cgroup) => cgroup.destroy(),
        None => Ok(()),
    }
}

/// A husk that was killed before it had a process may not even have made the cgroup: one with processes is somebody else's.
fn leave_to_others(state: &State) -> Result<()> {
    match state.open_cgroup()? {
        Some(cgroup) if cgroup.is_idle()? => remove_cgroup(state),
        Some(cgroup) => {
            log::warn(format_args!(
                "cgroup '{}' is left alone: it has processes, and none of them is known to be of '{}'",
                cgroup.path().display(),
                state.id
            ));
            Ok(())
        }
        None => Ok(()),
    }
}
