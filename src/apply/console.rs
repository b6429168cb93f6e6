//! The terminal of a process: a pair from the container's own devpts.

use crate::root::Root;
use crate::sys::tty::{self, Size};
use crate::sys::{errno, fs, mount, process};
use anyhow::{Context, Result, anyhow, bail};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// What runc sends along with the master over the console socket.
pub const NAME: &str = "/dev/ptmx";

/// A new pair: the master, and the slave owned by `uid`.
///
/// Nothing goes by a name that the container could have put something else under (CVE-2025-52565): the directory must
/// be the root of a devpts, whose `ptmx` is made by the kernel, and the slave is asked of the master.
pub fn open(root: &Root, uid: u32) -> Result<(OwnedFd, OwnedFd)> {
    let (master, slave) = pair(root).context("open a terminal on the container's '/dev/pts'")?;
    if uid != 0 {
        // the group stays what the mount's gid= made it
        fs::chownat(slave.as_fd(), c"", uid, u32::MAX).context("give the terminal to the user")?;
    }
    Ok((master, slave))
}

fn pair(root: &Root) -> Result<(OwnedFd, OwnedFd)> {
    const REMEDY: &str = "process.terminal needs a mount of type \"devpts\" there";
    let pts = root
        .open_as(Path::new("/dev/pts"), fs::O_PATH | fs::O_DIRECTORY, 0)
        .map_err(|e| anyhow!("{e:#}; {REMEDY}"))?;
    if fs::fd_magic(pts.as_fd())? != fs::DEVPTS_MAGIC {
        bail!("it is no devpts; {REMEDY}");
    }
    let resolve = fs::RESOLVE_BENEATH | fs::RESOLVE_NO_XDEV | fs::RESOLVE_NO_SYMLINKS;
    let flags = fs::O_RDWR | fs::O_NOCTTY;
    let master = fs::openat2(pts.as_fd(), c"ptmx", flags, 0, resolve)?;
    let stat = fs::fstat(master.as_fd())?;
    if stat.kind() != fs::S_IFCHR || stat.rdev != fs::makedev(5, 2) {
        bail!("its 'ptmx' is not the device 5:2");
    }
    tty::unlock(master.as_fd())?;
    let slave = tty::open_peer(master.as_fd())?;
    Ok((master, slave))
}

/// Binds the slave on /dev/console.
pub fn bind(root: &Root, slave: BorrowedFd) -> Result<()> {
    let dev = root.open(Path::new("/dev"))?;
    bind_in(dev.as_fd(), slave).context("bind the terminal on '/dev/console'")
}

fn bind_in(dev: BorrowedFd, slave: BorrowedFd) -> Result<()> {
    let create = fs::O_CREAT | fs::O_EXCL | fs::O_NOFOLLOW | fs::O_RDONLY;
    let target = match fs::openat(dev, c"console", create, 0o666) {
        Err(e) if e.errno() == errno::EEXIST => existing(dev)?,
        other => other?,
    };
    let tree = mount::clone_tree(slave, c"", false)?;
    Ok(mount::attach(tree.as_fd(), target.as_fd())?)
}

fn existing(dev: BorrowedFd) -> Result<OwnedFd> {
    let target = fs::openat(dev, c"console", fs::O_PATH | fs::O_NOFOLLOW, 0)?;
    if fs::fstat(target.as_fd())?.kind() == fs::S_IFLNK {
        bail!("it is a symlink; remove it from the root file system");
    }
    Ok(target)
}

/// Sets the size of the terminal.
pub fn resize(master: BorrowedFd, rows: u16, columns: u16) -> Result<()> {
    tty::set_size(master, Size { rows, columns }).context("set process.consoleSize")
}

/// Makes the slave the controlling terminal of this session (whose leader the caller is) and its descriptors 0, 1 and 2.
pub fn attach(slave: BorrowedFd) -> Result<()> {
    tty::set_controlling(slave)?;
    for number in 0..3 {
        process::dup_onto(slave, number)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_directory_that_is_no_devpts_gives_no_terminal() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("dev/pts")).unwrap();
        std::fs::write(dir.path().join("dev/pts/ptmx"), "").unwrap();
        let fd = fs::open(dir.path(), fs::O_PATH, 0).unwrap();
        let e = open(&Root { fd }, 0).unwrap_err();
        assert!(format!("{e:#}").contains("it is no devpts"), "{e:#}");
    }

    #[test]
    fn a_console_that_is_a_symlink_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        symlink("/etc/passwd", dir.path().join("console")).unwrap();
        let fd = fs::open(dir.path(), fs::O_PATH, 0).unwrap();
        let e = existing(fd.as_fd()).unwrap_err();
        assert!(e.to_string().contains("it is a symlink"), "{e}");
    }
}
