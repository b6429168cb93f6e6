//! linux.sysctl: only what a namespace of the container's own isolates.

use super::Violations;
use super::namespaces::{Kind, Namespaces};
use oci_spec::runtime::Spec;

/// A file below /proc/sys ("net/ipv4/ip_forward") and what to write to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sysctl {
    pub path: String,
    pub value: String,
}

/// What an ipc namespace isolates (ipc_namespaces(7)), besides fs.mqueue.
const IPC: [&str; 8] = [
    "kernel/msgmax",
    "kernel/msgmnb",
    "kernel/msgmni",
    "kernel/sem",
    "kernel/shmall",
    "kernel/shmmax",
    "kernel/shmmni",
    "kernel/shm_rmid_forced",
];

/// Sorted by path, so that two runs of one config do the same.
pub fn plan(spec: &Spec, namespaces: &Namespaces, v: &mut Violations) -> Vec<Sysctl> {
    let entries = spec.linux().as_ref().and_then(|l| l.sysctl().as_ref());
    let mut entries: Vec<_> = entries.into_iter().flatten().collect();
    entries.sort();
    entries
        .into_iter()
        .map(|(key, value)| {
            let path = file(key);
            if let Some(fault) = fault(&path, namespaces) {
                v.add(format!("linux.sysctl[\"{key}\"]"), fault);
            }
            Sysctl {
                path,
                value: value.clone(),
            }
        })
        .collect()
}

/// "net.ipv4.conf.eth0/1.forwarding" and "net/ipv4/conf/eth0.1/forwarding" are the same: the first separator of a key tells
/// which of the two characters separates, and the other one stands for a dot in a name (sysctl.d(5)).
fn file(key: &str) -> String {
    match key.find(['.', '/']) {
        Some(i) if key.as_bytes()[i] == b'.' => key
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                c => c,
            })
            .collect(),
        _ => key.to_string(),
    }
}

fn fault(path: &str, namespaces: &Namespaces) -> Option<String> {
    if path.split('/').any(|name| matches!(name, "" | "." | "..")) || path.contains('\0') {
        return Some("is not the name of a file below /proc/sys".to_string());
    }
    let kind = if IPC.contains(&path) || path.starts_with("fs/mqueue/") {
        Kind::Ipc
    } else if path.starts_with("net/") {
        Kind::Network
    } else if path.starts_with("user/") {
        Kind::User
    } else if path == "kernel/domainname" {
        Kind::Uts
    } else if path == "kernel/hostname" {
        return Some("is the field hostname's to set; use that one".to_string());
    } else {
        return Some(
            "is isolated by no namespace and would change the whole host; set it on the host"
                .to_string(),
        );
    };
    namespaces.is_host(kind).then(|| {
        format!(
            "would change the host's {kind} namespace; add {{\"type\": \"{kind}\"}} to linux.namespaces"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::namespaces;
    use super::super::violations::testing::*;
    use super::*;
    use serde_json::{Value, json};

    fn run(namespaces: Value, key: &str, v: &mut Violations) -> Vec<Sysctl> {
        let spec = linux(json!({"namespaces": namespaces, "sysctl": {key: "1"}}));
        let n = namespaces::plan(&spec, &root(), v);
        plan(&spec, &n, v)
    }

    #[test]
    fn keys_become_files() {
        for (key, kind, path) in [
            ("kernel.shm_rmid_forced", "ipc", "kernel/shm_rmid_forced"),
            ("kernel/sem", "ipc", "kernel/sem"),
            ("fs.mqueue.msg_max", "ipc", "fs/mqueue/msg_max"),
            ("net.ipv4.ip_forward", "network", "net/ipv4/ip_forward"),
            (
                "net.ipv4.conf.eno2/100.rp_filter",
                "network",
                "net/ipv4/conf/eno2.100/rp_filter",
            ),
            (
                "net/ipv4/conf/eno2.100/rp_filter",
                "network",
                "net/ipv4/conf/eno2.100/rp_filter",
            ),
            ("kernel.domainname", "uts", "kernel/domainname"),
            (
                "user.max_user_namespaces",
                "user",
                "user/max_user_namespaces",
            ),
        ] {
            for namespace in [json!({"type": kind}), json!({"type": kind, "path": "/n"})] {
                let list = good(|v| run(json!([namespace]), key, v));
                let expected = Sysctl {
                    path: path.into(),
                    value: "1".into(),
                };
                assert_eq!(list, [expected], "{key}");
            }
            assert_eq!(
                faults(|v| run(json!([]), key, v)),
                format!(
                    "linux.sysctl[\"{key}\"]: would change the host's {kind} namespace; add {{\"type\": \"{kind}\"}} to \
                     linux.namespaces"
                )
            );
        }
    }

    #[test]
    fn others_are_refused() {
        let host =
            "is isolated by no namespace and would change the whole host; set it on the host";
        let name = "is not the name of a file below /proc/sys";
        for (key, fault) in [
            ("vm.swappiness", host),
            ("kernel.panic", host),
            ("kernel.semx", host),
            ("fs.file-max", host),
            ("netx.y", host),
            ("", name),
            ("net", host),
            ("net.", name),
            ("net/../kernel/panic", name),
            ("net.//.kernel.panic", name),
            ("net..ipv4", name),
            ("net/./x", name),
            (
                "kernel.hostname",
                "is the field hostname's to set; use that one",
            ),
        ] {
            let all = json!([{"type": "ipc"}, {"type": "uts"}, {"type": "network"}]);
            let found = faults(|v| run(all, key, v));
            assert_eq!(found, format!("linux.sysctl[\"{key}\"]: {fault}"));
        }
    }
}
