//! The root file system: made a mount of its own, entered, and finished.

mod overlay;

use crate::log;
use crate::plan::Plan;
use crate::plan::mounts::Propagation;
use crate::plan::mounts::attr;
use crate::plan::rootfs::{Enter, Rootfs};
use crate::root::Root;
use crate::sys::mount::MountAttr;
use crate::sys::{clone, errno, fs, mount};
use anyhow::{Context, Result, anyhow};
use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Makes root.path (or the overlay) a mount of its own in the new mount namespace, or one that is attached nowhere yet, cut off from the
/// host's propagation.
pub fn prepare(plan: &Plan) -> Result<Root> {
    let rootfs = &plan.rootfs;
    if rootfs.enter == Enter::Chroot {
        return Ok(Root {
            fd: open(rootfs, fs::O_PATH)?,
        });
    }
    if rootfs.enter == Enter::Attach {
        return detached(rootfs);
    }
    isolate(rootfs)?;
    let fd = match &rootfs.overlay {
        Some(o) => overlay::mount(o, open(rootfs, fs::O_PATH)?, plan)?,
        None => {
            let target = open(rootfs, fs::O_PATH)?;
            let tree =
                mount::clone_tree(target.as_fd(), c"", true).with_context(|| named(rootfs))?;
            mount::attach(tree.as_fd(), target.as_fd()).with_context(|| named(rootfs))?;
            tree
        }
    };
    Ok(Root { fd })
}

/// A copy of root.path that is nowhere, cut off before anything can be mounted on it: the host has the same mounts.
fn detached(rootfs: &Rootfs) -> Result<Root> {
    let target = open(rootfs, fs::O_PATH)?;
    let fd = mount::clone_tree(target.as_fd(), c"", true).with_context(|| named(rootfs))?;
    set_propagation(fd.as_fd(), Propagation::Slave, true)?;
    Ok(Root { fd })
}

/// The way of kernels before 7.0, at any time before [`leave`]: a copy of the host's mount namespace, in which the tree, as far as it is
/// made, is attached to root.path.
pub fn pivot_instead(root: &Root, rootfs: &Rootfs, enter: &Cell<Enter>) -> Result<()> {
    log::debug("copying the host's mount namespace");
    clone::unshare(clone::NEWNS).context("make a mount namespace")?;
    enter.set(Enter::Pivot);
    isolate(rootfs)?;
    let target = open(rootfs, fs::O_PATH)?;
    mount::attach(root.fd.as_fd(), target.as_fd()).with_context(|| named(rootfs))
}

/// Leaves the host's mount namespace for one that has the tree alone, if that is the way; the rest is done there. The root may be another
/// descriptor then.
pub fn leave(root: Root, rootfs: &Rootfs, enter: &Cell<Enter>) -> Result<Root> {
    if enter.get() != Enter::Attach || attach_alone(&root)? {
        return Ok(root);
    }
    // Linux 7.0 has no empty one, but one made of a copy of a tree; mounts that are mount namespaces are left out of it
    let entered = mount::namespace_of(root.fd.as_fd())
        .and_then(|namespace| clone::setns(namespace.as_fd(), clone::NEWNS));
    if entered.is_err() {
        return pivot_instead(&root, rootfs, enter).map(|()| root);
    }
    log::debug("copied the tree into a mount namespace");
    let fd = fs::open("/", fs::O_PATH | fs::O_DIRECTORY, 0)?;
    Ok(Root { fd })
}

/// Attaches the tree in a new, empty mount namespace. Where the tree may not be in that, it is back in the host's.
fn attach_alone(root: &Root) -> Result<bool> {
    let Ok(back) = fs::open("/proc/self/ns/mnt", fs::O_RDONLY, 0) else {
        return Ok(false);
    };
    // Linux 7.1
    if clone::unshare(clone::EMPTY_NEWNS).is_err() {
        return Ok(false);
    }
    let bottom = fs::open("/", fs::O_PATH | fs::O_DIRECTORY, 0)?;
    match mount::attach(root.fd.as_fd(), bottom.as_fd()) {
        // a mount of the tree is a mount namespace, and older than the new one
        Err(e) if e.errno() == errno::ELOOP => {
            clone::setns(back.as_fd(), clone::NEWNS).context("come back to the host's mounts")?;
            Ok(false)
        }
        attached => attached.map(|()| true).context("attach the root"),
    }
}

fn named(rootfs: &Rootfs) -> String {
    format!("root.path: '{}'", rootfs.path.display())
}

fn open(rootfs: &Rootfs, flags: i32) -> Result<OwnedFd> {
    fs::open(&rootfs.path, flags | fs::O_DIRECTORY, 0).map_err(|e| {
        let text = crate::sys::errno_text(e.errno());
        let remedy = match e.errno() {
            errno::ENOENT => "; unpack or mount the root file system there before `create`",
            errno::ENOTDIR => "; it must be a directory",
            errno::EACCES => "; init needs search permission on every directory above it",
            _ => "",
        };
        anyhow!("{}: {text}{remedy}", named(rootfs))
    })
}

/// Sets the propagation of `/`. Where mounts still propagate to the host after that, the mount below root.path is made private:
/// nothing mounted on it may get out, and pivot_root(2) refuses a shared one.
fn isolate(rootfs: &Rootfs) -> Result<()> {
    let (propagation, recursive) = match rootfs.outer {
        // what is unbindable could not be bound into the container either; the inner propagation makes its root so
        (Propagation::Unbindable, recursive) => (Propagation::Private, recursive),
        outer => outer,
    };
    let host = fs::open("/", fs::O_PATH | fs::O_DIRECTORY, 0)?;
    set_propagation(host.as_fd(), propagation, recursive)?;
    if is_cut_off(rootfs) {
        return Ok(());
    }
    let mut dir = open(rootfs, fs::O_PATH)?;
    // only the root of a mount can be changed: EINVAL below it
    while let Err(e) = mount::set_propagation(dir.as_fd(), Propagation::Private as u64, false) {
        if e.errno() != errno::EINVAL || same(dir.as_fd(), host.as_fd())? {
            return Err(e).with_context(|| format!("{}: make its mount private", named(rootfs)));
        }
        dir = fs::openat(dir.as_fd(), c"..", fs::O_PATH | fs::O_DIRECTORY, 0)?;
    }
    Ok(())
}

fn same(a: BorrowedFd, b: BorrowedFd) -> Result<bool> {
    let (a, b) = (fs::fstat(a)?, fs::fstat(b)?);
    Ok((a.dev, a.ino) == (b.dev, b.ino))
}

/// No mount of this namespace propagates to the host.
fn is_cut_off(rootfs: &Rootfs) -> bool {
    let (propagation, recursive) = rootfs.outer;
    recursive && propagation != Propagation::Shared
}

fn set_propagation(fd: BorrowedFd, propagation: Propagation, recursive: bool) -> Result<()> {
    mount::set_propagation(fd, propagation as u64, recursive).context("set the propagation of '/'")
}

/// Makes the root `/` and leaves the host's mounts behind.
pub fn enter(root: &Root, rootfs: &Rootfs, enter: Enter) -> Result<()> {
    match enter {
        Enter::Pivot => pivot(root, rootfs),
        Enter::Move => move_root(root, rootfs),
        // below the tree is nothing
        Enter::Attach | Enter::Chroot => chroot(root),
    }
}

fn pivot(root: &Root, rootfs: &Rootfs) -> Result<()> {
    let host = if is_cut_off(rootfs) {
        None
    } else {
        Some(fs::open("/", fs::O_PATH | fs::O_DIRECTORY, 0)?)
    };
    fs::fchdir(root.fd.as_fd())?;
    mount::pivot_root(c".", c".").with_context(|| {
        format!(
            "{}; a root file system on the initramfs needs --no-pivot",
            named(rootfs)
        )
    })?;
    if let Some(host) = host {
        // the unmounting below must not reach the host
        set_propagation(host.as_fd(), Propagation::Slave, true)?;
    }
    // the old root now lies on top of the new one, and `.` leads to the topmost (pivot_root(2), "pivot_root(".", ".")")
    mount::detach(c".").context("leave the host's root")?;
    fs::chdir(c"/")?;
    Ok(())
}

fn chroot(root: &Root) -> Result<()> {
    fs::fchdir(root.fd.as_fd())?;
    mount::chroot(c".")?;
    fs::chdir(c"/")?;
    Ok(())
}

/// The host's mounts stay in the namespace below the root moved over them. Any procfs or sysfs that is whole among them would
/// let a user namespace in the container mount a new one without the masks, so they go.
fn move_root(root: &Root, rootfs: &Rootfs) -> Result<()> {
    let info = fs::read_at(fs::CWD, "/proc/self/mountinfo")?;
    for at in whole_kernel_mounts(&String::from_utf8_lossy(&info), &rootfs.path) {
        hide(Path::new(&at)).with_context(|| format!("hide the host's '{at}'"))?;
    }
    let host = fs::open("/", fs::O_PATH | fs::O_DIRECTORY, 0)?;
    mount::attach(root.fd.as_fd(), host.as_fd())
        .with_context(|| format!("move '{}' to '/'", rootfs.path.display()))?;
    chroot(root)
}

fn hide(at: &Path) -> Result<()> {
    let fd = match fs::open(at, fs::O_PATH | fs::O_DIRECTORY, 0) {
        // it was below another that is gone already
        Err(e) if e.errno() == errno::ENOENT => return Ok(()),
        other => other?,
    };
    match mount::set_propagation(fd.as_fd(), Propagation::Slave as u64, true) {
        Err(e) if e.errno() == errno::EINVAL => return Ok(()),
        other => other?,
    }
    match mount::detach(at) {
        // locked by a user namespace: cover it
        Err(e) if matches!(e.errno(), errno::EPERM | errno::EINVAL) => {
            let tmpfs = mount::FsContext::open(c"tmpfs")?;
            tmpfs.create()?;
            mount::attach(tmpfs.mount(attr::RDONLY)?.as_fd(), fd.as_fd())?;
        }
        other => other?,
    }
    Ok(())
}

/// Mount points of each proc and sysfs whose root is visible, outside of `rootfs`, from the text of mountinfo (proc(5)).
fn whole_kernel_mounts(mountinfo: &str, rootfs: &Path) -> Vec<String> {
    let mut out = Vec::new();
    for line in mountinfo.lines() {
        let Some((mount, fs)) = line.split_once(" - ") else {
            continue;
        };
        let fields: Vec<&str> = mount.split(' ').collect();
        let (Some(&"/"), Some(at)) = (fields.get(3), fields.get(4)) else {
            continue;
        };
        let at = unescape(at);
        let is_kernels = fs.starts_with("proc ") || fs.starts_with("sysfs ");
        if is_kernels && !Path::new(&at).starts_with(rootfs) {
            out.push(at);
        }
    }
    out
}

/// mountinfo writes space, tab, newline and backslash as three octal digits.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\012", "\n")
        .replace("\\134", "\\")
}

/// The last changes of the root mount, once everything that has to be made in it is there.
pub fn finish(root: &Root, rootfs: &Rootfs) -> Result<()> {
    if rootfs.enter == Enter::Chroot {
        return Ok(());
    }
    if let Some((propagation, recursive)) = rootfs.inner {
        set_propagation(root.fd.as_fd(), propagation, recursive)?;
    }
    let a = &rootfs.attributes;
    let atime = if a.set & attr::ATIME != 0 {
        attr::ATIME
    } else {
        0
    };
    let readonly = if rootfs.readonly { attr::RDONLY } else { 0 };
    let attr = MountAttr {
        set: a.set | readonly,
        clear: (a.clear & !a.set & !readonly) | atime,
        ..Default::default()
    };
    if attr != MountAttr::default() {
        mount::setattr(root.fd.as_fd(), &attr, false).context("set the attributes of '/'")?;
    }
    let attr = MountAttr {
        set: a.rec_set,
        clear: a.rec_clear & !a.rec_set,
        ..Default::default()
    };
    if attr != MountAttr::default() {
        mount::setattr(root.fd.as_fd(), &attr, true).context("set the attributes of '/'")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_kernel_mounts_outside_of_the_root_are_found() {
        let info = "22 1 0:21 / /proc rw,nosuid - proc proc rw\n\
            23 1 0:22 / /sys rw - sysfs sysfs rw\n\
            24 22 0:21 /sys /proc/sys ro - proc proc rw\n\
            25 1 0:30 / /my\\040proc rw shared:1 - proc none rw\n\
            26 1 0:31 / /bundle/rootfs/proc rw - proc proc rw\n\
            27 1 8:1 / / rw - ext4 /dev/sda1 rw\n";
        assert_eq!(
            whole_kernel_mounts(info, Path::new("/bundle/rootfs")),
            ["/proc", "/sys", "/my proc"]
        );
    }
}
