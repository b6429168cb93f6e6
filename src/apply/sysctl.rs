//! Kernel parameters of the container's namespaces.

use crate::plan::namespaces::{Kind, Namespaces};
use crate::plan::sysctl::Sysctl;
use crate::root::Proc;
use crate::sys::fs;
use anyhow::{Context, Result, bail};
use std::path::Path;

/// A namespace that is joined by path may be the host's own, whose parameters are not the container's to change.
pub fn refuse_hosts(list: &[Sysctl], namespaces: &Namespaces) -> Result<()> {
    let kinds = [
        (Kind::Network, "net"),
        (Kind::Ipc, "ipc"),
        (Kind::Uts, "uts"),
    ];
    for (join, name) in kinds
        .iter()
        .filter_map(|(k, name)| Some((namespaces.joined(*k)?, name)))
    {
        let is_its = |s: &&Sysctl| match join.kind {
            Kind::Network => s.path.starts_with("net/"),
            Kind::Uts => matches!(s.path.as_str(), "kernel/hostname" | "kernel/domainname"),
            _ => ["fs/mqueue/", "kernel/msg", "kernel/sem", "kernel/shm"]
                .iter()
                .any(|p| s.path.starts_with(p)),
        };
        let Some(s) = list.iter().find(is_its) else {
            continue;
        };
        let (theirs, ours) = (
            fs::stat(join.path.as_path())?,
            fs::stat(&*format!("/proc/self/ns/{name}"))?,
        );
        if (theirs.dev, theirs.ino) == (ours.dev, ours.ino) {
            bail!(
                "linux.sysctl: '{}' would change the host: '{}' is the host's own namespace; give the container a new one",
                s.path,
                join.path.display()
            );
        }
    }
    Ok(())
}

/// Writes each through `proc`, the container's own procfs, which no one can have covered or redirected (I3); where it has none,
/// through one made for this.
pub fn write(proc: Option<&Proc>, list: &[Sysctl]) -> Result<()> {
    if list.is_empty() {
        return Ok(());
    }
    let own = proc
        .is_none()
        .then(Proc::private)
        .transpose()
        .context("linux.sysctl: open a procfs")?;
    let proc = proc.or(own.as_ref()).expect("one of the two is there");
    for s in list {
        proc.write(&Path::new("sys").join(&s.path), s.value.as_bytes())
            .with_context(|| format!("linux.sysctl: write '{}' to '{}'", s.value, s.path))?;
    }
    Ok(())
}
