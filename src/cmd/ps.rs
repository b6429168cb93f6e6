//! `husk ps`.

use super::print;
use crate::cli::{self, Output};
use crate::state::{Root, StateDir};
use anyhow::{Context, Result, bail};
use std::process::Command;

pub fn run(global: &cli::Global, args: cli::Ps) -> Result<i32> {
    let id = args.id();
    let dir = StateDir::open(&Root::new(global)?, id)?;
    let state = dir.load()?.unwrap_or_default();
    let pids = match (state.open_cgroup()?, &state.cgroup) {
        (Some(cgroup), _) => cgroup.procs()?,
        (None, Some(_)) => Vec::new(), // removed, so nothing runs in it
        (None, None) if state.init()?.is_some() => {
            bail!(
                "ps '{id}': it has no cgroup, which alone knows its processes; give it one by cgroupsPath"
            )
        }
        (None, None) => Vec::new(),
    };
    match args.format {
        Output::Json => print(&(serde_json::to_string(&pids)? + "\n"))?,
        Output::Table => print(&filter(&host_ps(args.ps_arguments())?, &pids)?)?,
    }
    Ok(0)
}

/// The output of ps(1) about all processes of the host.
fn host_ps(arguments: &[String]) -> Result<String> {
    let mut ps = Command::new("ps");
    if arguments.is_empty() {
        ps.arg("-ef");
    }
    let out = ps
        .args(arguments)
        .output()
        .context("run ps; install it, or use --format json")?;
    if !out.status.success() {
        bail!(
            "run ps: {}: {}",
            out.status,
            String::from_utf8_lossy(&out.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// The heading, and the lines whose column PID is one of these.
fn filter(output: &str, pids: &[i32]) -> Result<String> {
    let heading = output.lines().next().unwrap_or_default();
    let Some(column) = heading.split_whitespace().position(|title| title == "PID") else {
        bail!("ps: couldn't find PID field in its output; have it show that column");
    };
    let pid = |line: &str| line.split_whitespace().nth(column)?.parse().ok();
    let ours = |line: &&str| pid(line).is_some_and(|pid: i32| pids.contains(&pid));
    let lines = output.lines().skip(1).filter(ours);
    Ok([heading]
        .into_iter()
        .chain(lines)
        .flat_map(|line| [line, "\n"])
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_chosen_by_the_column_pid() {
        let out = "UID   PID  PPID CMD\nroot    1     0 init\nroot   12     1 sh 1\n\nodd\n";
        assert_eq!(
            filter(out, &[12, 7]).unwrap(),
            "UID   PID  PPID CMD\nroot   12     1 sh 1\n"
        );
        assert_eq!(filter(out, &[]).unwrap(), "UID   PID  PPID CMD\n");
        let e = filter("USER COMMAND\nroot sh\n", &[1])
            .unwrap_err()
            .to_string();
        assert!(e.contains("couldn't find PID field"), "{e}");
    }
}
