//! User namespace: id maps, and who writes them.

use super::Violations;
use super::namespaces::{Kind, Namespaces};
use crate::host::Host;
use oci_spec::runtime::{LinuxIdMapping, Spec};

/// One line of uid_map or gid_map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdMap {
    pub container: u32,
    pub host: u32,
    pub size: u32,
}

/// How the maps get into /proc/PID/{uid,gid}_map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    /// husk has the capabilities, or maps only its own id.
    Direct,
    /// newuidmap(1) and newgidmap(1), for an ordinary user with several ids.
    Helper,
}

/// The maps of a new user namespace (empty for one joined by path).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdMaps {
    pub uids: Vec<IdMap>,
    pub gids: Vec<IdMap>,
    pub writer: Writer,
    /// "deny" must be written to setgroups before an unprivileged gid_map (user_namespaces(7)).
    pub deny_setgroups: bool,
    /// What the config says the maps of a user namespace joined by path are: containerd and CRI-O give both. Whoever joins it
    /// compares, and refuses another truth.
    pub claimed: Option<(Vec<IdMap>, Vec<IdMap>)>,
}

impl IdMaps {
    /// The host's uid for one of the container's.
    pub fn host_uid(&self, uid: u32) -> Option<u32> {
        lookup(&self.uids, uid)
    }

    pub fn host_gid(&self, gid: u32) -> Option<u32> {
        lookup(&self.gids, gid)
    }
}

fn lookup(maps: &[IdMap], id: u32) -> Option<u32> {
    maps.iter()
        .find(|m| id >= m.container && id - m.container < m.size)
        .and_then(|m| m.host.checked_add(id - m.container))
}

/// The kernel takes no more lines in a map (`UID_GID_MAP_MAX_EXTENTS`, Linux 4.15).
const LINES_MAX: usize = 340;

/// None without a user namespace.
pub fn plan(
    spec: &Spec,
    namespaces: &Namespaces,
    host: &Host,
    v: &mut Violations,
) -> Option<IdMaps> {
    let linux = spec.linux().as_ref();
    let uids = linux.and_then(|l| l.uid_mappings().as_ref());
    let gids = linux.and_then(|l| l.gid_mappings().as_ref());
    let uids = maps(uids, "linux.uidMappings", v);
    let gids = maps(gids, "linux.gidMappings", v);
    if namespaces.is_new(Kind::User) {
        root_is_mapped(&uids, "linux.uidMappings", v);
        root_is_mapped(&gids, "linux.gidMappings", v);
        return Some(new(uids, gids, host));
    }
    if namespaces.joined(Kind::User).is_some() {
        let claimed = !uids.is_empty() || !gids.is_empty();
        return Some(IdMaps {
            uids: Vec::new(),
            gids: Vec::new(),
            writer: Writer::Direct,
            deny_setgroups: false,
            claimed: claimed.then_some((uids, gids)),
        });
    }
    for (maps, path) in [(uids, "linux.uidMappings"), (gids, "linux.gidMappings")] {
        if !maps.is_empty() {
            v.add(
                path,
                "there is no user namespace; add {\"type\": \"user\"} to linux.namespaces, or remove the mappings",
            );
        }
    }
    None
}

fn new(uids: Vec<IdMap>, gids: Vec<IdMap>, host: &Host) -> IdMaps {
    // root of a user namespace has CAP_SETUID and CAP_SETGID in it, and so maps what was mapped to it by itself
    let ordinary = host.euid != 0;
    let own_uid = own(&uids, host.euid);
    let own_gid = own(&gids, host.egid);
    IdMaps {
        writer: if ordinary && !(own_uid && own_gid) {
            Writer::Helper
        } else {
            Writer::Direct
        },
        deny_setgroups: ordinary && own_gid,
        uids,
        gids,
        claimed: None,
    }
}

/// The one map that anybody may write: a single id, the writer's own.
fn own(maps: &[IdMap], id: u32) -> bool {
    matches!(maps, [m] if m.host == id && m.size == 1)
}

/// The lines of a map in the config, at `path` there.
pub(super) fn maps(
    list: Option<&Vec<LinuxIdMapping>>,
    path: &str,
    v: &mut Violations,
) -> Vec<IdMap> {
    let maps: Vec<IdMap> = list
        .into_iter()
        .flatten()
        .map(|m| IdMap {
            container: m.container_id(),
            host: m.host_id(),
            size: m.size(),
        })
        .collect();
    if maps.len() > LINES_MAX {
        v.add(
            path,
            format!("has {} entries, the kernel takes {LINES_MAX}", maps.len()),
        );
    }
    for (i, map) in maps.iter().enumerate() {
        if map.size == 0 {
            v.add(
                format!("{path}[{i}].size"),
                "is 0 or missing; say how many ids to map",
            );
        }
        for (first, field) in [(map.container, "containerID"), (map.host, "hostID")] {
            // 4294967295 is (uid_t) -1, which is nobody's id
            if first.checked_add(map.size).is_none() {
                v.add(
                    format!("{path}[{i}].{field}"),
                    format!(
                        "{first} and {} more go beyond the last id, 4294967294",
                        map.size
                    ),
                );
            }
        }
        overlaps(&maps[..i], map, i, path, v);
    }
    maps
}

/// The kernel refuses a map with overlaps as a bare EINVAL.
fn overlaps(before: &[IdMap], map: &IdMap, i: usize, path: &str, v: &mut Violations) {
    let meet = |a: u32, a_size: u32, b: u32, b_size: u32| {
        u64::from(a) < u64::from(b) + u64::from(b_size)
            && u64::from(b) < u64::from(a) + u64::from(a_size)
    };
    for (j, other) in before.iter().enumerate() {
        for (side, hit) in [
            (
                "container",
                meet(other.container, other.size, map.container, map.size),
            ),
            ("host", meet(other.host, other.size, map.host, map.size)),
        ] {
            if hit {
                v.add(
                    format!("{path}[{i}]"),
                    format!("maps {side} ids that {path}[{j}] maps too"),
                );
            }
        }
    }
}

/// Init sets the container up as its root.
fn root_is_mapped(maps: &[IdMap], path: &str, v: &mut Violations) {
    if maps.is_empty() {
        v.add(
            path,
            "the new user namespace has no mappings; add one for id 0 at least",
        );
    } else if lookup(maps, 0).is_none() {
        v.add(path, "id 0 of the container is not mapped; map it");
    }
}

#[cfg(test)]
mod tests {
    use super::super::namespaces;
    use super::super::violations::testing::*;
    use super::*;
    use serde_json::{Value, json};

    fn map(container: u32, host: u32, size: u32) -> Value {
        json!({"containerID": container, "hostID": host, "size": size})
    }

    fn config(user: Value, uids: Value, gids: Value) -> Spec {
        linux(json!({"namespaces": [user], "uidMappings": uids, "gidMappings": gids}))
    }

    fn run(spec: &Spec, host: &Host, v: &mut Violations) -> Option<IdMaps> {
        let n = namespaces::plan(spec, host, v);
        plan(spec, &n, host, v)
    }

    #[test]
    fn maps_translate() {
        let spec = config(
            json!({"type": "user"}),
            json!([map(0, 1000, 1), map(1, 100_000, 65536)]),
            json!([map(0, 5000, 10)]),
        );
        let maps = good(|v| run(&spec, &root(), v)).unwrap();
        assert_eq!(maps.writer, Writer::Direct);
        assert!(!maps.deny_setgroups);
        for (uid, host) in [
            (0, Some(1000)),
            (1, Some(100_000)),
            (65536, Some(165_535)),
            (65537, None),
        ] {
            assert_eq!(maps.host_uid(uid), host, "{uid}");
        }
        assert_eq!(maps.host_gid(9), Some(5009));
        assert_eq!(maps.host_gid(10), None);
    }

    #[test]
    fn who_writes_them() {
        let one = json!([map(0, 1000, 1)]);
        let range = json!([map(0, 1000, 1), map(1, 100_000, 10)]);
        let inner = Host {
            in_user_namespace: true,
            ..root()
        };
        for (uids, gids, host, writer, deny) in [
            (&one, &one, user(1000), Writer::Direct, true),
            (&one, &one, user(1001), Writer::Helper, false),
            (&range, &one, user(1000), Writer::Helper, true),
            (&one, &range, user(1000), Writer::Helper, false),
            (&range, &range, user(1000), Writer::Helper, false),
            (&range, &range, root(), Writer::Direct, false),
            (&range, &range, inner, Writer::Direct, false),
        ] {
            let spec = config(json!({"type": "user"}), uids.clone(), gids.clone());
            let maps = good(|v| run(&spec, &host, v)).unwrap();
            assert_eq!(
                (maps.writer, maps.deny_setgroups),
                (writer, deny),
                "{uids} {gids} {host:?}"
            );
        }
    }

    #[test]
    fn a_joined_namespace_has_its_own_maps() {
        let user = json!({"type": "user", "path": "/proc/1/ns/user"});
        let spec = config(user.clone(), json!([map(0, 7, 1)]), json!([map(0, 8, 1)]));
        let maps = good(|v| run(&spec, &root(), v)).unwrap();
        let one = |host| IdMap {
            container: 0,
            host,
            size: 1,
        };
        assert_eq!((maps.uids.len(), maps.gids.len()), (0, 0));
        assert_eq!(maps.claimed, Some((vec![one(7)], vec![one(8)])));
        let spec = config(user, json!([]), json!(null));
        assert_eq!(good(|v| run(&spec, &root(), v)).unwrap().claimed, None);
    }

    #[test]
    fn bad_maps_are_refused() {
        let ok = json!([map(0, 0, 1)]);
        for (uids, fault) in [
            (
                json!([]),
                "linux.uidMappings: the new user namespace has no mappings; add one for id 0 at least",
            ),
            (
                json!([map(1, 1, 9)]),
                "linux.uidMappings: id 0 of the container is not mapped; map it",
            ),
            (
                json!([map(0, 0, 1), map(9, 9, 0)]),
                "linux.uidMappings[1].size: is 0 or missing; say how many ids to map",
            ),
            (
                json!([map(0, 4_294_967_290, 20)]),
                "linux.uidMappings[0].hostID: 4294967290 and 20 more go beyond the last id, 4294967294",
            ),
            (
                json!([map(0, 0, 5), map(4, 100, 1)]),
                "linux.uidMappings[1]: maps container ids that linux.uidMappings[0] maps too",
            ),
            (
                json!([map(0, 100, 5), map(5, 90, 11)]),
                "linux.uidMappings[1]: maps host ids that linux.uidMappings[0] maps too",
            ),
        ] {
            let spec = config(json!({"type": "user"}), uids, ok.clone());
            assert_eq!(faults(|v| run(&spec, &root(), v)), fault);
            // a plan with faults is made to its end, so that all are told
            let (maps, _) = with(|v| run(&spec, &root(), v));
            maps.unwrap().host_uid(9);
        }
        let many: Vec<Value> = (0..341).map(|i| map(i, i, 1)).collect();
        let spec = config(json!({"type": "user"}), ok.clone(), many.into());
        assert_eq!(
            faults(|v| run(&spec, &root(), v)),
            "linux.gidMappings: has 341 entries, the kernel takes 340"
        );
        // neighbours do not overlap
        let spec = config(
            json!({"type": "user"}),
            json!([map(0, 100, 5), map(5, 105, 5), map(10, 95, 5)]),
            ok,
        );
        good(|v| run(&spec, &root(), v));
    }

    #[test]
    fn maps_need_a_user_namespace() {
        let spec = config(
            json!({"type": "mount"}),
            json!([map(0, 0, 1)]),
            json!([map(0, 0, 1)]),
        );
        assert_eq!(
            faults(|v| run(&spec, &root(), v)),
            "linux.uidMappings: there is no user namespace; add {\"type\": \"user\"} to linux.namespaces, or remove the \
             mappings\n\
             linux.gidMappings: there is no user namespace; add {\"type\": \"user\"} to linux.namespaces, or remove the \
             mappings"
        );
        let spec = config(json!({"type": "mount"}), json!([]), json!([]));
        assert_eq!(good(|v| run(&spec, &root(), v)), None);
    }
}
