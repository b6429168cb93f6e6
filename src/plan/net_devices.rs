//! linux.netDevices: interfaces of the host that become the container's.

use super::Violations;
use super::namespaces::{Kind, Namespaces};
use crate::host::Host;
use oci_spec::runtime::Spec;

/// An interface to move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetDevice {
    /// In husk's network namespace.
    pub name: String,
    /// In the container's; `%d` in it becomes the first number that is free.
    pub inside: String,
}

impl NetDevice {
    /// The kernel chooses the name's number.
    pub fn is_template(&self) -> bool {
        self.inside.contains('%')
    }

    /// Its JSON path.
    pub fn path(&self) -> String {
        format!("linux.netDevices[\"{}\"]", self.name)
    }
}

/// Sorted, so that two runs of one config do the same.
pub fn plan(
    spec: &Spec,
    namespaces: &Namespaces,
    host: &Host,
    v: &mut Violations,
) -> Vec<NetDevice> {
    let given = spec.linux().as_ref().and_then(|l| l.net_devices().as_ref());
    let mut given: Vec<_> = given.into_iter().flatten().collect();
    given.sort_by_key(|(name, _)| *name);
    if given.is_empty() {
        return Vec::new();
    }
    if namespaces.is_host(Kind::Network) {
        v.add(
            "linux.netDevices",
            "unable to move network devices without a NET namespace; add {\"type\": \"network\"} to linux.namespaces",
        );
    }
    if host.rootless() {
        v.add(
            "linux.netDevices",
            "network devices are not supported for rootless containers; remove them, or run husk as root",
        );
    }
    let mut devices: Vec<NetDevice> = Vec::new();
    for (name, device) in given {
        let inside = device.name().as_ref().filter(|n| !n.is_empty());
        let device = NetDevice {
            name: name.clone(),
            inside: inside.unwrap_or(name).clone(),
        };
        let at = device.path();
        if !is_name(name) || name.contains('%') {
            v.add(
                at.clone(),
                format!("invalid network device name \"{name}\""),
            );
        } else if !is_name(&device.inside) || !is_template_or_plain(&device.inside) {
            let name = &device.inside;
            v.add(
                format!("{at}.name"),
                format!("invalid network device name \"{name}\"; it is at most 15 bytes, without blanks, '/' and ':', and with no more than one %d"),
            );
        } else if !device.is_template()
            && let Some(other) = devices.iter().find(|d| d.inside == device.inside)
        {
            v.add(
                format!("{at}.name"),
                format!("'{}' is also what '{}' is to be called; give each a name of its own, or one with %d", device.inside, other.name),
            );
        }
        devices.push(device);
    }
    devices.sort_by_key(NetDevice::is_template); // a template yields to names, whatever the order
    devices
}

/// As the kernel's dev_valid_name().
fn is_name(name: &str) -> bool {
    (1..=15).contains(&name.len())
        && name != "."
        && name != ".."
        && !name
            .bytes()
            .any(|b| b == b'/' || b == b':' || b == 0 || b.is_ascii_whitespace() || b == 0x0b)
}

/// The kernel takes one `%d`, and no other use of the character.
fn is_template_or_plain(name: &str) -> bool {
    match name.split_once('%') {
        None => true,
        Some((_, rest)) => rest.starts_with('d') && !rest.contains('%'),
    }
}

#[cfg(test)]
mod tests {
    use super::super::violations::testing::*;
    use super::*;
    use serde_json::{Value, json};

    fn run(devices: Value, host: &Host, v: &mut Violations) -> Vec<NetDevice> {
        let namespaces = Namespaces {
            new: vec![Kind::Network],
            ..Namespaces::default()
        };
        plan(&linux(json!({"netDevices": devices})), &namespaces, host, v)
    }

    #[test]
    fn devices_keep_their_name_or_get_another() {
        let found = good(|v| {
            let devices = json!({"eth1": {"name": "net%d"}, "eth0": {}, "eth2": {"name": ""}});
            run(devices, &root(), v)
        });
        let device = |name: &str, inside: &str| NetDevice {
            name: name.into(),
            inside: inside.into(),
        };
        let expected = [
            device("eth0", "eth0"),
            device("eth2", "eth2"),
            device("eth1", "net%d"),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn names_that_the_kernel_would_refuse_are_refused() {
        for name in [
            "",
            ".",
            "..",
            "a/b",
            "a:b",
            "a b",
            "a\u{b}b",
            "sixteen-bytes-16",
            "a%d",
        ] {
            let fault = faults(|v| run(json!({name: {}}), &root(), v));
            assert_eq!(
                fault,
                format!("linux.netDevices[\"{name}\"]: invalid network device name \"{name}\"")
            );
        }
        for name in ["a/b", "%s", "%d%d", "sixteen-bytes-%d"] {
            let fault = faults(|v| run(json!({"eth0": {"name": name}}), &root(), v));
            let begin =
                format!("linux.netDevices[\"eth0\"].name: invalid network device name \"{name}\";");
            assert!(fault.starts_with(&begin), "{fault}");
        }
        let twice = json!({"eth0": {"name": "x"}, "eth1": {"name": "x"}, "eth2": {"name": "x%d"}, "eth3": {"name": "x%d"}});
        assert_eq!(
            faults(|v| run(twice, &root(), v)),
            "linux.netDevices[\"eth1\"].name: 'x' is also what 'eth0' is to be called; give each a name of its own, or one with %d"
        );
    }

    #[test]
    fn they_need_a_namespace_and_root() {
        let spec = linux(json!({"netDevices": {"eth0": {}}}));
        assert_eq!(
            faults(|v| plan(&spec, &Namespaces::default(), &root(), v)),
            "linux.netDevices: unable to move network devices without a NET namespace; add {\"type\": \"network\"} to linux.namespaces"
        );
        let fault = faults(|v| run(json!({"eth0": {}}), &user(1000), v));
        assert!(
            fault.starts_with(
                "linux.netDevices: network devices are not supported for rootless containers"
            ),
            "{fault}"
        );
        // none is none, wherever
        let spec = linux(json!({"netDevices": {}}));
        good(|v| plan(&spec, &Namespaces::default(), &user(1000), v));
    }
}
