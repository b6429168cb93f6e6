//! How the processes of a cgroup came to their end: what is left to be read once they are gone, until the cgroup is.

use super::CgroupDir;
use super::stats::{Keyed, Pressure, UNLIMITED, keyed, number};
use anyhow::Result;
use serde::Serialize;
use std::path::PathBuf;

/// Sizes in bytes, times in µs. What this kernel does not tell is left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
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

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Usage {
    /// None: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak: Option<u64>,
    /// memory.events or pids.events, with those of the cgroups below.
    pub events: Keyed,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Pressures {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Pressure>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Pressure>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub io: Option<Pressure>,
}

/// Whose memory had run out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
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
}

impl Death {
    pub fn read(dir: &CgroupDir) -> Result<Death> {
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

    /// One line for a person, when it was for want of memory.
    pub fn cause(&self) -> Option<String> {
        let peak = self
            .memory
            .peak
            .map_or(String::new(), |p| format!(", peak {}", Size(p)));
        Some(match self.oom.as_ref()? {
            Oom::Container { max } => format!(
                "killed by its memory limit: {}{peak}; raise linux.resources.memory.limit",
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

/// The kernel counts a kill where the process was, and an OOM where the limit was met.
fn oom(dir: &CgroupDir, memory: &Usage) -> Result<Option<Oom>> {
    let count = |events: &Keyed, key: &str| events.get(key).copied().unwrap_or(0);
    if count(&memory.events, "oom_kill") == 0 {
        return Ok(None);
    }
    let local = keyed(dir, "memory.events.local")?;
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
        let (t, dir) = fake(&[("memory.max", "67108864\n"), ("memory.peak", "67104768\n")]);
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
    fn the_record() {
        let (_t, dir) = fake(&[
            ("cpu.stat", "usage_usec 5\n"),
            ("pids.max", "20\n"),
            ("pids.events", "max 3\n"),
        ]);
        let record = serde_json::to_value(Death::read(&dir).unwrap()).unwrap();
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
