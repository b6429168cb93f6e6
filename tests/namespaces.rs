//! linux.namespaces: new, joined by path, or the host's; and what lives in them.

use crate::payload::namespaces;
use crate::support::*;
use nix::sched::CloneFlags;
use std::fs::File;

tests![
    new_ones_differ_from_the_host,
    absent_ones_are_the_host,
    joined_by_path,
    joined_all_but_mount,
    exec_is_in_all_of_them,
    duplicate_is_refused,
    unknown_is_refused,
    path_of_another_kind_is_refused,
    path_missing_is_refused,
    path_empty_is_new,
    pid_one,
    pid_joined,
    mounts_are_of_the_containers_network,
    lo_is_up,
    hostname,
    hostname_needs_uts,
    domainname,
    cgroup_root,
    user_maps,
    user_maps_of_an_unprivileged_process,
    user_maps_missing,
    user_without_mapping_is_refused,
    user_maps_without_namespace,
    user_files_are_shifted,
    user_joined,
    joined_without_a_way_back,
    time_offsets,
    time_offsets_need_the_namespace,
    time_and_user,
    no_mount_namespace,
    ipc_and_mqueue,
];

const KINDS: [(&str, &str); 8] = [
    ("cgroup", "cgroup"),
    ("ipc", "ipc"),
    ("mount", "mnt"),
    ("network", "net"),
    ("pid", "pid"),
    ("time", "time"),
    ("user", "user"),
    ("uts", "uts"),
];

fn own() -> Value {
    namespaces("/proc/self/ns").unwrap()
}

fn new_ones_differ_from_the_host() {
    let b = || Bundle::new().namespace("time", None).payload(&["ns"]);
    for (b, user) in [(b(), "host's"), (b().user_namespace(100_000), "new")] {
        let (ours, theirs) = (own(), b.run().ok().json());
        for (kind, file) in KINDS {
            let is_new = ours[file] != theirs[file];
            assert_eq!(
                is_new,
                kind != "user" || user == "new",
                "{kind}, user namespace: {user}"
            );
        }
    }
}

fn absent_ones_are_the_host() {
    let mut b = Bundle::new().payload(&["ns"]).remove("/hostname");
    for kind in ["pid", "network", "ipc", "uts", "cgroup"] {
        b = b.without_namespace(kind);
    }
    // a new mqueue needs an IPC namespace of the same user namespace: it has one, the host's
    let (ours, theirs) = (own(), b.run().ok().json());
    for (kind, file) in KINDS {
        if kind == "mount" {
            assert_ne!(ours[file], theirs[file]);
        } else {
            assert_eq!(ours[file], theirs[file], "{kind}");
        }
    }
}

fn joined_by_path() {
    let first = Bundle::new().namespace("time", None).start();
    let ns = namespaces(&format!("/proc/{}/ns", first.pid())).unwrap();
    for (kind, file) in KINDS {
        if ["mount", "user", "pid"].contains(&kind) {
            continue;
        }
        let path = format!("/proc/{}/ns/{file}", first.pid());
        let b = Bundle::new().namespace(kind, Some(&path)).payload(&["ns"]);
        let b = if kind == "uts" {
            b.remove("/hostname")
        } else {
            b
        };
        let got = b.run().ok().json();
        assert_eq!(got[file], ns[file], "{kind}");
        let others = KINDS
            .iter()
            .filter(|(k, _)| *k != kind && !["user", "time"].contains(k));
        for (k, f) in others {
            assert_ne!(got[*f], ns[*f], "{k} while joining {kind}");
        }
    }
}

fn joined_all_but_mount() {
    let first = Bundle::new()
        .user_namespace(100_000)
        .namespace("time", None)
        .start();
    let ns = namespaces(&format!("/proc/{}/ns", first.pid())).unwrap();
    let mut b = Bundle::new().remove("/hostname");
    for (kind, file) in KINDS.iter().filter(|(k, _)| *k != "mount") {
        b = b.namespace(kind, Some(&format!("/proc/{}/ns/{file}", first.pid())));
    }
    let second = b.start();
    let got = namespaces(&format!("/proc/{}/ns", second.pid())).unwrap();
    let exec = second.exec(&[], &["ns"]).ok().json();
    for (kind, file) in KINDS {
        if kind == "mount" {
            assert_ne!(got[file], ns[file]);
        } else {
            assert_eq!(got[file], ns[file], "{kind}");
        }
        assert_eq!(exec[file], got[file], "{kind} of exec");
    }
    assert_eq!(second.stop(), 0);
    assert_eq!(
        first.status(),
        "running",
        "the end of one leaves the other alone"
    );
}

fn exec_is_in_all_of_them() {
    let b = Bundle::new()
        .user_namespace(100_000)
        .namespace("time", None);
    let c = b.start();
    let ns = namespaces(&format!("/proc/{}/ns", c.pid())).unwrap();
    assert_eq!(c.exec(&[], &["ns"]).ok().json(), ns);
}

fn duplicate_is_refused() {
    Bundle::new()
        .push("/linux/namespaces", json!({"type": "pid"}))
        .refused(&["pid"]);
}

fn unknown_is_refused() {
    Bundle::new()
        .push("/linux/namespaces", json!({"type": "dreams"}))
        .refused(&["dreams"]);
}

fn path_of_another_kind_is_refused() {
    runc_fails("its first process may end before its message is read");
    let b = Bundle::new()
        .remove("/hostname")
        .namespace("uts", Some("/proc/self/ns/net"));
    b.refused(&["invalid argument"]);
    std::fs::write("file", "").unwrap();
    let b = Bundle::new().namespace("network", Some(dir().join("file").to_str().unwrap()));
    b.refused(&["invalid argument"]);
}

fn path_missing_is_refused() {
    let b = Bundle::new().namespace("network", Some("/nowhere/net"));
    b.refused(&["/nowhere/net", "no such file or directory"]);
}

/// Written by engines that mean a new one.
fn path_empty_is_new() {
    let b = Bundle::new()
        .namespace("network", Some(""))
        .payload(&["ns"]);
    assert_ne!(b.run().ok().json()["net"], own()["net"]);
}

fn pid_one() {
    let o = Bundle::new().payload(&["pid"]).run().ok();
    assert_eq!(o.json()["pid"], 1);
    let c = Bundle::new()
        .without_namespace("pid")
        .payload(&["pid", ";", "wait"])
        .start();
    let line = c.out().lines().next().unwrap().to_string();
    let pids: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(pids["pid"], json!(c.pid()));
}

fn pid_joined() {
    let first = Bundle::new().start();
    let path = format!("/proc/{}/ns/pid", first.pid());
    let second = Bundle::new()
        .namespace("pid", Some(&path))
        .payload(&["pid", ";", "wait"])
        .start();
    let line = second.out().lines().next().unwrap().to_string();
    let pids: Value = serde_json::from_str(&line).unwrap();
    assert!(pids["pid"].as_i64().unwrap() > 1, "{pids}");
    // one that ends must not take the other along
    second.kill("KILL").ok();
    second.wait_status("stopped");
    assert_eq!(first.status(), "running");
    second.delete();
    // process 1 of the namespace ends, and all in it
    let third = Bundle::new().namespace("pid", Some(&path)).start();
    first.kill("KILL").ok();
    third.wait_status("stopped");
}

/// Also those before sysfs, which shows the network.
fn mounts_are_of_the_containers_network() {
    let verbs = [
        "ns", ";", "stat", "/before", "/after", ";", "cat", "/devices",
    ];
    let b = Bundle::new().payload(&verbs);
    let mut mounts = b.config["mounts"].as_array().unwrap().clone();
    let bind = |source: &str, at: &str| json!({"destination": at, "type": "bind", "source": source, "options": ["bind"]});
    mounts.insert(0, bind("/proc/self/ns/net", "/before"));
    mounts.insert(0, bind("/proc/self/net/dev", "/devices"));
    mounts.push(bind("/proc/self/ns/net", "/after"));
    let o = b.set("/mounts", json!(mounts)).run().ok();
    let line = |n: usize| serde_json::from_str::<Value>(o.lines()[n]).unwrap();
    let own = format!("net:[{}]", line(1)["ino"]);
    assert_eq!(line(0)["net"], json!(own), "{o}");
    assert_eq!(line(1)["ino"], line(2)["ino"], "{o}");
    let devices: Vec<_> = o.lines()[3..]
        .iter()
        .filter_map(|l| l.split_once(':'))
        .collect();
    assert_eq!(devices.len(), 1, "{o}");
    assert_eq!(devices[0].0.trim(), "lo");
}

fn lo_is_up() {
    let b = || Bundle::new().payload(&["lo"]);
    for b in [b(), b().user_namespace(100_000)] {
        assert_eq!(b.run().ok().line(), "up");
    }
}

fn hostname() {
    let b = Bundle::new()
        .payload(&["uname"])
        .set("/hostname", json!("a.long-name"));
    assert_eq!(b.run().ok().json()["nodename"], "a.long-name");
    assert_ne!(nix::unistd::gethostname().unwrap(), "a.long-name");
    let b = b.set("/hostname", json!("x".repeat(65)));
    b.refused(&["hostname"]);
}

fn hostname_needs_uts() {
    Bundle::new()
        .without_namespace("uts")
        .refused(&["hostname", "uts"]);
}

fn domainname() {
    let b = Bundle::new()
        .payload(&["uname"])
        .set("/domainname", json!("example.org"));
    assert_eq!(b.run().ok().json()["domainname"], "example.org");
    Bundle::new()
        .without_namespace("uts")
        .remove("/hostname")
        .set("/domainname", json!("example.org"))
        .refused(&["domainname", "uts"]);
}

fn cgroup_root() {
    let o = Bundle::new()
        .payload(&["cat", "/proc/self/cgroup"])
        .run()
        .ok();
    assert_eq!(o.lines().last(), Some(&"0::/"));
    let b = Bundle::new()
        .without_namespace("cgroup")
        .payload(&["cat", "/proc/self/cgroup"]);
    let c = b.container();
    let o = c.cmd("run", &[]).run().ok();
    let want = format!("0::/{}/{}", cgroup().display(), c.id);
    assert_eq!(o.lines().last(), Some(&want.as_str()));
}

/// The words of a file of numbers.
fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

fn user_maps() {
    let b = Bundle::new()
        .user_namespace(100_000)
        .set(
            "/linux/gidMappings",
            json!([
                {"containerID": 0, "hostID": 200_000, "size": 1000},
                {"containerID": 1000, "hostID": 300_000, "size": 5000}
            ]),
        )
        .payload(&[
            "cat",
            "/proc/self/uid_map",
            ";",
            "cat",
            "/proc/self/gid_map",
            ";",
            "ids",
        ]);
    let o = b.run().ok();
    assert_eq!(words(o.lines()[0]), ["0", "100000", "65536"]);
    assert_eq!(words(o.lines()[1]), ["0", "200000", "1000"]);
    assert_eq!(words(o.lines()[2]), ["1000", "300000", "5000"]);
    let ids: Value = serde_json::from_str(o.lines()[3]).unwrap();
    assert_eq!(
        (&ids["uid"], &ids["gid"]),
        (&json!([0, 0, 0]), &json!([0, 0, 0]))
    );
}

fn user_maps_of_an_unprivileged_process() {
    let user = json!({"uid": 1000, "gid": 1000, "additionalGids": [50]});
    let c = Bundle::new()
        .user_namespace(100_000)
        .set("/process/user", user)
        .start();
    let status = std::fs::read_to_string(format!("/proc/{}/status", c.pid())).unwrap();
    let line = |n: &str| {
        status
            .lines()
            .find_map(|l| l.strip_prefix(n))
            .unwrap()
            .trim()
            .to_string()
    };
    assert_eq!(words(&line("Uid:")), ["101000"; 4]);
    assert_eq!(words(&line("Gid:")), ["101000"; 4]);
    assert_eq!(words(&line("Groups:")), ["100050"]);
}

fn user_maps_missing() {
    Bundle::new()
        .namespace("user", None)
        .refused(&["uid", "mapping"]);
}

fn user_without_mapping_is_refused() {
    runc_fails("its message speaks of /dev/stdin");
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 10}]);
    Bundle::new()
        .namespace("user", None)
        .set("/linux/uidMappings", map.clone())
        .set("/linux/gidMappings", map)
        .set("/process/user", json!({"uid": 4000, "gid": 0}))
        .payload(&["true"])
        .refused(&["uid"]);
}

fn user_maps_without_namespace() {
    runc_fails("it ignores them");
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 10}]);
    Bundle::new()
        .set("/linux/uidMappings", map)
        .refused(&["mappings", "user namespace"]);
}

fn user_files_are_shifted() {
    let b = Bundle::new()
        .user_namespace(100_000)
        .mkdir("/data")
        .writable()
        .payload(&[
            "stat",
            "/",
            "/data",
            "/dev/null",
            "/dev/pts",
            "/dev/shm",
            ";",
            "write",
            "/data/new",
            "text",
        ]);
    let data = b.rootfs().join("data");
    std::os::unix::fs::chown(&data, Some(100_000), Some(100_000)).unwrap();
    let o = b.run().ok();
    let uids: Vec<Value> = o.lines()[..5]
        .iter()
        .map(|l| serde_json::from_str::<Value>(l).unwrap()["uid"].clone())
        .collect();
    // the rootfs is root's on the host, who is nobody in there; device nodes are the host's, bound
    assert_eq!(
        uids,
        [json!(65534), json!(0), json!(65534), json!(0), json!(0)]
    );
    let new = std::fs::metadata(data.join("new")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&new), 100_000);
}

fn user_joined() {
    let first = Bundle::new().user_namespace(100_000).start();
    let path = format!("/proc/{}/ns/user", first.pid());
    let b = Bundle::new().namespace("user", Some(&path)).payload(&[
        "ns",
        ";",
        "cat",
        "/proc/self/uid_map",
        ";",
        "ids",
    ]);
    let o = b.run().ok();
    let ns: Value = serde_json::from_str(o.lines()[0]).unwrap();
    let of_first = namespaces(&format!("/proc/{}/ns", first.pid())).unwrap();
    assert_eq!(ns["user"], of_first["user"]);
    assert_ne!(ns["net"], of_first["net"]);
    assert_eq!(words(o.lines()[1]), ["0", "100000", "65536"]);
    // maps are for new ones
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 10}]);
    b.set("/linux/uidMappings", map).refused(&["mapping"]);
}

/// As below rootless Podman: husk is root of a user namespace, which owns the network that is joined, but not husk's own.
fn joined_without_a_way_back() {
    let first = Bundle::new().user_namespace(0).start();
    let ns = format!("/proc/{}/ns", first.pid());
    let b = Bundle::new()
        .namespace("network", Some(&format!("{ns}/net")))
        .payload(&["ns"]);
    let c = b.container();
    let mut cmd = c.cmd("run", &[]);
    let user = File::open(format!("{ns}/user")).expect("a user namespace");
    let enter = move || Ok(nix::sched::setns(&user, CloneFlags::CLONE_NEWUSER)?);
    // SAFETY: one system call
    unsafe { std::os::unix::process::CommandExt::pre_exec(cmd.command(), enter) };
    let got = cmd.run().ok().json();
    let of_first = namespaces(&ns).unwrap();
    assert_eq!(
        (&got["net"], &got["user"]),
        (&of_first["net"], &of_first["user"])
    );
    assert_ne!(got["mnt"], of_first["mnt"]);
}

fn time_offsets() {
    let offsets = json!({"monotonic": {"secs": 1_000_000, "nanosecs": 0}, "boottime": {"secs": 2_000_000, "nanosecs": 5}});
    let b = Bundle::new()
        .namespace("time", None)
        .set("/linux/timeOffsets", offsets)
        .payload(&[
            "clock",
            ";",
            "cat",
            "/proc/self/timens_offsets",
            ";",
            "wait",
        ]);
    let c = b.start();
    let out = c.out();
    let clock: Value = serde_json::from_str(out.lines().next().unwrap()).unwrap();
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
    let uptime: f64 = words(&uptime)[0].parse().unwrap();
    let ahead = |c: &str| clock[c].as_f64().unwrap() - uptime;
    assert!((ahead("monotonic") - 1_000_000.0).abs() < 100.0, "{out}");
    assert!((ahead("boottime") - 2_000_000.0).abs() < 100.0, "{out}");
    let offsets: Vec<&str> = out.lines().skip(1).take(2).collect();
    assert_eq!(words(offsets[1]), ["boottime", "2000000", "5"]);
    let exec = c.exec(&[], &["cat", "/proc/self/timens_offsets"]).ok();
    assert_eq!(exec.lines(), offsets, "of exec");
}

fn time_offsets_need_the_namespace() {
    let offsets = json!({"monotonic": {"secs": 1, "nanosecs": 0}});
    Bundle::new()
        .set("/linux/timeOffsets", offsets.clone())
        .refused(&["time", "namespace"]);
    let path = "/proc/self/ns/time";
    let b = Bundle::new()
        .namespace("time", Some(path))
        .set("/linux/timeOffsets", offsets);
    b.refused(&["time", "namespace"]);
}

fn time_and_user() {
    let offsets = json!({"boottime": {"secs": 77, "nanosecs": 0}});
    let b = Bundle::new()
        .user_namespace(100_000)
        .namespace("time", None)
        .set("/linux/timeOffsets", offsets)
        .payload(&["cat", "/proc/self/timens_offsets"]);
    let o = b.run().ok();
    assert_eq!(words(o.lines()[0]), ["monotonic", "0", "0"]);
    assert_eq!(words(o.lines()[1]), ["boottime", "77", "0"]);
}

/// Only chroot(2) is left then. Nothing may be mounted, the guard sees to that.
fn no_mount_namespace() {
    runc_fails("it binds the rootfs onto itself on the host, and leaves that there");
    let b = Bundle::new()
        .without_namespace("mount")
        .without_namespace("cgroup")
        .set("/mounts", json!([]))
        .set("/linux/maskedPaths", json!([]))
        .set("/linux/readonlyPaths", json!([]))
        .writable()
        .payload(&["ls", "/"]);
    let o = b.run().ok();
    assert_eq!(
        o.lines(),
        ["bin", "dev", "etc", "proc", "root", "sys", "tmp"]
    );
}

fn ipc_and_mqueue() {
    let o = Bundle::new()
        .payload(&["ls", "/dev/mqueue", ";", "statfs", "/dev/mqueue"])
        .run()
        .ok();
    assert_eq!(
        o.line(),
        "0x19800202",
        "MQUEUE_MAGIC, and no queues of the host"
    );
}
