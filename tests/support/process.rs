//! Commands, their output, and the one place that waits for processes.

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;
use serde_json::Value;
use std::collections::HashMap;
use std::ffi::{CStr, OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, OnceLock};
use std::time::{Duration, Instant};

struct Place {
    dir: PathBuf,
    payload: PathBuf,
    cgroup: PathBuf,
    id_prefix: String,
}

static PLACE: OnceLock<Place> = OnceLock::new();
static LAST: Mutex<String> = Mutex::new(String::new());
static STEP: Mutex<String> = Mutex::new(String::new());
/// Exit codes of everything that ended: our commands, and the containers' processes that come to us as subreaper.
static ENDED: Mutex<Option<HashMap<i32, i32>>> = Mutex::new(None);
/// The test has had its time: what its commands say now is of no use.
pub static TIMED_OUT: AtomicBool = AtomicBool::new(false);
static SPAWNING: Mutex<()> = Mutex::new(());
static CHANGED: Condvar = Condvar::new();

pub fn set_up(dir: PathBuf, payload: PathBuf, cgroup: PathBuf) {
    let place = Place {
        dir,
        payload,
        cgroup,
        id_prefix: format!("t{}-", std::process::id()),
    };
    assert!(PLACE.set(place).is_ok());
    *ENDED.lock().unwrap() = Some(HashMap::new());
    std::thread::spawn(reap);
}

fn place() -> &'static Place {
    PLACE.get().expect("set_up was called")
}

/// The test's own directory, also its working directory.
pub fn dir() -> &'static Path {
    &place().dir
}

pub fn payload() -> &'static Path {
    &place().payload
}

/// The cgroup above the containers of this test, relative to the root of the hierarchy.
pub fn cgroup() -> &'static Path {
    &place().cgroup
}

/// All ids of containers of this test begin so.
pub fn id_prefix() -> &'static str {
    &place().id_prefix
}

/// A number of its own for each caller.
pub fn serial() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// The last command that ended, with all that it printed.
pub fn last_output() -> String {
    LAST.lock().unwrap().clone()
}

pub fn last_step() -> String {
    STEP.lock().unwrap().clone()
}

pub fn step(what: impl Into<String>) {
    *STEP.lock().unwrap() = what.into();
}

/// The runtime under test.
pub fn runtime() -> PathBuf {
    let husk = env!("CARGO_BIN_EXE_husk");
    std::env::var_os("HUSK_TEST_RUNTIME").map_or(husk.into(), PathBuf::from)
}

/// Whether systemd makes the containers' cgroups.
pub fn by_systemd() -> bool {
    std::env::var("HUSK_TEST_CGROUP_DRIVER").is_ok_and(|d| d == "systemd")
}

fn reap() {
    loop {
        let peek = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
        let Some(pid) = waitid(Id::All, peek).ok().and_then(|s| s.pid()) else {
            // nobody to wait for now; orphans come unannounced
            std::thread::sleep(Duration::from_millis(1));
            continue;
        };
        // a child that could not execute its program is waited for by std, within spawn
        let _no_spawn = SPAWNING.lock().unwrap();
        let code = match waitpid(pid, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(_, code)) => code,
            Ok(WaitStatus::Signaled(_, signal, _)) => 128 + signal as i32,
            _ => continue,
        };
        let mut ended = ENDED.lock().unwrap();
        ended.as_mut().unwrap().insert(pid.as_raw(), code);
        CHANGED.notify_all();
    }
}

/// Waits for a child or an orphan that came to us; its exit code, or 128 + the signal.
pub fn wait_exit(pid: i32) -> i32 {
    let mut ended = ENDED.lock().unwrap();
    loop {
        if !TIMED_OUT.load(Ordering::Relaxed)
            && let Some(code) = ended.as_mut().unwrap().remove(&pid)
        {
            return code;
        }
        ended = CHANGED.wait(ended).unwrap();
    }
}

/// Has it ended? Its code stays for `wait_exit`.
pub fn has_ended(pid: i32) -> bool {
    let ended = ENDED.lock().unwrap();
    ended.as_ref().unwrap().contains_key(&pid)
}

/// Waits until something is so; fails the test after 10 seconds.
#[track_caller]
pub fn wait_until(what: &str, mut so: impl FnMut() -> bool) {
    step(format!("wait until {what}"));
    let end = Instant::now() + Duration::from_secs(10);
    while !so() {
        assert!(Instant::now() < end, "waited 10 s until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A command whose output goes to files, so that containers that outlive it can go on writing.
pub struct Cmd {
    command: Command,
    text: String,
    out: PathBuf,
    err: PathBuf,
    stdin: Option<Stdio>,
    stdio: bool,
}

impl Cmd {
    pub fn new(program: impl AsRef<OsStr>) -> Cmd {
        let n = serial();
        let out = dir().join(format!("out/{n}.out"));
        let program = program.as_ref();
        let name = Path::new(program).file_name().unwrap_or(program);
        Cmd {
            command: Command::new(program),
            text: name.to_string_lossy().into_owned(),
            err: out.with_extension("err"),
            out,
            stdin: None,
            stdio: true,
        }
    }

    /// The runtime with this test's state directory.
    pub fn runtime() -> Cmd {
        let state: OsString = dir().join("state").into();
        let mut cmd = Cmd::new(runtime());
        cmd.command.arg("--root").arg(state);
        if by_systemd() {
            cmd.command.arg("--systemd-cgroup");
        }
        cmd
    }

    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Cmd {
        self.text.push(' ');
        self.text.push_str(&arg.as_ref().to_string_lossy());
        self.command.arg(arg);
        self
    }

    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Cmd {
        for arg in args {
            self = self.arg(arg);
        }
        self
    }

    pub fn env(mut self, key: &str, value: impl AsRef<OsStr>) -> Cmd {
        self.command.env(key, value);
        self
    }

    pub fn cwd(mut self, dir: impl AsRef<Path>) -> Cmd {
        self.command.current_dir(dir);
        self
    }

    pub fn stdin(mut self, stdin: impl Into<Stdio>) -> Cmd {
        self.stdin = Some(stdin.into());
        self
    }

    /// Gives the command other standard streams than files.
    pub fn stdio(mut self, stdin: Stdio, stdout: Stdio, stderr: Stdio) -> Cmd {
        self.command.stdin(stdin).stdout(stdout).stderr(stderr);
        self.stdio = false;
        self
    }

    pub fn command(&mut self) -> &mut Command {
        &mut self.command
    }

    /// The same command with a fault at its n-th system call, whose number goes to `report`: see `inject`.
    pub fn inject(self, who: &str, fault: &str, n: usize, report: &Path) -> Cmd {
        let report = report.to_str().expect("UTF-8");
        let text = format!("{} with {fault} at call {n} of {who}", self.text);
        self.through(&["inject", who, fault, &n.to_string(), report], text)
    }

    /// The same command with something that others do meanwhile to its process or its children: see `inject`.
    pub fn meanwhile(self, who: &str, what: &str, report: &Path) -> Cmd {
        self.inject(who, what, 0, report)
    }

    /// The same command where the kernel has not a system call, for it and for all that comes of it.
    pub fn without(self, call: &str) -> Cmd {
        let text = format!("{} without {call}", self.text);
        self.through(&["payload", "without", call], text)
    }

    /// Executed by another of this binary's programs.
    fn through(self, program: &[&str], text: String) -> Cmd {
        let all = Cmd::new("/proc/self/exe")
            .args(program)
            .arg(self.command.get_program())
            .args(self.command.get_args());
        Cmd { text, ..all }
    }

    #[track_caller]
    pub fn spawn(self) -> Running {
        let text = self.text.clone();
        self.try_spawn()
            .unwrap_or_else(|e| panic!("spawn `{text}`: {e}"))
    }

    // who waits is `reap`
    #[allow(clippy::zombie_processes)]
    pub fn try_spawn(mut self) -> std::io::Result<Running> {
        if self.stdio {
            self.command
                .stdin(self.stdin.take().unwrap_or_else(Stdio::null))
                .stdout(create(&self.out))
                .stderr(create(&self.err));
        }
        step(format!("`{}`", self.text));
        let _lock = SPAWNING.lock().unwrap();
        let child = self.command.spawn()?;
        Ok(Running {
            pid: child.id() as i32,
            text: self.text,
            out: self.out,
            err: self.err,
        })
    }

    #[track_caller]
    pub fn run(self) -> Output {
        self.spawn().wait()
    }
}

fn create(path: &Path) -> File {
    // append: the writers share the file, not an offset
    let file = OpenOptions::new().create(true).append(true).open(path);
    file.unwrap_or_else(|e| panic!("create {}: {e}", path.display()))
}

/// A command under way. It is not ended when dropped: the guard calls it a leak.
pub struct Running {
    pub pid: i32,
    text: String,
    out: PathBuf,
    err: PathBuf,
}

impl Running {
    pub fn wait(self) -> Output {
        step(format!("wait for `{}`", self.text));
        let code = wait_exit(self.pid);
        let output = Output {
            code,
            command: self.text,
            out: read(&self.out),
            err: read(&self.err),
            out_path: self.out,
        };
        *LAST.lock().unwrap() = output.to_string();
        output
    }

    pub fn out(&self) -> String {
        read(&self.out)
    }

    pub fn ended(&self) -> bool {
        has_ended(self.pid)
    }

    #[track_caller]
    pub fn kill(&self, signal: Signal) {
        assert!(self.try_kill(signal), "`{}` has ended", self.text);
    }

    /// False when it has ended.
    pub fn try_kill(&self, signal: Signal) -> bool {
        kill(Pid::from_raw(self.pid), signal).is_ok()
    }
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

/// What a command has left.
#[derive(Clone, Debug)]
pub struct Output {
    pub command: String,
    pub code: i32,
    pub out: String,
    pub err: String,
    out_path: PathBuf,
}

impl Output {
    /// Fails the test unless the exit code is 0.
    #[track_caller]
    pub fn ok(self) -> Output {
        self.exits(0)
    }

    #[track_caller]
    pub fn exits(self, code: i32) -> Output {
        assert_eq!(self.code, code, "exit code of {self}");
        self
    }

    /// Fails the test unless the command failed with this code and a message that has all these words.
    #[track_caller]
    pub fn fails(self, code: i32, words: &[&str]) -> Output {
        assert_eq!(self.code, code, "exit code of {self}");
        for word in words {
            assert!(
                self.err.to_lowercase().contains(&word.to_lowercase()),
                "no {word:?} in the message of {self}"
            );
        }
        self
    }

    #[track_caller]
    pub fn says(self, text: &str) -> Output {
        assert!(self.out.contains(text), "no {text:?} on stdout of {self}");
        self
    }

    /// The one line of stdout, without its end.
    #[track_caller]
    pub fn line(&self) -> &str {
        let line = self.out.trim_end_matches('\n');
        assert!(!line.contains('\n'), "more than a line on stdout of {self}");
        line
    }

    pub fn lines(&self) -> Vec<&str> {
        self.out.lines().collect()
    }

    /// Stdout as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        let v = serde_json::from_str(&self.out);
        v.unwrap_or_else(|e| panic!("no JSON ({e}) on stdout of {self}"))
    }

    /// Each line of stdout as JSON.
    #[track_caller]
    pub fn jsons(&self) -> Vec<Value> {
        let line = |l: &str| {
            serde_json::from_str(l)
                .unwrap_or_else(|e| panic!("no JSON ({e}): {l} on stdout of {self}"))
        };
        self.out.lines().map(line).collect()
    }

    /// What is in the file of stdout by now: a container that was created goes on writing there.
    pub fn out_now(&self) -> String {
        read(&self.out_path)
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(
            f,
            "`{}`\nexit code {}\n--- stdout\n{}--- stderr\n{}---",
            self.command, self.code, self.out, self.err
        )
    }
}

/// Lets two names change places.
pub fn exchange(a: &CStr, b: &CStr) -> std::io::Result<()> {
    let at = libc::AT_FDCWD;
    // SAFETY: two C strings and integers; nix has no renameat2 for musl.
    let rc = unsafe {
        let (a, b) = (a.as_ptr(), b.as_ptr());
        libc::syscall(libc::SYS_renameat2, at, a, at, b, libc::RENAME_EXCHANGE)
    };
    match rc {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// Lets a command inherit descriptors under given numbers.
pub fn keep_fds(command: &mut Command, fds: Vec<(OwnedFd, RawFd)>) {
    use std::os::unix::process::CommandExt;
    let run = move || {
        for (fd, number) in &fds {
            // SAFETY: dup2 and fcntl are async-signal-safe, and the numbers are free in the new child or are this fd itself.
            let rc = unsafe {
                if fd.as_raw_fd() == *number {
                    libc::fcntl(*number, libc::F_SETFD, 0)
                } else {
                    libc::dup2(fd.as_raw_fd(), *number)
                }
            };
            if rc < 0 {
                return Err(std::io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: the closure makes the two calls above only.
    unsafe { command.pre_exec(run) };
}
