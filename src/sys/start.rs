//! The program's start, in place of the standard library's: its signal stack, its handlers and its thread's record cost an empty
//! program 65 of 270 µs, and `create`, `run` and `exec` start twice. What it does for safety is done here too.

use super::{Error, fs, last_errno};
use std::ffi::{CStr, OsStr, c_char, c_int};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

/// Makes a `fn(Arguments) -> i32` the whole of a program with `#![no_main]`; it gives the exit code.
#[macro_export]
macro_rules! program {
    ($run:path) => {
        // SAFETY: a program has one start, and this is it: with `no_main` the compiler makes none.
        #[unsafe(no_mangle)]
        extern "C" fn main(
            count: std::ffi::c_int,
            arguments: *const *const std::ffi::c_char,
        ) -> std::ffi::c_int {
            // SAFETY: this is the C library's call of main, with the arguments as execve left them.
            unsafe { $crate::sys::start::main(count, arguments, $run) }
        }
    };
}

/// # Safety
/// `arguments` are `count` C strings and a null for as long as the program runs, and nothing of the program has run yet.
pub unsafe fn main(
    count: c_int,
    arguments: *const *const c_char,
    run: fn(Arguments) -> i32,
) -> c_int {
    open_standard_fds();
    // a reader that has gone is an error to report
    // SAFETY: SIG_IGN installs no handler.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    let arguments = Arguments {
        first: arguments,
        count: count as usize,
    };
    // flushes what the standard library still buffers
    std::process::exit(run(arguments))
}

/// Standard input, output and error that the caller has closed become /dev/null, so that no other file gets their numbers
/// and is read or written for them.
fn open_standard_fds() {
    let mut fds = [0, 1, 2].map(|fd| libc::pollfd {
        fd,
        events: 0,
        revents: 0,
    });
    // SAFETY: an array of three.
    unsafe { libc::poll(fds.as_mut_ptr(), 3, 0) };
    for closed in fds.iter().filter(|fd| fd.revents & libc::POLLNVAL != 0) {
        // SAFETY: a C string literal; open takes the lowest free number, which is this one.
        let fd = unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) };
        if fd != closed.fd {
            std::process::abort();
        }
    }
}

/// The program's arguments. The standard library has none of a program that it has not started.
#[derive(Clone, Copy)]
pub struct Arguments {
    first: *const *const c_char,
    count: usize,
}

impl Arguments {
    pub fn iter(self) -> impl Iterator<Item = &'static OsStr> {
        (0..self.count).map(move |i| {
            // SAFETY: there are `count` of them, each a C string that lasts as long as the program (see `main`).
            let argument = unsafe { CStr::from_ptr(*self.first.add(i)) };
            OsStr::from_bytes(argument.to_bytes())
        })
    }
}

unsafe extern "C" {
    static environ: *const *const c_char;
}

/// Executes a file with the program's own arguments and environment; returns only the error. What [`executed_fd`] gives to that program
/// is `exe`, unless it is close-on-exec.
pub fn again(exe: BorrowedFd, arguments: Arguments) -> Error {
    // SAFETY: the arguments are those of main with their null, the environment is the C library's.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            exe.as_raw_fd(),
            c"".as_ptr(),
            arguments.first,
            environ,
            libc::AT_EMPTY_PATH,
        )
    };
    Error::new(format!("execveat [{}]", exe.as_raw_fd()), last_errno())
}

/// What execveat(2) puts before the number of a descriptor, where it was given no path.
const BY_FD: &str = "/dev/fd/";

/// What this program was executed as.
fn executed_name() -> Option<&'static CStr> {
    // SAFETY: the kernel's name of the executed file: null or a C string at the end of the stack.
    unsafe {
        let name = libc::getauxval(libc::AT_EXECFN) as *const c_char;
        (!name.is_null()).then(|| CStr::from_ptr(name))
    }
}

/// The path that this program was executed by. None where it may be another file's: that of a script with this program as its
/// interpreter, which gets it as an argument.
pub fn executed_path(arguments: Arguments) -> Option<&'static CStr> {
    let name = executed_name()?;
    let is_argument = arguments
        .iter()
        .skip(1)
        .any(|a| a.as_bytes() == name.to_bytes());
    (!is_argument && !name.to_bytes().starts_with(BY_FD.as_bytes())).then_some(name)
}

/// The descriptor that this program was executed from and still has; close-on-exec from now on. To be asked once, at the start.
pub fn executed_fd() -> Option<OwnedFd> {
    let name = executed_name()?.to_str().ok()?;
    let fd: c_int = name.strip_prefix(BY_FD)?.parse().ok()?;
    // SAFETY: no pointers.
    let open = unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } == 0;
    (fd > 2 && open).then(|| fs::own(fd.into()))
}
