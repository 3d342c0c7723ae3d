//! Chunks on disk: one byte that says how, then the bytes.

use super::CHUNK;
use crate::error::Error;

const RAW: u8 = 0;
const ZSTD: u8 = 1;

/// Compresses chunks one after the other.
pub(super) struct Encoder(zstd::bulk::Compressor<'static>);

impl Encoder {
    pub(super) fn new(level: i32) -> Result<Self, Error> {
        zstd::bulk::Compressor::new(level).map(Self).map_err(Error::io("set up compression"))
    }

    /// What does not get smaller is stored as it is.
    pub(super) fn encode(&mut self, chunk: &[u8]) -> Result<Vec<u8>, Error> {
        let mut out = vec![ZSTD; 1 + zstd::zstd_safe::compress_bound(chunk.len())];
        let length =
            self.0.compress_to_buffer(chunk, &mut out[1..]).map_err(Error::io("compress a checkpoint"))?;
        if length < chunk.len() {
            out.truncate(1 + length);
        } else {
            out.truncate(1);
            out[0] = RAW;
            out.extend_from_slice(chunk);
        }
        Ok(out)
    }
}

/// The chunk again, or what is wrong with it.
pub(super) fn decode(stored: &[u8]) -> Result<Vec<u8>, String> {
    match stored.split_first() {
        Some((&RAW, rest)) if rest.len() <= CHUNK => Ok(rest.to_vec()),
        Some((&ZSTD, rest)) => zstd::bulk::decompress(rest, CHUNK).map_err(|error| error.to_string()),
        _ => Err("a chunk of an unknown kind".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_come_back() {
        let mut encoder = Encoder::new(1).unwrap();
        let noise: Vec<u8> =
            (0..CHUNK as u64).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect();
        for chunk in [&vec![7; CHUNK][..], &noise, &noise[..100], b"x"] {
            let stored = encoder.encode(chunk).unwrap();
            assert!(stored.len() <= chunk.len() + 1);
            assert_eq!(decode(&stored).unwrap(), chunk);
        }
        assert!(decode(&[]).is_err());
        assert!(decode(&[2, 1]).is_err());
        assert!(decode(&[ZSTD, 1, 2, 3]).is_err());
    }
}
