//! Facts about the host, read once and passed down; plans are made from them and never look for themselves.

use crate::sys::errno::ENOENT;
use crate::sys::{self, fs};
use anyhow::{Context, Result};
use oci_spec::runtime::{Process, Spec};
use procfs::FromRead;
use procfs::process::MountInfos;
use std::path::{Path, PathBuf};

/// Where the cgroup2 hierarchy is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupMount {
    /// "/sys/fs/cgroup", on a hybrid host "/sys/fs/cgroup/unified", or wherever mountinfo has it.
    pub mountpoint: PathBuf,
    /// husk's own cgroup ("user.slice/session-1.scope"), for a relative cgroupsPath; None when it was not needed.
    pub own: Option<PathBuf>,
}

/// The file system that shares out caches and memory bandwidth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resctrl {
    /// Where it is mounted.
    pub root: PathBuf,
    /// It has L3 caches and memory bandwidth to share out.
    pub l3: bool,
    pub mb: bool,
    /// What the class of service that the container is to be in has now; None if there is no such class.
    pub schemata: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    pub euid: u32,
    pub egid: u32,
    /// husk itself runs in a user namespace other than the initial one.
    pub in_user_namespace: bool,
    /// None where nobody looked, too.
    pub cgroup: Option<CgroupMount>,
    /// The kernel heeds AppArmor profiles; false where none is asked for.
    pub apparmor: bool,
    /// It heeds SELinux labels; likewise.
    pub selinux: bool,
    /// None where nothing of it is asked for, too.
    pub resctrl: Option<Resctrl>,
    /// Linux 7.0 can make a mount namespace without copying the caller's, and has mounts made in a tree that is nowhere attached yet.
    /// False where nobody looked.
    pub bare_namespaces: bool,
}

impl Host {
    /// Reads what a plan for this config, and this process in its container, needs, and no more.
    pub fn probe(spec: &Spec, process: Option<&Process>) -> Result<Host> {
        let given = |text: Option<&String>| text.is_some_and(|t| !t.is_empty());
        let mount_label = spec.linux().as_ref().and_then(|l| l.mount_label().as_ref());
        let label = process.and_then(|p| p.selinux_label().as_ref());
        let profile = process.and_then(|p| p.apparmor_profile().as_ref());
        let euid = sys::process::euid();
        Ok(Host {
            euid,
            egid: sys::process::egid(),
            in_user_namespace: euid == 0 && in_user_namespace()?,
            cgroup: None,
            apparmor: given(profile) && has_apparmor(),
            selinux: (given(label) || given(mount_label)) && has_selinux(),
            resctrl: None,
            bare_namespaces: false,
        })
    }

    /// Looks for cgroup2, which only those who make a cgroup want to know; `by_path`: by a path that may be relative to husk's own.
    pub fn find_cgroup(&mut self, spec: &Spec, by_path: bool) -> Result<()> {
        self.cgroup = cgroup(spec, by_path)?;
        Ok(())
    }

    /// Looks at resctrl, and what it has of a class of service.
    pub fn find_resctrl(&mut self, class: &str) -> Result<()> {
        self.resctrl = resctrl_mount()?.map(|root| resctrl(root, class));
        Ok(())
    }

    /// Asks for the kernel's version, which only those who make a mount namespace want to know.
    pub fn find_kernel(&mut self) {
        self.bare_namespaces = sys::process::kernel_version() >= (7, 0);
    }

    /// Not root, or root of a user namespace only.
    pub fn rootless(&self) -> bool {
        self.euid != 0 || self.in_user_namespace
    }
}

/// A kernel without user namespaces has no uid_map.
fn in_user_namespace() -> Result<bool> {
    if let Some(initial) = sys::process::in_initial_user_namespace() {
        return Ok(!initial);
    }
    match fs::read_at(fs::CWD, "/proc/self/uid_map") {
        Ok(map) => Ok(!is_initial_map(&String::from_utf8_lossy(&map))),
        Err(e) if e.errno() == ENOENT => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// The initial user namespace maps every id to itself.
fn is_initial_map(map: &str) -> bool {
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

fn has_apparmor() -> bool {
    let enabled = fs::read_at(fs::CWD, "/sys/module/apparmor/parameters/enabled");
    enabled.is_ok_and(|text| text.starts_with(b"Y"))
}

/// Built in or not, SELinux is at work where its file system is.
fn has_selinux() -> bool {
    fs::fs_magic("/sys/fs/selinux").is_ok_and(|magic| magic == fs::SELINUX_MAGIC)
}

fn cgroup(spec: &Spec, by_path: bool) -> Result<Option<CgroupMount>> {
    let Some(mountpoint) = cgroup_mount()? else {
        return Ok(None);
    };
    let linux = spec.linux().as_ref();
    let path = linux.and_then(|l| l.cgroups_path().as_ref());
    let own = match path {
        Some(path) if path.is_absolute() => None,
        _ if !by_path => None,
        _ => own_cgroup(&read("/proc/self/cgroup")?),
    };
    Ok(Some(CgroupMount { mountpoint, own }))
}

/// The usual place first; only the administrator mounts it, there or elsewhere.
fn resctrl_mount() -> Result<Option<PathBuf>> {
    const USUAL: &str = "/sys/fs/resctrl";
    if fs::fs_magic(USUAL).is_ok_and(|magic| magic == fs::RESCTRL_MAGIC) {
        return Ok(Some(USUAL.into()));
    }
    find_mount(&read("/proc/self/mountinfo")?, "resctrl")
}

fn resctrl(root: PathBuf, class: &str) -> Resctrl {
    let schemata = fs::read_at(fs::CWD, &root.join(class).join("schemata")).ok();
    Resctrl {
        l3: fs::stat(&root.join("info/L3")).is_ok(),
        mb: fs::stat(&root.join("info/MB")).is_ok(),
        schemata: schemata.map(|text| String::from_utf8_lossy(&text).into_owned()),
        root,
    }
}

/// Where cgroup2 is mounted. The two usual places first: mountinfo is long on a host with many containers.
pub fn cgroup_mount() -> Result<Option<PathBuf>> {
    for usual in ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"] {
        if fs::fs_magic(usual).is_ok_and(|magic| magic == fs::CGROUP2_MAGIC) {
            return Ok(Some(usual.into()));
        }
    }
    find_mount(&read("/proc/self/mountinfo")?, "cgroup2")
}

fn read(path: &str) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("read '{path}'"))
}

/// The first mount of a whole file system of this type; one of a part of it (a container's bind mount) will not do.
fn find_mount(mountinfo: &str, fstype: &str) -> Result<Option<PathBuf>> {
    let mounts =
        MountInfos::from_read(mountinfo.as_bytes()).context("parse '/proc/self/mountinfo'")?;
    let found = mounts
        .into_iter()
        .find(|m| m.fs_type == fstype && m.root == "/");
    Ok(found.map(|m| unescape(&m.mount_point)))
}

/// mountinfo writes white space and backslashes as octal numbers, and procfs leaves them so.
fn unescape(path: &Path) -> PathBuf {
    let text = path.to_string_lossy();
    let escapes = [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ];
    let plain = escapes
        .iter()
        .fold(text.into_owned(), |text, (escape, plain)| {
            text.replace(escape, plain)
        });
    plain.into()
}

/// The path in the line of cgroup2, "0::/path" (cgroups(7)). None for one that is outside of the cgroup namespace ("/../…").
fn own_cgroup(cgroups: &str) -> Option<PathBuf> {
    let path = cgroups.lines().find_map(|l| l.strip_prefix("0::/"))?;
    let path = path.strip_suffix(" (deleted)").unwrap_or(path);
    let inside = !Path::new(path).components().any(|c| c.as_os_str() == "..");
    inside.then(|| path.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_initial_map_is_told_from_others() {
        assert!(is_initial_map("         0          0 4294967295\n"));
        for other in [
            "         0       1000          1\n",
            "0 0 4294967294\n",
            "0 0 1000\n1000 1000 4294966295\n",
            "",
        ] {
            assert!(!is_initial_map(other), "{other:?}");
        }
    }

    #[test]
    fn the_own_cgroup_is_the_line_of_cgroup2() {
        let hybrid = "12:pids:/user.slice\n1:name=systemd:/init.scope\n0::/user.slice/a:b.scope\n";
        assert_eq!(own_cgroup(hybrid), Some("user.slice/a:b.scope".into()));
        assert_eq!(own_cgroup("0::/\n"), Some("".into()));
        assert_eq!(own_cgroup("0::/gone (deleted)\n"), Some("gone".into()));
        assert_eq!(own_cgroup("0::/../other\n"), None);
        assert_eq!(own_cgroup("4:memory:/\n"), None);
    }

    #[test]
    fn resctrl_tells_what_it_has_and_what_a_class_has() {
        let dir = tempfile::tempdir().unwrap();
        for directory in ["info/L3", "gold"] {
            std::fs::create_dir_all(dir.path().join(directory)).unwrap();
        }
        std::fs::write(dir.path().join("schemata"), "L3:0=f\n").unwrap();
        std::fs::write(dir.path().join("gold/schemata"), "L3:0=1\n").unwrap();
        let of = |class: &str| resctrl(dir.path().into(), class);
        assert_eq!((of("").l3, of("").mb), (true, false));
        assert_eq!(of("").schemata.as_deref(), Some("L3:0=f\n"));
        assert_eq!(of("gold").schemata.as_deref(), Some("L3:0=1\n"));
        assert_eq!(of("none").schemata, None);
    }

    #[test]
    fn a_mount_of_the_whole_hierarchy_is_found() {
        let mountinfo = "\
30 23 0:26 / /sys/fs/cgroup ro,nosuid shared:9 - tmpfs tmpfs ro,mode=755\n\
31 30 0:27 /part /mnt/part rw - cgroup2 cgroup2 rw\n\
32 30 0:27 / /sys/fs/my\\040cgroup rw,nosuid shared:10 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(
            find_mount(mountinfo, "cgroup2").unwrap(),
            Some("/sys/fs/my cgroup".into())
        );
        assert_eq!(find_mount(mountinfo, "resctrl").unwrap(), None);
        assert_eq!(find_mount("", "cgroup2").unwrap(), None);
    }
}
