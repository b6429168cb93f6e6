//! `husk run`: create, start, and wait for the end.

use super::create::{self, Ending, Made};
use super::delete;
use crate::apply::notify::Proxy;
use crate::cli;
use crate::foreground::Foreground;
use crate::state::Status;
use crate::{apply, log};
use anyhow::{Context, Result};
use std::os::fd::AsFd;

pub fn run(global: &cli::Global, args: cli::Run) -> Result<i32> {
    let ending = if args.detach {
        Ending::StartedDetached
    } else {
        Ending::Foreground
    };
    let mut foreground = match ending {
        Ending::Foreground => Some(Foreground::begin(!args.no_subreaper)?),
        _ => None,
    };
    let mut made = create::make(global, &args.creation, &args.id, ending)?;
    let attached = match (&mut foreground, made.container.master.take()) {
        (Some(foreground), Some(master)) => foreground.attach(master),
        _ => Ok(()),
    };
    let mut notify = None;
    let started = attached.and_then(|()| {
        if let Some(caller) = create::notify_socket() {
            notify = Proxy::listen(made.dir.fd(), caller).context("NOTIFY_SOCKET")?;
        }
        start(&made, &args)
    });
    if let Err(e) = started {
        return Err(made.undo(e));
    }
    // others may use the container while husk waits
    if let Err(e) = made.dir.unlock() {
        return Err(made.undo(e));
    }
    let Some(mut foreground) = foreground else {
        if let Some(notify) = notify {
            notify.wait(made.container.pid, made.container.pidfd.as_fd());
        }
        return Ok(0);
    };
    foreground.relay_ready(notify);
    let code = match foreground.wait(made.container.pid, made.container.pidfd.as_fd()) {
        Ok(code) => code,
        Err(e) => return Err(made.undo(e)),
    };
    if code == KILLED
        && made
            .container
            .cgroup
            .as_ref()
            .is_some_and(|c| c.dir.oom_kills().is_ok_and(|n| n > 0))
    {
        log::warn("killed by its memory limit; raise linux.resources.memory.limit");
    }
    if !args.keep
        && let Err(e) = delete::after_run(made.dir, &made.state)
    {
        log::warn(format_args!("delete '{}': {e:#}", args.id)); // the exit code matters more
    }
    Ok(code)
}

/// 128 + SIGKILL.
const KILLED: i32 = 137;

fn start(made: &Made, args: &cli::Run) -> Result<()> {
    create::write_pid_file(args.creation.pid_file.as_deref(), made.container.pid)?;
    made.container.start()?;
    let json = made.state.for_hooks(Status::Running, made.state.pid);
    apply::hooks::run(
        "poststart",
        &made.plan.hooks.poststart,
        &json,
        Some(&made.state.bundle),
        None,
    )
    .context("after the start")
}
