//! config.json and process.json: read, parsed, and their quirks mended.
//!
//! A config that the crate `oci-spec` takes as it is costs one pass. Only one that it refuses is looked at as a JSON tree, where
//! what is good by the spec, or what runc has always taken, is brought into the form that the crate wants.

use anyhow::{Result, anyhow};
use oci_spec::runtime::{Capability, Process, Spec};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// Parses a config. What the spec wants warned about rather than refused (unknown capabilities) is dropped with a
/// warning; any other fault names its JSON path.
pub fn parse_spec(json: &[u8], warnings: &mut Vec<String>) -> Result<Spec> {
    let mut spec = parse(json, warnings, mend_spec)?;
    forget_missing_pids_limit(&mut spec, json);
    Ok(spec)
}

/// The crate makes 0 of a pids section without a limit, which would be a limit of one process.
fn forget_missing_pids_limit(spec: &mut Spec, json: &[u8]) {
    let resources = spec
        .linux_mut()
        .as_mut()
        .and_then(|l| l.resources_mut().as_mut());
    let Some(resources) = resources else { return };
    if resources.pids().is_some_and(|p| p.limit() == 0) {
        let tree = tree(json).unwrap_or_default();
        if tree
            .pointer("/linux/resources/pids/limit")
            .is_none_or(Value::is_null)
        {
            resources.set_pids(None);
        }
    }
}

/// Parses the file of `exec --process`.
pub fn parse_process(json: &[u8], warnings: &mut Vec<String>) -> Result<Process> {
    parse(json, warnings, |process, warnings| {
        mend_process(process, "", warnings)
    })
}

/// Parses the file of `update --resources`, which has the form of linux.resources, and mends it as those of a config.
pub fn parse_resources(json: &[u8]) -> Result<Value> {
    let mut resources = tree(json)?;
    if let Value::Object(fields) = &mut resources {
        mend_resources(fields);
        if fields.get("pids").is_some_and(|p| p.get("limit").is_none()) {
            fields.remove("pids"); // the crate would make 0 of it
        }
    }
    Ok(resources)
}

/// A config as a JSON tree, with its fields spelt as the spec has them. What follows the tree is not read, as with runc.
pub fn tree(json: &[u8]) -> Result<Value> {
    let mut values = serde_json::Deserializer::from_slice(json);
    let mut tree =
        Value::deserialize(&mut values).map_err(|e| anyhow!("is not valid JSON: {e}"))?;
    drop_nulls(&mut tree);
    let Value::Object(fields) = &mut tree else {
        return Err(anyhow!("is not a JSON object"));
    };
    spell_as_known(fields);
    Ok(tree)
}

fn parse<T: DeserializeOwned>(
    json: &[u8],
    warnings: &mut Vec<String>,
    mend: fn(&mut Map<String, Value>, &mut Vec<String>),
) -> Result<T> {
    if let Ok((good, false)) = read(json) {
        return Ok(good);
    }
    let mut tree = tree(json)?;
    if !ends(json) {
        warnings.push("what follows the JSON object is not read".into());
    }
    if let Value::Object(fields) = &mut tree {
        mend(fields, warnings);
    }
    typed(&tree).map_err(|(path, why)| match path.as_str() {
        "" => anyhow!(why),
        _ => anyhow!("{path}: {}{why}", runcs_words(&path)),
    })
}

/// A JSON tree as what it describes, or its first fault: the JSON path and what is wrong there.
///
/// By way of its text, so that the crate's types are compiled for one reader only: those for trees, and for one that keeps
/// a path all the way, would be a tenth of the binary.
pub fn typed<T: DeserializeOwned>(tree: &Value) -> Result<T, (String, String)> {
    let text = tree.to_string();
    read(text.as_bytes()).map(|(good, _)| good).map_err(|e| {
        let place = format!(" at line {} column {}", e.line(), e.column());
        let why = e.to_string();
        let why = why.strip_suffix(&place).unwrap_or(&why);
        (path_before(&text, e.column()), why.into())
    })
}

/// The JSON path of the value that ends at, or stands around, this place of a text without white space.
fn path_before(json: &str, end: usize) -> String {
    enum Step {
        /// None before its name.
        Field(Option<String>),
        Item(usize),
    }
    let mut steps = Vec::new();
    let mut place = 0;
    while place < end {
        let rest = &json[place..];
        match rest.as_bytes()[0] {
            b'{' => steps.push(Step::Field(None)),
            b'[' => steps.push(Step::Item(0)),
            b'}' | b']' => drop(steps.pop()),
            b',' => match steps.last_mut() {
                Some(Step::Field(name)) => *name = None,
                Some(Step::Item(n)) => *n += 1,
                None => {}
            },
            b'"' => {
                let mut text = serde_json::Deserializer::from_str(rest).into_iter::<String>();
                let text = (text.next().and_then(Result::ok), text.byte_offset());
                if let Some(Step::Field(name @ None)) = steps.last_mut() {
                    *name = text.0;
                }
                place += text.1.max(1) - 1;
            }
            _ => {}
        }
        place += 1;
    }
    let mut path = String::new();
    for step in steps {
        match step {
            Step::Field(None) => {}
            Step::Field(Some(name)) if path.is_empty() => path = name,
            Step::Field(Some(name)) => path = format!("{path}.{name}"),
            Step::Item(n) => path = format!("{path}[{n}]"),
        }
    }
    path
}

/// Whether a text that begins with a JSON value is that value alone.
fn ends(json: &[u8]) -> bool {
    serde_json::from_slice::<serde::de::IgnoredAny>(json).is_ok()
}

/// What runc's message has that is looked for in it, where a field is wrong by its form alone.
fn runcs_words(path: &str) -> &'static str {
    match path.strip_prefix("linux.memoryPolicy") {
        Some("" | ".mode") => "invalid memory policy mode: ",
        Some(path) if path.starts_with(".flags") => "invalid memory policy flag: ",
        _ => "",
    }
}

/// What the text describes, and whether it has fields in the wrong case.
fn read<T: DeserializeOwned>(json: &[u8]) -> serde_json::Result<(T, bool)> {
    let mut from = serde_json::Deserializer::from_slice(json);
    let mut misspelt = false;
    let good = serde_ignored::deserialize(&mut from, |path| {
        if let serde_ignored::Path::Map { key, .. } = path {
            misspelt |= known(&key).is_some();
        }
    })?;
    from.end()?;
    Ok((good, misspelt))
}

/// The spec's fields for Linux, two old ones (enableCMT, enableMBM) as the crate spells them. None differs from another by case alone.
const FIELDS: &str = "\
    access action additionalGids allow ambient annotations apparmorProfile architectures args blockIO bounding \
    burst capabilities cgroupsPath checkBeforeUpdate class classID closID consoleSize containerID cpu cpus \
    createContainer createRuntime cwd deadline defaultAction defaultErrnoRet destination devices disableOOMKiller \
    domain domainname effective enableCmt enableMbm enableMonitoring env errnoRet execCPUAffinity fileMode final flags gid gidMappings \
    hard hcaHandles hcaObjects height hooks hostID hostname hugepageLimits idle index inheritable initial intelRdt \
    ioPriority kernel kernelTCP l3CacheSchema leafWeight limit linux listenerMetadata listenerPath major \
    maskedPaths memBwSchema memory memoryPolicy mems minor mode mountLabel mounts name names namespaces nanosecs \
    netDevices network nice noNewPrivileges nodes ociVersion oomScoreAdj op options pageSize path period permitted \
    personality pids policy poststart poststop prestart priorities priority process quota rate rdma readonly \
    readonlyPaths realtimePeriod realtimeRuntime reservation resources rlimits root rootfsPropagation runtime \
    scheduler schemata seccomp secs selinuxLabel shares size soft source startContainer swap swappiness syscalls \
    sysctl terminal throttleReadBpsDevice throttleReadIOPSDevice throttleWriteBpsDevice throttleWriteIOPSDevice \
    timeOffsets timeout type uid uidMappings umask unified useHierarchy user value valueTwo weight weightDevice \
    width \
";

/// The fields whose content has names of the user's own choice.
const FREE: [&str; 6] = [
    "annotations",
    "netDevices",
    "rdma",
    "sysctl",
    "timeOffsets",
    "unified",
];

/// The field that is spelt like this but for upper and lower case.
fn known(field: &str) -> Option<&'static str> {
    FIELDS
        .split_ascii_whitespace()
        .find(|known| known.eq_ignore_ascii_case(field))
}

/// runc reads fields in any case, as all of Go's JSON, and configs made for it rely on that (`pagesize`, `CPU`).
fn spell_as_known(fields: &mut Map<String, Value>) {
    for (field, mut value) in std::mem::take(fields) {
        let field = known(&field).map_or(field, String::from);
        if !FREE.contains(&field.as_str()) {
            spell_all_as_known(&mut value);
        }
        merge(fields, field, value);
    }
}

/// As Go: what "CPU" and "cpu" have goes together.
fn merge(fields: &mut Map<String, Value>, field: String, value: Value) {
    match (fields.get_mut(&field), value) {
        (Some(Value::Object(have)), Value::Object(more)) => {
            for (field, value) in more {
                merge(have, field, value);
            }
        }
        (_, value) => drop(fields.insert(field, value)),
    }
}

fn spell_all_as_known(tree: &mut Value) {
    match tree {
        Value::Object(fields) => spell_as_known(fields),
        Value::Array(items) => items.iter_mut().for_each(spell_all_as_known),
        _ => {}
    }
}

/// A field of null is as good as none, in Go and so in what engines write; in a list of strings it is an empty one.
fn drop_nulls(tree: &mut Value) {
    match tree {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => {
            if items.iter().all(|item| item.is_null() || item.is_string()) {
                items
                    .iter_mut()
                    .filter(|item| item.is_null())
                    .for_each(|item| *item = "".into());
            }
            items.iter_mut().for_each(drop_nulls);
        }
        _ => {}
    }
}

/// Sections of other platforms, which the spec wants ignored like any unknown property.
const FOREIGN: [&str; 5] = ["windows", "solaris", "vm", "zos", "freebsd"];

fn mend_spec(config: &mut Map<String, Value>, warnings: &mut Vec<String>) {
    for section in FOREIGN {
        config.remove(section);
    }
    // properties that the crate knows and no version of the spec does
    config.remove("uidMappings");
    config.remove("gidMappings");
    if let Some(Value::Object(process)) = config.get_mut("process") {
        mend_process(process, "process.", warnings);
    }
    if let Some(Value::Object(linux)) = config.get_mut("linux") {
        mend_linux(linux);
    }
}

fn mend_linux(linux: &mut Map<String, Value>) {
    // as runc: a profile without an action and without rules is none
    if let Some(Value::Object(seccomp)) = linux.get("seccomp")
        && is_blank(seccomp.get("defaultAction"))
        && is_blank(seccomp.get("syscalls"))
    {
        linux.remove("seccomp");
    }
    if let Some(Value::Object(resources)) = linux.get_mut("resources") {
        mend_resources(resources);
    }
}

/// As runc: a rule without a type is for all devices.
fn mend_resources(resources: &mut Map<String, Value>) {
    let rules = resources.get_mut("devices").and_then(Value::as_array_mut);
    for rule in rules.into_iter().flatten().filter_map(Value::as_object_mut) {
        if is_blank(rule.get("type")) {
            rule.remove("type");
        }
    }
}

fn is_blank(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::String(text)) => text.is_empty(),
        Some(Value::Array(items)) => items.is_empty(),
        Some(_) => false,
    }
}

/// `at` is the JSON path of the process with a dot behind it.
fn mend_process(process: &mut Map<String, Value>, at: &str, warnings: &mut Vec<String>) {
    // the crate wants both; a process without user is root's in runc, and the plan asks for cwd in its own words
    process
        .entry("user")
        .or_insert_with(|| Value::Object(Map::new()));
    process.entry("cwd").or_insert_with(|| "".into());
    if let Some(Value::Object(sets)) = process.get_mut("capabilities") {
        drop_unknown_capabilities(sets, at, warnings);
    }
    if let Some(Value::Object(affinity)) = process.get_mut("execCPUAffinity") {
        for field in ["initial", "final"] {
            mend_cpu_list(affinity.entry(field).or_insert(Value::Null));
        }
    }
    let scheduler = process.get_mut("scheduler").and_then(Value::as_object_mut);
    let flags = scheduler.and_then(|s| s.get_mut("flags")?.as_array_mut());
    for flag in flags.into_iter().flatten() {
        mend_scheduler_flag(flag);
    }
}

/// "The runtime MUST log and ignore" what it does not know: new kernels have new capabilities.
fn drop_unknown_capabilities(sets: &mut Map<String, Value>, at: &str, warnings: &mut Vec<String>) {
    let mut unknown: Vec<String> = Vec::new();
    for set in sets.values_mut().filter_map(Value::as_array_mut) {
        set.retain(|cap| {
            let Value::String(name) = cap else {
                return true;
            };
            let known = serde_json::from_value::<Capability>(cap.clone()).is_ok();
            if !known && !unknown.contains(name) {
                unknown.push(name.clone());
            }
            known
        });
    }
    if !unknown.is_empty() {
        warnings.push(format!(
            "{at}capabilities: ignoring unknown or unavailable capabilities: [{}]",
            unknown.join(", ")
        ));
    }
}

/// The crate takes lists without spaces and doubled commas only, and no empty one; runc and the kernel are not as strict.
fn mend_cpu_list(list: &mut Value) {
    let Value::String(text) = list else { return };
    let parts: Vec<&str> = text
        .split(',')
        .map(str::trim)
        .filter(|p| !p.is_empty())
        .collect();
    *list = match parts.as_slice() {
        [] => Value::Null,
        parts => parts.join(",").into(),
    };
}

/// The crate has two of the spec's names wrong.
fn mend_scheduler_flag(flag: &mut Value) {
    match flag.as_str() {
        Some("SCHED_FLAG_RESET_ON_FORK") => *flag = "SCHED_RESET_ON_FORK".into(),
        Some("SCHED_FLAG_DL_OVERRUN") => *flag = "SCHED_FLAG_D_L_OVERRUN".into(),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pids_section_without_a_limit_is_none() {
        let limit = |pids: &str| {
            let json = format!(
                r#"{{"ociVersion": "1.3.0", "linux": {{"resources": {{"pids": {pids}}}}}}}"#
            );
            let spec = parse_spec(json.as_bytes(), &mut Vec::new()).unwrap();
            let resources = spec.linux().as_ref().unwrap().resources().as_ref().unwrap();
            resources.pids().map(|p| p.limit())
        };
        assert_eq!(limit("{}"), None);
        assert_eq!(limit(r#"{"limit": null}"#), None);
        assert_eq!(limit(r#"{"limit": 0}"#), Some(0));
        assert_eq!(limit(r#"{"limit": 5}"#), Some(5));
    }
    use serde_json::json;

    fn read(config: &Value) -> (Spec, Vec<String>) {
        let mut warnings = Vec::new();
        let spec = parse_spec(config.to_string().as_bytes(), &mut warnings);
        (spec.unwrap_or_else(|e| panic!("{config}: {e}")), warnings)
    }

    fn fault(config: Value) -> String {
        let error = parse_spec(config.to_string().as_bytes(), &mut Vec::new());
        error.expect_err("a fault").to_string()
    }

    fn process(text: &str) -> Process {
        parse_process(text.as_bytes(), &mut Vec::new()).unwrap()
    }

    #[test]
    fn a_good_config_is_taken_as_it_is() {
        let (spec, warnings) =
            read(&json!({"ociVersion": "1.3.0", "root": {"path": "r"}, "unknown": [1]}));
        assert_eq!(spec.version(), "1.3.0");
        assert_eq!(warnings, Vec::<String>::new());
    }

    #[test]
    #[allow(deprecated)]
    fn old_fields_of_the_specification_are_known() {
        let (spec, _) =
            read(&json!({"ociVersion": "1.0.0", "linux": {"intelRdt": {"enableCMT": true}}}));
        let rdt = spec.linux().as_ref().unwrap().intel_rdt().clone().unwrap();
        assert_eq!(*rdt.enable_cmt(), Some(true));
    }

    #[test]
    fn fields_are_known_in_any_case() {
        let (spec, _) = read(&json!({
            "ociversion": "1.3.0",
            "ROOT": {"Path": "r"},
            "annotations": {"Path": "kept"},
            "linux": {"resources": {"CPU": {"Shares": 7}, "cpu": {"mems": "0"}, "hugepageLimits": [{"pagesize": "2MB", "limit": 1}]}},
        }));
        assert_eq!(spec.version(), "1.3.0");
        assert_eq!(spec.root().as_ref().unwrap().path().to_str(), Some("r"));
        assert_eq!(spec.annotations().as_ref().unwrap()["Path"], "kept");
        let linux = spec.linux().as_ref().unwrap();
        let resources = linux.resources().as_ref().unwrap();
        let cpu = resources.cpu().as_ref().unwrap();
        assert_eq!((cpu.shares(), cpu.mems().as_deref()), (Some(7), Some("0")));
        let pages = &resources.hugepage_limits().as_ref().unwrap()[0];
        assert_eq!(pages.page_size(), "2MB");
    }

    #[test]
    fn what_is_not_json_has_a_line_and_a_column() {
        for (text, error) in [
            (
                "",
                "is not valid JSON: EOF while parsing a value at line 1 column 0",
            ),
            (
                "{\n  \"ociVersion\": \"1.0",
                "is not valid JSON: EOF while parsing a string at line 2 column 20",
            ),
            (
                "{\n\"a\": x}",
                "is not valid JSON: expected value at line 2 column 6",
            ),
            ("\"text\"", "is not a JSON object"),
        ] {
            let found = parse_spec(text.as_bytes(), &mut Vec::new()).unwrap_err();
            assert_eq!(found.to_string(), error, "{text:?}");
        }
        let found = parse_process(b"{\"cwd\": 1", &mut Vec::new()).unwrap_err();
        assert_eq!(
            found.to_string(),
            "is not valid JSON: EOF while parsing an object at line 1 column 9"
        );
    }

    #[test]
    fn what_follows_is_not_read() {
        let mut warnings = Vec::new();
        let text = br#"{"ociVersion": "1.0.0", "linux": {"resources": {"pids": {"limit": 0}}}} x"#;
        let spec = parse_spec(text, &mut warnings).unwrap();
        let resources = spec.linux().as_ref().unwrap().resources().clone().unwrap();
        assert_eq!(resources.pids().map(|p| p.limit()), Some(0));
        assert_eq!(warnings, ["what follows the JSON object is not read"]);
    }

    #[test]
    fn faults_have_a_json_path() {
        for (config, error) in [
            (
                json!({"linux": {"namespaces": [{"type": "pid"}, {"type": "mnt"}]}}),
                "linux.namespaces[1].type: unknown variant `mnt`, expected one of `mount`, `cgroup`, `uts`, `ipc`, `user`, \
                 `pid`, `network`, `time`",
            ),
            (
                json!({"mounts": [{"type": "proc"}]}),
                "mounts[0]: missing field `destination`",
            ),
            (
                json!({"process": {"user": {"uid": -1}}}),
                "process.user.uid: invalid value: integer `-1`, expected u32",
            ),
            (
                json!({"process": {"args": "sh"}}),
                "process.args: invalid type: string \"sh\", expected a sequence",
            ),
            (
                json!({"process": {"rlimits": [{"type": "RLIMIT_X"}]}}),
                "process.rlimits[0].type: unknown variant `RLIMIT_X`, expected one of `RLIMIT_CPU`, `RLIMIT_FSIZE`, \
                 `RLIMIT_DATA`, `RLIMIT_STACK`, `RLIMIT_CORE`, `RLIMIT_RSS`, `RLIMIT_NPROC`, `RLIMIT_NOFILE`, \
                 `RLIMIT_MEMLOCK`, `RLIMIT_AS`, `RLIMIT_LOCKS`, `RLIMIT_SIGPENDING`, `RLIMIT_MSGQUEUE`, `RLIMIT_NICE`, \
                 `RLIMIT_RTPRIO`, `RLIMIT_RTTIME`",
            ),
            (
                json!({"linux": {"personality": {"domain": "BSD"}}}),
                "linux.personality.domain: unknown variant `BSD`, expected `LINUX` or `LINUX32`",
            ),
            (
                json!({"linux": {"devices": [{"path": "/dev/x", "type": "d"}]}}),
                "linux.devices[0].type: unknown variant `d`, expected one of `a`, `b`, `c`, `u`, `p`",
            ),
            (
                json!({"annotations": {"a": 1}}),
                "annotations.a: invalid type: integer `1`, expected a string",
            ),
            (
                json!({"process": {"execCPUAffinity": {"initial": "a"}}}),
                "process.execCPUAffinity: Invalid execCPUAffinity format: a",
            ),
        ] {
            assert_eq!(fault(config), error);
        }
        let error = parse_process(b"{\"user\": 1}", &mut Vec::new()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "user: invalid type: integer `1`, expected struct User"
        );
    }

    #[test]
    fn a_path_is_that_of_the_value_before_a_place() {
        let text = r#"{"a":{"b\"]":[{"c":1},[true,{}]]},"d":2}"#;
        for (end, path) in [
            (1, ""),
            (5, "a"),
            (text.find("1}").unwrap() + 1, "a.b\"][0].c"),
            (text.find("},[").unwrap() + 1, "a.b\"][0]"),
            (text.find(",{}").unwrap(), "a.b\"][1][0]"),
            (text.find("]]").unwrap(), "a.b\"][1][1]"),
            (text.find("},\"d").unwrap() + 1, "a"),
            (text.len() - 1, "d"),
            (text.len(), ""),
        ] {
            assert_eq!(path_before(text, end), path, "{}", &text[..end]);
        }
    }

    #[test]
    fn unknown_capabilities_are_dropped_with_one_warning() {
        let sets = json!({"bounding": ["CAP_KILL", "CAP_NEW", "CAP_"], "permitted": ["CAP_NEW"]});
        let (spec, warnings) = read(&json!({"process": {"cwd": "/", "capabilities": sets}}));
        let text = "ignoring unknown or unavailable capabilities: [CAP_NEW, CAP_]";
        assert_eq!(warnings, [format!("process.capabilities: {text}")]);
        let sets = spec
            .process()
            .as_ref()
            .unwrap()
            .capabilities()
            .clone()
            .unwrap();
        assert_eq!(sets.bounding().as_ref().unwrap().len(), 1);
        assert_eq!(sets.permitted().as_ref().unwrap().len(), 0);

        let mut warnings = Vec::new();
        let json = br#"{"cwd": "/", "capabilities": {"ambient": ["CAP_NEW"]}}"#;
        parse_process(json, &mut warnings).unwrap();
        assert_eq!(
            warnings,
            ["capabilities: ignoring unknown or unavailable capabilities: [CAP_NEW]"]
        );
    }

    #[test]
    fn nulls_are_absent_fields() {
        let (spec, _) = read(&json!({
            "ociVersion": null,
            "root": {"path": null},
            "hooks": null,
            "mounts": [{"destination": "/x", "type": null, "options": null}],
            "process": {"user": null, "args": ["a", null], "env": null, "capabilities": null},
            "linux": {"timeOffsets": null, "cgroupsPath": null, "uidMappings": [{"containerID": null}]},
        }));
        assert_eq!(spec.version(), "");
        let process = spec.process().as_ref().unwrap();
        assert_eq!(process.user().uid(), 0);
        assert_eq!(process.args().as_ref().unwrap(), &["a", ""]);
    }

    #[test]
    fn sections_of_other_platforms_are_not_read() {
        let (spec, _) = read(&json!({
            "windows": 1, "solaris": 2, "vm": {"kernel": {}}, "zos": {"namespaces": [{"type": "odd"}]}, "freebsd": {},
            "uidMappings": "x", "hostname": "h", "root": null,
        }));
        assert_eq!(spec.hostname().as_deref(), Some("h"));
        assert!(spec.vm().is_none() && spec.windows().is_none());
    }

    #[test]
    fn a_process_may_lack_user_and_cwd() {
        let p = process(r#"{"args": ["a"]}"#);
        assert_eq!((p.user().uid(), p.cwd().as_os_str().is_empty()), (0, true));
        let p = process(r#"{"args": ["a"], "user": {"uid": 5}, "cwd": "/"}"#);
        assert_eq!((p.user().uid(), p.user().gid()), (5, 0));
    }

    #[test]
    fn resources_are_mended_as_those_of_a_config() {
        let tree = parse_resources(
            br#"{"CPU": {"Shares": 7, "cpus": null}, "pids": {}, "devices": [{"type": "", "access": "r"}], "unified": {"Path": "1"}}"#,
        );
        assert_eq!(
            tree.unwrap(),
            json!({"cpu": {"shares": 7}, "devices": [{"access": "r"}], "unified": {"Path": "1"}})
        );
        let error = parse_resources(b"[]").unwrap_err();
        assert_eq!(error.to_string(), "is not a JSON object");
    }

    #[test]
    fn cpu_lists_as_runc_takes_them() {
        for (affinity, initial, last) in [
            (r#"{"initial": "0-1"}"#, Some("0-1"), None),
            (r#"{"final": " 1 ,, 2-3,"}"#, None, Some("1,2-3")),
            (r#"{"initial": "", "final": ","}"#, None, None),
            ("{}", None, None),
        ] {
            let p = process(&format!(
                r#"{{"cwd": "/", "user": {{}}, "execCPUAffinity": {affinity}}}"#
            ));
            let a = p.exec_cpu_affinity().clone().unwrap();
            assert_eq!(
                (a.initial().as_deref(), a.cpu_affinity_final().as_deref()),
                (initial, last)
            );
        }
    }

    #[test]
    fn scheduler_flags_have_the_specs_names() {
        for flag in [
            "RESET_ON_FORK",
            "RECLAIM",
            "DL_OVERRUN",
            "KEEP_POLICY",
            "KEEP_PARAMS",
            "UTIL_CLAMP_MIN",
            "UTIL_CLAMP_MAX",
        ] {
            let p = process(&format!(
                r#"{{"scheduler": {{"policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_{flag}"]}}}}"#
            ));
            let scheduler = p.scheduler().clone().unwrap();
            assert_eq!(scheduler.flags().as_ref().unwrap().len(), 1, "{flag}");
        }
    }

    #[test]
    fn empty_words_of_linux_are_absent() {
        let (spec, _) = read(&json!({"linux": {
            "seccomp": {"defaultAction": "", "syscalls": []},
            "resources": {"devices": [{"allow": true, "type": "", "access": "r"}, {"allow": false, "type": "c"}]},
        }}));
        let linux = spec.linux().as_ref().unwrap();
        assert!(linux.seccomp().is_none());
        let rules = linux
            .resources()
            .as_ref()
            .unwrap()
            .devices()
            .clone()
            .unwrap();
        assert!(rules[0].typ().is_none() && rules[1].typ().is_some());
        let no_action = fault(json!({"linux": {"seccomp": {"syscalls": [{}]}}}));
        assert!(no_action.starts_with("linux.seccomp"), "{no_action}");
    }
}
