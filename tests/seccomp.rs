//! linux.seccomp: system calls refused, killed, or handed to an agent.

use crate::support::*;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;

tests![
    errno,
    errno_of_its_own,
    default_errno,
    kill,
    arguments,
    arguments_are_all_needed,
    unknown_calls_are_skipped,
    calls_newer_than_the_profile,
    without_no_new_privileges,
    exec_is_filtered_too,
    status_says_so,
    flags,
    bad_values_are_refused,
    notify,
    notify_exec,
    notify_for_all_or_write_is_refused,
    notify_without_agent,
    nothing_but_execve_follows_the_filter,
    execve_refused,
    start_container_hooks_are_filtered,
    no_capability_is_left_over,
    absent,
];

fn filtered(rules: Value) -> Bundle {
    Bundle::new().set(
        "/linux/seccomp",
        json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}),
    )
}

fn errno() {
    let b =
        filtered(json!([{"names": ["getcwd", "chmod", "fchmodat"], "action": "SCMP_ACT_ERRNO"}]));
    let o = b.payload(&["cwd", ";", "echo", "goes on"]).run().exits(1);
    assert_eq!(o.lines(), ["error EPERM", "goes on"]);
}

fn errno_of_its_own() {
    let rules = json!([
        {"names": ["getcwd"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
        {"names": ["personality"], "action": "SCMP_ACT_ERRNO", "errnoRet": 16}
    ]);
    let o = filtered(rules)
        .payload(&["cwd", ";", "personality"])
        .run()
        .exits(1);
    assert_eq!(o.lines(), ["error ENOSYS", "error EBUSY"]);
}

/// What the payload and the start of a program take, and what runc does when the filter is in place already.
#[rustfmt::skip]
const ENOUGH: &[&str] = &[
    "access", "arch_prctl", "brk", "capget", "capset", "chdir", "clone", "clone3", "close", "close_range", "dup", "dup2",
    "dup3", "epoll_create1", "epoll_ctl", "epoll_pwait", "eventfd2", "execve", "exit", "exit_group", "faccessat",
    "faccessat2", "fchdir", "fcntl", "fstat", "fstatfs", "futex", "getcwd", "getdents64", "getpid", "getppid", "getrandom",
    "gettid", "getuid", "ioctl", "kill", "lseek", "madvise", "mmap", "mprotect", "mremap", "munmap", "nanosleep",
    "newfstatat", "open", "openat", "openat2", "pipe2", "poll", "ppoll", "prctl", "prlimit64", "read", "readlink",
    "readlinkat", "rseq", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sched_getaffinity", "sched_yield",
    "set_robust_list", "set_tid_address", "setgid", "setgroups", "setuid", "sigaltstack", "stat", "statfs", "statx",
    "tgkill", "tkill", "umask", "unlinkat", "write", "writev",
];

fn default_errno() {
    let b = Bundle::new()
        .set(
            "/linux/seccomp",
            json!({
                "defaultAction": "SCMP_ACT_ERRNO",
                "defaultErrnoRet": 13,
                "syscalls": [{"names": ENOUGH, "action": "SCMP_ACT_ALLOW"}]
            }),
        )
        .payload(&["personality", ";", "echo", "goes on"]);
    b.run().exits(1).says("error EACCES\ngoes on\n");
}

fn kill() {
    for action in ["SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_TRAP"] {
        let b = filtered(json!([{"names": ["getcwd"], "action": action}]));
        let o = b.payload(&["cwd"]).run();
        assert_eq!(o.code, 128 + libc::SIGSYS, "{action}: {o}");
    }
}

fn arguments() {
    // personality(0xffffffff) is the payload's
    for (op, value, two, hit) in [
        ("SCMP_CMP_EQ", 0xffff_ffff_u64, 0, true),
        ("SCMP_CMP_EQ", 0, 0, false),
        ("SCMP_CMP_NE", 0, 0, true),
        ("SCMP_CMP_LT", 0xffff_ffff, 0, false),
        ("SCMP_CMP_LE", 0xffff_ffff, 0, true),
        ("SCMP_CMP_GE", 0xffff_ffff, 0, true),
        ("SCMP_CMP_GT", 0xffff_ffff, 0, false),
        ("SCMP_CMP_MASKED_EQ", 0xf0, 0xf0, true),
        ("SCMP_CMP_MASKED_EQ", 0xf0, 0x70, false),
    ] {
        let args = json!([{"index": 0, "value": value, "valueTwo": two, "op": op}]);
        let b =
            filtered(json!([{"names": ["personality"], "action": "SCMP_ACT_ERRNO", "args": args}]));
        let o = b.payload(&["personality"]).run();
        assert_eq!(o.code == 1, hit, "{op} {value:#x} {two:#x}: {o}");
    }
}

fn arguments_are_all_needed() {
    // alarm is of no use to the payload: syscall 37 with three numbers
    let rule = |second: u64| {
        json!([{"names": ["alarm"], "action": "SCMP_ACT_ERRNO", "args": [
            {"index": 0, "value": 0, "op": "SCMP_CMP_EQ"},
            {"index": 1, "value": second, "op": "SCMP_CMP_EQ"}
        ]}])
    };
    let verbs = ["syscall", "37", "0", "5"];
    assert_eq!(
        filtered(rule(5)).payload(&verbs).run().exits(1).line(),
        "error EPERM"
    );
    assert_eq!(filtered(rule(6)).payload(&verbs).run().ok().line(), "ok");
}

/// Profiles are written for newer tables than ours.
fn unknown_calls_are_skipped() {
    let b = filtered(json!([{"names": ["no_such_call", "getcwd"], "action": "SCMP_ACT_ERRNO"}]));
    assert_eq!(b.payload(&["cwd"]).run().exits(1).line(), "error EPERM");
}

/// A libc tries new calls and falls back on ENOSYS, but takes EPERM for an answer.
fn calls_newer_than_the_profile() {
    let b = Bundle::new()
        .set(
            "/linux/seccomp",
            json!({
                "defaultAction": "SCMP_ACT_ERRNO",
                "defaultErrnoRet": 1,
                "syscalls": [{"names": ENOUGH, "action": "SCMP_ACT_ALLOW"}]
            }),
        )
        .payload(&["syscall", "5000", ";", "personality"]);
    assert_eq!(b.run().exits(1).lines(), ["error ENOSYS", "error EPERM"]);
}

fn without_no_new_privileges() {
    let b = filtered(json!([{"names": ["personality"], "action": "SCMP_ACT_ERRNO"}]))
        .set("/process/noNewPrivileges", json!(false));
    let b = b.set("/process/user", json!({"uid": 1000, "gid": 1000}));
    let o = b
        .payload(&["personality", ";", "status"])
        .run()
        .exits(1)
        .says("error EPERM\n");
    let status: Value = serde_json::from_str(o.lines()[1]).unwrap();
    assert_eq!(
        status["NoNewPrivs"], "0",
        "the filter does not bring it along"
    );
}

fn exec_is_filtered_too() {
    let c = filtered(json!([{"names": ["getcwd"], "action": "SCMP_ACT_ERRNO"}])).start();
    assert_eq!(c.exec(&[], &["cwd"]).exits(1).line(), "error EPERM");
}

fn status_says_so() {
    let b =
        filtered(json!([{"names": ["getcwd"], "action": "SCMP_ACT_ERRNO"}])).payload(&["status"]);
    assert_eq!(b.run().ok().json()["Seccomp"], "2");
}

fn flags() {
    for flags in [
        json!([]),
        json!(["SECCOMP_FILTER_FLAG_LOG"]),
        json!([
            "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
            "SECCOMP_FILTER_FLAG_TSYNC"
        ]),
    ] {
        let b = filtered(json!([{"names": ["getcwd"], "action": "SCMP_ACT_ERRNO"}]))
            .set("/linux/seccomp/flags", flags);
        assert_eq!(b.payload(&["cwd"]).run().exits(1).line(), "error EPERM");
    }
}

fn bad_values_are_refused() {
    let rule = |action: &str| json!([{"names": ["getcwd"], "action": action}]);
    filtered(rule("SCMP_ACT_DANCE")).refused(&["SCMP_ACT_DANCE"]);
    filtered(rule("SCMP_ACT_ERRNO"))
        .set("/linux/seccomp/flags", json!(["SECCOMP_FILTER_FLAG_FUN"]))
        .refused(&["SECCOMP_FILTER_FLAG_FUN"]);
    filtered(rule("SCMP_ACT_ERRNO"))
        .set("/linux/seccomp/architectures", json!(["SCMP_ARCH_ABACUS"]))
        .refused(&["SCMP_ARCH_ABACUS"]);
    let args = json!([{"index": 0, "value": 1, "op": "SCMP_CMP_LIKE"}]);
    filtered(json!([{"names": ["getcwd"], "action": "SCMP_ACT_ERRNO", "args": args}]))
        .refused(&["SCMP_CMP_LIKE"]);
}

/// A bundle with an agent for getcwd.
fn notifying() -> (Bundle, UnixListener) {
    let path = dir().join("agent");
    let listener = UnixListener::bind(&path).unwrap();
    let b = filtered(json!([{"names": ["getcwd"], "action": "SCMP_ACT_NOTIFY"}]))
        .set("/linux/seccomp/listenerPath", json!(path))
        .set("/linux/seccomp/listenerMetadata", json!("some words"));
    (b, listener)
}

/// What the agent gets: the container process state, and descriptors.
fn agent(listener: &UnixListener) -> (Value, Vec<OwnedFd>) {
    let stream = pty::accept(listener);
    let mut text = vec![0; 65536];
    let mut space = nix::cmsg_space!([RawFd; 8]);
    let (count, fds) = {
        let mut iov = [IoSliceMut::new(&mut text)];
        let m = recvmsg::<()>(
            stream.as_raw_fd(),
            &mut iov,
            Some(&mut space),
            MsgFlags::empty(),
        )
        .unwrap();
        let mut fds: Vec<OwnedFd> = Vec::new();
        for c in m.cmsgs().unwrap() {
            if let ControlMessageOwned::ScmRights(all) = c {
                // SAFETY: the kernel has just made these for us.
                fds.extend(
                    all.into_iter()
                        .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }),
                );
            }
        }
        (m.bytes, fds)
    };
    let state: Value = serde_json::from_slice(&text[..count]).unwrap();
    assert_eq!(state["metadata"], "some words", "{state}");
    assert_eq!(state["fds"], json!(["seccompFd"]), "{state}");
    assert_eq!(fds.len(), 1);
    (state, fds)
}

/// The agent gets the filter's descriptor and the container's state; when it goes away, the call fails.
fn notify() {
    let (b, listener) = notifying();
    let c = b.payload(&["cwd"]).container();
    let run = c.cmd("run", &[]).spawn();
    let (state, fds) = agent(&listener);
    assert_eq!(state["state"]["id"], json!(c.id), "{state}");
    assert_eq!(state["state"]["status"], "creating", "{state}");
    assert_eq!(state["pid"], state["state"]["pid"], "{state}");
    drop(fds);
    assert_eq!(run.wait().exits(1).line(), "error ENOSYS");
}

fn notify_exec() {
    let (b, listener) = notifying();
    let mut c = b.container();
    let create = c.cmd("create", &[]).spawn();
    let (_, init) = agent(&listener);
    c.created_by(create).ok();
    c.start();
    let exec = c.exec_spawn(&[], &["cwd"]);
    let (state, fds) = agent(&listener);
    assert_eq!(state["state"]["status"], "running", "{state}");
    assert_eq!(state["state"]["pid"], json!(c.pid()), "{state}");
    assert_ne!(state["pid"], state["state"]["pid"], "{state}");
    drop(fds);
    assert_eq!(exec.wait().exits(1).line(), "error ENOSYS");
    drop(init);
}

/// Anybody can wait for an answer to these, but the process that hands over the listener.
fn notify_for_all_or_write_is_refused() {
    let (b, _listener) = notifying();
    b.clone()
        .set("/linux/seccomp/syscalls/0/names", json!(["write"]))
        .refused(&["SCMP_ACT_NOTIFY cannot be used for the write syscall"]);
    b.set("/linux/seccomp/defaultAction", json!("SCMP_ACT_NOTIFY"))
        .refused(&["SCMP_ACT_NOTIFY cannot be used as default action"]);
}

/// Every call that husk makes on the way to execve would kill it, were the filter there already.
fn nothing_but_execve_follows_the_filter() {
    husk_only("runc and crun make more calls than that");
    let calls = [
        "accept4",
        "capget",
        "capset",
        "chdir",
        "chroot",
        "close_range",
        "faccessat",
        "faccessat2",
        "fchdir",
        "fchownat",
        "getcwd",
        "getppid",
        "kill",
        "openat2",
        "prctl",
        "pread64",
        "prlimit64",
        "recvmsg",
        "sendmsg",
        "seccomp",
        "setgroups",
        "setresgid",
        "setresuid",
        "setsid",
        "statx",
        "umask",
        "unlinkat",
    ];
    let b = filtered(json!([{"names": calls, "action": "SCMP_ACT_KILL_PROCESS"}]));
    for no_new_privileges in [true, false] {
        let b = b
            .clone()
            .set("/process/noNewPrivileges", json!(no_new_privileges))
            .set("/process/user", json!({"uid": 1000, "gid": 1000}));
        b.clone()
            .payload(&["echo", "alive"])
            .run()
            .ok()
            .says("alive\n");
        let c = b.start();
        c.exec(&[], &["echo", "alive"]).ok().says("alive\n");
    }
}

/// A profile that does not let the container begin: the error gets out nevertheless.
fn execve_refused() {
    let b = filtered(json!([{"names": ["execve", "sendmsg"], "action": "SCMP_ACT_ERRNO"}]));
    b.refused(&["operation not permitted"]);
}

fn start_container_hooks_are_filtered() {
    let hook = json!({"path": "/bin/payload", "args": ["payload", "cwd"]});
    let b = filtered(json!([{"names": ["getcwd"], "action": "SCMP_ACT_KILL_PROCESS"}]));
    b.hook("startContainer", hook)
        .refused(&["error running startContainer hook", "bad system call"]);
}

/// CAP_SYS_ADMIN, which loading a filter takes, is not left behind.
fn no_capability_is_left_over() {
    let b = filtered(json!([{"names": ["acct"], "action": "SCMP_ACT_ERRNO"}]))
        .set("/process/noNewPrivileges", json!(false))
        .payload(&["status"]);
    for uid in [0, 1000] {
        let b = b
            .clone()
            .set("/process/user", json!({"uid": uid, "gid": 0}));
        let status = b.run().ok().json();
        for set in ["CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            let mask = u64::from_str_radix(status[set].as_str().unwrap(), 16).unwrap();
            assert_eq!(mask & 1 << 21, 0, "{uid} {set}: {status}");
        }
    }
}

fn notify_without_agent() {
    let b = filtered(json!([{"names": ["getcwd"], "action": "SCMP_ACT_NOTIFY"}]));
    b.clone()
        .set("/linux/seccomp/listenerPath", json!("/no/where"))
        .refused(&["seccomp", "/no/where"]);
    b.refused(&["listenerPath"]);
}

fn absent() {
    assert_eq!(
        Bundle::new().payload(&["status"]).run().ok().json()["Seccomp"],
        "0"
    );
}
