//! The root file system: where it comes from and how the container gets into it.

use super::annotations::{self, OVERLAY_LOWER, OVERLAY_TMPFS, OVERLAY_UPPER, OVERLAY_WORK};
use super::hooks::Hooks;
use super::mounts::{self, Attributes, Data, Mount, Propagation, Source, attr};
use super::namespaces::{Kind, Namespaces};
use super::paths::in_bundle;
use super::{Options, Violations};
use crate::host::Host;
use oci_spec::runtime::{self as oci, Spec};
use std::ffi::CString;
use std::path::{Path, PathBuf};

/// How the container's root becomes `/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enter {
    /// pivot_root(2): the usual way before Linux 7.0.
    Pivot,
    /// The tree is made in the host's mount namespace, attached to nothing, and becomes the root of a new one that holds nothing else:
    /// the host's mounts are never copied, and there is no old root to leave. Where the kernel refuses a part of it, [`Enter::Pivot`]
    /// follows; see [`attaches`].
    Attach,
    /// A move onto `/` and chroot(2), for a root that is the initramfs (`--no-pivot`).
    Move,
    /// chroot(2) alone: the container shares the host's mount namespace.
    Chroot,
}

/// An overlay that husk mounts itself, in the container's own mount namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlay {
    /// Topmost first, absolute.
    pub lower: Vec<PathBuf>,
    pub upper: Upper,
    /// Other options of overlayfs (`metacopy=on`, `volatile`), as key and value.
    pub options: Data,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Upper {
    /// No upper layer: the root is read-only.
    None,
    /// Upper and work directory on one file system.
    Dirs { upper: PathBuf, work: PathBuf },
    /// A tmpfs of the container's own, gone with it; `size` as tmpfs(5) takes it.
    Tmpfs { size: Option<CString> },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rootfs {
    /// root.path, absolute.
    pub path: PathBuf,
    pub overlay: Option<Overlay>,
    /// The root becomes read-only at the end. Never without a mount namespace, where it would be the host's root that does.
    pub readonly: bool,
    pub enter: Enter,
    /// Propagation of `/` in the new mount namespace before anything is mounted, and whether it is recursive.
    /// As runc: rslave unless linux.rootfsPropagation says otherwise. Not for [`Enter::Chroot`].
    pub outer: (Propagation, bool),
    /// Propagation of the container's root after pivot_root: linux.rootfsPropagation where `outer` alone does not
    /// make it so, which is shared and unbindable. (rslave now would take the propagation of single mounts back.)
    pub inner: Option<(Propagation, bool)>,
    /// Attributes of a mount entry for `/` (its options), to be set on the root mount.
    pub attributes: Attributes,
}

/// Whether the tree can be made before its mount namespace is ([`Enter::Attach`]). Not
/// - in a user namespace, whose root may mount only in a mount namespace of its own, and a procfs or sysfs only beside one that is whole;
/// - where hooks run before execve: they expect the tree in the mount namespace of the process, some beside the host's files;
/// - where `linux.rootfsPropagation` connects the container's mounts with the host's in another way than as slaves;
/// - with an overlay of husk's, whose tmpfs is attached below it;
/// - for an entry that changes an earlier one, becomes read-only only when all are there, or binds from root.path: what is attached to a
///   tree that is nowhere cannot be changed, nor reached by its path on the host;
/// - for one that is unbindable: a tree that has to be copied after all would lose it.
pub fn attaches(
    rootfs: &Rootfs,
    host: &Host,
    namespaces: &Namespaces,
    mounts: &[Mount],
    hooks: &Hooks,
) -> bool {
    let before = |m: &Mount| {
        let possible = match &m.source {
            Source::Bind { path, .. } => !path.starts_with(&rootfs.path),
            Source::Fs { .. } | Source::Cgroup | Source::Sysfs => true,
            Source::Remount | Source::Propagation => false,
        };
        let unbindable = |(p, _): &(Propagation, bool)| *p == Propagation::Unbindable;
        possible && !m.is_late() && !m.propagation.iter().any(unbindable)
    };
    host.bare_namespaces
        && !host.rootless()
        && rootfs.enter == Enter::Pivot
        && namespaces.is_new(Kind::Mount)
        && namespaces.is_host(Kind::User)
        && rootfs.outer == (Propagation::Slave, true)
        && rootfs.overlay.is_none()
        && hooks.prestart.is_empty()
        && hooks.create_runtime.is_empty()
        && hooks.create_container.is_empty()
        && mounts.iter().all(before)
}

/// The root of a config.
pub fn plan(spec: &Spec, options: &Options, namespaces: &Namespaces, v: &mut Violations) -> Rootfs {
    let own_mounts = !namespaces.is_host(Kind::Mount);
    let entry = overlay_entry(spec, options, v);
    let annotated = annotated_overlay(spec, options, v);
    if let (Some(_), Some(entry)) = (&annotated, &entry) {
        v.add(
            format!("mounts[{}]", entry.index),
            format!(
                "is an overlay for the root, and {} asks for one too; keep one of them",
                annotations::path(OVERLAY_LOWER)
            ),
        );
    }
    let (attributes, entry_readonly) = entry.as_ref().map_or((Attributes::default(), false), |e| {
        (e.attributes, e.readonly)
    });
    let overlay = entry.map(|e| e.overlay).or(annotated);
    if overlay.is_some() && !own_mounts {
        v.add(
            "linux.namespaces",
            "has no mount namespace, which an overlay for the root is mounted in; add {\"type\": \"mount\"}",
        );
    }
    let unwritable = overlay.as_ref().is_some_and(|o| o.upper == Upper::None);
    let (outer, inner) = propagation(spec, options, own_mounts, v);
    Rootfs {
        path: path(spec, options, v),
        readonly: readonly(spec, own_mounts, v) || entry_readonly || unwritable,
        overlay,
        enter: match own_mounts {
            false => Enter::Chroot,
            true if options.no_pivot => Enter::Move,
            true => Enter::Pivot,
        },
        outer,
        inner,
        attributes,
    }
}

fn path(spec: &Spec, options: &Options, v: &mut Violations) -> PathBuf {
    let Some(root) = spec.root() else {
        v.add(
            "root",
            "is required; root.path is the root file system's directory",
        );
        return PathBuf::new();
    };
    if root.path().as_os_str().is_empty() {
        v.add(
            "root.path",
            "is required; it is the root file system's directory",
        );
    }
    v.cstring("root.path", root.path());
    in_bundle(&options.bundle, root.path())
}

fn readonly(spec: &Spec, own_mounts: bool, v: &mut Violations) -> bool {
    let readonly = spec.root().as_ref().and_then(|r| r.readonly()) == Some(true);
    if readonly && !own_mounts {
        v.warn(
            "root.readonly",
            "there is no mount namespace: the root stays writable, since the host's own mounts would change",
        );
    }
    readonly && own_mounts
}

type Propagated = (Propagation, bool);

fn propagation(
    spec: &Spec,
    options: &Options,
    own_mounts: bool,
    v: &mut Violations,
) -> (Propagated, Option<Propagated>) {
    const DEFAULT: Propagated = (Propagation::Slave, true);
    const AT: &str = "linux.rootfsPropagation";
    let linux = spec.linux().as_ref();
    let name = linux.and_then(|l| l.rootfs_propagation().as_deref());
    let Some(name) = name.filter(|n| !n.is_empty()) else {
        return (DEFAULT, None);
    };
    let Some(chosen) = named(name) else {
        v.add(
            AT,
            format!(
                "'{name}' is no propagation; use shared, slave, private or unbindable, or rshared, rslave, rprivate or \
                 runbindable"
            ),
        );
        return (DEFAULT, None);
    };
    if !own_mounts {
        v.add(
            AT,
            "would change the host's mounts; add {\"type\": \"mount\"} to linux.namespaces",
        );
    }
    if options.no_pivot && chosen.0 == Propagation::Private {
        v.add(
            AT,
            format!("'{name}' is not safe with --no-pivot; use slave or rslave"),
        );
    }
    let inner = matches!(chosen.0, Propagation::Shared | Propagation::Unbindable);
    (chosen, inner.then_some(chosen))
}

fn named(name: &str) -> Option<Propagated> {
    Some(match name {
        "private" => (Propagation::Private, false),
        "shared" => (Propagation::Shared, false),
        "slave" => (Propagation::Slave, false),
        "unbindable" => (Propagation::Unbindable, false),
        "rprivate" => (Propagation::Private, true),
        "rshared" => (Propagation::Shared, true),
        "rslave" => (Propagation::Slave, true),
        "runbindable" => (Propagation::Unbindable, true),
        _ => return None,
    })
}

struct OverlayEntry {
    index: usize,
    overlay: Overlay,
    attributes: Attributes,
    /// `ro`, which must wait until the mount points in the root are made.
    readonly: bool,
}

/// The overlay that a mount entry for `/` describes.
fn overlay_entry(spec: &Spec, options: &Options, v: &mut Violations) -> Option<OverlayEntry> {
    let entries = spec.mounts().as_deref().unwrap_or_default();
    let mut found = entries
        .iter()
        .enumerate()
        .filter(|(_, m)| mounts::is_root_overlay(m));
    let (index, entry) = found.next()?;
    if let Some((second, _)) = found.next() {
        v.add(
            format!("mounts[{second}]"),
            format!("is a second overlay for the root after mounts[{index}]; give all layers in one lowerdir"),
        );
    }
    Some(entry_overlay(index, entry, options, v))
}

fn entry_overlay(
    index: usize,
    entry: &oci::Mount,
    options: &Options,
    v: &mut Violations,
) -> OverlayEntry {
    let at = |part: &str| {
        let key = match part {
            "tmpfs" => "upper=",
            "size" => "size=",
            "lower" => "lowerdir=",
            "upper" => "upperdir=",
            _ => "workdir=",
        };
        let mut given = entry.options().iter().flatten();
        match given.position(|o| o.contains(key)) {
            Some(i) => format!("mounts[{index}].options[{i}]"),
            None => format!("mounts[{index}].options"),
        }
    };
    let mut parsed = mounts::parse(entry, index, v);
    if !parsed.propagation.is_empty() || parsed.copy_up || parsed.remount || parsed.idmap.is_some()
    {
        v.add(
            format!("mounts[{index}].options"),
            "tmpcopyup, remount, idmap and propagation are not for the root; use linux.rootfsPropagation",
        );
    }
    let mut take = |key: &[u8]| {
        let i = parsed.data.iter().position(|(k, _)| k.to_bytes() == key)?;
        let value = parsed.data.remove(i).1.unwrap_or_default();
        Some(value.to_string_lossy().into_owned())
    };
    let mut asked = Asked {
        lower: take(b"lowerdir"),
        upper: take(b"upperdir"),
        work: take(b"workdir"),
        tmpfs: None,
    };
    let size = take(b"size");
    match take(b"upper").as_deref() {
        Some("tmpfs") => asked.tmpfs = Some(size.map(|s| tmpfs_size(&s, &at("size"), v))),
        Some(other) => v.add(
            at("tmpfs"),
            format!("'upper={other}' is unknown; use upper=tmpfs or upperdir"),
        ),
        None if size.is_some() => v.add(at("size"), "is the size of upper=tmpfs; add that option"),
        None => {}
    }
    let readonly = parsed.attributes.set & attr::RDONLY != 0;
    parsed.attributes.set &= !attr::RDONLY;
    OverlayEntry {
        index,
        overlay: overlay(asked, parsed.data, &at, options, v),
        attributes: parsed.attributes,
        readonly,
    }
}

/// The overlay that husk's annotations describe.
fn annotated_overlay(spec: &Spec, options: &Options, v: &mut Violations) -> Option<Overlay> {
    let at = |part: &str| annotations::path(&format!("dev.husk.overlay.{part}"));
    let get = |key| annotations::get(spec, key).cloned();
    let asked = Asked {
        lower: get(OVERLAY_LOWER),
        upper: get(OVERLAY_UPPER),
        work: get(OVERLAY_WORK),
        tmpfs: match get(OVERLAY_TMPFS).as_deref() {
            None => None,
            Some("true") => Some(None),
            Some(size) => Some(Some(tmpfs_size(size, &at("tmpfs"), v))),
        },
    };
    (asked != Asked::default()).then(|| overlay(asked, Data::new(), &at, options, v))
}

/// The words for an overlay, from either place.
#[derive(Default, PartialEq)]
struct Asked {
    lower: Option<String>,
    upper: Option<String>,
    work: Option<String>,
    /// With its size.
    tmpfs: Option<Option<CString>>,
}

/// overlayfs takes no more layers (`OVL_MAX_STACK`).
const LAYERS_MAX: usize = 500;

fn overlay(
    asked: Asked,
    rest: Data,
    at: &impl Fn(&str) -> String,
    options: &Options,
    v: &mut Violations,
) -> Overlay {
    let layers = asked
        .lower
        .as_deref()
        .map(annotations::split_paths)
        .unwrap_or_default();
    if layers.is_empty() {
        v.add(
            at("lower"),
            "is required; give the lower layers, topmost first",
        );
    } else if layers.iter().any(String::is_empty) {
        v.add(
            at("lower"),
            "has an empty layer; write \\: for a colon in a name (data-only layers are not supported)",
        );
    } else if layers.len() > LAYERS_MAX {
        v.add(
            at("lower"),
            format!("has {} layers, overlayfs takes {LAYERS_MAX}", layers.len()),
        );
    }
    let alone = layers.len() == 1;
    for part in [
        ("lower", &asked.lower),
        ("upper", &asked.upper),
        ("work", &asked.work),
    ] {
        if let (name, Some(text)) = part {
            v.cstring(&at(name), text);
        }
    }
    let inside = |path: &str| in_bundle(&options.bundle, Path::new(path));
    let upper = match (&asked.upper, &asked.work, asked.tmpfs) {
        (None, None, None) => Upper::None,
        (None, None, Some(size)) => Upper::Tmpfs { size },
        (_, _, Some(_)) => {
            v.add(
                at("tmpfs"),
                "cannot be together with an upper layer or work directory of your own; keep one of the two",
            );
            Upper::None
        }
        (Some(upper), Some(work), None) if !upper.is_empty() && !work.is_empty() => Upper::Dirs {
            upper: inside(upper),
            work: inside(work),
        },
        (Some(_), work, None) if work.as_ref().is_none_or(|w| w.is_empty()) => {
            v.add(
                at("upper"),
                "an upper layer needs a work directory on the same file system; add one",
            );
            Upper::None
        }
        _ => {
            v.add(
                at("work"),
                "a work directory is for an upper layer; add one, or remove it",
            );
            Upper::None
        }
    };
    if alone && upper == Upper::None {
        v.add(
            at("lower"),
            "is a single layer without an upper one, which overlayfs refuses; make it root.path, or add an upper layer",
        );
    }
    Overlay {
        lower: layers.iter().map(|l| inside(l)).collect(),
        upper,
        options: rest,
    }
}

/// A size of tmpfs(5): a number, perhaps with k, m, g or %.
fn tmpfs_size(size: &str, at: &str, v: &mut Violations) -> CString {
    let digits = size
        .strip_suffix(['k', 'K', 'm', 'M', 'g', 'G', '%'])
        .unwrap_or(size);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        v.add(
            at,
            format!("'{size}' is no size; use true for no limit of your own, or a number with k, m, g or %"),
        );
    }
    v.cstring(at, size)
}

#[cfg(test)]
mod tests {
    use super::super::namespaces;
    use super::super::violations::testing::*;
    use super::*;
    use serde_json::{Value, json};

    fn run_with(spec: &Spec, options: &Options, v: &mut Violations) -> Rootfs {
        let n = namespaces::plan(spec, &root(), v);
        plan(spec, options, &n, v)
    }

    fn run(spec: &Spec, v: &mut Violations) -> Rootfs {
        run_with(spec, &options(), v)
    }

    fn entry(options: Value) -> Spec {
        let mut config =
            json!({"root": {"path": "rootfs"}, "linux": {"namespaces": [{"type": "mount"}]}});
        config["mounts"] = json!([{"destination": "/", "type": "overlay", "options": options}]);
        spec(config)
    }

    fn annotated(pairs: &[(&str, &str)]) -> Spec {
        let mut config =
            json!({"root": {"path": "rootfs"}, "linux": {"namespaces": [{"type": "mount"}]}});
        for (part, value) in pairs {
            config["annotations"][format!("dev.husk.overlay.{part}")] = (*value).into();
        }
        spec(config)
    }

    fn paths(list: &[&str]) -> Vec<PathBuf> {
        list.iter().map(PathBuf::from).collect()
    }

    #[test]
    fn the_tree_is_attached_where_nothing_needs_the_hosts_mounts_beside_it() {
        let usual = json!({
            "root": {"path": "rootfs"},
            "mounts": [
                {"destination": "/proc", "type": "proc"},
                {"destination": "/v", "type": "bind", "source": "/v", "options": ["rbind", "rshared"]},
            ],
            "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}]},
            "hooks": {"poststart": [{"path": "/h"}], "startContainer": [{"path": "/h"}]},
        });
        let new = || Host {
            bare_namespaces: true,
            ..root()
        };
        let enter = |config: &Value, host: &Host, options: &Options| {
            let plan = super::super::Plan::new(&spec(config.clone()), host, options).unwrap();
            let ns = &plan.namespaces;
            let first = ns.is_new(Kind::Mount) && plan.rootfs.enter != Enter::Attach;
            assert_eq!(ns.by_init.contains(&Kind::Mount), first, "{config}");
            plan.rootfs.enter
        };
        assert_eq!(enter(&usual, &new(), &options()), Enter::Attach);
        assert_eq!(enter(&usual, &root(), &options()), Enter::Pivot);
        let inner = Host {
            in_user_namespace: true,
            ..new()
        };
        assert_eq!(enter(&usual, &inner, &options()), Enter::Pivot);
        let no_pivot = Options {
            no_pivot: true,
            ..options()
        };
        assert_eq!(enter(&usual, &new(), &no_pivot), Enter::Move);

        let map = json!([{"containerID": 0, "hostID": 100_000, "size": 10}]);
        let (hook, user) = (
            json!([{"path": "/h"}]),
            json!([{"type": "mount"}, {"type": "user"}]),
        );
        let joined = json!([{"type": "mount", "path": "/m"}]);
        let entry = |e: Value| json!([e]);
        for changes in [
            vec![("/hooks/prestart", hook.clone())],
            vec![("/hooks/createRuntime", hook.clone())],
            vec![("/hooks/createContainer", hook)],
            vec![("/linux/rootfsPropagation", "shared".into())],
            vec![("/linux/rootfsPropagation", "slave".into())],
            vec![("/linux/rootfsPropagation", "rprivate".into())],
            vec![("/linux/namespaces", joined)],
            vec![
                ("/linux/namespaces", user),
                ("/linux/uidMappings", map.clone()),
                ("/linux/gidMappings", map),
            ],
            vec![("/annotations", json!({OVERLAY_LOWER: "/l:/m"}))],
            vec![(
                "/mounts",
                entry(json!({"destination": "/v", "options": ["remount", "ro"]})),
            )],
            vec![(
                "/mounts",
                entry(json!({"destination": "/v", "type": "none", "options": ["shared"]})),
            )],
            vec![(
                "/mounts",
                entry(json!({"destination": "/v", "source": "rootfs/x", "options": ["bind"]})),
            )],
        ] {
            let mut config = usual.clone();
            for (at, value) in &changes {
                let (section, key) = at.rsplit_once('/').unwrap();
                config.pointer_mut(section).unwrap()[key] = value.clone();
            }
            assert_eq!(
                enter(&config, &new(), &options()),
                Enter::Pivot,
                "{changes:?}"
            );
        }
    }

    #[test]
    fn a_plain_root() {
        let mut spec = linux(json!({}));
        let r = good(|v| run(&spec, v));
        assert_eq!(r.path, Path::new("/bundle/rootfs"));
        assert_eq!(
            (r.overlay, r.readonly, r.enter),
            (None, false, Enter::Pivot)
        );
        assert_eq!((r.outer, r.inner), ((Propagation::Slave, true), None));
        spec.set_root(serde_json::from_value(json!({"path": "/r/.", "readonly": true})).unwrap());
        let r = good(|v| run(&spec, v));
        assert_eq!((r.path.as_path(), r.readonly), (Path::new("/r"), true));
        let no_pivot = Options {
            no_pivot: true,
            ..options()
        };
        assert_eq!(good(|v| run_with(&spec, &no_pivot, v)).enter, Enter::Move);
    }

    #[test]
    fn the_root_is_required() {
        assert_eq!(
            faults(|v| run(&spec(json!({})), v)),
            "root: is required; root.path is the root file system's directory"
        );
        assert_eq!(
            faults(|v| run(&spec(json!({"root": {}})), v)),
            "root.path: is required; it is the root file system's directory"
        );
        assert_eq!(
            faults(|v| run(&spec(json!({"root": {"path": "\u{0}"}})), v)),
            "root.path: holds a NUL character; remove it"
        );
    }

    #[test]
    fn the_hosts_mounts_are_left_alone() {
        let shared = spec(json!({"root": {"path": "r", "readonly": true}}));
        let (r, warnings) = warned(|v| run(&shared, v));
        assert_eq!((r.enter, r.readonly, r.inner), (Enter::Chroot, false, None));
        assert_eq!(
            warnings,
            [
                "root.readonly: there is no mount namespace: the root stays writable, since the host's own mounts would \
                 change"
            ]
        );
        let shared = spec(json!({"root": {"path": "r"}, "linux": {"rootfsPropagation": "shared"}}));
        assert_eq!(
            faults(|v| run(&shared, v)),
            "linux.rootfsPropagation: would change the host's mounts; add {\"type\": \"mount\"} to linux.namespaces"
        );
    }

    #[test]
    fn propagation() {
        use Propagation::*;
        for (name, outer, inner) in [
            ("", (Slave, true), false),
            ("private", (Private, false), false),
            ("rprivate", (Private, true), false),
            ("slave", (Slave, false), false),
            ("rslave", (Slave, true), false),
            ("shared", (Shared, false), true),
            ("rshared", (Shared, true), true),
            ("unbindable", (Unbindable, false), true),
            ("runbindable", (Unbindable, true), true),
        ] {
            let r = good(|v| run(&linux(json!({"rootfsPropagation": name})), v));
            assert_eq!(
                (r.outer, r.inner),
                (outer, inner.then_some(outer)),
                "{name}"
            );
        }
        assert_eq!(
            faults(|v| run(&linux(json!({"rootfsPropagation": "Shared"})), v)),
            "linux.rootfsPropagation: 'Shared' is no propagation; use shared, slave, private or unbindable, or rshared, \
             rslave, rprivate or runbindable"
        );
        let no_pivot = Options {
            no_pivot: true,
            ..options()
        };
        assert_eq!(
            faults(|v| run_with(
                &linux(json!({"rootfsPropagation": "rprivate"})),
                &no_pivot,
                v
            )),
            "linux.rootfsPropagation: 'rprivate' is not safe with --no-pivot; use slave or rslave"
        );
    }

    #[test]
    fn an_overlay_by_mount_entry() {
        let spec = entry(json!([
            "lowerdir=/l1:l2:/with\\:colon",
            "upperdir=u,workdir=/w",
            "metacopy=on",
            "volatile",
            "nodev",
            "ro"
        ]));
        let r = good(|v| run(&spec, v));
        let overlay = r.overlay.unwrap();
        assert_eq!(overlay.lower, paths(&["/l1", "/bundle/l2", "/with:colon"]));
        assert_eq!(
            overlay.upper,
            Upper::Dirs {
                upper: "/bundle/u".into(),
                work: "/w".into()
            }
        );
        assert_eq!(
            overlay.options,
            [
                (c"metacopy".into(), Some(c"on".into())),
                (c"volatile".into(), None)
            ]
        );
        // ro waits until the mount points are made
        assert_eq!((r.attributes.set, r.readonly), (attr::NODEV, true));

        let r = good(|v| run(&entry(json!(["lowerdir=/a", "upper=tmpfs", "size=10%"])), v));
        let size = Some(c"10%".into());
        assert_eq!(r.overlay.unwrap().upper, Upper::Tmpfs { size });
        assert!(!r.readonly);

        let r = good(|v| run(&entry(json!(["lowerdir=/a:/b"])), v));
        assert_eq!(r.overlay.unwrap().upper, Upper::None);
        assert!(r.readonly);
    }

    #[test]
    fn an_overlay_by_annotations() {
        let spec = annotated(&[("lower", "/a:b"), ("upper", "u"), ("work", "w")]);
        let r = good(|v| run(&spec, v));
        let dirs = Upper::Dirs {
            upper: "/bundle/u".into(),
            work: "/bundle/w".into(),
        };
        let overlay = Overlay {
            lower: paths(&["/a", "/bundle/b"]),
            upper: dirs,
            options: Vec::new(),
        };
        assert_eq!((r.overlay, r.readonly), (Some(overlay), false));
        for (value, size) in [("true", None), ("64m", Some(c"64m".into()))] {
            let r = good(|v| run(&annotated(&[("lower", "/a"), ("tmpfs", value)]), v));
            assert_eq!(r.overlay.unwrap().upper, Upper::Tmpfs { size }, "{value}");
        }
    }

    #[test]
    fn bad_overlays_by_mount_entry_are_refused() {
        let no_work = "an upper layer needs a work directory on the same file system; add one";
        let no_upper = "a work directory is for an upper layer; add one, or remove it";
        for (options, index, fault) in [
            (
                json!([]),
                "",
                "is required; give the lower layers, topmost first",
            ),
            (
                json!(["lowerdir=/a::/b", "upper=tmpfs"]),
                "[0]",
                "has an empty layer; write \\: for a colon in a name (data-only layers are not supported)",
            ),
            (
                json!(["lowerdir=/a"]),
                "[0]",
                "is a single layer without an upper one, which overlayfs refuses; make it root.path, or add an upper \
                 layer",
            ),
            (json!(["lowerdir=/a:/b", "upperdir=/u"]), "[1]", no_work),
            (
                json!(["lowerdir=/a:/b", "upperdir=/u", "workdir="]),
                "[1]",
                no_work,
            ),
            (json!(["lowerdir=/a:/b", "workdir=/w"]), "[1]", no_upper),
            (
                json!(["lowerdir=/a:/b", "upperdir=", "workdir=/w"]),
                "[2]",
                no_upper,
            ),
            (
                json!(["lowerdir=/a:/b", "upper=tmpfs", "upperdir=/u", "workdir=/w"]),
                "[1]",
                "cannot be together with an upper layer or work directory of your own; keep one of the two",
            ),
            (
                json!(["lowerdir=/a:/b", "upper=ram"]),
                "[1]",
                "'upper=ram' is unknown; use upper=tmpfs or upperdir",
            ),
            (
                json!(["lowerdir=/a:/b", "size=1m"]),
                "[1]",
                "is the size of upper=tmpfs; add that option",
            ),
            (
                json!(["lowerdir=/a:/b", "upper=tmpfs", "size=big"]),
                "[2]",
                "'big' is no size; use true for no limit of your own, or a number with k, m, g or %",
            ),
            (
                json!(["lowerdir=/a:/b", "rshared"]),
                "",
                "tmpcopyup, remount, idmap and propagation are not for the root; use linux.rootfsPropagation",
            ),
        ] {
            let found = faults(|v| run(&entry(options.clone()), v));
            assert_eq!(
                found,
                format!("mounts[0].options{index}: {fault}"),
                "{options}"
            );
        }
        let many = format!("lowerdir={}", vec!["/l"; 501].join(":"));
        assert_eq!(
            faults(|v| run(&entry(json!([many])), v)),
            "mounts[0].options[0]: has 501 layers, overlayfs takes 500"
        );
    }

    #[test]
    fn bad_overlays_by_annotations_are_refused() {
        for (pairs, part, fault) in [
            (
                &[("upper", "/u"), ("work", "/w")][..],
                "lower",
                "is required; give the lower layers, topmost first",
            ),
            (
                &[("lower", "/a:/b"), ("upper", "/u")],
                "upper",
                "an upper layer needs a work directory on the same file system; add one",
            ),
            (
                &[("lower", "/a:/b"), ("tmpfs", "yes")],
                "tmpfs",
                "'yes' is no size; use true for no limit of your own, or a number with k, m, g or %",
            ),
            (
                &[("lower", "/a:/b"), ("tmpfs", "1g"), ("work", "/w")],
                "tmpfs",
                "cannot be together with an upper layer or work directory of your own; keep one of the two",
            ),
            (
                &[("lower", "/a:/\u{0}"), ("tmpfs", "1g")],
                "lower",
                "holds a NUL character; remove it",
            ),
        ] {
            let found = faults(|v| run(&annotated(pairs), v));
            assert_eq!(
                found,
                format!("annotations[\"dev.husk.overlay.{part}\"]: {fault}")
            );
        }
    }

    #[test]
    fn one_overlay_is_enough() {
        let mut both = annotated(&[("lower", "/a:/b")]);
        both.set_mounts(entry(json!(["lowerdir=/c:/d"])).mounts().clone());
        assert_eq!(
            faults(|v| run(&both, v)),
            "mounts[0]: is an overlay for the root, and annotations[\"dev.husk.overlay.lower\"] asks for one too; keep \
             one of them"
        );
        let mut two = entry(json!(["lowerdir=/c:/d"]));
        let again = two.mounts().as_ref().unwrap()[0].clone();
        two.mounts_mut().as_mut().unwrap().push(again);
        assert_eq!(
            faults(|v| run(&two, v)),
            "mounts[1]: is a second overlay for the root after mounts[0]; give all layers in one lowerdir"
        );
        let mut shared = annotated(&[("lower", "/a:/b")]);
        shared.set_linux(None);
        assert_eq!(
            faults(|v| run(&shared, v)),
            "linux.namespaces: has no mount namespace, which an overlay for the root is mounted in; add {\"type\": \
             \"mount\"}"
        );
    }
}
