//! A small mutator with a seed: the same seed, the same inputs, on every machine.

/// xorshift64*: no dependency, and good enough to choose bytes.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// From a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// 64 bits.
    pub const fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.bits() % (end.max(1) as u64)).unwrap_or(0)
    }
}

/// Numbers at which readers go wrong.
const EDGES: &[u64] =
    &[0, 1, 0x7f, 0x80, 0xff, 0x100, 0x7fff, 0xffff, 0x7fff_ffff, 0xffff_ffff, u64::MAX >> 1, u64::MAX];

/// No input is larger.
const MAX: usize = 64 * 1024;

/// Changes a seed in a few places; `words` are pieces that the reader knows.
#[must_use]
pub fn mutate(seeds: &[Vec<u8>], words: &[&[u8]], random: &mut Random) -> Vec<u8> {
    let mut bytes = seeds.get(random.below(seeds.len())).cloned().unwrap_or_default();
    // Mostly one change or two: what is changed everywhere is refused at the first check and tests nothing behind it.
    for _ in 0..=random.below(8).min(random.below(8)).min(random.below(8)) {
        let at = random.below(bytes.len() + 1);
        let to = (at + random.below(16)).min(bytes.len());
        match random.below(9) {
            0 => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << random.below(8);
                }
            }
            1 => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = random.bits().to_le_bytes()[0];
                }
            }
            2 => drop(bytes.drain(at..to)),
            3 => {
                let piece = bytes.get(at..to).unwrap_or_default().to_vec();
                let again = random.below(64);
                splice(&mut bytes, at, &piece.repeat(again));
            }
            4 => {
                let edge = EDGES.get(random.below(EDGES.len())).copied().unwrap_or_default();
                let width = 1 << random.below(4);
                let number = if random.below(2) == 0 {
                    edge.to_le_bytes()
                } else {
                    (edge << (64 - 8 * width)).to_be_bytes()
                };
                for (to, from) in bytes.iter_mut().skip(at).zip(&number[..width]) {
                    *to = *from;
                }
            }
            5 => {
                let other = seeds.get(random.below(seeds.len())).cloned().unwrap_or_default();
                let from = random.below(other.len() + 1);
                splice(&mut bytes, at, other.get(from..).unwrap_or_default());
            }
            6 => bytes.truncate(at),
            _ => {
                let word = words.get(random.below(words.len())).copied().unwrap_or(b"\n");
                splice(&mut bytes, at, word);
            }
        }
        bytes.truncate(MAX);
    }
    bytes
}

fn splice(bytes: &mut Vec<u8>, at: usize, piece: &[u8]) {
    let tail = bytes.split_off(at.min(bytes.len()));
    bytes.extend_from_slice(piece);
    bytes.extend(tail);
}
