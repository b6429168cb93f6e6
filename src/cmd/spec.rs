//! `husk spec`: a config.json to begin with, the same as runc's.

use crate::{cli, sys};
use anyhow::{Context, Result, anyhow, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::Path;

/// What `spec` writes without options, as text: a person may read it here, and no part of it is computed.
const DEFAULT: &str = include_str!("spec.json");

pub fn run(args: cli::Spec) -> Result<i32> {
    let config = if args.rootless || args.overlay {
        let mut spec = serde_json::from_str(DEFAULT)?;
        if args.rootless {
            make_rootless(&mut spec, sys::process::euid(), sys::process::egid());
        }
        if args.overlay {
            make_overlay(&mut spec);
        }
        to_text(spec)?
    } else {
        DEFAULT.to_string()
    };
    write_new(&args.bundle.join("config.json"), &config)?;
    if args.overlay {
        let rootfs = args.bundle.join("rootfs");
        std::fs::create_dir_all(&rootfs).with_context(|| format!("make '{}'", rootfs.display()))?;
    }
    Ok(0)
}

/// Never over an existing file, which may be somebody's work.
fn write_new(path: &Path, text: &str) -> Result<()> {
    use std::io::Write;
    let shown = path.display();
    let file = std::fs::File::options()
        .write(true)
        .create_new(true)
        .open(path);
    match file {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
            bail!("write '{shown}': file config.json exists; remove it first")
        }
        Err(e) => Err(anyhow!(sys::Error::new(
            "open",
            e.raw_os_error().unwrap_or_default()
        ))),
        Ok(mut file) => file.write_all(text.as_bytes()).map_err(Into::into),
    }
    .with_context(|| format!("write '{shown}'"))
}

/// A user namespace with one id, no network of its own (setting one up takes root), no limits, and the host's /sys, since a
/// new sysfs needs a network namespace.
fn make_rootless(spec: &mut Value, uid: u32, gid: u32) {
    let linux = &mut spec["linux"];
    linux["uidMappings"] = json!([{"containerID": 0, "hostID": uid, "size": 1}]);
    linux["gidMappings"] = json!([{"containerID": 0, "hostID": gid, "size": 1}]);
    if let Some(linux) = linux.as_object_mut() {
        linux.remove("resources");
    }
    if let Some(namespaces) = linux["namespaces"].as_array_mut() {
        namespaces.retain(|n| n["type"] != "network");
        namespaces.push(json!({"type": "user"}));
    }
    for mount in spec["mounts"].as_array_mut().into_iter().flatten() {
        if mount["destination"] == "/sys" {
            mount["type"] = "none".into();
            mount["source"] = "/sys".into();
            if let Some(options) = mount["options"].as_array_mut() {
                options.insert(0, "rbind".into());
            }
        }
        // the tty group is not mapped
        if let Some(options) = mount.get_mut("options").and_then(Value::as_array_mut) {
            options.retain(|o| o != "gid=5");
        }
    }
}

/// The host's own root below a tmpfs, so that `husk run` works without any image. What is mounted below `/` on the host is
/// not seen: an overlay shows one file system.
fn make_overlay(spec: &mut Value) {
    spec["root"]["readonly"] = false.into();
    if let Some(mounts) = spec["mounts"].as_array_mut() {
        let root = json!({
            "destination": "/",
            "type": "overlay",
            "source": "overlay",
            "options": ["lowerdir=/", "upper=tmpfs"],
        });
        mounts.insert(0, root);
    }
}

/// The sections in the specification's order, so that a person finds them where the manuals have them.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Sections {
    oci_version: Value,
    process: Value,
    root: Value,
    hostname: Value,
    mounts: Value,
    linux: Value,
}

/// Indented with tabs as runc's.
fn to_text(spec: Value) -> Result<String> {
    let sections: Sections = serde_json::from_value(spec)?;
    let mut out = Vec::new();
    let tabs = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    sections.serialize(&mut serde_json::Serializer::with_formatter(&mut out, tabs))?;
    out.push(b'\n');
    Ok(String::from_utf8(out)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn default() -> Value {
        serde_json::from_str(DEFAULT).unwrap()
    }

    #[test]
    fn every_variant_is_a_config_of_the_specification() {
        for (rootless, overlay) in [(false, false), (true, false), (false, true), (true, true)] {
            let mut spec = default();
            if rootless {
                make_rootless(&mut spec, 1000, 1000);
            }
            if overlay {
                make_overlay(&mut spec);
            }
            let text = to_text(spec.clone()).unwrap();
            assert!(
                text.starts_with("{\n\t\"ociVersion\": \"1.3.0\",\n\t\"process\""),
                "{text}"
            );
            assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), spec);
            serde_json::from_str::<oci_spec::runtime::Spec>(&text).unwrap();
            assert!(!text.contains("null"), "{text}");
        }
    }

    #[test]
    fn rootless_maps_the_caller_and_asks_for_nothing_of_roots() {
        let mut spec = default();
        make_rootless(&mut spec, 1000, 100);
        let linux = &spec["linux"];
        assert_eq!(
            linux["uidMappings"],
            json!([{"containerID": 0, "hostID": 1000, "size": 1}])
        );
        assert_eq!(linux["gidMappings"][0]["hostID"], 100);
        assert!(linux.get("resources").is_none());
        let kinds: Vec<_> = linux["namespaces"]
            .as_array()
            .unwrap()
            .iter()
            .map(|n| &n["type"])
            .collect();
        assert_eq!(kinds, ["pid", "ipc", "uts", "mount", "cgroup", "user"]);
        let text = to_text(spec).unwrap();
        assert!(!text.contains("gid=5") && text.contains("rbind"), "{text}");
    }

    #[test]
    fn overlay_comes_first_and_is_writable() {
        let mut spec = default();
        make_overlay(&mut spec);
        assert_eq!(spec["mounts"][0]["destination"], "/");
        assert_eq!(spec["root"]["readonly"], false);
    }

    #[test]
    fn an_existing_config_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        write_new(&path, "mine").unwrap();
        let e = format!("{:#}", write_new(&path, "other").unwrap_err());
        assert!(e.contains("config.json exists; remove it first"), "{e}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
        let e = format!(
            "{:#}",
            write_new(&dir.path().join("x/config.json"), "").unwrap_err()
        );
        assert!(e.ends_with("no such file or directory"), "{e}");
    }
}
