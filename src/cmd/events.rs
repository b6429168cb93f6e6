//! `husk events`: what a container uses, once or every few seconds, and its OOM kills. Records are runc's, one to a line.

use super::print;
use crate::apply::intel_rdt;
use crate::cgroup::stats::{HugePages, Io, Memory, OomKills, Pressure, Stats, UNLIMITED};
use crate::state::{Root, StateDir, Status};
use crate::sys::process::{POLLIN, POLLPRI, poll};
use crate::{cli, log};
use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::os::fd::AsFd;
use std::time::Instant;

pub fn run(global: &cli::Global, args: cli::Events) -> Result<i32> {
    let id = &args.id;
    let dir = StateDir::open(&Root::new(global)?, id)?;
    let (state, status, init) = dir.load_with_init()?;
    let (Some(init), true) = (init, status != Status::Creating) else {
        bail!("events '{id}': container with id {id} is not running: it is {status}");
    };
    let Some(cgroup) = state.open_cgroup()? else {
        let unknown =
            "it has no cgroup, which alone knows what it uses; give it one by cgroupsPath";
        if args.stats {
            // a user's container may have none, and a script that looks at all of them is to go on; runc gives zeros
            record("stats", id, Some(json!({})))?;
            log::warn(format_args!("events '{id}': {unknown}"));
            return Ok(0);
        }
        bail!("events '{id}': {unknown}");
    };
    let stats = || -> Result<()> {
        let stats = Stats::read(&cgroup).with_context(|| format!("events '{id}'"))?;
        let mut data = data(&stats);
        if let Some(rdt) = &state.intel_rdt {
            data["intel_rdt"] = intel_rdt::statistics(&rdt.class, rdt.monitor.as_deref());
        }
        record("stats", id, Some(data))
    };
    if args.stats {
        stats()?;
        return Ok(0);
    }
    let mut kills = OomKills::watch(&cgroup).with_context(|| format!("events '{id}'"))?;
    let mut next = Instant::now() + args.interval;
    loop {
        let mut set = vec![(init.as_fd(), POLLIN)];
        set.extend(kills.fd().map(|fd| (fd, POLLPRI)));
        let limit = next.saturating_duration_since(Instant::now());
        let ended = poll(&set, Some(limit)).context("wait for events")?[0] != 0;
        // also of a container that one of them has ended
        for _ in 0..kills.more() {
            record("oom", id, None)?;
        }
        if ended {
            return Ok(0);
        }
        if next <= Instant::now() {
            next += args.interval;
            stats()?;
        }
    }
}

/// Readers look for a line's beginning: `{"type":"oom","id":"…"}`.
#[derive(Serialize)]
struct Record<'a> {
    r#type: &'a str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Value>,
}

fn record(kind: &str, id: &str, data: Option<Value>) -> Result<()> {
    let record = Record {
        r#type: kind,
        id,
        data,
    };
    print(&(serde_json::to_string(&record)? + "\n"))
}

/// runc's shape, which is that of cgroup v1: times in ns, swap with memory in it, fields that v2 does not have as 0.
fn data(s: &Stats) -> Value {
    let cpu = |key: &str| s.cpu.get(key).copied().unwrap_or(0);
    let ns = |key: &str| cpu(key) * 1000;
    let mut all = json!({
        "cpu": {
            "usage": {"total": ns("usage_usec"), "kernel": ns("system_usec"), "user": ns("user_usec")},
            "throttling": {
                "periods": cpu("nr_periods"),
                "throttledPeriods": cpu("nr_throttled"),
                "throttledTime": ns("throttled_usec"),
            },
            "burst": {"periods": cpu("nr_bursts"), "time": ns("burst_usec")},
        },
        "cpuset": {
            "cpu_exclusive": 0,
            "mem_hardwall": 0,
            "mem_exclusive": 0,
            "memory_migrate": 0,
            "memory_spread_page": 0,
            "memory_spread_slab": 0,
            "memory_pressure": 0,
            "sched_load_balance": 0,
            "sched_relax_domain_level": 0,
        },
        "memory": s.memory.as_ref().map_or_else(no_memory, memory),
        // 0 is no limit
        "pids": {"current": s.pids.current, "limit": s.pids.max.unwrap_or(0)},
        "blkio": blkio(&s.io),
        "hugetlb": hugetlb(s),
        "intel_rdt": {},
        "network_interfaces": null,
    });
    set_psi(&mut all["cpu"], s.cpu_pressure);
    set_psi(&mut all["blkio"], s.io_pressure);
    for (field, list) in [("cpus", &s.cpus), ("mems", &s.mems)] {
        if !list.is_empty() {
            all["cpuset"][field] = json!(list);
        }
    }
    all
}

fn set_psi(section: &mut Value, pressure: Option<Pressure>) {
    if let Some(p) = pressure {
        section["psi"] = json!(p);
    }
}

fn entry(usage: u64, limit: u64, max: Option<u64>, failures: u64) -> Value {
    let mut entry = json!({"limit": limit, "usage": usage, "failcnt": failures});
    if let Some(max) = max {
        entry["max"] = max.into();
    }
    entry
}

fn no_memory() -> Value {
    let none = || entry(0, 0, None, 0);
    json!({"usage": none(), "swap": none(), "kernel": none(), "kernelTCP": none()})
}

fn memory(m: &Memory) -> Value {
    let event = |key: &str| m.events.get(key).copied().unwrap_or(0);
    let both = match m.swap_max {
        UNLIMITED => UNLIMITED,
        swap => swap.saturating_add(m.max),
    };
    let swap = match m.swap_current {
        Some(swap) => entry(swap + m.current, both, None, 0),
        None => entry(m.current, m.max, None, 0),
    };
    let mut all = json!({
        "cache": m.stat.get("file").copied().unwrap_or(0),
        "usage": entry(m.current, m.max, m.peak, event("max")),
        "swap": swap,
        "kernel": entry(0, 0, None, 0),
        "kernelTCP": entry(0, 0, None, 0),
        "raw": m.stat, // and no more: who looks for "oom" among the lines is to find it in those of that type only
    });
    set_psi(&mut all, m.pressure);
    all
}

/// In the tables of cgroup v1.
fn blkio(devices: &[Io]) -> Value {
    let mut tables = Map::new();
    for device in devices {
        for (key, table, op) in [
            ("rbytes", "ioServiceBytesRecursive", "Read"),
            ("wbytes", "ioServiceBytesRecursive", "Write"),
            ("dbytes", "ioServiceBytesRecursive", "Discard"),
            ("rios", "ioServicedRecursive", "Read"),
            ("wios", "ioServicedRecursive", "Write"),
            ("dios", "ioServicedRecursive", "Discard"),
        ] {
            let Some(value) = device.values.get(key) else {
                continue;
            };
            let row =
                json!({"major": device.major, "minor": device.minor, "op": op, "value": value});
            let rows = tables.entry(table).or_insert_with(|| json!([]));
            rows.as_array_mut().expect("made above").push(row);
        }
    }
    tables.into()
}

fn hugetlb(s: &Stats) -> Value {
    let pages = |p: &HugePages| json!({"usage": p.current, "failcnt": p.failures});
    let all = s.hugetlb.iter().map(|(size, p)| (size.clone(), pages(p)));
    Value::Object(all.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::stats::{Keyed, Pids};

    #[test]
    fn records_are_runcs() {
        let oom = Record {
            r#type: "oom",
            id: "web",
            data: None,
        };
        assert_eq!(
            serde_json::to_string(&oom).unwrap(),
            r#"{"type":"oom","id":"web"}"#
        );
    }

    #[test]
    fn the_shape_is_that_of_cgroup_v1() {
        let s = Stats {
            cpu: Keyed::from([("usage_usec".into(), 7), ("nr_throttled".into(), 2)]),
            cpus: vec![0, 1, 3],
            io_pressure: Some(Pressure::default()),
            memory: Some(Memory {
                current: 10,
                max: 100,
                peak: Some(20),
                swap_current: Some(5),
                swap_max: 50,
                stat: Keyed::from([("file".into(), 4)]),
                events: Keyed::from([("max".into(), 6)]),
                pressure: None,
            }),
            pids: Pids {
                current: 3,
                max: Some(9),
            },
            io: vec![Io {
                major: 8,
                minor: 1,
                values: Keyed::from([("rbytes".into(), 11), ("wios".into(), 12)]),
            }],
            ..Stats::default()
        };
        let d = data(&s);
        assert_eq!(d["cpu"]["usage"]["total"], 7000);
        assert_eq!(d["cpu"]["throttling"]["throttledPeriods"], 2);
        assert_eq!(d["cpu"].get("psi"), None);
        assert_eq!(d["cpuset"]["cpus"], json!([0, 1, 3]));
        assert_eq!(
            d["memory"]["usage"],
            json!({"limit": 100, "usage": 10, "max": 20, "failcnt": 6})
        );
        assert_eq!(
            d["memory"]["swap"],
            json!({"limit": 150, "usage": 15, "failcnt": 0})
        );
        assert_eq!(
            (&d["memory"]["cache"], &d["pids"]["limit"]),
            (&json!(4), &json!(9))
        );
        assert_eq!(
            d["blkio"]["ioServiceBytesRecursive"],
            json!([{"major": 8, "minor": 1, "op": "Read", "value": 11}])
        );
        assert!(d["blkio"]["psi"]["full"]["avg10"].is_number());
        assert_eq!(
            (&d["hugetlb"], &d["network_interfaces"]),
            (&json!({}), &Value::Null)
        );
    }
}
