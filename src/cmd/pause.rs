//! `husk pause`.

use crate::cli;
use crate::state::{Root, StateDir, Status};
use anyhow::{Context, Result, bail};

pub fn run(global: &cli::Global, args: cli::Pause) -> Result<i32> {
    let id = &args.id;
    let dir = StateDir::open(&Root::new(global)?, id)?;
    let (state, status) = dir.load_with_status()?;
    if !matches!(status, Status::Running | Status::Created) {
        bail!("pause '{id}': container not running: it is {status}");
    }
    let Some(cgroup) = state.open_cgroup()? else {
        bail!(
            "pause '{id}': it has no cgroup, which alone can be frozen; give it one by cgroupsPath"
        );
    };
    let frozen = cgroup.freeze();
    if frozen.is_err() {
        let _ = cgroup.thaw(); // half frozen is worse than running; the first error is the one to report
    }
    frozen.with_context(|| format!("pause '{id}'"))?;
    Ok(0)
}
