//! `update`: the limits that a container has and those that are asked for → the writes that make the one the other.
//!
//! What is asked for is laid over `linux.resources` as they were, since fields belong together (memory and swap, quota and period); but
//! only what it names or changes is written, so that a limit that others have set by hand stays.

use super::Violations;
use super::cgroup::nodes_given;
use super::resources::{self, DeviceRule, Write};
use crate::config;
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxResources, Spec};
use serde_json::{Map, Value};

#[derive(Debug, Default)]
pub struct Update {
    /// linux.resources as they are afterwards.
    pub resources: Value,
    pub writes: Vec<Write>,
    /// The rules before and after; None leaves them as they are.
    pub devices: Option<Devices>,
    pub warnings: Vec<String>,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Devices {
    pub before: Vec<DeviceRule>,
    pub after: Vec<DeviceRule>,
}

/// `spec` is the container's config, `has` its linux.resources once more as a tree, and `asked` what has their form.
pub fn plan(spec: &Spec, has: &Value, asked: &Value) -> Result<Update, Violations> {
    let mut v = Violations::default();
    let mut result = has.clone();
    merge(&mut result, asked);
    forget_swap(&mut result, asked);
    let mut asked = asked.clone();
    complete_swap(&mut asked, &result);
    let typed_asked = typed(&asked)?;
    let devices = devices(spec, &typed_asked, &mut v);
    if devices.is_none() && result.get("devices").is_some() {
        result["devices"] = has["devices"].clone();
    }

    // Whether what is asked for is in order shows in the result; what it alone would write says which files it means.
    let mut alone = Violations::default();
    let meant = resources::plan(&typed_asked, "", &mut alone);
    let is_meant = |w: &Write| meant.iter().any(|m| target(m) == target(w));
    drop_overruled(&mut result, &asked, &meant);
    let before = resources::plan(&typed(has)?, "", &mut Violations::default());
    let writes = resources::plan(&typed(&result)?, "", &mut v);
    let mut warnings = alone.take_warnings();
    warnings.append(&mut v.take_warnings());
    warnings.retain(|w| names_asked(w, &asked));
    warnings.dedup();
    check_idle(&asked, &result, &mut v);

    let writes: Vec<Write> = writes
        .iter()
        .enumerate()
        .filter(|(i, w)| {
            let changed = !before
                .iter()
                .any(|b| (&b.file, &b.value) == (&w.file, &w.value));
            let last = !writes[i + 1..].iter().any(|l| target(l) == target(w));
            last && (changed || is_meant(w))
        })
        .map(|(_, w)| w.clone())
        .collect();
    v.into_result(Update {
        resources: result,
        writes,
        devices,
        warnings,
    })
}

/// Lists of limits by device number or page size are merged by these; other lists are replaced, the device rules among them.
fn merge(old: &mut Value, new: &Value) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            for (key, value) in new {
                let slot = old.entry(key.as_str()).or_insert(Value::Null);
                if key == "devices" {
                    *slot = value.clone();
                } else {
                    merge(slot, value);
                }
            }
        }
        (Value::Array(old), Value::Array(new)) if new.iter().all(|n| id(n).is_some()) => {
            for item in new {
                // of several for the same device the last counts
                match old.iter_mut().rfind(|o| id(o) == id(item)) {
                    Some(same) => merge(same, item),
                    None => old.push(item.clone()),
                }
            }
        }
        (old, new) => *old = new.clone(),
    }
}

/// What a limit of a list is for.
fn id(item: &Value) -> Option<(&Value, &Value)> {
    let item = item.as_object()?;
    let size = item.get("pageSize").map(|s| (s, s));
    size.or_else(|| Some((item.get("major")?, item.get("minor")?)))
}

/// Without a limit of memory there is none of swap either, unless it is asked for.
fn forget_swap(result: &mut Value, asked: &Value) {
    if asked.pointer("/memory/limit") == Some(&(-1).into())
        && asked.pointer("/memory/swap").is_none()
        && let Some(memory) = section(result, "memory")
    {
        memory.remove("swap");
    }
}

/// A limit of swap is told by that of memory, which may be the one that there was.
fn complete_swap(asked: &mut Value, result: &Value) {
    if let Some(limit) = result.pointer("/memory/limit")
        && let Some(memory) = section(asked, "memory")
        && memory.contains_key("swap")
    {
        memory.entry("limit").or_insert(limit.clone());
    }
}

fn section<'a>(tree: &'a mut Value, name: &str) -> Option<&'a mut Map<String, Value>> {
    tree.get_mut(name)?.as_object_mut()
}

/// A key of `unified` wins over the field for the same file, but not over one that comes later.
fn drop_overruled(result: &mut Value, asked: &Value, meant: &[Write]) {
    let Some(unified) = section(result, "unified") else {
        return;
    };
    unified.retain(|file, _| {
        asked
            .pointer("/unified")
            .is_some_and(|u| u.get(file).is_some())
            || !meant.iter().any(|w| w.file == *file)
    });
}

/// "cpu.shares: …" is about something that is asked for.
fn names_asked(warning: &str, asked: &Value) -> bool {
    let path = warning.split(": ").next().unwrap_or_default();
    let pointer = match path.strip_prefix("unified.") {
        Some(file) => format!("/unified/{file}"),
        // "devices[0].access"
        None => format!("/{}", path.replace(['.', '['], "/").replace(']', "")),
    };
    asked.pointer(&pointer).is_some()
}

/// For systemd a weight ends the idleness: both are its property CPUWeight.
pub fn weight_ends_idleness(asked: &mut Value, has: &Value) {
    let idle = has.pointer("/cpu/idle") == Some(&1.into())
        || has.pointer("/unified/cpu.idle") == Some(&"1".into());
    for (section, weight, name, busy) in [
        ("cpu", "shares", "idle", Value::from(0)),
        ("unified", "cpu.weight", "cpu.idle", "0".into()),
    ] {
        if let Some(fields) = asked.get_mut(section).and_then(Value::as_object_mut)
            && idle
            && fields.get(weight).is_some_and(|w| *w != 0)
        {
            fields.entry(name).or_insert(busy);
        }
    }
}

/// The kernel takes no weight for an idle cgroup.
fn check_idle(asked: &Value, result: &Value, v: &mut Violations) {
    let shares = asked.pointer("/cpu/shares").and_then(Value::as_u64);
    if shares.is_some_and(|s| s != 0)
        && asked.pointer("/cpu/idle").is_none()
        && result.pointer("/cpu/idle") == Some(&1.into())
    {
        v.add(
            "cpu.shares",
            "the cgroup is idle (cpu.idle) and so has no weight; set cpu.idle to 0 too",
        );
    }
}

/// The file, and which of its lines and values a write is for: "8:0 rbps" of io.max.
fn target(w: &Write) -> (&str, &str) {
    let line = match w.file.as_str() {
        "io.max" | "io.latency" | "rdma.max" => w.value.split('=').next(),
        "io.weight" | "io.bfq.weight" | "misc.max" | "dmem.max" | "dmem.low" | "dmem.min" => w
            .value
            .rsplit_once(' ')
            .map(|(key, _)| key)
            .filter(|key| *key != "default"),
        _ => None,
    };
    (&w.file, line.unwrap_or_default())
}

fn typed(tree: &Value) -> Result<LinuxResources, Violations> {
    if tree.is_null() {
        return Ok(LinuxResources::default());
    }
    config::typed(tree).map_err(|(path, why)| {
        let mut v = Violations::default();
        v.add(path, why);
        v
    })
}

/// Engines send all rules that they know, changed or not. What a wrapper of theirs has added to the config (a GPU's, say) is not
/// among them and stays. A list that allows nothing is none of theirs.
fn devices(spec: &Spec, asked: &LinuxResources, v: &mut Violations) -> Option<Devices> {
    let asked = asked.devices().as_ref().filter(|d| !d.is_empty())?;
    let linux = spec.linux().as_ref();
    let has = linux.and_then(|l| l.resources().as_ref()?.devices().as_deref());
    let has = has.unwrap_or_default();
    let nodes = nodes_given(linux);
    let after = resources::devices(asked, "devices", &nodes, v);
    let mut rest = has.iter();
    let allows = asked.iter().any(LinuxDeviceCgroup::allow);
    if asked == has || allows && asked.iter().all(|a| rest.any(|h| h == a)) {
        if asked.len() < has.len() {
            v.warn(
                "devices",
                "holds only rules that the container has, so its others stay too; to take one away, list a rule that denies it",
            );
        }
        return None;
    }
    let before = resources::devices(has, "devices", &nodes, &mut Violations::default());
    (before != after).then_some(Devices { before, after })
}

#[cfg(test)]
mod tests {
    use super::super::violations::testing;
    use super::*;
    use serde_json::json;

    fn updated(has: &Value, asked: Value) -> Result<Update, String> {
        let spec = testing::linux(json!({"resources": has}));
        plan(&spec, has, &asked).map_err(|v| v.to_string())
    }

    #[track_caller]
    fn writes(has: Value, asked: Value, want: &[&str]) -> Value {
        let update = updated(&has, asked.clone()).unwrap();
        let got: Vec<String> = update
            .writes
            .iter()
            .map(|w| format!("{}={}", w.file, w.value))
            .collect();
        assert_eq!(got, want, "{asked} over {has}");
        update.resources
    }

    #[test]
    fn only_what_is_asked_for_is_written() {
        let has = json!({"memory": {"limit": 100, "reservation": 50}, "pids": {"limit": 7}, "cpu": {"shares": 1024, "cpus": "0"}});
        writes(has.clone(), json!({}), &[]);
        let after = writes(has.clone(), json!({"pids": {"limit": 8}}), &["pids.max=8"]);
        assert_eq!(after["pids"]["limit"], 8);
        assert_eq!(after["memory"], has["memory"]);
        // others may have changed it since
        writes(has.clone(), json!({"pids": {"limit": 7}}), &["pids.max=7"]);
        writes(Value::Null, json!({"pids": {"limit": 7}}), &["pids.max=7"]);
        writes(
            has,
            json!({"memory": {"reservation": 20}}),
            &["memory.low=20"],
        );
    }

    #[test]
    fn memory_and_swap_belong_together() {
        let has = json!({"memory": {"limit": 100, "swap": 150}});
        writes(
            has.clone(),
            json!({"memory": {"limit": 120}}),
            &["memory.swap.max=30", "memory.max=120"],
        );
        writes(
            has.clone(),
            json!({"memory": {"swap": 160}}),
            &["memory.swap.max=60", "memory.max=100"],
        );
        let after = writes(
            has.clone(),
            json!({"memory": {"limit": -1}}),
            &["memory.swap.max=max", "memory.max=max"],
        );
        writes(after, json!({"memory": {"limit": 70}}), &["memory.max=70"]);
        assert_eq!(
            updated(&has, json!({"memory": {"limit": 200}})).unwrap_err(),
            "memory.swap: memory+swap limit should be >= memory limit: 150 < 200"
        );
        assert_eq!(
            updated(&Value::Null, json!({"memory": {"swap": 200}})).unwrap_err(),
            "memory.swap: unable to set swap limit without memory limit; set memory.limit too"
        );
    }

    #[test]
    fn quota_and_period_belong_together() {
        let has = json!({"cpu": {"quota": 50_000, "period": 200_000}});
        writes(
            has.clone(),
            json!({"cpu": {"quota": 70_000}}),
            &["cpu.max=70000 200000"],
        );
        writes(
            has.clone(),
            json!({"cpu": {"period": 100_000}}),
            &["cpu.max=50000 100000"],
        );
        writes(
            has.clone(),
            json!({"cpu": {"quota": 50_000}}),
            &["cpu.max=50000 200000"],
        );
        let after = writes(has, json!({"cpu": {"quota": -1}}), &["cpu.max=max 200000"]);
        writes(
            after,
            json!({"cpu": {"period": 200_000}}),
            &["cpu.max=max 200000"],
        );
        let has = json!({"cpu": {"quota": 50_000, "burst": 10_000}});
        writes(
            has.clone(),
            json!({"cpu": {"quota": 60_000}}),
            &["cpu.max=60000 100000"],
        );
        assert_eq!(
            updated(&has, json!({"cpu": {"burst": 60_000}})).unwrap_err(),
            "cpu.burst: is 60000, more than the quota of 50000"
        );
    }

    #[test]
    fn idle_and_weight() {
        let has = json!({"cpu": {"shares": 2048}});
        let update = updated(&has, json!({"cpu": {"idle": 1}})).unwrap();
        assert_eq!(update.warnings, Vec::<String>::new());
        let idle = update.resources;
        assert_eq!(idle["cpu"], json!({"idle": 1, "shares": 2048}));
        assert_eq!(
            updated(&idle, json!({"cpu": {"shares": 5}})).unwrap_err(),
            "cpu.shares: the cgroup is idle (cpu.idle) and so has no weight; set cpu.idle to 0 too"
        );
        for (mut asked, busy) in [
            (
                json!({"cpu": {"shares": 5}}),
                json!({"cpu": {"shares": 5, "idle": 0}}),
            ),
            (
                json!({"unified": {"cpu.weight": "5"}}),
                json!({"unified": {"cpu.weight": "5", "cpu.idle": "0"}}),
            ),
            (json!({"cpu": {"idle": 1}}), json!({"cpu": {"idle": 1}})),
        ] {
            weight_ends_idleness(&mut asked, &has);
            assert_ne!(asked.pointer("/cpu/idle"), Some(&0.into()));
            weight_ends_idleness(&mut asked, &idle);
            assert_eq!(asked, busy);
        }
        writes(
            idle.clone(),
            json!({"cpu": {"idle": 0}}),
            &["cpu.idle=0", "cpu.weight=174"],
        );
        let update = updated(&idle, json!({"cpu": {"shares": 5, "idle": 1}})).unwrap();
        assert_eq!(
            update.warnings,
            ["cpu.shares: unable to apply both, ignored: an idle cgroup (cpu.idle) has no weight"]
        );
        let both = json!({"unified": {"cpu.idle": "1", "cpu.weight": "5"}});
        assert_eq!(
            updated(&idle, both).unwrap().warnings,
            [
                "unified.cpu.weight: unable to apply both, ignored: an idle cgroup (cpu.idle) has no weight"
            ]
        );
    }

    #[test]
    fn unified_and_fields_for_the_same_file() {
        let has = json!({"pids": {"limit": 7}, "unified": {"memory.max": "1", "memory.high": "2"}});
        let after = writes(
            has.clone(),
            json!({"memory": {"limit": 9}}),
            &["memory.max=9"],
        );
        assert_eq!(after["unified"], json!({"memory.high": "2"}));
        let after = writes(has, json!({"unified": {"pids.max": "8"}}), &["pids.max=8"]);
        let after = writes(after, json!({"pids": {"limit": 9}}), &["pids.max=9"]);
        assert_eq!(after["unified"].get("pids.max"), None);
    }

    #[test]
    fn lists_are_merged_by_device_and_page_size() {
        let rate = |minor: u32, rate: u64| json!({"major": 8, "minor": minor, "rate": rate});
        let has = json!({
            "blockIO": {"throttleReadBpsDevice": [rate(0, 1), rate(0, 2), rate(16, 3)]},
            "hugepageLimits": [{"pageSize": "2MB", "limit": 5}],
        });
        let asked = json!({
            "blockIO": {"throttleReadBpsDevice": [rate(0, 9)], "throttleWriteIOPSDevice": [rate(0, 4)]},
            "hugepageLimits": [{"pageSize": "1GB", "limit": 6}],
        });
        let after = writes(
            has,
            asked,
            &[
                "io.max=8:0 rbps=9",
                "io.max=8:0 wiops=4",
                "hugetlb.1GB.max=6",
                "hugetlb.1GB.rsvd.max=6",
            ],
        );
        assert_eq!(
            after["blockIO"]["throttleReadBpsDevice"],
            json!([rate(0, 1), rate(0, 9), rate(16, 3)])
        );
        assert_eq!(after["hugepageLimits"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn weights_have_two_files() {
        writes(
            json!({"blockIO": {"weight": 10, "weightDevice": [{"major": 8, "minor": 0, "weight": 20}]}}),
            json!({"blockIO": {"weight": 100}}),
            &["io.bfq.weight=100", "io.weight=910"],
        );
    }

    #[test]
    fn device_rules_are_replaced_or_kept() {
        let rule = |minor: u32| json!({"allow": true, "type": "c", "major": 1, "minor": minor, "access": "r"});
        let has = json!({"devices": [rule(3), rule(11)]});
        for same in [json!({}), json!({"devices": []}), has.clone()] {
            let update = updated(&has, same).unwrap();
            assert_eq!(update.devices, None);
            assert_eq!(update.resources["devices"], has["devices"]);
        }
        // an engine's, of a config to which others have added
        for some in [json!([rule(3)]), json!([rule(11)])] {
            let update = updated(&has, json!({"devices": some})).unwrap();
            assert_eq!(update.devices, None, "{some}");
            assert_eq!(update.resources["devices"], has["devices"]);
            assert!(
                update.warnings[0].starts_with("devices: holds only rules that"),
                "{:?}",
                update.warnings
            );
        }
        let deny = json!({"allow": false, "access": "rwm"});
        let all = json!({"devices": [deny, rule(3)]});
        let update = updated(&all, json!({"devices": [deny]})).unwrap();
        assert_eq!(update.resources["devices"], json!([deny]));
        for other in [
            json!([rule(5)]),
            json!([rule(11), rule(3)]),
            json!([rule(3), rule(3)]),
        ] {
            let update = updated(&has, json!({"devices": other})).unwrap();
            let devices = update.devices.unwrap();
            assert_ne!(devices.before, devices.after);
            assert_eq!(update.resources["devices"], other);
        }
    }

    #[test]
    fn warnings_of_what_is_asked_for_are_told() {
        let warnings = |asked| updated(&Value::Null, asked).unwrap().warnings;
        let leaf =
            json!({"blockIO": {"weightDevice": [{"major": 8, "minor": 0, "leafWeight": 5}]}});
        let ignored = "blockIO.weightDevice[0].leafWeight: ignored: cgroup v2 has no leaf weights";
        assert_eq!(warnings(leaf), [ignored]);
        let access = json!({"devices": [{"allow": true, "access": "ra"}]});
        let left_out = "devices[0].access: holds 'a', which is none of r, w and m, and is left out";
        assert_eq!(warnings(access), [left_out]);
    }

    #[test]
    fn of_a_file_with_several_lines_all_are_written() {
        writes(
            Value::Null,
            json!({"unified": {"dmem.max": "a 1\nb 2", "misc.max": "c 3\nd 4"}}),
            &[
                "dmem.max=a 1\n",
                "dmem.max=b 2",
                "misc.max=c 3\n",
                "misc.max=d 4",
            ],
        );
    }

    #[test]
    fn faults_have_a_path() {
        assert_eq!(
            updated(&Value::Null, json!({"cpu": {"shares": "many"}})).unwrap_err(),
            "cpu.shares: invalid type: string \"many\", expected u64"
        );
        assert_eq!(
            updated(&Value::Null, json!({"memory": {"kernel": 5}}))
                .unwrap()
                .warnings,
            ["memory.kernel: kernel memory limits are ignored: the kernel has none any more"]
        );
    }
}
