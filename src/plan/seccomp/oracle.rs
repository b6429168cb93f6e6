//! What husk's programs answer, held against those that libseccomp makes of the same profiles (hack/seccomp-oracle).

use super::arch::{ARM_PRIVATE, Arch, X32_BIT, row};
use super::bpf::{AND, JUMP, LOAD, RETURN};
use super::numbers::CALLS;
use super::*;
use crate::plan::violations::testing::good;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashSet};
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

/// struct seccomp_data, but for the instruction pointer.
struct Data {
    number: u32,
    audit: u32,
    args: [u64; 6],
}

/// The kernel's interpreter, as far as a filter may use it.
fn run(program: &[Insn], data: &Data, big_endian: bool) -> u32 {
    let word = |offset: u32| match offset {
        0 => data.number,
        4 => data.audit,
        16..64 => {
            let arg = data.args[(offset as usize - 16) / 8];
            let high = (offset % 8 == 4) != big_endian;
            if high { (arg >> 32) as u32 } else { arg as u32 }
        }
        _ => panic!("load of {offset}"),
    };
    let (mut a, mut at) = (0, 0);
    loop {
        let i = &program[at];
        at += 1;
        let holds = match i.code {
            LOAD => {
                a = word(i.k);
                continue;
            }
            AND => {
                a &= i.k;
                continue;
            }
            RETURN => return i.k,
            JUMP => {
                at += i.k as usize;
                continue;
            }
            0x15 => a == i.k,
            0x25 => a > i.k,
            0x35 => a >= i.k,
            0x45 => a & i.k != 0,
            other => panic!("instruction {other:#x}"),
        };
        at += usize::from(if holds { i.jt } else { i.jf });
    }
}

fn oracle(questions: &[Value]) -> Vec<Value> {
    let mut child = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/hack/seccomp-oracle"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("hack/seccomp-oracle starts");
    let (mut stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let text: String = questions.iter().map(|q| format!("{q}\n")).collect();
    let writer = std::thread::spawn(move || stdin.write_all(text.as_bytes()).unwrap());
    let answers = BufReader::new(stdout)
        .lines()
        .map(|line| serde_json::from_str(&line.unwrap()).unwrap())
        .collect();
    writer.join().unwrap();
    assert!(
        child.wait().unwrap().success(),
        "hack/seccomp-oracle needs Debian's python3-seccomp"
    );
    answers
}

fn disassemble(hex: &str, big_endian: bool) -> Vec<Insn> {
    let bytes: Vec<u8> = (0..hex.len() / 2)
        .map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap())
        .collect();
    let chunks = bytes.chunks_exact(8);
    let insn = |b: &[u8]| {
        let (code, k) = ([b[0], b[1]], [b[4], b[5], b[6], b[7]]);
        let (code, k) = match big_endian {
            true => (u16::from_be_bytes(code), u32::from_be_bytes(k)),
            false => (u16::from_le_bytes(code), u32::from_le_bytes(k)),
        };
        let (jt, jf) = (b[2], b[3]);
        Insn { code, jt, jf, k }
    };
    chunks.map(insn).collect()
}

/// xorshift64*, so that a failure comes again.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() >> 33) as usize % n
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

const FAMILIES: [(Arch, &[Arch]); 5] = [
    (Arch::X86_64, &[Arch::X86, Arch::X32]),
    (Arch::Aarch64, &[Arch::Arm]),
    (Arch::Riscv64, &[]),
    (Arch::Ppc64le, &[]),
    (Arch::S390x, &[]),
];

/// The calls that libseccomp knows, with the same numbers on all architectures of a family. Older than the kernel's headers, it lacks the newest.
fn shared_names(family: &[Arch]) -> Vec<&'static str> {
    let names: Vec<_> = CALLS.iter().map(|c| c.0).collect();
    let questions: Vec<_> = family
        .iter()
        .map(|a| json!(["numbers", a.named(), names]))
        .collect();
    let answers = oracle(&questions);
    let same = |i: &usize| {
        family.iter().zip(&answers).all(|(arch, numbers)| {
            let theirs = numbers[*i].as_i64().unwrap();
            let ours = arch.number(*i).map_or(-1, i64::from);
            let through = arch.multiplexed(names[*i]).map(|(n, _)| i64::from(n));
            theirs == ours || (theirs < -1 && ours == -1) || Some(theirs) == through
        })
    };
    let unknown = |i: &usize| answers.iter().all(|numbers| numbers[*i] == -1);
    let (same, different): (Vec<usize>, Vec<usize>) = (0..names.len()).partition(same);
    for i in different {
        for (arch, numbers) in family.iter().zip(&answers) {
            let (theirs, ours) = (numbers[i].as_i64().unwrap(), arch.number(i));
            // newer than the library, or a second name for a number
            let newer = theirs < 0;
            assert!(
                newer || ours.map(i64::from) == Some(theirs),
                "{arch:?} {}: {theirs}, {ours:?}",
                names[i]
            );
        }
    }
    let known = same.into_iter().filter(|i| !unknown(i));
    known.map(|i| names[i]).collect()
}

/// runc's addition to libseccomp's answer.
fn newer_than_profile(profile: &Value, arch: Arch, number: u32) -> bool {
    if ["SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE"]
        .contains(&profile["defaultAction"].as_str().unwrap())
    {
        return false;
    }
    if arch == Arch::Arm && number >= ARM_PRIVATE {
        return false;
    }
    let numbers = all_names(profile).filter_map(|n| arch.number(row(n)?));
    let newest = numbers
        .filter(|n| arch != Arch::Arm || *n < ARM_PRIVATE)
        .max()
        .unwrap_or(0);
    newest > 0 && (number > newest || arch == Arch::S390x && number == 0)
}

/// How the comparison went.
#[derive(Debug, Default)]
struct Count {
    programs: usize,
    all: usize,
    /// Rules with different actions match; the spec does not say which counts.
    contradictory: usize,
    /// Of these, answers that are not libseccomp's.
    otherwise: usize,
    /// Other answers that are not libseccomp's, which is wrong there: it forgets in places to load the half of an argument that it compares.
    mistaken: usize,
    /// Profiles that libseccomp refuses: two actions for the same conditions.
    refused: usize,
    /// Instructions of all programs.
    ours: usize,
    theirs: usize,
}

/// Compares the answers of two programs, and husk's with what the spec means.
fn compare(
    profile: &Value,
    native: Arch,
    listed: &[Arch],
    theirs: &[Insn],
    random: &mut Random,
    count: &mut Count,
) {
    let seccomp = serde_json::from_value(profile.clone()).unwrap();
    let ours = good(|v| filter(&seccomp, native, v)).unwrap().program;
    count.programs += 1;
    count.ours += ours.len();
    count.theirs += theirs.len();
    let big_endian = native.big_endian();
    let entries = profile["syscalls"].as_array().unwrap();
    let mut values: Vec<u64> = vec![0, 1, u64::MAX, 1 << 32];
    let args = entries
        .iter()
        .flat_map(|e| e["args"].as_array().into_iter().flatten());
    for v in args.flat_map(|a| [a["value"].as_u64(), a["valueTwo"].as_u64()]) {
        let v = v.unwrap_or(0);
        values.extend([v, v.wrapping_add(1), v.wrapping_sub(1), v ^ 1 << 32, !v]);
    }
    values.extend((1..=24).map(|code| code as u64)); // of socketcall and ipc
    values.sort();
    values.dedup();
    let with_args: HashSet<&str> = entries
        .iter()
        .filter(|e| e["args"].as_array().is_some_and(|a| !a.is_empty()))
        .flat_map(|e| e["names"].as_array().unwrap())
        .map(|n| n.as_str().unwrap())
        .collect();
    let archs = [native]
        .into_iter()
        .chain(native.compatible().iter().copied());
    for arch in archs {
        let base = if arch == Arch::X32 { X32_BIT } else { 0 };
        let mut numbers: BTreeMap<u32, usize> = (0..700).map(|n| (base + n, 2)).collect();
        let edges = [
            0x3fff_ffff,
            0x4000_0000,
            0x7fff_ffff,
            u32::MAX - 1,
            u32::MAX,
        ];
        numbers.extend(edges.map(|n| (n, 2)));
        numbers.extend((ARM_PRIVATE..ARM_PRIVATE + 10).map(|n| (n, 2)));
        for name in &with_args {
            let direct = row(name).and_then(|row| arch.number(row));
            let through = arch.multiplexed(name).map(|(n, _)| n);
            numbers.extend(direct.into_iter().chain(through).map(|n| (n, 100)));
        }
        for (number, times) in numbers {
            for _ in 0..times {
                let mut args = [0u64; 6].map(|_| *random.pick(&values));
                if random.below(8) == 0 {
                    args[random.below(6)] = random.next();
                }
                let data = Data {
                    number,
                    audit: arch.audit(),
                    args,
                };
                // the mark of x86_64 is shared, and x32 is judged only where it is listed
                let is_x32 = arch.audit() == Arch::X86_64.audit() && number & X32_BIT != 0;
                let judge = if is_x32 { Arch::X32 } else { native_or(arch) };
                let asked = judge == native || listed.contains(&judge);
                let expected = if asked && newer_than_profile(profile, judge, number) {
                    ERRNO | 38
                } else {
                    run(theirs, &data, big_endian)
                };
                let got = run(&ours, &data, big_endian);
                let about = about(profile, judge, number);
                let meant = match asked {
                    true => meant(&about, profile, judge, number, &args),
                    false => Some(expected), // libseccomp's alone
                };
                let why = || {
                    let rules: Vec<Value> = about.iter().map(|(e, _)| (*e).clone()).collect();
                    format!(
                        "{arch:?} {number:#x} {args:x?}: {got:#x}, libseccomp {expected:#x}, meant {meant:x?}: {}",
                        json!(rules)
                    )
                };
                assert!(meant.is_none_or(|meant| meant == got), "{}", why());
                count.all += 1;
                count.contradictory += usize::from(meant.is_none());
                if got != expected && meant.is_none() {
                    count.otherwise += 1;
                } else if got != expected {
                    count.mistaken += 1;
                }
            }
        }
    }
    // whatever else calls
    for audit in [0, 0x4000_0028, 0xc000_00b7, 0x8000_003e] {
        let data = Data {
            number: 1,
            audit,
            args: [0; 6],
        };
        assert_eq!(
            run(&ours, &data, big_endian),
            run(theirs, &data, big_endian)
        );
        count.all += 1;
    }
}

/// The entries of a profile that are about a number, with the code that its first argument then has.
fn about(profile: &Value, arch: Arch, number: u32) -> Vec<(&Value, Option<u64>)> {
    let entries = profile["syscalls"].as_array().unwrap().iter();
    let named = entries.flat_map(|e| {
        let names = e["names"].as_array().unwrap().iter();
        names.map(move |n| (e, n.as_str().unwrap()))
    });
    named
        .filter_map(|(entry, name)| {
            if row(name).and_then(|row| arch.number(row)) == Some(number) {
                return Some((entry, None));
            }
            let (through, code) = arch.multiplexed(name)?;
            (through == number).then_some((entry, Some(code)))
        })
        .collect()
}

/// What the spec wants, if no two rules contradict each other.
fn meant(
    about: &[(&Value, Option<u64>)],
    profile: &Value,
    arch: Arch,
    number: u32,
    args: &[u64; 6],
) -> Option<u32> {
    let value = |v: &Value, errno: &Value| {
        let action = serde_json::from_value(v.clone()).unwrap();
        good(|v| answer(action, errno.as_u64().map(|e| e as u32), "", v))
    };
    let width = if arch.narrow() {
        u32::MAX.into()
    } else {
        u64::MAX
    };
    let holds = |arg: &Value| {
        let field = |name: &str| arg[name].as_u64().unwrap_or(0) & width;
        let (a, value, two) = (
            args[field("index") as usize] & width,
            field("value"),
            field("valueTwo"),
        );
        match arg["op"].as_str().unwrap() {
            "SCMP_CMP_NE" => a != value,
            "SCMP_CMP_LT" => a < value,
            "SCMP_CMP_LE" => a <= value,
            "SCMP_CMP_EQ" => a == value,
            "SCMP_CMP_GE" => a >= value,
            "SCMP_CMP_GT" => a > value,
            _ => a & value == two & value,
        }
    };
    let default = value(&profile["defaultAction"], &profile["defaultErrnoRet"]);
    let mut actions = HashSet::new();
    for (entry, code) in about {
        let action = value(&entry["action"], &entry["errnoRet"]);
        if action == default || code.is_some_and(|code| args[0] & width != code) {
            continue;
        }
        let given: Vec<&Value> = entry["args"].as_array().into_iter().flatten().collect();
        let twice = given.iter().map(|a| &a["index"]).collect::<Vec<_>>();
        let twice = (1..twice.len()).any(|i| twice[..i].contains(&twice[i]));
        // the first argument of a multiplexed call is its code, whatever the rule says of it
        let mut judged = given
            .iter()
            .map(|a| code.is_some() && a["index"] == 0 || holds(a));
        if if twice {
            judged.any(|j| j)
        } else {
            judged.all(|j| j)
        } {
            actions.insert(action);
        }
    }
    let without_rule = if newer_than_profile(profile, arch, number) {
        ERRNO | 38
    } else {
        default
    };
    match actions.len() {
        0 => Some(without_rule),
        1 => actions.into_iter().next(),
        _ => None,
    }
}

fn native_or(arch: Arch) -> Arch {
    if arch == Arch::X32 {
        Arch::X86_64
    } else {
        arch
    }
}

const ACTIONS: [&str; 9] = [
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_LOG",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_TRAP",
    "SCMP_ACT_NOTIFY",
];

/// A profile in which each call has one action, whatever its conditions, or (`conflicts`) several actions with conditions on one argument.
fn generate(random: &mut Random, names: &[&str], conflicts: bool) -> Value {
    let errno = |random: &mut Random, action: &str| match action {
        "SCMP_ACT_ERRNO" | "SCMP_ACT_TRACE" if random.below(2) == 0 => json!(random.below(40)),
        _ => Value::Null,
    };
    let default = *random.pick(&ACTIONS[..8]);
    let default_errno = errno(random, default);
    let mut pool: Vec<&str> = (0..random.below(80) + 1)
        .map(|_| *random.pick(names))
        .collect();
    pool.push(*random.pick(&["socket", "bind", "semop", "shmctl", "personality", "clone"]));
    pool.retain(|n| !["write", "sendmsg"].contains(n));
    pool.push("read");
    let mut answers: BTreeMap<&str, (&str, Value)> = BTreeMap::new();
    let mut syscalls = Vec::new();
    for _ in 0..random.below(40) + 1 {
        let name = *random.pick(&pool);
        let action = *random.pick(&ACTIONS);
        let ret = errno(random, action);
        let (mut action, mut ret) = (action, ret);
        if !conflicts {
            (action, ret) = answers.entry(name).or_insert((action, ret)).clone();
        }
        let mut args = Vec::new();
        let count = if conflicts { 1 } else { random.below(4) };
        for i in 0..count {
            let index = if conflicts || random.below(12) == 0 {
                1
            } else {
                i + random.below(3)
            };
            let value = |random: &mut Random| match random.below(6) {
                0 => random.next(),
                1 => random.next() >> 33,
                _ => *random.pick(&[
                    0,
                    1,
                    2,
                    5,
                    0x7e02_0000,
                    0xffff_ffff,
                    1 << 32,
                    (5 << 32) + 5,
                    u64::MAX,
                ]),
            };
            let op = *random.pick(&["NE", "LT", "LE", "EQ", "EQ", "GE", "GT", "MASKED_EQ"]);
            let (value, two) = (value(random), value(random));
            args.push(json!({"index": index, "op": format!("SCMP_CMP_{op}"), "value": value, "valueTwo": two}));
        }
        let mut entry = json!({"names": [name], "action": action, "args": args});
        if !ret.is_null() {
            entry["errnoRet"] = ret;
        }
        syscalls.push(entry);
    }
    let plain: Vec<&str> = pool
        .iter()
        .copied()
        .filter(|n| !answers.contains_key(n))
        .collect();
    if !plain.is_empty() && !conflicts {
        syscalls.push(json!({"names": plain, "action": random.pick(&ACTIONS)}));
    }
    let mut profile =
        json!({"defaultAction": default, "syscalls": syscalls, "listenerPath": "/agent"});
    if !default_errno.is_null() {
        profile["defaultErrnoRet"] = default_errno;
    }
    profile
}

fn all_names(profile: &Value) -> impl Iterator<Item = &str> {
    let entries = profile["syscalls"].as_array().unwrap().iter();
    entries
        .flat_map(|e| e["names"].as_array().unwrap())
        .map(|n| n.as_str().unwrap())
}

#[test]
#[ignore = "needs Debian's python3-seccomp; hack/test has it"]
fn numbers_are_libseccomps() {
    for (native, others) in FAMILIES {
        for arch in [native].iter().chain(others) {
            let shared = shared_names(&[*arch]);
            assert!(shared.len() > 290, "{arch:?}: {}", shared.len());
        }
    }
}

#[test]
#[ignore = "needs Debian's python3-seccomp; hack/test has it"]
fn programs_answer_as_libseccomps() {
    let mut random = Random(20_261_121);
    let mut count = Count::default();
    for (native, others) in FAMILIES {
        let family: Vec<Arch> = [native].iter().chain(others).copied().collect();
        let names = shared_names(&family);
        let profiles: Vec<(Value, Vec<Arch>)> = (0..60)
            .map(|i| {
                let mut profile = generate(&mut random, &names, i % 3 == 2);
                let listed: Vec<Arch> = family
                    .iter()
                    .filter(|_| random.below(3) > 0)
                    .copied()
                    .collect();
                profile["architectures"] =
                    json!(listed.iter().map(|a| a.named()).collect::<Vec<_>>());
                (profile, listed)
            })
            .collect();
        let questions: Vec<Value> = profiles
            .iter()
            .map(|(p, _)| json!(["program", native.named(), p["architectures"], p]))
            .collect();
        for ((profile, listed), answer) in profiles.iter().zip(oracle(&questions)) {
            let answer = answer.as_str().unwrap();
            if answer.starts_with("error") {
                assert!(answer.contains("-17"), "{answer} for {profile}"); // EEXIST: two actions for the same conditions
                count.refused += 1;
                continue;
            }
            let theirs = disassemble(answer, native.big_endian());
            compare(profile, native, listed, &theirs, &mut random, &mut count);
        }
    }
    println!("{count:#?}");
    assert!(count.programs > 280 && count.refused < 20, "{count:?}");
    assert!(count.mistaken * 200 < count.all, "{count:?}");
    assert!(count.otherwise * 10 < count.contradictory, "{count:?}");
}

/// Docker's, Podman's or another profile: `linux.seccomp` of a config.json, or what Docker and Podman make one from, for a container without
/// capabilities of note.
fn engines_profile(path: &str, names: &[&str], family: &[Arch]) -> Value {
    let text = std::fs::read(path).expect("HUSK_SECCOMP_PROFILES names files");
    let mut profile: Value = serde_json::from_slice(&text).unwrap();
    profile.as_object_mut().unwrap().remove("archMap");
    profile["architectures"] = json!(family.iter().map(|a| a.named()).collect::<Vec<_>>());
    let has = |v: &Value| v.as_object().is_some_and(|o| !o.is_empty());
    let entries = profile["syscalls"].as_array_mut().unwrap();
    entries.retain(|e| !has(&e["includes"]));
    for entry in entries.iter_mut() {
        // newer than the library
        let given = entry["names"].as_array_mut().unwrap();
        given.retain(|n| names.contains(&n.as_str().unwrap()));
        entry.as_object_mut().unwrap().retain(|_, v| !v.is_null());
    }
    entries.retain(|e| e["names"] != json!([]));
    profile
}

#[test]
#[ignore = "needs Debian's python3-seccomp, and HUSK_SECCOMP_PROFILES; hack/test has both"]
fn engines_profiles_are_answered_as_by_libseccomp() {
    let files = std::env::var("HUSK_SECCOMP_PROFILES").expect("set: files, separated by colons");
    let mut random = Random(7);
    for path in files.split(':') {
        for (native, others) in &FAMILIES[..2] {
            let family: Vec<Arch> = [native].into_iter().chain(*others).copied().collect();
            let profile = engines_profile(path, &shared_names(&family), &family);
            let question = json!(["program", native.named(), profile["architectures"], profile]);
            let answer = &oracle(&[question])[0];
            let theirs = disassemble(answer.as_str().unwrap(), native.big_endian());
            let mut count = Count::default();
            compare(&profile, *native, &family, &theirs, &mut random, &mut count);
            println!("{path} {native:?}: {count:?}");
            assert_eq!((count.mistaken, count.otherwise), (0, 0));
            assert!(count.ours < count.theirs);
        }
    }
}
