//! Text whose lines are joined, and the way back: base64 is broken into lines wherever it likes.

use aho_corasick::Match;

/// A secret in some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) pattern: usize,
}

impl From<Match> for Found {
    fn from(found: Match) -> Self {
        Self { start: found.start(), end: found.end(), pattern: found.pattern().as_usize() }
    }
}

/// Bytes without the ends of their lines.
pub(super) struct Lines {
    pub(super) joined: Vec<u8>,
    /// From which place in `joined` on how many bytes are left out in all.
    left_out: Vec<(usize, usize)>,
}

impl Lines {
    /// None when there is one line.
    pub(super) fn join(bytes: &[u8]) -> Option<Self> {
        // Most of what is told is one line, and each call tells a dozen texts.
        if !bytes.iter().any(|byte| matches!(byte, b'\n' | b'\r' | b'\\')) {
            return None;
        }
        let mut lines = Self { joined: Vec::new(), left_out: Vec::new() };
        let mut from = 0;
        let mut at = 0;
        while at < bytes.len() {
            let length = line_end(bytes.get(at..).unwrap_or_default());
            if length == 0 {
                at += 1;
                continue;
            }
            lines.joined.extend_from_slice(bytes.get(from..at).unwrap_or_default());
            at += length;
            lines.left_out.push((lines.joined.len(), at - lines.joined.len()));
            from = at;
        }
        if lines.left_out.is_empty() {
            return None;
        }
        lines.joined.extend_from_slice(bytes.get(from..).unwrap_or_default());
        Some(lines)
    }

    /// Where in the bytes something lies that was found in `joined`.
    pub(super) fn place(&self, found: &Match) -> Found {
        let start = self.back(found.start());
        // The end is behind its last byte: what is left out there stays.
        let end = self.back(found.end().saturating_sub(1)) + 1;
        Found { start, end, pattern: found.pattern().as_usize() }
    }

    /// A place in `joined` in the bytes.
    pub(super) fn back(&self, at: usize) -> usize {
        let before = self.left_out.partition_point(|(from, _)| *from <= at);
        let skipped = before.checked_sub(1).and_then(|last| self.left_out.get(last));
        at + skipped.map_or(0, |(_, skipped)| *skipped)
    }
}

/// The length of a line's end here, also of one that JSON escaped, with the blanks that begin the next line; 0: there is none.
fn line_end(bytes: &[u8]) -> usize {
    let end = match bytes {
        [b'\n' | b'\r', ..] => 1,
        [b'\\', b'n' | b'r', ..] => 2,
        _ => return 0,
    };
    let blanks = bytes.get(end..).unwrap_or_default().iter().take_while(|byte| matches!(byte, b' ' | b'\t'));
    end + blanks.count()
}
