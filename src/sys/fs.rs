//! Files and directories by descriptor.

use super::{AsPath, Error, Result, check, lift, with_path};
use std::ffi::{CStr, CString, OsString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

pub use libc::{
    O_APPEND, O_CLOEXEC, O_CREAT, O_DIRECTORY, O_EXCL, O_NOCTTY, O_NOFOLLOW, O_NONBLOCK, O_PATH,
    O_RDONLY, O_RDWR, O_TRUNC, O_WRONLY, S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT,
    S_IFREG, S_IFSOCK,
};

/// `RESOLVE_*` of openat2(2).
pub const RESOLVE_NO_XDEV: u64 = 0x01;
pub const RESOLVE_NO_MAGICLINKS: u64 = 0x02;
pub const RESOLVE_NO_SYMLINKS: u64 = 0x04;
pub const RESOLVE_BENEATH: u64 = 0x08;
pub const RESOLVE_IN_ROOT: u64 = 0x10;

/// The present directory, for the `dir` arguments below.
pub const CWD: BorrowedFd<'static> = {
    // SAFETY: AT_FDCWD is not a descriptor that can be closed; every *at call accepts it in place of one.
    unsafe { BorrowedFd::borrow_raw(libc::AT_FDCWD) }
};

/// One of the three standard streams.
pub fn standard(number: i32) -> BorrowedFd<'static> {
    assert!((0..3).contains(&number));
    // SAFETY: husk never closes its standard streams; one that was closed by the caller gives EBADF where it is used.
    unsafe { BorrowedFd::borrow_raw(number) }
}

/// Adopts a descriptor that a system call has just returned.
pub(super) fn own(fd: libc::c_long) -> OwnedFd {
    // SAFETY: the callers pass only what the kernel returned as a new descriptor, so nothing else owns it.
    unsafe { OwnedFd::from_raw_fd(fd as i32) }
}

/// openat(2) with `O_CLOEXEC` added.
pub fn openat<P: AsPath + ?Sized>(
    dir: BorrowedFd,
    path: &P,
    flags: i32,
    mode: u32,
) -> Result<OwnedFd> {
    with_path(
        path,
        |p| format!("open '{p}'"),
        // SAFETY: the path is a C string that outlives the call.
        |p| unsafe { libc::openat(dir.as_raw_fd(), p.as_ptr(), flags | O_CLOEXEC, mode) }
            as libc::c_long,
        own,
    )
}

/// [`openat`] relative to the present directory.
pub fn open<P: AsPath + ?Sized>(path: &P, flags: i32, mode: u32) -> Result<OwnedFd> {
    openat(CWD, path, flags, mode)
}

#[repr(C)]
#[derive(Default)]
pub(super) struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

/// openat2(2), Linux 5.6, with `O_CLOEXEC` added. `EAGAIN` (a rename raced with `..`) is retried.
pub fn openat2<P: AsPath + ?Sized>(
    dir: BorrowedFd,
    path: &P,
    flags: i32,
    mode: u32,
    resolve: u64,
) -> Result<OwnedFd> {
    let how = OpenHow {
        flags: (flags | O_CLOEXEC) as u64,
        mode: mode as u64,
        resolve,
    };
    with_path(
        path,
        |p| format!("openat2 '{p}'"),
        |p| {
            for _ in 0..128 {
                // SAFETY: `how` is a zero-padded struct open_how of the size given; the path outlives the call.
                let fd = unsafe {
                    libc::syscall(
                        libc::SYS_openat2,
                        dir.as_raw_fd(),
                        p.as_ptr(),
                        &how,
                        size_of::<OpenHow>(),
                    )
                };
                if fd >= 0 || super::last_errno() != libc::EAGAIN {
                    return fd;
                }
            }
            -1
        },
        own,
    )
}

pub fn mkdirat<P: AsPath + ?Sized>(dir: BorrowedFd, path: &P, mode: u32) -> Result<()> {
    with_path(
        path,
        |p| format!("mkdir '{p}'"),
        // SAFETY: the path is a C string that outlives the call.
        |p| unsafe { libc::mkdirat(dir.as_raw_fd(), p.as_ptr(), mode) } as libc::c_long,
        drop,
    )
}

/// mknodat(2); `dev` is made with [`makedev`].
pub fn mknodat<P: AsPath + ?Sized>(dir: BorrowedFd, path: &P, mode: u32, dev: u64) -> Result<()> {
    with_path(
        path,
        |p| format!("mknod '{p}'"),
        // SAFETY: the path is a C string that outlives the call.
        |p| unsafe { libc::mknodat(dir.as_raw_fd(), p.as_ptr(), mode, dev as libc::dev_t) }
            as libc::c_long,
        drop,
    )
}

pub fn makedev(major: u32, minor: u32) -> u64 {
    libc::makedev(major, minor) as u64
}

pub fn major_minor(dev: u64) -> (u32, u32) {
    (
        libc::major(dev as libc::dev_t) as u32,
        libc::minor(dev as libc::dev_t) as u32,
    )
}

pub fn symlinkat<P: AsPath + ?Sized>(target: &CStr, dir: BorrowedFd, path: &P) -> Result<()> {
    with_path(
        path,
        |p| format!("symlink '{p}'"),
        // SAFETY: both paths are C strings that outlive the call.
        |p| unsafe { libc::symlinkat(target.as_ptr(), dir.as_raw_fd(), p.as_ptr()) }
            as libc::c_long,
        drop,
    )
}

/// unlinkat(2); `dir_too` removes an empty directory instead of a file.
pub fn unlinkat<P: AsPath + ?Sized>(dir: BorrowedFd, path: &P, dir_too: bool) -> Result<()> {
    let flags = if dir_too { libc::AT_REMOVEDIR } else { 0 };
    with_path(
        path,
        |p| format!("unlink '{p}'"),
        // SAFETY: the path is a C string that outlives the call.
        |p| unsafe { libc::unlinkat(dir.as_raw_fd(), p.as_ptr(), flags) } as libc::c_long,
        drop,
    )
}

pub fn renameat<P: AsPath + ?Sized, Q: AsPath + ?Sized>(
    dir: BorrowedFd,
    from: &P,
    to: &Q,
) -> Result<()> {
    let renamed = from.with_nix_path(|from| {
        with_path(
            to,
            |p| format!("rename '{}' to '{p}'", from.to_string_lossy()),
            // SAFETY: both paths are C strings that outlive the call.
            |p| unsafe {
                libc::renameat(dir.as_raw_fd(), from.as_ptr(), dir.as_raw_fd(), p.as_ptr())
            } as libc::c_long,
            drop,
        )
    });
    renamed.unwrap_or_else(|e| Err(Error::new("rename '…'", e as i32)))
}

/// readlinkat(2); an empty path reads the link that `dir` itself is (`O_PATH|O_NOFOLLOW`).
pub fn readlinkat<P: AsPath + ?Sized>(dir: BorrowedFd, path: &P) -> Result<OsString> {
    let mut buf = vec![0u8; libc::PATH_MAX as usize];
    let len = with_path(
        path,
        |p| format!("readlink '{p}'"),
        // SAFETY: the buffer is as long as the length given.
        |p| unsafe {
            libc::readlinkat(
                dir.as_raw_fd(),
                p.as_ptr(),
                buf.as_mut_ptr().cast(),
                buf.len(),
            )
        } as libc::c_long,
        |n| n as usize,
    )?;
    buf.truncate(len);
    Ok(OsString::from_vec(buf))
}

/// What fstat(2) says of an inode, as far as husk asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    pub dev: u64,
    pub ino: u64,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u64,
    pub nlink: u64,
    pub size: i64,
    /// Seconds and nanoseconds of the last change of contents.
    pub mtime: (i64, i64),
}

impl Stat {
    pub fn kind(&self) -> u32 {
        self.mode & S_IFMT
    }

    pub fn is_dir(&self) -> bool {
        self.kind() == S_IFDIR
    }
}

#[allow(clippy::unnecessary_cast)] // the widths differ between architectures
fn stat_of(s: libc::stat) -> Stat {
    Stat {
        dev: s.st_dev as u64,
        ino: s.st_ino as u64,
        mode: s.st_mode as u32,
        uid: s.st_uid,
        gid: s.st_gid,
        rdev: s.st_rdev as u64,
        nlink: s.st_nlink as u64,
        size: s.st_size as i64,
        mtime: (s.st_mtime as i64, s.st_mtime_nsec as i64),
    }
}

pub fn fstat(fd: BorrowedFd) -> Result<Stat> {
    // SAFETY: struct stat is plain data, for which zeroes are a value; the kernel fills it.
    let mut s: libc::stat = unsafe { std::mem::zeroed() };
    check(
        // SAFETY: the pointer is to a whole struct stat.
        unsafe { libc::fstat(fd.as_raw_fd(), &mut s) } as libc::c_long,
        || format!("fstat [{}]", fd.as_raw_fd()),
    )?;
    Ok(stat_of(s))
}

/// fstatat(2), never following a last symlink.
pub fn lstatat<P: AsPath + ?Sized>(dir: BorrowedFd, path: &P) -> Result<Stat> {
    // SAFETY: struct stat is plain data, for which zeroes are a value; the kernel fills it.
    let mut s: libc::stat = unsafe { std::mem::zeroed() };
    with_path(
        path,
        |p| format!("stat '{p}'"),
        // SAFETY: the pointer is to a whole struct stat.
        |p| unsafe {
            libc::fstatat(
                dir.as_raw_fd(),
                p.as_ptr(),
                &mut s,
                libc::AT_SYMLINK_NOFOLLOW,
            )
        } as libc::c_long,
        drop,
    )?;
    Ok(stat_of(s))
}

/// stat(2) of a path, following symlinks.
pub fn stat<P: AsPath + ?Sized>(path: &P) -> Result<Stat> {
    // SAFETY: struct stat is plain data, for which zeroes are a value; the kernel fills it.
    let mut s: libc::stat = unsafe { std::mem::zeroed() };
    with_path(
        path,
        |p| format!("stat '{p}'"),
        // SAFETY: the pointer is to a whole struct stat.
        |p| unsafe { libc::stat(p.as_ptr(), &mut s) } as libc::c_long,
        drop,
    )?;
    Ok(stat_of(s))
}

/// File system magics of statfs(2).
pub const PROC_MAGIC: i64 = 0x9fa0;
pub const CGROUP2_MAGIC: i64 = 0x6367_7270;
pub const TMPFS_MAGIC: i64 = 0x0102_1994;
pub const DEVPTS_MAGIC: i64 = 0x1cd1;
pub const SYSFS_MAGIC: i64 = 0x6265_6572;
pub const RESCTRL_MAGIC: i64 = 0x0765_5821;
pub const SELINUX_MAGIC: i64 = 0xf97c_ff8c;
pub const NSFS_MAGIC: i64 = 0x6e73_6673;
/// The magic number of the file system at `path`.
pub fn fs_magic<P: AsPath + ?Sized>(path: &P) -> Result<i64> {
    // SAFETY: struct statfs is plain data, for which zeroes are a value; the kernel fills it.
    let mut s: libc::statfs = unsafe { std::mem::zeroed() };
    with_path(
        path,
        |p| format!("statfs '{p}'"),
        // SAFETY: the pointer is to a whole struct statfs.
        |p| unsafe { libc::statfs(p.as_ptr(), &mut s) } as libc::c_long,
        drop,
    )?;
    Ok(s.f_type as i64)
}

/// The magic number of the file system that a descriptor (`O_PATH` will do) is on.
pub fn fd_magic(fd: BorrowedFd) -> Result<i64> {
    // SAFETY: struct statfs is plain data, for which zeroes are a value; the kernel fills it.
    let mut s: libc::statfs = unsafe { std::mem::zeroed() };
    check(
        // SAFETY: the pointer is to a whole struct statfs.
        unsafe { libc::fstatfs(fd.as_raw_fd(), &mut s) } as libc::c_long,
        || format!("fstatfs [{}]", fd.as_raw_fd()),
    )?;
    Ok(s.f_type as i64)
}

/// The `ST_*` flags of the mount at `path`: `ST_RDONLY` 1, `ST_NOSUID` 2, `ST_NODEV` 4, `ST_NOEXEC` 8, `ST_NOATIME` 1024,
/// `ST_NODIRATIME` 2048, `ST_RELATIME` 4096.
pub fn mount_flags<P: AsPath + ?Sized>(path: &P) -> Result<u64> {
    // SAFETY: struct statvfs is plain data, for which zeroes are a value; libc fills it.
    let mut s: libc::statvfs = unsafe { std::mem::zeroed() };
    with_path(
        path,
        |p| format!("statvfs '{p}'"),
        // SAFETY: the pointer is to a whole struct statvfs.
        |p| unsafe { libc::statvfs(p.as_ptr(), &mut s) } as libc::c_long,
        drop,
    )?;
    Ok(s.f_flag as u64)
}

/// The same for the mount that a descriptor (`O_PATH` will do) is on.
pub fn fd_mount_flags(fd: BorrowedFd) -> Result<u64> {
    // SAFETY: struct statvfs is plain data, for which zeroes are a value; libc fills it.
    let mut s: libc::statvfs = unsafe { std::mem::zeroed() };
    check(
        // SAFETY: the pointer is to a whole struct statvfs.
        unsafe { libc::fstatvfs(fd.as_raw_fd(), &mut s) } as libc::c_long,
        || format!("fstatvfs [{}]", fd.as_raw_fd()),
    )?;
    Ok(s.f_flag as u64)
}

pub fn fchmod(fd: BorrowedFd, mode: u32) -> Result<()> {
    check(
        // SAFETY: no pointers.
        unsafe { libc::fchmod(fd.as_raw_fd(), mode) } as libc::c_long,
        || format!("chmod [{}] {mode:#o}", fd.as_raw_fd()),
    )
    .map(drop)
}

/// fchmodat(2); follows a last symlink, so only for names that husk has just made.
pub fn fchmodat<P: AsPath + ?Sized>(dir: BorrowedFd, path: &P, mode: u32) -> Result<()> {
    with_path(
        path,
        |p| format!("chmod '{p}' {mode:#o}"),
        // SAFETY: the path is a C string that outlives the call.
        |p| unsafe { libc::fchmodat(dir.as_raw_fd(), p.as_ptr(), mode, 0) } as libc::c_long,
        drop,
    )
}

/// fchownat(2), never following a last symlink; an empty path changes what `dir` itself is (`O_PATH` will do).
pub fn chownat<P: AsPath + ?Sized>(dir: BorrowedFd, path: &P, uid: u32, gid: u32) -> Result<()> {
    with_path(
        path,
        |p| format!("chown '{p}' {uid}:{gid}"),
        // SAFETY: the path is a C string that outlives the call.
        |p| unsafe {
            libc::fchownat(
                dir.as_raw_fd(),
                p.as_ptr(),
                uid,
                gid,
                libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH,
            )
        } as libc::c_long,
        drop,
    )
}

/// Sets the time of the last change of contents ([`Stat::mtime`]); the access time stays.
pub fn set_mtime(fd: BorrowedFd, mtime: (i64, i64)) -> Result<()> {
    let times = [
        libc::timespec {
            tv_sec: 0,
            tv_nsec: libc::UTIME_OMIT,
        },
        libc::timespec {
            tv_sec: mtime.0 as _,
            tv_nsec: mtime.1 as libc::c_long,
        },
    ];
    check(
        // SAFETY: the pointer is to two whole structs timespec.
        unsafe { libc::futimens(fd.as_raw_fd(), times.as_ptr()) } as libc::c_long,
        || "utimensat".into(),
    )
    .map(drop)
}

/// The names of a file's extended attributes: flistxattr(2).
pub fn list_xattrs(fd: BorrowedFd) -> Result<Vec<CString>> {
    /// XATTR_LIST_MAX of the kernel's include/uapi/linux/limits.h.
    const LIST_MAX: usize = 65536;
    let mut buf = vec![0u8; LIST_MAX];
    let len = check(
        // SAFETY: the buffer is as long as the length given.
        unsafe { libc::flistxattr(fd.as_raw_fd(), buf.as_mut_ptr().cast(), buf.len()) }
            as libc::c_long,
        || "flistxattr".into(),
    )?;
    let names = buf[..len as usize].split_inclusive(|b| *b == 0);
    Ok(names
        .filter_map(|name| CString::from_vec_with_nul(name.to_vec()).ok())
        .collect())
}

pub fn get_xattr(fd: BorrowedFd, name: &CStr) -> Result<Vec<u8>> {
    /// XATTR_SIZE_MAX of the kernel's include/uapi/linux/limits.h.
    const SIZE_MAX: usize = 65536;
    let mut buf = vec![0u8; SIZE_MAX];
    let len = check(
        // SAFETY: the name is a C string, and the buffer as long as the length given.
        unsafe {
            libc::fgetxattr(
                fd.as_raw_fd(),
                name.as_ptr(),
                buf.as_mut_ptr().cast(),
                buf.len(),
            )
        } as libc::c_long,
        || format!("fgetxattr '{}'", name.to_string_lossy()),
    )?;
    buf.truncate(len as usize);
    Ok(buf)
}

pub fn set_xattr(fd: BorrowedFd, name: &CStr, value: &[u8]) -> Result<()> {
    check(
        // SAFETY: the name is a C string, and the value as long as the length given.
        unsafe {
            libc::fsetxattr(
                fd.as_raw_fd(),
                name.as_ptr(),
                value.as_ptr().cast(),
                value.len(),
                0,
            )
        } as libc::c_long,
        || format!("fsetxattr '{}'", name.to_string_lossy()),
    )
    .map(drop)
}

pub fn chdir<P: AsPath + ?Sized>(path: &P) -> Result<()> {
    with_path(
        path,
        |p| format!("chdir to '{p}'"),
        // SAFETY: the path is a C string that outlives the call.
        |p| unsafe { libc::chdir(p.as_ptr()) } as libc::c_long,
        drop,
    )
}

pub fn fchdir(fd: BorrowedFd) -> Result<()> {
    lift(nix::unistd::fchdir(fd), || {
        format!("chdir to [{}]", fd.as_raw_fd())
    })
}

/// getcwd(2): the raw answer, which the kernel starts with "(unreachable)" for a directory outside the root.
pub fn getcwd() -> Result<OsString> {
    let mut buf = vec![0u8; libc::PATH_MAX as usize];
    let len = check(
        // SAFETY: the buffer is as long as the length given. The raw call, since libc's own hides "(unreachable)" as ENOENT.
        unsafe { libc::syscall(libc::SYS_getcwd, buf.as_mut_ptr(), buf.len()) },
        || "getcwd".into(),
    )?;
    buf.truncate(len as usize - 1);
    Ok(OsString::from_vec(buf))
}

/// Reads a small file of the kernel's (procfs, cgroupfs) or of the state directory whole.
pub fn read_at<P: AsPath + ?Sized>(dir: BorrowedFd, path: &P) -> Result<Vec<u8>> {
    let fd = openat(dir, path, O_RDONLY, 0)?;
    read_all(fd.as_fd()).map_err(|e| by_name("read", path, &e))
}

/// The same failure with the file's name instead of its descriptor.
fn by_name<P: AsPath + ?Sized>(verb: &str, path: &P, e: &Error) -> Error {
    let name = path.with_nix_path(|p| p.to_string_lossy().into_owned());
    let name = name.unwrap_or_else(|_| "…".into());
    Error::new(format!("{verb} '{name}'"), e.errno())
}

pub fn read_all(fd: BorrowedFd) -> Result<Vec<u8>> {
    let mut out = vec![0; 4096];
    let mut filled = 0;
    loop {
        if filled == out.len() {
            out.resize(2 * filled, 0);
        }
        let n = read(fd, &mut out[filled..])?;
        if n == 0 {
            out.truncate(filled);
            return Ok(out);
        }
        filled += n;
    }
}

/// read(2), retried on `EINTR`.
pub fn read(fd: BorrowedFd, buf: &mut [u8]) -> Result<usize> {
    loop {
        match nix::unistd::read(fd, buf) {
            Err(nix::errno::Errno::EINTR) => continue,
            r => return lift(r, || format!("read [{}]", fd.as_raw_fd())),
        }
    }
}

/// Makes reads and writes answer `EAGAIN` rather than wait, for everyone who shares the open file.
pub fn set_nonblocking(fd: BorrowedFd) -> Result<()> {
    // SAFETY: no pointers.
    let flags = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) };
    // SAFETY: no pointers.
    let ret = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags | O_NONBLOCK) };
    check(ret.into(), || {
        format!("fcntl [{}] O_NONBLOCK", fd.as_raw_fd())
    })
    .map(drop)
}

/// write(2), retried on `EINTR`: the number of bytes that were taken.
pub fn write_some(fd: BorrowedFd, data: &[u8]) -> Result<usize> {
    loop {
        match nix::unistd::write(fd, data) {
            Err(nix::errno::Errno::EINTR) => continue,
            r => return lift(r, || format!("write [{}]", fd.as_raw_fd())),
        }
    }
}

/// Writes `data` in one write(2), as procfs and cgroupfs want it; a short write is an error.
pub fn write(fd: BorrowedFd, data: &[u8]) -> Result<()> {
    loop {
        match nix::unistd::write(fd, data) {
            Err(nix::errno::Errno::EINTR) => continue,
            Ok(n) if n == data.len() => return Ok(()),
            Ok(n) => {
                return Err(Error::new(
                    format!("write [{}]: {n} of {} bytes", fd.as_raw_fd(), data.len()),
                    libc::EIO,
                ));
            }
            Err(e) => return Err(Error::new(format!("write [{}]", fd.as_raw_fd()), e as i32)),
        }
    }
}

/// Opens an existing file below `dir` and writes `data` in one write(2).
pub fn write_at<P: AsPath + ?Sized>(dir: BorrowedFd, path: &P, data: &[u8]) -> Result<()> {
    let fd = openat(dir, path, O_WRONLY, 0)?;
    write(fd.as_fd(), data).map_err(|e| by_name("write", path, &e))
}

/// Writes `data` to a file on disk, however many write(2) it takes: a full disk ends one early.
pub fn write_all(fd: BorrowedFd, mut data: &[u8]) -> Result<()> {
    while !data.is_empty() {
        let n = write_some(fd, data)?;
        data = &data[n..];
    }
    Ok(())
}

/// flock(2) modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    Shared,
    Exclusive,
}

/// flock(2), waiting for the lock. It is released when the last copy of the descriptor is closed, or by [`unlock`].
pub fn flock(fd: BorrowedFd, lock: Lock) -> Result<()> {
    flock_op(fd, lock.op())
}

/// The same without waiting: false if another has it.
pub fn try_flock(fd: BorrowedFd, lock: Lock) -> Result<bool> {
    match flock_op(fd, lock.op() | libc::LOCK_NB) {
        Err(e) if e.errno() == libc::EWOULDBLOCK => Ok(false),
        r => r.map(|()| true),
    }
}

/// Releases a lock, whoever else has a copy of the descriptor.
pub fn unlock(fd: BorrowedFd) -> Result<()> {
    flock_op(fd, libc::LOCK_UN)
}

impl Lock {
    fn op(self) -> i32 {
        match self {
            Lock::Shared => libc::LOCK_SH,
            Lock::Exclusive => libc::LOCK_EX,
        }
    }
}

fn flock_op(fd: BorrowedFd, op: i32) -> Result<()> {
    loop {
        // SAFETY: no pointers.
        let ret = unsafe { libc::flock(fd.as_raw_fd(), op) };
        if ret == 0 || super::last_errno() != libc::EINTR {
            return check(ret as libc::c_long, || {
                format!("flock [{}]", fd.as_raw_fd())
            })
            .map(drop);
        }
    }
}

pub fn fsync(fd: BorrowedFd) -> Result<()> {
    lift(nix::unistd::fsync(fd), || {
        format!("fsync [{}]", fd.as_raw_fd())
    })
}

/// memfd_create(2), sealable and executable.
pub fn memfd(name: &CStr) -> Result<OwnedFd> {
    const MFD_EXEC: u32 = 0x10; // Linux 6.3: without it vm.memfd_noexec=1 takes the x bits away
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // SAFETY: the name is a C string that outlives the call.
    let mut fd = unsafe { libc::memfd_create(name.as_ptr(), flags | MFD_EXEC) };
    if fd < 0 && super::last_errno() == libc::EINVAL {
        // SAFETY: as above.
        fd = unsafe { libc::memfd_create(name.as_ptr(), flags) };
    }
    check(fd as libc::c_long, || "memfd_create".into()).map(own)
}

/// Seals a memfd against every later change.
pub fn seal(fd: BorrowedFd) -> Result<()> {
    let seals = libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE;
    check(
        // SAFETY: no pointers.
        unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, seals) } as libc::c_long,
        || "seal memfd".into(),
    )
    .map(drop)
}

/// Whether [`seal`] was done to it.
pub fn is_sealed(fd: BorrowedFd) -> bool {
    // SAFETY: no pointers.
    let seals = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GET_SEALS) };
    seals >= 0 && seals & libc::F_SEAL_WRITE != 0 && seals & libc::F_SEAL_SEAL != 0
}

/// sendfile(2) from the start of `from` until its end.
pub fn copy_all(to: BorrowedFd, from: BorrowedFd) -> Result<()> {
    let mut at: libc::off_t = 0;
    loop {
        let n = check(
            // SAFETY: `at` is a live off_t.
            unsafe { libc::sendfile(to.as_raw_fd(), from.as_raw_fd(), &mut at, 1 << 30) }
                as libc::c_long,
            || "sendfile".into(),
        )?;
        if n == 0 {
            return Ok(());
        }
    }
}

/// The names in a directory, without `.` and `..`.
pub fn list(dir: BorrowedFd) -> Result<Vec<OsString>> {
    let fd = openat(dir, c".", O_RDONLY | O_DIRECTORY, 0)?;
    let mut dir = lift(nix::dir::Dir::from_fd(fd), || "open directory".into())?;
    let mut out = Vec::new();
    for entry in dir.iter() {
        let name = lift(entry, || "read directory".into())?
            .file_name()
            .to_bytes()
            .to_vec();
        if name != b"." && name != b".." {
            out.push(OsString::from_vec(name));
        }
    }
    Ok(out)
}

/// faccessat(2) with the effective ids: whether this process may execute the file. noexec mounts count.
pub fn may_execute<P: AsPath + ?Sized>(path: &P) -> Result<()> {
    with_path(
        path,
        |p| format!("access '{p}'"),
        // SAFETY: the path is a C string that outlives the call. The raw call of Linux 5.8, since musl emulates AT_EACCESS by a clone.
        |p| unsafe {
            libc::syscall(
                libc::SYS_faccessat2,
                libc::AT_FDCWD,
                p.as_ptr(),
                libc::X_OK,
                libc::AT_EACCESS,
            )
        },
        drop,
    )
}

/// The names of the directories in a directory, without `.` and `..`. For file systems that tell the type with the name
/// (cgroupfs, procfs, sysfs): nothing is opened to find out.
pub fn list_dirs(dir: BorrowedFd) -> Result<Vec<OsString>> {
    let fd = openat(dir, c".", O_RDONLY | O_DIRECTORY, 0)?;
    let mut dir = lift(nix::dir::Dir::from_fd(fd), || "open directory".into())?;
    let mut out = Vec::new();
    for entry in dir.iter() {
        let entry = lift(entry, || "read directory".into())?;
        let name = entry.file_name().to_bytes();
        if entry.file_type() == Some(nix::dir::Type::Directory) && name != b"." && name != b".." {
            out.push(OsString::from_vec(name.to_vec()));
        }
    }
    Ok(out)
}

/// Reads from the start of a file without moving its position, as a file of the kernel's that is polled must be read again.
pub fn pread(fd: BorrowedFd, buf: &mut [u8]) -> Result<usize> {
    check(
        // SAFETY: the buffer is as long as the length given.
        unsafe { libc::pread(fd.as_raw_fd(), buf.as_mut_ptr().cast(), buf.len(), 0) }
            as libc::c_long,
        || format!("read [{}]", fd.as_raw_fd()),
    )
    .map(|n| n as usize)
}
