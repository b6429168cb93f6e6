//! Kernels that lack a system call, or hosts whose own filter refuses it: a fallback, or one clear line.

use crate::support::*;

tests![fallbacks, refused_by_name, exec_without];

/// What husk does without.
const SPARED: [&str; 3] = ["memfd_create", "keyctl", "statx"];

/// What it needs, and how it says so.
const NEEDED: [&str; 8] = [
    "openat2",
    "clone3",
    "fsopen",
    "mount_setattr",
    "move_mount",
    "pidfd_open",
    "close_range",
    "pidfd_send_signal",
];

fn without(cmd: Cmd, call: &str) -> Cmd {
    husk_only("others have needs of their own");
    cmd.without(call)
}

fn fallbacks() {
    let b = Bundle::new().payload(&["echo", "hello"]);
    for call in SPARED {
        let c = b.container();
        let o = without(c.cmd("run", &[]), call).run().ok();
        assert_eq!(o.line(), "hello", "{call}: {o}");
    }
}

fn refused_by_name() {
    let b = Bundle::new().payload(&["echo", "hello"]);
    for call in NEEDED {
        let c = b.container();
        let o = without(c.cmd("run", &[]), call).run();
        if o.code == 0 {
            assert_eq!(o.line(), "hello", "{call}: {o}");
            c.cmd0("delete").arg("--force").run().ok();
            continue;
        }
        let o = o.fails(1, &["function not implemented"]);
        assert_eq!(o.err.lines().count(), 1, "{call}: {o}");
        c.cmd0("state").run().fails(1, &["does not exist"]);
        assert!(!c.cgroup_dir().exists(), "{call}");
    }
}

fn exec_without() {
    let c = Bundle::new().start();
    for call in SPARED.iter().chain(&NEEDED) {
        let o = without(c.exec_cmd(&[], &["echo", "hello"]), call).run();
        if o.code != 0 {
            let o = o.fails(255, &["function not implemented"]);
            assert_eq!(o.err.lines().count(), 1, "{call}: {o}");
        }
    }
    without(c.cmd0("state"), "openat2").run().ok();
    without(c.cmd0("kill"), "pidfd_send_signal")
        .run()
        .fails(1, &["send signal", "function not implemented"]);
}
