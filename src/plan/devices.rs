//! Device nodes in the container's /dev: the spec's defaults and linux.devices.

use super::namespaces::{Kind as Namespace, Namespaces};
use super::paths::clean;
use super::{Violations, mounts};
use crate::host::Host;
use oci_spec::runtime::{LinuxDevice, LinuxDeviceType, Spec};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Char,
    Block,
    Fifo,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Absolute in the container.
    pub path: PathBuf,
    pub kind: Kind,
    pub major: u32,
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Devices {
    pub nodes: Vec<Device>,
    /// mknod(2) is refused in a user namespace: bind the host's node of the same path instead.
    pub bind: bool,
    /// The container has a /dev of its own to put nodes and links (fd, stdin, stdout, stderr, ptmx, core) in; no, when it is
    /// a bind mount.
    pub setup: bool,
}

/// The spec's default devices but ptmx and console: ptmx is a link, and the console a bind mount of the terminal.
const DEFAULTS: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// What a dev_t holds (`MINORBITS` 20).
const MAJOR_MAX: i64 = 0xfff;
const MINOR_MAX: i64 = 0xf_ffff;

/// The nodes to make. One of the config's replaces a default one of the same path.
pub fn plan(spec: &Spec, namespaces: &Namespaces, host: &Host, v: &mut Violations) -> Devices {
    let bind = !namespaces.is_host(Namespace::User) || host.in_user_namespace;
    let listed = listed(spec, bind, v);
    let setup = !dev_is_bound(spec);
    if !setup {
        if !listed.is_empty() {
            v.warn(
                "linux.devices",
                "are not made, since /dev is a bind mount of the host's",
            );
        }
        return Devices {
            nodes: Vec::new(),
            bind,
            setup,
        };
    }
    let defaults = DEFAULTS.iter().map(|&(path, major, minor)| Device {
        path: path.into(),
        kind: Kind::Char,
        major,
        minor,
        mode: 0o666,
        uid: 0,
        gid: 0,
    });
    let taken: Vec<PathBuf> = listed.iter().map(|l| clean(&l.path)).collect();
    let mut nodes: Vec<Device> = defaults.filter(|d| !taken.contains(&d.path)).collect();
    // the link to pts/ptmx takes its place, as the spec wants
    nodes.extend(
        listed
            .into_iter()
            .filter(|l| clean(&l.path) != Path::new("/dev/ptmx")),
    );
    Devices { nodes, bind, setup }
}

fn dev_is_bound(spec: &Spec) -> bool {
    spec.mounts()
        .iter()
        .flatten()
        .any(|m| mounts::is_bind(m) && clean(m.destination()) == Path::new("/dev"))
}

fn listed(spec: &Spec, bind: bool, v: &mut Violations) -> Vec<Device> {
    let devices = spec.linux().as_ref().and_then(|l| l.devices().as_ref());
    let mut listed: Vec<Device> = Vec::new();
    // a privileged container has hundreds
    let mut indexes: HashMap<PathBuf, usize> = HashMap::new();
    for (i, device) in devices.into_iter().flatten().enumerate() {
        let at = format!("linux.devices[{i}]");
        let Some(device) = node(device, &at, bind, v) else {
            continue;
        };
        let first = *indexes.entry(clean(&device.path)).or_insert(listed.len());
        match listed.get(first) {
            None => listed.push(device),
            Some(same) if same.is_alike(&device) => {}
            Some(_) => v.add(
                format!("{at}.path"),
                format!("'{}' is given twice, as two devices", device.path.display()),
            ),
        }
    }
    listed
}

impl Device {
    /// The same node, however its path is spelt.
    fn is_alike(&self, other: &Device) -> bool {
        let path = self.path.clone();
        *self
            == Device {
                path,
                ..other.clone()
            }
    }
}

fn node(device: &LinuxDevice, at: &str, bind: bool, v: &mut Violations) -> Option<Device> {
    let kind = match device.typ() {
        LinuxDeviceType::C | LinuxDeviceType::U => Kind::Char,
        LinuxDeviceType::B => Kind::Block,
        LinuxDeviceType::P => Kind::Fifo,
        LinuxDeviceType::A => {
            v.add(
                format!("{at}.type"),
                "'a' is for rules, not for a node; use b, c, u or p",
            );
            return None;
        }
    };
    let path = device.path();
    if path.as_os_str().is_empty() {
        v.warn(at, "has no path, and is not made");
        return None;
    }
    if !path.is_absolute() {
        v.warn(
            &format!("{at}.path"),
            &format!(
                "'{}' is relative; it is taken from the container's root",
                path.display()
            ),
        );
    }
    if clean(path) == Path::new("/") {
        v.add(format!("{at}.path"), "is the root directory");
    }
    v.cstring(&format!("{at}.path"), path);
    let (major, minor) = match kind {
        Kind::Fifo => (0, 0),
        _ => (
            number(device.major(), MAJOR_MAX, &format!("{at}.major"), v),
            number(device.minor(), MINOR_MAX, &format!("{at}.minor"), v),
        ),
    };
    if kind != Kind::Fifo && (major, minor) == (0, 0) && !bind {
        v.warn(at, "is device 0:0, which there is none of");
    }
    Some(Device {
        path: Path::new("/").join(path),
        kind,
        major,
        minor,
        mode: device.file_mode().unwrap_or(0o666) & 0o7777,
        uid: device.uid().unwrap_or(0),
        gid: device.gid().unwrap_or(0),
    })
}

fn number(number: i64, max: i64, at: &str, v: &mut Violations) -> u32 {
    if !(0..=max).contains(&number) {
        v.add(at, format!("{number} is not between 0 and {max}"));
        return 0;
    }
    number as u32
}

#[cfg(test)]
mod tests {
    use super::super::namespaces;
    use super::super::violations::testing::*;
    use super::*;
    use serde_json::{Value, json};

    fn run_as(spec: &Spec, host: &Host, v: &mut Violations) -> Devices {
        let n = namespaces::plan(spec, host, v);
        plan(spec, &n, host, v)
    }

    fn run(devices: Value, v: &mut Violations) -> Devices {
        run_as(&linux(json!({ "devices": devices })), &root(), v)
    }

    fn device(path: &str, kind: Kind, major: u32, minor: u32) -> Device {
        Device {
            path: path.into(),
            kind,
            major,
            minor,
            mode: 0o666,
            uid: 0,
            gid: 0,
        }
    }

    #[test]
    fn the_defaults() {
        let devices = good(|v| run(json!([]), v));
        let expected = DEFAULTS.map(|(path, major, minor)| device(path, Kind::Char, major, minor));
        assert_eq!(devices.nodes, expected);
        assert!(devices.setup && !devices.bind);
        assert_eq!(devices.nodes[0], device("/dev/null", Kind::Char, 1, 3));
    }

    #[test]
    fn the_configs_come_after_the_defaults() {
        let devices = good(|v| {
            run(
                json!([
                    {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o20600, "uid": 1, "gid": 2},
                    {"path": "/dev/u", "type": "u", "major": 4095, "minor": 1_048_575},
                    {"path": "/x/sda", "type": "b", "major": 8, "minor": 0},
                    {"path": "/dev/pipe", "type": "p", "major": -7},
                    {"path": "/dev//ptmx", "type": "c", "major": 5, "minor": 2},
                    {"path": "/dev/./tty", "type": "c", "major": 5, "minor": 0, "fileMode": 0o600},
                    {"path": "/dev//u", "type": "c", "major": 4095, "minor": 1_048_575},
                ]),
                v,
            )
        });
        let fuse = Device {
            mode: 0o600,
            uid: 1,
            gid: 2,
            ..device("/dev/fuse", Kind::Char, 10, 229)
        };
        let tty = Device {
            mode: 0o600,
            ..device("/dev/./tty", Kind::Char, 5, 0)
        };
        assert_eq!(
            devices.nodes[5..],
            [
                fuse,
                device("/dev/u", Kind::Char, 4095, 1_048_575),
                device("/x/sda", Kind::Block, 8, 0),
                device("/dev/pipe", Kind::Fifo, 0, 0),
                tty,
            ]
        );
        assert_eq!(devices.nodes[4].path, Path::new("/dev/urandom"));
    }

    #[test]
    fn odd_devices_are_taken_as_runc_does() {
        for (device, path, warning) in [
            (
                json!({"path": "dev/x", "type": "p"}),
                "/dev/x",
                "[0].path: 'dev/x' is relative; it is taken from the container's root",
            ),
            (
                json!({"path": "/dev/x", "type": "c"}),
                "/dev/x",
                "[0]: is device 0:0, which there is none of",
            ),
            (
                json!({"path": "", "type": "c", "major": 1, "minor": 3}),
                "/dev/tty", // the last of the defaults
                "[0]: has no path, and is not made",
            ),
        ] {
            let (devices, warnings) = warned(|v| run(json!([device]), v));
            assert_eq!(devices.nodes.last().unwrap().path, Path::new(path));
            assert_eq!(warnings, [format!("linux.devices{warning}")]);
        }
    }

    #[test]
    fn bad_devices_are_refused() {
        for (device, fault) in [
            (
                json!({"path": "/dev/x", "type": "a"}),
                "[0].type: 'a' is for rules, not for a node; use b, c, u or p",
            ),
            (
                json!({"path": "/.", "type": "p"}),
                "[0].path: is the root directory",
            ),
            (
                json!({"path": "/dev/x", "type": "c", "major": 4096, "minor": 1}),
                "[0].major: 4096 is not between 0 and 4095",
            ),
            (
                json!({"path": "/dev/x", "type": "b", "major": 1, "minor": -1}),
                "[0].minor: -1 is not between 0 and 1048575",
            ),
            (
                json!({"path": "/dev/\u{0}", "type": "p"}),
                "[0].path: holds a NUL character; remove it",
            ),
        ] {
            let found = faults(|v| run(json!([device]), v));
            assert_eq!(found, format!("linux.devices{fault}"));
        }
        let two = json!([
            {"path": "/dev/x", "type": "c", "major": 1, "minor": 1},
            {"path": "/dev/x/", "type": "c", "major": 1, "minor": 2},
        ]);
        assert_eq!(
            faults(|v| run(two, v)),
            "linux.devices[1].path: '/dev/x/' is given twice, as two devices"
        );
    }

    #[test]
    fn a_user_namespace_binds_the_hosts() {
        let inner = Host {
            in_user_namespace: true,
            ..root()
        };
        let user_ns = linux(json!({
            "namespaces": [{"type": "user"}],
            "devices": [{"path": "/dev/x", "type": "c"}],
        }));
        let devices = good(|v| run_as(&user_ns, &root(), v));
        assert!(devices.bind);
        assert_eq!(devices.nodes.len(), 7);
        assert!(good(|v| run_as(&linux(json!({})), &inner, v)).bind);
    }

    #[test]
    fn a_bound_dev_is_the_hosts() {
        let mut spec = linux(json!({"devices": [{"path": "/dev/x", "type": "p"}]}));
        let bind = |destination: &str, options: Value| {
            let entry = json!({"destination": destination, "source": "/dev", "options": options});
            Some(vec![serde_json::from_value(entry).unwrap()])
        };
        spec.set_mounts(bind("/dev/", json!(["rbind", "ro"])));
        let (devices, warnings) = warned(|v| run_as(&spec, &root(), v));
        assert_eq!((devices.setup, devices.nodes.len()), (false, 0));
        assert_eq!(
            warnings,
            ["linux.devices: are not made, since /dev is a bind mount of the host's"]
        );
        spec.set_mounts(bind("/dev/shm", json!(["rbind"])));
        assert!(good(|v| run_as(&spec, &root(), v)).setup);
    }
}
