//! What others write and husk reads, taken for bytes that may be anything: no input may end in a panic, a long wait, much memory, or words that a
//! terminal acts on.
//!
//! Each of the targets takes one input. The tests try thousands of real inputs with anything in the place of anything, the same ones each
//! time; `hack/fuzz/run` tries as many as there is time for, and learns from what they reach.

use crate::apply::notify;
use crate::error::{is_dangerous, printable, printable_json};
use crate::host::Host;
use crate::launch::sync::{Channel, Msg};
use crate::plan::update;
use crate::plan::{self, Options, Plan, Violations};
use crate::state::{State, Status};
use crate::{config, sys};
use anyhow::Result;
use serde_json::{Value, json};
use std::os::fd::{AsFd, OwnedFd};

/// What became of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is not in the form at all.
    Unreadable,
    /// It is, and something in it is wrong.
    Faulty,
    Good,
}

pub type Target = fn(&[u8]) -> Outcome;

/// By the names that they have in `hack/fuzz`.
pub const TARGETS: [(&str, Target); 8] = [
    ("config", config),
    ("process", process),
    ("resources", resources),
    ("mount_options", mount_options),
    ("state", state),
    ("message", message),
    ("console", console),
    ("notify", notify),
];

/// One input for a target of hack/fuzz.
pub fn one(target: &str, data: &[u8]) {
    let found = TARGETS.iter().find(|t| t.0 == target);
    found.expect("a target").1(data);
}

/// Words for a person: a terminal is left alone, and they come to an end.
fn check_words(words: &[String]) {
    for text in words {
        let shown = printable(text);
        assert!(!shown.chars().any(is_dangerous), "{shown:?}");
        assert!(shown.len() < 4 << 20, "{} bytes of words", shown.len());
    }
}

fn host(id: u32) -> Host {
    Host {
        euid: id,
        egid: id,
        ..Host::default()
    }
}

fn options() -> Options {
    Options {
        id: "c1".into(),
        bundle: "/bundle".into(),
        ..Options::default()
    }
}

/// Reads, plans, and checks all that is said of it: `words` are those of reading.
fn judge<T>(
    read: Result<T>,
    mut words: Vec<String>,
    plan: impl FnOnce(T) -> Result<Vec<String>, Violations>,
) -> Outcome {
    let outcome = match read.map(plan) {
        Err(e) => {
            words.push(format!("{e:#}"));
            Outcome::Unreadable
        }
        Ok(Err(v)) => {
            words.push(v.to_string());
            Outcome::Faulty
        }
        Ok(Ok(warnings)) => {
            words.extend(warnings);
            Outcome::Good
        }
    };
    check_words(&words);
    outcome
}

/// config.json, until the plan, for root or for a user.
pub fn config(data: &[u8]) -> Outcome {
    let mut words = Vec::new();
    let spec = config::parse_spec(data, &mut words);
    let host = host(if data.len().is_multiple_of(2) {
        0
    } else {
        1000
    });
    judge(spec, words, |spec| {
        Plan::new(&spec, &host, &options()).map(|plan| plan.warnings)
    })
}

/// The file of `exec --process`, in a container of the usual kind.
pub fn process(data: &[u8]) -> Outcome {
    let mut words = Vec::new();
    let process = config::parse_process(data, &mut words);
    judge(process, words, |process| {
        plan::exec(&usual(), &process, &Host::default(), &options()).map(|plan| plan.warnings)
    })
}

/// The file of `update --resources`.
pub fn resources(data: &[u8]) -> Outcome {
    let has = json!({"pids": {"limit": 5}});
    judge(config::parse_resources(data), Vec::new(), |asked| {
        update::plan(&usual(), &has, &asked).map(|update| update.warnings)
    })
}

/// The options of one mount entry, comma separated, with each kind of source.
pub fn mount_options(data: &[u8]) -> Outcome {
    let text = String::from_utf8_lossy(data);
    let options: Vec<&str> = text.split(',').collect();
    let mut outcome = Outcome::Faulty;
    for kind in [
        "bind", "tmpfs", "proc", "sysfs", "cgroup", "overlay", "devpts",
    ] {
        let mount = json!({"destination": "/x", "type": kind, "source": "/y", "options": options});
        let mut tree = serde_json::to_value(usual()).expect("a config");
        tree["mounts"] = json!([mount]);
        if config(tree.to_string().as_bytes()) == Outcome::Good {
            outcome = Outcome::Good;
        }
    }
    outcome
}

/// state.json: what `state` prints, what hooks read, and what is saved again.
pub fn state(data: &[u8]) -> Outcome {
    let state: State = match serde_json::from_slice(data) {
        Ok(state) => state,
        Err(e) => {
            check_words(&[e.to_string()]);
            return Outcome::Unreadable;
        }
    };
    for status in [Status::Creating, Status::Stopped] {
        let report = state.report(status, "root".into());
        let shown = printable_json(serde_json::to_string(&report).expect("strings and numbers"));
        assert!(!shown.chars().any(is_dangerous), "{shown:?}");
        assert!(serde_json::from_str::<Value>(&shown).is_ok(), "{shown}");
        state.for_hooks(status, state.pid);
    }
    let saved = serde_json::to_vec(&state).expect("strings and numbers");
    let again: State = serde_json::from_slice(&saved).expect("its own form");
    assert_eq!(again, state);
    Outcome::Good
}

/// What husk's processes tell each other. A child has joined a container when it speaks.
pub fn message(data: &[u8]) -> Outcome {
    match Msg::decode(data, some(data.len() % 3)) {
        None => Outcome::Unreadable,
        Some(Msg::Error(text)) => {
            check_words(&[text]);
            Outcome::Good
        }
        Some(_) => Outcome::Good,
    }
}

/// The same as a packet with descriptors, such as the one that brings a terminal; after it the sender is gone.
pub fn console(data: &[u8]) -> Outcome {
    let (ours, theirs) = sys::socket::pair().expect("a pair");
    let fds = some(data.len() % 5);
    let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    if sys::socket::send(theirs.as_fd(), data, &fds).is_err() {
        return Outcome::Unreadable; // more than a packet takes
    }
    drop(theirs);
    let channel = Channel::from(ours);
    let outcome = match channel.recv() {
        Ok(Some(_)) => Outcome::Good,
        Ok(None) => Outcome::Faulty,
        Err(e) => {
            check_words(&[format!("{e:#}")]);
            Outcome::Unreadable
        }
    };
    if !data.is_empty() {
        assert!(matches!(channel.recv(), Ok(None)));
    }
    outcome
}

/// What a container says on its NOTIFY_SOCKET.
pub fn notify(data: &[u8]) -> Outcome {
    if notify::is_ready(data) {
        Outcome::Good
    } else {
        Outcome::Faulty
    }
}

/// So many descriptors.
fn some(count: usize) -> Vec<OwnedFd> {
    let null = || sys::fs::open("/dev/null", sys::fs::O_PATH, 0).expect("/dev/null");
    (0..count).map(|_| null()).collect()
}

fn usual() -> oci_spec::runtime::Spec {
    let config = json!({
        "ociVersion": "1.3.0", "root": {"path": "rootfs"},
        "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}]}
    });
    serde_json::from_value(config).expect("a config")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};
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
        let hook =
            json!({"path": "/bin/hook", "args": ["hook", "a"], "env": ["A=b"], "timeout": 5});
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
            (Value::Array(items), 1) if !items.is_empty() => {
                drop(items.remove(dice.roll(items.len())))
            }
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

    /// `HUSK_HOSTILE=N` tries N inputs instead, `HUSK_HOSTILE_SEED=S` begins with another, `HUSK_HOSTILE_SAVE=DIRECTORY` keeps them.
    fn try_many(name: &str, usual: u64, mut make: impl FnMut(&mut Dice) -> Vec<u8>) {
        let target = TARGETS.iter().find(|t| t.0 == name).expect("a target").1;
        let seed = setting("HUSK_HOSTILE_SEED", 1);
        let count = setting("HUSK_HOSTILE", usual);
        let mut found = [0; 3];
        for n in seed..seed + count {
            let mut dice = Dice(n.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
            let data = make(&mut dice);
            if let Some(dir) = std::env::var_os("HUSK_HOSTILE_SAVE") {
                let dir = std::path::Path::new(&dir).join(name);
                std::fs::create_dir_all(&dir).expect("a directory");
                std::fs::write(dir.join(n.to_string()), &data).expect("a file");
            }
            let begun = Instant::now();
            // a panic in there is told with this
            let result = catch_unwind(AssertUnwindSafe(|| target(&data)));
            let again = format!("HUSK_HOSTILE=1 HUSK_HOSTILE_SEED={n}, {name}");
            let outcome = result.unwrap_or_else(|_| panic!("{again}: panics"));
            let taken = begun.elapsed();
            assert!(taken < Duration::from_secs(5), "{again}: takes {taken:?}");
            found[outcome as usize] += 1;
        }
        let [unreadable, faulty, good] = found;
        println!("{name}: {count} inputs: {good} good, {faulty} faulty, {unreadable} unreadable");
        assert!(
            count < usual || good > 0 && faulty + unreadable > 0,
            "no variety"
        );
        let peak = peak_memory();
        assert!(peak < 1 << 20, "{peak} KiB of memory");
    }

    /// In KiB, of all tests up to now.
    fn peak_memory() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").expect("status");
        let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
        let number = line.and_then(|l| l.split_whitespace().next());
        number.and_then(|n| n.parse().ok()).expect("a number")
    }

    /// A tree with some of it changed, as text of which sometimes a byte or two is wrong.
    fn changed(mut tree: Value, dice: &mut Dice) -> Vec<u8> {
        for _ in 0..=dice.roll(3) {
            mutate(&mut tree, dice);
        }
        let mut json = tree.to_string().into_bytes();
        if dice.roll(16) == 0 {
            damage(&mut json, dice);
        }
        json
    }

    #[test]
    fn configs() {
        try_many("config", 2000, |dice| changed(full(), dice));
    }

    #[test]
    fn processes() {
        let process = full()["process"].take();
        try_many("process", 2000, |dice| changed(process.clone(), dice));
    }

    #[test]
    fn updates() {
        let resources = full()["linux"]["resources"].take();
        try_many("resources", 2000, |dice| changed(resources.clone(), dice));
    }

    #[test]
    fn options_of_mounts() {
        let known: Vec<&str> = plan::mounts::known_options().collect();
        try_many("mount_options", 300, |dice| {
            let mut all = Vec::new();
            for _ in 0..=dice.roll(6) {
                match dice.roll(4) {
                    0 => all.push(odd(dice).as_str().unwrap_or("mode=").to_string()),
                    1 => all.push(format!("{}={}", dice.of(&known), odd(dice))),
                    _ => all.push(dice.of(&known).to_string()),
                }
            }
            let mut text = all.join(",").into_bytes();
            if dice.roll(4) == 0 && !text.is_empty() {
                damage(&mut text, dice);
            }
            text
        });
    }

    #[test]
    fn states() {
        let state = State {
            id: "x".into(),
            pid: 7,
            bundle: "/b".into(),
            annotations: [("a".into(), "b".into())].into(),
            cgroup: Some(Default::default()),
            intel_rdt: Some(Default::default()),
            ..State::default()
        };
        let tree = serde_json::to_value(&state).unwrap();
        try_many("state", 2000, |dice| changed(tree.clone(), dice));
    }

    /// Tags that there are, and those that there are not, with a number, words or anything after them.
    fn packet(dice: &mut Dice) -> Vec<u8> {
        let mut data = vec![*dice.of(b"gpmhldcrse?\0")];
        match dice.roll(4) {
            0 => {}
            1 => data.extend((dice.roll(1 << 31) as i64 - (1 << 30)).to_string().bytes()),
            2 => data.extend(odd(dice).to_string().bytes()),
            _ => data.extend((0..dice.roll(300)).map(|_| dice.roll(256) as u8)),
        }
        if dice.roll(8) == 0 {
            damage(&mut data, dice);
        }
        data
    }

    #[test]
    fn messages() {
        try_many("message", 5000, packet);
    }

    #[test]
    fn packets_with_descriptors() {
        try_many("console", 2000, packet);
    }

    #[test]
    fn notifications() {
        try_many("notify", 5000, |dice| {
            let lines = [
                "READY=1",
                "READY=0",
                "READY=1 ",
                "MAINPID=1",
                "BARRIER=1",
                "",
            ];
            let all: Vec<&str> = (0..dice.roll(4)).map(|_| *dice.of(&lines)).collect();
            let mut text = all.join("\n").into_bytes();
            if dice.roll(3) == 0 && !text.is_empty() {
                damage(&mut text, dice);
            }
            text
        });
    }

    /// A target without a file in hack/fuzz would be forgotten there.
    #[test]
    fn each_target_is_fuzzed() {
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/hack/fuzz/Cargo.toml");
        let text = std::fs::read_to_string(manifest).unwrap();
        for (name, _) in TARGETS {
            assert!(text.contains(&format!("name = \"{name}\"")), "{name}");
        }
    }
}
