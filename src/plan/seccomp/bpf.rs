//! Classic BPF, written from its end: jumps go forward only, so that their targets are there before them.

/// struct sock_filter of <linux/filter.h>: one instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Insn {
    pub code: u16,
    /// Instructions to skip when the condition holds, and when it does not.
    pub jt: u8,
    pub jf: u8,
    pub k: u32,
}

/// `BPF_LD | BPF_W | BPF_ABS`: a word of struct seccomp_data.
pub const LOAD: u16 = 0x20;
/// `BPF_ALU | BPF_AND | BPF_K`
pub const AND: u16 = 0x54;
/// `BPF_RET | BPF_K`
pub const RETURN: u16 = 0x06;
/// `BPF_JMP | BPF_JA`
pub const JUMP: u16 = 0x05;

/// A condition of a jump: `BPF_JMP | … | BPF_K`, without signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum If {
    Equal = 0x15,
    Greater = 0x25,
    GreaterOrEqual = 0x35,
    AnyBit = 0x45,
}

/// Where a jump goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// To an instruction that returns this action.
    Action(u32),
    At(Label),
}

/// An instruction, by how many there are from it to the program's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label(usize);

/// The conditional jumps skip 255 instructions at most. Two of what may be written before such a jump are targets brought near.
const REACH: usize = 255 - 2;

/// A program under construction; each instruction is written before those that are there.
#[derive(Default)]
pub struct Writer {
    reversed: Vec<Insn>,
    /// The newest instruction that returns an action, for each.
    returns: Vec<(u32, Label)>,
}

impl Writer {
    pub fn load(&mut self, offset: u32) -> Target {
        self.plain(LOAD, offset)
    }

    pub fn and(&mut self, mask: u32) -> Target {
        self.plain(AND, mask)
    }

    pub fn jump_if(&mut self, condition: If, k: u32, then: Target, otherwise: Target) -> Target {
        let then = self.near(then);
        let otherwise = self.near(otherwise);
        let skip = |label: Label| (self.reversed.len() - label.0) as u8;
        let (jt, jf) = (skip(then), skip(otherwise));
        self.push(Insn {
            code: condition as u16,
            jt,
            jf,
            k,
        })
    }

    /// The program, which begins at what was written last.
    pub fn finish(mut self) -> Vec<Insn> {
        self.reversed.reverse();
        self.reversed
    }

    /// One that goes on to the next.
    fn plain(&mut self, code: u16, k: u32) -> Target {
        self.push(Insn {
            code,
            jt: 0,
            jf: 0,
            k,
        })
    }

    fn push(&mut self, insn: Insn) -> Target {
        self.reversed.push(insn);
        Target::At(Label(self.reversed.len()))
    }

    /// A label of the target within reach of the next instruction; writes one more instruction where there is none.
    fn near(&mut self, target: Target) -> Label {
        let far = |label: &Label| self.reversed.len() - label.0 > REACH;
        match target {
            Target::At(label) if !far(&label) => label,
            Target::At(label) => {
                let distance = self.reversed.len() - label.0;
                self.plain(JUMP, distance as u32);
                Label(self.reversed.len())
            }
            Target::Action(action) => {
                let known = self.returns.iter().position(|r| r.0 == action);
                if let Some(i) = known
                    && !far(&self.returns[i].1)
                {
                    return self.returns[i].1;
                }
                self.plain(RETURN, action);
                let label = Label(self.reversed.len());
                match known {
                    Some(i) => self.returns[i].1 = label,
                    None => self.returns.push((action, label)),
                }
                label
            }
        }
    }

    /// Makes the program begin at the target.
    pub fn begin_at(&mut self, target: Target) {
        let label = self.near(target);
        let distance = self.reversed.len() - label.0;
        if distance > 0 {
            self.plain(JUMP, distance as u32);
        }
    }
}
