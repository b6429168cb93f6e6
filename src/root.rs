//! The container's root as one descriptor: every path of the container is resolved here and nowhere else.
//!
//! Images and volumes are an attacker's data: a symlink in one must never lead out, and a path must not be looked up twice.
//! So a path becomes a descriptor once, by openat2(2) with `RESOLVE_IN_ROOT`, and only descriptors are used after that.

use crate::sys::{self, errno, fs, mount};
use anyhow::{Context, Result, anyhow, bail};
use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

/// As many symlinks in one path as the kernel follows.
const MAX_LINKS: u32 = 40;

pub struct Root {
    pub fd: OwnedFd,
}

impl Root {
    /// Opens what exists (`O_PATH`), following symlinks within the root; magic links never.
    pub fn open(&self, path: &Path) -> Result<OwnedFd> {
        self.open_as(path, fs::O_PATH, 0)
    }

    /// [`Self::open`], but None for a path that does not exist.
    pub fn find(&self, path: &Path) -> Result<Option<OwnedFd>> {
        match self.resolve(path, fs::O_PATH, 0) {
            Ok(fd) => Ok(Some(fd)),
            Err(e) if matches!(e.errno(), errno::ENOENT | errno::ENOTDIR) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Opens what exists with flags of open(2) and further `RESOLVE_*` ones.
    pub fn open_as(&self, path: &Path, flags: i32, resolve: u64) -> Result<OwnedFd> {
        Ok(self.resolve(path, flags, resolve)?)
    }

    /// Makes a directory and what is missing above it, and opens it. Where the path leads through dangling symlinks,
    /// what they name is made, within the root.
    pub fn mkdir_all(&self, path: &Path, mode: u32) -> Result<OwnedFd> {
        match self.resolve(path, fs::O_PATH | fs::O_DIRECTORY, 0) {
            Ok(fd) => return Ok(fd),
            Err(e) if e.errno() == errno::ENOENT => {}
            Err(e) => return Err(e.into()),
        }
        self.make_directory(path, mode)
    }

    /// [`Self::mkdir_all`] where nothing was found.
    pub fn make_directory(&self, path: &Path, mode: u32) -> Result<OwnedFd> {
        self.make(path, mode, Missing::Directory)
    }

    /// Makes an empty file and the directories missing above it (mode 0755) as the target of a mount, where nothing was found.
    pub fn make_file(&self, path: &Path) -> Result<OwnedFd> {
        self.make(path, 0o755, Missing::File)
    }

    /// The directory that holds `path`, made if it is missing, and the last name.
    pub fn parent<'a>(&self, path: &'a Path) -> Result<(OwnedFd, &'a OsStr)> {
        let name = path
            .file_name()
            .ok_or_else(|| anyhow!("'{}' does not name a file", path.display()))?;
        let dir = self.mkdir_all(path.parent().unwrap_or(Path::new("/")), 0o755)?;
        Ok((dir, name))
    }

    /// A directory of the root with no symlink on the way, made if it is missing: what `/proc` and `/sys` must be, or an image
    /// could lead the mount elsewhere and have labels written to files of its own (CVE-2019-19921, CVE-2023-27561).
    pub fn real_directory(&self, path: &Path) -> Result<OwnedFd> {
        let flags = fs::O_PATH | fs::O_DIRECTORY;
        match self.resolve(path, flags, fs::RESOLVE_NO_SYMLINKS) {
            Err(e) if e.errno() == errno::ENOENT => {
                self.mkdir_all(path, 0o755)?;
                Ok(self.resolve(path, flags, fs::RESOLVE_NO_SYMLINKS)?)
            }
            other => Ok(other?),
        }
    }

    fn resolve(&self, path: &Path, flags: i32, resolve: u64) -> sys::Result<OwnedFd> {
        fs::openat2(
            self.fd.as_fd(),
            path,
            flags,
            0,
            resolve | fs::RESOLVE_IN_ROOT | fs::RESOLVE_NO_MAGICLINKS,
        )
    }

    fn make(&self, path: &Path, mode: u32, missing: Missing) -> Result<OwnedFd> {
        // mostly the last name alone is missing, and no symlink that dangles
        let parent = path.parent().unwrap_or(Path::new("/"));
        if let Some(name) = path.file_name()
            && let Ok(dir) = self.resolve(parent, fs::O_PATH | fs::O_DIRECTORY, 0)
            && let Ok(fd) = make_entry(dir.as_fd(), name, mode, missing)
        {
            return Ok(fd);
        }
        self.walk(path, mode, missing)
    }

    /// Resolves name by name, each without following it, and makes what is missing. Symlinks are read and taken as
    /// relative to the root, so that nothing here can leave it: no name that the kernel sees has more than one part.
    fn walk(&self, path: &Path, mode: u32, missing: Missing) -> Result<OwnedFd> {
        let mut names = VecDeque::new();
        prepend(&mut names, path);
        let mut at: Vec<OwnedFd> = Vec::new();
        let mut links = 0;
        while let Some(name) = names.pop_front() {
            if name == ".." {
                at.pop();
                continue;
            }
            let dir = at.last().unwrap_or(&self.fd).as_fd();
            let last = names.is_empty();
            let what = if last { missing } else { Missing::Directory };
            let fd = open_or_make(dir, &name, mode, what)?;
            let stat = fs::fstat(fd.as_fd())?;
            if stat.kind() == fs::S_IFLNK {
                links += 1;
                if links > MAX_LINKS {
                    return Err(sys::Error::new(open_call(path), errno::ELOOP).into());
                }
                let target = PathBuf::from(fs::readlinkat(fd.as_fd(), c"")?);
                if target.is_absolute() {
                    at.clear();
                }
                prepend(&mut names, &target);
                continue;
            }
            let must_be_directory = !last || missing == Missing::Directory;
            if must_be_directory && !stat.is_dir() {
                return Err(sys::Error::new(open_call(path), errno::ENOTDIR).into());
            }
            at.push(fd);
        }
        match at.pop() {
            Some(fd) => Ok(fd),
            None => self.open(Path::new("/")),
        }
    }
}

/// What the last name of a path becomes when it is missing.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Missing {
    Directory,
    File,
}

fn open_or_make(
    dir: BorrowedFd,
    name: &OsStr,
    mode: u32,
    missing: Missing,
) -> sys::Result<OwnedFd> {
    let open = || fs::openat(dir, name, fs::O_PATH | fs::O_NOFOLLOW, 0);
    match open() {
        Err(e) if e.errno() == errno::ENOENT => {}
        other => return other,
    }
    match make_entry(dir, name, mode, missing) {
        // somebody else made it in between: whatever it is, it is looked at like anything found
        Err(e) if e.errno() == errno::EEXIST => open(),
        other => other,
    }
}

/// Makes and opens one name that is not there, following nothing.
fn make_entry(dir: BorrowedFd, name: &OsStr, mode: u32, missing: Missing) -> sys::Result<OwnedFd> {
    match missing {
        Missing::File => {
            let flags = fs::O_CREAT | fs::O_EXCL | fs::O_NOFOLLOW | fs::O_RDONLY;
            fs::openat(dir, name, flags, 0o644)
        }
        Missing::Directory => {
            fs::mkdirat(dir, name, mode)?;
            let flags = fs::O_PATH | fs::O_DIRECTORY | fs::O_NOFOLLOW;
            fs::openat(dir, name, flags, 0)
        }
    }
}

/// Puts the parts of a path before what is still to be resolved.
fn prepend(names: &mut VecDeque<OsString>, path: &Path) {
    for part in path.components().rev() {
        match part {
            Component::Normal(name) => names.push_front(name.to_owned()),
            Component::ParentDir => names.push_front("..".into()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
}

fn open_call(path: &Path) -> String {
    format!("open '{}'", path.display())
}

/// A procfs that is known to be one. Every file of procfs is read and written through it: a container can put a mount or a
/// symlink over any path below its own `/proc` (CVE-2019-16884, CVE-2025-52881).
pub struct Proc {
    fd: OwnedFd,
}

impl Proc {
    /// Takes the root of a mounted procfs, after checking that it is that.
    pub fn new(fd: OwnedFd) -> Result<Proc> {
        /// PROC_ROOT_INO of the kernel's include/linux/proc_ns.h: only the root of a procfs has it.
        const ROOT_INODE: u64 = 1;
        if fs::fd_magic(fd.as_fd())? != fs::PROC_MAGIC || fs::fstat(fd.as_fd())?.ino != ROOT_INODE {
            bail!("the mount on /proc is not the root of a procfs");
        }
        Ok(Proc { fd })
    }

    /// A new procfs of the present pid namespace that is mounted nowhere.
    pub fn private() -> Result<Proc> {
        let context = mount::FsContext::open(c"proc")?;
        context.create()?;
        let fd = context
            .mount(mount::NOSUID | mount::NODEV | mount::NOEXEC)
            .context("mount a private procfs")?;
        Ok(Proc { fd })
    }

    /// Any tree, with the same rules for what is in it.
    #[cfg(test)]
    pub fn of_a_tree(fd: OwnedFd) -> Proc {
        Proc { fd }
    }

    /// Opens a file below, never crossing into another mount nor following a magic link. `self` leads to the caller.
    pub fn open(&self, path: &Path, flags: i32) -> sys::Result<OwnedFd> {
        fs::openat2(
            self.fd.as_fd(),
            path,
            flags,
            0,
            fs::RESOLVE_BENEATH | fs::RESOLVE_NO_XDEV | fs::RESOLVE_NO_MAGICLINKS,
        )
    }

    pub fn read(&self, path: &Path) -> sys::Result<Vec<u8>> {
        fs::read_all(self.open(path, fs::O_RDONLY)?.as_fd())
    }

    /// Writes an existing file in one write(2).
    pub fn write(&self, path: &Path, data: &[u8]) -> sys::Result<()> {
        fs::write(self.open(path, fs::O_WRONLY)?.as_fd(), data)
    }
}

impl AsFd for Proc {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn root() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        let fd = fs::open(dir.path(), fs::O_PATH | fs::O_DIRECTORY, 0).unwrap();
        (dir, Root { fd })
    }

    #[test]
    fn symlinks_stay_within_the_root() {
        let (dir, root) = root();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        symlink("/etc", dir.path().join("absolute")).unwrap();
        symlink("../../../../etc", dir.path().join("upwards")).unwrap();
        let etc = fs::fstat(root.open(Path::new("/etc")).unwrap().as_fd()).unwrap();
        for path in ["/absolute", "/upwards", "/../../etc"] {
            let fd = root.open(Path::new(path)).unwrap();
            assert_eq!(fs::fstat(fd.as_fd()).unwrap(), etc, "{path}");
        }
        assert!(root.find(Path::new("/upwards/passwd")).unwrap().is_none());
    }

    #[test]
    fn targets_below_dangling_symlinks_are_made_within_the_root() {
        let (dir, root) = root();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        symlink("/jump/hosts", dir.path().join("etc/hosts")).unwrap();
        symlink("../../../tmp/foo", dir.path().join("jump")).unwrap();
        root.make_file(Path::new("/etc/hosts")).unwrap();
        assert!(dir.path().join("tmp/foo/hosts").is_file());
        root.mkdir_all(Path::new("/jump/../bar/baz"), 0o755)
            .unwrap();
        assert!(dir.path().join("tmp/bar/baz").is_dir());
    }

    #[test]
    fn a_loop_of_symlinks_ends() {
        let (dir, root) = root();
        symlink("/b/x", dir.path().join("a")).unwrap();
        symlink("/a/x", dir.path().join("b")).unwrap();
        let e = root.mkdir_all(Path::new("/a/dir"), 0o755).unwrap_err();
        assert!(
            format!("{e:#}").ends_with("too many levels of symbolic links"),
            "{e:#}"
        );
    }

    #[test]
    fn a_file_on_the_way_is_no_directory() {
        let (dir, root) = root();
        std::fs::write(dir.path().join("file"), "").unwrap();
        let e = root.mkdir_all(Path::new("/file/dir"), 0o755).unwrap_err();
        assert!(format!("{e:#}").ends_with("not a directory"), "{e:#}");
        let e = root.mkdir_all(Path::new("/file"), 0o755).unwrap_err();
        assert!(format!("{e:#}").ends_with("not a directory"), "{e:#}");
    }

    #[test]
    fn a_symlink_is_no_real_directory() {
        let (dir, root) = root();
        std::fs::create_dir(dir.path().join("elsewhere")).unwrap();
        symlink("/elsewhere", dir.path().join("proc")).unwrap();
        assert!(root.real_directory(Path::new("/proc")).is_err());
        root.real_directory(Path::new("/sys")).unwrap();
        assert!(dir.path().join("sys").is_dir());
    }
}
