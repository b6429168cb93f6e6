//! Integration tests: real containers, as root, on a Linux with cgroup v2.
//!
//! This one binary is four programs. As `cargo test` starts it, it runs the tests ([`support::runner`]), each in a process
//! of its own, which is this binary again. And bind-mounted or linked into a container as `payload` it is what runs in there
//! ([`payload`]), which is why it must be static; and as `inject` it lets system calls of husk fail
//! ([`inject`]): `cargo test --target x86_64-unknown-linux-musl --test integration`.
//!
//! | Variable | |
//! |---|---|
//! | `HUSK_TEST_RUNTIME` | the runtime to test instead of husk, such as /usr/sbin/runc: what it fails too, the test has wrong |
//! | `HUSK_REQUIRE=1` | what a test needs and does not find makes it fail instead of skip |
//! | `HUSK_REQUIRE_EXCEPT` | names of needs that may be missing nevertheless: `hugetlb,sys_resource` |
//! | `HUSK_TEST_CGROUP_DRIVER=systemd` | every container in a scope of systemd's: for the tests of limits |
//! | `HUSK_TEST_DISK` | a writable directory on a block device of its own, for limits of io |
//! | `HUSK_TEST_TIMEOUT` | seconds that one test may take, 60 if not given |
//! | `HUSK_TEST_SECONDS` | how long commands and exchanges race, 3 or 4 if not given |
//! | `HUSK_TEST_MANY` | how many containers come in a row, 200 if not given |
//! | `HUSK_TEST_KEEP=1` | leaves the directories of the tests for a look |

#[cfg(target_arch = "x86_64")]
mod inject;
mod payload;
mod support;

#[cfg(target_arch = "x86_64")]
mod bare;
mod cgroup;
mod death;
mod devices;
mod errors;
mod exec;
#[cfg(target_arch = "x86_64")]
mod faults;
mod hooks;
mod labels;
mod landlock;
mod lifecycle;
mod mounts;
mod namespaces;
mod nested;
mod net_devices;
mod odd;
#[cfg(target_arch = "x86_64")]
mod old_kernel;
mod output;
mod process;
mod races;
mod rootfs;
mod rootless;
mod schema;
mod seccomp;
mod security;
#[cfg(target_arch = "x86_64")]
mod syscalls;
mod systemd;
mod terminal;
mod update;

use support::runner::{self, Test};

fn tests() -> Vec<Test> {
    let mut all = Vec::new();
    for (area, tests) in [
        ("lifecycle", lifecycle::TESTS),
        ("process", process::TESTS),
        ("namespaces", namespaces::TESTS),
        ("net_devices", net_devices::TESTS),
        ("rootfs", rootfs::TESTS),
        ("mounts", mounts::TESTS),
        ("devices", devices::TESTS),
        ("exec", exec::TESTS),
        ("terminal", terminal::TESTS),
        ("hooks", hooks::TESTS),
        ("cgroup", cgroup::TESTS),
        ("update", update::TESTS),
        ("death", death::TESTS),
        ("nested", nested::TESTS),
        ("seccomp", seccomp::TESTS),
        ("landlock", landlock::TESTS),
        ("labels", labels::TESTS),
        ("security", security::TESTS),
        ("systemd", systemd::TESTS),
        ("rootless", rootless::TESTS),
        ("schema", schema::TESTS),
        ("errors", errors::TESTS),
        ("odd", odd::TESTS),
        ("output", output::TESTS),
        ("races", races::TESTS),
        #[cfg(target_arch = "x86_64")]
        ("bare", bare::TESTS),
        #[cfg(target_arch = "x86_64")]
        ("old_kernel", old_kernel::TESTS),
        #[cfg(target_arch = "x86_64")]
        ("faults", faults::TESTS),
        #[cfg(target_arch = "x86_64")]
        ("syscalls", syscalls::TESTS),
    ] {
        all.extend(tests.iter().map(|&(name, run)| Test::new(area, name, run)));
    }
    all
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let called = args[0].rsplit('/').next();
    if called == Some("payload") {
        std::process::exit(payload::main(&args[1..]));
    }
    if args.get(1).map(String::as_str) == Some("payload") {
        std::process::exit(payload::main(&args[2..]));
    }
    #[cfg(target_arch = "x86_64")]
    if args.get(1).map(String::as_str) == Some("inject") {
        std::process::exit(inject::main(&args[2..]));
    }
    runner::main(tests())
}
