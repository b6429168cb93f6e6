//! bpf(2): programs that decide about devices, attached to cgroups.

use super::fs::own;
use super::{Result, check};
use std::ffi::c_long;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// struct bpf_insn: one instruction.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Insn {
    pub code: u8,
    /// The destination register in the low four bits, the source in the high ones.
    pub regs: u8,
    pub off: i16,
    pub imm: i32,
}

const PROG_LOAD: u32 = 5;
const PROG_ATTACH: u32 = 8;
const PROG_DETACH: u32 = 9;
const PROG_GET_FD_BY_ID: u32 = 13;
const PROG_QUERY: u32 = 16;

const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_TYPE_CGROUP_DEVICE: u32 = 6;
const F_ALLOW_MULTI: u32 = 2;
const F_REPLACE: u32 = 4; // Linux 5.6

/// union bpf_attr, zeroed and larger than any kernel's (152 bytes in Linux 6.18): what a kernel does not know must be zero, and some kernels
/// write the result of a query beyond the size that the caller gave.
#[repr(C, align(8))]
pub(super) struct Attr(pub(super) [u8; 256]);

impl Attr {
    pub(super) fn new() -> Self {
        Attr([0; 256])
    }

    fn u32(mut self, at: usize, value: u32) -> Self {
        self.0[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        self
    }

    fn u64(mut self, at: usize, value: u64) -> Self {
        self.0[at..at + 8].copy_from_slice(&value.to_ne_bytes());
        self
    }

    fn fd(self, at: usize, fd: BorrowedFd) -> Self {
        self.u32(at, fd.as_raw_fd() as u32)
    }
}

/// The caller answers for every pointer in `attr` until the call returns.
unsafe fn bpf(command: u32, attr: &mut Attr, what: &str) -> Result<c_long> {
    // SAFETY: the attributes are as large as the size given and writable; the pointers in them are the caller's promise.
    check(
        unsafe { libc::syscall(libc::SYS_bpf, command, attr.0.as_mut_ptr(), attr.0.len()) },
        || format!("bpf {what}"),
    )
}

/// Loads a program that decides about devices.
pub fn load_device_program(program: &[Insn]) -> Result<OwnedFd> {
    // "Apache" would do as well: such a program calls none of the kernel's functions, so any licence is let in
    let license = c"Apache-2.0";
    let mut attr = Attr::new()
        .u32(0, PROG_TYPE_CGROUP_DEVICE)
        .u32(4, program.len() as u32)
        .u64(8, program.as_ptr() as u64)
        .u64(16, license.as_ptr() as u64);
    attr.0[48..48 + 12].copy_from_slice(b"husk_devices"); // prog_name, for bpftool
    // SAFETY: the program is as long as the count given, the licence a C string; both outlive the call.
    unsafe { bpf(PROG_LOAD, &mut attr, "load device program") }.map(own)
}

/// Attaches a device program beside others, or in the place of `old`, with no moment between the two.
pub fn attach_device_program(
    cgroup: BorrowedFd,
    program: BorrowedFd,
    old: Option<BorrowedFd>,
) -> Result<()> {
    let mut attr = Attr::new()
        .fd(0, cgroup)
        .fd(4, program)
        .u32(8, ATTACH_TYPE_CGROUP_DEVICE)
        .u32(12, F_ALLOW_MULTI);
    if let Some(old) = old {
        attr = attr.u32(12, F_ALLOW_MULTI | F_REPLACE).fd(16, old);
    }
    // SAFETY: no pointers.
    unsafe { bpf(PROG_ATTACH, &mut attr, "attach device program") }.map(drop)
}

pub fn detach_device_program(cgroup: BorrowedFd, program: BorrowedFd) -> Result<()> {
    let mut attr = Attr::new()
        .fd(0, cgroup)
        .fd(4, program)
        .u32(8, ATTACH_TYPE_CGROUP_DEVICE);
    // SAFETY: no pointers.
    unsafe { bpf(PROG_DETACH, &mut attr, "detach device program") }.map(drop)
}

/// The ids of the device programs that are attached to the cgroup itself; the kernel allows 64.
pub fn device_programs(cgroup: BorrowedFd) -> Result<Vec<u32>> {
    let mut ids = vec![0u32; 64];
    let mut attr = Attr::new()
        .fd(0, cgroup)
        .u32(4, ATTACH_TYPE_CGROUP_DEVICE)
        .u64(16, ids.as_mut_ptr() as u64)
        .u32(24, ids.len() as u32);
    // SAFETY: the list of ids is as long as the count given and outlives the call.
    unsafe { bpf(PROG_QUERY, &mut attr, "query device programs") }?;
    let count = u32::from_ne_bytes([attr.0[24], attr.0[25], attr.0[26], attr.0[27]]);
    ids.truncate(count as usize);
    Ok(ids)
}

pub fn program_by_id(id: u32) -> Result<OwnedFd> {
    let mut attr = Attr::new().u32(0, id);
    // SAFETY: no pointers.
    unsafe { bpf(PROG_GET_FD_BY_ID, &mut attr, "get program by id") }.map(own)
}
