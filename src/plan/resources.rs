//! linux.resources → writes to cgroup v2 files and rules for devices.
//!
//! The spec's fields were made for cgroup v1; each conversion is the one that runc, crun and the kubelet agree on, so that a
//! container gets the same limits from all of them.

use super::Violations;
use super::devices::Kind;
use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxDeviceCgroup, LinuxDeviceType, LinuxHugepageLimit, LinuxMemory,
    LinuxNetwork, LinuxResources, LinuxThrottleDevice,
};
use std::collections::HashMap;
use std::path::Path;

/// One write to a file of the cgroup. The order of a plan's writes is the order in which they are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The file's name, "memory.max".
    pub file: String,
    pub value: String,
    /// The config's field, "linux.resources.memory.limit", for messages.
    pub field: String,
    pub missing: Missing,
    /// What to do when the kernel answers EINVAL: cpu.max.burst must come after cpu.max when it is larger than the old quota.
    pub retry_last: bool,
    /// `memory.checkBeforeUpdate`: nothing is written at all when memory.current holds this many bytes or more.
    pub above_usage: Option<u64>,
    /// The kernel takes the value and may not do it all the same: the file must say afterwards what was written.
    pub read_back: bool,
}

impl Write {
    pub fn new(
        field: impl Into<String>,
        file: impl Into<String>,
        value: impl Into<String>,
    ) -> Self {
        Write {
            file: file.into(),
            value: value.into(),
            field: field.into(),
            missing: Missing::Refuse,
            retry_last: false,
            above_usage: None,
            read_back: false,
        }
    }

    /// The controller that a file belongs to: "memory" for "memory.max". None for the core's own ("cgroup.max.depth").
    pub fn controller(&self) -> Option<&str> {
        let name = self.file.split('.').next().unwrap_or_default();
        Some(name).filter(|n| *n != "cgroup")
    }
}

/// What it means that the file is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// The limit cannot be given here: an error that names field, file and controller.
    Refuse,
    /// The value is what the kernel does without the file (no swap and "0" or "max").
    Accept,
    /// Only the first file of an alternative that exists is written: the next write with the same field.
    TryNext,
}

/// A rule of linux.resources.devices; later rules win over earlier ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceRule {
    pub allow: bool,
    /// None is both kinds ("a").
    pub kind: Option<Kind>,
    /// None is any.
    pub major: Option<u32>,
    pub minor: Option<u32>,
    pub read: bool,
    pub write: bool,
    pub mknod: bool,
}

/// The writes for these resources, in their order. `field` is where they stand in the file, "linux.resources".
pub fn plan(r: &LinuxResources, field: &str, v: &mut Violations) -> Vec<Write> {
    let mut out = Vec::new();
    let at = |name: &str| {
        if field.is_empty() {
            name.to_string()
        } else {
            format!("{field}.{name}")
        }
    };
    if let Some(pids) = r.pids() {
        out.push(pids_limit(pids.limit(), &at("pids")));
    }
    if let Some(m) = r.memory() {
        memory(m, &at("memory"), v, &mut out);
    }
    if let Some(b) = r.block_io() {
        block_io(b, &at("blockIO"), v, &mut out);
    }
    if let Some(c) = r.cpu() {
        cpu(c, &at("cpu"), v, &mut out);
        cpuset(c, &at("cpu"), &mut out);
    }
    if let Some(h) = r.hugepage_limits() {
        hugepages(h, &at("hugepageLimits"), v, &mut out);
    }
    if let Some(map) = r.rdma() {
        let mut devices: Vec<_> = map.iter().collect();
        devices.sort_by_key(|(name, _)| *name);
        for (name, limits) in devices {
            let field = format!("{}.{name}", at("rdma"));
            let mut value = name.clone();
            if let Some(n) = limits.hca_handles() {
                value += &format!(" hca_handle={n}");
            }
            if let Some(n) = limits.hca_objects() {
                value += &format!(" hca_object={n}");
            }
            if value == *name {
                v.add(field, "sets no limit; give hcaHandles or hcaObjects");
            } else {
                out.push(Write::new(field, "rdma.max", value));
            }
        }
    }
    if let Some(n) = r.network() {
        network(n, &at("network"), v);
    }
    if let Some(map) = r.unified() {
        unified(map, &at("unified"), v, &mut out);
    }
    out
}

/// 0 is 1: systemd knows no TasksMax=0, and a container has one process anyway.
fn pids_limit(limit: i64, field: &str) -> Write {
    let value = match limit {
        0 => "1".into(),
        n if n < 0 => "max".into(),
        n => n.to_string(),
    };
    Write::new(format!("{field}.limit"), "pids.max", value)
}

fn memory(m: &LinuxMemory, field: &str, v: &mut Violations, out: &mut Vec<Write>) {
    let mut number = |name: &str, value: Option<i64>| {
        let n = value.unwrap_or(0);
        if n < -1 {
            v.add(
                format!("{field}.{name}"),
                format!("is {n}; give bytes, or -1 for no limit"),
            );
        }
        n.max(-1)
    };
    let limit = number("limit", m.limit());
    let swap = number("swap", m.swap());
    let low = number("reservation", m.reservation());
    let check = m.check_before_update() == Some(true);
    // Above the old memory.max the kernel would swap out what the new one allows, so swap goes first.
    if let Some(value) = swap_max(swap, limit, &format!("{field}.swap"), v) {
        let mut w = Write::new(format!("{field}.swap"), "memory.swap.max", value);
        // a kernel without swap has no file, and does what these ask for
        if w.value == "max" || w.value == "0" {
            w.missing = Missing::Accept;
        }
        w.above_usage = (check && swap > 0).then_some(swap as u64);
        out.push(w);
    }
    if let Some(value) = bytes(limit) {
        let mut w = Write::new(format!("{field}.limit"), "memory.max", value);
        w.above_usage = (check && limit > 0).then_some(limit as u64);
        out.push(w);
    }
    if let Some(value) = bytes(low) {
        out.push(Write::new(
            format!("{field}.reservation"),
            "memory.low",
            value,
        ));
    }
    memory_v1(m, field, v);
}

fn bytes(n: i64) -> Option<String> {
    match n {
        0 => None,
        -1 => Some("max".into()),
        n => Some(n.to_string()),
    }
}

/// The config's swap is memory and swap together, as in cgroup v1; v2 counts swap alone.
fn swap_max(swap: i64, limit: i64, field: &str, v: &mut Violations) -> Option<String> {
    match (swap, limit) {
        (0, -1) | (-1, _) => Some("max".into()),
        (0, _) => None,
        (n, -1) => Some(n.to_string()),
        (_, 0) => {
            v.add(
                field,
                "unable to set swap limit without memory limit; set memory.limit too",
            );
            None
        }
        (n, limit) if n < limit => {
            v.add(
                field,
                format!("memory+swap limit should be >= memory limit: {n} < {limit}"),
            );
            None
        }
        (n, limit) => Some((n - limit).to_string()),
    }
}

#[allow(deprecated)] // the deprecated fields are read to be warned about
fn memory_v1(m: &LinuxMemory, field: &str, v: &mut Violations) {
    let mut ignored = |name: &str, set: bool, why: &str| {
        if set {
            v.warn(&format!("{field}.{name}"), why);
        }
    };
    let deprecated = "kernel memory limits are ignored: the kernel has none any more";
    ignored("kernel", m.kernel().is_some(), deprecated);
    ignored("kernelTCP", m.kernel_tcp().is_some(), deprecated);
    ignored(
        "swappiness",
        m.swappiness().is_some(),
        "ignored: cgroup v2 has no swappiness of a cgroup's own",
    );
    ignored(
        "useHierarchy",
        m.use_hierarchy() == Some(false),
        "ignored: cgroup v2 always counts the whole hierarchy",
    );
    if m.disable_oom_killer() == Some(true) {
        v.warn(
            &format!("{field}.disableOOMKiller"),
            "ignored: cgroup v2 cannot switch the OOM killer off; use process.oomScoreAdj",
        );
    }
}

/// cpu.shares is 2 to 262144 with the default 1024, cpu.weight 1 to 10000 with the default 100. The curve is the one through
/// all three (log₁₀ of the weight is a parabola over log₂ of the shares).
pub fn cpu_weight(shares: u64) -> Option<u64> {
    match shares {
        0 => None,
        1 | 2 => Some(1),
        262_144.. => Some(10_000),
        n => {
            let l = (n as f64).log2();
            let exponent = (l * l + 125.0 * l) / 612.0 - 7.0 / 34.0;
            Some(10f64.powf(exponent).ceil() as u64)
        }
    }
}

fn cpu(c: &LinuxCpu, field: &str, v: &mut Violations, out: &mut Vec<Write>) {
    let at = |name: &str| format!("{field}.{name}");
    if let Some(idle) = c.idle() {
        if !(0..=1).contains(&idle) {
            v.add(at("idle"), format!("is {idle}; give 0 or 1"));
        }
        out.push(zero_is_default(Write::new(
            at("idle"),
            "cpu.idle",
            idle.to_string(),
        )));
    }
    match cpu_weight(c.shares().unwrap_or(0)) {
        Some(_) if c.idle() == Some(1) => v.warn(&at("shares"), IDLE_AND_WEIGHT),
        Some(weight) => out.push(Write::new(at("shares"), "cpu.weight", weight.to_string())),
        None => {}
    }
    let quota = c.quota().unwrap_or(0);
    let period = c.period().unwrap_or(0);
    if let Some(burst) = c.burst() {
        if quota > 0 && burst > quota as u64 {
            v.add(
                at("burst"),
                format!("is {burst}, more than the quota of {quota}"),
            );
        }
        let mut w = zero_is_default(Write::new(at("burst"), "cpu.max.burst", burst.to_string()));
        // Before cpu.max, since a smaller quota must not meet the old burst; but a larger burst must not meet the old quota.
        w.retry_last = quota != 0;
        out.push(w);
    }
    if quota != 0 || period != 0 {
        let quota_text = if quota > 0 {
            quota.to_string()
        } else {
            "max".into()
        };
        let period = if period == 0 { 100_000 } else { period };
        let name = if quota != 0 { "quota" } else { "period" };
        out.push(Write::new(
            at(name),
            "cpu.max",
            format!("{quota_text} {period}"),
        ));
    }
    for (name, set) in [
        ("realtimeRuntime", c.realtime_runtime().unwrap_or(0) != 0),
        ("realtimePeriod", c.realtime_period().unwrap_or(0) != 0),
    ] {
        if set {
            v.warn(
                &at(name),
                "ignored: cgroup v2 has no realtime limits; use process.scheduler",
            );
        }
    }
}

/// With words of runc's in front.
const IDLE_AND_WEIGHT: &str =
    "unable to apply both, ignored: an idle cgroup (cpu.idle) has no weight";

/// 0 is what a kernel without the file does.
fn zero_is_default(mut w: Write) -> Write {
    if w.value == "0" {
        w.missing = Missing::Accept;
    }
    w
}

fn cpuset(c: &LinuxCpu, field: &str, out: &mut Vec<Write>) {
    for (name, file, value) in [
        ("cpus", "cpuset.cpus", c.cpus()),
        ("mems", "cpuset.mems", c.mems()),
    ] {
        if let Some(value) = value.as_ref().filter(|s| !s.is_empty()) {
            out.push(Write::new(format!("{field}.{name}"), file, value.as_str()));
        }
    }
}

/// blkio.weight is 10 to 1000, io.weight 1 to 10000.
fn io_weight(weight: u16) -> u64 {
    1 + (u64::from(weight) - 10) * 9999 / 990
}

fn block_io(b: &LinuxBlockIo, field: &str, v: &mut Violations, out: &mut Vec<Write>) {
    let mut weight =
        |field: String, device: Option<(i64, i64)>, weight: Option<u16>, v: &mut Violations| {
            let Some(w) = weight.filter(|w| *w != 0) else {
                return;
            };
            if !(10..=1000).contains(&w) {
                v.add(field, format!("is {w}; give 10 to 1000"));
                return;
            }
            let device = match device {
                Some((major, minor)) => format!("{major}:{minor} "),
                None => String::new(),
            };
            let mut bfq = Write::new(&field, "io.bfq.weight", format!("{device}{w}"));
            bfq.missing = Missing::TryNext;
            out.push(bfq);
            out.push(Write::new(
                field,
                "io.weight",
                format!("{device}{}", io_weight(w)),
            ));
        };
    weight(format!("{field}.weight"), None, b.weight(), v);
    let leaf = |field: String, leaf: Option<u16>, v: &mut Violations| {
        if leaf.is_some_and(|l| l != 0) {
            v.warn(&field, "ignored: cgroup v2 has no leaf weights");
        }
    };
    leaf(format!("{field}.leafWeight"), b.leaf_weight(), v);
    for (i, d) in b.weight_device().iter().flatten().enumerate() {
        let field = format!("{field}.weightDevice[{i}]");
        leaf(format!("{field}.leafWeight"), d.leaf_weight(), v);
        if number_ok(d.major(), d.minor(), &field, v) {
            weight(
                format!("{field}.weight"),
                Some((d.major(), d.minor())),
                d.weight(),
                v,
            );
        }
    }
    let throttles: [(&str, &str, &Option<Vec<LinuxThrottleDevice>>); 4] = [
        (
            "throttleReadBpsDevice",
            "rbps",
            b.throttle_read_bps_device(),
        ),
        (
            "throttleWriteBpsDevice",
            "wbps",
            b.throttle_write_bps_device(),
        ),
        (
            "throttleReadIOPSDevice",
            "riops",
            b.throttle_read_iops_device(),
        ),
        (
            "throttleWriteIOPSDevice",
            "wiops",
            b.throttle_write_iops_device(),
        ),
    ];
    for (name, key, devices) in throttles {
        for (i, d) in devices.iter().flatten().enumerate() {
            let field = format!("{field}.{name}[{i}]");
            if number_ok(d.major(), d.minor(), &field, v) {
                // 0 takes a limit away in v1; io.max refuses it
                let rate = match d.rate() {
                    0 => "max".into(),
                    n => n.to_string(),
                };
                let value = format!("{}:{} {key}={rate}", d.major(), d.minor());
                out.push(Write::new(field, "io.max", value));
            }
        }
    }
}

fn number_ok(major: i64, minor: i64, field: &str, v: &mut Violations) -> bool {
    let ok = u32::try_from(major).is_ok() && u32::try_from(minor).is_ok();
    if !ok {
        v.add(field, format!("{major}:{minor} is no device number"));
    }
    ok
}

fn hugepages(limits: &[LinuxHugepageLimit], field: &str, v: &mut Violations, out: &mut Vec<Write>) {
    for (i, h) in limits.iter().enumerate() {
        let (size, limit) = (h.page_size(), h.limit());
        if !page_size_ok(size) {
            v.add(
                format!("{field}[{i}].pageSize"),
                format!("is '{size}'; give a size such as 2MB or 1GB"),
            );
            continue;
        }
        if limit < 0 {
            v.add(
                format!("{field}[{i}].limit"),
                format!("is {limit}; give bytes"),
            );
            continue;
        }
        let field = format!("{field}[{i}].limit");
        let write = |file: String| Write::new(&field, file, limit.to_string());
        out.push(write(format!("hugetlb.{size}.max")));
        let mut reserved = write(format!("hugetlb.{size}.rsvd.max"));
        reserved.missing = Missing::Accept; // Linux 5.7
        out.push(reserved);
    }
}

/// `^[1-9][0-9]*[KMG]B$` of the spec's schema.
fn page_size_ok(size: &str) -> bool {
    let digits = size.trim_end_matches(|c: char| !c.is_ascii_digit());
    matches!(&size[digits.len()..], "KB" | "MB" | "GB")
        && !digits.is_empty()
        && !digits.starts_with('0')
        && digits.bytes().all(|b| b.is_ascii_digit())
}

fn network(n: &LinuxNetwork, field: &str, v: &mut Violations) {
    let why =
        "ignored: cgroup v2 has no such controller; mark packets by the container's cgroup instead";
    if n.class_id().is_some_and(|id| id != 0) {
        v.warn(&format!("{field}.classID"), why);
    }
    if n.priorities().as_ref().is_some_and(|p| !p.is_empty()) {
        v.warn(&format!("{field}.priorities"), why);
    }
}

/// Any file of the cgroup by name. Keys are sorted, so that the same config always does the same; a key wins over the field
/// that is written to the same file.
fn unified(map: &HashMap<String, String>, field: &str, v: &mut Violations, out: &mut Vec<Write>) {
    let mut keys: Vec<_> = map.iter().collect();
    keys.sort();
    let idle = map.get("cpu.idle").is_some_and(|value| value.trim() == "1");
    for (key, value) in keys {
        let field = format!("{field}.{key}");
        if idle && key == "cpu.weight" {
            v.warn(&field, IDLE_AND_WEIGHT);
            continue;
        }
        if key.contains('/') {
            v.add(
                field,
                format!("unified resource '{key}' must be a file name (no slashes)"),
            );
            continue;
        }
        if !matches!(key.split_once('.'), Some((a, b)) if !a.is_empty() && !b.is_empty()) {
            v.add(
                field,
                format!("unified resource '{key}' must be in the form CONTROLLER.PARAMETER"),
            );
            continue;
        }
        if value.is_empty() {
            v.add(field, "is empty; give a value");
            continue;
        }
        // the kernel's files of several lines take one line a write
        for line in value.split_inclusive('\n') {
            out.push(Write::new(&field, key.as_str(), line));
        }
    }
}

/// What every container may use, after the config's own rules: making any node, the spec's default devices (config-linux,
/// "Default Devices"), terminals, and /dev/net/tun, which engines have come to rely on. `given` are the paths of linux.devices: a node that
/// the config describes itself gets no rule from here.
pub fn devices(
    rules: &[LinuxDeviceCgroup],
    field: &str,
    given: &[&Path],
    v: &mut Violations,
) -> Vec<DeviceRule> {
    let mut out: Vec<DeviceRule> = rules
        .iter()
        .enumerate()
        .filter_map(|(i, r)| device_rule(r, &format!("{field}[{i}]"), v))
        .collect();
    for kind in [Kind::Char, Kind::Block] {
        out.push(DeviceRule {
            allow: true,
            kind: Some(kind),
            major: None,
            minor: None,
            read: false,
            write: false,
            mknod: true,
        });
    }
    let defaults: [(&str, u32, Option<u32>); 9] = [
        ("/dev/null", 1, Some(3)),
        ("/dev/random", 1, Some(8)),
        ("/dev/full", 1, Some(7)),
        ("/dev/tty", 5, Some(0)),
        ("/dev/zero", 1, Some(5)),
        ("/dev/urandom", 1, Some(9)),
        ("", 136, None),     // /dev/pts/N and /dev/console
        ("", 5, Some(2)),    // /dev/ptmx
        ("", 10, Some(200)), // /dev/net/tun
    ];
    for (path, major, minor) in defaults {
        if path.is_empty() || !given.contains(&Path::new(path)) {
            out.push(DeviceRule {
                allow: true,
                kind: Some(Kind::Char),
                major: Some(major),
                minor,
                read: true,
                write: true,
                mknod: true,
            });
        }
    }
    out
}

fn device_rule(r: &LinuxDeviceCgroup, field: &str, v: &mut Violations) -> Option<DeviceRule> {
    let kind = match r.typ() {
        None | Some(LinuxDeviceType::A) => None,
        Some(LinuxDeviceType::B) => Some(Kind::Block),
        Some(LinuxDeviceType::C) => Some(Kind::Char),
        Some(other) => {
            v.add(
                format!("{field}.type"),
                format!("is '{}'; give a, b or c", other.as_str()),
            );
            return None;
        }
    };
    let access = r.access().as_deref().unwrap_or_default();
    if !access.contains(['r', 'w', 'm']) {
        v.add(
            format!("{field}.access"),
            format!("is '{access}'; give some of r, w and m"),
        );
        return None;
    }
    if let Some(c) = access.chars().find(|c| !"rwm".contains(*c)) {
        // as runc does: there are configs with "rwa"
        v.warn(
            &format!("{field}.access"),
            &format!("holds '{c}', which is none of r, w and m, and is left out"),
        );
    }
    Some(DeviceRule {
        allow: r.allow(),
        kind,
        major: device_number(r.major(), &format!("{field}.major"), v)?,
        minor: device_number(r.minor(), &format!("{field}.minor"), v)?,
        read: access.contains('r'),
        write: access.contains('w'),
        mknod: access.contains('m'),
    })
}

/// -1 is any, as engines write it. The outer None is a violation.
fn device_number(n: Option<i64>, field: &str, v: &mut Violations) -> Option<Option<u32>> {
    match n {
        None | Some(-1) => Some(None),
        Some(n) => match u32::try_from(n) {
            Ok(n) => Some(Some(n)),
            Err(_) => {
                v.add(
                    field,
                    format!("is {n}; give a device number, or -1 for any"),
                );
                None
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn planned(resources: Value) -> (Vec<Write>, Violations) {
        let mut v = Violations::default();
        let r: LinuxResources = serde_json::from_value(resources).unwrap();
        (plan(&r, "linux.resources", &mut v), v)
    }

    /// "file=value", with "?" for a file that may be missing, "|" for one whose alternative follows, "…" for a retry at the end.
    fn short(w: &Write) -> String {
        let mark = match w.missing {
            Missing::Refuse => "",
            Missing::Accept => "?",
            Missing::TryNext => "|",
        };
        let later = if w.retry_last { "…" } else { "" };
        format!("{}{mark}{later}={}", w.file, w.value)
    }

    #[track_caller]
    fn writes(resources: Value, want: &[&str]) {
        let (got, v) = planned(resources.clone());
        let got: Vec<_> = got.iter().map(short).collect();
        assert_eq!(got, want, "{resources}");
        assert_eq!(v.into_result(()).map_err(|v| v.to_string()), Ok(()));
    }

    #[track_caller]
    fn refused(resources: Value, want: &str) {
        let (_, v) = planned(resources.clone());
        let got = v.into_result(()).unwrap_err().to_string();
        assert_eq!(got, format!("linux.resources.{want}"), "{resources}");
    }

    /// As with runc: what was a limit of cgroup v1 alone.
    #[track_caller]
    fn ignored(resources: Value, want: &str) {
        let (writes, mut v) = planned(resources.clone());
        assert_eq!(writes.len(), 0, "{resources}");
        assert_eq!(
            v.take_warnings(),
            [format!("linux.resources.{want}")],
            "{resources}"
        );
        assert!(v.into_result(()).is_ok(), "{resources}");
    }

    #[test]
    fn nothing_asked_for() {
        writes(json!({}), &[]);
        writes(
            json!({"memory": {}, "cpu": {}, "blockIO": {}, "network": {}}),
            &[],
        );
        writes(
            json!({"memory": {"limit": 0, "swap": 0, "reservation": 0}}),
            &[],
        );
        writes(
            json!({"cpu": {"shares": 0, "quota": 0, "period": 0, "cpus": "", "mems": ""}}),
            &[],
        );
        writes(
            json!({"memory": {"disableOOMKiller": false, "useHierarchy": true}}),
            &[],
        );
        writes(json!({"network": {"classID": 0, "priorities": []}}), &[]);
        writes(json!({"blockIO": {"weight": 0, "leafWeight": 0}}), &[]);
        writes(
            json!({"cpu": {"realtimeRuntime": 0, "realtimePeriod": 0}}),
            &[],
        );
    }

    #[test]
    fn shares_to_weight() {
        let table = [
            (0, None),
            (1, Some(1)),
            (2, Some(1)),
            (3, Some(2)),
            (10, Some(4)),
            (100, Some(17)),
            (512, Some(59)),
            (1024, Some(100)),
            (2048, Some(174)),
            (3333, Some(256)),
            (100_000, Some(4340)),
            (262_143, Some(10_000)),
            (262_144, Some(10_000)),
            (u64::MAX, Some(10_000)),
        ];
        for (shares, weight) in table {
            assert_eq!(cpu_weight(shares), weight, "{shares}");
        }
    }

    #[test]
    fn cpu() {
        writes(json!({"cpu": {"shares": 1024}}), &["cpu.weight=100"]);
        writes(json!({"cpu": {"quota": 50000}}), &["cpu.max=50000 100000"]);
        writes(
            json!({"cpu": {"quota": 5000, "period": 20000}}),
            &["cpu.max=5000 20000"],
        );
        writes(json!({"cpu": {"quota": -1}}), &["cpu.max=max 100000"]);
        writes(
            json!({"cpu": {"quota": -1, "period": 50000}}),
            &["cpu.max=max 50000"],
        );
        writes(json!({"cpu": {"period": 50000}}), &["cpu.max=max 50000"]);
        writes(
            json!({"cpu": {"quota": 5000, "burst": 2000}}),
            &["cpu.max.burst…=2000", "cpu.max=5000 100000"],
        );
        writes(json!({"cpu": {"burst": 2000}}), &["cpu.max.burst=2000"]);
        writes(json!({"cpu": {"burst": 0}}), &["cpu.max.burst?=0"]);
        writes(json!({"cpu": {"idle": 1}}), &["cpu.idle=1"]);
        writes(
            json!({"cpu": {"idle": 0, "shares": 2}}),
            &["cpu.idle?=0", "cpu.weight=1"],
        );
        writes(
            json!({"cpu": {"cpus": "0-3,7", "mems": "0"}}),
            &["cpuset.cpus=0-3,7", "cpuset.mems=0"],
        );
        refused(
            json!({"cpu": {"burst": 1001, "quota": 1000}}),
            "cpu.burst: is 1001, more than the quota of 1000",
        );
        refused(json!({"cpu": {"idle": 2}}), "cpu.idle: is 2; give 0 or 1");
        for name in ["realtimeRuntime", "realtimePeriod"] {
            ignored(
                json!({"cpu": {name: 1000}}),
                &format!(
                    "cpu.{name}: ignored: cgroup v2 has no realtime limits; use process.scheduler"
                ),
            );
        }
    }

    #[test]
    fn an_idle_cgroup_has_no_weight() {
        let (got, mut v) = planned(json!({"cpu": {"idle": 1, "shares": 1024}}));
        assert_eq!(got.iter().map(short).collect::<Vec<_>>(), ["cpu.idle=1"]);
        assert_eq!(
            v.take_warnings(),
            [
                "linux.resources.cpu.shares: unable to apply both, ignored: an idle cgroup (cpu.idle) has no weight"
            ]
        );
    }

    #[test]
    fn memory() {
        writes(json!({"memory": {"limit": 1000}}), &["memory.max=1000"]);
        writes(
            json!({"memory": {"limit": -1}}),
            &["memory.swap.max?=max", "memory.max=max"],
        );
        writes(
            json!({"memory": {"limit": 1000, "swap": 3000}}),
            &["memory.swap.max=2000", "memory.max=1000"],
        );
        writes(
            json!({"memory": {"limit": 1000, "swap": 1000}}),
            &["memory.swap.max?=0", "memory.max=1000"],
        );
        writes(
            json!({"memory": {"limit": 1000, "swap": -1}}),
            &["memory.swap.max?=max", "memory.max=1000"],
        );
        writes(
            json!({"memory": {"limit": -1, "swap": 3000}}),
            &["memory.swap.max=3000", "memory.max=max"],
        );
        writes(json!({"memory": {"swap": -1}}), &["memory.swap.max?=max"]);
        writes(json!({"memory": {"reservation": 500}}), &["memory.low=500"]);
        writes(json!({"memory": {"reservation": -1}}), &["memory.low=max"]);
        refused(
            json!({"memory": {"swap": 3000}}),
            "memory.swap: unable to set swap limit without memory limit; set memory.limit too",
        );
        refused(
            json!({"memory": {"limit": 1000, "swap": 999}}),
            "memory.swap: memory+swap limit should be >= memory limit: 999 < 1000",
        );
        for name in ["limit", "swap", "reservation"] {
            refused(
                json!({"memory": {name: -2}}),
                &format!("memory.{name}: is -2; give bytes, or -1 for no limit"),
            );
        }
        ignored(
            json!({"memory": {"disableOOMKiller": true}}),
            "memory.disableOOMKiller: ignored: cgroup v2 cannot switch the OOM killer off; use process.oomScoreAdj",
        );
    }

    #[test]
    fn memory_of_v1_is_warned_about() {
        let (got, mut v) = planned(json!({"memory":
            {"kernel": 1, "kernelTCP": 2, "swappiness": 10, "useHierarchy": false}}));
        assert_eq!(got, []);
        assert_eq!(
            v.take_warnings(),
            [
                "linux.resources.memory.kernel: kernel memory limits are ignored: the kernel has none any more",
                "linux.resources.memory.kernelTCP: kernel memory limits are ignored: the kernel has none any more",
                "linux.resources.memory.swappiness: ignored: cgroup v2 has no swappiness of a cgroup's own",
                "linux.resources.memory.useHierarchy: ignored: cgroup v2 always counts the whole hierarchy",
            ]
        );
    }

    #[test]
    fn usage_is_checked_where_asked_for() {
        let above = |memory: Value| -> Vec<_> {
            let (writes, _) = planned(json!({"memory": memory}));
            writes.iter().map(|w| w.above_usage).collect()
        };
        let both = json!({"limit": 1000, "swap": 3000, "checkBeforeUpdate": true});
        assert_eq!(above(both), [Some(3000), Some(1000)]);
        assert_eq!(above(json!({"limit": 1000})), [None]);
        let unlimited = json!({"limit": -1, "checkBeforeUpdate": true});
        assert_eq!(above(unlimited), [None, None]);
    }

    #[test]
    fn pids() {
        writes(json!({"pids": {"limit": 10}}), &["pids.max=10"]);
        writes(json!({"pids": {"limit": 0}}), &["pids.max=1"]);
        writes(json!({"pids": {"limit": -1}}), &["pids.max=max"]);
    }

    #[test]
    fn block_io() {
        for (weight, want) in [(10, 1), (100, 910), (750, 7475), (1000, 10_000)] {
            writes(
                json!({"blockIO": {"weight": weight}}),
                &[
                    &format!("io.bfq.weight|={weight}"),
                    &format!("io.weight={want}"),
                ],
            );
        }
        writes(
            json!({"blockIO": {"weightDevice": [{"major": 8, "minor": 0, "weight": 444}]}}),
            &["io.bfq.weight|=8:0 444", "io.weight=8:0 4384"],
        );
        writes(
            json!({"blockIO": {
                "throttleWriteIOPSDevice": [{"major": 8, "minor": 16, "rate": 4}],
                "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1}, {"major": 9, "minor": 0, "rate": 0}],
                "throttleWriteBpsDevice": [{"major": 8, "minor": 0, "rate": 2}],
                "throttleReadIOPSDevice": [{"major": 8, "minor": 0, "rate": 3}]}}),
            &[
                "io.max=8:0 rbps=1",
                "io.max=9:0 rbps=max",
                "io.max=8:0 wbps=2",
                "io.max=8:0 riops=3",
                "io.max=8:16 wiops=4",
            ],
        );
        for weight in [9, 1001] {
            refused(
                json!({"blockIO": {"weight": weight}}),
                &format!("blockIO.weight: is {weight}; give 10 to 1000"),
            );
        }
        ignored(
            json!({"blockIO": {"leafWeight": 10}}),
            "blockIO.leafWeight: ignored: cgroup v2 has no leaf weights",
        );
        ignored(
            json!({"blockIO": {"weightDevice": [{"major": 8, "minor": 0, "leafWeight": 10}]}}),
            "blockIO.weightDevice[0].leafWeight: ignored: cgroup v2 has no leaf weights",
        );
        refused(
            json!({"blockIO": {"throttleReadBpsDevice": [{"major": -1, "minor": 0, "rate": 1}]}}),
            "blockIO.throttleReadBpsDevice[0]: -1:0 is no device number",
        );
    }

    #[test]
    fn alternatives_share_a_field() {
        let (got, _) = planned(json!({"blockIO": {"weight": 100,
            "weightDevice": [{"major": 8, "minor": 0, "weight": 10}, {"major": 8, "minor": 1, "weight": 10}]}}));
        let fields: Vec<_> = got.iter().map(|w| w.field.as_str()).collect();
        let at = |i| format!("linux.resources.blockIO.weightDevice[{i}].weight");
        let (all, first, second) = ("linux.resources.blockIO.weight", at(0), at(1));
        assert_eq!(fields, [all, all, &first, &first, &second, &second]);
    }

    #[test]
    fn huge_pages() {
        writes(
            json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 4194304}, {"pageSize": "1GB", "limit": 0}]}),
            &[
                "hugetlb.2MB.max=4194304",
                "hugetlb.2MB.rsvd.max?=4194304",
                "hugetlb.1GB.max=0",
                "hugetlb.1GB.rsvd.max?=0",
            ],
        );
        for size in ["", "2", "MB", "02MB", "2mb", "2MiB", "../2MB", "2M/B"] {
            refused(
                json!({"hugepageLimits": [{"pageSize": size, "limit": 1}]}),
                &format!("hugepageLimits[0].pageSize: is '{size}'; give a size such as 2MB or 1GB"),
            );
        }
        refused(
            json!({"hugepageLimits": [{"pageSize": "2MB", "limit": -1}]}),
            "hugepageLimits[0].limit: is -1; give bytes",
        );
    }

    #[test]
    fn rdma() {
        writes(
            json!({"rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10000},
                "mlx4_0": {"hcaObjects": 1000}, "mlx5_2": {"hcaHandles": 0}}}),
            &[
                "rdma.max=mlx4_0 hca_object=1000",
                "rdma.max=mlx5_1 hca_handle=3 hca_object=10000",
                "rdma.max=mlx5_2 hca_handle=0",
            ],
        );
        refused(
            json!({"rdma": {"mlx5_1": {}}}),
            "rdma.mlx5_1: sets no limit; give hcaHandles or hcaObjects",
        );
    }

    #[test]
    fn network() {
        let why = "ignored: cgroup v2 has no such controller; mark packets by the container's cgroup instead";
        ignored(
            json!({"network": {"classID": 1}}),
            &format!("network.classID: {why}"),
        );
        ignored(
            json!({"network": {"priorities": [{"name": "eth0", "priority": 1}]}}),
            &format!("network.priorities: {why}"),
        );
    }

    #[test]
    fn unified() {
        writes(
            json!({"unified": {"memory.high": "100", "io.max": "8:0 riops=3\n8:1 riops=4\n",
                "cgroup.max.depth": "2", "hugetlb.1MB.max": "0"}}),
            &[
                "cgroup.max.depth=2",
                "hugetlb.1MB.max=0",
                "io.max=8:0 riops=3\n",
                "io.max=8:1 riops=4\n",
                "memory.high=100",
            ],
        );
        for key in ["a/b", "/", "../cgroup.procs", "memory/x.max"] {
            refused(
                json!({"unified": {key: "1"}}),
                &format!(
                    "unified.{key}: unified resource '{key}' must be a file name (no slashes)"
                ),
            );
        }
        for key in ["", "memory", ".max", "memory.", "."] {
            refused(
                json!({"unified": {key: "1"}}),
                &format!(
                    "unified.{key}: unified resource '{key}' must be in the form CONTROLLER.PARAMETER"
                ),
            );
        }
        refused(
            json!({"unified": {"memory.max": ""}}),
            "unified.memory.max: is empty; give a value",
        );
        refused(
            json!({"unified": {"..": "1"}}),
            "unified...: unified resource '..' must be in the form CONTROLLER.PARAMETER",
        );
    }

    #[test]
    fn the_order_of_all() {
        writes(
            json!({
                "unified": {"pids.max": "7"}, "rdma": {"m": {"hcaHandles": 1}},
                "hugepageLimits": [{"pageSize": "2MB", "limit": 0}],
                "cpu": {"cpus": "0", "quota": 1000, "burst": 1, "shares": 2, "idle": 0},
                "blockIO": {"weight": 10}, "memory": {"limit": 2, "swap": 3, "reservation": 1}, "pids": {"limit": 5}}),
            &[
                "pids.max=5",
                "memory.swap.max=1",
                "memory.max=2",
                "memory.low=1",
                "io.bfq.weight|=10",
                "io.weight=1",
                "cpu.idle?=0",
                "cpu.weight=1",
                "cpu.max.burst…=1",
                "cpu.max=1000 100000",
                "cpuset.cpus=0",
                "hugetlb.2MB.max=0",
                "hugetlb.2MB.rsvd.max?=0",
                "rdma.max=m hca_handle=1",
                "pids.max=7",
            ],
        );
    }

    #[test]
    fn fields_carry_their_json_path() {
        let (got, _) = planned(json!({"memory": {"limit": 1}, "cpu": {"quota": 1},
            "hugepageLimits": [{"pageSize": "2MB", "limit": 0}], "unified": {"a.b": "1"}}));
        let fields: Vec<_> = got.iter().map(|w| w.field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "linux.resources.memory.limit",
                "linux.resources.cpu.quota",
                "linux.resources.hugepageLimits[0].limit",
                "linux.resources.hugepageLimits[0].limit",
                "linux.resources.unified.a.b",
            ]
        );
        let r = serde_json::from_value(json!({"pids": {"limit": 3}})).unwrap();
        assert_eq!(
            plan(&r, "", &mut Violations::default())[0].field,
            "pids.limit"
        );
    }

    fn rules(devices: Value) -> (Vec<String>, String) {
        let mut v = Violations::default();
        let list: Vec<LinuxDeviceCgroup> = serde_json::from_value(devices).unwrap();
        let text = |r: DeviceRule| {
            let number = |n: Option<u32>| n.map_or("*".into(), |n| n.to_string());
            let kind = match r.kind {
                None => "a",
                Some(Kind::Char) => "c",
                _ => "b",
            };
            let access: String = [(r.read, 'r'), (r.write, 'w'), (r.mknod, 'm')]
                .iter()
                .filter_map(|(on, c)| on.then_some(*c))
                .collect();
            let sign = if r.allow { "+" } else { "-" };
            format!(
                "{sign}{kind} {}:{} {access}",
                number(r.major),
                number(r.minor)
            )
        };
        let given = [Path::new("/dev/null"), Path::new("/dev/fuse")];
        let got = devices_of(&list, &given, &mut v)
            .into_iter()
            .map(text)
            .collect();
        let faults = v
            .into_result(())
            .err()
            .map_or(String::new(), |v| v.to_string());
        (got, faults)
    }

    fn devices_of(
        list: &[LinuxDeviceCgroup],
        given: &[&Path],
        v: &mut Violations,
    ) -> Vec<DeviceRule> {
        devices(list, "linux.resources.devices", given, v)
    }

    #[test]
    fn device_rules() {
        let (got, faults) = rules(json!([
            {"allow": false, "access": "rwm"},
            {"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw"},
            {"allow": true, "type": "b", "major": 8, "minor": -1, "access": "r"},
            {"allow": false, "type": "a", "major": -1, "minor": 3, "access": "m"}]));
        assert_eq!(faults, "");
        assert_eq!(
            got,
            [
                "-a *:* rwm",
                "+c 10:229 rw",
                "+b 8:* r",
                "-a *:3 m",
                "+c *:* m",
                "+b *:* m",
                // without /dev/null, which the config makes itself
                "+c 1:8 rwm",
                "+c 1:7 rwm",
                "+c 5:0 rwm",
                "+c 1:5 rwm",
                "+c 1:9 rwm",
                "+c 136:* rwm",
                "+c 5:2 rwm",
                "+c 10:200 rwm",
            ]
        );
    }

    #[test]
    fn device_rules_refused() {
        let cases = [
            (
                json!({"allow": true, "access": "a"}),
                "access: is 'a'; give some of r, w and m",
            ),
            (
                json!({"allow": true}),
                "access: is ''; give some of r, w and m",
            ),
            (
                json!({"allow": true, "type": "p", "access": "r"}),
                "type: is 'p'; give a, b or c",
            ),
            (
                json!({"allow": true, "type": "u", "access": "r"}),
                "type: is 'u'; give a, b or c",
            ),
            (
                json!({"allow": true, "major": -2, "access": "r"}),
                "major: is -2; give a device number, or -1 for any",
            ),
            (
                json!({"allow": true, "minor": 4294967296u64, "access": "r"}),
                "minor: is 4294967296; give a device number, or -1 for any",
            ),
        ];
        for (rule, want) in cases {
            let (_, faults) = rules(json!([rule]));
            assert_eq!(faults, format!("linux.resources.devices[0].{want}"));
        }
    }
}
