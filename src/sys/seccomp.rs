//! seccomp(2): programs that decide about system calls.

use super::fs::own;
use super::{Result, check};
use std::os::fd::OwnedFd;
use std::ptr::null;

/// struct sock_filter: one instruction of classic BPF.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Insn {
    pub code: u16,
    pub jt: u8,
    pub jf: u8,
    pub k: u32,
}

/// struct sock_fprog
#[repr(C)]
struct Program {
    len: u16,
    insns: *const Insn,
}

const SET_MODE_FILTER: u32 = 1;
const FLAG_NEW_LISTENER: u32 = 1 << 3;
const FLAG_WAIT_KILLABLE_RECV: u32 = 1 << 5;

/// Puts this process under a filter for good; the listener's descriptor, if the flags ask for one.
pub fn load(program: &[Insn], flags: u32) -> Result<Option<OwnedFd>> {
    let program = Program {
        len: program.len() as u16,
        insns: program.as_ptr(),
    };
    // SAFETY: the kernel copies the program, which is as long as its length says: plans hold no longer one than the kernel takes, 4096.
    let ret = check(
        unsafe { libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, flags, &program) },
        || {
            format!(
                "seccomp SECCOMP_SET_MODE_FILTER flags={flags:#x}, {} instructions",
                program.len
            )
        },
    )?;
    Ok((flags & FLAG_NEW_LISTENER != 0).then(|| own(ret)))
}

/// Whether the kernel knows a flag: it looks at the flags before it reads the program.
pub fn knows(flag: u32) -> bool {
    let flags = match flag {
        FLAG_WAIT_KILLABLE_RECV => flag | FLAG_NEW_LISTENER, // not taken without
        _ => flag,
    };
    // SAFETY: without a program the call fails with EFAULT at the latest.
    let ret =
        unsafe { libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, flags, null::<Program>()) };
    ret < 0 && super::last_errno() == libc::EFAULT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_known_or_not() {
        const FLAG_LOG: u32 = 1 << 1; // Linux 4.14
        assert!(knows(FLAG_LOG));
        assert!(!knows(1 << 30));
    }
}
