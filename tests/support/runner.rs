//! Runs the tests, each in a process of its own: what is left below that process in the end, the test has left behind.

use super::{guard, process};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal};
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio, exit};
use std::sync::Arc;
use std::time::Duration;

#[derive(Clone)]
pub struct Test {
    /// "area::name"
    pub name: String,
    run: fn(),
}

impl Test {
    pub fn new(area: &str, name: &str, run: fn()) -> Test {
        Test {
            name: format!("{area}::{name}"),
            run,
        }
    }
}

/// Set for the process of one test: its name.
const ONE: &str = "HUSK_TEST_ONE";
/// Set for the process of one test: the directory and the cgroup that all tests share.
const BASE: &str = "HUSK_TEST_BASE";
const CGROUP: &str = "HUSK_TEST_CGROUP";

/// Exit code of a test that cannot run here, as in automake.
const SKIPPED: i32 = 77;

/// Payload of the panic that ends a skipped test.
pub struct Skip(pub String);

pub fn main(tests: Vec<Test>) -> ! {
    if let Ok(name) = std::env::var(ONE) {
        let test = tests.into_iter().find(|t| t.name == name);
        exit(one(&test.expect("name of a test")));
    }
    let args = Arguments::from_args();
    if args.list {
        libtest_mimic::run(
            &args,
            tests
                .iter()
                .map(|t| Trial::test(&t.name, || Ok(())))
                .collect(),
        )
        .exit();
    }
    if !nix::unistd::geteuid().is_root() {
        eprintln!("integration: start containers: not root; run this again as root");
        exit(1);
    }
    if !cfg!(target_feature = "crt-static") {
        eprintln!(
            "integration: run inside containers: this binary is not static; add --target {}-unknown-linux-musl",
            std::env::consts::ARCH
        );
        exit(1);
    }
    let runtime = process::runtime();
    if !runtime.exists() {
        eprintln!("integration: run {}: no such file", runtime.display());
        exit(1);
    }

    private_mounts();
    nix::sys::prctl::set_child_subreaper(true).expect("prctl");
    let base = tempfile::Builder::new()
        .prefix("husk-test-")
        .tempdir()
        .expect("directory of the tests");
    // the root users of user namespaces pass through
    fs::set_permissions(base.path(), fs::Permissions::from_mode(0o711)).expect("chmod");
    fs::copy("/proc/self/exe", base.path().join("payload")).expect("copy of the payload");
    let cgroup = format!("husk-test-{}", std::process::id());
    fs::create_dir(format!("/sys/fs/cgroup/{cgroup}")).expect("cgroup of the tests");

    end_on_signal(base.path().to_owned(), cgroup.clone());
    let shared = Arc::new((base.path().to_owned(), cgroup.clone()));
    let trials = tests
        .into_iter()
        .map(|test| {
            let shared = shared.clone();
            Trial::ignorable_test(test.name.clone(), move || {
                start(&test, &shared.0, &shared.1)
            })
        })
        .collect();
    let conclusion = libtest_mimic::run(&args, trials);
    clean(base.path(), &cgroup);
    if keep() {
        eprintln!("kept {}", base.keep().display());
    }
    conclusion.exit();
}

fn keep() -> bool {
    std::env::var_os("HUSK_TEST_KEEP").is_some()
}

/// A mount namespace of our own, with cgroup2 on /sys/fs/cgroup also where the host has it elsewhere.
fn private_mounts() {
    unshare(CloneFlags::CLONE_NEWNS).expect("unshare");
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("private mounts");
    let s = nix::sys::statfs::statfs("/sys/fs/cgroup").expect("/sys/fs/cgroup");
    if s.filesystem_type() != nix::sys::statfs::CGROUP2_SUPER_MAGIC {
        let under = super::mountinfo::read()
            .into_iter()
            .filter(|m| Path::new(&m.target).starts_with("/sys/fs/cgroup"));
        for m in under.collect::<Vec<_>>().iter().rev() {
            nix::mount::umount2(m.target.as_str(), nix::mount::MntFlags::MNT_DETACH)
                .expect("umount");
        }
        mount(
            Some("cgroup2"),
            "/sys/fs/cgroup",
            Some("cgroup2"),
            MsFlags::empty(),
            none,
        )
        .expect("mount cgroup2");
    }
}

/// Ctrl-C and SIGTERM end the containers too, which are in no process group of ours.
fn end_on_signal(base: PathBuf, cgroup: String) {
    let mut set = SigSet::empty();
    for s in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        set.add(s);
    }
    set.thread_block().expect("sigmask");
    std::thread::spawn(move || {
        let s = set.wait().expect("sigwait");
        let _ = fs::write(format!("/sys/fs/cgroup/{cgroup}/cgroup.kill"), "1");
        std::thread::sleep(Duration::from_millis(300));
        clean(&base, &cgroup);
        let _ = fs::remove_dir_all(&base);
        exit(128 + s as i32);
    });
}

fn clean(base: &Path, cgroup: &str) {
    guard::remove_cgroup(&Path::new("/sys/fs/cgroup").join(cgroup));
    if !keep() {
        let _ = fs::remove_dir_all(base);
    }
}

fn timeout(test: &Test) -> Duration {
    let secs = std::env::var("HUSK_TEST_TIMEOUT").ok();
    let secs = secs.and_then(|s| s.parse().ok()).unwrap_or(60);
    // one of these is a thousand short ones
    Duration::from_secs(if test.name.starts_with("faults::") {
        10 * secs
    } else {
        secs
    })
}

/// The parent's side of one test.
fn start(test: &Test, base: &Path, cgroup: &str) -> Result<Completion, Failed> {
    let name = test.name.replace("::", ".");
    let log = base.join(format!("{name}.log"));
    let out = fs::File::create(&log)?;
    let mut child = Command::new("/proc/self/exe")
        .arg0("integration")
        .env(ONE, &test.name)
        .env(BASE, base)
        .env(CGROUP, cgroup)
        // a setting for people's terminals; the tests look at what messages say
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .stdout(out.try_clone()?)
        .stderr(out)
        .spawn()?;
    let end = std::time::Instant::now() + timeout(test) + Duration::from_secs(15);
    let status: ExitStatus = loop {
        if let Some(s) = child.try_wait()? {
            break s;
        }
        if std::time::Instant::now() > end {
            // its own watchdog should have ended it; a process in D state cannot be helped
            let _ = fs::write(format!("/sys/fs/cgroup/{cgroup}/{name}/cgroup.kill"), "1");
            let _ = child.kill();
            return Err(format!("hangs, even its watchdog:\n{}", text(&log)).into());
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let dir = base.join(&name);
    match status.code() {
        Some(0) => {
            if let Ok(text) = fs::read_to_string(dir.join("note")) {
                println!("{}: {text}", test.name);
            }
            let _ = fs::remove_dir_all(dir);
            Ok(Completion::Completed)
        }
        Some(SKIPPED) => {
            let reason = fs::read_to_string(dir.join("skip")).unwrap_or_default();
            let _ = fs::remove_dir_all(dir);
            Ok(Completion::ignored_with(reason))
        }
        _ => Err(format!("{}\n({status})", text(&log)).into()),
    }
}

/// A figure that is shown although the test passes.
pub fn note(text: &str) {
    fs::write(process::dir().join("note"), text).expect("note");
}

fn text(log: &Path) -> String {
    String::from_utf8_lossy(&fs::read(log).unwrap_or_default()).into_owned()
}

/// The process of one test.
fn one(test: &Test) -> i32 {
    unshare(CloneFlags::CLONE_NEWNS).expect("unshare");
    nix::sys::prctl::set_child_subreaper(true).expect("prctl");
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    let base = PathBuf::from(std::env::var(BASE).expect(BASE));
    let name = test.name.replace("::", ".");
    let cgroup = Path::new(&std::env::var(CGROUP).expect(CGROUP)).join(&name);
    for v in [ONE, BASE, CGROUP] {
        // SAFETY: the first thread is not started yet.
        unsafe { std::env::remove_var(v) };
    }
    let dir = base.join(&name);
    for d in ["", "state", "out"] {
        fs::create_dir(dir.join(d)).expect("directory of the test");
    }
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).expect("chmod");
    std::env::set_current_dir(&dir).expect("chdir");
    // in a leaf: a cgroup with processes cannot hand controllers to those below it
    let leaf = Path::new("/sys/fs/cgroup").join(&cgroup).join("harness");
    fs::create_dir_all(&leaf).expect("cgroup of the test");
    fs::write(leaf.join("cgroup.procs"), "0").expect("cgroup of the test");

    process::set_up(dir.clone(), base.join("payload"), cgroup);
    let before = guard::Before::now();
    watch(timeout(test), before.clone());
    std::panic::set_hook(Box::new(report_panic));
    let result = catch_unwind(AssertUnwindSafe(|| (test.run)()));
    let leaks = before.leaks();
    for leak in &leaks {
        eprintln!("left behind: {leak}");
    }
    match result {
        Err(e) if e.is::<Skip>() && leaks.is_empty() => {
            let reason = &e.downcast_ref::<Skip>().expect("Skip").0;
            fs::write(dir.join("skip"), reason).expect("reason of a skip");
            SKIPPED
        }
        Ok(()) if leaks.is_empty() => 0,
        _ => 1,
    }
}

fn report_panic(info: &std::panic::PanicHookInfo) {
    if info.payload().is::<Skip>() {
        return;
    }
    let message = text_of(info.payload());
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    let _ = writeln!(std::io::stderr(), "{place}: {message}");
    // the assertions on a command say this already
    if !message.contains("exit code") {
        let _ = writeln!(
            std::io::stderr(),
            "last command: {}",
            process::last_output()
        );
    }
}

/// The message of a panic, which is one of two types.
fn text_of(payload: &dyn std::any::Any) -> &str {
    let string = payload.downcast_ref::<String>().map(String::as_str);
    string
        .or(payload.downcast_ref::<&str>().copied())
        .unwrap_or("panic")
}

/// Ends a test that hangs, and says where.
fn watch(limit: Duration, before: guard::Before) {
    std::thread::spawn(move || {
        std::thread::sleep(limit);
        process::TIMED_OUT.store(true, std::sync::atomic::Ordering::Relaxed);
        eprintln!(
            "timed out after {} s\nlast step: {}\nprocesses:",
            limit.as_secs(),
            process::last_step()
        );
        for p in guard::offspring() {
            eprintln!("  {}", guard::describe(p));
        }
        for leak in before.leaks() {
            eprintln!("left behind: {leak}");
        }
        exit(1);
    });
}
