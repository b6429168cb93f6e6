//! Mount entries: options parsed into attributes, data and propagation.

use super::namespaces::{Kind, Namespaces};
use super::paths::{clean, in_bundle};
use super::users::{self, IdMap, IdMaps};
use super::{Options, Violations};
use crate::host::Host;
use oci_spec::runtime::{self as oci, Spec};
use std::ffi::CString;
use std::path::{Path, PathBuf};

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A directory or file of the host's.
    Bind { path: PathBuf, recursive: bool },
    /// A new file system.
    Fs { fstype: CString, source: CString },
    /// The cgroup2 hierarchy: a mount of its own with a cgroup namespace, else a bind of the container's cgroup.
    Cgroup,
    /// sysfs; where the kernel refuses it (a user namespace without a network namespace of its own) a read-only bind of the host's.
    Sysfs,
    /// A change of a mount that is already there (`remount`).
    Remount,
    /// Nothing but a change of propagation of a mount that is already there (type "none" without bind).
    Propagation,
}

/// The bits of mount_setattr(2) and fsmount(2).
pub mod attr {
    pub const RDONLY: u64 = 0x01;
    pub const NOSUID: u64 = 0x02;
    pub const NODEV: u64 = 0x04;
    pub const NOEXEC: u64 = 0x08;
    /// The mask over the access-time choices; relatime is 0.
    pub const ATIME: u64 = 0x70;
    pub const NOATIME: u64 = 0x10;
    pub const STRICTATIME: u64 = 0x20;
    pub const NODIRATIME: u64 = 0x80;
    /// Linux 5.14.
    pub const NOSYMFOLLOW: u64 = 0x0020_0000;
}

/// Where mounts and unmounts below a mount show (mount_namespaces(7)); the values are mount(2)'s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Propagation {
    Unbindable = 1 << 17,
    Private = 1 << 18,
    Slave = 1 << 19,
    Shared = 1 << 20,
}

/// Attributes ([`attr`]) to set and to clear, on the mount itself and (`rro`, `rnosuid` …) on all below it.
///
/// They are what the options say, and no more. A bind mount without any keeps all that its source has; with one, runc takes
/// away what is not named, but for the access time, and keeps what the kernel has locked in a user namespace
/// (mount_namespaces(7)) unless `clear` names it. Whoever mounts does the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    pub set: u64,
    pub clear: u64,
    pub rec_set: u64,
    pub rec_clear: u64,
}

/// Keys with their values, or flags without.
pub type Data = Vec<(CString, Option<CString>)>;

/// A bind mount that shows other owners than its source (mount_setattr(2), "ID-mapped mounts").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdMapped {
    /// For uids and gids, from those on the source's file system (`container`) to those in the mount (`host`); None takes the
    /// maps of the container's user namespace.
    pub maps: Option<(Vec<IdMap>, Vec<IdMap>)>,
    /// The mounts below it too (`ridmap`).
    pub recursive: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Index in `mounts` of the config, for messages and for asking the parent.
    pub index: usize,
    /// Absolute, else as in the config; resolved in the container's root.
    pub destination: PathBuf,
    pub source: Source,
    pub attributes: Attributes,
    /// In order, each with "recursive".
    pub propagation: Vec<(Propagation, bool)>,
    /// Options for the file system itself: key and value as fsconfig(2) takes them, superblock flags (`sync`, `dirsync`,
    /// `lazytime`, `mand`) as keys without a value among them.
    pub data: Data,
    /// Copy what the root has at the destination into the new tmpfs (`tmpcopyup`).
    pub copy_up: bool,
    pub idmap: Option<IdMapped>,
    /// The parent opens the source, since the child in its user namespace may not reach it. Never so for an ordinary user, who
    /// may clone a mount only inside of the user namespace.
    pub from_parent: bool,
}

impl Mount {
    /// What it gets with nothing below it: the recursive attributes are no others there.
    pub fn wanted(&self) -> u64 {
        self.attributes.set | self.attributes.rec_set
    }

    /// Whether read-only has to wait until all mounts are there: a later entry may need a directory to be mounted on in a tmpfs, and
    /// nodes are made in `/dev`.
    pub fn is_late(&self) -> bool {
        let tmpfs =
            matches!(&self.source, Source::Fs { fstype, .. } if fstype.as_bytes() == b"tmpfs");
        self.wanted() & attr::RDONLY != 0
            && (tmpfs || clean(&self.destination) == Path::new("/dev"))
    }
}

/// What an option stands for.
#[derive(Clone, Copy, PartialEq)]
enum Meaning {
    /// Accepted, and nothing to do.
    Nothing,
    Set(u64),
    Clear(u64),
    /// A choice of how access times are kept, and its negation.
    Atime(u64),
    NotAtime(u64),
    SetAll(u64),
    ClearAll(u64),
    AtimeAll(u64),
    NotAtimeAll(u64),
    /// A flag of the file system's superblock, and its negation.
    Super(&'static str),
    NotSuper(&'static str),
    Tree(Propagation, bool),
    Bind {
        recursive: bool,
    },
    Remount,
    CopyUp,
    IdMap {
        recursive: bool,
    },
}

const RELATIME: u64 = 0;

/// The options of the spec's table for Linux. All others are the file system's.
const OPTIONS: [(&str, Meaning); 62] = {
    use self::Propagation as P;
    use Meaning::*;
    use attr::*;
    [
        ("async", NotSuper("sync")),
        ("atime", NotAtime(NOATIME)),
        ("bind", Bind { recursive: false }),
        ("defaults", Nothing),
        ("dev", Clear(NODEV)),
        ("diratime", Clear(NODIRATIME)),
        ("dirsync", Super("dirsync")),
        ("exec", Clear(NOEXEC)),
        ("idmap", IdMap { recursive: false }),
        // fsconfig(2) has no such flag; ext4, which was the one to want it, counts versions always since Linux 6.1
        ("iversion", Nothing),
        ("lazytime", Super("lazytime")),
        // how much the kernel logs of a failed mount(2); fsconfig(2) hands these messages to its caller
        ("loud", Nothing),
        ("mand", Super("mand")),
        ("noatime", Atime(NOATIME)),
        ("nodev", Set(NODEV)),
        ("nodiratime", Set(NODIRATIME)),
        ("noexec", Set(NOEXEC)),
        ("noiversion", Nothing),
        ("nolazytime", NotSuper("lazytime")),
        ("nomand", NotSuper("mand")),
        ("norelatime", NotAtime(RELATIME)),
        ("nostrictatime", NotAtime(STRICTATIME)),
        ("nosuid", Set(NOSUID)),
        ("nosymfollow", Set(NOSYMFOLLOW)),
        ("private", Tree(P::Private, false)),
        ("ratime", NotAtimeAll(NOATIME)),
        ("rbind", Bind { recursive: true }),
        ("rdev", ClearAll(NODEV)),
        ("rdiratime", ClearAll(NODIRATIME)),
        ("relatime", Atime(RELATIME)),
        ("remount", Remount),
        ("rexec", ClearAll(NOEXEC)),
        ("ridmap", IdMap { recursive: true }),
        ("rnoatime", AtimeAll(NOATIME)),
        ("rnodev", SetAll(NODEV)),
        ("rnodiratime", SetAll(NODIRATIME)),
        ("rnoexec", SetAll(NOEXEC)),
        ("rnorelatime", NotAtimeAll(RELATIME)),
        ("rnostrictatime", NotAtimeAll(STRICTATIME)),
        ("rnosuid", SetAll(NOSUID)),
        ("rnosymfollow", SetAll(NOSYMFOLLOW)),
        ("ro", Set(RDONLY)),
        ("rprivate", Tree(P::Private, true)),
        ("rrelatime", AtimeAll(RELATIME)),
        ("rro", SetAll(RDONLY)),
        ("rrw", ClearAll(RDONLY)),
        ("rshared", Tree(P::Shared, true)),
        ("rslave", Tree(P::Slave, true)),
        ("rstrictatime", AtimeAll(STRICTATIME)),
        ("rsuid", ClearAll(NOSUID)),
        ("rsymfollow", ClearAll(NOSYMFOLLOW)),
        ("runbindable", Tree(P::Unbindable, true)),
        ("rw", Clear(RDONLY)),
        ("shared", Tree(P::Shared, false)),
        ("silent", Nothing),
        ("slave", Tree(P::Slave, false)),
        ("strictatime", Atime(STRICTATIME)),
        ("suid", Clear(NOSUID)),
        ("symfollow", Clear(NOSYMFOLLOW)),
        ("sync", Super("sync")),
        ("tmpcopyup", CopyUp),
        ("unbindable", Tree(P::Unbindable, false)),
    ]
};

/// The options of the spec that husk acts on, sorted; for `features`.
pub fn known_options() -> impl Iterator<Item = &'static str> {
    OPTIONS.iter().map(|(name, _)| *name)
}

/// The options of an entry, sorted by what they are for.
#[derive(Clone, Debug, Default)]
pub(super) struct Parsed {
    pub attributes: Attributes,
    pub propagation: Vec<(Propagation, bool)>,
    pub data: Data,
    /// "recursive", if it is a bind mount.
    pub bind: Option<bool>,
    pub remount: bool,
    pub copy_up: bool,
    /// "recursive", if it is an id-mapped mount.
    pub idmap: Option<bool>,
}

/// Sorts the options of `mounts[index]`; of two that contradict one another the later wins.
pub(super) fn parse(entry: &oci::Mount, index: usize, v: &mut Violations) -> Parsed {
    let mut parsed = Parsed::default();
    for (i, text) in entry.options().iter().flatten().enumerate() {
        let at = format!("mounts[{index}].options[{i}]");
        match OPTIONS.iter().find(|(name, _)| name == text) {
            Some((_, meaning)) => parsed.add(*meaning),
            None => {
                for part in split(text) {
                    let (key, value) = match part.split_once('=') {
                        Some((key, value)) => (key, Some(v.cstring(&at, value.trim_matches('"')))),
                        None => (part, None),
                    };
                    parsed.data.push((v.cstring(&at, key), value));
                }
            }
        }
    }
    let mapped = |maps: &Option<Vec<_>>| maps.as_ref().is_some_and(|maps| !maps.is_empty());
    if mapped(entry.uid_mappings()) || mapped(entry.gid_mappings()) {
        parsed.idmap.get_or_insert(false);
    }
    parsed
}

/// One string may hold several options, as mount(2) takes them: at commas, but for those in double quotes (SELinux labels) or
/// after a backslash (overlayfs).
fn split(text: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    let mut escaped = false;
    text.split(move |c| {
        let at = c == ',' && !quoted && !escaped;
        quoted ^= c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        at
    })
    .filter(|part| !part.is_empty())
}

impl Parsed {
    fn add(&mut self, meaning: Meaning) {
        let a = &mut self.attributes;
        match meaning {
            Meaning::Nothing => {}
            Meaning::Set(bit) => (a.set, a.clear) = (a.set | bit, a.clear & !bit),
            Meaning::Clear(bit) => (a.set, a.clear) = (a.set & !bit, a.clear | bit),
            Meaning::Atime(choice) => atime(&mut a.set, &mut a.clear, choice),
            Meaning::NotAtime(choice) => unchoose_atime(&mut a.set, &mut a.clear, choice),
            Meaning::SetAll(bit) => {
                (a.rec_set, a.rec_clear) = (a.rec_set | bit, a.rec_clear & !bit);
            }
            Meaning::ClearAll(bit) => {
                (a.rec_set, a.rec_clear) = (a.rec_set & !bit, a.rec_clear | bit);
            }
            Meaning::AtimeAll(choice) => atime(&mut a.rec_set, &mut a.rec_clear, choice),
            Meaning::NotAtimeAll(choice) => not_atime(&mut a.rec_set, &mut a.rec_clear, choice),
            Meaning::Super(name) => self.superblock(name, true),
            Meaning::NotSuper(name) => self.superblock(name, false),
            Meaning::Tree(kind, recursive) => self.propagation.push((kind, recursive)),
            Meaning::Bind { recursive } => {
                self.bind = Some(recursive || self.bind == Some(true));
            }
            Meaning::Remount => self.remount = true,
            Meaning::CopyUp => self.copy_up = true,
            Meaning::IdMap { recursive } => self.idmap = Some(recursive),
        }
    }

    fn superblock(&mut self, name: &str, on: bool) {
        self.data
            .retain(|(key, _)| key.to_bytes() != name.as_bytes());
        if on {
            self.flag(name);
        }
    }

    fn flag(&mut self, name: &str) {
        self.data
            .push((CString::new(name).unwrap_or_default(), None));
    }
}

/// mount_setattr(2) takes one choice of access times, and only with the whole mask cleared.
fn atime(set: &mut u64, clear: &mut u64, choice: u64) {
    *set = *set & !attr::ATIME | choice;
    *clear |= attr::ATIME;
}

/// For the tree: without the choice that is negated the kernel falls back to relatime. "rnorelatime" asks for nothing that it
/// could do: it only takes an earlier rrelatime back.
fn not_atime(set: &mut u64, clear: &mut u64, choice: u64) {
    let chosen = (*clear & attr::ATIME != 0).then_some(*set & attr::ATIME);
    if chosen.is_none() || chosen == Some(choice) {
        atime(set, clear, RELATIME);
    }
}

/// For the mount itself, as mount(2) and runc have it: an earlier choice is taken back, and what the source of a bind mount has
/// stays without a choice.
fn unchoose_atime(set: &mut u64, clear: &mut u64, choice: u64) {
    if *clear & attr::ATIME != 0 && *set & attr::ATIME == choice {
        *set &= !attr::ATIME;
        *clear &= !attr::ATIME;
    }
}

/// Whether an entry is a bind mount, whatever its type says.
pub(super) fn is_bind(entry: &oci::Mount) -> bool {
    entry.typ().as_deref() == Some("bind")
        || entry
            .options()
            .iter()
            .flatten()
            .any(|o| o == "bind" || o == "rbind")
}

/// An overlay for the container's root itself, which is [`super::rootfs`]'s.
pub(super) fn is_root_overlay(entry: &oci::Mount) -> bool {
    clean(entry.destination()) == Path::new("/")
        && entry.typ().as_deref() == Some("overlay")
        && !is_bind(entry)
}

/// The mounts of a config, but an overlay for its root.
pub fn plan(
    spec: &Spec,
    options: &Options,
    namespaces: &Namespaces,
    host: &Host,
    v: &mut Violations,
) -> Vec<Mount> {
    let entries = spec.mounts().as_deref().unwrap_or_default();
    if !entries.is_empty() && namespaces.is_host(Kind::Mount) {
        v.warn(
            "mounts",
            "there is no mount namespace: they are made in the host's, and stay there",
        );
    }
    let rootfs = spec
        .root()
        .as_ref()
        .map(|r| in_bundle(&options.bundle, r.path()));
    let from_parent = host.euid == 0 && !namespaces.is_host(Kind::User);
    let mut mounts = Vec::with_capacity(entries.len());
    for (index, entry) in entries.iter().enumerate() {
        if is_root_overlay(entry) {
            continue;
        }
        let destination = destination(entry, index, rootfs.as_deref(), v);
        let mut parsed = parse(entry, index, v);
        let source = source(entry, index, &mut parsed, &options.bundle, v);
        covers_proc(&destination, &source, index, v);
        let idmap = parsed
            .idmap
            .map(|recursive| id_mapped(entry, index, recursive, &source, namespaces, host, v));
        mounts.push(Mount {
            index,
            destination,
            from_parent: from_parent && matches!(source, Source::Bind { .. }),
            source,
            attributes: parsed.attributes,
            propagation: parsed.propagation,
            data: parsed.data,
            copy_up: parsed.copy_up,
            idmap,
        });
    }
    mounts
}

fn id_mapped(
    entry: &oci::Mount,
    index: usize,
    recursive: bool,
    source: &Source,
    namespaces: &Namespaces,
    host: &Host,
    v: &mut Violations,
) -> IdMapped {
    let at = format!("mounts[{index}]");
    let uids = users::maps(
        entry.uid_mappings().as_ref(),
        &format!("{at}.uidMappings"),
        v,
    );
    let gids = users::maps(
        entry.gid_mappings().as_ref(),
        &format!("{at}.gidMappings"),
        v,
    );
    if !matches!(source, Source::Bind { .. }) {
        v.add(
            &at,
            "only bind mounts can be id-mapped; remove idmap and the mappings",
        );
    }
    if host.euid != 0 {
        v.add(
            &at,
            "id-mapped mounts need root on the host; remove idmap and the mappings",
        );
    }
    let maps = match (uids.is_empty(), gids.is_empty()) {
        (false, false) => Some((uids, gids)),
        (true, true) => {
            if namespaces.is_host(Kind::User) {
                v.add(
                    &at,
                    "idmap needs uidMappings and gidMappings, or a user namespace whose mappings it takes",
                );
            }
            None
        }
        _ => {
            v.add(
                &at,
                "an id-mapped mount needs both uidMappings and gidMappings",
            );
            None
        }
    };
    IdMapped { maps, recursive }
}

fn destination(
    entry: &oci::Mount,
    index: usize,
    rootfs: Option<&Path>,
    v: &mut Violations,
) -> PathBuf {
    let at = format!("mounts[{index}].destination");
    let given = entry.destination();
    v.cstring(&at, given);
    if given.as_os_str().is_empty() {
        v.add(&at, "is required");
        return PathBuf::from("/");
    }
    if !given.is_absolute() {
        v.warn(
            &at,
            &format!(
                "'{}' is relative, which is deprecated; it is taken from the container's root",
                given.display()
            ),
        );
    }
    // as runc: some callers give the path on the host
    let inside = rootfs.and_then(|r| given.strip_prefix(r).ok());
    let destination = Path::new("/").join(inside.unwrap_or(given));
    if clean(&destination) == Path::new("/") {
        v.add(
            &at,
            "is the container's root, where only a mount of type overlay may be; use root.path",
        );
    }
    destination
}

fn source(
    entry: &oci::Mount,
    index: usize,
    parsed: &mut Parsed,
    bundle: &Path,
    v: &mut Violations,
) -> Source {
    let fstype = entry.typ().as_deref().unwrap_or_default();
    if parsed.bind.is_none() && fstype == "bind" {
        parsed.bind = Some(false);
    }
    if parsed.copy_up && (fstype != "tmpfs" || parsed.bind.is_some()) {
        v.warn(
            &format!("mounts[{index}].options"),
            "tmpcopyup is for type tmpfs, and has no effect",
        );
        parsed.copy_up = false;
    }
    if let Some(recursive) = parsed.bind {
        no_data(parsed, index, v);
        return if parsed.remount {
            Source::Remount
        } else {
            bind(entry, index, recursive, bundle, v)
        };
    }
    if parsed.remount {
        return Source::Remount;
    }
    match fstype {
        "" | "none" if !parsed.propagation.is_empty() => Source::Propagation,
        "" | "none" => {
            v.add(
                format!("mounts[{index}].type"),
                "is required, unless the options have bind, rbind or remount",
            );
            Source::Propagation
        }
        "cgroup" | "cgroup2" => Source::Cgroup,
        "sysfs" => Source::Sysfs,
        fstype => file_system(entry, index, fstype, v),
    }
}

fn bind(
    entry: &oci::Mount,
    index: usize,
    recursive: bool,
    bundle: &Path,
    v: &mut Violations,
) -> Source {
    let at = format!("mounts[{index}].source");
    let source = entry
        .source()
        .as_ref()
        .filter(|s| !s.as_os_str().is_empty());
    let Some(source) = source else {
        v.add(&at, "is required for a bind mount");
        return Source::Bind {
            path: PathBuf::new(),
            recursive,
        };
    };
    v.cstring(&at, source);
    Source::Bind {
        path: in_bundle(bundle, source),
        recursive,
    }
}

/// A bind mount shares its file system with the source, so that there is nothing to configure.
fn no_data(parsed: &mut Parsed, index: usize, v: &mut Violations) {
    for (key, value) in parsed.data.drain(..) {
        let key = key.to_string_lossy();
        let at = format!("mounts[{index}].options");
        if value.is_none() && is_superblock_flag(&key) {
            v.warn(&at, &format!("{key} has no effect on a bind mount"));
        } else {
            v.add(
                at,
                format!("'{key}' is for a new file system, and this is a bind mount; remove it"),
            );
        }
    }
}

fn is_superblock_flag(name: &str) -> bool {
    let mut meanings = OPTIONS.iter().map(|(_, meaning)| meaning);
    meanings.any(|m| matches!(m, Meaning::Super(flag) if *flag == name))
}

fn file_system(entry: &oci::Mount, index: usize, fstype: &str, v: &mut Violations) -> Source {
    let source = entry
        .source()
        .as_ref()
        .filter(|s| !s.as_os_str().is_empty());
    let source = source.map_or(fstype.as_ref(), |s| s.as_os_str());
    Source::Fs {
        source: v.cstring(&format!("mounts[{index}].source"), source),
        fstype: v.cstring(&format!("mounts[{index}].type"), fstype),
    }
}

/// Files that lxcfs provides, and knobs of checkpointing and FIPS mode: all that may be mounted inside /proc, as runc has it.
const IN_PROC: [&str; 10] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
];

/// A false /proc would take in whatever reads or writes there for the container's security (CVE-2019-16884, CVE-2019-19921). That a
/// bind mount on /proc has a procfs as its source, and that no symlink leads there, is for whoever mounts to see.
fn covers_proc(destination: &Path, source: &Source, index: usize, v: &mut Violations) {
    let at = || format!("mounts[{index}].destination");
    let path = clean(destination);
    if !path.starts_with("/proc") || matches!(source, Source::Remount | Source::Propagation) {
        return;
    }
    if path == Path::new("/proc") {
        let proc = match source {
            Source::Fs { fstype, .. } => fstype.as_bytes() == b"proc",
            Source::Bind { .. } => true,
            _ => false,
        };
        if !proc {
            v.add(
                at(),
                "/proc may only be of type proc, or a bind mount of one",
            );
        }
    } else if !IN_PROC.iter().any(|allowed| path == Path::new(allowed)) {
        v.add(
            at(),
            format!(
                "'{}' is inside /proc, where nothing may be mounted but {}",
                path.display(),
                IN_PROC.join(", ")
            ),
        );
    }
}

/// Options `uid=` and `gid=` must have a mapping in a new user namespace: the kernel answers a bare EINVAL.
pub fn check_ids(mounts: &[Mount], users: &IdMaps, v: &mut Violations) {
    if users.uids.is_empty() {
        return;
    }
    for mount in mounts {
        for (key, value) in &mount.data {
            let value = value.as_ref().and_then(|v| v.to_str().ok());
            let Some(id) = value.and_then(|v| v.parse().ok()) else {
                continue;
            };
            let mapped = match key.to_bytes() {
                b"uid" => users.host_uid(id),
                b"gid" => users.host_gid(id),
                _ => continue,
            };
            if mapped.is_none() {
                v.add(
                    format!("mounts[{}].options", mount.index),
                    format!(
                        "{}={id} has no mapping in the user namespace; map it or remove the option",
                        key.to_string_lossy()
                    ),
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::namespaces;
    use super::super::users;
    use super::super::violations::testing::*;
    use super::attr::*;
    use super::*;
    use serde_json::{Value, json};
    use std::ffi::CStr;

    fn run_as(spec: &Spec, host: &Host, v: &mut Violations) -> Vec<Mount> {
        let n = namespaces::plan(spec, host, v);
        plan(spec, &options(), &n, host, v)
    }

    fn config(entry: Value) -> Spec {
        spec(json!({
            "root": {"path": "rootfs"},
            "mounts": [entry],
            "linux": {"namespaces": [{"type": "mount"}]},
        }))
    }

    fn run(entry: Value, v: &mut Violations) -> Vec<Mount> {
        run_as(&config(entry), &root(), v)
    }

    fn one(entry: Value) -> Mount {
        good(|v| run(entry, v)).remove(0)
    }

    fn tmpfs(options: Value) -> Value {
        json!({"destination": "/t", "type": "tmpfs", "source": "tmpfs", "options": options})
    }

    fn bind(options: Value) -> Value {
        json!({"destination": "/t", "source": "/s", "options": options})
    }

    fn data(mount: &Mount) -> Vec<String> {
        mount
            .data
            .iter()
            .map(|(key, value)| match value {
                None => key.to_string_lossy().into_owned(),
                Some(value) => format!("{}={}", key.to_string_lossy(), value.to_string_lossy()),
            })
            .collect()
    }

    fn own(set: u64, clear: u64) -> Attributes {
        Attributes {
            set,
            clear,
            ..Attributes::default()
        }
    }

    fn all(rec_set: u64, rec_clear: u64) -> Attributes {
        Attributes {
            rec_set,
            rec_clear,
            ..Attributes::default()
        }
    }

    #[test]
    fn options_become_attributes() {
        for (options, attributes) in [
            (json!([]), own(0, 0)),
            (json!(["defaults"]), own(0, 0)),
            (json!(["ro"]), own(RDONLY, 0)),
            (json!(["ro", "rw"]), own(0, RDONLY)),
            (json!(["rw", "ro"]), own(RDONLY, 0)),
            (
                json!(["nosuid", "nodev", "noexec"]),
                own(NOSUID | NODEV | NOEXEC, 0),
            ),
            (
                json!(["suid", "dev", "exec"]),
                own(0, NOSUID | NODEV | NOEXEC),
            ),
            (json!(["nosymfollow"]), own(NOSYMFOLLOW, 0)),
            (json!(["symfollow"]), own(0, NOSYMFOLLOW)),
            (json!(["nodiratime"]), own(NODIRATIME, 0)),
            (json!(["diratime"]), own(0, NODIRATIME)),
            (json!(["noatime"]), own(NOATIME, ATIME)),
            (json!(["atime"]), own(0, 0)),
            (json!(["relatime"]), own(0, ATIME)),
            (json!(["norelatime"]), own(0, 0)),
            (json!(["strictatime"]), own(STRICTATIME, ATIME)),
            (json!(["nostrictatime"]), own(0, 0)),
            (json!(["noatime", "strictatime"]), own(STRICTATIME, ATIME)),
            (json!(["noatime", "atime"]), own(0, 0)),
            (json!(["strictatime", "atime"]), own(STRICTATIME, ATIME)),
            (json!(["noatime", "norelatime"]), own(NOATIME, ATIME)),
            (json!(["rro"]), all(RDONLY, 0)),
            (json!(["rro", "rrw"]), all(0, RDONLY)),
            (
                json!(["rnosuid", "rnodev", "rnoexec"]),
                all(NOSUID | NODEV | NOEXEC, 0),
            ),
            (
                json!(["rsuid", "rdev", "rexec"]),
                all(0, NOSUID | NODEV | NOEXEC),
            ),
            (
                json!(["rnodiratime", "rnosymfollow"]),
                all(NODIRATIME | NOSYMFOLLOW, 0),
            ),
            (
                json!(["rdiratime", "rsymfollow"]),
                all(0, NODIRATIME | NOSYMFOLLOW),
            ),
            (json!(["rnoatime"]), all(NOATIME, ATIME)),
            (json!(["rstrictatime"]), all(STRICTATIME, ATIME)),
            (json!(["rrelatime"]), all(0, ATIME)),
            (json!(["ratime"]), all(0, ATIME)),
            (json!(["rnorelatime"]), all(0, ATIME)),
            (json!(["rnostrictatime"]), all(0, ATIME)),
            (json!(["rnoatime", "ratime"]), all(0, ATIME)),
            (
                json!(["silent", "loud", "iversion", "noiversion"]),
                own(0, 0),
            ),
        ] {
            let mount = one(tmpfs(options.clone()));
            assert_eq!(mount.attributes, attributes, "{options}");
            assert_eq!(data(&mount), Vec::<String>::new(), "{options}");
        }
    }

    #[test]
    fn the_table_is_sorted_and_has_the_specs_options() {
        assert!(OPTIONS.is_sorted_by_key(|(name, _)| name));
        let known: Vec<&str> = known_options().collect();
        assert_eq!(known.len(), 62);
        assert!(known.contains(&"ridmap") && known.contains(&"tmpcopyup"));
    }

    #[test]
    fn other_options_are_the_file_systems() {
        for (options, expected) in [
            (
                json!(["mode=755", "size=64k"]),
                vec!["mode=755", "size=64k"],
            ),
            (json!(["newinstance"]), vec!["newinstance"]),
            (json!(["a=1,b", "", ",c="]), vec!["a=1", "b", "c="]),
            (
                json!(["context=\"system_u:object_r:x:s0:c1,c2\""]),
                vec!["context=system_u:object_r:x:s0:c1,c2"],
            ),
            (json!(["lowerdir=/a\\,b"]), vec!["lowerdir=/a\\,b"]),
            (json!(["x=a=b"]), vec!["x=a=b"]),
            (
                json!(["sync", "dirsync", "lazytime", "mand"]),
                vec!["sync", "dirsync", "lazytime", "mand"],
            ),
            (
                json!(["sync", "async", "lazytime", "nolazytime", "nomand"]),
                vec![],
            ),
            // names of other letters are no options of the spec
            (json!(["RO", "recursive"]), vec!["RO", "recursive"]),
        ] {
            assert_eq!(data(&one(tmpfs(options.clone()))), expected, "{options}");
        }
    }

    #[test]
    fn propagation_keeps_its_order() {
        use Propagation::*;
        let mount = one(bind(json!([
            "rbind",
            "private",
            "rshared",
            "slave",
            "runbindable",
            "rprivate",
            "shared",
            "rslave",
            "unbindable"
        ])));
        assert_eq!(
            mount.propagation,
            [
                (Private, false),
                (Shared, true),
                (Slave, false),
                (Unbindable, true),
                (Private, true),
                (Shared, false),
                (Slave, true),
                (Unbindable, false),
            ]
        );
    }

    #[test]
    fn sources() {
        let to = |fstype: &str, source: &str, options: Value| {
            one(json!({"destination": "/t", "type": fstype, "source": source, "options": options}))
                .source
        };
        let bound = |path: &str, recursive| Source::Bind {
            path: path.into(),
            recursive,
        };
        let fs = |fstype: &CStr, source: &CStr| Source::Fs {
            fstype: fstype.into(),
            source: source.into(),
        };
        let none = json!([]);
        for (fstype, source, options, expected) in [
            ("", "/s", json!(["bind"]), bound("/s", false)),
            (
                "none",
                "s/./x",
                json!(["rbind"]),
                bound("/bundle/s/x", true),
            ),
            ("bind", "/s", none.clone(), bound("/s", false)),
            ("ext4", "/s", json!(["rbind", "bind"]), bound("/s", true)),
            ("tmpfs", "name", none.clone(), fs(c"tmpfs", c"name")),
            ("tmpfs", "", none.clone(), fs(c"tmpfs", c"tmpfs")),
            ("ext4", "/dev/x", json!(["ro"]), fs(c"ext4", c"/dev/x")),
            ("cgroup", "cgroup", none.clone(), Source::Cgroup),
            ("cgroup2", "cgroup", none.clone(), Source::Cgroup),
            ("sysfs", "sysfs", none, Source::Sysfs),
            ("", "", json!(["remount", "ro"]), Source::Remount),
            (
                "bind",
                "/s",
                json!(["bind", "remount", "ro"]),
                Source::Remount,
            ),
            ("none", "", json!(["rshared"]), Source::Propagation),
        ] {
            assert_eq!(
                to(fstype, source, options.clone()),
                expected,
                "{fstype} {options}"
            );
        }
    }

    #[test]
    fn bad_sources_are_refused() {
        for (entry, fault) in [
            (
                json!({"destination": "/t", "source": "/s"}),
                "mounts[0].type: is required, unless the options have bind, rbind or remount",
            ),
            (
                json!({"destination": "/t", "options": ["bind"]}),
                "mounts[0].source: is required for a bind mount",
            ),
            (
                bind(json!(["bind", "mode=755"])),
                "mounts[0].options: 'mode' is for a new file system, and this is a bind mount; remove it",
            ),
            (
                bind(json!(["bind", "idmap"])),
                "mounts[0]: idmap needs uidMappings and gidMappings, or a user namespace whose mappings it takes",
            ),
            (
                json!({"destination": "/t", "source": "/s", "options": ["bind"],
                    "uidMappings": [{"containerID": 0, "hostID": 0, "size": 1}]}),
                "mounts[0]: an id-mapped mount needs both uidMappings and gidMappings",
            ),
            (
                json!({"destination": "/t", "source": "/s", "type": "tmpfs",
                    "uidMappings": [{"containerID": 0, "hostID": 0, "size": 0}],
                    "gidMappings": [{"containerID": 0, "hostID": 0, "size": 1}]}),
                "mounts[0].uidMappings[0].size: is 0 or missing; say how many ids to map\n\
                 mounts[0]: only bind mounts can be id-mapped; remove idmap and the mappings",
            ),
            (
                json!({"destination": "/t", "source": "/a\u{0}", "type": "tm\u{0}", "options": ["x=\u{0}"]}),
                "mounts[0].options[0]: holds a NUL character; remove it\n\
                 mounts[0].source: holds a NUL character; remove it\n\
                 mounts[0].type: holds a NUL character; remove it",
            ),
        ] {
            assert_eq!(faults(|v| run(entry, v)), fault);
        }
    }

    #[test]
    fn id_mapped_mounts() {
        let map = |host| {
            vec![IdMap {
                container: 0,
                host,
                size: 1,
            }]
        };
        for (option, recursive) in [("bind", false), ("idmap", false), ("ridmap", true)] {
            let mount = one(
                json!({"destination": "/t", "source": "/s", "options": ["rbind", option],
                "uidMappings": [{"containerID": 0, "hostID": 7, "size": 1}],
                "gidMappings": [{"containerID": 0, "hostID": 8, "size": 1}]}),
            );
            let maps = Some((map(7), map(8)));
            assert_eq!(mount.idmap, Some(IdMapped { maps, recursive }), "{option}");
        }
        assert_eq!(one(bind(json!(["bind"]))).idmap, None);
    }

    #[test]
    fn superblock_flags_of_a_bind_mount_are_warned_about() {
        let (mounts, warnings) = warned(|v| run(bind(json!(["bind", "sync", "silent"])), v));
        assert_eq!(mounts[0].data, []);
        assert_eq!(
            warnings,
            ["mounts[0].options: sync has no effect on a bind mount"]
        );
    }

    #[test]
    fn destinations() {
        let at = |path: &str| json!({"destination": path, "type": "tmpfs"});
        for (given, destination) in [
            ("/t", "/t"),
            ("/t/../x", "/t/../x"),
            ("/bundle/rootfs/mnt/x", "/mnt/x"),
            ("/bundle/rootfs2", "/bundle/rootfs2"),
        ] {
            assert_eq!(
                one(at(given)).destination,
                Path::new(destination),
                "{given}"
            );
        }
        let (mounts, warnings) = warned(|v| run(at("tmp/x"), v));
        assert_eq!(mounts[0].destination, Path::new("/tmp/x"));
        assert_eq!(
            warnings,
            [
                "mounts[0].destination: 'tmp/x' is relative, which is deprecated; it is taken from the container's root"
            ]
        );
        let root = "mounts[0].destination: is the container's root, where only a mount of type overlay may be; use \
                    root.path";
        for (given, fault) in [
            ("/", root),
            ("/a/..", root),
            ("/bundle/rootfs", root),
            ("", "mounts[0].destination: is required"),
            (
                "/a\u{0}",
                "mounts[0].destination: holds a NUL character; remove it",
            ),
        ] {
            assert_eq!(faults(|v| run(at(given), v)), fault, "{given:?}");
        }
    }

    #[test]
    fn nothing_false_on_proc() {
        let entry =
            |path: &str, fstype: &str| json!({"destination": path, "type": fstype, "source": "/s"});
        for (path, fstype) in [
            ("/proc", "proc"),
            ("/proc/.", "proc"),
            ("/proc", "bind"),
            ("/proc/uptime", "bind"),
            ("/proc/sys/kernel/ns_last_pid", "bind"),
            ("/process", "tmpfs"),
            ("/mnt/proc", "proc"),
        ] {
            one(entry(path, fstype));
        }
        one(
            json!({"destination": "/proc/sys", "options": ["bind", "remount", "ro"], "source": "/s"}),
        );
        for fstype in ["tmpfs", "sysfs", "cgroup"] {
            assert_eq!(
                faults(|v| run(entry("/x/../proc/", fstype), v)),
                "mounts[0].destination: /proc may only be of type proc, or a bind mount of one"
            );
        }
        for path in [
            "/proc/sys",
            "/proc/self/attr",
            "/proc/uptime/x",
            "proc/../proc/1",
        ] {
            let (_, faults) = with(|v| run(entry(path, "bind"), v));
            let start = format!(
                "mounts[0].destination: '{}' is inside /proc",
                clean(Path::new(path)).display()
            );
            assert!(faults.starts_with(&start), "{faults}");
            assert!(
                faults.ends_with("/proc/sys/crypto/fips_enabled"),
                "{faults}"
            );
        }
    }

    #[test]
    fn an_overlay_at_the_root_is_not_a_mount() {
        let overlay = json!({"destination": "/", "type": "overlay", "options": ["lowerdir=/a"]});
        let mut spec = config(tmpfs(json!([])));
        let entry = serde_json::from_value(overlay).unwrap();
        spec.mounts_mut().as_mut().unwrap().insert(0, entry);
        let mounts = good(|v| run_as(&spec, &root(), v));
        assert_eq!(mounts.len(), 1);
        assert_eq!(mounts[0].index, 1);
    }

    #[test]
    fn who_opens_the_source() {
        let inner = Host {
            in_user_namespace: true,
            ..root()
        };
        let none = json!({"type": "mount"});
        let new = json!({"type": "user"});
        let joined = json!({"type": "user", "path": "/u"});
        for (user_ns, host, parent) in [
            (&none, root(), false),
            (&new, root(), true),
            (&joined, root(), true),
            (&new, inner, true),
            (&new, user(1000), false),
        ] {
            let mut spec = config(bind(json!(["bind"])));
            let entry = serde_json::from_value(user_ns.clone()).unwrap();
            let linux = spec.linux_mut().as_mut().unwrap();
            let list = linux.namespaces_mut().as_mut().unwrap();
            match user_ns == &none {
                true => list[0] = entry,
                false => list.push(entry),
            }
            let mounts = good(|v| run_as(&spec, &host, v));
            assert_eq!(mounts[0].from_parent, parent, "{user_ns} {host:?}");
        }
    }

    #[test]
    fn a_shared_mount_namespace_is_warned_about() {
        let mut spec = config(tmpfs(json!([])));
        spec.set_linux(None);
        let (_, warnings) = warned(|v| run_as(&spec, &root(), v));
        assert_eq!(
            warnings,
            ["mounts: there is no mount namespace: they are made in the host's, and stay there"]
        );
    }

    #[test]
    fn ids_in_options_must_be_mapped() {
        let devpts = |gid: &str| json!({"destination": "/p", "type": "devpts", "options": [gid, "mode=0620"]});
        let ids = users::IdMaps {
            uids: vec![users::IdMap {
                container: 0,
                host: 0,
                size: 5,
            }],
            gids: vec![users::IdMap {
                container: 0,
                host: 0,
                size: 5,
            }],
            writer: users::Writer::Direct,
            deny_setgroups: false,
            claimed: None,
        };
        good(|v| check_ids(&[one(devpts("gid=4"))], &ids, v));
        assert_eq!(
            faults(|v| check_ids(&[one(devpts("gid=5"))], &ids, v)),
            "mounts[0].options: gid=5 has no mapping in the user namespace; map it or remove the option"
        );
    }
}
