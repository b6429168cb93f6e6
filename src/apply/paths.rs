//! Masked and read-only paths.

use crate::root::Root;
use crate::sys::mount::{FsContext, MountAttr, NODEV, NOEXEC, NOSUID, RDONLY};
use crate::sys::{self, errno, fs, mount};
use anyhow::{Context, Result, bail};
use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Hides each path that exists: a file behind /dev/null, a directory behind an empty read-only tmpfs, the same for
/// all, with an SELinux label if there is one.
pub fn mask(root: &Root, paths: &[PathBuf], label: Option<&CStr>) -> Result<()> {
    let mut null = None;
    let mut empty = None;
    for path in paths {
        let describe = || format!("mask '{}'", path.display());
        let Some(target) = root.find(path).with_context(describe)? else {
            continue;
        };
        let cover = if fs::fstat(target.as_fd())?.is_dir() {
            cover_directory(&mut empty, target, label)
        } else {
            cover_file(&mut null, root, target)
        };
        cover.with_context(describe)?;
    }
    Ok(())
}

/// Makes each path that exists read-only, with the mounts below it.
pub fn make_readonly(root: &Root, paths: &[PathBuf]) -> Result<()> {
    let attr = MountAttr {
        set: RDONLY,
        ..Default::default()
    };
    for path in paths {
        let Some(target) = root.find(path)? else {
            continue;
        };
        let make = || {
            let tree = mount::clone_tree(target.as_fd(), c"", true)?;
            mount::setattr(tree.as_fd(), &attr, true)?;
            mount::attach(tree.as_fd(), target.as_fd())
        };
        make().with_context(|| format!("make '{}' read-only", path.display()))?;
    }
    Ok(())
}

/// `empty` is the tmpfs on the first directory, of which the others get clones: a third of the cost of a tmpfs each. It
/// has to be attached before (a detached mount can be cloned from Linux 6.15 on only).
fn cover_directory(
    empty: &mut Option<OwnedFd>,
    target: OwnedFd,
    label: Option<&CStr>,
) -> Result<()> {
    match empty {
        Some(fd) => {
            let clone = mount::clone_tree(fd.as_fd(), c"", false)?;
            Ok(mount::attach(clone.as_fd(), target.as_fd())?)
        }
        None => {
            // Ubuntu 20.04's kernel wants two inodes
            let fd = match empty_tmpfs(c"1", label) {
                Err(e) if e.errno() == errno::EINVAL => empty_tmpfs(c"2", label)?,
                other => other?,
            };
            mount::attach(fd.as_fd(), target.as_fd())?;
            *empty = Some(fd);
            Ok(())
        }
    }
}

fn empty_tmpfs(inodes: &CStr, label: Option<&CStr>) -> sys::Result<OwnedFd> {
    let context = FsContext::open(c"tmpfs")?;
    context.set_string(c"source", c"tmpfs")?;
    context.set_string(c"nr_blocks", c"1")?;
    context.set_string(c"nr_inodes", inodes)?;
    if let Some(label) = label {
        context.set_string(c"context", label)?;
    }
    context.create()?;
    context.mount(RDONLY | NOSUID | NODEV | NOEXEC)
}

fn cover_file(null: &mut Option<OwnedFd>, root: &Root, target: OwnedFd) -> Result<()> {
    let null = match null {
        Some(fd) => fd,
        None => null.insert(container_null(root)?),
    };
    let clone = mount::clone_tree(null.as_fd(), c"", false)?;
    Ok(mount::attach(clone.as_fd(), target.as_fd())?)
}

/// The container's /dev/null, if it is one: an image may have put anything there (CVE-2025-31133).
fn container_null(root: &Root) -> Result<OwnedFd> {
    let fd = root.open(Path::new("/dev/null"))?;
    let stat = fs::fstat(fd.as_fd())?;
    if stat.kind() != fs::S_IFCHR || stat.rdev != fs::makedev(1, 3) {
        bail!(
            "the container's '/dev/null' is not the null device; remove it from the root file system"
        );
    }
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_false_null_device_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("dev")).unwrap();
        std::fs::write(dir.path().join("dev/null"), "").unwrap();
        let fd = fs::open(dir.path(), fs::O_PATH, 0).unwrap();
        let e = container_null(&Root { fd }).unwrap_err();
        assert!(e.to_string().contains("is not the null device"), "{e}");
    }
}
