//! What a test needs of the host and of the runtime, and what happens when it is not there.

use super::process::{Cmd, runtime};
use super::runner::Skip;
use std::fs;
use std::panic::panic_any;
use std::sync::OnceLock;

#[derive(Clone, Copy, Debug)]
pub enum Need {
    /// A controller of cgroup v2.
    Controller(&'static str),
    Swap,
    /// `HUSK_TEST_DISK`.
    Disk,
    /// CAP_SYS_RESOURCE, to raise hard limits.
    SysResource,
    /// So many CPUs.
    Cpus(usize),
    /// A kernel as new as this.
    Kernel(u32, u32),
    /// newuidmap(1) and newgidmap(1).
    Uidmap,
    /// Landlock as of Linux 6.12, and among the security modules that the kernel was booted with.
    Landlock,
    /// AppArmor in the kernel, and apparmor_parser(8).
    AppArmor,
    /// It is process 1.
    Systemd,
    /// One of the user 1000's own.
    UserSystemd,
    /// A file that is not on every host.
    File(&'static str),
}

use Need::*;

impl Need {
    /// As in HUSK_REQUIRE_EXCEPT.
    fn name(self) -> String {
        match self {
            Controller(c) => c.to_string(),
            Swap => "swap".into(),
            Disk => "disk".into(),
            SysResource => "sys_resource".into(),
            Cpus(_) => "cpus".into(),
            Kernel(..) => "kernel".into(),
            Uidmap => "uidmap".into(),
            Landlock => "landlock".into(),
            AppArmor => "apparmor".into(),
            Systemd => "systemd".into(),
            UserSystemd => "user_systemd".into(),
            File(path) => path.into(),
        }
    }

    /// Why it is missing.
    fn missing(self) -> Option<String> {
        match self {
            Controller(c) => {
                let all =
                    fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
                (!all.split_whitespace().any(|a| a == c))
                    .then(|| format!("no cgroup v2 controller {c}"))
            }
            Swap => {
                let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
                (swaps.lines().count() < 2).then(|| "no swap".into())
            }
            Disk => std::env::var_os("HUSK_TEST_DISK")
                .is_none()
                .then(|| "HUSK_TEST_DISK is not set".into()),
            SysResource => {
                const CAP_SYS_RESOURCE: u32 = 24;
                (!has_capability(CAP_SYS_RESOURCE)).then(|| "no CAP_SYS_RESOURCE".into())
            }
            Cpus(n) => {
                let have = std::thread::available_parallelism().map_or(1, usize::from);
                (have < n).then(|| format!("{have} CPUs, not {n}"))
            }
            Kernel(major, minor) => {
                let uname = nix::sys::utsname::uname().expect("uname");
                let release = uname.release().to_string_lossy().into_owned();
                let mut parts = release.split(['.', '-']).map(|p| p.parse().unwrap_or(0));
                let have = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
                (have < (major, minor)).then(|| format!("Linux {release}, not {major}.{minor}"))
            }
            Uidmap => {
                let there = |p: &&str| std::path::Path::new(p).exists();
                (!["/usr/bin/newuidmap", "/usr/bin/newgidmap"]
                    .iter()
                    .all(there))
                .then(|| "no newuidmap; install uidmap".into())
            }
            Landlock => (husk::sys::landlock::version() < 6).then(|| "no Landlock".into()),
            AppArmor if !has_apparmor() => Some("no AppArmor in the kernel".into()),
            AppArmor => (!std::path::Path::new("/sbin/apparmor_parser").exists())
                .then(|| "no apparmor_parser; install apparmor".into()),
            Systemd => (!std::path::Path::new("/run/systemd/private").exists())
                .then(|| "systemd does not run here".into()),
            UserSystemd => (!std::path::Path::new("/run/user/1000/systemd/private").exists())
                .then(|| "no systemd of the user 1000; run: systemctl start user@1000".into()),
            File(path) => (!std::path::Path::new(path).exists()).then(|| format!("no {path}")),
        }
    }
}

pub fn has_apparmor() -> bool {
    fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|t| t.starts_with('Y'))
        && std::path::Path::new("/sys/kernel/security/apparmor/policy").exists()
}

fn has_capability(number: u32) -> bool {
    let status = fs::read_to_string("/proc/self/status").expect("status");
    let line = status.lines().find_map(|l| l.strip_prefix("CapEff:"));
    let set = u64::from_str_radix(line.expect("CapEff").trim(), 16).expect("hex");
    set >> number & 1 == 1
}

/// Skips the test when something is missing; with HUSK_REQUIRE=1 that is a failure.
#[track_caller]
pub fn needs(all: &[Need]) {
    for need in all {
        let Some(reason) = need.missing() else {
            continue;
        };
        let except = std::env::var("HUSK_REQUIRE_EXCEPT").unwrap_or_default();
        let required = std::env::var("HUSK_REQUIRE").is_ok_and(|v| v == "1");
        if required && !except.split(',').any(|e| e == need.name()) {
            panic!("needs {}: {reason}", need.name());
        }
        panic_any(Skip(reason));
    }
}

/// Skips the test where systemd makes the cgroups: it is about paths.
pub fn needs_cgroupfs() {
    if super::process::by_systemd() {
        skip("cgroups are made by systemd");
    }
}

/// The test cannot say anything here.
pub fn skip(reason: &str) -> ! {
    panic_any(Skip(reason.into()))
}

/// First line of `--version`, such as "runc version 1.5.1".
fn version() -> &'static str {
    static VERSION: OnceLock<String> = OnceLock::new();
    VERSION.get_or_init(|| {
        let output = Cmd::new(runtime()).arg("--version").run().ok();
        output.out.lines().next().unwrap_or_default().to_string()
    })
}

pub fn is_husk() -> bool {
    version().starts_with("husk")
}

/// Skips the test with another runtime: what it checks is husk's own.
pub fn husk_only(reason: &str) {
    if !is_husk() {
        panic_any(Skip(format!("husk only: {reason}")));
    }
}

/// Skips the test with a runc that is older than what it tests.
pub fn runc_since(major: u32, minor: u32) {
    let Some(version) = version().strip_prefix("runc version ") else {
        return;
    };
    let mut parts = version
        .split(['.', '-', '+'])
        .map(|p| p.parse().unwrap_or(0));
    if (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) < (major, minor) {
        panic_any(Skip(format!(
            "runc {version} is older than {major}.{minor}"
        )));
    }
}

/// Skips the test with runc, which is known to fail it.
pub fn runc_fails(reason: &str) {
    if version().starts_with("runc") {
        panic_any(Skip(format!("runc fails: {reason}")));
    }
}
