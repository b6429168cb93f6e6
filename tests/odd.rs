//! Configs that are odd, or wrong without harm, and that runc takes: husk takes them too, does the same, and says what is odd.

use crate::support::*;
use std::fs;

tests![
    of_the_process,
    of_the_root_file_system,
    of_linux,
    of_seccomp,
    of_cgroups,
    of_hooks,
    of_the_text,
    refused_for_a_reason,
];

/// Runs a config that must work; husk has one warning, with `warning` in it.
#[track_caller]
fn taken(b: &Bundle, warning: &str) -> Output {
    let o = b.run().ok();
    if is_husk() {
        assert!(o.err.contains(warning), "no '{warning}' in {o}");
        assert_eq!(o.err.lines().count(), 1, "{o}");
    }
    o
}

fn of_the_process() {
    let b = Bundle::new()
        .set("/process/user/umask", json!(0o7027))
        .payload(&["status"]);
    let o = taken(
        &b,
        "process.user.umask: 0o7027 has more than permission bits",
    );
    assert_eq!(o.json()["Umask"], "0027");

    let batch = json!({"policy": "SCHED_IDLE", "nice": 99});
    let b = Bundle::new()
        .set("/process/scheduler", batch)
        .payload(&["sched"]);
    let o = taken(&b, "process.scheduler.nice: has no effect with SCHED_IDLE");
    assert_eq!(o.json()["policy"], 5, "{o}");

    // a null in a list of strings is an empty one
    let b = Bundle::new().payload(&["argv"]);
    let b = b.push("/process/args", Value::Null);
    let argv = b.run().ok().json();
    assert_eq!(argv.as_array().unwrap().last().unwrap(), "");
}

fn of_the_root_file_system() {
    for list in ["readonlyPaths", "maskedPaths"] {
        let b = Bundle::new()
            .writable()
            .file("/etc/thing", "text", 0o644)
            .set(&format!("/linux/{list}"), json!(["etc/thing"]))
            .payload(&["write", "/etc/thing", "x"]);
        b.run();
        let kept = fs::read_to_string(b.rootfs().join("etc/thing")).unwrap();
        assert_eq!(kept, "text", "{list}");

        let none = Bundle::new().set(&format!("/linux/{list}"), json!([""]));
        taken(&none.payload(&["true"]), "is empty, and ignored");
    }

    let b = Bundle::new()
        .bind("/", "/tmp", &["tmpcopyup", "ro"])
        .payload(&["true"]);
    taken(
        &b,
        "mounts[7].options: tmpcopyup is for type tmpfs, and has no effect",
    );

    for (device, path, warning) in [
        (
            json!({"path": "dev/x", "type": "c", "major": 1, "minor": 3}),
            "/dev/x",
            "linux.devices[0].path: 'dev/x' is relative",
        ),
        (
            json!({"path": "/dev/x", "type": "c"}),
            "/dev/x",
            "linux.devices[0]: is device 0:0, which there is none of",
        ),
        (
            json!({"path": "", "type": "c", "major": 1, "minor": 3}),
            "/dev/null",
            "linux.devices[0]: has no path, and is not made",
        ),
    ] {
        let b = Bundle::new()
            .set("/linux/devices", json!([device]))
            .payload(&["stat", path]);
        assert_eq!(taken(&b, warning).json()["type"], "char");
    }
}

fn of_linux() {
    let b = Bundle::new()
        .set("/annotations", json!({"": "x"}))
        .payload(&["true"]);
    taken(&b, "annotations: has an empty key");
    for (version, warning) in [
        ("", "ociVersion: is '', not a version such as 1.2.1"),
        ("1.0", "ociVersion: is '1.0', not a version"),
        (
            "0.5.0-dev",
            "ociVersion: is '0.5.0-dev', read as if it were 1.0.0",
        ),
    ] {
        let b = Bundle::new().set("/ociVersion", json!(version));
        taken(&b.payload(&["true"]), warning);
    }
}

fn of_seccomp() {
    let profile = |rest: Value| {
        let mut profile = json!({"defaultAction": "SCMP_ACT_ALLOW"});
        profile
            .as_object_mut()
            .unwrap()
            .extend(rest.as_object().unwrap().clone());
        Bundle::new()
            .set("/linux/seccomp", profile)
            .payload(&["true"])
    };
    let b = profile(json!({"syscalls": [{"names": [], "action": "SCMP_ACT_ERRNO"}]}));
    taken(&b, "linux.seccomp.syscalls[0].names: names no system call");
    let b = profile(json!({"listenerMetadata": "words"}));
    taken(
        &b,
        "linux.seccomp.listenerMetadata: is for the agent at listenerPath",
    );
}

fn of_cgroups() {
    needs_cgroupfs();
    let base = format!("/{}", cgroup().display());
    for (path, taken_as, warning) in [
        (
            format!("{base}/a/../b"),
            format!("{base}/b"),
            "/a/../b', taken as '",
        ),
        (
            format!("/../..{base}/b"),
            format!("{base}/b"),
            "', taken as '",
        ),
        (
            "../b".into(),
            format!("{base}/b"),
            "is '../b', taken as '/b'",
        ),
        (
            "x.slice:y:z".into(),
            format!("{base}/x.slice:y:z"),
            "is 'x.slice:y:z', which looks like systemd's",
        ),
    ] {
        let b = Bundle::new()
            .set("/linux/cgroupsPath", json!(path))
            .without_namespace("cgroup")
            .without_mount("/sys/fs/cgroup")
            .payload(&["cat", "/proc/self/cgroup"]);
        let o = taken(&b, warning);
        assert_eq!(
            o.lines().last(),
            Some(&format!("0::{taken_as}").as_str()),
            "{path}"
        );
    }
}

/// In the bundle those are looked up that run where the runtime is.
fn of_hooks() {
    for kind in ["prestart", "createRuntime", "poststart", "poststop"] {
        let b = Bundle::new().payload(&["true"]);
        fs::write(b.dir.join("hook"), "#!/bin/sh\ntouch ran\n").unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(b.dir.join("hook"), mode).unwrap();
        let b = b.hook(kind, json!({"path": "hook", "timeout": 5_000_000_000u64}));
        let warning =
            format!("hooks.{kind}[0].path: 'hook' is relative; it is taken from the bundle");
        taken(&b, &warning);
        assert!(b.dir.join("ran").exists(), "{kind}");
    }
}

fn of_the_text() {
    let b = Bundle::new().payload(&["true"]);
    let c = b.container();
    let config = b.dir.join("config.json");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text + "\n{} and more").unwrap();
    let o = c.cmd("run", &[]).run().ok();
    if is_husk() {
        assert!(
            o.err.contains("what follows the JSON object is not read"),
            "{o}"
        );
    }
}

/// What README.md says of these: all that runc takes and husk does not.
fn refused_for_a_reason() {
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 10}]);
    let profile =
        |field: &str, value: Value| json!({"defaultAction": "SCMP_ACT_ALLOW", field: value});
    let kill = json!([{"names": ["mkdir"], "action": "SCMP_ACT_KILL", "errnoRet": 5}]);
    let old = json!([{"name": "mkdir", "action": "SCMP_ACT_ERRNO"}]);
    let two = json!([
        {"path": "/dev/x", "type": "c", "major": 1, "minor": 3},
        {"path": "/dev/x", "type": "c", "major": 1, "minor": 5},
    ]);
    for (pointer, value, words) in [
        ("/ociVersion", json!("2.0.0"), "use a 1.x config"),
        ("/linux/uidMappings", map, "there is no user namespace"),
        ("/linux/devices", two, "given twice, as two devices"),
        (
            "/linux/seccomp",
            profile("syscalls", kill),
            "which returns none",
        ),
        (
            "/linux/seccomp",
            profile("syscalls", old),
            "missing field `names`",
        ),
        (
            "/annotations",
            json!({"dev.husk.x": ""}),
            "is none of husk's annotations",
        ),
        ("/hostname", json!("a\u{0}b"), "holds a NUL character"),
    ] {
        let b = Bundle::new().set(pointer, value).payload(&["true"]);
        refused_by_husk(&b, words);
    }
    let b = Bundle::new().mount("/tmp", "bind", "", &["bind"]);
    refused_by_husk(&b.payload(&["true"]), "is required for a bind mount");
    let b = Bundle::new().file("/etc/thing", "", 0o644).push(
        "/linux/devices",
        json!({"path": "/etc/thing", "type": "c", "major": 1, "minor": 3}),
    );
    refused_by_husk(&b.payload(&["true"]), "exists as another file");
}

#[track_caller]
fn refused_by_husk(b: &Bundle, words: &str) {
    if is_husk() {
        b.refused(&[words]);
    } else {
        b.run().ok();
    }
}
