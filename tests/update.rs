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
    of_a_paused_container,
    unknown_container,
    stats,
    oom_event,
];

fn not_yet(verb: &str) {
    not_in_husk_yet(
        || Cmd::runtime().args([verb, "x"]).run(),
        "not supported yet",
    );
}

fn update(c: &Container, options: &[&str]) -> Output {
    Cmd::runtime().arg("update").args(options).arg(&c.id).run()
}

fn memory() {
    not_yet("update");
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
    not_yet("update");
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
    not_yet("update");
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
    not_yet("update");
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
    not_yet("update");
    needs(&[Controller("cpuset"), Cpus(2)]);
    let c = Bundle::new().start();
    update(&c, &["--cpuset-cpus", "1"]).ok();
    assert_eq!(c.cgroup_file("cpuset.cpus"), "1");
    assert_eq!(c.exec(&[], &["affinity"]).ok().json(), json!([1]));
}

fn resources_file() {
    not_yet("update");
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
    not_yet("update");
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
    not_yet("update");
    let c = Bundle::new().start();
    fs::write("limits.json", "{").unwrap();
    let o = update(&c, &["--resources", "limits.json"]);
    assert_eq!(o.code, 1, "{o}");
    update(&c, &["--resources", "nowhere.json"])
        .fails(1, &["nowhere.json", "no such file or directory"]);
    update(&c, &["--memory", "lots"]).fails(1, &["memory"]);
}

fn keeps_device_rules() {
    not_yet("update");
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

fn of_a_paused_container() {
    not_yet("update");
    needs(&[Controller("pids")]);
    let c = Bundle::new().start();
    c.cmd0("pause").run().ok();
    update(&c, &["--pids-limit", "55"]).ok();
    assert_eq!(c.cgroup_file("pids.max"), "55");
    assert_eq!(c.status(), "paused");
    c.cmd0("resume").run().ok();
}

fn unknown_container() {
    not_yet("update");
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
    not_yet("events");
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

fn oom_event() {
    not_yet("events");
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
