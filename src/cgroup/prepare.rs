//! Making a container's cgroup.

use super::systemd::{self, Scope};
use super::{CgroupDir, read, value_of};
use crate::host::Host;
use crate::plan::cgroup::{Cgroup as Plan, Placement};
use crate::plan::systemd::Unit;
use crate::sys::{self, errno, fs};
use anyhow::{Context, Result, anyhow, bail};
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// A cgroup that is ready for the container's init.
#[derive(Debug)]
pub struct Prepared {
    pub dir: CgroupDir,
    /// The directories that husk made, from the top: what [`Prepared::undo`] removes.
    pub(super) made: Vec<PathBuf>,
    /// The unit, when systemd has made it.
    pub scope: Option<Scope>,
    /// The first controllers that could not be enabled on the way: what explains a limit's missing file.
    pub(super) blocked: Option<Blocked>,
}

/// A cgroup.subtree_control that did not take controllers.
#[derive(Debug)]
pub(super) struct Blocked {
    /// With the mountpoint, for messages.
    pub cgroup: PathBuf,
    pub controllers: Vec<String>,
    pub error: sys::Error,
}

impl fmt::Display for Blocked {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let errno = self.error.errno();
        write!(
            f,
            "it cannot be enabled in '{}': {}",
            self.cgroup.join("cgroup.subtree_control").display(),
            sys::errno_text(errno)
        )?;
        match errno {
            errno::EBUSY => write!(
                f,
                "; processes sit in that cgroup itself, move them to a sub-cgroup"
            ),
            errno::EACCES | errno::EPERM => write!(f, "; have it delegated to this user"),
            errno::EOPNOTSUPP => write!(f, "; that cgroup is threaded, use another cgroupsPath"),
            _ => Ok(()),
        }
    }
}

/// As runc says it.
const WHAT: &str = "unable to apply cgroup configuration";

const NO_CGROUP2: &str =
    "no cgroup2 file system is mounted; mount one (mount -t cgroup2 none /sys/fs/cgroup)";

/// Makes the plan's cgroup with all controllers that the host has. None: there cannot be one, and the container needs none; or systemd
/// is to make it around init ([`prepare_around`]).
pub fn prepare(host: &Host, plan: &Plan) -> Result<Option<Prepared>> {
    if plan.placement != Placement::Fs {
        return Ok(None);
    }
    let Some(mount) = &host.cgroup else {
        if plan.required {
            bail!("{WHAT}: {NO_CGROUP2}, or ask for no cgroupsPath and no limit");
        }
        return Ok(None);
    };
    match make(&mount.mountpoint, plan) {
        Ok(prepared) => Ok(Some(prepared)),
        Err(Failure::NotAllowed(_)) if !plan.required => Ok(None),
        Err(Failure::NotAllowed(e)) if host.rootless() => Err(e).context(format!(
            "{WHAT}: rootless needs no limits + no cgrouppath when no permission is granted for cgroups"
        )),
        Err(Failure::NotAllowed(e)) => Err(e).context(WHAT),
        Err(Failure::Other(e)) => Err(e),
    }
}

enum Failure {
    /// The file system is read-only, or belongs to others.
    NotAllowed(sys::Error),
    Other(anyhow::Error),
}

impl Failure {
    fn into_error(self) -> anyhow::Error {
        match self {
            Failure::NotAllowed(e) => e.into(),
            Failure::Other(e) => e,
        }
    }
}

impl From<sys::Error> for Failure {
    fn from(e: sys::Error) -> Self {
        match e.errno() {
            errno::EACCES | errno::EPERM | errno::EROFS => Failure::NotAllowed(e),
            errno::EAGAIN => Failure::Other(anyhow!(
                "{WHAT}: {e}; a cgroup above has reached its cgroup.max.descendants or cgroup.max.depth"
            )),
            _ => Failure::Other(anyhow::Error::from(e).context(WHAT)),
        }
    }
}

fn make(mountpoint: &Path, plan: &Plan) -> Result<Prepared, Failure> {
    let root = fs::open(mountpoint, fs::O_PATH | fs::O_DIRECTORY, 0)?;
    let mut made = Vec::new();
    let result = (|| {
        mkdir(root.as_fd(), &plan.path, &mut made).map_err(|e| {
            let whole = mountpoint.join(&plan.path);
            sys::Error::new(format!("mkdir '{}'", whole.display()), e.errno())
        })?;
        let resolve = fs::RESOLVE_BENEATH | fs::RESOLVE_NO_SYMLINKS | fs::RESOLVE_NO_XDEV;
        let flags = fs::O_RDONLY | fs::O_DIRECTORY;
        let fd = fs::openat2(root.as_fd(), &plan.path, flags, 0, resolve)?;
        let blocked = enable_controllers(mountpoint, root.as_fd(), fd.as_fd(), plan)?;
        check_idle(fd.as_fd(), &mountpoint.join(&plan.path))?;
        delegate(fd.as_fd(), plan.owner)?;
        Ok((fd, blocked))
    })();
    match result {
        Ok((fd, blocked)) => Ok(Prepared {
            dir: CgroupDir {
                fd,
                mountpoint: mountpoint.into(),
                path: plan.path.clone(),
                held: Vec::new(),
            },
            made,
            scope: None,
            blocked,
        }),
        Err(e) => {
            remove(root.as_fd(), &made);
            Err(e)
        }
    }
}

/// Has systemd make the plan's cgroup around the process `pid`, if it is to. None as in [`prepare`].
pub fn prepare_around(host: &Host, plan: &Plan, pid: i32) -> Result<Option<Prepared>> {
    let Placement::Systemd(unit) = &plan.placement else {
        return Ok(None);
    };
    let Some(mount) = &host.cgroup else {
        bail!("{WHAT}: {NO_CGROUP2}");
    };
    refuse_used(&mount.mountpoint, plan, unit, host.euid)?;
    let Some(scope) = systemd::start(unit, plan.required, pid).context(WHAT)? else {
        return Ok(None);
    };
    match complete(&mount.mountpoint, plan, unit, pid) {
        Ok((dir, blocked)) => Ok(Some(Prepared {
            dir,
            made: Vec::new(),
            blocked,
            scope: Some(scope),
        })),
        Err(e) => match systemd::stop(&scope) {
            Ok(()) => Err(e.context(WHAT)),
            Err(stop) => bail!("{WHAT}: {e:#}; then {stop:#}"),
        },
    }
}

/// Refuses a cgroup that is there already with processes in it, or frozen, before systemd does so in its own words or puts the
/// container's process in it.
fn refuse_used(mountpoint: &Path, plan: &Plan, unit: &Unit, uid: u32) -> Result<()> {
    let manager = match unit.user {
        true => mountpoint.join(format!("user.slice/user-{uid}.slice/user@{uid}.service")),
        false => mountpoint.into(),
    };
    let path = manager.join(&plan.path);
    match fs::open(path.as_path(), fs::O_PATH | fs::O_DIRECTORY, 0) {
        Ok(dir) => check_idle(dir.as_fd(), &path).map_err(Failure::into_error),
        Err(_) => Ok(()), // the usual: there is none
    }
}

/// What systemd leaves to do: the controllers that it does not know, the cgroup's owner, and a cgroup below.
fn complete(
    mountpoint: &Path,
    plan: &Plan,
    unit: &Unit,
    pid: i32,
) -> Result<(CgroupDir, Option<Blocked>)> {
    let dir = CgroupDir::of_pid(mountpoint, pid)?;
    if dir.path().file_name() != Some(unit.name.as_ref()) {
        bail!(
            "process {pid} is in cgroup '{}', not in that of unit {}",
            dir.path().display(),
            unit.name
        );
    }
    let root = fs::open(mountpoint, fs::O_PATH | fs::O_DIRECTORY, 0)?;
    let plan = Plan {
        path: dir.path().into(),
        ..plan.clone()
    };
    let blocked = enable_controllers(mountpoint, root.as_fd(), dir.fd(), &plan)
        .map_err(Failure::into_error)?;
    delegate(dir.fd(), plan.owner)?;
    if let Some(name) = &unit.subgroup {
        match fs::mkdirat(dir.fd(), Path::new(name), 0o755) {
            Err(e) if e.errno() != errno::EEXIST => return Err(e.into()),
            _ => {}
        }
        let sub = dir.sub(Path::new(name))?;
        delegate(sub.fd(), plan.owner)?;
        sub.attach(pid)?;
    }
    Ok((dir, blocked))
}

/// Makes the directory and what is missing above it, and notes which.
fn mkdir(root: BorrowedFd, path: &Path, made: &mut Vec<PathBuf>) -> sys::Result<()> {
    match fs::mkdirat(root, path, 0o755) {
        Ok(()) => {
            made.push(path.into());
            Ok(())
        }
        Err(e) if e.errno() == errno::EEXIST => Ok(()),
        Err(e) if e.errno() == errno::ENOENT => {
            let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
            let Some(parent) = parent else {
                return Err(e);
            };
            mkdir(root, parent, made)?;
            mkdir(root, path, made)
        }
        Err(e) => Err(e),
    }
}

/// Removes what was made; what has been put below in the meantime stays.
fn remove(root: BorrowedFd, made: &[PathBuf]) {
    for path in made.iter().rev() {
        let _ = fs::unlinkat(root, path, true);
    }
}

/// A cgroup that was there before must hold nothing; a frozen one (or one below a frozen one) would hold the container's init
/// for ever.
fn check_idle(dir: BorrowedFd, path: &Path) -> Result<(), Failure> {
    let events = read(dir, "cgroup.events")?;
    if value_of(&events, "populated") == Some(1) {
        let mut pids = Vec::new();
        super::procs_below(dir, &mut pids)?;
        return Err(Failure::Other(anyhow!(
            "container's cgroup is not empty: {} process(es) found in '{}'; end them, or use another linux.cgroupsPath",
            pids.len(),
            path.display()
        )));
    }
    if value_of(&events, "frozen") == Some(1) {
        return Err(Failure::Other(anyhow!(
            "container's cgroup unexpectedly frozen; write 0 to '{}', or to that of the parent which is frozen",
            path.join("cgroup.freeze").display()
        )));
    }
    Ok(())
}

/// Enables in all cgroups above what the root has: limits may come later (`update`), and statistics want every controller.
///
/// What cannot be enabled is only noted: a limit that needs it fails by name.
fn enable_controllers(
    mountpoint: &Path,
    root: BorrowedFd,
    dir: BorrowedFd,
    plan: &Plan,
) -> Result<Option<Blocked>, Failure> {
    let all = words(&read(root, "cgroup.controllers")?);
    let missing = |have: &[String]| -> Vec<String> {
        all.iter().filter(|c| !have.contains(c)).cloned().collect()
    };
    if all.is_empty() || missing(&words(&read(dir, "cgroup.controllers")?)).is_empty() {
        return Ok(None);
    }
    let mut blocked = None;
    // Upwards to the first cgroup that has them all, or is not ours to change; then down again.
    let mut todo: Vec<(&Path, OwnedFd)> = Vec::new();
    for cgroup in plan.path.ancestors().skip(1) {
        match fs::openat(root, &cgroup.join("cgroup.subtree_control"), fs::O_RDWR, 0) {
            Ok(control) => todo.push((cgroup, control)),
            Err(error) => {
                blocked = Some(Blocked {
                    cgroup: mountpoint.join(cgroup),
                    controllers: all.clone(),
                    error,
                });
                break;
            }
        }
        let has = words(&read(root, &cgroup.join("cgroup.controllers"))?);
        if missing(&has).is_empty() {
            break;
        }
    }
    for (cgroup, control) in todo.into_iter().rev() {
        enter_threaded(root, cgroup, plan)?;
        let mut buf = [0u8; 4096];
        let n = fs::read(control.as_fd(), &mut buf)?;
        let wanted = missing(&words(&String::from_utf8_lossy(&buf[..n])));
        if cgroup.as_os_str().is_empty() && wanted.iter().any(|c| plan.controllers.contains(c)) {
            empty_into_leaf(root)?;
        }
        if let Some((controllers, error)) = enable(control.as_fd(), &wanted, plan) {
            blocked = Some(Blocked {
                cgroup: mountpoint.join(cgroup),
                controllers,
                error,
            });
        }
    }
    enter_threaded(root, &plan.path, plan)?;
    Ok(blocked)
}

/// In a container the top of the hierarchy is the container's own cgroup, which holds its processes and so can give no controllers (no
/// such rule is for the hierarchy's real root). They move to a leaf below it; exec from outside follows pid 1 there.
///
/// Where that is not allowed, what cannot be enabled tells of it.
fn empty_into_leaf(root: BorrowedFd) -> sys::Result<()> {
    const LEAF: &str = "leaf";
    // those that come while it is at work, and those that it may not see, which are listed as 0
    const ROUNDS: usize = 10;
    if fs::lstatat(root, "cgroup.type").is_err() {
        return Ok(());
    }
    for _ in 0..ROUNDS {
        let mut pids = super::pids(root)?;
        pids.retain(|pid| *pid != 0);
        if pids.is_empty() {
            break;
        }
        match fs::mkdirat(root, LEAF, 0o755) {
            Err(e) if e.errno() != errno::EEXIST => break,
            _ => {}
        }
        for pid in pids {
            // it may have ended; one that must stay shows in the next round
            let _ = fs::write_at(
                root,
                &*format!("{LEAF}/cgroup.procs"),
                pid.to_string().as_bytes(),
            );
        }
    }
    Ok(())
}

/// All at once; one by one where that fails, since one of them may be the only culprit. Returns those that failed.
///
/// In a cgroup that holds processes only those that the plan needs are tried: the kernel takes some of them there (cpu, pids), but
/// makes the cgroup the root of a threaded subtree for it.
fn enable(
    control: BorrowedFd,
    wanted: &[String],
    plan: &Plan,
) -> Option<(Vec<String>, sys::Error)> {
    let all: Vec<String> = wanted.iter().map(|c| format!("+{c}")).collect();
    if all.is_empty() {
        return None;
    }
    let Err(first) = fs::write(control, all.join(" ").as_bytes()) else {
        return None;
    };
    let populated = first.errno() == errno::EBUSY;
    let mut failed = Vec::new();
    let mut last = None;
    for name in wanted {
        if populated && !plan.controllers.contains(name) {
            continue;
        }
        // ENOENT: a cgroup above does not have it either, and was told about already
        match fs::write(control, format!("+{name}").as_bytes()) {
            Err(e) if e.errno() != errno::ENOENT => {
                failed.push(name.clone());
                last = Some(e);
            }
            _ => {}
        }
    }
    last.map(|e| (failed, e))
}

/// Below a threaded cgroup a new one can hold processes only as a threaded one itself, without the controllers that count whole
/// processes (cgroups(7), "thread mode").
fn enter_threaded(root: BorrowedFd, cgroup: &Path, plan: &Plan) -> Result<(), Failure> {
    const THREADED: [&str; 4] = ["cpu", "cpuset", "perf_event", "pids"];
    let file = cgroup.join("cgroup.type");
    match read(root, &file) {
        Ok(kind) if kind.trim() == "domain invalid" => {}
        Ok(_) => return Ok(()),
        Err(e) if e.errno() == errno::ENOENT => return Ok(()), // the root has no type
        Err(e) => return Err(e.into()),
    }
    let domain = plan
        .controllers
        .iter()
        .find(|c| !THREADED.contains(&c.as_str()));
    if let Some(c) = domain {
        return Err(Failure::Other(anyhow!(
            "{WHAT}: cannot enter cgroup '{}' with domain controllers ({c}): a parent is threaded, or holds processes; use another linux.cgroupsPath",
            cgroup.display()
        )));
    }
    Ok(fs::write_at(root, &file, b"threaded")?)
}

/// Gives the cgroup to its owner, if it has one: the directory, and the files that the kernel says are safe to give (Linux 4.20).
fn delegate(dir: BorrowedFd, owner: Option<u32>) -> sys::Result<()> {
    const SAME_GROUP: u32 = u32::MAX;
    let Some(uid) = owner else {
        return Ok(());
    };
    let list = read(fs::CWD, "/sys/kernel/cgroup/delegate")
        .unwrap_or_else(|_| "cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n".into());
    fs::chownat(dir, "", uid, SAME_GROUP)?;
    for file in list.lines() {
        match fs::chownat(dir, file, uid, SAME_GROUP) {
            // the list names files of controllers that are not enabled here
            Err(e) if e.errno() != errno::ENOENT => return Err(e),
            _ => {}
        }
    }
    Ok(())
}

pub(super) fn words(text: &str) -> Vec<String> {
    text.split_ascii_whitespace().map(String::from).collect()
}

impl Prepared {
    /// Removes what was made, after a failure; the container's processes must be dead or dying. A cgroup that was there before stays.
    pub fn undo(self) -> Result<()> {
        if let Some(scope) = &self.scope {
            systemd::stop(scope)?;
        }
        if self.fresh() {
            self.dir.destroy()?;
        }
        let root = fs::open(&self.dir.mountpoint, fs::O_PATH | fs::O_DIRECTORY, 0)?;
        remove(root.as_fd(), &self.made);
        Ok(())
    }

    /// Whether husk made the cgroup itself, so that nothing is set or attached there yet.
    pub(super) fn fresh(&self) -> bool {
        self.scope.is_some() || self.made.last() == Some(&self.dir.path)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{fake, file};
    use super::*;
    use crate::host::CgroupMount;

    fn host(mountpoint: &Path, euid: u32) -> Host {
        Host {
            euid,
            cgroup: Some(CgroupMount {
                mountpoint: mountpoint.into(),
                own: None,
            }),
            ..Host::default()
        }
    }

    fn plan(path: &str) -> Plan {
        Plan {
            path: path.into(),
            ..Plan::default()
        }
    }

    #[test]
    fn one_that_is_in_use() {
        let (t, _) = fake(&[
            ("cgroup.controllers", ""),
            ("cgroup.events", "populated 1\nfrozen 0\n"),
            ("cgroup.procs", "5\n7\n"),
        ]);
        std::fs::write(t.path().join("cgroup.controllers"), "").unwrap();
        let error = prepare(&host(t.path(), 0), &plan("a/b")).unwrap_err();
        assert_eq!(
            format!("{error:#}"),
            format!(
                "container's cgroup is not empty: 2 process(es) found in '{}/a/b'; end them, or use another linux.cgroupsPath",
                t.path().display()
            )
        );
        file(t.path(), "a/b/cgroup.events", "populated 0\nfrozen 1\n");
        let error = prepare(&host(t.path(), 0), &plan("a/b")).unwrap_err();
        assert_eq!(
            format!("{error:#}"),
            format!(
                "container's cgroup unexpectedly frozen; write 0 to '{}/a/b/cgroup.freeze', or to that of the parent which is frozen",
                t.path().display()
            )
        );
        file(t.path(), "a/b/cgroup.events", "populated 0\nfrozen 0\n");
        let prepared = prepare(&host(t.path(), 0), &plan("a/b")).unwrap().unwrap();
        prepared.undo().unwrap();
        assert!(t.path().join("a/b").exists(), "it was there before");
    }

    #[test]
    fn what_was_made_is_removed_again() {
        let (t, _) = fake(&[]);
        // no file of a cgroup appears in a new directory here, so reading one fails
        file(t.path(), "cgroup.controllers", "memory\n");
        let error = prepare(&host(t.path(), 0), &plan("a/new/one")).unwrap_err();
        assert_eq!(
            format!("{error:#}"),
            "unable to apply cgroup configuration: open 'cgroup.controllers': no such file or directory"
        );
        assert!(!t.path().join("a/new").exists());
        assert!(t.path().join("a").exists());
    }

    #[test]
    fn controllers_are_enabled_from_the_top() {
        let (t, dir) = fake(&[("cgroup.controllers", "cpu\n"), ("cgroup.type", "domain\n")]);
        file(t.path(), "cgroup.controllers", "cpu io memory\n");
        file(t.path(), "cgroup.subtree_control", "cpu memory\n");
        file(t.path(), "a/cgroup.controllers", "cpu memory\n");
        file(t.path(), "a/cgroup.subtree_control", "cpu\n");
        let root = fs::open(t.path(), fs::O_PATH, 0).unwrap();
        let blocked = enable_controllers(t.path(), root.as_fd(), dir.fd(), &plan("a/b"));
        assert!(blocked.is_ok_and(|b| b.is_none()));
        let text = |name| std::fs::read_to_string(t.path().join(name)).unwrap();
        assert_eq!(text("cgroup.subtree_control"), "cpu memory\n+io");
        assert_eq!(text("a/cgroup.subtree_control"), "cpu\n+io +memory");
    }

    #[test]
    fn a_threaded_parent() {
        let (t, dir) = fake(&[("cgroup.type", "domain invalid\n")]);
        let root = fs::open(t.path(), fs::O_PATH, 0).unwrap();
        let mut p = plan("a/b");
        let enter = |p: &Plan| enter_threaded(root.as_fd(), &p.path, p);
        p.controllers = vec!["cpu".into(), "memory".into()];
        let Err(Failure::Other(error)) = enter(&p) else {
            panic!("memory counts whole processes");
        };
        assert_eq!(
            format!("{error:#}"),
            "unable to apply cgroup configuration: cannot enter cgroup 'a/b' with domain controllers (memory): a parent is threaded, or holds processes; use another linux.cgroupsPath"
        );
        p.controllers.pop();
        assert!(enter(&p).is_ok());
        assert!(dir.read("cgroup.type").unwrap().starts_with("threaded"));
    }

    #[test]
    fn without_a_cgroup() {
        let nowhere = Host::default();
        assert!(prepare(&nowhere, &plan("a")).unwrap().is_none());
        let required = Plan {
            required: true,
            ..plan("a")
        };
        assert_eq!(
            format!("{:#}", prepare(&nowhere, &required).unwrap_err()),
            "unable to apply cgroup configuration: no cgroup2 file system is mounted; mount one (mount -t cgroup2 none /sys/fs/cgroup), or ask for no cgroupsPath and no limit"
        );
        let failure = Failure::from(sys::Error::new("mkdir 'a'", errno::EROFS));
        assert!(matches!(failure, Failure::NotAllowed(_)));
    }
}
