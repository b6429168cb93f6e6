//! The kernel's version without a system call.

/// The version of the running kernel as `major << 16 | minor << 8`, and a patch level below; 0 where it cannot be told.
///
/// Each process has the kernel's own little library in its memory (vdso(7)), which carries the version as a note, as ELF programs
/// have: what uname(2) says, at no cost.
pub fn kernel_version() -> u32 {
    // SAFETY: no pointers.
    let start = unsafe { libc::getauxval(libc::AT_SYSINFO_EHDR) } as *const u8;
    if start.is_null() {
        return 0;
    }
    // SAFETY: the kernel has mapped its library there, whole, and nothing unmaps it: headers, and the notes where these say.
    let at = |offset: usize, length: usize| unsafe {
        std::slice::from_raw_parts(start.add(offset), length)
    };
    notes(at).unwrap_or(0)
}

/// Finds the note among the segments; `at` gives a piece of the file.
fn notes<'a>(at: impl Fn(usize, usize) -> &'a [u8]) -> Option<u32> {
    const PT_NOTE: u32 = 4;
    let header = at(0, 64);
    if header.get(..5)? != b"\x7fELF\x02" {
        return None;
    }
    let (table, size, count) = (long(header, 32)?, short(header, 54)?, short(header, 56)?);
    for i in 0..count {
        let segment = at(table + i * size, 56);
        if word(segment, 0)? == PT_NOTE {
            let found = version(at(long(segment, 8)?, long(segment, 32)?));
            if found.is_some() {
                return found;
            }
        }
    }
    None
}

/// Notes are a length of the name, one of the value, a type, name and value, each padded to four bytes (elf(5)).
fn version(mut notes: &[u8]) -> Option<u32> {
    loop {
        let (name, value) = (word(notes, 0)? as usize, word(notes, 4)? as usize);
        let start = 12 + name.next_multiple_of(4);
        if notes.get(12..12 + name)? == b"Linux\0" && word(notes, 8)? == 0 && value == 4 {
            return word(notes, start);
        }
        notes = notes.get(start + value.next_multiple_of(4)..)?;
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn short(bytes: &[u8], at: usize) -> Option<usize> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?).into())
}

fn long(bytes: &[u8], at: usize) -> Option<usize> {
    Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_version_that_uname_tells() {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        let mut numbers = release
            .split(|c: char| !c.is_ascii_digit())
            .map(|n| n.parse::<u32>());
        let (major, minor) = (
            numbers.next().unwrap().unwrap(),
            numbers.next().unwrap().unwrap(),
        );
        assert_eq!(kernel_version() >> 8, major << 8 | minor, "{release}");
    }

    #[test]
    fn foreign_and_broken_notes_are_passed_over() {
        let note = |name: &[u8], kind: u32, value: &[u8]| {
            let mut out = Vec::new();
            for n in [name.len() as u32, value.len() as u32, kind] {
                out.extend(n.to_ne_bytes());
            }
            for part in [name, value] {
                out.extend(part);
                out.resize(out.len().next_multiple_of(4), 0);
            }
            out
        };
        let other = note(b"GNU\0", 3, b"buildid");
        let linux = note(b"Linux\0", 0, &0x70001u32.to_ne_bytes());
        assert_eq!(version(&[&other[..], &linux].concat()), Some(0x70001));
        assert_eq!(version(&other), None);
        assert_eq!(version(&linux[..linux.len() - 1]), None);
        assert_eq!(version(&[0xff; 64]), None);
    }
}
