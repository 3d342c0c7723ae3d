//! Files and programs that are taken from a running agent: key and value of the map `WITHHELD`.
//!
//! An entry stands for a file, or a folder with all that is below it on the same mount. It is found by device and inode, so that
//! no name, link or rename leads around it.

/// Entries of all agents together. Entries that are not there take no memory.
pub const MAX_WITHHELD: u32 = 1 << 16;
/// How many folders above a file are looked at. What lies deeper is refused while anything is withheld from the agent.
pub const MAX_DEPTH: u32 = 64;

/// Key of `WITHHELD`. Device and inode 0 stand for everything there is; only execution is withheld so.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WithheldKey {
    /// The agent's cgroup.
    pub cgroup: u64,
    /// The inode's number, as the kernel itself has it.
    pub inode: u64,
    /// The file system's device, as the kernel itself has it: 12 bits major, 20 bits minor.
    pub dev: u32,
    /// 0.
    pub zero: u32,
}

/// Value of `WITHHELD`: the number of the rule for each use that is withheld, 0 where none is.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Withheld {
    /// Opening for reading.
    pub read: u16,
    /// Opening for writing, making, removing, renaming, linking.
    pub write: u16,
    /// Executing.
    pub exec: u16,
    /// 0.
    pub zero: u16,
}

impl WithheldKey {
    /// Words of the structure.
    pub const WORDS: usize = 3;
    /// To a map's words.
    #[must_use]
    pub const fn to_words(self) -> [u64; Self::WORDS] {
        let ([a, b, c, d], [e, f, g, h]) = (self.dev.to_ne_bytes(), self.zero.to_ne_bytes());
        [self.cgroup, self.inode, u64::from_ne_bytes([a, b, c, d, e, f, g, h])]
    }
    /// From a map's words.
    #[must_use]
    pub const fn from_words([cgroup, inode, last]: [u64; Self::WORDS]) -> Self {
        let [a, b, c, d, e, f, g, h] = last.to_ne_bytes();
        let (dev, zero) = (u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h]));
        Self { cgroup, inode, dev, zero }
    }
}

impl Withheld {
    /// To a map's word.
    #[must_use]
    pub const fn to_word(self) -> u64 {
        let ([a, b], [c, d]) = (self.read.to_ne_bytes(), self.write.to_ne_bytes());
        let ([e, f], [g, h]) = (self.exec.to_ne_bytes(), self.zero.to_ne_bytes());
        u64::from_ne_bytes([a, b, c, d, e, f, g, h])
    }
    /// From a map's word.
    #[must_use]
    pub const fn from_word(word: u64) -> Self {
        let [a, b, c, d, e, f, g, h] = word.to_ne_bytes();
        Self {
            read: u16::from_ne_bytes([a, b]),
            write: u16::from_ne_bytes([c, d]),
            exec: u16::from_ne_bytes([e, f]),
            zero: u16::from_ne_bytes([g, h]),
        }
    }
    /// What either withholds.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        const fn one(a: u16, b: u16) -> u16 {
            if a == 0 { b } else { a }
        }
        Self {
            read: one(self.read, other.read),
            write: one(self.write, other.write),
            exec: one(self.exec, other.exec),
            zero: 0,
        }
    }
}

const _: () = assert!(core::mem::size_of::<WithheldKey>() == 24);
const _: () = assert!(core::mem::size_of::<Withheld>() == 8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_structures_are_the_same() {
        let key = WithheldKey { cgroup: 7, inode: 9, dev: 0x0080_0001, zero: 0 };
        assert_eq!(WithheldKey::from_words(key.to_words()), key);
        let value = Withheld { read: 1, write: 2, exec: 3, zero: 0 };
        assert_eq!(Withheld::from_word(value.to_word()), value);
    }

    #[test]
    fn the_first_rule_stays() {
        let read = Withheld { read: 1, ..Withheld::default() };
        let both = Withheld { read: 5, exec: 6, ..Withheld::default() };
        assert_eq!(read.or(both), Withheld { read: 1, exec: 6, ..Withheld::default() });
    }
}
