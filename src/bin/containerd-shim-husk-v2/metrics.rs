//! A cgroup's statistics as containerd's `io.containerd.cgroups.v2.Metrics`. A file that a kernel has not is a field that is 0;
//! "max" is the largest number, as with containerd's own shim.

use containerd_shim_protos::cgroups_v2::metrics::{
    CPUStat, HugeTlbStat, IOEntry, IOStat, MemoryEvents, MemoryStat, Metrics, PSIData, PSIStats,
    PidsStat, RdmaEntry, RdmaStat,
};
use containerd_shim_protos::protobuf::MessageField;
use husk::cgroup::CgroupDir;
use husk::sys::fs;
use std::collections::HashMap;
use std::str::FromStr;

pub const TYPE: &str = "io.containerd.cgroups.v2.Metrics";

pub fn of(cgroup: &CgroupDir) -> Metrics {
    let files = fs::list(cgroup.fd()).unwrap_or_default();
    let pages = files.iter().filter_map(|name| {
        let name = name.to_str()?;
        name.strip_prefix("hugetlb.")?.strip_suffix(".current")
    });
    let mut pages: Vec<String> = pages
        .filter(|size| !size.ends_with(".rsvd"))
        .map(String::from)
        .collect();
    pages.sort();
    collect(&|file| cgroup.read(file).ok(), &pages)
}

type Reader<'a> = &'a dyn Fn(&str) -> Option<String>;

fn collect(read: Reader, huge_pages: &[String]) -> Metrics {
    let mut metrics = Metrics::new();
    if let Some(current) = read("pids.current") {
        let mut pids = PidsStat::new();
        pids.current = number(&current);
        pids.limit = value(read, "pids.max");
        metrics.pids = field(pids);
    }
    metrics.cpu = field(cpu(read));
    metrics.memory = field(memory(read));
    if let Some(text) = read("memory.events") {
        let stat = Table::of(&text);
        let mut events = MemoryEvents::new();
        events.low = stat.get("low");
        events.high = stat.get("high");
        events.max = stat.get("max");
        events.oom = stat.get("oom");
        events.oom_kill = stat.get("oom_kill");
        events.oom_group_kill = stat.get("oom_group_kill");
        metrics.memory_events = field(events);
    }
    let mut io = IOStat::new();
    io.usage = read("io.stat")
        .iter()
        .flat_map(|t| t.lines())
        .filter_map(io_entry)
        .collect();
    io.psi = pressure(read, "io.pressure");
    metrics.io = field(io);
    let rdma = |file| {
        read(file)
            .iter()
            .flat_map(|t| t.lines())
            .filter_map(rdma_entry)
            .collect()
    };
    let mut stat = RdmaStat::new();
    stat.current = rdma("rdma.current");
    stat.limit = rdma("rdma.max");
    metrics.rdma = field(stat);
    for size in huge_pages {
        let mut stat = HugeTlbStat::new();
        stat.current = value(read, &format!("hugetlb.{size}.current"));
        stat.max = value(read, &format!("hugetlb.{size}.max"));
        let events = read(&format!("hugetlb.{size}.events")).unwrap_or_default();
        stat.failcnt = Table::of(&events).get("max");
        stat.pagesize = size.clone();
        metrics.hugetlb.push(stat);
    }
    metrics
}

fn cpu(read: Reader) -> CPUStat {
    let text = read("cpu.stat").unwrap_or_default();
    let stat = Table::of(&text);
    let mut cpu = CPUStat::new();
    cpu.usage_usec = stat.get("usage_usec");
    cpu.user_usec = stat.get("user_usec");
    cpu.system_usec = stat.get("system_usec");
    cpu.nr_periods = stat.get("nr_periods");
    cpu.nr_throttled = stat.get("nr_throttled");
    cpu.throttled_usec = stat.get("throttled_usec");
    cpu.nr_bursts = stat.get("nr_bursts");
    cpu.burst_usec = stat.get("burst_usec");
    cpu.psi = pressure(read, "cpu.pressure");
    cpu
}

fn memory(read: Reader) -> MemoryStat {
    let text = read("memory.stat").unwrap_or_default();
    let stat = Table::of(&text);
    let mut m = MemoryStat::new();
    m.anon = stat.get("anon");
    m.file = stat.get("file");
    m.kernel_stack = stat.get("kernel_stack");
    m.slab = stat.get("slab");
    m.sock = stat.get("sock");
    m.shmem = stat.get("shmem");
    m.file_mapped = stat.get("file_mapped");
    m.file_dirty = stat.get("file_dirty");
    m.file_writeback = stat.get("file_writeback");
    m.anon_thp = stat.get("anon_thp");
    m.inactive_anon = stat.get("inactive_anon");
    m.active_anon = stat.get("active_anon");
    m.inactive_file = stat.get("inactive_file");
    m.active_file = stat.get("active_file");
    m.unevictable = stat.get("unevictable");
    m.slab_reclaimable = stat.get("slab_reclaimable");
    m.slab_unreclaimable = stat.get("slab_unreclaimable");
    m.pgfault = stat.get("pgfault");
    m.pgmajfault = stat.get("pgmajfault");
    // one number each before Linux 5.9
    m.workingset_refault = stat.sum("workingset_refault");
    m.workingset_activate = stat.sum("workingset_activate");
    m.workingset_nodereclaim = stat.get("workingset_nodereclaim");
    m.pgrefill = stat.get("pgrefill");
    m.pgscan = stat.get("pgscan");
    m.pgsteal = stat.get("pgsteal");
    m.pgactivate = stat.get("pgactivate");
    m.pgdeactivate = stat.get("pgdeactivate");
    m.pglazyfree = stat.get("pglazyfree");
    m.pglazyfreed = stat.get("pglazyfreed");
    m.thp_fault_alloc = stat.get("thp_fault_alloc");
    m.thp_collapse_alloc = stat.get("thp_collapse_alloc");
    m.usage = value(read, "memory.current");
    m.usage_limit = value(read, "memory.max");
    m.max_usage = value(read, "memory.peak");
    m.swap_usage = value(read, "memory.swap.current");
    m.swap_limit = value(read, "memory.swap.max");
    m.swap_max_usage = value(read, "memory.swap.peak");
    m.psi = pressure(read, "memory.pressure");
    m
}

fn field<T>(message: T) -> MessageField<T> {
    MessageField::some(message)
}

fn number(text: &str) -> u64 {
    match text.trim() {
        "max" => u64::MAX,
        text => text.parse().unwrap_or(0),
    }
}

fn value(read: Reader, file: &str) -> u64 {
    read(file).map_or(0, |text| number(&text))
}

/// A file of lines "name number".
struct Table<'a>(HashMap<&'a str, u64>);

impl<'a> Table<'a> {
    fn of(text: &'a str) -> Table<'a> {
        let pairs = text.lines().filter_map(|l| l.split_once(' '));
        Table(pairs.map(|(name, n)| (name, number(n))).collect())
    }

    fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    fn sum(&self, name: &str) -> u64 {
        self.get(name) + self.get(&format!("{name}_anon")) + self.get(&format!("{name}_file"))
    }
}

/// The value of `key=` in a line of words.
fn word<T: FromStr>(line: &str, key: &str) -> Option<T> {
    let mut words = line.split_whitespace();
    words
        .find_map(|w| w.strip_prefix(key)?.strip_prefix('='))
        .and_then(|v| v.parse().ok())
}

/// "some avg10=0.00 avg60=0.00 avg300=0.00 total=0" and the same of "full".
fn pressure(read: Reader, file: &str) -> MessageField<PSIStats> {
    let Some(text) = read(file) else {
        return MessageField::none(); // PSI is off
    };
    let of = |kind: &str| {
        let line = text.lines().find_map(|l| l.strip_prefix(kind))?;
        let mut data = PSIData::new();
        data.avg10 = word(line, "avg10")?;
        data.avg60 = word(line, "avg60")?;
        data.avg300 = word(line, "avg300")?;
        data.total = word(line, "total")?;
        Some(data)
    };
    let mut stats = PSIStats::new();
    stats.some = MessageField(of("some").map(Box::new));
    stats.full = MessageField(of("full").map(Box::new));
    field(stats)
}

/// "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0".
fn io_entry(line: &str) -> Option<IOEntry> {
    let (major, minor) = line.split_whitespace().next()?.split_once(':')?;
    let mut entry = IOEntry::new();
    entry.major = major.parse().ok()?;
    entry.minor = minor.parse().ok()?;
    entry.rbytes = word(line, "rbytes").unwrap_or(0);
    entry.wbytes = word(line, "wbytes").unwrap_or(0);
    entry.rios = word(line, "rios").unwrap_or(0);
    entry.wios = word(line, "wios").unwrap_or(0);
    Some(entry)
}

/// "mlx4_0 hca_handle=2 hca_object=max".
fn rdma_entry(line: &str) -> Option<RdmaEntry> {
    let count = |key| match word::<String>(line, key)?.as_str() {
        "max" => Some(u32::MAX),
        n => n.parse().ok(),
    };
    let mut entry = RdmaEntry::new();
    entry.device = line.split_whitespace().next()?.into();
    entry.hca_handles = count("hca_handle")?;
    entry.hca_objects = count("hca_object")?;
    Some(entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_has_its_place() {
        let read = |file: &str| {
            let text = match file {
                "pids.current" => "3\n",
                "pids.max" | "memory.max" => "max\n",
                "cpu.stat" => "usage_usec 7\nuser_usec 5\nsystem_usec 2\nnr_throttled 1\n",
                "cpu.pressure" => {
                    "some avg10=0.50 avg60=0.20 avg300=0.00 total=99\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=4\n"
                }
                "memory.stat" => {
                    "anon 4096\nworkingset_refault_anon 1\nworkingset_refault_file 2\n"
                }
                "memory.current" => "8192\n",
                "memory.events" => "low 0\nhigh 1\nmax 2\noom 3\noom_kill 4\noom_group_kill 5\n",
                "io.stat" => "8:16 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n7:0 \n",
                "rdma.current" => "mlx4_0 hca_handle=2 hca_object=max\n",
                "hugetlb.2MB.current" => "0\n",
                "hugetlb.2MB.max" => "4194304\n",
                "hugetlb.2MB.events" => "max 6\n",
                _ => return None,
            };
            Some(text.to_string())
        };
        let m = collect(&read, &["2MB".into()]);
        assert_eq!((m.pids.current, m.pids.limit), (3, u64::MAX));
        assert_eq!((m.cpu.usage_usec, m.cpu.nr_throttled), (7, 1));
        assert_eq!((m.cpu.psi.some.avg10, m.cpu.psi.full.total), (0.5, 4));
        assert_eq!((m.memory.anon, m.memory.usage), (4096, 8192));
        assert_eq!(m.memory.usage_limit, u64::MAX);
        assert_eq!((m.memory.workingset_refault, m.memory.max_usage), (3, 0));
        assert!(m.memory.psi.is_none());
        assert_eq!((m.memory_events.oom, m.memory_events.oom_kill), (3, 4));
        assert_eq!((m.io.usage[0].minor, m.io.usage[0].wios), (16, 4));
        assert_eq!((m.io.usage[1].major, m.io.usage[1].rbytes), (7, 0));
        assert_eq!(m.rdma.current[0].hca_objects, u32::MAX);
        assert_eq!((m.hugetlb[0].max, m.hugetlb[0].failcnt), (4 << 20, 6));
    }
}
