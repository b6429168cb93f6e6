//! `tmpcopyup`: a new tmpfs starts with what the root has at its place.

use crate::sys::{errno, fs};
use anyhow::{Context, Result};
use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStringExt;

/// Copies what is in directory `from` to the empty directory `to`: modes, owners, times, links and, as far as the tmpfs takes
/// them, extended attributes. Symlinks are copied, never followed; what is mounted below stays an empty directory.
///
/// `from` may be `O_PATH`. The umask must be 0.
pub fn copy(from: BorrowedFd, to: BorrowedFd) -> Result<()> {
    let dev = fs::fstat(from)?.dev;
    copy_entries(from, to, dev)
}

fn copy_entries(from: BorrowedFd, to: BorrowedFd, dev: u64) -> Result<()> {
    for name in fs::list(from)? {
        copy_entry(from, to, &name, dev)
            .with_context(|| format!("copy '{}'", name.to_string_lossy()))?;
    }
    Ok(())
}

fn copy_entry(from: BorrowedFd, to: BorrowedFd, name: &OsStr, dev: u64) -> Result<()> {
    let stat = fs::lstatat(from, name)?;
    let mode = stat.mode & 0o7777;
    match stat.kind() {
        fs::S_IFDIR => {
            fs::mkdirat(to, name, mode)?;
            let flags = fs::O_RDONLY | fs::O_DIRECTORY | fs::O_NOFOLLOW;
            let to = fs::openat(to, name, flags, 0)?;
            if stat.dev == dev {
                let from = fs::openat(from, name, flags, 0)?;
                copy_entries(from.as_fd(), to.as_fd(), dev)?;
                copy_attributes(from.as_fd(), to.as_fd());
            }
            finish(to.as_fd(), &stat)
        }
        fs::S_IFREG => {
            let flags = fs::O_RDONLY | fs::O_NOFOLLOW | fs::O_NONBLOCK;
            let from = fs::openat(from, name, flags, 0)?;
            let flags = fs::O_WRONLY | fs::O_CREAT | fs::O_EXCL | fs::O_NOFOLLOW;
            let to = fs::openat(to, name, flags, 0o600)?;
            fs::copy_all(to.as_fd(), from.as_fd())?;
            copy_attributes(from.as_fd(), to.as_fd());
            finish(to.as_fd(), &stat)
        }
        fs::S_IFLNK => {
            let target = CString::new(fs::readlinkat(from, name)?.into_vec())?;
            fs::symlinkat(&target, to, name)?;
            Ok(fs::chownat(to, name, stat.uid, stat.gid)?)
        }
        // a socket that nobody listens on any more is of no use
        fs::S_IFSOCK => Ok(()),
        kind => match fs::mknodat(to, name, kind | mode, stat.rdev) {
            // device nodes, in a user namespace
            Err(e) if e.errno() == errno::EPERM => Ok(()),
            other => {
                other?;
                Ok(fs::chownat(to, name, stat.uid, stat.gid)?)
            }
        },
    }
}

/// Owner before mode, since chown(2) takes the setuid and setgid bits away; times last.
fn finish(to: BorrowedFd, stat: &fs::Stat) -> Result<()> {
    match fs::chownat(to, c"", stat.uid, stat.gid) {
        // an owner that has no mapping in the user namespace
        Err(e) if e.errno() == errno::EINVAL => {}
        other => other?,
    }
    fs::fchmod(to, stat.mode & 0o7777)?;
    Ok(fs::set_mtime(to, stat.mtime)?)
}

/// As good as it goes: tmpfs takes user attributes from Linux 6.6 on only, and root of a user namespace may not set all.
fn copy_attributes(from: BorrowedFd, to: BorrowedFd) {
    for name in fs::list_xattrs(from).unwrap_or_default() {
        if let Ok(value) = fs::get_xattr(from, &name) {
            let _ = fs::set_xattr(to, &name, &value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    #[test]
    fn a_tree_is_copied_with_its_modes_and_links() {
        let dir = tempfile::tempdir().unwrap();
        let from = dir.path().join("from");
        let to = dir.path().join("to");
        std::fs::create_dir_all(from.join("sub")).unwrap();
        std::fs::create_dir(&to).unwrap();
        std::fs::write(from.join("sub/file"), "text").unwrap();
        symlink("/etc/passwd", from.join("link")).unwrap();
        let set = |name: &str, mode| {
            std::fs::set_permissions(from.join(name), PermissionsExt::from_mode(mode)).unwrap();
        };
        set("sub/file", 0o4751);
        set("sub", 0o1777);
        let open = |path| fs::open(path, fs::O_PATH, 0).unwrap();
        copy(open(&from).as_fd(), open(&to).as_fd()).unwrap();
        let mode = |name: &str| std::fs::metadata(to.join(name)).unwrap().mode() & 0o7777;
        assert_eq!(std::fs::read(to.join("sub/file")).unwrap(), b"text");
        assert_eq!((mode("sub"), mode("sub/file")), (0o1777, 0o4751));
        assert_eq!(
            std::fs::read_link(to.join("link")).unwrap(),
            std::path::Path::new("/etc/passwd")
        );
    }
}
