//! Records of the probes' ring buffer.

use aion_probe_types::{DecodeError, Kind, decode};

/// Any bytes are an event or an error; an event holds no more than the bytes had.
pub fn check(data: &[u8]) {
    match decode(data) {
        Ok(event) => {
            let held = match &event.kind {
                Kind::Exec(exec) => exec.filename.len() + exec.argv.len(),
                Kind::OpenWrite(file) => file.path.len(),
                _ => 0,
            };
            assert!(held <= data.len(), "an event of {held} bytes from a record of {}", data.len());
            // What people see of it must not panic either.
            let _ = format!("{event:?}");
        }
        Err(DecodeError::Short { need, have }) => {
            assert!(need > have && have <= data.len(), "{need} of {have}")
        }
        Err(DecodeError::Trailing { extra }) => assert!(extra >= 8 && extra < data.len(), "{extra} too many"),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// A record of each kind, filled with what makes lengths plausible.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for kind in 0u16..16 {
        for len in [32, 48, 64, 96, 128, 160, 320, 1000] {
            for fill in [0, 1, 4] {
                let mut record = vec![fill; len];
                record.splice(..2, kind.to_ne_bytes());
                seeds.push(record);
            }
        }
    }
    seeds
}

/// Lengths and names.
pub const WORDS: &[&[u8]] = &[
    b"\0\0",
    b"\x01\0",
    b"\x10\0\x10\0",
    b"\0\x02",
    b"/bin/true\0",
    b"\xff\xff",
    b"\x04",
    b"\x06",
    b"a\0b\0",
];
