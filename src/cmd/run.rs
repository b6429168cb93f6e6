//! `husk run`: create, start, and wait for the end.

use super::create::{self, Ending, Made};
use super::delete;
use crate::apply::notify::Proxy;
use crate::cgroup::death::{Death, Fleeting, cause};
use crate::cli;
use crate::foreground::Foreground;
use crate::state::{Ended, Status};
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
    let cgroup = made.container.cgroup.as_ref();
    let mut by_systemd = cgroup
        .filter(|c| foreground.is_some() && c.scope.is_some())
        .and_then(|c| Fleeting::follow(&c.dir));
    let mut notify = None;
    let started = attached.and_then(|()| {
        if let Some(caller) = create::notify_socket() {
            notify = Proxy::listen(made.dir.fd(), caller).context("NOTIFY_SOCKET")?;
        }
        start(&made, &args)?;
        // others may use the container while husk waits
        made.dir.unlock()
    });
    if let Err(e) = started {
        return Err(made.undo(e));
    }
    let Some(mut foreground) = foreground else {
        if let Some(notify) = notify {
            notify.wait(made.container.pid, made.container.pidfd.as_fd());
        }
        return Ok(0);
    };
    foreground.relay_ready(notify);
    let look = || by_systemd.iter_mut().for_each(Fleeting::look);
    let end = match foreground.wait(made.container.pid, made.container.pidfd.as_fd(), look) {
        Ok(end) => end,
        Err(e) => return Err(made.undo(e)),
    };
    let wanted = args.keep || end.is_by_kill();
    let cgroup = made.container.cgroup.as_ref().filter(|_| wanted);
    let death = match by_systemd {
        Some(followed) => followed.record(end),
        None => cgroup.and_then(|c| Death::read(&c.dir).ok()),
    };
    if let Some(cause) = cause(Some(end), death.as_ref()) {
        log::notice(&cause);
    }
    let done = if args.keep {
        made.dir.keep_end(&Ended {
            end: Some(end),
            death,
        })
    } else {
        delete::after_run(made.dir, &made.state).with_context(|| format!("delete '{}'", args.id))
    };
    if let Err(e) = done {
        log::warn(format_args!("{e:#}")); // the exit code matters more
    }
    Ok(end.code())
}

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
