//! Many husks at once, many one after the other, and many of what one may have. What grows with the square of it fails here; the
//! figures are `hack/bench`'s.

use crate::support::process::runtime;
use crate::support::runner::note;
use crate::support::*;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

tests![
    one_create_wins,
    commands_race_on_one_container,
    many_in_a_row,
    many_at_once,
    the_thousandth_costs_what_the_first_does,
    a_thousand_are_listed,
    mounts_and_rules_cost_what_they_are,
];

fn one_create_wins() {
    runc_fails("one that loses late tells of a mkdir only");
    let b = Bundle::new();
    let c = b.container();
    let all: Vec<_> = (0..50).map(|_| c.cmd("create", &[]).spawn()).collect();
    let all: Vec<Output> = all.into_iter().map(|r| r.wait()).collect();
    let (won, lost): (Vec<_>, Vec<_>) = all.into_iter().partition(|o| o.code == 0);
    assert_eq!(won.len(), 1, "{won:?}");
    for o in lost {
        o.fails(1, &["already exists"]);
    }
    assert_eq!(c.status(), "created");
    c.start();
    c.cmd0("delete").arg("--force").run().ok();
}

/// Whatever comes between whatever: an answer, or one line that says why not.
fn commands_race_on_one_container() {
    husk_only("others fail in ways of their own");
    let b = Bundle::new();
    let c = b.container();
    let (count, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let verbs: [&[&str]; 8] = [
        &["state"],
        &["exec", "", "/bin/payload", "true"],
        &["kill", "", "CONT"],
        &["pause"],
        &["resume"],
        &["ps", "--format", "json"],
        &["list"],
        &["start"],
    ];
    let end = Instant::now() + crate::security::seconds(4);
    std::thread::scope(|s| {
        for verb in verbs {
            let (c, count, over) = (&c, &count, &over);
            s.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let mut cmd = Cmd::runtime();
                    let mut named = verb[0] == "list";
                    for word in verb {
                        named |= word.is_empty();
                        cmd = cmd.arg(if word.is_empty() { &c.id } else { *word });
                    }
                    let o = if named { cmd } else { cmd.arg(&c.id) }.run();
                    count.fetch_add(1, Ordering::Relaxed);
                    let clear = o.err.lines().count() == 1 && !o.err.contains("panicked");
                    // what a delete has ended passes that on, and says nothing
                    let clear = clear || verb[0] == "exec" && o.code == 137;
                    assert!(o.code == 0 || clear, "{o}");
                }
            });
        }
        while Instant::now() < end {
            let o = c.cmd("create", &[]).run();
            assert!(o.code == 0 || o.err.lines().count() == 1, "{o}");
            std::thread::sleep(Duration::from_millis(20));
            c.cmd0("delete").arg("--force").run().ok();
            count.fetch_add(2, Ordering::Relaxed);
        }
        over.store(true, Ordering::Relaxed);
    });
    c.cmd0("delete").arg("--force").run().ok();
    c.cmd0("state").run().fails(1, &["does not exist"]);
    note(&format!("{} commands", count.into_inner()));
}

/// How many containers; `HUSK_TEST_MANY=10000` for a long look.
fn many() -> usize {
    let set = std::env::var("HUSK_TEST_MANY").ok();
    set.map_or(200, |n| n.parse().expect("a number"))
}

/// What a host has of the things that containers are made of: mounts, cgroups, descriptors, and the kernel's own memory in KiB.
fn used() -> (usize, usize, usize, i64) {
    let lines = |file: &str| fs::read_to_string(file).expect(file).lines().count();
    let number = |file: &str, key: &str| -> i64 {
        let text = fs::read_to_string(file).expect(file);
        let line = text.lines().find_map(|l| l.strip_prefix(key));
        let word = line.and_then(|l| l.split_whitespace().next());
        word.and_then(|w| w.parse().ok()).expect(key)
    };
    // its own: those of other tests come and go
    let stat = format!("/sys/fs/cgroup/{}/cgroup.stat", cgroup().display());
    (
        lines("/proc/self/mountinfo"),
        number(&stat, "nr_descendants ") as usize,
        fs::read_dir("/proc/self/fd").expect("fd").count(),
        number("/proc/meminfo", "SUnreclaim:"),
    )
}

fn many_in_a_row() {
    husk_only("it measures husk's growth, and takes others long");
    let b = Bundle::new().payload(&["true"]);
    let run = || {
        let c = b.container();
        let begun = Instant::now();
        c.cmd("run", &[]).run().ok();
        begun.elapsed()
    };
    for _ in 0..20 {
        run();
    }
    let before = used();
    let mut times: Vec<Duration> = (0..many()).map(|_| run()).collect();
    wait_until("nothing is left of them", || {
        let now = used();
        (now.0, now.1, now.2) == (before.0, before.1, before.2)
    });
    let middle = |t: &mut [Duration]| {
        t.sort();
        t[t.len() / 2]
    };
    let half = times.len() / 2;
    let (first, last) = times.split_at_mut(half);
    let (first, last) = (middle(first), middle(last));
    let memory = used().3 - before.3;
    note(&format!(
        "{} containers, {first:?} each in the first half, {last:?} in the second, {memory} KiB more of the kernel's memory",
        many()
    ));
    // a container that leaves something leaves a page or more; some of what is gone is still to be given back
    if many() >= 1000 {
        assert!(memory < many() as i64 * 4, "{memory} KiB");
    }
}

fn many_at_once() {
    let b = Bundle::new().payload(&["echo", "hello"]);
    let all: Vec<_> = (0..50)
        .map(|_| {
            let c = b.container();
            c.cmd("run", &[]).spawn()
        })
        .collect();
    for run in all {
        assert_eq!(run.wait().ok().line(), "hello");
    }
}

/// The CPU time of what this process has waited for, and of what that has: the clock would show what else the machine does.
fn spent() -> Duration {
    let children = getrusage(UsageWho::RUSAGE_CHILDREN).expect("getrusage");
    let micros = [children.user_time(), children.system_time()].map(|t| t.num_microseconds());
    Duration::from_micros(micros.iter().sum::<i64>() as u64)
}

/// The CPU time of seven tries together: some kernels (User Mode Linux) count it in ticks of 10 ms.
fn seven(run: impl Fn()) -> Duration {
    let before = spent();
    (0..7).for_each(|_| run());
    spent() - before
}

/// As many containers more in a state directory, by copies of the record of one that runs.
fn crowd(c: &Container, state: &Path, numbers: std::ops::Range<usize>) {
    let record = dir().join("state").join(&c.id).join("state.json");
    for n in numbers {
        let copy = state.join(format!("copy{n}"));
        fs::create_dir_all(&copy).expect("a directory");
        fs::copy(&record, copy.join("state.json")).expect("a record");
    }
}

/// By the system calls that each command makes, which no load of the machine changes, and roughly by its CPU time.
fn the_thousandth_costs_what_the_first_does() {
    husk_only("the containers are copies of its state");
    let b = Bundle::new();
    let c = b.start();
    let roots = ["alone", "crowded"].map(|name| dir().join(name));
    crowd(&c, &roots[0], 0..1);
    crowd(&c, &roots[1], 0..1000);
    let cmd = |root: &Path, args: &[&str]| Cmd::new(runtime()).arg("--root").arg(root).args(args);
    let one = b.container();
    let bundle = one.bundle.to_str().expect("a path");
    let counted = |root: &Path| {
        let calls = |args: &[&str]| crate::syscalls::count(args[0], "self", cmd(root, args)).0;
        let id = one.id.as_str();
        let counts = [
            calls(&["create", "--bundle", bundle, id]),
            calls(&["state", id]),
            calls(&["start", id]),
            calls(&["exec", id, "/bin/payload", "true"]),
            calls(&["kill", id, "KILL"]),
        ];
        cmd(root, &["delete", "--force", id]).run().ok();
        counts
    };
    // a process that is not gone yet is waited for, with a call or two more
    let mut fewest = [[usize::MAX; 5]; 2];
    for _ in 0..10 {
        for (fewest, root) in fewest.iter_mut().zip(&roots) {
            for (fewest, now) in fewest.iter_mut().zip(counted(root)) {
                *fewest = now.min(*fewest);
            }
        }
        if fewest[0] == fewest[1] {
            break;
        }
    }
    assert_eq!(fewest[0], fewest[1], "system calls alone, and among 1,000");
    let b = b.payload(&["true"]);
    let mut times = [Duration::ZERO; 2];
    for _ in 0..20 {
        for (time, root) in times.iter_mut().zip(&roots) {
            let c = b.container();
            let bundle = c.bundle.to_str().expect("a path");
            let before = spent();
            cmd(root, &["run", "--bundle", bundle, &c.id]).run().ok();
            *time += spent() - before;
        }
    }
    let [alone, among] = times;
    note(&format!(
        "20 runs take {alone:?} alone, {among:?} among 1,000"
    ));
    assert!(among < alone * 2, "{alone:?} alone, {among:?} among 1,000");
}

fn a_thousand_are_listed() {
    husk_only("the containers are copies of its state");
    let c = Bundle::new().start();
    let state = dir().join("crowded");
    let list = |count: usize| {
        let o = Cmd::new(runtime()).arg("--root").arg(&state).arg("list");
        let o = o.run().ok();
        assert_eq!(o.out.matches(" running ").count(), count);
    };
    let times = [0..125, 125..1000].map(|numbers| {
        let count = numbers.end;
        crowd(&c, &state, numbers);
        seven(|| list(count))
    });
    let [few, many] = times;
    note(&format!("{few:?} for 125, {many:?} for 1,000"));
    assert!(many < few * 20, "{few:?} for 125, {many:?} for 1,000");
}

/// Eight times as many take eight times as long, and not 64 times.
fn mounts_and_rules_cost_what_they_are() {
    husk_only("others do not take so many rules");
    let b = Bundle::new().payload(&["true"]);
    let with = |what: &str, count: usize| {
        match what {
        "mounts" => (0..count).fold(b.clone().writable(), |b, n| {
            b.bind("/dev/null", &format!("/tmp/{n}"), &["bind"])
        }),
        _ => (0..count).fold(b.clone(), |b, n| {
            let rule = json!({"allow": n % 2 == 0, "type": "c", "major": 10 + n / 100, "minor": n, "access": "rw"});
            b.push("/linux/resources/devices", rule)
        }),
    }
    };
    let mut notes = Vec::new();
    for (what, few, many) in [("mounts", 125, 1000), ("rules", 1250, 10_000)] {
        let [less, more] = [few, many].map(|count| {
            let b = with(what, count);
            seven(|| drop(b.run().ok()))
        });
        let text = format!("{less:?} for {few} {what}, {more:?} for {many}");
        assert!(more < less * 12, "{text}");
        notes.push(text);
    }
    note(&notes.join(", "));
}
