//! What a cgroup uses and has used, read once; and its OOM kills, as they come.
//!
//! A file that this kernel has not, or whose controller is not enabled, is None or empty here: there is nothing to be told.

use super::{CgroupDir, gone, value_of};
use crate::sys::{errno, fs};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The lines of a flat keyed file: cpu.stat, memory.stat, memory.events.
pub type Keyed = BTreeMap<String, u64>;

/// "max" of a limit.
pub const UNLIMITED: u64 = u64::MAX;

/// See cgroups(7) and the kernel's cgroup-v2.rst for the files.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stats {
    /// cpu.stat; times in µs.
    pub cpu: Keyed,
    pub cpu_pressure: Option<Pressure>,
    /// cpuset.cpus.effective and cpuset.mems.effective.
    pub cpus: Vec<u64>,
    pub mems: Vec<u64>,
    pub memory: Option<Memory>,
    pub pids: Pids,
    pub io: Vec<Io>,
    pub io_pressure: Option<Pressure>,
    /// By page size, "2MB".
    pub hugetlb: BTreeMap<String, HugePages>,
}

/// In bytes, but for the events.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    pub current: u64,
    pub max: u64,
    /// Linux 5.19.
    pub peak: Option<u64>,
    /// None on a kernel that does not count swap.
    pub swap_current: Option<u64>,
    pub swap_max: u64,
    /// memory.stat.
    pub stat: Keyed,
    /// memory.events.
    pub events: Keyed,
    pub pressure: Option<Pressure>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pids {
    pub current: u64,
    pub max: Option<u64>,
}

/// A line of io.stat: bytes and numbers of requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Io {
    pub major: u64,
    pub minor: u64,
    /// "rbytes", "wios" …
    pub values: Keyed,
}

/// In bytes; reserved pages where the kernel counts those.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HugePages {
    pub current: u64,
    /// How often the limit was met.
    pub failures: u64,
}

/// Pressure stall information: which share of the time some or all tasks had to wait (the kernel's psi.rst).
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct Pressure {
    pub some: Stall,
    pub full: Stall,
}

/// Averages over 10, 60 and 300 s in percent, and the sum in µs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct Stall {
    pub avg10: f64,
    pub avg60: f64,
    pub avg300: f64,
    pub total: u64,
}

impl Stats {
    pub fn read(dir: &CgroupDir) -> Result<Stats> {
        Ok(Stats {
            cpu: keyed(dir, "cpu.stat")?,
            cpu_pressure: Pressure::read(dir, "cpu.pressure")?,
            cpus: numbers(&text(dir, "cpuset.cpus.effective")?.unwrap_or_default()),
            mems: numbers(&text(dir, "cpuset.mems.effective")?.unwrap_or_default()),
            memory: Memory::read(dir)?,
            pids: Pids::read(dir)?,
            io: io(dir)?,
            io_pressure: Pressure::read(dir, "io.pressure")?,
            hugetlb: huge_pages(dir)?,
        })
    }
}

impl Memory {
    fn read(dir: &CgroupDir) -> Result<Option<Memory>> {
        let Some(current) = number(dir, "memory.current")? else {
            return Ok(None);
        };
        Ok(Some(Memory {
            current,
            max: number(dir, "memory.max")?.unwrap_or(UNLIMITED),
            peak: number(dir, "memory.peak")?,
            swap_current: number(dir, "memory.swap.current")?,
            swap_max: number(dir, "memory.swap.max")?.unwrap_or(UNLIMITED),
            stat: keyed(dir, "memory.stat")?,
            events: keyed(dir, "memory.events")?,
            pressure: Pressure::read(dir, "memory.pressure")?,
        }))
    }
}

impl Pids {
    /// Without the controller the processes are counted, not their threads.
    fn read(dir: &CgroupDir) -> Result<Pids> {
        Ok(match number(dir, "pids.current")? {
            Some(current) => Pids {
                current,
                max: number(dir, "pids.max")?.filter(|n| *n != UNLIMITED),
            },
            None => Pids {
                current: dir.procs()?.len() as u64,
                max: None,
            },
        })
    }
}

impl Pressure {
    /// None on a kernel without it, or where it is switched off (psi=0).
    pub fn read(dir: &CgroupDir, file: &str) -> Result<Option<Pressure>> {
        match dir.read(file) {
            Ok(text) => Ok(Some(Pressure::parse(&text))),
            Err(e) if gone(&e) || e.errno() == errno::EOPNOTSUPP => Ok(None),
            Err(e) => Err(e).with_context(|| context(dir)),
        }
    }

    fn parse(text: &str) -> Pressure {
        let line = |name| {
            let mut stall = Stall::default();
            let line = text.lines().find_map(|l| l.strip_prefix(name));
            for (key, value) in line.iter().flat_map(|l| l.split(' ')).filter_map(pair) {
                let share = || value.parse().unwrap_or_default();
                match key {
                    "avg10" => stall.avg10 = share(),
                    "avg60" => stall.avg60 = share(),
                    "avg300" => stall.avg300 = share(),
                    "total" => stall.total = value.parse().unwrap_or_default(),
                    _ => {}
                }
            }
            stall
        };
        Pressure {
            some: line("some "),
            full: line("full "),
        }
    }
}

fn pair(word: &str) -> Option<(&str, &str)> {
    word.split_once('=')
}

fn context(dir: &CgroupDir) -> String {
    format!("read cgroup '{}'", dir.path().display())
}

/// None for a file that is not there.
pub(super) fn text(dir: &CgroupDir, file: &str) -> Result<Option<String>> {
    match dir.read(file) {
        Ok(text) => Ok(Some(text.trim().to_string())),
        Err(e) if gone(&e) => Ok(None),
        Err(e) => Err(e).with_context(|| context(dir)),
    }
}

pub(super) fn number(dir: &CgroupDir, file: &str) -> Result<Option<u64>> {
    Ok(text(dir, file)?.and_then(|t| match t.as_str() {
        "max" => Some(UNLIMITED),
        n => n.parse().ok(),
    }))
}

pub(super) fn keyed(dir: &CgroupDir, file: &str) -> Result<Keyed> {
    Ok(text(dir, file)?.map(parse).unwrap_or_default())
}

pub(super) fn parse(text: String) -> Keyed {
    let line = |l: &str| {
        let (key, value) = l.split_once(' ')?;
        Some((key.to_string(), value.parse().ok()?))
    };
    text.lines().filter_map(line).collect()
}

/// "0-3,5".
fn numbers(list: &str) -> Vec<u64> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse::<u64>().ok()?..=last.parse().ok()?)
    };
    list.split(',').filter_map(range).flatten().collect()
}

/// "8:0 rbytes=1 wbytes=2 …".
fn io(dir: &CgroupDir) -> Result<Vec<Io>> {
    let text = text(dir, "io.stat")?.unwrap_or_default();
    let line = |l: &str| {
        let (device, values) = l.split_once(' ')?;
        let (major, minor) = device.split_once(':')?;
        let value = |word| {
            let (key, value) = pair(word)?;
            Some((key.to_string(), value.parse().ok()?))
        };
        Some(Io {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
            values: values.split(' ').filter_map(value).collect(),
        })
    };
    Ok(text.lines().filter_map(line).collect())
}

fn huge_pages(dir: &CgroupDir) -> Result<BTreeMap<String, HugePages>> {
    let mut all = BTreeMap::new();
    for name in fs::list(dir.fd()).with_context(|| context(dir))? {
        let name = name.to_string_lossy();
        let size = name
            .strip_prefix("hugetlb.")
            .and_then(|n| n.strip_suffix(".current"))
            .and_then(|n| n.strip_suffix(".rsvd").or(Some(n)));
        let Some(size) = size.filter(|s| !all.contains_key(*s)) else {
            continue;
        };
        let reserved = number(dir, &format!("hugetlb.{size}.rsvd.current"))?;
        let pages = HugePages {
            current: match reserved {
                Some(n) => n,
                None => number(dir, &format!("hugetlb.{size}.current"))?.unwrap_or(0),
            },
            failures: keyed(dir, &format!("hugetlb.{size}.events"))?
                .remove("max")
                .unwrap_or(0),
        };
        all.insert(size.to_string(), pages);
    }
    Ok(all)
}

/// The OOM kills of a cgroup and those below it, from when it was made on.
pub struct OomKills {
    file: Option<OwnedFd>,
    seen: u64,
}

impl OomKills {
    /// Without the memory controller there never is one.
    pub fn watch(dir: &CgroupDir) -> Result<OomKills> {
        let file = match fs::openat(dir.fd(), "memory.events", fs::O_RDONLY, 0) {
            Ok(file) => Some(file),
            Err(e) if gone(&e) => None,
            Err(e) => return Err(e).with_context(|| context(dir)),
        };
        let mut kills = OomKills { file, seen: 0 };
        kills.more();
        Ok(kills)
    }

    /// poll(2) it for POLLPRI, which [`OomKills::more`] takes away.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.file.as_ref().map(AsFd::as_fd)
    }

    /// How many there have been since it was last asked. None any more once the cgroup is gone.
    pub fn more(&mut self) -> u64 {
        let mut buf = [0; 256];
        let read = self
            .file
            .as_ref()
            .and_then(|f| fs::pread(f.as_fd(), &mut buf).ok());
        let text = String::from_utf8_lossy(&buf[..read.unwrap_or(0)]);
        let now = value_of(&text, "oom_kill").unwrap_or(self.seen);
        let more = now.saturating_sub(self.seen);
        self.seen = now;
        more
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{fake, file};
    use super::*;

    #[test]
    fn everything_is_read() {
        let (_t, dir) = fake(&[
            ("cpu.stat", "usage_usec 5\nuser_usec 3\nsystem_usec 2\n"),
            (
                "cpu.pressure",
                "some avg10=1.50 avg60=0.20 avg300=0.00 total=99\nfull avg10=0.00 avg60=0.00 avg300=0.01 total=7\n",
            ),
            ("cpuset.cpus.effective", "0-1,3\n"),
            ("memory.current", "4096\n"),
            ("memory.max", "max\n"),
            ("memory.stat", "anon 1\nfile 2\n"),
            ("memory.swap.current", "7\n"),
            ("memory.swap.max", "8\n"),
            ("pids.current", "2\n"),
            ("pids.max", "max\n"),
            (
                "io.stat",
                "8:0 rbytes=1 wbytes=2 cost.vrate=1.5\n8:16 rios=1\n",
            ),
            ("hugetlb.2MB.current", "9\n"),
            ("hugetlb.2MB.rsvd.current", "10\n"),
            ("hugetlb.2MB.events", "max 4\n"),
            ("hugetlb.1GB.current", "11\n"),
        ]);
        let s = Stats::read(&dir).unwrap();
        assert_eq!((s.cpu["usage_usec"], s.cpu.len()), (5, 3));
        let psi = s.cpu_pressure.unwrap();
        assert_eq!(
            (psi.some.avg10, psi.some.avg60, psi.full.total),
            (1.5, 0.2, 7)
        );
        let memory = s.memory.unwrap();
        assert_eq!(
            (memory.current, memory.max, memory.peak, memory.swap_max),
            (4096, UNLIMITED, None, 8)
        );
        assert_eq!(memory.stat["file"], 2);
        assert_eq!(
            s.pids,
            Pids {
                current: 2,
                max: None
            }
        );
        assert_eq!((s.io.len(), s.io[0].major), (2, 8));
        assert_eq!(
            s.io[0].values,
            Keyed::from([("rbytes".into(), 1), ("wbytes".into(), 2)])
        );
        assert_eq!(
            (s.hugetlb["2MB"].current, s.hugetlb["2MB"].failures),
            (10, 4)
        );
        assert_eq!(s.hugetlb["1GB"].current, 11);
        assert_eq!((s.cpus, s.mems), (vec![0, 1, 3], vec![]));
    }

    #[test]
    fn nothing_need_be_there() {
        let (_t, dir) = fake(&[("cgroup.procs", "1\n2\n")]);
        let s = Stats::read(&dir).unwrap();
        assert_eq!((s.memory, s.io_pressure, s.pids.current), (None, None, 2));
    }

    #[test]
    fn kills_are_counted_from_now_on() {
        let (t, dir) = fake(&[("memory.events", "oom 9\noom_kill 3\n")]);
        let mut kills = OomKills::watch(&dir).unwrap();
        assert_eq!(kills.more(), 0);
        file(t.path(), "a/b/memory.events", "oom 9\noom_kill 5\n");
        assert_eq!((kills.more(), kills.more()), (2, 0));
        let (_t, bare) = fake(&[]);
        let mut none = OomKills::watch(&bare).unwrap();
        assert!(none.fd().is_none() && none.more() == 0);
    }
}
