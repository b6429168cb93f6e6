//! A profile → the program that decides each call as libseccomp's program for the same profile would.
//!
//! ```text
//! architecture?   x86_64 → its tree   i386 → its tree   any other → kill
//! a tree:         binary search over the ranges of numbers that have one answer
//! a leaf:         an answer, or the conditions on the arguments of one call, one rule after the other
//! ```
//!
//! The kernel runs a new program once for every number, to remember those that are always allowed: what counts is how many instructions there are, and
//! how many lead to an answer.

use super::arch::{ARM_PRIVATE, Arch, X32_BIT};
use super::bpf::{If, Insn, Target, Writer};
use super::{ALLOW, ERRNO, KILL_THREAD, LOG, TRACE};
use oci_spec::runtime::LinuxSeccompOperator as Op;
use std::cmp::{Ordering, Reverse};
use std::ops::Range;

/// A profile, checked, in terms of numbers.
pub struct Profile<'a> {
    /// The kernel's own architecture first.
    pub archs: Vec<Arch>,
    /// The answer where no rule matches.
    pub default: u32,
    /// Those of one entry of the config stand together.
    pub rules: Vec<Rule>,
    /// Every known call that the config names, in its order; none of the rules where their answer is the default.
    pub calls: Vec<Call<'a>>,
}

pub struct Call<'a> {
    pub name: &'a str,
    pub row: usize,
    pub rules: Range<usize>,
}

/// An answer, given if all conditions hold.
pub struct Rule {
    pub action: u32,
    pub conditions: Vec<Condition>,
}

/// A condition on one argument of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condition {
    pub index: u8,
    pub op: Op,
    pub value: u64,
    /// The bits looked at; all, unless the operator is MASKED_EQ.
    pub mask: u64,
}

/// Offsets in struct seccomp_data of <linux/seccomp.h>.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGS: u32 = 16;

/// SCMP_ACT_KILL, libseccomp's answer to a call of an architecture that is not in the profile.
const BAD_ARCH: u32 = KILL_THREAD;

const ENOSYS: u32 = ERRNO | 38;

pub fn compile(profile: &Profile) -> Vec<Insn> {
    let mut w = Writer::default();
    // what comes as x32 has the same mark as x86_64
    let marks = profile.archs.iter().filter(|a| **a != Arch::X32);
    let mut program = Target::Action(BAD_ARCH);
    let mut trees = Vec::new();
    for arch in marks.rev() {
        let spans = spans_of_mark(profile, *arch);
        let root = tree(&mut w, &segments(&spans));
        w.begin_at(root);
        trees.push((arch.audit(), w.load(NUMBER)));
    }
    for (audit, tree) in trees {
        program = w.jump_if(If::Equal, audit, tree, program);
    }
    w.begin_at(program);
    w.load(ARCH);
    w.finish()
}

/// What to do with the calls of these numbers: from this one to the next span's.
struct Span {
    from: u32,
    /// One number only.
    single: bool,
    answer: Answer,
}

#[derive(PartialEq)]
enum Answer {
    Action(u32),
    /// The first rule that matches, or else this action.
    Checks(Checks),
}

#[derive(PartialEq)]
struct Checks {
    /// Arguments are 32 bits wide.
    narrow: bool,
    big_endian: bool,
    rules: Vec<(Vec<Condition>, u32)>,
    otherwise: u32,
}

fn spans_of_mark(profile: &Profile, arch: Arch) -> Vec<Span> {
    if arch != Arch::X86_64 {
        return Spans::of(profile, arch, 0, u32::MAX);
    }
    let mut spans = Spans::of(profile, arch, 0, X32_BIT - 1);
    if profile.archs.contains(&Arch::X32) {
        spans.extend(Spans::of(profile, Arch::X32, X32_BIT, u32::MAX));
    } else {
        // not x32's: a tracer writes -1 for a call that is to be left out
        let minus_one = Answer::Action(profile.default);
        for (from, answer) in [(X32_BIT, Answer::Action(BAD_ARCH)), (u32::MAX, minus_one)] {
            spans.push(Span {
                from,
                single: from == u32::MAX,
                answer,
            });
        }
    }
    spans
}

/// The spans of an architecture under construction, in the order of their numbers.
struct Spans {
    list: Vec<Span>,
    /// The first number that has no answer yet; one more than the last, at the end.
    next: u64,
    default: u32,
    /// The numbers of calls that are newer than the profile.
    newer: Range<u64>,
}

impl Spans {
    fn of(profile: &Profile, arch: Arch, first: u32, last: u32) -> Vec<Span> {
        let mut spans = Spans {
            list: Vec::new(),
            next: first.into(),
            default: profile.default,
            newer: newer(profile, arch),
        };
        let mut all = candidates(profile, arch);
        // stable: what comes first in the config comes first here
        all.sort_by_key(|c| c.number);
        for same in all.chunk_by(|a, b| a.number == b.number) {
            let number = same[0].number;
            spans.fill(number.into());
            let otherwise = spans.without_rule(number);
            let answer = decide(profile, arch, same, otherwise);
            spans.push(number, true, answer);
            spans.next = u64::from(number) + 1;
        }
        spans.fill(u64::from(last) + 1);
        // the call of old s390 programs for numbers beyond 255: it comes to a filter as 0 if the kernel does not know the number
        if arch == Arch::S390x && !spans.newer.is_empty() {
            spans.refuse_zero();
        }
        spans.list
    }

    fn without_rule(&self, number: u32) -> u32 {
        if self.newer.contains(&number.into()) {
            ENOSYS
        } else {
            self.default
        }
    }

    /// Gives all numbers below `end` that have no answer yet the one for calls without a rule.
    fn fill(&mut self, end: u64) {
        for end in [end.min(self.newer.start), end.min(self.newer.end), end] {
            if self.next < end {
                let from = self.next as u32;
                let single = end == self.next + 1;
                self.push(from, single, Answer::Action(self.without_rule(from)));
                self.next = end;
            }
        }
    }

    fn push(&mut self, from: u32, single: bool, answer: Answer) {
        match self.list.last_mut() {
            Some(last) if last.answer == answer && matches!(answer, Answer::Action(_)) => {
                last.single = false;
            }
            _ => self.list.push(Span {
                from,
                single,
                answer,
            }),
        }
    }

    fn refuse_zero(&mut self) {
        let first = &mut self.list[0];
        if first.single {
            first.answer = Answer::Action(ENOSYS);
        } else {
            first.from = 1;
            let zero = Span {
                from: 0,
                single: true,
                answer: Answer::Action(ENOSYS),
            };
            self.list.insert(0, zero);
        }
    }
}

/// runc's rule for programs that try a new call and fall back on ENOSYS alone (glibc with clone3 or faccessat2): where the default is a refusal, it is
/// ENOSYS for every call with a higher number than all that the profile names, with whatever action. None is newer if the default is no refusal, or the
/// profile names no call (but number 0) of this architecture.
///
/// Unlike with runc the calls that arm has outside of the common counting are neither newer nor counted, or no call would ever be newer there.
fn newer(profile: &Profile, arch: Arch) -> Range<u64> {
    let end = match arch {
        Arch::Arm => ARM_PRIVATE.into(),
        _ => 1 << 32,
    };
    // a tracer is thought to handle new calls itself
    let permissive =
        [ALLOW, LOG].contains(&profile.default) || profile.default & super::ACTION_MASK == TRACE;
    let numbers = profile.calls.iter().filter_map(|c| arch.number(c.row));
    match numbers.filter(|n| u64::from(*n) < end).max() {
        Some(newest) if newest > 0 && !permissive => u64::from(newest) + 1..end,
        _ => end..end,
    }
}

/// A rule for a number.
struct Candidate {
    number: u32,
    rule: usize,
    /// The first argument says which call this really is.
    code: Option<u64>,
}

fn candidates(profile: &Profile, arch: Arch) -> Vec<Candidate> {
    let mut all = Vec::with_capacity(profile.calls.len());
    for call in &profile.calls {
        let ways = [
            arch.number(call.row).map(|n| (n, None)),
            arch.multiplexed(call.name).map(|(n, code)| (n, Some(code))),
        ];
        for (number, code) in ways.into_iter().flatten() {
            all.extend(
                call.rules
                    .clone()
                    .map(|rule| Candidate { number, rule, code }),
            );
        }
    }
    all
}

/// Joins the rules for one number.
fn decide(profile: &Profile, arch: Arch, same: &[Candidate], otherwise: u32) -> Answer {
    let mut rules = Vec::new();
    for candidate in same {
        let rule = &profile.rules[candidate.rule];
        let conditions = conditions(rule, candidate.code, arch.narrow());
        if conditions.is_empty() {
            return Answer::Action(rule.action);
        }
        rules.push((conditions, rule.action));
    }
    rules.sort_by(|(a, _), (b, _)| precedence(a, b));
    rules.dedup_by(|later, earlier| later.0 == earlier.0);
    Answer::Checks(Checks {
        narrow: arch.narrow(),
        big_endian: arch.big_endian(),
        rules,
        otherwise,
    })
}

/// What of a rule's conditions can fail, in the order of the arguments.
fn conditions(rule: &Rule, code: Option<u64>, narrow: bool) -> Vec<Condition> {
    if rule.conditions.is_empty() && code.is_none() {
        return Vec::new();
    }
    let width = if narrow { u32::MAX.into() } else { u64::MAX };
    let given = rule
        .conditions
        .iter()
        .filter(|c| code.is_none() || c.index > 0);
    let mut all: Vec<Condition> = given
        .map(|c| Condition {
            value: c.value & c.mask & width,
            mask: c.mask & width,
            ..*c
        })
        .filter(|c| c.mask != 0)
        .collect();
    all.extend(code.map(|code| Condition {
        index: 0,
        op: Op::ScmpCmpEq,
        value: code,
        mask: width,
    }));
    all.sort_by_key(|c| c.index);
    all
}

/// Which of two rules with different answers is asked first: as libseccomp, the one on the higher argument, then the one that matches less.
fn precedence(a: &[Condition], b: &[Condition]) -> Ordering {
    let rank = |c: &Condition| {
        use Op::*;
        let (order, value) = match c.op {
            ScmpCmpEq | ScmpCmpNe | ScmpCmpMaskedEq => (0, u64::MAX - c.value),
            ScmpCmpLt | ScmpCmpLe => (1, c.value),
            ScmpCmpGt | ScmpCmpGe => (2, u64::MAX - c.value),
        };
        (Reverse(c.index), order, value)
    };
    a.iter().map(rank).cmp(b.iter().map(rank))
}

/// So many single numbers are asked for one by one, where all around them has one answer.
const SINGLES: usize = 3;

/// Cuts the spans into leaves of the tree: one span, or one with holes of single numbers.
fn segments(spans: &[Span]) -> Vec<&[Span]> {
    let mut all = Vec::new();
    let mut rest = spans;
    while let Some(first) = rest.first() {
        let mut len = 1;
        while len < 2 * SINGLES
            && let Some([hole, again]) = rest.get(len..len + 2)
            && hole.single
            && again.answer == first.answer
        {
            len += 2;
        }
        let (segment, next) = rest.split_at(len);
        all.push(segment);
        rest = next;
    }
    all
}

/// Writes the search for the segment that has the number in the accumulator.
fn tree(w: &mut Writer, segments: &[&[Span]]) -> Target {
    if let [segment] = segments {
        return leaf(w, segment);
    }
    let (low, high) = segments.split_at(segments.len() / 2);
    let border = high[0][0].from;
    let high = tree(w, high);
    let low = tree(w, low);
    w.jump_if(If::GreaterOrEqual, border, high, low)
}

fn leaf(w: &mut Writer, segment: &[Span]) -> Target {
    let mut target = answer(w, &segment[0].answer);
    for hole in segment.iter().skip(1).step_by(2) {
        let then = answer(w, &hole.answer);
        target = w.jump_if(If::Equal, hole.from, then, target);
    }
    target
}

fn answer(w: &mut Writer, answer: &Answer) -> Target {
    match answer {
        Answer::Action(action) => Target::Action(*action),
        Answer::Checks(checks) => checks.write(w),
    }
}

impl Checks {
    fn write(&self, w: &mut Writer) -> Target {
        let mut next = Target::Action(self.otherwise);
        let runs: Vec<_> = self
            .rules
            .chunk_by(|(a, x), (b, y)| x == y && self.alike(a, b))
            .collect();
        for run in runs.into_iter().rev() {
            let then = Target::Action(run[0].1);
            next = if let [(conditions, _)] = run {
                let later = conditions.iter().rev();
                later.fold(then, |then, c| self.condition(w, c, then, next))
            } else {
                self.one_of(w, run, then, next)
            };
        }
        next
    }

    /// Two rules that both ask whether one argument is a certain value, equal in its upper half.
    fn alike(&self, a: &[Condition], b: &[Condition]) -> bool {
        match (a, b) {
            ([a], [b]) => {
                [a.op, b.op] == [Op::ScmpCmpEq; 2]
                    && a.index == b.index
                    && a.value >> 32 == b.value >> 32
            }
            _ => false,
        }
    }

    /// Writes a run of such rules with the argument loaded once.
    fn one_of(
        &self,
        w: &mut Writer,
        run: &[(Vec<Condition>, u32)],
        then: Target,
        otherwise: Target,
    ) -> Target {
        let first = run[0].0[0];
        let mut next = otherwise;
        for (conditions, _) in run.iter().rev() {
            next = w.jump_if(If::Equal, conditions[0].value as u32, then, next);
        }
        let lower = self.load_low(w, first.index);
        if self.narrow {
            return lower;
        }
        w.jump_if(If::Equal, (first.value >> 32) as u32, lower, otherwise);
        self.load_high(w, first.index)
    }

    fn condition(&self, w: &mut Writer, c: &Condition, then: Target, otherwise: Target) -> Target {
        let (yes, no) = (then, otherwise);
        use Op::*;
        match c.op {
            ScmpCmpEq | ScmpCmpMaskedEq => self.equal(w, c, yes, no),
            ScmpCmpNe => self.equal(w, c, no, yes),
            ScmpCmpGt => self.greater(w, c, If::Greater, yes, no),
            ScmpCmpGe => self.greater(w, c, If::GreaterOrEqual, yes, no),
            ScmpCmpLt => self.greater(w, c, If::GreaterOrEqual, no, yes),
            ScmpCmpLe => self.greater(w, c, If::Greater, no, yes),
        }
    }

    fn equal(&self, w: &mut Writer, c: &Condition, yes: Target, no: Target) -> Target {
        let mut target = yes;
        let halves = [
            (false, c.mask as u32, c.value as u32),
            (true, (c.mask >> 32) as u32, (c.value >> 32) as u32),
        ];
        for (high, mask, value) in halves {
            if mask == 0 {
                continue;
            }
            if mask == u32::MAX {
                w.jump_if(If::Equal, value, target, no);
            } else if value == 0 {
                w.jump_if(If::AnyBit, mask, no, target);
            } else {
                w.jump_if(If::Equal, value, target, no);
                w.and(mask);
            }
            target = if high {
                self.load_high(w, c.index)
            } else {
                self.load_low(w, c.index)
            };
        }
        target
    }

    fn greater(&self, w: &mut Writer, c: &Condition, lower: If, yes: Target, no: Target) -> Target {
        w.jump_if(lower, c.value as u32, yes, no);
        let low = self.load_low(w, c.index);
        if self.narrow {
            return low;
        }
        let high = (c.value >> 32) as u32;
        let same = w.jump_if(If::Equal, high, low, no);
        w.jump_if(If::Greater, high, yes, same);
        self.load_high(w, c.index)
    }

    fn load_low(&self, w: &mut Writer, index: u8) -> Target {
        let offset = if self.big_endian { 4 } else { 0 };
        w.load(ARGS + 8 * u32::from(index) + offset)
    }

    fn load_high(&self, w: &mut Writer, index: u8) -> Target {
        let offset = if self.big_endian { 0 } else { 4 };
        w.load(ARGS + 8 * u32::from(index) + offset)
    }
}
