//! landlock(7): rules that a process lays upon itself for good.
//!
//! Three calls; the `landlock` crate would open the paths by itself, by name.

use super::fs::own;
use super::{Result, check};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::null;

// the same numbers on every architecture; the libc crate has them for glibc alone
const SYS_LANDLOCK_CREATE_RULESET: libc::c_long = 444;
const SYS_LANDLOCK_ADD_RULE: libc::c_long = 445;
const SYS_LANDLOCK_RESTRICT_SELF: libc::c_long = 446;
const CREATE_RULESET_VERSION: u32 = 1;
const RULE_PATH_BENEATH: u32 = 1;
const RULE_NET_PORT: u32 = 2;

/// struct landlock_ruleset_attr
#[repr(C)]
pub struct Ruleset {
    pub fs: u64,
    pub net: u64,
    pub scoped: u64,
}

/// struct landlock_path_beneath_attr
#[repr(C, packed)]
struct PathBeneath {
    access: u64,
    parent: i32,
}

/// struct landlock_net_port_attr
#[repr(C)]
struct NetPort {
    access: u64,
    port: u64,
}

/// The version of Landlock that the kernel has; 0 if it has none, or was booted without it.
pub fn version() -> usize {
    // SAFETY: with this flag the kernel reads no attributes.
    let ret = unsafe {
        libc::syscall(
            SYS_LANDLOCK_CREATE_RULESET,
            null::<Ruleset>(),
            0usize,
            CREATE_RULESET_VERSION,
        )
    };
    usize::try_from(ret).unwrap_or(0)
}

/// Fields of zero at the end are as good as missing for a kernel that does not know them.
pub fn create(ruleset: &Ruleset) -> Result<OwnedFd> {
    // SAFETY: the kernel reads as many bytes as the structure has.
    let ret = unsafe {
        libc::syscall(
            SYS_LANDLOCK_CREATE_RULESET,
            ruleset,
            size_of::<Ruleset>(),
            0u32,
        )
    };
    check(ret, || "landlock_create_ruleset".into()).map(own)
}

pub fn allow_beneath(ruleset: BorrowedFd, parent: BorrowedFd, access: u64) -> Result<()> {
    let rule = PathBeneath {
        access,
        parent: parent.as_raw_fd(),
    };
    add(ruleset, RULE_PATH_BENEATH, &rule)
}

pub fn allow_port(ruleset: BorrowedFd, port: u16, access: u64) -> Result<()> {
    let port = u64::from(port);
    add(ruleset, RULE_NET_PORT, &NetPort { access, port })
}

fn add<T>(ruleset: BorrowedFd, kind: u32, rule: &T) -> Result<()> {
    // SAFETY: `kind` tells the kernel the type of the rule, which it copies; both callers above pair them.
    let ret = unsafe {
        libc::syscall(
            SYS_LANDLOCK_ADD_RULE,
            ruleset.as_raw_fd(),
            kind,
            std::ptr::from_ref(rule),
            0u32,
        )
    };
    check(ret, || "landlock_add_rule".into()).map(drop)
}

/// Takes CAP_SYS_ADMIN or no_new_privs.
pub fn restrict_self(ruleset: BorrowedFd) -> Result<()> {
    // SAFETY: no pointers.
    let ret = unsafe { libc::syscall(SYS_LANDLOCK_RESTRICT_SELF, ruleset.as_raw_fd(), 0u32) };
    check(ret, || "landlock_restrict_self".into()).map(drop)
}
