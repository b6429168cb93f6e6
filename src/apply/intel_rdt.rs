//! The container's place in resctrl (Documentation/filesystems/resctrl.rst).

use crate::plan::intel_rdt::IntelRdt;
use crate::sys::errno::{EEXIST, ENOENT};
use crate::sys::{Result as SysResult, fs};
use anyhow::{Context, Error, Result, anyhow};
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
    fn groups_that_are_gone_are_removed() {
        let (dir, rdt) = tree();
        create_dir(dir.path().join("web")).unwrap();
        remove(&rdt.remove()).unwrap();
        assert!(!dir.path().join("web").exists());
        remove(&rdt.remove()).unwrap();
    }
}
