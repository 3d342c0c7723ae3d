//! The end of an archive: a list of checksums that `sha256sum -c` reads, and a mark that only a whole archive has.
//!
//! Two hashes, so that a list that was damaged is told apart from a file that was: one over all headers and all files' hashes, one over the list.

use sha2::{Digest as _, Sha256};

use crate::header::{BLOCK, Fields};

pub(crate) const SUMS: &str = "aion-backup.sums";
pub(crate) const END: &str = "aion-backup.end";

/// A SHA-256.
pub(crate) type Sum = [u8; 32];

/// Two empty blocks: where readers of tar files stop.
pub(crate) const TAIL: usize = 2 * BLOCK;

/// One line of the list.
pub(crate) fn line(name: &str, sum: &Sum) -> String {
    format!("{}  {name}\n", hex::encode(sum))
}

/// The header of one of the last two files.
pub(crate) fn header(name: &str, size: u64, time: u64) -> Vec<u8> {
    let fields = Fields { name: name.to_owned(), size, executable: false, time };
    // Both names are short: there is always a header.
    fields.encode().unwrap_or_default()
}

/// What the last file says.
pub(crate) fn mark(files: Sum, sums: Sum) -> String {
    format!("files {}\nsums {}\n", hex::encode(files), hex::encode(sums))
}

/// Over headers and files.
#[derive(Clone, Default)]
pub(crate) struct Chain(Sha256);

impl Chain {
    pub(crate) fn add(&mut self, header: &[u8], file: &Sum) {
        self.0.update(header);
        self.0.update(file);
    }

    pub(crate) fn finish(self) -> Sum {
        self.0.finalize().into()
    }
}

/// Bytes after a file of this size, up to the next block.
pub(crate) const fn padding(size: u64) -> usize {
    let over = size % BLOCK as u64;
    // Below 512 on both sides.
    #[expect(clippy::cast_possible_truncation, reason = "less than a block")]
    let over = over as usize;
    if over == 0 { 0 } else { BLOCK - over }
}
