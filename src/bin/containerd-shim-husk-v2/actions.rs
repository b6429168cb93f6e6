//! What the shim does beside running: the cleanup after one that was killed, and telling what it is.

use crate::args::Flags;
use crate::rootfs;
use crate::runtime::{self, Options, Runtime};
use crate::task::now;
use anyhow::{Context, Result};
use containerd_shim_protos::api::DeleteResponse;
use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::types::introspection::{RuntimeInfo, RuntimeVersion};
use husk::sys::process::SIGKILL;
use std::io::{Read, Write};
use std::process::{Command, Stdio};

pub const NAME: &str = "containerd-shim-husk-v2";
const FEATURES: &str = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";

pub fn version() -> Result<()> {
    let text = format!("{NAME}:\n  Version:  {}\n", env!("CARGO_PKG_VERSION"));
    print(text.as_bytes())
}

/// Options come on stdin; what the runtime can do goes out.
pub fn info() -> Result<()> {
    let mut input = Vec::new();
    std::io::stdin().read_to_end(&mut input)?;
    let any = Any::parse_from_bytes(&input).context("parse the options")?;
    let options = Options::from_any(Some(&any))?;
    let mut info = RuntimeInfo::new();
    info.name = "io.containerd.husk.v2".into();
    let mut version = RuntimeVersion::new();
    version.version = env!("CARGO_PKG_VERSION").into();
    info.version = Some(version).into();
    if !input.is_empty() {
        info.options = Some(any).into();
    }
    let binary = runtime::binary(&options.binary_name);
    let output = Command::new(&binary).arg("features").output();
    let output = output.with_context(|| format!("execute '{}'", binary.display()))?;
    if output.status.success() {
        let mut features = Any::new();
        features.type_url = FEATURES.into();
        features.value = output.stdout;
        info.features = Some(features).into();
    }
    print(&info.write_to_bytes()?)
}

/// The working directory is the bundle. What cannot be cleaned up is told, and the rest is done.
pub fn delete(flags: &Flags) -> Result<()> {
    let cwd = std::env::current_dir()?;
    let bundle = cwd.parent().context("the bundle is /")?.join(&flags.id);
    let options = Options::load(&bundle);
    let runtime = Runtime::new(&options, &flags.namespace, &bundle);
    let size = runtime.log_size();
    let mut command = runtime.command("delete");
    command.arg("--force").arg(&flags.id);
    // containerd takes what comes on stdout for the response
    let status = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if !status.is_ok_and(|s| s.success()) {
        let words = runtime.last_words(size);
        let words = words.unwrap_or_else(|| format!("execute '{}'", runtime.binary().display()));
        husk::log::warn(format_args!("delete '{}': {words}", flags.id));
    }
    rootfs::unmount(&bundle.join("rootfs"));
    let pid = std::fs::read_to_string(bundle.join("init.pid")).ok();
    let mut response = DeleteResponse::new();
    response.pid = pid.and_then(|p| p.trim().parse().ok()).unwrap_or(0);
    response.exit_status = 128 + SIGKILL as u32;
    response.exited_at = Some(now()).into();
    print(&response.write_to_bytes()?)
}

fn print(bytes: &[u8]) -> Result<()> {
    let mut stdout = std::io::stdout();
    stdout.write_all(bytes)?;
    Ok(stdout.flush()?)
}
