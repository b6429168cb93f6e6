//! Mounts as descriptors: open_tree(2), fsopen(2), fsmount(2), mount_setattr(2), move_mount(2).

use super::fs::own;
use super::{AsPath, Error, Result, check, with_path};
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Attributes for mounts of husk's own; those of the config are [`crate::plan::mounts::attr`].
pub const RDONLY: u64 = libc::MOUNT_ATTR_RDONLY;
pub const NOSUID: u64 = libc::MOUNT_ATTR_NOSUID;
pub const NODEV: u64 = libc::MOUNT_ATTR_NODEV;
pub const NOEXEC: u64 = libc::MOUNT_ATTR_NOEXEC;
/// Shows owners as `userns_fd` maps them (Linux 5.12).
pub const IDMAP: u64 = libc::MOUNT_ATTR_IDMAP;

/// Flags of mount(2), for [`mount`].
pub use libc::{
    MS_BIND, MS_DIRSYNC, MS_NOATIME, MS_NODEV, MS_NODIRATIME, MS_NOEXEC, MS_NOSUID, MS_RDONLY,
    MS_REC, MS_RELATIME, MS_REMOUNT, MS_STRICTATIME, MS_SYNCHRONOUS,
};

/// struct mount_attr of mount_setattr(2); the bits of `set` and `clear` are [`crate::plan::mounts::attr`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MountAttr {
    pub set: u64,
    pub clear: u64,
    /// One of [`PRIVATE`], [`SHARED`], [`SLAVE`], [`UNBINDABLE`], or 0 for no change.
    pub propagation: u64,
    /// For [`IDMAP`]: the descriptor of a user namespace.
    pub userns_fd: u64,
}

const OPEN_TREE_CLONE: u32 = 1;
const OPEN_TREE_NAMESPACE: u32 = 2;
const AT_RECURSIVE: i32 = 0x8000;

/// A detached copy of the mount at `path`; with `recursive`, of all mounts below it too. Follows symlinks.
pub fn clone_tree<P: AsPath + ?Sized>(
    dir: BorrowedFd,
    path: &P,
    recursive: bool,
) -> Result<OwnedFd> {
    let recursive = if recursive { AT_RECURSIVE as u32 } else { 0 };
    open_tree(dir, path, OPEN_TREE_CLONE | recursive)
}

/// A new mount namespace, for setns(2), with nothing in it but copies of a mount and of all below it. Linux 7.0.
pub fn namespace_of(mount: BorrowedFd) -> Result<OwnedFd> {
    open_tree(mount, c"", OPEN_TREE_NAMESPACE | AT_RECURSIVE as u32)
}

fn open_tree<P: AsPath + ?Sized>(dir: BorrowedFd, path: &P, flags: u32) -> Result<OwnedFd> {
    let flags = flags | libc::O_CLOEXEC as u32 | libc::AT_EMPTY_PATH as u32;
    with_path(
        path,
        |p| format!("open_tree '{p}'"),
        // SAFETY: the path is a C string that outlives the call.
        |p| unsafe { libc::syscall(libc::SYS_open_tree, dir.as_raw_fd(), p.as_ptr(), flags) },
        own,
    )
}

/// Changes the mount that `mount` is the root of; with `recursive`, the mounts below it too. Linux 5.12.
pub fn setattr(mount: BorrowedFd, attr: &MountAttr, recursive: bool) -> Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { AT_RECURSIVE } else { 0 };
    // SAFETY: `attr` has the layout of struct mount_attr and its size is given.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            attr,
            size_of::<MountAttr>(),
        )
    };
    check(ret, || {
        format!(
            "mount_setattr set={:#x} clear={:#x} propagation={:#x}",
            attr.set, attr.clear, attr.propagation
        )
    })
    .map(drop)
}

/// [`setattr`] of nothing but the propagation.
pub fn set_propagation(mount: BorrowedFd, propagation: u64, recursive: bool) -> Result<()> {
    let attr = MountAttr {
        propagation,
        ..Default::default()
    };
    setattr(mount, &attr, recursive)
}

/// Attaches a detached mount (or moves an attached one) onto the inode that `target` is; both may be `O_PATH`.
pub fn attach(mount: BorrowedFd, target: BorrowedFd) -> Result<()> {
    const F_EMPTY_PATH: u32 = 0x04;
    const T_EMPTY_PATH: u32 = 0x40;
    // SAFETY: the paths are C string literals.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_raw_fd(),
            c"".as_ptr(),
            target.as_raw_fd(),
            c"".as_ptr(),
            F_EMPTY_PATH | T_EMPTY_PATH,
        )
    };
    check(ret, || {
        format!(
            "move_mount [{}] to [{}]",
            mount.as_raw_fd(),
            target.as_raw_fd()
        )
    })
    .map(drop)
}

/// A file system being configured: fsopen(2). Each failure carries what the kernel wrote about it.
pub struct FsContext {
    fd: OwnedFd,
    name: String,
}

/// The size of the longest value that fsconfig(2) takes, with its NUL.
pub const OPTION_MAX: usize = 256;

const FSCONFIG_SET_FLAG: u32 = 0;
const FSCONFIG_SET_STRING: u32 = 1;
const FSCONFIG_SET_FD: u32 = 5;
const FSCONFIG_CMD_CREATE: u32 = 6;
const FSCONFIG_CMD_RECONFIGURE: u32 = 7;

impl FsContext {
    pub fn open(fstype: &CStr) -> Result<FsContext> {
        const FSOPEN_CLOEXEC: u32 = 1;
        let name = || fstype.to_string_lossy().into_owned();
        // SAFETY: the name is a C string that outlives the call.
        let fd = check(
            unsafe { libc::syscall(libc::SYS_fsopen, fstype.as_ptr(), FSOPEN_CLOEXEC) },
            || format!("fsopen '{}'", name()),
        )?;
        Ok(FsContext {
            fd: own(fd),
            name: name(),
        })
    }

    /// Takes up the file system that `mount` shows, to change its options: fspick(2).
    pub fn pick(mount: BorrowedFd) -> Result<FsContext> {
        const FSPICK_CLOEXEC: u32 = 1;
        const FSPICK_EMPTY_PATH: u32 = 8;
        // SAFETY: the path is a C string literal.
        let ret = unsafe {
            libc::syscall(
                libc::SYS_fspick,
                mount.as_raw_fd(),
                c"".as_ptr(),
                FSPICK_CLOEXEC | FSPICK_EMPTY_PATH,
            )
        };
        Ok(FsContext {
            fd: own(check(ret, || format!("fspick [{}]", mount.as_raw_fd()))?),
            name: "remount".into(),
        })
    }

    fn config(&self, cmd: u32, key: Option<&CStr>, value: Option<&CStr>, aux: i32) -> Result<()> {
        let ptr = |s: Option<&CStr>| s.map_or(std::ptr::null(), CStr::as_ptr);
        // SAFETY: key and value are null or C strings that outlive the call, as each command wants them.
        let ret = unsafe {
            libc::syscall(
                libc::SYS_fsconfig,
                self.fd.as_raw_fd(),
                cmd,
                ptr(key),
                ptr(value),
                aux,
            )
        };
        check(ret, || {
            let mut call = format!("fsconfig '{}'", self.name);
            if let Some(k) = key {
                call += &format!(" {}", k.to_string_lossy());
            }
            if let Some(v) = value {
                call += &format!("={}", v.to_string_lossy());
            }
            call
        })
        .map(drop)
        .map_err(|e| self.explain(e))
    }

    /// An option without a value.
    pub fn set_flag(&self, key: &CStr) -> Result<()> {
        self.config(FSCONFIG_SET_FLAG, Some(key), None, 0)
    }

    /// An option with a value; the kernel takes at most 255 bytes.
    pub fn set_string(&self, key: &CStr, value: &CStr) -> Result<()> {
        self.config(FSCONFIG_SET_STRING, Some(key), Some(value), 0)
    }

    /// An option whose value is a descriptor (overlayfs layers, Linux 6.13).
    pub fn set_fd(&self, key: &CStr, value: BorrowedFd) -> Result<()> {
        self.config(FSCONFIG_SET_FD, Some(key), None, value.as_raw_fd())
    }

    pub fn create(&self) -> Result<()> {
        self.config(FSCONFIG_CMD_CREATE, None, None, 0)
    }

    /// Applies the options to the file system that was picked.
    pub fn reconfigure(&self) -> Result<()> {
        self.config(FSCONFIG_CMD_RECONFIGURE, None, None, 0)
    }

    /// A detached mount of the created file system with `ATTR_*` set.
    pub fn mount(&self, attr: u64) -> Result<OwnedFd> {
        const FSMOUNT_CLOEXEC: u32 = 1;
        // SAFETY: no pointers.
        let ret = unsafe {
            libc::syscall(
                libc::SYS_fsmount,
                self.fd.as_raw_fd(),
                FSMOUNT_CLOEXEC,
                attr as u32,
            )
        };
        check(ret, || format!("fsmount '{}'", self.name))
            .map(own)
            .map_err(|e| self.explain(e))
    }

    /// Adds what the kernel wrote to the context's log: one message a read, "e " before an error.
    fn explain(&self, mut e: Error) -> Error {
        let mut buf = [0u8; 512];
        while let Ok(n @ 1..) = super::fs::read(self.fd.as_fd(), &mut buf) {
            let text = String::from_utf8_lossy(&buf[..n]);
            let text = text.trim_end();
            if let Some(text) = text.strip_prefix("e ") {
                e.call += &format!(" ({text})");
            }
        }
        e
    }
}

/// mount(2), for what only it can do: options of more than [`OPTION_MAX`] bytes.
pub fn mount<P: AsPath + ?Sized>(
    source: &CStr,
    target: &P,
    fstype: &CStr,
    flags: u64,
    data: &CStr,
) -> Result<()> {
    with_path(
        target,
        |p| format!("mount '{}' on '{p}'", fstype.to_string_lossy()),
        // SAFETY: all strings are C strings that outlive the call.
        |p| unsafe {
            libc::mount(
                source.as_ptr(),
                p.as_ptr(),
                fstype.as_ptr(),
                flags as libc::c_ulong,
                data.as_ptr().cast(),
            ) as libc::c_long
        },
        drop,
    )
}

/// umount2(2) with `MNT_DETACH`.
pub fn detach<P: AsPath + ?Sized>(path: &P) -> Result<()> {
    // SAFETY: the path is a C string that outlives the call.
    with_path(
        path,
        |p| format!("umount '{p}'"),
        |p| unsafe { libc::umount2(p.as_ptr(), libc::MNT_DETACH) } as libc::c_long,
        drop,
    )
}

/// pivot_root(2).
pub fn pivot_root(new: &CStr, old: &CStr) -> Result<()> {
    // SAFETY: both paths are C strings that outlive the call.
    check(
        unsafe { libc::syscall(libc::SYS_pivot_root, new.as_ptr(), old.as_ptr()) },
        || format!("pivot_root '{}'", new.to_string_lossy()),
    )
    .map(drop)
}

pub fn chroot<P: AsPath + ?Sized>(path: &P) -> Result<()> {
    // SAFETY: the path is a C string that outlives the call.
    with_path(
        path,
        |p| format!("chroot '{p}'"),
        |p| unsafe { libc::chroot(p.as_ptr()) } as libc::c_long,
        drop,
    )
}
