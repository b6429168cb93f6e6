//! The labels of the Linux security modules, for the process and for what husk mounts.

use super::mounts::{Data, Mount, Source};
use super::process::Process;
use super::rootfs::Rootfs;
use super::{Violations, annotations};
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
    let option = context_type(spec, v);
    let overlay = rootfs.overlay.as_mut().map(|o| &mut o.options);
    let of_mounts = mounts.iter_mut().filter(|m| takes_context(&m.source));
    for data in of_mounts.map(|m| &mut m.data).chain(overlay) {
        add_context(data, option, &label);
    }
    Some(label)
}

/// Those of the kernel's own have labels by its policy. What shows what is there already has them too.
fn takes_context(source: &Source) -> bool {
    const OWN: [&CStr; 5] = [c"proc", c"sysfs", c"mqueue", c"cgroup", c"cgroup2"];
    matches!(source, Source::Fs { fstype, .. } if !OWN.contains(&fstype.as_c_str()))
}

/// The options of a mount that stand for a label.
const OPTIONS: [&CStr; 4] = [c"context", c"fscontext", c"defcontext", c"rootcontext"];

/// The one to use: `context`, unless an annotation names another.
fn context_type(spec: &Spec, v: &mut Violations) -> &'static CStr {
    let Some(name) = annotations::get(spec, annotations::MOUNT_CONTEXT_TYPE) else {
        return OPTIONS[0];
    };
    let option = OPTIONS
        .into_iter()
        .find(|o| o.to_bytes() == name.as_bytes());
    option.unwrap_or_else(|| {
        v.add(
            annotations::path(annotations::MOUNT_CONTEXT_TYPE),
            format!("is '{name}'; give context, fscontext, defcontext or rootcontext"),
        );
        OPTIONS[0]
    })
}

fn add_context(data: &mut Data, option: &CStr, label: &CStr) {
    if !data
        .iter()
        .any(|(key, _)| OPTIONS.contains(&key.as_c_str()))
    {
        data.push((option.into(), Some(label.into())));
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
        let mut of_another_type = config.clone();
        of_another_type["annotations"]["run.oci.mount_context_type"] = json!("rootcontext");
        let other = Plan::new(&spec(of_another_type.clone()), &with_modules(), &options()).unwrap();
        let data = &other.mounts[0].data;
        assert_eq!(data[0].0.as_c_str(), c"rootcontext");
        of_another_type["annotations"]["run.oci.mount_context_type"] = json!("x");
        let fault = Plan::new(&spec(of_another_type), &with_modules(), &options()).unwrap_err();
        assert_eq!(
            fault.to_string(),
            "annotations[\"run.oci.mount_context_type\"]: is 'x'; give context, fscontext, defcontext or rootcontext"
        );
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
