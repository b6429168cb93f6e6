//! husk in a container that husk made, with a cgroup of its own to divide.

use crate::support::*;

tests![
    limits_of_an_inner_container,
    exec_follows_the_first_process,
    without_limits_nothing_moves,
];

/// A container whose pid 1 is the runtime, running another container in the directory /inner of its root.
fn outer(inner: &Bundle) -> Bundle {
    husk_only("others leave the processes where they are, and fail");
    inner.save();
    let capabilities = [
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "KILL",
        "MKNOD",
        "NET_ADMIN",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_ADMIN",
        "SYS_CHROOT",
        "SYS_PTRACE",
        "SYS_RESOURCE",
        "AUDIT_WRITE",
        "NET_BIND_SERVICE",
    ]
    .map(|c| format!("CAP_{c}"));
    let names: Vec<&str> = capabilities.iter().map(String::as_str).collect();
    let run = [
        "/bin/runtime",
        "--root",
        "/tmp/state",
        "run",
        "--bundle",
        "/inner",
        "box",
    ];
    Bundle::new()
        .writable()
        .mkdir("/inner")
        .bind(&inner.dir, "/inner", &["rbind", "exec"])
        .file("/bin/runtime", "", 0o755)
        .bind(process::runtime(), "/bin/runtime", &["exec"])
        .edit_mount("/sys/fs/cgroup", |m| m["options"] = json!(["nosuid"]))
        .capabilities(&["bounding", "effective", "permitted"], &names)
        .set("/process/noNewPrivileges", json!(false))
        .set("/process/args", json!(run))
}

fn limited() -> Bundle {
    let limits = json!({"memory": {"limit": 50 << 20}, "pids": {"limit": 20}});
    Bundle::new()
        .set("/linux/resources", limits)
        .set("/linux/cgroupsPath", json!("/box"))
}

fn limits_of_an_inner_container() {
    needs(&[Controller("memory"), Controller("pids")]);
    let c = outer(&limited()).create();
    c.start();
    c.wait_ready();
    assert_eq!(c.cgroup_file("box/memory.max"), (50 << 20).to_string());
    assert_eq!(c.cgroup_file("box/pids.max"), "20");
    assert_eq!(c.cgroup_file("box/cgroup.type"), "domain");
    assert_eq!(c.cgroup_file("cgroup.procs"), "", "none may be in there");
    assert_eq!(c.cgroup_file("leaf/cgroup.procs"), c.pid().to_string());
    // the inner one ends, and is removed
    assert_eq!(c.stop(), 0);
    assert!(!c.cgroup_dir().join("box").exists());
}

fn exec_follows_the_first_process() {
    needs(&[Controller("memory"), Controller("pids")]);
    let c = outer(&limited()).create();
    c.start();
    c.wait_ready();
    let o = c.exec(&[], &["cat", "/proc/self/cgroup"]).ok();
    assert_eq!(o.lines().last(), Some(&"0::/leaf"));
    let pids = Cmd::runtime()
        .args(["ps", "--format", "json", &c.id])
        .run()
        .ok();
    assert_eq!(pids.json().as_array().unwrap().len(), 2);
}

fn without_limits_nothing_moves() {
    let inner = Bundle::new()
        .remove("/linux/resources")
        .set("/linux/cgroupsPath", json!("/box"));
    let c = outer(&inner).create();
    c.start();
    c.wait_ready();
    assert_eq!(c.cgroup_file("cgroup.procs"), c.pid().to_string());
    assert!(!c.cgroup_file("box/cgroup.procs").is_empty());
}
