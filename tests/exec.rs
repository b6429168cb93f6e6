//! exec: another process in a running container.

use crate::support::process::wait_exit;
use crate::support::*;
use std::fs;

tests![
    exit_code_of_the_process,
    exit_code_of_a_signal,
    own_failure_is_255,
    executable_missing,
    stdin_and_output,
    defaults_come_from_the_config,
    env,
    cwd,
    user,
    user_out_of_range,
    user_home,
    additional_groups,
    capabilities,
    capabilities_never_inheritable,
    no_new_privileges,
    process_file,
    process_file_umask,
    process_file_broken,
    process_file_is_read_once,
    detach,
    pid_file,
    preserved_descriptors,
    in_created_container,
    in_stopped_container,
    in_paused_container,
    ignore_paused,
    in_sub_cgroup,
    sub_cgroup_must_exist,
    sub_cgroup_stays_below,
    is_in_the_cgroup,
    options_end_at_the_id,
    cpu_affinity,
    scheduler_and_io_priority,
    failing_leaves_the_container_alone,
    many_at_once,
    terminal_setting_of_the_config_is_not_taken,
    orphans_stay_in_the_container,
];

fn exit_code_of_the_process() {
    let c = Bundle::new().start();
    for code in [0, 1, 42, 126, 254] {
        c.exec(&[], &["exit", &code.to_string()]).exits(code);
    }
}

fn exit_code_of_a_signal() {
    let c = Bundle::new().start();
    c.exec(&[], &["signal", "KILL"]).exits(128 + 9);
    c.exec(&[], &["signal", "TERM"]).exits(128 + 15);
}

fn own_failure_is_255() {
    Cmd::runtime()
        .args(["exec", "nobody", "true"])
        .run()
        .fails(255, &["container", "does not exist"]);
    let c = Bundle::new().start();
    c.exec(&["--pid-file", "nowhere/pid"], &["true"])
        .fails(255, &["nowhere", "no such file or directory"]);
    c.exec(&["--cwd", "relative"], &["true"])
        .fails(255, &["cwd", "absolute"]);
    c.cmd0("exec")
        .run()
        .fails(255, &[if is_husk() { "no command" } else { "args" }]);
    assert_eq!(c.status(), "running");
}

fn executable_missing() {
    let c = Bundle::new().start();
    c.cmd0("exec")
        .arg("nothing")
        .run()
        .fails(255, &["nothing", "executable file not found in $PATH"]);
    c.cmd0("exec")
        .arg("/bin/nothing")
        .run()
        .fails(255, &["/bin/nothing", "no such file or directory"]);
    c.cmd0("exec")
        .arg("/etc/passwd")
        .run()
        .fails(255, &["/etc/passwd", "permission denied"]);
}

fn stdin_and_output() {
    let c = Bundle::new().start();
    fs::write("input", "words\n").unwrap();
    let verbs = ["cat-stdin", ";", "echo-err", "oops"];
    let o = c
        .exec_cmd(&[], &verbs)
        .stdin(fs::File::open("input").unwrap())
        .run()
        .ok();
    assert_eq!((o.out.as_str(), o.err.as_str()), ("words\n", "oops\n"));
}

fn defaults_come_from_the_config() {
    let c = Bundle::new()
        .mkdir("/work")
        .set(
            "/process/user",
            json!({"uid": 1000, "gid": 1000, "additionalGids": [50], "umask": 0o27}),
        )
        .set("/process/cwd", json!("/work"))
        .set("/process/env", json!(["PATH=/bin", "A=b"]))
        .set(
            "/process/rlimits",
            json!([{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}]),
        )
        .set("/process/oomScoreAdj", json!(99))
        .start();
    let verbs = [
        "ids",
        ";",
        "env",
        ";",
        "rlimits",
        ";",
        "cwd",
        ";",
        "cat",
        "/proc/self/oom_score_adj",
    ];
    let o = c.exec(&[], &verbs).ok();
    let json: Vec<Value> = o.lines()[..3]
        .iter()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert_eq!(
        json[0],
        json!({"uid": [1000, 1000, 1000], "gid": [1000, 1000, 1000], "groups": [50], "umask": "0027"})
    );
    assert_eq!(json[1], json!(["PATH=/bin", "A=b", "HOME=/home/user"]));
    assert_eq!(json[2]["RLIMIT_NOFILE"], json!([100, 200]));
    assert_eq!(&o.lines()[3..], ["/work", "99"]);
}

fn env() {
    let c = Bundle::new()
        .set("/process/env", json!(["PATH=/bin", "A=1"]))
        .start();
    let o = c.exec(&["--env", "A=2", "--env", "B=3"], &["env"]).ok();
    let mut env: Vec<String> = serde_json::from_value(o.json()).unwrap();
    env.sort();
    assert_eq!(env, ["A=2", "B=3", "HOME=/root", "PATH=/bin"]);
}

fn cwd() {
    let c = Bundle::new().start();
    c.exec(&["--cwd", "/etc"], &["cwd"]).ok().says("/etc\n");
    c.exec(&["--cwd", "/etc/passwd"], &["cwd"])
        .fails(255, &["/etc/passwd", "not a directory"]);
}

fn user() {
    let c = Bundle::new()
        .set("/process/user", json!({"uid": 7, "gid": 8}))
        .start();
    let ids = |user: &str| c.exec(&["--user", user], &["ids"]).ok().json();
    assert_eq!(ids("1000:50")["uid"], json!([1000, 1000, 1000]));
    assert_eq!(ids("1000:50")["gid"], json!([50, 50, 50]));
    // CVE-2026-30892: a uid alone is that uid, and not root
    assert_eq!(ids("1")["uid"], json!([1, 1, 1]));
    for bad in ["x", "1:", ":1", "1:2:3", "-1", "1 "] {
        let o = c.exec(&["--user", bad], &["ids"]);
        assert_ne!(o.code, 0, "{bad:?}: {o}");
    }
}

/// 4294967295 is what setuid(2) takes for "as it is"; one more must not come out as root.
fn user_out_of_range() {
    runc_fails("4294967296 is root for it");
    let c = Bundle::new().start();
    for bad in ["4294967295", "4294967296", "0:4294967295", "0:4294967296"] {
        c.exec(&["--user", bad], &["ids"]).fails(255, &["user"]);
    }
}

fn user_home() {
    let c = Bundle::new().set("/process/env", json!([])).start();
    for (user, home) in [
        ("1000:1000", "HOME=/home/user"),
        ("4711", "HOME=/"),
        ("0", "HOME=/root"),
    ] {
        let env = c.exec(&["--user", user], &["env"]).ok().json();
        assert_eq!(env, json!([home]), "{user}");
    }
}

fn additional_groups() {
    let c = Bundle::new().start();
    let options = ["--user", "1000:1000", "-g", "100", "-g", "65534"];
    let ids = c.exec(&options, &["ids"]).ok().json();
    assert_eq!(ids["groups"], json!([100, 65534]));
}

fn set(status: &Value, name: &str) -> u64 {
    u64::from_str_radix(status[name].as_str().unwrap(), 16).unwrap()
}

const CHOWN: u64 = 1;
const KILL: u64 = 1 << 5;

fn capabilities() {
    let c = Bundle::new()
        .capabilities(&["bounding", "effective", "permitted"], &["CAP_KILL"])
        .start();
    let plain = c.exec(&[], &["status"]).ok().json();
    assert_eq!((set(&plain, "CapBnd"), set(&plain, "CapEff")), (KILL, KILL));
    let more = c.exec(&["--cap", "CAP_CHOWN"], &["status"]).ok().json();
    for name in ["CapBnd", "CapEff", "CapPrm"] {
        assert_eq!(set(&more, name), KILL | CHOWN, "{name}");
    }
}

/// CVE-2022-29162 of runc, CVE-2022-27650 of crun.
fn capabilities_never_inheritable() {
    let c = Bundle::new().start();
    for user in ["0", "1000"] {
        let status = c
            .exec(&["--user", user, "--cap", "CAP_CHOWN"], &["status"])
            .ok()
            .json();
        assert_eq!(
            (set(&status, "CapInh"), set(&status, "CapAmb")),
            (0, 0),
            "user {user}"
        );
    }
}

fn no_new_privileges() {
    let c = Bundle::new()
        .set("/process/noNewPrivileges", json!(false))
        .start();
    assert_eq!(c.exec(&[], &["status"]).ok().json()["NoNewPrivs"], "0");
    assert_eq!(
        c.exec(&["--no-new-privs"], &["status"]).ok().json()["NoNewPrivs"],
        "1"
    );
}

fn exec_process(c: &Container, process: &Value) -> Output {
    fs::write("process.json", process.to_string()).unwrap();
    Cmd::runtime()
        .args(["exec", "--process", "process.json", &c.id])
        .run()
}

fn process_file() {
    let c = Bundle::new().start();
    let o = exec_process(
        &c,
        &json!({
            "user": {"uid": 1000, "gid": 50, "additionalGids": [7]},
            "args": ["/bin/payload", "ids", ";", "env", ";", "cwd", ";", "rlimits", ";", "status"],
            "env": ["X=y"],
            "cwd": "/etc",
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 33, "hard": 44}],
            "capabilities": {"bounding": ["CAP_CHOWN"]},
            "noNewPrivileges": false
        }),
    )
    .ok();
    let line = |i: usize| serde_json::from_str::<Value>(o.lines()[i]).unwrap();
    assert_eq!(
        line(0),
        json!({"uid": [1000, 1000, 1000], "gid": [50, 50, 50], "groups": [7], "umask": "0022"})
    );
    assert_eq!(line(1), json!(["X=y", "HOME=/home/user"]));
    assert_eq!(o.lines()[2], "/etc");
    assert_eq!(line(3)["RLIMIT_NOFILE"], json!([33, 44]));
    assert_eq!(
        (set(&line(4), "CapBnd"), &line(4)["NoNewPrivs"]),
        (CHOWN, &json!("0"))
    );
}

fn process_file_umask() {
    runc_fails("it takes the umask of the config");
    let c = Bundle::new().start();
    let user = json!({"uid": 0, "gid": 0, "umask": 0o77});
    let o = exec_process(
        &c,
        &json!({"user": user, "args": ["/bin/payload", "ids"], "cwd": "/"}),
    )
    .ok();
    assert_eq!(o.json()["umask"], "0077");
}

fn process_file_broken() {
    let c = Bundle::new().start();
    Cmd::runtime()
        .args(["exec", "--process", "nowhere.json", &c.id])
        .run()
        .fails(255, &["nowhere.json", "no such file"]);
    fs::write("broken.json", "{\"args\": [").unwrap();
    Cmd::runtime()
        .args(["exec", "--process", "broken.json", &c.id])
        .run()
        .fails(255, &[]);
    exec_process(&c, &json!({"cwd": "/", "args": []})).fails(255, &["args"]);
    exec_process(&c, &json!({"args": ["/bin/payload"]})).fails(255, &["cwd"]);
}

/// A shell's `<(…)` is a pipe: what is read of it is gone.
fn process_file_is_read_once() {
    let c = Bundle::new().start();
    nix::unistd::mkfifo("pipe", nix::sys::stat::Mode::S_IRWXU).unwrap();
    let run = Cmd::runtime()
        .args(["exec", "--process", "pipe", &c.id])
        .spawn();
    fs::write(
        "pipe",
        json!({"cwd": "/", "args": ["/bin/payload", "echo", "piped"]}).to_string(),
    )
    .unwrap();
    assert_eq!(run.wait().ok().line(), "piped");
}

fn detach() {
    let c = Bundle::new().start();
    let o = c.exec(&["--detach", "--pid-file", "pid"], &["wait"]).ok();
    let pid: i32 = fs::read_to_string("pid").unwrap().parse().unwrap();
    wait_until("the payload is ready", || o.out_now() == "ready\n");
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(pid),
        nix::sys::signal::Signal::SIGTERM,
    )
    .unwrap();
    assert_eq!(wait_exit(pid), 0);
    assert_eq!(o.out_now(), "ready\nsignal SIGTERM\n");
}

fn pid_file() {
    let c = Bundle::new().start();
    let run = c.exec_spawn(&["--pid-file", "pid"], &["wait"]);
    wait_until("the payload is ready", || run.out() == "ready\n");
    wait_until("the pid file is there", || fs::exists("pid").unwrap());
    let pid: i32 = fs::read_to_string("pid").unwrap().parse().unwrap();
    assert_ne!(pid, c.pid());
    let cmdline = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    assert_eq!(cmdline, b"/bin/payload\0wait\0");
    run.kill(nix::sys::signal::Signal::SIGTERM);
    run.wait().ok().says("signal SIGTERM\n");
}

fn preserved_descriptors() {
    let c = Bundle::new().start();
    fs::write("three", "number three").unwrap();
    fs::write("four", "number four").unwrap();
    fs::write("five", "not to be passed on").unwrap();
    let open = |n: &str| fs::File::open(n).unwrap().into();
    let mut cmd = c.exec_cmd(
        &["--preserve-fds", "2"],
        &["read-fd", "3", ";", "read-fd", "4", ";", "fds"],
    );
    keep_fds(
        cmd.command(),
        vec![
            (high(open("three")), 3),
            (high(open("four")), 4),
            (high(open("five")), 5),
        ],
    );
    let o = cmd.run().ok();
    assert_eq!(&o.lines()[..2], ["number three", "number four"]);
    let fds: Value = serde_json::from_str(o.lines()[2]).unwrap();
    assert_eq!(fds.as_object().unwrap().len(), 5, "{fds}");
}

/// Moves a descriptor out of the way of those that it is to become.
fn high(fd: std::os::fd::OwnedFd) -> std::os::fd::OwnedFd {
    use std::os::fd::{AsFd, FromRawFd};
    let n = nix::fcntl::fcntl(fd.as_fd(), nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(50)).unwrap();
    // SAFETY: fcntl has just made it, and nobody else has it.
    unsafe { std::os::fd::OwnedFd::from_raw_fd(n) }
}

fn in_created_container() {
    let c = Bundle::new().create();
    assert_eq!(c.exec(&[], &["echo", "early"]).ok().line(), "early");
    assert_eq!(c.status(), "created");
}

fn in_stopped_container() {
    let c = Bundle::new().start();
    c.stop();
    c.exec(&[], &["true"]).fails(255, &["stopped"]);
}

fn in_paused_container() {
    let c = Bundle::new().start();
    c.cmd0("pause").run().ok();
    c.exec(&[], &["true"])
        .fails(255, &["cannot exec in a paused container"]);
    c.cmd0("resume").run().ok();
}

fn ignore_paused() {
    let c = Bundle::new().start();
    c.cmd0("pause").run().ok();
    let run = c.exec_spawn(&["--ignore-paused"], &["echo", "thawed"]);
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert!(!run.ended(), "it is frozen with the container");
    c.cmd0("resume").run().ok();
    assert_eq!(run.wait().ok().line(), "thawed");
}

fn in_sub_cgroup() {
    let c = Bundle::new().start();
    let sub = c.cgroup_dir().join("sub");
    fs::create_dir(&sub).unwrap();
    let verbs = ["cat", "/proc/self/cgroup"];
    let o = c.exec(&["--cgroup", "sub"], &verbs).ok();
    assert_eq!(o.lines().last(), Some(&"0::/sub"));
    let o = c.exec(&["--cgroup", "/sub"], &verbs).ok();
    assert_eq!(o.lines().last(), Some(&"0::/sub"));
    let o = c.exec(&["--cgroup", "/"], &verbs).ok();
    assert_eq!(o.lines().last(), Some(&"0::/"));
}

fn sub_cgroup_must_exist() {
    let c = Bundle::new().start();
    c.exec(&["--cgroup", "nowhere"], &["true"])
        .fails(255, &["cgroup", "nowhere", "no such file or directory"]);
}

fn sub_cgroup_stays_below() {
    let c = Bundle::new().start();
    for path in ["..", "../..", "/../harness", "sub/../.."] {
        c.exec(&["--cgroup", path], &["true"])
            .fails(255, &["cgroup", ".."]);
    }
}

fn is_in_the_cgroup() {
    let c = Bundle::new().start();
    let run = c.exec_spawn(&[], &["wait"]);
    wait_until("the payload is ready", || run.out() == "ready\n");
    assert_eq!(c.cgroup_file("cgroup.procs").lines().count(), 2);
    run.kill(nix::sys::signal::Signal::SIGTERM);
    run.wait().ok();
}

/// `exec ID ls -la` is no option -l of exec.
fn options_end_at_the_id() {
    let c = Bundle::new().start();
    let o = c.exec(&[], &["echo", "--tty", "-d", "--user", "x"]).ok();
    assert_eq!(o.line(), "--tty -d --user x");
}

fn cpu_affinity() {
    needs(&[Cpus(2)]);
    let c = Bundle::new().start();
    let process = |affinity: Value| json!({"cwd": "/", "args": ["/bin/payload", "affinity"], "execCPUAffinity": affinity});
    let o = exec_process(&c, &process(json!({"initial": "0", "final": "1"}))).ok();
    assert_eq!(o.json(), json!([1]));
    let o = exec_process(&c, &process(json!({"initial": "0-1", "final": "0"}))).ok();
    assert_eq!(o.json(), json!([0]));
    exec_process(&c, &process(json!({"initial": "", "final": "nonsense"})))
        .fails(255, &["affinity"]);
}

fn scheduler_and_io_priority() {
    let c = Bundle::new()
        .set(
            "/process/scheduler",
            json!({"policy": "SCHED_BATCH", "nice": 9}),
        )
        .set(
            "/process/ioPriority",
            json!({"class": "IOPRIO_CLASS_BE", "priority": 5}),
        )
        .start();
    let o = c.exec(&[], &["sched", ";", "ioprio"]).ok();
    let all = o.jsons();
    assert_eq!((&all[0]["policy"], &all[0]["nice"]), (&json!(3), &json!(9)));
    assert_eq!(all[1], json!({"class": 2, "priority": 5}));
    let o = exec_process(
        &c,
        &json!({"cwd": "/", "args": ["/bin/payload", "sched", ";", "ioprio"],
            "scheduler": {"policy": "SCHED_IDLE"}, "ioPriority": {"class": "IOPRIO_CLASS_IDLE", "priority": 0}}),
    )
    .ok();
    let all = o.jsons();
    assert_eq!(
        (&all[0]["policy"], &all[1]["class"]),
        (&json!(5), &json!(3))
    );
}

/// youki's issue 1810: cleaning up after the exec ended the container.
fn failing_leaves_the_container_alone() {
    let c = Bundle::new().start();
    let pid = c.pid();
    c.cmd0("exec").arg("/bin/nothing").run().exits(255);
    c.exec(&["--cwd", "/etc/passwd"], &["true"]).exits(255);
    exec_process(&c, &json!({"cwd": "/", "args": ["/bin/payload"], "rlimits": [{"type": "RLIMIT_X", "soft": 1, "hard": 1}]}))
        .fails(255, &["RLIMIT_X"]);
    assert_eq!((c.status().as_str(), c.pid()), ("running", pid));
    assert_eq!(c.exec(&[], &["echo", "well"]).ok().line(), "well");
}

fn many_at_once() {
    let c = Bundle::new().start();
    let all: Vec<_> = (0..10)
        .map(|i| c.exec_spawn(&[], &["echo", &i.to_string()]))
        .collect();
    for (i, run) in all.into_iter().enumerate() {
        assert_eq!(run.wait().ok().line(), i.to_string());
    }
}

fn terminal_setting_of_the_config_is_not_taken() {
    // what has a terminal is said by --tty alone
    let c = Bundle::new().start();
    let tty = c.exec(&[], &["tty"]).ok().json();
    assert_eq!(
        (&tty["0"]["tty"], &tty["1"]["tty"]),
        (&json!(false), &json!(false))
    );
}

/// What an exec leaves in the background is the container's init's to reap, and ends with the container.
fn orphans_stay_in_the_container() {
    let c = Bundle::new().start();
    c.exec(&["--detach", "--pid-file", "pid"], &["spawn", "wait"])
        .ok();
    let parent = fs::read_to_string("pid").unwrap();
    wait_until("init and the orphan are there", || {
        let procs = c.cgroup_file("cgroup.procs");
        procs.lines().count() == 2 && procs.lines().all(|pid| pid != parent)
    });
    let o = Cmd::runtime()
        .args(["ps", "--format", "json", &c.id])
        .run()
        .ok();
    assert_eq!(o.json().as_array().unwrap().len(), 2);
    c.stop();
    // systemd removes it
    let procs = fs::read_to_string(c.cgroup_dir().join("cgroup.procs"));
    assert_eq!(procs.unwrap_or_default(), "");
}
