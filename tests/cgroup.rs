//! Cgroups: where they are, what is written there, and whether the limits hold.

use crate::support::guard::remove_cgroup;
use crate::support::*;
use husk::plan::seccomp::numbers::CALLS;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

tests![
    path_absent,
    path_absolute,
    path_relative,
    path_cannot_lead_out,
    nobody_makes_one,
    path_is_removed,
    path_deep_is_removed,
    sub_cgroups_are_removed,
    existing_empty_one_is_used,
    occupied_one_is_refused,
    frozen_one_is_refused,
    controllers_are_all_on,
    missing_controller_is_refused_by_name,
    unified_missing_controller,
    unified_bad_keys,
    no_limits_need_no_controller,
    ownership_is_delegated,
    ownership_stays_when_read_only,
    memory_files,
    memory_unlimited,
    memory_limit_kills,
    memory_of_the_set_up_is_little,
    memory_too_small_is_explained,
    memory_swap_below_limit_is_refused,
    memory_swap_is_used,
    memory_without_swap_kills,
    memory_unified,
    memory_check_before_update,
    cpu_files,
    cpu_shares_to_weight,
    cpu_bad_period_is_refused,
    cpu_quota_holds,
    cpu_weights_compete,
    cpu_idle,
    cpuset_holds,
    cpuset_unknown_cpu_is_refused,
    pids_file,
    pids_limit_stops_a_fork_bomb,
    io_weight,
    io_rate_holds,
    hugetlb_files,
    hugetlb_unknown_size_is_refused,
    annotated_memory,
    annotated_oom_group_ends_all,
    annotated_io_latency,
    annotated_partition,
    annotated_partition_that_cannot_be,
    annotated_compressed_swap,
    annotated_clamps,
    annotated_values_are_checked,
];

fn read(dir: &Path, file: &str) -> String {
    let path = dir.join(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()));
    text.trim_end().to_string()
}

/// The number after a key of a flat keyed file.
fn keyed(text: &str, key: &str) -> u64 {
    let value = text
        .lines()
        .find_map(|l| l.strip_prefix(key)?.strip_prefix(' '));
    value
        .unwrap_or_else(|| panic!("no {key} in {text}"))
        .parse()
        .unwrap()
}

fn parent() -> PathBuf {
    Path::new("/sys/fs/cgroup").join(cgroup())
}

/// The cgroup of a process, relative to the root of the hierarchy.
fn cgroup_of(pid: i32) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    text.lines()
        .find_map(|l| l.strip_prefix("0::"))
        .expect("a cgroup v2")
        .to_string()
}

fn path_absent() {
    needs_cgroupfs();
    let c = Bundle::new().start();
    assert_eq!(
        cgroup_of(c.pid()),
        format!("/{}/{}", cgroup().display(), c.id)
    );
}

fn path_absolute() {
    needs_cgroupfs();
    let c = Bundle::new().cgroup("a/b").start();
    assert_eq!(cgroup_of(c.pid()), format!("/{}/a/b", cgroup().display()));
    drop(c);
    remove_cgroup(&parent().join("a"));
}

fn path_relative() {
    needs_cgroupfs();
    let c = Bundle::new()
        .set("/linux/cgroupsPath", json!("some/where"))
        .start();
    let path = cgroup_of(c.pid());
    assert!(path.ends_with("/some/where"), "{path}");
    drop(c);
    let dir = Path::new("/sys/fs/cgroup").join(path.trim_start_matches('/'));
    assert!(!dir.exists());
    remove_cgroup(dir.parent().unwrap());
}

fn path_cannot_lead_out() {
    needs_cgroupfs();
    runc_fails("it takes the root of the hierarchy");
    for path in ["/a/..", "/../..", "/"] {
        Bundle::new()
            .set("/linux/cgroupsPath", json!(path))
            .refused(&["cgroupsPath", "the root of the hierarchy"]);
    }
}

fn nobody_makes_one() {
    husk_only("the option is crun's");
    let cmd = |b: &Bundle| {
        b.save();
        let cmd = Cmd::new(process::runtime()).arg("--root");
        cmd.arg(dir().join("state"))
            .args(["--cgroup-manager=disabled", "run", "--bundle"])
            .arg(&b.dir)
            .arg(process::id_prefix())
    };
    let b = Bundle::new()
        .without_namespace("cgroup")
        .without_mount("/sys/fs/cgroup")
        .payload(&["cat", "/proc/self/cgroup"]);
    let o = cmd(&b).run().ok();
    let own = format!("0::/{}/harness", cgroup().display());
    assert!(o.lines().contains(&own.as_str()), "{o}");
    assert!(
        o.err.contains("linux.resources.devices: not enforced"),
        "{o}"
    );
    let b = b.set("/linux/resources/pids", json!({"limit": 5}));
    cmd(&b).run().fails(
        1,
        &["linux.resources.pids.limit", "--cgroup-manager disabled"],
    );
}

fn path_is_removed() {
    needs_cgroupfs();
    let b = Bundle::new().cgroup("box");
    let c = b.start();
    assert!(parent().join("box").is_dir());
    c.stop();
    assert!(parent().join("box").is_dir(), "until it is deleted");
    c.delete();
    assert!(!parent().join("box").exists());
    // and when nothing came of it
    b.cgroup("box")
        .set("/process/args", json!(["/bin/nothing"]))
        .refused(&["no such file"]);
    assert!(!parent().join("box").exists());
}

fn path_deep_is_removed() {
    needs_cgroupfs();
    let c = Bundle::new().cgroup("a/b/c").start();
    drop(c);
    assert!(!parent().join("a/b/c").exists());
    remove_cgroup(&parent().join("a"));
}

/// Those that the container made, such as systemd does.
fn sub_cgroups_are_removed() {
    let c = Bundle::new().start();
    let sub = c.cgroup_dir().join("one/two");
    fs::create_dir_all(&sub).unwrap();
    c.exec(&["--cgroup", "one/two", "--detach"], &["wait"]).ok();
    wait_until("a process is in there", || {
        !read(&sub, "cgroup.procs").is_empty()
    });
    Cmd::runtime().args(["delete", "--force", &c.id]).run().ok();
    assert!(!c.cgroup_dir().exists());
    c.forget();
}

fn existing_empty_one_is_used() {
    needs_cgroupfs();
    fs::create_dir(parent().join("mine")).unwrap();
    let c = Bundle::new().cgroup("mine").start();
    assert!(cgroup_of(c.pid()).ends_with("/mine"));
}

/// Two containers in one cgroup would share limits, freezer and end.
fn occupied_one_is_refused() {
    needs_cgroupfs();
    let c = Bundle::new().cgroup("box").start();
    let pid = c.pid();
    Bundle::new()
        .cgroup("box")
        .refused(&["cgroup", "not empty"]);
    assert_eq!(c.pid(), pid);
    assert_eq!(
        c.status(),
        "running",
        "the one that was there first lives on"
    );
}

fn frozen_one_is_refused() {
    needs_cgroupfs();
    let dir = parent().join("box");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("cgroup.freeze"), "1").unwrap();
    wait_until("it is frozen", || {
        read(&dir, "cgroup.events").contains("frozen 1")
    });
    let o = Bundle::new()
        .cgroup("box")
        .payload(&["true"])
        .container()
        .cmd("run", &[])
        .run();
    o.fails(1, &["cgroup", "frozen"]);
    remove_cgroup(&dir);
}

fn controllers_are_all_on() {
    let c = Bundle::new().start();
    let root = read(Path::new("/sys/fs/cgroup"), "cgroup.controllers");
    let mut want: Vec<&str> = root.split_whitespace().collect();
    let have = c.cgroup_file("cgroup.controllers");
    let mut have: Vec<&str> = have.split_whitespace().collect();
    want.sort();
    have.sort();
    assert_eq!(
        have, want,
        "all that there are, as runc does: the container's own cgroups want them"
    );
}

/// Which of them this host lacks.
fn missing_controller() -> Option<&'static str> {
    let all = read(Path::new("/sys/fs/cgroup"), "cgroup.controllers");
    let all: Vec<&str> = all.split_whitespace().collect();
    ["memory", "hugetlb"].into_iter().find(|c| !all.contains(c))
}

/// On a hybrid host, controllers are bound to cgroup v1. A limit that is not there must not be taken for granted.
fn missing_controller_is_refused_by_name() {
    let Some(controller) = missing_controller() else {
        skip("every controller is here");
    };
    let limit = match controller {
        "memory" => json!({"memory": {"limit": 100_000_000}}),
        _ => json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 0}]}),
    };
    let o = Bundle::new()
        .set("/linux/resources", limit)
        .refused(&[controller]);
    if is_husk() {
        o.fails(1, &["linux.resources"]);
    }
}

fn unified_missing_controller() {
    let Some(controller) = missing_controller() else {
        skip("every controller is here");
    };
    let b = Bundle::new().set(
        &format!("/linux/resources/unified/{controller}.something"),
        json!("1"),
    );
    b.refused(&[controller]);
}

fn unified_bad_keys() {
    for key in ["", "memory", "../memory.max", "a/b.c"] {
        let b = Bundle::new().set("/linux/resources/unified", json!({key: "1"}));
        b.refused(&["unified"]);
    }
}

fn no_limits_need_no_controller() {
    Bundle::new()
        .remove("/linux/resources")
        .payload(&["true"])
        .run()
        .ok();
    Bundle::new()
        .set(
            "/linux/resources",
            json!({"memory": {}, "cpu": {}, "pids": {"limit": 0}}),
        )
        .remove("/linux/resources/pids")
        .payload(&["true"])
        .run()
        .ok();
}

fn delegated(read_only: bool) -> Container {
    let b = Bundle::new().user_namespace(100_000);
    let mut options = vec!["nosuid", "noexec", "nodev"];
    if read_only {
        options.push("ro");
    }
    b.edit_mount("/sys/fs/cgroup", |m| m["options"] = json!(options))
        .start()
}

/// What systemd in a container needs: /sys/kernel/cgroup/delegate lists the files.
fn ownership_is_delegated() {
    runc_fails("only its systemd driver does that");
    let c = delegated(false);
    let dir = c.cgroup_dir();
    for name in [
        "",
        "cgroup.procs",
        "cgroup.subtree_control",
        "cgroup.threads",
    ] {
        assert_eq!(
            fs::metadata(dir.join(name)).unwrap().uid(),
            100_000,
            "{name}"
        );
    }
    assert_eq!(
        fs::metadata(dir.join("cgroup.freeze")).unwrap().uid(),
        0,
        "what limits it is not the container's"
    );
    c.exec(&[], &["mkdir", "/sys/fs/cgroup/sub"]).ok();
    assert_eq!(fs::metadata(dir.join("sub")).unwrap().uid(), 100_000);
}

fn ownership_stays_when_read_only() {
    let c = delegated(true);
    assert_eq!(fs::metadata(c.cgroup_dir()).unwrap().uid(), 0);
}

fn with(limits: Value) -> Bundle {
    Bundle::new().set("/linux/resources", limits)
}

const MIB: i64 = 1 << 20;

fn memory_files() {
    needs(&[Controller("memory"), Swap]);
    let c =
        with(json!({"memory": {"limit": 100 * MIB, "swap": 150 * MIB, "reservation": 50 * MIB}}))
            .start();
    assert_eq!(c.cgroup_file("memory.max"), (100 * MIB).to_string());
    assert_eq!(
        c.cgroup_file("memory.swap.max"),
        (50 * MIB).to_string(),
        "swap is memory and swap"
    );
    assert_eq!(c.cgroup_file("memory.low"), (50 * MIB).to_string());
    let c = with(json!({"memory": {"limit": 100 * MIB, "swap": 100 * MIB}})).start();
    assert_eq!(c.cgroup_file("memory.swap.max"), "0");
}

fn memory_unlimited() {
    needs(&[Controller("memory"), Swap]);
    let c = with(json!({"memory": {"limit": -1}})).start();
    assert_eq!(c.cgroup_file("memory.max"), "max");
    assert_eq!(c.cgroup_file("memory.swap.max"), "max");
    let c = with(json!({"memory": {"limit": 100 * MIB, "swap": -1}})).start();
    assert_eq!(c.cgroup_file("memory.swap.max"), "max");
}

fn memory_limit_kills() {
    needs(&[Controller("memory")]);
    let b = with(json!({"memory": {"limit": 30 * MIB, "swap": 30 * MIB}}));
    let o = b.clone().payload(&["alloc", "60"]).run().exits(128 + 9);
    assert_eq!(o.out, "");
    b.payload(&["alloc", "10"]).run().ok().says("allocated 10");
}

/// What the container's process takes before it is the payload's is charged to the container.
fn memory_of_the_set_up_is_little() {
    husk_only("others need 4 to 6 MiB for themselves");
    needs(&[Controller("memory")]);
    let names: Vec<&str> = CALLS.iter().map(|c| c.0).collect();
    let rules = [json!({"names": names, "action": "SCMP_ACT_ALLOW"})];
    let profile = json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules});
    let plain = with(json!({"memory": {"limit": MIB, "swap": MIB}}));
    for b in [plain.clone(), plain.set("/linux/seccomp", profile)] {
        for _ in 0..3 {
            let o = b.clone().payload(&["echo", "small"]).run().ok();
            assert_eq!(o.line(), "small");
            let c = b.start();
            c.exec(&[], &["echo", "beside it"]).ok().says("beside it");
            assert_eq!(keyed(&c.cgroup_file("memory.events"), "oom_kill"), 0);
        }
    }
}

fn memory_too_small_is_explained() {
    needs(&[Controller("memory")]);
    let b = with(json!({"memory": {"limit": 20_000, "swap": 20_000}}));
    let o = b.payload(&["true"]).run();
    assert_ne!(o.code, 0, "{o}");
    let words = ["memory", "oom"];
    assert!(
        words.iter().any(|w| o.err.to_lowercase().contains(w)),
        "{o}"
    );
}

fn memory_swap_below_limit_is_refused() {
    needs(&[Controller("memory")]);
    with(json!({"memory": {"limit": 100 * MIB, "swap": 50 * MIB}})).refused(&["memory", "swap"]);
    with(json!({"memory": {"swap": 50 * MIB}})).refused(&["memory", "swap"]);
}

fn memory_swap_is_used() {
    needs(&[Controller("memory"), Swap]);
    let b = with(json!({"memory": {"limit": 40 * MIB, "swap": 200 * MIB}}))
        .payload(&["alloc", "70", "hold"]);
    let c = b.create();
    c.start();
    wait_until("70 MiB are allocated", || c.out().contains("allocated 70"));
    let swapped: i64 = c.cgroup_file("memory.swap.current").parse().unwrap();
    assert!(swapped > 20 * MIB, "{swapped}");
    let resident: i64 = c.cgroup_file("memory.current").parse().unwrap();
    assert!(resident <= 40 * MIB, "{resident}");
}

fn memory_without_swap_kills() {
    needs(&[Controller("memory"), Swap]);
    let b = with(json!({"memory": {"limit": 40 * MIB, "swap": 40 * MIB}}));
    b.payload(&["alloc", "70"]).run().exits(128 + 9);
}

fn memory_unified() {
    needs(&[Controller("memory")]);
    let c = with(json!({
        "memory": {"limit": 100 * MIB},
        "unified": {"memory.high": "52428800", "memory.low": "10485760", "memory.max": "209715200", "memory.oom.group": "1"}
    }))
    .start();
    assert_eq!(c.cgroup_file("memory.high"), "52428800");
    assert_eq!(c.cgroup_file("memory.low"), "10485760");
    assert_eq!(c.cgroup_file("memory.max"), "209715200", "unified wins");
    assert_eq!(c.cgroup_file("memory.oom.group"), "1");
}

fn memory_check_before_update() {
    needs(&[Controller("memory")]);
    let c = with(json!({"memory": {"limit": 100 * MIB, "checkBeforeUpdate": true}})).start();
    assert_eq!(c.cgroup_file("memory.max"), (100 * MIB).to_string());
}

fn cpu_files() {
    needs(&[Controller("cpu")]);
    let c =
        with(json!({"cpu": {"shares": 1024, "quota": 50_000, "period": 200_000, "burst": 10_000}}))
            .start();
    assert_eq!(c.cgroup_file("cpu.weight"), "100");
    assert_eq!(c.cgroup_file("cpu.max"), "50000 200000");
    assert_eq!(c.cgroup_file("cpu.max.burst"), "10000");
    let c = with(json!({"cpu": {"quota": -1}})).start();
    assert_eq!(c.cgroup_file("cpu.max"), "max 100000");
    let c = with(json!({"cpu": {"quota": 70_000}})).start();
    assert_eq!(c.cgroup_file("cpu.max"), "70000 100000");
}

/// 2 → 1, 1024 → 100, 262144 → 10000, and a curve through them.
fn cpu_shares_to_weight() {
    needs(&[Controller("cpu")]);
    for (shares, weight) in [(2, "1"), (1024, "100"), (262_144, "10000"), (512, "59")] {
        let c = with(json!({"cpu": {"shares": shares}})).start();
        assert_eq!(c.cgroup_file("cpu.weight"), weight, "{shares} shares");
    }
}

fn cpu_bad_period_is_refused() {
    needs(&[Controller("cpu")]);
    with(json!({"cpu": {"quota": 50_000, "period": 10}})).refused(&["cpu", "invalid argument"]);
}

/// 20 % of a CPU, whatever else runs on this machine: it may have less, but never much more.
fn cpu_quota_holds() {
    needs(&[Controller("cpu")]);
    let c = with(json!({"cpu": {"quota": 10_000, "period": 50_000}})).start();
    let before = keyed(&c.cgroup_file("cpu.stat"), "usage_usec");
    let start = std::time::Instant::now();
    c.exec(&[], &["burn", "1500"]).ok();
    let wall = start.elapsed().as_micros() as u64;
    let stat = c.cgroup_file("cpu.stat");
    let used = keyed(&stat, "usage_usec") - before;
    assert!(used < wall * 32 / 100, "{used} of {wall} µs");
    assert!(
        used > wall * 4 / 100,
        "{used} of {wall} µs: the machine is too busy to tell"
    );
    assert!(keyed(&stat, "nr_throttled") > 5, "{stat}");
}

fn cpu_weights_compete() {
    needs(&[Controller("cpu"), Controller("cpuset")]);
    // both on one CPU, so that they are in each other's way
    let start = |shares: u64| with(json!({"cpu": {"shares": shares, "cpus": "0"}})).start();
    let (heavy, light) = (start(10_240), start(1024));
    let usage = |c: &Container| keyed(&c.cgroup_file("cpu.stat"), "usage_usec");
    let before = (usage(&heavy), usage(&light));
    let runs = [
        heavy.exec_spawn(&[], &["burn", "2500"]),
        light.exec_spawn(&[], &["burn", "2500"]),
    ];
    std::thread::sleep(Duration::from_millis(2000));
    let used = (usage(&heavy) - before.0, usage(&light) - before.1);
    for run in runs {
        run.wait().ok();
    }
    let weights = [&heavy, &light].map(|c| c.cgroup_file("cpu.weight").parse::<u64>().unwrap());
    assert!(weights[0] > 5 * weights[1], "{weights:?}");
    assert!(used.0 > used.1 * 2, "{used:?} µs by weights {weights:?}");
}

fn cpu_idle() {
    needs(&[Controller("cpu"), Kernel(5, 15)]);
    let c = with(json!({"cpu": {"idle": 1}})).start();
    assert_eq!(c.cgroup_file("cpu.idle"), "1");
}

fn cpuset_holds() {
    needs(&[Controller("cpuset"), Cpus(2)]);
    let b = with(json!({"cpu": {"cpus": "1", "mems": "0"}}));
    let c = b.start();
    assert_eq!(c.cgroup_file("cpuset.cpus"), "1");
    assert_eq!(c.cgroup_file("cpuset.mems"), "0");
    assert_eq!(c.exec(&[], &["affinity"]).ok().json(), json!([1]));
    let b = with(json!({"cpu": {"cpus": "0"}})).payload(&["affinity"]);
    assert_eq!(b.run().ok().json(), json!([0]));
}

fn cpuset_unknown_cpu_is_refused() {
    needs(&[Controller("cpuset")]);
    with(json!({"cpu": {"cpus": "4000"}})).refused(&["cpuset.cpus"]);
    with(json!({"cpu": {"cpus": "one"}})).refused(&["cpu"]);
}

fn pids_file() {
    needs(&[Controller("pids")]);
    for (limit, file) in [(50, "50"), (-1, "max")] {
        let c = with(json!({"pids": {"limit": limit}})).start();
        assert_eq!(c.cgroup_file("pids.max"), file, "{limit}");
    }
}

fn pids_limit_stops_a_fork_bomb() {
    needs(&[Controller("pids")]);
    let o = with(json!({"pids": {"limit": 20}}))
        .payload(&["forkbomb", "100"])
        .run()
        .ok();
    let forked: u32 = o.line().split(' ').nth(1).unwrap().parse().unwrap();
    assert!(forked < 20 && forked > 5, "{o}");
    assert!(o.line().ends_with("then EAGAIN"), "{o}");
}

/// The disk's numbers, and its directory.
fn disk() -> (PathBuf, u32, u32) {
    let dir = PathBuf::from(std::env::var_os("HUSK_TEST_DISK").unwrap());
    let dev = fs::metadata(&dir).unwrap().dev();
    (dir, libc::major(dev), libc::minor(dev))
}

fn io_weight() {
    needs(&[Controller("io")]);
    let b = with(json!({"blockIO": {"weight": 750}}));
    let c = b.create();
    if c.cgroup_dir().join("io.bfq.weight").exists() {
        assert_eq!(
            c.cgroup_file("io.bfq.weight").lines().next(),
            Some("default 750")
        );
    } else {
        assert_eq!(
            c.cgroup_file("io.weight"),
            "default 7475",
            "1 + (w - 10) * 9999 / 990"
        );
    }
}

fn io_rate_holds() {
    needs(&[Controller("io"), Disk]);
    let (disk, major, minor) = disk();
    let dir = disk.join(format!("husk-test-{}", std::process::id()));
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)).unwrap();
    let rate = 4 * MIB;
    let b = Bundle::new().writable().bind(&dir, "/disk", &[]).payload(&[
        "direct-write",
        "/disk/file",
        "8",
    ]);
    let ms = |o: Output| {
        o.ok()
            .line()
            .strip_prefix("ms ")
            .unwrap()
            .parse::<i64>()
            .unwrap()
    };
    let free = ms(b.run());
    let device = json!([{"major": major, "minor": minor, "rate": rate}]);
    let limits = json!({"blockIO": {"throttleWriteBpsDevice": device, "throttleReadIOPSDevice": [{"major": major, "minor": minor, "rate": 1000}]}});
    let b = b.set("/linux/resources", limits);
    let c = b.create();
    let file = c.cgroup_file("io.max");
    assert_eq!(
        file,
        format!("{major}:{minor} rbps=max wbps={rate} riops=1000 wiops=max")
    );
    drop(c);
    let limited = ms(b.run());
    fs::remove_dir_all(&dir).unwrap();
    // 8 MiB at 4 MiB/s
    assert!(
        (1300..6000).contains(&limited),
        "{limited} ms, {free} ms without a limit"
    );
    assert!(free < limited, "{limited} ms, {free} ms without a limit");
}

/// A page size that this kernel has: "2MB" as in the name of its file.
fn page_size() -> Option<String> {
    let names = fs::read_dir("/sys/kernel/mm/hugepages").ok()?;
    let kb = names.flatten().find_map(|e| {
        let name = e.file_name().to_string_lossy().into_owned();
        name.strip_prefix("hugepages-")?
            .strip_suffix("kB")?
            .parse::<u64>()
            .ok()
    })?;
    Some(match kb {
        k if k >= 1 << 20 => format!("{}GB", k >> 20),
        k if k >= 1 << 10 => format!("{}MB", k >> 10),
        k => format!("{k}KB"),
    })
}

fn hugetlb_files() {
    needs(&[Controller("hugetlb")]);
    let size = page_size().expect("a size of huge pages");
    let limit = json!([{"pageSize": size, "limit": 4_i64 << 30}]);
    let c = with(json!({"hugepageLimits": limit})).start();
    for file in ["max", "rsvd.max"] {
        assert_eq!(
            c.cgroup_file(&format!("hugetlb.{size}.{file}")),
            (4_i64 << 30).to_string(),
            "{file}"
        );
    }
}

fn hugetlb_unknown_size_is_refused() {
    needs(&[Controller("hugetlb")]);
    with(json!({"hugepageLimits": [{"pageSize": "3MB", "limit": 0}]})).refused(&["3MB"]);
}

fn annotated(b: Bundle, limits: &[(&str, &str)]) -> Bundle {
    husk_only("annotations of its own");
    limits.iter().fold(b, |b, (name, value)| {
        b.set(&format!("/annotations/dev.husk.{name}"), json!(value))
    })
}

fn annotated_memory() {
    needs(&[Controller("memory"), Swap]);
    let b = with(json!({"memory": {"limit": 100 * MIB}}));
    let limits = [
        ("memory.high", "60M"),
        ("memory.min", "10M"),
        ("memory.oom.group", "true"),
        ("memory.swap.high", "1g"),
    ];
    let c = annotated(b, &limits).start();
    assert_eq!(c.cgroup_file("memory.high"), (60 * MIB).to_string());
    assert_eq!(c.cgroup_file("memory.min"), (10 * MIB).to_string());
    assert_eq!(c.cgroup_file("memory.oom.group"), "1");
    assert_eq!(c.cgroup_file("memory.swap.high"), (1024 * MIB).to_string());
    assert_eq!(c.cgroup_file("memory.max"), (100 * MIB).to_string());
}

fn annotated_oom_group_ends_all() {
    needs(&[Controller("memory")]);
    let limits = json!({"memory": {"limit": 30 * MIB, "swap": 30 * MIB}});
    let c = annotated(with(limits), &[("memory.oom.group", "true")]).start();
    c.exec(&[], &["alloc", "60"]).exits(128 + 9);
    c.wait_status("stopped");
}

fn annotated_io_latency() {
    needs(&[Controller("io"), Disk]);
    let (_, major, minor) = disk();
    let value = format!("{major}:{minor} target=75000");
    let c = annotated(Bundle::new(), &[("io.latency", &value)]).start();
    assert_eq!(c.cgroup_file("io.latency"), value);
}

/// Whose CPUs are nobody else's: only a child of the root, or of another partition, can be one.
fn annotated_partition() {
    // other tests want the first two, and all at the same time
    needs(&[Controller("cpuset"), Cpus(3)]);
    let cpu = std::thread::available_parallelism().map_or(1, usize::from) - 1;
    for kind in ["root", "isolated", "member"] {
        let id = format!("{}part-{kind}", crate::support::process::id_prefix());
        let b = with(json!({"cpu": {"cpus": cpu.to_string()}}))
            .set("/linux/cgroupsPath", json!(format!("/{id}")))
            .payload(&["affinity", ";", "wait"]);
        let c = annotated(b, &[("cpuset.cpus.partition", kind)]).start();
        let dir = Path::new("/sys/fs/cgroup").join(&id);
        assert_eq!(read(&dir, "cpuset.cpus.partition"), kind);
        assert_eq!(c.out().lines().next(), Some(&*format!("[{cpu}]")));
    }
}

/// The kernel takes the word and makes an invalid partition of it, which nobody would notice.
fn annotated_partition_that_cannot_be() {
    needs(&[Controller("cpuset")]);
    let b = with(json!({"cpu": {"cpus": "1"}}));
    annotated(b, &[("cpuset.cpus.partition", "root")]).refused(&[
        "annotations[\"dev.husk.cpuset.cpus.partition\"]",
        "'root invalid (",
    ]);
}

fn annotated_compressed_swap() {
    needs(&[
        Controller("memory"),
        File("/sys/module/zswap/parameters/enabled"),
    ]);
    let c = annotated(Bundle::new(), &[("memory.zswap.max", "64M")]).start();
    assert_eq!(c.cgroup_file("memory.zswap.max"), (64 * MIB).to_string());
}

fn annotated_clamps() {
    needs(&[
        Controller("cpu"),
        File("/proc/sys/kernel/sched_util_clamp_max"),
    ]);
    let limits = [("cpu.uclamp.min", "12.5"), ("cpu.uclamp.max", "50")];
    let c = annotated(Bundle::new(), &limits).start();
    assert_eq!(c.cgroup_file("cpu.uclamp.min"), "12.50");
    assert_eq!(c.cgroup_file("cpu.uclamp.max"), "50.00");
}

fn annotated_values_are_checked() {
    let bad = [("memory.high", "much"), ("cpuset.cpus.partition", "own")];
    let b = annotated(Bundle::new(), &bad);
    b.set("/linux/resources/unified/memory.high", json!("5"))
        .refused(&["2 faults", "memory.high", "too; keep one", "'own'; give"]);
}
