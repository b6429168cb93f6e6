//! Landlock rules (landlock(7)), which the specification has no field for: from annotations, see [`super::annotations`].

use super::Violations;
use super::annotations::{
    self, LANDLOCK_BIND, LANDLOCK_CONNECT, LANDLOCK_EXECUTE, LANDLOCK_MODE, LANDLOCK_READ,
    LANDLOCK_SCOPE, LANDLOCK_WRITE,
};
use oci_spec::runtime::Spec;
use std::ffi::CString;

// LANDLOCK_ACCESS_FS_*
const EXECUTE: u64 = 1;
const WRITE_FILE: u64 = 1 << 1;
const READ_FILE: u64 = 1 << 2;
const READ_DIR: u64 = 1 << 3;
const REFER: u64 = 1 << 13;
const TRUNCATE: u64 = 1 << 14;
const IOCTL_DEV: u64 = 1 << 15;
/// Removing and making entries of every kind.
const MAKE_AND_REMOVE: u64 = 0b1_1111_1111 << 4;
const READ: u64 = READ_FILE | READ_DIR;
const WRITE: u64 = READ | WRITE_FILE | MAKE_AND_REMOVE | REFER | TRUNCATE | IOCTL_DEV;
/// The rights that a file can have which is no directory.
pub const OF_FILES: u64 = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV;

// LANDLOCK_ACCESS_NET_*
const BIND: u64 = 1;
const CONNECT: u64 = 2;

/// What of each word of the ruleset a kernel knows by its version of Landlock, which is the index plus one.
const KNOWN: [Handled; 6] = {
    const fn of(fs: u64, net: u64, scoped: u64) -> Handled {
        Handled { fs, net, scoped }
    }
    [
        of(REFER - 1, 0, 0),         // Linux 5.13
        of(TRUNCATE - 1, 0, 0),      // 5.19
        of(IOCTL_DEV - 1, 0, 0),     // 6.2
        of(IOCTL_DEV - 1, 3, 0),     // 6.7
        of(2 * IOCTL_DEV - 1, 3, 0), // 6.10
        of(2 * IOCTL_DEV - 1, 3, 3), // 6.12
    ]
};
const RELEASE: [&str; 6] = ["5.13", "5.19", "6.2", "6.7", "6.10", "6.12"];

/// What a ruleset refuses unless a rule allows it: struct landlock_ruleset_attr.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Handled {
    pub fs: u64,
    pub net: u64,
    pub scoped: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Landlock {
    handled: Handled,
    /// Paths in the container, and what may be done beneath them.
    pub paths: Vec<(CString, u64)>,
    /// TCP ports, and what may be done with them.
    pub ports: Vec<(u16, u64)>,
    /// Do without what the kernel has not.
    pub best_effort: bool,
}

impl Landlock {
    /// What a kernel with this version of Landlock (0: none) is to be asked for; it is told what it lacks if that matters.
    pub fn handled(&self, version: usize) -> Result<Handled, String> {
        let known = KNOWN[..version.min(KNOWN.len())]
            .last()
            .copied()
            .unwrap_or_default();
        let Handled { fs, net, scoped } = self.handled;
        let lacks = |k: &Handled| (fs & !k.fs) | (net & !k.net) | (scoped & !k.scoped) != 0;
        if lacks(&known) && !self.best_effort {
            let needed = KNOWN
                .iter()
                .position(|k| !lacks(k))
                .expect("the last knows all");
            let has = match version {
                0 => "the kernel has no Landlock, or boots without it in lsm=".into(),
                n => format!("the kernel has its version {n}"),
            };
            return Err(format!(
                "these rules need Landlock of Linux {}, and {has}; set {LANDLOCK_MODE} to best-effort to go without",
                RELEASE[needed]
            ));
        }
        Ok(Handled {
            fs: fs & known.fs,
            net: net & known.net,
            scoped: scoped & known.scoped,
        })
    }
}

pub fn plan(spec: &Spec, v: &mut Violations) -> Option<Landlock> {
    let get = |key| annotations::get(spec, key).map(|value| (annotations::path(key), value));
    let mut l = Landlock::default();
    let mut any = false;
    for (key, access) in [
        (LANDLOCK_READ, READ),
        (LANDLOCK_EXECUTE, READ | EXECUTE),
        (LANDLOCK_WRITE, WRITE),
    ] {
        let Some((at, list)) = get(key) else { continue };
        any = true;
        l.handled.fs = WRITE | EXECUTE;
        for path in annotations::split_paths(list) {
            if !path.starts_with('/') {
                v.add(
                    &at,
                    format!("'{path}' is not an absolute path in the container"),
                );
            }
            l.paths.push((v.cstring(&at, &path), access));
        }
    }
    for (key, access) in [(LANDLOCK_BIND, BIND), (LANDLOCK_CONNECT, CONNECT)] {
        let Some((at, list)) = get(key) else { continue };
        any = true;
        l.handled.net |= access;
        for port in list.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            match port.parse() {
                Ok(port) => l.ports.push((port, access)),
                Err(_) => v.add(
                    &at,
                    format!("'{port}' is not a TCP port; use numbers up to 65535, comma separated"),
                ),
            }
        }
    }
    if let Some((at, list)) = get(LANDLOCK_SCOPE) {
        any = true;
        for scope in list.split(',').map(str::trim) {
            match scope {
                "abstract-unix-socket" => l.handled.scoped |= 1,
                "signal" => l.handled.scoped |= 2,
                _ => v.add(
                    &at,
                    format!("'{scope}' is not a scope; use signal, abstract-unix-socket"),
                ),
            }
        }
    }
    match get(LANDLOCK_MODE) {
        Some((at, _)) if !any => v.add(at, "comes without any rule; add one, or remove it"),
        Some((_, mode)) if mode == "best-effort" => l.best_effort = true,
        Some((at, mode)) if mode != "strict" => {
            v.add(at, format!("is '{mode}'; use strict or best-effort"))
        }
        _ => {}
    }
    any.then_some(l)
}

#[cfg(test)]
mod tests {
    use super::super::violations::testing::*;
    use super::*;
    use serde_json::{Value, json};

    fn of(annotations: Value) -> Spec {
        spec(json!({"annotations": annotations}))
    }

    #[test]
    fn no_rules_no_landlock() {
        assert_eq!(good(|v| plan(&of(json!({"a": "b"})), v)), None);
    }

    #[test]
    fn rules_are_read() {
        let l = good(|v| {
            let rules = json!({
                LANDLOCK_READ: "/etc:/a\\:b", LANDLOCK_WRITE: "/tmp", LANDLOCK_BIND: "80, 443", LANDLOCK_CONNECT: "",
                LANDLOCK_SCOPE: "signal"
            });
            plan(&of(rules), v)
        })
        .unwrap();
        assert_eq!(
            l.paths,
            [
                (c"/etc".into(), READ),
                (c"/a:b".into(), READ),
                (c"/tmp".into(), WRITE)
            ]
        );
        assert_eq!(l.ports, [(80, BIND), (443, BIND)]);
        assert_eq!(
            l.handled(6),
            Ok(Handled {
                fs: WRITE | EXECUTE,
                net: BIND | CONNECT,
                scoped: 2
            })
        );
        assert!(!l.best_effort);
    }

    #[test]
    fn older_kernels_are_refused_or_asked_for_less() {
        let rules = |mode: &str| {
            let rules = json!({LANDLOCK_READ: "/", LANDLOCK_CONNECT: "80", LANDLOCK_MODE: mode});
            good(|v| plan(&of(rules), v)).unwrap()
        };
        let strict = rules("strict");
        assert!(strict.handled(5).is_ok());
        let refused = strict.handled(4).unwrap_err();
        assert!(
            refused.contains("Linux 6.10") && refused.contains("version 4"),
            "{refused}"
        );
        assert!(strict.handled(0).unwrap_err().contains("no Landlock"));
        let able = rules("best-effort");
        assert_eq!(able.handled(0), Ok(Handled::default()));
        assert_eq!(
            able.handled(1),
            Ok(Handled {
                fs: REFER - 1,
                net: 0,
                scoped: 0
            })
        );
        assert_eq!(able.handled(99), able.handled(6));
    }

    #[test]
    fn nonsense_is_refused() {
        for (key, value, fault) in [
            (LANDLOCK_READ, "etc", "'etc' is not an absolute path"),
            (LANDLOCK_READ, "/a\0", "NUL"),
            (LANDLOCK_BIND, "65536", "'65536' is not a TCP port"),
            (LANDLOCK_SCOPE, "", "'' is not a scope"),
            (LANDLOCK_MODE, "strict", "without any rule"),
        ] {
            let found = faults(|v| plan(&of(json!({key: value})), v));
            assert!(
                found.contains(fault) && found.starts_with(&annotations::path(key)),
                "{found}"
            );
        }
        let found = faults(|v| plan(&of(json!({LANDLOCK_READ: "/", LANDLOCK_MODE: "lax"})), v));
        assert!(
            found.contains("is 'lax'; use strict or best-effort"),
            "{found}"
        );
    }
}
