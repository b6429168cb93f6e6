//! How many system calls each command makes: one more shows in the table, tests/data/syscalls.txt, and so in review.
//!
//! After a change that is meant `HUSK_COUNT_ANEW=1 hack/test --native syscalls` writes the table.

use crate::support::*;
use husk::plan::seccomp::numbers::CALLS;
use std::cell::RefCell;
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

/// Runs the command and says what calls it made. `who` is husk itself, or the process that becomes the container's.
pub fn count(verb: &str, who: &str, cmd: Cmd) -> (usize, String) {
    let report = dir().join("report");
    cmd.inject(who, "count", 0, &report).run().ok();
    let mut calls = BTreeMap::<&str, usize>::new();
    let mut all = 0;
    for number in fs::read_to_string(&report).expect("report").lines() {
        let number: u32 = number.parse().expect("a number");
        let name = CALLS.iter().find(|c| c.1[0] == number).map_or("?", |c| c.0);
        *calls.entry(name).or_default() += 1;
        all += 1;
    }
    fs::remove_file(report).expect("report");
    let process = if who == "self" { "husk" } else { "its child" };
    let mut part = format!("\n{verb}, {process}: {all}\n");
    for (name, n) in calls {
        writeln!(part, "{n:4} {name}").expect("a String");
    }
    (all, part)
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
    let running = b.start();
    let known = fs::read_to_string(TABLE).expect(TABLE);
    let mut table = String::from(
        "# System calls of husk's commands: see tests/syscalls.rs. The child is counted until it executes the container's program.\n",
    );
    let mut add = |verb: &str, who: &str, cmd: &dyn Fn() -> Cmd| {
        // the kernel may not be done with a process that has ended: husk waits then, with a call or two more
        let mut tries = Vec::new();
        for _ in 0..10 {
            let (all, part) = count(verb, who, cmd());
            if known.contains(&part) {
                table += &part;
                return;
            }
            tries.push((all, part));
        }
        table += &tries.iter().min().expect("ten tries").1;
    };
    let ids = RefCell::new(Vec::new());
    let container = |b: &Bundle| {
        let c = b.container();
        ids.borrow_mut().push(c.id.clone());
        c
    };
    let created = || {
        let c = container(&b);
        c.cmd("create", &[]).run().ok();
        c
    };
    let started = || {
        let c = created();
        c.cmd0("start").run().ok();
        c
    };
    add("state", "self", &|| running.cmd0("state"));
    for who in ["self", "child"] {
        add("exec", who, &|| running.exec_cmd(&[], &["echo", "hello"]));
    }
    add("kill", "self", &|| {
        Cmd::runtime().args(["kill", &started().id, "KILL"])
    });
    add("delete", "self", &|| {
        let c = started();
        Cmd::runtime().args(["kill", &c.id, "KILL"]).run().ok();
        c.wait_status("stopped");
        c.cmd0("delete")
    });
    for who in ["self", "child"] {
        let b = b.clone().payload(&["echo", "hello"]);
        add("run", who, &|| container(&b).cmd("run", &[]));
    }
    add("create", "self", &|| container(&b).cmd("create", &[]));
    add("start", "self", &|| created().cmd0("start"));
    for id in ids.take() {
        Cmd::runtime().args(["delete", "--force", &id]).run().ok();
    }

    if std::env::var_os("HUSK_COUNT_ANEW").is_some() {
        return fs::write(TABLE, table).expect(TABLE);
    }
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
