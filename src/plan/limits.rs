//! Limits that cgroup v2 has and the specification has no field for, by annotations; [`super::annotations`] describes them.
//!
//! `linux.resources.unified` can write the same files, as they come. Here values are checked, and the kernel's answer is read back.

use super::resources::Write;
use super::{Violations, annotations};
use oci_spec::runtime::Spec;

/// What follows "dev.husk." is the file's name.
pub fn plan(spec: &Spec, v: &mut Violations) -> Vec<Write> {
    let mut out = Vec::new();
    for key in annotations::LIMITS {
        let Some(value) = annotations::get(spec, key) else {
            continue;
        };
        let file = key.strip_prefix("dev.husk.").expect("all begin so");
        let field = annotations::path(key);
        if in_unified(spec, file) {
            v.add(
                field,
                format!("is given by linux.resources.unified.{file} too; keep one of them"),
            );
            continue;
        }
        match values(file, value.trim()) {
            Ok(values) => out.extend(values.into_iter().map(|value| {
                let mut w = Write::new(&field, file, value);
                w.read_back = true;
                w
            })),
            Err(why) => v.add(field, format!("is '{value}'; {why}")),
        }
    }
    check_clamps(&out, v);
    check_minimum(spec, &out, v);
    out
}

fn in_unified(spec: &Spec, file: &str) -> bool {
    let unified = || {
        let resources = spec.linux().as_ref()?.resources().as_ref()?;
        Some(resources.unified().as_ref()?.contains_key(file))
    };
    unified() == Some(true)
}

/// What to write to the file, in one write each.
fn values(file: &str, text: &str) -> Result<Vec<String>, &'static str> {
    let one = |value: Option<String>, why| value.map(|v| vec![v]).ok_or(why);
    match file {
        "memory.oom.group" => one(
            match text {
                "true" | "1" => Some("1".into()),
                "false" | "0" => Some("0".into()),
                _ => None,
            },
            "give true or false",
        ),
        "cpu.uclamp.min" | "cpu.uclamp.max" => one(
            percent(text).map(|_| text.into()),
            "give 0 to 100 percent with at most two decimals, or max",
        ),
        "cpuset.cpus.partition" => one(
            ["member", "root", "isolated"]
                .contains(&text)
                .then(|| text.into()),
            "give member, root or isolated",
        ),
        "io.latency" => text
            .split(',')
            .map(|device| latency(device.trim()))
            .collect::<Option<_>>()
            .ok_or("give MAJOR:MINOR target=µs, several separated by commas"),
        _ => one(
            match text {
                "max" | "-1" => Some("max".into()),
                _ => size(text).map(|n| n.to_string()),
            },
            "give bytes, a number with K, M or G, or max",
        ),
    }
}

/// "8:0 target=75000".
fn latency(device: &str) -> Option<String> {
    let (number, target) = device.split_once(" target=")?;
    let (major, minor) = number.split_once(':')?;
    let (major, minor): (u32, u32) = (digits(major)?.parse().ok()?, digits(minor)?.parse().ok()?);
    let target: u64 = digits(target)?.parse().ok()?;
    Some(format!("{major}:{minor} target={target}"))
}

fn digits(text: &str) -> Option<&str> {
    text.bytes().all(|b| b.is_ascii_digit()).then_some(text)
}

/// Hundredths of a percent; "max" is all.
fn percent(text: &str) -> Option<u32> {
    if text == "max" {
        return Some(10_000);
    }
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    if part.is_empty() || part.len() > 2 {
        return None;
    }
    let whole: u32 = digits(whole)?.parse().ok()?;
    let part: u32 = format!("{:0<2}", digits(part)?).parse().ok()?;
    Some(whole.checked_mul(100)?.checked_add(part)?).filter(|n| *n <= 10_000)
}

fn check_clamps(writes: &[Write], v: &mut Violations) {
    let value = |file| {
        let w = writes.iter().find(|w| w.file == file)?;
        percent(&w.value)
    };
    if let (Some(min), Some(max)) = (value("cpu.uclamp.min"), value("cpu.uclamp.max"))
        && min > max
    {
        v.add(
            annotations::path("dev.husk.cpu.uclamp.min"),
            "is more than dev.husk.cpu.uclamp.max; give less",
        );
    }
}

/// Memory that is never taken away, but more than there may be.
fn check_minimum(spec: &Spec, writes: &[Write], v: &mut Violations) {
    let limit = || {
        let resources = spec.linux().as_ref()?.resources().as_ref()?;
        resources.memory().as_ref()?.limit().filter(|l| *l > 0)
    };
    let min = writes.iter().find(|w| w.file == "memory.min");
    if let (Some(min), Some(limit)) = (min, limit())
        && min.value.parse::<i64>().map_or(true, |min| min > limit)
    {
        v.add(
            &min.field,
            format!(
                "is {}, more than linux.resources.memory.limit, {limit}; give less",
                min.value
            ),
        );
    }
}

/// Bytes as Docker and runc take them: "64M", "1.5 GiB".
pub fn size(text: &str) -> Option<i64> {
    let number = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = text[number.len()..].trim_start().to_ascii_lowercase();
    let unit = unit.strip_suffix('b').unwrap_or(&unit);
    let shift = match unit.strip_suffix('i').unwrap_or(unit) {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return None,
    };
    if !number.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return None;
    }
    // digits alone are exact, however many
    match number.parse::<i64>() {
        Ok(n) => n.checked_mul(1 << shift),
        Err(_) => {
            let bytes = number.parse::<f64>().ok()? * (1u64 << shift) as f64;
            (bytes < i64::MAX as f64).then_some(bytes as i64)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::violations::testing::*;
    use super::*;
    use serde_json::{Value, json};

    fn with(annotations: Value) -> Spec {
        spec(json!({
            "annotations": annotations,
            "linux": {"resources": {"memory": {"limit": 1 << 20}, "unified": {"memory.high": "5"}}},
        }))
    }

    #[test]
    fn annotations_become_writes() {
        let all = json!({
            "dev.husk.memory.min": "64k",
            "dev.husk.memory.oom.group": "true",
            "dev.husk.memory.swap.high": "1.5G",
            "dev.husk.memory.zswap.max": "max",
            "dev.husk.cpu.uclamp.min": "12.5",
            "dev.husk.cpu.uclamp.max": "max",
            "dev.husk.cpuset.cpus.partition": "isolated",
            "dev.husk.io.latency": "8:0 target=75000, 8:16 target=5",
        });
        let writes = good(|v| plan(&with(all), v));
        let short: Vec<String> = writes
            .iter()
            .map(|w| format!("{}={}", w.file, w.value))
            .collect();
        assert_eq!(
            short,
            [
                "memory.min=65536",
                "memory.oom.group=1",
                "memory.swap.high=1610612736",
                "memory.zswap.max=max",
                "cpu.uclamp.min=12.5",
                "cpu.uclamp.max=max",
                "cpuset.cpus.partition=isolated",
                "io.latency=8:0 target=75000",
                "io.latency=8:16 target=5",
            ]
        );
        assert!(writes.iter().all(|w| w.read_back));
        assert_eq!(writes[0].field, "annotations[\"dev.husk.memory.min\"]");
        assert!(good(|v| plan(&spec(json!({})), v)).is_empty());
    }

    #[test]
    fn bad_values_are_refused() {
        for (key, value, why) in [
            (
                "memory.high",
                "1M",
                "is given by linux.resources.unified.memory.high too; keep one of them",
            ),
            (
                "memory.min",
                "lots",
                "is 'lots'; give bytes, a number with K, M or G, or max",
            ),
            (
                "memory.min",
                "2M",
                "is 2097152, more than linux.resources.memory.limit, 1048576; give less",
            ),
            (
                "memory.min",
                "max",
                "is max, more than linux.resources.memory.limit, 1048576; give less",
            ),
            ("memory.oom.group", "yes", "is 'yes'; give true or false"),
            (
                "cpu.uclamp.max",
                "101",
                "is '101'; give 0 to 100 percent with at most two decimals, or max",
            ),
            (
                "cpu.uclamp.max",
                "1.234",
                "is '1.234'; give 0 to 100 percent with at most two decimals, or max",
            ),
            (
                "cpuset.cpus.partition",
                "roots",
                "is 'roots'; give member, root or isolated",
            ),
            (
                "io.latency",
                "8:0=5",
                "is '8:0=5'; give MAJOR:MINOR target=µs, several separated by commas",
            ),
        ] {
            let key = format!("dev.husk.{key}");
            let found = faults(|v| plan(&with(json!({&key: value})), v));
            assert_eq!(found, format!("annotations[\"{key}\"]: {why}"));
        }
        let clamps = json!({"dev.husk.cpu.uclamp.min": "50.5", "dev.husk.cpu.uclamp.max": "50"});
        assert_eq!(
            faults(|v| plan(&with(clamps), v)),
            "annotations[\"dev.husk.cpu.uclamp.min\"]: is more than dev.husk.cpu.uclamp.max; give less"
        );
    }

    #[test]
    fn percents() {
        for (text, hundredths) in [
            ("0", Some(0)),
            ("100", Some(10_000)),
            ("100.00", Some(10_000)),
            ("7.5", Some(750)),
            ("7.05", Some(705)),
            ("max", Some(10_000)),
            ("100.01", None),
            ("", None),
            (".5", None),
            ("5.", None),
            ("-1", None),
            ("+1", None),
            ("4294967295", None),
        ] {
            assert_eq!(percent(text), hundredths, "{text}");
        }
    }

    #[test]
    fn sizes_as_docker_takes_them() {
        for (text, bytes) in [
            ("0", 0),
            ("9007199254740993", 9_007_199_254_740_993),
            ("1k", 1 << 10),
            ("64M", 64 << 20),
            ("2GiB", 2 << 30),
            ("1.5 gb", 3 << 29),
            ("3T", 3 << 40),
            ("1p", 1 << 50),
            ("7b", 7),
        ] {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        for bad in [
            "",
            "-1",
            "-2",
            "M",
            "lots",
            "1x",
            "1.2.3",
            "1e3",
            "1mm",
            "9999999999P",
            "0x10",
            "inf",
            "+1",
        ] {
            assert_eq!(size(bad), None, "{bad}");
        }
    }
}
