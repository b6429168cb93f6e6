//! husk in a container that husk made, with a cgroup of its own to divide.

use crate::support::bundle::PAYLOAD;
use crate::support::*;

tests![
    limits_of_an_inner_container,
    exec_follows_the_first_process,
    without_limits_nothing_moves,
    runc_in_a_container,
    podman_in_a_container,
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

/// All that the kernel has, as --privileged gives it.
fn all_capabilities() -> Vec<String> {
    let o = Cmd::runtime().arg("features").run().ok();
    let all = o.json()["linux"]["capabilities"].clone();
    serde_json::from_value(all).expect("names")
}

/// A container with this machine's programs. Its shell moves out of the root of its cgroups, as the images do that engines run
/// in, and goes on with a script.
fn with_programs(script: &str) -> Bundle {
    husk_only("the root is an overlay of husk's own");
    let all = all_capabilities();
    let names: Vec<&str> = all.iter().map(String::as_str).collect();
    let leaf = "mkdir /sys/fs/cgroup/own && echo 1 >/sys/fs/cgroup/own/cgroup.procs && ";
    let lists = ["maskedPaths", "readonlyPaths"].map(|l| format!("/linux/{l}"));
    let b = Bundle::new()
        .writable()
        .set(
            "/annotations",
            json!({"dev.husk.overlay.lower": "/", "dev.husk.overlay.tmpfs": "true"}),
        )
        .edit_mount("/sys/fs/cgroup", |m| m["options"] = json!(["nosuid"]))
        .capabilities(&["bounding", "effective", "permitted"], &names)
        .set("/process/noNewPrivileges", json!(false))
        .set(
            "/process/args",
            json!(["/bin/sh", "-ec", format!("{leaf}{script}")]),
        )
        .mount("/run", "tmpfs", "tmpfs", &[])
        .set(
            "/linux/resources",
            json!({"devices": [{"allow": true, "access": "rwm"}]}),
        );
    lists.iter().fold(b, |b, list| b.set(list, json!([])))
}

/// What the payload of an inner container says of its limit.
const LIMIT: &str = "/sys/fs/cgroup/memory.max";

fn runc_in_a_container() {
    needs(&[Controller("memory"), File("/usr/sbin/runc")]);
    let inner = limited().payload(&["cat", LIMIT]);
    inner.save();
    let b = with_programs("exec runc --root /run/r run --bundle /mnt box").bind(
        &inner.dir,
        "/mnt",
        &["rbind", "exec"],
    );
    assert_eq!(b.run().ok().line(), (50 << 20).to_string());
}

fn podman_in_a_container() {
    needs(&[Controller("memory"), File("/usr/bin/podman")]);
    let inner = Bundle::new();
    let script = format!(
        "exec podman --root /run/p --runroot /run/q --storage-driver vfs --cgroup-manager cgroupfs run --rm --quiet \
         --network none --memory 50m --log-driver none --rootfs /mnt {PAYLOAD} cat {LIMIT}"
    );
    let b = with_programs(&script).bind(inner.rootfs(), "/mnt", &["exec", "rw"]);
    assert_eq!(b.run().ok().line(), (50 << 20).to_string());
}
