//! How the processes of a cgroup came to their end: what is left to be read once they are gone, until the cgroup is.

use super::CgroupDir;
use super::stats::{Keyed, Pressure, UNLIMITED, keyed, number, parse, text};
use crate::sys::process::{self, End};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Sizes in bytes, times in µs. What this kernel does not tell is left out.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Death {
    /// Which limit the kernel killed a process for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom: Option<Oom>,
    pub memory: Usage,
    pub pids: Usage,
    /// cpu.stat.
    pub cpu: Keyed,
    pub pressure: Pressures,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct Usage {
    /// None: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak: Option<u64>,
    /// memory.events or pids.events, with those of the cgroups below.
    pub events: Keyed,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct Pressures {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Pressure>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Pressure>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub io: Option<Pressure>,
}

/// Whose memory had run out.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", tag = "limitOf")]
pub enum Oom {
    Container {
        max: u64,
    },
    /// A cgroup that the container made itself.
    Below,
    Ancestor {
        cgroup: PathBuf,
        max: u64,
    },
    Host,
    /// The container's most likely: systemd was quicker to remove the cgroup than husk to look at it, and a process was killed in its
    /// slice.
    Unseen {
        max: u64,
    },
}

impl Death {
    /// The cgroup may go meanwhile: what explains a death is read first.
    pub fn read(dir: &CgroupDir) -> Result<Death> {
        // every cgroup has it
        dir.read("cgroup.events").context("read the death record")?;
        let limit = |n: Option<u64>| n.filter(|n| *n != UNLIMITED);
        let memory = Usage {
            max: limit(number(dir, "memory.max")?),
            peak: number(dir, "memory.peak")?,
            events: keyed(dir, "memory.events")?,
        };
        Ok(Death {
            oom: oom(dir, &memory)?,
            memory,
            pids: Usage {
                max: limit(number(dir, "pids.max")?),
                peak: number(dir, "pids.peak")?,
                events: keyed(dir, "pids.events")?,
            },
            cpu: keyed(dir, "cpu.stat")?,
            pressure: Pressures {
                cpu: Pressure::read(dir, "cpu.pressure")?,
                memory: Pressure::read(dir, "memory.pressure")?,
                io: Pressure::read(dir, "io.pressure")?,
            },
        })
    }

    /// When it was for want of memory.
    fn cause(&self) -> Option<String> {
        let peak = self
            .memory
            .peak
            .map_or(String::new(), |p| format!(", peak {}", Size(p)));
        Some(match self.oom.as_ref()? {
            Oom::Container { max } => format!(
                "killed by its memory limit: {}{peak}; raise linux.resources.memory.limit",
                Size(*max)
            ),
            Oom::Unseen { max } => format!(
                "killed, most likely by its memory limit: {}; systemd has removed its cgroup and with it what tells for sure, see journalctl -k; raise linux.resources.memory.limit",
                Size(*max)
            ),
            Oom::Below => {
                "killed by the memory limit of a cgroup that it made itself; raise its memory.max"
                    .into()
            }
            Oom::Ancestor { cgroup, max } => format!(
                "killed by the memory limit of '{}': {}{peak}; raise its memory.max, or limit what else is in it",
                cgroup.display(),
                Size(*max)
            ),
            Oom::Host => format!(
                "killed because the host had no memory left{peak}; limit what takes it by linux.resources.memory.limit"
            ),
        })
    }
}

/// A cgroup that systemd removes as soon as its last process has ended.
pub struct Fleeting {
    dir: CgroupDir,
    /// memory.max at the beginning.
    max: Option<u64>,
    /// The slice, and how many OOM kills there had been in it at the beginning.
    slice: Option<(CgroupDir, u64)>,
    seen: Option<Death>,
}

impl Fleeting {
    /// To be called as early as can be. None: it is gone.
    pub fn follow(dir: &CgroupDir) -> Option<Fleeting> {
        let open = |path: &Path| CgroupDir::open(dir.mountpoint(), path).ok().flatten();
        let mut own = open(dir.path())?;
        own.hold(&[
            "cgroup.events",
            "memory.max",
            "memory.peak",
            "memory.events",
            "memory.events.local",
            "pids.max",
            "pids.peak",
            "pids.events",
            "cpu.stat",
            "cpu.pressure",
            "memory.pressure",
            "io.pressure",
        ]);
        let slice = dir.path().parent().and_then(open);
        Some(Fleeting {
            max: number(&own, "memory.max").ok().flatten(),
            slice: slice.and_then(|s| kills(&s).map(|n| (s, n))),
            dir: own,
            seen: None,
        })
    }

    /// To be called as soon as a process has ended that may have been the last one.
    pub fn look(&mut self) {
        if let Ok(death) = Death::read(&self.dir) {
            self.seen = Some(death);
        }
    }

    /// What has been seen, and what follows from the slice if too little was.
    pub fn record(self, end: End) -> Option<Death> {
        let more = |(slice, before): (CgroupDir, u64)| kills(&slice).is_some_and(|n| n > before);
        let mut seen = self.seen;
        if end.is_by_kill()
            && seen.as_ref().is_none_or(|d| d.oom.is_none())
            && let Some(max) = self.max.filter(|max| *max != UNLIMITED)
            && dir_is_gone(&self.dir)
            && self.slice.is_some_and(more)
        {
            seen.get_or_insert_default().oom = Some(Oom::Unseen { max });
        }
        seen
    }
}

fn dir_is_gone(dir: &CgroupDir) -> bool {
    dir.read("cgroup.events").is_err()
}

/// None: the slice has no memory controller.
fn kills(dir: &CgroupDir) -> Option<u64> {
    keyed(dir, "memory.events").ok()?.get("oom_kill").copied()
}

/// Which limit killed a process that ended so, or another whose end it has passed on as its own exit code; one line for a person. What
/// nobody has seen the end of may have been killed, if a process of its cgroup was.
pub fn cause(end: Option<End>, death: Option<&Death>) -> Option<String> {
    match end {
        Some(end) if end.is_by_kill() => death?.cause(),
        Some(End::Killed(signal)) => process::limit_signal(signal).map(String::from),
        Some(End::Exited(_)) => None,
        None => death?.cause(),
    }
}

/// The kernel counts a kill where the process was, and an OOM where the limit was met.
fn oom(dir: &CgroupDir, memory: &Usage) -> Result<Option<Oom>> {
    let count = |events: &Keyed, key: &str| events.get(key).copied().unwrap_or(0);
    if count(&memory.events, "oom_kill") == 0 {
        return Ok(None);
    }
    let local = text(dir, "memory.events.local")?.map_or_else(|| memory.events.clone(), parse);
    if let Some(max) = memory.max
        && count(&local, "oom") > 0
    {
        return Ok(Some(Oom::Container { max }));
    }
    if count(&memory.events, "oom") > 0 {
        return Ok(Some(Oom::Below));
    }
    for path in dir.path().ancestors().skip(1) {
        let Some(above) = CgroupDir::open(dir.mountpoint(), path)? else {
            continue;
        };
        let met = count(&keyed(&above, "memory.events.local")?, "oom") > 0;
        match number(&above, "memory.max")? {
            Some(max) if met && max != UNLIMITED => {
                let cgroup = above.host_path();
                return Ok(Some(Oom::Ancestor { cgroup, max }));
            }
            _ => {}
        }
    }
    Ok(Some(Oom::Host))
}

/// "64 MiB", "1.5 GiB".
struct Size(u64);

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
        let Some((unit, shift)) = units.into_iter().find(|(_, s)| self.0 >> s > 0) else {
            return write!(f, "{} bytes", self.0);
        };
        match format!("{:.1}", self.0 as f64 / (1u64 << shift) as f64) {
            n if n.ends_with(".0") => write!(f, "{} {unit}", &n[..n.len() - 2]),
            n => write!(f, "{n} {unit}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{fake, file};
    use super::*;
    use crate::sys::process::SIGKILL;

    const NONE: &str = "oom 0\noom_kill 0\n";

    #[test]
    fn sizes() {
        for (n, text) in [
            (5, "5 bytes"),
            (1024, "1 KiB"),
            (64 << 20, "64 MiB"),
            ((64 << 20) - 4096, "64 MiB"),
            (3 << 29, "1.5 GiB"),
        ] {
            assert_eq!(Size(n).to_string(), text);
        }
    }

    #[test]
    fn whose_limit_it_was() {
        let (t, dir) = fake(&[
            ("cgroup.events", ""),
            ("memory.max", "67108864\n"),
            ("memory.peak", "67104768\n"),
        ]);
        file(t.path(), "a/memory.max", "1073741824\n");
        let cause = |all: &str, own: &str, above: &str| {
            file(t.path(), "a/b/memory.events", all);
            file(t.path(), "a/b/memory.events.local", own);
            file(t.path(), "a/memory.events.local", above);
            Death::read(&dir).unwrap().cause()
        };
        assert_eq!(cause(NONE, NONE, "oom 9\noom_kill 9\n"), None);
        let hit = "oom 1\noom_kill 1\n";
        assert_eq!(
            cause(hit, hit, NONE).unwrap(),
            "killed by its memory limit: 64 MiB, peak 64 MiB; raise linux.resources.memory.limit"
        );
        assert_eq!(
            cause(hit, NONE, hit).unwrap(),
            "killed by the memory limit of a cgroup that it made itself; raise its memory.max"
        );
        let killed = "oom 0\noom_kill 1\n";
        assert_eq!(
            cause(killed, killed, hit).unwrap(),
            format!(
                "killed by the memory limit of '{}/a': 1 GiB, peak 64 MiB; raise its memory.max, or limit what else is in it",
                t.path().display()
            )
        );
        assert_eq!(
            cause(killed, killed, NONE).unwrap(),
            "killed because the host had no memory left, peak 64 MiB; limit what takes it by linux.resources.memory.limit"
        );
    }

    #[test]
    fn of_what_is_gone_there_is_none() {
        let (_t, dir) = fake(&[]);
        let e = format!("{:#}", Death::read(&dir).unwrap_err());
        assert!(e.starts_with("read the death record: "), "{e}");
    }

    #[test]
    fn what_systemd_has_removed() {
        let killed = End::Killed(SIGKILL);
        let hit = "oom 1\noom_kill 1\n";
        let begin = || {
            let (t, dir) = fake(&[
                ("cgroup.events", ""),
                ("memory.max", "4096\n"),
                ("memory.events", NONE),
                ("memory.events.local", NONE),
            ]);
            file(t.path(), "a/memory.events", "oom 5\noom_kill 5\n");
            let followed = Fleeting::follow(&dir).unwrap();
            (t, followed)
        };
        // what is seen is what the files hold then
        let (t, mut seen) = begin();
        file(t.path(), "a/b/memory.events", hit);
        file(t.path(), "a/b/memory.events.local", hit);
        file(t.path(), "a/b/memory.max", "8192\n");
        seen.look();
        let death = seen.record(killed).unwrap();
        assert_eq!(death.oom, Some(Oom::Container { max: 8192 }));
        let ended = |end: End, all: &str, remove: bool| {
            let (t, mut late) = begin();
            late.look();
            file(t.path(), "a/memory.events", all);
            if remove {
                // a file that is still open can be read; one of a cgroup that is gone cannot
                late.dir.hold(&[]);
                std::fs::remove_dir_all(t.path().join("a/b")).unwrap();
            }
            late.record(end).unwrap().oom
        };
        let more = "oom 6\noom_kill 6\n";
        let guess = ended(killed, more, true);
        assert_eq!(guess, Some(Oom::Unseen { max: 4096 }));
        let text = Death {
            oom: guess,
            ..Death::default()
        };
        assert_eq!(
            text.cause().unwrap(),
            "killed, most likely by its memory limit: 4 KiB; systemd has removed its cgroup and with it what tells for sure, see journalctl -k; raise linux.resources.memory.limit"
        );
        // nobody was killed for memory, not this one, or it is known better
        assert_eq!(ended(killed, "oom 5\noom_kill 5\n", true), None);
        assert_eq!(ended(End::Exited(0), more, true), None);
        assert_eq!(ended(killed, more, false), None);
    }

    #[test]
    fn only_of_what_was_killed() {
        let (_t, dir) = fake(&[
            ("cgroup.events", ""),
            ("memory.events", "oom 1\noom_kill 1\n"),
        ]);
        let death = Death::read(&dir).unwrap();
        let cause = |end| cause(end, Some(&death));
        let memory = cause(None);
        assert!(memory.as_ref().unwrap().starts_with("killed by the memory"));
        for end in [End::Killed(SIGKILL), End::Exited(137)] {
            assert_eq!(cause(Some(end)), memory);
        }
        for end in [End::Exited(0), End::Exited(1), End::Killed(libc::SIGTERM)] {
            assert_eq!(cause(Some(end)), None, "{end:?}");
        }
        let forbidden = cause(Some(End::Killed(libc::SIGSYS))).unwrap();
        assert!(forbidden.contains("linux.seccomp"), "{forbidden}");
    }

    #[test]
    fn the_record() {
        let (_t, dir) = fake(&[
            ("cgroup.events", ""),
            ("cpu.stat", "usage_usec 5\n"),
            ("pids.max", "20\n"),
            ("pids.events", "max 3\n"),
        ]);
        let death = Death::read(&dir).unwrap();
        let record = serde_json::to_value(&death).unwrap();
        assert_eq!(
            serde_json::from_value::<Death>(record.clone()).unwrap(),
            death,
            "as it is kept"
        );
        assert_eq!(
            record,
            serde_json::json!({
                "memory": {"events": {}},
                "pids": {"max": 20, "events": {"max": 3}},
                "cpu": {"usage_usec": 5},
                "pressure": {},
            })
        );
    }
}
