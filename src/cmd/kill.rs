//! `husk kill`: without a lock, so that a container whose create or start hangs can still be ended.

use crate::cli;
use crate::state::{Root, State, StateDir};
use crate::sys::errno::ESRCH;
use crate::sys::process::{self, SIGKILL};
use anyhow::{Context, Result, bail};
use std::os::fd::{AsFd, OwnedFd};

pub fn run(global: &cli::Global, args: cli::Kill) -> Result<i32> {
    let Some(signal) = process::signal_number(&args.signal) else {
        bail!(
            "kill '{}': unknown signal '{}'; give a number or a name such as TERM",
            args.id,
            args.signal
        );
    };
    let dir = StateDir::open(&Root::new(global)?, &args.id)?;
    let state = dir.load()?.unwrap_or_default();
    let init = state.init()?;
    let sent =
        send(&state, init.as_ref(), signal).with_context(|| format!("kill '{}'", args.id))?;
    if !sent && !args.all {
        bail!("kill '{}': container not running", args.id);
    }
    Ok(0)
}

/// Sends a signal to init; false if there is nothing left to send it to.
///
/// The end of init is the end of its pid namespace. Without one of the container's own, SIGKILL goes to every process of the
/// cgroup, and also when init itself is gone.
pub(super) fn send(state: &State, init: Option<&OwnedFd>, signal: i32) -> Result<bool> {
    if state.pid == 0 {
        return Ok(false); // never had a process: what is in its cgroup is somebody else's
    }
    if signal == SIGKILL
        && !state.own_pid_namespace
        && let Some(cgroup) = state.open_cgroup()?
    {
        let populated = !cgroup.procs()?.is_empty();
        cgroup.kill(SIGKILL)?;
        return Ok(populated);
    }
    let Some(init) = init else {
        return Ok(false);
    };
    match process::pidfd_send_signal(init.as_fd(), signal) {
        Err(e) if e.errno() == ESRCH => Ok(false),
        sent => sent.map(|()| true).map_err(Into::into),
    }
}
