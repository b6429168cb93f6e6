//! What others parse: --version, --help, spec, features.

use crate::support::*;
use std::fs;

tests![
    version,
    help_of_each_verb,
    spec_is_the_usual_config,
    spec_into_a_bundle,
    spec_does_not_overwrite,
    spec_rootless,
    spec_runs,
    features,
];

fn version() {
    for flag in ["--version", "-v"] {
        let o = Cmd::new(process::runtime()).arg(flag).run().ok();
        let lines = o.lines();
        let name = if is_husk() { "husk" } else { "runc" };
        assert!(lines[0].starts_with(&format!("{name} version ")), "{o}");
        let spec = lines
            .iter()
            .find_map(|l| l.strip_prefix("spec: "))
            .expect("spec");
        assert_eq!(spec.split('.').count(), 3, "{o}");
    }
}

fn help_of_each_verb() {
    let verbs = [
        "create", "delete", "exec", "kill", "list", "pause", "ps", "resume", "run", "spec",
        "start", "state", "features", "update", "events",
    ];
    for verb in verbs {
        let o = Cmd::new(process::runtime())
            .args([verb, "--help"])
            .run()
            .ok();
        assert!(o.lines()[0].starts_with("NAME:"), "{o}");
        assert!(o.lines()[1].contains(verb), "{o}");
    }
    let o = Cmd::new(process::runtime()).arg("--help").run().ok();
    for verb in verbs {
        assert!(o.out.contains(verb), "{verb}: {o}");
    }
}

fn spec(options: &[&str]) -> Value {
    Cmd::new(process::runtime())
        .arg("spec")
        .args(options)
        .run()
        .ok();
    serde_json::from_slice(&fs::read("config.json").unwrap()).unwrap()
}

fn spec_is_the_usual_config() {
    let mut config = spec(&[]);
    let mut want = crate::support::bundle::default_config();
    assert_eq!(config["process"]["args"], json!(["sh"]));
    assert_eq!(config["process"]["terminal"], true);
    for v in [&mut config, &mut want] {
        v["process"]["args"] = json!(0);
        v["process"]["terminal"] = json!(0);
        v["ociVersion"] = json!(0);
        v["hostname"] = json!(0);
        // lists that may differ from kernel to kernel
        v["linux"]["maskedPaths"] = json!(0);
    }
    assert_eq!(config, want);
}

fn spec_into_a_bundle() {
    fs::create_dir("bundle").unwrap();
    Cmd::new(process::runtime())
        .args(["spec", "--bundle", "bundle"])
        .run()
        .ok();
    assert!(fs::exists("bundle/config.json").unwrap());
    Cmd::new(process::runtime())
        .args(["spec", "--bundle", "nowhere"])
        .run()
        .fails(1, &["nowhere", "no such file or directory"]);
}

fn spec_does_not_overwrite() {
    fs::write("config.json", "mine").unwrap();
    Cmd::new(process::runtime())
        .arg("spec")
        .run()
        .fails(1, &["config.json", "exists"]);
    assert_eq!(fs::read_to_string("config.json").unwrap(), "mine");
}

fn spec_rootless() {
    let config = spec(&["--rootless"]);
    let kinds: Vec<&Value> = config["linux"]["namespaces"]
        .as_array()
        .unwrap()
        .iter()
        .map(|n| &n["type"])
        .collect();
    assert!(
        kinds.contains(&&json!("user")) && !kinds.contains(&&json!("network")),
        "{kinds:?}"
    );
    assert_eq!(
        config["linux"]["uidMappings"],
        json!([{"containerID": 0, "hostID": 0, "size": 1}])
    );
    assert!(config["linux"].get("resources").is_none_or(Value::is_null));
}

fn spec_runs() {
    let b = Bundle::new();
    Cmd::new(process::runtime())
        .args(["spec", "--bundle"])
        .arg(&b.dir)
        .run()
        .ok();
    let text = fs::read_to_string(b.dir.join("config.json")).unwrap();
    let mut b = b;
    b.config = serde_json::from_str(&text).unwrap();
    let b = b
        .set("/process/terminal", json!(false))
        .payload(&["echo", "fine"]);
    assert_eq!(b.run().ok().line(), "fine");
}

fn features() {
    let f = Cmd::new(process::runtime())
        .arg("features")
        .run()
        .ok()
        .json();
    for version in ["ociVersionMin", "ociVersionMax"] {
        assert!(f[version].as_str().unwrap().starts_with("1."), "{f}");
    }
    assert_eq!(
        f["hooks"],
        json!([
            "prestart",
            "createRuntime",
            "createContainer",
            "startContainer",
            "poststart",
            "poststop"
        ])
    );
    let has = |list: &Value, all: &[&str]| {
        let list = list.as_array().unwrap_or_else(|| panic!("no list: {f}"));
        for one in all {
            assert!(list.contains(&json!(one)), "{one} is not in {list:?}");
        }
    };
    has(
        &f["mountOptions"],
        &[
            "bind",
            "rbind",
            "ro",
            "rro",
            "nosuid",
            "rnosuid",
            "relatime",
            "rshared",
            "tmpcopyup",
        ],
    );
    let linux = &f["linux"];
    has(
        &linux["namespaces"],
        &[
            "cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts",
        ],
    );
    has(
        &linux["capabilities"],
        &["CAP_CHOWN", "CAP_SYS_ADMIN", "CAP_CHECKPOINT_RESTORE"],
    );
    assert_eq!(linux["cgroup"]["v2"], true);
    for key in ["seccomp", "apparmor", "selinux", "intelRdt"] {
        assert!(linux[key]["enabled"].is_boolean(), "{key}: {f}");
    }
    assert!(
        linux["mountExtensions"]["idmap"]["enabled"].is_boolean(),
        "{f}"
    );
    if linux["seccomp"]["enabled"] == true {
        has(
            &linux["seccomp"]["actions"],
            &["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_NOTIFY"],
        );
        has(
            &linux["seccomp"]["operators"],
            &["SCMP_CMP_EQ", "SCMP_CMP_MASKED_EQ"],
        );
    }
}
