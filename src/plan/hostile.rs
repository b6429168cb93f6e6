//! Configs that nobody would write, by the thousand: real ones with anything in the place of anything.
//!
//! The same seed makes the same configs. `HUSK_HOSTILE=N` tries N of them instead, and `HUSK_HOSTILE_SEED=S` begins with another.

use super::violations::testing::*;
use super::*;
use crate::launch::sync::Msg;
use crate::state::State;
use crate::{config, error};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// xorshift64*: small, and always the same.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % sides.max(1)
    }

    fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.roll(all.len())]
    }
}

/// A config with nearly every field of the specification.
fn full() -> Value {
    let hook = json!({"path": "/bin/hook", "args": ["hook", "a"], "env": ["A=b"], "timeout": 5});
    let ids = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
    let rate = json!([{"major": 8, "minor": 0, "rate": 1_048_576}]);
    json!({
        "ociVersion": "1.3.0",
        "process": {
            "terminal": true, "consoleSize": {"height": 25, "width": 80},
            "user": {"uid": 1, "gid": 1, "umask": 18, "additionalGids": [5, 6]},
            "args": ["sh", "-c", "true"], "env": ["PATH=/bin", "X=1"], "cwd": "/",
            "capabilities": {
                "bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"],
                "inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL"]
            },
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 512}],
            "noNewPrivileges": true, "oomScoreAdj": 100,
            "scheduler": {"policy": "SCHED_FIFO", "priority": 10, "nice": 0, "flags": ["SCHED_FLAG_RESET_ON_FORK"]},
            "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 4},
            "execCPUAffinity": {"initial": "0-1", "final": "0"}
        },
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "box", "domainname": "example.org",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=65536k"]},
            {"destination": "/data", "type": "bind", "source": "/srv", "options": ["rbind", "rro", "rslave"]},
            {"destination": "/map", "type": "bind", "source": "/srv", "options": ["bind", "idmap"],
                "uidMappings": ids, "gidMappings": ids},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]}
        ],
        "hooks": {
            "prestart": [hook], "createRuntime": [hook], "createContainer": [hook],
            "startContainer": [hook], "poststart": [hook], "poststop": [hook]
        },
        "annotations": {"org.example.key": "value"},
        "linux": {
            "namespaces": [
                {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"},
                {"type": "user"}, {"type": "cgroup"}, {"type": "time"}
            ],
            "uidMappings": ids, "gidMappings": ids,
            "timeOffsets": {"monotonic": {"secs": 1, "nanosecs": 2}},
            "devices": [{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 438, "uid": 0, "gid": 0}],
            "cgroupsPath": "/husk/box",
            "resources": {
                "devices": [{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rw"}],
                "memory": {"limit": 67_108_864, "reservation": 1, "swap": 134_217_728, "checkBeforeUpdate": true},
                "cpu": {"shares": 512, "quota": 50_000, "burst": 1000, "period": 100_000, "cpus": "0-1", "mems": "0", "idle": 0},
                "pids": {"limit": 100},
                "blockIO": {
                    "weight": 100, "weightDevice": [{"major": 8, "minor": 0, "weight": 500}],
                    "throttleReadBpsDevice": rate, "throttleWriteBpsDevice": rate,
                    "throttleReadIOPSDevice": rate, "throttleWriteIOPSDevice": rate
                },
                "hugepageLimits": [{"pageSize": "2MB", "limit": 2_097_152}],
                "rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10}},
                "unified": {"memory.high": "1000000"}
            },
            "rootfsPropagation": "rslave",
            "sysctl": {"net.ipv4.ip_forward": "1", "kernel.shmmax": "1"},
            "seccomp": {
                "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1,
                "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"], "flags": ["SECCOMP_FILTER_FLAG_LOG"],
                "listenerPath": "/run/agent", "listenerMetadata": "x",
                "syscalls": [
                    {"names": ["read", "write", "openat"], "action": "SCMP_ACT_ALLOW"},
                    {"names": ["personality"], "action": "SCMP_ACT_ALLOW",
                        "args": [{"index": 0, "value": 8, "valueTwo": 0, "op": "SCMP_CMP_EQ"}]},
                    {"names": ["clone"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38,
                        "args": [{"index": 0, "value": 2_114_060_288, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]}
                ]
            },
            "maskedPaths": ["/proc/kcore", "/sys/firmware"], "readonlyPaths": ["/proc/sys"],
            "personality": {"domain": "LINUX", "flags": []}
        }
    })
}

/// Values that are never meant.
fn odd(dice: &mut Dice) -> Value {
    let text = [
        "",
        "/",
        ".",
        "..",
        "../../x",
        "/../..",
        "a\0b",
        "\u{1b}[2J",
        "\u{202e}x",
        "%d%s%n",
        "-1",
        "0",
        "18446744073709551616",
        "/proc/self/fd/7",
        "CAP_",
        "rbind",
        "idmap=",
        "size=",
        ":::",
        "0-99999999",
        "1,,2",
        "\u{fffd}",
        "a/b/../../..",
        "\n",
    ];
    let number = [
        0,
        1,
        -1,
        i64::MIN,
        i64::MAX,
        4_294_967_295,
        4_294_967_296,
        65_535,
        -2_147_483_649,
        1 << 53,
    ];
    match dice.roll(10) {
        0 => Value::Null,
        1 => json!(dice.roll(2) == 0),
        2 | 3 => json!(*dice.of(&number)),
        4 => json!(u64::MAX),
        5 => json!(1.5e300),
        6 => json!([]),
        7 => json!({}),
        8 => json!("x".repeat(1 << dice.roll(17))),
        _ => json!(dice.of(&text)),
    }
}

/// A value somewhere in the tree.
fn somewhere<'a>(tree: &'a mut Value, dice: &mut Dice) -> &'a mut Value {
    let size = match tree {
        Value::Array(items) => items.len(),
        Value::Object(fields) => fields.len(),
        _ => 0,
    };
    if size == 0 || dice.roll(8) == 0 {
        return tree;
    }
    let i = dice.roll(size);
    let child = match tree {
        Value::Array(items) => items.get_mut(i),
        Value::Object(fields) => fields.values_mut().nth(i),
        _ => None,
    };
    somewhere(child.expect("one of them"), dice)
}

/// Something else is there, or it is gone, or more than once, or in another's place.
fn mutate(tree: &mut Value, dice: &mut Dice) {
    let other = somewhere(tree, dice).clone();
    let odd = odd(dice);
    let kind = dice.roll(6);
    match (somewhere(tree, dice), kind) {
        (Value::Array(items), 0) if !items.is_empty() => {
            let item = dice.of(items).clone();
            let times = 1 << dice.roll(8);
            items.extend(std::iter::repeat_n(item, times));
        }
        (Value::Array(items), 1) if !items.is_empty() => drop(items.remove(dice.roll(items.len()))),
        (Value::Object(fields), 0 | 1) if !fields.is_empty() => {
            let i = dice.roll(fields.len());
            let key = fields.keys().nth(i).expect("one of them").clone();
            fields.remove(&key);
        }
        (Value::Object(fields), 2) => drop(fields.insert(other.to_string(), odd)),
        (Value::String(s), 2) => s.push_str(odd.as_str().unwrap_or("\u{7f}")),
        (Value::Number(n), 3) => *n = n.as_i64().unwrap_or(0).wrapping_mul(-1000).into(),
        (place, 4) => *place = other,
        (place, _) => *place = odd,
    }
}

/// Bytes are lost, doubled or changed.
fn damage(json: &mut Vec<u8>, dice: &mut Dice) {
    let i = dice.roll(json.len());
    match dice.roll(3) {
        0 => json.truncate(i),
        1 => json[i] = dice.roll(256) as u8,
        _ => {
            let part = json[i..(i + dice.roll(64)).min(json.len())].to_vec();
            json.splice(i..i, part);
        }
    }
}

fn setting(name: &str, default: u64) -> u64 {
    let set = std::env::var(name).ok();
    set.map_or(default, |s| s.parse().expect("a number"))
}

/// Whatever it says, a config ends as a plan or as faults, soon, and in words that leave a terminal alone.
#[test]
fn no_config_is_too_strange() {
    let seed = setting("HUSK_HOSTILE_SEED", 1);
    let (mut plans, mut faulty, mut unreadable) = (0, 0, 0);
    let count = setting("HUSK_HOSTILE", 2000);
    for n in seed..seed + count {
        let mut dice = Dice(n.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let mut tree = full();
        for _ in 0..=dice.roll(3) {
            mutate(&mut tree, &mut dice);
        }
        let mut json = tree.to_string().into_bytes();
        if dice.roll(16) == 0 {
            damage(&mut json, &mut dice);
        }
        let host = if dice.roll(2) == 0 {
            root()
        } else {
            user(1000)
        };
        let begun = Instant::now();
        let mut words = Vec::new();
        // a panic in here is told with this
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            match config::parse_spec(&json, &mut words) {
                Err(e) => {
                    unreadable += 1;
                    words.push(format!("{e:#}"));
                }
                Ok(spec) => match Plan::new(&spec, &host, &options()) {
                    Err(v) => {
                        faulty += 1;
                        words.push(v.to_string());
                    }
                    Ok(plan) => {
                        plans += 1;
                        words.extend(plan.warnings);
                    }
                },
            }
        }));
        assert!(
            result.is_ok(),
            "HUSK_HOSTILE=1 HUSK_HOSTILE_SEED={n} panics"
        );
        assert!(
            begun.elapsed() < Duration::from_secs(5),
            "seed {n} takes {:?}",
            begun.elapsed()
        );
        for text in words {
            let shown = error::printable(&text);
            assert!(
                !shown.chars().any(error::is_dangerous),
                "seed {n}: {shown:?}"
            );
            assert!(
                shown.len() < 4 << 20,
                "seed {n}: {} bytes of words",
                shown.len()
            );
        }
    }
    println!("{count} configs: {plans} plans, {faulty} with faults, {unreadable} unreadable");
    assert!(plans > 0 && faulty > 0 && unreadable > 0);
}

#[test]
fn no_state_or_message_is_too_strange() {
    let state = json!({"ociVersion": "1.3.0", "id": "x", "pid": 7, "bundle": "/b", "annotations": {"a": "b"}});
    for n in 1..=2000 {
        let mut dice = Dice(n);
        let mut tree = state.clone();
        mutate(&mut tree, &mut dice);
        let mut json = tree.to_string().into_bytes();
        damage(&mut json, &mut dice);
        _ = serde_json::from_slice::<State>(&json);
        _ = config::parse_process(&json, &mut Vec::new());
        _ = Msg::decode(&json, Vec::new());
    }
}
