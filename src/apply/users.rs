//! Id maps of a new user namespace.

use crate::plan::users::{IdMap, IdMaps, Writer};
use crate::sys::fs;
use anyhow::{Context, Result, bail};
use std::path::Path;
use std::process::Command;

/// Writes the maps of the process's new user namespace, from outside.
pub fn map(pid: i32, maps: &IdMaps) -> Result<()> {
    if maps.deny_setgroups {
        write(pid, "setgroups", "deny")?;
    }
    match maps.writer {
        Writer::Direct => {
            write(pid, "gid_map", &lines(&maps.gids)).context("linux.gidMappings")?;
            write(pid, "uid_map", &lines(&maps.uids)).context("linux.uidMappings")
        }
        Writer::Helper => {
            helper("newgidmap", pid, &maps.gids).context("linux.gidMappings")?;
            helper("newuidmap", pid, &maps.uids).context("linux.uidMappings")
        }
    }
}

/// Compares the maps that a config gives for a user namespace that is joined with those that it has, from inside. Engines that
/// send both rely on them.
pub fn check_claim(maps: &IdMaps) -> Result<()> {
    let Some((uids, gids)) = &maps.claimed else {
        return Ok(());
    };
    for (claimed, file, field) in [
        (uids, "uid_map", "uidMappings"),
        (gids, "gid_map", "gidMappings"),
    ] {
        let text = fs::read_at(fs::CWD, &*format!("/proc/self/{file}"))?;
        let words = |text: &str| {
            text.split_whitespace()
                .map(str::to_string)
                .collect::<Vec<_>>()
        };
        let real = String::from_utf8_lossy(&text);
        if words(&real) != words(&lines(claimed)) {
            bail!(
                "linux.{field}: the user namespace to be joined has other mappings ({}); leave the field out",
                real.trim()
            );
        }
    }
    Ok(())
}

fn write(pid: i32, file: &str, text: &str) -> Result<()> {
    fs::write_at(fs::CWD, &*format!("/proc/{pid}/{file}"), text.as_bytes())
        .with_context(|| format!("write {:?} to {file}", text.trim_end()))
}

fn lines(maps: &[IdMap]) -> String {
    maps.iter()
        .map(|m| format!("{} {} {}\n", m.container, m.host, m.size))
        .collect()
}

/// A setuid helper of shadow-utils, searched only where root puts programs.
fn helper(name: &str, pid: i32, maps: &[IdMap]) -> Result<()> {
    let places = ["/usr/bin", "/bin", "/usr/sbin", "/sbin", "/usr/local/bin"];
    let Some(path) = places
        .iter()
        .map(|d| Path::new(d).join(name))
        .find(|p| p.exists())
    else {
        bail!(
            "{name} is not installed, and an ordinary user maps more than its own id only by it; install the package uidmap"
        );
    };
    let mut command = Command::new(&path);
    command.arg(pid.to_string());
    for m in maps {
        command.args([m.container, m.host, m.size].map(|n| n.to_string()));
    }
    let out = command
        .output()
        .with_context(|| format!("run '{}'", path.display()))?;
    if !out.status.success() {
        bail!(
            "{name}: {}; see /etc/subuid and /etc/subgid",
            String::from_utf8_lossy(&out.stderr).trim()
        );
    }
    Ok(())
}
