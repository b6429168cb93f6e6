//! The architectures whose system calls a kernel takes, and the numbers that these have on each.

use super::numbers::{CALLS, NONE};
use oci_spec::runtime::Arch as Named;

/// An architecture that husk knows the system calls of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arch {
    X86_64,
    X86,
    X32,
    Aarch64,
    Arm,
    Riscv64,
    Loongarch64,
    Ppc64le,
    S390x,
}

/// Set in the numbers of x32, whose calls come as x86_64 (<asm/unistd.h>).
pub const X32_BIT: u32 = 0x4000_0000;

/// From here on arm has calls of its own, outside of the kernel's common counting (`__ARM_NR_BASE`).
pub const ARM_PRIVATE: u32 = 0x000f_0000;

impl Arch {
    /// That of this program, which is the kernel's own: None where husk has no table for it.
    pub const NATIVE: Option<Arch> = if cfg!(target_arch = "x86_64") {
        Some(Arch::X86_64)
    } else if cfg!(target_arch = "aarch64") {
        Some(Arch::Aarch64)
    } else if cfg!(target_arch = "riscv64") {
        Some(Arch::Riscv64)
    } else if cfg!(target_arch = "loongarch64") {
        Some(Arch::Loongarch64)
    } else if cfg!(all(target_arch = "powerpc64", target_endian = "little")) {
        Some(Arch::Ppc64le)
    } else if cfg!(target_arch = "s390x") {
        Some(Arch::S390x)
    } else {
        None
    };

    /// The others whose calls a kernel of this architecture takes.
    pub fn compatible(self) -> &'static [Arch] {
        match self {
            Arch::X86_64 => &[Arch::X86, Arch::X32],
            Arch::Aarch64 => &[Arch::Arm],
            _ => &[],
        }
    }

    /// The spec's name.
    pub fn named(self) -> Named {
        match self {
            Arch::X86_64 => Named::ScmpArchX86_64,
            Arch::X86 => Named::ScmpArchX86,
            Arch::X32 => Named::ScmpArchX32,
            Arch::Aarch64 => Named::ScmpArchAarch64,
            Arch::Arm => Named::ScmpArchArm,
            Arch::Riscv64 => Named::ScmpArchRiscv64,
            Arch::Loongarch64 => Named::ScmpArchLoongarch64,
            Arch::Ppc64le => Named::ScmpArchPpc64le,
            Arch::S390x => Named::ScmpArchS390x,
        }
    }

    /// `AUDIT_ARCH_…` of <linux/audit.h>, as the kernel gives it to a filter: the ELF machine, and bits for 64 bit and little-endian.
    pub fn audit(self) -> u32 {
        match self {
            Arch::X86_64 | Arch::X32 => 0xc000_003e,
            Arch::X86 => 0x4000_0003,
            Arch::Aarch64 => 0xc000_00b7,
            Arch::Arm => 0x4000_0028,
            Arch::Riscv64 => 0xc000_00f3,
            Arch::Loongarch64 => 0xc000_0102,
            Arch::Ppc64le => 0xc000_0015,
            Arch::S390x => 0x8000_0016,
        }
    }

    /// Arguments are 32 bits wide. Those of x32 come in 64-bit registers, but most calls look at the lower half alone, and so does libseccomp.
    pub fn narrow(self) -> bool {
        matches!(self, Arch::X86 | Arch::X32 | Arch::Arm)
    }

    pub fn big_endian(self) -> bool {
        self == Arch::S390x
    }

    /// The number of a system call, given by its [`row`].
    pub fn number(self, row: usize) -> Option<u32> {
        let number = match self {
            Arch::X86_64 => X86_64[row],
            Arch::X86 => X86[row],
            Arch::X32 => X32[row],
            Arch::Aarch64 => AARCH64[row],
            Arch::Arm => ARM[row],
            Arch::Riscv64 => RISCV64[row],
            Arch::Loongarch64 => LOONGARCH64[row],
            Arch::Ppc64le => PPC64LE[row],
            Arch::S390x => S390X[row],
        };
        let bit = if self == Arch::X32 { X32_BIT } else { 0 };
        (number != NONE).then_some(number | bit)
    }

    /// The other way to make this call: through socketcall(2) or ipc(2), with the call's code as the first argument. Architectures that have these
    /// let a program choose.
    pub fn multiplexed(self, name: &str) -> Option<(u32, u64)> {
        if !matches!(self, Arch::X86 | Arch::Ppc64le | Arch::S390x) {
            return None;
        }
        let (through, code) = match name {
            // <linux/net.h>
            "socket" => ("socketcall", 1),
            "bind" => ("socketcall", 2),
            "connect" => ("socketcall", 3),
            "listen" => ("socketcall", 4),
            "accept" => ("socketcall", 5),
            "getsockname" => ("socketcall", 6),
            "getpeername" => ("socketcall", 7),
            "socketpair" => ("socketcall", 8),
            "send" => ("socketcall", 9),
            "recv" => ("socketcall", 10),
            "sendto" => ("socketcall", 11),
            "recvfrom" => ("socketcall", 12),
            "shutdown" => ("socketcall", 13),
            "setsockopt" => ("socketcall", 14),
            "getsockopt" => ("socketcall", 15),
            "sendmsg" => ("socketcall", 16),
            "recvmsg" => ("socketcall", 17),
            "accept4" => ("socketcall", 18),
            "recvmmsg" => ("socketcall", 19),
            "sendmmsg" => ("socketcall", 20),
            // <linux/ipc.h>
            "semop" => ("ipc", 1),
            "semget" => ("ipc", 2),
            "semctl" => ("ipc", 3),
            "semtimedop" => ("ipc", 4),
            "msgsnd" => ("ipc", 11),
            "msgrcv" => ("ipc", 12),
            "msgget" => ("ipc", 13),
            "msgctl" => ("ipc", 14),
            "shmat" => ("ipc", 21),
            "shmdt" => ("ipc", 22),
            "shmget" => ("ipc", 23),
            "shmctl" => ("ipc", 24),
            _ => return None,
        };
        Some((self.number(row(through)?)?, code))
    }
}

/// Where a system call is in the table. None for a name that no architecture has.
pub fn row(name: &str) -> Option<usize> {
    NAMES.binary_search(&name).ok()
}

/// The table, one array a column: a program for one kernel keeps and reads only the columns that this kernel's architectures need.
static NAMES: [&str; CALLS.len()] = {
    let mut names = [""; CALLS.len()];
    let mut i = 0;
    while i < CALLS.len() {
        names[i] = CALLS[i].0;
        i += 1;
    }
    names
};

const fn column(c: usize) -> [u32; CALLS.len()] {
    let mut numbers = [0; CALLS.len()];
    let mut i = 0;
    while i < CALLS.len() {
        numbers[i] = CALLS[i].1[c];
        i += 1;
    }
    numbers
}

static X86_64: [u32; CALLS.len()] = column(0);
static X86: [u32; CALLS.len()] = column(1);
static X32: [u32; CALLS.len()] = column(2);
static AARCH64: [u32; CALLS.len()] = column(3);
static ARM: [u32; CALLS.len()] = column(4);
static RISCV64: [u32; CALLS.len()] = column(5);
static LOONGARCH64: [u32; CALLS.len()] = column(6);
static PPC64LE: [u32; CALLS.len()] = column(7);
static S390X: [u32; CALLS.len()] = column(8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_and_found() {
        assert!(NAMES.is_sorted_by(|a, b| a < b));
        assert!(NAMES.iter().enumerate().all(|(i, n)| row(n) == Some(i)));
        assert_eq!(
            (row(""), row("no_such_call"), row("zzz")),
            (None, None, None)
        );
    }

    #[test]
    fn numbers_are_those_of_the_kernel() {
        let number = |arch: Arch, name| arch.number(row(name).unwrap());
        for (arch, name, expected) in [
            (Arch::X86_64, "read", Some(0)),
            (Arch::X86_64, "execve", Some(59)),
            (Arch::X86, "execve", Some(11)),
            (Arch::X32, "execve", Some(0x4000_0000 + 520)),
            (Arch::Aarch64, "execve", Some(221)),
            (Arch::Arm, "set_tls", Some(0xf0005)),
            (Arch::Riscv64, "riscv_hwprobe", Some(258)),
            (Arch::X86_64, "riscv_hwprobe", None),
            (Arch::Aarch64, "open", None),
        ] {
            assert_eq!(number(arch, name), expected, "{arch:?} {name}");
        }
        assert_eq!(Arch::X86.multiplexed("shmctl"), Some((117, 24)));
        assert_eq!(Arch::X86.multiplexed("read"), None);
        assert_eq!(Arch::X86_64.multiplexed("socket"), None);
    }
}
