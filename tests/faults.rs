//! husk killed, failing and raced at each of its system calls: what is left can be told and deleted, and nothing else is left or changed.

use crate::security::Volume;
use crate::support::guard::{self, offspring};
use crate::support::mountinfo::{self, Mount};
use crate::support::runner::note;
use crate::support::*;
use husk::plan::seccomp::numbers::CALLS;
use std::fmt::Write;
use std::fs;

tests![
    create_killed,
    create_child_killed,
    exec_killed,
    delete_killed,
    run_fails,
    run_child_fails,
    child_fails_in_between,
    exec_fails,
    exec_child_fails,
    delete_fails,
    small_verbs_fail,
    volume_exchanged_at_each_call,
    null_exchanged_at_each_call,
    attributes_come_before_mounts,
    without_cgroup_kill,
];

/// What a kernel says that is old, strict, out of memory, interrupted, busy or full.
const ERRORS: [i32; 6] = [
    libc::ENOSYS,
    libc::EPERM,
    libc::ENOMEM,
    libc::EINTR,
    libc::EAGAIN,
    libc::ENOSPC,
];

/// The faults of one test.
struct Sweep<'a> {
    who: &'a str,
    tried: usize,
    wrong: String,
}

impl<'a> Sweep<'a> {
    fn of(who: &'a str) -> Sweep<'a> {
        husk_only("others leave things behind");
        Sweep {
            who,
            tried: 0,
            wrong: String::new(),
        }
    }

    /// Runs what `next` gives with the fault at its first, second, … system call until there are no more of them; `check` says what is wrong
    /// with what came of it. Gives back what the last one, without a fault, was for.
    fn at_each_call<T>(
        &mut self,
        fault: &str,
        mut next: impl FnMut() -> (T, Cmd),
        mut check: impl FnMut(&T, &Output) -> Result<(), String>,
    ) -> T {
        for n in 1.. {
            let report = dir().join("report");
            _ = fs::remove_file(&report);
            let (subject, cmd) = next();
            let output = cmd.inject(self.who, fault, n, &report).run();
            if !report.exists() {
                return subject;
            }
            self.tried += 1;
            if let Err(why) = check(&subject, &output) {
                let who = self.who;
                writeln!(
                    self.wrong,
                    "{fault} at call {n} of {who}, {}: {why}",
                    call()
                )
                .expect("a String");
            }
        }
        unreachable!("a command ends")
    }

    /// Each time with a container of its own, of which nothing is left in the end.
    fn each(
        &mut self,
        fault: &str,
        probe: impl FnMut() -> (Container, Cmd),
        mut check: impl FnMut(&Container, &Output) -> Result<(), String>,
    ) {
        let last = self.at_each_call(fault, probe, |c, o| {
            let result = check(c, o).and_then(|()| gone(c));
            if result.is_err() {
                // the next ones get a clean place
                _ = c.cmd0("delete").arg("--force").run();
            }
            result
        });
        gone(&last).expect("without a fault");
    }

    fn errors(
        &mut self,
        mut probe: impl FnMut() -> (Container, Cmd),
        mut check: impl FnMut(&Container, &Output) -> Result<(), String>,
    ) {
        for errno in ERRORS {
            self.each(&errno.to_string(), &mut probe, &mut check);
        }
    }

    #[track_caller]
    fn done(self) {
        assert!(
            self.wrong.is_empty(),
            "{} faults:\n{}",
            self.tried,
            self.wrong
        );
        assert!(self.tried > 0);
        note(&format!("{} faults", self.tried));
    }
}

/// Deletes the container, and looks whether anything of it is there.
fn gone(c: &Container) -> Result<(), String> {
    let o = Cmd::runtime().args(["delete", "--force", &c.id]).run();
    if o.code != 0 {
        return Err(format!("then {o}"));
    }
    nothing_of(c)
}

fn nothing_of(c: &Container) -> Result<(), String> {
    if c.cgroup_dir().exists() {
        return Err("its cgroup is left".into());
    }
    if fs::exists(dir().join("state").join(&c.id)).expect("state") {
        return Err("its state directory is left".into());
    }
    left_running(0)
}

/// So many processes are left, soon.
fn left_running(count: usize) -> Result<(), String> {
    for _ in 0..2000 {
        if offspring().len() == count {
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let left: Vec<_> = offspring().into_iter().map(guard::describe).collect();
    Err(format!("left: {}", left.join(", ")))
}

/// `state` and `list` make sense of what is there.
fn looks(c: &Container) -> Result<(), String> {
    let o = c.cmd0("state").run();
    if o.code != 0 && !o.err.contains("does not exist") {
        return Err(format!("then {o}"));
    }
    let o = Cmd::runtime().arg("list").run();
    if o.code != 0 {
        return Err(format!("then {o}"));
    }
    Ok(())
}

/// What the last fault hit.
fn call() -> &'static str {
    let number = fs::read_to_string(dir().join("report")).expect("report");
    let number: u32 = number.parse().expect("a number");
    CALLS.iter().find(|c| c.1[0] == number).map_or("?", |c| c.0)
}

/// One line, of husk's own.
fn clear(o: &Output, code: i32) -> Result<(), String> {
    let lines = o.err.lines().count();
    if o.code == code && lines == 0 && ["write", "writev"].contains(&call()) {
        return Ok(()); // of the message itself
    }
    if o.code != code || lines != 1 || o.err.contains("panicked") {
        return Err(format!("not a failure with one line: {o}"));
    }
    Ok(())
}

fn bundle() -> Bundle {
    Bundle::new().set("/process/oomScoreAdj", json!(100))
}

fn hello() -> Bundle {
    Bundle::new().payload(&["echo", "hello"])
}

fn said_hello(o: &Output) -> bool {
    o.code == 0 && o.out == "hello\n"
}

/// A container that is not there yet, and the command that makes it.
fn fresh(b: &Bundle, verb: &str) -> (Container, Cmd) {
    let c = b.container();
    let cmd = c.cmd(verb, &[]);
    (c, cmd)
}

fn create_killed() {
    let b = bundle();
    let mut s = Sweep::of("self");
    s.each("kill", || fresh(&b, "create"), |c, _| looks(c));
    s.done();
}

fn create_child_killed() {
    let b = bundle();
    let mut s = Sweep::of("child");
    s.each(
        "kill",
        || fresh(&b, "create"),
        |c, o| {
            looks(c)?;
            // killed at the gate it is a container that has ended
            if o.code != 0 {
                clear(o, 1)?;
                nothing_of(c)?;
            }
            Ok(())
        },
    );
    s.done();
}

fn exec_killed() {
    let c = bundle().start();
    let mut s = Sweep::of("self");
    s.exec("kill", &c, |_| Ok(()));
    s.who = "child";
    s.exec("kill", &c, |_| Ok(()));
    s.done();
}

fn exec_fails() {
    exec_with_errors("self");
}

fn exec_child_fails() {
    exec_with_errors("child");
}

fn exec_with_errors(who: &str) {
    let c = bundle().start();
    let mut s = Sweep::of(who);
    for errno in ERRORS {
        s.exec(&errno.to_string(), &c, |o| {
            if said_hello(o) {
                return Ok(());
            }
            clear(o, 255)
        });
    }
    s.done();
}

impl Sweep<'_> {
    /// One container, in which many processes are started: it goes on, and is alone in the end.
    fn exec(&mut self, fault: &str, c: &Container, check: impl Fn(&Output) -> Result<(), String>) {
        let next = || ((), c.exec_cmd(&[], &["echo", "hello"]));
        self.at_each_call(fault, next, |(), o| check(o).and_then(|()| left_running(1)));
    }
}

fn delete_killed() {
    let b = bundle();
    let mut s = Sweep::of("self");
    s.each(
        "kill",
        || {
            let c = b.start().adopt();
            let cmd = Cmd::runtime().args(["delete", "--force", &c.id]);
            (c, cmd)
        },
        |c, _| looks(c),
    );
    s.done();
}

fn run_fails() {
    run_with_errors("self");
}

fn run_child_fails() {
    run_with_errors("child");
}

fn run_with_errors(who: &str) {
    let b = hello();
    let mut s = Sweep::of(who);
    s.errors(
        || fresh(&b, "run"),
        |c, o| {
            if !said_hello(o) {
                clear(o, 1)?;
            } else if o.err.contains("level=warning msg=\"delete ") {
                // the process ran and ended; what could not be deleted after it is told, and can be deleted later
                return looks(c);
            }
            nothing_of(c)
        },
    );
    s.done();
}

/// Before husk has told it anything, and between the two things that it is told: its last words are heard.
fn child_fails_in_between() {
    let mut s = Sweep::of("child");
    let late = |point| format!("late:{}:{point}", libc::ENOSYS);
    // where husk has most to do for it before it tells it anything
    let users = hello().user_namespace(100_000);
    let b = hello();
    for (b, point) in [(&users, 0), (&b, 1), (&b, 2)] {
        s.each(
            &late(point),
            || fresh(b, "run"),
            |c, o| {
                if !said_hello(o) {
                    last_words(o, 1)?;
                }
                nothing_of(c)
            },
        );
    }
    let c = b.payload(&["wait"]).start();
    for point in 0..=2 {
        s.exec(&late(point), &c, |o| {
            if said_hello(o) {
                return Ok(());
            }
            last_words(o, 255)
        });
    }
    s.done();
}

/// They name the call that failed, or the kernel that lacks it; unless it could not send them.
fn last_words(o: &Output, code: i32) -> Result<(), String> {
    clear(o, code)?;
    if !o.err.contains("function not implemented") && !["sendmsg", "write"].contains(&call()) {
        return Err(format!("not what failed: {o}"));
    }
    Ok(())
}

fn delete_fails() {
    let b = bundle();
    let mut s = Sweep::of("self");
    s.errors(
        || {
            let c = b.create().adopt();
            let cmd = Cmd::runtime().args(["delete", "--force", &c.id]);
            (c, cmd)
        },
        |c, o| {
            if o.code == 0 {
                return nothing_of(c);
            }
            clear(o, 1)?;
            looks(c)
        },
    );
    s.done();
}

fn small_verbs_fail() {
    let c = bundle().start();
    let mut s = Sweep::of("self");
    for verb in [
        &["state"][..],
        &["list"],
        &["kill"],
        &["kill", "--all"],
        &["pause"],
        &["resume"],
        &["ps", "--format", "json"],
    ] {
        for errno in ERRORS {
            let next = || {
                // a pause of what is paused already would end at once; a failure here shows in the command
                let before = match verb[0] {
                    "pause" => Some("resume"),
                    "resume" => Some("pause"),
                    _ => None,
                };
                if let Some(before) = before {
                    Cmd::runtime().args([before, &c.id]).run();
                }
                let mut cmd = Cmd::runtime().args(verb);
                if verb[0] != "list" {
                    cmd = cmd.arg(&c.id);
                }
                if verb[0] == "kill" {
                    cmd = cmd.arg("0");
                }
                ((), cmd)
            };
            s.at_each_call(&errno.to_string(), next, |(), o| {
                if o.code != 0 {
                    clear(o, 1)?;
                }
                // whoever stops it for a moment, or does not get to the end of it, lets it go on
                let freeze = fs::read_to_string(c.cgroup_dir().join("cgroup.freeze"));
                let frozen = freeze.expect("cgroup.freeze") == "1\n";
                let meant = match verb[0] {
                    "pause" => o.code == 0,
                    "resume" => o.code != 0 && frozen,
                    _ => false,
                };
                if frozen != meant {
                    return Err(format!("frozen: {frozen}, then {o}"));
                }
                Ok(())
            });
            Cmd::runtime().args(["resume", &c.id]).run();
        }
    }
    s.done();
}

/// CVE-2021-30465, CVE-2024-45310, CVE-2025-31133, GHSA-3q8j-pf29-vwv8: somebody exchanges a directory for a symlink between any two system
/// calls of who makes mounts, directories, nodes and masks in it.
fn volume_exchanged_at_each_call() {
    let volume = Volume::new();
    let mut s = Sweep::of("child");
    let next = || {
        volume.reset();
        fresh(&volume.bundle, "run")
    };
    let last = s.at_each_call("exchange:volume/a:volume/b", next, |c, o| {
        volume.harm()?;
        if o.code != 0 {
            clear(o, 1)?;
        }
        nothing_of(c)
    });
    gone(&last).expect("without an exchange");
    s.done();
}

/// CVE-2025-31133, CVE-2026-88265: /dev/null, behind which files are hidden, is exchanged for a symlink in a /dev that others have too.
fn null_exchanged_at_each_call() {
    let reset = || {
        _ = fs::remove_dir_all("dev");
        fs::create_dir("dev").unwrap();
        std::os::unix::fs::symlink("/bait", "dev/other").unwrap();
        let cmd = Cmd::new("mknod").args(["-m", "666", "dev/null", "c", "1", "3"]);
        cmd.run().ok();
    };
    reset();
    let b = Bundle::new()
        .without_mount("/dev")
        .without_mount("/dev/pts")
        .without_mount("/dev/shm")
        .without_mount("/dev/mqueue")
        .bind(dir().join("dev"), "/dev", &[])
        .file("/bait", "bait", 0o644)
        .file("/secret", "hidden", 0o644)
        .set("/linux/maskedPaths", json!(["/secret"]))
        .payload(&["stat", "/secret"]);
    let mut s = Sweep::of("child");
    let next = || {
        reset();
        fresh(&b, "run")
    };
    let mut refused = 0;
    let last = s.at_each_call("exchange:dev/null:dev/other", next, |c, o| {
        if o.code != 0 {
            refused += 1;
            clear(o, 1)?;
        } else {
            let s = o.json();
            if (&s["type"], &s["major"], &s["minor"]) != (&json!("char"), &json!(1), &json!(3)) {
                return Err(format!("what hides the file is {s}"));
            }
        }
        nothing_of(c)
    });
    gone(&last).expect("without an exchange");
    s.done();
    assert!(refused > 0, "it came always too late");
}

/// What a container's other process could use of a mount before it is closed: nothing, since it is closed before it is there. But for
/// those that have to be written yet, in a container without any process of its own by then: its root, each tmpfs, its /dev.
fn attributes_come_before_mounts() {
    husk_only("runc has some of them by remount");
    fs::create_dir("source").unwrap();
    let b = Bundle::new()
        .bind(
            dir().join("source"),
            "/closed",
            &["ro", "nosuid", "nodev", "noexec"],
        )
        .bind(dir().join("source"), "/tree", &["rbind", "rro"])
        .mkdir("/own")
        .set("/linux/readonlyPaths", json!(["/proc/sys", "/own"]))
        .set(
            "/linux/maskedPaths",
            json!(["/proc/kcore", "/proc/scsi", "/sys/firmware"]),
        )
        .payload(&["true"]);
    let report = dir().join("report");
    let c = b.container();
    let o = c.cmd("run", &[]).meanwhile("child", "look", &report).run();
    o.ok();
    let text = fs::read_to_string(&report).expect("report");
    let looks: Vec<Vec<Mount>> = text.split("\n\n").map(mountinfo::parse).collect();
    let last = looks.iter().rfind(|l| !l.is_empty()).expect("a look");
    let mut closed = 0;
    for end in last {
        let begin = looks.iter().flatten().find(|m| m.id == end.id).expect("it");
        if end.has("ro") {
            closed += 1;
        }
        let later = end.target == "/" || end.fstype == "tmpfs" || end.target == "/dev";
        let options = |m: &Mount| {
            let kept = m
                .options
                .iter()
                .filter(|o| !later || !["ro", "rw"].contains(&o.as_str()));
            kept.cloned().collect::<Vec<_>>()
        };
        assert_eq!(options(begin), options(end), "{begin:?} became {end:?}");
    }
    assert!(closed > 6, "{last:?}");
    note(&format!("{} mounts in {} looks", last.len(), looks.len()));
}

/// Linux before 5.14 has no cgroup.kill: processes are stopped, and killed one by one.
fn without_cgroup_kill() {
    husk_only("others fall back in ways of their own");
    let report = dir().join("report");
    let without = |cmd: Cmd| {
        _ = fs::remove_file(&report);
        let o = cmd.meanwhile("self", "missing:cgroup.kill", &report).run();
        assert!(report.exists(), "it has not tried: {o}");
        o.ok()
    };
    let forks = ["spawn", "spawn", "wait", ";", "spawn", "wait", ";", "wait"];
    let many = || {
        let b = Bundle::new()
            .without_namespace("pid")
            .payload(&forks)
            .start();
        wait_until("they are all there", || {
            b.cgroup_file("cgroup.procs").lines().count() > 2
        });
        b
    };
    let c = many();
    without(Cmd::runtime().args(["kill", &c.id, "KILL"]));
    c.wait_status("stopped");
    wait_until("nobody is left", || {
        c.cgroup_file("cgroup.procs").is_empty()
    });
    c.delete();
    let c = many().adopt();
    without(Cmd::runtime().args(["delete", "--force", &c.id]));
    nothing_of(&c).unwrap();
    // paused ones too
    let c = many().adopt();
    c.cmd0("pause").run().ok();
    without(Cmd::runtime().args(["delete", "--force", &c.id]));
    nothing_of(&c).unwrap();
}
