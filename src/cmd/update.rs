//! `husk update`: all that is asked for, or nothing.

use crate::apply::intel_rdt;
use crate::host::Host;
use crate::plan::systemd;
use crate::plan::update::{self, Update};
use crate::state::{Root, State, StateDir, Status};
use crate::sys::fs::{self, Lock};
use crate::{cgroup, cli, config, log};
use anyhow::{Context, Result, anyhow, bail};
use oci_spec::runtime::Spec;
use serde_json::{Map, Value};
use std::os::fd::AsFd;
use std::path::Path;

pub fn run(global: &cli::Global, args: cli::Update) -> Result<i32> {
    let id = &args.id;
    // before the lock: whoever writes to standard input may take their time
    let mut asked = match args.resources.as_deref() {
        Some(file) => read(file)?,
        None => asked(&args),
    };
    let dir = StateDir::open_locked(&Root::new(global)?, id, Lock::Exclusive)?;
    let (state, status) = dir.load_with_status()?;
    if !matches!(status, Status::Created | Status::Running | Status::Paused) {
        bail!("update '{id}': container not running: it is {status}");
    }
    let Some(cgroup) = state.open_cgroup()? else {
        bail!(
            "update '{id}': it has no cgroup, which alone has limits; give it one by cgroupsPath"
        );
    };
    let json = fs::read_at(dir.fd(), "config.json")?;
    let spec =
        config::parse_spec(&json, &mut Vec::new()).context("read the container's config.json")?;
    let mut config = config::tree(&json)?;
    let schemata = schemata(&args, &state, &mut config)?;
    let has = config.pointer("/linux/resources").unwrap_or(&Value::Null);
    let scope = state.cgroup.as_ref().and_then(|c| c.scope.as_ref());
    if scope.is_some() {
        update::weight_ends_idleness(&mut asked, has);
    }
    let planned = update::plan(&spec, has, &asked).map_err(|v| match &args.resources {
        Some(file) => v.in_file(file),
        None => v.into(),
    })?;
    for warning in &planned.warnings {
        log::warn(warning);
    }
    let Update {
        resources,
        mut writes,
        devices,
        ..
    } = planned;
    config["linux"]["resources"] = resources;
    let failed = || format!("update '{id}'");
    if scope.is_some() {
        systemd::as_kept(&mut writes);
    }
    let rdt = state.intel_rdt.as_ref().filter(|_| !schemata.is_empty());
    let rdt = rdt.map(|rdt| intel_rdt::schemata(&rdt.class).map(|before| (rdt, before)));
    let rdt = rdt.transpose().with_context(failed)?;
    let changed = cgroup::change(&cgroup, scope, &writes).with_context(failed)?;
    let rest = (|| {
        if let Some(rules) = &devices
            && let Err(e) = cgroup::replace_devices(&cgroup, &rules.after)
            && !is_rootless(global, &spec)?
        {
            return Err(e);
        }
        if let Some((rdt, _)) = &rdt {
            intel_rdt::change(&rdt.class, &schemata)?;
        }
        dir.replace_config(&serde_json::to_vec(&config)?)
    })();
    let Err(mut error) = rest else { return Ok(0) };
    if let Some((rdt, before)) = &rdt
        && let Err(e) = intel_rdt::change(&rdt.class, before)
    {
        error = anyhow!("{error:#}; then {e:#}");
    }
    if let Some(rules) = &devices
        && let Err(e) = cgroup::replace_devices(&cgroup, &rules.before)
        && !is_rootless(global, &spec)?
    {
        error = anyhow!("{error:#}; then {e:#}");
    }
    Err(changed.undo(error)).with_context(failed)
}

/// Without rights of husk's own device rules may fail.
fn is_rootless(global: &cli::Global, spec: &Spec) -> Result<bool> {
    let said = global.rootless.choice();
    said.map_or_else(|| Ok(Host::probe(spec, None)?.rootless()), Ok)
}

/// The lines for the container's class of service, which also go into its config.
fn schemata(args: &cli::Update, state: &State, config: &mut Value) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for (given, flag, field) in [
        (&args.l3_cache_schema, "--l3-cache-schema", "l3CacheSchema"),
        (&args.mem_bw_schema, "--mem-bw-schema", "memBwSchema"),
    ] {
        let Some(line) = given.as_ref().filter(|l| !l.is_empty()) else {
            continue;
        };
        if state.intel_rdt.is_none() {
            bail!(
                "{flag}: updating Intel RDT takes linux.intelRdt in the config that the container was created with"
            );
        }
        config["linux"]["intelRdt"][field] = line.clone().into();
        lines.push(line.clone());
    }
    Ok(lines)
}

fn read(file: &Path) -> Result<Value> {
    let json = if file == Path::new("-") {
        fs::read_all(std::io::stdin().as_fd())
    } else {
        fs::read_at(fs::CWD, file)
    };
    config::parse_resources(&json.context("--resources")?)
        .with_context(|| format!("--resources: {}", file.display()))
}

/// The options in the form of linux.resources.
fn asked(args: &cli::Update) -> Value {
    let mut all = Map::new();
    let mut set = |section: &str, field: &str, value: Option<Value>| {
        if let Some(value) = value {
            let section = all.entry(section).or_insert_with(|| Map::new().into());
            section[field] = value;
        }
    };
    set("blockIO", "weight", args.blkio_weight.map(Value::from));
    for (field, value) in [
        ("period", args.cpu_period),
        ("burst", args.cpu_burst),
        ("shares", args.cpu_share),
        ("realtimePeriod", args.cpu_rt_period),
    ] {
        set("cpu", field, value.map(Value::from));
    }
    for (field, value) in [
        ("quota", args.cpu_quota),
        ("realtimeRuntime", args.cpu_rt_runtime),
        ("idle", args.cpu_idle),
    ] {
        set("cpu", field, value.map(Value::from));
    }
    for (field, value) in [("cpus", &args.cpuset_cpus), ("mems", &args.cpuset_mems)] {
        set("cpu", field, value.as_deref().map(Value::from));
    }
    for (field, value) in [
        ("kernel", args.kernel_memory),
        ("kernelTCP", args.kernel_memory_tcp),
        ("limit", args.memory),
        ("reservation", args.memory_reservation),
        ("swap", args.memory_swap),
    ] {
        set("memory", field, value.map(Value::from));
    }
    set("pids", "limit", args.pids_limit.map(Value::from));
    all.into()
}
