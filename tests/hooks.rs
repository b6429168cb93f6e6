//! Hooks: when, where, with what, and what their failure means.

use crate::payload::namespaces;
use crate::support::*;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Instant;

tests![
    order_and_state,
    several_of_a_kind_in_order,
    namespaces_and_root,
    working_directories,
    argv_and_env,
    env_of_start_container,
    mounts_by_create_container,
    timeout_ends_them,
    failing_ones_stop_the_create,
    failing_start_container,
    failing_poststart_kills,
    failing_poststop_only_warns,
    failing_second,
    failure_tells_the_output,
    missing_is_reported,
    relative_path_is_refused,
    descriptors_are_closed,
    signals_reach_them,
    not_for_exec,
];

const KINDS: [&str; 6] = [
    "prestart",
    "createRuntime",
    "createContainer",
    "startContainer",
    "poststart",
    "poststop",
];

/// A bundle whose hooks' log is at the same path on the host and in the container.
fn bundle() -> Bundle {
    fs::create_dir_all("hooks").unwrap();
    let log = dir().join("hooks");
    Bundle::new()
        .writable()
        .bind(&log, log.to_str().unwrap(), &[])
}

/// The payload as a hook that writes down what it sees, and then does what `rest` says.
fn hook(b: &Bundle, kind: &str, rest: &[&str]) -> Value {
    let payload = match kind {
        "startContainer" => "/bin/payload".into(),
        _ => b.rootfs().join("bin/payload"),
    };
    let log = dir().join("hooks/log");
    let mut args = vec!["payload", "hook", kind, log.to_str().unwrap()];
    args.extend(rest);
    json!({"path": payload, "args": args})
}

fn with_hook(b: Bundle, kind: &str, rest: &[&str]) -> Bundle {
    let h = hook(&b, kind, rest);
    b.hook(kind, h)
}

/// What the hooks wrote.
fn log() -> Vec<Value> {
    let text = fs::read_to_string("hooks/log").unwrap_or_default();
    text.lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect()
}

fn names() -> Vec<String> {
    log()
        .iter()
        .map(|l| l["hook"].as_str().unwrap().to_string())
        .collect()
}

fn order_and_state() {
    runc_fails("until 1.6 it runs poststart at create");
    let mut b = bundle().set("/annotations", json!({"key": "value"}));
    for kind in KINDS {
        b = with_hook(b, kind, &[]);
    }
    let c = b.create();
    let pid = c.pid();
    assert_eq!(names(), KINDS[..3]);
    c.start();
    c.wait_ready();
    assert_eq!(names(), KINDS[..5]);
    c.stop();
    let id = c.id.clone();
    c.delete();
    assert_eq!(names(), KINDS);
    let statuses = [
        "creating", "creating", "creating", "created", "running", "stopped",
    ];
    for (line, status) in log().iter().zip(statuses) {
        let state = &line["stdin"];
        assert_eq!(state["id"], json!(id), "{line}");
        assert_eq!(state["status"], status, "{line}");
        assert_eq!(state["bundle"], json!(b.dir), "{line}");
        assert_eq!(state["annotations"]["key"], "value", "{line}");
        assert!(state["ociVersion"].is_string(), "{line}");
        match line["hook"].as_str().unwrap() {
            "createContainer" | "startContainer" | "poststop" => {}
            _ => assert_eq!(state["pid"], json!(pid), "{line}"),
        }
    }
}

fn several_of_a_kind_in_order() {
    let mut b = bundle().payload(&["true"]);
    let h = |name: &str| {
        let mut h = hook(&b, "createRuntime", &[]);
        h["args"][2] = json!(name);
        h
    };
    let all = json!([h("1"), h("2"), h("3")]);
    b = b.set("/hooks/createRuntime", all);
    b.run().ok();
    assert_eq!(names(), ["1", "2", "3"]);
}

fn namespaces_and_root() {
    let mut b = bundle();
    for kind in KINDS {
        b = with_hook(b, kind, &[]);
    }
    let c = b.start();
    let ours = namespaces("/proc/self/ns").unwrap();
    let theirs = namespaces(&format!("/proc/{}/ns", c.pid())).unwrap();
    let root = fs::metadata("/").unwrap().ino();
    let rootfs = fs::metadata(b.rootfs()).unwrap().ino();
    drop(c);
    for line in log() {
        let inside =
            ["createContainer", "startContainer"].contains(&line["hook"].as_str().unwrap());
        let want = if inside { &theirs } else { &ours };
        for kind in ["mnt", "net", "uts", "ipc", "pid"] {
            assert_eq!(line["ns"][kind], want[kind], "{kind}: {line}");
        }
        let want = if line["hook"] == "startContainer" {
            rootfs
        } else {
            root
        };
        assert_eq!(
            line["root"],
            json!(want),
            "before or after pivot_root: {line}"
        );
    }
}

fn working_directories() {
    let mut b = bundle();
    for kind in ["createRuntime", "createContainer"] {
        b = with_hook(b, kind, &[]);
    }
    b.payload(&["true"]).run().ok();
    let cwd: Vec<Value> = log().iter().map(|l| l["cwd"].clone()).collect();
    assert_eq!(
        cwd,
        [
            json!(dir().join("bundle0")),
            json!(dir().join("bundle0/rootfs"))
        ]
    );
}

fn argv_and_env() {
    let b = bundle().payload(&["true"]);
    let mut h = hook(&b, "createRuntime", &[]);
    h["args"].as_array_mut().unwrap()[0] = json!("payload");
    h["args"]
        .as_array_mut()
        .unwrap()
        .extend([json!("echo"), json!(""), json!("a b")]);
    h["env"] = json!(["ONE=1", "TWO="]);
    let b = b.hook("createRuntime", h.clone());
    b.run().ok();
    assert_eq!(log()[0]["argv"], h["args"]);
    assert_eq!(log()[0]["env"], json!(["ONE=1", "TWO="]));
}

/// Without an environment of its own it has that of the container's process.
fn env_of_start_container() {
    let b = bundle()
        .payload(&["true"])
        .set("/process/env", json!(["A=b", "PATH=/bin"]));
    with_hook(b, "startContainer", &[]).run().ok();
    let mut env: Vec<String> = serde_json::from_value(log()[0]["env"].clone()).unwrap();
    env.sort();
    assert_eq!(env, ["A=b", "HOME=/root", "PATH=/bin"]);
}

/// What NVIDIA's hook is for: it mounts into the container before pivot_root.
fn mounts_by_create_container() {
    let b = bundle().mkdir("/lib").payload(&["statfs", "/lib"]);
    let b = with_hook(
        b,
        "createContainer",
        &["mount", "tmpfs", "lib", "tmpfs", "0"],
    );
    assert_eq!(b.run().ok().line(), "0x1021994", "TMPFS_MAGIC");
}

fn timeout_ends_them() {
    for kind in ["createRuntime", "createContainer", "startContainer"] {
        let b = bundle();
        let mut h = hook(&b, kind, &["sleep", "50"]);
        h["timeout"] = json!(1);
        let start = Instant::now();
        b.hook(kind, h).refused(&[kind, "hook #0"]);
        let took = start.elapsed().as_secs_f64();
        assert!((0.9..20.0).contains(&took), "{kind}: {took} s");
    }
}

fn failing_ones_stop_the_create() {
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let b = with_hook(bundle(), kind, &["exit", "3"]);
        let b = with_hook(b, "poststop", &[]).payload(&["echo", "never"]);
        let c = b.container();
        let o = c
            .cmd("create", &[])
            .run()
            .fails(1, &["error running", kind, "hook #0", "exit status 3"]);
        assert_eq!(o.out, "", "{o}");
        c.cmd0("state").run().fails(1, &["does not exist"]);
    }
}

fn failing_start_container() {
    let b = with_hook(bundle(), "startContainer", &["exit", "3"]).payload(&["echo", "never"]);
    let o = b.refused(&["startContainer", "hook #0"]);
    assert_eq!(o.out, "", "{o}");
}

fn failing_poststart_kills() {
    runc_fails("until 1.6 it runs them at create");
    let b = with_hook(bundle(), "poststart", &["exit", "3"]);
    let c = b.create();
    c.cmd0("start").run().fails(1, &["poststart", "hook #0"]);
    c.wait_status("stopped");
}

fn failing_poststop_only_warns() {
    runc_fails("its delete fails, and the next hook is not run");
    let b = with_hook(bundle(), "poststop", &["exit", "3"]);
    let b = with_hook(b, "poststop", &[]);
    let c = b.create();
    let o = c.cmd0("delete").run().ok();
    assert!(o.err.contains("poststop") && o.err.contains("warn"), "{o}");
    assert_eq!(
        names(),
        ["poststop", "poststop"],
        "the others run nevertheless"
    );
    c.cmd0("state").run().fails(1, &["does not exist"]);
    c.forget();
}

fn failing_second() {
    let b = with_hook(bundle(), "createRuntime", &[]);
    let b = with_hook(b, "createRuntime", &["false"]);
    let b = with_hook(b, "createRuntime", &[]);
    b.refused(&["createRuntime", "hook #1"]);
    assert_eq!(names().len(), 2, "the third is not run");
}

fn failure_tells_the_output() {
    let b = with_hook(
        bundle(),
        "createRuntime",
        &["echo-err", "because of this", ";", "false"],
    );
    b.refused(&["because of this"]);
}

fn missing_is_reported() {
    for kind in ["createRuntime", "createContainer", "startContainer"] {
        let b = bundle().hook(kind, json!({"path": "/no/where", "args": ["x"]}));
        b.refused(&["/no/where", "no such file or directory"]);
    }
}

fn relative_path_is_refused() {
    let b = bundle().hook("createContainer", json!({"path": "bin/true"}));
    b.refused(&["bin/true"]);
}

/// What is open in a runtime is not a hook's business: CVE-2024-21626 and its kin, by another door.
fn descriptors_are_closed() {
    for kind in KINDS {
        if kind == "createContainer" && !is_husk() {
            continue; // runc has a socket and the gate open there
        }
        let c = with_hook(bundle(), kind, &[])
            .payload(&["true"])
            .container();
        let mut cmd = c.cmd("run", &[]);
        keep_fds(
            cmd.command(),
            vec![(fs::File::open("/").unwrap().into(), 20)],
        );
        cmd.run().ok();
        let lines = log();
        let fds = lines.last().unwrap()["fds"].as_object().unwrap();
        assert_eq!(fds.len(), 3, "{kind}: {fds:?}");
    }
}

/// `run` blocks signals for itself, to pass them on.
fn signals_reach_them() {
    let mut b = bundle().payload(&["true"]);
    for kind in KINDS {
        b = with_hook(b, kind, &[]);
    }
    b.run().ok();
    for line in log() {
        assert_eq!(line["status"]["SigBlk"], "0000000000000000", "{line}");
    }
}

fn not_for_exec() {
    let mut b = bundle();
    for kind in KINDS {
        b = with_hook(b, kind, &[]);
    }
    let c = b.start();
    let before = names().len();
    c.exec(&[], &["true"]).ok();
    assert_eq!(names().len(), before);
}
