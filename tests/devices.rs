//! Device nodes, and the rules of which devices may be used.

use crate::support::*;
use std::fs;
use std::os::unix::fs::symlink;

tests![
    default_nodes,
    default_links,
    custom_nodes,
    default_mode_and_owner,
    redundant_default_node,
    unknown_type_is_refused,
    path_relative_or_outside,
    existing_file_is_not_overwritten,
    nodes_are_bound_in_a_user_namespace,
    rules_deny_by_default,
    rules_allow_by_number,
    rules_wildcards,
    rules_later_ones_win,
    rules_access_letters,
    rules_unknown_access_is_refused,
    rules_hold_for_exec,
    rules_absent,
    dev_as_symlink_leads_nowhere,
    masks_do_not_trust_dev_null,
    dev_read_only,
];

const DEFAULTS: [(&str, u64, u64); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// Such a container may make nodes of its own, as far as the rules let it, and read /dev/kmsg, which they use.
fn may_mknod(b: Bundle) -> Bundle {
    b.capabilities(
        &["bounding", "effective", "permitted"],
        &["CAP_MKNOD", "CAP_SYSLOG"],
    )
}

fn default_nodes() {
    let mut verbs = vec!["stat"];
    verbs.extend(DEFAULTS.iter().map(|d| d.0));
    verbs.extend([";", "ls", "/dev"]);
    let o = Bundle::new().payload(&verbs).run().ok();
    for (i, (path, major, minor)) in DEFAULTS.iter().enumerate() {
        let s: Value = serde_json::from_str(o.lines()[i]).unwrap();
        assert_eq!(
            (&s["type"], &s["mode"]),
            (&json!("char"), &json!("666")),
            "{path}"
        );
        assert_eq!(
            (&s["major"], &s["minor"]),
            (&json!(major), &json!(minor)),
            "{path}"
        );
        assert_eq!((&s["uid"], &s["gid"]), (&json!(0), &json!(0)), "{path}");
    }
    let names = &o.lines()[DEFAULTS.len()..];
    let want = [
        "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin",
        "stdout", "tty", "urandom", "zero",
    ];
    let core = |n: &&&str| **n != "core";
    assert_eq!(names.iter().filter(core).copied().collect::<Vec<_>>(), want);
}

fn default_links() {
    let links = [
        ("/dev/fd", "/proc/self/fd"),
        ("/dev/stdin", "/proc/self/fd/0"),
        ("/dev/stdout", "/proc/self/fd/1"),
        ("/dev/stderr", "/proc/self/fd/2"),
        ("/dev/ptmx", "pts/ptmx"),
    ];
    for (link, to) in links {
        let o = Bundle::new().payload(&["readlink", link]).run().ok();
        assert_eq!(o.line(), to, "{link}");
    }
    Bundle::new()
        .payload(&["open", "/dev/ptmx", "rw"])
        .run()
        .ok();
}

fn custom_nodes() {
    let b = Bundle::new()
        .push("/linux/devices", json!({"path": "/dev/one", "type": "c", "major": 1, "minor": 3, "fileMode": 0o640, "uid": 7, "gid": 8}))
        .push("/linux/devices", json!({"path": "/dev/sub/block", "type": "b", "major": 7, "minor": 0, "fileMode": 0o600}))
        .push("/linux/devices", json!({"path": "/dev/pipe", "type": "p", "fileMode": 0o666}))
        .push("/linux/devices", json!({"path": "/dev/unbuffered", "type": "u", "major": 1, "minor": 5}))
        .payload(&["stat", "/dev/one", "/dev/sub/block", "/dev/pipe", "/dev/unbuffered"]);
    let s = b.run().ok().jsons();
    let node = |i: usize, k: &str| s[i][k].clone();
    assert_eq!(
        [node(0, "type"), node(0, "major"), node(0, "minor")],
        [json!("char"), json!(1), json!(3)]
    );
    assert_eq!(
        [node(0, "mode"), node(0, "uid"), node(0, "gid")],
        [json!("640"), json!(7), json!(8)]
    );
    assert_eq!(
        [node(1, "type"), node(1, "major"), node(1, "mode")],
        [json!("block"), json!(7), json!("600")]
    );
    assert_eq!(
        [node(2, "type"), node(2, "mode")],
        [json!("fifo"), json!("666")]
    );
    assert_eq!(
        [node(3, "type"), node(3, "minor")],
        [json!("char"), json!(5)]
    );
}

fn default_mode_and_owner() {
    let b = Bundle::new()
        .push(
            "/linux/devices",
            json!({"path": "/dev/plain", "type": "c", "major": 1, "minor": 3}),
        )
        .payload(&["stat", "/dev/plain"]);
    let s = b.run().ok().json();
    assert_eq!((&s["mode"], &s["uid"]), (&json!("666"), &json!(0)));
}

/// Engines list /dev/null and the like too.
fn redundant_default_node() {
    let b = Bundle::new()
        .push(
            "/linux/devices",
            json!({"path": "/dev/tty", "type": "c", "major": 5, "minor": 0, "fileMode": 0o666}),
        )
        .push(
            "/linux/devices",
            json!({"path": "/dev/ptmx", "type": "c", "major": 5, "minor": 2, "fileMode": 0o666}),
        )
        .payload(&["stat", "/dev/tty"]);
    let s = b.run().ok().json();
    assert_eq!((&s["major"], &s["minor"]), (&json!(5), &json!(0)));
}

fn unknown_type_is_refused() {
    let b = Bundle::new().push(
        "/linux/devices",
        json!({"path": "/dev/x", "type": "z", "major": 1, "minor": 3}),
    );
    b.refused(&["z"]);
}

fn path_relative_or_outside() {
    // resolved below the root, never on the host
    let b = Bundle::new()
        .writable()
        .push(
            "/linux/devices",
            json!({"path": "/tmp/../../../x", "type": "c", "major": 1, "minor": 3}),
        )
        .payload(&["stat", "/x"]);
    assert_eq!(b.run().ok().json()["type"], "char");
}

/// "If a file already exists at path that does not match the requested device, the runtime MUST generate an error."
fn existing_file_is_not_overwritten() {
    runc_fails("it leaves the file and says nothing");
    let b = Bundle::new()
        .writable()
        .file("/etc/thing", "text", 0o644)
        .push(
            "/linux/devices",
            json!({"path": "/etc/thing", "type": "c", "major": 1, "minor": 3}),
        );
    let text = b.rootfs().join("etc/thing");
    b.refused(&["/etc/thing"]);
    assert_eq!(fs::read_to_string(text).unwrap(), "text");
}

/// mknod(2) is not allowed there: the host's nodes are bound.
fn nodes_are_bound_in_a_user_namespace() {
    let b = Bundle::new().user_namespace(100_000).payload(&[
        "stat",
        "/dev/null",
        "/dev/tty",
        ";",
        "write",
        "/dev/null",
        "x",
    ]);
    let o = b.run().ok();
    let s: Value = serde_json::from_str(o.lines()[0]).unwrap();
    assert_eq!((&s["major"], &s["minor"]), (&json!(1), &json!(3)));
    assert_eq!(o.lines()[2], "ok");
}

fn rules_deny_by_default() {
    // /dev/kmsg is 1:11, /dev/mem 1:1; making a node is one permission, opening it another
    let b = may_mknod(Bundle::new()).payload(&[
        "mknod",
        "/dev/kmsg",
        "c",
        "1",
        "11",
        ";",
        "open",
        "/dev/kmsg",
        "r",
        ";",
        "open",
        "/dev/null",
        "rw",
        ";",
        "open",
        "/dev/zero",
        "r",
    ]);
    let o = b.run().exits(1);
    // as runc: with the default rules every node may be made, and only the usual ones opened
    assert_eq!(o.lines(), ["ok", "error EPERM", "ok", "ok"]);
}

fn rules_allow_by_number() {
    let b = may_mknod(Bundle::new())
        .push(
            "/linux/resources/devices",
            json!({"allow": true, "type": "c", "major": 1, "minor": 11, "access": "r"}),
        )
        .payload(&[
            "mknod",
            "/dev/kmsg",
            "c",
            "1",
            "11",
            ";",
            "open",
            "/dev/kmsg",
            "r",
            ";",
            "open",
            "/dev/kmsg",
            "w",
        ]);
    assert_eq!(b.run().exits(1).lines(), ["ok", "ok", "error EPERM"]);
}

fn rules_wildcards() {
    let b = may_mknod(Bundle::new())
        .push(
            "/linux/resources/devices",
            json!({"allow": true, "type": "c", "major": 1, "access": "rw"}),
        )
        .payload(&[
            "mknod",
            "/dev/kmsg",
            "c",
            "1",
            "11",
            ";",
            "open",
            "/dev/kmsg",
            "rw",
        ]);
    b.run().ok();
    let b = may_mknod(Bundle::new())
        .push(
            "/linux/resources/devices",
            json!({"allow": true, "type": "a", "access": "rwm"}),
        )
        .payload(&[
            "mknod",
            "/dev/kmsg",
            "c",
            "1",
            "11",
            ";",
            "open",
            "/dev/kmsg",
            "rw",
        ]);
    b.run().ok();
}

fn rules_later_ones_win() {
    let rule =
        |allow: bool| json!({"allow": allow, "type": "c", "major": 1, "minor": 11, "access": "rw"});
    let verbs = [
        "mknod",
        "/dev/kmsg",
        "c",
        "1",
        "11",
        ";",
        "open",
        "/dev/kmsg",
        "r",
    ];
    let b = may_mknod(Bundle::new())
        .set(
            "/linux/resources/devices",
            json!([{"allow": false, "access": "rwm"}, rule(true), rule(false)]),
        )
        .payload(&verbs);
    assert_eq!(b.run().exits(1).lines(), ["ok", "error EPERM"]);
    let b = may_mknod(Bundle::new())
        .set(
            "/linux/resources/devices",
            json!([{"allow": false, "access": "rwm"}, rule(false), rule(true)]),
        )
        .payload(&verbs);
    b.run().ok();
    // everything allowed but one
    let b = may_mknod(Bundle::new())
        .set(
            "/linux/resources/devices",
            json!([{"allow": true, "access": "rwm"}, rule(false)]),
        )
        .payload(&[
            "mknod",
            "/dev/kmsg",
            "c",
            "1",
            "11",
            ";",
            "open",
            "/dev/kmsg",
            "r",
            ";",
            "mknod",
            "/dev/x",
            "c",
            "1",
            "5",
        ]);
    assert_eq!(b.run().exits(1).lines(), ["ok", "error EPERM", "ok"]);
}

fn rules_access_letters() {
    let rule = |access: &str| json!({"allow": true, "type": "c", "major": 1, "minor": 11, "access": access});
    for (access, read, write) in [
        ("r", "ok", "error EPERM"),
        ("w", "error EPERM", "ok"),
        ("rw", "ok", "ok"),
    ] {
        let b = may_mknod(Bundle::new())
            .push("/linux/resources/devices", rule(access))
            .payload(&[
                "mknod",
                "/dev/kmsg",
                "c",
                "1",
                "11",
                ";",
                "open",
                "/dev/kmsg",
                "r",
                ";",
                "open",
                "/dev/kmsg",
                "w",
            ]);
        assert_eq!(b.run().lines(), ["ok", read, write], "{access}");
    }
}

fn rules_unknown_access_is_refused() {
    runc_fails("it ignores what it does not know");
    let with = |access: &str| {
        let rule = json!({"allow": true, "type": "c", "major": 1, "minor": 11, "access": access});
        Bundle::new()
            .payload(&["true"])
            .push("/linux/resources/devices", rule)
    };
    with("x").refused(&["linux.resources.devices[1].access", "x"]);
    // "rwa" is in configs that are about
    let o = with("rwa").run().ok();
    assert!(
        o.err
            .contains("linux.resources.devices[1].access: holds 'a'"),
        "{o}"
    );
}

fn rules_hold_for_exec() {
    let c = may_mknod(Bundle::new()).start();
    let verbs = [
        "mknod",
        "/dev/kmsg",
        "c",
        "1",
        "11",
        ";",
        "open",
        "/dev/kmsg",
        "r",
    ];
    assert_eq!(c.exec(&[], &verbs).exits(1).lines(), ["ok", "error EPERM"]);
}

/// Without a single rule there is nothing to enforce, and still the usual devices work.
fn rules_absent() {
    let b = may_mknod(Bundle::new())
        .remove("/linux/resources")
        .payload(&["open", "/dev/null", "rw", ";", "open", "/dev/urandom", "r"]);
    b.run().ok();
}

/// CVE-2026-41579, CVE-2026-47766: an image whose /dev is a symlink to a directory of the host.
fn dev_as_symlink_leads_nowhere() {
    fs::create_dir("host").unwrap();
    let b = Bundle::new().writable();
    fs::remove_dir(b.rootfs().join("dev")).unwrap();
    symlink(dir().join("host"), b.rootfs().join("dev")).unwrap();
    let b = b
        .without_mount("/dev")
        .without_mount("/dev/pts")
        .without_mount("/dev/shm")
        .without_mount("/dev/mqueue")
        .payload(&["true"]);
    // whether it runs or refuses is open
    b.run();
    assert_eq!(
        fs::read_dir("host").unwrap().count(),
        0,
        "nothing is made on the host"
    );
}

/// CVE-2025-31133, CVE-2026-88265: masking binds /dev/null, which must be that and not what the image has there.
fn masks_do_not_trust_dev_null() {
    let b = Bundle::new()
        .writable()
        .file("/secret", "hidden", 0o644)
        .file("/bait", "bait", 0o644);
    symlink("/bait", b.rootfs().join("dev/null")).unwrap();
    let b = b
        .without_mount("/dev")
        .without_mount("/dev/pts")
        .without_mount("/dev/shm")
        .without_mount("/dev/mqueue")
        .set("/linux/maskedPaths", json!(["/secret"]))
        .payload(&["stat", "/secret"]);
    let bait = b.rootfs().join("bait");
    let o = b.run();
    if o.code == 0 {
        let s = o.json();
        assert_eq!(
            (&s["type"], &s["major"], &s["minor"]),
            (&json!("char"), &json!(1), &json!(3)),
            "{o}"
        );
    } else {
        assert!(o.err.contains("/dev/null"), "{o}");
    }
    assert_eq!(fs::read_to_string(bait).unwrap(), "bait");
}

/// A read-only /dev is made read-only after its nodes are there.
fn dev_read_only() {
    let b = Bundle::new()
        .edit_mount("/dev", |m| {
            m["options"] = json!(["nosuid", "strictatime", "mode=755", "ro"])
        })
        .payload(&["write", "/dev/x", "x", ";", "write", "/dev/null", "x"]);
    assert_eq!(b.run().exits(1).lines(), ["error EROFS", "ok"]);
}
