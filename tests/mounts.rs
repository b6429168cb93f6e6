//! mounts of config.json, as the container sees them.

use crate::support::mountinfo::{self, Mount, Unmount};
use crate::support::*;
use nix::mount::{MsFlags, mount};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;

tests![
    usual_mounts,
    flags_of_tmpfs,
    option_defaults,
    flags_of_a_bind,
    flags_of_the_source_are_kept,
    flags_of_the_super_block,
    unknown_options_go_to_the_file_system,
    bad_data_is_refused,
    unknown_type_is_refused,
    type_and_source_may_be_missing,
    bind_of_a_file,
    bind_of_a_directory,
    bind_of_a_symlink,
    bind_relative_to_the_bundle,
    bind_of_nothing_is_refused,
    bind_of_a_file_onto_a_directory_is_refused,
    bind_by_option_alone,
    bind_is_not_recursive,
    rbind_is_recursive,
    readonly_top_only,
    readonly_recursive,
    recursive_attributes,
    remount_later,
    target_is_made,
    target_below_another_mount,
    target_through_symlinks,
    target_symlink_cannot_lead_out,
    target_dangling_symlink,
    target_dot_dot,
    target_relative,
    target_twice,
    order_is_kept,
    tmpfs_takes_mode_of_the_directory,
    tmpfs_size,
    tmpcopyup,
    proc_as_symlink_is_refused,
    inside_proc_is_refused,
    inside_proc_is_allowed_for_lxcfs,
    propagation_default,
    propagation_of_a_mount,
    propagation_from_the_host,
    shared_does_not_reach_the_host,
    overlay_as_a_mount,
    overlay_with_missing_layer,
    idmap,
    idmap_of_a_tree,
    idmap_needs_mappings,
    idmap_of_the_containers_own_mounts,
    user_namespace_binds_what_only_root_reads,
    cgroup_read_only,
    cgroup_writable,
    cgroup_of_the_host_without_namespace,
    sysfs_without_network_namespace,
    nothing_is_left_when_a_mount_fails,
];

/// What the container sees.
fn inside(b: Bundle) -> Vec<Mount> {
    let o = b.payload(&["cat", "/proc/self/mountinfo"]).run().ok();
    mountinfo::parse(&o.out)
}

#[track_caller]
fn at<'a>(mounts: &'a [Mount], target: &str) -> &'a Mount {
    mountinfo::at(mounts, target).unwrap_or_else(|| panic!("no mount at {target}: {mounts:#?}"))
}

/// Mounts a tmpfs in this test's own mount namespace.
fn tmpfs(path: impl AsRef<Path>) -> Unmount {
    fs::create_dir_all(&path).unwrap();
    mount(
        Some("tmpfs"),
        path.as_ref(),
        Some("tmpfs"),
        MsFlags::empty(),
        None::<&str>,
    )
    .unwrap();
    Unmount(path.as_ref().to_owned())
}

fn propagate(path: &Path, flags: MsFlags) {
    mount(None::<&str>, path, None::<&str>, flags, None::<&str>).unwrap();
}

fn usual_mounts() {
    let mounts = inside(Bundle::new());
    for (target, fstype, options) in [
        ("/proc", "proc", &["rw", "relatime"][..]),
        ("/dev", "tmpfs", &["rw", "nosuid"]),
        ("/dev/pts", "devpts", &["rw", "nosuid", "noexec"]),
        ("/dev/shm", "tmpfs", &["rw", "nosuid", "nodev", "noexec"]),
        (
            "/dev/mqueue",
            "mqueue",
            &["rw", "nosuid", "nodev", "noexec"],
        ),
        ("/sys", "sysfs", &["ro", "nosuid", "nodev", "noexec"]),
        (
            "/sys/fs/cgroup",
            "cgroup2",
            &["ro", "nosuid", "nodev", "noexec"],
        ),
    ] {
        let m = at(&mounts, target);
        assert_eq!(m.fstype, fstype, "{target}");
        for option in options {
            assert!(m.has(option), "no {option}: {m:?}");
        }
    }
    assert!(at(&mounts, "/dev").super_has("mode=755"));
    assert!(at(&mounts, "/dev/pts").super_has("gid=5"));
    assert!(!at(&mounts, "/dev").has("relatime"), "strictatime");
    assert!(at(&mounts, "/").has("ro"));
}

fn flags_of_tmpfs() {
    let table: &[(&[&str], &[&str], &[&str])] = &[
        (&["ro"], &["ro"], &[]),
        (&["rw"], &["rw"], &[]),
        (&["nosuid"], &["nosuid"], &["nodev", "noexec"]),
        (&["nodev"], &["nodev"], &["nosuid"]),
        (&["noexec"], &["noexec"], &["nosuid"]),
        (&["noatime"], &["noatime"], &["relatime"]),
        (&["relatime"], &["relatime"], &[]),
        (&["strictatime"], &[], &["relatime", "noatime"]),
        (&["nodiratime"], &["nodiratime"], &[]),
        (&["nosymfollow"], &["nosymfollow"], &[]),
        (&["nosuid", "suid"], &["rw"], &["nosuid"]),
        (&["suid", "nosuid"], &["nosuid"], &[]),
        (
            &["noexec", "exec", "nodev", "dev"],
            &["rw"],
            &["noexec", "nodev"],
        ),
        (&["ro", "rw"], &["rw"], &["ro"]),
        (&["nosymfollow", "symfollow"], &["rw"], &["nosymfollow"]),
        (
            &["async", "diratime", "loud", "nomand"],
            &["rw"],
            &["nodiratime"],
        ),
    ];
    let mut b = Bundle::new();
    for (i, (options, _, _)) in table.iter().enumerate() {
        b = b.mount(&format!("/tmp/{i}"), "tmpfs", "tmpfs", options);
    }
    let b = b.mount("/tmp", "tmpfs", "tmpfs", &[]);
    // the tmpfs that holds the targets comes first
    let mut b = b;
    let list = b.config["mounts"].as_array_mut().unwrap();
    let last = list.pop().unwrap();
    list.insert(0, last);
    let mounts = inside(b);
    for (i, (options, with, without)) in table.iter().enumerate() {
        let m = at(&mounts, &format!("/tmp/{i}"));
        for o in *with {
            assert!(m.has(o), "{options:?}: no {o}: {m:?}");
        }
        for o in *without {
            assert!(!m.has(o), "{options:?}: {o}: {m:?}");
        }
    }
}

/// As in fstab(5).
fn option_defaults() {
    runc_fails("it gives `defaults` to the file system");
    let mounts = inside(
        Bundle::new()
            .writable()
            .mount("/mnt", "tmpfs", "tmpfs", &["defaults"]),
    );
    assert!(
        !["ro", "nosuid", "nodev", "noexec"]
            .iter()
            .any(|o| at(&mounts, "/mnt").has(o))
    );
}

fn flags_of_a_bind() {
    fs::create_dir("src").unwrap();
    let src = dir().join("src");
    let mut b = Bundle::new().writable();
    let options = [
        "ro",
        "nosuid",
        "nodev",
        "noexec",
        "noatime",
        "nodiratime",
        "nosymfollow",
    ];
    for o in options {
        b = b.bind(&src, &format!("/mnt/{o}"), &[o]);
    }
    let b = b.bind(&src, "/mnt/all", &options);
    let mounts = inside(b);
    for o in options {
        assert!(at(&mounts, &format!("/mnt/{o}")).has(o));
        assert!(at(&mounts, "/mnt/all").has(o), "{o}");
    }
    assert!(!at(&mounts, "/mnt/nodev").has("ro"));
}

/// A bind without flags has those of its source; one flag given, the others are as the config says.
fn flags_of_the_source_are_kept() {
    let _source = tmpfs("src");
    let src = dir().join("src");
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    propagate(&src, MsFlags::MS_REMOUNT | MsFlags::MS_BIND | flags);
    let b = Bundle::new()
        .writable()
        .bind(&src, "/mnt/plain", &[])
        .bind(&src, "/mnt/ro", &["ro"]);
    let mounts = inside(b);
    for o in ["nosuid", "nodev", "noexec"] {
        assert!(at(&mounts, "/mnt/plain").has(o), "{o}");
    }
    assert!(at(&mounts, "/mnt/ro").has("ro"));
}

fn flags_of_the_super_block() {
    let b = Bundle::new()
        .writable()
        .mount("/mnt/sync", "tmpfs", "tmpfs", &["sync"])
        .mount("/mnt/dirsync", "tmpfs", "tmpfs", &["dirsync"])
        .mount("/mnt/lazytime", "tmpfs", "tmpfs", &["lazytime"])
        .mount(
            "/mnt/none",
            "tmpfs",
            "tmpfs",
            &["lazytime", "nolazytime", "silent", "iversion", "noiversion"],
        );
    let mounts = inside(b);
    for o in ["sync", "dirsync", "lazytime"] {
        let m = at(&mounts, &format!("/mnt/{o}"));
        assert!(m.super_has(o), "{m:?}");
    }
    assert!(!at(&mounts, "/mnt/none").super_has("lazytime"));
}

fn unknown_options_go_to_the_file_system() {
    let b = Bundle::new().writable().mount(
        "/mnt",
        "tmpfs",
        "box",
        &["mode=710", "uid=7", "gid=8", "nr_inodes=100"],
    );
    let m = inside(b);
    let m = at(&m, "/mnt");
    for o in ["mode=710", "uid=7", "gid=8", "nr_inodes=100"] {
        assert!(m.super_has(o), "no {o}: {m:?}");
    }
    assert_eq!(m.source, "box");
}

fn bad_data_is_refused() {
    let b = Bundle::new()
        .writable()
        .mount("/mnt", "tmpfs", "tmpfs", &["no-such-option=1"]);
    b.refused(&["/mnt", "invalid argument"]);
}

fn unknown_type_is_refused() {
    let b = Bundle::new()
        .writable()
        .mount("/mnt", "nosuchfs", "none", &[]);
    b.refused(&["/mnt", "no such device"]);
}

/// proc(5) and others need no source.
fn type_and_source_may_be_missing() {
    let b = Bundle::new()
        .writable()
        .push("/mounts", json!({"destination": "/mnt", "type": "tmpfs"}));
    assert_eq!(at(&inside(b), "/mnt").fstype, "tmpfs");
    fs::create_dir("src").unwrap();
    let source = dir().join("src");
    let b = Bundle::new().writable();
    let b = b.push(
        "/mounts",
        json!({"destination": "/mnt", "source": source, "options": ["rbind"]}),
    );
    assert!(at(&inside(b), "/mnt").root.ends_with("/src"));
}

fn bind_of_a_file() {
    fs::write("file", "words").unwrap();
    let b = Bundle::new()
        .writable()
        .bind(dir().join("file"), "/made/file", &["ro"]);
    let b = b.payload(&[
        "cat",
        "/made/file",
        ";",
        "echo",
        ";",
        "write",
        "/made/file",
        "x",
    ]);
    let o = b.run().exits(1);
    assert_eq!(o.lines(), ["words", "error EROFS"]);
    assert!(
        b.rootfs().join("made/file").is_file(),
        "the missing target was made"
    );
}

fn bind_of_a_directory() {
    fs::create_dir("src").unwrap();
    let b = Bundle::new()
        .writable()
        .bind(dir().join("src"), "/made/dir", &[]);
    let b = b.payload(&["write", "/made/dir/file", "from inside"]);
    b.run().ok();
    assert_eq!(fs::read_to_string("src/file").unwrap(), "from inside");
    assert_eq!(
        fs::read_dir(b.rootfs().join("made/dir")).unwrap().count(),
        0
    );
}

/// The host's symlinks are followed on the host.
fn bind_of_a_symlink() {
    fs::create_dir("src").unwrap();
    fs::write("src/file", "words").unwrap();
    symlink("src", "link").unwrap();
    symlink(dir().join("src/file"), "absolute").unwrap();
    let b = Bundle::new()
        .writable()
        .bind(dir().join("link"), "/mnt/dir", &[])
        .bind(dir().join("absolute"), "/mnt/file", &[])
        .payload(&["ls", "/mnt/dir", ";", "cat", "/mnt/file"]);
    assert_eq!(b.run().ok().lines(), ["file", "words"]);
}

fn bind_relative_to_the_bundle() {
    let b = Bundle::new().writable();
    fs::create_dir(b.dir.join("data")).unwrap();
    fs::write(b.dir.join("data/file"), "words").unwrap();
    b.bind("data", "/mnt", &[])
        .payload(&["cat", "/mnt/file"])
        .run()
        .ok()
        .says("words");
}

fn bind_of_nothing_is_refused() {
    let b = Bundle::new().writable().bind("/no/where", "/mnt", &[]);
    b.refused(&["/no/where", "no such file or directory"]);
}

fn bind_of_a_file_onto_a_directory_is_refused() {
    fs::write("file", "").unwrap();
    // Docker gives advice when it reads "not a directory"
    Bundle::new()
        .bind(dir().join("file"), "/etc", &[])
        .refused(&["/etc", "not a directory"]);
}

fn bind_by_option_alone() {
    fs::create_dir("src").unwrap();
    // the type is a dummy then
    let b = Bundle::new().writable();
    let b = b.mount(
        "/mnt",
        "none",
        dir().join("src").to_str().unwrap(),
        &["bind"],
    );
    assert!(at(&inside(b), "/mnt").root.ends_with("/src"));
}

fn tree() -> (Unmount, std::path::PathBuf) {
    let outer = tmpfs("tree");
    fs::create_dir("tree/below").unwrap();
    let below = tmpfs("tree/below");
    std::mem::forget(below); // goes with the outer one
    (outer, dir().join("tree"))
}

fn bind_is_not_recursive() {
    let (_tree, path) = tree();
    let mounts = inside(Bundle::new().writable().bind(&path, "/mnt", &[]));
    at(&mounts, "/mnt");
    assert!(mountinfo::at(&mounts, "/mnt/below").is_none());
}

fn rbind_is_recursive() {
    let (_tree, path) = tree();
    let mounts = inside(Bundle::new().writable().mount(
        "/mnt",
        "bind",
        path.to_str().unwrap(),
        &["rbind"],
    ));
    assert_eq!(at(&mounts, "/mnt/below").fstype, "tmpfs");
}

fn readonly_top_only() {
    let (_tree, path) = tree();
    let mounts = inside(Bundle::new().writable().mount(
        "/mnt",
        "bind",
        path.to_str().unwrap(),
        &["rbind", "ro"],
    ));
    assert!(at(&mounts, "/mnt").has("ro"));
    assert!(at(&mounts, "/mnt/below").has("rw"));
}

fn readonly_recursive() {
    let (_tree, path) = tree();
    let mounts = inside(Bundle::new().writable().mount(
        "/mnt",
        "bind",
        path.to_str().unwrap(),
        &["rbind", "rro"],
    ));
    assert!(at(&mounts, "/mnt").has("ro"));
    assert!(at(&mounts, "/mnt/below").has("ro"));
    assert!(
        mountinfo::read()
            .iter()
            .filter(|m| m.target.contains("/tree"))
            .all(|m| m.has("rw")),
        "the source is as it was"
    );
}

fn recursive_attributes() {
    let (_tree, path) = tree();
    let src = path.to_str().unwrap();
    let table = [
        ("rnosuid", "nosuid"),
        ("rnodev", "nodev"),
        ("rnoexec", "noexec"),
        ("rnodiratime", "nodiratime"),
        ("rnoatime", "noatime"),
        ("rrelatime", "relatime"),
        ("rnosymfollow", "nosymfollow"),
    ];
    let mut b = Bundle::new().writable();
    for (option, _) in table {
        b = b.mount(&format!("/mnt/{option}"), "bind", src, &["rbind", option]);
    }
    let b = b.mount("/mnt/rstrictatime", "bind", src, &["rbind", "rstrictatime"]);
    let b = b.mount("/mnt/rrw", "bind", src, &["rbind", "ro", "rrw"]);
    let mounts = inside(b);
    for (option, seen) in table {
        for below in ["", "/below"] {
            let m = at(&mounts, &format!("/mnt/{option}{below}"));
            assert!(m.has(seen), "{option}: {m:?}");
        }
    }
    let m = at(&mounts, "/mnt/rstrictatime/below");
    assert!(!m.has("relatime") && !m.has("noatime"), "{m:?}");
    assert!(at(&mounts, "/mnt/rrw/below").has("rw"));
}

fn remount_later() {
    let b = Bundle::new()
        .writable()
        .mount("/mnt", "tmpfs", "tmpfs", &[])
        .mount("/mnt/below", "tmpfs", "tmpfs", &[])
        .mount("/mnt", "tmpfs", "tmpfs", &["remount", "ro"]);
    let mounts = inside(b);
    assert!(at(&mounts, "/mnt").has("ro"));
    assert!(at(&mounts, "/mnt/below").has("rw"));
    assert_eq!(mounts.iter().filter(|m| m.target == "/mnt").count(), 1);
}

fn target_is_made() {
    let b = Bundle::new()
        .writable()
        .mount("/a/b/c", "tmpfs", "tmpfs", &[]);
    let made = b.rootfs().join("a/b");
    at(&inside(b), "/a/b/c");
    let m = fs::metadata(&made).unwrap();
    assert_eq!((m.mode() & 0o7777, m.uid()), (0o755, 0));
}

fn target_below_another_mount() {
    fs::create_dir("src").unwrap();
    fs::write("file", "words").unwrap();
    let b = Bundle::new()
        .writable()
        .bind(dir().join("src"), "/mnt", &[])
        .mount("/mnt/tmp", "tmpfs", "tmpfs", &[])
        .bind(dir().join("file"), "/mnt/tmp/deep/file", &[])
        .payload(&["cat", "/mnt/tmp/deep/file"]);
    b.run().ok().says("words");
    assert!(
        Path::new("src/tmp").is_dir(),
        "the target was made in the volume"
    );
}

fn target_through_symlinks() {
    let b = Bundle::new()
        .writable()
        .mkdir("/real/inner")
        .symlink("/real", "/absolute")
        .symlink("inner", "/real/relative")
        .mount("/absolute/relative", "tmpfs", "tmpfs", &[]);
    at(&inside(b), "/real/inner");
}

/// CVE-2019-18837, CVE-2021-30465 and their kin.
fn target_symlink_cannot_lead_out() {
    fs::create_dir("host").unwrap();
    let host = dir().join("host");
    let up = format!("../../../../../../../..{}", host.display());
    let b = Bundle::new()
        .writable()
        .symlink(host.to_str().unwrap(), "/absolute")
        .symlink(&up, "/relative")
        .mount("/absolute/a", "tmpfs", "tmpfs", &[])
        .mount("/relative/b", "tmpfs", "tmpfs", &[]);
    let rootfs = b.rootfs();
    let mounts = inside(b);
    // resolved as if the rootfs were /
    at(&mounts, host.join("a").to_str().unwrap());
    at(&mounts, host.join("b").to_str().unwrap());
    assert_eq!(fs::read_dir("host").unwrap().count(), 0);
    assert!(
        rootfs
            .join(host.strip_prefix("/").unwrap())
            .join("a")
            .is_dir()
    );
}

fn target_dangling_symlink() {
    fs::write("file", "words").unwrap();
    let b = Bundle::new()
        .writable()
        .symlink("/jump/hosts", "/etc/hosts")
        .symlink("../tmp/foo", "/jump")
        .bind(dir().join("file"), "/etc/hosts", &[])
        .payload(&["cat", "/tmp/foo/hosts"]);
    b.run().ok().says("words");
}

fn target_dot_dot() {
    let b = Bundle::new()
        .writable()
        .mount("/tmp/../../../mnt", "tmpfs", "tmpfs", &[]);
    at(&inside(b), "/mnt");
}

/// Deprecated, yet it means below the root.
fn target_relative() {
    let b = Bundle::new()
        .writable()
        .mount("mnt/x", "tmpfs", "tmpfs", &[]);
    at(&inside(b), "/mnt/x");
}

fn target_twice() {
    let b = Bundle::new()
        .writable()
        .mount("/mnt", "tmpfs", "first", &[])
        .mount("/mnt", "tmpfs", "second", &[]);
    let mounts = inside(b);
    assert_eq!(at(&mounts, "/mnt").source, "second");
    assert_eq!(mounts.iter().filter(|m| m.target == "/mnt").count(), 2);
}

fn order_is_kept() {
    // the second hides the first's target, as mount(8) in this order would
    let b = Bundle::new()
        .writable()
        .mount("/mnt/inner", "tmpfs", "inner", &[])
        .mount("/mnt", "tmpfs", "outer", &[])
        .payload(&["ls", "/mnt"]);
    assert_eq!(b.run().ok().out, "");
}

fn tmpfs_takes_mode_of_the_directory() {
    let b = Bundle::new().writable().mkdir("/given");
    fs::set_permissions(b.rootfs().join("given"), fs::Permissions::from_mode(0o1750)).unwrap();
    let b = b
        .mount("/given", "tmpfs", "tmpfs", &[])
        .mount("/said", "tmpfs", "tmpfs", &["mode=0700"])
        .mount("/made", "tmpfs", "tmpfs", &[])
        .payload(&["stat", "/given", "/said", "/made"]);
    let modes: Vec<Value> = b
        .run()
        .ok()
        .jsons()
        .iter()
        .map(|v| v["mode"].clone())
        .collect();
    assert_eq!(modes, ["1750", "700", "1777"]);
}

fn tmpfs_size() {
    let b = Bundle::new()
        .writable()
        .mount("/mnt", "tmpfs", "tmpfs", &["size=64k"])
        .payload(&["write", "/mnt/x", &"x".repeat(70_000)]);
    assert_eq!(b.run().exits(1).line(), "error ENOSPC");
}

fn tmpcopyup() {
    let b = Bundle::new()
        .file("/data/file", "words", 0o640)
        .mkdir("/data/dir")
        .symlink("file", "/data/link");
    let file = b.rootfs().join("data/file");
    chown(&file, Some(7), Some(8)).unwrap();
    fs::set_permissions(
        b.rootfs().join("data/dir"),
        fs::Permissions::from_mode(0o2770),
    )
    .unwrap();
    let b = b
        .mount("/data", "tmpfs", "tmpfs", &["tmpcopyup"])
        .payload(&[
            "stat",
            "/data/file",
            "/data/dir",
            ";",
            "readlink",
            "/data/link",
            ";",
            "write",
            "/data/new",
            "x",
        ]);
    let o = b.run().ok();
    let line = |i: usize| serde_json::from_str::<Value>(o.lines()[i]).unwrap();
    assert_eq!(
        (&line(0)["mode"], &line(0)["uid"], &line(0)["gid"]),
        (&json!("640"), &json!(7), &json!(8))
    );
    assert_eq!(
        (&line(1)["mode"], &line(1)["type"]),
        (&json!("2770"), &json!("dir"))
    );
    assert_eq!(&o.lines()[2..], ["file", "ok"]);
    assert!(!b.rootfs().join("data/new").exists());
}

/// CVE-2019-19921, CVE-2023-27561.
fn proc_as_symlink_is_refused() {
    for name in ["proc", "sys"] {
        let b = Bundle::new().mkdir("/elsewhere");
        fs::remove_dir(b.rootfs().join(name)).unwrap();
        let b = b.symlink("/elsewhere", &format!("/{name}"));
        b.refused(&[&format!("/{name}"), "must be mounted on ordinary directory"]);
    }
}

/// CVE-2019-16884: a file system of the container's own in place of a file of /proc.
fn inside_proc_is_refused() {
    let b = Bundle::new().mount("/proc/self/attr", "tmpfs", "tmpfs", &[]);
    b.refused(&["/proc/self/attr", "/proc"]);
    fs::create_dir("src").unwrap();
    let b = Bundle::new().bind(dir().join("src"), "/proc", &[]);
    b.refused(&["/proc"]);
}

fn inside_proc_is_allowed_for_lxcfs() {
    fs::write("uptime", "17 4").unwrap();
    let b = Bundle::new()
        .bind(dir().join("uptime"), "/proc/uptime", &[])
        .payload(&["cat", "/proc/uptime"]);
    b.run().ok().says("17 4");
}

fn propagation_default() {
    let mounts = inside(Bundle::new());
    for m in &mounts {
        assert!(!m.shared(), "{m:?}");
    }
}

fn propagation_of_a_mount() {
    let mut b = Bundle::new().writable();
    for p in [
        "private",
        "shared",
        "slave",
        "unbindable",
        "rprivate",
        "rshared",
        "rslave",
        "runbindable",
    ] {
        b = b.mount(&format!("/mnt/{p}"), "tmpfs", "tmpfs", &[p]);
    }
    let b = b.mount("/mnt/both", "tmpfs", "tmpfs", &["slave", "shared", "ro"]);
    let mounts = inside(b);
    for r in ["", "r"] {
        assert!(at(&mounts, &format!("/mnt/{r}shared")).shared());
        assert!(
            at(&mounts, &format!("/mnt/{r}private"))
                .propagation
                .is_empty()
        );
        assert!(
            at(&mounts, &format!("/mnt/{r}slave"))
                .propagation
                .is_empty(),
            "of a private mount"
        );
        assert_eq!(
            at(&mounts, &format!("/mnt/{r}unbindable")).propagation,
            ["unbindable"]
        );
    }
    let both = at(&mounts, "/mnt/both");
    assert!(both.shared() && both.has("ro"), "{both:?}");
}

/// A volume with rslave sees what the host mounts there later.
fn propagation_from_the_host() {
    let _volume = tmpfs("volume");
    let path = dir().join("volume");
    propagate(&path, MsFlags::MS_SHARED);
    fs::create_dir("volume/later").unwrap();
    let b = Bundle::new()
        .writable()
        .mount(
            "/slave",
            "bind",
            path.to_str().unwrap(),
            &["rbind", "rslave"],
        )
        .mount(
            "/private",
            "bind",
            path.to_str().unwrap(),
            &["rbind", "rprivate"],
        );
    let c = b.start();
    let _later = tmpfs("volume/later");
    let o = c.exec(&[], &["cat", "/proc/self/mountinfo"]).ok();
    let mounts = mountinfo::parse(&o.out);
    assert!(at(&mounts, "/slave").slave());
    at(&mounts, "/slave/later");
    assert!(mountinfo::at(&mounts, "/private/later").is_none());
}

fn shared_does_not_reach_the_host() {
    // the guard would find such mounts, once the namespace is shared
    let _volume = tmpfs("volume");
    let path = dir().join("volume");
    propagate(&path, MsFlags::MS_SHARED);
    let before = mountinfo::read().len();
    let c = Bundle::new()
        .writable()
        .bind(&path, "/volume", &[])
        .mount("/volume/x", "tmpfs", "tmpfs", &[])
        .start();
    assert_eq!(mountinfo::read().len(), before);
    drop(c);
}

fn overlay_as_a_mount() {
    for d in ["lower1", "lower2", "upper", "work"] {
        fs::create_dir(d).unwrap();
    }
    fs::write("lower1/one", "1").unwrap();
    fs::write("lower2/two", "2").unwrap();
    let p = |d: &str| dir().join(d).display().to_string();
    let layers = format!("lowerdir={}:{}", p("lower1"), p("lower2"));
    let (upper, work) = (
        format!("upperdir={}", p("upper")),
        format!("workdir={}", p("work")),
    );
    let b = Bundle::new()
        .writable()
        .mount("/mnt", "overlay", "overlay", &[&layers, &upper, &work])
        .payload(&["ls", "/mnt", ";", "write", "/mnt/new", "x"]);
    assert_eq!(b.run().ok().lines(), ["one", "two", "ok"]);
    assert!(Path::new("upper/new").exists());
}

fn overlay_with_missing_layer() {
    let b = Bundle::new().writable().mount(
        "/mnt",
        "overlay",
        "overlay",
        &["lowerdir=/no/where:/no/there"],
    );
    b.refused(&["/mnt", "no such file or directory"]);
}

fn idmap() {
    let _volume = tmpfs("volume");
    fs::write("volume/file", "").unwrap();
    chown("volume/file", Some(1), Some(2)).unwrap();
    let b = Bundle::new().writable().push(
        "/mounts",
        json!({"destination": "/mnt", "type": "bind", "source": dir().join("volume"), "options": ["bind", "idmap"],
            "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 10}],
            "gidMappings": [{"containerID": 0, "hostID": 2000, "size": 10}]}),
    );
    let o = b.payload(&["stat", "/mnt/file"]).run().ok();
    assert_eq!(
        (&o.json()["uid"], &o.json()["gid"]),
        (&json!(1001), &json!(2002))
    );
}

fn idmap_of_a_tree() {
    let (_tree, path) = tree();
    for file in ["tree/file", "tree/below/file"] {
        fs::write(file, "").unwrap();
        chown(file, Some(0), Some(0)).unwrap();
    }
    let map = json!([{"containerID": 0, "hostID": 1000, "size": 10}]);
    for (option, below) in [("idmap", 0), ("ridmap", 1000)] {
        let b = Bundle::new().writable().push(
            "/mounts",
            json!({"destination": "/mnt", "type": "bind", "source": path, "options": ["rbind", option],
                "uidMappings": map, "gidMappings": map}),
        );
        let o = b
            .payload(&["stat", "/mnt/file", "/mnt/below/file"])
            .run()
            .ok();
        let uids: Vec<Value> = o.jsons().iter().map(|v| v["uid"].clone()).collect();
        assert_eq!(uids, [json!(1000), json!(below)], "{option}");
    }
}

/// Root of a user namespace may not map ids, and only it sees what is mounted below its root.
fn idmap_of_the_containers_own_mounts() {
    let _volume = tmpfs("volume");
    fs::write("volume/file", "").unwrap();
    chown("volume/file", Some(1), Some(2)).unwrap();
    let map = json!([{"containerID": 0, "hostID": 100_500, "size": 10}]);
    let b = Bundle::new()
        .user_namespace(100_000)
        .mkdir("/first")
        .mkdir("/second");
    let inside = b.rootfs().join("first");
    let b = b
        .bind(dir().join("volume"), "/first", &["bind"])
        .push(
            "/mounts",
            json!({"destination": "/second", "type": "bind", "source": inside, "options": ["rbind", "idmap"],
                "uidMappings": map, "gidMappings": map}),
        );
    let o = b.payload(&["stat", "/second/file"]).run().ok();
    assert_eq!(
        (&o.json()["uid"], &o.json()["gid"]),
        (&json!(501), &json!(502))
    );
}

fn idmap_needs_mappings() {
    fs::create_dir("volume").unwrap();
    let b = Bundle::new()
        .writable()
        .bind(dir().join("volume"), "/mnt", &["idmap"]);
    b.refused(&["mapping"]);
}

/// Sources are opened by the host's root, who may read more than the container's.
fn user_namespace_binds_what_only_root_reads() {
    fs::create_dir_all("closed/src").unwrap();
    fs::write("closed/src/file", "words").unwrap();
    fs::set_permissions("closed", fs::Permissions::from_mode(0o700)).unwrap();
    let b = Bundle::new()
        .user_namespace(100_000)
        .mkdir("/mnt")
        .mkdir("/ro")
        .bind(dir().join("closed/src"), "/mnt", &[])
        .bind(dir().join("closed/src"), "/ro", &["ro", "nosuid"])
        .payload(&[
            "cat",
            "/mnt/file",
            ";",
            "echo",
            ";",
            "cat",
            "/ro/file",
            ";",
            "echo",
            ";",
            "cat",
            "/proc/self/mountinfo",
        ]);
    let o = b.run().ok();
    assert_eq!(&o.lines()[..2], ["words", "words"]);
    assert!(at(&mountinfo::parse(&o.out), "/ro").has("ro"));
}

fn cgroup_read_only() {
    let o = Bundle::new()
        .payload(&[
            "cat",
            "/sys/fs/cgroup/cgroup.procs",
            ";",
            "mkdir",
            "/sys/fs/cgroup/x",
        ])
        .run()
        .exits(1);
    assert_eq!(o.lines(), ["1", "error EROFS"]);
}

fn cgroup_writable() {
    let b = Bundle::new().edit_mount("/sys/fs/cgroup", |m| {
        m["options"] = json!(["nosuid", "noexec", "nodev"])
    });
    let c = b.start();
    c.exec(&[], &["mkdir", "/sys/fs/cgroup/x"]).ok();
    assert!(c.cgroup_dir().join("x").is_dir());
    let o = c.exec(&[], &["cat", "/proc/self/mountinfo"]).ok();
    assert!(at(&mountinfo::parse(&o.out), "/sys/fs/cgroup").has("rw"));
    c.stop();
    c.delete();
}

/// Without a cgroup namespace the container still sees its own cgroup only. CVE-2023-25809: and not writable.
fn cgroup_of_the_host_without_namespace() {
    let b = Bundle::new().without_namespace("cgroup");
    let c = b.start();
    let o = c
        .exec(
            &[],
            &[
                "ls",
                "/sys/fs/cgroup",
                ";",
                "cat",
                "/proc/self/mountinfo",
                ";",
                "mkdir",
                "/sys/fs/cgroup/x",
            ],
        )
        .exits(1);
    assert!(o.lines().contains(&"cgroup.procs"));
    assert!(o.out.ends_with("error EROFS\n"), "{o}");
    assert!(at(&mountinfo::parse(&o.out), "/sys/fs/cgroup").has("ro"));
}

/// A new sysfs needs a network namespace of the same user namespace: the host's is bound then.
fn sysfs_without_network_namespace() {
    let b = Bundle::new()
        .user_namespace(100_000)
        .without_namespace("network");
    let b = b.edit_mount("/sys", |m| {
        *m = json!({"destination": "/sys", "type": "none", "source": "/sys", "options": ["rbind", "nosuid", "noexec", "nodev", "ro"]});
    });
    let b = b.without_mount("/sys/fs/cgroup");
    let mounts = inside(b);
    assert!(at(&mounts, "/sys").has("ro"));
}

fn nothing_is_left_when_a_mount_fails() {
    let b = Bundle::new()
        .writable()
        .mount("/mnt/good", "tmpfs", "tmpfs", &[])
        .mount("/mnt/bad", "tmpfs", "tmpfs", &["size=nonsense"]);
    let c = b.container();
    c.cmd("create", &[]).run().fails(1, &["/mnt/bad"]);
    // and the id is free again
    c.cmd0("state").run().fails(1, &["does not exist"]);
    assert!(!c.cgroup_dir().exists());
    let mut b = b.payload(&["true"]);
    b.config["mounts"].as_array_mut().unwrap().pop();
    b.save();
    c.cmd("run", &[]).run().ok();
}
