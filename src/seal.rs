//! husk's own binary, out of the container's reach (CVE-2019-5736).
//!
//! A container's process starts as a copy of husk, and an entry point such as `/proc/self/exe` executes husk's file again, so a container
//! could open that file for writing once it is no longer running. So whatever becomes a container's process runs from a
//! read-only copy of the mount that husk's file is on: no path leads to it, and a write through it is refused by the mount. That costs one
//! more execve and no copying; where such a copy cannot be made (no privileges), a sealed copy of the file in memory serves.

use crate::sys::mount::{self, MountAttr};
use crate::sys::{self, fs, process, start};
use anyhow::{Context, Result};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;

const SELF: &std::ffi::CStr = c"/proc/self/exe";

/// The copy of the mount that this husk runs from.
static MOUNT: Mutex<Option<OwnedFd>> = Mutex::new(None);

/// Executes husk again from a sealed place, unless this already is one.
pub fn ensure(args: start::Arguments) -> Result<()> {
    if let Some(mount) = start::executed_fd()
        && is_read_only(mount.as_fd())?
    {
        *MOUNT.lock().expect("no thread has panicked") = Some(mount);
        return Ok(());
    }
    // first by the path that husk was executed by: procfs has to make what it shows of a process that has just begun, which takes
    // as long as all of this
    if let Some(path) = start::executed_path(args)
        && let Ok(flags) = fs::mount_flags(path)
    {
        if flags & ST_RDONLY != 0 {
            return Ok(());
        }
        if let Ok(sealed) = mount::clone_tree(fs::CWD, path, false).and_then(read_only) {
            // comes back where there is another file by now, half written perhaps
            _ = start::again(sealed.as_fd(), args);
        }
    }
    let exe = fs::open(SELF, fs::O_PATH, 0)?;
    if is_sealed(exe.as_fd())? {
        return Ok(());
    }
    let sealed = mount::clone_tree(exe.as_fd(), c"", false)
        .and_then(read_only)
        .or_else(|_| sealed_copy())
        .context("seal husk's own binary against the container")?;
    Err(start::again(sealed.as_fd(), args)).context("execute husk from its sealed place")
}

/// Closes what holds the copied mount, at a moment when husk waits anyway: the last close of a mount that is nowhere
/// attached takes some 90 µs, for a grace period of RCU.
pub fn release() {
    MOUNT.lock().expect("no thread has panicked").take();
}

/// Of a mount's flags (statvfs(3)).
const ST_RDONLY: u64 = 1;

fn is_read_only(fd: BorrowedFd) -> Result<bool> {
    Ok(fs::fd_mount_flags(fd)? & ST_RDONLY != 0)
}

/// On a read-only mount, or a file in memory that nobody can change any more.
fn is_sealed(exe: BorrowedFd) -> Result<bool> {
    if is_read_only(exe)? {
        return Ok(true);
    }
    // a memfd has no directory entry
    if fs::fstat(exe)?.nlink != 0 {
        return Ok(false);
    }
    Ok(fs::is_sealed(fs::open(SELF, fs::O_RDONLY, 0)?.as_fd()))
}

/// Makes a copied mount read-only, and its descriptor not close-on-exec, for the husk that runs from it.
fn read_only(tree: OwnedFd) -> sys::Result<OwnedFd> {
    mount::setattr(
        tree.as_fd(),
        &MountAttr {
            set: mount::RDONLY | mount::NOSUID | mount::NODEV,
            ..Default::default()
        },
        false,
    )?;
    process::keep_on_exec(tree.as_raw_fd())?;
    Ok(tree)
}

fn sealed_copy() -> sys::Result<OwnedFd> {
    let from = fs::open(SELF, fs::O_RDONLY, 0)?;
    let copy = fs::memfd(c"husk")?;
    fs::copy_all(copy.as_fd(), from.as_fd())?;
    fs::fchmod(copy.as_fd(), 0o555)?;
    fs::seal(copy.as_fd())?;
    Ok(copy)
}
