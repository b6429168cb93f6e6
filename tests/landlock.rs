//! Landlock rules, by husk's annotations.

use crate::support::*;

tests![
    files,
    files_and_exec,
    tcp,
    scope,
    strict_and_best_effort,
    bad_values_are_refused
];

fn annotated(rules: &[(&str, &str)]) -> Bundle {
    husk_only("the annotations are husk's own");
    rules.iter().fold(Bundle::new(), |b, (key, value)| {
        b.set(
            &format!("/annotations/dev.husk.landlock.{key}"),
            json!(value),
        )
    })
}

/// The container is root there, with the rights of root over its files; the rules hold nevertheless.
fn files() {
    needs(&[Landlock]);
    let b = annotated(&[("execute", "/bin"), ("read", "/etc"), ("write", "/tmp")]).writable();
    let o = b
        .payload(&[
            "ls", "/etc", ";", "write", "/etc/x", "a", ";", "write", "/tmp/x", "a", ";", "cat",
            "/tmp/x", ";", "ls", "/root",
        ])
        .run()
        .exits(1);
    assert_eq!(
        o.out, "group\npasswd\nerror EACCES\nok\naerror EACCES\n",
        "{o}"
    );
}

fn files_and_exec() {
    needs(&[Landlock]);
    let c = annotated(&[
        ("execute", "/bin"),
        ("read", "/proc"),
        ("mode", "best-effort"),
    ])
    .set("/process/noNewPrivileges", json!(false))
    .start();
    let o = c.exec(&[], &["ls", "/etc"]).exits(1);
    assert_eq!(o.line(), "error EACCES");
    // no capability that the restriction took is left
    let status = c.exec(&[], &["status"]).ok().json();
    let mask = u64::from_str_radix(status["CapEff"].as_str().unwrap(), 16).unwrap();
    assert_eq!(mask & 1 << 21, 0, "{status}");
    // and husk says why a program cannot be executed
    annotated(&[("read", "/bin")]).refused(&["permission denied"]);
}

fn tcp() {
    needs(&[Landlock]);
    let b = annotated(&[("tcp-bind", "80"), ("tcp-connect", "")]);
    let o = b
        .payload(&["bind", "80", ";", "bind", "81", ";", "connect", "80"])
        .run()
        .exits(1);
    assert_eq!(o.lines(), ["bound", "error EACCES", "error EACCES"]);
}

/// A process that exec brought is outside of pid 1's rules, and pid 1 of its.
fn scope() {
    needs(&[Landlock]);
    let c = annotated(&[("scope", "signal,abstract-unix-socket")]).start();
    assert_eq!(
        c.exec(&[], &["kill", "1", "CONT"]).exits(1).line(),
        "error EPERM"
    );
}

fn strict_and_best_effort() {
    needs(&[Landlock]);
    annotated(&[("read", "/nowhere")]).refused(&[
        "dev.husk.landlock",
        "'/nowhere'",
        "no such file",
    ]);
    annotated(&[("execute", "/bin:/nowhere"), ("mode", "best-effort")])
        .payload(&["true"])
        .run()
        .ok();
}

fn bad_values_are_refused() {
    annotated(&[("tcp-bind", "http")])
        .refused(&["annotations[\"dev.husk.landlock.tcp-bind\"]", "'http'"]);
    annotated(&[("reed", "/")])
        .refused(&["dev.husk.landlock.reed", "is none of husk's annotations"]);
}
