//! Runs a command under ptrace(2) and lets a fault happen at its n-th system call: the third program of this binary.
//!
//! `inject WHO FAULT N REPORT COMMAND…`: WHO is `self`, the command's own process, or `child`, those that it clones until they
//! execute something else; FAULT is `kill` or an errno that the call returns instead of being made. N counts from 1. REPORT is a
//! file that gets the number of that call. The exit code is the command's; when it ends, all that it left runs on untraced.
//!
//! `late:ERRNO:K` is an errno for a child, when husk is about to talk to it, or to listen, for the K-th time, or has just made it (0): the child
//! waits with that call until husk is there, and husk goes on when the child has left, or listens.
//!
//! Four more FAULTs are none of husk's: `count` gives REPORT the numbers of all calls; `exchange:A:B` lets two names of a directory change places before the call. `look` is not about
//! one call: REPORT gets the mounts (mountinfo) as each call has left them, if it has changed them, with an empty line after each.
//! `missing:NAME` lets every open of a file of this name fail with ENOENT, and REPORT has the number of open's.

use crate::support::process::exchange;
use libc::{c_int, c_long, pid_t};
use std::collections::{HashMap, HashSet};
use std::ffi::CString;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::ptr;

/// Where the number of the call and its result are in the user area of ptrace.
const ORIG_RAX: usize = 15 * 8;
const RAX: usize = 10 * 8;

/// From linux/ptrace.h; the libc crate has them for glibc alone.
const PTRACE_GET_SYSCALL_INFO: c_int = 0x420e;
const PTRACE_SYSCALL_INFO_ENTRY: u8 = 1;

const LISTENS: [c_long; 4] = [
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_poll,
    libc::SYS_ppoll,
];

/// These do not return, or do what they shall whatever they return: close(2) and munmap(2), or have nothing to fail with: wait4(2) for a child
/// that is there. And those at which the C library or the standard library gives up before husk hears of it: a process without memory or
/// random numbers aborts.
const NEVER_FAIL: [c_long; 10] = [
    libc::SYS_arch_prctl,
    libc::SYS_mmap,
    libc::SYS_brk,
    libc::SYS_getrandom,
    libc::SYS_wait4,
    libc::SYS_close,
    libc::SYS_munmap,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_rt_sigreturn,
];

/// Who waits for whom, with [`Fault::Late`].
#[derive(Default)]
struct Turns {
    /// At which point; None with other faults.
    point: Option<u64>,
    /// There is a child.
    born: bool,
    /// How often husk has come to talk or to listen.
    points: u64,
    husk_held: bool,
    husk_listens: bool,
    child_held: Option<pid_t>,
    /// It listens, or has ended or executed its program.
    child_idle: bool,
}

impl Turns {
    /// husk has made the child, which may listen before this is heard of; whether husk is to be held there.
    fn husk_cloned(&mut self) -> bool {
        self.born = true;
        self.husk_held = self.point == Some(0) && !self.child_idle;
        self.husk_held
    }

    /// husk enters or leaves a call; whether it is to be held there.
    fn husk_at(&mut self, entry: bool, number: c_long) -> bool {
        self.husk_listens = entry && LISTENS.contains(&number);
        let Some(point) = self.point.filter(|_| self.born && entry) else {
            return false;
        };
        if !self.husk_listens && number != libc::SYS_sendmsg {
            return false;
        }
        self.points += 1;
        self.husk_held = self.points == point && !self.child_idle;
        if (self.husk_listens || self.points >= point)
            && let Some(pid) = self.child_held.take()
        {
            trace(libc::PTRACE_SYSCALL, pid, 0, 0);
        }
        self.husk_held
    }

    /// The child enters or leaves a call.
    fn child_at(&mut self, entry: bool, number: c_long, main: pid_t) {
        if entry && LISTENS.contains(&number) {
            self.child_idle(main);
        } else {
            self.child_idle = false;
        }
    }

    /// Whether the child is to be held until husk has come to its point.
    fn hold_child(&mut self, pid: pid_t) -> bool {
        let early = self.point.is_some_and(|p| self.points < p) && !self.husk_listens;
        self.child_held = early.then_some(pid);
        early
    }

    /// The child waits for husk, or for nobody any more.
    fn child_idle(&mut self, main: pid_t) {
        self.child_idle = true;
        if std::mem::take(&mut self.husk_held) {
            trace(libc::PTRACE_SYSCALL, main, 0, 0);
        }
    }
}

enum Fault {
    Kill,
    Errno(c_int),
    Late(c_int, u64),
    Count,
    Exchange(CString, CString),
    Look,
    Missing(String),
}

impl Fault {
    fn parse(text: &str) -> Fault {
        let c = |s: &str| CString::new(s).expect("no zero byte");
        match text.split(':').collect::<Vec<_>>()[..] {
            ["kill"] => Fault::Kill,
            ["count"] => Fault::Count,
            ["look"] => Fault::Look,
            ["late", errno, point] => {
                Fault::Late(errno.parse().expect("an errno"), point.parse().expect("K"))
            }
            ["exchange", a, b] => Fault::Exchange(c(a), c(b)),
            ["missing", name] => Fault::Missing(name.into()),
            _ => Fault::Errno(text.parse().expect("an errno")),
        }
    }
}

pub fn main(args: &[String]) -> i32 {
    let [who, fault, n, report, command @ ..] = args else {
        eprintln!("inject: WHO FAULT N REPORT COMMAND…");
        return 2;
    };
    let children = who == "child";
    let fault = Fault::parse(fault);
    let n: u64 = n.parse().expect("N");
    let main = start(command);
    let mut options = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_TRACEEXEC;
    if children {
        options |= libc::PTRACE_O_TRACECLONE | libc::PTRACE_O_TRACEFORK | libc::PTRACE_O_TRACEVFORK;
    }
    trace(libc::PTRACE_SETOPTIONS, main, 0, options as usize);
    trace(libc::PTRACE_CONT, main, 0, 0);

    let mut begun = false;
    let mut count = 0;
    let mut results: HashMap<pid_t, c_int> = HashMap::new();
    let mut known = HashSet::new();
    let mut seen = String::new();
    let mut turns = Turns::default();
    if let Fault::Late(_, point) = fault {
        turns.point = Some(point);
    }
    loop {
        let mut status = 0;
        // SAFETY: a pointer to a live integer.
        let pid = unsafe { libc::waitpid(-1, &mut status, libc::__WALL) };
        if pid < 0 {
            return 125;
        }
        if libc::WIFEXITED(status) || libc::WIFSIGNALED(status) {
            if pid == main && libc::WIFEXITED(status) {
                return libc::WEXITSTATUS(status);
            } else if pid == main {
                return 128 + libc::WTERMSIG(status);
            }
            turns.child_idle(main);
            continue;
        }
        let mut deliver = 0;
        match (libc::WSTOPSIG(status), status >> 16) {
            (_, libc::PTRACE_EVENT_EXEC) if pid == main => begun = true,
            (_, libc::PTRACE_EVENT_EXEC) => {
                trace(libc::PTRACE_DETACH, pid, 0, 0);
                turns.child_idle(main);
                continue;
            }
            (s, _) if s == libc::SIGTRAP | 0x80 => {
                let (entry, number, path) = syscall(pid);
                if pid != main {
                    turns.child_at(entry, number, main);
                } else if turns.husk_at(entry, number) {
                    continue;
                }
                if let Some(errno) = results.remove(&pid) {
                    trace(libc::PTRACE_POKEUSER, pid, RAX, -errno as isize as usize);
                } else if entry && begun && (pid != main) == children {
                    count += 1;
                    let mut fail = |errno| {
                        trace(libc::PTRACE_POKEUSER, pid, ORIG_RAX, usize::MAX);
                        results.insert(pid, errno);
                    };
                    let told = || fs::write(report, number.to_string()).expect("report");
                    match &fault {
                        // the standard library's question, in builds with debug assertions, whether a descriptor is open
                        Fault::Count
                            if number == libc::SYS_fcntl && path == libc::F_GETFD as u64 => {}
                        Fault::Count => append(report, &number.to_string()),
                        Fault::Look => look(pid, &mut seen, report),
                        Fault::Missing(name) if number == libc::SYS_openat => {
                            if path_of(pid, path).rsplit('/').next() == Some(name) {
                                told();
                                fail(libc::ENOENT);
                            }
                        }
                        Fault::Missing(_) => {}
                        _ if count != n => {}
                        Fault::Kill => {
                            told();
                            // SAFETY: plain integers.
                            unsafe { libc::kill(pid, libc::SIGKILL) };
                        }
                        Fault::Exchange(a, b) => {
                            told();
                            exchange(a, b).expect("exchange");
                        }
                        Fault::Errno(errno) | Fault::Late(errno, _) => {
                            told();
                            if !NEVER_FAIL.contains(&number) {
                                fail(*errno);
                            }
                            if turns.hold_child(pid) {
                                continue;
                            }
                        }
                    }
                }
            }
            (_, event) if event != 0 && pid == main => {
                if turns.husk_cloned() {
                    continue;
                }
            }
            (_, event) if event != 0 => {}
            // the first stop of a new process
            (libc::SIGSTOP, _) if pid != main && known.insert(pid) => {}
            (signal, _) => deliver = signal,
        }
        let counted = (pid != main) == children || turns.point.is_some();
        let go = if counted {
            libc::PTRACE_SYSCALL
        } else {
            libc::PTRACE_CONT
        };
        trace(go, pid, 0, deliver as usize);
    }
}

fn start(command: &[String]) -> pid_t {
    let args: Vec<CString> = command
        .iter()
        .map(|a| CString::new(a.as_str()).expect("no zero byte"))
        .collect();
    let mut argv: Vec<_> = args.iter().map(|a| a.as_ptr()).collect();
    argv.push(ptr::null());
    // SAFETY: there is one thread; the child calls nothing but system calls.
    unsafe {
        let pid = libc::fork();
        if pid == 0 {
            libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0);
            libc::raise(libc::SIGSTOP);
            libc::execv(argv[0], argv.as_ptr());
            libc::_exit(127);
        }
        let mut status = 0;
        libc::waitpid(pid, &mut status, 0);
        pid
    }
}

/// Appends the mounts that a process sees, if they are not as they were.
fn look(pid: pid_t, seen: &mut String, report: &str) {
    let now = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
    if now != *seen {
        append(report, &now);
        *seen = now;
    }
}

fn append(report: &str, line: &str) {
    let mut file = OpenOptions::new().create(true).append(true).open(report);
    let file = file.as_mut().expect("report");
    writeln!(file, "{line}").expect("report");
}

/// A path among a process's arguments.
fn path_of(pid: pid_t, address: u64) -> String {
    let mut bytes = [0; 256];
    let n = fs::File::open(format!("/proc/{pid}/mem"))
        .and_then(|m| m.read_at(&mut bytes, address))
        .unwrap_or(0);
    let text = bytes[..n].split(|b| *b == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

/// Is the process about to make a system call, which, and its second argument.
fn syscall(pid: pid_t) -> (bool, c_long, u64) {
    // struct ptrace_syscall_info: op, arch, two addresses, the number, the arguments
    let mut info = [0u64; 11];
    trace(
        PTRACE_GET_SYSCALL_INFO,
        pid,
        size_of_val(&info),
        info.as_mut_ptr() as usize,
    );
    (
        info[0] as u8 == PTRACE_SYSCALL_INFO_ENTRY,
        info[3] as c_long,
        info[5],
    )
}

/// Without effect on a process that was killed meanwhile.
fn trace(request: libc::c_int, pid: pid_t, address: usize, data: usize) {
    // SAFETY: GET_SYSCALL_INFO alone writes through `data`, to a buffer of the size in `address`; the others use plain integers.
    unsafe {
        libc::syscall(
            libc::SYS_ptrace,
            request as c_long,
            pid as c_long,
            address,
            data,
        )
    };
}
