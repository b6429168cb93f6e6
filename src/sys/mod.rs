//! The kernel, thinly wrapped: the only unsafe code of husk and the only importer of `nix` and `libc`.
//!
//! Every function is one system call (or the one obvious pair), takes borrowed descriptors, returns owned ones that are
//! close-on-exec from birth, and fails with an [`Error`] that prints the call with its arguments.

pub mod alloc;
pub mod bpf;
pub mod cap;
pub mod clone;
pub mod fs;
pub mod landlock;
pub mod mount;
pub mod netlink;
pub mod process;
pub mod seccomp;
pub mod signal;
pub mod socket;
pub mod start;
pub mod tty;

use std::ffi::CStr;
use std::fmt;

/// What a path may be: `&CStr`, `&str`, `&Path` and their owned forms.
pub use nix::NixPath as AsPath;

/// A failed system call: the call with its arguments, and the kernel's reason.
#[derive(Debug)]
pub struct Error {
    call: String,
    errno: i32,
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub fn new(call: impl Into<String>, errno: i32) -> Self {
        Error {
            call: call.into(),
            errno,
        }
    }

    pub fn errno(&self) -> i32 {
        self.errno
    }
}

impl std::error::Error for Error {}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}: {}", self.call, errno_text(self.errno))?;
        if self.errno == errno::ENOSYS {
            // rather than a kernel that old it is mostly a filter that allows what its author knew
            f.write_str(
                "; husk needs Linux 5.12 or later, and a seccomp filter around it that lets the call through",
            )?;
        }
        Ok(())
    }
}

/// The kernel's words for an errno, in lower case as Go prints them: Docker looks for "no such file or directory",
/// "permission denied" and the like in a runtime's error to choose between exit code 127 and 126.
pub fn errno_text(errno: i32) -> String {
    if let Some(text) = as_glibc(errno) {
        return text.into();
    }
    // SAFETY: strerror never returns null, and its buffer is only overwritten by another strerror of this thread;
    // the text is copied before any other call.
    let text = unsafe { CStr::from_ptr(libc::strerror(errno)) }
        .to_string_lossy()
        .into_owned();
    // "Invalid argument" → "invalid argument", but "RPC struct is bad" stays
    let second_is_lower = text
        .chars()
        .nth(1)
        .is_some_and(|c| c.is_lowercase() || c == ' ');
    if second_is_lower {
        text[..1].to_lowercase() + &text[1..]
    } else {
        text
    }
}

/// The words that people search for, where musl has others.
fn as_glibc(errno: i32) -> Option<&'static str> {
    Some(match errno {
        libc::EBUSY => "device or resource busy",
        libc::EDQUOT => "disk quota exceeded",
        libc::EIO => "input/output error",
        libc::ELOOP => "too many levels of symbolic links",
        libc::EMFILE => "too many open files",
        libc::ENAMETOOLONG => "file name too long",
        libc::ENOMEM => "cannot allocate memory",
        libc::ENOTTY => "inappropriate ioctl for device",
        libc::EOPNOTSUPP => "operation not supported",
        libc::EOVERFLOW => "value too large for defined data type",
        libc::ERANGE => "numerical result out of range",
        libc::EXDEV => "invalid cross-device link",
        _ => return None,
    })
}

pub mod errno {
    pub use libc::{
        E2BIG, EACCES, EADDRINUSE, EAGAIN, EBADF, EBUSY, ECHILD, ECONNREFUSED, ECONNRESET, EEXIST,
        EFAULT, EFBIG, EINTR, EINVAL, EIO, EISDIR, ELOOP, EMFILE, ENAMETOOLONG, ENFILE, ENODEV,
        ENOENT, ENOEXEC, ENOMEM, ENOSPC, ENOSYS, ENOTDIR, ENOTEMPTY, ENXIO, EOPNOTSUPP, EPERM,
        EPIPE, EPROTOTYPE, ERANGE, EROFS, ESRCH, ETXTBSY, EXDEV,
    };
}

fn last_errno() -> i32 {
    nix::errno::Errno::last_raw()
}

/// Turns a raw return value into a result; `call` is only formatted on failure.
fn check(ret: libc::c_long, call: impl FnOnce() -> String) -> Result<libc::c_long> {
    if ret < 0 {
        Err(Error::new(call(), last_errno()))
    } else {
        Ok(ret)
    }
}

/// The same for nix's results.
fn lift<T>(ret: nix::Result<T>, call: impl FnOnce() -> String) -> Result<T> {
    ret.map_err(|e| Error::new(call(), e as i32))
}

/// Runs `f` with the path as a C string; a path that holds a NUL or is too long is `EINVAL`/`ENAMETOOLONG`.
fn with_path<P: AsPath + ?Sized, T>(
    path: &P,
    call: impl Fn(&str) -> String,
    f: impl FnOnce(&CStr) -> libc::c_long,
    ok: impl FnOnce(libc::c_long) -> T,
) -> Result<T> {
    let mut text = String::new();
    let ret = path.with_nix_path(|p| {
        let ret = f(p);
        if ret < 0 {
            let errno = last_errno();
            text = p.to_string_lossy().into_owned();
            return Err(errno);
        }
        Ok(ret)
    });
    match ret {
        Ok(Ok(ret)) => Ok(ok(ret)),
        Ok(Err(errno)) => Err(Error::new(call(&text), errno)),
        Err(e) => Err(Error::new(call("…"), e as i32)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel takes what is missing of a structure for zero, but some have written past the end of a short one (bpf_attr): each is as
    /// large as in the kernel that brought its last field that husk uses, or larger.
    #[test]
    fn structures_are_whole() {
        assert_eq!(size_of::<clone::CloneArgs>(), 88); // CLONE_ARGS_SIZE_VER2
        assert_eq!(size_of::<fs::OpenHow>(), 24); // OPEN_HOW_SIZE_VER0
        assert_eq!(size_of::<mount::MountAttr>(), 32); // MOUNT_ATTR_SIZE_VER0
        assert_eq!(size_of::<process::SchedAttr>(), 48); // SCHED_ATTR_SIZE_VER0
        assert_eq!(size_of::<landlock::Ruleset>(), 24); // with `scoped`
        assert!(size_of::<bpf::Attr>() >= 152); // Linux 6.18
        assert!(bpf::Attr::new().0.iter().all(|b| *b == 0));
        assert_eq!(clone::CloneArgs::default().flags, 0);
    }

    #[test]
    fn errno_text_is_lower_case_like_the_peers() {
        assert_eq!(errno_text(libc::ENOENT), "no such file or directory");
        assert_eq!(errno_text(libc::EACCES), "permission denied");
        assert_eq!(errno_text(libc::EBUSY), "device or resource busy");
    }
}
