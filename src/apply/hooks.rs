//! Hooks: started, fed the state, waited for.

use crate::log;
use crate::plan::hooks::Hook;
use crate::sys::{fs, process};
use anyhow::{Context, Result, anyhow};
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Runs the hooks of one kind ("createRuntime") in order, in the directory `cwd` or where husk is; the first that fails ends it.
///
/// Each gets `state`, the container's state as JSON, on its standard input. One without `env` in the config gets `env`, or else husk's own environment,
/// as with runc. Its output is shown only in the error.
pub fn run(
    kind: &str,
    hooks: &[Hook],
    state: &[u8],
    cwd: Option<&Path>,
    env: Option<&[CString]>,
) -> Result<()> {
    for (i, hook) in hooks.iter().enumerate() {
        one(hook, state, cwd, env).with_context(|| {
            format!("error running {kind} hook #{i}: '{}'", hook.path.display())
        })?;
    }
    Ok(())
}

/// Runs all hooks of a kind whatever they say, as the spec wants it of poststop: failures are only warned about.
pub fn run_all(kind: &str, hooks: &[Hook], state: &[u8], cwd: &Path) {
    for (i, hook) in hooks.iter().enumerate() {
        if let Err(e) = one(hook, state, Some(cwd), None) {
            log::warn(format_args!(
                "error running {kind} hook #{i}: '{}': {e:#}",
                hook.path.display()
            ));
        }
    }
}

fn one(hook: &Hook, state: &[u8], cwd: Option<&Path>, env: Option<&[CString]>) -> Result<()> {
    // a hook gets nothing of what husk's caller let husk inherit (the child's end of it takes what is to be preserved)
    process::close_from(3, true)?;
    // files in memory rather than pipes: a hook that does not read or writes much can never block husk
    let file = |name| fs::memfd(name).map(File::from);
    let (stdin, stdout, stderr) = (file(c"state")?, file(c"stdout")?, file(c"stderr")?);
    stdin.write_all_at(state, 0)?;
    let mut command = Command::new(&hook.path);
    command.args(hook.args.iter().skip(1));
    if let Some(name) = hook.args.first() {
        command.arg0(name);
    }
    if let Some(cwd) = cwd {
        command.current_dir(cwd);
    }
    let given = hook
        .env
        .as_ref()
        .map(|e| e.iter().map(|e| e.as_bytes()).collect::<Vec<_>>());
    let given = given.or_else(|| env.map(|e| e.iter().map(|e| e.to_bytes()).collect()));
    if let Some(env) = given {
        let pair = |e: &[u8]| {
            e.iter()
                .position(|b| *b == b'=')
                .map(|at| [&e[..at], &e[at + 1..]].map(|s| OsStr::from_bytes(s).to_owned()))
        };
        command
            .env_clear()
            .envs(env.into_iter().filter_map(pair).map(|[k, v]| (k, v)));
    }
    command
        .stdin(stdin)
        .stdout(stdout.try_clone()?)
        .stderr(stderr.try_clone()?);
    process::unblock_signals(&mut command);
    let mut child = command.spawn().map_err(|e| match e.raw_os_error() {
        Some(n) => anyhow!("{}", crate::sys::errno_text(n)),
        None => anyhow!(e),
    })?;
    let limit = hook.timeout.map(|s| Duration::from_secs(s.into()));
    let pidfd = process::pidfd_open(child.id() as i32)?;
    if !process::pidfd_wait(pidfd.as_fd(), limit)? {
        child.kill()?;
        child.wait()?;
        return Err(anyhow!(
            "timed out after {} s and was killed{}",
            hook.timeout.unwrap_or(0),
            said(&stdout, &stderr)
        ));
    }
    let status = child.wait()?;
    if status.success() {
        return Ok(());
    }
    let end = match status.signal() {
        // a startContainer hook's profile; engines' tests look for these words of runc's
        Some(signal @ process::SIGSYS) => {
            format!(
                "killed by {}: bad system call",
                process::signal_name(signal)
            )
        }
        Some(signal) => format!("killed by {}", process::signal_name(signal)),
        None => format!("exit status {}", status.code().unwrap_or(-1)),
    };
    Err(anyhow!("{end}{}", said(&stdout, &stderr)))
}

/// What the hook wrote, for the error.
fn said(stdout: &File, stderr: &File) -> String {
    let mut text = String::new();
    for (name, file) in [("stdout", stdout), ("stderr", stderr)] {
        let mut buf = [0u8; 4096];
        let n = file.read_at(&mut buf, 0).unwrap_or(0);
        text += &format!(", {name}: {}", String::from_utf8_lossy(&buf[..n]).trim());
    }
    text
}
