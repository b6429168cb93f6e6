//! The mounts that containerd hands over for a container's root file system.

use anyhow::{Context, Result, bail};
use containerd_shim_protos::api::Mount;
use husk::apply::mounts::{map_ids, user_namespace};
use husk::plan::mounts::attr;
use husk::plan::users::IdMap;
use husk::sys::mount::MountAttr;
use husk::sys::{fs, mount};
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// mount(2) takes one page of options, with the NUL.
const PAGE: usize = 4096;
/// Beside `rootfs`, for as long as an overlay is mounted: what its layers are in, with mapped ids.
const MAPPED: &str = "mapped";

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
    unmap(rootfs);
}

fn one(m: &Mount, rootfs: &Path) -> Result<()> {
    let Parsed { flags, data, maps } = parse(&m.options)?;
    let users = match &maps {
        (uids, gids) if uids.is_empty() && gids.is_empty() => None,
        (uids, gids) => Some(user_namespace(uids, gids)?),
    };
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
    if m.type_ == "overlay" && (users.is_some() || data_text.len() + 1 >= PAGE) {
        let mounted = compact(&source, &target, flags, &data, |common| match &users {
            Some(users) => map(common, rootfs, users),
            None => Ok(common.into()),
        });
        unmap(rootfs); // the overlay has its own hold on the layers
        return mounted;
    }
    // a bind mount takes its attributes in a second step only
    let bind = flags & mount::MS_BIND != 0 || m.type_ == "bind" || m.type_ == "rbind";
    let flags = flags | if bind { mount::MS_BIND } else { 0 };
    mount::mount(&source, &target, &kind, flags, &CString::new(data_text)?)?;
    if bind && flags & mount::MS_RDONLY != 0 {
        let flags = (flags & !mount::MS_REC) | mount::MS_REMOUNT;
        mount::mount(&source, &target, &kind, flags, c"")?;
    }
    if let Some(users) = &users {
        attach_mapped(&target, &target, users, 0)?;
    }
    Ok(())
}

/// Shows `common` with mapped ids at a place of its own, and returns that. It has to be in the mount namespace to be an overlay's layer,
/// before Linux 6.15.
fn map(common: &Path, rootfs: &Path, users: &OwnedFd) -> Result<PathBuf> {
    let place = rootfs.with_file_name(MAPPED);
    let made = std::fs::create_dir(&place);
    made.with_context(|| format!("make '{}'", place.display()))?;
    attach_mapped(common, &place, users, attr::RDONLY)?;
    Ok(place)
}

fn unmap(rootfs: &Path) {
    let place = rootfs.with_file_name(MAPPED);
    let _ = mount::detach(&place);
    let _ = std::fs::remove_dir(&place); // not there, most often
}

/// `set`: attributes of the new mount beside its ids.
fn attach_mapped(source: &Path, target: &Path, users: &OwnedFd, set: u64) -> Result<()> {
    let tree = mount::clone_tree(fs::CWD, source, false)?;
    map_ids(tree.as_fd(), users.as_fd(), false)
        .with_context(|| format!("mount '{}'", source.display()))?;
    if set != 0 {
        let attributes = MountAttr {
            set,
            ..Default::default()
        };
        mount::setattr(tree.as_fd(), &attributes, false)?;
    }
    let target = fs::open(target, fs::O_PATH | fs::O_DIRECTORY, 0)?;
    Ok(mount::attach(tree.as_fd(), target.as_fd())?)
}

/// An overlay of layers whose paths become relative to what they have in common: they are many, or `place` has it with mapped ids.
/// It is the working directory meanwhile; there is one thread to see it.
fn compact(
    source: &CString,
    target: &Path,
    flags: u64,
    data: &[String],
    place: impl FnOnce(&Path) -> Result<PathBuf>,
) -> Result<()> {
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
    fs::chdir(&place(&common)?)?;
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
    /// Of uids and gids, empty without any.
    maps: (Vec<IdMap>, Vec<IdMap>),
}

/// fstab's options as mount(2) wants them.
fn parse(options: &[String]) -> Result<Parsed> {
    let mut parsed = Parsed {
        flags: 0,
        data: Vec::new(),
        maps: Default::default(),
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
            o if o.starts_with("uidmap=") => {
                parsed.maps.0 = id_maps(o)?;
                continue;
            }
            o if o.starts_with("gidmap=") => {
                parsed.maps.1 = id_maps(o)?;
                continue;
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
    let (uids, gids) = &parsed.maps;
    if uids.is_empty() != gids.is_empty() {
        bail!("options 'uidmap' and 'gidmap' come together");
    }
    Ok(parsed)
}

/// `uidmap=CONTAINER:HOST:SIZE,…`
fn id_maps(option: &str) -> Result<Vec<IdMap>> {
    let (_, list) = option.split_once('=').unwrap_or_default();
    let one = |text: &str| {
        let numbers: Option<Vec<u32>> = text.split(':').map(|n| n.parse().ok()).collect();
        match numbers?[..] {
            [container, host, size] => Some(IdMap {
                container,
                host,
                size,
            }),
            _ => None,
        }
    };
    let maps: Option<Vec<IdMap>> = list.split(',').map(one).collect();
    maps.with_context(|| format!("option '{option}': is not a list of container:host:size"))
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
        let map = "is not a list of container:host:size";
        assert_eq!(
            text("uidmap=0:-1:2"),
            format!("option 'uidmap=0:-1:2': {map}")
        );
        assert_eq!(text("gidmap="), format!("option 'gidmap=': {map}"));
        assert_eq!(
            text("uidmap=0:1:2"),
            "options 'uidmap' and 'gidmap' come together"
        );
    }

    #[test]
    fn ids_are_mapped_by_lists() {
        let list = options(&["uidmap=0:300000:5,5:7:1", "gidmap=0:1:2", "lowerdir=/a"]);
        let parsed = parse(&list).unwrap();
        let triples = |maps: &[IdMap]| -> Vec<_> {
            maps.iter().map(|m| (m.container, m.host, m.size)).collect()
        };
        assert_eq!(triples(&parsed.maps.0), [(0, 300000, 5), (5, 7, 1)]);
        assert_eq!(triples(&parsed.maps.1), [(0, 1, 2)]);
        assert_eq!(parsed.data, ["lowerdir=/a"]);
    }

    #[test]
    fn layers_have_a_directory_in_common() {
        let common = |list: &[&str]| common(&list.iter().map(Path::new).collect::<Vec<_>>());
        assert_eq!(common(&["/s/1/fs", "/s/12/fs"]), Path::new("/s"));
        assert_eq!(common(&["/s/1/fs"]), Path::new("/s/1"));
        assert_eq!(common(&["/a/1", "/b/1"]), Path::new("/"));
    }
}
