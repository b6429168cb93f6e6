//! The filter of system calls: loaded by the process itself, its listener handed to the agent by the parent.

use crate::log;
use crate::plan::seccomp::{Filter, Listener};
use crate::sys::errno::{EACCES, EINVAL};
use crate::sys::{seccomp, socket};
use anyhow::{Context, Result, anyhow};
use serde::Serialize;
use serde_json::value::RawValue;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A filter in the kernel's form, so that nothing is left to do but to load it.
pub struct Ready {
    /// Loading it makes a listener, which somebody has to serve from then on.
    pub listens: bool,
    program: Vec<seccomp::Insn>,
    flags: u32,
}

pub fn ready(filter: &Filter) -> Ready {
    log::debug(format_args!("seccomp filter flags: {}", filter.flags));
    let program = filter.program.iter().map(|i| seccomp::Insn {
        code: i.code,
        jt: i.jt,
        jf: i.jf,
        k: i.k,
    });
    Ready {
        program: program.collect(),
        flags: filter.flags,
        listens: filter.listener.is_some(),
    }
}

/// Puts this process under the filter: from here on each of its system calls is one that the profile has to allow. Without no_new_privs it takes
/// CAP_SYS_ADMIN.
pub fn load(ready: &Ready) -> Result<Option<OwnedFd>> {
    seccomp::load(&ready.program, ready.flags).map_err(|e| {
        let hint = match e.errno() {
            EACCES => "; without CAP_SYS_ADMIN it needs process.noNewPrivileges",
            EINVAL => "; the kernel has no seccomp filters, or lacks one of linux.seccomp.flags",
            _ => "",
        };
        anyhow!("linux.seccomp: {e}{hint}")
    })
}

/// "The container process state" of config-linux.md.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ContainerProcessState<'a> {
    oci_version: &'a str,
    fds: [&'a str; 1],
    pid: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a str>,
    state: &'a RawValue,
}

/// Sends the listener of the process `pid` to the agent, with the container's state as JSON.
pub fn send_listener(
    listener: &Listener,
    fd: BorrowedFd,
    pid: i32,
    container: &[u8],
) -> Result<()> {
    let json = serde_json::to_vec(&ContainerProcessState {
        oci_version: crate::OCI_VERSION,
        fds: ["seccompFd"],
        pid,
        metadata: listener.metadata.as_deref(),
        state: serde_json::from_slice(container)?,
    })?;
    let at = || format!("linux.seccomp.listenerPath '{}'", listener.path.display());
    let agent = socket::connect(&listener.path, socket::Kind::Stream)
        .context("failed to connect with seccomp agent")
        .with_context(at)?;
    socket::send(agent.as_fd(), &json, &[fd])
        .context("send the listener to the seccomp agent")
        .with_context(at)
}
