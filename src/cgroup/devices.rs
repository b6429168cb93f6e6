//! linux.resources.devices → a BPF program at the cgroup, which the kernel asks at each open(2) and mknod(2) of a device.
//!
//! The rules are a list in which later ones win, each for some of read, write and mknod. They are resolved here, once: for every
//! device number there is a set of what is allowed, and long runs of numbers have the same set. The program is a binary search over
//! those runs, so that ten thousand rules cost an open a dozen comparisons.

use super::{CgroupDir, Prepared};
use crate::plan::cgroup::Cgroup as Plan;
use crate::plan::devices::Kind;
use crate::plan::resources::DeviceRule;
use crate::sys::{self, bpf, bpf::Insn, errno};
use anyhow::{Context, Result, bail};
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

impl Prepared {
    /// Attaches the program of the plan's device rules. It may come after the child was cloned, but before its user code runs.
    pub fn devices(&self, plan: &Plan) -> Result<()> {
        let Some(rules) = &plan.devices else {
            return Ok(());
        };
        let result = if self.fresh() {
            attach_first(self.dir.fd(), rules)
        } else {
            replace_devices(&self.dir, rules)
        };
        if plan.devices_may_fail {
            return Ok(());
        }
        result
    }
}

/// Puts the program of these rules in the place of those that are attached, with no moment in which neither decides.
pub fn replace_devices(dir: &CgroupDir, rules: &[DeviceRule]) -> Result<()> {
    let table = Table::new(rules);
    let old: Vec<OwnedFd> = bpf::device_programs(dir.fd())
        .with_context(failed)?
        .into_iter()
        // one that cannot be opened (a security module's label, or it is going away) only forbids more
        .filter_map(|id| bpf::program_by_id(id).ok())
        .collect();
    if !table.allows_all() {
        let new = load(&table.compile()?).with_context(failed)?;
        if let [only] = old.as_slice() {
            match bpf::attach_device_program(dir.fd(), new.as_fd(), Some(only.as_fd())) {
                Err(e) if e.errno() == errno::EINVAL => {} // Linux before 5.6 cannot replace
                r => return r.with_context(failed),
            }
        }
        bpf::attach_device_program(dir.fd(), new.as_fd(), None).with_context(failed)?;
    }
    for program in &old {
        bpf::detach_device_program(dir.fd(), program.as_fd()).with_context(failed)?;
    }
    Ok(())
}

fn attach_first(cgroup: BorrowedFd, rules: &[DeviceRule]) -> Result<()> {
    let table = Table::new(rules);
    if table.allows_all() {
        return Ok(());
    }
    let program = load(&table.compile()?).with_context(failed)?;
    bpf::attach_device_program(cgroup, program.as_fd(), None).with_context(failed)
}

fn failed() -> &'static str {
    "linux.resources.devices: set the cgroup's device rules"
}

/// Linux before 5.11 counts programs as locked memory, of which a shell's limit is soon used up.
fn load(program: &[Insn]) -> sys::Result<OwnedFd> {
    let first = bpf::load_device_program(program);
    match &first {
        Err(e) if e.errno() == errno::EPERM => {
            if sys::process::unlimit_locked_memory().is_err() {
                return first;
            }
            bpf::load_device_program(program)
        }
        _ => first,
    }
}

/// The bits of struct bpf_cgroup_dev_ctx's access_type, above the type.
const MKNOD: u8 = 1;
const READ: u8 = 2;
const WRITE: u8 = 4;
const ALL: u8 = 7;

/// The last rule for each of the three bits: its place in the list, and whether it allows.
type Last = [Option<(usize, bool)>; 3];

/// What is allowed under several [`Last`] that all match a device: for each bit the latest rule; none is no.
fn allowed<'a>(lasts: impl IntoIterator<Item = Option<&'a Last>>) -> u8 {
    let mut best: Last = [None; 3];
    for last in lasts.into_iter().flatten() {
        for (best, rule) in best.iter_mut().zip(last) {
            *best = (*best).max(*rule);
        }
    }
    (0..3)
        .filter(|bit| matches!(best[*bit], Some((_, true))))
        .map(|bit| 1 << bit)
        .sum()
}

/// The rules for one kind of device, by what they name.
#[derive(Default)]
struct Rules {
    any: Last,
    major: BTreeMap<u32, Last>,
    minor: BTreeMap<u32, Last>,
    exact: BTreeMap<(u32, u32), Last>,
}

struct Table {
    char: Rules,
    block: Rules,
}

/// Device numbers have 12 and 20 bits (MAJOR and MINOR of the kernel's dev_t): no device matches a rule that names a larger one.
const MAX_MAJOR: u32 = 0xfff;
const MAX_MINOR: u32 = 0xf_ffff;

/// A run of numbers, from its first on until the next run's first, and what is allowed there.
type Run = (u32, u8);

impl Table {
    fn new(rules: &[DeviceRule]) -> Self {
        let mut table = Table {
            char: Rules::default(),
            block: Rules::default(),
        };
        for (i, rule) in rules.iter().enumerate() {
            if rule.kind != Some(Kind::Block) {
                table.char.add(i, rule);
            }
            if rule.kind != Some(Kind::Char) {
                table.block.add(i, rule);
            }
        }
        table
    }

    fn kinds(&self) -> [(u32, &Rules); 2] {
        const BLOCK: u32 = 1;
        const CHAR: u32 = 2;
        [(CHAR, &self.char), (BLOCK, &self.block)]
    }

    fn allows_all(&self) -> bool {
        self.kinds()
            .iter()
            .all(|(_, r)| r.runs() == [(0, ALL)] && r.minor.is_empty())
    }

    fn compile(&self) -> Result<Vec<Insn>> {
        let mut p = Program::start(self.kinds().iter().any(|(_, r)| !r.minor.is_empty()));
        for (kind, rules) in self.kinds() {
            for minor in rules.minor.keys() {
                let runs = rules.runs_of_minor(*minor);
                p.guarded(&[(JNE, R_MINOR_KIND, minor << 2 | kind)], R_MAJOR, &runs);
                p.check_size()?;
            }
        }
        for (kind, rules) in self.kinds() {
            let runs = rules.runs();
            let mut chunks = runs.chunks(MAX_RUNS).peekable();
            while let Some(chunk) = chunks.next() {
                let mut guards = vec![(JNE, R_KIND, kind)];
                if let Some(next) = chunks.peek() {
                    guards.push((JGE, R_NUMBER, next[0].0));
                }
                p.guarded(&guards, R_NUMBER, chunk);
            }
        }
        p.verdict(false);
        p.check_size()?;
        Ok(p.code)
    }
}

impl Rules {
    fn add(&mut self, i: usize, rule: &DeviceRule) {
        if rule.major > Some(MAX_MAJOR) || rule.minor > Some(MAX_MINOR) {
            return;
        }
        let last = match (rule.major, rule.minor) {
            (None, None) => &mut self.any,
            (Some(major), None) => self.major.entry(major).or_default(),
            (None, Some(minor)) => self.minor.entry(minor).or_default(),
            (Some(major), Some(minor)) => self.exact.entry((major, minor)).or_default(),
        };
        for (bit, named) in [(MKNOD, rule.mknod), (READ, rule.read), (WRITE, rule.write)] {
            if named {
                last[bit.trailing_zeros() as usize] = Some((i, rule.allow));
            }
        }
    }

    /// The runs of whole numbers (major and minor in one), for minors that no rule names for all majors.
    fn runs(&self) -> Vec<Run> {
        let number = |major: u32, minor: u32| u64::from(major) << 20 | u64::from(minor);
        let default = allowed([Some(&self.any)]);
        let mut runs = vec![(0, default)];
        let mut majors: BTreeSet<u32> = self.major.keys().copied().collect();
        majors.extend(self.exact.keys().map(|(major, _)| *major));
        for m in majors {
            let major = self.major.get(&m);
            let other = allowed([Some(&self.any), major]);
            push(&mut runs, number(m, 0), other);
            for ((_, minor), exact) in self.exact.range((m, 0)..=(m, MAX_MINOR)) {
                let this = allowed([Some(&self.any), major, Some(exact)]);
                push(&mut runs, number(m, *minor), this);
                push(&mut runs, number(m, *minor) + 1, other);
            }
            push(&mut runs, number(m + 1, 0), default);
        }
        merge(runs)
    }

    /// The runs of majors for one minor that a rule names for all of them.
    fn runs_of_minor(&self, minor: u32) -> Vec<Run> {
        let by_minor = self.minor.get(&minor);
        let default = allowed([Some(&self.any), by_minor]);
        let mut runs = vec![(0, default)];
        let mut majors: BTreeSet<u32> = self.major.keys().copied().collect();
        majors.extend(self.exact.keys().filter(|k| k.1 == minor).map(|k| k.0));
        for m in majors {
            let this = allowed([
                Some(&self.any),
                by_minor,
                self.major.get(&m),
                self.exact.get(&(m, minor)),
            ]);
            push(&mut runs, m.into(), this);
            push(&mut runs, u64::from(m) + 1, default);
        }
        merge(runs)
    }
}

/// Starts a run, in the place of one that has just started there; a start beyond the last number is none.
fn push(runs: &mut Vec<Run>, start: u64, allowed: u8) {
    let Ok(start) = u32::try_from(start) else {
        return;
    };
    if runs.last().is_some_and(|r| r.0 == start) {
        runs.pop();
    }
    runs.push((start, allowed));
}

fn merge(mut runs: Vec<Run>) -> Vec<Run> {
    runs.dedup_by_key(|r| r.1);
    runs
}

// Opcodes of linux/bpf_common.h and bpf.h. The comparisons are unsigned and of 32 bits (Linux 5.1).
const LOAD: u8 = 0x61;
const MOV: u8 = 0xb7;
const MOV_REG: u8 = 0xbf;
const AND: u8 = 0x57;
const OR_REG: u8 = 0x4f;
const SHL: u8 = 0x67;
const SHR: u8 = 0x77;
const JA: u8 = 0x05;
const JEQ: u8 = 0x16;
const JNE: u8 = 0x56;
const JGE: u8 = 0x36;
const EXIT: u8 = 0x95;

const R_RESULT: u8 = 0;
const R_CONTEXT: u8 = 1;
const R_KIND: u8 = 2;
const R_WANTED: u8 = 3;
const R_NUMBER: u8 = 4;
const R_MAJOR: u8 = 5;
const R_MINOR: u8 = 6;
const R_MINOR_KIND: u8 = 7;

/// As many runs as a jump reaches over: two instructions each, and 32767 to a jump. A single minor has fewer (4096 majors).
const MAX_RUNS: usize = 15_000;

/// What the kernel takes (BPF_COMPLEXITY_LIMIT_INSNS, Linux 5.2).
const MAX_PROGRAM: usize = 1_000_000;

#[derive(Default)]
struct Program {
    code: Vec<Insn>,
    /// Jumps of the present search that wait for the block that decides about such a set.
    exits: Vec<(usize, u8)>,
}

impl Program {
    /// Unpacks struct bpf_cgroup_dev_ctx { u32 access_type, major, minor }.
    fn start(by_minor: bool) -> Self {
        let mut p = Program::default();
        p.load(R_KIND, 0);
        p.push(MOV_REG, R_WANTED, R_KIND, 0);
        p.push(SHR, R_WANTED, 0, 16);
        p.push(AND, R_KIND, 0, 0xffff);
        p.load(R_MAJOR, 4);
        p.load(R_MINOR, 8);
        p.push(MOV_REG, R_NUMBER, R_MAJOR, 0);
        p.push(SHL, R_NUMBER, 0, 20);
        p.push(OR_REG, R_NUMBER, R_MINOR, 0);
        if by_minor {
            p.push(MOV_REG, R_MINOR_KIND, R_MINOR, 0);
            p.push(SHL, R_MINOR_KIND, 0, 2);
            p.push(OR_REG, R_MINOR_KIND, R_KIND, 0);
        }
        p
    }

    fn push(&mut self, code: u8, to: u8, from: u8, imm: u32) {
        self.code.push(Insn {
            code,
            regs: to | from << 4,
            off: 0,
            imm: imm as i32,
        });
    }

    fn load(&mut self, to: u8, off: i16) {
        self.push(LOAD, to, R_CONTEXT, 0);
        let last = self.code.len() - 1;
        self.code[last].off = off;
    }

    /// A search that is skipped when one of the guards jumps. Every way through a search ends the program: so the kernel's verifier never
    /// has more than a few branches waiting, of which it allows 8192.
    fn guarded(&mut self, guards: &[(u8, u8, u32)], by: u8, runs: &[Run]) {
        let jumps: Vec<usize> = guards
            .iter()
            .map(|(code, reg, value)| self.jump(*code, *reg, *value))
            .collect();
        self.search(by, runs);
        for allowed in 0..=ALL {
            let (mine, rest): (Vec<_>, Vec<_>) =
                self.exits.iter().partition(|exit| exit.1 == allowed);
            self.exits = rest;
            mine.iter().for_each(|(at, _)| self.land(*at));
            if !mine.is_empty() {
                self.decide(allowed);
            }
        }
        for at in jumps {
            self.land(at);
        }
    }

    /// A jump forward to where [`Program::land`] is called.
    fn jump(&mut self, code: u8, reg: u8, value: u32) -> usize {
        self.push(code, reg, 0, value);
        self.code.len() - 1
    }

    fn land(&mut self, at: usize) {
        let distance = self.code.len() - at - 1;
        // MAX_RUNS keeps it there
        self.code[at].off = i16::try_from(distance).expect("a jump within 32767 instructions");
    }

    fn search(&mut self, by: u8, runs: &[Run]) {
        if let [(_, allowed)] = runs {
            let at = self.jump(JA, 0, 0);
            return self.exits.push((at, *allowed));
        }
        let (low, high) = runs.split_at(runs.len() / 2);
        let at = self.jump(JGE, by, high[0].0);
        self.search(by, low);
        if let [(_, allowed)] = high {
            return self.exits.push((at, *allowed));
        }
        self.land(at);
        self.search(by, high);
    }

    fn decide(&mut self, allowed: u8) {
        if allowed == 0 || allowed == ALL {
            return self.verdict(allowed == ALL);
        }
        self.push(AND, R_WANTED, 0, u32::from(ALL & !allowed));
        self.push(MOV, R_RESULT, 0, 1);
        let all = self.jump(JEQ, R_WANTED, 0);
        self.push(MOV, R_RESULT, 0, 0);
        self.land(all);
        self.push(EXIT, 0, 0, 0);
    }

    fn verdict(&mut self, yes: bool) {
        self.push(MOV, R_RESULT, 0, u32::from(yes));
        self.push(EXIT, 0, 0, 0);
    }

    fn check_size(&self) -> Result<()> {
        if self.code.len() > MAX_PROGRAM {
            bail!(
                "linux.resources.devices: too many rules: a program of more than {MAX_PROGRAM} instructions; merge some, best those that name a minor and no major"
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::resources;
    use crate::plan::violations::Violations;

    fn rule(
        allow: bool,
        kind: Option<Kind>,
        numbers: [Option<u32>; 2],
        access: &str,
    ) -> DeviceRule {
        DeviceRule {
            allow,
            kind,
            major: numbers[0],
            minor: numbers[1],
            read: access.contains('r'),
            write: access.contains('w'),
            mknod: access.contains('m'),
        }
    }

    /// The same numbers every time.
    struct Random(u64);

    impl Random {
        fn below(&mut self, n: u32) -> u32 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 >> 32) as u32 % n
        }

        fn pick<T: Copy>(&mut self, from: &[T]) -> T {
            from[self.below(from.len() as u32) as usize]
        }
    }

    const MAJORS: [u32; 6] = [0, 1, 2, 5, 4094, MAX_MAJOR];
    const MINORS: [u32; 6] = [0, 1, 2, 9, MAX_MINOR - 1, MAX_MINOR];
    const KINDS: [Kind; 2] = [Kind::Char, Kind::Block];

    fn random_rule(r: &mut Random) -> DeviceRule {
        let kind = r.pick(&[None, Some(Kind::Char), Some(Kind::Block)]);
        let major = Some(r.pick(&MAJORS)).filter(|_| r.below(2) == 0);
        let minor = Some(r.pick(&MINORS)).filter(|_| r.below(2) == 0);
        let access = r.pick(&["r", "w", "m", "rw", "rm", "wm", "rwm"]);
        rule(r.below(2) == 0, kind, [major, minor], access)
    }

    /// What the rules say, by their definition: each wanted bit is allowed when the last rule about it allows.
    fn oracle(rules: &[DeviceRule], kind: Kind, major: u32, minor: u32, wanted: u8) -> bool {
        [MKNOD, READ, WRITE]
            .into_iter()
            .filter(|bit| wanted & bit != 0)
            .all(|bit| {
                let about = |r: &&DeviceRule| {
                    r.kind.is_none_or(|k| k == kind)
                        && r.major.is_none_or(|m| m == major)
                        && r.minor.is_none_or(|m| m == minor)
                        && [(MKNOD, r.mknod), (READ, r.read), (WRITE, r.write)]
                            .contains(&(bit, true))
                };
                rules.iter().rev().find(about).is_some_and(|r| r.allow)
            })
    }

    /// Runs a program as the kernel would, for the few instructions there are. (The crate rbpf cannot jump beyond instruction 32767.)
    fn run(program: &[Insn], kind: Kind, major: u32, minor: u32, wanted: u8) -> bool {
        let kind = if kind == Kind::Block { 1 } else { 2 };
        let context = [u32::from(wanted) << 16 | kind, major, minor];
        let mut regs = [0xdead_beef_u64; 10];
        let mut at = 0;
        loop {
            let i = program[at];
            let (to, from) = (usize::from(i.regs & 15), usize::from(i.regs >> 4));
            let imm = i.imm as u32;
            at += 1;
            let jump = match i.code {
                0x95 => return [false, true][regs[0] as usize],
                0x05 => true,
                0x16 => regs[to] as u32 == imm,
                0x56 => regs[to] as u32 != imm,
                0x36 => regs[to] as u32 >= imm,
                _ => false,
            };
            match i.code {
                0x61 => regs[to] = context[i.off as usize / 4].into(),
                0xb7 => regs[to] = i.imm as u64,
                0xbf => regs[to] = regs[from],
                0x57 => regs[to] &= i.imm as u64,
                0x4f => regs[to] |= regs[from],
                0x67 => regs[to] <<= imm,
                0x77 => regs[to] >>= imm,
                _ if jump => at = at.checked_add_signed(i.off.into()).unwrap(),
                0x16 | 0x56 | 0x36 => {}
                code => panic!("no such instruction: {code:#x}"),
            }
        }
    }

    #[test]
    fn programs_do_what_the_rules_say() {
        let mut r = Random(0x5eed);
        for round in 0..300 {
            let rules: Vec<_> = (0..r.below(12)).map(|_| random_rule(&mut r)).collect();
            let table = Table::new(&rules);
            let code = table.compile().unwrap();
            let mut all = true;
            for _ in 0..60 {
                // the neighbours too, which no rule names
                let major = r.pick(&MAJORS).saturating_add(r.below(2)).min(MAX_MAJOR);
                let minor = r.pick(&MINORS).saturating_add(r.below(2)).min(MAX_MINOR);
                let kind = r.pick(&KINDS);
                let wanted = 1 + r.below(7) as u8;
                let want = oracle(&rules, kind, major, minor, wanted);
                all &= want;
                let got = run(&code, kind, major, minor, wanted);
                assert_eq!(
                    got, want,
                    "round {round}: {kind:?} {major}:{minor} {wanted} by {rules:#?}"
                );
            }
            assert!(all || !table.allows_all(), "{rules:#?}");
        }
    }

    #[test]
    fn allowing_all_needs_no_program() {
        let all = rule(true, None, [None, None], "rwm");
        let deny = rule(false, None, [None, None], "rwm");
        let mut v = Violations::default();
        let mut privileged = vec![deny, all];
        privileged.extend(resources::devices(&[], "", &[], &mut v));
        assert!(Table::new(&privileged).allows_all());
        assert!(!Table::new(&[deny]).allows_all());
        assert!(!Table::new(&[]).allows_all());
        let one_minor = rule(false, Some(Kind::Block), [None, Some(3)], "w");
        assert!(!Table::new(&[all, one_minor]).allows_all());
    }

    #[test]
    fn the_default_program_is_small() {
        let mut v = Violations::default();
        let rules = resources::devices(&[], "", &[], &mut v);
        let code = Table::new(&rules).compile().unwrap();
        assert!(code.len() < 64, "{} instructions", code.len());
        let cases = [
            (Kind::Char, 1, 3, READ | WRITE, true),
            (Kind::Char, 1, 1, READ, false),
            (Kind::Char, 1, 1, MKNOD, true),
            (Kind::Char, 1, 9, READ, true),
            (Kind::Char, 1, 10, READ, false),
            (Kind::Char, 5, 1, READ, false),
            (Kind::Char, 5, 2, READ | WRITE, true),
            (Kind::Char, 10, 200, READ | WRITE, true),
            (Kind::Char, 10, 229, READ, false),
            (Kind::Char, 136, MAX_MINOR, READ | WRITE, true),
            (Kind::Block, 8, 0, READ, false),
            (Kind::Block, 8, 0, MKNOD, true),
        ];
        for (kind, major, minor, wanted, want) in cases {
            let got = run(&code, kind, major, minor, wanted);
            assert_eq!(got, want, "{kind:?} {major}:{minor} {wanted}");
        }
    }

    #[test]
    fn ten_thousand_rules() {
        let mut r = Random(7);
        let mut rules: Vec<_> = (0..10_000)
            .map(|i| {
                let numbers = [Some(i % 5), Some(i * 50)];
                rule(true, Some(Kind::Char), numbers, r.pick(&["r", "w", "rwm"]))
            })
            .collect();
        rules.extend((0..500).map(|m| rule(true, None, [None, Some(m * 3)], "r")));
        let code = Table::new(&rules).compile().unwrap();
        assert!(code.len() < 4 * rules.len(), "{}", code.len());
        for i in (0..10_000).step_by(97) {
            for (kind, wanted) in [(Kind::Char, READ), (Kind::Char, WRITE), (Kind::Block, READ)] {
                let (major, minor) = (i % 5, i * 50);
                let want = oracle(&rules, kind, major, minor, wanted);
                assert_eq!(run(&code, kind, major, minor, wanted), want, "{i}");
                let want = oracle(&rules, kind, major, minor + 1, wanted);
                assert_eq!(run(&code, kind, major, minor + 1, wanted), want, "{i}");
            }
        }
    }

    #[test]
    fn numbers_that_no_device_has() {
        let rules = [
            rule(true, None, [Some(MAX_MAJOR + 1), None], "rwm"),
            rule(true, None, [Some(1), Some(MAX_MINOR + 1)], "rwm"),
        ];
        let table = Table::new(&rules);
        assert_eq!(table.char.runs(), [(0, 0)]);
    }

    #[test]
    fn more_than_the_kernel_takes() {
        let majors =
            (0..4000).map(|m| rule(true, Some(Kind::Char), [Some(m * 2 % 4096), None], "r"));
        let minors = (0..2000).map(|m| rule(true, Some(Kind::Char), [None, Some(m)], "w"));
        let rules: Vec<_> = majors.chain(minors).collect();
        let error = Table::new(&rules).compile().unwrap_err().to_string();
        assert_eq!(
            error,
            "linux.resources.devices: too many rules: a program of more than 1000000 instructions; merge some, best those that name a minor and no major"
        );
    }
}
