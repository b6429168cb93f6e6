//! How many system calls each command makes: one more shows in the table, tests/data/syscalls.txt, and so in review.
//!
//! After a change that is meant `HUSK_COUNT_ANEW=1 hack/test --native syscalls` writes the table.

use crate::support::*;
use husk::plan::seccomp::numbers::CALLS;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;

tests![each_call_is_counted];

const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/syscalls.txt");

/// A container that is the same on every host: what is masked is there, and rlimits and capabilities have a line each.
fn bundle() -> Bundle {
    Bundle::new()
        .payload(&["wait"])
        .set(
            "/linux/maskedPaths",
            json!(["/proc/filesystems", "/proc/fs"]),
        )
        .set("/linux/readonlyPaths", json!(["/proc/sys"]))
}

/// Runs the command; adds its part of the table. `who` is husk itself, or the process that becomes the container's.
fn count(table: &mut String, verb: &str, who: &str, cmd: Cmd) {
    let report = dir().join("report");
    _ = fs::remove_file(&report);
    cmd.inject(who, "count", 0, &report).run().ok();
    let mut calls = BTreeMap::<&str, usize>::new();
    let mut all = 0;
    for number in fs::read_to_string(report).expect("report").lines() {
        let number: u32 = number.parse().expect("a number");
        let name = CALLS.iter().find(|c| c.1[0] == number).map_or("?", |c| c.0);
        *calls.entry(name).or_default() += 1;
        all += 1;
    }
    let process = if who == "self" { "husk" } else { "its child" };
    writeln!(table, "\n{verb}, {process}: {all}").expect("a String");
    for (name, n) in calls {
        writeln!(table, "{n:4} {name}").expect("a String");
    }
}

fn each_call_is_counted() {
    husk_only("it is husk's table");
    if std::env::var_os("HUSK_TEST_RUNTIME").is_some() {
        skip("counted are those of the build beside the tests");
    }
    if fs::exists("/proc/kcore").expect("/proc") {
        skip("/dev/core is one more link where there is a /proc/kcore");
    }
    let b = bundle();
    // gives the cgroups above their controllers
    let c = b.start();
    let mut table = String::from(
        "# System calls of husk's commands: see tests/syscalls.rs. The child is counted until it executes the container's program.\n",
    );
    let t = &mut table;
    count(t, "state", "self", c.cmd0("state"));
    for who in ["self", "child"] {
        count(t, "exec", who, c.exec_cmd(&[], &["echo", "hello"]));
    }
    count(
        t,
        "kill",
        "self",
        Cmd::runtime().args(["kill", &c.id, "KILL"]),
    );
    c.wait_status("stopped");
    count(t, "delete", "self", c.adopt().cmd0("delete"));
    for who in ["self", "child"] {
        let c = b.clone().payload(&["echo", "hello"]).container();
        count(t, "run", who, c.cmd("run", &[]));
    }
    let c = b.container();
    count(t, "create", "self", c.cmd("create", &[]));
    count(t, "start", "self", c.cmd0("start"));
    count(t, "delete --force", "self", c.cmd0("delete").arg("--force"));

    if std::env::var_os("HUSK_COUNT_ANEW").is_some() {
        return fs::write(TABLE, table).expect(TABLE);
    }
    let known = fs::read_to_string(TABLE).expect(TABLE);
    let mut at = "";
    for (now, then) in table.lines().zip(known.lines()) {
        if now.contains(':') {
            at = now;
        }
        assert_eq!(
            now, then,
            "{at}: not as in tests/data/syscalls.txt; if it is meant, HUSK_COUNT_ANEW=1 writes it anew"
        );
    }
    assert_eq!(table.lines().count(), known.lines().count());
}
