//! The container's place in resctrl (Documentation/filesystems/resctrl.rst).

use crate::plan::intel_rdt::IntelRdt;
use crate::sys::errno::{EEXIST, ENOENT};
use crate::sys::{Result as SysResult, fs};
use anyhow::{Context, Error, Result, anyhow};
use serde_json::{Map, Value, json};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// Makes the groups, says what they get, and puts a process into them, whose children follow. On failure nothing is left.
pub fn apply(rdt: &IntelRdt, pid: i32) -> Result<()> {
    make(rdt, pid)
        .context("linux.intelRdt")
        .map_err(|e| match remove(&rdt.remove()) {
            Ok(()) => e,
            Err(left) => anyhow!("{e:#}; then {left:#}"),
        })
}

fn make(rdt: &IntelRdt, pid: i32) -> Result<()> {
    if rdt.new {
        fs::mkdirat(fs::CWD, &rdt.class, 0o755).map_err(|e| with_status(&rdt.root, e.into()))?;
    }
    if !rdt.schemata.is_empty() {
        change(&rdt.class, &rdt.schemata)?;
    }
    enter(&rdt.class, pid)?;
    if let Some(group) = &rdt.monitor {
        match fs::mkdirat(fs::CWD, group, 0o755) {
            Err(e) if e.errno() == EEXIST => {} // of a container of this id that was not deleted
            made => made.map_err(|e| with_status(&rdt.root, e.into()))?,
        }
        enter(group, pid)?;
    }
    Ok(())
}

/// Writes lines to the `schemata` of a class of service.
pub fn change(class: &Path, lines: &[String]) -> Result<()> {
    let root = class.parent().unwrap_or(class);
    let lines: String = lines.iter().map(|l| format!("{l}\n")).collect();
    write(&class.join("schemata"), &lines)
        .with_context(|| format!("write {lines:?}"))
        .map_err(|e| with_status(root, e))
}

/// The lines that a class of service has now.
pub fn schemata(class: &Path) -> Result<Vec<String>> {
    let text = fs::read_at(fs::CWD, &class.join("schemata"))?;
    let text = String::from_utf8_lossy(&text);
    Ok(text.lines().map(|l| l.trim().to_string()).collect())
}

/// What the class has and its processes use, in runc's shape; what this machine does not tell is left out. `monitor` is the group whose
/// use is told, which otherwise is that of the whole class.
pub fn statistics(class: &Path, monitor: Option<&Path>) -> Value {
    let text = |file: PathBuf| {
        let text = fs::read_at(fs::CWD, &file).ok()?;
        Some(String::from_utf8_lossy(&text).trim().to_string())
    };
    let number = |file: PathBuf| text(file)?.parse::<u64>().ok();
    let mut all = Map::new();
    // the class "/" is the root itself
    let root = class.ancestors().find(|d| d.join("info").is_dir());
    let root = root.unwrap_or(class);
    let lines = [(root, "schema_root"), (class, "schema")]
        .map(|(group, suffix)| (schemata(group).unwrap_or_default(), suffix));
    for (resource, key, hexadecimal, numbers) in [
        (
            "L3",
            "l3_cache",
            Some("cbm_mask"),
            &["min_cbm_bits", "num_closids"][..],
        ),
        (
            "MB",
            "mem_bw",
            None,
            &[
                "bandwidth_gran",
                "delay_linear",
                "min_bandwidth",
                "num_closids",
            ],
        ),
    ] {
        let about = root.join("info").join(resource);
        let mask = hexadecimal.and_then(|name| Some((name, json!(text(about.join(name))?))));
        let numbers = numbers.iter();
        let numbers = numbers.filter_map(|n| Some((*n, json!(number(about.join(n))?))));
        let info: Map<_, _> = (mask.into_iter().chain(numbers))
            .map(|(name, value)| (name.to_string(), value))
            .collect();
        if !info.is_empty() {
            all.insert(format!("{key}_info"), info.into());
        }
        let prefix = format!("{resource}:");
        for (lines, suffix) in &lines {
            if let Some(line) = lines.iter().find(|l| l.starts_with(&prefix)) {
                all.insert(format!("{key}_{suffix}"), line.as_str().into());
            }
        }
    }
    let data = monitor.unwrap_or(class).join("mon_data");
    let domains = fs::open(&data, fs::O_RDONLY | fs::O_DIRECTORY, 0);
    let mut domains = domains
        .and_then(|d| fs::list_dirs(d.as_fd()))
        .unwrap_or_default();
    domains.sort();
    let (mut bandwidth, mut occupancy) = (Vec::new(), Vec::new());
    for domain in domains.iter().map(|d| data.join(d)) {
        let of = |name| number(domain.join(name));
        if let (Some(total), Some(local)) = (of("mbm_total_bytes"), of("mbm_local_bytes")) {
            bandwidth.push(json!({"mbm_total_bytes": total, "mbm_local_bytes": local}));
        }
        if let Some(bytes) = of("llc_occupancy") {
            occupancy.push(json!({"llc_occupancy": bytes}));
        }
    }
    for (key, list) in [("mbm_stats", bandwidth), ("cmt_stats", occupancy)] {
        if !list.is_empty() {
            all.insert(key.into(), list.into());
        }
    }
    all.into()
}

/// Puts a process into a group.
pub fn enter(group: &Path, pid: i32) -> Result<()> {
    write(&group.join("tasks"), &pid.to_string())
        .with_context(|| format!("put process {pid} into a group of resctrl"))
}

/// Removes groups; one that is gone is fine.
pub fn remove(groups: &[PathBuf]) -> Result<()> {
    for group in groups {
        match fs::unlinkat(fs::CWD, group, true) {
            Err(e) if e.errno() == ENOENT => {}
            removed => removed.context("remove a group of resctrl")?,
        }
    }
    Ok(())
}

/// As a shell does it; resctrl makes no file for anybody, and has all that are written here.
fn write(file: &Path, text: &str) -> SysResult<()> {
    let fd = fs::open(file, fs::O_WRONLY | fs::O_CREAT | fs::O_TRUNC, 0o644)?;
    fs::write(fd.as_fd(), text.as_bytes())
}

/// resctrl says more of a failure than its errno.
fn with_status(root: &Path, e: Error) -> Error {
    match fs::read_at(fs::CWD, &root.join("info/last_cmd_status")) {
        Ok(status) => {
            let status = String::from_utf8_lossy(&status);
            anyhow!("{e:#}, last_cmd_status: {}", status.trim_end())
        }
        Err(_) => e,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{create_dir, create_dir_all, read_to_string, write};

    fn tree() -> (tempfile::TempDir, IntelRdt) {
        let dir = tempfile::tempdir().unwrap();
        create_dir(dir.path().join("info")).unwrap();
        write(dir.path().join("info/last_cmd_status"), "ok\n").unwrap();
        let rdt = IntelRdt {
            root: dir.path().into(),
            class: dir.path().join("web"),
            new: true,
            own: true,
            monitor: None,
            schemata: vec!["L3:0=f".into(), "MB:0=20".into()],
        };
        (dir, rdt)
    }

    #[test]
    fn a_process_gets_its_share() {
        let (dir, rdt) = tree();
        apply(&rdt, 42).unwrap();
        let read = |file: &str| read_to_string(dir.path().join(file)).unwrap();
        assert_eq!(read("web/schemata"), "L3:0=f\nMB:0=20\n");
        assert_eq!(read("web/tasks"), "42");
    }

    #[test]
    fn nothing_is_written_to_schemata_unasked() {
        let (dir, mut rdt) = tree();
        (rdt.new, rdt.own, rdt.schemata) = (false, false, vec![]);
        let group = dir.path().join("web/mon_groups/c1");
        create_dir_all(group.parent().unwrap()).unwrap();
        rdt.monitor = Some(group.clone());
        apply(&rdt, 42).unwrap();
        assert!(!dir.path().join("web/schemata").exists());
        assert_eq!(read_to_string(group.join("tasks")).unwrap(), "42");
        assert_eq!(
            read_to_string(dir.path().join("web/tasks")).unwrap(),
            "42",
            "of the class before that of its group"
        );
    }

    #[test]
    fn a_failure_is_explained_and_undone() {
        let (dir, mut rdt) = tree();
        rdt.schemata.clear();
        // where the kernel has too many groups already
        rdt.monitor = Some(dir.path().join("nowhere/mon_groups/c1"));
        (rdt.new, rdt.own) = (false, false);
        create_dir(dir.path().join("web")).unwrap();
        let e = format!("{:#}", apply(&rdt, 42).unwrap_err());
        assert!(e.starts_with("linux.intelRdt: mkdir"), "{e}");
        assert!(
            e.ends_with("no such file or directory, last_cmd_status: ok"),
            "{e}"
        );
        assert!(dir.path().join("web").exists(), "others' class stays");
    }

    #[test]
    fn what_a_class_has_and_uses() {
        let (dir, rdt) = tree();
        let file = |name: &str, text: &str| {
            let file = dir.path().join(name);
            create_dir_all(file.parent().unwrap()).unwrap();
            write(file, text).unwrap();
        };
        file("schemata", "    MB:0=100;1=100\n    L3:0=fffff;1=fffff\n");
        for (name, text) in [
            ("L3/cbm_mask", "fffff\n"),
            ("L3/min_cbm_bits", "1\n"),
            ("L3/num_closids", "16\n"),
            ("MB/bandwidth_gran", "10\n"),
            ("MB/delay_linear", "1\n"),
            ("MB/min_bandwidth", "10\n"),
            ("MB/num_closids", "8\n"),
        ] {
            file(&format!("info/{name}"), text);
        }
        apply(&rdt, 42).unwrap();
        let class = statistics(&rdt.class, None);
        let mut want = json!({
            "l3_cache_info": {"cbm_mask": "fffff", "min_cbm_bits": 1, "num_closids": 16},
            "l3_cache_schema_root": "L3:0=fffff;1=fffff",
            "l3_cache_schema": "L3:0=f",
            "mem_bw_info": {"bandwidth_gran": 10, "delay_linear": 1, "min_bandwidth": 10, "num_closids": 8},
            "mem_bw_schema_root": "MB:0=100;1=100",
            "mem_bw_schema": "MB:0=20",
        });
        assert_eq!(class, want);
        for (domain, n) in [("01", 30), ("00", 10)] {
            for (name, more) in [
                ("mbm_total_bytes", 2),
                ("mbm_local_bytes", 1),
                ("llc_occupancy", 3),
            ] {
                let at = format!("web/mon_groups/c1/mon_data/mon_L3_{domain}/{name}");
                file(&at, &format!("{}\n", n + more));
            }
        }
        let group = dir.path().join("web/mon_groups/c1");
        want["mbm_stats"] = json!([
            {"mbm_total_bytes": 12, "mbm_local_bytes": 11},
            {"mbm_total_bytes": 32, "mbm_local_bytes": 31},
        ]);
        want["cmt_stats"] = json!([{"llc_occupancy": 13}, {"llc_occupancy": 33}]);
        assert_eq!(statistics(&rdt.class, Some(&group)), want);
        // the class "/"
        let all = statistics(&dir.path().join(""), None);
        assert_eq!(all["l3_cache_schema"], all["l3_cache_schema_root"]);
    }

    #[test]
    fn groups_that_are_gone_are_removed() {
        let (dir, rdt) = tree();
        create_dir(dir.path().join("web")).unwrap();
        remove(&rdt.remove()).unwrap();
        assert!(!dir.path().join("web").exists());
        remove(&rdt.remove()).unwrap();
    }
}
