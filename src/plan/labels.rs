//! The labels of the Linux security modules, for the process and for what husk mounts.

use super::Violations;
use super::mounts::{Data, Mount, Source};
use super::process::Process;
use super::rootfs::Rootfs;
use crate::host::Host;
use oci_spec::runtime::Spec;
use std::ffi::{CStr, CString};

/// runc's words.
const NO_SELINUX: &str =
    "selinux label is specified in config, but selinux is disabled or not supported; remove it";

/// Refuses the labels of a process that this host's kernel has nobody to heed. `at` gives the JSON path of a field.
pub fn check(process: &Process, at: impl Fn(&str) -> String, host: &Host, v: &mut Violations) {
    if process.apparmor_profile.is_some() && !host.apparmor {
        v.add(
            at("apparmorProfile"),
            "apparmor profile is specified in config, but apparmor is disabled or not supported; remove it",
        );
    }
    if process.selinux_label.is_some() && !host.selinux {
        v.add(at("selinuxLabel"), NO_SELINUX);
    }
}

/// linux.mountLabel. It becomes the option `context` of each new file system that takes it and has no such option of its own.
pub fn mounts(
    spec: &Spec,
    host: &Host,
    mounts: &mut [Mount],
    rootfs: &mut Rootfs,
    v: &mut Violations,
) -> Option<CString> {
    let label = spec.linux().as_ref()?.mount_label().as_ref()?;
    if label.is_empty() {
        return None;
    }
    if !host.selinux {
        v.add("linux.mountLabel", NO_SELINUX);
    }
    let label = v.cstring("linux.mountLabel", label);
    let overlay = rootfs.overlay.as_mut().map(|o| &mut o.options);
    let of_mounts = mounts.iter_mut().filter(|m| takes_context(&m.source));
    for data in of_mounts.map(|m| &mut m.data).chain(overlay) {
        add_context(data, &label);
    }
    Some(label)
}

/// Those of the kernel's own have labels by its policy. What shows what is there already has them too.
fn takes_context(source: &Source) -> bool {
    const OWN: [&CStr; 5] = [c"proc", c"sysfs", c"mqueue", c"cgroup", c"cgroup2"];
    matches!(source, Source::Fs { fstype, .. } if !OWN.contains(&fstype.as_c_str()))
}

fn add_context(data: &mut Data, label: &CStr) {
    const OPTIONS: [&CStr; 4] = [c"context", c"fscontext", c"defcontext", c"rootcontext"];
    if !data
        .iter()
        .any(|(key, _)| OPTIONS.contains(&key.as_c_str()))
    {
        data.push((c"context".into(), Some(label.into())));
    }
}

#[cfg(test)]
mod tests {
    use super::super::violations::testing::*;
    use super::super::{Plan, process};
    use super::*;
    use serde_json::{Value, json};

    const LABEL: &str = "system_u:object_r:container_file_t:s0:c4,c5";

    fn with_modules() -> Host {
        Host {
            apparmor: true,
            selinux: true,
            ..root()
        }
    }

    #[test]
    fn labels_of_the_process_need_their_module() {
        let fields = json!({"user": {}, "cwd": "/", "args": ["sh"], "apparmorProfile": "web", "selinuxLabel": LABEL});
        let parsed = serde_json::from_value(fields).unwrap();
        let process = good(|v| process::plan(&parsed, "process", None, v));
        assert_eq!(process.apparmor_profile.as_deref(), Some("web"));
        assert_eq!(process.selinux_label.as_deref(), Some(LABEL));
        let at = |field: &str| format!("process.{field}");
        good(|v| check(&process, at, &with_modules(), v));
        assert_eq!(
            faults(|v| check(&process, at, &root(), v)),
            format!(
                "process.apparmorProfile: apparmor profile is specified in config, but apparmor is disabled or not supported; \
                 remove it\nprocess.selinuxLabel: {NO_SELINUX}"
            )
        );
    }

    #[test]
    fn the_mount_label_goes_to_new_file_systems() {
        let mount = |fstype: &str, options: Value| json!({"destination": format!("/{fstype}"), "type": fstype, "source": "x", "options": options});
        let config = json!({
            "ociVersion": "1.3.0",
            "root": {"path": "r"},
            "annotations": {"dev.husk.overlay.lower": "/lower", "dev.husk.overlay.tmpfs": "true"},
            "mounts": [
                mount("tmpfs", json!([])),
                mount("devpts", json!(["newinstance"])),
                mount("ext4", json!(["defcontext=x"])),
                mount("proc", json!([])),
                mount("sysfs", json!([])),
                mount("mqueue", json!([])),
                mount("cgroup", json!([])),
                {"destination": "/bind", "source": "/", "options": ["bind"]},
            ],
            "linux": {"mountLabel": LABEL, "namespaces": [{"type": "mount"}]},
        });
        let plan = Plan::new(&spec(config.clone()), &with_modules(), &options()).unwrap();
        let context = |data: &Data| {
            let found = data.iter().find(|(key, _)| key.as_c_str() == c"context");
            found.map(|(_, value)| value.clone().unwrap().into_string().unwrap())
        };
        let labelled: Vec<usize> = (0..plan.mounts.len())
            .filter(|&i| context(&plan.mounts[i].data).as_deref() == Some(LABEL))
            .collect();
        assert_eq!(labelled, [0, 1]);
        let overlay = plan.rootfs.overlay.unwrap();
        assert_eq!(context(&overlay.options).as_deref(), Some(LABEL));
        assert_eq!(plan.mount_label.unwrap().to_str(), Ok(LABEL));
        let refused = Plan::new(&spec(config), &root(), &options()).unwrap_err();
        assert_eq!(
            refused.to_string(),
            format!("linux.mountLabel: {NO_SELINUX}")
        );
        let blank = spec(
            json!({"ociVersion": "1.3.0", "root": {"path": "r"}, "linux": {"mountLabel": ""}}),
        );
        let plan = Plan::new(&blank, &root(), &options()).unwrap();
        assert_eq!(plan.mount_label, None);
    }
}
