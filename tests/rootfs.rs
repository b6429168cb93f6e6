//! The root file system: pivot_root, propagation, read-only, and overlays that husk mounts itself.

use crate::support::mountinfo;
use crate::support::*;
use std::fs;

tests![
    nothing_of_the_host_is_seen,
    path_absolute_and_dot,
    path_symlink,
    read_only,
    writable,
    no_pivot,
    no_pivot_hides_the_host,
    propagation_of_the_root,
    propagation_unknown_is_refused,
    rootfs_on_its_own_mount,
    overlay_upper,
    overlay_tmpfs,
    overlay_tmpfs_size,
    overlay_without_upper_is_read_only,
    overlay_layers_in_order,
    overlay_by_mount_entry,
    overlay_names_with_colons,
    overlay_in_a_user_namespace,
    overlay_missing_layer_is_reported,
    overlay_needs_work,
    overlay_misspelt_is_refused,
    overlay_leaves_nothing_after_sigkill,
    overlay_and_exec,
];

fn nothing_of_the_host_is_seen() {
    let o = Bundle::new()
        .payload(&["ls", "/", ";", "cat", "/proc/self/mountinfo"])
        .run()
        .ok();
    assert_eq!(
        &o.lines()[..7],
        ["bin", "dev", "etc", "proc", "root", "sys", "tmp"]
    );
    let mounts = mountinfo::parse(&o.out);
    assert_eq!(
        mounts.iter().filter(|m| m.target == "/").count(),
        1,
        "{mounts:#?}"
    );
    for m in &mounts {
        let usual = ["/", "/proc", "/dev", "/sys"];
        assert!(
            usual
                .iter()
                .any(|u| m.target == *u || m.target.starts_with(&format!("{u}/"))),
            "{m:?}"
        );
    }
}

fn path_absolute_and_dot() {
    let b = Bundle::new().payload(&["echo", "hi"]);
    let absolute = json!(b.rootfs());
    b.set("/root/path", absolute).run().ok().says("hi");
    let b = Bundle::new().payload(&["echo", "hi"]);
    b.save();
    fs::copy(b.dir.join("config.json"), b.rootfs().join("config.json")).unwrap();
    let mut b = b.set("/root/path", json!("."));
    b.dir = b.rootfs();
    b.run().ok().says("hi");
}

fn path_symlink() {
    runc_fails("it wants a path without symlinks");
    let b = Bundle::new().payload(&["echo", "hi"]);
    std::os::unix::fs::symlink("rootfs", b.dir.join("link")).unwrap();
    b.set("/root/path", json!("link")).run().ok().says("hi");
}

fn read_only() {
    let b = Bundle::new().payload(&[
        "write",
        "/x",
        "x",
        ";",
        "write",
        "/dev/shm/x",
        "x",
        ";",
        "write",
        "/bin/payload",
        "x",
    ]);
    // with the capability to override permissions, so that EROFS is all there is
    let b = b.capabilities(
        &["bounding", "effective", "permitted"],
        &["CAP_DAC_OVERRIDE"],
    );
    assert_eq!(
        b.run().exits(1).lines(),
        ["error EROFS", "ok", "error EROFS"]
    );
}

fn writable() {
    let b = Bundle::new().writable().payload(&["write", "/x", "words"]);
    b.run().ok();
    assert_eq!(fs::read_to_string(b.rootfs().join("x")).unwrap(), "words");
}

fn no_pivot() {
    let b = Bundle::new().payload(&["ls", "/", ";", "echo", "-", ";", "cwd"]);
    let o = b.run_with(&["--no-pivot"]).ok();
    assert_eq!(
        o.lines(),
        ["bin", "dev", "etc", "proc", "root", "sys", "tmp", "-", "/"]
    );
    let mut c = Bundle::new().container();
    c.run_detached(&["--no-pivot"]);
    c.wait_ready();
    assert_eq!(c.exec(&[], &["ls", "/"]).ok().lines().len(), 7);
}

/// Who may make a user namespace may mount a proc of its own in it, but only when none of the /proc that it sees is masked.
/// Without pivot_root the host's /proc would still be there, unmasked, below the container's root.
fn no_pivot_hides_the_host() {
    let verbs = [
        "unshare", "user", "mnt", "pid", ";", "spawn", "mount", "proc", "/proc", "proc", "0", ";",
        "reap",
    ];
    let b = Bundle::new().payload(&verbs);
    for options in [&[][..], &["--no-pivot"]] {
        let o = b.run_with(options);
        assert!(o.out.contains("error EPERM"), "{options:?}: {o}");
    }
    // and that it is for the masks
    let b = b
        .set("/linux/maskedPaths", json!([]))
        .set("/linux/readonlyPaths", json!([]));
    let o = b.run().ok();
    let mut lines = o.lines();
    lines.sort(); // parent and child print at the same time
    let all =
        matches!(lines[..], ["exited 0", "ok", "ok", spawned] if spawned.starts_with("spawned "));
    assert!(all, "{o}");
}

fn propagation_of_the_root() {
    let mounts =
        |b: Bundle| mountinfo::parse(&b.payload(&["cat", "/proc/self/mountinfo"]).run().ok().out);
    for (set, check) in [
        ("shared", "shared:"),
        ("rshared", "shared:"),
        ("unbindable", "unbindable"),
        ("private", ""),
        ("slave", ""),
    ] {
        let m = mounts(Bundle::new().set("/linux/rootfsPropagation", json!(set)));
        let root = mountinfo::at(&m, "/").unwrap();
        match check {
            "" => assert!(!root.shared(), "{set}: {root:?}"),
            _ => assert!(
                root.propagation.iter().any(|p| p.starts_with(check)),
                "{set}: {root:?}"
            ),
        }
    }
}

fn propagation_unknown_is_refused() {
    Bundle::new()
        .set("/linux/rootfsPropagation", json!("sideways"))
        .refused(&["propagation", "sideways"]);
}

/// Engines hand over a rootfs that is a mount, often a shared one.
fn rootfs_on_its_own_mount() {
    use nix::mount::{MsFlags, mount, umount};
    let b = Bundle::new().payload(&["ls", "/"]);
    let (root, none) = (b.rootfs(), None::<&str>);
    mount(Some(&root), &root, none, MsFlags::MS_BIND, none).unwrap();
    mount(none, &root, none, MsFlags::MS_SHARED, none).unwrap();
    let o = b.run();
    umount(&root).unwrap();
    assert_eq!(o.ok().lines().len(), 7);
}

/// A bundle without a rootfs of its own: layers to be put together.
fn layered(annotations: &[(&str, &str)]) -> Bundle {
    husk_only("an overlay that the runtime mounts is husk's own");
    let b = Bundle::new();
    fs::rename(b.rootfs(), b.dir.join("base")).unwrap();
    for d in ["rootfs", "extra", "upper", "work"] {
        fs::create_dir(b.dir.join(d)).unwrap();
    }
    fs::write(b.dir.join("extra/from-extra"), "extra").unwrap();
    let mut b = b.writable();
    for (key, value) in annotations {
        // a JSON pointer has ~1 for a slash, and these have dots only
        b = b.set(
            &format!("/annotations/dev.husk.overlay.{key}"),
            json!(value),
        );
    }
    b
}

fn overlay_upper() {
    let b = layered(&[("lower", "base"), ("upper", "upper"), ("work", "work")])
        .payload(&["write", "/new", "words"]);
    b.run().ok();
    assert_eq!(
        fs::read_to_string(b.dir.join("upper/new")).unwrap(),
        "words"
    );
    assert_eq!(fs::read_dir(b.dir.join("rootfs")).unwrap().count(), 0);
    assert!(!b.dir.join("base/new").exists());
    // the same layer once more
    let b = b.payload(&["cat", "/new"]);
    b.run().ok().says("words");
}

fn overlay_tmpfs() {
    let b = layered(&[("lower", "base"), ("tmpfs", "true")])
        .payload(&["write", "/new", "words", ";", "cat", "/new"]);
    b.run().ok().says("words");
    for d in ["base", "upper", "rootfs"] {
        assert!(!b.dir.join(d).join("new").exists(), "{d}");
    }
}

fn overlay_tmpfs_size() {
    let b = layered(&[("lower", "base"), ("tmpfs", "64k")]).payload(&[
        "write",
        "/new",
        &"x".repeat(100_000),
    ]);
    assert_eq!(b.run().exits(1).line(), "error ENOSPC");
}

fn overlay_without_upper_is_read_only() {
    let b = layered(&[("lower", "extra:base")]).payload(&[
        "cat",
        "/from-extra",
        ";",
        "echo",
        ";",
        "write",
        "/new",
        "x",
    ]);
    assert_eq!(b.run().exits(1).lines(), ["extra", "error EROFS"]);
}

fn overlay_layers_in_order() {
    let b = layered(&[("lower", "extra:base"), ("tmpfs", "true")]);
    fs::create_dir(b.dir.join("extra/etc")).unwrap();
    fs::write(b.dir.join("extra/etc/passwd"), "of the upper one").unwrap();
    let b = b.payload(&["cat", "/etc/passwd", ";", "echo", ";", "ls", "/etc"]);
    assert_eq!(
        b.run().ok().lines(),
        ["of the upper one", "group", "passwd"]
    );
}

fn overlay_by_mount_entry() {
    let mut b = layered(&[]).payload(&["write", "/new", "words", ";", "ls", "/"]);
    let options = ["lowerdir=base", "upperdir=upper", "workdir=work", "nosuid"];
    let entry =
        json!({"destination": "/", "type": "overlay", "source": "overlay", "options": options});
    b.config["mounts"].as_array_mut().unwrap().insert(0, entry);
    b.run().ok();
    assert_eq!(
        fs::read_to_string(b.dir.join("upper/new")).unwrap(),
        "words"
    );
    let b = b.payload(&["cat", "/proc/self/mountinfo"]);
    let mounts = mountinfo::parse(&b.run().ok().out);
    let root = mountinfo::at(&mounts, "/").unwrap();
    assert_eq!(root.fstype, "overlay");
    assert!(root.has("nosuid"), "{root:?}");
}

fn overlay_names_with_colons() {
    let b =
        layered(&[("lower", "ex\\:tra:base"), ("tmpfs", "true")]).payload(&["cat", "/from-extra"]);
    fs::rename(b.dir.join("extra"), b.dir.join("ex:tra")).unwrap();
    b.run().ok().says("extra");
}

fn overlay_in_a_user_namespace() {
    let b = layered(&[("lower", "base"), ("tmpfs", "true")]).user_namespace(100_000);
    // whoever makes the layers makes them for these ids
    for d in ["", "tmp"] {
        std::os::unix::fs::chown(b.dir.join("base").join(d), Some(100_000), Some(100_000)).unwrap();
    }
    let b = b.payload(&["write", "/tmp/new", "words", ";", "cat", "/tmp/new"]);
    b.run().ok().says("words");
}

fn overlay_missing_layer_is_reported() {
    let b = layered(&[("lower", "base:/no/where"), ("tmpfs", "true")]);
    b.refused(&["/no/where", "no such file or directory"]);
}

fn overlay_needs_work() {
    layered(&[("lower", "base"), ("upper", "upper")])
        .refused(&["dev.husk.overlay.upper", "work directory"]);
    layered(&[("upper", "upper"), ("work", "work")]).refused(&["dev.husk.overlay.lower"]);
}

fn overlay_misspelt_is_refused() {
    layered(&[("lover", "base")]).refused(&["dev.husk.overlay.lover"]);
}

/// The mounts live in the container's mount namespace, and end with it whoever ends it.
fn overlay_leaves_nothing_after_sigkill() {
    let b = layered(&[("lower", "base"), ("upper", "upper"), ("work", "work")]);
    let before = mountinfo::read();
    let c = b.start();
    assert_eq!(mountinfo::read(), before);
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(c.pid()),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    c.wait_status("stopped");
    assert_eq!(mountinfo::read(), before);
    // and the layers are free: the next container may have them
    drop(c);
    b.payload(&["true"]).run().ok();
}

fn overlay_and_exec() {
    let b = layered(&[("lower", "base"), ("tmpfs", "true")]);
    let c = b.start();
    c.exec(&[], &["write", "/new", "words"]).ok();
    c.exec(&[], &["cat", "/new"]).ok().says("words");
}
