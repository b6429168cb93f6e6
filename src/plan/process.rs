//! The process: of a config, of `exec --process`, or of exec's command line.

use super::memory_policy::MemoryPolicy;
use super::users::IdMaps;
use super::{Options, Violations, annotations, lists};
use oci_spec::runtime::{
    self as oci, Capability, IOPriorityClass, LinuxPersonalityDomain, LinuxSchedulerFlag,
    LinuxSchedulerPolicy, PosixRlimitType, Spec,
};
use std::ffi::CString;

/// The arguments of sched_setattr(2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scheduler {
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    /// Nanoseconds, for SCHED_DEADLINE.
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
}

/// Capability sets as bit masks (1 << CAP_*).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    pub bounding: u64,
    pub effective: u64,
    pub permitted: u64,
    pub inheritable: u64,
    pub ambient: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rlimit {
    /// "RLIMIT_NOFILE", for messages.
    pub name: String,
    /// `RLIMIT_*` of prlimit(2).
    pub resource: u32,
    pub soft: u64,
    pub hard: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Not empty.
    pub args: Vec<CString>,
    /// "KEY=VALUE", as in the config; later entries win. HOME is added from the container's passwd when unset.
    pub env: Vec<CString>,
    /// Absolute in the container.
    pub cwd: CString,
    pub terminal: bool,
    /// Rows and columns.
    pub console_size: Option<(u16, u16)>,
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    /// husk's own groups stay, from [`keep_groups`].
    pub keep_groups: bool,
    pub umask: u32,
    /// None leaves all sets as execve makes them.
    pub capabilities: Option<Capabilities>,
    pub rlimits: Vec<Rlimit>,
    pub no_new_privileges: bool,
    pub apparmor_profile: Option<String>,
    pub selinux_label: Option<String>,
    pub oom_score_adj: Option<i32>,
    pub scheduler: Option<Scheduler>,
    /// Class and level of ioprio_set(2).
    pub io_priority: Option<(u32, u32)>,
    /// CPU masks for `exec`: while it is set up, and at the end.
    pub affinity_initial: Option<Vec<u64>>,
    pub affinity_final: Option<Vec<u64>>,
    /// personality(2), from [`personality`], since the config has it outside of its process.
    pub personality: Option<u64>,
    /// Likewise, from [`super::memory_policy`].
    pub memory_policy: Option<MemoryPolicy>,
}

/// The process, but what of it stands in `linux`. `path` is the JSON path of the process, "process" in a config and "" in the file of
/// `exec --process`.
pub fn plan(
    process: &oci::Process,
    path: &str,
    users: Option<&IdMaps>,
    v: &mut Violations,
) -> Process {
    let at = |field: &str| match path {
        "" => field.to_string(),
        path => format!("{path}.{field}"),
    };
    let terminal = process.terminal().unwrap_or(false);
    let user = process.user();
    let affinity = process.exec_cpu_affinity().as_ref();
    Process {
        args: args(process, &at("args"), v),
        env: env(process, &at("env"), v),
        cwd: cwd(process, &at("cwd"), v),
        terminal,
        console_size: process
            .console_size()
            .filter(|_| terminal)
            .map(|size| console_size(&size, &at("consoleSize"), v)),
        uid: mapped(
            user.uid(),
            users.map(|u| (&u.uids, u.host_uid(user.uid()))),
            &at("user.uid"),
            v,
        ),
        gid: mapped(
            user.gid(),
            users.map(|u| (&u.gids, u.host_gid(user.gid()))),
            &at("user.gid"),
            v,
        ),
        groups: groups(user, users, &at("user.additionalGids"), v),
        keep_groups: false,
        umask: umask(user.umask(), &at("user.umask"), v),
        capabilities: process
            .capabilities()
            .as_ref()
            .map(|c| capabilities(c, &at("capabilities"), v)),
        rlimits: rlimits(process, &at("rlimits"), v),
        no_new_privileges: process.no_new_privileges().unwrap_or(false),
        apparmor_profile: label(process.apparmor_profile(), &at("apparmorProfile"), v),
        selinux_label: label(process.selinux_label(), &at("selinuxLabel"), v),
        oom_score_adj: process
            .oom_score_adj()
            .inspect(|&score| in_range(score, -1000, 1000, &at("oomScoreAdj"), v)),
        scheduler: process
            .scheduler()
            .as_ref()
            .map(|s| scheduler(s, &at("scheduler"), v)),
        io_priority: process
            .io_priority()
            .as_ref()
            .map(|p| io_priority(p, &at("ioPriority"), v)),
        affinity_initial: affinity
            .and_then(|a| a.initial().as_ref())
            .and_then(|list| lists::mask(list, "CPU", &at("execCPUAffinity.initial"), v)),
        affinity_final: affinity
            .and_then(|a| a.cpu_affinity_final().as_ref())
            .and_then(|list| lists::mask(list, "CPU", &at("execCPUAffinity.final"), v)),
        personality: None,
        memory_policy: None,
    }
}

fn args(process: &oci::Process, at: &str, v: &mut Violations) -> Vec<CString> {
    let args = process.args().as_deref().unwrap_or_default();
    if args.is_empty() {
        v.add(at, "is required; give the program and its arguments");
    }
    cstrings(args, at, v)
}

fn env(process: &oci::Process, at: &str, v: &mut Violations) -> Vec<CString> {
    let env = process.env().as_deref().unwrap_or_default();
    for (i, entry) in env.iter().enumerate() {
        if !matches!(entry.find('='), Some(1..)) {
            v.add(format!("{at}[{i}]"), format!("'{entry}' is not NAME=VALUE"));
        }
    }
    cstrings(env, at, v)
}

/// An empty one is none.
fn label(given: &Option<String>, at: &str, v: &mut Violations) -> Option<String> {
    let label = given.as_ref().filter(|label| !label.is_empty())?;
    v.cstring(at, label);
    Some(label.clone())
}

fn cstrings(list: &[String], at: &str, v: &mut Violations) -> Vec<CString> {
    list.iter()
        .enumerate()
        .map(|(i, text)| match CString::new(text.as_str()) {
            Ok(text) => text,
            Err(_) => v.cstring(&format!("{at}[{i}]"), text),
        })
        .collect()
}

fn cwd(process: &oci::Process, at: &str, v: &mut Violations) -> CString {
    let cwd = process.cwd();
    if cwd.as_os_str().is_empty() {
        v.add(at, "is required; \"/\" is the root directory");
    } else if !cwd.is_absolute() {
        v.add(at, format!("'{}' is not an absolute path", cwd.display()));
    }
    v.cstring(at, cwd)
}

fn console_size(size: &oci::Box, at: &str, v: &mut Violations) -> (u16, u16) {
    let mut side = |value: u64, field: &str| {
        u16::try_from(value).unwrap_or_else(|_| {
            v.warn(
                &format!("{at}.{field}"),
                &format!("{value} is above {}, the most a terminal has", u16::MAX),
            );
            u16::MAX
        })
    };
    (side(size.height(), "height"), side(size.width(), "width"))
}

/// An id that the kernel takes as one, and that the user namespace, if its maps are known, has.
fn mapped<M>(id: u32, maps: Option<(&Vec<M>, Option<u32>)>, at: &str, v: &mut Violations) -> u32 {
    if id == u32::MAX {
        // to setresuid(2) and its kin -1 means "leave it as it is": the process would stay root
        v.add(at, format!("{id} is no id"));
    } else if let Some((maps, None)) = maps
        && !maps.is_empty()
    {
        v.add(
            at,
            format!("{id} has no mapping in the user namespace; map it or use another"),
        );
    }
    id
}

fn groups(user: &oci::User, users: Option<&IdMaps>, at: &str, v: &mut Violations) -> Vec<u32> {
    let groups = user.additional_gids().as_deref().unwrap_or_default();
    if !groups.is_empty() && users.is_some_and(|u| u.deny_setgroups) {
        v.add(
            at,
            "an ordinary user that maps only its own group may not set groups; remove them, or map a range of \
             /etc/subgid",
        );
        return Vec::new();
    }
    groups
        .iter()
        .enumerate()
        .map(|(i, &gid)| {
            let maps = users.map(|u| (&u.gids, u.host_gid(gid)));
            mapped(gid, maps, &format!("{at}[{i}]"), v)
        })
        .collect()
}

fn umask(umask: Option<u32>, at: &str, v: &mut Violations) -> u32 {
    let umask = umask.unwrap_or(0o022);
    if umask > 0o777 {
        v.warn(
            at,
            &format!("{umask:#o} has more than permission bits; the rest is left out"),
        );
    }
    umask & 0o777
}

fn in_range<N: PartialOrd + std::fmt::Display>(
    value: N,
    min: N,
    max: N,
    at: &str,
    v: &mut Violations,
) {
    if value < min || value > max {
        v.add(at, format!("{value} is not between {min} and {max}"));
    }
}

/// The sets as masks. What the kernel would refuse for certain is left out with a warning, as the spec wants; what the host
/// cannot give is found out when they are applied.
fn capabilities(sets: &oci::LinuxCapabilities, at: &str, v: &mut Violations) -> Capabilities {
    let mask = |set: &Option<oci::Capabilities>| {
        let set = set.iter().flatten();
        set.fold(0, |mask, &cap| mask | 1 << number(cap))
    };
    let bounding = mask(sets.bounding());
    let permitted = mask(sets.permitted());
    // capset(2) raises nothing in inheritable that is outside of the bounding set, and prctl(2) nothing in ambient
    // that is not in both permitted and inheritable
    let mut within = |name: &str, set: &Option<oci::Capabilities>, limit: u64, of: &str| {
        for &cap in set.iter().flatten() {
            if limit & (1 << number(cap)) == 0 {
                v.warn(
                    &format!("{at}.{name}"),
                    &format!("can't raise {name} capability CAP_{cap}: it is not in {of}"),
                );
            }
        }
        mask(set) & limit
    };
    let effective = within("effective", sets.effective(), permitted, "permitted");
    let inheritable = within("inheritable", sets.inheritable(), bounding, "bounding");
    let ambient = within(
        "ambient",
        sets.ambient(),
        permitted & inheritable,
        "both permitted and inheritable",
    );
    Capabilities {
        bounding,
        effective,
        permitted,
        inheritable,
        ambient,
    }
}

/// `CAP_*` of capabilities(7), linux/capability.h.
fn number(cap: Capability) -> u32 {
    match cap {
        Capability::Chown => 0,
        Capability::DacOverride => 1,
        Capability::DacReadSearch => 2,
        Capability::Fowner => 3,
        Capability::Fsetid => 4,
        Capability::Kill => 5,
        Capability::Setgid => 6,
        Capability::Setuid => 7,
        Capability::Setpcap => 8,
        Capability::LinuxImmutable => 9,
        Capability::NetBindService => 10,
        Capability::NetBroadcast => 11,
        Capability::NetAdmin => 12,
        Capability::NetRaw => 13,
        Capability::IpcLock => 14,
        Capability::IpcOwner => 15,
        Capability::SysModule => 16,
        Capability::SysRawio => 17,
        Capability::SysChroot => 18,
        Capability::SysPtrace => 19,
        Capability::SysPacct => 20,
        Capability::SysAdmin => 21,
        Capability::SysBoot => 22,
        Capability::SysNice => 23,
        Capability::SysResource => 24,
        Capability::SysTime => 25,
        Capability::SysTtyConfig => 26,
        Capability::Mknod => 27,
        Capability::Lease => 28,
        Capability::AuditWrite => 29,
        Capability::AuditControl => 30,
        Capability::Setfcap => 31,
        Capability::MacOverride => 32,
        Capability::MacAdmin => 33,
        Capability::Syslog => 34,
        Capability::WakeAlarm => 35,
        Capability::BlockSuspend => 36,
        Capability::AuditRead => 37,
        Capability::Perfmon => 38,
        Capability::Bpf => 39,
        Capability::CheckpointRestore => 40,
    }
}

fn rlimits(process: &oci::Process, at: &str, v: &mut Violations) -> Vec<Rlimit> {
    let mut list: Vec<Rlimit> = Vec::new();
    for (i, limit) in process.rlimits().iter().flatten().enumerate() {
        let (name, resource) = (limit.typ().to_string(), resource(limit.typ()));
        let (soft, hard) = (limit.soft(), limit.hard());
        if list.iter().any(|r| r.resource == resource) {
            v.add(format!("{at}[{i}].type"), format!("{name} is given twice"));
        }
        if soft > hard {
            v.add(
                format!("{at}[{i}].soft"),
                format!("{soft} is above the hard limit, {hard}"),
            );
        }
        list.push(Rlimit {
            name,
            resource,
            soft,
            hard,
        });
    }
    list
}

/// `RLIMIT_*` of asm-generic/resource.h, which all architectures use that husk is built for.
fn resource(kind: PosixRlimitType) -> u32 {
    match kind {
        PosixRlimitType::RlimitCpu => 0,
        PosixRlimitType::RlimitFsize => 1,
        PosixRlimitType::RlimitData => 2,
        PosixRlimitType::RlimitStack => 3,
        PosixRlimitType::RlimitCore => 4,
        PosixRlimitType::RlimitRss => 5,
        PosixRlimitType::RlimitNproc => 6,
        PosixRlimitType::RlimitNofile => 7,
        PosixRlimitType::RlimitMemlock => 8,
        PosixRlimitType::RlimitAs => 9,
        PosixRlimitType::RlimitLocks => 10,
        PosixRlimitType::RlimitSigpending => 11,
        PosixRlimitType::RlimitMsgqueue => 12,
        PosixRlimitType::RlimitNice => 13,
        PosixRlimitType::RlimitRtprio => 14,
        PosixRlimitType::RlimitRttime => 15,
    }
}

/// The kernel answers each of these faults with a bare EINVAL, or ignores it.
fn scheduler(s: &oci::Scheduler, at: &str, v: &mut Violations) -> Scheduler {
    let policy = *s.policy();
    let nice = s.nice().unwrap_or(0);
    let niced = matches!(
        policy,
        LinuxSchedulerPolicy::SchedOther | LinuxSchedulerPolicy::SchedBatch
    );
    if niced {
        in_range(nice, -20, 19, &format!("{at}.nice"), v);
    } else if nice != 0 {
        v.warn(
            &format!("{at}.nice"),
            &format!("has no effect with {policy}"),
        );
    }
    let priority = s.priority().unwrap_or(0);
    let real_time = matches!(
        policy,
        LinuxSchedulerPolicy::SchedFifo | LinuxSchedulerPolicy::SchedRr
    );
    if real_time {
        in_range(priority, 1, 99, &format!("{at}.priority"), v);
    } else if priority != 0 {
        v.add(
            format!("{at}.priority"),
            format!("{policy} has none; use nice, or SCHED_FIFO or SCHED_RR"),
        );
    }
    let (runtime, deadline, period) = (
        s.runtime().unwrap_or(0),
        s.deadline().unwrap_or(0),
        s.period().unwrap_or(0),
    );
    match policy {
        LinuxSchedulerPolicy::SchedDeadline => {
            // a period of 0 is the deadline's
            let ordered = runtime <= deadline && (period == 0 || deadline <= period);
            if runtime == 0 || !ordered {
                v.add(
                    at,
                    format!(
                        "SCHED_DEADLINE wants 0 < runtime <= deadline <= period, not {runtime}, {deadline}, {period}"
                    ),
                );
            }
        }
        LinuxSchedulerPolicy::SchedIso => v.add(
            format!("{at}.policy"),
            "SCHED_ISO is a name that no kernel implements; use another policy",
        ),
        _ if runtime != 0 || deadline != 0 || period != 0 => v.add(
            at,
            format!("runtime, deadline and period are SCHED_DEADLINE's, not {policy}'s"),
        ),
        _ => {}
    }
    let flags = s.flags().iter().flatten();
    Scheduler {
        policy: policy_number(policy),
        flags: flags.fold(0, |flags, &flag| flags | scheduler_flag(flag)),
        nice,
        priority: priority.unsigned_abs(),
        runtime,
        deadline,
        period,
    }
}

/// `SCHED_*` of linux/sched.h.
fn policy_number(policy: LinuxSchedulerPolicy) -> u32 {
    match policy {
        LinuxSchedulerPolicy::SchedOther => 0,
        LinuxSchedulerPolicy::SchedFifo => 1,
        LinuxSchedulerPolicy::SchedRr => 2,
        LinuxSchedulerPolicy::SchedBatch => 3,
        LinuxSchedulerPolicy::SchedIso => 4,
        LinuxSchedulerPolicy::SchedIdle => 5,
        LinuxSchedulerPolicy::SchedDeadline => 6,
    }
}

/// `SCHED_FLAG_*` of linux/sched.h.
fn scheduler_flag(flag: LinuxSchedulerFlag) -> u64 {
    match flag {
        LinuxSchedulerFlag::SchedResetOnFork => 0x01,
        LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
        LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
        LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
        LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
        LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
        LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
    }
}

fn io_priority(priority: &oci::LinuxIOPriority, at: &str, v: &mut Violations) -> (u32, u32) {
    let class = match priority.class() {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    let level = priority.priority();
    in_range(level, 0, 7, &format!("{at}.priority"), v);
    (class, u32::try_from(level).unwrap_or(0))
}

/// linux.personality, for the container's process and for each that `exec` adds.
pub fn personality(spec: &Spec, v: &mut Violations) -> Option<u64> {
    let personality = spec.linux().as_ref()?.personality().as_ref()?;
    if personality.flags().as_ref().is_some_and(|f| !f.is_empty()) {
        v.warn(
            "linux.personality.flags",
            "are ignored, the spec defines none yet",
        );
    }
    Some(match personality.domain() {
        LinuxPersonalityDomain::PerLinux => 0,
        LinuxPersonalityDomain::PerLinux32 => 8,
    })
}

/// Whether the config's annotation lets the process keep the groups that husk has: those of a rootless Podman's user, which no
/// user namespace maps.
pub fn keep_groups(spec: &Spec, process: &Process, v: &mut Violations) -> bool {
    let keep = annotations::get(spec, annotations::KEEP_GROUPS).is_some_and(|value| value != "0");
    if keep && !process.groups.is_empty() {
        v.warn(
            "process.user.additionalGids",
            &format!("are not set, because of {}", annotations::KEEP_GROUPS),
        );
    }
    keep
}

/// A terminal needs a console socket when nobody stays, and a console socket needs a terminal.
pub fn check_terminal(process: &Process, options: &Options, v: &mut Violations) {
    if options.detach && process.terminal && !options.console_socket {
        v.add(
            "process.terminal",
            "cannot allocate tty if husk will detach without setting console socket; give --console-socket, or set it \
             to false",
        );
    }
    if options.console_socket && !(options.detach && process.terminal) {
        v.add(
            "process.terminal",
            "cannot use console socket if husk will not detach or allocate tty; leave --console-socket away",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::users::{IdMap, Writer};
    use super::super::violations::testing::*;
    use super::*;
    use serde_json::{Value, json};

    /// The smallest process with these fields added.
    fn parse(fields: Value) -> oci::Process {
        let mut process = json!({"user": {}, "cwd": "/", "args": ["sh"]});
        let all = process.as_object_mut().unwrap();
        all.extend(fields.as_object().expect("an object").clone());
        serde_json::from_value(process).expect("a process")
    }

    fn run(fields: Value, v: &mut Violations) -> Process {
        plan(&parse(fields), "process", None, v)
    }

    fn one(fields: Value) -> Process {
        good(|v| run(fields, v))
    }

    #[test]
    fn the_smallest_process() {
        let expected = Process {
            args: vec![c"sh".into()],
            env: Vec::new(),
            cwd: c"/".into(),
            terminal: false,
            console_size: None,
            uid: 0,
            gid: 0,
            groups: Vec::new(),
            keep_groups: false,
            umask: 0o022,
            capabilities: None,
            rlimits: Vec::new(),
            no_new_privileges: false,
            apparmor_profile: None,
            selinux_label: None,
            oom_score_adj: None,
            scheduler: None,
            io_priority: None,
            affinity_initial: None,
            affinity_final: None,
            personality: None,
            memory_policy: None,
        };
        assert_eq!(one(json!({})), expected);
    }

    #[test]
    fn simple_fields() {
        let p = one(json!({
            "terminal": true,
            "consoleSize": {"height": 10, "width": 110},
            "user": {"uid": 1, "gid": 2, "umask": 63, "additionalGids": [3, 4], "username": "ignored"},
            "args": ["a", "", "ü"],
            "env": ["A=1", "A=2", "B=", "C=x=y\nz"],
            "cwd": "/x/../y",
            "noNewPrivileges": true,
            "oomScoreAdj": -1000,
            "commandLine": "ignored",
            "apparmorProfile": "",
            "selinuxLabel": "",
        }));
        assert!(p.terminal && p.no_new_privileges);
        assert_eq!(p.console_size, Some((10, 110)));
        assert_eq!((p.uid, p.gid, p.umask, p.groups), (1, 2, 0o77, vec![3, 4]));
        assert_eq!(p.args, [c"a", c"", c"ü"].map(CString::from));
        assert_eq!(
            p.env,
            [c"A=1", c"A=2", c"B=", c"C=x=y\nz"].map(CString::from)
        );
        assert_eq!(p.cwd.as_c_str(), c"/x/../y");
        assert_eq!(p.oom_score_adj, Some(-1000));
        let size = json!({"consoleSize": {"height": 99999, "width": 1}});
        assert_eq!(one(size).console_size, None, "no terminal, no size");
    }

    #[test]
    fn odd_fields_are_taken_as_runc_does() {
        let odd = parse(json!({
            "user": {"umask": 0o7022},
            "terminal": true,
            "consoleSize": {"height": 1, "width": 65536},
            "scheduler": {"policy": "SCHED_IDLE", "nice": 99},
        }));
        let (p, warnings) = warned(|v| plan(&odd, "", None, v));
        assert_eq!((p.umask, p.console_size), (0o022, Some((1, 65535))));
        assert_eq!(
            warnings,
            [
                "consoleSize.width: 65536 is above 65535, the most a terminal has",
                "user.umask: 0o7022 has more than permission bits; the rest is left out",
                "scheduler.nice: has no effect with SCHED_IDLE",
            ]
        );
    }

    #[test]
    fn bad_fields_are_refused() {
        for (fields, fault) in [
            (
                json!({"args": []}),
                "args: is required; give the program and its arguments",
            ),
            (
                json!({"args": null}),
                "args: is required; give the program and its arguments",
            ),
            (
                json!({"args": ["a", "\u{0}"]}),
                "args[1]: holds a NUL character; remove it",
            ),
            (
                json!({"cwd": ""}),
                "cwd: is required; \"/\" is the root directory",
            ),
            (json!({"cwd": "x"}), "cwd: 'x' is not an absolute path"),
            (
                json!({"cwd": "/\u{0}"}),
                "cwd: holds a NUL character; remove it",
            ),
            (json!({"env": ["A=", "B"]}), "env[1]: 'B' is not NAME=VALUE"),
            (json!({"env": ["=B"]}), "env[0]: '=B' is not NAME=VALUE"),
            (json!({"env": [""]}), "env[0]: '' is not NAME=VALUE"),
            (
                json!({"env": ["A=\u{0}"]}),
                "env[0]: holds a NUL character; remove it",
            ),
            (
                json!({"user": {"uid": u32::MAX}}),
                "user.uid: 4294967295 is no id",
            ),
            (
                json!({"user": {"gid": u32::MAX}}),
                "user.gid: 4294967295 is no id",
            ),
            (
                json!({"user": {"additionalGids": [1, u32::MAX]}}),
                "user.additionalGids[1]: 4294967295 is no id",
            ),
            (
                json!({"oomScoreAdj": 1001}),
                "oomScoreAdj: 1001 is not between -1000 and 1000",
            ),
        ] {
            let process = parse(fields);
            assert_eq!(faults(|v| plan(&process, "", None, v)), fault);
            let found = faults(|v| plan(&process, "process", None, v));
            assert_eq!(found, format!("process.{fault}"));
        }
    }

    #[test]
    fn ids_must_be_mapped() {
        let map = |size| {
            vec![IdMap {
                container: 0,
                host: 100,
                size,
            }]
        };
        let mut users = IdMaps {
            uids: map(10),
            gids: map(5),
            writer: Writer::Direct,
            deny_setgroups: false,
            claimed: None,
        };
        let process = parse(json!({"user": {"uid": 9, "gid": 4, "additionalGids": [0]}}));
        good(|v| plan(&process, "process", Some(&users), v));
        let process = parse(json!({"user": {"uid": 10, "gid": 5, "additionalGids": [4, 6]}}));
        let fault = |at: &str, id| {
            format!(
                "process.user.{at}: {id} has no mapping in the user namespace; map it or use another"
            )
        };
        assert_eq!(
            faults(|v| plan(&process, "process", Some(&users), v)),
            [
                fault("uid", 10),
                fault("gid", 5),
                fault("additionalGids[1]", 6)
            ]
            .join("\n")
        );
        users.deny_setgroups = true;
        let process = parse(json!({"user": {"additionalGids": [4]}}));
        assert_eq!(
            faults(|v| plan(&process, "process", Some(&users), v)),
            "process.user.additionalGids: an ordinary user that maps only its own group may not set groups; remove them, \
             or map a range of /etc/subgid"
        );
        // a joined namespace's maps are not known here
        (users.uids, users.gids, users.deny_setgroups) = (Vec::new(), Vec::new(), false);
        let process = parse(json!({"user": {"uid": 99, "gid": 99, "additionalGids": [99]}}));
        good(|v| plan(&process, "process", Some(&users), v));
    }

    #[test]
    fn capabilities_become_masks() {
        let p = one(json!({"capabilities": {}}));
        assert_eq!(p.capabilities, Some(Capabilities::default()));
        let (kill, raw) = (1 << 5, 1 << 13);
        let p = one(json!({"capabilities": {
            "bounding": ["CAP_KILL", "CAP_NET_RAW"],
            "permitted": ["CAP_NET_RAW", "CAP_KILL", "CAP_KILL"],
            "effective": ["CAP_NET_RAW"],
            "inheritable": ["CAP_KILL"],
            "ambient": ["CAP_KILL"],
        }}));
        let expected = Capabilities {
            bounding: kill | raw,
            permitted: kill | raw,
            effective: raw,
            inheritable: kill,
            ambient: kill,
        };
        assert_eq!(p.capabilities, Some(expected));
    }

    /// capabilities(7) numbers them as linux/capability.h, and the crate `caps` has the same table.
    #[test]
    fn capabilities_have_the_kernels_numbers() {
        for cap in caps::all() {
            let name = cap.to_string();
            let ours: Capability = serde_json::from_value(name.as_str().into()).unwrap();
            assert_eq!(number(ours), u32::from(cap.index()), "{name}");
        }
    }

    #[test]
    fn capabilities_that_cannot_be_raised_are_warned_about() {
        let (p, warnings) = warned(|v| {
            let sets = json!({
                "bounding": ["CAP_KILL"],
                "permitted": ["CAP_KILL", "CAP_CHOWN"],
                "effective": ["CAP_BPF"],
                "inheritable": ["CAP_CHOWN"],
                "ambient": ["CAP_CHOWN"],
            });
            run(json!({ "capabilities": sets }), v)
        });
        let expected = Capabilities {
            bounding: 1 << 5,
            permitted: 1 << 5 | 1,
            ..Capabilities::default()
        };
        assert_eq!(p.capabilities, Some(expected));
        assert_eq!(
            warnings,
            [
                "process.capabilities.effective: can't raise effective capability CAP_BPF: it is not in permitted",
                "process.capabilities.inheritable: can't raise inheritable capability CAP_CHOWN: it is not in bounding",
                "process.capabilities.ambient: can't raise ambient capability CAP_CHOWN: it is not in both permitted and \
                 inheritable",
            ]
        );
    }

    #[test]
    fn rlimits_are_numbered() {
        let names = [
            "CPU",
            "FSIZE",
            "DATA",
            "STACK",
            "CORE",
            "RSS",
            "NPROC",
            "NOFILE",
            "MEMLOCK",
            "AS",
            "LOCKS",
            "SIGPENDING",
            "MSGQUEUE",
            "NICE",
            "RTPRIO",
            "RTTIME",
        ];
        let list: Vec<Value> = names
            .iter()
            .map(|n| json!({"type": format!("RLIMIT_{n}"), "soft": 1, "hard": u64::MAX}))
            .collect();
        let limits = one(json!({ "rlimits": list })).rlimits;
        for (i, (limit, name)) in limits.iter().zip(names).enumerate() {
            assert_eq!(
                (limit.resource as usize, &limit.name),
                (i, &format!("RLIMIT_{name}"))
            );
            assert_eq!((limit.soft, limit.hard), (1, u64::MAX));
        }
        assert_eq!(limits.len(), 16);
        let limit = |soft, hard| json!({"type": "RLIMIT_AS", "soft": soft, "hard": hard});
        for (list, fault) in [
            (
                json!([limit(1, 1), limit(1, 1)]),
                "[1].type: RLIMIT_AS is given twice",
            ),
            (
                json!([limit(2, 1)]),
                "[0].soft: 2 is above the hard limit, 1",
            ),
        ] {
            let found = faults(|v| run(json!({ "rlimits": list }), v));
            assert_eq!(found, format!("process.rlimits{fault}"));
        }
    }

    #[test]
    fn schedulers() {
        let run = |fields: Value| one(json!({ "scheduler": fields })).scheduler.unwrap();
        for (policy, number) in [("OTHER", 0), ("BATCH", 3)] {
            let s = run(json!({"policy": format!("SCHED_{policy}"), "nice": 19}));
            assert_eq!((s.policy, s.nice, s.priority), (number, 19, 0), "{policy}");
        }
        for (policy, number) in [("FIFO", 1), ("RR", 2)] {
            let s = run(json!({"policy": format!("SCHED_{policy}"), "priority": 99}));
            assert_eq!((s.policy, s.nice, s.priority), (number, 0, 99), "{policy}");
        }
        let expected = Scheduler {
            policy: 6,
            flags: 0x1 | 0x4,
            nice: 0,
            priority: 0,
            runtime: 1,
            deadline: 2,
            period: 3,
        };
        let flags = json!(["SCHED_RESET_ON_FORK", "SCHED_FLAG_D_L_OVERRUN"]);
        let deadline = json!({"policy": "SCHED_DEADLINE", "runtime": 1, "deadline": 2, "period": 3, "flags": flags});
        assert_eq!(run(deadline), expected);
        let rest = [
            "RECLAIM",
            "KEEP_POLICY",
            "KEEP_PARAMS",
            "UTIL_CLAMP_MIN",
            "UTIL_CLAMP_MAX",
        ];
        let rest: Vec<String> = rest.iter().map(|f| format!("SCHED_FLAG_{f}")).collect();
        assert_eq!(
            run(json!({"policy": "SCHED_OTHER", "flags": rest})).flags,
            0x7a
        );
    }

    #[test]
    fn bad_schedulers_are_refused() {
        for (fields, fault) in [
            (
                json!({"policy": "SCHED_OTHER", "nice": 20}),
                ".nice: 20 is not between -20 and 19",
            ),
            (
                json!({"policy": "SCHED_BATCH", "priority": 1}),
                ".priority: SCHED_BATCH has none; use nice, or SCHED_FIFO or SCHED_RR",
            ),
            (
                json!({"policy": "SCHED_FIFO"}),
                ".priority: 0 is not between 1 and 99",
            ),
            (
                json!({"policy": "SCHED_RR", "priority": -1}),
                ".priority: -1 is not between 1 and 99",
            ),
            (
                json!({"policy": "SCHED_ISO"}),
                ".policy: SCHED_ISO is a name that no kernel implements; use another policy",
            ),
            (
                json!({"policy": "SCHED_IDLE", "period": 1}),
                ": runtime, deadline and period are SCHED_DEADLINE's, not SCHED_IDLE's",
            ),
            (
                json!({"policy": "SCHED_DEADLINE", "runtime": 3, "deadline": 2, "period": 4}),
                ": SCHED_DEADLINE wants 0 < runtime <= deadline <= period, not 3, 2, 4",
            ),
            (
                json!({"policy": "SCHED_DEADLINE"}),
                ": SCHED_DEADLINE wants 0 < runtime <= deadline <= period, not 0, 0, 0",
            ),
        ] {
            let found = faults(|v| run(json!({ "scheduler": fields }), v));
            assert_eq!(found, format!("process.scheduler{fault}"));
        }
    }

    #[test]
    fn io_priorities() {
        for (class, number) in [("RT", 1), ("BE", 2), ("IDLE", 3)] {
            let p = json!({"class": format!("IOPRIO_CLASS_{class}"), "priority": 7});
            assert_eq!(
                one(json!({ "ioPriority": p })).io_priority,
                Some((number, 7))
            );
        }
        for level in [-1, 8] {
            let p = json!({"class": "IOPRIO_CLASS_BE", "priority": level});
            assert_eq!(
                faults(|v| run(json!({ "ioPriority": p }), v)),
                format!("process.ioPriority.priority: {level} is not between 0 and 7")
            );
        }
    }

    #[test]
    fn affinities() {
        let p = one(json!({"execCPUAffinity": {"initial": "1", "final": "2-3"}}));
        assert_eq!(
            (p.affinity_initial, p.affinity_final),
            (Some(vec![2]), Some(vec![12]))
        );
    }

    #[test]
    fn personalities() {
        for (domain, persona) in [("LINUX", 0), ("LINUX32", 8)] {
            let spec = linux(json!({"personality": {"domain": domain, "flags": []}}));
            assert_eq!(good(|v| personality(&spec, v)), Some(persona));
        }
        assert_eq!(good(|v| personality(&linux(json!({})), v)), None);
        let spec =
            linux(json!({"personality": {"domain": "LINUX", "flags": ["ADDR_NO_RANDOMIZE"]}}));
        let (_, warnings) = warned(|v| personality(&spec, v));
        assert_eq!(
            warnings,
            ["linux.personality.flags: are ignored, the spec defines none yet"]
        );
    }

    #[test]
    fn a_terminal_needs_somebody_to_hold_it() {
        let detached = "process.terminal: cannot allocate tty if husk will detach without setting console socket; give \
                        --console-socket, or set it to false";
        let idle = "process.terminal: cannot use console socket if husk will not detach or allocate tty; leave \
                    --console-socket away";
        for (terminal, detach, console_socket, fault) in [
            (false, false, false, ""),
            (false, false, true, idle),
            (false, true, false, ""),
            (false, true, true, idle),
            (true, false, false, ""),
            (true, false, true, idle),
            (true, true, false, detached),
            (true, true, true, ""),
        ] {
            let process = one(json!({ "terminal": terminal }));
            let options = Options {
                detach,
                console_socket,
                ..options()
            };
            let (_, found) = with(|v| check_terminal(&process, &options, v));
            assert_eq!(found, fault, "{terminal} {detach} {console_socket}");
        }
    }
}
