//! Refusals: what is wrong is said, and nothing is left behind.

use crate::support::*;
use std::fs;
use std::time::Duration;

tests![
    config_missing,
    config_is_no_json,
    config_of_a_wrong_type,
    config_empty,
    config_is_a_fifo,
    config_in_other_case,
    failed_start_can_be_deleted_at_once,
    bundle_missing,
    version_is_refused,
    version_before_ours,
    root_missing,
    root_is_absent_in_the_config,
    root_is_a_file,
    process_missing,
    several_at_once,
    violations_have_paths,
    unknown_enums_are_refused,
    usage_errors,
    state_directory_is_a_file,
    state_directory_cannot_be_made,
    state_file_broken,
    half_made_state_can_be_deleted,
    log_text,
    log_json,
    log_file_cannot_be_opened,
    debug_log,
    killed_runtime_leaves_something_deletable,
    failing_init_is_explained,
];

fn run_of(bundle: &std::path::Path) -> Output {
    let id = format!("{}e", process::id_prefix());
    Cmd::runtime()
        .args(["run", "--bundle"])
        .arg(bundle)
        .arg(&id)
        .run()
}

fn config_missing() {
    fs::create_dir("empty").unwrap();
    run_of(&dir().join("empty")).fails(1, &["config.json"]);
}

fn config_is_no_json() {
    let b = Bundle::new();
    fs::write(
        b.dir.join("config.json"),
        "{\"ociVersion\": \"1.0.0\",\n \"process\": {",
    )
    .unwrap();
    let o = run_of(&b.dir);
    assert_eq!(o.code, 1, "{o}");
    if is_husk() {
        o.fails(1, &["config.json", "line 2"]);
    }
}

fn config_of_a_wrong_type() {
    let b = Bundle::new().set("/process/args", json!("a string"));
    let o = b.refused(&["args"]);
    if is_husk() {
        o.fails(1, &["process.args"]);
    }
    Bundle::new()
        .set("/process/user/uid", json!(-1))
        .refused(&["uid"]);
}

/// Nobody writes to it: reading would never end.
fn config_is_a_fifo() {
    if !is_husk() {
        return;
    }
    let b = Bundle::new();
    let path = b.dir.join("config.json");
    fs::remove_file(&path).ok();
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    run_of(&b.dir).fails(1, &["config.json", "not a regular file"]);
}

/// What is written for runc may have fields in any case, as Go reads them.
fn config_in_other_case() {
    let b = Bundle::new()
        .remove("/hostname")
        .set("/HostName", json!("other"))
        .payload(&["uname"]);
    assert_eq!(b.run().ok().json()["nodename"], "other");
}

fn failed_start_can_be_deleted_at_once() {
    runc_fails("it returns before its process has ended");
    for _ in 0..5 {
        let b = Bundle::new().hook("startContainer", json!({"path": "/no/hook"}));
        let mut c = b.container();
        c.create(&[]);
        c.cmd0("start").run().fails(1, &["startContainer hook #0"]);
        c.delete();
    }
}

fn config_empty() {
    let b = Bundle::new();
    for text in ["", "null", "[]", "\"x\""] {
        fs::write(b.dir.join("config.json"), text).unwrap();
        let o = run_of(&b.dir);
        assert_eq!(o.code, 1, "{text}: {o}");
        assert!(!o.err.is_empty(), "{text}: {o}");
    }
}

fn bundle_missing() {
    run_of(std::path::Path::new("/no/where")).fails(1, &["/no/where", "no such file or directory"]);
}

fn version_is_refused() {
    runc_fails("it takes any");
    Bundle::new()
        .set("/ociVersion", json!("7.0.0"))
        .refused(&["7.0.0"]);
    Bundle::new()
        .set("/ociVersion", json!("2.0.0-rc1"))
        .refused(&["version"]);
}

fn version_before_ours() {
    Bundle::new()
        .set("/ociVersion", json!("1.0.2-dev"))
        .payload(&["true"])
        .run()
        .ok();
}

fn root_missing() {
    let b = Bundle::new().set("/root/path", json!("nowhere"));
    let o = b.refused(&["nowhere"]);
    let known = ["no such file or directory", "does not exist"];
    assert!(known.iter().any(|k| o.err.contains(k)), "{o}");
}

fn root_is_absent_in_the_config() {
    Bundle::new().remove("/root").refused(&["root"]);
}

fn root_is_a_file() {
    let b = Bundle::new().set("/root/path", json!("config.json"));
    b.refused(&["not a directory"]);
}

fn process_missing() {
    Bundle::new()
        .remove("/process")
        .container()
        .cmd("run", &[])
        .run()
        .fails(1, &["process"]);
}

/// A person mends them all in one go.
fn several_at_once() {
    husk_only("others stop at the first");
    let b = Bundle::new()
        .set("/process/cwd", json!("relative"))
        .set("/process/oomScoreAdj", json!(5000))
        .set("/linux/sysctl", json!({"kernel.panic": "1"}))
        .push("/linux/namespaces", json!({"type": "pid"}))
        .set("/hooks/poststop", json!([{"path": "/x", "timeout": 0}]));
    b.refused(&[
        "process.cwd",
        "process.oomScoreAdj",
        "linux.sysctl",
        "linux.namespaces[6]",
        "hooks.poststop[0].timeout",
    ]);
}

fn violations_have_paths() {
    husk_only("the JSON path is husk's own");
    for (pointer, value, path) in [
        ("/process/cwd", json!("x"), "process.cwd"),
        (
            "/process/rlimits/0/type",
            json!("RLIMIT_X"),
            "process.rlimits[0].type",
        ),
        ("/mounts/0/destination", json!(""), "mounts[0].destination"),
        (
            "/linux/rootfsPropagation",
            json!("sideways"),
            "linux.rootfsPropagation",
        ),
        (
            "/linux/maskedPaths",
            json!(["/\u{0}"]),
            "linux.maskedPaths[0]",
        ),
        ("/linux/cgroupsPath", json!("/"), "linux.cgroupsPath"),
        (
            "/linux/uidMappings",
            json!([{"containerID": 0, "hostID": 0, "size": 0}]),
            "linux.uidMappings",
        ),
        (
            "/linux/devices",
            json!([{"path": "/", "type": "p"}]),
            "linux.devices[0]",
        ),
    ] {
        Bundle::new().set(pointer, value).refused(&[path]);
    }
}

fn unknown_enums_are_refused() {
    for (pointer, value) in [
        ("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_SHRUG"})),
        ("/linux/personality", json!({"domain": "LINUX64"})),
        (
            "/process/ioPriority",
            json!({"class": "IOPRIO_CLASS_X", "priority": 0}),
        ),
    ] {
        let word = value
            .as_object()
            .unwrap()
            .values()
            .next()
            .unwrap()
            .as_str()
            .unwrap()
            .to_string();
        Bundle::new().set(pointer, value).refused(&[&word]);
    }
}

fn usage_errors() {
    for (args, words) in [
        (&["no-such-verb"][..], "no-such-verb"),
        (&["create"], ""),
        (&["state"], ""),
        (&["kill"], ""),
        (&["delete"], ""),
        (&["state", "a", "b"], ""),
        (&["create", "--no-such-flag", "x"], "no-such-flag"),
        (&["--no-such-flag", "list"], "no-such-flag"),
    ] {
        let o = Cmd::runtime().args(args).run();
        assert_ne!(o.code, 0, "{o}");
        assert!(o.err.contains(words) && !o.err.is_empty(), "{o}");
    }
}

fn with_root(root: &str, args: &[&str]) -> Output {
    Cmd::new(process::runtime())
        .args(["--root", root])
        .args(args)
        .run()
}

fn state_directory_is_a_file() {
    fs::write("file", "").unwrap();
    let b = Bundle::new();
    b.save();
    let o = with_root("file", &["run", "--bundle", b.dir.to_str().unwrap(), "x"]);
    o.fails(1, &["file", "not a directory"]);
    with_root("file", &["list"]).fails(1, &["not a directory"]);
}

fn state_directory_cannot_be_made() {
    let b = Bundle::new();
    b.save();
    let o = with_root(
        "/proc/nowhere",
        &["run", "--bundle", b.dir.to_str().unwrap(), "x"],
    );
    o.fails(1, &["/proc/nowhere", "no such file or directory"]);
    with_root("nowhere", &["state", "x"]).fails(1, &["does not exist"]);
    assert!(!fs::exists("nowhere").unwrap(), "asking makes nothing");
}

fn state_file_broken() {
    husk_only("runc cannot delete such a container");
    let c = Bundle::new().create();
    let good = Bundle::new().create();
    let file = dir().join("state").join(&c.id).join("state.json");
    let pid = c.pid().to_string();
    fs::write(&file, "{\"half").unwrap();
    c.cmd0("state").run().fails(1, &["state.json"]);
    let list = Cmd::runtime().arg("list").run();
    assert!(
        list.out.contains(&good.id),
        "one broken container does not hide the others: {list}"
    );
    let pid = pid.parse().unwrap();
    Cmd::runtime().args(["delete", "--force", &c.id]).run().ok();
    assert!(!dir().join("state").join(&c.id).exists());
    // what the file alone knew is lost
    let _ = nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(pid),
        nix::sys::signal::Signal::SIGKILL,
    );
    crate::support::guard::remove_cgroup(&c.cgroup_dir());
    c.forget();
}

/// A runtime that was killed between mkdir and the first write.
fn half_made_state_can_be_deleted() {
    husk_only("runc says that it does not exist, and leaves the directory");
    fs::create_dir("state/half").unwrap();
    Cmd::runtime().arg("list").run().ok();
    Cmd::runtime()
        .args(["delete", "--force", "half"])
        .run()
        .ok();
    assert!(!fs::exists("state/half").unwrap());
}

fn bad_run(options: &[&str]) -> Output {
    run(
        Bundle::new().set("/process/args", json!(["/bin/nothing"])),
        options,
    )
}

/// `run`, with options before it.
fn run(b: Bundle, options: &[&str]) -> Output {
    let c = b.container();
    Cmd::runtime()
        .args(options)
        .args(["run", "--bundle"])
        .arg(&c.bundle)
        .arg(&c.id)
        .run()
}

fn log_text() {
    let o = bad_run(&["--log", "log"]).fails(1, &["no such file or directory"]);
    let log = fs::read_to_string("log").unwrap();
    let last = log.lines().last().unwrap();
    assert!(
        last.contains("level=error") && last.contains("msg=") && last.contains("time="),
        "{log}"
    );
    assert!(last.contains("no such file or directory"), "{log}");
    assert!(!o.err.contains("level="), "stderr has the plain text: {o}");
}

/// containerd shows the user the last line of level error; Docker makes exit codes of its words.
fn log_json() {
    bad_run(&["--log", "log", "--log-format", "json"]).exits(1);
    let log = fs::read_to_string("log").unwrap();
    let lines: Vec<Value> = log
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    let errors: Vec<&Value> = lines.iter().filter(|l| l["level"] == "error").collect();
    assert_eq!(errors.len(), 1, "{log}");
    assert_eq!(Some(errors[0]), lines.last());
    let message = errors[0]["msg"].as_str().unwrap();
    assert!(
        message.contains("/bin/nothing") && message.contains("no such file or directory"),
        "{message}"
    );
    assert!(
        errors[0]["time"].as_str().unwrap().starts_with("20"),
        "{log}"
    );
}

fn log_file_cannot_be_opened() {
    let o = Cmd::runtime()
        .args(["--log", "/no/where/log", "list"])
        .run();
    o.fails(1, &["/no/where/log", "no such file or directory"]);
}

fn debug_log() {
    let o = bad_run(&["--debug", "--log", "log"]).exits(1);
    let log = fs::read_to_string("log").unwrap();
    assert!(log.contains("level=debug"), "{log}");
    assert!(!o.err.contains("level=debug"), "{o}");
    if is_husk() {
        // one without an error, which may be told before the parent comes to its next step
        run(
            Bundle::new().payload(&["true"]),
            &["--debug", "--log", "steps"],
        )
        .ok();
        let log = fs::read_to_string("steps").unwrap();
        for step in 2..=10 {
            let line = log.lines().find(|l| l.contains(&format!("step {step}: ")));
            assert!(
                line.is_some_and(|l| l.contains("(+") && l.contains(" µs)")),
                "{step}: {log}"
            );
        }
    }
}

/// kill -9 in the midst of it. What there is must end by itself, or be found by `delete --force`.
fn killed_runtime_leaves_something_deletable() {
    runc_fails("some of it is left: processes, or a cgroup");
    let b = Bundle::new();
    for micros in [
        500, 1_000, 2_000, 3_000, 4_000, 5_000, 6_000, 8_000, 10_000, 12_000, 16_000,
    ] {
        let c = b.container();
        let run = c.cmd("create", &[]).spawn();
        std::thread::sleep(Duration::from_micros(micros));
        if run.try_kill(nix::sys::signal::Signal::SIGKILL) {
            run.wait();
        }
        Cmd::runtime().args(["delete", "--force", &c.id]).run().ok();
        let left = crate::support::guard::offspring();
        assert!(
            !c.cgroup_dir().exists(),
            "killed after {micros} µs: its cgroup is left"
        );
        let gone = || crate::support::guard::offspring().is_empty();
        wait_until(&format!("after {micros} µs: {left:?} are gone"), gone);
    }
}

fn failing_init_is_explained() {
    // an address space too small for any program: the end of it comes after execve
    let limit = json!([{"type": "RLIMIT_AS", "soft": 4096, "hard": 4096}]);
    let o = Bundle::new()
        .set("/process/rlimits", limit)
        .payload(&["true"])
        .run();
    assert_ne!(o.code, 0, "{o}");
    assert!(
        o.code > 128 || !o.err.is_empty(),
        "an exit code of a signal, or a message: {o}"
    );
}
