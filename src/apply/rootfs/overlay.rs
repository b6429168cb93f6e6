//! An overlay that husk builds itself as the root file system.
//!
//! It is mounted in the container's own mount namespace, and so is the tmpfs of an upper layer, below the overlay: the host
//! sees neither, the container sees the overlay alone, and both are gone with it.

use crate::plan::Plan;
use crate::plan::namespaces::Kind;
use crate::plan::rootfs::{Overlay, Upper};
use crate::sys::mount::{FsContext, NODEV, NOSUID};
use crate::sys::{self, errno, fs, mount};
use anyhow::{Context, Result, anyhow};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

/// Mounts the overlay on root.path, which `target` is, and gives its root.
pub fn mount(overlay: &Overlay, target: OwnedFd, plan: &Plan) -> Result<OwnedFd> {
    // all layers are opened before anything is mounted on root.path, which may be above one of them
    let lower = overlay
        .lower
        .iter()
        .map(|path| open(path))
        .collect::<Result<Vec<_>>>()?;
    let (upper, target) = match &overlay.upper {
        Upper::None => (None, target),
        Upper::Dirs { upper, work } => (Some((open(upper)?, open(work)?)), target),
        Upper::Tmpfs { size } => {
            let tmpfs = tmpfs(size.as_deref()).context("make the overlay's tmpfs")?;
            // overlayfs takes a layer on a detached mount from Linux 6.15 on only
            mount::attach(tmpfs.as_fd(), target.as_fd())?;
            let make = |name: &CStr, mode| {
                fs::mkdirat(tmpfs.as_fd(), name, mode)?;
                fs::openat(tmpfs.as_fd(), name, fs::O_RDONLY | fs::O_DIRECTORY, 0)
            };
            (Some((make(c"upper", 0o755)?, make(c"work", 0o700)?)), tmpfs)
        }
    };
    let layers = Layers {
        lower,
        upper,
        overlay,
        in_user_namespace: !plan.namespaces.is_host(Kind::User),
    };
    layers
        .mount(target, &plan.rootfs.path)
        .with_context(|| format!("mount an overlay on '{}'", plan.rootfs.path.display()))
}

fn open(path: &Path) -> Result<OwnedFd> {
    fs::open(path, fs::O_RDONLY | fs::O_DIRECTORY, 0).map_err(|e| {
        anyhow!(
            "open overlay layer '{}': {}; it must be a directory that is there before `create`",
            path.display(),
            sys::errno_text(e.errno())
        )
    })
}

fn tmpfs(size: Option<&CStr>) -> sys::Result<OwnedFd> {
    let context = FsContext::open(c"tmpfs")?;
    context.set_string(c"source", c"overlay")?;
    context.set_string(c"mode", c"700")?;
    if let Some(size) = size {
        context.set_string(c"size", size)?;
    }
    context.create()?;
    context.mount(NOSUID | NODEV)
}

/// How layers are given to the kernel, newest first.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Linux 6.13.
    Descriptors,
    /// Linux 6.7: one option a layer.
    Names,
    /// All lower layers in one option.
    Joined,
}

struct Layers<'a> {
    lower: Vec<OwnedFd>,
    /// Upper and work directory.
    upper: Option<(OwnedFd, OwnedFd)>,
    overlay: &'a Overlay,
    in_user_namespace: bool,
}

impl Layers<'_> {
    fn mount(&self, target: OwnedFd, path: &Path) -> Result<OwnedFd> {
        let first = match self.create(Way::Descriptors) {
            Err(e) if e.errno() == errno::EINVAL => e,
            other => return attach(other.map_err(|e| self.explain(e))?, target),
        };
        if let Ok(fd) = self.create(Way::Names) {
            return attach(fd, target);
        }
        let joined = if self.joined_lower().to_bytes().len() < mount::OPTION_MAX {
            self.create(Way::Joined).and_then(|fd| {
                mount::attach(fd.as_fd(), target.as_fd())?;
                Ok(fd)
            })
        } else {
            self.mount_at_once(path)
        };
        // a kernel that knows none of these ways has nothing to say about the first; one that does said it then
        joined.map_err(|_| self.explain(first))
    }

    fn create(&self, way: Way) -> sys::Result<OwnedFd> {
        let context = FsContext::open(c"overlay")?;
        context.set_string(c"source", c"overlay")?;
        if way == Way::Joined {
            context.set_string(c"lowerdir", &self.joined_lower())?;
        } else {
            for fd in &self.lower {
                set_layer(&context, way, c"lowerdir+", fd)?;
            }
        }
        if let Some((upper, work)) = &self.upper {
            set_layer(&context, way, c"upperdir", upper)?;
            set_layer(&context, way, c"workdir", work)?;
        }
        for (key, value) in self.options() {
            match value {
                Some(value) => context.set_string(key, value)?,
                None => context.set_flag(key)?,
            }
        }
        context.create()?;
        context.mount(0)
    }

    /// The options of the config, and in a user namespace `userxattr` (Linux 5.11): its root may not keep overlayfs's marks in the
    /// trusted attributes.
    fn options(&self) -> impl Iterator<Item = (&CStr, Option<&CStr>)> {
        let given = &self.overlay.options;
        let add = self.in_user_namespace && given.iter().all(|(k, _)| k.as_c_str() != c"userxattr");
        given
            .iter()
            .map(|(k, v)| (k.as_c_str(), v.as_deref()))
            .chain(add.then_some((c"userxattr", None)))
    }

    fn joined_lower(&self) -> CString {
        let names: Vec<String> = self
            .lower
            .iter()
            .map(|fd| name(fd).to_string_lossy().into_owned())
            .collect();
        CString::new(names.join(":")).expect("names of descriptors hold no NUL")
    }

    /// mount(2), which takes a page of options where fsconfig(2) takes 255 bytes for one.
    fn mount_at_once(&self, path: &Path) -> sys::Result<OwnedFd> {
        let mut data = [b"lowerdir=", self.joined_lower().to_bytes()].concat();
        let mut add = |key: &CStr, value: Option<&CStr>| {
            data.push(b',');
            data.extend(key.to_bytes());
            if let Some(value) = value {
                data.push(b'=');
                // a label of SELinux may have commas
                let quote: &[u8] = match key.to_bytes().ends_with(b"context") {
                    true => b"\"",
                    false => b"",
                };
                data.extend([quote, value.to_bytes(), quote].concat());
            }
        };
        if let Some((upper, work)) = &self.upper {
            add(c"upperdir", Some(&name(upper)));
            add(c"workdir", Some(&name(work)));
        }
        for (key, value) in self.options() {
            add(key, value);
        }
        let data = CString::new(data).expect("joined from C strings");
        mount::mount(c"overlay", path, c"overlay", 0, &data)?;
        fs::open(path, fs::O_PATH | fs::O_DIRECTORY, 0)
    }

    fn explain(&self, e: sys::Error) -> anyhow::Error {
        let remedy = match e.errno() {
            errno::ENODEV => "; the kernel has no overlayfs: load the module `overlay`",
            errno::EINVAL if self.in_user_namespace => {
                "; in a user namespace no layer may have another mount below it"
            }
            errno::EPERM if self.in_user_namespace => {
                "; overlayfs in a user namespace needs Linux 5.11 or later"
            }
            _ => return e.into(),
        };
        anyhow!("{e}{remedy}")
    }
}

fn attach(fd: OwnedFd, target: OwnedFd) -> Result<OwnedFd> {
    mount::attach(fd.as_fd(), target.as_fd())?;
    Ok(fd)
}

fn set_layer(context: &FsContext, way: Way, key: &CStr, layer: &OwnedFd) -> sys::Result<()> {
    match way {
        Way::Descriptors => context.set_fd(key, layer.as_fd()),
        Way::Names | Way::Joined => context.set_string(key, &name(layer)),
    }
}

/// A name for a layer that is short, needs no escaping, and is not covered by what is mounted on root.path.
fn name(fd: &OwnedFd) -> CString {
    CString::new(format!("/proc/self/fd/{}", fd.as_raw_fd())).expect("digits hold no NUL")
}
