//! What a hostile image, volume or container process must not achieve. SECURITY.md lists the invariants.

use crate::support::pty::FdSocket;
use crate::support::*;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::sync::atomic::{AtomicBool, Ordering};

tests![
    executable_is_out_of_reach,
    executable_as_entrypoint,
    init_is_not_inspectable_from_inside,
    state_directory_is_closed_to_others,
    target_exchanged_for_a_symlink,
    masked_path_is_a_symlink,
    console_is_a_symlink,
    passwd_is_a_pipe,
    passwd_is_a_symlink_to_the_host,
    passwd_is_nonsense,
    sysctl_under_a_volume,
    proc_sys_is_read_only,
    devices_of_the_host_are_out_of_reach,
    exec_gets_no_more_than_the_container,
    processes_of_the_host_are_not_seen,
];

const ALL: [&str; 3] = ["bounding", "effective", "permitted"];

/// CVE-2019-5736. `create` leaves husk's own program running in the container until `start`.
fn executable_is_out_of_reach() {
    let runtime = process::runtime();
    let before = fs::read(&runtime).unwrap();
    let c = Bundle::new()
        .capabilities(
            &ALL,
            &["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH"],
        )
        .create();
    let grab = c.exec_spawn(&[], &["grab-exe", "1"]);
    wait_until("the payload holds it or cannot", || !grab.out().is_empty());
    c.start();
    let o = grab.wait();
    assert!(!o.out.contains("open for writing"), "{o}");
    assert_eq!(o.code, 1, "{o}");
    assert!(fs::read(&runtime).unwrap() == before);
}

/// An image may name the runtime itself as its program, and wait for it inside.
fn executable_as_entrypoint() {
    let runtime = process::runtime();
    let before = fs::read(&runtime).unwrap();
    let b = Bundle::new().set("/process/args", json!(["/proc/self/exe", "--version"]));
    let o = b.run();
    // whether it starts is open; the file is as it was
    assert!(fs::read(&runtime).unwrap() == before, "{o}");
}

/// Descriptors and memory of the runtime are not the container's to see, even as its root with every capability.
fn init_is_not_inspectable_from_inside() {
    let c = Bundle::new()
        .user_namespace(100_000)
        .capabilities(
            &ALL,
            &[
                "CAP_SYS_PTRACE",
                "CAP_DAC_OVERRIDE",
                "CAP_DAC_READ_SEARCH",
                "CAP_SYS_ADMIN",
            ],
        )
        .create();
    for verbs in [
        ["ls", "/proc/1/fd"],
        ["readlink", "/proc/1/exe"],
        ["cat", "/proc/1/maps"],
    ] {
        let o = c.exec(&[], &verbs).exits(1);
        assert!(["error EACCES", "error EPERM"].contains(&o.line()), "{o}");
    }
}

fn state_directory_is_closed_to_others() {
    let c = Bundle::new().create();
    let dir = dir().join("state").join(&c.id);
    let m = fs::metadata(&dir).unwrap();
    assert_eq!(m.mode() & 0o066, 0, "{:o}", m.mode());
    let file = fs::metadata(dir.join("state.json")).unwrap();
    assert_eq!(file.mode() & 0o022, 0, "{:o}", file.mode());
    assert_eq!(file.uid(), 0);
}

/// CVE-2021-30465, CVE-2024-45310: somebody else with the volume swaps a directory and a symlink while targets are made.
fn target_exchanged_for_a_symlink() {
    fs::create_dir_all("volume/a").unwrap();
    fs::create_dir("host").unwrap();
    // as seen from the host and from the container
    symlink(dir().join("host"), "volume/b").unwrap();
    let stop = AtomicBool::new(false);
    let b = Bundle::new()
        .writable()
        .bind(dir().join("volume"), "/volume", &[])
        .mount("/volume/a/made/here", "tmpfs", "tmpfs", &[])
        .payload(&["true"]);
    std::thread::scope(|s| {
        s.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                // SAFETY: two C strings and integers; nix has no renameat2 for musl.
                let rc = unsafe {
                    let (a, b) = (c"volume/a".as_ptr(), c"volume/b".as_ptr());
                    libc::syscall(
                        libc::SYS_renameat2,
                        libc::AT_FDCWD,
                        a,
                        libc::AT_FDCWD,
                        b,
                        libc::RENAME_EXCHANGE,
                    )
                };
                assert_eq!(rc, 0, "renameat2");
            }
        });
        for _ in 0..15 {
            // may fail, may work; but only inside
            b.run();
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(
        fs::read_dir("host").unwrap().count(),
        0,
        "nothing is made on the host"
    );
}

fn masked_path_is_a_symlink() {
    fs::create_dir("host").unwrap();
    fs::write("host/file", "words").unwrap();
    let b = Bundle::new()
        .writable()
        .symlink(dir().join("host").to_str().unwrap(), "/out")
        .mkdir("/in")
        .symlink("/in", "/link")
        .file("/in/file", "hidden", 0o644)
        .set("/linux/maskedPaths", json!(["/out", "/link"]))
        .payload(&["ls", "/in"]);
    let o = b.run().ok();
    assert_eq!(
        o.out, "",
        "the mask is on what the link means in the container"
    );
    assert_eq!(fs::read_to_string("host/file").unwrap(), "words");
}

/// CVE-2026-88264, CVE-2025-52565: where /dev is the image's own directory, /dev/console may be anything.
fn console_is_a_symlink() {
    fs::write("bait", "words").unwrap();
    let b = Bundle::new()
        .writable()
        .set("/process/terminal", json!(true))
        .symlink(dir().join("bait").to_str().unwrap(), "/dev/console")
        .without_mount("/dev")
        .without_mount("/dev/shm")
        .without_mount("/dev/mqueue")
        .mkdir("/dev/pts")
        .payload(&["true"]);
    let socket = FdSocket::new();
    let mut c = b.container();
    let cmd = c.cmd("run", &["--detach", "--console-socket", socket.arg()]);
    let o = c.creates(cmd);
    let m = fs::symlink_metadata("bait").unwrap();
    assert!(m.is_file() && m.mode() & 0o7777 == 0o644, "{o}");
    assert_eq!(fs::read_to_string("bait").unwrap(), "words");
    if o.code != 0 {
        c.forget();
    }
}

/// A container that hangs its runtime hangs the engine.
fn passwd_is_a_pipe() {
    runc_fails("it waits for somebody to write there");
    let b = Bundle::new()
        .payload(&["env"])
        .set("/process/env", json!([]));
    let passwd = b.rootfs().join("etc/passwd");
    fs::remove_file(&passwd).unwrap();
    nix::unistd::mkfifo(&passwd, nix::sys::stat::Mode::S_IRWXU).unwrap();
    b.run();
}

fn passwd_is_a_symlink_to_the_host() {
    fs::write("passwd", "root:x:0:0:root:/from/the/host:/bin/sh\n").unwrap();
    let b = Bundle::new()
        .payload(&["env"])
        .set("/process/env", json!([]));
    let passwd = b.rootfs().join("etc/passwd");
    fs::remove_file(&passwd).unwrap();
    symlink(dir().join("passwd"), &passwd).unwrap();
    let o = b.run();
    assert!(!o.out.contains("/from/the/host"), "{o}");
}

fn passwd_is_nonsense() {
    let long = format!(
        "{}\n:::\nroot:x:0\n\0\nroot:x:0:0::/right:\n",
        "x".repeat(100_000)
    );
    let b = Bundle::new()
        .payload(&["env"])
        .set("/process/env", json!([]))
        .file("/etc/passwd", &long, 0o644);
    let o = b.run();
    assert!(o.code == 0 && o.out.contains("HOME=/"), "{o}");
}

/// CVE-2025-52881, CVE-2019-19921: what the runtime writes to /proc must reach the kernel and nothing else.
fn sysctl_under_a_volume() {
    fs::create_dir_all("fake/ipv4").unwrap();
    fs::write("fake/ipv4/ip_unprivileged_port_start", "untouched").unwrap();
    let b = Bundle::new()
        .bind(dir().join("fake"), "/proc/sys/net", &[])
        .set(
            "/linux/sysctl",
            json!({"net.ipv4.ip_unprivileged_port_start": "77"}),
        )
        .payload(&["true"]);
    let o = b.run();
    let fake = fs::read_to_string("fake/ipv4/ip_unprivileged_port_start").unwrap();
    assert_eq!(fake, "untouched", "{o}");
}

fn proc_sys_is_read_only() {
    let b = Bundle::new()
        .capabilities(&ALL, &["CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE"])
        .payload(&["write", "/proc/sys/kernel/domainname", "x"]);
    assert_eq!(b.run().exits(1).lines(), ["error EROFS"]);
}

fn devices_of_the_host_are_out_of_reach() {
    let disk = fs::read_dir("/sys/class/block")
        .unwrap()
        .flatten()
        .next()
        .expect("a block device");
    let dev = fs::read_to_string(disk.path().join("dev")).unwrap();
    let (major, minor) = dev.trim().split_once(':').unwrap();
    let b = Bundle::new()
        .writable()
        .capabilities(&ALL, &["CAP_MKNOD", "CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE"])
        .payload(&[
            "mknod",
            "/tmp/disk",
            "b",
            major,
            minor,
            ";",
            "open",
            "/tmp/disk",
            "r",
        ]);
    assert_eq!(b.run().exits(1).lines(), ["ok", "error EPERM"]);
}

/// I8: whatever the caller of exec has, the process has what the container's config says.
fn exec_gets_no_more_than_the_container() {
    let c = Bundle::new().capabilities(&ALL, &["CAP_KILL"]).start();
    let inside = c.exec(&[], &["status"]).ok().json();
    let init = fs::read_to_string(format!("/proc/{}/status", c.pid())).unwrap();
    for key in [
        "CapInh",
        "CapPrm",
        "CapEff",
        "CapBnd",
        "CapAmb",
        "NoNewPrivs",
        "Seccomp",
    ] {
        let of_init = init
            .lines()
            .find_map(|l| l.strip_prefix(key)?.strip_prefix(':'));
        assert_eq!(inside[key].as_str(), of_init.map(str::trim), "{key}");
    }
}

/// With a pid namespace a container knows of its own processes only.
fn processes_of_the_host_are_not_seen() {
    let c = Bundle::new().start();
    let o = c.exec(&[], &["ls", "/proc"]).ok();
    let pids = o
        .lines()
        .iter()
        .filter(|l| l.parse::<u32>().is_ok())
        .count();
    assert_eq!(pids, 2, "init and the exec itself: {o}");
}
