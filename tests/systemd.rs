//! `--systemd-cgroup`: the container's cgroup as a scope of systemd's, for root and for a user.

use crate::support::*;
use nix::sys::signal::Signal;
use std::fs;
use std::path::{Path, PathBuf};

tests![
    without_systemd_is_explained,
    scope,
    default_scope,
    nested_slice,
    bad_paths_are_refused,
    no_cgroup_namespace,
    limits_are_properties_and_files,
    limits_survive_a_reload,
    update_changes_both,
    weight_ends_idleness,
    idleness_ends_without_a_weight,
    update_is_all_or_nothing,
    annotations,
    sub_cgroup,
    exec_pause_ps_kill,
    out_of_memory_leaves_nothing,
    failed_create_leaves_nothing,
    used_cgroup_is_refused,
    killed_runtime_is_cleaned_up,
    scope_that_is_gone_can_be_deleted,
    two_hundred_leave_nothing,
    user_scope,
    user_limits,
    user_without_systemd,
];

const MIB: u64 = 1 << 20;

fn cmd(verb: &str) -> Cmd {
    let mut cmd = Cmd::new(process::runtime()).arg("--root");
    cmd = cmd.arg(dir().join("state"));
    cmd.arg("--systemd-cgroup").arg(verb)
}

/// A container in a scope; deleted when dropped.
struct Scope {
    id: String,
    /// Of the cgroup, below /sys/fs/cgroup.
    path: PathBuf,
    out: Option<Output>,
}

impl Scope {
    /// A name for the bundle's container, and its cgroupsPath in the bundle's config.
    fn new(b: &Bundle) -> Scope {
        let id = format!("{}{}", process::id_prefix(), process::serial());
        let path = format!("system.slice/t-{id}.scope").into();
        let b = b
            .clone()
            .set("/linux/cgroupsPath", json!(format!("system.slice:t:{id}")));
        b.save();
        let out = None;
        Scope { id, path, out }
    }

    #[track_caller]
    fn start(b: &Bundle) -> Scope {
        let mut s = Scope::new(b);
        let run = s.run(b, &["--detach"]);
        s.out = Some(run.clone());
        run.ok();
        wait_until("the payload is ready", || {
            s.out.as_ref().unwrap().out_now().contains("ready\n")
        });
        s
    }

    fn run(&self, b: &Bundle, options: &[&str]) -> Output {
        let cmd = cmd("run").arg("--bundle").arg(&b.dir);
        cmd.args(options).arg(&self.id).run()
    }

    fn unit(&self) -> String {
        self.path.file_name().unwrap().to_str().unwrap().into()
    }

    fn cmd(&self, verb: &str) -> Cmd {
        cmd(verb).arg(&self.id)
    }

    fn pid(&self) -> i32 {
        self.cmd("state").run().ok().json()["pid"].as_i64().unwrap() as i32
    }

    fn exec(&self, verbs: &[&str]) -> Output {
        self.cmd("exec").arg("/bin/payload").args(verbs).run()
    }

    fn show(&self, property: &str) -> String {
        show(&self.unit(), property)
    }

    #[track_caller]
    fn file(&self, name: &str) -> String {
        let path = Path::new("/sys/fs/cgroup").join(&self.path).join(name);
        let text = fs::read_to_string(&path);
        text.unwrap_or_else(|e| panic!("read {}: {e}", path.display()))
            .trim_end()
            .into()
    }

    #[track_caller]
    fn is_gone(&self) {
        assert_eq!(self.show("LoadState"), "not-found");
        assert!(!Path::new("/sys/fs/cgroup").join(&self.path).exists());
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        if self.out.is_some() {
            let o = cmd("delete").args(["--force", &self.id]).run();
            assert!(o.code == 0 || std::thread::panicking(), "{o}");
        }
    }
}

fn show(unit: &str, property: &str) -> String {
    let o = Cmd::new("systemctl")
        .args(["show", "--property", property, "--value", unit])
        .run();
    o.ok().out.trim_end().to_string()
}

/// The cgroup of a process, relative to the root of the hierarchy.
fn cgroup_of(pid: i32) -> PathBuf {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let path = text.lines().find_map(|l| l.strip_prefix("0::/"));
    path.expect("a cgroup v2").into()
}

fn without_systemd_is_explained() {
    if Path::new("/run/systemd/private").exists() {
        skip("systemd runs here");
    }
    runc_fails("it says that systemd is not running before it looks at anything");
    let b = Bundle::new().payload(&["true"]);
    let s = Scope::new(&b);
    s.run(&b, &[]).fails(
        1,
        &[
            "unable to apply cgroup configuration",
            "reach systemd",
            "no such file",
            "--systemd-cgroup",
        ],
    );
    s.cmd("state").run().fails(1, &["does not exist"]);
}

fn scope() {
    needs(&[Systemd]);
    let s = Scope::start(&Bundle::new());
    assert_eq!(cgroup_of(s.pid()), s.path);
    for (property, value) in [
        ("ActiveState", "active"),
        ("Slice", "system.slice"),
        ("Delegate", "yes"),
        ("DefaultDependencies", "no"),
        ("MemoryAccounting", "yes"),
        ("TasksAccounting", "yes"),
        ("ControlGroup", &format!("/{}", s.path.display())),
    ] {
        assert_eq!(s.show(property), value, "{property}");
    }
    assert_eq!(s.exec(&["cat", "/proc/self/cgroup"]).ok().line(), "0::/");
    s.cmd("delete").arg("--force").run().ok();
    s.is_gone();
}

/// Without a cgroupsPath it is the runtime's own name.
fn default_scope() {
    needs(&[Systemd]);
    let b = Bundle::new();
    let mut s = Scope::new(&b);
    b.save(); // again, without the path
    s.out = Some(s.run(&b, &["--detach"]).ok());
    let name = process::runtime()
        .file_name()
        .unwrap()
        .to_string_lossy()
        .into_owned();
    let want = format!("system.slice/{name}-{}.scope", s.id);
    assert_eq!(cgroup_of(s.pid()), Path::new(&want));
}

fn nested_slice() {
    needs(&[Systemd]);
    let b = Bundle::new();
    let mut s = Scope::new(&b);
    let b = b.set(
        "/linux/cgroupsPath",
        json!(format!("husk-test.slice:t:{}", s.id)),
    );
    b.save();
    s.out = Some(s.run(&b, &["--detach"]).ok());
    let want = format!("husk.slice/husk-test.slice/t-{}.scope", s.id);
    assert_eq!(cgroup_of(s.pid()), Path::new(&want));
    drop(s);
    assert!(!Path::new("/sys/fs/cgroup").join(want).exists());
    Cmd::new("systemctl")
        .args(["stop", "husk-test.slice", "husk.slice"])
        .run()
        .ok();
}

fn bad_paths_are_refused() {
    needs(&[Systemd]);
    for (path, word) in [
        ("/a/b", "slice:prefix:name"),
        ("a--b.slice:p:n", "slice"),
        ("a/b.slice:p:n", "slice"),
    ] {
        let b = Bundle::new()
            .payload(&["true"])
            .set("/linux/cgroupsPath", json!(path));
        b.save();
        let o = cmd("run")
            .arg("--bundle")
            .arg(&b.dir)
            .arg(process::id_prefix())
            .run();
        o.fails(1, &[word]);
    }
}

/// The host's hierarchy is shown then, as it is where the container is.
fn no_cgroup_namespace() {
    needs(&[Systemd]);
    let b = Bundle::new().without_namespace("cgroup");
    let s = Scope::start(&b);
    let seen = s.exec(&["cat", "/proc/self/cgroup"]).ok();
    assert_eq!(seen.line(), format!("0::/{}", s.path.display()));
    s.exec(&[
        "stat",
        &format!("/sys/fs/cgroup/{}/cgroup.procs", s.path.display()),
    ])
    .ok();
}

fn limited() -> Bundle {
    Bundle::new().set(
        "/linux/resources",
        json!({
            "memory": {"limit": 64 * MIB, "reservation": 32 * MIB, "swap": 96 * MIB},
            "cpu": {"shares": 1024, "quota": 15_500, "period": 1_000_000, "cpus": "0"},
            "pids": {"limit": 40},
            "unified": {"memory.high": "60000000", "cgroup.max.depth": "3"},
            "devices": [{"allow": false, "access": "rwm"}],
        }),
    )
}

fn limits_are_properties_and_files() {
    needs(&[Systemd, Controller("memory"), Controller("cpu"), Swap]);
    let s = Scope::start(&limited());
    for (property, value) in [
        ("MemoryMax", (64 * MIB).to_string()),
        ("MemoryLow", (32 * MIB).to_string()),
        ("MemoryHigh", "60000000".into()),
        ("MemorySwapMax", (32 * MIB).to_string()),
        ("TasksMax", "40".into()),
        ("CPUWeight", "100".into()),
        ("CPUQuotaPeriodUSec", "1s".into()),
        // systemd keeps whole percents: the next one above
        ("CPUQuotaPerSecUSec", "20ms".into()),
        ("AllowedCPUs", "0".into()),
    ] {
        assert_eq!(s.show(property), value, "{property}");
    }
    for (file, value) in [
        ("memory.max", (64 * MIB).to_string()),
        ("memory.high", (60_000_000 / 4096 * 4096).to_string()),
        ("memory.swap.max", (32 * MIB).to_string()),
        ("pids.max", "40".into()),
        ("cpu.weight", "100".into()),
        ("cpuset.cpus", "0".into()),
        ("cgroup.max.depth", "3".into()),
    ] {
        assert_eq!(s.file(file), value, "{file}");
    }
    assert_eq!(s.file("cpu.max"), "20000 1000000", "the same as systemd");
}

fn limits_survive_a_reload() {
    needs(&[Systemd, Controller("memory")]);
    let caps = ["bounding", "effective", "permitted"];
    let s = Scope::start(&limited().capabilities(&caps, &["CAP_MKNOD"]));
    s.exec(&["mknod", "/dev/kmsg", "c", "1", "11"]).ok();
    Cmd::new("systemctl").arg("daemon-reload").run().ok();
    assert_eq!(s.file("memory.max"), (64 * MIB).to_string());
    assert_eq!(s.file("pids.max"), "40");
    assert_eq!(
        s.file("memory.high"),
        (60_000_000 / 4096 * 4096).to_string()
    );
    // and what systemd knows nothing of
    assert_eq!(s.file("cgroup.max.depth"), "3");
    // the program with the rules of devices among it
    let o = s.exec(&["open", "/dev/null", "rw", ";", "open", "/dev/kmsg", "r"]);
    assert_eq!(o.exits(1).lines(), ["ok", "error EPERM"]);
}

fn update_changes_both() {
    needs(&[Systemd, Controller("memory"), Controller("pids")]);
    let s = Scope::start(&limited());
    let mut update = cmd("update").args([
        "--memory",
        "80M",
        "--memory-swap",
        "100M",
        "--pids-limit",
        "30",
    ]);
    update = update.arg(&s.id);
    update.run().ok();
    assert_eq!(s.file("memory.max"), (80 * MIB).to_string());
    assert_eq!(s.show("MemoryMax"), (80 * MIB).to_string());
    assert_eq!(
        (s.file("pids.max"), s.show("TasksMax")),
        ("30".into(), "30".into())
    );
    Cmd::new("systemctl").arg("daemon-reload").run().ok();
    assert_eq!(s.file("memory.max"), (80 * MIB).to_string());
}

/// For systemd idleness is a weight, and another weight ends it.
fn weight_ends_idleness() {
    runc_fails("it writes the weight of an idle cgroup all the same");
    needs(&[Systemd, Controller("cpu"), Kernel(5, 15)]);
    let s = Scope::start(&Bundle::new());
    let update = |options: &[&str]| cmd("update").args(options).arg(&s.id).run().ok();
    let o = update(&["--cpu-idle", "1", "--cpu-share", "200"]);
    assert!(o.err.contains("unable to apply both"), "{o}");
    assert_eq!(s.file("cpu.idle"), "1");
    update(&["--cpu-share", "200"]);
    assert_eq!(s.file("cpu.idle"), "0");
    update(&["--cpu-idle", "1"]);
    update(&["--cpu-idle", "0"]);
    assert_eq!(s.file("cpu.idle"), "0");
    Cmd::new("systemctl").arg("daemon-reload").run().ok();
    update(&["--cpu-quota", "50000"]);
    assert_eq!(s.file("cpu.idle"), "0", "for systemd too");
}

/// Without shares there is no weight to give systemd.
fn idleness_ends_without_a_weight() {
    needs(&[Systemd, Controller("cpu"), Kernel(5, 15)]);
    husk_only("runc does not tell systemd");
    let s = Scope::start(&Bundle::new());
    let update = |options: &[&str]| cmd("update").args(options).arg(&s.id).run().ok();
    update(&["--cpu-idle", "1"]);
    assert_eq!(s.show("CPUWeight"), "idle");
    update(&["--cpu-idle", "0"]);
    assert_eq!(s.show("CPUWeight"), "[not set]");
    Cmd::new("systemctl").arg("daemon-reload").run().ok();
    update(&["--cpu-quota", "50000"]);
    assert_eq!(s.file("cpu.idle"), "0");
}

/// A limit that cannot be: what systemd was told before is taken back there too.
fn update_is_all_or_nothing() {
    runc_fails("it leaves what it has written");
    needs(&[Systemd, Controller("memory"), Controller("pids")]);
    let s = Scope::start(&limited());
    let now = || {
        let files = ["memory.max", "memory.swap.max", "pids.max", "cpu.weight"];
        let shown = ["MemoryMax", "MemorySwapMax", "TasksMax", "CPUWeight"];
        (files.map(|f| s.file(f)), shown.map(|p| s.show(p)))
    };
    let before = now();
    let limits = json!({
        "memory": {"limit": 80 * MIB, "swap": 100 * MIB},
        "pids": {"limit": 30},
        "cpu": {"shares": 2048},
        "unified": {"cpuset.mems": "77"},
    });
    fs::write("limits.json", limits.to_string()).unwrap();
    let update = cmd("update").args(["--resources", "limits.json", &s.id]);
    update.run().fails(1, &["update", "unified.cpuset.mems"]);
    assert_eq!(now(), before);
    // one that comes after what systemd is told: the record of the limits cannot be kept
    let record = dir().join("state").join(&s.id).join("config.json.tmp");
    fs::create_dir(&record).unwrap();
    let update = cmd("update").args(["--memory", "80M", "--memory-swap", "100M", &s.id]);
    update.run().fails(1, &["update", "keep config.json"]);
    assert_eq!(now(), before);
    fs::remove_dir(&record).unwrap();
    let update = cmd("update").args(["--memory", "80M", "--memory-swap", "100M", &s.id]);
    update.run().ok();
    assert_ne!(now(), before);
}

fn annotations() {
    needs(&[Systemd]);
    let b = Bundle::new()
        .set(
            "/annotations/org.systemd.property.TimeoutStopSec",
            json!("uint64 123"),
        )
        .set(
            "/annotations/org.systemd.property.Description",
            json!("'a box'"),
        );
    let s = Scope::start(&b);
    assert_eq!(s.show("TimeoutStopUSec"), "2min 3s");
    assert_eq!(s.show("Description"), "a box");
    for (name, value) in [("CPUWeight", "heavy"), ("NoSuchProperty", "true")] {
        let b = Bundle::new().payload(&["true"]).set(
            &format!("/annotations/org.systemd.property.{name}"),
            json!(value),
        );
        let s = Scope::new(&b);
        s.run(&b, &[]).fails(1, &[name]);
        s.is_gone();
    }
}

fn sub_cgroup() {
    needs(&[Systemd]);
    husk_only("the annotation is crun's, the path is not");
    let b = Bundle::new().set("/annotations/run.oci.systemd.subgroup", json!("inner"));
    let s = Scope::start(&limits_of(b));
    assert_eq!(cgroup_of(s.pid()), s.path.join("inner"));
    assert_eq!(s.file("pids.max"), "25", "the scope has the limits");
    assert_eq!(s.exec(&["cat", "/proc/self/cgroup"]).ok().line(), "0::/");
    s.cmd("delete").arg("--force").run().ok();
    s.is_gone();
}

fn limits_of(b: Bundle) -> Bundle {
    b.set("/linux/resources/pids", json!({"limit": 25}))
}

fn exec_pause_ps_kill() {
    needs(&[Systemd]);
    let s = Scope::start(&Bundle::new());
    let first = cmd("ps")
        .args(["--format", "json", &s.id])
        .run()
        .ok()
        .json();
    assert_eq!(first, json!([s.pid()]));
    s.cmd("pause").run().ok();
    assert_eq!(s.file("cgroup.freeze"), "1");
    assert_eq!(s.cmd("state").run().ok().json()["status"], "paused");
    s.cmd("resume").run().ok();
    let cgroup = cmd("exec").args([&s.id, "/bin/payload", "cat", "/proc/self/cgroup"]);
    assert_eq!(cgroup.run().ok().line(), "0::/");
    s.cmd("pause").run().ok();
    // SIGKILL does not wait until it is thawed
    s.cmd("delete").arg("--force").run().ok();
    s.is_gone();
}

/// The unit has failed then, which systemd would remember.
fn out_of_memory_leaves_nothing() {
    needs(&[Systemd, Controller("memory")]);
    let b = Bundle::new()
        .set(
            "/linux/resources/memory",
            json!({"limit": 30 * MIB, "swap": 30 * MIB}),
        )
        .payload(&["alloc", "60"]);
    let s = Scope::new(&b);
    let o = s.run(&b, &[]).exits(128 + 9);
    if is_husk() {
        // systemd may be quicker to remove the cgroup than husk to look at it
        let sure = o.err.contains("killed by its memory limit: 30 MiB");
        let likely = "killed, most likely by its memory limit: 30 MiB";
        assert!(sure || o.err.contains(likely), "{o}");
    }
    // a failed one, which stays until somebody has seen it: who deletes the container has
    wait_until("systemd has noticed", || s.show("LoadState") == "not-found");
    s.is_gone();
}

fn failed_create_leaves_nothing() {
    needs(&[Systemd]);
    let b = Bundle::new().set("/process/args", json!(["/bin/nothing"]));
    let s = Scope::new(&b);
    s.run(&b, &[]).fails(1, &["no such file"]);
    wait_until("systemd has noticed", || s.show("LoadState") == "not-found");
    s.is_gone();
    // what the kernel refuses, systemd has not seen
    let b = Bundle::new()
        .payload(&["true"])
        .set("/linux/resources/cpu", json!({"cpus": "4000"}));
    let s = Scope::new(&b);
    assert_ne!(s.run(&b, &[]).code, 0);
    wait_until("systemd has noticed", || s.show("LoadState") == "not-found");
}

fn used_cgroup_is_refused() {
    needs(&[Systemd]);
    let b = Bundle::new();
    let first = Scope::start(&b);
    // the second one's bundle is the first one's, and so is its cgroup
    let second = Scope {
        id: format!("{}{}", process::id_prefix(), process::serial()),
        path: first.path.clone(),
        out: None,
    };
    second
        .run(&b, &["--detach"])
        .fails(1, &["container's cgroup is not empty"]);
    assert_eq!(first.cmd("state").run().ok().json()["status"], "running");
}

/// `create` is killed while a hook runs: there is a unit, and a record without an end.
fn killed_runtime_is_cleaned_up() {
    needs(&[Systemd]);
    let mark = dir().join("hook-runs");
    let script = format!("echo >{}; sleep 1000", mark.display());
    let b = Bundle::new().hook(
        "createRuntime",
        json!({"path": "/bin/sh", "args": ["sh", "-c", script]}),
    );
    let s = Scope::new(&b);
    let create = cmd("create").arg("--bundle").arg(&b.dir).arg(&s.id).spawn();
    wait_until("the hook runs", || mark.exists());
    assert_eq!(s.show("ActiveState"), "active");
    create.kill(Signal::SIGKILL);
    create.wait();
    s.cmd("delete").arg("--force").run().ok();
    s.is_gone();
    for pid in guard::offspring() {
        if guard::describe(pid).contains("sleep") {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        }
    }
}

fn scope_that_is_gone_can_be_deleted() {
    needs(&[Systemd]);
    let s = Scope::start(&Bundle::new());
    Cmd::new("systemctl")
        .args(["kill", "--signal=KILL", &s.unit()])
        .run()
        .ok();
    wait_until("systemd has noticed", || s.show("LoadState") == "not-found");
    assert_eq!(s.cmd("state").run().ok().json()["status"], "stopped");
    s.cmd("delete").run().ok();
    s.is_gone();
    let mut s = s;
    s.out = None;
}

fn two_hundred_leave_nothing() {
    needs(&[Systemd]);
    let before = units();
    let each = |worker: usize| {
        for i in 0..50 {
            process::step(format!("container {i} of worker {worker}"));
            let b = limits_of(Bundle::new().payload(&["true"]));
            let s = Scope::new(&b);
            s.run(&b, &[]).ok();
        }
    };
    std::thread::scope(|t| {
        for worker in 0..4 {
            t.spawn(move || each(worker));
        }
    });
    wait_until("systemd has noticed", || units() == before);
    let left = fs::read_dir("/sys/fs/cgroup/system.slice")
        .unwrap()
        .flatten();
    let name = |e: fs::DirEntry| e.file_name().to_string_lossy().into_owned();
    let ours = format!("t-{}", process::id_prefix());
    let left: Vec<_> = left.map(name).filter(|n| n.starts_with(&ours)).collect();
    assert!(left.is_empty(), "{left:?}");
}

/// Of this test, loaded, failed or not.
fn units() -> Vec<String> {
    let ours = format!("t-{}*", process::id_prefix());
    let list = ["list-units", "--all", "--no-legend", "--plain", &ours];
    let o = Cmd::new("systemctl").args(list).run().ok();
    o.lines().iter().map(|l| l.to_string()).collect()
}

mod user {
    use super::*;
    use std::os::unix::fs::chown;

    pub const UID: u32 = 1000;

    /// As the user 1000, whose systemd runs.
    pub struct User {
        runtime: PathBuf,
        pub bundle: Bundle,
        pub id: String,
        session: bool,
    }

    impl User {
        pub fn new(bundle: Bundle, session: bool) -> User {
            let runtime = dir().join(process::runtime().file_name().unwrap());
            fs::copy(process::runtime(), &runtime).unwrap();
            fs::create_dir("user").unwrap();
            chown("user", Some(UID), Some(UID)).unwrap();
            let id = format!("{}{}", process::id_prefix(), process::serial());
            let map = json!([{"containerID": 0, "hostID": UID, "size": 1}]);
            let bundle = bundle
                .namespace("user", None)
                .without_namespace("network")
                .set("/linux/uidMappings", map.clone())
                .set("/linux/gidMappings", map)
                .edit_mount("/sys", |m| {
                    *m = json!({"destination": "/sys", "type": "none", "source": "/sys", "options": ["rbind", "nosuid", "noexec", "nodev", "ro"]});
                })
                .without_mount("/sys/fs/cgroup")
                .edit_mount("/dev/pts", |m| {
                    m["options"] = json!(["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]);
                });
            bundle.save();
            for d in [&bundle.dir, &bundle.rootfs()] {
                chown(d, Some(UID), Some(UID)).unwrap();
            }
            User {
                runtime,
                bundle,
                id,
                session,
            }
        }

        pub fn program(&self, program: impl AsRef<std::ffi::OsStr>) -> Cmd {
            let mut cmd = Cmd::new(program);
            let become_user = || {
                nix::unistd::setgroups(&[])?;
                nix::unistd::setgid(UID.into())?;
                nix::unistd::setuid(UID.into())?;
                Ok(())
            };
            // SAFETY: the closure makes three system calls only.
            unsafe { std::os::unix::process::CommandExt::pre_exec(cmd.command(), become_user) };
            let runtime_dir = match self.session {
                true => PathBuf::from(format!("/run/user/{UID}")),
                false => dir().join("user"),
            };
            cmd.env("XDG_RUNTIME_DIR", runtime_dir)
                .env("HOME", dir().join("user"))
                .cwd(dir().join("user"))
        }

        pub fn cmd(&self, verb: &str) -> Cmd {
            let cmd = self.program(&self.runtime);
            cmd.arg("--root")
                .arg(dir().join("user/state"))
                .arg("--systemd-cgroup")
                .arg(verb)
        }

        pub fn run(&self) -> Output {
            self.cmd("run")
                .args(["--detach", "--bundle"])
                .arg(&self.bundle.dir)
                .arg(&self.id)
                .run()
        }

        pub fn delete(&self) {
            self.cmd("delete").args(["--force", &self.id]).run().ok();
        }
    }
}

fn user_scope() {
    needs(&[Systemd, UserSystemd]);
    let user = user::User::new(Bundle::new().remove("/linux/resources"), true);
    let path = format!("user.slice:t:{}", user.id);
    user.bundle
        .clone()
        .set("/linux/cgroupsPath", json!(path))
        .save();
    let o = user.run().ok();
    wait_until("the payload is ready", || o.out_now().contains("ready\n"));
    let pid = user.cmd("state").arg(&user.id).run().ok().json()["pid"]
        .as_i64()
        .unwrap();
    let at = format!(
        "user.slice/user-1000.slice/user@1000.service/user.slice/t-{}.scope",
        user.id
    );
    assert_eq!(cgroup_of(pid as i32), Path::new(&at));
    // from outside of what is delegated to him
    let verbs = [&user.id, "/bin/payload", "cat", "/proc/self/cgroup"];
    let o = user.cmd("exec").args(verbs).run().ok();
    if is_husk() {
        assert_eq!(o.line(), "0::/", "runc's stays where it was");
    }
    user.cmd("pause").arg(&user.id).run().ok();
    user.cmd("resume").arg(&user.id).run().ok();
    user.delete();
    assert!(!Path::new("/sys/fs/cgroup").join(at).exists());
    let show = [
        "--user",
        "show",
        "-p",
        "LoadState",
        "--value",
        &format!("t-{}.scope", user.id),
    ];
    assert_eq!(
        user.program("systemctl").args(show).run().ok().line(),
        "not-found"
    );
}

fn user_limits() {
    needs(&[UserSystemd, Controller("memory"), Controller("pids")]);
    let b = Bundle::new().set(
        "/linux/resources",
        json!({"pids": {"limit": 30}, "memory": {"limit": 64 * MIB}}),
    );
    let user = user::User::new(b, true);
    let o = user.run().ok();
    wait_until("the payload is ready", || o.out_now().contains("ready\n"));
    let pid = user.cmd("state").arg(&user.id).run().ok().json()["pid"]
        .as_i64()
        .unwrap();
    let at = Path::new("/sys/fs/cgroup").join(cgroup_of(pid as i32));
    let read = |f: &str| {
        fs::read_to_string(at.join(f))
            .unwrap()
            .trim_end()
            .to_string()
    };
    assert_eq!(read("pids.max"), "30");
    assert_eq!(read("memory.max"), (64 * MIB).to_string());
    user.delete();
    assert!(!at.exists());
}

/// Without any systemd of his a user's container runs if it asks for nothing.
fn user_without_systemd() {
    runc_fails("it wants systemd even so");
    let user = user::User::new(Bundle::new().remove("/linux/resources"), false);
    let o = user.run().ok();
    wait_until("the payload is ready", || o.out_now().contains("ready\n"));
    user.delete();
    user.bundle
        .clone()
        .set("/linux/resources", json!({"pids": {"limit": 30}}))
        .save();
    user.run().fails(1, &["reach systemd", "log in"]);
}
