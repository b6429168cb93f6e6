//! What husk remembers of a container between two commands: `ROOT/ID/state.json`, and a status that is never stored.
//!
//! Commands that change a container's directory hold an flock(2) on it. Those that only look (`state`, `list`) or act on
//! the process alone (`kill`, `pause`, `resume`) take no lock: state.json is replaced by rename, a process is addressed by
//! pidfd and start time, and a hook that calls `husk state` on the container being created must not wait for ever.

use crate::cgroup::systemd::Scope;
use crate::cgroup::{self, CgroupDir};
use crate::cli::Global;
use crate::launch::gate;
use crate::launch::sync::Channel;
use crate::plan::hooks::Hook;
use crate::sys;
use crate::sys::errno::{EEXIST, EISDIR, ENOENT, ENOSYS, ENOTDIR, ENOTEMPTY, ESRCH};
use crate::sys::fs::{CWD, Lock, O_CREAT, O_DIRECTORY, O_RDONLY, O_TRUNC, O_WRONLY};
use crate::sys::process::End;
use anyhow::{Context, Result, anyhow, bail};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ffi::{CStr, CString, OsStr};
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// The record of a container.
pub const STATE: &str = "state.json";
/// How the process of `run --keep` ended.
const END: &CStr = c"end.json";
/// Its name until `create` has succeeded.
const CREATING: &str = "creating.json";

/// The name of a container: a file name that no option and no path can be mistaken for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ContainerId(String);

impl ContainerId {
    /// File names have 255 bytes, and a directory being removed is called ".ID.deleted".
    const MAX: usize = 246;

    /// `[a-zA-Z0-9_+-][a-zA-Z0-9_+.-]*`, as runc and crun, so that no path can lead out of the root.
    pub fn new(id: &str) -> Result<ContainerId> {
        let fault = if id.is_empty() {
            "is empty"
        } else if id.len() > Self::MAX {
            "is longer than 246 bytes"
        } else if !id
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_+.-".contains(&b))
        {
            "may only hold letters, digits and _ + - ."
        } else if id.starts_with('.') {
            "must not begin with a dot"
        } else {
            return Ok(ContainerId(id.into()));
        };
        bail!("invalid container ID format: '{id}' {fault}")
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Where the directory is moved before it is emptied. No id begins with a dot.
    fn graveyard(&self) -> String {
        format!(".{self}.deleted")
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The directory that holds one directory for each container.
#[derive(Clone, Debug)]
pub struct Root {
    pub path: PathBuf,
    /// Not given on the command line.
    pub is_default: bool,
    mode: u32,
}

impl Root {
    pub fn new(global: &Global) -> Result<Root> {
        if let Some(path) = &global.root {
            return Ok(Root {
                path: std::path::absolute(path)?,
                is_default: false,
                mode: 0o700,
            });
        }
        let runtime_dir = std::env::var_os("XDG_RUNTIME_DIR").filter(|d| !d.is_empty());
        if sys::process::euid() == 0 && !(runtime_dir.is_some() && only_root_by_name()) {
            return Ok(Root {
                path: "/run/husk".into(),
                is_default: true,
                mode: 0o700,
            });
        }
        let dir = runtime_dir.context(
            "find a directory for containers: XDG_RUNTIME_DIR is not set; give one with --root",
        )?;
        Ok(Root {
            path: Path::new(&dir).join("husk"),
            is_default: true,
            mode: 0o1700, // the sticky bit keeps it from being aged away (XDG base directory specification)
        })
    }

    fn make(&self) -> Result<()> {
        if let Some(parent) = self.path.parent() {
            std::fs::create_dir_all(parent).with_context(|| {
                format!(
                    "make '{}'; --root names the directory of all containers",
                    parent.display()
                )
            })?;
        }
        match sys::fs::mkdirat(CWD, &self.path, 0o700) {
            Err(e) if e.errno() == EEXIST => return Ok(()),
            made => made.context(
                "make the directory of all containers; give one with --root that can be made",
            )?,
        }
        // mkdir(2) drops the sticky bit on some file systems, and the umask may take more
        Ok(sys::fs::fchmodat(CWD, &self.path, self.mode)?)
    }

    /// The ids of all containers, sorted. A default root that is not there yet has none.
    pub fn ids(&self) -> Result<Vec<ContainerId>> {
        let dir = match sys::fs::open(&self.path, O_RDONLY | O_DIRECTORY, 0) {
            Err(e) if e.errno() == ENOENT && self.is_default => return Ok(Vec::new()),
            dir => dir.context("list containers")?,
        };
        let mut ids: Vec<ContainerId> = sys::fs::list(dir.as_fd())?
            .iter()
            .filter_map(|name| ContainerId::new(name.to_str()?).ok())
            .collect();
        ids.sort();
        Ok(ids)
    }
}

/// Uid 0 of a user namespace that an ordinary user made (`unshare -r`, Podman): /run is not theirs.
fn only_root_by_name() -> bool {
    let whole = |map: &str| map.split_whitespace().eq(["0", "0", "4294967295"]);
    std::env::var_os("USER").is_none_or(|u| u != "root")
        && std::fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| !whole(&map))
}

/// The facts about a container, as kept on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct State {
    pub oci_version: String,
    pub id: String,
    /// Init's pid in husk's pid namespace; 0 while there is none.
    pub pid: i32,
    /// When init was started, in clock ticks after boot: field 22 of /proc/PID/stat tells it from a later process of that pid.
    pub start_time: u64,
    pub bundle: PathBuf,
    pub rootfs: PathBuf,
    /// UTC, RFC 3339, nanoseconds: [`crate::log::timestamp`].
    pub created: String,
    /// Uid of the user who created it.
    pub owner: u32,
    pub annotations: BTreeMap<String, String>,
    /// `create` has succeeded: told by the record's name, so that it is said by one rename.
    #[serde(skip)]
    pub ready: bool,
    pub cgroup: Option<Cgroup>,
    /// Made for it. Without, and in one that it has joined, init's end does not end the other processes: only the cgroup knows them.
    pub own_pid_namespace: bool,
    /// Processes join a session keyring of the container's own (not --no-new-keyring).
    pub own_keyring: bool,
    pub poststart: Vec<Hook>,
    pub poststop: Vec<Hook>,
    pub intel_rdt: Option<IntelRdt>,
}

/// Where the container is in resctrl.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IntelRdt {
    /// The directory of its class of service.
    pub class: PathBuf,
    /// That of a monitoring group of its own.
    pub monitor: Option<PathBuf>,
    /// What goes with it.
    pub remove: Vec<PathBuf>,
}

/// Where the container's cgroup is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroup {
    /// The cgroup2 mount, "/sys/fs/cgroup".
    pub mountpoint: PathBuf,
    /// Relative to it.
    pub path: PathBuf,
    /// The unit of systemd that it is of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<Scope>,
}

/// The five that `state` and `list` show; the spec has all but paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Creating,
    Created,
    Running,
    Paused,
    Stopped,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        })
    }
}

/// What `state` and `list` print, in runc's order.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report<'a> {
    pub oci_version: &'a str,
    pub id: &'a str,
    pub pid: i32,
    pub status: Status,
    pub bundle: &'a Path,
    pub rootfs: &'a Path,
    pub created: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: &'a BTreeMap<String, String>,
    /// A name, or "#UID".
    pub owner: String,
    /// Only of a stopped container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub death: Option<Death>,
}

/// How a container ended.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Death {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// For a person.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<cgroup::death::Death>,
}

/// What `run --keep` keeps of the end, which a cgroup of systemd's does not outlive.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Ended {
    pub end: Option<End>,
    pub death: Option<cgroup::death::Death>,
}

/// The state as hooks get it on standard input (runtime-spec, "State").
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct HookState<'a> {
    oci_version: &'a str,
    id: &'a str,
    status: Status,
    #[serde(skip_serializing_if = "is_zero")]
    pid: i32,
    bundle: &'a Path,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
}

fn is_zero(pid: &i32) -> bool {
    *pid == 0
}

impl State {
    pub fn report(&self, status: Status, owner: String) -> Report<'_> {
        Report {
            oci_version: &self.oci_version,
            id: &self.id,
            pid: if status == Status::Stopped {
                0
            } else {
                self.pid
            },
            status,
            bundle: &self.bundle,
            rootfs: &self.rootfs,
            created: &self.created,
            annotations: &self.annotations,
            owner,
            death: None,
        }
    }

    /// What a hook reads; `pid` as its pid namespace has it, 0 for none.
    pub fn for_hooks(&self, status: Status, pid: i32) -> Vec<u8> {
        let state = HookState {
            oci_version: &self.oci_version,
            id: &self.id,
            status,
            pid,
            bundle: &self.bundle,
            annotations: &self.annotations,
        };
        serde_json::to_vec(&state).expect("strings and numbers always serialise")
    }

    /// A handle on init, or None if it has ended: the pid may be a zombie's, or another process's by now.
    pub fn init(&self) -> Result<Option<OwnedFd>> {
        if self.pid == 0 {
            return Ok(None);
        }
        let pidfd = match sys::process::pidfd_open(self.pid) {
            Err(e) if e.errno() == ESRCH => return Ok(None),
            // who cannot have a handle must still be able to delete what has ended
            Err(e) if e.errno() == ENOSYS && !self.is_alive()? => return Ok(None),
            pidfd => pidfd?,
        };
        // Looked at after the handle was taken: a pid with the right start time now is the one that the handle has.
        Ok(self.is_alive()?.then_some(pidfd))
    }

    /// The container's cgroup; None if it has none, or it is gone.
    pub fn open_cgroup(&self) -> Result<Option<CgroupDir>> {
        match &self.cgroup {
            Some(cgroup) => CgroupDir::open(&cgroup.mountpoint, &cgroup.path),
            None => Ok(None),
        }
    }

    fn is_alive(&self) -> Result<bool> {
        if self.pid == 0 {
            return Ok(false);
        }
        Ok(
            process_stat(self.pid)?
                .is_some_and(|s| s.start_time == self.start_time && !s.has_ended),
        )
    }
}

/// What husk wants of /proc/PID/stat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessStat {
    /// A zombie, or on the way to become one.
    pub has_ended: bool,
    /// Clock ticks after boot (proc_pid_stat(5), field 22).
    pub start_time: u64,
}

/// None: there is no such process.
pub fn process_stat(pid: i32) -> Result<Option<ProcessStat>> {
    match sys::fs::read_at(CWD, format!("/proc/{pid}/stat").as_str()) {
        Err(e) if [ENOENT, ESRCH].contains(&e.errno()) => Ok(None),
        stat => parse_stat(&stat?)
            .map(Some)
            .with_context(|| format!("read '/proc/{pid}/stat': not in the known format")),
    }
}

fn parse_stat(stat: &[u8]) -> Option<ProcessStat> {
    // Field 2 is the program's name in brackets, and may itself hold brackets and blanks.
    let end = stat.iter().rposition(|b| *b == b')')?;
    let mut fields = std::str::from_utf8(&stat[end + 1..])
        .ok()?
        .split_whitespace();
    let state = fields.next()?; // field 3
    Some(ProcessStat {
        has_ended: matches!(state, "Z" | "X" | "x"),
        start_time: fields.nth(22 - 4)?.parse().ok()?,
    })
}

/// A container's directory, open.
#[derive(Debug)]
pub struct StateDir {
    id: ContainerId,
    path: PathBuf,
    root: OwnedFd,
    fd: OwnedFd,
}

impl StateDir {
    /// Makes the directory of a new container, and returns it locked ([`Lock::Exclusive`]). A taken id is an error.
    pub fn claim(root: &Root, id: &ContainerId) -> Result<StateDir> {
        let path = root.path.join(id.as_str());
        let mut made = sys::fs::mkdirat(CWD, &path, 0o700);
        if matches!(&made, Err(e) if e.errno() == ENOENT) {
            root.make()?;
            made = sys::fs::mkdirat(CWD, &path, 0o700);
        }
        match made {
            Err(e) if e.errno() == EEXIST => bail!(
                "create '{id}': container with given ID already exists; choose another, or remove it with delete"
            ),
            made => made.with_context(|| format!("create '{id}'"))?,
        }
        let claimed = StateDir::find(root, id).and_then(|dir| match dir {
            Some(dir) => dir.lock(Lock::Exclusive),
            None => Ok(None),
        });
        match claimed {
            Ok(Some(dir)) => Ok(dir),
            Err(e) => {
                _ = sys::fs::unlinkat(CWD, &path, true); // still empty, so nobody else's
                Err(e)
            }
            Ok(None) => bail!("create '{id}': deleted by another husk in the same moment"),
        }
    }

    /// Opens a container's directory without a lock; None if there is none.
    pub fn find(root: &Root, id: &ContainerId) -> Result<Option<StateDir>> {
        let open = |dir: BorrowedFd, name: &Path| match sys::fs::openat(
            dir,
            name,
            O_RDONLY | O_DIRECTORY,
            0,
        ) {
            // a file that somebody has put there is no container
            Err(e) if [ENOENT, ENOTDIR].contains(&e.errno()) => Ok(None),
            fd => fd.with_context(|| format!("find '{id}'")).map(Some),
        };
        let Some(root_fd) = open(CWD, &root.path)? else {
            return Ok(None);
        };
        let Some(fd) = open(root_fd.as_fd(), Path::new(id.as_str()))? else {
            return Ok(None);
        };
        Ok(Some(StateDir {
            id: id.clone(),
            path: root.path.join(id.as_str()),
            root: root_fd,
            fd,
        }))
    }

    /// The same where it must exist.
    pub fn open(root: &Root, id: &str) -> Result<StateDir> {
        StateDir::find(root, &ContainerId::new(id)?)?.ok_or_else(|| not_found(root, id))
    }

    /// Opens a container's directory and waits for its lock. It is held until the value is dropped, or a forked child that
    /// has the descriptor lives: husk's children close it before they wait for anything.
    pub fn open_locked(root: &Root, id: &str, lock: Lock) -> Result<StateDir> {
        StateDir::open(root, id)?
            .lock(lock)?
            .ok_or_else(|| not_found(root, id))
    }

    /// None if the directory was deleted during the wait.
    pub fn lock(self, lock: Lock) -> Result<Option<StateDir>> {
        sys::fs::flock(self.fd.as_fd(), lock).with_context(|| format!("lock '{}'", self.id))?;
        let mine = sys::fs::fstat(self.fd.as_fd())?;
        match sys::fs::lstatat(self.root.as_fd(), self.id.as_str()) {
            Ok(there) if (there.dev, there.ino) == (mine.dev, mine.ino) => Ok(Some(self)),
            Err(e) if e.errno() != ENOENT => Err(e.into()),
            _ => Ok(None),
        }
    }

    /// Lets go of the lock even if a forked child still has the descriptor.
    pub fn unlock(&self) -> Result<()> {
        Ok(sys::fs::unlock(self.fd.as_fd())?)
    }

    /// Whether another husk is at work on it with an exclusive lock.
    fn is_busy(&self) -> Result<bool> {
        let free = sys::fs::try_flock(self.fd.as_fd(), Lock::Shared)?;
        if free {
            self.unlock()?;
        }
        Ok(!free)
    }

    pub fn id(&self) -> &ContainerId {
        &self.id
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The record; None in a directory whose `create` has not come to it, or never will.
    pub fn load(&self) -> Result<Option<State>> {
        // the last look is for a record that was renamed between the other two
        for (name, ready) in [(STATE, true), (CREATING, false), (STATE, true)] {
            let json = match sys::fs::read_at(self.fd(), name) {
                Err(e) if e.errno() == ENOENT => continue,
                json => json.with_context(|| format!("read the state of '{}'", self.id))?,
            };
            let state: State = serde_json::from_slice(&json).with_context(|| {
                format!(
                    "read '{}': not a state of husk's; remove the container with delete --force",
                    self.path.join(name).display()
                )
            })?;
            return Ok(Some(State { ready, ..state }));
        }
        Ok(None)
    }

    /// The record and the status. A directory without a record is one being created, or what a killed husk has left.
    pub fn load_with_status(&self) -> Result<(State, Status)> {
        let (state, status, _) = self.load_with(gate::look)?;
        Ok((state, status))
    }

    /// The same, and a handle on init if it lives.
    pub fn load_with_init(&self) -> Result<(State, Status, Option<OwnedFd>)> {
        match self.load()? {
            Some(state) if state.pid != 0 => {
                let init = state.init()?;
                let (status, _) = self.status_with(&state, init.is_some(), gate::look)?;
                Ok((state, status, init))
            }
            _ => {
                let (state, status) = self.load_with_status()?;
                Ok((state, status, None))
            }
        }
    }

    /// The same, and for a created container the way to its init.
    pub fn load_at_gate(&self) -> Result<(State, Status, Option<Channel>)> {
        self.load_with(|dir| gate::connect(dir, &self.path))
    }

    fn load_with<T>(
        &self,
        gate: impl FnOnce(BorrowedFd) -> sys::Result<Option<T>>,
    ) -> Result<(State, Status, Option<T>)> {
        let state = match self.load()? {
            Some(state) if state.pid != 0 => {
                let (status, init) = self.status_with(&state, state.is_alive()?, gate)?;
                return Ok((state, status, init));
            }
            Some(state) => state,
            None => State {
                oci_version: crate::OCI_VERSION.into(),
                id: self.id.to_string(),
                ..State::default()
            },
        };
        let status = if self.is_busy()? {
            Status::Creating
        } else {
            Status::Stopped
        };
        Ok((state, status, None))
    }

    /// Writes the record of a container that is being created; a reader sees the old or the new one whole.
    pub fn save(&self, state: &State) -> Result<()> {
        let json = serde_json::to_vec(state)?;
        self.replace(c"creating.json.tmp", c"creating.json", &json)
            .with_context(|| {
                format!(
                    "save the state of '{}' in '{}'",
                    self.id,
                    self.path.display()
                )
            })
    }

    /// Keeps how the container's process ended, which only its parent is told.
    pub fn keep_end(&self, end: &Ended) -> Result<()> {
        match self.replace(c"end.json.tmp", END, &serde_json::to_vec(end)?) {
            // deleted by somebody else meanwhile
            Err(e) if e.errno() == ENOENT => Ok(()),
            kept => kept.with_context(|| format!("keep how '{}' ended", self.id)),
        }
    }

    /// None: nobody was there to keep it.
    pub fn end(&self) -> Result<Option<Ended>> {
        match sys::fs::read_at(self.fd(), END) {
            Err(e) if e.errno() == ENOENT => Ok(None),
            json => Ok(Some(serde_json::from_slice(&json?)?)),
        }
    }

    /// Puts another config in the place of the one that `create` has kept, as whole.
    pub fn replace_config(&self, json: &[u8]) -> Result<()> {
        self.replace(c"config.json.tmp", c"config.json", json)
            .with_context(|| format!("keep config.json in '{}'", self.path.display()))
    }

    fn replace(&self, tmp: &CStr, name: &CStr, data: &[u8]) -> sys::Result<()> {
        let fd = sys::fs::openat(self.fd(), tmp, O_WRONLY | O_CREAT | O_TRUNC, 0o600)?;
        sys::fs::write_all(fd.as_fd(), data)?;
        sys::fs::fsync(fd.as_fd())?;
        sys::fs::renameat(self.fd(), tmp, name)
    }

    /// The last [`StateDir::save`] is of a container that is ready.
    pub fn publish(&self) -> Result<()> {
        sys::fs::renameat(self.fd(), c"creating.json", STATE)
            .with_context(|| format!("save the state of '{}'", self.id))
    }

    /// Computed from what is there now.
    pub fn status(&self, state: &State) -> Result<Status> {
        Ok(self.status_with(state, state.is_alive()?, gate::look)?.0)
    }

    fn status_with<T>(
        &self,
        state: &State,
        is_alive: bool,
        gate: impl FnOnce(BorrowedFd) -> sys::Result<Option<T>>,
    ) -> Result<(Status, Option<T>)> {
        if !is_alive {
            return Ok((Status::Stopped, None));
        }
        if !state.ready {
            return Ok((Status::Creating, None));
        }
        let cgroup = state.open_cgroup()?;
        if cgroup.map_or(Ok(false), |c| c.is_frozen())? {
            return Ok((Status::Paused, None));
        }
        Ok(match gate(self.fd())? {
            Some(init) => (Status::Created, Some(init)),
            None => (Status::Running, None),
        })
    }

    /// Removes the directory: out of the way first, so that nobody finds it half empty.
    pub fn remove(self) -> Result<()> {
        let away = self.id.graveyard();
        let name = CString::new(self.id.as_str()).expect("an id has no NUL");
        let rename = || sys::fs::renameat(self.root.as_fd(), name.as_c_str(), away.as_str());
        match rename() {
            Err(e) if [EEXIST, ENOTEMPTY].contains(&e.errno()) => {
                remove_tree(self.root.as_fd(), OsStr::new(&away))?;
                rename()?;
            }
            renamed => renamed?,
        }
        // mostly there is nothing else in it: no list of files is needed
        _ = sys::fs::unlinkat(self.fd(), STATE, false);
        _ = sys::fs::unlinkat(self.fd(), c"config.json", false);
        match sys::fs::unlinkat(self.root.as_fd(), away.as_str(), true) {
            Ok(()) => Ok(()),
            Err(_) => remove_tree(self.root.as_fd(), OsStr::new(&away))
                .with_context(|| format!("remove the directory of '{}'", self.id)),
        }
    }
}

/// Removes what a killed `delete` has left of a container that is already out of sight.
pub fn sweep(root: &Root, id: &ContainerId) -> Result<()> {
    match sys::fs::open(&root.path, O_RDONLY | O_DIRECTORY, 0) {
        Err(e) if e.errno() == ENOENT => Ok(()),
        dir => remove_tree(dir?.as_fd(), OsStr::new(&id.graveyard())),
    }
}

/// The error's words are runc's: engines look for "does not exist".
pub fn not_found(root: &Root, id: &str) -> anyhow::Error {
    anyhow!(
        "find '{id}' in '{}': container does not exist; list shows those that do",
        root.path.display()
    )
}

/// What is not there is no error.
fn remove_tree(parent: BorrowedFd, name: &OsStr) -> Result<()> {
    let gone = |r: sys::Result<()>| match r {
        Err(e) if e.errno() == ENOENT => Ok(()),
        r => r,
    };
    let dir = match sys::fs::openat(parent, name, O_RDONLY | O_DIRECTORY, 0) {
        Err(e) if e.errno() == ENOENT => return Ok(()),
        dir => dir?,
    };
    for file in sys::fs::list(dir.as_fd())? {
        match sys::fs::unlinkat(dir.as_fd(), file.as_os_str(), false) {
            Err(e) if e.errno() == EISDIR => remove_tree(dir.as_fd(), &file)?,
            removed => gone(removed)?,
        }
    }
    Ok(gone(sys::fs::unlinkat(parent, name, true))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        let root = Root {
            path: dir.path().join("a/root"),
            is_default: true,
            mode: 0o700,
        };
        (dir, root)
    }

    fn id(text: &str) -> ContainerId {
        ContainerId::new(text).unwrap()
    }

    /// A record of this very process.
    fn alive() -> State {
        let pid = std::process::id() as i32;
        State {
            id: "web".into(),
            pid,
            start_time: process_stat(pid).unwrap().unwrap().start_time,
            ready: true,
            ..State::default()
        }
    }

    #[test]
    fn ids_are_plain_file_names() {
        for good in ["a", "web-1", "_x", "+x", "-x", "A.b_c+d-e", "a..b"] {
            assert_eq!(id(good).as_str(), good);
        }
        for (bad, why) in [
            ("", "is empty"),
            (".", "begin with a dot"),
            ("..", "begin with a dot"),
            (".web", "begin with a dot"),
            ("a/b", "may only hold"),
            ("../x", "may only hold"),
            ("a b", "may only hold"),
            ("é", "may only hold"),
            ("a\0", "may only hold"),
            ("a\n", "may only hold"),
            (&"x".repeat(247), "longer than 246"),
        ] {
            let e = ContainerId::new(bad).unwrap_err().to_string();
            assert!(e.starts_with("invalid container ID format"), "{e}");
            assert!(e.contains(why), "{bad:?}: {e}");
        }
    }

    #[test]
    fn stat_with_brackets_and_blanks_in_the_name() {
        let rest: String = (4..=52).map(|n| format!(" {n}")).collect();
        let stat = |state| format!("7 (a) Z (b ) {state}{rest}\n");
        let parsed = parse_stat(stat("S").as_bytes()).unwrap();
        assert_eq!((parsed.has_ended, parsed.start_time), (false, 22));
        assert!(parse_stat(stat("Z").as_bytes()).unwrap().has_ended);
        assert_eq!(parse_stat(b"7 (a) S 1 2"), None);
    }

    #[test]
    fn an_id_is_claimed_once_and_free_again_after_removal() {
        let (_tmp, root) = root();
        let dir = StateDir::claim(&root, &id("web")).unwrap();
        let e = StateDir::claim(&root, &id("web")).unwrap_err().to_string();
        assert!(e.contains("container with given ID already exists"), "{e}");
        let mode = sys::fs::stat(&root.path).unwrap().mode & 0o7777;
        assert_eq!(mode, 0o700, "{mode:o}");
        dir.save(&alive()).unwrap();
        dir.publish().unwrap();
        dir.remove().unwrap();
        assert_eq!(std::fs::read_dir(&root.path).unwrap().count(), 0);
        StateDir::claim(&root, &id("web")).unwrap();
    }

    #[test]
    fn a_lock_on_a_deleted_directory_is_none() {
        let (_tmp, root) = root();
        let deleting = StateDir::claim(&root, &id("web")).unwrap();
        let waiting = StateDir::open(&root, "web").unwrap();
        deleting.remove().unwrap();
        let _new = StateDir::claim(&root, &id("web")).unwrap();
        assert!(waiting.lock(Lock::Shared).unwrap().is_none());
        let e = StateDir::open(&root, "other").unwrap_err().to_string();
        assert!(e.contains("container does not exist"), "{e}");
    }

    #[test]
    fn without_a_record_the_lock_tells_creating_from_left_behind() {
        let (_tmp, root) = root();
        let creating = StateDir::claim(&root, &id("web")).unwrap();
        let seen = StateDir::open(&root, "web").unwrap();
        assert_eq!(seen.load_with_status().unwrap().1, Status::Creating);
        drop(creating);
        assert_eq!(seen.load_with_status().unwrap().1, Status::Stopped);
    }

    #[test]
    fn the_status_follows_the_process_the_gate_and_the_record() {
        let (_tmp, root) = root();
        let dir = StateDir::claim(&root, &id("web")).unwrap();
        let state = alive();
        assert_eq!(dir.status(&state).unwrap(), Status::Running);

        let listener = gate::make(dir.fd()).unwrap();
        assert_eq!(dir.status(&state).unwrap(), Status::Created);
        drop(listener);
        assert_eq!(dir.status(&state).unwrap(), Status::Running);

        let unready = State {
            ready: false,
            ..state.clone()
        };
        assert_eq!(dir.status(&unready).unwrap(), Status::Creating);
        let reused = State {
            start_time: 1,
            ..state.clone()
        };
        assert_eq!(dir.status(&reused).unwrap(), Status::Stopped);
        assert!(reused.init().unwrap().is_none());
        assert!(state.init().unwrap().is_some());

        let cgroup = |path: &str| State {
            cgroup: Some(Cgroup {
                mountpoint: dir.path().into(),
                path: path.into(),
                scope: None,
            }),
            ..state.clone()
        };
        std::fs::write(dir.path().join("cgroup.freeze"), "1\n").unwrap();
        assert_eq!(dir.status(&cgroup("")).unwrap(), Status::Paused);
        assert_eq!(dir.status(&cgroup("gone")).unwrap(), Status::Running);
    }

    #[test]
    fn a_record_is_read_back_as_it_was_saved() {
        let (_tmp, root) = root();
        let dir = StateDir::claim(&root, &id("web")).unwrap();
        assert_eq!(dir.load().unwrap(), None);
        let state = State {
            annotations: [("a".into(), "b".into())].into(),
            poststop: vec![Hook {
                path: "/bin/x".into(),
                args: vec!["x".into()],
                env: None,
                timeout: Some(3),
            }],
            ..alive()
        };
        dir.save(&state).unwrap();
        let creating = State {
            ready: false,
            ..state.clone()
        };
        assert_eq!(dir.load().unwrap(), Some(creating));
        dir.publish().unwrap();
        assert_eq!(dir.load().unwrap(), Some(state));
        std::fs::write(dir.path().join(STATE), "{").unwrap();
        let e = format!("{:#}", dir.load().unwrap_err());
        assert!(e.contains("delete --force"), "{e}");
    }

    #[test]
    fn a_stopped_container_is_reported_with_pid_0() {
        let state = alive();
        let json = |s| serde_json::to_string(&state.report(s, "root".into())).unwrap();
        assert!(json(Status::Stopped).contains("\"pid\":0,\"status\":\"stopped\""));
        assert!(
            json(Status::Paused).contains(&format!("\"pid\":{},\"status\":\"paused\"", state.pid))
        );
        let hook = String::from_utf8(state.for_hooks(Status::Stopped, 0)).unwrap();
        assert!(!hook.contains("pid"), "{hook}");
    }

    #[test]
    fn listing_skips_what_is_no_container() {
        let (_tmp, root) = root();
        assert_eq!(root.ids().unwrap(), []);
        let given = Root {
            is_default: false,
            ..root.clone()
        };
        let e = format!("{:#}", given.ids().unwrap_err());
        assert!(e.contains("no such file or directory"), "{e}");
        for name in ["b", "a"] {
            StateDir::claim(&root, &id(name)).unwrap();
        }
        std::fs::create_dir(root.path.join(".c.deleted")).unwrap();
        assert_eq!(root.ids().unwrap(), [id("a"), id("b")]);
        std::fs::write(root.path.join(".c.deleted/x"), "").unwrap();
        sweep(&root, &id("c")).unwrap();
        assert!(!root.path.join(".c.deleted").exists());
    }
}
