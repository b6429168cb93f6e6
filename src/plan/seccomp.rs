//! linux.seccomp: a profile, checked and compiled to the program that the kernel runs at every system call.
//!
//! A profile means what libseccomp, as runc uses it, makes of it: the names of actions and operators are libseccomp's, and engines write their profiles
//! for it. The compiler is husk's own. The crate seccompiler knows one architecture and one action a program, no listener and no 32-bit arguments, and
//! gives whole programs only, so that nothing of it would be left but its comparisons; libseccomp takes 10 ms for Docker's profile and makes a program
//! that the kernel needs four times as long to load. The tests compare what both programs answer.

pub mod arch;
pub mod bpf;
mod compile;
pub mod numbers;
#[cfg(test)]
mod oracle;

use super::{Violations, annotations};
use arch::Arch;
pub use bpf::Insn;
use compile::{Call, Condition, Profile, Rule};
use oci_spec::runtime::{
    Arch as Named, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg,
    LinuxSeccompFilterFlag as Flag, LinuxSeccompOperator as Op, LinuxSyscall, Spec,
};
use std::path::PathBuf;

/// What is loaded into the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    pub program: Vec<Insn>,
    /// `SECCOMP_FILTER_FLAG_…`
    pub flags: u32,
    /// Whom the kernel asks, if the program has a rule that says so.
    pub listener: Option<Listener>,
}

/// The agent that decides in the kernel's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Where it listens; "@name" is an abstract socket's.
    pub path: PathBuf,
    /// For the agent, unread.
    pub metadata: Option<String>,
}

// the answers of a program, <linux/seccomp.h>; the lower half holds an errno or a number for a tracer
const KILL_PROCESS: u32 = 0x8000_0000;
const KILL_THREAD: u32 = 0;
const TRAP: u32 = 0x0003_0000;
const ERRNO: u32 = 0x0005_0000;
const NOTIFY: u32 = 0x7fc0_0000;
const TRACE: u32 = 0x7ff0_0000;
const LOG: u32 = 0x7ffc_0000;
const ALLOW: u32 = 0x7fff_0000;
const ACTION_MASK: u32 = 0xffff_0000;

// <linux/seccomp.h>
pub const FLAG_LOG: u32 = 1 << 1;
pub const FLAG_SPEC_ALLOW: u32 = 1 << 2;
pub const FLAG_NEW_LISTENER: u32 = 1 << 3;
pub const FLAG_WAIT_KILLABLE_RECV: u32 = 1 << 5;

/// The flags of the spec, and what the kernel gets. TSYNC is for other threads, of which the container's process has none when it loads its filter.
pub const FLAGS: [(Flag, u32); 4] = [
    (Flag::SeccompFilterFlagTsync, 0),
    (Flag::SeccompFilterFlagSpecAllow, FLAG_SPEC_ALLOW),
    (Flag::SeccompFilterFlagLog, FLAG_LOG),
    (
        Flag::SeccompFilterFlagWaitKillableRecv,
        FLAG_WAIT_KILLABLE_RECV,
    ),
];

/// All of the spec's, for `features`.
pub const ACTIONS: [Action; 9] = [
    Action::ScmpActAllow,
    Action::ScmpActErrno,
    Action::ScmpActKill,
    Action::ScmpActKillProcess,
    Action::ScmpActKillThread,
    Action::ScmpActLog,
    Action::ScmpActNotify,
    Action::ScmpActTrace,
    Action::ScmpActTrap,
];

/// All of the spec's, for `features`.
pub const OPERATORS: [Op; 7] = [
    Op::ScmpCmpEq,
    Op::ScmpCmpGe,
    Op::ScmpCmpGt,
    Op::ScmpCmpLe,
    Op::ScmpCmpLt,
    Op::ScmpCmpMaskedEq,
    Op::ScmpCmpNe,
];

/// Those that a profile may name here, for `features`: a program is for one byte order.
pub fn architectures() -> impl Iterator<Item = Named> {
    [
        Named::ScmpArchAarch64,
        Named::ScmpArchArm,
        Named::ScmpArchLoongarch64,
        Named::ScmpArchM68k,
        Named::ScmpArchMips,
        Named::ScmpArchMips64,
        Named::ScmpArchMips64n32,
        Named::ScmpArchMipsel,
        Named::ScmpArchMipsel64,
        Named::ScmpArchMipsel64n32,
        Named::ScmpArchParisc,
        Named::ScmpArchParisc64,
        Named::ScmpArchPpc,
        Named::ScmpArchPpc64,
        Named::ScmpArchPpc64le,
        Named::ScmpArchRiscv64,
        Named::ScmpArchS390,
        Named::ScmpArchS390x,
        Named::ScmpArchSh,
        Named::ScmpArchSheb,
        Named::ScmpArchX32,
        Named::ScmpArchX86,
        Named::ScmpArchX86_64,
    ]
    .into_iter()
    .filter(|named| big_endian(*named) == cfg!(target_endian = "big"))
}

/// The kernel takes no longer program (`BPF_MAXINSNS`).
const LONGEST: usize = 4096;

/// `MAX_ERRNO`: the kernel returns no higher one.
const ERRNO_MAX: u32 = 4095;

const AT: &str = "linux.seccomp";

/// The filter that the config asks for.
pub fn plan(spec: &Spec, v: &mut Violations) -> Option<Filter> {
    let seccomp = spec.linux().as_ref()?.seccomp().as_ref()?;
    let Some(native) = Arch::NATIVE else {
        v.add(
            AT,
            "husk does not know the system calls of this machine's architecture; remove it",
        );
        return None;
    };
    if annotations::get(spec, annotations::KNOWN_SYSCALLS_ONLY).is_some() {
        refuse_unknown(seccomp, v);
    }
    filter(seccomp, native, v)
}

/// A profile may have names of newer kernels, which are passed over; a slip of the keyboard looks the same.
fn refuse_unknown(seccomp: &LinuxSeccomp, v: &mut Violations) {
    for (i, entry) in rules(seccomp).enumerate() {
        for (j, name) in entry.names().iter().enumerate() {
            if !name.is_empty() && arch::row(name).is_none() {
                v.add(
                    format!("{AT}.syscalls[{i}].names[{j}]"),
                    format!(
                        "'{name}' is no system call that husk knows, and {} wants none such",
                        annotations::KNOWN_SYSCALLS_ONLY
                    ),
                );
            }
        }
    }
}

/// The same for a machine of any architecture.
fn filter(seccomp: &LinuxSeccomp, native: Arch, v: &mut Violations) -> Option<Filter> {
    let notifies = rules(seccomp).any(|r| r.action() == Action::ScmpActNotify);
    let listener = listener(seccomp, notifies, v);
    let flags = flags(seccomp, notifies, v);
    let program = compile::compile(&profile(seccomp, native, v)?);
    if program.len() > LONGEST {
        v.add(
            AT,
            format!(
                "becomes a program of {} instructions, the kernel takes {LONGEST}; use fewer rules",
                program.len()
            ),
        );
    }
    Some(Filter {
        program,
        flags,
        listener,
    })
}

fn rules(seccomp: &LinuxSeccomp) -> impl Iterator<Item = &LinuxSyscall> {
    seccomp.syscalls().iter().flatten()
}

fn listener(seccomp: &LinuxSeccomp, notifies: bool, v: &mut Violations) -> Option<Listener> {
    let path = seccomp
        .listener_path()
        .as_ref()
        .filter(|path| !path.as_os_str().is_empty());
    let metadata = seccomp.listener_metadata().clone();
    let metadata = metadata.filter(|m| !m.is_empty());
    if path.is_none() && metadata.is_some() {
        v.warn(
            &format!("{AT}.listenerMetadata"),
            "is for the agent at listenerPath, and has no effect without",
        );
    }
    if !notifies {
        return None; // as the spec says, the path is ignored
    }
    let field = format!("{AT}.listenerPath");
    let Some(path) = path else {
        v.add(
            field,
            "seccomp listenerPath is not set; SCMP_ACT_NOTIFY needs it",
        );
        return None;
    };
    let is_abstract = path.to_str().is_some_and(|p| p.starts_with('@'));
    if !path.is_absolute() && !is_abstract {
        v.add(field, format!("'{}' is not absolute", path.display()));
    }
    Some(Listener {
        path: path.clone(),
        metadata,
    })
}

fn flags(seccomp: &LinuxSeccomp, notifies: bool, v: &mut Violations) -> u32 {
    let mut flags = match seccomp.flags() {
        // as runc: programs were made slow by default before Linux 5.16
        None => FLAG_SPEC_ALLOW,
        Some(given) => FLAGS
            .iter()
            .filter(|(flag, _)| given.contains(flag))
            .map(|(_, bit)| bit)
            .sum(),
    };
    if notifies {
        flags |= FLAG_NEW_LISTENER;
    } else if flags & FLAG_WAIT_KILLABLE_RECV != 0 {
        v.add(
            format!("{AT}.flags"),
            "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV is for a listener; use it with SCMP_ACT_NOTIFY only",
        );
    }
    flags
}

fn profile<'a>(seccomp: &'a LinuxSeccomp, native: Arch, v: &mut Violations) -> Option<Profile<'a>> {
    let archs = archs(seccomp, native, v);
    let default = seccomp.default_action();
    if default == Action::ScmpActNotify {
        // nor could husk: it has to hand over the listener first
        v.add(
            format!("{AT}.defaultAction"),
            "SCMP_ACT_NOTIFY cannot be used as default action; name the system calls",
        );
    }
    let errno_at = format!("{AT}.defaultErrnoRet");
    let default = answer(default, seccomp.default_errno_ret(), &errno_at, v);
    let mut profile = Profile {
        archs,
        default,
        rules: Vec::new(),
        calls: Vec::with_capacity(rules(seccomp).map(|r| r.names().len()).sum()),
    };
    let mut good = true;
    for (i, entry) in rules(seccomp).enumerate() {
        good &= add_entry(&mut profile, entry, &format!("{AT}.syscalls[{i}]"), v);
    }
    good.then_some(profile)
}

/// The kernel's own architecture, and of the others those that it takes calls of: for the rest, there is nothing to decide.
fn archs(seccomp: &LinuxSeccomp, native: Arch, v: &mut Violations) -> Vec<Arch> {
    let named = || seccomp.architectures().iter().flatten();
    for (i, named) in named().enumerate() {
        if *named != Named::ScmpArchNative && big_endian(*named) != native.big_endian() {
            v.add(
                format!("{AT}.architectures[{i}]"),
                format!("{named} has another byte order than this machine; remove it"),
            );
        }
    }
    let others = native.compatible().iter().copied();
    let others = others.filter(|arch| named().any(|n| *n == arch.named()));
    [native].into_iter().chain(others).collect()
}

fn big_endian(named: Named) -> bool {
    use Named::*;
    matches!(
        named,
        ScmpArchMips
            | ScmpArchMips64
            | ScmpArchMips64n32
            | ScmpArchPpc
            | ScmpArchPpc64
            | ScmpArchS390
            | ScmpArchS390x
            | ScmpArchParisc
            | ScmpArchParisc64
            | ScmpArchM68k
            | ScmpArchSheb
    )
}

/// What the program returns. An errno is only for the actions that can carry one.
fn answer(action: Action, errno: Option<u32>, at: &str, v: &mut Violations) -> u32 {
    const EPERM: u32 = 1;
    let (answer, largest) = match action {
        Action::ScmpActErrno => (ERRNO, ERRNO_MAX),
        Action::ScmpActTrace => (TRACE, 0xffff),
        Action::ScmpActKill | Action::ScmpActKillThread => (KILL_THREAD, 0),
        Action::ScmpActKillProcess => (KILL_PROCESS, 0),
        Action::ScmpActTrap => (TRAP, 0),
        Action::ScmpActNotify => (NOTIFY, 0),
        Action::ScmpActLog => (LOG, 0),
        Action::ScmpActAllow => (ALLOW, 0),
    };
    match errno {
        Some(errno) if largest == 0 => {
            v.add(
                at,
                format!("errno value {errno} specified for action {action}, which returns none; remove it"),
            );
            answer
        }
        Some(errno) if errno > largest => {
            v.add(at, format!("is {errno}, the highest is {largest}"));
            answer
        }
        Some(errno) => answer | errno,
        None if largest > 0 => answer | EPERM,
        None => answer,
    }
}

/// Adds one entry of `syscalls`; false if it is faulty.
fn add_entry<'a>(
    profile: &mut Profile<'a>,
    entry: &'a LinuxSyscall,
    at: &str,
    v: &mut Violations,
) -> bool {
    let action = answer(
        entry.action(),
        entry.errno_ret(),
        &format!("{at}.errnoRet"),
        v,
    );
    check_names(entry, at, v);
    let first = profile.rules.len();
    // as runc: a rule that says what would be done anyway is none, though its names count as known to the profile
    if action != profile.default {
        let given = entry.args().iter().flatten().enumerate();
        let conditions: Option<Vec<Condition>> = given
            .map(|(i, arg)| condition(arg, &format!("{at}.args[{i}]"), v))
            .collect();
        let Some(conditions) = conditions else {
            return false;
        };
        let mut add = |conditions| profile.rules.push(Rule { action, conditions });
        // libseccomp wants each argument once in a rule; as runc: of an entry with more, every condition is a rule
        if names_one_twice(&conditions) {
            conditions.into_iter().for_each(|c| add(vec![c]));
        } else {
            add(conditions);
        }
    }
    let rules = first..profile.rules.len();
    // a name that no architecture has is of another kernel: profiles are written for many
    let known = entry.names().iter().filter_map(|name| {
        Some(Call {
            name,
            row: arch::row(name)?,
            rules: rules.clone(),
        })
    });
    profile.calls.extend(known);
    true
}

fn check_names(entry: &LinuxSyscall, at: &str, v: &mut Violations) {
    if entry.names().is_empty() {
        v.warn(
            &format!("{at}.names"),
            "names no system call: the rule has no effect",
        );
    }
    for (i, name) in entry.names().iter().enumerate() {
        let field = || format!("{at}.names[{i}]");
        if name.is_empty() {
            v.add(field(), "empty string is not a valid syscall; remove it");
        }
        // the listener has to be handed over before anybody can answer; sendmsg does that here, write in runc
        if entry.action() == Action::ScmpActNotify && ["write", "sendmsg"].contains(&name.as_str())
        {
            v.add(
                field(),
                format!("SCMP_ACT_NOTIFY cannot be used for the {name} syscall, with which the agent is reached; remove it"),
            );
        }
    }
}

fn condition(arg: &LinuxSeccompArg, at: &str, v: &mut Violations) -> Option<Condition> {
    if arg.index() > 5 {
        v.add(
            format!("{at}.index"),
            format!("is {}, system calls have arguments 0 to 5", arg.index()),
        );
        return None;
    }
    let masked = arg.op() == Op::ScmpCmpMaskedEq;
    let (value, mask) = match masked {
        true => (arg.value_two().unwrap_or(0), arg.value()),
        false => (arg.value(), u64::MAX),
    };
    Some(Condition {
        index: arg.index() as u8,
        op: arg.op(),
        value,
        mask,
    })
}

fn names_one_twice(conditions: &[Condition]) -> bool {
    let mut seen = [false; 6];
    conditions
        .iter()
        .any(|c| std::mem::replace(&mut seen[usize::from(c.index)], true))
}

#[cfg(test)]
mod tests {
    use super::super::violations::testing::*;
    use super::*;
    use serde_json::{Value, json};

    fn planned(seccomp: Value, v: &mut Violations) -> Option<Filter> {
        filter(&serde_json::from_value(seccomp).unwrap(), Arch::X86_64, v)
    }

    fn fault(seccomp: Value) -> String {
        faults(|v| planned(seccomp, v))
    }

    /// A profile that allows all but what these rules say.
    fn with_rules(rules: Value) -> Value {
        json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules})
    }

    #[test]
    fn the_smallest_program() {
        let f = good(|v| planned(json!({"defaultAction": "SCMP_ACT_LOG"}), v)).unwrap();
        let insn = |code, jt, jf, k| Insn { code, jt, jf, k };
        let expected = [
            insn(bpf::LOAD, 0, 0, 4),
            insn(0x15, 0, 3, 0xc000_003e),
            insn(bpf::LOAD, 0, 0, 0),
            insn(0x35, 0, 2, arch::X32_BIT),
            insn(0x35, 1, 0, u32::MAX),
            insn(bpf::RETURN, 0, 0, KILL_THREAD),
            insn(bpf::RETURN, 0, 0, LOG),
        ];
        assert_eq!(f.program, expected);
        assert_eq!((f.flags, f.listener), (FLAG_SPEC_ALLOW, None));
    }

    #[test]
    fn flags_left_out_are_other_than_none() {
        let flags = |flags: Value| {
            let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": flags});
            good(|v| planned(profile, v)).unwrap().flags
        };
        assert_eq!(flags(Value::Null), FLAG_SPEC_ALLOW);
        assert_eq!(flags(json!([])), 0);
        let both = ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG"];
        assert_eq!(flags(json!(both)), FLAG_LOG);
        let fault = fault(json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]
        }));
        assert_eq!(
            fault,
            "linux.seccomp.flags: SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV is for a listener; use it with SCMP_ACT_NOTIFY only"
        );
    }

    #[test]
    fn a_listener_is_there_if_a_rule_asks_for_it() {
        let mut profile = with_rules(json!([{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]));
        assert_eq!(
            fault(profile.clone()),
            "linux.seccomp.listenerPath: seccomp listenerPath is not set; SCMP_ACT_NOTIFY needs it"
        );
        profile["listenerPath"] = "agent".into();
        assert_eq!(
            fault(profile.clone()),
            "linux.seccomp.listenerPath: 'agent' is not absolute"
        );
        profile["flags"] = json!(["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]);
        for path in ["/run/agent", "@agent"] {
            profile["listenerPath"] = path.into();
            profile["listenerMetadata"] = "words".into();
            let f = good(|v| planned(profile.clone(), v)).unwrap();
            let listener = Listener {
                path: path.into(),
                metadata: Some("words".into()),
            };
            assert_eq!(f.listener, Some(listener));
            assert_eq!(f.flags, FLAG_NEW_LISTENER | FLAG_WAIT_KILLABLE_RECV);
        }
        // without such a rule the path is ignored, whatever it is
        let unused = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "x"});
        assert_eq!(good(|v| planned(unused, v)).unwrap().listener, None);
        let alone = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "words"});
        let (_, warnings) = warned(|v| planned(alone, v));
        assert_eq!(
            warnings,
            [
                "linux.seccomp.listenerMetadata: is for the agent at listenerPath, and has no effect without"
            ]
        );
    }

    #[test]
    fn what_would_wait_for_ever_is_refused() {
        let notify = |names: Value| {
            let mut profile = with_rules(json!([{"names": names, "action": "SCMP_ACT_NOTIFY"}]));
            profile["listenerPath"] = "/agent".into();
            fault(profile)
        };
        assert_eq!(
            notify(json!(["mkdir", "write"])),
            "linux.seccomp.syscalls[0].names[1]: SCMP_ACT_NOTIFY cannot be used for the write syscall, with which the agent \
             is reached; remove it"
        );
        assert!(notify(json!(["sendmsg"])).contains("for the sendmsg syscall"));
        let by_default = json!({"defaultAction": "SCMP_ACT_NOTIFY", "syscalls": []});
        assert_eq!(
            fault(by_default),
            "linux.seccomp.defaultAction: SCMP_ACT_NOTIFY cannot be used as default action; name the system calls"
        );
    }

    #[test]
    fn an_errno_is_for_actions_that_return_one() {
        for action in ["KILL", "KILL_PROCESS", "KILL_THREAD", "TRAP", "LOG"] {
            let action = format!("SCMP_ACT_{action}");
            let rule = json!([{"names": ["mkdir"], "action": action, "errnoRet": 2}]);
            assert_eq!(
                fault(with_rules(rule)),
                format!(
                    "linux.seccomp.syscalls[0].errnoRet: errno value 2 specified for action {action}, which returns none; remove it"
                )
            );
        }
        let default = json!({"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1});
        assert!(fault(default).starts_with("linux.seccomp.defaultErrnoRet: errno value 1 "));
        for (action, highest) in [("SCMP_ACT_ERRNO", 4095), ("SCMP_ACT_TRACE", 65535)] {
            let rule = |errno| {
                with_rules(json!([{"names": ["mkdir"], "action": action, "errnoRet": errno}]))
            };
            good(|v| planned(rule(highest), v));
            let too_high = highest + 1;
            assert_eq!(
                fault(rule(too_high)),
                format!(
                    "linux.seccomp.syscalls[0].errnoRet: is {too_high}, the highest is {highest}"
                )
            );
        }
    }

    #[test]
    fn unknown_names_are_refused_where_that_is_asked_for() {
        let rules = json!([{"names": ["mkdir", "mkdri"], "action": "SCMP_ACT_ERRNO"}]);
        let mut config = json!({"linux": {"seccomp": with_rules(rules)}});
        good(|v| plan(&spec(config.clone()), v));
        config["annotations"] = json!({"run.oci.seccomp_fail_unknown_syscall": "1"});
        assert_eq!(
            faults(|v| plan(&spec(config), v)),
            "linux.seccomp.syscalls[0].names[1]: 'mkdri' is no system call that husk knows, and \
             run.oci.seccomp_fail_unknown_syscall wants none such"
        );
    }

    #[test]
    fn faulty_rules_are_named() {
        let rule = |rule: Value| fault(with_rules(json!([rule])));
        let args = json!([{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]);
        assert_eq!(
            rule(json!({"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "args": args})),
            "linux.seccomp.syscalls[0].args[0].index: is 6, system calls have arguments 0 to 5"
        );
        let none = with_rules(json!([{"names": [], "action": "SCMP_ACT_ERRNO"}]));
        assert_eq!(
            warned(|v| planned(none, v)).1,
            ["linux.seccomp.syscalls[0].names: names no system call: the rule has no effect"]
        );
        assert_eq!(
            rule(json!({"names": [""], "action": "SCMP_ACT_ERRNO"})),
            "linux.seccomp.syscalls[0].names[0]: empty string is not a valid syscall; remove it"
        );
    }

    #[test]
    fn architectures_of_other_machines_are_of_no_effect() {
        let program = |archs: Value| {
            let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": archs});
            good(|v| planned(profile, v)).unwrap().program
        };
        let own = program(json!([]));
        let others = ["SCMP_ARCH_AARCH64", "SCMP_ARCH_MIPSEL", "SCMP_ARCH_X86_64"];
        assert_eq!(program(json!(others)), own);
        assert_ne!(program(json!(["SCMP_ARCH_X86"])), own);
        let other_order =
            json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_MIPS"]});
        assert_eq!(
            fault(other_order),
            "linux.seccomp.architectures[0]: SCMP_ARCH_MIPS has another byte order than this machine; remove it"
        );
    }

    #[test]
    fn a_program_has_an_end() {
        let rules: Vec<Value> = (0..1500)
            .map(|i| {
                let args = json!([{"index": i % 6, "value": i, "op": "SCMP_CMP_GT"}]);
                json!({"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "args": args})
            })
            .collect();
        let found = fault(with_rules(json!(rules)));
        assert!(
            found.starts_with("linux.seccomp: becomes a program of ")
                && found.ends_with(" instructions, the kernel takes 4096; use fewer rules"),
            "{found}"
        );
    }
}
