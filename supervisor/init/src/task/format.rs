//! A packed checkpoint: the files of a folder, one after the other.
//!
//! ```text
//! magic "AIONCKP1", then entries: u8 kind | u8 0 | u16 length of path | u32 mode | u64 size | path | content
//! kind 1 file, 2 folder, 255 the end (mode: number of entries, size: bytes of all files)
//! ```
//! Little endian; paths are relative, in the order of their bytes within a folder, a folder before what is in it. The same folder
//! packs to the same bytes: neither owners nor times are kept. Reading trusts nothing.

/// How a packed checkpoint begins.
pub(crate) const MAGIC: [u8; 8] = *b"AIONCKP1";
/// Bytes before each path.
pub(crate) const HEADER: usize = 16;
/// Files and folders.
pub(crate) const MAX_ENTRIES: u32 = 10_000;
/// Folders in folders.
pub(crate) const MAX_DEPTH: usize = 32;
/// Of a path.
pub(crate) const MAX_PATH: usize = 4000;
/// Names at the top that are not content.
pub(crate) const RESERVED: [&[u8]; 2] = [b".commit", b".refused"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Folder,
    End,
}

/// What stands before a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    pub(crate) path: u16,
    pub(crate) mode: u32,
    pub(crate) size: u64,
}

impl Header {
    pub(crate) fn encode(self) -> [u8; HEADER] {
        let mut out = [0; HEADER];
        out[0] = match self.kind {
            Kind::File => 1,
            Kind::Folder => 2,
            Kind::End => 255,
        };
        out[2..4].copy_from_slice(&self.path.to_le_bytes());
        out[4..8].copy_from_slice(&self.mode.to_le_bytes());
        out[8..].copy_from_slice(&self.size.to_le_bytes());
        out
    }

    pub(crate) fn decode(bytes: [u8; HEADER]) -> Option<Self> {
        let [kind, zero, p0, p1, m0, m1, m2, m3, size @ ..] = bytes;
        let kind = match kind {
            1 => Kind::File,
            2 => Kind::Folder,
            255 => Kind::End,
            _ => return None,
        };
        let header = Self {
            kind,
            path: u16::from_le_bytes([p0, p1]),
            mode: u32::from_le_bytes([m0, m1, m2, m3]),
            size: u64::from_le_bytes(size),
        };
        let sound = match kind {
            Kind::File => header.path > 0 && header.mode <= 0o777,
            Kind::Folder => header.path > 0 && header.mode <= 0o777 && header.size == 0,
            Kind::End => header.path == 0,
        };
        (sound && zero == 0 && usize::from(header.path) <= MAX_PATH).then_some(header)
    }
}

/// Whether a path is one that packing makes: relative, below, not too deep, no reserved name.
pub(crate) fn is_sound(path: &[u8]) -> bool {
    let parts = || path.split(|&b| b == b'/');
    !path.contains(&0)
        && parts().count() <= MAX_DEPTH
        && parts().all(|p| !matches!(p, b"" | b"." | b"..") && p.len() <= 255)
        && !RESERVED.contains(&path)
        && !parts().next().is_some_and(|first| RESERVED.contains(&first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_round_trip() {
        for header in [
            Header { kind: Kind::File, path: 3, mode: 0o640, size: 1 << 40 },
            Header { kind: Kind::Folder, path: 4000, mode: 0o777, size: 0 },
            Header { kind: Kind::End, path: 0, mode: 10_000, size: 7 },
        ] {
            assert_eq!(Header::decode(header.encode()), Some(header));
        }
        let bad = Header { kind: Kind::File, path: 3, mode: 0o4755, size: 1 };
        assert_eq!(Header::decode(bad.encode()), None);
        assert_eq!(Header::decode([0; HEADER]), None);
    }

    #[test]
    fn paths_stay_below() {
        for good in ["a", "a/b", ".hidden", "a/.commit", "x y\n"] {
            assert!(is_sound(good.as_bytes()), "{good}");
        }
        for bad in ["", "/a", "a/", "a//b", "..", "a/../b", ".", ".commit", ".refused/x", "a\0b"] {
            assert!(!is_sound(bad.as_bytes()), "{bad}");
        }
        assert!(!is_sound("a/".repeat(40).trim_end_matches('/').as_bytes()));
    }
}
