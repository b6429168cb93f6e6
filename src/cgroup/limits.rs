//! A plan's writes, made.

use super::prepare::Blocked;
use super::systemd::{self, Scope};
use super::{CgroupDir, Prepared, prepare::words, read};
use crate::plan::cgroup::Cgroup as Plan;
use crate::plan::resources::{Missing, Write};
use crate::sys::{self, errno, fs};
use anyhow::{Error, Result, anyhow, bail};
use std::fmt::Write as _;
use std::path::Path;

impl Prepared {
    /// Gives the cgroup its limits.
    pub fn limit(&self, plan: &Plan) -> Result<()> {
        write_all(&self.dir, &plan.writes, self.blocked.as_ref())
    }
}

/// Changes the limits of a cgroup that is in use, and of the unit that has it: all of them, or none. What is returned can take them
/// back.
pub fn change<'a>(
    dir: &'a CgroupDir,
    scope: Option<&'a Scope>,
    writes: &[Write],
) -> Result<Changed<'a>> {
    check_usage(dir, writes)?;
    let mut changed = Changed {
        dir,
        scope: None,
        before: Vec::new(),
    };
    let written = write_with(dir, writes, None, |w| {
        let before = before(dir, w);
        dir.write(&w.file, &w.value)?;
        changed.before.extend(before);
        Ok(())
    });
    let told = written.and_then(|()| {
        let Some(scope) = scope.filter(|_| !writes.is_empty()) else {
            return Ok(());
        };
        changed.scope = Some(scope);
        systemd::set_limits(scope, writes)?;
        // systemd has just written what it takes for the same; what is in use has been looked at
        write_with(dir, writes, None, |w| dir.write(&w.file, &w.value))
    });
    match told {
        Ok(()) => Ok(changed),
        Err(e) => Err(changed.undo(e)),
    }
}

/// What the files of a cgroup held before [`change`].
pub struct Changed<'a> {
    dir: &'a CgroupDir,
    /// Whose properties were changed too.
    scope: Option<&'a Scope>,
    /// Files and what to write to them, in the order in which they were changed.
    before: Vec<(String, String)>,
}

impl Changed<'_> {
    /// Takes the changes back after an error, which is the one reported.
    pub fn undo(self, mut error: Error) -> Error {
        if let Some(scope) = self.scope {
            let back = self.before.iter().rev();
            let back: Vec<Write> = back.map(|(f, v)| Write::new("", f, v)).collect();
            if let Err(e) = systemd::set_limits(scope, &back) {
                error = anyhow!("{error:#}; then {e:#}");
            }
        }
        for (file, value) in self.before.iter().rev() {
            if let Err(e) = self.dir.write(file, value) {
                error = anyhow!("{error:#}; then restore '{}': {e}", value.trim_end());
            }
        }
        error
    }
}

/// What to write where so that a file is again as it is now: nothing for one that cannot be read.
fn before(dir: &CgroupDir, w: &Write) -> Vec<(String, String)> {
    let read = |file: &str| {
        let text = dir.read(file).ok()?;
        Some((file.to_string(), as_written(w, text.trim_end())))
    };
    match w.file.as_str() {
        // what is no longer idle gets the usual weight, and what is idle takes none
        "cpu.idle" => match read("cpu.idle") {
            Some((file, idle)) if idle == "0" => {
                let weight = read("cpu.weight");
                weight.into_iter().chain([(file, idle)]).collect()
            }
            idle => idle.into_iter().collect(),
        },
        file => read(file).into_iter().collect(),
    }
}

/// A file's text in the form in which it is written; of a file with a line for each device that of the device in question.
fn as_written(w: &Write, text: &str) -> String {
    let key = w.value.split_ascii_whitespace().next().unwrap_or_default();
    let line = |key: &str| {
        let mut lines = text.lines();
        lines.find(|l| l.split_ascii_whitespace().next() == Some(key))
    };
    let (line, none) = match w.file.as_str() {
        "io.max" => (line(key), " rbps=max wbps=max riops=max wiops=max"),
        "io.latency" => (line(key), " target=0"),
        "io.weight" | "io.bfq.weight" if key.contains(':') => (line(key), " default"),
        "io.weight" | "io.bfq.weight" => (text.lines().next(), ""),
        "rdma.max" | "misc.max" | "dmem.max" => (line(key), " max"),
        "dmem.low" | "dmem.min" => (line(key), " 0"),
        // followed by the reason when it is invalid
        "cpuset.cpus.partition" => (text.split_ascii_whitespace().next(), ""),
        // an empty write would not reach the kernel
        _ if text.is_empty() => (Some("\n"), ""),
        _ => (Some(text), ""),
    };
    line.map_or_else(|| format!("{key}{none}"), String::from)
}

fn write_all(dir: &CgroupDir, writes: &[Write], blocked: Option<&Blocked>) -> Result<()> {
    check_usage(dir, writes)?;
    write_with(dir, writes, blocked, |w| dir.write(&w.file, &w.value))
}

fn write_with(
    dir: &CgroupDir,
    writes: &[Write],
    blocked: Option<&Blocked>,
    mut write: impl FnMut(&Write) -> sys::Result<()>,
) -> Result<()> {
    let mut written: Option<&str> = None;
    let mut later = Vec::new();
    for w in writes {
        if written == Some(w.field.as_str()) {
            continue; // an alternative that another file has taken
        }
        match write(w) {
            Ok(()) if w.read_back => read_back(dir, w)?,
            Ok(()) if w.missing == Missing::TryNext => written = Some(&w.field),
            Ok(()) => {}
            Err(e) if missing(&e) && w.missing != Missing::Refuse => {}
            Err(e) if e.errno() == errno::EINVAL && w.retry_last => later.push(w),
            Err(e) => return Err(explain(dir, w, &e, blocked)),
        }
    }
    for w in later {
        write(w).map_err(|e| explain(dir, w, &e, blocked))?;
    }
    Ok(())
}

/// Whether the kernel does what was written. It says no only here for a partition that cannot be.
fn read_back(dir: &CgroupDir, w: &Write) -> Result<()> {
    let text = dir.read(&w.file)?;
    let kept = match w.file.as_str() {
        "io.latency" => text.lines().any(|l| l.trim() == w.value),
        "cpu.uclamp.min" | "cpu.uclamp.max" if w.value != "max" => {
            let same = text.trim().parse::<f64>().ok() == w.value.parse().ok();
            // the kernel's word for 100
            same || text.trim() == "max"
        }
        _ => match (text.trim().parse::<u64>(), w.value.parse::<u64>()) {
            // down to a whole page
            (Ok(got), Ok(asked)) => got <= asked && asked - got < LARGEST_PAGE,
            _ => text.trim() == w.value,
        },
    };
    if !kept {
        bail!(
            "{}: {} is '{}' after '{}' was written: the kernel does not do it; change or remove it",
            w.field,
            w.file,
            text.trim(),
            w.value
        );
    }
    Ok(())
}

/// Of any machine that Linux runs on.
const LARGEST_PAGE: u64 = 64 << 10;

fn missing(e: &sys::Error) -> bool {
    e.errno() == errno::ENOENT
}

/// Nothing is written when a limit is at or below what is in use (`memory.checkBeforeUpdate`). A cgroup that cannot be read is not
/// in use.
fn check_usage(dir: &CgroupDir, writes: &[Write]) -> Result<()> {
    let number = |file| dir.read(file).ok()?.trim().parse::<u64>().ok();
    for w in writes {
        let Some(limit) = w.above_usage else { continue };
        let Some(mut usage) = number("memory.current") else {
            continue;
        };
        let mut what = "memory";
        if w.file == "memory.swap.max" {
            // the config's field is for both together
            usage += number("memory.swap.current").unwrap_or(0);
            what = "memory+swap";
        }
        if limit <= usage {
            bail!(
                "{}: rejecting {what} limit {limit} <= usage {usage}; give more than is in use",
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
        write_all(&dir, &io, None).unwrap();
        assert_eq!(dir.read("io.bfq.weight").unwrap(), "100");
        assert_eq!(dir.read("io.weight").unwrap(), "");
        let (_t, dir) = fake(&[("io.weight", "")]);
        write_all(&dir, &io, None).unwrap();
        assert_eq!(dir.read("io.weight").unwrap(), "910");
    }

    #[test]
    fn what_was_written_is_read_back() {
        let write = |file: &str, value: &str| Write {
            read_back: true,
            ..Write::new("field", file, value)
        };
        let (t, dir) = fake(&[]);
        let check = |file: &str, value: &str, now: &str| {
            super::super::tests::file(t.path(), &format!("a/b/{file}"), now);
            read_back(&dir, &write(file, value)).map_err(|e| e.to_string())
        };
        for (file, value, now) in [
            ("memory.high", "max", "max\n"),
            ("memory.high", "70000", "69632\n"),
            ("memory.oom.group", "1", "1\n"),
            ("cpu.uclamp.min", "12.5", "12.50\n"),
            ("cpu.uclamp.max", "100", "max\n"),
            (
                "io.latency",
                "8:0 target=5",
                "8:16 target=7\n8:0 target=5\n",
            ),
        ] {
            assert_eq!(check(file, value, now), Ok(()), "{file}");
        }
        assert!(check("memory.high", "700000", "4096\n").is_err());
        assert!(check("io.latency", "8:0 target=5", "").is_err());
        assert_eq!(
            check(
                "cpuset.cpus.partition",
                "root",
                "root invalid (Cpu list in cpuset.cpus not exclusive)\n"
            )
            .unwrap_err(),
            "field: cpuset.cpus.partition is 'root invalid (Cpu list in cpuset.cpus not exclusive)' after 'root' was written: the kernel does not do it; change or remove it"
        );
    }

    #[test]
    fn what_may_be_missing() {
        let (_t, dir) = fake(&[("memory.max", ""), ("hugetlb.2MB.max", "")]);
        let r = json!({"memory": {"limit": 5, "swap": 5}, "hugepageLimits": [{"pageSize": "2MB", "limit": 0}]});
        write_all(&dir, &writes(r), None).unwrap();
        assert_eq!(dir.read("memory.max").unwrap(), "5");
        let (_t, dir) = fake(&[("memory.max", ""), ("cgroup.controllers", "memory\n")]);
        let r = json!({"memory": {"limit": 5, "swap": 6}});
        assert_eq!(
            write_all(&dir, &writes(r), None).unwrap_err().to_string(),
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
            write_all(&dir, &r, None).unwrap_err().to_string(),
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
            write_all(&dir, &memory(100), None).unwrap_err().to_string(),
            "linux.resources.memory.limit: rejecting memory limit 100 <= usage 100; give more than is in use"
        );
        assert_eq!(dir.read("memory.swap.max").unwrap(), "old");
        write_all(&dir, &memory(101), None).unwrap();
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
