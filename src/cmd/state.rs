//! `husk state`: without a lock, so that a hook may ask about the container that it runs for.

use super::{print, user_name};
use crate::cli;
use crate::state::{Root, StateDir};
use anyhow::Result;

pub fn run(global: &cli::Global, args: cli::State) -> Result<i32> {
    let dir = StateDir::open(&Root::new(global)?, &args.id)?;
    let (state, status) = dir.load_with_status()?;
    let report = state.report(status, user_name(state.owner));
    print(&(serde_json::to_string_pretty(&report)? + "\n"))?;
    Ok(0)
}
