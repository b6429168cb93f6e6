//! The container's cgroup: where it is, what is written to it, and who owns it.

use super::mounts::{Mount, Source, attr};
use super::namespaces::{Kind as Namespace, Namespaces};
use super::paths::clean;
use super::resources::{self, DeviceRule, Write};
use super::systemd::{self, Unit};
use super::users::IdMaps;
use super::{Options, Violations, limits};
use crate::host::{CgroupMount, Host};
use oci_spec::runtime::{Linux, Spec};
use std::path::{Component, Path, PathBuf};

/// Who makes the cgroup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Manager {
    /// husk, in the file system.
    #[default]
    Fs,
    /// systemd: its instance for the user rather than for the system.
    Systemd { user: bool },
    /// Nobody.
    Disabled,
}

/// Where the container is put.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Placement {
    /// In the cgroup at the plan's path, made by husk.
    #[default]
    Fs,
    /// In a scope of systemd's.
    Systemd(Box<Unit>),
    /// It stays in husk's own cgroup.
    Nowhere,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cgroup {
    pub placement: Placement,
    /// Of the cgroup2 file system.
    pub mountpoint: Option<PathBuf>,
    /// Relative to the root of the cgroup2 mount (no leading slash, no "..").
    pub path: PathBuf,
    /// The config names a path, or asks for a limit: without a cgroup2 mount, or without the right to make a cgroup, that is an error.
    pub required: bool,
    /// Controllers that the writes need.
    pub controllers: Vec<String>,
    pub writes: Vec<Write>,
    /// None leaves the devices alone; else the container's rules with the spec's default devices appended.
    pub devices: Option<Vec<DeviceRule>>,
    /// Without the right to load programs the container runs without device rules, as rootless containers do everywhere.
    pub devices_may_fail: bool,
    /// The host's uid that the container's cgroup is delegated to.
    pub owner: Option<u32>,
}

#[allow(clippy::too_many_arguments)]
pub fn plan(
    spec: &Spec,
    host: &Host,
    options: &Options,
    namespaces: &Namespaces,
    users: Option<&IdMaps>,
    mounts: &[Mount],
    v: &mut Violations,
) -> Cgroup {
    let linux = spec.linux().as_ref();
    let given = linux
        .and_then(|l| l.cgroups_path().as_deref())
        .filter(|p| !p.as_os_str().is_empty());
    let resources = linux.and_then(|l| l.resources().as_ref());
    let mut writes = resources.map_or_else(Vec::new, |r| resources::plan(r, "linux.resources", v));
    writes.append(&mut limits::plan(spec, v));
    let rules = resources.and_then(|r| r.devices().as_deref());
    let rootless = options.rootless.unwrap_or(host.rootless());
    let (placement, path) = match options.cgroup_manager {
        Manager::Fs => (
            Placement::Fs,
            path(given, &options.id, host.cgroup.as_ref(), v),
        ),
        Manager::Systemd { user } => {
            systemd::as_kept(&mut writes);
            let (unit, path) = systemd::unit(given, &options.id, user, spec, &writes, v);
            (Placement::Systemd(Box::new(unit)), path)
        }
        Manager::Disabled => {
            disabled(given, &writes, rules, v);
            (Placement::Nowhere, PathBuf::new())
        }
    };
    Cgroup {
        placement,
        mountpoint: host.cgroup.as_ref().map(|c| c.mountpoint.clone()),
        path,
        // rootless, the engines' "deny all devices" is nothing that anybody could carry out
        required: given.is_some()
            || !writes.is_empty()
            || (!rootless && rules.is_some_and(|r| !r.is_empty())),
        controllers: controllers(&writes),
        writes,
        devices: Some(resources::devices(
            rules.unwrap_or_default(),
            "linux.resources.devices",
            &nodes_given(linux),
            v,
        )),
        devices_may_fail: rootless,
        owner: owner(spec, namespaces, users, mounts),
    }
}

/// Without a cgroup nothing can be limited; the engines' usual device rules are no reason to refuse a container.
fn disabled(
    given: Option<&Path>,
    writes: &[Write],
    rules: Option<&[oci_spec::runtime::LinuxDeviceCgroup]>,
    v: &mut Violations,
) {
    let mut fields: Vec<&str> = writes.iter().map(|w| w.field.as_str()).collect();
    fields.dedup();
    if given.is_some() {
        fields.insert(0, "linux.cgroupsPath");
    }
    for field in fields {
        v.add(
            field,
            "cannot be with --cgroup-manager disabled; remove it, or use another manager",
        );
    }
    if rules.is_some_and(|r| !r.is_empty()) {
        v.warn(
            "linux.resources.devices",
            "not enforced: --cgroup-manager disabled",
        );
    }
}

/// The controllers that these writes need, each once.
pub fn controllers(writes: &[Write]) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for name in writes.iter().filter_map(Write::controller) {
        if !out.iter().any(|o| o == name) {
            out.push(name.into());
        }
    }
    out
}

/// An absolute cgroupsPath is below the mount's root; a relative one, or the id, is a sibling of husk's own cgroup, since that
/// one holds husk itself and so cannot give controllers to children (cgroups(7), "no internal processes").
fn path(
    given: Option<&Path>,
    id: &str,
    mount: Option<&CgroupMount>,
    v: &mut Violations,
) -> PathBuf {
    let mut out = PathBuf::new();
    let own = mount.and_then(|m| m.own.as_deref());
    if !given.is_some_and(Path::is_absolute) {
        let parent = own.and_then(Path::parent).unwrap_or(Path::new(""));
        out.extend(normal(parent));
    }
    let named = given.unwrap_or(Path::new(id));
    // as runc has it: ".." goes up by name, and never above where the path starts
    let cleaned = clean(named);
    if named.components().any(|c| c == Component::ParentDir) {
        v.warn(
            "linux.cgroupsPath",
            &format!("is '{}', taken as '{}'", named.display(), cleaned.display()),
        );
    }
    if looks_like_systemd(named) {
        v.warn(
            "linux.cgroupsPath",
            &format!(
                "is '{}', which looks like systemd's slice:prefix:name; without --systemd-cgroup it is the name of a directory",
                named.display()
            ),
        );
    }
    let before = out.clone();
    out.extend(normal(&cleaned));
    if out == before {
        v.add(
            "linux.cgroupsPath",
            format!(
                "is '{}', the root of the hierarchy, which takes no limits; name a cgroup below it",
                named.display()
            ),
        );
    }
    out
}

fn normal(path: &Path) -> impl Iterator<Item = Component<'_>> {
    path.components()
        .filter(|c| matches!(c, Component::Normal(_)))
}

fn looks_like_systemd(path: &Path) -> bool {
    path.is_relative() && path.as_os_str().to_string_lossy().matches(':').count() == 2
}

/// Paths of linux.devices: a default device that the config makes itself is the config's business.
pub(super) fn nodes_given(linux: Option<&Linux>) -> Vec<&Path> {
    linux
        .and_then(|l| l.devices().as_ref())
        .map_or_else(Vec::new, |d| d.iter().map(|d| d.path().as_path()).collect())
}

/// The spec (config-linux, "Cgroup ownership") lets a runtime give the cgroup to the user of the container's process when the
/// container has a cgroup namespace of its own and a writable cgroup file system: a systemd in it needs that.
fn owner(
    spec: &Spec,
    namespaces: &Namespaces,
    users: Option<&IdMaps>,
    mounts: &[Mount],
) -> Option<u32> {
    let writable = |m: &Mount| {
        matches!(m.source, Source::Cgroup)
            && normal(&m.destination).eq(normal(Path::new("/sys/fs/cgroup")))
            && m.attributes.set & attr::RDONLY == 0
    };
    if !namespaces.is_new(Namespace::Cgroup) || !mounts.iter().any(writable) {
        return None;
    }
    let uid = spec.process().as_ref().map_or(0, |p| p.user().uid());
    match users {
        Some(maps) => maps.host_uid(uid),
        // root owns what husk makes as root
        None => Some(uid).filter(|u| *u != 0),
    }
}

#[cfg(test)]
mod tests {
    use super::super::users::{IdMap, Writer};
    use super::*;

    fn mount(own: &str) -> CgroupMount {
        CgroupMount {
            mountpoint: "/sys/fs/cgroup".into(),
            own: Some(own.into()),
        }
    }

    fn faults(v: Violations) -> String {
        v.into_result(())
            .err()
            .map_or(String::new(), |v| v.to_string())
    }

    #[test]
    fn paths() {
        let cases: [(Option<&str>, &str, &str); 9] = [
            (
                Some("/docker/abc"),
                "user.slice/session-1.scope",
                "docker/abc",
            ),
            (
                Some("docker/abc"),
                "user.slice/session-1.scope",
                "user.slice/docker/abc",
            ),
            (None, "user.slice/session-1.scope", "user.slice/id"),
            (None, "/user.slice/session-1.scope", "user.slice/id"),
            (None, "", "id"),
            (None, "/", "id"),
            (None, "shell", "id"),
            (Some("//a/./b/"), "", "a/b"),
            (Some("/slice:with:colons/x"), "", "slice:with:colons/x"),
        ];
        for (given, own, want) in cases {
            let mut v = Violations::default();
            let got = path(given.map(Path::new), "id", Some(&mount(own)), &mut v);
            assert_eq!(got, Path::new(want), "{given:?} in {own:?}");
            assert_eq!(faults(v), "");
        }
        let mut v = Violations::default();
        assert_eq!(path(None, "id", None, &mut v), Path::new("id"));
    }

    #[test]
    fn without_a_manager() {
        let plan = |linux: serde_json::Value, v: &mut Violations| {
            let spec = spec(
                serde_json::json!({"ociVersion": "1.2.1", "root": {"path": "r"}, "linux": linux}),
            );
            let options = Options {
                id: "id".into(),
                cgroup_manager: Manager::Disabled,
                ..Default::default()
            };
            let host = Host::default();
            super::plan(&spec, &host, &options, &Namespaces::default(), None, &[], v)
        };
        let mut v = Violations::default();
        let deny =
            serde_json::json!({"resources": {"devices": [{"allow": false, "access": "rwm"}]}});
        assert_eq!(plan(deny, &mut v).placement, Placement::Nowhere);
        assert_eq!(
            v.take_warnings(),
            ["linux.resources.devices: not enforced: --cgroup-manager disabled"]
        );
        assert_eq!(faults(v), "");
        let mut v = Violations::default();
        let limits = serde_json::json!({"cgroupsPath": "/x", "resources": {"pids": {"limit": 3}}});
        plan(limits, &mut v);
        let why = "cannot be with --cgroup-manager disabled; remove it, or use another manager";
        assert_eq!(
            faults(v),
            format!("linux.cgroupsPath: {why}\nlinux.resources.pids.limit: {why}")
        );
    }

    #[test]
    fn odd_paths_are_taken_as_runc_does() {
        for (given, taken, warning) in [
            ("/a/../b", "b", "is '/a/../b', taken as '/b'"),
            ("../b", "a/b", "is '../b', taken as '/b'"),
            ("x/../../../b", "a/b", "is 'x/../../../b', taken as '/b'"),
            (
                "system.slice:docker:id",
                "a/system.slice:docker:id",
                "is 'system.slice:docker:id', which looks like systemd's slice:prefix:name; without --systemd-cgroup it is the name of a directory",
            ),
        ] {
            let mut v = Violations::default();
            let found = path(Some(Path::new(given)), "id", Some(&mount("a/b")), &mut v);
            assert_eq!(found, Path::new(taken));
            assert_eq!(v.take_warnings(), [format!("linux.cgroupsPath: {warning}")]);
            assert_eq!(v.to_string(), "");
        }
    }

    #[test]
    fn paths_refused() {
        let cases = [
            (
                "/a/..",
                "linux.cgroupsPath: is '/a/..', the root of the hierarchy, which takes no limits; name a cgroup below it",
            ),
            (
                "/",
                "linux.cgroupsPath: is '/', the root of the hierarchy, which takes no limits; name a cgroup below it",
            ),
            (
                ".",
                "linux.cgroupsPath: is '.', the root of the hierarchy, which takes no limits; name a cgroup below it",
            ),
        ];
        for (given, want) in cases {
            let mut v = Violations::default();
            path(Some(Path::new(given)), "id", Some(&mount("a/b")), &mut v);
            assert_eq!(faults(v), want);
        }
    }

    fn spec(json: serde_json::Value) -> Spec {
        serde_json::from_value(json).unwrap()
    }

    fn cgroup_mount(destination: &str, set: u64) -> Mount {
        Mount {
            index: 0,
            destination: destination.into(),
            source: Source::Cgroup,
            attributes: super::super::mounts::Attributes {
                set,
                ..Default::default()
            },
            propagation: vec![],
            data: vec![],
            copy_up: false,
            idmap: None,
            from_parent: false,
        }
    }

    #[test]
    fn ownership() {
        let maps = IdMaps {
            uids: vec![IdMap {
                container: 0,
                host: 100_000,
                size: 2000,
            }],
            gids: vec![],
            writer: Writer::Direct,
            deny_setgroups: false,
            claimed: None,
        };
        let own = Namespaces {
            new: vec![Namespace::Cgroup],
            ..Default::default()
        };
        let shared = Namespaces::default();
        let rw = cgroup_mount("/sys/fs/cgroup/", 0);
        let ro = cgroup_mount("/sys/fs/cgroup", attr::RDONLY);
        let elsewhere = cgroup_mount("/cgroup", 0);
        let cases = [
            (0, &own, Some(&maps), &rw, Some(100_000)),
            (1000, &own, Some(&maps), &rw, Some(101_000)),
            (5000, &own, Some(&maps), &rw, None),
            (0, &own, Some(&maps), &ro, None),
            (0, &own, Some(&maps), &elsewhere, None),
            (0, &shared, Some(&maps), &rw, None),
            (0, &own, None, &rw, None),
            (1000, &own, None, &rw, Some(1000)),
        ];
        for (uid, namespaces, users, mount, want) in cases {
            let spec = spec(
                serde_json::json!({"ociVersion": "1.2.1", "root": {"path": "r"},
                "process": {"cwd": "/", "user": {"uid": uid, "gid": 0}, "args": ["x"]}}),
            );
            let got = owner(&spec, namespaces, users, std::slice::from_ref(mount));
            assert_eq!(got, want, "{uid} {mount:?}");
        }
    }

    #[test]
    fn what_is_required() {
        let root = Host::default();
        let rootless = Host {
            euid: 1000,
            ..Host::default()
        };
        let deny =
            serde_json::json!({"resources": {"devices": [{"allow": false, "access": "rwm"}]}});
        let limit = serde_json::json!({"resources": {"pids": {"limit": 3}}});
        let named = serde_json::json!({"cgroupsPath": "/x"});
        let cases = [
            (&root, serde_json::json!({}), false),
            (&rootless, serde_json::json!({}), false),
            (&root, deny.clone(), true),
            (&rootless, deny, false),
            (&rootless, limit, true),
            (&rootless, named, true),
        ];
        for (host, linux, want) in cases {
            let spec = spec(
                serde_json::json!({"ociVersion": "1.2.1", "root": {"path": "r"}, "linux": linux}),
            );
            let mut v = Violations::default();
            let options = Options {
                id: "id".into(),
                ..Default::default()
            };
            let got = plan(
                &spec,
                host,
                &options,
                &Namespaces::default(),
                None,
                &[],
                &mut v,
            );
            assert_eq!(got.required, want, "{linux}");
            assert_eq!(got.devices_may_fail, host.euid != 0);
        }
    }
}
