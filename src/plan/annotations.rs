//! husk's own annotations, and those of crun's that husk heeds. Every other one is somebody else's and passed on.
//!
//! | annotation                 | meaning                                                                                |
//! |----------------------------|----------------------------------------------------------------------------------------|
//! | `dev.husk.overlay.lower`   | layers of an overlay to mount on root.path, colon separated, topmost first; `\:` is a colon |
//! | `dev.husk.overlay.upper`   | the writable layer                                                                     |
//! | `dev.husk.overlay.work`    | overlayfs's work directory, on the same file system as upper                            |
//! | `dev.husk.overlay.tmpfs`   | a throw-away writable layer instead: `true`, or its largest size as tmpfs(5) takes it   |
//! | `dev.husk.memory.high`     | memory above which the container is slowed down and made to give back: bytes, `64M` or `max` |
//! | `dev.husk.memory.min`      | memory that is never taken away, in the same form                                      |
//! | `dev.husk.memory.oom.group` | `true`: an OOM kill ends all of the container's processes, not one                    |
//! | `dev.husk.memory.swap.high` | swap above which the container is slowed down                                         |
//! | `dev.husk.memory.zswap.max` | largest part of the compressed swap in memory (Linux 5.19)                            |
//! | `dev.husk.cpu.uclamp.min`  | the least speed to ask of a CPU, in percent (kernel with uclamp)                       |
//! | `dev.husk.cpu.uclamp.max`  | the most, in the same form                                                             |
//! | `dev.husk.cpuset.cpus.partition` | `root` or `isolated`: the CPUs of cpu.cpus are the container's alone             |
//! | `dev.husk.io.latency`      | `8:0 target=75000`: requests of others wait when those of the container take longer, in µs |
//! | `dev.husk.landlock.read`   | paths in the container that may be read, colon separated; `\:` is a colon               |
//! | `dev.husk.landlock.execute` | read and executed                                                                     |
//! | `dev.husk.landlock.write`  | read and written: made, removed, renamed, truncated                                    |
//! | `dev.husk.landlock.tcp-bind`, `.tcp-connect` | TCP ports, comma separated; all others, or all, are refused          |
//! | `dev.husk.landlock.scope`  | `signal`, `abstract-unix-socket`: not to processes outside of the rules, comma separated |
//! | `dev.husk.landlock.mode`   | `strict`: refused where the kernel lacks any of it; `best-effort`: without what it lacks |
//!
//! | annotation of crun's       | meaning                                                                                |
//! |----------------------------|----------------------------------------------------------------------------------------|
//! | `run.oci.keep_original_groups` | anything but `0`: the process keeps the supplementary groups that husk has; no others are set |
//! | `run.oci.mount_context_type` | what linux.mountLabel is given as: `context`, `fscontext`, `defcontext`, `rootcontext` |
//! | `run.oci.pidfd_receiver`   | as `--pidfd-socket`                                                                    |
//! | `run.oci.seccomp_fail_unknown_syscall` | anything: a name of linux.seccomp that no architecture has is an error     |
//! | `run.oci.systemd.subgroup` | starts the process in a cgroup of this name below its scope ([`super::systemd`])        |
//!
//! The others of crun's are warned about: [`UNSUPPORTED`].
//!
//! Relative paths of an overlay start at the bundle. Without upper and tmpfs the root is read-only. [`super::rootfs`] makes the plan,
//! of the limits [`super::limits`]: they are files of the cgroup, which cgroup-v2.rst of the kernel describes.
//! With one of the three annotations for Landlock's paths, everything beneath other paths is refused: [`super::landlock`].

use super::Violations;
use oci_spec::runtime::Spec;

pub const OVERLAY_LOWER: &str = "dev.husk.overlay.lower";
pub const OVERLAY_UPPER: &str = "dev.husk.overlay.upper";
pub const OVERLAY_WORK: &str = "dev.husk.overlay.work";
pub const OVERLAY_TMPFS: &str = "dev.husk.overlay.tmpfs";

pub const LANDLOCK_READ: &str = "dev.husk.landlock.read";
pub const LANDLOCK_EXECUTE: &str = "dev.husk.landlock.execute";
pub const LANDLOCK_WRITE: &str = "dev.husk.landlock.write";
pub const LANDLOCK_BIND: &str = "dev.husk.landlock.tcp-bind";
pub const LANDLOCK_CONNECT: &str = "dev.husk.landlock.tcp-connect";
pub const LANDLOCK_SCOPE: &str = "dev.husk.landlock.scope";
pub const LANDLOCK_MODE: &str = "dev.husk.landlock.mode";

pub const KEEP_GROUPS: &str = "run.oci.keep_original_groups";
pub const MOUNT_CONTEXT_TYPE: &str = "run.oci.mount_context_type";
pub const PIDFD_RECEIVER: &str = "run.oci.pidfd_receiver";
pub const KNOWN_SYSCALLS_ONLY: &str = "run.oci.seccomp_fail_unknown_syscall";

/// Annotations of crun's that have no effect here, and what there is instead.
pub const UNSUPPORTED: [(&str, &str); 8] = [
    (
        "run.oci.delegate-cgroup",
        "mount a writable cgroup2 in a cgroup namespace: husk gives the cgroup to the container's user, and makes leaves on demand",
    ),
    (
        "run.oci.handler",
        "husk runs programs of the host's kernel only, neither WebAssembly nor virtual machines",
    ),
    ("run.oci.hooks.stderr", HOOKS_OUTPUT),
    ("run.oci.hooks.stdout", HOOKS_OUTPUT),
    (
        "run.oci.seccomp.plugins",
        "a static program loads no libraries; use linux.seccomp.listenerPath",
    ),
    ("run.oci.seccomp.receiver", "use linux.seccomp.listenerPath"),
    (
        "run.oci.seccomp_bpf_data",
        "a program that nobody can check would take the profile's place; use linux.seccomp",
    ),
    (
        "run.oci.systemd.force_cgroup_v1",
        "husk knows cgroup v2 only",
    ),
];
const HOOKS_OUTPUT: &str =
    "what a failing hook says is in the error; for the rest let it write to a file itself";

/// In the order in which they are written: a partition after its CPUs.
pub const LIMITS: [&str; 9] = [
    "dev.husk.memory.high",
    "dev.husk.memory.min",
    "dev.husk.memory.oom.group",
    "dev.husk.memory.swap.high",
    "dev.husk.memory.zswap.max",
    "dev.husk.cpu.uclamp.min",
    "dev.husk.cpu.uclamp.max",
    "dev.husk.cpuset.cpus.partition",
    "dev.husk.io.latency",
];

/// husk's own annotations.
pub fn known() -> impl Iterator<Item = &'static str> {
    [
        OVERLAY_LOWER,
        OVERLAY_UPPER,
        OVERLAY_WORK,
        OVERLAY_TMPFS,
        LANDLOCK_READ,
        LANDLOCK_EXECUTE,
        LANDLOCK_WRITE,
        LANDLOCK_BIND,
        LANDLOCK_CONNECT,
        LANDLOCK_SCOPE,
        LANDLOCK_MODE,
    ]
    .into_iter()
    .chain(LIMITS)
}

/// The value of an annotation.
pub fn get<'a>(spec: &'a Spec, key: &str) -> Option<&'a String> {
    spec.annotations().as_ref()?.get(key)
}

/// The JSON path of an annotation.
pub fn path(key: &str) -> String {
    format!("annotations[\"{key}\"]")
}

/// Paths stand between colons; a backslash takes the meaning from the next character.
pub(crate) fn split_paths(text: &str) -> Vec<String> {
    let mut paths = vec![String::new()];
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            ':' => paths.push(String::new()),
            '\\' => paths.last_mut().expect("never empty").extend(chars.next()),
            c => paths.last_mut().expect("never empty").push(c),
        }
    }
    paths
}

/// Refuses what looks like husk's and is not: a misspelt annotation would silently do nothing.
pub fn check(spec: &Spec, v: &mut Violations) {
    let mut keys: Vec<&String> = spec.annotations().iter().flat_map(|a| a.keys()).collect();
    keys.sort();
    for key in keys {
        if key.is_empty() {
            v.warn(
                "annotations",
                "has an empty key, which the specification does not allow",
            );
        } else if let Some((_, instead)) = UNSUPPORTED.iter().find(|(name, _)| name == key) {
            v.warn(
                &path(key),
                &format!("is crun's, and has no effect: {instead}"),
            );
        } else if key.starts_with("dev.husk.") && !known().any(|k| k == key) {
            let all: Vec<&str> = known().collect();
            v.add(
                path(key),
                format!("is none of husk's annotations; use {}", all.join(", ")),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::violations::testing::*;
    use super::*;
    use serde_json::json;

    #[test]
    fn other_ones_of_crun_are_warned_about() {
        for (key, instead) in UNSUPPORTED {
            let config = spec(json!({"annotations": {key: "x"}}));
            assert_eq!(
                warned(|v| check(&config, v)).1,
                [format!(
                    "annotations[\"{key}\"]: is crun's, and has no effect: {instead}"
                )]
            );
        }
    }

    #[test]
    fn only_misspelt_ones_of_husk_are_refused() {
        good(|v| check(&spec(json!({})), v));
        let fine =
            json!({"com.example.key": "", "dev.huskies": "1", "dev.husk.overlay.tmpfs": "true"});
        good(|v| check(&spec(json!({"annotations": fine})), v));
        let unnamed = spec(json!({"annotations": {"": "y"}}));
        assert_eq!(
            warned(|v| check(&unnamed, v)).1,
            ["annotations: has an empty key, which the specification does not allow"]
        );
        let bad = json!({"dev.husk.overlay.uper": "x"});
        let found = faults(|v| check(&spec(json!({"annotations": bad})), v));
        let want = "annotations[\"dev.husk.overlay.uper\"]: is none of husk's annotations; use dev.husk.overlay.lower, \
             dev.husk.overlay.upper, dev.husk.overlay.work, dev.husk.overlay.tmpfs, ";
        assert!(found.starts_with(want), "{found}");
        assert!(found.ends_with(", dev.husk.io.latency"), "{found}");
    }
}
