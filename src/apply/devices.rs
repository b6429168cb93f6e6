//! Device nodes and the links of /dev.
//!
//! An image may have a symlink for `/dev` or for any name in it. `/dev` is opened once, within the root, and every name in it
//! is made by mknodat and symlinkat, which never follow one (CVE-2026-41579, CVE-2026-88265).

use crate::plan::devices::{Device, Devices, Kind};
use crate::plan::mounts::Propagation;
use crate::root::Root;
use crate::sys::{self, errno, fs, mount, process};
use anyhow::{Context, Result, bail};
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Makes the nodes and, where the container's /dev is its own, the links in it. `slave` cuts off what has to be bound
/// of the host's, where this still is its mount namespace.
pub fn make(root: &Root, devices: &Devices, slave: bool) -> Result<()> {
    if !devices.setup {
        return Ok(());
    }
    let dev = root.mkdir_all(Path::new("/dev"), 0o755)?;
    // so that mknod gives the exact mode, and nothing has to be looked up again to change it
    let umask = process::umask(0);
    let made = devices
        .nodes
        .iter()
        .try_for_each(|d| node(root, dev.as_fd(), d, devices.bind, slave));
    process::umask(umask);
    made?;
    links(dev.as_fd())
}

fn node(root: &Root, dev: BorrowedFd, d: &Device, bind: bool, slave: bool) -> Result<()> {
    let describe = || format!("create device '{}'", d.path.display());
    match d.path.strip_prefix("/dev") {
        Ok(name) if name.components().count() == 1 => {
            make_node(dev, name.as_os_str(), d, bind, slave).with_context(describe)
        }
        _ => {
            let (dir, name) = root.parent(&d.path).with_context(describe)?;
            make_node(dir.as_fd(), name, d, bind, slave).with_context(describe)
        }
    }
}

fn make_node(dir: BorrowedFd, name: &OsStr, d: &Device, bind: bool, slave: bool) -> Result<()> {
    if bind {
        return bind_node(dir, name, d, slave);
    }
    let kind = file_type(d.kind);
    match fs::mknodat(dir, name, kind | d.mode, fs::makedev(d.major, d.minor)) {
        Err(e) if e.errno() == errno::EEXIST => {
            let fd = fs::openat(dir, name, fs::O_PATH | fs::O_NOFOLLOW, 0)?;
            check(fd.as_fd(), d)
        }
        Err(e) if e.errno() == errno::EPERM => bind_node(dir, name, d, slave),
        Err(e) => Err(e.into()),
        Ok(()) if (d.uid, d.gid) == (0, 0) => Ok(()),
        Ok(()) => {
            let fd = fs::openat(dir, name, fs::O_PATH | fs::O_NOFOLLOW, 0)?;
            check(fd.as_fd(), d)?;
            Ok(fs::chownat(fd.as_fd(), c"", d.uid, d.gid)?)
        }
    }
}

/// Where mknod(2) is refused (a user namespace), the host's node of the same path is bound, if it is the same device.
fn bind_node(dir: BorrowedFd, name: &OsStr, d: &Device, slave: bool) -> Result<()> {
    let source = mount::clone_tree(fs::CWD, d.path.as_path(), false)?;
    if slave {
        mount::set_propagation(source.as_fd(), Propagation::Slave as u64, false)?;
    }
    check(source.as_fd(), d).context("the host's node")?;
    let target = bind_target(dir, name)?;
    if !is(&fs::fstat(target.as_fd())?, d) {
        mount::attach(source.as_fd(), target.as_fd())?;
    }
    Ok(())
}

/// A file to bind on, made if it is missing; never a symlink or directory of the image's.
fn bind_target(dir: BorrowedFd, name: &OsStr) -> Result<OwnedFd> {
    let create = fs::O_CREAT | fs::O_EXCL | fs::O_NOFOLLOW | fs::O_RDONLY;
    match fs::openat(dir, name, create, 0o000) {
        Err(e) if e.errno() == errno::EEXIST => {}
        other => return Ok(other?),
    }
    let fd = fs::openat(dir, name, fs::O_PATH | fs::O_NOFOLLOW, 0)?;
    let kind = fs::fstat(fd.as_fd())?.kind();
    if kind == fs::S_IFLNK || kind == fs::S_IFDIR {
        bail!(sys::Error::new(
            "the root file system has a symlink or directory of that name",
            errno::EEXIST
        ));
    }
    Ok(fd)
}

fn file_type(kind: Kind) -> u32 {
    match kind {
        Kind::Char => fs::S_IFCHR,
        Kind::Block => fs::S_IFBLK,
        Kind::Fifo => fs::S_IFIFO,
    }
}

fn is(stat: &fs::Stat, d: &Device) -> bool {
    let same = d.kind == Kind::Fifo || stat.rdev == fs::makedev(d.major, d.minor);
    stat.kind() == file_type(d.kind) && same
}

/// An inode that was there before is taken only for what it is, not for its name (CVE-2025-31133).
fn check(fd: BorrowedFd, d: &Device) -> Result<()> {
    let stat = fs::fstat(fd)?;
    if !is(&stat, d) {
        let (major, minor) = fs::major_minor(stat.rdev);
        bail!(
            "it exists as another file (mode {:#o}, device {major}:{minor}), wanted {:?} {}:{}; remove it from the root file system",
            stat.mode,
            d.kind,
            d.major,
            d.minor
        );
    }
    Ok(())
}

/// The links that the spec asks for, and those that every distribution has. What is there under a name is left, but for ptmx,
/// which must be the container's own (never a node, which would be the host's).
fn links(dev: BorrowedFd) -> Result<()> {
    for (target, name) in [
        (c"/proc/self/fd", c"fd"),
        (c"/proc/self/fd/0", c"stdin"),
        (c"/proc/self/fd/1", c"stdout"),
        (c"/proc/self/fd/2", c"stderr"),
        (c"/proc/kcore", c"core"),
    ] {
        if name == c"core" && fs::lstatat(fs::CWD, target).is_err() {
            continue;
        }
        match fs::symlinkat(target, dev, name) {
            Err(e) if e.errno() != errno::EEXIST => return Err(e.into()),
            _ => {}
        }
    }
    match fs::symlinkat(c"pts/ptmx", dev, c"ptmx") {
        Err(e) if e.errno() == errno::EEXIST => {
            fs::unlinkat(dev, c"ptmx", false)?;
            Ok(fs::symlinkat(c"pts/ptmx", dev, c"ptmx")?)
        }
        other => Ok(other?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(name: &str, major: u32, minor: u32) -> Device {
        Device {
            path: Path::new("/dev").join(name),
            kind: Kind::Char,
            major,
            minor,
            mode: 0o666,
            uid: 0,
            gid: 0,
        }
    }

    #[test]
    fn an_inode_is_taken_for_what_it_is() {
        let null = fs::open("/dev/null", fs::O_PATH, 0).unwrap();
        check(null.as_fd(), &device("null", 1, 3)).unwrap();
        let e = check(null.as_fd(), &device("null", 1, 5)).unwrap_err();
        assert!(e.to_string().contains("device 1:3"), "{e}");
        let dir = fs::open("/dev", fs::O_PATH, 0).unwrap();
        assert!(check(dir.as_fd(), &device("null", 1, 3)).is_err());
    }

    #[test]
    fn nothing_is_bound_on_a_symlink() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/dev/null", dir.path().join("null")).unwrap();
        let fd = fs::open(dir.path(), fs::O_PATH, 0).unwrap();
        let e = bind_target(fd.as_fd(), OsStr::new("null")).unwrap_err();
        assert!(e.to_string().contains("symlink or directory"), "{e}");
        bind_target(fd.as_fd(), OsStr::new("zero")).unwrap();
        assert!(dir.path().join("zero").is_file());
    }

    #[test]
    fn links_replace_only_ptmx() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ptmx"), "").unwrap();
        std::fs::write(dir.path().join("stdin"), "kept").unwrap();
        links(fs::open(dir.path(), fs::O_PATH, 0).unwrap().as_fd()).unwrap();
        let link = |name| std::fs::read_link(dir.path().join(name)).unwrap();
        assert_eq!(link("ptmx"), Path::new("pts/ptmx"));
        assert_eq!(link("fd"), Path::new("/proc/self/fd"));
        assert_eq!(std::fs::read(dir.path().join("stdin")).unwrap(), b"kept");
    }
}
