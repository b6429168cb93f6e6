//! Mount entries.
//!
//! Each mount is a descriptor that nobody else can see until its attributes are set (open_tree or fsopen, mount_setattr,
//! move_mount), and it is attached to a descriptor of its target. Nothing is looked up a second time.

mod copy_up;

use crate::cgroup::CgroupDir;
use crate::plan::Plan;
use crate::plan::annotations::split_paths;
use crate::plan::mounts::{Attributes, Mount, Propagation, Source, attr};
use crate::plan::namespaces::Kind;
use crate::plan::paths::clean;
use crate::plan::rootfs::Enter;
use crate::plan::users::IdMap;
use crate::root::{Proc, Root};
use crate::sys::mount::{FsContext, MountAttr};
use crate::sys::{self, clone, errno, fs, mount, process};
use anyhow::{Context, Result, anyhow, bail, ensure};
use std::cell::Cell;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// What is left to do about the mounts, and to know of them, once all are there.
pub struct Mounted {
    /// The container's own procfs, if it has one at `/proc`.
    pub proc: Option<Proc>,
    read_only: Vec<OwnedFd>,
}

impl Mounted {
    /// Makes read-only what had to stay writable for a while: each tmpfs, where later entries may need a directory to mount
    /// on, and `/dev`, where nodes are made.
    pub fn make_read_only(&self) -> Result<()> {
        for fd in &self.read_only {
            let attr = MountAttr {
                set: attr::RDONLY,
                ..Default::default()
            };
            mount::setattr(fd.as_fd(), &attr, false)?;
        }
        Ok(())
    }
}

/// What the parent, who has the host's rights, gives to init for a mount.
#[derive(PartialEq, Eq)]
enum FromParent {
    Nothing,
    /// A detached copy of the source, which root of the user namespace may not reach or not map.
    Tree,
    /// The maps of an id-mapped mount, as a user namespace. Where init is the host's root it opens the source itself, at its turn:
    /// it may be among the mounts made before.
    Maps,
    /// The same where init is root of a user namespace only: it opens the source, and the parent maps that.
    Mapping,
}

fn from_parent(plan: &Plan, m: &Mount) -> FromParent {
    let Source::Bind { path, .. } = &m.source else {
        return FromParent::Nothing;
    };
    match &m.idmap {
        Some(_) if plan.namespaces.is_host(Kind::User) => FromParent::Maps,
        Some(_) if is_inside(plan, path) => FromParent::Mapping,
        Some(_) => FromParent::Tree,
        None if m.from_parent && !is_inside(plan, path) => FromParent::Tree,
        None => FromParent::Nothing,
    }
}

/// A source below root.path is among the mounts that init itself makes: there is nothing to see of them from outside.
fn is_inside(plan: &Plan, source: &Path) -> bool {
    source.starts_with(&plan.rootfs.path)
}

/// How many descriptors [`open_for_child`] gives.
pub fn count_for_child(plan: &Plan) -> usize {
    let is_one = |m: &&Mount| matches!(from_parent(plan, m), FromParent::Tree | FromParent::Maps);
    plan.mounts.iter().filter(is_one).count()
}

/// The parent's part, in the order of the plan. `pid` is a process in the container's user namespace.
pub fn open_for_child(plan: &Plan, pid: i32) -> Result<Vec<OwnedFd>> {
    let mut sources = Vec::new();
    let mut known = Vec::new();
    for m in &plan.mounts {
        let opened = match from_parent(plan, m) {
            FromParent::Nothing | FromParent::Mapping => continue,
            FromParent::Tree => tree(plan, m, pid, &mut known),
            FromParent::Maps => maps(plan, m, pid, &mut known),
        };
        sources.push(opened.with_context(|| describe(m))?);
    }
    Ok(sources)
}

/// User namespaces already made, by their maps: many mounts of a container have the same.
type Known<'a> = Vec<(&'a (Vec<IdMap>, Vec<IdMap>), OwnedFd)>;

fn tree<'a>(plan: &'a Plan, m: &'a Mount, pid: i32, known: &mut Known<'a>) -> Result<OwnedFd> {
    let Source::Bind { path, recursive } = &m.source else {
        bail!("only bind mounts have a source to open");
    };
    let tree = mount::clone_tree(fs::CWD, path, *recursive)?;
    if let Some(idmap) = &m.idmap {
        let maps = maps(plan, m, pid, known)?;
        map_ids(tree.as_fd(), maps.as_fd(), idmap.recursive)?;
    }
    Ok(tree)
}

/// The parent's part when init's turn comes to `mounts[index]` of the config, whose detached source it sends.
pub fn map_for_child(plan: &Plan, index: usize, source: BorrowedFd, pid: i32) -> Result<()> {
    let wanted = |m: &&Mount| m.index == index && from_parent(plan, m) == FromParent::Mapping;
    let Some(m) = plan.mounts.iter().find(wanted) else {
        bail!(
            "mounts[{index}]: the container's process asks for ids to be mapped, which the plan does not"
        );
    };
    let recursive = m.idmap.as_ref().is_some_and(|i| i.recursive);
    maps(plan, m, pid, &mut Vec::new())
        .and_then(|maps| map_ids(source, maps.as_fd(), recursive))
        .with_context(|| describe(m))
}

/// The user namespace that has the maps of an id-mapped mount.
fn maps<'a>(plan: &'a Plan, m: &'a Mount, pid: i32, known: &mut Known<'a>) -> Result<OwnedFd> {
    let Some(maps) = m.idmap.as_ref().and_then(|i| i.maps.as_ref()) else {
        let own = PathBuf::from(format!("/proc/{pid}/ns/user"));
        let path = plan.namespaces.joined(Kind::User).map_or(&own, |j| &j.path);
        return Ok(fs::open(path, fs::O_RDONLY, 0)?);
    };
    if let Some((_, fd)) = known.iter().find(|(k, _)| *k == maps) {
        return Ok(fd.try_clone()?);
    }
    let fd = user_namespace(&maps.0, &maps.1)?;
    known.push((maps, fd.try_clone()?));
    Ok(fd)
}

/// Makes a user namespace for its maps alone; the process that it takes is gone again on return.
pub fn user_namespace(uids: &[IdMap], gids: &[IdMap]) -> Result<OwnedFd> {
    let (pid, pidfd) = clone::hold_user_namespace()?;
    let made = (|| {
        fs::write_at(
            fs::CWD,
            Path::new(&format!("/proc/{pid}/uid_map")),
            &lines(uids),
        )?;
        fs::write_at(
            fs::CWD,
            Path::new(&format!("/proc/{pid}/gid_map")),
            &lines(gids),
        )?;
        fs::open(Path::new(&format!("/proc/{pid}/ns/user")), fs::O_RDONLY, 0)
    })();
    process::pidfd_send_signal(pidfd.as_fd(), process::SIGKILL)?;
    process::wait(pid)?;
    made.context("make the user namespace of an id-mapped mount")
}

fn lines(maps: &[IdMap]) -> Vec<u8> {
    let line = |m: &IdMap| format!("{} {} {}\n", m.container, m.host, m.size);
    maps.iter().map(line).collect::<String>().into_bytes()
}

/// Maps the ids of a tree that no place has yet; `maps` is a user namespace. See mount_setattr(2).
pub fn map_ids(tree: BorrowedFd, maps: BorrowedFd, recursive: bool) -> Result<()> {
    let attr = MountAttr {
        set: mount::IDMAP,
        userns_fd: maps.as_raw_fd() as u64,
        ..Default::default()
    };
    mount::setattr(tree, &attr, recursive).map_err(|e| match e.errno() {
        errno::EINVAL => anyhow!(
            "map ids: {e}; the file system of the source, or one mounted below it, cannot be id-mapped (Linux 5.12 can some)"
        ),
        _ => anyhow!("map ids: {e}"),
    })
}

/// What is for init to do in between.
pub struct Between<'a> {
    /// Has the parent call [`map_for_child`].
    pub map: &'a dyn Fn(usize, OwnedFd) -> Result<()>,
    /// Goes over to another way of the root, where the present one turns out not to do.
    pub pivot: &'a dyn Fn() -> Result<()>,
    /// Enters the container's network namespace; false where that has been.
    pub network: &'a dyn Fn() -> Result<bool>,
}

/// Makes all mounts, in order. `sources` are those of [`open_for_child`]; `cgroup` is the container's,
/// to be shown without a cgroup namespace; `enter` is the way of the root at the time.
pub fn mount_all(
    root: &Root,
    plan: &Plan,
    sources: Vec<OwnedFd>,
    cgroup: Option<&CgroupDir>,
    enter: &Cell<Enter>,
    between: Between,
) -> Result<Mounted> {
    let mut room = Room {
        root,
        plan,
        sources: sources.into_iter(),
        cgroup,
        enter,
        between,
        mounted: Mounted {
            proc: None,
            read_only: Vec::new(),
        },
    };
    // a umask of the caller's would make mount points that the container's users cannot enter
    let umask = process::umask(0);
    let made = plan
        .mounts
        .iter()
        .try_for_each(|m| room.make(m).with_context(|| describe(m)));
    process::umask(umask);
    made.map(|()| room.mounted)
}

fn describe(m: &Mount) -> String {
    let what = match &m.source {
        Source::Bind { path, .. } => path.display().to_string(),
        Source::Fs { source, .. } => source.to_string_lossy().into_owned(),
        Source::Cgroup => "cgroup".into(),
        Source::Sysfs => "sysfs".into(),
        Source::Remount => "remount".into(),
        Source::Propagation => "none".into(),
    };
    format!(
        "error mounting '{what}' to rootfs at '{}' (mounts[{}])",
        m.destination.display(),
        m.index
    )
}

struct Room<'a> {
    root: &'a Root,
    plan: &'a Plan,
    sources: std::vec::IntoIter<OwnedFd>,
    cgroup: Option<&'a CgroupDir>,
    enter: &'a Cell<Enter>,
    between: Between<'a>,
    mounted: Mounted,
}

impl Room<'_> {
    fn make(&mut self, m: &Mount) -> Result<()> {
        let mut sent = match from_parent(self.plan, m) {
            FromParent::Tree | FromParent::Maps => {
                let fd = self.sources.next();
                Some(fd.ok_or_else(|| anyhow!("the parent did not send the source"))?)
            }
            FromParent::Nothing | FromParent::Mapping => None,
        };
        match self.mount(m, &mut sent) {
            Err(e) if self.is_detached() && is_refused_tree(&e) => {
                (self.between.pivot)()?;
                self.mount(m, &mut sent)
            }
            other => other,
        }
    }

    /// Whether the tree is attached to nothing, and this still is the host's mount namespace.
    fn is_detached(&self) -> bool {
        self.enter.get() == Enter::Attach
    }

    fn mount(&mut self, m: &Mount, sent: &mut Option<OwnedFd>) -> Result<()> {
        let at = m.destination.as_path();
        match &m.source {
            Source::Bind { path, recursive } => self.bind(m, at, path, *recursive, sent),
            Source::Fs { fstype, source } if fstype.as_bytes() == b"tmpfs" => {
                self.tmpfs(m, at, source)
            }
            Source::Fs { fstype, source } if fstype.as_bytes() == b"proc" => {
                self.proc(m, at, source)
            }
            Source::Fs { fstype, source } => {
                // nfsd, rpc_pipefs and those of a network are of the namespace that they are mounted in
                if ![&b"devpts"[..], b"mqueue", b"overlay"].contains(&fstype.as_bytes()) {
                    (self.between.network)()?;
                }
                let target = self.directory(at)?;
                let fd = new_file_system(m, m.is_late(), fstype, source, None)?;
                if let Some(label) = &self.plan.mount_label
                    && fstype.as_bytes() == b"mqueue"
                {
                    label_root(fd.as_fd(), label)?;
                }
                self.attach(m, at, fd, target)
            }
            Source::Sysfs => self.sysfs(m, at),
            Source::Cgroup => self.cgroup(m, at),
            Source::Remount => self.remount(m, at),
            Source::Propagation => propagate(m, self.root.open(at)?.as_fd()),
        }
    }

    fn bind(
        &mut self,
        m: &Mount,
        at: &Path,
        path: &Path,
        recursive: bool,
        sent: &mut Option<OwnedFd>,
    ) -> Result<()> {
        let mut tree = self.source(m, path, recursive, sent)?;
        let mut magic = fs::fd_magic(tree.as_fd())?;
        // a namespace of this process, or what its procfs shows of one
        if [fs::PROC_MAGIC, fs::NSFS_MAGIC].contains(&magic) && (self.between.network)()? {
            tree = self.source(m, path, recursive, sent)?;
            magic = fs::fd_magic(tree.as_fd())?;
        }
        set_bind_attributes(
            tree.as_fd(),
            &m.attributes,
            m.is_late(),
            self.in_user_namespace(),
        )?;
        let target = match self.root.find(at)? {
            Some(target) => target,
            None if fs::fstat(tree.as_fd())?.is_dir() => self.root.make_directory(at, 0o755)?,
            None => self.root.make_file(at)?,
        };
        refuse_on_proc(at, target.as_fd(), magic == fs::PROC_MAGIC)?;
        self.attach(m, at, tree, target)
    }

    fn source(
        &self,
        m: &Mount,
        path: &Path,
        recursive: bool,
        sent: &mut Option<OwnedFd>,
    ) -> Result<OwnedFd> {
        match from_parent(self.plan, m) {
            FromParent::Tree => Ok(sent.take().expect("it was looked for")),
            FromParent::Maps => {
                let maps = sent.as_ref().expect("it was looked for");
                let tree = self.host_tree(path, recursive)?;
                let below = m.idmap.as_ref().is_some_and(|i| i.recursive);
                map_ids(tree.as_fd(), maps.as_fd(), below)?;
                Ok(tree)
            }
            FromParent::Mapping => {
                let tree = self.inside(path, recursive)?;
                (self.between.map)(m.index, tree.try_clone()?)?;
                Ok(tree)
            }
            FromParent::Nothing if m.from_parent => self.inside(path, recursive),
            FromParent::Nothing => Ok(self.host_tree(path, recursive)?),
        }
    }

    /// A detached copy of what the host has at a path. In the host's own mount namespace it would share its mounts with the host:
    /// whatever the container mounts on it would show there.
    fn host_tree(&self, path: &Path, recursive: bool) -> sys::Result<OwnedFd> {
        let tree = mount::clone_tree(fs::CWD, path, recursive)?;
        if self.is_detached() {
            mount::set_propagation(tree.as_fd(), Propagation::Slave as u64, true)?;
        }
        Ok(tree)
    }

    /// Root of a user namespace may not be able to walk down to root.path, which is at hand.
    fn inside(&self, path: &Path, recursive: bool) -> Result<OwnedFd> {
        let fd = self.root.open(path.strip_prefix(&self.plan.rootfs.path)?)?;
        Ok(mount::clone_tree(fd.as_fd(), c"", recursive)?)
    }

    fn tmpfs(&mut self, m: &Mount, at: &Path, source: &CStr) -> Result<()> {
        let found = self.root.find(at)?;
        let has_mode = m.data.iter().any(|(k, _)| k.as_bytes() == b"mode");
        // as runc: the new root has the mode of the directory that it covers, and the kernel's 1777 where there was none
        let mode = match &found {
            Some(target) if !has_mode => Some(fs::fstat(target.as_fd())?.mode & 0o7777),
            _ => None,
        };
        let target = match found {
            Some(target) => target,
            None => self.root.make_directory(at, 0o755)?,
        };
        refuse_on_proc(at, target.as_fd(), false)?;
        let fd = new_file_system(m, m.is_late(), c"tmpfs", source, mode)?;
        if m.copy_up {
            copy_up::copy(target.as_fd(), fd.as_fd()).context("tmpcopyup")?;
        }
        self.attach(m, at, fd, target)
    }

    fn proc(&mut self, m: &Mount, at: &Path, source: &CStr) -> Result<()> {
        let target = self.real_directory("proc", at)?;
        refuse_on_proc(at, target.as_fd(), true)?;
        let fd = new_file_system(m, false, c"proc", source, None)?;
        self.attach(m, at, fd, target)
    }

    /// sysfs belongs to the network namespace: root of a user namespace may mount it only together with one of its own.
    fn sysfs(&mut self, m: &Mount, at: &Path) -> Result<()> {
        (self.between.network)()?;
        let target = self.real_directory("sysfs", at)?;
        refuse_on_proc(at, target.as_fd(), false)?;
        let fd = match new_file_system(m, false, c"sysfs", c"sysfs", None) {
            Err(e) if e.errno() == errno::EPERM => {
                let tree = self.host_tree(Path::new("/sys"), true)?;
                let attr = MountAttr {
                    // the access time is locked there
                    set: attr::RDONLY | m.wanted() & !attr::ATIME & !attr::NODIRATIME,
                    ..Default::default()
                };
                mount::setattr(tree.as_fd(), &attr, true)?;
                tree
            }
            other => other?,
        };
        self.attach(m, at, fd, target)
    }

    /// Without a cgroup namespace the container is shown the host's hierarchy, as with runc, but by a bind: a new cgroup2 mount from
    /// the initial namespace would reset the host's mount options (`nsdelegate`).
    fn cgroup(&mut self, m: &Mount, at: &Path) -> Result<()> {
        let target = self.directory(at)?;
        let own_namespace = !self.plan.namespaces.is_host(Kind::Cgroup);
        if own_namespace {
            match new_file_system(m, false, c"cgroup2", c"cgroup", None) {
                Err(e) if matches!(e.errno(), errno::EPERM | errno::EBUSY) => {}
                other => return self.attach(m, at, other?, target),
            }
        }
        let Some(cgroup) = self.cgroup else {
            bail!("the container has no cgroup to show; give it a cgroup namespace")
        };
        let mut set = m.wanted();
        // root of a user namespace sees its own cgroup only, and could otherwise write to what the host's root has delegated to
        // nobody (CVE-2023-25809)
        let source = if self.in_user_namespace() {
            if !own_namespace {
                set |= attr::RDONLY;
            }
            cgroup.host_path()
        } else {
            cgroup.mountpoint().to_path_buf()
        };
        let tree = self.host_tree(&source, false)?;
        let attr = MountAttr {
            set,
            clear: atime_mask(set),
            ..Default::default()
        };
        mount::setattr(tree.as_fd(), &attr, false)?;
        self.attach(m, at, tree, target)
    }

    fn remount(&mut self, m: &Mount, at: &Path) -> Result<()> {
        let fd = self.root.open(at)?;
        if !m.data.is_empty() {
            let context = FsContext::pick(fd.as_fd())?;
            configure(&context, &m.data)?;
            context.reconfigure()?;
        }
        set_attributes(fd.as_fd(), &m.attributes).map_err(|e| match e.errno() {
            errno::EINVAL => anyhow!("nothing is mounted there that could be changed: {e}"),
            _ => e.into(),
        })?;
        propagate(m, fd.as_fd())
    }

    fn directory(&self, at: &Path) -> Result<OwnedFd> {
        let target = match self.root.find(at)? {
            Some(target) => target,
            None => self.root.make_directory(at, 0o755)?,
        };
        refuse_on_proc(at, target.as_fd(), false)?;
        Ok(target)
    }

    fn real_directory(&self, fstype: &str, at: &Path) -> Result<OwnedFd> {
        self.root.real_directory(at).with_context(|| {
            format!("filesystem \"{fstype}\" must be mounted on ordinary directory")
        })
    }

    fn in_user_namespace(&self) -> bool {
        !self.plan.namespaces.is_host(Kind::User)
    }

    /// Attaches a finished mount.
    fn attach(&mut self, m: &Mount, at: &Path, fd: OwnedFd, target: OwnedFd) -> Result<()> {
        let detached = self.is_detached();
        if detached {
            // only the root of what is attached nowhere can be changed; its parent there is never shared, so the order is all one
            propagate(m, fd.as_fd())?;
        }
        mount::attach(fd.as_fd(), target.as_fd()).map_err(|e| match e.errno() {
            errno::ELOOP if detached => e.into(),
            _ => explain_attach(e, fd.as_fd(), target.as_fd()),
        })?;
        if !detached {
            propagate(m, fd.as_fd())?;
        }
        if m.is_late() {
            self.mounted.read_only.push(fd);
        } else if clean(at) == Path::new("/proc") {
            // a bind of some directory of a procfs is accepted as runc does, but not trusted
            self.mounted.proc = Proc::new(fd).ok();
        }
        Ok(())
    }
}

/// Below the source a mount namespace is bound to a file (snapd and `unshare --mount=FILE` do it) that is older than this one. A copy of the
/// host's mounts has none. (A newer one is found when the whole tree is attached.)
fn is_refused_tree(e: &anyhow::Error) -> bool {
    let e = e.downcast_ref::<sys::Error>();
    e.is_some_and(|e| e.errno() == errno::ELOOP)
}

/// A mount without the option `context` has SELinux's label by its root.
fn label_root(mount: BorrowedFd, label: &CStr) -> Result<()> {
    let root = fs::openat(mount, c".", fs::O_RDONLY | fs::O_DIRECTORY, 0)?;
    fs::set_xattr(root.as_fd(), c"security.selinux", label.to_bytes_with_nul())
        .context("linux.mountLabel")
}

/// A detached mount of a new file system. A `late` one is not read-only yet.
fn new_file_system(
    m: &Mount,
    late: bool,
    fstype: &CStr,
    source: &CStr,
    mode: Option<u32>,
) -> sys::Result<OwnedFd> {
    let context = FsContext::open(fstype)?;
    if !source.is_empty() {
        context.set_string(c"source", source)?;
    }
    if let Some(mode) = mode {
        let mode = CString::new(format!("{mode:o}")).expect("digits hold no NUL");
        context.set_string(c"mode", &mode)?;
    }
    let mut set = m.wanted();
    if late {
        set &= !attr::RDONLY;
    }
    configure(&context, &m.data)?;
    context.create()?;
    context.mount(set)
}

fn configure(context: &FsContext, data: &[(CString, Option<CString>)]) -> sys::Result<()> {
    for (key, value) in data {
        match value {
            Some(value) if value.to_bytes().len() < mount::OPTION_MAX => {
                context.set_string(key, value)?;
            }
            Some(value) if key.as_c_str() == c"lowerdir" => set_layers(context, value)?,
            Some(_) => {
                let call = format!(
                    "set option '{}' to a value of over 255 bytes",
                    key.to_string_lossy()
                );
                return Err(sys::Error::new(call, errno::E2BIG));
            }
            None => context.set_flag(key)?,
        }
    }
    Ok(())
}

/// The layers of an overlay in one option each, which Linux 6.7 takes.
fn set_layers(context: &FsContext, joined: &CStr) -> sys::Result<()> {
    for layer in split_paths(&joined.to_string_lossy()) {
        let layer = CString::new(layer).expect("split from a C string");
        context.set_string(c"lowerdir+", &layer)?;
    }
    Ok(())
}

fn atime_mask(set: u64) -> u64 {
    if set & attr::ATIME != 0 {
        attr::ATIME
    } else {
        0
    }
}

/// Sets and clears exactly what the entry says, on the mount and on all below it.
fn set_attributes(fd: BorrowedFd, a: &Attributes) -> sys::Result<()> {
    for (set, clear, recursive) in [(a.set, a.clear, false), (a.rec_set, a.rec_clear, true)] {
        let clear = (clear | atime_mask(set)) & !(set & !attr::ATIME);
        if set | clear != 0 {
            let attr = MountAttr {
                set,
                clear,
                ..Default::default()
            };
            mount::setattr(fd, &attr, recursive)?;
        }
    }
    Ok(())
}

/// Sets the attributes of a bind mount as runc does: with none given the copy keeps those of its source; with any given it
/// gets these and no others, but for what a user namespace locks (nosuid, nodev, noexec, ro, and the access time rule).
fn set_bind_attributes(fd: BorrowedFd, a: &Attributes, late: bool, locked: bool) -> Result<()> {
    const LOCKABLE: u64 = attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC;
    const TIMES: u64 = attr::ATIME | attr::NODIRATIME;
    let mut a = *a;
    if late {
        a.set &= !attr::RDONLY;
        a.rec_set &= !attr::RDONLY;
    }
    let asked = a.clear & !a.set;
    if a.set | a.clear != 0 {
        // any choice of access times replaces all of the source's, none leaves them
        let chosen = a.clear & attr::ATIME != 0 || a.set & TIMES != 0;
        let times = if chosen { TIMES } else { 0 };
        a.clear = a.clear & !TIMES | times | attr::NOSYMFOLLOW;
        let free = Attributes {
            clear: a.clear | LOCKABLE,
            ..a
        };
        if !locked {
            match set_attributes(fd, &free) {
                Err(e) if e.errno() == errno::EPERM => {}
                other => return Ok(other?),
            }
        }
        let source = source_attributes(fd)?;
        let kept = asked & LOCKABLE & source;
        if kept != 0 {
            let call = format!("clear locked flags {}", names(kept));
            return Err(sys::Error::new(call, errno::EPERM).into());
        }
        if chosen && a.set & TIMES != source & TIMES {
            return Err(sys::Error::new("change locked atime flags", errno::EPERM).into());
        }
    }
    Ok(set_attributes(fd, &a)?)
}

/// The attributes of a mount, from what statvfs(3) says.
fn source_attributes(fd: BorrowedFd) -> Result<u64> {
    const ST_NOATIME: u64 = 1024;
    const ST_NODIRATIME: u64 = 2048;
    const ST_RELATIME: u64 = 4096;
    let st = fs::fd_mount_flags(fd)?;
    // the lowest four are the same
    let mut out = st & (attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC);
    if st & ST_NOATIME != 0 {
        out |= attr::NOATIME;
    } else if st & ST_RELATIME == 0 {
        out |= attr::STRICTATIME;
    }
    if st & ST_NODIRATIME != 0 {
        out |= attr::NODIRATIME;
    }
    Ok(out)
}

fn names(bits: u64) -> String {
    let all = [
        (attr::RDONLY, "ro"),
        (attr::NOSUID, "nosuid"),
        (attr::NODEV, "nodev"),
        (attr::NOEXEC, "noexec"),
    ];
    let set: Vec<&str> = all
        .iter()
        .filter(|(bit, _)| bits & bit != 0)
        .map(|(_, name)| *name)
        .collect();
    set.join(",")
}

fn propagate(m: &Mount, fd: BorrowedFd) -> Result<()> {
    for (propagation, recursive) in &m.propagation {
        mount::set_propagation(fd, *propagation as u64, *recursive)?;
    }
    Ok(())
}

/// Keeps everything off `/proc` but a procfs, so that nobody who reads and writes there is fooled (CVE-2019-16884). The plan has
/// seen to the names; here the inodes are looked at: the source of a bind mount, and a target that a symlink leads into procfs.
fn refuse_on_proc(at: &Path, target: BorrowedFd, source_is_proc: bool) -> Result<()> {
    let at = clean(at);
    if at == Path::new("/proc") {
        ensure!(
            source_is_proc,
            "'/proc' cannot be mounted because it is not of type proc"
        );
    } else if !at.starts_with("/proc") && fs::fd_magic(target)? == fs::PROC_MAGIC {
        bail!(
            "'{}' cannot be mounted because it is inside /proc",
            at.display()
        );
    }
    Ok(())
}

/// move_mount(2) says only "invalid argument" for a directory on a file and the reverse, where mount(2) said it better.
fn explain_attach(e: sys::Error, source: BorrowedFd, target: BorrowedFd) -> anyhow::Error {
    if let (errno::EINVAL, Ok(source), Ok(target)) =
        (e.errno(), fs::fstat(source), fs::fstat(target))
        && source.is_dir() != target.is_dir()
    {
        let what = if source.is_dir() {
            "mount a directory onto a file"
        } else {
            "mount a file onto a directory"
        };
        return sys::Error::new(what, errno::ENOTDIR).into();
    }
    if e.errno() == errno::ELOOP {
        return anyhow!(
            "{e}; a mount namespace is bound to a file below the source (snapd and `unshare --mount=FILE` do it): unmount that \
             file, or bind without the mounts below"
        );
    }
    e.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_procfs_goes_on_proc() {
        let null = fs::open("/dev/null", fs::O_PATH, 0).unwrap();
        let on = |at: &str, proc| refuse_on_proc(Path::new(at), null.as_fd(), proc);
        on("/proc", true).unwrap();
        on("/proc/../tmp", false).unwrap();
        let e = on("/tmp/../proc", false).unwrap_err();
        assert!(e.to_string().contains("it is not of type proc"), "{e}");
    }

    #[test]
    fn a_symlink_into_proc_is_noticed_by_its_inode() {
        let inside = fs::open("/proc/sys", fs::O_PATH, 0).unwrap();
        let e = refuse_on_proc(Path::new("/link"), inside.as_fd(), false).unwrap_err();
        assert!(e.to_string().contains("inside /proc"), "{e}");
        refuse_on_proc(Path::new("/proc/meminfo"), inside.as_fd(), false).unwrap();
    }
}
