//! cgroup v2: where a container is put, what it may use, how it is frozen, killed and counted.
//!
//! A cgroup is a directory, held here as a descriptor ([`CgroupDir`]): its files are opened relative to it, so that what is
//! read, frozen or killed is the cgroup that was made, whatever has happened to its path since.
//!
//! [`prepare()`] makes it before the container's init is cloned straight into it (a later move by cgroup.procs waits for RCU: some ten
//! milliseconds); limits and the device program follow while the child mounts.

mod dbus;
pub mod death;
mod devices;
mod limits;
mod prepare;
pub mod stats;
pub mod systemd;

pub use devices::replace_devices;
pub use limits::{Changed, change};
pub use prepare::{Prepared, prepare, prepare_around};

use crate::sys::{self, errno, fs, process};
use anyhow::{Context, Result, bail};
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a cgroup may take to freeze, and its killed processes to vanish. Both are matters of microseconds unless a process
/// is stuck in the kernel (a dead NFS server).
const PATIENCE: Duration = Duration::from_secs(10);

/// An open cgroup.
#[derive(Debug)]
pub struct CgroupDir {
    fd: OwnedFd,
    mountpoint: PathBuf,
    path: PathBuf,
    /// Of [`CgroupDir::hold`].
    held: Vec<(&'static str, OwnedFd)>,
}

impl CgroupDir {
    /// Opens the cgroup at `path`, relative to the mount's root. None: it is not there.
    pub fn open(mountpoint: &Path, path: &Path) -> Result<Option<CgroupDir>> {
        check_path(path)?;
        match fs::open(
            &mountpoint.join(path),
            fs::O_RDONLY | fs::O_DIRECTORY | fs::O_NOFOLLOW,
            0,
        ) {
            Ok(fd) => Ok(Some(CgroupDir {
                fd,
                mountpoint: mountpoint.into(),
                path: path.into(),
                held: Vec::new(),
            })),
            Err(e) if e.errno() == errno::ENOENT => Ok(None),
            Err(e) => Err(e).context("open cgroup"),
        }
    }

    /// For clone3(2)'s CLONE_INTO_CGROUP.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Relative to the mount's root.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the host's processes find it.
    pub fn host_path(&self) -> PathBuf {
        self.mountpoint.join(&self.path)
    }

    pub fn mountpoint(&self) -> &Path {
        &self.mountpoint
    }

    /// The cgroup that a process is in now.
    pub fn of_pid(mountpoint: &Path, pid: i32) -> Result<CgroupDir> {
        CgroupDir::of(mountpoint, &pid.to_string())
    }

    fn of(mountpoint: &Path, pid: &str) -> Result<CgroupDir> {
        let text = String::from_utf8(fs::read_at(fs::CWD, &*format!("/proc/{pid}/cgroup"))?)?;
        let path = text.lines().find_map(|l| l.strip_prefix("0::/"));
        let path = path.with_context(|| format!("process {pid} is in no cgroup of v2"))?;
        CgroupDir::open(mountpoint, Path::new(path))?
            .with_context(|| format!("cgroup '{path}' is gone"))
    }

    /// The cgroup that this process is in now.
    pub fn own(mountpoint: &Path) -> Result<CgroupDir> {
        CgroupDir::of(mountpoint, "self")
    }

    /// A cgroup below this one, which must be there.
    pub fn sub(&self, path: &Path) -> Result<CgroupDir> {
        if check_path(path).is_err() {
            bail!(
                "bad sub cgroup path: '{}' must not hold '..'",
                path.display()
            );
        }
        let relative: PathBuf = path
            .components()
            .filter(|c| matches!(c, Component::Normal(_)))
            .collect();
        let name = if relative.as_os_str().is_empty() {
            Path::new(".")
        } else {
            &relative
        };
        let resolve = fs::RESOLVE_BENEATH | fs::RESOLVE_NO_SYMLINKS | fs::RESOLVE_NO_XDEV;
        let fd = fs::openat2(self.fd(), name, fs::O_RDONLY | fs::O_DIRECTORY, 0, resolve)
            .with_context(|| {
                format!(
                    "open cgroup '{}' below '{}'",
                    relative.display(),
                    self.path.display()
                )
            })?;
        Ok(CgroupDir {
            fd,
            mountpoint: self.mountpoint.clone(),
            path: self.path.join(&relative),
            held: Vec::new(),
        })
    }

    /// Reads one of the cgroup's files.
    pub fn read(&self, file: &str) -> sys::Result<String> {
        match self.held.iter().find(|(name, _)| *name == file) {
            Some((_, fd)) => {
                let mut buf = [0; 4096];
                let n = fs::pread(fd.as_fd(), &mut buf)?;
                Ok(String::from_utf8_lossy(&buf[..n]).into_owned())
            }
            None => read(self.fd(), file),
        }
    }

    /// Opens files, of at most 4096 bytes, that are to be read in a hurry: [`CgroupDir::read`] takes them from here then.
    pub fn hold(&mut self, files: &[&'static str]) {
        let open = |file: &&'static str| {
            let fd = fs::openat(self.fd.as_fd(), *file, fs::O_RDONLY, 0).ok()?;
            Some((*file, fd))
        };
        self.held = files.iter().filter_map(open).collect();
    }

    fn write(&self, file: &str, value: &str) -> sys::Result<()> {
        fs::write_at(self.fd(), file, value.as_bytes())
    }

    /// Moves a process here. A process that is being made at this moment is refused with EINVAL until it is done.
    pub fn attach(&self, pid: i32) -> Result<()> {
        let mut tries = 5;
        loop {
            match self.write("cgroup.procs", &pid.to_string()) {
                Ok(()) => return Ok(()),
                Err(e) if e.errno() == errno::EINVAL && tries > 1 => {
                    tries -= 1;
                    std::thread::sleep(Duration::from_millis(30));
                }
                Err(e) => {
                    let why = self.why_no_process(e.errno());
                    return Err(e).context(format!(
                        "adding pid {pid} to cgroups: cgroup '{}'{why}",
                        self.path.display()
                    ));
                }
            }
        }
    }

    /// Why the kernel lets no process into this cgroup, for the message about a failed clone3(2) or attach: "" when the errno says all.
    pub fn why_no_process(&self, errno: i32) -> String {
        match errno {
            errno::EBUSY => format!(
                ": its cgroup.subtree_control enables {}, so only its sub-cgroups may hold processes",
                self.read("cgroup.subtree_control")
                    .map_or("controllers".into(), |s| s.trim().to_string())
            ),
            errno::EOPNOTSUPP => format!(
                ": its cgroup.type is '{}', since a parent is threaded",
                self.read("cgroup.type")
                    .map_or("domain invalid".into(), |s| s.trim().to_string())
            ),
            _ => String::new(),
        }
    }

    /// Stops every process, and waits until all stand still.
    pub fn freeze(&self) -> Result<()> {
        self.write("cgroup.freeze", "1")
            .with_context(|| format!("freeze cgroup '{}'", self.path.display()))?;
        let failed = || format!("freeze cgroup '{}'", self.path.display());
        let end = Instant::now() + PATIENCE;
        // a cgroup with processes of its own is told to be frozen when they are, whatever those below it do
        let mut frozen = wait_event(self.fd(), "frozen", true, end).with_context(failed)?;
        each_below(self.fd(), |_, _, below| {
            frozen &= wait_event(below, "frozen", true, end)?;
            Ok(())
        })
        .with_context(failed)?;
        if !frozen {
            bail!(
                "{}: not frozen after {} s; a process in it does not leave the kernel",
                failed(),
                PATIENCE.as_secs()
            );
        }
        Ok(())
    }

    /// Lets the processes go on. They do so before this returns, or a parent cgroup is frozen: that is not for this one to end.
    pub fn thaw(&self) -> Result<()> {
        self.write("cgroup.freeze", "0")
            .with_context(|| format!("thaw cgroup '{}'", self.path.display()))
    }

    /// Whether [`CgroupDir::freeze`] was asked for, and not yet undone. A cgroup that is gone is not.
    pub fn is_frozen(&self) -> Result<bool> {
        match self.read("cgroup.freeze") {
            Ok(text) => Ok(text.starts_with('1')),
            Err(e) if gone(&e) => Ok(false),
            Err(e) => Err(e).context("read cgroup's freezer"),
        }
    }

    /// Sends a signal to every process in this cgroup and below.
    ///
    /// SIGKILL goes by cgroup.kill (Linux 5.14), which no fork escapes; any other signal finds the processes standing still.
    pub fn kill(&self, signal: i32) -> Result<()> {
        if signal == process::SIGKILL {
            match self.write("cgroup.kill", "1") {
                Ok(()) => return Ok(()),
                // no such file before 5.14; not for a threaded cgroup
                Err(e) if matches!(e.errno(), errno::ENOENT | errno::EOPNOTSUPP) => {}
                Err(e) if e.errno() == errno::ENODEV => return Ok(()),
                Err(e) => {
                    return Err(e)
                        .with_context(|| format!("kill cgroup '{}'", self.path.display()));
                }
            }
        }
        let was_frozen = self.is_frozen()?;
        // A process that cannot be stopped is signalled all the same: only a fork at this very moment could be missed.
        let _ = self.freeze();
        let result = self.signal_each(signal);
        if !was_frozen || signal == process::SIGKILL {
            let _ = self.thaw();
        }
        result
    }

    fn signal_each(&self, signal: i32) -> Result<()> {
        let mut first = None;
        for pid in self.procs()? {
            match process::kill(pid, signal) {
                Err(e) if e.errno() != errno::ESRCH => first = first.or(Some(e)),
                _ => {}
            }
        }
        first.map_or(Ok(()), |e| Err(e.into()))
    }

    /// Every process in this cgroup and below. Empty when it is gone.
    pub fn procs(&self) -> Result<Vec<i32>> {
        let mut out = Vec::new();
        procs_below(self.fd(), &mut out)
            .with_context(|| format!("list processes of cgroup '{}'", self.path.display()))?;
        Ok(out)
    }

    /// The processes of one sub-cgroup alone, this cgroup's own for an empty path.
    pub fn pids_in(&self, sub: &Path) -> Result<Vec<i32>> {
        let dir = self.sub(sub)?;
        pids(dir.fd()).with_context(|| format!("list processes of cgroup '{}'", dir.path.display()))
    }

    /// How often the kernel killed a process here for want of memory: what explains a silent death. None: it is gone.
    pub fn oom_kills(&self) -> Result<Option<u64>> {
        match self.read("memory.events") {
            Ok(text) => Ok(Some(value_of(&text, "oom_kill").unwrap_or(0))),
            Err(e) if gone(&e) => match self.read("cgroup.events") {
                Err(e) if gone(&e) => Ok(None),
                _ => Ok(Some(0)), // there is no memory controller
            },
            Err(e) => Err(e).context("read memory.events"),
        }
    }

    /// Whether it is without processes, or soon is: one that husk has just left to itself may be on its way out.
    pub fn is_idle(&self) -> Result<bool> {
        self.wait_event("populated", false, Duration::from_millis(500))
    }

    /// Removes the cgroup and those that the container made below it. Killed processes may take a moment to vanish; living
    /// ones are an error. A cgroup that is gone is fine.
    pub fn destroy(&self) -> Result<()> {
        if self.remove()? {
            return Ok(());
        }
        let end = Instant::now() + PATIENCE;
        // The kernel tells of a change at most every 10 ms, and takes a process out of its cgroup some time after its death was told:
        // wait for the event, but look without one too.
        let mut nap = Duration::from_millis(1);
        let mut empty = false;
        loop {
            remove_below(self.fd()).with_context(|| {
                format!("remove what is below cgroup '{}'", self.path.display())
            })?;
            if self.remove()? {
                return Ok(());
            }
            if Instant::now() >= end {
                bail!(
                    "remove cgroup '{}': device or resource busy: {} process(es) still in it",
                    self.path.display(),
                    self.procs().map_or(0, |p| p.len())
                );
            }
            if empty {
                std::thread::sleep(nap); // nothing more to wait for: somebody makes cgroups in it
            }
            empty = self.wait_event("populated", false, nap)?;
            nap = (nap * 2).min(Duration::from_millis(50));
        }
    }

    /// False: it holds processes or other cgroups.
    fn remove(&self) -> Result<bool> {
        match fs::unlinkat(fs::CWD, &self.mountpoint.join(&self.path), true) {
            Ok(()) => Ok(true),
            Err(e) if e.errno() == errno::ENOENT => Ok(true),
            Err(e) if e.errno() == errno::EBUSY => Ok(false),
            Err(e) => Err(e).context("remove cgroup"),
        }
    }

    fn wait_event(&self, key: &str, value: bool, limit: Duration) -> Result<bool> {
        wait_event(self.fd(), key, value, Instant::now() + limit)
            .with_context(|| format!("wait for cgroup '{}'", self.path.display()))
    }
}

/// Waits until a key of cgroup.events has a value; false when the time ran out first. A cgroup that is gone has no processes.
fn wait_event(dir: BorrowedFd, key: &str, value: bool, end: Instant) -> sys::Result<bool> {
    let fd = match fs::openat(dir, "cgroup.events", fs::O_RDONLY, 0) {
        Ok(fd) => fd,
        Err(e) if gone(&e) => return Ok(true),
        Err(e) => return Err(e),
    };
    let mut buf = [0u8; 256];
    loop {
        let n = match fs::pread(fd.as_fd(), &mut buf) {
            Ok(n) => n,
            Err(e) if gone(&e) => return Ok(true),
            Err(e) => return Err(e),
        };
        if value_of(&String::from_utf8_lossy(&buf[..n]), key) == Some(u64::from(value)) {
            return Ok(true);
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        process::poll(&[(fd.as_fd(), process::POLLPRI)], Some(left))?;
    }
}

/// The file is not there, or its cgroup was removed while it was open.
fn gone(e: &sys::Error) -> bool {
    matches!(e.errno(), errno::ENOENT | errno::ENODEV)
}

/// No path out of the hierarchy (invariant I9).
fn check_path(path: &Path) -> Result<()> {
    if path.components().any(|c| c == Component::ParentDir) {
        bail!(
            "open cgroup '{}': the path must not hold '..'",
            path.display()
        );
    }
    Ok(())
}

/// A cgroup file in one read: all but the lists of processes fit.
fn read<P: sys::AsPath + ?Sized>(dir: BorrowedFd, file: &P) -> sys::Result<String> {
    let fd = fs::openat(dir, file, fs::O_RDONLY, 0)?;
    let mut buf = [0u8; 4096];
    let n = fs::read(fd.as_fd(), &mut buf)?;
    let mut out = buf[..n].to_vec();
    if n == buf.len() {
        out.extend(fs::read_all(fd.as_fd())?);
    }
    Ok(String::from_utf8_lossy(&out).into_owned())
}

/// The number after a key in a flat keyed file ("populated 1").
fn value_of(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|l| {
        let (k, v) = l.split_once(' ')?;
        (k == key).then(|| v.trim().parse().ok())?
    })
}

fn pids(dir: BorrowedFd) -> sys::Result<Vec<i32>> {
    match pids_of(dir, "cgroup.procs") {
        // A threaded cgroup lists only threads; a signal to a thread's id reaches its process.
        Err(e) if e.errno() == errno::EOPNOTSUPP => pids_of(dir, "cgroup.threads"),
        r => r,
    }
}

fn pids_of(dir: BorrowedFd, file: &str) -> sys::Result<Vec<i32>> {
    match fs::read_at(dir, file) {
        Ok(text) => Ok(String::from_utf8_lossy(&text)
            .lines()
            .filter_map(|l| l.parse().ok())
            .collect()),
        Err(e) if gone(&e) => Ok(vec![]),
        Err(e) => Err(e),
    }
}

fn procs_below(dir: BorrowedFd, out: &mut Vec<i32>) -> sys::Result<()> {
    let mut file = "cgroup.procs";
    match pids_of(dir, file) {
        Err(e) if e.errno() == errno::EOPNOTSUPP => {
            file = "cgroup.threads";
            out.extend(pids_of(dir, file)?);
        }
        own => out.extend(own?),
    }
    each_below(dir, |_, _, cgroup| {
        match pids_of(cgroup, file) {
            Ok(pids) => out.extend(pids),
            // the processes of these threads are listed above, at the root of the threaded subtree
            Err(e) if e.errno() == errno::EOPNOTSUPP => {}
            Err(e) => return Err(e),
        }
        Ok(())
    })
}

/// Removes the cgroups below, the deepest first. One that still holds processes stays.
fn remove_below(dir: BorrowedFd) -> sys::Result<()> {
    each_below(dir, |parent, name, _| {
        match fs::unlinkat(parent, name, true) {
            Err(e) if !matches!(e.errno(), errno::ENOENT | errno::EBUSY) => Err(e),
            _ => Ok(()),
        }
    })
}

/// Visits each cgroup below as parent, name and itself, the deepest first. Few descriptors and no recursion, since a container that
/// owns its cgroup may nest as deep as it likes.
fn each_below(
    top: BorrowedFd,
    mut visit: impl FnMut(BorrowedFd, &OsStr, BorrowedFd) -> sys::Result<()>,
) -> sys::Result<()> {
    let open = |dir: BorrowedFd, name: &OsStr| {
        fs::openat(
            dir,
            name,
            fs::O_RDONLY | fs::O_DIRECTORY | fs::O_NOFOLLOW,
            0,
        )
    };
    let names = |dir: BorrowedFd| match fs::list_dirs(dir) {
        Err(e) if gone(&e) => Ok(vec![]),
        r => r,
    };
    let mut todo = vec![names(top)?];
    if todo[0].is_empty() {
        return Ok(());
    }
    let mut here = open(top, OsStr::new("."))?;
    let mut entered: Vec<OsString> = Vec::new();
    while let Some(siblings) = todo.last_mut() {
        if let Some(name) = siblings.pop() {
            match open(here.as_fd(), &name) {
                Ok(child) => {
                    todo.push(names(child.as_fd())?);
                    entered.push(name);
                    here = child;
                }
                Err(e) if gone(&e) => {}
                Err(e) => return Err(e),
            }
        } else {
            todo.pop();
            if let Some(name) = entered.pop() {
                let parent = open(here.as_fd(), OsStr::new(".."))?;
                visit(parent.as_fd(), &name, here.as_fd())?;
                here = parent;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    pub fn file(root: &Path, name: &str, text: &str) {
        std::fs::write(root.join(name), text).unwrap();
    }

    /// A directory with these files as the cgroup a/b of a hierarchy.
    pub fn fake(files: &[(&str, &str)]) -> (TempDir, CgroupDir) {
        let t = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(t.path().join("a/b")).unwrap();
        for (name, text) in files {
            file(&t.path().join("a/b"), name, text);
        }
        let dir = CgroupDir::open(t.path(), Path::new("a/b"))
            .unwrap()
            .unwrap();
        (t, dir)
    }

    #[test]
    fn opening() {
        let (t, dir) = fake(&[]);
        assert_eq!(dir.path(), Path::new("a/b"));
        assert!(
            CgroupDir::open(t.path(), Path::new("a/c"))
                .unwrap()
                .is_none()
        );
        assert_eq!(
            CgroupDir::open(t.path(), Path::new("a/../a"))
                .unwrap_err()
                .to_string(),
            "open cgroup 'a/../a': the path must not hold '..'"
        );
    }

    #[test]
    fn sub_cgroups() {
        let (t, dir) = fake(&[]);
        std::fs::create_dir_all(t.path().join("a/b/c/d")).unwrap();
        std::os::unix::fs::symlink(t.path(), t.path().join("a/b/out")).unwrap();
        for (path, want) in [
            ("c/d", "a/b/c/d"),
            ("/c", "a/b/c"),
            ("", "a/b"),
            ("/", "a/b"),
            ("./c", "a/b/c"),
        ] {
            let sub = dir.sub(Path::new(path)).unwrap();
            assert_eq!(sub.path(), Path::new(want));
            let (got, want) = (
                fs::fstat(sub.fd()).unwrap(),
                fs::stat(&t.path().join(want)).unwrap(),
            );
            assert_eq!(got.ino, want.ino);
        }
        for path in ["..", "../b", "c/../../x", "/.."] {
            assert_eq!(
                dir.sub(Path::new(path)).unwrap_err().to_string(),
                format!("bad sub cgroup path: '{path}' must not hold '..'")
            );
        }
        let error = format!("{:#}", dir.sub(Path::new("nope")).unwrap_err());
        assert_eq!(
            error,
            "open cgroup 'nope' below 'a/b': openat2 'nope': no such file or directory"
        );
        let error = format!("{:#}", dir.sub(Path::new("out")).unwrap_err());
        assert_eq!(
            error,
            "open cgroup 'out' below 'a/b': openat2 'out': too many levels of symbolic links"
        );
    }

    #[test]
    fn processes_of_the_whole_tree() {
        let (t, dir) = fake(&[("cgroup.procs", "10\n11\n")]);
        for (name, pids) in [("a/b/x", "20\n"), ("a/b/x/y", "30\n31\n"), ("a/b/z", "")] {
            std::fs::create_dir(t.path().join(name)).unwrap();
            file(t.path(), &format!("{name}/cgroup.procs"), pids);
        }
        let mut all = dir.procs().unwrap();
        all.sort();
        assert_eq!(all, [10, 11, 20, 30, 31]);
        assert_eq!(dir.pids_in(Path::new("x")).unwrap(), [20]);
        assert_eq!(dir.pids_in(Path::new("")).unwrap(), [10, 11]);
        std::fs::remove_dir_all(t.path().join("a/b")).unwrap();
        assert!(dir.procs().unwrap().is_empty());
    }

    #[test]
    fn the_deepest_first() {
        let (t, dir) = fake(&[]);
        for name in ["1/2/3", "1/4", "5"] {
            std::fs::create_dir_all(t.path().join("a/b").join(name)).unwrap();
        }
        let mut seen = Vec::new();
        each_below(dir.fd(), |parent, name, own| {
            let through_parent = fs::lstatat(parent, name)?;
            assert_eq!(through_parent.ino, fs::fstat(own)?.ino);
            seen.push(name.to_str().unwrap().to_string());
            Ok(())
        })
        .unwrap();
        let place = |name: &str| seen.iter().position(|s| s == name).unwrap();
        assert_eq!(seen.len(), 5);
        assert!(place("3") < place("2") && place("2") < place("1") && place("4") < place("1"));
        remove_below(dir.fd()).unwrap();
        assert_eq!(fs::list(dir.fd()).unwrap(), Vec::<OsString>::new());
        dir.destroy().unwrap();
        dir.destroy().unwrap();
        assert!(t.path().join("a").exists() && !t.path().join("a/b").exists());
    }

    #[test]
    fn freezer_and_events() {
        let (t, dir) = fake(&[
            ("cgroup.freeze", "1\n"),
            (
                "memory.events",
                "low 0\nhigh 0\nmax 3\noom 2\noom_kill 1\noom_group_kill 0\n",
            ),
            ("cgroup.events", "populated 0\nfrozen 1\n"),
        ]);
        assert!(dir.is_frozen().unwrap());
        assert_eq!(dir.oom_kills().unwrap(), Some(1));
        dir.freeze().unwrap();
        assert!(dir.wait_event("populated", false, PATIENCE).unwrap());
        file(t.path(), "a/b/cgroup.freeze", "0\n");
        assert!(!dir.is_frozen().unwrap());
        let (_t, bare) = fake(&[]);
        assert!(!bare.is_frozen().unwrap());
        assert_eq!(bare.oom_kills().unwrap(), None);
        let (_t, unlimited) = fake(&[("cgroup.events", "populated 0\nfrozen 0\n")]);
        assert_eq!(unlimited.oom_kills().unwrap(), Some(0));
        assert_eq!(
            format!("{:#}", bare.freeze().unwrap_err()),
            "freeze cgroup 'a/b': open 'cgroup.freeze': no such file or directory"
        );
    }

    #[test]
    fn why_no_process_may_enter() {
        let (_t, dir) = fake(&[
            ("cgroup.subtree_control", "memory pids\n"),
            ("cgroup.type", "domain invalid\n"),
        ]);
        assert_eq!(
            dir.why_no_process(errno::EBUSY),
            ": its cgroup.subtree_control enables memory pids, so only its sub-cgroups may hold processes"
        );
        assert_eq!(
            dir.why_no_process(errno::EOPNOTSUPP),
            ": its cgroup.type is 'domain invalid', since a parent is threaded"
        );
        assert_eq!(dir.why_no_process(errno::EPERM), "");
    }
}
