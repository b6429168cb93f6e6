//! The mounts that containerd hands over for a container's root file system.

use anyhow::{Context, Result, bail};
use containerd_shim_protos::api::Mount;
use husk::sys::{fs, mount};
use std::ffi::CString;
use std::path::{Path, PathBuf};

/// mount(2) takes one page of options, with the NUL.
const PAGE: usize = 4096;

/// Mounts all of them in order below `rootfs`; on failure none is left.
pub fn mount(mounts: &[Mount], rootfs: &Path) -> Result<()> {
    if mounts.is_empty() {
        return Ok(());
    }
    match std::fs::create_dir(rootfs) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(e).with_context(|| format!("make '{}'", rootfs.display()));
        }
        _ => {}
    }
    let result = mounts.iter().try_for_each(|m| one(m, rootfs));
    if result.is_err() {
        unmount(rootfs);
    }
    result.context("mount rootfs component")
}

/// Takes away all that is mounted there. A directory without a mount, or none at all, is fine.
pub fn unmount(rootfs: &Path) {
    while mount::detach(rootfs).is_ok() {}
}

fn one(m: &Mount, rootfs: &Path) -> Result<()> {
    let Parsed { flags, data } = parse(&m.options)?;
    let target = match m.target.trim_start_matches('/') {
        "" => rootfs.to_path_buf(),
        below if Path::new(below).components().any(|c| c.as_os_str() == "..") => {
            bail!("target '{}' holds '..'", m.target)
        }
        below => rootfs.join(below),
    };
    let source = CString::new(&*m.source)?;
    let kind = CString::new(&*m.type_)?;
    let data_text = data.join(",");
    if m.type_ == "overlay" && data_text.len() + 1 >= PAGE {
        return compact(&source, &target, flags, &data);
    }
    // a bind mount takes its attributes in a second step only
    let bind = flags & mount::MS_BIND != 0 || m.type_ == "bind" || m.type_ == "rbind";
    let flags = flags | if bind { mount::MS_BIND } else { 0 };
    mount::mount(&source, &target, &kind, flags, &CString::new(data_text)?)?;
    if bind && flags & mount::MS_RDONLY != 0 {
        let flags = (flags & !mount::MS_REC) | mount::MS_REMOUNT;
        mount::mount(&source, &target, &kind, flags, c"")?;
    }
    Ok(())
}

/// Many layers: their paths become relative to what they have in common, which is the working directory meanwhile; there is one
/// thread to see it.
fn compact(source: &CString, target: &Path, flags: u64, data: &[String]) -> Result<()> {
    let lower = data.iter().find_map(|o| o.strip_prefix("lowerdir="));
    let Some(lower) = lower else {
        bail!("its options are longer than {PAGE} bytes");
    };
    let layers: Vec<&Path> = lower.split(':').map(Path::new).collect();
    let common = common(&layers);
    let short: Vec<String> = data
        .iter()
        .map(|option| {
            if !option.starts_with("lowerdir=") {
                return option.clone();
            }
            let names: Vec<_> = layers
                .iter()
                .map(|l| l.strip_prefix(&common).unwrap_or(l).to_string_lossy())
                .collect();
            format!("lowerdir={}", names.join(":"))
        })
        .collect();
    let short = short.join(",");
    if short.len() + 1 > PAGE {
        bail!("its options are longer than {PAGE} bytes even by relative paths");
    }
    fs::chdir(&common)?;
    let done = mount::mount(source, target, c"overlay", flags, &CString::new(short)?);
    fs::chdir("/")?;
    Ok(done?)
}

/// The directory that all paths are in, at some depth.
fn common(paths: &[&Path]) -> PathBuf {
    let mut common = paths
        .first()
        .and_then(|p| p.parent())
        .unwrap_or(Path::new("/"));
    while !paths.iter().all(|p| p.starts_with(common)) {
        common = common.parent().unwrap_or(Path::new("/"));
    }
    common.into()
}

#[derive(Debug, PartialEq, Eq)]
struct Parsed {
    flags: u64,
    data: Vec<String>,
}

/// fstab's options as mount(2) wants them.
fn parse(options: &[String]) -> Result<Parsed> {
    let mut parsed = Parsed {
        flags: 0,
        data: Vec::new(),
    };
    for option in options {
        let (flag, on) = match &**option {
            "" | "defaults" | "rw" => (mount::MS_RDONLY, false),
            "ro" => (mount::MS_RDONLY, true),
            "suid" => (mount::MS_NOSUID, false),
            "nosuid" => (mount::MS_NOSUID, true),
            "dev" => (mount::MS_NODEV, false),
            "nodev" => (mount::MS_NODEV, true),
            "exec" => (mount::MS_NOEXEC, false),
            "noexec" => (mount::MS_NOEXEC, true),
            "async" => (mount::MS_SYNCHRONOUS, false),
            "sync" => (mount::MS_SYNCHRONOUS, true),
            "dirsync" => (mount::MS_DIRSYNC, true),
            "atime" => (mount::MS_NOATIME, false),
            "noatime" => (mount::MS_NOATIME, true),
            "diratime" => (mount::MS_NODIRATIME, false),
            "nodiratime" => (mount::MS_NODIRATIME, true),
            "relatime" => (mount::MS_RELATIME, true),
            "norelatime" => (mount::MS_RELATIME, false),
            "strictatime" => (mount::MS_STRICTATIME, true),
            "bind" => (mount::MS_BIND, true),
            "rbind" => (mount::MS_BIND | mount::MS_REC, true),
            "remount" => (mount::MS_REMOUNT, true),
            "loop" => {
                bail!("option 'loop': loop devices are not for this shim; use another snapshotter")
            }
            o if o.starts_with("uidmap=") || o.starts_with("gidmap=") => {
                bail!("option '{o}': snapshots with mapped ids are not for this shim yet")
            }
            o if o.starts_with("X-containerd.") => continue, // for containerd's own eyes
            _ => {
                parsed.data.push(option.clone());
                continue;
            }
        };
        if on {
            parsed.flags |= flag;
        } else {
            parsed.flags &= !flag;
        }
    }
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(list: &[&str]) -> Vec<String> {
        list.iter().map(|o| o.to_string()).collect()
    }

    #[test]
    fn options_are_flags_or_the_file_systems_own() {
        let parsed = parse(&options(&[
            "ro",
            "rbind",
            "noexec",
            "lowerdir=/a:/b",
            "index=off",
        ]))
        .unwrap();
        assert_eq!(
            parsed.flags,
            mount::MS_RDONLY | mount::MS_BIND | mount::MS_REC | mount::MS_NOEXEC
        );
        assert_eq!(parsed.data, ["lowerdir=/a:/b", "index=off"]);
        assert_eq!(parse(&options(&["ro", "rw"])).unwrap().flags, 0);
    }

    #[test]
    fn what_it_cannot_do_is_refused_by_name() {
        let text = |o| parse(&options(&[o])).unwrap_err().to_string();
        assert!(text("loop").starts_with("option 'loop'"));
        assert!(text("uidmap=0:1:2").starts_with("option 'uidmap=0:1:2'"));
    }

    #[test]
    fn layers_have_a_directory_in_common() {
        let common = |list: &[&str]| common(&list.iter().map(Path::new).collect::<Vec<_>>());
        assert_eq!(common(&["/s/1/fs", "/s/12/fs"]), Path::new("/s"));
        assert_eq!(common(&["/s/1/fs"]), Path::new("/s/1"));
        assert_eq!(common(&["/a/1", "/b/1"]), Path::new("/"));
    }
}
