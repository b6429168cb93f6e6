//! update: limits of a container that exists; events: what it uses.

use crate::support::*;
use std::fs;

tests![
    memory,
    memory_below_usage_is_refused,
    cpu,
    pids,
    cpuset,
    resources_file,
    resources_on_stdin,
    resources_broken,
    keeps_device_rules,
    changes_device_rules,
    keeps_device_rules_of_others,
    all_or_nothing_when_the_record_cannot_be_kept,
    all_or_nothing,
    all_or_nothing_of_idle_and_weight,
    says_nothing,
    what_was_saved_counts,
    cpu_burst,
    cpu_idle,
    unified,
    io_of_a_device,
    of_a_paused_container,
    of_a_created_container,
    of_a_stopped_container,
    refused_by_name,
    unknown_container,
    stats,
    stats_of_everything,
    events_of_a_stopped_container,
    events_bad_interval,
    events_end_with_the_container,
    oom_event,
    oom_event_of_the_end,
];

/// `update` with a file of resources.
fn update_from(c: &Container, resources: Value) -> Output {
    fs::write("limits.json", resources.to_string()).unwrap();
    update(c, &["--resources", "limits.json"])
}

fn update(c: &Container, options: &[&str]) -> Output {
    Cmd::runtime().arg("update").args(options).arg(&c.id).run()
}

fn memory() {
    needs(&[Controller("memory"), Swap]);
    let c = Bundle::new()
        .set(
            "/linux/resources",
            json!({"memory": {"limit": 100 << 20, "swap": 150 << 20}}),
        )
        .start();
    update(&c, &["--memory", "50M", "--memory-swap", "80M"]).ok();
    assert_eq!(c.cgroup_file("memory.max"), (50 << 20).to_string());
    assert_eq!(c.cgroup_file("memory.swap.max"), (30 << 20).to_string());
    update(&c, &["--memory-reservation", "20M"]).ok();
    assert_eq!(c.cgroup_file("memory.low"), (20 << 20).to_string());
    update(&c, &["--memory", "-1", "--memory-swap", "-1"]).ok();
    assert_eq!(c.cgroup_file("memory.max"), "max");
}

fn memory_below_usage_is_refused() {
    needs(&[Controller("memory")]);
    let b = Bundle::new().set(
        "/linux/resources",
        json!({"memory": {"limit": 100 << 20, "checkBeforeUpdate": true}}),
    );
    let c = b.payload(&["alloc", "20", "hold"]).start();
    let limits = json!({"memory": {"limit": 10 << 20, "checkBeforeUpdate": true}});
    fs::write("limits.json", limits.to_string()).unwrap();
    update(&c, &["--resources", "limits.json"]).fails(1, &["rejecting memory limit"]);
    assert_eq!(c.cgroup_file("memory.max"), (100 << 20).to_string());
    assert_eq!(c.status(), "running");
}

fn cpu() {
    needs(&[Controller("cpu")]);
    let c = Bundle::new()
        .set(
            "/linux/resources",
            json!({"cpu": {"shares": 1024, "quota": 50_000, "period": 100_000}}),
        )
        .start();
    update(&c, &["--cpu-quota", "70000"]).ok();
    assert_eq!(c.cgroup_file("cpu.max"), "70000 100000");
    update(&c, &["--cpu-period", "200000", "--cpu-quota", "80000"]).ok();
    assert_eq!(c.cgroup_file("cpu.max"), "80000 200000");
    update(&c, &["--cpu-quota", "-1"]).ok();
    assert_eq!(c.cgroup_file("cpu.max"), "max 200000", "the period is kept");
    update(&c, &["--cpu-share", "262144"]).ok();
    assert_eq!(c.cgroup_file("cpu.weight"), "10000");
}

fn pids() {
    needs(&[Controller("pids")]);
    let c = Bundle::new()
        .set("/linux/resources", json!({"pids": {"limit": 100}}))
        .start();
    update(&c, &["--pids-limit", "10"]).ok();
    assert_eq!(c.cgroup_file("pids.max"), "10");
    let o = c.exec(&[], &["forkbomb", "50"]).ok();
    assert!(o.line().ends_with("EAGAIN"), "{o}");
    update(&c, &["--pids-limit", "-1"]).ok();
    assert_eq!(c.cgroup_file("pids.max"), "max");
}

fn cpuset() {
    needs(&[Controller("cpuset"), Cpus(2)]);
    let c = Bundle::new().start();
    update(&c, &["--cpuset-cpus", "1"]).ok();
    assert_eq!(c.cgroup_file("cpuset.cpus"), "1");
    assert_eq!(c.exec(&[], &["affinity"]).ok().json(), json!([1]));
}

fn resources_file() {
    needs(&[Controller("pids"), Controller("memory")]);
    let c = Bundle::new().start();
    fs::write(
        "limits.json",
        json!({"memory": {"limit": 60 << 20}, "pids": {"limit": 33}}).to_string(),
    )
    .unwrap();
    update(&c, &["--resources", "limits.json"]).ok();
    assert_eq!(c.cgroup_file("memory.max"), (60 << 20).to_string());
    assert_eq!(c.cgroup_file("pids.max"), "33");
}

/// As containerd's shim does.
fn resources_on_stdin() {
    needs(&[Controller("pids")]);
    let c = Bundle::new().start();
    fs::write("limits.json", json!({"pids": {"limit": 44}}).to_string()).unwrap();
    let stdin = fs::File::open("limits.json").unwrap();
    Cmd::runtime()
        .args(["update", "--resources", "-"])
        .arg(&c.id)
        .stdin(stdin)
        .run()
        .ok();
    assert_eq!(c.cgroup_file("pids.max"), "44");
}

fn resources_broken() {
    let c = Bundle::new().start();
    fs::write("limits.json", "{").unwrap();
    let o = update(&c, &["--resources", "limits.json"]);
    assert_eq!(o.code, 1, "{o}");
    update(&c, &["--resources", "nowhere.json"])
        .fails(1, &["nowhere.json", "no such file or directory"]);
    update(&c, &["--memory", "lots"]).fails(1, &["memory"]);
}

fn keeps_device_rules() {
    needs(&[Controller("pids")]);
    let b = Bundle::new().capabilities(
        &["bounding", "effective", "permitted"],
        &["CAP_MKNOD", "CAP_SYSLOG"],
    );
    let rule = json!({"allow": true, "type": "c", "major": 1, "minor": 11, "access": "r"});
    let c = b.push("/linux/resources/devices", rule).start();
    c.exec(&[], &["mknod", "/dev/kmsg", "c", "1", "11"]).ok();
    update(&c, &["--pids-limit", "100"]).ok();
    assert_eq!(
        c.exec(
            &[],
            &["open", "/dev/kmsg", "r", ";", "open", "/dev/kmsg", "w"]
        )
        .exits(1)
        .lines(),
        ["ok", "error EPERM"]
    );
}

/// runc leaves them alone.
fn changes_device_rules() {
    husk_only("runc's update does not know of devices");
    let b = Bundle::new().capabilities(
        &["bounding", "effective", "permitted"],
        &["CAP_MKNOD", "CAP_SYSLOG"],
    );
    let c = b
        .push(
            "/linux/resources/devices",
            json!({"allow": true, "type": "c", "major": 1, "minor": 11, "access": "r"}),
        )
        .start();
    c.exec(
        &[],
        &[
            "mknod",
            "/dev/kmsg",
            "c",
            "1",
            "11",
            ";",
            "open",
            "/dev/kmsg",
            "r",
        ],
    )
    .ok()
    .says("ok");
    let deny = json!({"devices": [{"allow": false, "access": "rwm"}]});
    update_from(&c, deny).ok();
    let open = &["open", "/dev/kmsg", "r", ";", "open", "/dev/null", "rw"];
    assert_eq!(c.exec(&[], open).exits(1).lines(), ["error EPERM", "ok"]);
    // what is saved is the new rules
    update(&c, &["--resources", "/dev/stdin"]).fails(1, &["--resources"]);
    let bad = json!({"devices": [{"allow": true, "access": "x"}]});
    update_from(&c, bad).fails(1, &["limits.json", "devices[0].access", "'x'"]);
    assert_eq!(c.exec(&[], open).exits(1).lines(), ["error EPERM", "ok"]);
}

/// Engines send the rules that they know; what a wrapper of theirs has added to the config stays.
fn keeps_device_rules_of_others() {
    husk_only("runc's update does not know of devices");
    let caps = ["bounding", "effective", "permitted"];
    let b = Bundle::new().capabilities(&caps, &["CAP_MKNOD", "CAP_SYSLOG"]);
    let engines = json!([{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw"}]);
    let mut all = engines.clone();
    let kmsg = json!({"allow": true, "type": "c", "major": 1, "minor": 11, "access": "r"});
    all.as_array_mut().unwrap().push(kmsg.clone());
    let c = b.set("/linux/resources/devices", all).start();
    c.exec(&[], &["mknod", "/dev/kmsg", "c", "1", "11"]).ok();
    let open = &["open", "/dev/kmsg", "r"];
    let o = update_from(&c, json!({"devices": engines})).ok();
    assert!(
        o.err
            .contains("devices: holds only rules that the container has"),
        "{o}"
    );
    c.exec(&[], open).ok().says("ok");
    // by name they can be taken away, and given back
    let mut deny = kmsg.clone();
    deny["allow"] = false.into();
    let mut asked = engines.clone();
    asked.as_array_mut().unwrap().push(deny);
    assert_eq!(update_from(&c, json!({"devices": asked})).ok().err, "");
    assert_eq!(c.exec(&[], open).exits(1).line(), "error EPERM");
    assert_eq!(update_from(&c, json!({"devices": [kmsg]})).ok().err, "");
    c.exec(&[], open).ok().says("ok");
}

/// What cannot be kept is not done either.
fn all_or_nothing_when_the_record_cannot_be_kept() {
    husk_only("a record of its own");
    needs(&[Controller("pids")]);
    let caps = ["bounding", "effective", "permitted"];
    let b = Bundle::new().capabilities(&caps, &["CAP_MKNOD", "CAP_SYSLOG"]);
    let b = b.set("/linux/resources/pids", json!({"limit": 50}));
    let rule = json!({"allow": true, "type": "c", "major": 1, "minor": 11, "access": "r"});
    let c = b.push("/linux/resources/devices", rule).start();
    c.exec(&[], &["mknod", "/dev/kmsg", "c", "1", "11"]).ok();
    let record = dir().join("state").join(&c.id).join("config.json.tmp");
    fs::create_dir(record).unwrap();
    let deny = json!({"devices": [{"allow": false, "access": "rwm"}], "pids": {"limit": 40}});
    update_from(&c, deny).fails(1, &["update", "keep config.json"]);
    assert_eq!(c.cgroup_file("pids.max"), "50");
    c.exec(&[], &["open", "/dev/kmsg", "r"]).ok().says("ok");
}

/// Of several limits the last cannot be: the others are as before, and the error names the file.
fn all_or_nothing() {
    runc_fails("it leaves what it has written");
    needs(&[Controller("pids"), Controller("cpu"), Controller("cpuset")]);
    let limits =
        json!({"pids": {"limit": 50}, "cpu": {"shares": 512, "quota": 50_000, "burst": 10_000}});
    let c = Bundle::new().set("/linux/resources", limits).start();
    let files = [
        "pids.max",
        "cpu.weight",
        "cpu.max",
        "cpu.max.burst",
        "cpuset.cpus",
        "cgroup.max.depth",
    ];
    let now = || files.map(|f| c.cgroup_file(f));
    let before = now();
    let other = json!({
        "pids": {"limit": 5},
        "cpu": {"shares": 2048, "quota": 20_000, "period": 200_000, "burst": 5_000, "cpus": "0"},
        "unified": {"cgroup.max.depth": "3", "cpuset.mems": "77"},
    });
    update_from(&c, other.clone()).fails(1, &["update", "unified.cpuset.mems", "cpuset.mems: "]);
    assert_eq!(now(), before);
    // and what is saved is as before too: the period is not the one that was refused
    update(&c, &["--cpu-quota", "60000"]).ok();
    assert_eq!(c.cgroup_file("cpu.max"), "60000 100000");
    let mut good = other;
    good["unified"]
        .as_object_mut()
        .unwrap()
        .remove("cpuset.mems");
    update_from(&c, good).ok();
    assert_eq!(
        now(),
        ["5", "174", "20000 200000", "5000", "0", "3"],
        "without the fault all of it"
    );
}

fn all_or_nothing_of_idle_and_weight() {
    runc_fails("it leaves what it has written");
    needs(&[Controller("cpu"), Controller("pids")]);
    let c = Bundle::new()
        .set("/linux/resources", json!({"cpu": {"shares": 512}}))
        .start();
    let now = || ["cpu.idle", "cpu.weight"].map(|f| c.cgroup_file(f));
    // the weight of one that is idle is 0 or 1, from kernel to kernel
    let idle = || c.cgroup_file("cpu.idle") == "1";
    let bad = json!({"pids.max": "many"});
    update_from(&c, json!({"cpu": {"idle": 1}, "unified": bad})).fails(1, &["pids.max"]);
    assert_eq!(now(), ["0", "59"]);
    update(&c, &["--cpu-idle", "1"]).ok();
    assert!(idle());
    update_from(
        &c,
        json!({"cpu": {"idle": 0, "shares": 2048}, "unified": bad}),
    )
    .fails(1, &["pids.max"]);
    assert!(idle());
    update(&c, &["--cpu-idle", "0"]).ok();
    assert_eq!(now(), ["0", "59"], "the weight is the one that it had");
}

fn says_nothing() {
    needs(&[Controller("pids")]);
    let c = Bundle::new().start();
    for options in [&["--pids-limit", "5"][..], &[]] {
        let o = update(&c, options).ok();
        assert_eq!((o.out.as_str(), o.err.as_str()), ("", ""), "{o}");
    }
    let o = update(&c, &["--kernel-memory", "5M"]).ok();
    assert!(o.err.to_lowercase().contains("kernel memory"), "{o}");
}

/// Fields that belong together may come one after the other.
fn what_was_saved_counts() {
    needs(&[Controller("memory"), Swap]);
    let c = Bundle::new()
        .set("/linux/resources", json!({"memory": {"limit": 100 << 20}}))
        .start();
    update(&c, &["--memory", "50M", "--memory-swap", "80M"]).ok();
    update(&c, &["--memory", "60M"]).ok();
    assert_eq!(c.cgroup_file("memory.max"), (60 << 20).to_string());
    assert_eq!(c.cgroup_file("memory.swap.max"), (20 << 20).to_string());
    update(&c, &["--memory-swap", "90M"]).ok();
    assert_eq!(c.cgroup_file("memory.swap.max"), (30 << 20).to_string());
    update(&c, &["--memory", "-1"]).ok();
    assert_eq!(c.cgroup_file("memory.swap.max"), "max");
}

fn cpu_burst() {
    needs(&[Controller("cpu")]);
    let c = Bundle::new()
        .set("/linux/resources", json!({"cpu": {"quota": 50_000}}))
        .start();
    update(&c, &["--cpu-burst", "20000"]).ok();
    assert_eq!(c.cgroup_file("cpu.max.burst"), "20000");
    // more than the old quota, and less than the old burst
    update(&c, &["--cpu-quota", "80000", "--cpu-burst", "70000"]).ok();
    assert_eq!(c.cgroup_file("cpu.max.burst"), "70000");
    update(&c, &["--cpu-quota", "30000", "--cpu-burst", "0"]).ok();
    assert_eq!(c.cgroup_file("cpu.max"), "30000 100000");
    assert_eq!(c.cgroup_file("cpu.max.burst"), "0");
    update(&c, &["--cpu-burst", "90000"]).fails(1, &["burst"]);
}

fn cpu_idle() {
    needs(&[Controller("cpu"), Kernel(5, 15)]);
    let c = Bundle::new().start();
    for value in ["1", "0"] {
        update(&c, &["--cpu-idle", value]).ok();
        assert_eq!(c.cgroup_file("cpu.idle"), value);
    }
    for bad in ["2", "-1"] {
        assert_ne!(update(&c, &["--cpu-idle", bad]).code, 0, "{bad}");
    }
    assert_eq!(c.cgroup_file("cpu.idle"), "0");
}

fn unified() {
    needs(&[Controller("pids"), Controller("memory")]);
    let c = Bundle::new()
        .set(
            "/linux/resources",
            json!({"pids": {"limit": 50}, "unified": {"memory.high": "100000000"}}),
        )
        .start();
    update_from(&c, json!({"unified": {"pids.max": "40"}})).ok();
    assert_eq!(c.cgroup_file("pids.max"), "40");
    update(&c, &["--pids-limit", "30"]).ok();
    assert_eq!(c.cgroup_file("pids.max"), "30", "the latest counts");
    let o = update_from(&c, json!({"unified": {"pids.max/x": "40"}}));
    o.fails(1, &["unified"]);
}

fn io_of_a_device() {
    needs(&[Controller("io"), Disk]);
    let disk = std::env::var("HUSK_TEST_DISK").unwrap();
    let dev = std::os::unix::fs::MetadataExt::dev(&fs::metadata(disk).unwrap());
    let (major, minor) = (libc::major(dev), libc::minor(dev));
    let rate = |rate: u64| json!([{"major": major, "minor": minor, "rate": rate}]);
    let c = Bundle::new()
        .set(
            "/linux/resources/blockIO/throttleReadBpsDevice",
            rate(1 << 20),
        )
        .start();
    let line = |values: &str| format!("{major}:{minor} {values}");
    update_from(
        &c,
        json!({"blockIO": {"throttleWriteIOPSDevice": rate(900)}}),
    )
    .ok();
    let first = line("rbps=1048576 wbps=max riops=max wiops=900");
    assert_eq!(c.cgroup_file("io.max"), first);
    if is_husk() {
        let bad = json!({"blockIO": {"throttleReadBpsDevice": rate(5), "throttleReadIOPSDevice": [{"major": 99, "minor": 9, "rate": 1}]}});
        update_from(&c, bad).fails(1, &["throttleReadIOPSDevice[0]", "io.max"]);
        assert_eq!(c.cgroup_file("io.max"), first);
    }
    update_from(
        &c,
        json!({"blockIO": {"throttleReadBpsDevice": rate(2 << 20)}}),
    )
    .ok();
    assert_eq!(
        c.cgroup_file("io.max"),
        line("rbps=2097152 wbps=max riops=max wiops=900")
    );
}

fn of_a_created_container() {
    needs(&[Controller("pids")]);
    let c = Bundle::new().create();
    update(&c, &["--pids-limit", "44"]).ok();
    c.start();
    assert_eq!(c.cgroup_file("pids.max"), "44");
}

fn of_a_stopped_container() {
    let c = Bundle::new().start();
    c.stop();
    update(&c, &["--pids-limit", "44"]).fails(1, &["not running"]);
}

fn refused_by_name() {
    let c = Bundle::new().start();
    for flag in ["--l3-cache-schema", "--mem-bw-schema"] {
        let o = update(&c, &[flag, "x"]);
        assert_eq!(o.code, 1, "{o}");
        if is_husk() {
            o.fails(1, &[flag]);
        }
    }
    if is_husk() {
        let o = update(&c, &["--cpu-rt-runtime", "5000"]).ok();
        assert!(o.err.contains("cpu.realtimeRuntime: ignored"), "{o}");
        update(&c, &["--memory-swap", "5M"]).fails(1, &["memory.swap", "memory limit"]);
    }
}

fn of_a_paused_container() {
    needs(&[Controller("pids")]);
    let c = Bundle::new().start();
    c.cmd0("pause").run().ok();
    update(&c, &["--pids-limit", "55"]).ok();
    assert_eq!(c.cgroup_file("pids.max"), "55");
    assert_eq!(c.status(), "paused");
    c.cmd0("resume").run().ok();
}

fn unknown_container() {
    Cmd::runtime()
        .args(["update", "--pids-limit", "5", "nobody"])
        .run()
        .fails(1, &["does not exist"]);
    Cmd::runtime()
        .args(["events", "--stats", "nobody"])
        .run()
        .fails(1, &["does not exist"]);
}

fn stats() {
    let c = Bundle::new().start();
    let o = Cmd::runtime().args(["events", "--stats", &c.id]).run().ok();
    let s = o.json();
    assert_eq!((&s["type"], &s["id"]), (&json!("stats"), &json!(c.id)));
    assert!(s["data"]["cpu"]["usage"]["total"].is_number(), "{s}");
    let controllers = c.cgroup_file("cgroup.controllers");
    if controllers.contains("pids") {
        assert_eq!(s["data"]["pids"]["current"], 1, "{s}");
    }
    if controllers.contains("memory") {
        assert!(
            s["data"]["memory"]["usage"]["usage"].as_u64().unwrap() > 0,
            "{s}"
        );
    }
}

fn stats_of_everything() {
    needs(&[
        Controller("memory"),
        Controller("cpu"),
        Controller("pids"),
        Controller("io"),
        Swap,
        Disk,
    ]);
    let limits = json!({
        "memory": {"limit": 100 << 20, "swap": 150 << 20},
        "pids": {"limit": 20},
        "cpu": {"quota": 10_000},
    });
    let disk = std::env::var("HUSK_TEST_DISK").unwrap();
    let dir = std::path::Path::new(&disk).join(format!("husk-test-{}", std::process::id()));
    fs::create_dir(&dir).unwrap();
    let b = Bundle::new().set("/linux/resources", limits);
    let c = b.bind(&dir, "/tmp", &[]).start();
    c.exec(&[], &["burn", "400", ";", "direct-write", "/tmp/file", "1"])
        .ok();
    let o = Cmd::runtime().args(["events", "--stats", &c.id]).run().ok();
    fs::remove_dir_all(&dir).unwrap();
    let d = &o.json()["data"];
    let n = |pointer: &str| {
        let v = d.pointer(pointer);
        v.and_then(Value::as_u64)
            .unwrap_or_else(|| panic!("{pointer}: {v:?} of {o}"))
    };
    let (total, parts) = (
        n("/cpu/usage/total"),
        n("/cpu/usage/user") + n("/cpu/usage/kernel"),
    );
    assert!(total > 30_000_000, "ns: {o}");
    assert!(total.abs_diff(parts) <= 2000, "{total} and {parts}: {o}");
    assert!(n("/cpu/throttling/periods") > 0, "{o}");
    assert!(n("/cpu/throttling/throttledTime") > 1_000_000, "{o}");
    assert_eq!(n("/memory/usage/limit"), 100 << 20);
    assert_eq!(n("/memory/swap/limit"), 150 << 20);
    assert!(n("/memory/raw/anon") > 0 && n("/memory/usage/max") >= n("/memory/usage/usage"));
    assert_eq!(n("/pids/limit"), 20);
    let rows = d["blkio"]["ioServiceBytesRecursive"].as_array().unwrap();
    let written = rows
        .iter()
        .find(|r| r["op"] == "Write" && r["value"] == 1 << 20);
    assert!(written.is_some(), "1 MiB: {o}");
    assert!(d["hugetlb"].is_object() && d["intel_rdt"].is_object());
    for section in ["cpu", "memory", "blkio"] {
        if std::path::Path::new("/proc/pressure").exists() {
            let psi = &d[section]["psi"];
            assert!(psi["some"]["avg10"].is_number(), "{section}: {o}");
            assert!(psi["full"]["total"].is_number(), "{section}: {o}");
        }
    }
}

fn events_of_a_stopped_container() {
    let c = Bundle::new().start();
    c.stop();
    for options in [&["--stats"][..], &[]] {
        Cmd::runtime()
            .arg("events")
            .args(options)
            .arg(&c.id)
            .run()
            .fails(1, &["is not running"]);
    }
}

fn events_bad_interval() {
    let c = Bundle::new().start();
    for bad in ["0s", "soon", "-1s"] {
        let interval = format!("--interval={bad}");
        let o = Cmd::runtime().args(["events", &interval, &c.id]).run();
        assert_ne!(o.code, 0, "{o}");
    }
}

fn events_end_with_the_container() {
    runc_fails("its last statistics race with the end of the cgroup");
    let c = Bundle::new().start();
    let events = Cmd::runtime()
        .args(["events", "--interval", "50ms", &c.id])
        .spawn();
    wait_until("statistics come", || events.out().lines().count() >= 3);
    assert!(!events.ended());
    c.stop();
    wait_until("it ends", || events.ended());
    c.delete();
    let o = events.wait().ok();
    assert!(o.jsons().iter().all(|e| e["type"] == "stats"), "{o}");
}

/// The kernel kills the container's own process: the record still comes.
fn oom_event_of_the_end() {
    runc_fails("the container's end may be told first");
    needs(&[Controller("memory")]);
    let b = Bundle::new()
        .set(
            "/linux/resources",
            json!({"memory": {"limit": 30 << 20, "swap": 30 << 20}}),
        )
        .payload(&["sleep", "0.5", ";", "alloc", "60", ";", "wait"]);
    let c = b.create();
    let events = Cmd::runtime()
        .args(["events", "--interval", "100ms", &c.id])
        .spawn();
    wait_until("it looks", || !events.out().is_empty());
    c.start();
    wait_until("it ends", || events.ended());
    let o = events.wait().ok();
    let ooms = o.jsons().iter().filter(|e| e["type"] == "oom").count();
    assert_eq!(ooms, 1, "{o}");
}

fn oom_event() {
    needs(&[Controller("memory")]);
    let b = Bundle::new().set(
        "/linux/resources",
        json!({"memory": {"limit": 30 << 20, "swap": 30 << 20}}),
    );
    let c = b.start();
    let events = Cmd::runtime()
        .args(["events", "--interval", "1s", &c.id])
        .spawn();
    wait_until("statistics come", || events.out().contains("\"stats\""));
    c.exec(&[], &["alloc", "60"]).exits(128 + 9);
    wait_until("the event comes", || events.out().contains("\"oom\""));
    c.kill("KILL").ok();
    wait_until("it ends with the container", || events.ended());
    let o = events.wait().ok();
    let oom = o.jsons().into_iter().find(|e| e["type"] == "oom").unwrap();
    assert_eq!(oom["id"], json!(c.id));
}
