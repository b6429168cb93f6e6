//! process of config.json, and what of linux works on the process: ids, capabilities, limits, scheduling, environment.

use crate::support::*;
use std::collections::BTreeMap;

tests![
    argv_is_exact,
    args_missing,
    executable_by_path,
    executable_missing,
    executable_not_executable,
    executable_is_a_directory,
    executable_relative_to_cwd,
    executable_with_bad_interpreter,
    executable_only_for_capable,
    env_is_exact,
    env_last_duplicate_wins,
    env_home_from_passwd,
    env_home_is_kept,
    ids_default,
    ids_given,
    groups_are_kept,
    ids_by_umask,
    cwd_is_made,
    cwd_relative_is_refused,
    cwd_is_a_file,
    cwd_out_of_reach_of_the_user,
    cwd_outside_is_refused,
    capabilities_as_given,
    capabilities_none,
    capabilities_absent,
    capabilities_unknown_is_a_warning,
    capabilities_of_a_user_need_ambient,
    capabilities_bound_what_root_can_do,
    ambient_without_inheritable_is_a_warning,
    no_new_privileges,
    rlimits_are_set,
    rlimits_high,
    rlimits_duplicate_is_refused,
    rlimits_unknown_is_refused,
    rlimits_soft_above_hard_is_refused,
    oom_score_adj,
    scheduler_batch,
    scheduler_realtime,
    scheduler_unknown_is_refused,
    io_priority,
    affinity_of_the_caller_is_not_inherited,
    personality,
    memory_policy,
    memory_policy_of_exec,
    memory_policy_that_is_none_is_refused,
    intel_rdt_without_resctrl_is_refused,
    sysctl_of_own_namespaces,
    sysctl_of_the_host_is_refused,
    masked_paths,
    masked_paths_are_read_only,
    readonly_paths,
    keyring,
    listen_fds,
    notify_socket,
    notify_socket_of_start,
    notify_socket_in_the_foreground,
    notify_socket_without_a_word,
    notify_socket_elsewhere,
    sessions,
];

fn argv_is_exact() {
    let verbs = ["argv", "", "two words", "$HOME", "\n", "ä"];
    let o = Bundle::new().payload(&verbs).run().ok();
    assert_eq!(
        o.json(),
        json!(["/bin/payload", "argv", "", "two words", "$HOME", "\n", "ä"])
    );
}

fn args_missing() {
    Bundle::new()
        .set("/process/args", json!([]))
        .refused(&["args"]);
}

fn executable_by_path() {
    let b = Bundle::new().set("/process/args", json!(["payload", "argv"]));
    assert_eq!(
        b.run().ok().json(),
        json!(["payload", "argv"]),
        "argv[0] is as given"
    );
    let b = b.set("/process/env", json!(["PATH=/nowhere:/bin"]));
    b.run().ok();
}

fn executable_missing() {
    let b = Bundle::new().set("/process/args", json!(["nothing"]));
    b.refused(&["nothing", "executable file not found in $PATH"]);
    // the PATH is that of the container
    let b = Bundle::new().set("/process/args", json!(["payload"]));
    b.set("/process/env", json!(["PATH=/etc"]))
        .refused(&["executable file not found in $PATH"]);
    let b = Bundle::new().set("/process/args", json!(["/bin/nothing"]));
    b.refused(&["/bin/nothing", "no such file or directory"]);
}

fn executable_not_executable() {
    let b = Bundle::new().file("/bin/text", "words", 0o644);
    let once = match is_husk() {
        true => r#"exec: "/bin/text": permission denied"#,
        false => r#"exec: \"/bin/text\": permission denied"#, // in its log's quotes
    };
    b.set("/process/args", json!(["/bin/text"]))
        .refused(&[once]);
}

fn executable_is_a_directory() {
    let b = Bundle::new().set("/process/args", json!(["/etc"]));
    let o = b.refused(&["/etc"]);
    let known = ["permission denied", "is a directory"];
    assert!(known.iter().any(|k| o.err.contains(k)), "{o}");
}

fn executable_relative_to_cwd() {
    let b = Bundle::new().set("/process/cwd", json!("/bin"));
    b.set("/process/args", json!(["./payload", "cwd"]))
        .run()
        .ok()
        .says("/bin\n");
}

fn executable_with_bad_interpreter() {
    let b = Bundle::new().file("/run.sh", "#!/nowhere\n", 0o755);
    b.set("/process/args", json!(["/run.sh"]))
        .refused(&["/run.sh", "no such file or directory"]);
}

/// Whether a file may be executed is the kernel's to say, with the final ids and capabilities.
fn executable_only_for_capable() {
    let b = Bundle::new().file("/bin/run.sh", "#!/bin/payload true\n", 0o700);
    let b = b.set("/process/args", json!(["/bin/run.sh"]));
    let b = b.set("/process/user", json!({"uid": 1000, "gid": 1000}));
    b.refused(&["/bin/run.sh", "permission denied"]);
    let all = [
        "bounding",
        "effective",
        "permitted",
        "inheritable",
        "ambient",
    ];
    b.capabilities(&all, &["CAP_DAC_OVERRIDE"]).run().ok();
}

fn env_is_exact() {
    let b = Bundle::new().payload(&["env"]);
    let b = b.set(
        "/process/env",
        json!(["A=1", "B=", "HOME=/x", "C=a=b", "D=two\nlines"]),
    );
    let o = b.run().ok();
    let mut env: Vec<String> = serde_json::from_value(o.json()).unwrap();
    env.sort();
    assert_eq!(
        env,
        ["A=1", "B=", "C=a=b", "D=two\nlines", "HOME=/x"],
        "nothing of the caller's"
    );
}

fn env_last_duplicate_wins() {
    let b = Bundle::new().payload(&["env"]);
    let b = b.set(
        "/process/env",
        json!(["ONE=two", "HOME=/a", "ONE=", "HOME=/b"]),
    );
    let mut env: Vec<String> = serde_json::from_value(b.run().ok().json()).unwrap();
    env.sort();
    assert_eq!(env, ["HOME=/b", "ONE="]);
}

fn env_home_from_passwd() {
    let b = Bundle::new()
        .payload(&["env"])
        .set("/process/env", json!(["A=1"]));
    for (uid, home) in [
        (0, "HOME=/root"),
        (1000, "HOME=/home/user"),
        (4711, "HOME=/"),
    ] {
        let b = Bundle::new()
            .payload(&["env"])
            .set("/process/env", b.config["process"]["env"].clone());
        let b = b.set("/process/user", json!({"uid": uid, "gid": uid}));
        let env: Vec<String> = serde_json::from_value(b.run().ok().json()).unwrap();
        assert!(env.contains(&home.to_string()), "uid {uid}: {env:?}");
    }
    let b = b.set("/process/env", json!(["HOME="]));
    let env: Vec<String> = serde_json::from_value(b.run().ok().json()).unwrap();
    assert_eq!(env, ["HOME=/root"], "empty counts as missing");
}

fn env_home_is_kept() {
    let b = Bundle::new()
        .payload(&["env"])
        .set("/process/env", json!(["HOME=/elsewhere"]));
    assert_eq!(b.run().ok().json(), json!(["HOME=/elsewhere"]));
}

fn ids_default() {
    let ids = Bundle::new().payload(&["ids"]).run().ok().json();
    assert_eq!(
        ids,
        json!({"uid": [0, 0, 0], "gid": [0, 0, 0], "groups": [], "umask": "0022"})
    );
}

fn ids_given() {
    let user = json!({"uid": 1000, "gid": 1001, "additionalGids": [7, 50]});
    let ids = Bundle::new()
        .payload(&["ids"])
        .set("/process/user", user)
        .run()
        .ok()
        .json();
    let want = json!({"uid": [1000, 1000, 1000], "gid": [1001, 1001, 1001], "groups": [7, 50], "umask": "0022"});
    assert_eq!(ids, want);
}

/// As rootless Podman wants it: no user namespace maps the groups by which a user gets at files.
fn groups_are_kept() {
    husk_only("runc has no annotations of crun's");
    let kept = |value: &str, b: Bundle| {
        let b = b.set(
            "/annotations",
            json!({"run.oci.keep_original_groups": value}),
        );
        let c = b.payload(&["ids"]).container();
        let mut cmd = c.cmd("run", &[]);
        let groups = || Ok(nix::unistd::setgroups(&[7.into(), 50.into()])?);
        // SAFETY: one system call.
        unsafe { std::os::unix::process::CommandExt::pre_exec(cmd.command(), groups) };
        cmd.run().ok()
    };
    let b = || Bundle::new().set("/process/user", json!({"uid": 1000, "gid": 1000}));
    assert_eq!(kept("1", b()).json()["groups"], json!([7, 50]));
    assert_eq!(kept("0", b()).json()["groups"], json!([]));
    let o = kept("1", b().set("/process/user/additionalGids", json!([9])));
    assert_eq!(o.json()["groups"], json!([7, 50]));
    let warning =
        "process.user.additionalGids: are not set, because of run.oci.keep_original_groups";
    assert!(o.err.contains(warning), "{o}");
}

fn ids_by_umask() {
    let b = Bundle::new()
        .payload(&["ids"])
        .set("/process/user/umask", json!(0o77));
    assert_eq!(b.run().ok().json()["umask"], "0077");
    let b = b.set("/process/user/umask", json!(0));
    assert_eq!(b.run().ok().json()["umask"], "0000");
}

fn cwd_is_made() {
    let b = Bundle::new()
        .writable()
        .payload(&["cwd"])
        .set("/process/cwd", json!("/made/for/me"));
    b.run().ok().says("/made/for/me\n");
    assert!(b.rootfs().join("made/for/me").is_dir());
}

fn cwd_relative_is_refused() {
    Bundle::new()
        .set("/process/cwd", json!("tmp"))
        .refused(&["cwd", "absolute"]);
}

fn cwd_is_a_file() {
    Bundle::new()
        .set("/process/cwd", json!("/etc/passwd"))
        .refused(&["/etc/passwd", "not a directory"]);
}

/// It may be a directory that root alone may enter, or that the user alone may enter (NFS with root_squash).
fn cwd_out_of_reach_of_the_user() {
    let b = Bundle::new().mkdir("/closed").payload(&["true"]);
    let closed = b.rootfs().join("closed");
    std::fs::set_permissions(&closed, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let b = b.set("/process/cwd", json!("/closed"));
    let b = b.set("/process/user", json!({"uid": 1000, "gid": 1000}));
    b.run().ok();
    std::os::unix::fs::chown(&closed, Some(1000), Some(1000)).unwrap();
    b.run().ok();
}

/// CVE-2024-21626: a descriptor of the host's, as working directory.
fn cwd_outside_is_refused() {
    for fd in 3..12 {
        let b = Bundle::new()
            .payload(&["cwd"])
            .set("/process/cwd", json!(format!("/proc/self/fd/{fd}")));
        b.refused(&[&format!("/proc/self/fd/{fd}")]);
    }
}

/// The capability lines of proc_pid_status(5).
fn caps(status: &Value) -> BTreeMap<&'static str, u64> {
    ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]
        .map(|n| {
            (
                n,
                u64::from_str_radix(status[n].as_str().unwrap(), 16).unwrap(),
            )
        })
        .into()
}

const KILL: u64 = 1 << 5;
const NET_BIND_SERVICE: u64 = 1 << 10;
const AUDIT_WRITE: u64 = 1 << 29;
const CHOWN: u64 = 1;

fn capabilities_as_given() {
    let status = Bundle::new().payload(&["status"]).run().ok().json();
    let all = KILL | NET_BIND_SERVICE | AUDIT_WRITE;
    let want = [
        ("CapInh", 0),
        ("CapPrm", all),
        ("CapEff", all),
        ("CapBnd", all),
        ("CapAmb", 0),
    ];
    assert_eq!(caps(&status), want.into());

    let b = Bundle::new().payload(&["status"]);
    let b = b.capabilities(
        &["bounding"],
        &["CAP_KILL", "CAP_CHOWN", "CAP_NET_BIND_SERVICE"],
    );
    let b = b.capabilities(&["inheritable", "ambient"], &["CAP_KILL"]);
    let b = b.capabilities(&["permitted", "effective"], &["CAP_KILL", "CAP_CHOWN"]);
    let status = b.run().ok().json();
    // execve as root gives the bounding set whatever was permitted before
    let bounding = KILL | CHOWN | NET_BIND_SERVICE;
    let got = caps(&status);
    assert_eq!(
        (got["CapInh"], got["CapBnd"], got["CapAmb"]),
        (KILL, bounding, KILL)
    );
}

fn capabilities_none() {
    let b = Bundle::new()
        .payload(&["status"])
        .set("/process/capabilities", json!({}));
    let status = b.run().ok().json();
    assert!(caps(&status).values().all(|v| *v == 0), "{status}");
}

fn capabilities_absent() {
    // the specification leaves open what this means; runc leaves them alone
    let b = Bundle::new()
        .payload(&["true"])
        .remove("/process/capabilities");
    b.run().ok();
}

fn capabilities_unknown_is_a_warning() {
    let b = Bundle::new().payload(&["status"]);
    let b = b.capabilities(
        &["bounding", "effective", "permitted"],
        &["CAP_KILL", "CAP_TO_FLY"],
    );
    let o = b.run().ok();
    assert!(o.err.contains("CAP_TO_FLY"), "{o}");
    assert_eq!(caps(&o.json())["CapBnd"], KILL);
}

fn capabilities_of_a_user_need_ambient() {
    let user = json!({"uid": 1000, "gid": 1000});
    let b = Bundle::new()
        .payload(&["status"])
        .set("/process/user", user);
    let got = caps(&b.run().ok().json());
    assert_eq!((got["CapEff"], got["CapPrm"]), (0, 0));
    let b = b.capabilities(&["inheritable", "ambient"], &["CAP_KILL"]);
    let got = caps(&b.run().ok().json());
    assert_eq!(
        (got["CapEff"], got["CapPrm"], got["CapAmb"]),
        (KILL, KILL, KILL)
    );
}

fn capabilities_bound_what_root_can_do() {
    let b = Bundle::new()
        .writable()
        .payload(&["chown", "7", "7", "/etc/passwd"]);
    assert_eq!(b.run().exits(1).line(), "error EPERM");
    let b = Bundle::new()
        .writable()
        .payload(&["chown", "7", "7", "/etc/passwd"]);
    b.capabilities(&["bounding", "effective", "permitted"], &["CAP_CHOWN"])
        .run()
        .ok();
}

/// The kernel has it so that an ambient capability is an inheritable one; the specification wants a warning.
fn ambient_without_inheritable_is_a_warning() {
    let b = Bundle::new()
        .payload(&["status"])
        .capabilities(&["ambient"], &["CAP_KILL"]);
    let o = b.run().ok();
    assert!(o.err.contains("CAP_KILL"), "{o}");
    assert_eq!(caps(&o.json())["CapAmb"], 0);
}

fn no_new_privileges() {
    for (set, seen) in [(true, "1"), (false, "0")] {
        let b = Bundle::new()
            .payload(&["status"])
            .set("/process/noNewPrivileges", json!(set));
        assert_eq!(b.run().ok().json()["NoNewPrivs"], seen);
    }
}

fn rlimits_are_set() {
    let limits = json!([
        {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200},
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
        {"type": "RLIMIT_NPROC", "soft": 50, "hard": 60},
        {"type": "RLIMIT_FSIZE", "soft": 1_000_000, "hard": 2_000_000}
    ]);
    let got = Bundle::new()
        .payload(&["rlimits"])
        .set("/process/rlimits", limits)
        .run()
        .ok()
        .json();
    assert_eq!(got["RLIMIT_NOFILE"], json!([100, 200]));
    assert_eq!(got["RLIMIT_CORE"], json!([0, 0]));
    assert_eq!(got["RLIMIT_NPROC"], json!([50, 60]));
    assert_eq!(got["RLIMIT_FSIZE"], json!([1_000_000, 2_000_000]));
}

fn rlimits_high() {
    needs(&[SysResource]);
    let limits = json!([
        {"type": "RLIMIT_MEMLOCK", "soft": u64::MAX, "hard": u64::MAX},
        {"type": "RLIMIT_NOFILE", "soft": 1_000_000, "hard": 1_000_000}
    ]);
    let got = Bundle::new()
        .payload(&["rlimits"])
        .set("/process/rlimits", limits)
        .run()
        .ok()
        .json();
    assert_eq!(got["RLIMIT_MEMLOCK"], json!([u64::MAX, u64::MAX]));
    assert_eq!(got["RLIMIT_NOFILE"], json!([1_000_000, 1_000_000]));
}

fn rlimits_duplicate_is_refused() {
    runc_fails("the last one wins");
    let one = json!({"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200});
    let b = Bundle::new().set("/process/rlimits", json!([one, one]));
    b.refused(&["RLIMIT_NOFILE"]);
}

fn rlimits_unknown_is_refused() {
    let b = Bundle::new().set(
        "/process/rlimits",
        json!([{"type": "RLIMIT_FUN", "soft": 1, "hard": 2}]),
    );
    b.refused(&["RLIMIT_FUN"]);
}

fn rlimits_soft_above_hard_is_refused() {
    let b = Bundle::new().set(
        "/process/rlimits",
        json!([{"type": "RLIMIT_NOFILE", "soft": 3, "hard": 2}]),
    );
    b.refused(&["rlimit"]);
}

fn oom_score_adj() {
    let b = Bundle::new().payload(&["cat", "/proc/self/oom_score_adj"]);
    let own = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap();
    assert_eq!(b.run().ok().out, own, "unset means untouched");
    let b = b.set("/process/oomScoreAdj", json!(321));
    assert_eq!(b.run().ok().line(), "321");
    let b = b.set("/process/oomScoreAdj", json!(1001));
    b.refused(&["oom"]);
}

fn scheduler_batch() {
    let b = Bundle::new().payload(&["sched"]);
    let b = b.set(
        "/process/scheduler",
        json!({"policy": "SCHED_BATCH", "nice": 7}),
    );
    let s = b.run().ok().json();
    assert_eq!((&s["policy"], &s["nice"]), (&json!(3), &json!(7)));
    let b = b.set("/process/scheduler", json!({"policy": "SCHED_IDLE"}));
    assert_eq!(b.run().ok().json()["policy"], 5);
}

fn scheduler_realtime() {
    let b = Bundle::new().payload(&["sched"]);
    let flags = json!(["SCHED_FLAG_RESET_ON_FORK"]);
    let b = b.set(
        "/process/scheduler",
        json!({"policy": "SCHED_FIFO", "priority": 11, "flags": flags}),
    );
    let s = b.run().ok().json();
    assert_eq!(
        (&s["policy"], &s["priority"], &s["flags"]),
        (&json!(1), &json!(11), &json!(1))
    );
}

fn scheduler_unknown_is_refused() {
    runc_fails("it takes it for SCHED_OTHER");
    let b = Bundle::new().set("/process/scheduler", json!({"policy": "SCHED_LUCK"}));
    b.refused(&["SCHED_LUCK"]);
    let b = Bundle::new().set(
        "/process/scheduler",
        json!({"policy": "SCHED_FIFO", "priority": 5, "nice": 1}),
    );
    let o = b.payload(&["true"]).run().ok();
    assert!(o.err.contains("process.scheduler.nice"), "{o}");
}

fn io_priority() {
    let b = Bundle::new().payload(&["ioprio"]);
    let b = b.set(
        "/process/ioPriority",
        json!({"class": "IOPRIO_CLASS_BE", "priority": 6}),
    );
    assert_eq!(b.run().ok().json(), json!({"class": 2, "priority": 6}));
    let b = b.set(
        "/process/ioPriority",
        json!({"class": "IOPRIO_CLASS_IDLE", "priority": 0}),
    );
    assert_eq!(b.run().ok().json()["class"], 3);
    let b = b.set(
        "/process/ioPriority",
        json!({"class": "IOPRIO_CLASS_BEST", "priority": 6}),
    );
    b.refused(&["IOPRIO_CLASS_BEST"]);
}

/// A daemon that is bound to one CPU must not bind its containers.
fn affinity_of_the_caller_is_not_inherited() {
    needs(&[Cpus(2)]);
    let b = Bundle::new().payload(&["affinity"]);
    let c = b.container();
    let mut cmd = c.cmd("run", &[]);
    let pin = || {
        let mut one = nix::sched::CpuSet::new();
        one.set(0)?;
        Ok(nix::sched::sched_setaffinity(
            nix::unistd::Pid::from_raw(0),
            &one,
        )?)
    };
    // SAFETY: the closure makes one system call.
    unsafe { std::os::unix::process::CommandExt::pre_exec(cmd.command(), pin) };
    let got: Vec<usize> = serde_json::from_value(cmd.run().ok().json()).unwrap();
    assert!(got.len() >= 2, "{got:?}");
}

fn personality() {
    needs(&[File("/proc/self/personality")]);
    let b = Bundle::new().payload(&["personality"]);
    let own = b.run().ok().out;
    assert_eq!(own, "0x0\n");
    let b = b.set("/linux/personality", json!({"domain": "LINUX32"}));
    assert_eq!(b.run().ok().line(), "0x8");
    let c = Bundle::new()
        .set("/linux/personality", json!({"domain": "LINUX32"}))
        .start();
    assert_eq!(c.exec(&[], &["personality"]).ok().line(), "0x8");
    let b = b.set("/linux/personality", json!({"domain": "LINUX16"}));
    b.refused(&["LINUX16"]);
}

/// The policy in the first line of /proc/self/numa_maps (numa(7)).
fn numa_policy(maps: &str) -> &str {
    let line = maps.lines().next().expect("a line");
    line.split(' ').nth(1).expect("a policy")
}

fn memory_policy() {
    runc_since(1, 4);
    needs(&[File("/proc/self/numa_maps")]);
    let b = Bundle::new().payload(&["cat", "/proc/self/numa_maps"]);
    for (policy, seen) in [
        (json!({"mode": "MPOL_DEFAULT"}), "default"),
        (json!({"mode": "MPOL_LOCAL"}), "local"),
        (
            json!({"mode": "MPOL_INTERLEAVE", "nodes": "0"}),
            "interleave:0",
        ),
        (
            json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}),
            "bind=static:0",
        ),
        (
            json!({"mode": "MPOL_PREFERRED", "nodes": "0", "flags": []}),
            "prefer:0",
        ),
    ] {
        let o = b.clone().set("/linux/memoryPolicy", policy).run().ok();
        assert_eq!(numa_policy(&o.out), seen);
    }
}

fn memory_policy_of_exec() {
    runc_since(1, 4);
    needs(&[File("/proc/self/numa_maps")]);
    let policy =
        json!({"mode": "MPOL_PREFERRED", "nodes": "0", "flags": ["MPOL_F_RELATIVE_NODES"]});
    let c = Bundle::new().set("/linux/memoryPolicy", policy).start();
    let o = c.exec(&[], &["cat", "/proc/self/numa_maps"]).ok();
    assert_eq!(numa_policy(&o.out), "prefer=relative:0");
}

fn memory_policy_that_is_none_is_refused() {
    runc_since(1, 4);
    for (policy, words) in [
        (json!({}), "invalid memory policy mode"),
        (json!({"nodes": "0"}), "invalid memory policy mode"),
        (
            json!({"mode": "INTERLEAVE", "nodes": "0"}),
            "invalid memory policy mode",
        ),
        (
            json!({"mode": "MPOL_PREFERRED", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES", "badflag"]}),
            "invalid memory policy flag",
        ),
        (
            json!({"mode": "MPOL_DEFAULT", "nodes": "0-7"}),
            "mode requires 0 nodes but got 8",
        ),
        (
            json!({"mode": "MPOL_BIND"}),
            "mode requires at least one node but got 0",
        ),
        (
            json!({"mode": "MPOL_BIND", "nodes": "0-9876543210"}),
            "invalid memory policy node",
        ),
        // what only the kernel can know
        (
            json!({"mode": "MPOL_BIND", "nodes": "1500"}),
            "set_mempolicy",
        ),
    ] {
        let b = Bundle::new().set("/linux/memoryPolicy", policy);
        b.refused(&[words]);
    }
}

/// What it does where there is resctrl is shown on a tree, in the library's own tests.
fn intel_rdt_without_resctrl_is_refused() {
    if std::path::Path::new("/sys/fs/resctrl/info").exists() {
        skip("this host has resctrl");
    }
    runc_since(1, 4);
    for rdt in [
        json!({}),
        json!({"closID": "/"}),
        json!({"closID": "gold", "l3CacheSchema": "L3:0=f"}),
        json!({"schemata": ["L3:0=f"], "enableMonitoring": true}),
    ] {
        let b = Bundle::new().set("/linux/intelRdt", rdt);
        b.refused(&["intelRdt is specified in config, but Intel RDT is not enabled"]);
    }
}

fn sysctl_of_own_namespaces() {
    let b = Bundle::new().payload(&[
        "cat",
        "/proc/sys/kernel/shm_rmid_forced",
        "/proc/sys/net/ipv4/ip_unprivileged_port_start",
    ]);
    let b = b.set(
        "/linux/sysctl",
        json!({"kernel.shm_rmid_forced": "1", "net.ipv4.ip_unprivileged_port_start": "77"}),
    );
    assert_eq!(b.run().ok().lines(), ["1", "77"]);
    // with slashes the dots are part of a name
    let b = b.set(
        "/linux/sysctl",
        json!({"kernel/shm_rmid_forced": "1", "net/ipv4/ip_unprivileged_port_start": "78"}),
    );
    assert_eq!(b.run().ok().lines(), ["1", "78"]);
}

fn sysctl_of_the_host_is_refused() {
    let b = Bundle::new().set("/linux/sysctl", json!({"kernel.panic": "1"}));
    b.refused(&["kernel.panic"]);
    let b = Bundle::new().without_namespace("network");
    let b = b.set(
        "/linux/sysctl",
        json!({"net.ipv4.ip_unprivileged_port_start": "77"}),
    );
    b.refused(&["net.ipv4.ip_unprivileged_port_start", "network namespace"]);
    let b = Bundle::new()
        .without_namespace("ipc")
        .set("/linux/sysctl", json!({"kernel.msgmax": "100"}));
    b.refused(&["kernel.msgmax", "ipc namespace"]);
}

fn masked_paths() {
    let b = Bundle::new()
        .file("/secret/file", "hidden", 0o644)
        .file("/key", "hidden", 0o644)
        .set(
            "/linux/maskedPaths",
            json!(["/secret", "/key", "/not/there", "/proc/kcore"]),
        )
        .payload(&[
            "ls", "/secret", ";", "echo", "-", ";", "cat", "/key", ";", "stat", "/key", ";", "ls",
            "/not",
        ]);
    let o = b.run().exits(1);
    let lines = o.lines();
    assert_eq!(lines[0], "-", "an empty directory: {o}");
    let key: Value = serde_json::from_str(lines[1]).unwrap();
    assert_eq!(
        (&key["type"], &key["major"], &key["minor"]),
        (&json!("char"), &json!(1), &json!(3))
    );
    assert_eq!(lines[2], "error ENOENT", "what is not there is not made");
}

fn masked_paths_are_read_only() {
    let b = Bundle::new()
        .writable()
        .mkdir("/secret")
        .file("/key", "hidden", 0o644)
        .set("/linux/maskedPaths", json!(["/secret", "/key"]))
        .payload(&[
            "write",
            "/secret/x",
            "text",
            ";",
            "rm",
            "/key",
            ";",
            "umount",
            "/secret",
        ]);
    assert_eq!(
        b.run().exits(1).lines(),
        ["error EROFS", "error EBUSY", "error EPERM"]
    );
}

fn readonly_paths() {
    let b = Bundle::new()
        .writable()
        .file("/fixed/file", "text", 0o644)
        .set(
            "/linux/readonlyPaths",
            json!(["/fixed", "/proc/sys", "/not/there"]),
        )
        .payload(&[
            "cat",
            "/fixed/file",
            ";",
            "echo",
            ";",
            "write",
            "/fixed/file",
            "x",
            ";",
            "write",
            "/proc/sys/kernel/shm_rmid_forced",
            "1",
            ";",
            "write",
            "/tmp/x",
            "x",
        ]);
    assert_eq!(
        b.run().exits(1).lines(),
        ["text", "error EROFS", "error EROFS", "ok"]
    );
}

fn keyring() {
    let b = Bundle::new().payload(&["keyring"]);
    let c = b.container();
    let o = c.cmd("run", &[]).run().ok();
    assert!(o.line().ends_with(&format!("_ses.{}", c.id)), "{o}");
    let c = b.container();
    let o = c.cmd("run", &["--no-new-keyring"]).run().ok();
    assert!(!o.line().ends_with(&format!("_ses.{}", c.id)), "{o}");
    // exec joins the container's
    let c = Bundle::new().start();
    let o = c.exec(&[], &["keyring"]).ok();
    assert!(o.line().ends_with(&format!("_ses.{}", c.id)), "{o}");
}

/// sd_listen_fds(3): the sockets of the caller reach the container's process, which is process 1 there.
fn listen_fds() {
    std::fs::write("three", "socket").unwrap();
    let c = Bundle::new()
        .payload(&["env", ";", "read-fd", "3"])
        .container();
    // LISTEN_PID is the runtime's: whoever else finds it in the environment is not meant
    let mut cmd = Cmd::new("/bin/sh")
        .args([
            "-c",
            "export LISTEN_PID=$$; exec \"$0\" --root state run --bundle \"$1\" \"$2\"",
        ])
        .arg(process::runtime())
        .arg(&c.bundle)
        .arg(&c.id)
        .env("LISTEN_FDS", "1")
        .env("LISTEN_FDNAMES", "web");
    keep_fds(
        cmd.command(),
        vec![(std::fs::File::open("three").unwrap().into(), 3)],
    );
    let o = cmd.run().ok();
    for want in ["LISTEN_FDS=1", "LISTEN_PID=1"] {
        assert!(o.lines()[0].contains(want), "{want}: {o}");
    }
    assert_eq!(o.lines()[1], "socket");
}

/// The caller's socket of sd_notify(3).
struct NotifySocket(std::os::unix::net::UnixDatagram);

impl NotifySocket {
    fn bind() -> NotifySocket {
        let socket = std::os::unix::net::UnixDatagram::bind("notify").unwrap();
        let patience = std::time::Duration::from_millis(20);
        socket.set_read_timeout(Some(patience)).unwrap();
        NotifySocket(socket)
    }

    /// What comes until a command ends: it may wait until all of it is read (sd_notify_barrier(3)).
    fn hear(&self, command: &process::Running) -> String {
        let mut all = String::new();
        while !command.ended() {
            all += &self.rest();
        }
        all + &self.rest()
    }

    fn rest(&self) -> String {
        let mut all = String::new();
        let mut buffer = [0; 256];
        while let Ok(n) = self.0.recv(&mut buffer) {
            all += &String::from_utf8_lossy(&buffer[..n]);
            all.push('\n');
        }
        all
    }
}

fn ready(main: i32) -> [String; 2] {
    ["READY=1\n".into(), format!("MAINPID={main}\n")]
}

/// sd_notify(3): READY=1 of the container's process reaches the caller's socket, and the caller learns who that is.
fn notify_socket() {
    let socket = NotifySocket::bind();
    let mut c = Bundle::new()
        .payload(&["sleep", "0.2", ";", "notify", "READY=1", ";", "wait"])
        .container();
    let cmd = c.cmd("run", &["--detach"]);
    let run = cmd.env("NOTIFY_SOCKET", dir().join("notify")).spawn();
    let texts = socket.hear(&run);
    c.created_by(run).ok();
    for want in ready(c.pid()) {
        assert!(texts.contains(&want), "{want}: {texts}");
    }
    c.wait_ready();
    let o = c.exec(&[], &["env"]).ok();
    assert!(!o.out.contains("NOTIFY_SOCKET"), "not exec's: {o}");
}

fn notify_socket_of_start() {
    let socket = NotifySocket::bind();
    let b = Bundle::new().payload(&["notify", "READY=1\nSTATUS=x", ";", "wait"]);
    // as another user, and in a user namespace whose root may not enter the state directory
    let b = b.set("/process/user", json!({"uid": 1000, "gid": 1000}));
    let mut c = b.mkdir("/run/notify").user_namespace(100_000).container();
    let cmd = c
        .cmd("create", &[])
        .env("NOTIFY_SOCKET", dir().join("notify"));
    c.creates(cmd).ok();
    assert_eq!(socket.rest(), "", "of create");
    let start = c.cmd0("start").env("NOTIFY_SOCKET", dir().join("notify"));
    let start = start.spawn();
    let texts = socket.hear(&start);
    start.wait().ok();
    for want in ready(c.pid()) {
        assert!(
            is_husk() == texts.contains(&want) || texts.contains(&want),
            "{want}: {texts}"
        );
    }
}

/// husk stays, and is the main process.
fn notify_socket_in_the_foreground() {
    let socket = NotifySocket::bind();
    let b = Bundle::new().payload(&["notify", "READY=1", ";", "sleep", "0.3", ";", "exit", "7"]);
    let cmd = b.container().cmd("run", &[]);
    let run = cmd.env("NOTIFY_SOCKET", dir().join("notify")).spawn();
    let texts = socket.hear(&run);
    for want in ready(run.pid) {
        assert!(texts.contains(&want), "{want}: {texts}");
    }
    run.wait().exits(7);
}

/// A process that ends without a word is not waited for any longer.
fn notify_socket_without_a_word() {
    runc_fails("it takes a zombie for alive");
    let socket = NotifySocket::bind();
    let mut c = Bundle::new().payload(&["true"]).container();
    let cmd = c.cmd("run", &["--detach"]);
    let o = c
        .creates(cmd.env("NOTIFY_SOCKET", dir().join("notify")))
        .ok();
    assert_eq!(socket.rest(), "", "{o}");
}

/// The caller's socket may be an abstract one, or be gone.
fn notify_socket_elsewhere() {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};
    let name = format!("husk-test-{}", std::process::id());
    let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap());
    let socket = NotifySocket(socket.unwrap());
    let patience = Some(std::time::Duration::from_millis(20));
    socket.0.set_read_timeout(patience).unwrap();
    let b = Bundle::new().payload(&["notify", "READY=1", ";", "wait"]);
    let mut c = b.container();
    let cmd = c.cmd("run", &["--detach"]);
    let run = cmd.env("NOTIFY_SOCKET", format!("@{name}")).spawn();
    let texts = socket.hear(&run);
    c.created_by(run).ok();
    assert!(texts.contains("READY=1"), "{texts}");
    let mut c = b.container();
    let cmd = c.cmd("run", &["--detach"]);
    c.creates(cmd.env("NOTIFY_SOCKET", dir().join("nowhere")))
        .ok();
}

/// The process leads a session and a process group.
fn sessions() {
    let p = Bundle::new().payload(&["pid"]).run().ok().json();
    assert_eq!(p, json!({"pid": 1, "ppid": 0, "pgid": 1, "sid": 1}));
}
