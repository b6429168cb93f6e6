//! A plan's writes, made.

use super::prepare::Blocked;
use super::{CgroupDir, Prepared, prepare::words, read};
use crate::plan::cgroup::{Cgroup as Plan, Missing, Write};
use crate::sys::{self, errno, fs};
use anyhow::{Result, anyhow, bail};
use std::fmt::Write as _;
use std::path::Path;

impl Prepared {
    /// Gives the cgroup its limits.
    pub fn limit(&self, plan: &Plan) -> Result<()> {
        write_all(&self.dir, &plan.writes, self.blocked.as_ref())
    }
}

/// Changes the limits of a cgroup that is in use.
pub fn limit(dir: &CgroupDir, writes: &[Write]) -> Result<()> {
    write_all(dir, writes, None)
}

fn write_all(dir: &CgroupDir, writes: &[Write], blocked: Option<&Blocked>) -> Result<()> {
    check_usage(dir, writes)?;
    let mut written: Option<&str> = None;
    let mut later = Vec::new();
    for w in writes {
        if written == Some(w.field.as_str()) {
            continue; // an alternative that another file has taken
        }
        match dir.write(&w.file, &w.value) {
            Ok(()) if w.missing == Missing::TryNext => written = Some(&w.field),
            Ok(()) => {}
            Err(e) if missing(&e) && w.missing != Missing::Refuse => {}
            Err(e) if e.errno() == errno::EINVAL && w.retry_last => later.push(w),
            Err(e) => return Err(explain(dir, w, &e, blocked)),
        }
    }
    for w in later {
        dir.write(&w.file, &w.value)
            .map_err(|e| explain(dir, w, &e, blocked))?;
    }
    Ok(())
}

fn missing(e: &sys::Error) -> bool {
    e.errno() == errno::ENOENT
}

/// Nothing is written when a limit is at or below what is in use (`memory.checkBeforeUpdate`). A cgroup that cannot be read is not
/// in use.
fn check_usage(dir: &CgroupDir, writes: &[Write]) -> Result<()> {
    if writes.iter().all(|w| w.above_usage.is_none()) {
        return Ok(());
    }
    let Some(usage) = dir
        .read("memory.current")
        .ok()
        .and_then(|t| t.trim().parse::<u64>().ok())
    else {
        return Ok(());
    };
    for w in writes {
        if let Some(limit) = w.above_usage.filter(|l| *l <= usage) {
            bail!(
                "{}: rejecting limit {limit} <= usage {usage}; give more than is in use",
                w.field
            );
        }
    }
    Ok(())
}

/// "linux.resources.memory.limit: memory.max is not there: …; …".
fn explain(dir: &CgroupDir, w: &Write, e: &sys::Error, blocked: Option<&Blocked>) -> anyhow::Error {
    if missing(e) {
        let (why, remedy) = why_missing(dir, w, blocked);
        return anyhow!("{}: {} is not there: {why}{remedy}", w.field, w.file);
    }
    let mut text = format!(
        "{}: write '{}' to {}: {}",
        w.field,
        w.value.trim_end(),
        w.file,
        sys::errno_text(e.errno())
    );
    let hint = match (e.errno(), w.file.as_str()) {
        (errno::EACCES | errno::EPERM | errno::EROFS, _) => {
            "have the cgroup delegated to this user"
        }
        (errno::ENODEV, "io.max" | "io.weight" | "io.bfq.weight" | "io.latency") => {
            "no block device has this number; a partition's is not enough, give the whole disk's"
        }
        (errno::EINVAL | errno::ERANGE, "cpuset.cpus" | "cpuset.mems") => {
            "give a list such as 0-3,5 of numbers that this host has"
        }
        (errno::ENODEV, "rdma.max") => "no RDMA device has this name",
        (errno::EOPNOTSUPP, "io.bfq.weight") => "this device does not use the bfq scheduler",
        (errno::EINVAL, "cpu.max") => {
            "give a period of 1000 to 1000000 µs, a quota of 1000 µs or more"
        }
        _ => "",
    };
    if !hint.is_empty() {
        let _ = write!(text, "; {hint}");
    }
    anyhow!(text)
}

/// Why a file is missing, and what to do: looked up only now, when it is.
fn why_missing(dir: &CgroupDir, w: &Write, blocked: Option<&Blocked>) -> (String, String) {
    let here = words(&dir.read("cgroup.controllers").unwrap_or_default());
    let root = fs::open(&dir.mountpoint, fs::O_PATH | fs::O_DIRECTORY, 0);
    let all = root.map_or_else(
        |_| vec![],
        |r| {
            use std::os::fd::AsFd;
            words(&read(r.as_fd(), "cgroup.controllers").unwrap_or_default())
        },
    );
    let Some(name) = w.controller() else {
        return (
            "this kernel has no such file".into(),
            "; remove the limit".into(),
        );
    };
    if here.iter().any(|c| c == name) {
        let why = match name {
            "hugetlb" => "this host has no huge pages of that size",
            _ => "the controller is enabled, but this kernel has no such file",
        };
        return (why.into(), "; remove the limit".into());
    }
    if let Some(b) = blocked.filter(|b| b.controllers.iter().any(|c| c == name)) {
        return (
            format!("controller '{name}' not available: {b}"),
            String::new(),
        );
    }
    if all.iter().any(|c| c == name) {
        let parent = dir
            .mountpoint
            .join(dir.path.parent().unwrap_or(Path::new("")));
        return (
            format!(
                "controller '{name}' not available: it is not enabled in '{}'",
                parent.join("cgroup.subtree_control").display()
            ),
            format!("; write +{name} there"),
        );
    }
    let (why, remedy) =
        why_no_controller(name, &read(fs::CWD, "/proc/cgroups").unwrap_or_default());
    (format!("controller '{name}' not available: {why}"), remedy)
}

/// The kernel's list of v1 controllers says where one is that the root of the cgroup2 hierarchy does not have.
fn why_no_controller(name: &str, proc_cgroups: &str) -> (String, String) {
    let line = proc_cgroups.lines().find_map(|l| {
        let mut words = l.split_ascii_whitespace();
        (words.next() == Some(name)).then(|| (words.next(), words.nth(1)))
    });
    match line {
        Some((_, Some("0"))) => (
            "it is switched off".into(),
            format!("; boot without cgroup_disable={name}"),
        ),
        Some((Some(hierarchy), _)) if hierarchy != "0" => (
            "it is bound to cgroup v1 on this host".into(),
            "; boot with systemd.unified_cgroup_hierarchy=1, or unmount that v1 hierarchy".into(),
        ),
        _ => (
            "this kernel does not have it".into(),
            "; remove the limit".into(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use super::super::tests::fake;
    use crate::plan::resources;
    use serde_json::json;

    fn writes(resources: serde_json::Value) -> Vec<Write> {
        let mut v = Default::default();
        resources::plan(
            &serde_json::from_value(resources).unwrap(),
            "linux.resources",
            &mut v,
        )
    }

    #[test]
    fn the_first_file_of_an_alternative() {
        let io = writes(json!({"blockIO": {"weight": 100}}));
        let (_t, dir) = fake(&[("io.bfq.weight", ""), ("io.weight", "")]);
        limit(&dir, &io).unwrap();
        assert_eq!(dir.read("io.bfq.weight").unwrap(), "100");
        assert_eq!(dir.read("io.weight").unwrap(), "");
        let (_t, dir) = fake(&[("io.weight", "")]);
        limit(&dir, &io).unwrap();
        assert_eq!(dir.read("io.weight").unwrap(), "910");
    }

    #[test]
    fn what_may_be_missing() {
        let (_t, dir) = fake(&[("memory.max", ""), ("hugetlb.2MB.max", "")]);
        let r = json!({"memory": {"limit": 5, "swap": 5}, "hugepageLimits": [{"pageSize": "2MB", "limit": 0}]});
        limit(&dir, &writes(r)).unwrap();
        assert_eq!(dir.read("memory.max").unwrap(), "5");
        let (_t, dir) = fake(&[("memory.max", ""), ("cgroup.controllers", "memory\n")]);
        let r = json!({"memory": {"limit": 5, "swap": 6}});
        assert_eq!(
            limit(&dir, &writes(r)).unwrap_err().to_string(),
            "linux.resources.memory.swap: memory.swap.max is not there: the controller is enabled, but this kernel has no such file; remove the limit"
        );
        assert_eq!(dir.read("memory.max").unwrap(), "");
    }

    #[test]
    fn a_controller_that_is_not_enabled() {
        let (t, dir) = fake(&[("cgroup.controllers", "pids\n")]);
        std::fs::write(t.path().join("cgroup.controllers"), "pids memory\n").unwrap();
        let r = writes(json!({"memory": {"limit": 5}}));
        let control = t.path().join("a/cgroup.subtree_control");
        assert_eq!(
            limit(&dir, &r).unwrap_err().to_string(),
            format!(
                "linux.resources.memory.limit: memory.max is not there: controller 'memory' not available: it is not enabled in '{}'; write +memory there",
                control.display()
            )
        );
        let busy = Blocked {
            cgroup: "/sys/fs/cgroup/a".into(),
            controllers: vec!["memory".into()],
            error: sys::Error::new("write", errno::EBUSY),
        };
        assert_eq!(
            write_all(&dir, &r, Some(&busy)).unwrap_err().to_string(),
            "linux.resources.memory.limit: memory.max is not there: controller 'memory' not available: it cannot be enabled in '/sys/fs/cgroup/a/cgroup.subtree_control': device or resource busy; processes sit in that cgroup itself, move them to a sub-cgroup"
        );
    }

    #[test]
    fn usage_is_checked_before_anything_is_written() {
        let (_t, dir) = fake(&[
            ("memory.max", "old"),
            ("memory.swap.max", "old"),
            ("memory.current", "100\n"),
        ]);
        let memory = |limit: u64| {
            writes(json!({"memory": {"limit": limit, "swap": 500, "checkBeforeUpdate": true}}))
        };
        assert_eq!(
            limit(&dir, &memory(100)).unwrap_err().to_string(),
            "linux.resources.memory.limit: rejecting limit 100 <= usage 100; give more than is in use"
        );
        assert_eq!(dir.read("memory.swap.max").unwrap(), "old");
        limit(&dir, &memory(101)).unwrap();
        assert_eq!(dir.read("memory.max").unwrap(), "101");
    }

    #[test]
    fn the_kernels_words() {
        let (_t, dir) = fake(&[]);
        let io = &writes(
            json!({"blockIO": {"throttleReadBpsDevice": [{"major": 9, "minor": 1, "rate": 5}]}}),
        )[0];
        let text = |errno| explain(&dir, io, &sys::Error::new("write", errno), None).to_string();
        let start =
            "linux.resources.blockIO.throttleReadBpsDevice[0]: write '9:1 rbps=5' to io.max:";
        assert_eq!(
            text(errno::ENODEV),
            format!(
                "{start} no such device; no block device has this number; a partition's is not enough, give the whole disk's"
            )
        );
        assert_eq!(
            text(errno::EACCES),
            format!("{start} permission denied; have the cgroup delegated to this user")
        );
        assert_eq!(text(errno::EINVAL), format!("{start} invalid argument"));
    }

    #[test]
    fn where_controllers_are() {
        let text = "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t1\t5\t1\nmemory\t0\t5\t0\nio\t0\t1\t1\n";
        let why = |name| {
            let (why, remedy) = why_no_controller(name, text);
            why + &remedy
        };
        assert_eq!(
            why("cpu"),
            "it is bound to cgroup v1 on this host; boot with systemd.unified_cgroup_hierarchy=1, or unmount that v1 hierarchy"
        );
        assert_eq!(
            why("memory"),
            "it is switched off; boot without cgroup_disable=memory"
        );
        assert_eq!(
            why("rdma"),
            "this kernel does not have it; remove the limit"
        );
    }
}
