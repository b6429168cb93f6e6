//! What a hostile image, volume or container process must not achieve: each attack that was published against a runtime, and the promises of
//! the README. `tests/security.md` is the list.

use crate::support::process::exchange;
use crate::support::pty::FdSocket;
use crate::support::runner::note;
use crate::support::*;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

tests![
    each_promise_has_a_test,
    executable_is_out_of_reach,
    executable_is_out_of_reach_of_exec,
    executable_as_entrypoint,
    init_is_not_inspectable_from_inside,
    state_directory_is_closed_to_others,
    target_exchanged_for_a_symlink,
    masked_path_is_a_symlink,
    console_is_a_symlink,
    passwd_is_a_pipe,
    passwd_is_a_symlink_to_the_host,
    passwd_is_nonsense,
    sysctl_under_a_volume,
    proc_sys_is_read_only,
    devices_of_the_host_are_out_of_reach,
    exec_gets_no_more_than_the_container,
    leaked_descriptor_is_no_way_out,
    cgroup_of_the_host_in_a_user_namespace,
    control_characters_are_not_printed,
    processes_of_the_host_are_not_seen,
];

const ALL: [&str; 3] = ["bounding", "effective", "permitted"];

/// tests/security.md: `| id | what | tests | shown by |`. A promise, or an attack that was published, is shown by tests that have been
/// seen to fail, or cannot concern husk.
fn each_promise_has_a_test() {
    let known = crate::schema::all_tests();
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let table = fs::read_to_string(repository.join("tests/security.md")).unwrap();
    let mut faults = Vec::new();
    let mut ids = BTreeSet::new();
    for row in table.lines().filter(|l| l.starts_with("| ")) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let [_, id, what, tests, shown, _] = cells[..] else {
            faults.push(format!("not four cells: {row}"));
            continue;
        };
        if id == "id" || id == "---" {
            continue;
        }
        for one in id.split(", ") {
            if !ids.insert(one.to_string()) {
                faults.push(format!("{one}: a second row"));
            }
        }
        if what.is_empty() || shown.is_empty() {
            faults.push(format!("{id}: an empty cell"));
        }
        for test in tests.split(", ").filter(|_| tests != "none") {
            let test = test.trim_matches('`');
            if !known.contains(test) {
                faults.push(format!("{id}: no test is called '{test}'"));
            }
        }
        if tests == "none" && !shown.starts_with("cannot: ") {
            faults.push(format!("{id}: without a test it must say why it cannot be"));
        }
    }
    for n in 1..=15 {
        if !ids.contains(&format!("I{n}")) {
            faults.push(format!("no row: I{n}"));
        }
    }
    let mut files = Vec::new();
    for dir in ["src", "tests"] {
        sources(&repository.join(dir), &mut files);
    }
    let said = files
        .iter()
        .flat_map(|f| advisories(f))
        .collect::<BTreeSet<_>>();
    faults.extend(said.difference(&ids).map(|id| format!("no row: {id}")));
    assert!(
        faults.is_empty(),
        "tests/security.md:\n{}",
        faults.join("\n")
    );
    let all = ids.iter().filter(|id| !id.starts_with('I')).count();
    note(&format!("15 invariants, {all} advisories"));
}

fn sources(dir: &Path, texts: &mut Vec<String>) {
    for path in fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()) {
        if path.is_dir() {
            sources(&path, texts);
        } else if path.extension().is_some_and(|e| e == "rs") {
            texts.push(fs::read_to_string(&path).unwrap());
        }
    }
}

/// The names of advisories in a text.
fn advisories(text: &str) -> BTreeSet<String> {
    let word = |c: char| !c.is_ascii_alphanumeric() && c != '-';
    let words = text.split(word).map(|w| w.trim_matches('-'));
    words
        .filter(|w| w.starts_with("CVE-20") && w.len() > 9 || w.starts_with("GHSA-"))
        .map(String::from)
        .collect()
}

/// A copy of the runtime that nobody else executes: a file that is being executed is busy, and cannot be written by anybody.
struct OwnRuntime {
    path: PathBuf,
    before: Vec<u8>,
}

impl OwnRuntime {
    fn new() -> OwnRuntime {
        let path = dir().join("runtime");
        fs::copy(process::runtime(), &path).unwrap();
        let before = fs::read(&path).unwrap();
        OwnRuntime { path, before }
    }

    fn cmd(&self, args: &[&str]) -> Cmd {
        let state = dir().join("state");
        let cmd = Cmd::new(&self.path).arg("--root").arg(state);
        cmd.args(args)
    }

    fn create(&self, b: &Bundle) -> Container {
        let mut c = b.container();
        let bundle = c.bundle.display().to_string();
        let cmd = self.cmd(&["create", "--bundle", &bundle, &c.id]);
        c.creates(cmd).ok();
        c
    }

    /// While the kernel refuses to open a file on a read-only mount for writing, the file counts as open: it cannot be executed for a
    /// moment. Who may look at /proc/PID/exe of a process of husk's (CAP_SYS_PTRACE) can do so.
    fn run_in_between(&self, args: &[&str]) -> Output {
        loop {
            match self.cmd(args).try_spawn() {
                Err(e) if e.kind() == std::io::ErrorKind::ExecutableFileBusy => {}
                run => return run.expect("spawn").wait(),
            }
        }
    }

    #[track_caller]
    fn check(&self, o: &str) {
        assert!(!o.contains("can be written"), "{o}");
        assert!(fs::read(&self.path).unwrap() == self.before);
    }
}

const HUNTER: [&str; 3] = ["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH"];

/// CVE-2019-5736. `create` leaves husk's own program running in the container until `start`.
fn executable_is_out_of_reach() {
    let runtime = OwnRuntime::new();
    let c = runtime.create(&Bundle::new().capabilities(&ALL, &HUNTER));
    // detached: an exec that waits would keep the file busy
    let grab = ["exec", "--detach", &c.id, bundle::PAYLOAD, "grab-exe", "1"];
    let o = runtime.cmd(&grab).run().ok();
    wait_until("the payload holds it or cannot", || !o.out_now().is_empty());
    runtime.cmd(&["start", &c.id]).run().ok();
    wait_until("it has tried", || o.out_now().lines().count() > 1);
    runtime.check(&o.out_now());
}

/// CVE-2019-5736 as it was published: a container lies in wait for the processes that exec brings, and its programs are the runtime itself.
fn executable_is_out_of_reach_of_exec() {
    let runtime = OwnRuntime::new();
    let b = Bundle::new()
        .writable()
        .symlink("/proc/self/exe", "/bin/sh")
        .capabilities(&ALL, &HUNTER)
        .payload(&["hunt-exe", "/tmp/end"]);
    let c = runtime.create(&b);
    runtime.cmd(&["start", &c.id]).run().ok();
    wait_until("it lies in wait", || c.out() == "ready\n");
    for _ in 0..10 {
        let args = ["exec", &c.id, bundle::PAYLOAD, "true"];
        runtime.run_in_between(&args).ok();
        runtime.run_in_between(&["exec", &c.id, "/bin/sh", "--version"]);
    }
    // until nothing of the runtime is at work
    std::thread::sleep(Duration::from_millis(100));
    fs::write(b.rootfs().join("tmp/end"), "").unwrap();
    c.wait_status("stopped");
    runtime.check(&c.out());
    let out = c.out();
    let held = out.lines().last().and_then(|l| l.strip_prefix("held "));
    note(&format!("{} executables held", held.expect("held")));
}

/// An image may name the runtime itself as its program, and wait for it inside.
fn executable_as_entrypoint() {
    let runtime = process::runtime();
    let before = fs::read(&runtime).unwrap();
    let b = Bundle::new().set("/process/args", json!(["/proc/self/exe", "--version"]));
    let o = b.run();
    // whether it starts is open; the file is as it was
    assert!(fs::read(&runtime).unwrap() == before, "{o}");
}

/// Descriptors and memory of the runtime are not the container's to see: neither as its root with every capability there, nor with the
/// same ids and capabilities as who is set up.
fn init_is_not_inspectable_from_inside() {
    let b = Bundle::new();
    let with_all = b.clone().user_namespace(100_000).capabilities(
        &ALL,
        &[
            "CAP_SYS_PTRACE",
            "CAP_DAC_OVERRIDE",
            "CAP_DAC_READ_SEARCH",
            "CAP_SYS_ADMIN",
        ],
    );
    let look = |c: &Container, verbs: &[&str]| {
        let o = c.exec(&[], verbs).exits(1);
        assert!(["error EACCES", "error EPERM"].contains(&o.line()), "{o}");
    };
    // runc's init leaves itself to its equals
    for b in [&with_all, &b].into_iter().take(1 + usize::from(is_husk())) {
        let c = b.create();
        look(&c, &["readlink", "/proc/1/exe"]);
        look(&c, &["cat", "/proc/1/maps"]);
        look(&c, &["readlink", "/proc/1/fd/0"]);
    }
    // the host's root may count them
    look(&with_all.create(), &["ls", "/proc/1/fd"]);
}

fn state_directory_is_closed_to_others() {
    let c = Bundle::new().create();
    let dir = dir().join("state").join(&c.id);
    let m = fs::metadata(&dir).unwrap();
    assert_eq!(m.mode() & 0o066, 0, "{:o}", m.mode());
    let file = fs::metadata(dir.join("state.json")).unwrap();
    assert_eq!(file.mode() & 0o022, 0, "{:o}", file.mode());
    assert_eq!(file.uid(), 0);
}

/// A volume that somebody else has too, in which targets of every kind are made: `volume/a` can be exchanged for `volume/b`, a symlink to
/// `host`.
pub struct Volume {
    pub bundle: Bundle,
    before: BTreeMap<String, String>,
}

impl Volume {
    pub fn new() -> Volume {
        for d in ["host/masked", "host/closed"] {
            fs::create_dir_all(d).unwrap();
        }
        for file in ["file", "host/secret", "host/closed/file"] {
            fs::write(file, "words").unwrap();
        }
        let bundle = Bundle::new()
            .writable()
            .bind(dir().join("volume"), "/volume", &[])
            .mount("/volume/a/made/here", "tmpfs", "tmpfs", &[])
            .bind(dir().join("file"), "/volume/a/deep/file", &[])
            .push(
                "/linux/devices",
                json!({"path": "/volume/a/nodes/zero", "type": "c", "major": 1, "minor": 5}),
            )
            .set(
                "/linux/maskedPaths",
                json!(["/volume/a/secret", "/volume/a/masked"]),
            )
            .set("/linux/readonlyPaths", json!(["/volume/a/closed"]))
            .set("/process/cwd", json!("/volume/a/work"))
            .payload(&["true"]);
        let volume = Volume {
            bundle,
            before: tree(Path::new("host")),
        };
        volume.reset();
        volume
    }

    /// As before the first container.
    pub fn reset(&self) {
        _ = fs::remove_dir_all("volume");
        for d in ["volume/a/masked", "volume/a/closed"] {
            fs::create_dir_all(d).unwrap();
        }
        fs::write("volume/a/secret", "words").unwrap();
        // as seen from the host and from the container
        symlink(dir().join("host"), "volume/b").unwrap();
    }

    /// What was done to the host.
    pub fn harm(&self) -> Result<(), String> {
        let now = tree(Path::new("host"));
        if now != self.before {
            return Err(format!("the host's files are {now:?}"));
        }
        Ok(())
    }
}

/// What is below a directory: path, and mode, owner and size.
fn tree(dir: &Path) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for path in fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()) {
        let m = fs::symlink_metadata(&path).unwrap();
        let size = if m.is_dir() { 0 } else { m.size() };
        let about = format!("{:o} {}:{} {size}", m.mode(), m.uid(), m.gid());
        all.insert(path.display().to_string(), about);
        if m.is_dir() {
            all.extend(tree(&path));
        }
    }
    all
}

/// CVE-2021-30465, CVE-2024-45310: somebody else with the volume swaps a directory and a symlink while targets are made. What
/// comes at each system call is in faults.rs.
fn target_exchanged_for_a_symlink() {
    let volume = Volume::new();
    let (stop, swaps) = (AtomicBool::new(false), AtomicUsize::new(0));
    let made_anew = AtomicBool::new(false);
    let (mut runs, mut worked) = (0, 0);
    std::thread::scope(|s| {
        s.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let swapped =
                    !made_anew.load(Ordering::SeqCst) && exchange(c"volume/a", c"volume/b").is_ok();
                swaps.fetch_add(usize::from(swapped), Ordering::Relaxed);
            }
        });
        let end = Instant::now() + seconds(3);
        while Instant::now() < end {
            // may fail, may work; but only inside
            worked += usize::from(volume.bundle.run().code == 0);
            runs += 1;
            made_anew.store(true, Ordering::SeqCst);
            // an exchange may still be under way
            for _ in 0..100 {
                if fs::remove_dir_all("volume/a").is_ok() {
                    break;
                }
            }
            volume.reset();
            made_anew.store(false, Ordering::SeqCst);
        }
        stop.store(true, Ordering::Relaxed);
    });
    volume.harm().unwrap();
    let swaps = swaps.into_inner();
    note(&format!(
        "{runs} containers, {worked} of them ran, {swaps} exchanges"
    ));
}

/// How long a race goes on; `HUSK_TEST_SECONDS=60` for a long look.
pub fn seconds(usual: u64) -> Duration {
    let set = std::env::var("HUSK_TEST_SECONDS").ok();
    Duration::from_secs(set.map_or(usual, |n| n.parse().expect("a number")))
}

fn masked_path_is_a_symlink() {
    fs::create_dir("host").unwrap();
    fs::write("host/file", "words").unwrap();
    let b = Bundle::new()
        .writable()
        .symlink(dir().join("host").to_str().unwrap(), "/out")
        .mkdir("/in")
        .symlink("/in", "/link")
        .file("/in/file", "hidden", 0o644)
        .set("/linux/maskedPaths", json!(["/out", "/link"]))
        .payload(&["ls", "/in"]);
    let o = b.run().ok();
    assert_eq!(
        o.out, "",
        "the mask is on what the link means in the container"
    );
    assert_eq!(fs::read_to_string("host/file").unwrap(), "words");
}

/// CVE-2026-88264, CVE-2025-52565: where /dev is the image's own directory, /dev/console may be anything.
fn console_is_a_symlink() {
    fs::write("bait", "words").unwrap();
    for target in ["bait", "new"] {
        let b = Bundle::new()
            .writable()
            .set("/process/terminal", json!(true))
            .symlink(dir().join(target).to_str().unwrap(), "/dev/console")
            .without_mount("/dev")
            .without_mount("/dev/shm")
            .without_mount("/dev/mqueue")
            .mkdir("/dev/pts")
            .payload(&["true"]);
        let socket = FdSocket::new();
        let mut c = b.container();
        let cmd = c.cmd("run", &["--detach", "--console-socket", socket.arg()]);
        let o = c.creates(cmd);
        let m = fs::symlink_metadata("bait").unwrap();
        assert!(m.is_file() && m.mode() & 0o7777 == 0o644, "{o}");
        assert_eq!(fs::read_to_string("bait").unwrap(), "words");
        assert!(!fs::exists("new").unwrap(), "made on the host: {o}");
        if o.code != 0 {
            c.forget();
        }
        if is_husk() {
            o.fails(1, &["/dev/console", "it is a symlink"]);
        }
    }
}

/// A container that hangs its runtime hangs the engine.
fn passwd_is_a_pipe() {
    runc_fails("it waits for somebody to write there");
    let b = Bundle::new()
        .payload(&["env"])
        .set("/process/env", json!([]));
    let passwd = b.rootfs().join("etc/passwd");
    fs::remove_file(&passwd).unwrap();
    nix::unistd::mkfifo(&passwd, nix::sys::stat::Mode::S_IRWXU).unwrap();
    b.run();
}

fn passwd_is_a_symlink_to_the_host() {
    fs::write("passwd", "root:x:0:0:root:/from/the/host:/bin/sh\n").unwrap();
    let b = Bundle::new()
        .payload(&["env"])
        .set("/process/env", json!([]));
    let passwd = b.rootfs().join("etc/passwd");
    fs::remove_file(&passwd).unwrap();
    symlink(dir().join("passwd"), &passwd).unwrap();
    let o = b.run();
    assert!(!o.out.contains("/from/the/host"), "{o}");
}

fn passwd_is_nonsense() {
    let long = format!(
        "{}\n:::\nroot:x:0\n\0\nroot:x:0:0::/right:\n",
        "x".repeat(100_000)
    );
    let b = Bundle::new()
        .payload(&["env"])
        .set("/process/env", json!([]))
        .file("/etc/passwd", &long, 0o644);
    let o = b.run();
    assert!(o.code == 0 && o.out.contains("HOME=/"), "{o}");
}

/// CVE-2025-52881, CVE-2019-19921: what the runtime writes to /proc must reach the kernel and nothing else, whoever has put something over
/// it: the config itself, or somebody else in the meantime.
fn sysctl_under_a_volume() {
    fs::create_dir_all("fake/ipv4").unwrap();
    let file = "fake/ipv4/ip_unprivileged_port_start";
    fs::write(file, "untouched").unwrap();
    let sysctl = json!({"net.ipv4.ip_unprivileged_port_start": "77"});
    let b = Bundle::new()
        .set("/linux/sysctl", sysctl)
        .payload(&["true"]);
    let fake = dir().join("fake");
    let by_config = b.clone().bind(&fake, "/proc/sys/net", &[]);
    let target = b.rootfs().join("proc/sys/net");
    const MS_BIND: &str = "4096";
    let args = [
        "payload",
        "mount",
        fake.to_str().unwrap(),
        target.to_str().unwrap(),
        "none",
        MS_BIND,
    ];
    let hook = json!({"path": process::payload(), "args": args});
    for b in [by_config, b.hook("createContainer", hook)] {
        let o = b.run();
        assert_eq!(fs::read_to_string(file).unwrap(), "untouched", "{o}");
        // who writes through a procfs of its own need not notice
        assert!(o.code != 0 || !is_husk(), "{o}");
    }
}

fn proc_sys_is_read_only() {
    let b = Bundle::new()
        .capabilities(&ALL, &["CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE"])
        .payload(&["write", "/proc/sys/kernel/domainname", "x"]);
    assert_eq!(b.run().exits(1).lines(), ["error EROFS"]);
}

fn devices_of_the_host_are_out_of_reach() {
    let disk = fs::read_dir("/sys/class/block")
        .unwrap()
        .flatten()
        .next()
        .expect("a block device");
    let dev = fs::read_to_string(disk.path().join("dev")).unwrap();
    let (major, minor) = dev.trim().split_once(':').unwrap();
    let b = Bundle::new()
        .writable()
        .capabilities(&ALL, &["CAP_MKNOD", "CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE"])
        .payload(&[
            "mknod",
            "/tmp/disk",
            "b",
            major,
            minor,
            ";",
            "open",
            "/tmp/disk",
            "r",
        ]);
    assert_eq!(b.run().exits(1).lines(), ["ok", "error EPERM"]);
}

/// I8: whatever the caller of exec has, the process has what the container's config says.
fn exec_gets_no_more_than_the_container() {
    let c = Bundle::new().capabilities(&ALL, &["CAP_KILL"]).start();
    let inside = c.exec(&[], &["status"]).ok().json();
    let init = fs::read_to_string(format!("/proc/{}/status", c.pid())).unwrap();
    for key in [
        "CapInh",
        "CapPrm",
        "CapEff",
        "CapBnd",
        "CapAmb",
        "NoNewPrivs",
        "Seccomp",
    ] {
        let of_init = init
            .lines()
            .find_map(|l| l.strip_prefix(key)?.strip_prefix(':'));
        assert_eq!(inside[key].as_str(), of_init.map(str::trim), "{key}");
    }
}

/// CVE-2024-21626: whatever the caller has left open is closed, and is no working directory, neither by its number nor by a symlink of the image's.
fn leaked_descriptor_is_no_way_out() {
    let leak = |mut cmd: Cmd| {
        let host = fs::File::open("/").unwrap();
        keep_fds(cmd.command(), vec![(host.into(), 9)]);
        cmd.run()
    };
    let b = Bundle::new().symlink("/proc/self/fd/9", "/way");
    let o = leak(b.clone().payload(&["fds"]).container().cmd("run", &[])).ok();
    assert_eq!(o.json().as_object().unwrap().len(), 3, "{o}");
    let c = b.start();
    let o = leak(c.exec_cmd(&[], &["fds"])).ok();
    assert_eq!(o.json().as_object().unwrap().len(), 3, "{o}");
    // one that is to stay open is none either
    let preserve = |mut cmd: Cmd| {
        let host = fs::File::open("/").unwrap();
        keep_fds(cmd.command(), vec![(host.into(), 3)]);
        cmd.run()
    };
    let way = "/proc/self/fd/3";
    let through = b
        .clone()
        .set("/process/cwd", json!(way))
        .payload(&["ls", "."]);
    let o = preserve(through.container().cmd("run", &["--preserve-fds", "1"]));
    o.exits(1);
    let options = ["--preserve-fds", "1", "--cwd", way];
    preserve(c.exec_cmd(&options, &["ls", "."])).fails(255, &["outside"]);
    for cwd in ["/proc/self/fd/9", "/proc/self/fd/9/etc", "/way", "/way/.."] {
        let b = b.clone().set("/process/cwd", json!(cwd)).payload(&["cwd"]);
        let o = leak(b.container().cmd("run", &[]));
        assert!(o.code == 1 || o.line() == "/", "{o}");
        let o = leak(c.exec_cmd(&["--cwd", cwd], &["cwd"]));
        assert!(o.code == 255 || o.line() == "/", "{o}");
    }
}

/// CVE-2023-25809: without a cgroup namespace a container of a user namespace sees the host's cgroups, and must not change them
/// even where its ids could.
fn cgroup_of_the_host_in_a_user_namespace() {
    runc_fails("it mounts what the config says, but for a rootless husk");
    let own = Path::new("/sys/fs/cgroup").join(cgroup());
    std::os::unix::fs::chown(&own, Some(100_000), Some(100_000)).unwrap();
    let b = Bundle::new()
        .user_namespace(100_000)
        .without_namespace("cgroup")
        .edit_mount("/sys/fs/cgroup", |m| m["options"] = json!(["rw", "nosuid"]))
        .payload(&[
            "mkdir",
            "/sys/fs/cgroup/made",
            ";",
            "write",
            "/sys/fs/cgroup/cgroup.procs",
            "1",
        ]);
    let o = b.run().exits(1);
    assert_eq!(o.lines(), ["error EROFS", "error EROFS"]);
}

/// A config's texts come back in errors, warnings, `state` and `list`, which somebody reads on a terminal.
fn control_characters_are_not_printed() {
    runc_fails("it prints what the config says");
    let evil = "\u{1b}[2J\u{9b}31m\u{202e}\u{7f}x";
    let c = Bundle::new()
        .set("/annotations", json!({"com.example": evil}))
        .start();
    let mut seen = vec![c.cmd0("state").run().ok()];
    for format in ["table", "json"] {
        seen.push(Cmd::runtime().args(["list", "--format", format]).run().ok());
    }
    for (pointer, value) in [
        ("/process/args/0", json!(evil)),
        ("/process/cwd", json!(format!("/{evil}"))),
        ("/process/capabilities/bounding", json!([evil])),
        ("/hostname", json!(evil.repeat(20))),
        ("/root/path", json!(evil)),
        ("/linux/cgroupsPath", json!(format!("../{evil}"))),
        ("/linux/namespaces/0/path", json!(format!("/{evil}"))),
        ("/linux/sysctl", json!({evil: "1"})),
        ("/linux/resources/unified", json!({evil: "1"})),
        ("/linux/seccomp", json!({"defaultAction": evil})),
        ("/mounts/0/type", json!(evil)),
        ("/hooks/prestart", json!([{"path": format!("/{evil}")}])),
    ] {
        let b = Bundle::new().payload(&["true"]).set(pointer, value);
        seen.push(b.run());
        let c = b.container();
        seen.push(
            Cmd::runtime()
                .arg("--debug")
                .args(["run", "--bundle"])
                .arg(&c.bundle)
                .arg(&c.id)
                .run(),
        );
    }
    seen.push(c.cmd0(evil).run());
    seen.push(Cmd::runtime().args(["state", evil]).run());
    for o in &seen {
        for text in [&o.out, &o.err] {
            let bad = text.chars().find(|c| husk::error::is_dangerous(*c));
            assert_eq!(bad, None, "{:?} of {o:?}", text);
        }
    }
    let words = seen.iter().filter(|o| o.err.contains("\\u{1b}")).count();
    assert!(words > 10, "only {words} of them had it in their words");
    note(&format!("{} outputs", 2 * seen.len()));
}

/// With a pid namespace a container knows of its own processes only.
fn processes_of_the_host_are_not_seen() {
    let c = Bundle::new().start();
    let o = c.exec(&[], &["ls", "/proc"]).ok();
    let pids = o
        .lines()
        .iter()
        .filter(|l| l.parse::<u32>().is_ok())
        .count();
    assert_eq!(pids, 2, "init and the exec itself: {o}");
}
