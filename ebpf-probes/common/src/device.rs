//! Devices that an agent may open: key and value of the map `DEVICES`, and which every agent may.

/// Entries of all agents together. Entries that are not there take no memory.
pub const MAX_DEVICES: u32 = 1 << 16;

/// What is done with a device, as the kernel numbers it.
pub mod access {
    /// Making a node.
    pub const MKNOD: u32 = 1;
    /// Opening for reading.
    pub const READ: u32 = 2;
    /// Opening for writing.
    pub const WRITE: u32 = 4;
}

/// What a device is, as the kernel numbers it.
pub mod kind {
    /// A block device.
    pub const BLOCK: u32 = 1;
    /// A character device.
    pub const CHAR: u32 = 2;
}

/// Key of `DEVICES`: a character device.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceKey {
    /// The agent's cgroup.
    pub cgroup: u64,
    /// Its driver.
    pub major: u32,
    /// Which of the driver's.
    pub minor: u32,
}

impl DeviceKey {
    /// Words of the structure.
    pub const WORDS: usize = 2;
    /// To a map's words.
    #[must_use]
    pub const fn to_words(self) -> [u64; Self::WORDS] {
        let ([a, b, c, d], [e, f, g, h]) = (self.major.to_ne_bytes(), self.minor.to_ne_bytes());
        [self.cgroup, u64::from_ne_bytes([a, b, c, d, e, f, g, h])]
    }
    /// From a map's words.
    #[must_use]
    pub const fn from_words([cgroup, last]: [u64; Self::WORDS]) -> Self {
        let [a, b, c, d, e, f, g, h] = last.to_ne_bytes();
        let (major, minor) = (u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h]));
        Self { cgroup, major, minor }
    }
}

/// Whether every agent may open a character device: the six nodes of its `/dev`, and terminals, which are of its own devpts.
#[must_use]
pub const fn is_everybodys(major: u32, minor: u32) -> bool {
    match major {
        // null, zero, full, random, urandom.
        1 => matches!(minor, 3 | 5 | 7 | 8 | 9),
        // tty, ptmx; 1 is the console.
        5 => matches!(minor, 0 | 2),
        // Slaves of Unix98 terminals.
        136..=143 => true,
        _ => false,
    }
}

const _: () = assert!(core::mem::size_of::<DeviceKey>() == 16);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_structure_are_the_same() {
        let key = DeviceKey { cgroup: 7, major: 10, minor: 229 };
        assert_eq!(DeviceKey::from_words(key.to_words()), key);
    }

    #[test]
    fn memory_and_the_console_are_nobodys() {
        for (major, minor) in [(1, 3), (1, 9), (5, 0), (5, 2), (136, 0), (143, 255)] {
            assert!(is_everybodys(major, minor), "{major}:{minor}");
        }
        for (major, minor) in [(1, 1), (1, 2), (1, 4), (1, 11), (5, 1), (4, 64), (10, 229), (0, 0)] {
            assert!(!is_everybodys(major, minor), "{major}:{minor}");
        }
    }
}
