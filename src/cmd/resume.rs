//! `husk resume`: without a lock, since an exec that waits in the frozen cgroup has it.

use crate::cli;
use crate::state::{Root, StateDir, Status};
use anyhow::{Context, Result, bail};

pub fn run(global: &cli::Global, args: cli::Resume) -> Result<i32> {
    let id = &args.id;
    let dir = StateDir::open(&Root::new(global)?, id)?;
    let (state, status) = dir.load_with_status()?;
    match state.open_cgroup()? {
        Some(cgroup) if status == Status::Paused => {
            cgroup.thaw().with_context(|| format!("resume '{id}'"))?;
        }
        _ => bail!("resume '{id}': container not paused: it is {status}"),
    }
    Ok(0)
}
