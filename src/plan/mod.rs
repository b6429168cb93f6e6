//! Every decision, taken before anything is done: `config.json` + facts about the host → [`Plan`].
//!
//! Nothing here touches the system: no system call, no file, no environment. A plan is pure data that the two lists of
//! [`crate::launch`] carry out, and every table in here is tested without root.
//!
//! Each room has one function `plan(…, &mut Violations)`. It never stops at a first fault: it writes down each with the
//! JSON path of the field, so that a person sees all of them at once.

pub mod annotations;
pub mod cgroup;
pub mod devices;
pub mod hooks;
pub mod intel_rdt;
pub mod labels;
pub mod landlock;
pub mod limits;
pub mod lists;
pub mod memory_policy;
pub mod mounts;
pub mod namespaces;
pub mod net_devices;
pub mod notify;
pub mod paths;
pub mod process;
pub mod resources;
pub mod rootfs;
pub mod seccomp;
pub mod sysctl;
pub mod systemd;
pub mod update;
pub mod users;
pub mod violations;

use crate::host::Host;
use oci_spec::runtime::Spec;
use std::path::PathBuf;

pub use violations::Violations;

/// What the command line adds to a config.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The container's id, already validated.
    pub id: String,
    /// The bundle directory, absolute.
    pub bundle: PathBuf,
    pub no_pivot: bool,
    pub no_new_keyring: bool,
    /// A console socket was given, so a terminal goes there.
    pub console_socket: bool,
    /// The command returns before the container's process ends (create, run --detach).
    pub detach: bool,
    /// --rootless: whether to go on without the right to a cgroup or a device program; None is as the host says.
    pub rootless: Option<bool>,
    /// --systemd-cgroup and --cgroup-manager.
    pub cgroup_manager: cgroup::Manager,
}

/// All that the two lists need; see each room for its part.
#[derive(Clone, Debug)]
pub struct Plan {
    pub namespaces: namespaces::Namespaces,
    pub users: Option<users::IdMaps>,
    pub hostname: Option<std::ffi::CString>,
    pub domainname: Option<std::ffi::CString>,
    pub rootfs: rootfs::Rootfs,
    /// In the order of the config.
    pub mounts: Vec<mounts::Mount>,
    /// SELinux's, for what is mounted besides; the mounts that take it have it.
    pub mount_label: Option<std::ffi::CString>,
    pub devices: devices::Devices,
    pub net_devices: Vec<net_devices::NetDevice>,
    pub masked: Vec<PathBuf>,
    pub readonly: Vec<PathBuf>,
    pub sysctl: Vec<sysctl::Sysctl>,
    pub cgroup: cgroup::Cgroup,
    pub intel_rdt: Option<intel_rdt::IntelRdt>,
    pub hooks: hooks::Hooks,
    /// None when the config has no process: such a container can be created, but not started.
    pub process: Option<process::Process>,
    pub seccomp: Option<seccomp::Filter>,
    pub landlock: Option<landlock::Landlock>,
    pub new_keyring: bool,
    /// What the spec tells a runtime to warn about rather than refuse.
    pub warnings: Vec<String>,
}

impl Plan {
    /// The plan of `create` and `run`, or every violation.
    pub fn new(spec: &Spec, host: &Host, options: &Options) -> Result<Plan, Violations> {
        let mut v = Violations::default();
        v.version(spec.version());
        let mut namespaces = namespaces::plan(spec, host, &mut v);
        let users = users::plan(spec, &namespaces, host, &mut v);
        let mut rootfs = rootfs::plan(spec, options, &namespaces, &mut v);
        let mut mounts = mounts::plan(spec, options, &namespaces, host, &mut v);
        if let Some(users) = &users {
            mounts::check_ids(&mounts, users, &mut v);
        }
        let mount_label = labels::mounts(spec, host, &mut mounts, &mut rootfs, &mut v);
        let devices = devices::plan(spec, &namespaces, host, &mut v);
        let net_devices = net_devices::plan(spec, &namespaces, host, &mut v);
        if !net_devices.is_empty() {
            // the parent moves them there
            namespaces
                .by_init
                .retain(|k| *k != namespaces::Kind::Network);
        }
        let (masked, readonly) = paths::plan(spec, &namespaces, &mut v);
        let sysctl = sysctl::plan(spec, &namespaces, &mut v);
        let cgroup = cgroup::plan(
            spec,
            host,
            options,
            &namespaces,
            users.as_ref(),
            &mounts,
            &mut v,
        );
        let intel_rdt = intel_rdt::plan(spec, host, &options.id, &mut v);
        let hooks = hooks::plan(spec, &options.bundle, &mut v);
        if rootfs::attaches(&rootfs, host, &namespaces, &mounts, &hooks) {
            rootfs.enter = rootfs::Enter::Attach;
            namespaces.by_init.retain(|k| *k != namespaces::Kind::Mount);
        }
        let personality = process::personality(spec, &mut v);
        let memory_policy = memory_policy::plan(spec, &mut v);
        let mut process = spec
            .process()
            .as_ref()
            .map(|p| process::plan(p, "process", users.as_ref(), &mut v));
        if let Some(p) = &mut process {
            p.personality = personality;
            p.memory_policy = memory_policy;
            p.keep_groups = process::keep_groups(spec, p, &mut v);
            process::check_terminal(p, options, &mut v);
            labels::check(p, in_process, host, &mut v);
        }
        let (hostname, domainname) = namespaces::names(spec, &namespaces, &mut v);
        annotations::check(spec, &mut v);
        let seccomp = seccomp::plan(spec, &mut v);
        let landlock = landlock::plan(spec, &mut v);
        let warnings = v.take_warnings();
        v.into_result(Plan {
            namespaces,
            users,
            hostname,
            domainname,
            rootfs,
            mounts,
            mount_label,
            devices,
            net_devices,
            masked,
            readonly,
            sysctl,
            cgroup,
            intel_rdt,
            hooks,
            process,
            seccomp,
            landlock,
            new_keyring: !options.no_new_keyring,
            warnings,
        })
    }
}

/// The JSON path of a field of the process.
fn in_process(field: &str) -> String {
    format!("process.{field}")
}

/// What `exec` needs of a container's config, and its own process.
#[derive(Clone, Debug)]
pub struct ExecPlan {
    pub process: process::Process,
    /// The container's.
    pub seccomp: Option<seccomp::Filter>,
    pub landlock: Option<landlock::Landlock>,
    pub users: Option<users::IdMaps>,
    /// The namespaces of the container that are not the host's.
    pub kinds: Vec<namespaces::Kind>,
    pub warnings: Vec<String>,
}

/// The plan of `exec`: the container's namespaces, and the process described by its caller.
pub fn exec(
    spec: &Spec,
    described: &oci_spec::runtime::Process,
    host: &Host,
    options: &Options,
) -> Result<ExecPlan, Violations> {
    let mut v = Violations::default();
    let namespaces = namespaces::plan(spec, host, &mut v);
    let users = users::plan(spec, &namespaces, host, &mut v);
    let mut process = process::plan(described, "process", users.as_ref(), &mut v);
    process::check_terminal(&process, options, &mut v);
    labels::check(&process, in_process, host, &mut v);
    process.personality = process::personality(spec, &mut v);
    process.memory_policy = memory_policy::plan(spec, &mut v);
    process.keep_groups = process::keep_groups(spec, &process, &mut v);
    let joined = namespaces.join.iter().map(|j| j.kind);
    let kinds = namespaces.new.iter().copied().chain(joined).collect();
    let seccomp = seccomp::plan(spec, &mut v);
    let landlock = landlock::plan(spec, &mut v);
    let warnings = v.take_warnings();
    v.into_result(ExecPlan {
        process,
        seccomp,
        landlock,
        users,
        kinds,
        warnings,
    })
}

#[cfg(test)]
mod tests {
    use super::violations::testing::*;
    use super::*;
    use std::path::Path;

    /// What `runc spec` and engines without wishes of their own write.
    fn usual() -> Spec {
        let mount = |destination, fstype, options: &[&str]| serde_json::json!({"destination": destination, "type": fstype, "source": fstype, "options": options});
        let strict = ["nosuid", "noexec", "nodev"];
        spec(serde_json::json!({
            "ociVersion": "1.3.0",
            "process": {
                "terminal": true,
                "user": {"uid": 0, "gid": 0},
                "args": ["sh"],
                "env": ["PATH=/usr/bin:/bin", "TERM=xterm"],
                "cwd": "/",
                "capabilities": {
                    "bounding": ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"],
                    "effective": ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"],
                    "permitted": ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]
                },
                "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
                "noNewPrivileges": true
            },
            "root": {"path": "rootfs", "readonly": true},
            "hostname": "c1",
            "mounts": [
                mount("/proc", "proc", &[]),
                mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
                mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
                mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
                mount("/dev/mqueue", "mqueue", &strict),
                mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
                mount("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"])
            ],
            "linux": {
                "resources": {"devices": [{"allow": false, "access": "rwm"}]},
                "namespaces": [
                    {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "cgroup"}
                ],
                "maskedPaths": ["/proc/acpi", "/proc/kcore", "/sys/firmware"],
                "readonlyPaths": ["/proc/bus", "/proc/sys"]
            }
        }))
    }

    fn host() -> Host {
        let cgroup = crate::host::CgroupMount {
            mountpoint: "/sys/fs/cgroup".into(),
            own: Some("".into()),
        };
        Host {
            cgroup: Some(cgroup),
            ..root()
        }
    }

    #[test]
    fn the_usual_config_has_no_faults() {
        let plan = Plan::new(&usual(), &host(), &options()).unwrap();
        assert_eq!(plan.warnings, Vec::<String>::new());
        assert_eq!(
            (plan.namespaces.hop, plan.users),
            (namespaces::Hop::One, None)
        );
        assert_eq!(plan.namespaces.new.len(), 6);
        assert_eq!(plan.hostname.as_deref(), Some(c"c1"));
        assert_eq!(plan.rootfs.path, Path::new("/bundle/rootfs"));
        assert_eq!((plan.mounts.len(), plan.devices.nodes.len()), (7, 6));
        assert_eq!((plan.masked.len(), plan.readonly.len()), (3, 2));
        assert!(plan.process.is_some_and(|p| p.terminal) && plan.new_keyring);
    }

    #[test]
    fn all_faults_are_found_at_once() {
        let mut config = serde_json::to_value(usual()).unwrap();
        config["ociVersion"] = "2.0.0".into();
        config["root"]["path"] = "".into();
        config["process"]["cwd"] = "x".into();
        config["mounts"][3]["destination"] = "/proc/x".into();
        config["linux"]["sysctl"] = serde_json::json!({"vm.swappiness": "1"});
        config["linux"]["cgroupsPath"] = "/..".into();
        config["hooks"] = serde_json::json!({"createContainer": [{"path": "x"}]});
        config["annotations"] = serde_json::json!({"dev.husk.x": ""});
        let found = Plan::new(&spec(config), &host(), &options())
            .unwrap_err()
            .to_string();
        let paths: Vec<&str> = found.lines().filter_map(|l| l.split(": ").next()).collect();
        assert_eq!(
            paths,
            [
                "ociVersion",
                "root.path",
                "mounts[3].destination",
                "linux.sysctl[\"vm.swappiness\"]",
                "linux.cgroupsPath",
                "hooks.createContainer[0].path",
                "process.cwd",
                "annotations[\"dev.husk.x\"]",
            ]
        );
    }

    #[test]
    fn a_config_needs_no_process() {
        let mut config = usual();
        config.set_process(None);
        assert_eq!(
            Plan::new(&config, &host(), &options()).unwrap().process,
            None
        );
    }

    #[test]
    fn the_personality_is_the_processs() {
        let mut config = serde_json::to_value(usual()).unwrap();
        config["linux"]["personality"] = serde_json::json!({"domain": "LINUX32"});
        let plan = Plan::new(&spec(config), &host(), &options()).unwrap();
        assert_eq!(plan.process.unwrap().personality, Some(8));
    }

    #[test]
    fn ids_of_mounts_and_process_are_held_against_the_maps() {
        let mut config = serde_json::to_value(usual()).unwrap();
        let map = serde_json::json!([{"containerID": 0, "hostID": 100_000, "size": 5}]);
        config["linux"]["namespaces"]
            .as_array_mut()
            .unwrap()
            .push(serde_json::json!({"type": "user"}));
        (
            config["linux"]["uidMappings"],
            config["linux"]["gidMappings"],
        ) = (map.clone(), map);
        config["process"]["user"]["uid"] = 5.into();
        let found = Plan::new(&spec(config), &host(), &options())
            .unwrap_err()
            .to_string();
        assert_eq!(
            found,
            "mounts[2].options: gid=5 has no mapping in the user namespace; map it or remove the option\n\
             process.user.uid: 5 has no mapping in the user namespace; map it or use another"
        );
    }

    #[test]
    fn exec_gets_its_own_process_in_the_containers_namespaces() {
        let mut config = serde_json::to_value(usual()).unwrap();
        config["linux"]["personality"] = serde_json::json!({"domain": "LINUX32"});
        config["linux"]["namespaces"][0]["path"] = "/proc/1/ns/pid".into();
        let described = serde_json::json!({"user": {"uid": 7}, "cwd": "/", "args": ["ls"]});
        let described = serde_json::from_value(described).unwrap();
        let plan = exec(&spec(config), &described, &host(), &options()).unwrap();
        assert_eq!((plan.process.uid, plan.process.personality), (7, Some(8)));
        use namespaces::Kind::*;
        assert_eq!(plan.kinds, [Network, Ipc, Uts, Mount, Cgroup, Pid]);
    }

    /// A host that has all that a config can ask for.
    fn rich_host() -> Host {
        Host {
            apparmor: true,
            selinux: true,
            resctrl: Some(crate::host::Resctrl {
                root: "/sys/fs/resctrl".into(),
                l3: true,
                mb: true,
                schemata: None,
            }),
            ..host()
        }
    }

    /// The examples of the specification, by name.
    fn examples(kind: &str) -> Vec<(String, Vec<u8>)> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/runtime-spec");
        let files = std::fs::read_dir(dir.join(kind)).unwrap();
        let read = |f: std::fs::DirEntry| {
            let name = f.file_name().into_string().unwrap();
            (name, std::fs::read(f.path()).unwrap())
        };
        let mut all: Vec<_> = files.map(|f| read(f.unwrap())).collect();
        all.sort();
        all
    }

    /// What is wrong with a config, by its form or by what it means.
    fn wrong(json: &[u8]) -> Option<String> {
        let spec = match crate::config::parse_spec(json, &mut Vec::new()) {
            Err(e) => return Some(e.to_string()),
            Ok(spec) => spec,
        };
        let found = Plan::new(&spec, &rich_host(), &options());
        found.err().map(|v| v.to_string())
    }

    /// The example of everything, without what cgroup v2 has not.
    fn example_of_everything() -> serde_json::Value {
        let mut all = examples("good").into_iter();
        let (_, json) = all.find(|(name, _)| name == "spec-example.json").unwrap();
        let mut config: serde_json::Value = serde_json::from_slice(&json).unwrap();
        config["ociVersion"] = crate::OCI_VERSION.into();
        for (section, field) in [
            ("", "network"),
            ("", "oomScoreAdj"), // no field of any version
            ("/cpu", "realtimeRuntime"),
            ("/cpu", "realtimePeriod"),
            ("/blockIO", "leafWeight"),
            ("/blockIO/weightDevice/0", "leafWeight"),
        ] {
            let section = config.pointer_mut(&format!("/linux/resources{section}"));
            section.unwrap().as_object_mut().unwrap().remove(field);
        }
        config
    }

    #[test]
    fn the_specifications_good_configs_are_accepted() {
        for (name, json) in examples("good") {
            // good by their form; but they would change the host
            let fault = match name.as_str() {
                "freebsd-example.json" | "zos-example.json" => {
                    "hostname: 'slartibartfast' would be set for the whole host"
                }
                "linux-netdevice.json" => {
                    "linux.netDevices: unable to move network devices without a NET"
                }
                _ => "",
            };
            let found = wrong(&json).unwrap_or_default();
            assert!(found.starts_with(fault), "{name}: {found}");
            assert_eq!(found.is_empty(), fault.is_empty(), "{name}: {found}");
        }
        assert_eq!(wrong(example_of_everything().to_string().as_bytes()), None);
    }

    #[test]
    fn the_specifications_bad_configs_are_refused() {
        let bad = examples("bad");
        assert_eq!(bad.len(), 5);
        for (name, json) in bad {
            // the sections of other systems are nothing to husk
            let foreign = name.starts_with("freebsd-");
            assert_eq!(wrong(&json).is_none(), foreign, "{name}");
        }
    }

    #[test]
    fn a_value_of_a_wrong_type_is_refused_wherever_it_stands() {
        use serde_json::Value;
        let config = example_of_everything();
        let mut places = Vec::new();
        collect(&config, String::new(), &mut places);
        assert!(places.len() > 200, "{places:?}");
        for place in places {
            let mut config = config.clone();
            let value = config.pointer_mut(&place).unwrap();
            *value = match value {
                Value::String(_) => serde_json::json!({"x": 1}),
                _ => "x".into(),
            };
            assert_ne!(wrong(config.to_string().as_bytes()), None, "{place}");
        }
    }

    /// JSON pointers to all that is in a value.
    fn collect(value: &serde_json::Value, at: String, places: &mut Vec<String>) {
        if !at.is_empty() {
            places.push(at.clone());
        }
        match value {
            serde_json::Value::Object(fields) => {
                for (key, value) in fields {
                    let key = key.replace('~', "~0").replace('/', "~1");
                    collect(value, format!("{at}/{key}"), places);
                }
            }
            serde_json::Value::Array(items) => {
                for (i, value) in items.iter().enumerate() {
                    collect(value, format!("{at}/{i}"), places);
                }
            }
            _ => {}
        }
    }
}
