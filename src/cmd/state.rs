//! `husk state`: without a lock, so that a hook may ask about the container that it runs for.

use super::{print_json, user_name};
use crate::state::{Death, Ended, Root, State, StateDir, Status};
use crate::sys::process::{self, End};
use crate::{cgroup, cli};
use anyhow::Result;

pub fn run(global: &cli::Global, args: cli::State) -> Result<i32> {
    let dir = StateDir::open(&Root::new(global)?, &args.id)?;
    let (state, status) = dir.load_with_status()?;
    let mut report = state.report(status, user_name(state.owner));
    if status == Status::Stopped {
        report.death = death(&dir, &state);
    }
    print_json(serde_json::to_string_pretty(&report)?)?;
    Ok(0)
}

/// What there is of it: the cgroup may be gone, and the state is to be shown all the same.
fn death(dir: &StateDir, state: &State) -> Option<Death> {
    let Ended { end, death } = dir.end().ok().flatten().unwrap_or_default();
    let cgroup = death.or_else(|| {
        let cgroup = state.open_cgroup().ok().flatten()?;
        cgroup::death::Death::read(&cgroup).ok()
    });
    if state.pid == 0 || (end.is_none() && cgroup.is_none()) {
        return None;
    }
    let (exit_code, signal) = match end {
        Some(End::Exited(code)) => (Some(code), None),
        Some(End::Killed(signal)) => (None, Some(signal)),
        None => (None, None),
    };
    Some(Death {
        exit_code,
        signal: signal.map(process::signal_name),
        cause: cgroup::death::cause(end, cgroup.as_ref()),
        cgroup,
    })
}
