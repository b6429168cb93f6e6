//! Kernels that lack a system call, or hosts whose own filter refuses it: a fallback, or one clear line. That cgroup.kill is missing, a file and no
//! call, is in faults.rs.

use crate::support::*;

tests![run_without, create_without, exec_without, delete_without];

/// What becomes of a husk without a call, or how its message begins.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    Works,
    Fails(&'static str),
}

use Then::*;

/// Call, `run` without it, `exec` without it.
const CALLS: [(&str, Then, Then); 16] = [
    ("memfd_create", Works, Works),
    ("keyctl", Works, Works),
    ("statx", Works, Works),
    ("pidfd_open", Works, Fails("pidfd_open")),
    ("pidfd_send_signal", Works, Works),
    ("openat2", Fails("openat2"), Works),
    (
        "clone3",
        Fails("make the container's process: clone3"),
        Fails("make a process in the container's cgroup: clone3"),
    ),
    (
        "fsopen",
        Fails("error mounting 'proc' to rootfs at '/proc' (mounts[0]): fsopen"),
        Works,
    ),
    (
        "fsconfig",
        Fails("error mounting 'proc' to rootfs at '/proc' (mounts[0]): fsconfig"),
        Works,
    ),
    (
        "fsmount",
        Fails("error mounting 'proc' to rootfs at '/proc' (mounts[0]): fsmount"),
        Works,
    ),
    ("open_tree", Fails("root.path: "), Works),
    (
        "mount_setattr",
        Fails("set the propagation of '/': mount_setattr"),
        Works,
    ),
    ("move_mount", Fails("move_mount ["), Works),
    (
        "close_range",
        Fails("close inherited descriptors: close_range"),
        Fails("close_range"),
    ),
    (
        "setns",
        Fails("come back to husk's network namespace: setns"),
        Fails("join the container's "),
    ),
    (
        "execveat",
        Fails("execute husk from its sealed place: execveat"),
        Fails("execute husk from its sealed place: execveat"),
    ),
];

fn without(cmd: Cmd, call: &str) -> Cmd {
    husk_only("others have needs of their own");
    cmd.without(call)
}

/// What a person is told: the step, the call, what to do.
#[track_caller]
fn refused(o: Output, code: i32, begin: &str, call: &str) {
    let o = o.fails(
        code,
        &["function not implemented; husk needs Linux 5.12 or later"],
    );
    let told = o.err.strip_prefix("error: ").unwrap_or(&o.err);
    assert!(told.contains(begin), "{call}: {o}");
    assert_eq!(o.err.lines().count(), 1, "{call}: {o}");
}

fn run_without() {
    let b = Bundle::new().payload(&["echo", "hello"]);
    for (call, then, _) in CALLS {
        let c = b.container();
        let o = without(c.cmd("run", &[]), call).run();
        match then {
            Works => {
                let o = o.ok();
                assert_eq!((o.line(), o.err.as_str()), ("hello", ""), "{call}: {o}");
            }
            Fails(begin) => refused(o, 1, begin, call),
        }
        c.cmd0("state").run().fails(1, &["does not exist"]);
        assert!(!c.cgroup_dir().exists(), "{call}");
    }
}

fn create_without() {
    let b = Bundle::new();
    for (call, then, _) in CALLS {
        let mut c = b.container();
        let cmd = without(c.cmd("create", &[]), call);
        let o = c.creates(cmd);
        if o.code == 0 {
            assert!(then == Works, "{call}: {o}");
            c.start();
        } else {
            assert!(then != Works, "{call}: {o}");
            assert!(!c.cgroup_dir().exists(), "{call}");
            c.forget();
        }
    }
}

fn exec_without() {
    let c = Bundle::new().start();
    for (call, _, then) in CALLS {
        let o = without(c.exec_cmd(&[], &["echo", "hello"]), call).run();
        match then {
            Works => assert_eq!(o.ok().line(), "hello", "{call}"),
            Fails(begin) => refused(o, 255, begin, call),
        }
    }
}

/// Who cannot kill a container can still say so, and look at it, and delete one that has ended.
fn delete_without() {
    let c = Bundle::new().start();
    without(c.cmd0("state"), "openat2").run().ok();
    let o = without(c.cmd0("kill"), "pidfd_send_signal").run();
    refused(o, 1, "send signal", "pidfd_send_signal");
    let o = without(c.cmd0("kill"), "pidfd_open").run();
    refused(o, 1, "pidfd_open", "pidfd_open");
    c.stop();
    without(c.cmd0("delete"), "pidfd_open").run().ok();
    assert!(!c.cgroup_dir().exists());
    c.forget();
}
