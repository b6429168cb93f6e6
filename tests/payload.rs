//! What runs inside the containers: small verbs that look at their surroundings from within, and print what they see.
//!
//! `payload VERB ARG… ; VERB ARG…` runs one verb after the other. A system call that fails prints `error ERRNO` on stdout,
//! so that a test can ask for exactly that, and makes the exit code 1; the last failure's code is the exit code.

use nix::errno::Errno;
use nix::sys::signal::{self, SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{self, ForkResult, Pid};
use serde_json::{Value, json};
use std::ffi::{CStr, CString, OsString};
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::time::{Duration, Instant};

/// Prints and flushes: a reader on the other side of a file or pty waits for lines.
macro_rules! say {
    ($($arg:tt)*) => {{
        let mut out = io::stdout().lock();
        let _ = writeln!(out, $($arg)*);
        let _ = out.flush();
    }};
}

/// Runs the verbs and gives the exit code.
pub fn main(args: &[String]) -> i32 {
    let mut code = 0;
    for command in args.split(|a| a == ";") {
        let Some((verb, args)) = command.split_first() else {
            continue;
        };
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        match run(verb, &args) {
            Ok(0) => {}
            Ok(n) => code = n,
            Err(e) => {
                say!("error {}", errno(&e));
                eprintln!("payload {verb} {}: {e}", args.join(" "));
                code = 1;
            }
        }
    }
    code
}

fn errno(e: &io::Error) -> String {
    match e.raw_os_error() {
        Some(n) => format!("{:?}", Errno::from_raw(n)),
        None => e.to_string(),
    }
}

fn bad(what: impl std::fmt::Display) -> io::Error {
    io::Error::other(what.to_string())
}

fn num<T: std::str::FromStr>(args: &[&str], i: usize) -> io::Result<T> {
    let s = args.get(i).ok_or_else(|| bad(format!("no argument {i}")))?;
    s.parse().map_err(|_| bad(format!("not a number: {s}")))
}

fn check(rc: i64) -> io::Result<i64> {
    if rc < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(rc)
}

fn run(verb: &str, args: &[&str]) -> io::Result<i32> {
    let arg = |i: usize| {
        args.get(i)
            .copied()
            .ok_or_else(|| bad(format!("{verb}: no argument {i}")))
    };
    match verb {
        "echo" => say!("{}", args.join(" ")),
        "echo-err" => eprintln!("{}", args.join(" ")),
        "true" => {}
        "false" => return Ok(1),
        "exit" => std::process::exit(num(args, 0)?),

        // files
        "cat" => {
            for path in args {
                let mut text = Vec::new();
                fs::File::open(path)?.read_to_end(&mut text)?;
                io::stdout().write_all(&text)?;
                io::stdout().flush()?;
            }
        }
        "read-fd" => {
            // opened anew: works for pipes and files, and needs no trust in the number
            let mut text = String::new();
            fs::File::open(format!("/proc/self/fd/{}", arg(0)?))?.read_to_string(&mut text)?;
            say!("{text}");
        }
        "cat-stdin" => {
            let mut text = Vec::new();
            io::stdin().read_to_end(&mut text)?;
            io::stdout().write_all(&text)?;
            io::stdout().flush()?;
        }
        "ls" => {
            let mut names: Vec<String> = fs::read_dir(arg(0)?)?
                .map(|e| e.map(|e| e.file_name().to_string_lossy().into_owned()))
                .collect::<Result<_, _>>()?;
            names.sort();
            for name in names {
                say!("{name}");
            }
        }
        "stat" => {
            for path in args {
                say!("{}", stat(path)?);
            }
        }
        "statfs" => {
            let s = nix::sys::statfs::statfs(arg(0)?)?;
            say!("{:#x}", s.filesystem_type().0);
        }
        "readlink" => say!("{}", fs::read_link(arg(0)?)?.display()),
        "write" => {
            fs::write(arg(0)?, args[1..].join(" "))?;
            say!("ok");
        }
        "append" => {
            let mut f = OpenOptions::new().append(true).open(arg(0)?)?;
            f.write_all(args[1..].join(" ").as_bytes())?;
            say!("ok");
        }
        "mkdir" => {
            fs::create_dir(arg(0)?)?;
            say!("ok");
        }
        "rm" => {
            fs::remove_file(arg(0)?)?;
            say!("ok");
        }
        "rmdir" => {
            fs::remove_dir(arg(0)?)?;
            say!("ok");
        }
        "chmod" => {
            let mode = u32::from_str_radix(arg(0)?, 8).map_err(bad)?;
            fs::set_permissions(arg(1)?, fs::Permissions::from_mode(mode))?;
            say!("ok");
        }
        "chown" => {
            std::os::unix::fs::chown(arg(2)?, Some(num(args, 0)?), Some(num(args, 1)?))?;
            say!("ok");
        }
        "open" => {
            let (path, how) = (arg(0)?, arg(1)?);
            OpenOptions::new()
                .read(how.contains('r'))
                .write(how.contains('w'))
                .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
                .open(path)?;
            say!("ok");
        }
        "mknod" => mknod(arg(0)?, arg(1)?, num(args, 2)?, num(args, 3)?)?,
        "mount" => {
            let flags = nix::mount::MsFlags::from_bits_retain(num::<libc::c_ulong>(args, 3)?);
            nix::mount::mount(
                Some(arg(0)?),
                arg(1)?,
                Some(arg(2)?),
                flags,
                args.get(4).copied(),
            )?;
            say!("ok");
        }
        "umount" => {
            nix::mount::umount2(arg(0)?, nix::mount::MntFlags::MNT_DETACH)?;
            say!("ok");
        }
        "exec" => return Err(exec(args)),
        "direct-write" => direct_write(arg(0)?, num(args, 1)?)?,

        // the process
        "argv" => say!("{}", json!(std::env::args().collect::<Vec<_>>())),
        "env" => say!("{}", env()),
        "cwd" => say!("{}", unistd::getcwd()?.display()),
        "chdir" => std::env::set_current_dir(arg(0)?)?,
        "pid" => say!("{}", pids()),
        "ids" => say!("{}", ids()?),
        "status" => say!("{}", status()?),
        "fds" => say!("{}", fds()?),
        "rlimits" => say!("{}", rlimits()?),
        "sched" => say!("{}", sched()?),
        "ioprio" => {
            // SAFETY: ioprio_get takes three integers and touches no memory.
            let v = check(unsafe { libc::syscall(libc::SYS_ioprio_get, 1, 0) })?;
            say!("{}", json!({"class": v >> 13, "priority": v & 0x1fff}));
        }
        "affinity" => {
            let set = nix::sched::sched_getaffinity(Pid::from_raw(0))?;
            let cpus: Vec<usize> = (0..nix::sched::CpuSet::count())
                .filter(|&c| set.is_set(c).unwrap_or(false))
                .collect();
            say!("{}", json!(cpus));
        }
        "personality" => {
            // SAFETY: 0xffffffff only asks; no memory is touched.
            let old = unsafe { libc::personality(0xffff_ffff) };
            say!("{:#x}", check(old.into())?);
        }
        "keyring" => keyring()?,
        "setuid" => {
            unistd::setuid(num::<u32>(args, 0)?.into())?;
            say!("ok");
        }
        "seteuid" => {
            unistd::seteuid(num::<u32>(args, 0)?.into())?;
            say!("ok");
        }

        // namespaces
        "ns" => say!("{}", namespaces("/proc/self/ns")?),
        "uname" => {
            let u = nix::sys::utsname::uname()?;
            // nix has no domainname
            let domain = fs::read_to_string("/proc/sys/kernel/domainname").unwrap_or_default();
            say!(
                "{}",
                json!({"nodename": u.nodename().to_string_lossy(), "machine": u.machine().to_string_lossy(),
                    "domainname": domain.trim_end()})
            );
        }
        "sethostname" => {
            unistd::sethostname(arg(0)?)?;
            say!("ok");
        }
        "clock" => {
            let seconds = |c| clock(c).map(|t| t.as_secs());
            say!(
                "{}",
                json!({"monotonic": seconds(libc::CLOCK_MONOTONIC)?, "boottime": seconds(libc::CLOCK_BOOTTIME)?})
            );
        }
        "lo" => {
            // fails with ENETUNREACH or EADDRNOTAVAIL while lo is down
            let l = std::net::TcpListener::bind("127.0.0.1:0")?;
            std::net::TcpStream::connect(l.local_addr()?)?;
            say!("up");
        }
        "without" => return Err(without(arg(0)?, &args[1..])),
        "bind" => {
            std::net::TcpListener::bind(("127.0.0.1", num(args, 0)?))?;
            say!("bound");
        }
        "connect" => {
            std::net::TcpStream::connect(("127.0.0.1", num(args, 0)?))?;
            say!("connected");
        }
        "unshare" => {
            unshare(args)?;
            say!("ok");
        }

        // terminals
        "tty" => say!("{}", tty()),
        "tty-line" => {
            let mut line = String::new();
            io::stdin().read_line(&mut line)?;
            say!("got {}", line.trim_end());
        }

        // processes and signals
        "sleep" => std::thread::sleep(Duration::from_secs_f64(num(args, 0)?)),
        "syscall" => {
            let [a, b, c] = [1, 2, 3].map(|i| num::<i64>(args, i).unwrap_or(0));
            // SAFETY: tests call numbers that no kernel has, or calls that take integers only.
            check(unsafe { libc::syscall(num(args, 0)?, a, b, c) })?;
            say!("ok");
        }
        "grab-exe" => grab_exe(arg(0)?)?,
        "hunt-exe" => hunt_exe(arg(0)?)?,
        "signal" => {
            signal::raise(name_to_signal(arg(0)?)?)?;
            // a signal that does not end the process, such as for process 1 of a pid namespace
            say!("alive");
        }
        "kill" => {
            signal::kill(Pid::from_raw(num(args, 0)?), name_to_signal(arg(1)?)?)?;
            say!("ok");
        }
        "wait" => return wait_for_signals(),
        "wait-for" => {
            while !std::path::Path::new(arg(0)?).exists() {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        "spawn" => {
            let rest: Vec<String> = args.iter().map(|s| s.to_string()).collect();
            // SAFETY: one thread only, so the child may do anything.
            match unsafe { unistd::fork()? } {
                ForkResult::Child => std::process::exit(main(&rest)),
                ForkResult::Parent { child } => say!("spawned {child}"),
            }
        }
        "reap" => {
            while let Ok(s) = waitpid(None, None) {
                match s {
                    WaitStatus::Exited(_, code) => say!("exited {code}"),
                    WaitStatus::Signaled(_, sig, _) => say!("killed {sig}"),
                    _ => {}
                }
            }
        }
        "forkbomb" => forkbomb(num(args, 0)?)?,
        "alloc" => {
            let mib: usize = num(args, 0)?;
            let mut hold = Vec::with_capacity(mib);
            for _ in 0..mib {
                hold.push(vec![1u8; 1 << 20]);
            }
            std::hint::black_box(&hold);
            say!("allocated {mib}");
            if args.get(1) == Some(&"hold") {
                return wait_for_signals();
            }
        }
        "burn" => {
            let end = Instant::now() + Duration::from_millis(num(args, 0)?);
            let mut x = 1u64;
            while Instant::now() < end {
                for _ in 0..10_000 {
                    x = std::hint::black_box(x.wrapping_mul(6364136223846793005) + 1);
                }
            }
            say!(
                "cpu-ms {}",
                clock(libc::CLOCK_PROCESS_CPUTIME_ID)?.as_millis()
            );
        }
        "hook" => return hook(arg(0)?, arg(1)?, &args[2..]),
        "notify" => {
            let to = std::env::var("NOTIFY_SOCKET").map_err(bad)?;
            std::os::unix::net::UnixDatagram::unbound()?.send_to(args[0].as_bytes(), to)?;
            say!("ok");
        }
        _ => return Err(bad(format!("unknown verb {verb}"))),
    }
    Ok(0)
}

fn clock(id: libc::clockid_t) -> io::Result<Duration> {
    let mut t = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel writes one timespec.
    check(unsafe { libc::clock_gettime(id, &raw mut t) }.into())?;
    Ok(Duration::new(t.tv_sec as u64, t.tv_nsec as u32))
}

fn stat(path: &str) -> io::Result<Value> {
    let m = fs::symlink_metadata(path)?;
    let t = m.file_type();
    let kind = if t.is_symlink() {
        "link"
    } else if t.is_dir() {
        "dir"
    } else if t.is_char_device() {
        "char"
    } else if t.is_block_device() {
        "block"
    } else if t.is_fifo() {
        "fifo"
    } else if t.is_socket() {
        "socket"
    } else {
        "file"
    };
    Ok(
        json!({"path": path, "type": kind, "mode": format!("{:o}", m.mode() & 0o7777), "uid": m.uid(), "gid": m.gid(),
        "major": libc::major(m.rdev()), "minor": libc::minor(m.rdev()), "size": m.size(), "dev": m.dev(), "ino": m.ino()}),
    )
}

fn mknod(path: &str, kind: &str, major: u32, minor: u32) -> io::Result<()> {
    use nix::sys::stat::{Mode, SFlag};
    let kind = match kind {
        "c" => SFlag::S_IFCHR,
        "b" => SFlag::S_IFBLK,
        "p" => SFlag::S_IFIFO,
        _ => return Err(bad(format!("no such kind of node: {kind}"))),
    };
    nix::sys::stat::mknod(
        path,
        kind,
        Mode::from_bits_truncate(0o666),
        libc::makedev(major, minor),
    )?;
    say!("ok");
    Ok(())
}

/// CVE-2019-5736: takes hold of a process's executable, waits until nobody executes it, and writes it.
fn grab_exe(pid: &str) -> io::Result<()> {
    let exe = format!("/proc/{pid}/exe");
    let name = fs::read_link(&exe)?;
    let held = fs::File::open(&exe)?;
    say!("held");
    while fs::read_link(&exe).is_ok_and(|n| n == name) {
        std::thread::sleep(Duration::from_millis(5));
    }
    // busy as long as another copy of the runtime is at work
    let again = format!("/proc/self/fd/{}", held.as_raw_fd());
    for _ in 0..200 {
        match rewrite(&again) {
            Err(e) if e.raw_os_error() == Some(libc::ETXTBSY) => {
                std::thread::sleep(Duration::from_millis(5));
            }
            result => return result.map(|_| say!("can be written")),
        }
    }
    Err(io::Error::from_raw_os_error(libc::ETXTBSY))
}

/// Writes what is there; a sealed file in memory can be opened, but not written.
fn rewrite(path: &str) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, 0)?;
    file.write_all_at(&byte, 0)
}

/// The same for each process that comes by and is not this program, until a file is there.
fn hunt_exe(end: &str) -> io::Result<()> {
    let own = fs::read_link("/proc/self/exe")?;
    let mut held: Vec<(std::path::PathBuf, fs::File)> = Vec::new();
    say!("ready");
    while !std::path::Path::new(end).exists() {
        for entry in fs::read_dir("/proc")?.flatten() {
            let exe = entry.path().join("exe");
            let Ok(name) = fs::read_link(&exe) else {
                continue;
            };
            if name != own
                && held.len() < 100
                && let Ok(file) = fs::File::open(&exe)
            {
                held.push((name, file));
            }
        }
        for (name, file) in &held {
            let again = format!("/proc/self/fd/{}", file.as_raw_fd());
            if rewrite(&again).is_ok() {
                say!("{} can be written", name.display());
            }
        }
    }
    say!("held {}", held.len());
    Ok(())
}

fn exec(args: &[&str]) -> io::Error {
    let Ok(argv) = args
        .iter()
        .map(|a| CString::new(*a))
        .collect::<Result<Vec<_>, _>>()
    else {
        return bad("argument with a NUL");
    };
    let Err(e) = unistd::execvp(&argv[0], &argv);
    e.into()
}

/// Writes MIB mebibytes in direct writes and prints how long that took.
fn direct_write(path: &str, mib: usize) -> io::Result<()> {
    const CHUNK: usize = 256 << 10;
    // O_DIRECT wants memory aligned to the block size
    let mut buffer = vec![7u8; CHUNK + 4096];
    let skip = buffer.as_ptr().align_offset(4096);
    let chunk = &mut buffer[skip..skip + CHUNK];
    let mut f = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .custom_flags(libc::O_DIRECT)
        .open(path)?;
    let start = Instant::now();
    for _ in 0..mib * (1 << 20) / CHUNK {
        f.write_all(chunk)?;
    }
    say!("ms {}", start.elapsed().as_millis());
    Ok(())
}

fn env() -> Value {
    std::env::vars_os()
        .map(|(k, v)| {
            let mut s = k;
            s.push(OsString::from("="));
            s.push(v);
            s.to_string_lossy().into_owned()
        })
        .collect()
}

fn pids() -> Value {
    json!({"pid": unistd::getpid().as_raw(), "ppid": unistd::getppid().as_raw(), "pgid": unistd::getpgrp().as_raw(),
        "sid": unistd::getsid(None).map_or(-1, Pid::as_raw)})
}

fn ids() -> io::Result<Value> {
    let u = unistd::getresuid()?;
    let g = unistd::getresgid()?;
    let mut groups: Vec<u32> = unistd::getgroups()?.into_iter().map(Into::into).collect();
    groups.sort();
    let umask = nix::sys::stat::umask(nix::sys::stat::Mode::empty());
    nix::sys::stat::umask(umask);
    Ok(
        json!({"uid": [u.real.as_raw(), u.effective.as_raw(), u.saved.as_raw()],
        "gid": [g.real.as_raw(), g.effective.as_raw(), g.saved.as_raw()],
        "groups": groups, "umask": format!("{:04o}", umask.bits())}),
    )
}

/// The lines of /proc/self/status, as they are.
fn status() -> io::Result<Value> {
    Ok(Value::Object(
        fs::read_to_string("/proc/self/status")?
            .lines()
            .filter_map(|l| l.split_once(':'))
            .map(|(k, v)| (k.to_string(), json!(v.trim())))
            .collect(),
    ))
}

fn fds() -> io::Result<Value> {
    let dir = nix::dir::Dir::open(
        "/proc/self/fd",
        nix::fcntl::OFlag::O_DIRECTORY | nix::fcntl::OFlag::O_CLOEXEC,
        nix::sys::stat::Mode::empty(),
    )?;
    let own = dir.as_raw_fd().to_string();
    let mut dir = dir;
    let names: Vec<String> = dir
        .iter()
        .filter_map(|e| e.ok())
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .filter(|n| n != "." && n != ".." && *n != own)
        .collect();
    Ok(Value::Object(
        names
            .into_iter()
            .map(|n| {
                let link = fs::read_link(format!("/proc/self/fd/{n}"));
                let link = link.map_or("?".into(), |l| l.to_string_lossy().into_owned());
                (n, json!(link))
            })
            .collect(),
    ))
}

fn rlimits() -> io::Result<Value> {
    use nix::sys::resource::{Resource, getrlimit};
    let all = [
        ("RLIMIT_AS", Resource::RLIMIT_AS),
        ("RLIMIT_CORE", Resource::RLIMIT_CORE),
        ("RLIMIT_CPU", Resource::RLIMIT_CPU),
        ("RLIMIT_DATA", Resource::RLIMIT_DATA),
        ("RLIMIT_FSIZE", Resource::RLIMIT_FSIZE),
        ("RLIMIT_LOCKS", Resource::RLIMIT_LOCKS),
        ("RLIMIT_MEMLOCK", Resource::RLIMIT_MEMLOCK),
        ("RLIMIT_MSGQUEUE", Resource::RLIMIT_MSGQUEUE),
        ("RLIMIT_NICE", Resource::RLIMIT_NICE),
        ("RLIMIT_NOFILE", Resource::RLIMIT_NOFILE),
        ("RLIMIT_NPROC", Resource::RLIMIT_NPROC),
        ("RLIMIT_RSS", Resource::RLIMIT_RSS),
        ("RLIMIT_RTPRIO", Resource::RLIMIT_RTPRIO),
        ("RLIMIT_RTTIME", Resource::RLIMIT_RTTIME),
        ("RLIMIT_SIGPENDING", Resource::RLIMIT_SIGPENDING),
        ("RLIMIT_STACK", Resource::RLIMIT_STACK),
    ];
    let mut out = serde_json::Map::new();
    for (name, r) in all {
        let (soft, hard) = getrlimit(r)?;
        out.insert(name.into(), json!([soft, hard]));
    }
    Ok(Value::Object(out))
}

/// struct sched_attr of sched_setattr(2), its first version.
#[repr(C)]
#[derive(Default)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

fn sched() -> io::Result<Value> {
    let mut a = SchedAttr::default();
    let size = size_of::<SchedAttr>();
    // SAFETY: the kernel writes at most `size` bytes into a struct of that size.
    check(unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut a, size, 0) })?;
    Ok(
        json!({"policy": a.policy, "flags": a.flags, "nice": a.nice, "priority": a.priority,
        "runtime": a.runtime, "deadline": a.deadline, "period": a.period}),
    )
}

/// The session keyring's description, "keyring;UID;GID;PERM;NAME".
fn keyring() -> io::Result<()> {
    let mut buffer = [0u8; 256];
    const KEYCTL_DESCRIBE: i32 = 6;
    const SESSION: i32 = -3;
    // SAFETY: the kernel writes at most the given length into the buffer.
    let n = check(unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            KEYCTL_DESCRIBE,
            SESSION,
            buffer.as_mut_ptr(),
            buffer.len(),
        )
    })?;
    let text = CStr::from_bytes_until_nul(&buffer[..(n as usize).min(buffer.len())]);
    say!(
        "{}",
        text.map_or("?".into(), |t| t.to_string_lossy().into_owned())
    );
    Ok(())
}

pub fn namespaces(dir: &str) -> io::Result<Value> {
    let mut out = serde_json::Map::new();
    for name in ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"] {
        let link = fs::read_link(format!("{dir}/{name}"))?;
        out.insert(name.into(), json!(link.to_string_lossy()));
    }
    Ok(Value::Object(out))
}

fn unshare(kinds: &[&str]) -> io::Result<()> {
    use nix::sched::CloneFlags;
    let mut flags = CloneFlags::empty();
    for kind in kinds {
        flags |= match *kind {
            "cgroup" => CloneFlags::CLONE_NEWCGROUP,
            "ipc" => CloneFlags::CLONE_NEWIPC,
            "mnt" => CloneFlags::CLONE_NEWNS,
            "net" => CloneFlags::CLONE_NEWNET,
            "pid" => CloneFlags::CLONE_NEWPID,
            "time" => CloneFlags::from_bits_retain(libc::CLONE_NEWTIME),
            "user" => CloneFlags::CLONE_NEWUSER,
            "uts" => CloneFlags::CLONE_NEWUTS,
            _ => return Err(bad(format!("unknown namespace {kind}"))),
        };
    }
    nix::sched::unshare(flags)?;
    Ok(())
}

fn tty() -> Value {
    let of = |fd: i32| {
        // SAFETY: 0, 1 and 2 stay open as long as this program runs.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        let mut size: libc::winsize = libc::winsize {
            ws_row: 0,
            ws_col: 0,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        // SAFETY: TIOCGWINSZ writes one winsize.
        let rc = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
        json!({"tty": unistd::isatty(fd).unwrap_or(false),
            "name": fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).ok(),
            "size": (rc == 0).then(|| json!([size.ws_row, size.ws_col]))})
    };
    let owner = fs::metadata("/proc/self/fd/0").map(|m| json!([m.uid(), m.gid()]));
    json!({"0": of(0), "1": of(1), "2": of(2), "owner": owner.ok(),
        "controlling": OpenOptions::new().read(true).write(true).open("/dev/tty").is_ok()})
}

pub fn name_to_signal(name: &str) -> io::Result<Signal> {
    let name = name.trim_start_matches("SIG");
    format!("SIG{name}")
        .parse()
        .map_err(|_| bad(format!("unknown signal {name}")))
}

/// Prints each signal that comes; TERM, INT and QUIT end it. Reaps, as a container's init should.
fn wait_for_signals() -> io::Result<i32> {
    let mut set = SigSet::empty();
    for s in Signal::iterator().filter(|s| !matches!(s, Signal::SIGKILL | Signal::SIGSTOP)) {
        set.add(s);
    }
    set.thread_block()?;
    say!("ready");
    loop {
        match set.wait()? {
            Signal::SIGCHLD => {
                while let Ok(s) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                    if matches!(s, WaitStatus::StillAlive) {
                        break;
                    }
                }
            }
            s => {
                say!("signal {s}");
                if matches!(s, Signal::SIGTERM | Signal::SIGINT | Signal::SIGQUIT) {
                    return Ok(0);
                }
            }
        }
    }
}

/// Forks until the kernel refuses or there are `most` children; prints how many and why it ended.
/// Executes a command whose kernel answers ENOSYS to one system call.
fn without(call: &str, command: &[&str]) -> io::Error {
    use husk::plan::seccomp::numbers::CALLS;
    let number = CALLS.iter().find(|c| c.0 == call).expect("a system call").1[0];
    let insn = |code: u32, jt, jf, k| libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    };
    let program = [
        insn(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        insn(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, number),
        insn(
            libc::BPF_RET | libc::BPF_K,
            0,
            0,
            libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32,
        ),
        insn(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let all = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: the program is as long as it says, and is copied.
    if unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &all) } != 0 {
        return io::Error::last_os_error();
    }
    exec(command)
}

fn forkbomb(most: usize) -> io::Result<()> {
    let mut children = Vec::new();
    let mut end = "limit of the test".to_string();
    while children.len() < most {
        // SAFETY: one thread only.
        match unsafe { unistd::fork() } {
            Ok(ForkResult::Child) => loop {
                unistd::pause();
            },
            Ok(ForkResult::Parent { child }) => children.push(child),
            Err(e) => {
                end = format!("{e:?}");
                break;
            }
        }
    }
    say!("forked {} then {end}", children.len());
    for child in children {
        let _ = signal::kill(child, Signal::SIGKILL);
        let _ = waitpid(child, None);
    }
    Ok(())
}

/// Appends what a hook can see to a log, one JSON line; then does what the rest says (`exit N`, `sleep S`, any verb).
fn hook(name: &str, log: &str, rest: &[&str]) -> io::Result<i32> {
    let mut stdin = String::new();
    io::stdin().read_to_string(&mut stdin)?;
    let line = json!({
        "hook": name,
        "stdin": serde_json::from_str::<Value>(&stdin).unwrap_or_else(|_| json!({"invalid": stdin})),
        "argv": std::env::args().collect::<Vec<_>>(),
        "env": env(),
        "cwd": unistd::getcwd().ok(),
        "ns": namespaces("/proc/self/ns").ok(),
        "fds": fds().ok(),
        "status": status().ok(),
        "root": fs::metadata("/").map(|m| m.ino()).ok(),
    });
    let mut f = OpenOptions::new().create(true).append(true).open(log)?;
    f.write_all(format!("{line}\n").as_bytes())?;
    if rest.is_empty() {
        return Ok(0);
    }
    let rest: Vec<String> = rest.iter().map(|s| s.to_string()).collect();
    Ok(main(&rest))
}
