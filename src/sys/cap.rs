//! Capability sets as masks. The `caps` crate knows their names; setting all of them through it would be two system calls
//! and a hash set for each of the five sets, on the path of every start and exec.

use super::{Result, check};
use std::ffi::{c_int, c_ulong};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sets {
    pub effective: u64,
    pub permitted: u64,
    pub inheritable: u64,
}

#[repr(C)]
struct Header {
    version: u32,
    pid: c_int,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

const VERSION_3: u32 = 0x2008_0522;

/// capget(2) of this process.
pub fn get() -> Result<Sets> {
    let mut header = Header {
        version: VERSION_3,
        pid: 0,
    };
    let mut data = [Data::default(); 2];
    check(
        // SAFETY: version 3 reads the header and fills two data structs.
        unsafe { libc::syscall(libc::SYS_capget, &mut header, data.as_mut_ptr()) },
        || "capget".into(),
    )?;
    let join = |f: fn(&Data) -> u32| u64::from(f(&data[0])) | u64::from(f(&data[1])) << 32;
    Ok(Sets {
        effective: join(|d| d.effective),
        permitted: join(|d| d.permitted),
        inheritable: join(|d| d.inheritable),
    })
}

/// capset(2) of this process.
pub fn set(sets: &Sets) -> Result<()> {
    let header = Header {
        version: VERSION_3,
        pid: 0,
    };
    let part = |shift: u32| Data {
        effective: (sets.effective >> shift) as u32,
        permitted: (sets.permitted >> shift) as u32,
        inheritable: (sets.inheritable >> shift) as u32,
    };
    let data = [part(0), part(32)];
    check(
        // SAFETY: version 3 reads the header and two data structs.
        unsafe { libc::syscall(libc::SYS_capset, &header, data.as_ptr()) },
        || format!("capset {sets:x?}"),
    )
    .map(drop)
}

/// The highest capability that the kernel knows.
pub fn last() -> u32 {
    // SAFETY: no pointers; an unknown capability is EINVAL.
    let known = |c: u32| unsafe { libc::prctl(libc::PR_CAPBSET_READ, c as c_ulong, 0, 0, 0) >= 0 };
    // CAP_CHECKPOINT_RESTORE, the last one since Linux 5.9
    let mut last = 40;
    while known(last + 1) {
        last += 1;
    }
    last
}

/// Drops one capability from the bounding set.
pub fn drop_bounding(capability: u32) -> Result<()> {
    // SAFETY: no pointers.
    let ret = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability as c_ulong, 0, 0, 0) };
    check(ret.into(), || format!("prctl PR_CAPBSET_DROP {capability}")).map(drop)
}

/// Clears the ambient set and raises those of the mask.
pub fn set_ambient(mask: u64) -> Result<()> {
    let call = |op: c_int, capability: u32| {
        // SAFETY: no pointers.
        let ret = unsafe {
            libc::prctl(
                libc::PR_CAP_AMBIENT,
                op as c_ulong,
                capability as c_ulong,
                0,
                0,
            )
        };
        check(ret.into(), || {
            format!("prctl PR_CAP_AMBIENT {op} {capability}")
        })
    };
    call(libc::PR_CAP_AMBIENT_CLEAR_ALL, 0)?;
    for c in (0..64).filter(|c| mask & (1 << c) != 0) {
        call(libc::PR_CAP_AMBIENT_RAISE, c)?;
    }
    Ok(())
}
