//! husk as a user who is not root.

use crate::support::mountinfo::Unmount;
use crate::support::*;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;

tests![
    run_as_a_user,
    create_exec_delete,
    setgroups_is_denied,
    groups_are_refused,
    many_ids_by_newuidmap,
    ids_that_are_not_ours_are_refused,
    without_user_namespace_is_refused,
    limits_without_permission_are_refused,
    delegated_cgroup,
];

const UID: u32 = 1000;

/// The runtime, started by an unprivileged user with a state directory of its own.
struct User {
    runtime: PathBuf,
}

impl User {
    fn new() -> User {
        needs(&[File("/proc/self/ns/user")]);
        // the runtime's own directory may be closed to others
        let runtime = dir().join(process::runtime().file_name().unwrap());
        fs::copy(process::runtime(), &runtime).unwrap();
        fs::create_dir("user").unwrap();
        for d in ["user/state", "user/run"] {
            fs::create_dir(d).unwrap();
            chown(d, Some(UID), Some(UID)).unwrap();
        }
        chown("user", Some(UID), Some(UID)).unwrap();
        let user = User { runtime };
        match user.cmd().arg("--version").try_spawn() {
            Ok(run) => drop(run.wait().ok()),
            Err(_) => skip("users cannot execute the runtime, or its libraries"),
        }
        user
    }

    fn cmd(&self) -> Cmd {
        self.cmd_in(
            &std::path::Path::new("/sys/fs/cgroup")
                .join(cgroup())
                .join("harness"),
        )
    }

    /// Started in a cgroup.
    fn cmd_in(&self, cgroup: &std::path::Path) -> Cmd {
        let mut cmd = Cmd::new(&self.runtime);
        let procs = cgroup.join("cgroup.procs");
        let become_user = move || {
            // as root: a user may not move processes out of a cgroup that is not his
            fs::write(&procs, "0")?;
            nix::unistd::setgroups(&[])?;
            nix::unistd::setgid(UID.into())?;
            nix::unistd::setuid(UID.into())?;
            Ok(())
        };
        // SAFETY: the closure makes system calls only; its one allocation is the path's copy, and musl's and std's
        // allocator are not held by another thread of this process, whose threads only wait.
        unsafe { std::os::unix::process::CommandExt::pre_exec(cmd.command(), become_user) };
        cmd.env("XDG_RUNTIME_DIR", dir().join("user/run"))
            .env("HOME", dir().join("user"))
            .cwd(dir().join("user"))
            .arg("--root")
            .arg(dir().join("user/state"))
    }

    fn run(&self, b: &Bundle) -> Output {
        self.run_with_path(b, std::env::var_os("PATH").unwrap_or_default())
    }

    fn run_with_path(&self, b: &Bundle, path: impl AsRef<std::ffi::OsStr>) -> Output {
        b.save();
        chown(&b.dir, Some(UID), Some(UID)).unwrap();
        let id = format!("{}r", process::id_prefix());
        self.cmd()
            .env("PATH", path)
            .args(["run", "--bundle"])
            .arg(&b.dir)
            .arg(id)
            .run()
    }
}

/// As `spec --rootless` makes it.
fn bundle() -> Bundle {
    let map = json!([{"containerID": 0, "hostID": UID, "size": 1}]);
    let b = Bundle::new()
        .namespace("user", None)
        .without_namespace("network")
        .set("/linux/uidMappings", map.clone())
        .set("/linux/gidMappings", map)
        .remove("/linux/resources")
        .without_mount("/sys/fs/cgroup")
        .edit_mount("/sys", |m| {
            *m = json!({"destination": "/sys", "type": "none", "source": "/sys", "options": ["rbind", "nosuid", "noexec", "nodev", "ro"]});
        })
        .edit_mount("/dev/pts", |m| {
            m["options"] = json!(["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]);
        });
    chown(b.rootfs(), Some(UID), Some(UID)).unwrap();
    b
}

fn run_as_a_user() {
    let b = bundle().payload(&[
        "ids",
        ";",
        "cat",
        "/proc/self/uid_map",
        ";",
        "uname",
        ";",
        "stat",
        "/dev/null",
        ";",
        "exit",
        "3",
    ]);
    let o = User::new().run(&b).exits(3);
    let ids: Value = serde_json::from_str(o.lines()[0]).unwrap();
    assert_eq!(ids["uid"], json!([0, 0, 0]));
    assert_eq!(
        o.lines()[1].split_whitespace().collect::<Vec<_>>(),
        ["0", "1000", "1"]
    );
    assert!(o.lines()[2].contains("box"), "{o}");
}

fn create_exec_delete() {
    let user = User::new();
    let b = bundle();
    b.save();
    let id = format!("{}r", process::id_prefix());
    let cmd = |args: &[&str]| user.cmd().args(args);
    let created = cmd(&["create", "--bundle", b.dir.to_str().unwrap(), &id])
        .run()
        .ok();
    cmd(&["start", &id]).run().ok();
    wait_until("the payload is ready", || created.out_now() == "ready\n");
    let state = cmd(&["state", &id]).run().ok().json();
    assert_eq!(state["status"], "running");
    cmd(&["exec", &id, "/bin/payload", "echo", "inside"])
        .run()
        .ok()
        .says("inside");
    // nobody counts what it uses
    let o = cmd(&["events", "--stats", &id]).run().ok();
    assert_eq!(o.json()["type"], "stats");
    if is_husk() {
        assert_eq!(o.json()["data"], json!({}), "runc's are zeros");
        assert!(o.err.contains("it has no cgroup"), "{o}");
        cmd(&["events", &id])
            .run()
            .fails(1, &["it has no cgroup", "cgroupsPath"]);
    }
    cmd(&["kill", &id, "TERM"]).run().ok();
    wait_until("it is stopped", || {
        cmd(&["state", &id]).run().ok().json()["status"] == "stopped"
    });
    cmd(&["delete", &id]).run().ok();
    assert_eq!(fs::read_dir("user/state").unwrap().count(), 0);
}

fn setgroups_is_denied() {
    let b = bundle().payload(&["cat", "/proc/self/setgroups"]);
    assert_eq!(User::new().run(&b).ok().line(), "deny");
}

fn groups_are_refused() {
    let why = match is_husk() {
        true => {
            "process.user.additionalGids: an ordinary user that maps only its own group may not set groups"
        }
        false => "cannot set any additional groups in a rootless container",
    };
    let b = bundle().set(
        "/process/user",
        json!({"uid": 0, "gid": 0, "additionalGids": [5]}),
    );
    User::new().run(&b.payload(&["true"])).fails(1, &[why]);
}

/// /etc/subuid and /etc/subgid with a range for the user, in this test's own mount namespace, and /etc/passwd with the user:
/// newuidmap refuses one without a name.
fn sub_ids() -> [Unmount; 3] {
    let passwd = format!("root:x:0:0::/:/bin/sh\nuser:x:{UID}:{UID}::/:/bin/sh\n");
    let range = format!("{UID}:300000:65536\n");
    [("subuid", &range), ("subgid", &range), ("passwd", &passwd)].map(|(name, text)| {
        let (file, etc) = (dir().join(name), PathBuf::from("/etc").join(name));
        fs::write(&file, text).unwrap();
        let none: Option<&str> = None;
        nix::mount::mount(Some(&file), &etc, none, nix::mount::MsFlags::MS_BIND, none).unwrap();
        Unmount(etc)
    })
}

fn many_ids_by_newuidmap() {
    runc_fails("it takes newuidmap from PATH");
    needs(&[Uidmap, File("/etc/subuid"), File("/etc/subgid")]);
    let _sub_ids = sub_ids();
    let map = json!([{"containerID": 0, "hostID": UID, "size": 1}, {"containerID": 1, "hostID": 300_000, "size": 65536}]);
    let b = bundle()
        .set("/linux/uidMappings", map.clone())
        .set("/linux/gidMappings", map)
        .set("/process/user", json!({"uid": 7, "gid": 8}))
        .payload(&["ids", ";", "cat", "/proc/self/uid_map"]);
    let user = User::new();
    // CVE-2026-84042: a helper is not looked for where anybody may put one
    for name in ["newuidmap", "newgidmap"] {
        let file = format!("user/{name}");
        fs::write(&file, "#!/bin/sh\n: >misled\n").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let o = user.run_with_path(&b, dir().join("user")).ok();
    assert!(!fs::exists("user/misled").unwrap());
    let ids: Value = serde_json::from_str(o.lines()[0]).unwrap();
    assert_eq!(
        (&ids["uid"], &ids["gid"]),
        (&json!([7, 7, 7]), &json!([8, 8, 8]))
    );
    assert_eq!(o.lines().len(), 3, "{o}");
}

fn ids_that_are_not_ours_are_refused() {
    needs(&[Uidmap, File("/etc/subuid"), File("/etc/subgid")]);
    let _sub_ids = sub_ids();
    let map = json!([{"containerID": 0, "hostID": UID, "size": 1}, {"containerID": 1, "hostID": 2000, "size": 10}]);
    let b = bundle()
        .set("/linux/uidMappings", map.clone())
        .set("/linux/gidMappings", map)
        .payload(&["true"]);
    User::new().run(&b).fails(1, &["range", "not allowed"]);
}

fn without_user_namespace_is_refused() {
    let b = bundle()
        .without_namespace("user")
        .remove("/linux/uidMappings")
        .remove("/linux/gidMappings");
    User::new()
        .run(&b.payload(&["true"]))
        .fails(1, &["user namespace"]);
}

fn limits_without_permission_are_refused() {
    let b = bundle()
        .set("/linux/resources", json!({"pids": {"limit": 10}}))
        .payload(&["true"]);
    let why = "rootless needs no limits + no cgrouppath when no permission is granted for cgroups";
    User::new().run(&b).fails(1, &[why]);
}

/// As systemd does for users: a cgroup that belongs to them.
fn delegated_cgroup() {
    let user = User::new();
    let parent = std::path::Path::new("/sys/fs/cgroup")
        .join(cgroup())
        .join("user");
    let leaf = parent.join("session");
    fs::create_dir_all(&leaf).unwrap();
    for d in [&parent, &leaf] {
        for f in [
            "",
            "cgroup.procs",
            "cgroup.subtree_control",
            "cgroup.threads",
        ] {
            chown(d.join(f), Some(UID), Some(UID)).unwrap();
        }
    }
    let b = bundle().payload(&["cat", "/proc/self/cgroup", ";", "wait"]);
    b.save();
    let id = format!("{}r", process::id_prefix());
    let run = user
        .cmd_in(&leaf)
        .args(["run", "--detach", "--bundle"])
        .arg(&b.dir)
        .arg(&id);
    let o = run.run();
    let entered = o.code == 0;
    if entered {
        wait_until("the payload is ready", || o.out_now().ends_with("ready\n"));
        let made = parent.join(&id);
        assert!(
            made.is_dir(),
            "a cgroup beside the caller's: {}",
            o.out_now()
        );
        let exec = |cmd: Cmd| {
            let cmd = cmd.args(["exec", &id, "/bin/payload"]);
            cmd.args(["cat", "/proc/self/cgroup"]).run()
        };
        let inside = exec(user.cmd_in(&leaf));
        let outside = exec(user.cmd());
        user.cmd().args(["delete", "--force", &id]).run().ok();
        assert!(!made.exists());
        let place = |o: &Output| {
            o.out
                .lines()
                .find_map(|l| l.strip_prefix("0::").map(String::from))
        };
        assert_eq!(place(&inside.ok()).unwrap(), "/");
        // from another session than the container's; runc lets it in too
        let outside = outside.ok();
        assert_ne!(place(&outside).unwrap(), "/");
        if is_husk() {
            let why =
                "the process is outside of the container's cgroup, whose limits do not hold for it";
            assert!(outside.err.contains(why), "{outside}");
        }
    }
    crate::support::guard::remove_cgroup(&parent);
    o.ok();
}
