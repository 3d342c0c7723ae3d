//! Just enough of an assembler for classic BPF: forward jumps only, to labels that are placed later.

/// Loads, compares and returns, as the kernel's seccomp takes them. The kernel can prove "always allowed" for a call,
/// and skip the filter from then on, only through these operations.
const LD_W_ABS: u16 = 0x20;
const ALU_AND_K: u16 = 0x54;
const JMP_JA: u16 = 0x05;
const JMP_JEQ_K: u16 = 0x15;
const RET_K: u16 = 0x06;

/// The size of `struct sock_filter`.
pub(crate) const INSTRUCTION: usize = 8;
/// The kernel's limit (`BPF_MAXINSNS`).
pub(crate) const MAX_INSTRUCTIONS: usize = 4096;

#[derive(Clone, Copy)]
struct Instruction {
    code: u16,
    jt: u8,
    jf: u8,
    k: u32,
}

/// A place that is jumped to before it is known.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Label(usize);

/// A program being written.
#[derive(Default)]
pub(crate) struct Program {
    code: Vec<Instruction>,
    /// Where each label is.
    labels: Vec<Option<usize>>,
    /// Jumps (always `ja`, whose distance has 32 bits) that wait for their label.
    jumps: Vec<(usize, Label)>,
}

impl Program {
    pub(crate) fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    /// The label means the next instruction.
    pub(crate) fn place(&mut self, label: Label) {
        self.labels[label.0] = Some(self.code.len());
    }

    fn push(&mut self, code: u16, jt: u8, jf: u8, k: u32) {
        self.code.push(Instruction { code, jt, jf, k });
    }

    /// A = the word at this offset of `struct seccomp_data`.
    pub(crate) fn load(&mut self, offset: u32) {
        self.push(LD_W_ABS, 0, 0, offset);
    }

    /// A &= mask.
    pub(crate) fn and(&mut self, mask: u32) {
        self.push(ALU_AND_K, 0, 0, mask);
    }

    pub(crate) fn jump(&mut self, to: Label) {
        self.jumps.push((self.code.len(), to));
        self.push(JMP_JA, 0, 0, 0);
    }

    pub(crate) fn jump_if_equal(&mut self, value: u32, to: Label) {
        self.push(JMP_JEQ_K, 0, 1, value);
        self.jump(to);
    }

    pub(crate) fn jump_unless_equal(&mut self, value: u32, to: Label) {
        self.push(JMP_JEQ_K, 1, 0, value);
        self.jump(to);
    }

    pub(crate) fn ret(&mut self, value: u32) {
        self.push(RET_K, 0, 0, value);
    }

    /// The bytes in the machine's order. A label that was never placed means the end: what is appended next.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        let end = self.code.len();
        for (at, label) in &self.jumps {
            let target = self.labels[label.0].unwrap_or(end);
            self.code[*at].k = u32::try_from(target.saturating_sub(at + 1)).unwrap_or(u32::MAX);
        }
        let mut bytes = Vec::with_capacity(end * INSTRUCTION);
        for i in &self.code {
            bytes.extend_from_slice(&i.code.to_ne_bytes());
            bytes.extend_from_slice(&[i.jt, i.jf]);
            bytes.extend_from_slice(&i.k.to_ne_bytes());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jumps_reach_their_labels_and_the_end() {
        let mut p = Program::default();
        let (hit, end) = (p.label(), p.label());
        p.load(0);
        p.jump_if_equal(7, hit);
        p.jump(end);
        p.place(hit);
        p.ret(1);
        let bytes = p.finish();
        let word = |i: usize| u32::from_ne_bytes(bytes[i * 8 + 4..i * 8 + 8].try_into().unwrap());
        assert_eq!(bytes.len(), 5 * INSTRUCTION);
        assert_eq!(word(2), 1, "over the jump to the end");
        assert_eq!(word(3), 1, "over the return");
    }
}
