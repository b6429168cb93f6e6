//! The calling process, and others by pid or pidfd.

use super::fs::own;
use super::{Error, Result, check, lift};
use std::ffi::{CStr, CString, c_int, c_long, c_ulong};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

pub fn euid() -> u32 {
    nix::unistd::geteuid().as_raw()
}

pub fn egid() -> u32 {
    nix::unistd::getegid().as_raw()
}

/// The running kernel's version, by uname(2): (7, 1) for "7.1.0-rc2", (0, 0) where it cannot be told.
pub fn kernel_version() -> (u32, u32) {
    nix::sys::utsname::uname().map_or((0, 0), |name| version(&name.release().to_string_lossy()))
}

fn version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut next = || numbers.next().and_then(|n| n.parse().ok()).unwrap_or(0);
    (next(), next())
}

pub fn pid() -> i32 {
    nix::unistd::getpid().as_raw()
}

pub fn parent() -> i32 {
    nix::unistd::getppid().as_raw()
}

/// Has a command execute its program with these (three at most) as descriptors 3, 4, …
pub fn pass_fds(command: &mut Command, fds: Vec<OwnedFd>) {
    use std::os::unix::process::CommandExt;
    const PASSED_MAX: usize = 3;
    assert!(fds.len() <= PASSED_MAX);
    let place = move || {
        // out of the way first: one may have a number that another is to get
        let mut away = [0; PASSED_MAX];
        for (fd, away) in fds.iter().zip(&mut away) {
            // SAFETY: no pointers; the new descriptor is this function's own, and closed at execve.
            *away = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 6) };
            if *away < 0 {
                return Err(std::io::Error::last_os_error());
            }
        }
        for (number, away) in (3..).zip(&away[..fds.len()]) {
            // SAFETY: no pointers; what is replaced would be closed at execve.
            if unsafe { libc::dup2(*away, number) } < 0 {
                return Err(std::io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: between fork and execve it makes system calls only: no allocation, no lock.
    unsafe { command.pre_exec(place) };
}

/// Has a command execute its program with no signal blocked: execve(2) keeps the mask, and whoever reads signals from a descriptor blocks
/// all of them.
pub fn unblock_signals(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    // without anything to do before execve the standard library has a way that is quicker than fork(2)
    if any_blocked() {
        // SAFETY: between fork and execve it makes a system call only.
        unsafe { command.pre_exec(|| block_signals(false).map_err(to_io)) };
    }
}

/// Has a command's process end with this one, which must not have threads: it would be with the one that executes the command. What
/// that process makes itself stays.
pub fn end_together(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    let parent = pid();
    let tie = move || {
        set_death_signal(SIGKILL).map_err(to_io)?;
        // it may have been too late
        if self::parent() == parent {
            Ok(())
        } else {
            Err(std::io::Error::from_raw_os_error(libc::ESRCH))
        }
    };
    // SAFETY: between fork and execve it makes system calls only.
    unsafe { command.pre_exec(tie) };
}

fn to_io(e: Error) -> std::io::Error {
    std::io::Error::from_raw_os_error(e.errno())
}

/// Leaves at once: no destructor, no atexit handler, no flush. The only exit of a forked child besides execve.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: never returns and touches no memory.
    unsafe { libc::_exit(code) }
}

/// pidfd_open(2), Linux 5.3.
pub fn pidfd_open(pid: i32) -> Result<OwnedFd> {
    check(
        // SAFETY: no pointers.
        unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) },
        || format!("pidfd_open {pid}"),
    )
    .map(own)
}

/// Whether the caller is in the initial user namespace, without procfs, which has nothing yet for a process that has just begun. None
/// where the kernel cannot tell so (before Linux 6.11).
pub fn in_initial_user_namespace() -> Option<bool> {
    const PIDFD_GET_USER_NAMESPACE: u32 = 0xff09;
    /// Its inode in nsfs is a constant of the kernel's (USER_NS_INIT_INO).
    const INITIAL: u64 = 0xefff_fffd;
    let own = pidfd_open(pid()).ok()?;
    // SAFETY: no pointers.
    let namespace = unsafe { libc::ioctl(own.as_raw_fd(), PIDFD_GET_USER_NAMESPACE as _, 0) };
    let namespace = check(namespace as libc::c_long, String::new).map(super::fs::own);
    let stat = super::fs::fstat(namespace.ok()?.as_fd()).ok()?;
    Some(stat.ino == INITIAL)
}

pub fn pidfd_send_signal(pidfd: BorrowedFd, signal: i32) -> Result<()> {
    check(
        // SAFETY: a null siginfo asks the kernel to fill one as kill(2) does.
        unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                pidfd.as_raw_fd(),
                signal,
                std::ptr::null::<u8>(),
                0,
            )
        },
        || format!("send signal {signal}"),
    )
    .map(drop)
}

/// Waits until the process that a pidfd is has ended; false when the time ran out first. None waits for ever.
pub fn pidfd_wait(pidfd: BorrowedFd, limit: Option<Duration>) -> Result<bool> {
    Ok(poll(&[(pidfd, POLLIN)], limit)?[0] != 0)
}

pub use libc::{POLLERR, POLLHUP, POLLIN, POLLOUT, POLLPRI};

/// poll(2), retried on `EINTR` with the time that is left: the events of each descriptor, all 0 when the time ran out.
pub fn poll(fds: &[(BorrowedFd, i16)], limit: Option<Duration>) -> Result<Vec<i16>> {
    let end = limit.map(|l| std::time::Instant::now() + l);
    let mut set: Vec<libc::pollfd> = fds
        .iter()
        .map(|(fd, events)| libc::pollfd {
            fd: fd.as_raw_fd(),
            events: *events,
            revents: 0,
        })
        .collect();
    loop {
        let left = end.map_or(-1, |e| {
            e.saturating_duration_since(std::time::Instant::now())
                .as_micros()
                .div_ceil(1000)
                .min(i32::MAX as u128) as c_int
        });
        // SAFETY: the set is as long as the length given.
        let n = unsafe { libc::poll(set.as_mut_ptr(), set.len() as libc::nfds_t, left) };
        if n < 0 && super::last_errno() == libc::EINTR {
            continue;
        }
        check(n as c_long, || "poll".into())?;
        return Ok(set.iter().map(|p| p.revents).collect());
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum End {
    Exited(i32),
    Killed(i32),
}

impl End {
    /// The shell's convention: the exit code, or 128 + the signal.
    pub fn code(self) -> i32 {
        match self {
            End::Exited(code) => code,
            End::Killed(signal) => 128 + signal,
        }
    }

    /// SIGKILL was it, or another process's end that this one has passed on as its own exit code.
    pub fn is_by_kill(self) -> bool {
        self.code() == End::Killed(SIGKILL).code()
    }
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            End::Exited(code) => write!(f, "exited with {code}"),
            End::Killed(signal) => write!(f, "was killed by {}", signal_name(*signal)),
        }
    }
}

/// Reaps a child, waiting for its end.
pub fn wait(pid: i32) -> Result<End> {
    let mut status: c_int = 0;
    loop {
        // SAFETY: the status is a live int.
        let ret = unsafe { libc::waitpid(pid, &mut status, 0) };
        if ret < 0 && super::last_errno() == libc::EINTR {
            continue;
        }
        check(ret as c_long, || format!("waitpid {pid}"))?;
        return Ok(end_of(status));
    }
}

/// Reaps any child that has ended, without waiting; None when there is none.
pub fn wait_any() -> Option<(i32, End)> {
    let mut status: c_int = 0;
    // SAFETY: the status is a live int.
    let pid = unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) };
    (pid > 0).then(|| (pid, end_of(status)))
}

fn end_of(status: c_int) -> End {
    if libc::WIFSIGNALED(status) {
        End::Killed(libc::WTERMSIG(status))
    } else {
        End::Exited(libc::WEXITSTATUS(status))
    }
}

pub use libc::{SIGKILL, SIGSYS};

pub fn kill(pid: i32, signal: i32) -> Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::kill(pid, signal) } as c_long, || {
        format!("kill {pid} with {}", signal_name(signal))
    })
    .map(drop)
}

/// "SIGTERM", or "signal 42" for those without a name.
pub fn signal_name(signal: i32) -> String {
    nix::sys::signal::Signal::try_from(signal)
        .map_or_else(|_| format!("signal {signal}"), |s| s.as_str().into())
}

/// Why the kernel sends a signal that nobody else has a use for.
pub fn limit_signal(signal: i32) -> Option<&'static str> {
    match signal {
        libc::SIGXCPU => {
            Some("killed by its limit of CPU time; raise RLIMIT_CPU in process.rlimits")
        }
        libc::SIGXFSZ => {
            Some("killed by its limit of file size; raise RLIMIT_FSIZE in process.rlimits")
        }
        libc::SIGSYS => Some("killed for a system call that linux.seccomp forbids"),
        _ => None,
    }
}

/// The number of a signal by name, with or without "SIG", in any case; numbers are taken as they are.
pub fn signal_number(name: &str) -> Option<i32> {
    let max = libc::SIGRTMAX();
    if let Ok(n) = name.parse::<i32>() {
        return (0..=max).contains(&n).then_some(n);
    }
    let upper = name.to_uppercase();
    let full = if upper.starts_with("SIG") {
        upper
    } else {
        format!("SIG{upper}")
    };
    match full.as_str() {
        "SIGCLD" => return Some(libc::SIGCHLD),
        "SIGPOLL" => return Some(libc::SIGIO),
        "SIGIOT" => return Some(libc::SIGABRT),
        _ => {}
    }
    let offset = |s: &str| s.parse::<i32>().ok().filter(|n| (0..=32).contains(n));
    if let Some(rest) = full.strip_prefix("SIGRTMIN") {
        let n = if rest.is_empty() {
            0
        } else {
            offset(rest.strip_prefix('+')?)?
        };
        return Some(libc::SIGRTMIN() + n).filter(|n| *n <= max);
    }
    if let Some(rest) = full.strip_prefix("SIGRTMAX") {
        let n = if rest.is_empty() {
            0
        } else {
            offset(rest.strip_prefix('-')?)?
        };
        return Some(max - n).filter(|n| *n >= libc::SIGRTMIN());
    }
    full.parse::<nix::sys::signal::Signal>()
        .ok()
        .map(|s| s as i32)
}

// prctl(2)

fn prctl(op: c_int, a: c_ulong, what: &str) -> Result<c_long> {
    check(
        // SAFETY: none of the operations used here takes a pointer.
        unsafe { libc::prctl(op, a, 0 as c_ulong, 0 as c_ulong, 0 as c_ulong) } as c_long,
        || format!("prctl {what}"),
    )
}

/// Non-dumpable: other processes cannot open /proc/PID/exe, fd, root of this one without ptrace rights in our user namespace.
pub fn set_dumpable(on: bool) -> Result<()> {
    prctl(libc::PR_SET_DUMPABLE, on as c_ulong, "PR_SET_DUMPABLE").map(drop)
}

pub fn set_subreaper() -> Result<()> {
    prctl(libc::PR_SET_CHILD_SUBREAPER, 1, "PR_SET_CHILD_SUBREAPER").map(drop)
}

/// Signal to get when the parent ends; 0 for none.
pub fn set_death_signal(signal: i32) -> Result<()> {
    prctl(
        libc::PR_SET_PDEATHSIG,
        signal as c_ulong,
        "PR_SET_PDEATHSIG",
    )
    .map(drop)
}

pub fn set_no_new_privs() -> Result<()> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1, "PR_SET_NO_NEW_PRIVS").map(drop)
}

/// Keeps permitted capabilities over the change to another uid, until the next execve.
pub fn set_keep_caps(on: bool) -> Result<()> {
    prctl(libc::PR_SET_KEEPCAPS, on as c_ulong, "PR_SET_KEEPCAPS").map(drop)
}

/// Sets the name that `ps` shows (15 bytes).
pub fn set_name(name: &CStr) -> Result<()> {
    check(
        // SAFETY: the name is a C string that outlives the call.
        unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) } as c_long,
        || "prctl PR_SET_NAME".into(),
    )
    .map(drop)
}

// ids

pub fn setresuid(uid: u32) -> Result<()> {
    check(
        // SAFETY: no pointers; one thread, so libc's and the kernel's views agree.
        unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) },
        || format!("setresuid {uid}"),
    )
    .map(drop)
}

pub fn setresgid(gid: u32) -> Result<()> {
    check(
        // SAFETY: as for setresuid.
        unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) },
        || format!("setresgid {gid}"),
    )
    .map(drop)
}

pub fn setgroups(gids: &[u32]) -> Result<()> {
    check(
        // SAFETY: the list is as long as the length given.
        unsafe { libc::syscall(libc::SYS_setgroups, gids.len(), gids.as_ptr()) },
        || format!("setgroups {gids:?}"),
    )
    .map(drop)
}

pub fn setsid() -> Result<()> {
    lift(nix::unistd::setsid(), || "setsid".into()).map(drop)
}

pub fn umask(mask: u32) -> u32 {
    // SAFETY: no pointers; cannot fail.
    unsafe { libc::umask(mask as libc::mode_t) as u32 }
}

pub fn sethostname(name: &CStr) -> Result<()> {
    lift(
        nix::unistd::sethostname(std::ffi::OsStr::new(&*name.to_string_lossy())),
        || format!("sethostname '{}'", name.to_string_lossy()),
    )
}

pub fn setdomainname(name: &CStr) -> Result<()> {
    check(
        // SAFETY: the name is as long as the length given.
        unsafe { libc::setdomainname(name.as_ptr(), name.count_bytes()) } as c_long,
        || format!("setdomainname '{}'", name.to_string_lossy()),
    )
    .map(drop)
}

// scheduling and limits

/// prlimit(2) of another process, 0 for the caller.
pub fn prlimit(pid: i32, resource: u32, soft: u64, hard: u64) -> Result<()> {
    let new = libc::rlimit64 {
        rlim_cur: soft,
        rlim_max: hard,
    };
    check(
        // SAFETY: the limit is a whole struct rlimit64; the old one is not asked for.
        unsafe {
            libc::syscall(
                libc::SYS_prlimit64,
                pid,
                resource,
                &new,
                std::ptr::null::<u8>(),
            )
        },
        || format!("prlimit soft={soft} hard={hard}"),
    )
    .map(drop)
}

/// The limit of open files that this process began with, if it has raised it.
static FILES: OnceLock<libc::rlimit64> = OnceLock::new();

/// Lets this process open as many files as it may. Others may choke on so many: [`limit_files`].
pub fn raise_file_limit() -> Result<()> {
    let resource = libc::RLIMIT_NOFILE as u32;
    // SAFETY: a limit is plain data, for which zeroes are a value.
    let mut old: libc::rlimit64 = unsafe { std::mem::zeroed() };
    check(
        // SAFETY: the kernel writes a whole struct rlimit64; a new one is not given.
        unsafe {
            libc::syscall(
                libc::SYS_prlimit64,
                0,
                resource,
                std::ptr::null::<u8>(),
                &mut old,
            )
        },
        || "prlimit".into(),
    )?;
    prlimit(0, resource, old.rlim_max, old.rlim_max)?;
    FILES.get_or_init(|| old);
    Ok(())
}

/// Has a command execute its program with the limit of open files that this process began with.
pub fn limit_files(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    if let Some(old) = FILES.get() {
        let resource = libc::RLIMIT_NOFILE as u32;
        let restore = move || prlimit(0, resource, old.rlim_cur, old.rlim_max).map_err(to_io);
        // SAFETY: between fork and execve it makes a system call only.
        unsafe { command.pre_exec(restore) };
    }
}

/// Lets this process lock as much memory as it likes.
pub fn unlimit_locked_memory() -> Result<()> {
    prlimit(
        0,
        libc::RLIMIT_MEMLOCK as u32,
        libc::RLIM_INFINITY,
        libc::RLIM_INFINITY,
    )
}

/// struct sched_attr of sched_setattr(2), 48 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SchedAttr {
    pub size: u32,
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
}

pub fn sched_setattr(pid: i32, attr: &SchedAttr) -> Result<()> {
    let attr = SchedAttr {
        size: size_of::<SchedAttr>() as u32,
        ..*attr
    };
    check(
        // SAFETY: the attributes carry their own size.
        unsafe { libc::syscall(libc::SYS_sched_setattr, pid, &attr, 0) },
        || {
            format!(
                "sched_setattr policy={} flags={:#x}",
                attr.policy, attr.flags
            )
        },
    )
    .map(drop)
}

/// `mask` is little-endian words of one bit a CPU, as long as needed.
pub fn sched_setaffinity(pid: i32, mask: &[u64]) -> Result<()> {
    check(
        // SAFETY: the mask is as long as the length given.
        unsafe {
            libc::syscall(
                libc::SYS_sched_setaffinity,
                pid,
                size_of_val(mask),
                mask.as_ptr(),
            )
        },
        || "sched_setaffinity".into(),
    )
    .map(drop)
}

/// set_mempolicy(2) of the calling thread, with a mask whose first word has the first 64 nodes.
pub fn set_mempolicy(mode: i32, nodes: &[u64]) -> Result<()> {
    let (mask, bits) = match nodes {
        [] => (std::ptr::null(), 0),
        words => (words.as_ptr(), words.len() * 64 + 1), // the kernel takes one off
    };
    check(
        // SAFETY: a mask and the number of its bits, or none.
        unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, bits) },
        || format!("set_mempolicy {mode:#x} with nodes {nodes:x?}"),
    )
    .map(drop)
}

/// ioprio_set(2) of a process: the class (1 rt, 2 be, 3 idle) and the level in it.
pub fn ioprio_set(pid: i32, class: u32, level: u32) -> Result<()> {
    const WHO_PROCESS: c_int = 1;
    check(
        // SAFETY: no pointers.
        unsafe {
            libc::syscall(
                libc::SYS_ioprio_set,
                WHO_PROCESS,
                pid,
                (class << 13) | level,
            )
        },
        || format!("ioprio_set class={class} level={level}"),
    )
    .map(drop)
}

pub fn personality(persona: u64) -> Result<()> {
    check(
        // SAFETY: no pointers.
        unsafe { libc::personality(persona as c_ulong) } as c_long,
        || format!("personality {persona:#x}"),
    )
    .map(drop)
}

// keyring

/// Joins a new session keyring of this name.
pub fn join_session_keyring(name: &CStr) -> Result<i64> {
    const JOIN_SESSION_KEYRING: c_int = 1;
    check(
        // SAFETY: the name is a C string that outlives the call.
        unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, name.as_ptr()) },
        || "keyctl join session keyring".into(),
    )
}

/// Adds permission bits to a key: `perm` after masking the present ones with `mask`.
pub fn key_set_permissions(key: i64, perm: u32) -> Result<()> {
    const SETPERM: c_int = 5;
    check(
        // SAFETY: no pointers.
        unsafe { libc::syscall(libc::SYS_keyctl, SETPERM, key, perm) },
        || "keyctl set permissions".into(),
    )
    .map(drop)
}

/// What the kernel prints of a key: "type;uid;gid;perm;description".
pub fn key_describe(key: i64) -> Result<String> {
    const DESCRIBE: c_int = 6;
    let mut buf = [0u8; 256];
    let n = check(
        // SAFETY: the buffer is as long as the length given.
        unsafe { libc::syscall(libc::SYS_keyctl, DESCRIBE, key, buf.as_mut_ptr(), buf.len()) },
        || "keyctl describe".into(),
    )?;
    let text = &buf[..(n as usize).clamp(1, buf.len()) - 1];
    Ok(String::from_utf8_lossy(text).into_owned())
}

// execution

/// close_range(2) from `first` on, Linux 5.9; with `cloexec` (Linux 5.11) they are only marked.
pub fn close_from(first: u32, cloexec: bool) -> Result<()> {
    const CLOSE_RANGE_CLOEXEC: c_int = 4;
    let flags = if cloexec { CLOSE_RANGE_CLOEXEC } else { 0 };
    check(
        // SAFETY: no pointers. Descriptors that are owned elsewhere are only closed in a process about to execve.
        unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, flags) },
        || format!("close_range {first}"),
    )
    .map(drop)
}

/// Closes every descriptor from `first` on but these. What owned the others must never be dropped: only for a child that
/// leaves by execve or [`exit_now`].
pub fn close_all_but(first: i32, keep: impl Iterator<Item = i32>) -> Result<()> {
    let mut keep: Vec<i32> = keep.filter(|n| *n >= first).collect();
    keep.sort_unstable();
    let mut from = first as u32;
    for n in keep.into_iter().map(|n| n as u32).chain([u32::MAX]) {
        if n > from {
            check(
                // SAFETY: no pointers; nothing of this process uses what is closed any more.
                unsafe { libc::syscall(libc::SYS_close_range, from, n - 1, 0) },
                || format!("close_range {from} {}", n - 1),
            )?;
        }
        from = n.saturating_add(1);
    }
    Ok(())
}

/// Whether a descriptor is open and came from husk's caller: husk opens its own close-on-exec.
pub fn is_inherited(fd: i32) -> bool {
    // SAFETY: no pointers.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFD) };
    flags >= 0 && flags & libc::FD_CLOEXEC == 0
}

/// Takes close-on-exec off a descriptor.
pub fn keep_on_exec(fd: i32) -> Result<()> {
    check(
        // SAFETY: no pointers.
        unsafe { libc::fcntl(fd, libc::F_SETFD, 0) } as c_long,
        || format!("fcntl [{fd}]"),
    )
    .map(drop)
}

/// dup3(2) onto a number, without close-on-exec.
pub fn dup_onto(fd: BorrowedFd, number: i32) -> Result<()> {
    if fd.as_raw_fd() == number {
        return keep_on_exec(number);
    }
    check(
        // SAFETY: no pointers; the caller gives up what `number` was.
        unsafe { libc::dup2(fd.as_raw_fd(), number) } as c_long,
        || format!("dup2 [{}] to [{number}]", fd.as_raw_fd()),
    )
    .map(drop)
}

/// A null-terminated pointer array for execve(2).
pub struct Vector<'a> {
    ptrs: Vec<*const libc::c_char>,
    _strings: std::marker::PhantomData<&'a [CString]>,
}

impl<'a> Vector<'a> {
    pub fn new(strings: &'a [CString]) -> Self {
        let ptrs = strings
            .iter()
            .map(|s| s.as_ptr())
            .chain([std::ptr::null()])
            .collect();
        Vector {
            ptrs,
            _strings: std::marker::PhantomData,
        }
    }
}

/// execve(2): returns only the error.
pub fn execve(path: &CStr, args: &Vector, env: &Vector) -> Error {
    // SAFETY: both vectors are null-terminated arrays of C strings that they borrow.
    unsafe { libc::execve(path.as_ptr(), args.ptrs.as_ptr(), env.ptrs.as_ptr()) };
    Error::new(
        format!("exec {}", path.to_string_lossy()),
        super::last_errno(),
    )
}

// signals

fn any_blocked() -> bool {
    // SAFETY: a set of signals is plain data, for which zeroes are a value; without a new mask only the old one is told.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigprocmask(libc::SIG_BLOCK, std::ptr::null(), &mut set);
        (1..=libc::SIGRTMAX()).any(|n| libc::sigismember(&set, n) == 1)
    }
}

/// Blocks every signal, or none.
pub fn block_signals(all: bool) -> Result<()> {
    use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
    let set = if all { SigSet::all() } else { SigSet::empty() };
    lift(
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&set), None),
        || "sigprocmask".into(),
    )
}

/// Gives SIGPIPE its default action back, which husk's start took away; ignored signals survive execve.
pub fn default_sigpipe() {
    // SAFETY: SIG_DFL installs no handler.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

/// Gives back what a process that waits for long does not need: the stack that deeper calls have left, and its view of the program,
/// which comes back from the page cache, and would otherwise be taken down by execve, when somebody waits.
#[inline(never)]
pub fn trim() {
    /// More stack than husk ever uses, less than there is between it and the next mapping.
    const DEEPEST: usize = 512 << 10;
    const PAGE: usize = 4096; // where pages are larger the kernel refuses, and nothing is lost
    unsafe extern "C" {
        // the linker's: where the program and its code begin and end
        static __executable_start: u8;
        static etext: u8;
    }
    let down = |at: usize| at & !(PAGE - 1);
    let here = 0u8;
    let stack = down(&raw const here as usize) - PAGE;
    let begin = &raw const __executable_start as usize;
    let code = (begin, down(&raw const etext as usize).saturating_sub(begin));
    for (start, length) in [(stack - DEEPEST, DEEPEST), code] {
        // SAFETY: but for this call, within a page, nothing of the stack is alive below this function's frame, and nothing else is mapped so
        // near below it; what is not mapped is passed over. The code is a file's, and never written to.
        unsafe { libc::madvise(start as *mut _, length, libc::MADV_DONTNEED) };
    }
}

/// Makes this process leave by itself at the signals that ask for an end: as pid 1 of a namespace it would ignore them
/// without a handler. execve takes the handlers away.
pub fn exit_on_end_signals() {
    extern "C" fn leave(signal: c_int) {
        exit_now(128 + signal)
    }
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM] {
        // SAFETY: the handler only calls _exit, which is safe at any point.
        unsafe { libc::signal(signal, leave as *const () as libc::sighandler_t) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_every_kind_of_release() {
        assert_eq!(version("7.1.0-rc2"), (7, 1));
        assert_eq!(version("6.18.44-fc-v657"), (6, 18));
        assert_eq!(version("7-custom"), (7, 0));
        assert_eq!(version("next"), (0, 0));
        assert!(kernel_version() > (4, 0));
    }
}
