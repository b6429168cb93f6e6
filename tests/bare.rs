//! The tree made outside of any mount namespace, and attached in an empty one (Linux 7.0): where that is the way, where it is not, and that
//! nobody can tell.

use crate::support::mountinfo::{self, Mount, Unmount};
use crate::support::*;
use husk::plan::seccomp::numbers::CALLS;
use nix::mount::{MsFlags, mount};
use std::fs;
use std::path::Path;

tests![
    it_is_the_usual_way,
    it_is_not_where_the_host_is_needed,
    it_gives_the_same_mounts,
    a_user_namespace_is_made_inside,
    binds_of_all_kinds,
    a_bound_mount_namespace_below_the_source,
    what_is_mounted_inside_stays_inside,
];

/// The calls of the process that becomes the container's, in their order.
fn calls(cmd: Cmd) -> Vec<&'static str> {
    let report = dir().join("report");
    cmd.inject("child", "count", 0, &report).run().ok();
    let text = fs::read_to_string(&report).expect("report");
    fs::remove_file(report).expect("report");
    let name = |number: &str| {
        let number: u32 = number.parse().expect("a number");
        CALLS.iter().find(|c| c.1[0] == number).map_or("?", |c| c.0)
    };
    text.lines().map(name).collect()
}

fn way(b: &Bundle, options: &[&str]) -> Vec<&'static str> {
    let b = b.clone().payload(&["true"]);
    let ways = ["setns", "unshare", "pivot_root", "umount2", "chroot"];
    let mut calls = calls(b.container().cmd("run", options));
    calls.retain(|c| ways.contains(c));
    // the namespaces that init makes each time, and the network's, which its parent makes
    assert_eq!(calls.remove(0), "unshare");
    calls.drain(..usize::from(calls[0] == "setns"));
    calls
}

const BARE: [&str; 2] = ["unshare", "chroot"];
const PIVOT: [&str; 2] = ["pivot_root", "umount2"];

fn needs_it() {
    husk_only("it is about husk's system calls");
    needs(&[Kernel(7, 1)]);
}

fn it_is_the_usual_way() {
    needs_it();
    fs::create_dir("source").unwrap();
    let b = Bundle::new();
    assert_eq!(way(&b, &[]), BARE);
    let b = b.bind(dir().join("source"), "/mnt", &["rbind", "rprivate"]);
    assert_eq!(way(&b.set("/root/readonly", json!(true)), &[]), BARE);
    // what these run, and how, has nothing to do with it
    let hook = json!({"path": "/bin/true"});
    let b = Bundle::new().hook("poststop", hook.clone());
    assert_eq!(way(&b.hook("poststart", hook), &[]), BARE);
}

fn it_is_not_where_the_host_is_needed() {
    needs_it();
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let b = Bundle::new().hook(kind, json!({"path": "/bin/true"}));
        assert_eq!(way(&b, &[]), PIVOT, "{kind}");
    }
    for propagation in ["slave", "shared", "rshared", "rprivate"] {
        let b = Bundle::new().set("/linux/rootfsPropagation", json!(propagation));
        assert_eq!(way(&b, &[]), PIVOT, "{propagation}");
    }
    assert_eq!(way(&Bundle::new().user_namespace(100_000), &[]), PIVOT);
    let b = Bundle::new().mkdir("own");
    let own = b.rootfs().join("own");
    assert_eq!(way(&b.clone().bind(own, "/mnt", &[]), &[]), PIVOT);
    let b = b.mount("/dev/shm", "tmpfs", "", &["remount", "ro"]);
    assert_eq!(way(&b, &[]), PIVOT);
    let moved = way(&Bundle::new(), &["--no-pivot"]);
    assert!(!moved.contains(&"unshare"), "{moved:?}");
}

/// The container's mounts, without what the kernel numbers.
fn seen(cmd: Cmd) -> (Vec<String>, String) {
    let o = cmd.run().ok();
    assert!(o.out.ends_with("\n5000\n"), "{o}");
    let line = |m: &Mount| {
        let Mount {
            target,
            fstype,
            options,
            propagation,
            ..
        } = m;
        format!("{target} {fstype} {options:?} {propagation:?}")
    };
    let mounts = mountinfo::parse(&o.out);
    (mounts.iter().map(line).collect(), o.err)
}

/// Each way gives the same, and a fault at the last step leaves each time the next way to go.
fn it_gives_the_same_mounts() {
    needs_it();
    fs::create_dir_all("source/below").unwrap();
    let _below = tmpfs("source/below");
    let b = Bundle::new()
        .bind(dir().join("source"), "/mnt", &["rbind", "rprivate"])
        .bind("/dev/null", "/file", &["ro", "noexec"])
        .set("/linux/sysctl", json!({"kernel.msgmax": "5000"}))
        .set("/root/readonly", json!(true))
        .payload(&["cat", "/proc/self/mountinfo", "/proc/sys/kernel/msgmax"]);
    let run = |b: &Bundle| {
        let c = b.container();
        let options = ["--debug", "run", "--bundle"];
        Cmd::runtime().args(options).arg(&c.bundle).arg(&c.id)
    };
    let copied = "copying the host's mount namespace";
    let with_one = "copied the tree";
    let (bare, log) = seen(run(&b));
    assert!(!log.contains(copied) && !log.contains(with_one), "{log}");

    let hook = json!({"path": "/bin/true"});
    let (pivoted, _) = seen(run(&b.clone().hook("createContainer", hook)));
    assert_eq!(bare, pivoted);

    // Linux 7.0
    let failing = |b: &Bundle, call: &str, n: usize, errno: i32| {
        let calls = calls(run(b));
        let mut all = (1..).zip(&calls).filter(|(_, c)| **c == call);
        let (at, _) = all.nth(n - 1).expect(call);
        let report = dir().join("report");
        run(b).inject("child", &errno.to_string(), at, &report)
    };
    let without_empty = |b: &Bundle| failing(b, "unshare", 2, libc::EINVAL);
    let (with, log) = seen(without_empty(&b));
    assert!(log.contains(with_one) && !log.contains(copied), "{log}");
    assert_eq!(bare, with);

    // a source that cannot be attached
    let (with, log) = seen(failing(&b, "move_mount", 8, libc::ELOOP));
    assert!(log.contains(copied) && !log.contains(with_one), "{log}");
    assert_eq!(bare, with);

    // and where neither is allowed
    let b = b.without_namespace("network"); // or init would have another use for it
    let (with, log) = seen(without_empty(&b).without("setns"));
    assert!(log.contains(copied) && !log.contains(with_one), "{log}");
    assert_eq!(bare, with);
}

/// The kernel refuses one to who is in a chroot(2), which this root is not.
fn a_user_namespace_is_made_inside() {
    let sets = ["bounding", "effective", "permitted"];
    let b = Bundle::new()
        .capabilities(&sets, &["CAP_SYS_ADMIN", "CAP_SYS_CHROOT"])
        .payload(&["unshare", "user"]);
    assert_eq!(b.run().ok().line(), "ok");
}

fn tmpfs(path: impl AsRef<Path>) -> Unmount {
    fs::create_dir_all(&path).unwrap();
    let fs = Some("tmpfs");
    mount(fs, path.as_ref(), fs, MsFlags::empty(), None::<&str>).unwrap();
    Unmount(path.as_ref().to_owned())
}

fn propagate(path: &str, flags: MsFlags) {
    mount(None::<&str>, path, None::<&str>, flags, None::<&str>).unwrap();
}

/// By way of one another, through links, files and directories.
fn binds_of_all_kinds() {
    fs::create_dir_all("source/inner").unwrap();
    fs::write("source/inner/file", "text").unwrap();
    std::os::unix::fs::symlink("source/inner", "link").unwrap();
    let b = Bundle::new()
        .writable()
        .bind(dir().join("link"), "/a", &["rbind"])
        .bind(dir().join("source/inner/file"), "/a/deep/file", &["ro"])
        .mount("/a/tmp", "tmpfs", "tmpfs", &[])
        .bind("/proc/self/ns", "/a/tmp/ns", &["bind", "ro"])
        .payload(&["cat", "/a/file", ";", "cat", "/a/deep/file"]);
    assert_eq!(b.run().ok().out, "texttext");
    // what was made for the mounts is in the source, and the mounts are not
    assert_eq!(fs::read_to_string("source/inner/deep/file").unwrap(), "");
    assert!(fs::read_dir("source/inner/tmp").unwrap().next().is_none());
}

/// snapd does so in /run/snapd/ns: a copy of the host's mounts has none of them, and the kernel attaches no tree that has one.
fn a_bound_mount_namespace_below_the_source() {
    let _source = tmpfs("source");
    propagate("source", MsFlags::MS_PRIVATE);
    fs::write("source/pinned", "").unwrap();
    fs::write("source/beside", "text").unwrap();
    // the kernel takes a namespace of a lower number for an outer one, and each CPU counts for itself (Linux 6.18)
    let pin = |cpu: usize| {
        let unshare = ["unshare", "--mount=source/pinned", "true"];
        let on = ["--cpu-list", &cpu.to_string()];
        let o = Cmd::new("taskset").args(on).args(unshare).cwd(dir()).run();
        (o.code != 0).then_some(o.err)
    };
    let cpus = std::thread::available_parallelism().unwrap().get();
    let refused: Vec<_> = (0..cpus).map_while(pin).collect();
    assert!(refused.len() < cpus, "{refused:?}");
    let _pinned = Unmount(dir().join("source/pinned"));
    let b = Bundle::new()
        .writable()
        .mount("/before", "tmpfs", "tmpfs", &["ro"])
        .bind(dir().join("source"), "/mnt", &["rbind", "rslave"])
        .mount("/mnt/after", "tmpfs", "tmpfs", &["ro"])
        .payload(&["cat", "/mnt/pinned", "/mnt/beside", "/proc/self/mountinfo"]);
    let o = b.run().ok();
    let text = o.out.strip_prefix("text").expect("the file beside");
    let mounts = mountinfo::parse(text);
    for (target, option) in [("/before", "ro"), ("/mnt", "rw"), ("/mnt/after", "ro")] {
        let m = mountinfo::at(&mounts, target).unwrap_or_else(|| panic!("{target}: {o}"));
        assert!(m.has(option), "{m:?}");
    }
    assert!(mountinfo::at(&mounts, "/mnt/pinned").is_none());
}

/// The sources of binds are shared on most hosts.
fn what_is_mounted_inside_stays_inside() {
    let _source = tmpfs("source");
    propagate("source", MsFlags::MS_SHARED);
    fs::write("source/file", "").unwrap();
    fs::create_dir("source/dir").unwrap();
    let before = mountinfo::read().len();
    let sets = ["bounding", "effective", "permitted"];
    let source = |name: &str| dir().join("source").join(name);
    let c = Bundle::new()
        .writable()
        .capabilities(&sets, &["CAP_SYS_ADMIN"])
        .bind(source(""), "/mnt", &["rbind"])
        .bind(source("file"), "/file", &["bind"])
        .mount("/mnt/dir", "tmpfs", "tmpfs", &[])
        .start();
    c.exec(&[], &["mount", "tmpfs", "/mnt", "tmpfs", "0"]).ok();
    assert_eq!(mountinfo::read().len(), before);
    c.stop();
    assert_eq!(mountinfo::read().len(), before);
}
