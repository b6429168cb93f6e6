//! The specification's JSON schemas (tests/data): what husk prints is as they say, and each of their properties has a test.

use crate::support::*;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

tests![
    each_property_has_a_test,
    checker_finds_faults,
    features_are_as_the_schema_says,
    features_are_complete,
    features_are_true,
    state_is_as_the_schema_says,
];

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The schema files, by name.
struct Schemas(BTreeMap<String, Value>);

/// A part of a schema, and the file that it is in.
type Part<'a> = (&'a Value, &'a str);

/// Sections of other systems, whose files are not among the data.
const FOREIGN: [&str; 5] = ["windows", "solaris", "vm", "zos", "freebsd"];

impl Schemas {
    fn load() -> Schemas {
        let dir = repository().join("tests/data/runtime-spec");
        let files = std::fs::read_dir(dir).expect("tests/data/runtime-spec");
        let paths = files.map(|f| f.expect("a file").path());
        let jsons = paths.filter(|p| p.extension().is_some_and(|e| e == "json"));
        let read = |p: PathBuf| {
            let name = p.file_name().unwrap().to_string_lossy().into_owned();
            let text = std::fs::read(&p).expect("a schema");
            (name, serde_json::from_slice(&text).expect("JSON"))
        };
        Schemas(jsons.map(read).collect())
    }

    fn root<'a>(&'a self, file: &'a str) -> Part<'a> {
        (&self.0[file], file)
    }

    /// What a part stands for, through its references.
    fn resolve<'a>(&'a self, mut part: Part<'a>) -> Part<'a> {
        while let Some(reference) = part.0.get("$ref").and_then(Value::as_str) {
            let (file, pointer) = reference.split_once('#').unwrap_or((reference, ""));
            let file = if file.is_empty() { part.1 } else { file };
            let found = self.0[file].pointer(pointer.trim_end_matches('/'));
            part = (found.unwrap_or_else(|| panic!("no {reference}")), file);
        }
        part
    }

    fn alternatives<'a>(&'a self, (schema, file): Part<'a>, key: &str) -> Vec<Part<'a>> {
        let all = schema.get(key).and_then(Value::as_array);
        all.into_iter().flatten().map(|s| (s, file)).collect()
    }

    /// The paths of all properties: "linux.devices[].path".
    fn properties(&self, file: &str) -> BTreeSet<String> {
        let mut all = BTreeSet::new();
        self.walk(self.root(file), "", &mut all);
        all
    }

    fn walk(&self, part: Part, at: &str, all: &mut BTreeSet<String>) {
        let part @ (schema, file) = self.resolve(part);
        for (name, below) in schema["properties"].as_object().into_iter().flatten() {
            if at.is_empty() && FOREIGN.contains(&name.as_str()) {
                continue;
            }
            let at = format!("{at}{}{name}", if at.is_empty() { "" } else { "." });
            all.insert(at.clone());
            self.walk((below, file), &at, all);
        }
        for key in ["allOf", "anyOf", "oneOf"] {
            for below in self.alternatives(part, key) {
                self.walk(below, at, all);
            }
        }
        if schema["items"].is_object() {
            self.walk((&schema["items"], file), &format!("{at}[]"), all);
        }
        let patterns = schema["patternProperties"]
            .as_object()
            .into_iter()
            .flatten();
        let additional = &schema["additionalProperties"];
        for below in patterns
            .map(|(_, s)| s)
            .chain(additional.is_object().then_some(additional))
        {
            self.walk((below, file), &format!("{at}.*"), all);
        }
    }

    /// What is wrong with a value, by the keywords that these schemas use.
    fn faults(&self, part: Part, value: &Value, at: &str) -> Vec<String> {
        let part @ (schema, file) = self.resolve(part);
        let mut faults = Vec::new();
        let mut fault = |text: String| faults.push(format!("{at}: {text}"));
        let is = |kind: &Value| match kind.as_str().unwrap_or_default() {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            "integer" => value.is_i64() || value.is_u64(),
            "number" => value.is_number(),
            "null" => value.is_null(),
            other => panic!("type {other}"),
        };
        if let Some(kind) = schema.get("type")
            && !kind
                .as_array()
                .map_or_else(|| is(kind), |k| k.iter().any(is))
        {
            fault(format!("is no {kind}: {value}"));
        }
        if let Some(values) = schema["enum"].as_array()
            && !values.contains(value)
        {
            fault(format!("{value} is none of {values:?}"));
        }
        let number = value.as_f64();
        let bound = |key: &str| number.zip(schema[key].as_f64());
        if bound("minimum").is_some_and(|(n, min)| n < min)
            || bound("maximum").is_some_and(|(n, max)| n > max)
        {
            fault(format!("{value} is out of range"));
        }
        for name in schema["required"].as_array().into_iter().flatten() {
            if value.is_object() && value.get(name.as_str().unwrap()).is_none() {
                fault(format!("has no {name}"));
            }
        }
        if let Some(pattern) = schema["pattern"].as_str()
            && let Some(text) = value.as_str()
        {
            // the only one that is used of what husk prints
            assert_eq!(pattern, "^CAP_[A-Z_]+$");
            let rest = text.strip_prefix("CAP_").unwrap_or_default();
            if rest.is_empty() || !rest.chars().all(|c| c.is_ascii_uppercase() || c == '_') {
                fault(format!("{value} is not as {pattern}"));
            }
        }
        for (name, below) in value.as_object().into_iter().flatten() {
            let place = format!("{at}.{name}");
            if let Some(known) = schema["properties"].get(name) {
                faults.extend(self.faults((known, file), below, &place));
            } else if schema["additionalProperties"].is_object() {
                let additional = (&schema["additionalProperties"], file);
                faults.extend(self.faults(additional, below, &place));
            }
        }
        for (i, item) in value.as_array().into_iter().flatten().enumerate() {
            if schema["items"].is_object() {
                faults.extend(self.faults((&schema["items"], file), item, &format!("{at}[{i}]")));
            }
        }
        for below in self.alternatives(part, "allOf") {
            faults.extend(self.faults(below, value, at));
        }
        for key in ["anyOf", "oneOf"] {
            let all = self.alternatives(part, key);
            let good = |p: &Part| self.faults(*p, value, at).is_empty();
            if !all.is_empty() && !all.iter().any(good) {
                faults.push(format!("{at}: is none of its alternatives"));
            }
        }
        faults
    }
}

/// The names of all tests: "area::name" of these, "room::tests::name" of the library's.
pub fn all_tests() -> BTreeSet<String> {
    let mut all: BTreeSet<String> = crate::tests().into_iter().map(|t| t.name).collect();
    let src = repository().join("src");
    let mut dirs = vec![src.clone()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir)
            .expect("src")
            .map(|e| e.unwrap().path())
        {
            if entry.is_dir() {
                dirs.push(entry);
                continue;
            }
            let module = entry.strip_prefix(&src).unwrap().with_extension("");
            let module = module.to_string_lossy().replace('/', "::");
            let module = module.trim_end_matches("::mod");
            let text = std::fs::read_to_string(&entry).expect("a source");
            for (line, next) in text.lines().zip(text.lines().skip(1)) {
                let name = next
                    .trim()
                    .strip_prefix("fn ")
                    .and_then(|n| n.split_once("()"));
                if let (true, Some((name, _))) = (line.trim() == "#[test]", name) {
                    all.insert(format!("{module}::tests::{name}"));
                }
            }
        }
    }
    all
}

/// tests/coverage.md: `| property | tests |`.
fn each_property_has_a_test() {
    let schemas = Schemas::load();
    let known = all_tests();
    let table = std::fs::read_to_string(repository().join("tests/coverage.md")).unwrap();
    let mut faults = Vec::new();
    for (file, heading) in [
        ("config-schema.json", "## config.json"),
        ("features-schema.json", "## features"),
        ("state-schema.json", "## state"),
    ] {
        let mut missing = schemas.properties(file);
        let section = table.split("\n## ").find(|s| {
            let name = heading.trim_start_matches("## ");
            s.lines().next().is_some_and(|l| l == name)
        });
        let rows = section.unwrap_or_else(|| panic!("no section {heading}"));
        for row in rows.lines().filter(|l| l.starts_with("| `")) {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            let property = cells[1].trim_matches('`');
            if !missing.remove(property) {
                faults.push(format!(
                    "{heading}: no property, or a second row: {property}"
                ));
            }
            let tests: Vec<&str> = cells[2].split(", ").map(|t| t.trim_matches('`')).collect();
            for test in tests {
                if !known.contains(test) {
                    faults.push(format!("{heading}: {property}: no test is called '{test}'"));
                }
            }
        }
        faults.extend(missing.iter().map(|p| format!("{heading}: no row: {p}")));
    }
    assert!(
        faults.is_empty(),
        "tests/coverage.md:\n{}",
        faults.join("\n")
    );
}

/// A checker that finds nothing proves nothing.
fn checker_finds_faults() {
    let schemas = Schemas::load();
    let dir = repository().join("tests/data/runtime-spec");
    let read = |name: &str| -> Value {
        serde_json::from_slice(&std::fs::read(dir.join(name)).unwrap()).unwrap()
    };
    let faults = |file: &str, value: &Value| schemas.faults(schemas.root(file), value, "");
    let minimal = read("good/minimal.json");
    assert_eq!(faults("defs.json", &minimal), Vec::<String>::new());
    for (features, fault) in [
        (
            json!({"ociVersionMin": "1.0.0"}),
            ": has no \"ociVersionMax\"",
        ),
        (
            json!({"ociVersionMin": "1.0.0", "ociVersionMax": 1}),
            ".ociVersionMax: is no \"string\": 1",
        ),
        (
            json!({"ociVersionMin": "", "ociVersionMax": "", "linux": {"capabilities": ["KILL"]}}),
            ".linux.capabilities[0]: \"KILL\" is not as ^CAP_[A-Z_]+$",
        ),
        (
            json!({"ociVersionMin": "", "ociVersionMax": "", "linux": {"cgroup": {"v2": 1}}}),
            ".linux.cgroup.v2: is no \"boolean\": 1",
        ),
    ] {
        assert_eq!(faults("features-schema.json", &features), [fault]);
    }
    let wrong =
        json!({"ociVersionMin": "", "ociVersionMax": "", "linux": {"namespaces": ["disk"]}});
    assert_eq!(faults("features-schema.json", &wrong).len(), 1);
}

fn features() -> Value {
    Cmd::runtime().arg("features").run().ok().json()
}

fn features_are_as_the_schema_says() {
    let schemas = Schemas::load();
    let root = schemas.root("features-schema.json");
    assert_eq!(schemas.faults(root, &features(), ""), Vec::<String>::new());
}

/// All that the schema knows is said, and what features-linux.md has besides.
fn features_are_complete() {
    runc_since(1, 4);
    let features = features();
    let known = Schemas::load().properties("features-schema.json");
    let besides = ["linux.memoryPolicy.modes", "linux.memoryPolicy.flags"];
    let more = ["linux.intelRdt.schemata", "linux.intelRdt.monitoring"];
    let besides = besides.into_iter().chain(more).map(String::from);
    for property in known.into_iter().chain(besides.filter(|_| is_husk())) {
        let pointer = format!("/{}", property.replace('.', "/"));
        assert!(
            features.pointer(&pointer).is_some(),
            "{property}: {features}"
        );
    }
}

/// What is said of mounts, versions and flags is tried here, the rest where the table says.
fn features_are_true() {
    husk_only("its own list");
    let features = features();
    let list = |pointer: &str| -> Vec<String> {
        let list = features.pointer(pointer).unwrap();
        serde_json::from_value(list.clone()).unwrap()
    };
    // each alone: some exclude others; what those of a bound tree do is shown elsewhere
    let of_a_tree = ["bind", "rbind", "idmap", "ridmap", "remount"];
    for option in list("/mountOptions") {
        if !of_a_tree.contains(&option.as_str()) {
            let b = Bundle::new().mount("/tmp", "tmpfs", "tmpfs", &[&option]);
            b.payload(&["true"]).run().ok();
        }
    }
    let version = features["ociVersionMax"].as_str().unwrap();
    for version in [features["ociVersionMin"].as_str().unwrap(), version] {
        let b = Bundle::new().set("/ociVersion", json!(version));
        b.payload(&["true"]).run().ok();
    }
    for flag in list("/linux/seccomp/supportedFlags") {
        let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": [flag]});
        let b = Bundle::new().set("/linux/seccomp", profile);
        let o = b.payload(&["true"]).run();
        // one that has no meaning without a listener
        if flag != "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" {
            o.ok();
        }
    }
}

fn state_is_as_the_schema_says() {
    let c = Bundle::new()
        .set("/annotations", json!({"com.example": "1"}))
        .start();
    let state = c.state();
    let schemas = Schemas::load();
    let root = schemas.root("state-schema.json");
    // the specification allows values of a runtime's own, such as "paused"; these two are in its list
    assert_eq!(schemas.faults(root, &state, ""), Vec::<String>::new());
    for property in schemas.properties("state-schema.json") {
        assert!(state.get(&property).is_some(), "{property}: {state}");
    }
}
