//! Which namespaces are new, joined or shared with the host, and by how many clones the container's init gets into them.

use super::Violations;
use crate::host::Host;
use oci_spec::runtime::{LinuxNamespaceType, LinuxTimeOffset, Spec};
use std::collections::HashMap;
use std::ffi::CString;
use std::fmt;
use std::path::PathBuf;

/// The eight kinds, in the order in which init joins those given by path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    User,
    Ipc,
    Uts,
    Network,
    Pid,
    Mount,
    Cgroup,
    Time,
}

impl From<LinuxNamespaceType> for Kind {
    fn from(kind: LinuxNamespaceType) -> Kind {
        match kind {
            LinuxNamespaceType::User => Kind::User,
            LinuxNamespaceType::Ipc => Kind::Ipc,
            LinuxNamespaceType::Uts => Kind::Uts,
            LinuxNamespaceType::Network => Kind::Network,
            LinuxNamespaceType::Pid => Kind::Pid,
            LinuxNamespaceType::Mount => Kind::Mount,
            LinuxNamespaceType::Cgroup => Kind::Cgroup,
            LinuxNamespaceType::Time => Kind::Time,
        }
    }
}

/// The name that a config uses.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Kind::User => "user",
            Kind::Ipc => "ipc",
            Kind::Uts => "uts",
            Kind::Network => "network",
            Kind::Pid => "pid",
            Kind::Mount => "mount",
            Kind::Cgroup => "cgroup",
            Kind::Time => "time",
        })
    }
}

/// A namespace to join by path. `kind` is checked against the inode before setns(2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Join {
    pub kind: Kind,
    pub path: PathBuf,
}

/// How init comes to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hop {
    /// One clone3: husk's child is init.
    #[default]
    One,
    /// Two: husk's child enters the user namespace (new or joined) and what only its root may make, then clones init as its sibling.
    /// Needed where namespaces must be made by a process that is already in the user namespace: it is joined by
    /// path, or husk has no right to join or make them itself, or could not come back from those that it joins.
    Two,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespaces {
    /// Kinds to create, as bits of clone3(2)'s flags are made from them by launch.
    pub new: Vec<Kind>,
    /// Kinds to join by path, in the order to join them.
    pub join: Vec<Join>,
    pub hop: Hop,
    /// Of `new`, what init makes first of all, while its parent is at work too. A mount namespace is made here or when its tree is
    /// there ([`super::rootfs::Enter::Attach`]), any other kind here or by the clone.
    pub by_init: Vec<Kind>,
    /// The new network namespace, which takes the kernel as long as all mounts, is made by init's parent meanwhile: by one who can
    /// come back from it.
    pub network_by_parent: bool,
    /// For /proc/self/timens_offsets ("monotonic 5 0\nboottime 5 0\n"), to be written before the last clone.
    pub time_offsets: Option<String>,
}

impl Namespaces {
    pub fn is_new(&self, kind: Kind) -> bool {
        self.new.contains(&kind)
    }

    pub fn joined(&self, kind: Kind) -> Option<&Join> {
        self.join.iter().find(|j| j.kind == kind)
    }

    /// Neither new nor joined: the host's own.
    pub fn is_host(&self, kind: Kind) -> bool {
        !self.is_new(kind) && self.joined(kind).is_none()
    }
}

/// sethostname(2) and setdomainname(2) take no more bytes (`__NEW_UTS_LEN`).
const NAME_MAX: usize = 64;

/// The namespaces of a config, and how many clones it takes to get into them.
pub fn plan(spec: &Spec, host: &Host, v: &mut Violations) -> Namespaces {
    let mut namespaces = listed(spec, v);
    if host.euid != 0 && namespaces.is_host(Kind::User) {
        v.add(
            "linux.namespaces",
            format!(
                "user {} may not make a container without a user namespace; add {{\"type\": \"user\"}} with \
                 linux.uidMappings and linux.gidMappings, or run husk as root",
                host.euid
            ),
        );
    }
    namespaces.time_offsets = time_offsets(spec, &namespaces, v);
    namespaces.hop = hop(&namespaces, host);
    namespaces.network_by_parent =
        namespaces.is_new(Kind::Network) && namespaces.is_host(Kind::User) && !host.rootless();
    // what takes the kernel longest; the others are the clone's affair
    let dear = [Kind::Ipc, Kind::Uts, Kind::Network, Kind::Mount];
    let by_init =
        |k: &Kind| namespaces.is_new(*k) && !(*k == Kind::Network && namespaces.network_by_parent);
    namespaces.by_init = dear.into_iter().filter(by_init).collect();
    namespaces
}

fn listed(spec: &Spec, v: &mut Violations) -> Namespaces {
    let mut namespaces = Namespaces::default();
    let entries = spec.linux().as_ref().and_then(|l| l.namespaces().as_ref());
    for (i, entry) in entries.into_iter().flatten().enumerate() {
        let kind = Kind::from(entry.typ());
        if !namespaces.is_host(kind) {
            v.add(
                format!("linux.namespaces[{i}]"),
                format!("is a second {kind} namespace; keep one of them"),
            );
            continue;
        }
        // "" is as good as none: engines write it for a new namespace
        match entry.path().as_ref().filter(|p| !p.as_os_str().is_empty()) {
            None => namespaces.new.push(kind),
            Some(path) => {
                let at = format!("linux.namespaces[{i}].path");
                if !path.is_absolute() {
                    v.add(&at, format!("'{}' is not an absolute path", path.display()));
                }
                v.cstring(&at, path);
                namespaces.join.push(Join {
                    kind,
                    path: path.clone(),
                });
            }
        }
    }
    namespaces.join.sort_by_key(|j| j.kind);
    namespaces
}

/// Offsets exist only in a time namespace that nothing runs in yet (time_namespaces(7)).
fn time_offsets(spec: &Spec, namespaces: &Namespaces, v: &mut Violations) -> Option<String> {
    let offsets = spec.linux().as_ref()?.time_offsets().as_ref()?;
    if offsets.is_empty() {
        return None;
    }
    if namespaces.joined(Kind::Time).is_some() {
        v.add(
            "linux.timeOffsets",
            "the time namespace is joined by path and has its offsets already; remove one of the two",
        );
    } else if !namespaces.is_new(Kind::Time) {
        v.add(
            "linux.timeOffsets",
            "there is no time namespace; add {\"type\": \"time\"} to linux.namespaces",
        );
    }
    for name in offsets.keys() {
        if !CLOCKS.contains(&name.as_str()) {
            v.add(
                format!("linux.timeOffsets.{name}"),
                "is no clock of a time namespace; use monotonic or boottime",
            );
        }
    }
    Some(
        CLOCKS
            .iter()
            .map(|clock| offset(clock, offsets, v))
            .collect(),
    )
}

const CLOCKS: [&str; 2] = ["monotonic", "boottime"];

fn offset(clock: &str, offsets: &HashMap<String, LinuxTimeOffset>, v: &mut Violations) -> String {
    let Some(offset) = offsets.get(clock) else {
        return String::new();
    };
    let nanosecs = offset.nanosecs().unwrap_or(0);
    if nanosecs >= 1_000_000_000 {
        v.add(
            format!("linux.timeOffsets.{clock}.nanosecs"),
            format!("{nanosecs} is a second or more; use secs for whole seconds"),
        );
    }
    format!("{clock} {} {nanosecs}\n", offset.secs().unwrap_or(0))
}

fn hop(namespaces: &Namespaces, host: &Host) -> Hop {
    // setns(2) for pid and time works on the next child, and offsets must be written before it exists: an ordinary user may do
    // either only inside the user namespace
    let before_init = namespaces.time_offsets.is_some()
        || namespaces.joined(Kind::Pid).is_some()
        || namespaces.joined(Kind::Time).is_some();
    let rootless = host.rootless() && namespaces.is_new(Kind::User);
    // root of a user namespace, as below rootless Podman, may enter what that owns, and not come back to what the host owns
    let no_way_back =
        host.in_user_namespace && namespaces.is_host(Kind::User) && !namespaces.join.is_empty();
    if namespaces.joined(Kind::User).is_some() || (rootless && before_init) || no_way_back {
        Hop::Two
    } else {
        Hop::One
    }
}

/// hostname and domainname, which need a uts namespace of the container's own.
pub fn names(
    spec: &Spec,
    namespaces: &Namespaces,
    v: &mut Violations,
) -> (Option<CString>, Option<CString>) {
    (
        name("hostname", spec.hostname(), namespaces, v),
        name("domainname", spec.domainname(), namespaces, v),
    )
}

fn name(
    field: &str,
    value: &Option<String>,
    namespaces: &Namespaces,
    v: &mut Violations,
) -> Option<CString> {
    let value = value.as_ref().filter(|n| !n.is_empty())?;
    if namespaces.is_host(Kind::Uts) {
        v.add(
            field,
            format!(
                "'{value}' would be set for the whole host; add {{\"type\": \"uts\"}} to linux.namespaces"
            ),
        );
    }
    if value.len() > NAME_MAX {
        v.add(
            field,
            format!("is {} bytes long, {NAME_MAX} are the limit", value.len()),
        );
    }
    Some(v.cstring(field, value))
}

#[cfg(test)]
mod tests {
    use super::super::violations::testing::*;
    use super::*;
    use serde_json::{Value, json};

    fn namespaces(list: Value) -> Spec {
        linux(json!({ "namespaces": list }))
    }

    #[test]
    fn new_and_joined_ones_are_told_apart() {
        let spec = namespaces(json!([
            {"type": "pid"},
            {"type": "network", "path": "/proc/1/ns/net"},
            {"type": "mount", "path": ""},
            {"type": "ipc", "path": "/proc/1/ns/ipc"},
        ]));
        let n = good(|v| plan(&spec, &root(), v));
        assert_eq!(n.new, [Kind::Pid, Kind::Mount]);
        let join = |kind, path: &str| Join {
            kind,
            path: path.into(),
        };
        let joined = [
            join(Kind::Ipc, "/proc/1/ns/ipc"),
            join(Kind::Network, "/proc/1/ns/net"),
        ];
        assert_eq!(n.join, joined);
        assert!(n.is_host(Kind::User) && n.is_new(Kind::Mount) && !n.is_host(Kind::Ipc));
        assert_eq!(n.joined(Kind::Network), Some(&joined[1]));
        assert_eq!(n.hop, Hop::One);
    }

    #[test]
    fn a_config_without_linux_shares_all_with_the_host() {
        let n = good(|v| plan(&spec(json!({})), &root(), v));
        assert_eq!(n, Namespaces::default());
    }

    #[test]
    fn bad_lists_are_refused() {
        for (list, fault) in [
            (
                json!([{"type": "pid"}, {"type": "pid", "path": "/p"}]),
                "linux.namespaces[1]: is a second pid namespace; keep one of them",
            ),
            (
                json!([{"type": "time", "path": "proc/1/ns/time"}]),
                "linux.namespaces[0].path: 'proc/1/ns/time' is not an absolute path",
            ),
            (
                json!([{"type": "uts", "path": "/a\u{0}b"}]),
                "linux.namespaces[0].path: holds a NUL character; remove it",
            ),
        ] {
            assert_eq!(faults(|v| plan(&namespaces(list), &root(), v)), fault);
        }
    }

    #[test]
    fn an_ordinary_user_needs_a_user_namespace() {
        let host = user(1000);
        let fault = faults(|v| plan(&namespaces(json!([{"type": "mount"}])), &host, v));
        assert_eq!(
            fault,
            "linux.namespaces: user 1000 may not make a container without a user namespace; add {\"type\": \"user\"} \
             with linux.uidMappings and linux.gidMappings, or run husk as root"
        );
        good(|v| plan(&namespaces(json!([{"type": "user"}])), &host, v));
        // root of a user namespace may do without another one
        let inner = Host {
            in_user_namespace: true,
            ..root()
        };
        good(|v| plan(&namespaces(json!([{"type": "mount"}])), &inner, v));
    }

    #[test]
    fn hops_by_namespaces_and_user() {
        let offsets = json!({"monotonic": {"secs": 1}});
        let inner = Host {
            in_user_namespace: true,
            ..root()
        };
        let pid = json!({"type": "pid", "path": "/p"});
        let time = json!({"type": "time", "path": "/t"});
        let new_user = json!({"type": "user"});
        let user_path = json!({"type": "user", "path": "/u"});
        let new_time = json!({"type": "time"});
        let none = Value::Null;
        for (list, offsets, host, hop) in [
            (json!([new_user]), &none, root(), Hop::One),
            (json!([new_user]), &none, user(1), Hop::One),
            (json!([new_user, pid]), &none, root(), Hop::One),
            (json!([new_user, pid]), &none, user(1), Hop::Two),
            (json!([new_user, pid]), &none, inner.clone(), Hop::Two),
            (json!([new_user, time]), &none, user(1), Hop::Two),
            (json!([new_user, new_time]), &none, user(1), Hop::One),
            (json!([new_user, new_time]), &offsets, user(1), Hop::Two),
            (json!([new_user, new_time]), &offsets, root(), Hop::One),
            (json!([new_time]), &offsets, root(), Hop::One),
            (json!([pid]), &none, root(), Hop::One),
            (json!([pid]), &none, inner.clone(), Hop::Two),
            (json!([new_time]), &none, inner, Hop::One),
            (json!([user_path]), &none, root(), Hop::Two),
            (json!([user_path]), &none, user(1), Hop::Two),
        ] {
            let spec = linux(json!({"namespaces": list, "timeOffsets": offsets}));
            let n = good(|v| plan(&spec, &host, v));
            assert_eq!(n.hop, hop, "{list} {offsets} {host:?}");
        }
    }

    #[test]
    fn a_network_namespace_is_made_by_who_can_come_back_from_it() {
        let inner = Host {
            in_user_namespace: true,
            ..root()
        };
        let (net, mount) = (json!({"type": "network"}), json!({"type": "mount"}));
        let user_too = json!([net, mount, {"type": "user"}]);
        for (list, host, by_parent) in [
            (json!([net, mount]), root(), true),
            (user_too.clone(), root(), false),
            (user_too, user(1), false),
            (json!([net, mount]), inner, false),
            (
                json!([mount, {"type": "network", "path": "/n"}]),
                root(),
                false,
            ),
            (json!([mount]), root(), false),
        ] {
            let n = good(|v| plan(&namespaces(list.clone()), &host, v));
            assert_eq!(n.network_by_parent, by_parent, "{list} {host:?}");
            let by_init = n.is_new(Kind::Network) && !by_parent;
            assert_eq!(
                n.by_init.contains(&Kind::Network),
                by_init,
                "{list} {host:?}"
            );
            assert!(n.by_init.contains(&Kind::Mount));
        }
    }

    #[test]
    fn time_offsets_are_written_in_one_order() {
        let spec = linux(json!({
            "namespaces": [{"type": "time"}],
            "timeOffsets": {"boottime": {"secs": -5, "nanosecs": 999_999_999}, "monotonic": {"secs": 7}},
        }));
        let n = good(|v| plan(&spec, &root(), v));
        assert_eq!(
            n.time_offsets.as_deref(),
            Some("monotonic 7 0\nboottime -5 999999999\n")
        );
        let spec = linux(json!({"timeOffsets": {}}));
        assert_eq!(good(|v| plan(&spec, &root(), v)).time_offsets, None);
    }

    #[test]
    fn bad_time_offsets_are_refused() {
        let new = json!([{"type": "time"}]);
        for (list, offsets, fault) in [
            (
                json!([]),
                json!({"monotonic": {"secs": 1}}),
                "linux.timeOffsets: there is no time namespace; add {\"type\": \"time\"} to linux.namespaces",
            ),
            (
                json!([{"type": "time", "path": "/t"}]),
                json!({"boottime": {"secs": 1}}),
                "linux.timeOffsets: the time namespace is joined by path and has its offsets already; remove one of \
                 the two",
            ),
            (
                new.clone(),
                json!({"realtime": {"secs": 1}}),
                "linux.timeOffsets.realtime: is no clock of a time namespace; use monotonic or boottime",
            ),
            (
                new,
                json!({"boottime": {"nanosecs": 1_000_000_000}}),
                "linux.timeOffsets.boottime.nanosecs: 1000000000 is a second or more; use secs for whole seconds",
            ),
        ] {
            let spec = linux(json!({"namespaces": list, "timeOffsets": offsets}));
            assert_eq!(faults(|v| plan(&spec, &root(), v)), fault);
        }
    }

    #[test]
    fn names_need_a_uts_namespace() {
        let config = |list: Value, host: &str, domain: &str| {
            spec(json!({"hostname": host, "domainname": domain, "linux": {"namespaces": list}}))
        };
        let plan_names = |spec: &Spec, v: &mut Violations| {
            let n = plan(spec, &root(), v);
            names(spec, &n, v)
        };
        for list in [
            json!([{"type": "uts"}]),
            json!([{"type": "uts", "path": "/u"}]),
        ] {
            let spec = config(list, "a", "b");
            let (host, domain) = good(|v| plan_names(&spec, v));
            assert_eq!(host.as_deref(), Some(c"a"));
            assert_eq!(domain.as_deref(), Some(c"b"));
        }
        let none = good(|v| plan_names(&config(json!([]), "", ""), v));
        assert_eq!(none, (None, None));
        assert_eq!(
            faults(|v| plan_names(&config(json!([]), "a", "b"), v)),
            "hostname: 'a' would be set for the whole host; add {\"type\": \"uts\"} to linux.namespaces\n\
             domainname: 'b' would be set for the whole host; add {\"type\": \"uts\"} to linux.namespaces"
        );
        let long = config(json!([{"type": "uts"}]), &"x".repeat(65), "");
        assert_eq!(
            faults(|v| plan_names(&long, v)),
            "hostname: is 65 bytes long, 64 are the limit"
        );
    }
}
