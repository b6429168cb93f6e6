//! How a container ended: the line of `run`, and what `state` has of it afterwards.

use crate::support::*;
use std::fs;
use std::path::Path;

tests![
    a_usual_end_says_nothing,
    run_keeps_the_exit_code,
    run_keeps_the_signal,
    seccomp_is_named,
    limit_of_file_size_is_named,
    memory_limit_is_named,
    memory_limit_of_a_child,
    the_record_outlives_the_cgroup,
    memory_limit_of_an_ancestor_is_named,
    state_has_the_record,
    state_has_hits_of_pids_max,
];

const MIB: i64 = 1 << 20;

fn limited(mib: i64) -> Bundle {
    let limits = json!({"memory": {"limit": mib * MIB, "swap": mib * MIB}});
    Bundle::new().set("/linux/resources", limits)
}

fn a_usual_end_says_nothing() {
    for verbs in [&["true"][..], &["exit", "3"], &["exit", "137"]] {
        let o = Bundle::new().payload(verbs).run();
        assert_eq!(o.err, "", "{o}");
    }
    let c = Bundle::new().start();
    assert_eq!(c.state().get("death"), None, "it lives");
    let o = Cmd::runtime().args(["list", "--format", "json"]).run().ok();
    assert!(!o.out.contains("\"death\":"), "{o}");
}

/// `run --keep`; its output, and the state that is left.
fn kept(b: &Bundle) -> (Output, Value) {
    let mut c = b.container();
    let cmd = c.cmd("run", &["--keep"]);
    let o = c.creates(cmd);
    let state = c.state();
    assert_eq!(state["status"], "stopped");
    (o, state)
}

fn run_keeps_the_exit_code() {
    husk_only("a record of its own");
    for code in [0, 3] {
        let (o, state) = kept(&Bundle::new().payload(&["exit", &code.to_string()]));
        o.exits(code);
        assert_eq!(state["death"]["exitCode"], code, "{state}");
        assert_eq!(state["death"].get("cause"), None, "{state}");
        assert!(state["death"]["cpu"]["usage_usec"].is_u64(), "{state}");
    }
}

fn run_keeps_the_signal() {
    husk_only("a record of its own");
    let mut c = Bundle::new().container();
    let run = c.cmd("run", &["--keep"]).spawn();
    wait_until("the payload is ready", || run.out() == "ready\n");
    c.kill("KILL").ok();
    let o = c.created_by(run).exits(137);
    assert_eq!(o.err, "", "somebody has killed it: {o}");
    let state = c.state();
    assert_eq!(state["death"]["signal"], "SIGKILL", "{state}");
    assert_eq!(state["death"].get("exitCode"), None, "{state}");
}

fn seccomp_is_named() {
    husk_only("a message of its own");
    let rule = json!({"names": ["sethostname"], "action": "SCMP_ACT_KILL_PROCESS"});
    let filter = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]});
    let number = libc::SYS_sethostname.to_string();
    let b = Bundle::new()
        .set("/linux/seccomp", filter)
        .payload(&["syscall", &number]);
    b.run().fails(
        128 + libc::SIGSYS,
        &["killed for a system call that linux.seccomp forbids"],
    );
    let (_, state) = kept(&b);
    assert_eq!(state["death"]["signal"], "SIGSYS", "{state}");
    assert!(
        state["death"]["cause"]
            .as_str()
            .unwrap()
            .contains("linux.seccomp")
    );
}

fn limit_of_file_size_is_named() {
    husk_only("a message of its own");
    let limit = json!({"type": "RLIMIT_FSIZE", "hard": 10, "soft": 10});
    // pid 1 of a namespace does not die of it
    let b = Bundle::new().writable().without_namespace("pid");
    let b = b.push("/process/rlimits", limit);
    let b = b.payload(&["write", "/tmp/file", "more than ten bytes"]);
    b.run()
        .fails(128 + libc::SIGXFSZ, &["limit of file size", "RLIMIT_FSIZE"]);
}

fn memory_limit_is_named() {
    husk_only("a message of its own");
    needs(&[Controller("memory"), Kernel(5, 19)]);
    let o = limited(64).payload(&["alloc", "90"]).run().exits(137);
    assert_eq!(
        o.err.trim_end(),
        "killed by its memory limit: 64 MiB, peak 64 MiB; raise linux.resources.memory.limit"
    );
    let (_, state) = kept(&limited(64).payload(&["alloc", "90"]));
    let death = &state["death"];
    assert_eq!(death["signal"], "SIGKILL", "{state}");
    assert_eq!(
        death["oom"],
        json!({"limitOf": "container", "max": 64 * MIB})
    );
    assert_eq!(death["memory"]["events"]["oom_kill"], 1, "{state}");
    assert!(
        death["memory"]["peak"].as_i64().unwrap() > 60 * MIB,
        "{state}"
    );
}

/// The record is what was there at the end, not what is left of it when somebody asks.
fn the_record_outlives_the_cgroup() {
    husk_only("a record of its own");
    needs(&[Controller("memory"), Kernel(5, 19)]);
    let mut c = limited(30).payload(&["alloc", "60"]).container();
    let cmd = c.cmd("run", &["--keep"]);
    c.creates(cmd).exits(137);
    let state = c.state();
    crate::support::guard::remove_cgroup(&c.cgroup_dir());
    let death = &state["death"];
    assert_eq!(death["oom"]["limitOf"], "container", "{state}");
    assert_eq!(&c.state()["death"], death);
}

/// Shells pass a child's end on as 137.
fn memory_limit_of_a_child() {
    husk_only("a message of its own");
    needs(&[Controller("memory")]);
    let verbs = ["spawn", "alloc", "60", ";", "reap", ";", "exit", "137"];
    let o = limited(30).payload(&verbs).run().exits(137);
    assert!(o.err.contains("killed by its memory limit: 30 MiB"), "{o}");
    // nor is one to blame that the process has outlived
    let verbs = ["spawn", "alloc", "60", ";", "reap"];
    let (o, state) = kept(&limited(30).payload(&verbs));
    assert_eq!(o.exits(0).err, "");
    assert_eq!(state["death"]["memory"]["events"]["oom_kill"], 1, "{state}");
    assert_eq!(state["death"].get("cause"), None, "{state}");
}

fn memory_limit_of_an_ancestor_is_named() {
    husk_only("a message of its own");
    needs(&[Controller("memory"), Swap]);
    let pod = Path::new("/sys/fs/cgroup").join(cgroup()).join("pod");
    // makes the pod, with its controllers on
    drop(Bundle::new().cgroup("pod/first").create());
    fs::write(pod.join("memory.max"), (30 * MIB).to_string()).unwrap();
    fs::write(pod.join("memory.swap.max"), "0").unwrap();
    let b = Bundle::new().cgroup("pod/second").payload(&["alloc", "60"]);
    let o = b.run().exits(137);
    let want = format!("killed by the memory limit of '{}': 30 MiB", pod.display());
    assert!(o.err.contains(&want), "{o}");
    let (_, state) = kept(&b);
    let oom = &state["death"]["oom"];
    assert_eq!(
        (&oom["limitOf"], &oom["cgroup"]),
        (&json!("ancestor"), &json!(pod)),
        "{state}"
    );
    crate::support::guard::remove_cgroup(&pod);
}

/// Also of one that nobody waited for.
fn state_has_the_record() {
    husk_only("a record of its own");
    needs(&[Controller("memory")]);
    let c = limited(30).payload(&["alloc", "60"]).create();
    c.start();
    c.wait_status("stopped");
    let state = c.state();
    let death = &state["death"];
    assert_eq!(death["oom"]["limitOf"], "container", "{state}");
    assert!(
        death["cause"].as_str().unwrap().contains("30 MiB"),
        "{state}"
    );
    assert_eq!(death.get("signal"), None, "nobody was there to see it");
    if Path::new("/proc/pressure").exists() {
        assert!(
            death["pressure"]["memory"]["some"]["total"].is_u64(),
            "{state}"
        );
    }
    // whose cgroup somebody has removed
    crate::support::guard::remove_cgroup(&c.cgroup_dir());
    assert_eq!(c.state().get("death"), None);
}

fn state_has_hits_of_pids_max() {
    husk_only("a record of its own");
    needs(&[Controller("pids")]);
    let b = Bundle::new().set("/linux/resources", json!({"pids": {"limit": 10}}));
    let c = b.payload(&["forkbomb", "50"]).create();
    c.start();
    c.wait_status("stopped");
    let state = c.state();
    let pids = &state["death"]["pids"];
    assert_eq!(pids["max"], 10, "{state}");
    assert!(pids["events"]["max"].as_u64().unwrap() > 0, "{state}");
}
