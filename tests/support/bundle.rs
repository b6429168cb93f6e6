//! Bundles and containers.

use super::process::{
    Cmd, Output, Running, by_systemd, dir, id_prefix, payload, serial, wait_exit, wait_until,
};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The payload's path inside of every rootfs.
pub const PAYLOAD: &str = "/bin/payload";

/// A bundle directory with a small rootfs and a config that says the same as that of `runc spec`, without a terminal.
#[derive(Clone)]
pub struct Bundle {
    pub dir: PathBuf,
    pub config: Value,
}

impl Bundle {
    /// With a payload that waits for signals.
    pub fn new() -> Bundle {
        let bundle = dir().join(format!("bundle{}", serial()));
        let rootfs = bundle.join("rootfs");
        for d in ["bin", "dev", "etc", "proc", "root", "sys", "tmp"] {
            fs::create_dir_all(rootfs.join(d)).expect("rootfs");
        }
        fs::hard_link(payload(), rootfs.join("bin/payload")).expect("payload in the rootfs");
        let passwd = "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home/user:/bin/sh\n";
        fs::write(rootfs.join("etc/passwd"), passwd).expect("passwd");
        fs::write(
            rootfs.join("etc/group"),
            "root:x:0:\nuser:x:1000:\nstaff:x:50:user\n",
        )
        .expect("group");
        let b = Bundle {
            dir: bundle,
            config: default_config(),
        };
        b.payload(&["wait"])
    }

    /// Lets the payload run verbs: `["ids", ";", "cwd"]`.
    pub fn payload(self, verbs: &[&str]) -> Bundle {
        let args: Vec<&str> = [PAYLOAD].iter().chain(verbs).copied().collect();
        self.set("/process/args", json!(args))
    }

    pub fn rootfs(&self) -> PathBuf {
        self.dir.join("rootfs")
    }

    /// Sets a field, by JSON pointer; objects on the way are made.
    #[track_caller]
    pub fn set(mut self, pointer: &str, value: Value) -> Bundle {
        *slot(&mut self.config, pointer) = value;
        self
    }

    /// Appends to an array.
    #[track_caller]
    pub fn push(mut self, pointer: &str, value: Value) -> Bundle {
        let array = slot(&mut self.config, pointer);
        if array.is_null() {
            *array = json!([]);
        }
        array.as_array_mut().expect("an array").push(value);
        self
    }

    #[track_caller]
    pub fn remove(mut self, pointer: &str) -> Bundle {
        let (parent, key) = pointer.rsplit_once('/').expect("a JSON pointer");
        let parent = self.config.pointer_mut(parent).expect(pointer);
        match parent {
            Value::Object(o) => o.remove(key).map(drop).expect(pointer),
            Value::Array(a) => drop(a.remove(key.parse().expect("an index"))),
            _ => panic!("{pointer} is in no object"),
        }
        self
    }

    pub fn mount(self, destination: &str, fstype: &str, source: &str, options: &[&str]) -> Bundle {
        self.push(
            "/mounts",
            json!({"destination": destination, "type": fstype, "source": source, "options": options}),
        )
    }

    /// A bind mount.
    pub fn bind(self, source: impl AsRef<Path>, destination: &str, options: &[&str]) -> Bundle {
        let source = source.as_ref().to_str().expect("UTF-8");
        let mut all = vec!["bind"];
        all.extend(options);
        self.mount(destination, "bind", source, &all)
    }

    /// Changes the mount entry for a destination.
    #[track_caller]
    pub fn edit_mount(mut self, destination: &str, edit: impl FnOnce(&mut Value)) -> Bundle {
        let mounts = self.config["mounts"].as_array_mut().expect("mounts");
        let entry = mounts.iter_mut().find(|m| m["destination"] == destination);
        edit(entry.expect("a mount entry"));
        self
    }

    pub fn without_mount(mut self, destination: &str) -> Bundle {
        let mounts = self.config["mounts"].as_array_mut().expect("mounts");
        mounts.retain(|m| m["destination"] != destination);
        self
    }

    pub fn writable(self) -> Bundle {
        self.set("/root/readonly", json!(false))
    }

    pub fn without_namespace(mut self, kind: &str) -> Bundle {
        let list = self.config["linux"]["namespaces"].as_array_mut();
        list.expect("namespaces").retain(|n| n["type"] != kind);
        self
    }

    /// A new namespace, or one joined by path.
    pub fn namespace(self, kind: &str, path: Option<&str>) -> Bundle {
        let b = self.without_namespace(kind);
        match path {
            None => b.push("/linux/namespaces", json!({"type": kind})),
            Some(path) => b.push("/linux/namespaces", json!({"type": kind, "path": path})),
        }
    }

    /// A user namespace; `first` is the host's id of its root.
    pub fn user_namespace(self, first: u32) -> Bundle {
        // the payload and the directories belong to the host's root: others may read them, which is enough
        let map = json!([{"containerID": 0, "hostID": first, "size": 65536}]);
        self.namespace("user", None)
            .set("/linux/uidMappings", map.clone())
            .set("/linux/gidMappings", map)
    }

    /// All five capability sets, or `sets` of them.
    pub fn capabilities(mut self, sets: &[&str], names: &[&str]) -> Bundle {
        for set in sets {
            self = self.set(&format!("/process/capabilities/{set}"), json!(names));
        }
        self
    }

    pub fn hook(self, kind: &str, hook: Value) -> Bundle {
        self.push(&format!("/hooks/{kind}"), hook)
    }

    /// A file in the rootfs, with the directories above it.
    pub fn file(self, path: &str, text: &str, mode: u32) -> Bundle {
        let file = self.rootfs().join(path.trim_start_matches('/'));
        fs::create_dir_all(file.parent().expect("a file")).expect("rootfs");
        fs::write(&file, text).expect("file in the rootfs");
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("chmod");
        self
    }

    pub fn mkdir(self, path: &str) -> Bundle {
        fs::create_dir_all(self.rootfs().join(path.trim_start_matches('/'))).expect("rootfs");
        self
    }

    pub fn symlink(self, to: &str, path: &str) -> Bundle {
        let link = self.rootfs().join(path.trim_start_matches('/'));
        fs::create_dir_all(link.parent().expect("a file")).expect("rootfs");
        std::os::unix::fs::symlink(to, link).expect("symlink in the rootfs");
        self
    }

    /// The cgroup's path, below that of the test.
    pub fn cgroup(self, name: &str) -> Bundle {
        let path = Path::new("/").join(super::cgroup()).join(name);
        self.set("/linux/cgroupsPath", json!(path))
    }

    pub fn save(&self) {
        let text = serde_json::to_string_pretty(&self.config).expect("JSON");
        // by rename: a container of the same bundle may be reading it
        fs::write(self.dir.join("config.new"), text).expect("config.json");
        fs::rename(self.dir.join("config.new"), self.dir.join("config.json")).expect("config.json");
    }

    /// A container that is not created yet.
    pub fn container(&self) -> Container {
        let id = format!("{}{}", id_prefix(), serial());
        match self.config.pointer("/linux/cgroupsPath") {
            None if by_systemd() => {
                let path = json!(format!("system.slice:t:{id}"));
                self.clone().set("/linux/cgroupsPath", path).save();
            }
            _ => self.save(),
        }
        Container {
            id,
            bundle: self.dir.clone(),
            created: None,
        }
    }

    /// `run` in the foreground, until the end.
    pub fn run(&self) -> Output {
        self.run_with(&[])
    }

    pub fn run_with(&self, options: &[&str]) -> Output {
        self.container().cmd("run", options).run()
    }

    /// Runs and fails the test unless the runtime refuses with a message that has all these words, leaving nothing.
    #[track_caller]
    pub fn refused(&self, words: &[&str]) -> Output {
        // one that is not refused must end
        let b = match self.config["process"]["args"] == json!([PAYLOAD, "wait"]) {
            true => self.clone().payload(&["true"]),
            false => self.clone(),
        };
        let c = b.container();
        let output = c.cmd("run", &[]).run();
        assert_ne!(output.code, 0, "exit code of {output}");
        c.cmd0("state").run().fails(1, &[]);
        output.clone().fails(output.code, words)
    }

    /// `create`, which must work.
    #[track_caller]
    pub fn create(&self) -> Container {
        let mut c = self.container();
        c.create(&[]);
        c
    }

    /// `create` and `start`; waits until the payload's `wait` is ready.
    #[track_caller]
    pub fn start(&self) -> Container {
        let c = self.create();
        c.start();
        c.wait_ready();
        c
    }
}

fn slot<'a>(config: &'a mut Value, pointer: &str) -> &'a mut Value {
    let mut v = config;
    for key in pointer.split('/').skip(1) {
        if v.is_null() {
            *v = json!({});
        }
        v = match v {
            Value::Object(o) => o.entry(key).or_insert(Value::Null),
            Value::Array(a) => &mut a[key.parse::<usize>().expect("an index")],
            _ => panic!("{pointer}: no object"),
        };
    }
    v
}

/// A container by its id; deleted when dropped, if it was created.
pub struct Container {
    pub id: String,
    pub bundle: PathBuf,
    created: Option<Output>,
}

impl Container {
    /// A command with `--bundle`: create, run, restore.
    pub fn cmd(&self, verb: &str, options: &[&str]) -> Cmd {
        Cmd::runtime()
            .arg(verb)
            .arg("--bundle")
            .arg(&self.bundle)
            .args(options)
            .arg(&self.id)
    }

    /// A command that takes the id only.
    pub fn cmd0(&self, verb: &str) -> Cmd {
        Cmd::runtime().arg(verb).arg(&self.id)
    }

    #[track_caller]
    pub fn create(&mut self, options: &[&str]) {
        let output = self.cmd("create", options).run();
        self.created = Some(output.clone());
        output.ok();
    }

    /// `run --detach`.
    #[track_caller]
    pub fn run_detached(&mut self, options: &[&str]) {
        let options: Vec<&str> = ["--detach"].iter().chain(options).copied().collect();
        let output = self.cmd("run", &options).run();
        self.created = Some(output.clone());
        output.ok();
    }

    /// Runs a command that creates it, whatever comes of it.
    pub fn creates(&mut self, cmd: Cmd) -> Output {
        self.created_by(cmd.spawn())
    }

    pub fn created_by(&mut self, command: Running) -> Output {
        let output = command.wait();
        self.created = Some(output.clone());
        output
    }

    #[track_caller]
    pub fn start(&self) {
        self.cmd0("start").run().ok();
    }

    /// Waits until the payload's `wait` has blocked the signals.
    #[track_caller]
    pub fn wait_ready(&self) {
        wait_until("the payload prints `ready`", || {
            self.out().lines().any(|l| l == "ready")
        });
    }

    /// What the container has written to stdout by now.
    pub fn out(&self) -> String {
        self.created
            .as_ref()
            .map(Output::out_now)
            .unwrap_or_default()
    }

    #[track_caller]
    pub fn state(&self) -> Value {
        self.cmd0("state").run().ok().json()
    }

    #[track_caller]
    pub fn status(&self) -> String {
        self.state()["status"].as_str().expect("status").to_string()
    }

    #[track_caller]
    pub fn pid(&self) -> i32 {
        self.state()["pid"].as_i64().expect("pid") as i32
    }

    pub fn kill(&self, signal: &str) -> Output {
        Cmd::runtime().arg("kill").arg(&self.id).arg(signal).run()
    }

    pub fn exec_cmd(&self, options: &[&str], verbs: &[&str]) -> Cmd {
        Cmd::runtime()
            .arg("exec")
            .args(options)
            .arg(&self.id)
            .arg(PAYLOAD)
            .args(verbs)
    }

    /// `exec` of the payload.
    pub fn exec(&self, options: &[&str], verbs: &[&str]) -> Output {
        self.exec_cmd(options, verbs).run()
    }

    /// `exec --process`.
    pub fn exec_by_file(&self, file: &str) -> Output {
        let cmd = Cmd::runtime().args(["exec", "--process", file]);
        cmd.arg(&self.id).run()
    }

    pub fn exec_spawn(&self, options: &[&str], verbs: &[&str]) -> Running {
        self.exec_cmd(options, verbs).spawn()
    }

    #[track_caller]
    pub fn wait_status(&self, status: &str) {
        wait_until(&format!("{} is {status}", self.id), || {
            self.status() == status
        });
    }

    /// Ends the payload's `wait` and gives the exit code of the container's process.
    #[track_caller]
    pub fn stop(&self) -> i32 {
        let pid = self.pid();
        self.kill("TERM").ok();
        let code = wait_exit(pid);
        self.wait_status("stopped");
        code
    }

    /// `delete`, which must work.
    #[track_caller]
    pub fn delete(mut self) {
        self.created = None;
        self.cmd0("delete").run().ok();
    }

    /// The container is gone, by other means than `delete()`.
    pub fn forget(self) {
        self.adopt();
    }

    /// Somebody else deletes it.
    pub fn adopt(mut self) -> Container {
        self.created = None;
        self
    }

    /// Its cgroup when the config names none: beside that of the runtime.
    pub fn cgroup_dir(&self) -> PathBuf {
        if by_systemd() {
            return format!("/sys/fs/cgroup/system.slice/t-{}.scope", self.id).into();
        }
        Path::new("/sys/fs/cgroup")
            .join(super::cgroup())
            .join(&self.id)
    }

    /// A file of its cgroup.
    #[track_caller]
    pub fn cgroup_file(&self, name: &str) -> String {
        let path = self.cgroup_dir().join(name);
        let text =
            fs::read_to_string(&path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()));
        text.trim_end().to_string()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if self.created.is_none() {
            return;
        }
        let output = Cmd::runtime()
            .args(["delete", "--force"])
            .arg(&self.id)
            .run();
        if output.code != 0 {
            if std::thread::panicking() {
                eprintln!("{output}");
            } else {
                panic!("exit code of {output}");
            }
        }
    }
}

/// As `runc spec`, with a cgroup namespace as on every host with cgroup v2 alone.
pub fn default_config() -> Value {
    let capabilities = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];
    json!({
        "ociVersion": "1.2.0",
        "process": {
            "terminal": false,
            "user": {"uid": 0, "gid": 0},
            "args": [PAYLOAD],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": true
        },
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "box",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
                "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
                "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
                "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]}
        ],
        "linux": {
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "namespaces": [
                {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "cgroup"}
            ],
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
                "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi"
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
        }
    })
}
