//! sd_notify(3): the socket on which the container's process says that it is ready.

use oci_spec::runtime::{LinuxNamespaceType, Mount, Spec};
use std::path::Path;

/// In the state directory: the directory that the container gets to see, and the socket in it.
pub const DIRECTORY: &str = "notify";
pub const SOCKET: &str = "notify.sock";
/// Where the container has the directory, as with runc.
const INSIDE: &str = "/run/notify";

/// Adds to a config what leads to the socket: a mount of `directory`, and the variable. What is in the way of that is told.
pub fn add(spec: &mut Spec, directory: &Path) -> Result<(), &'static str> {
    let namespaces = spec.linux().iter().flat_map(|l| l.namespaces());
    let mut kinds = namespaces.flatten().map(|n| n.typ());
    if !kinds.any(|kind| kind == LinuxNamespaceType::Mount) {
        return Err("the container has no mount namespace, and no way to the socket");
    }
    let Some(process) = spec.process_mut() else {
        return Err("the container has no process");
    };
    let variable = format!("NOTIFY_SOCKET={INSIDE}/{SOCKET}");
    process.env_mut().get_or_insert_default().push(variable);
    let mut mount = Mount::default();
    mount.set_destination(INSIDE.into());
    mount.set_typ(Some("bind".into()));
    mount.set_source(Some(directory.into()));
    let options = ["bind", "nosuid", "noexec", "nodev", "ro"];
    mount.set_options(Some(options.map(String::from).into()));
    spec.mounts_mut().get_or_insert_default().push(mount);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::violations::testing::*;
    use super::*;
    use serde_json::json;

    #[test]
    fn a_mount_and_a_variable_lead_to_the_socket() {
        let process = json!({"user": {}, "cwd": "/", "args": ["sh"], "env": ["A=1"]});
        let mut spec = linux(json!({}));
        spec.set_process(Some(serde_json::from_value(process).unwrap()));
        add(&mut spec, Path::new("/run/husk/web/notify")).unwrap();
        let env = spec.process().as_ref().unwrap().env().as_ref().unwrap();
        assert_eq!(*env, ["A=1", "NOTIFY_SOCKET=/run/notify/notify.sock"]);
        let mount = spec.mounts().as_ref().unwrap().last().unwrap();
        assert_eq!(mount.destination(), Path::new("/run/notify"));
        assert_eq!(
            mount.source().as_deref(),
            Some(Path::new("/run/husk/web/notify"))
        );
    }

    #[test]
    fn what_has_no_way_to_it_stays_as_it_is() {
        for config in [
            json!({"process": {"user": {}, "cwd": "/", "args": ["sh"]}}),
            json!({"linux": {"namespaces": [{"type": "mount"}]}}),
        ] {
            let mut config = spec(config);
            let before = config.clone();
            assert!(add(&mut config, Path::new("/x")).is_err());
            assert_eq!(config, before);
        }
    }
}
