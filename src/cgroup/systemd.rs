//! A container's cgroup as a transient scope that systemd makes, for root by the system's instance, for a user by his own.
//!
//! systemd makes a scope around processes that are there, so it is started after the last clone, while the container's init waits.

use super::dbus::{Address, Connection, Message, PATIENCE, Refused, Target};
use crate::host::Host;
use crate::log;
use crate::plan::resources::Write;
use crate::plan::systemd::{Property, Unit, Value, limits};
use crate::sys::process;
use anyhow::{Context, Error, Result, bail};
use serde::{Deserialize, Serialize};
use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

const MANAGER: Target = Target {
    destination: "org.freedesktop.systemd1",
    path: "/org/freedesktop/systemd1",
    interface: "org.freedesktop.systemd1.Manager",
};

/// Which signals the bus is to pass on.
const JOBS: &str = "type='signal',sender='org.freedesktop.systemd1',interface='org.freedesktop.systemd1.Manager',member='JobRemoved'";

/// A scope that was started: what a later command needs to find it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// "docker-ID.scope"
    pub unit: String,
    /// Of the user's own systemd rather than the system's.
    pub user: bool,
    /// The cgroup below the scope's that the container's processes are in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subgroup: Option<String>,
}

impl From<&Unit> for Scope {
    fn from(unit: &Unit) -> Scope {
        Scope {
            unit: unit.name.clone(),
            user: unit.user,
            subgroup: unit.subgroup.clone(),
        }
    }
}

/// The instance that has the container's unit: the system's for root, also where root is one of a user namespace in which a systemd runs; the
/// user's own for everybody else.
fn connect(scope: &Scope, patience: Duration) -> Result<Connection> {
    let uid = process::euid();
    // root of a user namespace is somebody else to the user's systemd, which asks the kernel then
    let said = (!scope.user || uid != 0).then_some(uid);
    let (direct, bus) = if scope.user {
        let dir = env::var_os("XDG_RUNTIME_DIR").filter(|d| !d.is_empty());
        let dir = dir.map_or_else(|| format!("/run/user/{uid}").into(), PathBuf::from);
        let named = env::var("DBUS_SESSION_BUS_ADDRESS").ok();
        let bus = named.and_then(|a| Address::parse(&a));
        (
            dir.join("systemd/private"),
            bus.unwrap_or_else(|| Address(dir.join("bus"))),
        )
    } else {
        let named = env::var("DBUS_SYSTEM_BUS_ADDRESS").ok();
        let bus = named.and_then(|a| Address::parse(&a));
        (
            "/run/systemd/private".into(),
            bus.unwrap_or_else(|| Address("/run/dbus/system_bus_socket".into())),
        )
    };
    // straight to systemd, as systemctl does: two processes less to wait for, and it works without a bus
    if let Ok(c) = Connection::open(&Address(direct), false, said, patience) {
        return Ok(c);
    }
    Connection::open(&bus, true, said, patience)
}

/// Whether it is the user's systemd that husk asks: --rootless says so, or husk is not root, or root of a user namespace only by
/// name, with a session of the user's.
pub fn is_users(host: &Host, rootless: Option<bool>) -> bool {
    let session = |name| env::var_os(name).is_some_and(|v| !v.is_empty());
    rootless.unwrap_or_else(|| {
        host.euid != 0
            || host.in_user_namespace
                && (session("XDG_RUNTIME_DIR") || session("DBUS_SESSION_BUS_ADDRESS"))
    })
}

/// Starts a scope around the process `pid`. None: there is no systemd to ask, and the container needs no cgroup.
pub(super) fn start(unit: &Unit, required: bool, pid: i32) -> Result<Option<Scope>> {
    let scope = Scope::from(unit);
    let mut systemd = match connect(&scope, PATIENCE) {
        Ok(c) => c,
        Err(e) if scope.user && !required => {
            log::debug(format_args!("no cgroup: {e:#}"));
            return Ok(None);
        }
        Err(e) => {
            let remedy = if scope.user {
                "log in by a session that starts systemd for the user, or leave out --systemd-cgroup"
            } else {
                "leave out --systemd-cgroup where systemd does not run"
            };
            bail!("reach systemd: {e:#}; {remedy}");
        }
    };
    match start_unit(&mut systemd, unit, pid) {
        Ok(()) => Ok(Some(scope)),
        Err(e) => {
            if !e.is::<Refused>() {
                abandon(&scope);
            }
            Err(e.context(format!("unable to start unit \"{}\"", unit.name)))
        }
    }
}

/// After a deadline: systemd may come to the unit yet, whose process is gone then. Who has been waited for so long is not waited for
/// much longer.
fn abandon(scope: &Scope) {
    let Ok(mut systemd) = connect(scope, Duration::from_secs(2)) else {
        return;
    };
    if let Err(e) = stop_unit(&mut systemd, &scope.unit) {
        log::debug(format_args!("stop unit {}: {e:#}", scope.unit));
    }
    reset_failed(&mut systemd, &scope.unit);
}

fn start_unit(systemd: &mut Connection, unit: &Unit, pid: i32) -> Result<()> {
    systemd.subscribe(JOBS)?;
    let mut properties = unit.properties.clone();
    let pids = Value::Array("u".into(), vec![Value::U32(pid as u32)]);
    properties.push(Property {
        name: "PIDs".into(),
        value: pids,
        optional: false,
    });
    let mut fresh = false;
    let answer = loop {
        let args = [
            Value::Str(unit.name.clone()),
            Value::Str("replace".into()),
            list(&properties),
            Value::Array("(sa(sv))".into(), Vec::new()),
        ];
        let refused = match systemd.call(MANAGER, "StartTransientUnit", &args) {
            Ok(answer) => break answer,
            Err(e) => e.downcast::<Refused>()?,
        };
        if refused.name.ends_with(".UnitExists") && !fresh {
            // a failed one of that name stays until somebody says that he has seen it
            fresh = true;
            reset_failed(systemd, &unit.name);
        } else if !drop_unknown(&mut properties, &refused) {
            return Err(refused.into());
        }
    };
    finish_job(systemd, answer.body().string(), &unit.name)
}

/// Waits until systemd is done.
fn finish_job(systemd: &mut Connection, job: Option<String>, unit: &str) -> Result<()> {
    let job = job.context("an answer without a job")?;
    // JobRemoved(u id, o job, s unit, s result)
    let signal = systemd.signal("JobRemoved", |m| {
        let mut body = m.body();
        body.u32();
        body.string().as_ref() == Some(&job)
    })?;
    let mut body = signal.body();
    body.u32();
    body.string();
    body.string();
    match body.string().as_deref() {
        Some("done") => Ok(()),
        result => {
            reset_failed(systemd, unit);
            bail!(
                "its job ended as '{}'; see: systemctl status {unit}",
                result.unwrap_or("nothing")
            )
        }
    }
}

/// Takes out a limit that this systemd does not know as a property: its file is written all the same.
fn drop_unknown(properties: &mut Vec<Property>, refused: &Refused) -> bool {
    if !refused.name.ends_with(".PropertyReadOnly") && !refused.name.ends_with(".InvalidArgs") {
        return false;
    }
    let named = |p: &Property| {
        let mut words = refused.text.split(|c: char| !c.is_ascii_alphanumeric());
        words.any(|w| w == p.name)
    };
    let before = properties.len();
    properties.retain(|p| !(p.optional && named(p)));
    properties.len() < before
}

fn list(properties: &[Property]) -> Value {
    let each = properties.iter().map(|p| {
        let value = Value::Variant(Box::new(p.value.clone()));
        Value::Struct(vec![Value::Str(p.name.clone()), value])
    });
    Value::Array("(sv)".into(), each.collect())
}

/// One that has not failed, or is gone, needs none.
fn reset_failed(systemd: &mut Connection, unit: &str) {
    if let Err(e) = systemd.call(MANAGER, "ResetFailedUnit", &[Value::Str(unit.into())]) {
        log::debug(format_args!("reset unit {unit}: {e:#}"));
    }
}

/// The answer is a job.
fn stop_unit(systemd: &mut Connection, unit: &str) -> Result<Message> {
    let args = [Value::Str(unit.into()), Value::Str("replace".into())];
    systemd.call(MANAGER, "StopUnit", &args)
}

/// Stops the scope, and lets systemd forget it. One that is gone is fine.
pub fn stop(scope: &Scope) -> Result<()> {
    let stopped = (|| {
        let mut systemd = connect(scope, PATIENCE)?;
        systemd.subscribe(JOBS)?;
        match stop_unit(&mut systemd, &scope.unit) {
            Ok(answer) => finish_job(&mut systemd, answer.body().string(), &scope.unit)?,
            Err(e) if is_gone(&e) => {}
            Err(e) => return Err(e),
        }
        reset_failed(&mut systemd, &scope.unit);
        Ok(())
    })();
    stopped.with_context(|| format!("stop unit {}", scope.unit))
}

fn is_gone(e: &Error) -> bool {
    e.downcast_ref::<Refused>()
        .is_some_and(|r| r.name.ends_with(".NoSuchUnit"))
}

/// Tells systemd the limits of a running scope. All or none: what it refuses as a whole is an error, what it does not know is in the
/// files.
pub fn set_limits(scope: &Scope, writes: &[Write]) -> Result<()> {
    let mut properties = limits(writes);
    let mut systemd = connect(scope, PATIENCE)?;
    while !properties.is_empty() {
        let args = [
            Value::Str(scope.unit.clone()),
            Value::Bool(true), // until the next boot: a scope has no longer life
            list(&properties),
        ];
        let Err(e) = systemd.call(MANAGER, "SetUnitProperties", &args) else {
            break;
        };
        let refused = e.downcast::<Refused>()?;
        if !drop_unknown(&mut properties, &refused) {
            return Err(Error::from(refused))
                .with_context(|| format!("unable to set properties of unit {}", scope.unit));
        }
    }
    Ok(())
}

/// Has systemd move a process into the scope, or the cgroup `below` it: a user may not do so himself from outside of what is delegated
/// to him.
pub fn attach(scope: &Scope, below: &Path, pid: i32) -> Result<()> {
    let args = [
        Value::Str(scope.unit.clone()),
        Value::Str(format!("/{}", below.display())),
        Value::Array("u".into(), vec![Value::U32(pid as u32)]),
    ];
    connect(scope, PATIENCE)?
        .call(MANAGER, "AttachProcessesToUnit", &args)
        .map(drop)
        .with_context(|| format!("adding pid {pid} to unit {}", scope.unit))
}
