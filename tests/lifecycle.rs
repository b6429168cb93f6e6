//! create, start, state, kill, delete, run, list, ps, pause, resume: the life of a container.

use crate::support::process::{has_ended, wait_exit};
use crate::support::*;
use std::fs;
use std::path::Path;

tests![
    run_gives_output_and_exit_code,
    run_exit_code_of_a_signal,
    run_passes_stdin,
    run_deletes_afterwards,
    run_keep,
    run_detached,
    run_forwards_signals,
    create_start_delete,
    create_does_not_start,
    create_claims_the_id,
    create_pid_file,
    create_pid_file_in_missing_directory,
    create_pid_file_onto_a_directory,
    create_without_bundle_uses_the_working_directory,
    create_open_files,
    created_init_dies_of_sigterm,
    create_with_preserved_descriptors,
    start_twice,
    start_stopped,
    start_unknown,
    start_reports_missing_executable,
    state_fields,
    state_of_each_status,
    state_unknown,
    state_survives_killed_init,
    ids_good,
    ids_bad,
    kill_by_name_and_number,
    kill_default_is_term,
    kill_unknown_signal,
    kill_stopped,
    kill_all_without_pid_namespace,
    kill_all_in_a_joined_pid_namespace,
    kill_all_in_nested_cgroups,
    delete_created,
    delete_running_is_refused,
    delete_force_running,
    delete_force_unknown,
    delete_unknown,
    delete_twice,
    delete_force_paused,
    list_formats,
    list_empty,
    ps_formats,
    pause_and_resume,
    pause_holds_nested_cgroups,
    ps_of_nested_cgroups,
    ps_of_a_threaded_cgroup,
    pause_needs_a_running_container,
    exit_code_of_a_detached_container,
    annotations_are_in_the_state,
    bundle_is_not_needed_after_create,
    options_after_the_id,
    concurrent_creates_of_one_id,
    concurrent_lives,
    list_while_others_come_and_go,
    recycled_pid_is_somebody_else,
];

fn run_gives_output_and_exit_code() {
    let verbs = ["echo", "hello", ";", "echo-err", "oops", ";", "exit", "42"];
    let o = Bundle::new().payload(&verbs).run().exits(42);
    assert_eq!(o.out, "hello\n");
    assert_eq!(o.err, "oops\n", "the runtime itself has nothing to say");
}

fn run_exit_code_of_a_signal() {
    // a signal sent from inside does nothing to process 1 of a pid namespace, unless it has a handler
    let b = Bundle::new()
        .without_namespace("pid")
        .payload(&["signal", "TERM"]);
    b.run().exits(128 + 15);
}

fn run_passes_stdin() {
    fs::write("input", "some words\n").unwrap();
    let c = Bundle::new().payload(&["cat-stdin"]).container();
    let o = c
        .cmd("run", &[])
        .stdin(fs::File::open("input").unwrap())
        .run()
        .ok();
    assert_eq!(o.out, "some words\n");
}

fn run_deletes_afterwards() {
    let c = Bundle::new().payload(&["true"]).container();
    c.cmd("run", &[]).run().ok();
    c.cmd0("state").run().fails(1, &["does not exist"]);
    assert!(!c.cgroup_dir().exists());
}

fn run_keep() {
    let mut c = Bundle::new().payload(&["exit", "3"]).container();
    let cmd = c.cmd("run", &["--keep"]);
    c.creates(cmd).exits(3);
    assert_eq!(c.status(), "stopped");
    assert!(c.cgroup_dir().exists(), "its cgroup is kept for a look");
    let gone = c.cgroup_dir();
    c.delete();
    assert!(!gone.exists());
}

fn run_detached() {
    let mut c = Bundle::new().container();
    c.run_detached(&["--pid-file", "pid"]);
    c.wait_ready();
    assert_eq!(c.status(), "running");
    assert_eq!(fs::read_to_string("pid").unwrap(), c.pid().to_string());
    assert_eq!(c.stop(), 0);
    assert_eq!(c.out(), "ready\nsignal SIGTERM\n");
    c.delete();
}

fn run_forwards_signals() {
    let c = Bundle::new().container();
    let run = c.cmd("run", &[]).spawn();
    wait_until("the payload is ready", || run.out() == "ready\n");
    run.kill(nix::sys::signal::Signal::SIGUSR1);
    wait_until("SIGUSR1 arrives", || run.out().contains("signal SIGUSR1\n"));
    run.kill(nix::sys::signal::Signal::SIGTERM);
    run.wait().ok().says("signal SIGTERM\n");
}

fn create_start_delete() {
    let c = Bundle::new().payload(&["echo", "hi"]).create();
    let pid = c.pid();
    c.start();
    assert_eq!(wait_exit(pid), 0);
    assert_eq!(c.status(), "stopped");
    assert_eq!(c.out(), "hi\n");
    let id = c.id.clone();
    c.delete();
    Cmd::runtime()
        .args(["state", &id])
        .run()
        .fails(1, &["does not exist"]);
}

fn create_does_not_start() {
    let c = Bundle::new().payload(&["echo", "started"]).create();
    assert_eq!(c.status(), "created");
    let exe = fs::read_link(format!("/proc/{}/exe", c.pid())).unwrap();
    assert!(!exe.ends_with("payload"), "{}", exe.display());
    assert_eq!(c.out(), "");
}

fn create_claims_the_id() {
    let b = Bundle::new();
    let c = b.create();
    let pid = c.pid();
    c.cmd("create", &[]).run().fails(1, &["exist"]);
    c.cmd("run", &[]).run().fails(1, &["exist"]);
    assert_eq!(
        (c.status().as_str(), c.pid()),
        ("created", pid),
        "the first one is untouched"
    );
}

fn create_pid_file() {
    let b = Bundle::new();
    let mut c = b.container();
    // relative to the caller's directory, not to the bundle
    c.create(&["--pid-file", "pid.txt"]);
    let text = fs::read_to_string("pid.txt").unwrap();
    assert_eq!(
        text,
        c.pid().to_string(),
        "no newline: callers parse it as it is"
    );
}

fn create_pid_file_in_missing_directory() {
    let c = Bundle::new().container();
    let options = ["--pid-file", "nowhere/pid"];
    c.cmd("create", &options)
        .run()
        .fails(1, &["nowhere/", "no such file or directory"]);
    c.cmd0("state").run().fails(1, &["does not exist"]);
}

fn create_pid_file_onto_a_directory() {
    runc_fails("it leaves its half-written file");
    fs::create_dir_all("run/dir").unwrap();
    let c = Bundle::new().container();
    c.cmd("create", &["--pid-file", "run/dir"])
        .run()
        .fails(1, &["run/dir", "directory"]);
    let left: Vec<_> = fs::read_dir("run")
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(left, ["dir"]);
    c.cmd0("state").run().fails(1, &["does not exist"]);
}

fn create_without_bundle_uses_the_working_directory() {
    let b = Bundle::new().payload(&["echo", "here"]);
    let c = b.container();
    let cmd = Cmd::runtime().arg("run").arg(&c.id).cwd(&b.dir);
    cmd.run().ok().says("here\n");
}

/// CVE-2024-21626: nothing of the host may stay open in the container.
fn create_open_files() {
    let verbs = ["fds", ";", "wait"];
    let c = Bundle::new().payload(&verbs).start();
    let line = c.out().lines().next().unwrap().to_string();
    let fds: Value = serde_json::from_str(&line).unwrap();
    let names: Vec<&String> = fds.as_object().unwrap().keys().collect();
    assert_eq!(names, ["0", "1", "2"], "{fds}");
    let fds: Value = c.exec(&[], &["fds"]).ok().json();
    assert_eq!(fds.as_object().unwrap().len(), 3, "{fds}");
}

/// Who holds a pidfd of a created container wants to end it so; process 1 of a pid namespace ignores SIGTERM by default.
fn created_init_dies_of_sigterm() {
    let c = Bundle::new().create();
    let pid = c.pid();
    c.kill("TERM").ok();
    wait_until("the init dies", || has_ended(pid));
    assert_eq!(c.status(), "stopped");
}

fn create_with_preserved_descriptors() {
    fs::write("three", "number three").unwrap();
    let b = Bundle::new().payload(&["read-fd", "3", ";", "fds"]);
    let c = b.container();
    let three = fs::File::open("three").unwrap();
    let mut cmd = c.cmd("run", &["--preserve-fds", "1"]);
    keep_fds(cmd.command(), vec![(three.into(), 3)]);
    let o = cmd.run().ok();
    assert_eq!(o.lines()[0], "number three");
    let fds: Value = serde_json::from_str(o.lines()[1]).unwrap();
    assert_eq!(fds.as_object().unwrap().len(), 4, "{fds}");
}

fn start_twice() {
    let c = Bundle::new().start();
    c.cmd0("start").run().fails(1, &["running"]);
    assert_eq!(c.status(), "running");
}

fn start_stopped() {
    let c = Bundle::new().start();
    c.stop();
    c.cmd0("start").run().fails(1, &["stopped"]);
}

fn start_unknown() {
    Cmd::runtime()
        .args(["start", "nobody"])
        .run()
        .fails(1, &["container", "does not exist"]);
}

/// By `create` or by `start`, but never by silence. Docker makes 127 of this text.
fn start_reports_missing_executable() {
    let mut c = Bundle::new()
        .set("/process/args", json!(["/bin/nothing"]))
        .container();
    let cmd = c.cmd("create", &[]);
    let created = c.creates(cmd);
    let failed = match created.code {
        0 => c.cmd0("start").run(),
        _ => created,
    };
    failed.fails(1, &["/bin/nothing", "no such file or directory"]);
}

fn state_fields() {
    let b = Bundle::new();
    let c = b.create();
    let s = c.state();
    assert_eq!(s["id"], json!(c.id));
    assert_eq!(s["bundle"], json!(b.dir));
    assert_eq!(s["rootfs"], json!(b.rootfs()));
    assert_eq!(s["status"], "created");
    assert!(s["ociVersion"].as_str().unwrap().starts_with("1."), "{s}");
    assert!(Path::new(&format!("/proc/{}", s["pid"])).exists(), "{s}");
    let created = s["created"].as_str().unwrap();
    assert!(
        created.starts_with("20") && created.ends_with('Z') && created.contains('T'),
        "RFC 3339: {s}"
    );
}

fn state_of_each_status() {
    let c = Bundle::new().create();
    assert_eq!(c.status(), "created");
    c.start();
    assert_eq!(c.status(), "running");
    c.wait_ready();
    c.cmd0("pause").run().ok();
    assert_eq!(c.status(), "paused");
    c.cmd0("resume").run().ok();
    assert_eq!(c.status(), "running");
    c.stop();
    let s = c.state();
    assert_eq!((&s["status"], &s["pid"]), (&json!("stopped"), &json!(0)));
}

fn state_unknown() {
    Cmd::runtime()
        .args(["state", "nobody"])
        .run()
        .fails(1, &["container", "does not exist"]);
}

/// A container whose init was killed behind the runtime's back is stopped and can be deleted.
fn state_survives_killed_init() {
    let c = Bundle::new().start();
    let pid = c.pid();
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(pid),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    assert_eq!(wait_exit(pid), 128 + 9);
    assert_eq!(c.status(), "stopped");
    c.delete();
}

fn ids_good() {
    let b = Bundle::new().payload(&["true"]);
    b.save();
    for id in ["a", "A-b_c.d+9", "0", &"x".repeat(200)] {
        let run = ["run", "--bundle"];
        Cmd::runtime().args(run).arg(&b.dir).arg(id).run().ok();
    }
}

fn ids_bad() {
    let b = Bundle::new().payload(&["true"]);
    b.save();
    for id in ["", "..", ".", "../x", "a/b", "a b", "ä", "a\n", "/a", "-"] {
        let run = ["run", "--bundle"];
        let o = Cmd::runtime().args(run).arg(&b.dir).arg("--").arg(id).run();
        if id == "-" {
            // allowed by the rule; runc takes it
            o.ok();
            continue;
        }
        o.fails(1, &["id"]);
    }
}

fn kill_by_name_and_number() {
    let c = Bundle::new().start();
    for (signal, printed) in [
        ("USR1", "SIGUSR1"),
        ("SIGUSR2", "SIGUSR2"),
        ("1", "SIGHUP"),
        ("winch", "SIGWINCH"),
    ] {
        c.kill(signal).ok();
        wait_until(printed, || c.out().contains(&format!("signal {printed}\n")));
    }
}

fn kill_default_is_term() {
    let c = Bundle::new().start();
    let pid = c.pid();
    c.cmd0("kill").run().ok();
    assert_eq!(wait_exit(pid), 0);
    assert!(c.out().ends_with("signal SIGTERM\n"), "{}", c.out());
}

fn kill_unknown_signal() {
    let c = Bundle::new().start();
    for signal in ["NOTHING", "SIG", "1x"] {
        c.kill(signal).fails(1, &["unknown signal"]);
    }
    assert_eq!(c.status(), "running");
}

fn kill_stopped() {
    let c = Bundle::new().start();
    c.stop();
    c.kill("TERM").fails(1, &["not running"]);
    c.kill("KILL").fails(1, &["not running"]);
}

/// Without a pid namespace the end of init ends nobody else: the cgroup does.
fn kill_all_without_pid_namespace() {
    let verbs = ["spawn", "wait", ";", "spawn", "wait", ";", "wait"];
    let c = Bundle::new()
        .without_namespace("pid")
        .payload(&verbs)
        .start();
    wait_until("three processes", || {
        c.out().matches("ready").count() == 3 && c.cgroup_file("cgroup.procs").lines().count() == 3
    });
    c.kill("KILL").ok();
    wait_until("all are gone", || c.cgroup_file("cgroup.procs").is_empty());
    c.wait_status("stopped");
    c.delete();
}

/// As in a pod that shares one: the namespace, and so its other processes, outlive the container's first.
fn kill_all_in_a_joined_pid_namespace() {
    let pod = Bundle::new().start();
    let c = Bundle::new()
        .namespace("pid", Some(&format!("/proc/{}/ns/pid", pod.pid())))
        .payload(&["spawn", "wait", ";", "wait"])
        .start();
    wait_until("two processes", || c.out().matches("ready").count() == 2);
    c.kill("KILL").ok();
    wait_until("both are gone", || c.cgroup_file("cgroup.procs").is_empty());
    c.wait_status("stopped");
    c.delete();
    assert_eq!(pod.status(), "running");
}

/// A container without a pid namespace, with processes two cgroups down.
fn nested(b: Bundle) -> Container {
    let c = b.start();
    fs::create_dir_all(c.cgroup_dir().join("one/two")).unwrap();
    for sub in ["one", "one/two"] {
        c.exec(&["--detach", "--cgroup", sub], &["wait"]).ok();
        wait_until("a process is in there", || {
            !c.cgroup_file(&format!("{sub}/cgroup.procs")).is_empty()
        });
    }
    c
}

fn kill_all_in_nested_cgroups() {
    let c = nested(Bundle::new().without_namespace("pid"));
    c.kill("KILL").ok();
    for sub in ["", "one/", "one/two/"] {
        wait_until("all are gone", || {
            c.cgroup_file(&format!("{sub}cgroup.procs")).is_empty()
        });
    }
    c.wait_status("stopped");
    let dir = c.cgroup_dir();
    c.delete();
    assert!(!dir.exists());
}

fn pause_holds_nested_cgroups() {
    let c = nested(Bundle::new());
    c.cmd0("pause").run().ok();
    for sub in ["", "one/", "one/two/"] {
        let events = c.cgroup_file(&format!("{sub}cgroup.events"));
        assert!(events.contains("frozen 1"), "{sub}: {events}");
    }
    // one that froze itself stays so
    fs::write(c.cgroup_dir().join("one/two/cgroup.freeze"), "1").unwrap();
    c.cmd0("resume").run().ok();
    wait_until("the first goes on", || {
        c.cgroup_file("one/cgroup.events").contains("frozen 0")
    });
    assert!(c.cgroup_file("one/two/cgroup.events").contains("frozen 1"));
    assert_eq!(c.status(), "running");
    // what is frozen is killed all the same
    Cmd::runtime().args(["delete", "--force", &c.id]).run().ok();
    assert!(!c.cgroup_dir().exists());
    c.forget();
}

fn ps_pids(c: &Container) -> Vec<i32> {
    let o = Cmd::runtime()
        .args(["ps", "--format", "json", &c.id])
        .run()
        .ok();
    let mut pids: Vec<i32> = serde_json::from_value(o.json()).unwrap();
    pids.sort();
    pids
}

fn ps_of_nested_cgroups() {
    let c = nested(Bundle::new());
    let all = ["", "one/", "one/two/"].map(|sub| c.cgroup_file(&format!("{sub}cgroup.procs")));
    let mut want: Vec<i32> = all.iter().map(|pid| pid.parse().unwrap()).collect();
    want.sort();
    assert_eq!(ps_pids(&c), want);
}

/// The kernel lists the processes of a threaded subtree at its root, and only threads below.
fn ps_of_a_threaded_cgroup() {
    runc_fails("it takes threads for processes");
    let c = Bundle::new().start();
    let sub = c.cgroup_dir().join("threads");
    fs::create_dir(&sub).unwrap();
    fs::write(sub.join("cgroup.type"), "threaded").unwrap();
    let pid = c.pid();
    fs::write(sub.join("cgroup.threads"), pid.to_string()).unwrap();
    assert!(!c.cgroup_file("threads/cgroup.threads").is_empty());
    assert_eq!(ps_pids(&c), [pid]);
}

fn delete_created() {
    let c = Bundle::new().create();
    c.delete();
}

fn delete_running_is_refused() {
    let c = Bundle::new().start();
    c.cmd0("delete").run().fails(1, &["running"]);
    assert_eq!(c.status(), "running");
}

fn delete_force_running() {
    let c = Bundle::new()
        .payload(&["spawn", "wait", ";", "wait"])
        .start();
    Cmd::runtime().args(["delete", "--force", &c.id]).run().ok();
    c.cmd0("state").run().fails(1, &["does not exist"]);
    assert!(!c.cgroup_dir().exists());
    c.forget();
}

fn delete_force_unknown() {
    Cmd::runtime()
        .args(["delete", "--force", "nobody"])
        .run()
        .ok();
}

fn delete_unknown() {
    Cmd::runtime()
        .args(["delete", "nobody"])
        .run()
        .fails(1, &["does not exist"]);
}

fn delete_twice() {
    let c = Bundle::new().create();
    c.cmd0("delete").run().ok();
    c.cmd0("delete").run().fails(1, &["does not exist"]);
    c.forget();
}

fn delete_force_paused() {
    let c = Bundle::new().start();
    c.cmd0("pause").run().ok();
    Cmd::runtime().args(["delete", "--force", &c.id]).run().ok();
    c.cmd0("state").run().fails(1, &["does not exist"]);
    c.forget();
}

fn list_formats() {
    let b = Bundle::new();
    let one = b.create();
    let two = b.start();
    let table = Cmd::runtime().arg("list").run().ok();
    let lines: Vec<Vec<&str>> = table
        .lines()
        .iter()
        .map(|l| l.split_whitespace().collect())
        .collect();
    assert_eq!(
        lines[0],
        ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]
    );
    let dir = b.dir.to_str().unwrap();
    for (c, status) in [(&one, "created"), (&two, "running")] {
        let line = lines.iter().find(|l| l[0] == c.id).expect("a line");
        assert_eq!(line[1..4], [&c.pid().to_string(), status, dir]);
        assert_eq!(line[5], "root");
    }
    assert_eq!(lines.len(), 3, "{table}");

    let quiet = Cmd::runtime().args(["list", "--quiet"]).run().ok();
    let mut ids = vec![one.id.as_str(), two.id.as_str()];
    ids.sort();
    assert_eq!(quiet.lines(), ids);

    let json = Cmd::runtime().args(["list", "--format", "json"]).run().ok();
    json.line();
    let all = json.json();
    assert_eq!(all.as_array().unwrap().len(), 2);
    let first = all
        .as_array()
        .unwrap()
        .iter()
        .find(|c| c["id"] == json!(one.id))
        .unwrap();
    let mut state = one.state();
    state.as_object_mut().unwrap().remove("annotations");
    let mut listed = first.clone();
    // runc fills it in for the list only
    listed["owner"] = state["owner"].clone();
    listed.as_object_mut().unwrap().remove("annotations");
    assert_eq!(listed, state, "`list` and `state` say the same");

    Cmd::runtime()
        .args(["list", "--format", "xml"])
        .run()
        .fails(1, &["format"]);
}

fn list_empty() {
    let o = Cmd::runtime().arg("list").run().ok();
    assert_eq!(o.lines().len(), 1, "{o}");
    let o = Cmd::runtime().args(["list", "--format", "json"]).run().ok();
    assert_eq!(o.line(), "null", "as runc: its users parse that");
    let o = Cmd::runtime().args(["list", "-q"]).run().ok();
    assert_eq!(o.out, "");
}

fn ps_formats() {
    let c = Bundle::new()
        .payload(&["spawn", "wait", ";", "wait"])
        .start();
    wait_until("two processes", || c.out().matches("ready").count() == 2);
    let json = Cmd::runtime()
        .args(["ps", "--format", "json", &c.id])
        .run()
        .ok();
    let pids: Vec<i32> = serde_json::from_value(json.json()).unwrap();
    assert_eq!(pids.len(), 2);
    assert!(pids.contains(&c.pid()), "{pids:?}");

    let table = c.cmd0("ps").run().ok();
    assert!(table.lines()[0].starts_with("UID "), "{table}");
    assert_eq!(table.lines().len(), 3, "{table}");
    assert_eq!(
        table.out.matches("payload spawn wait").count(),
        2,
        "{table}"
    );

    // more arguments go to ps(1) as they are
    let table = c.cmd0("ps").args(["-o", "pid,comm"]).run().ok();
    assert_eq!(
        table.lines()[0].split_whitespace().collect::<Vec<_>>(),
        ["PID", "COMMAND"]
    );
    assert_eq!(table.lines().len(), 3, "{table}");
}

fn pause_and_resume() {
    let c = Bundle::new().start();
    c.cmd0("pause").run().ok();
    assert_eq!(c.cgroup_file("cgroup.freeze"), "1");
    assert!(c.cgroup_file("cgroup.events").contains("frozen 1"));
    c.kill("USR1").ok();
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert_eq!(c.out(), "ready\n", "a frozen process handles no signal");
    c.cmd0("resume").run().ok();
    wait_until("the signal arrives", || c.out().contains("signal SIGUSR1"));
    assert_eq!(c.status(), "running");
}

fn pause_needs_a_running_container() {
    Cmd::runtime()
        .args(["pause", "nobody"])
        .run()
        .fails(1, &["does not exist"]);
    let c = Bundle::new().start();
    c.cmd0("resume").run().fails(1, &["not paused"]);
    c.stop();
    c.cmd0("pause").run().fails(1, &["not running"]);
}

/// Whoever is the subreaper gets the container's process as its child, and with it the exit code.
fn exit_code_of_a_detached_container() {
    fs::create_dir("go").unwrap();
    let b = Bundle::new()
        .mkdir("/go")
        .bind(dir().join("go"), "/go", &["ro"]);
    let mut c = b
        .payload(&["wait-for", "/go/on", ";", "exit", "7"])
        .container();
    c.run_detached(&[]);
    let pid = c.pid();
    fs::write("go/on", "").unwrap();
    assert_eq!(wait_exit(pid), 7);
}

fn annotations_are_in_the_state() {
    let b = Bundle::new().set(
        "/annotations",
        json!({"org.example.key": "some value", "b": ""}),
    );
    let c = b.create();
    assert_eq!(c.state()["annotations"]["org.example.key"], "some value");
    assert_eq!(c.state()["annotations"]["b"], "");
}

/// Engines may rewrite or remove config.json once the container is there.
fn bundle_is_not_needed_after_create() {
    runc_fails("its exec reads the config.json of the bundle again");
    let b = Bundle::new();
    let c = b.create();
    fs::write(b.dir.join("config.json"), "{}").unwrap();
    c.start();
    c.wait_ready();
    assert_eq!(c.exec(&[], &["echo", "fine"]).ok().line(), "fine");
    fs::remove_file(b.dir.join("config.json")).unwrap();
    assert_eq!(c.status(), "running");
    c.stop();
    c.delete();
}

/// runc's users write `delete ID -f` and `kill ID TERM --all`.
fn options_after_the_id() {
    let c = Bundle::new().start();
    Cmd::runtime().args(["delete", &c.id, "-f"]).run().ok();
    c.forget();
}

fn concurrent_creates_of_one_id() {
    let b = Bundle::new();
    let mut c = b.container();
    let all: Vec<_> = (0..6).map(|_| c.cmd("create", &[]).spawn()).collect();
    let outputs: Vec<Output> = all.into_iter().map(|r| r.wait()).collect();
    let (good, bad): (Vec<_>, Vec<_>) = outputs.into_iter().partition(|o| o.code == 0);
    assert_eq!(good.len(), 1, "one of them wins: {bad:?}");
    for o in bad {
        o.fails(1, &["exist"]);
    }
    let cmd = c.cmd0("start");
    c.creates(cmd).ok();
    assert_eq!(c.status(), "running");
}

/// Others come and go while it reads the state directory.
fn list_while_others_come_and_go() {
    let b = Bundle::new().payload(&["true"]);
    let runs: Vec<_> = (0..6)
        .map(|_| b.container().cmd("run", &[]).spawn())
        .collect();
    while !runs.iter().all(|r| r.ended()) {
        Cmd::runtime().args(["list", "-q"]).run().ok();
    }
    for run in runs {
        run.wait().ok();
    }
}

fn concurrent_lives() {
    let b = Bundle::new().payload(&["echo", "done"]);
    let all: Vec<_> = (0..8)
        .map(|_| b.container().cmd("run", &[]).spawn())
        .collect();
    for run in all {
        run.wait().ok().says("done\n");
    }
}

/// The container's process is known by its start time too: its number may be another process's by now.
fn recycled_pid_is_somebody_else() {
    let c = Bundle::new().start();
    let pid = c.pid();
    c.stop();
    let other = Cmd::new(process::payload()).arg("wait").spawn();
    wait_until("the other process is there", || other.out() == "ready\n");
    let file = dir().join("state").join(&c.id).join("state.json");
    let mut state: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let fields = state.as_object_mut().unwrap().values_mut();
    let mut changed = 0;
    for field in fields.filter(|f| **f == json!(pid)) {
        *field = json!(other.pid);
        changed += 1;
    }
    assert_eq!(changed, 1, "{state}");
    fs::write(&file, state.to_string()).unwrap();
    assert_eq!(c.status(), "stopped");
    c.kill("KILL").fails(1, &["not running"]);
    Cmd::runtime().args(["delete", "--force", &c.id]).run().ok();
    c.forget();
    assert!(!other.ended(), "delete has killed somebody else");
    other.kill(nix::sys::signal::Signal::SIGTERM);
    other.wait().ok();
}
