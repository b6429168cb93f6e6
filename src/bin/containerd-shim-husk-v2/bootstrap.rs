//! `start`: containerd asks for the address of a container's shim, which is the one of its pod if that runs already.
//!
//! containerd 2.3 says on stdin, as a message, what earlier ones said by flags and environment, and wants a message back;
//! earlier ones want the address alone, which tells all of them (from 1.6 on) to speak version 2 over ttrpc.

use crate::args::Flags;
use crate::runtime::Options;
use anyhow::{Context, Result};
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{CodedInputStream, CodedOutputStream, Message};
use husk::sys::errno::EADDRINUSE;
use husk::sys::{fs, process, socket};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Annotations that put containers into one shim; the first one counts.
const GROUPS: [&str; 2] = [
    "io.containerd.runc.v2.group",
    "io.kubernetes.cri.sandbox-id",
];
const SOCKETS: &str = "/run/containerd/s";
/// More than any containerd says.
const INPUT_MAX: u64 = 10 << 20;

pub fn start(flags: &Flags) -> Result<()> {
    let mut input = Vec::new();
    std::io::stdin()
        .take(INPUT_MAX)
        .read_to_end(&mut input)
        .context("read what containerd says")?;
    let params =
        Params::parse(&input).filter(|p| p.id == flags.id && p.namespace == flags.namespace);
    let (options, dir, modern) = match &params {
        Some(p) => (p.options.clone(), p.socket_dir.as_deref(), true),
        None => (Any::parse_from_bytes(&input).ok(), None, false),
    };
    let options = Options::from_any(options.as_ref())?;
    let debug = flags.debug || params.as_ref().is_some_and(|p| p.debug);

    let group = group(&flags.id)?;
    let path = socket_path(dir.unwrap_or(SOCKETS), flags, &group);
    let address = format!("unix://{}", path.display());
    if let Some(listener) = listen(&path)? {
        let started = serve(flags, debug, listener, &options);
        if started.is_err() {
            let _ = std::fs::remove_file(&path);
        }
        started?;
    }
    // what containerd 1.6 and 1.7 read when they are restarted
    std::fs::write("address", &address).context("write 'address'")?;
    let answer = if modern {
        result(&address)?
    } else {
        address.into_bytes()
    };
    Ok(std::io::stdout().write_all(&answer)?)
}

/// The bundle is the working directory.
fn group(id: &str) -> Result<String> {
    #[derive(serde::Deserialize)]
    struct Config {
        #[serde(default)]
        annotations: Option<HashMap<String, String>>,
    }
    let text = std::fs::read("config.json").context("read 'config.json'")?;
    let config: Config = serde_json::from_slice(&text).context("parse 'config.json'")?;
    let annotations = config.annotations.unwrap_or_default();
    let group = GROUPS.iter().find_map(|name| annotations.get(*name));
    Ok(group.map_or(id, |g| g).to_string())
}

/// The same for all of a group, of any length, and another for each containerd.
fn socket_path(dir: &str, flags: &Flags, group: &str) -> PathBuf {
    let name = [&flags.address, "husk", &flags.namespace, group].join("/");
    let hash = Sha256::digest(name.as_bytes());
    let hex: String = hash.iter().map(|b| format!("{b:02x}")).collect();
    Path::new(dir).join(hex)
}

/// None: the group's shim is there.
fn listen(path: &Path) -> Result<Option<OwnedFd>> {
    if let Some(dir) = path.parent() {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        let made = builder.create(dir);
        made.with_context(|| format!("make '{}'", dir.display()))?;
    }
    let listener = match socket::listen(path, socket::Kind::Stream) {
        Err(e) if e.errno() == EADDRINUSE => {
            if socket::connect(path, socket::Kind::Stream).is_ok() {
                return Ok(None);
            }
            // a shim that was killed
            std::fs::remove_file(path)?;
            socket::listen(path, socket::Kind::Stream)
        }
        other => other,
    }?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(Some(listener))
}

/// Starts the long-lived shim: its stdin is the listening socket, its stderr the log that containerd reads.
fn serve(flags: &Flags, debug: bool, listener: OwnedFd, options: &Options) -> Result<()> {
    // open for both: it neither waits for a reader nor breaks without one
    let log = fs::open("log", fs::O_RDWR | fs::O_NONBLOCK, 0);
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(["-namespace", &flags.namespace, "-id", &flags.id])
        .args(["-address", &flags.address]);
    if debug {
        command.arg("-debug");
    }
    command
        .stdin(Stdio::from(listener))
        .stdout(Stdio::null())
        .stderr(log.map_or_else(|_| Stdio::null(), Stdio::from))
        .process_group(0);
    let mut child = command.spawn().context("start the shim")?;
    let placed = place(child.id(), options);
    if placed.is_err() {
        let _ = child.kill();
    }
    placed
}

/// ShimCgroup, and dying of want of memory a little sooner than containerd.
fn place(pid: u32, options: &Options) -> Result<()> {
    if !options.shim_cgroup.is_empty() {
        let mountpoint =
            husk::host::cgroup_mount()?.context("ShimCgroup: there is no cgroup2 mount")?;
        let path = Path::new(options.shim_cgroup.trim_start_matches('/'));
        let cgroup = husk::cgroup::CgroupDir::open(&mountpoint, path)?
            .with_context(|| format!("ShimCgroup '{}' does not exist", options.shim_cgroup))?;
        cgroup.attach(pid as i32)?;
    }
    let parent = format!("/proc/{}/oom_score_adj", process::parent());
    let score = std::fs::read_to_string(parent).ok();
    let score = score
        .and_then(|s| s.trim().parse::<i32>().ok())
        .unwrap_or(0);
    let score = (score + 1).min(1000).to_string();
    // lowering it takes privileges that a rootless containerd has not
    let _ = fs::write_at(
        fs::CWD,
        &*format!("/proc/{pid}/oom_score_adj"),
        score.as_bytes(),
    );
    Ok(())
}

/// containerd.runtime.bootstrap.v1.BootstrapParams, as far as it matters here.
#[derive(Debug, Default, PartialEq)]
struct Params {
    id: String,
    namespace: String,
    debug: bool,
    options: Option<Any>,
    socket_dir: Option<String>,
}

impl Params {
    /// None: it is another message, such as the options that earlier versions send.
    fn parse(input: &[u8]) -> Option<Params> {
        let mut params = Params::default();
        let mut stream = CodedInputStream::from_bytes(input);
        while let Some(tag) = stream.read_raw_tag_or_eof().ok()? {
            match tag >> 3 {
                1 => params.id = stream.read_string().ok()?,
                2 => params.namespace = stream.read_string().ok()?,
                // LogLevel: INFO is 0, DEBUG -4, TRACE -8
                3 => params.debug = stream.read_int32().ok()? <= -4,
                8 => {
                    let extension = stream.read_bytes().ok()?;
                    let any = extension_value(&extension)?;
                    if Options::are(&any) {
                        params.options = Some(any);
                    }
                }
                9 => params.socket_dir = Some(stream.read_string().ok()?).filter(|d| !d.is_empty()),
                _ => skip(tag, &mut stream)?,
            }
        }
        Some(params)
    }
}

/// The Any within an Extension.
fn extension_value(bytes: &[u8]) -> Option<Any> {
    let mut stream = CodedInputStream::from_bytes(bytes);
    let mut any = None;
    while let Some(tag) = stream.read_raw_tag_or_eof().ok()? {
        if tag >> 3 == 1 {
            any = Any::parse_from_bytes(&stream.read_bytes().ok()?).ok();
        } else {
            skip(tag, &mut stream)?;
        }
    }
    any
}

fn skip(tag: u32, stream: &mut CodedInputStream) -> Option<()> {
    use containerd_shim_protos::protobuf::rt::WireType;
    let kind = WireType::new(tag & 7)?;
    stream.skip_field(kind).ok()
}

/// containerd.runtime.bootstrap.v1.BootstrapResult.
fn result(address: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    {
        let mut stream = CodedOutputStream::vec(&mut bytes);
        stream.write_int32(1, 3)?; // the task service's version
        stream.write_string(2, address)?;
        stream.write_string(3, "ttrpc")?;
        stream.flush()?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(fields: &[(u32, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut stream = CodedOutputStream::vec(&mut bytes);
        for (number, value) in fields {
            stream.write_bytes(*number, value).unwrap();
        }
        stream.flush().unwrap();
        drop(stream);
        bytes
    }

    #[test]
    fn params_of_containerd_2_3() {
        let any = message(&[(1, b"containerd.runc.v1.Options"), (2, b"\x48\x01")]);
        let extension = message(&[(1, &any)]);
        let mut input = message(&[
            (1, b"c1"),
            (2, b"k8s.io"),
            (4, b"2.3.0"),
            (8, &extension),
            (9, b"/run/s"),
        ]);
        input.extend(b"\x18\xfc\xff\xff\xff\xff\xff\xff\xff\xff\x01"); // log_level = -4
        let params = Params::parse(&input).unwrap();
        assert_eq!((&*params.id, &*params.namespace), ("c1", "k8s.io"));
        assert!(params.debug);
        assert_eq!(params.socket_dir.as_deref(), Some("/run/s"));
        let options = Options::from_any(params.options.as_ref()).unwrap();
        assert!(options.systemd_cgroup);
    }

    #[test]
    fn options_are_found_among_extensions() {
        let text = message(&[(3, b"SystemdCgroup = true")]);
        let options = message(&[(1, b"runtimeoptions.v1.Options"), (2, &text)]);
        let other = message(&[(1, b"containerd.io/sandbox.v1.SandboxConfig"), (2, b"?")]);
        let extensions = [&other, &options, &other].map(|any| message(&[(1, any)]));
        let mut fields: Vec<(u32, &[u8])> = vec![(1, b"c1"), (2, b"k8s.io")];
        fields.extend(extensions.iter().map(|e| (8, &**e)));
        let params = Params::parse(&message(&fields)).unwrap();
        let options = Options::from_any(params.options.as_ref()).unwrap();
        assert!(options.systemd_cgroup);
    }

    #[test]
    fn options_of_earlier_ones_are_not_mistaken() {
        let any = message(&[(1, b"containerd.runc.v1.Options"), (2, b"\x48\x01")]);
        let params = Params::parse(&any);
        assert!(params.is_none_or(|p| p.id != "c1"));
        assert_eq!(Params::parse(b""), Some(Params::default()));
    }

    #[test]
    fn a_result_is_three_fields() {
        let bytes = result("unix:///s").unwrap();
        assert_eq!(bytes, b"\x08\x03\x12\x09unix:///s\x1a\x05ttrpc");
    }
}
