//! `husk features` and `husk --version`: what engines ask before they rely on something. Only what works is said to.

use super::print;
use crate::plan::seccomp::{self, arch::Arch};
use crate::plan::{annotations, memory_policy, mounts};
use crate::sys::seccomp::knows;
use anyhow::Result;
use oci_spec::runtime::LinuxSeccompFilterFlag;
use serde_json::{Value, json};

pub fn run() -> Result<i32> {
    print(&(serde_json::to_string_pretty(&features())? + "\n"))?;
    Ok(0)
}

/// features.md and features-linux.md of the runtime specification.
fn features() -> Value {
    let mount_options: Vec<_> = mounts::known_options().collect();
    let id_maps = mount_options.contains(&"idmap");
    json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": crate::OCI_VERSION,
        "hooks": [
            "prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop",
        ],
        "mountOptions": mount_options,
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
            "capabilities": capabilities(),
            "cgroup": {
                "v1": false,
                "v2": true,
                "systemd": true,
                "systemdUser": true,
                "rdma": true,
            },
            "seccomp": {
                "enabled": Arch::NATIVE.is_some(),
                "actions": seccomp::ACTIONS,
                "operators": seccomp::OPERATORS,
                "archs": seccomp::architectures().collect::<Vec<_>>(),
                "knownFlags": seccomp::FLAGS.map(|(flag, _)| flag),
                "supportedFlags": supported_flags(),
            },
            "apparmor": { "enabled": true },
            "selinux": { "enabled": true },
            "intelRdt": { "enabled": true, "schemata": true, "monitoring": true },
            "mountExtensions": { "idmap": { "enabled": id_maps } },
            "netDevices": { "enabled": true },
            "memoryPolicy": {
                "modes": memory_policy::MODES.map(|(mode, _)| mode),
                "flags": memory_policy::FLAGS.map(|(flag, _)| flag),
            },
        },
        "annotations": {
            "dev.husk.version": env!("CARGO_PKG_VERSION"),
            "dev.husk.landlock": "fs,tcp,scope", // what its annotations can restrict
        },
        // they name directories and sockets of the host, and what is taken from others; with a dot at the end all that begin so
        "potentiallyUnsafeConfigAnnotations": [
            annotations::OVERLAY_LOWER,
            annotations::OVERLAY_UPPER,
            annotations::OVERLAY_WORK,
            "dev.husk.memory.min",
            "dev.husk.cpu.uclamp.min",
            "dev.husk.cpuset.cpus.partition",
            "dev.husk.io.latency",
            "org.systemd.property.",
            "run.oci.",
        ],
    })
}

fn supported_flags() -> Vec<LinuxSeccompFilterFlag> {
    let all = seccomp::FLAGS.into_iter();
    let known = all.filter(|(_, bit)| *bit == 0 || knows(*bit));
    known.map(|(flag, _)| flag).collect()
}

/// In the kernel's order.
fn capabilities() -> Vec<String> {
    let mut all: Vec<caps::Capability> = caps::all().into_iter().collect();
    all.sort_by_key(|c| c.index());
    all.iter().map(ToString::to_string).collect()
}

/// Line by line as runc and crun: go-runc reads it.
pub fn version(name: &str) -> Result<i32> {
    let commit = option_env!("HUSK_COMMIT").unwrap_or("unknown"); // set by whoever builds a release
    print(&format!(
        "{name} version {}\ncommit: {commit}\nspec: {}\n",
        env!("CARGO_PKG_VERSION"),
        crate::OCI_VERSION
    ))?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_options_are_sorted_and_those_that_engines_ask_for() {
        let options: Vec<_> = mounts::known_options().collect();
        assert!(options.is_sorted(), "{options:?}");
        assert!(options.contains(&"rro") && options.contains(&"idmap"));
    }

    #[test]
    fn capabilities_begin_with_the_first_and_end_with_the_newest() {
        let all = capabilities();
        assert_eq!((all[0].as_str(), all.len()), ("CAP_CHOWN", 41));
        assert_eq!(all[40], "CAP_CHECKPOINT_RESTORE");
    }
}
