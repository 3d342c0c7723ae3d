//! Reading a piece: every byte is judged before the commit that it is of is handed on. No length is believed.

use std::io::{self, Read};
use std::path::Path;

use sha2::{Digest as _, Sha256};

use crate::piece::writer::{after, follows};
use crate::piece::{
    BEGINS_LINE, BEGINS_LINE_BEHIND, CHECK, COMMIT, COMMIT_BEHIND, Commit, END, End, Header, Line, MAGIC,
    MAX_BATCH, MAX_FAMILIES, Name, Position,
};
use crate::{Error, Result};

/// What is asked for at once of a length that somebody claims.
const STEP: usize = 256 << 10;

/// A piece that is being read.
pub struct PieceReader<R> {
    input: R,
    /// For messages.
    name: String,
    hash: Sha256,
    bytes: u64,
    header: Header,
    at: Position,
    end: Option<End>,
}

impl<R> std::fmt::Debug for PieceReader<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PieceReader").field("name", &self.name).field("at", &self.at).finish_non_exhaustive()
    }
}

impl<R: Read> PieceReader<R> {
    /// Reads its beginning.
    ///
    /// # Errors
    /// [`Error::Piece`], or when it cannot be read.
    pub fn open(name: &str, input: R) -> Result<Self> {
        let header =
            Header { schema: 0, families: Vec::new(), from: 0, line: Line::default(), begins: false };
        let mut this = Self {
            input,
            name: name.to_owned(),
            hash: Sha256::new(),
            bytes: 0,
            header,
            at: Position::default(),
            end: None,
        };
        if this.array::<8>()? != *MAGIC {
            return Err(this.broken(0, "it does not begin as a piece of a journal's archive does"));
        }
        let schema = this.u32()?;
        let mut families = Vec::new();
        let length = this.length(MAX_FAMILIES)?;
        this.fill(length, &mut families)?;
        let (from, line) = (this.u64()?, Line(this.array()?));
        let begins = this.array::<1>()? != [0];
        this.check()?;
        this.header = Header { schema, families, from, line, begins };
        this.at = Position { commit: from, line, ..Position::default() };
        Ok(this)
    }

    /// How it begins.
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// After the last commit that was read. Event and time are 0 before the first.
    pub const fn at(&self) -> Position {
        self.at
    }

    /// How it ends, once [`PieceReader::read`] has come to it.
    pub const fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    /// The next commit, with its batch in `batch`; none: it has ended, as it was written.
    ///
    /// # Errors
    /// [`Error::Piece`], or when it cannot be read.
    pub fn read(&mut self, batch: &mut Vec<u8>) -> Result<Option<Commit>> {
        batch.clear();
        if self.end.is_some() {
            return Ok(None);
        }
        let begins = self.bytes;
        let [kind] = self.array()?;
        if kind == END {
            self.ends(begins)?;
            return Ok(None);
        }
        let (begins_line, behind) = match kind {
            COMMIT => (false, false),
            BEGINS_LINE => (true, false),
            COMMIT_BEHIND => (false, true),
            BEGINS_LINE_BEHIND => (true, true),
            _ => return Err(self.broken(begins, "it is no commit and no end")),
        };
        let (commit, event, time_ms) = (self.u64()?, self.u64()?, self.u64()?);
        let line = if begins_line { Some(Line(self.array()?)) } else { None };
        let clock_ms = if behind { Some(self.u64()?) } else { None };
        let commit = Commit { commit, event, time_ms, clock_ms, line };
        let length = self.length(MAX_BATCH)?;
        self.fill(length, batch)?;
        self.check()?;
        if !follows(&self.at, &commit) {
            let what = format!("commit {} does not follow {}", commit.commit, self.at.commit);
            return Err(self.broken(begins, &what));
        }
        self.at = after(&self.at, &commit);
        Ok(Some(commit))
    }

    /// Whether it is what its name says. The end is compared once it was read.
    ///
    /// # Errors
    /// [`Error::Piece`].
    pub fn compare(&self, name: &Name) -> Result<()> {
        let ends_there = self.end.is_none_or(|end| end.mark() == name.to);
        if self.header.from == name.from && self.at.commit <= name.to.commit && ends_there {
            return Ok(());
        }
        Err(self.broken(self.bytes, "it is another one than its name says"))
    }

    fn ends(&mut self, begins: u64) -> Result<()> {
        let (commit, event, time_ms) = (self.u64()?, self.u64()?, self.u64()?);
        let to = Position { commit, event, time_ms, line: Line(self.array()?) };
        let end = End { to, until_ms: self.u64()?, hint: self.u64()? };
        self.check()?;
        if to != self.at {
            return Err(self.broken(begins, "it ends elsewhere than it says"));
        }
        match self.input.read(&mut [0]) {
            Ok(0) => {}
            Ok(_) => return Err(self.broken(self.bytes, "something stands after its end")),
            Err(error) => return Err(self.unreadable(error)),
        }
        self.end = Some(end);
        Ok(())
    }

    fn check(&mut self) -> Result<()> {
        let begins = self.bytes;
        let sum = self.hash.clone().finalize();
        let found: [u8; CHECK] = self.array()?;
        if found[..] == sum[..CHECK] {
            return Ok(());
        }
        Err(self.broken(begins, "what is before this byte is not what was written"))
    }

    fn length(&mut self, most: u32) -> Result<u32> {
        let begins = self.bytes;
        let length = self.u32()?;
        if length > most { Err(self.broken(begins, "a length is larger than any")) } else { Ok(length) }
    }

    fn fill(&mut self, length: u32, out: &mut Vec<u8>) -> Result<()> {
        let mut left = length as usize;
        while left > 0 {
            let (begun, step) = (out.len(), left.min(STEP));
            out.resize(begun + step, 0);
            self.exactly(out.get_mut(begun..).unwrap_or_default())?;
            left -= step;
        }
        Ok(())
    }

    fn exactly(&mut self, out: &mut [u8]) -> Result<()> {
        if let Err(error) = self.input.read_exact(out) {
            return Err(self.unreadable(error));
        }
        self.hash.update(&*out);
        self.bytes += out.len() as u64;
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut out = [0; N];
        self.exactly(&mut out)?;
        Ok(out)
    }

    fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_be_bytes)
    }

    /// Decryption tells a change as invalid data, and a cut as an end.
    fn unreadable(&self, error: io::Error) -> Error {
        match error.kind() {
            io::ErrorKind::InvalidData => self.broken(self.bytes, "what was encrypted was changed"),
            io::ErrorKind::UnexpectedEof => self.broken(self.bytes, "it ends here: it was cut off"),
            _ => Error::io("read", Path::new(&self.name))(error),
        }
    }

    fn broken(&self, offset: u64, what: &str) -> Error {
        Error::Piece { piece: self.name.clone(), offset, what: what.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::piece::PieceWriter;

    fn piece() -> Vec<u8> {
        let header = Header { schema: 1, families: vec![9; 30], from: 4, line: Line([1; 16]), begins: true };
        let mut writer = PieceWriter::begin(Vec::new(), &header).unwrap();
        for (commit, line, clock_ms) in [
            (5, None, None),
            (6, Some(Line([2; 16])), None),
            (7, None, Some(900)),
            (8, Some(Line([3; 16])), Some(901)),
        ] {
            let commit = Commit { commit, event: 2 * commit, time_ms: 1000 + commit, clock_ms, line };
            writer.commit(&commit, &vec![7; 700]).unwrap();
        }
        let wrong = Commit { commit: 10, event: 20, time_ms: 2000, clock_ms: None, line: None };
        assert!(writer.commit(&wrong, b"x").is_err(), "a number is left out");
        let wrong = Commit { commit: 9, clock_ms: Some(2000), ..wrong };
        assert!(writer.commit(&wrong, b"x").is_err(), "the clock is not behind");
        writer.finish(1010, 77).unwrap()
    }

    fn read(bytes: &[u8]) -> Result<(Vec<Commit>, End)> {
        let mut reader = PieceReader::open("x", bytes)?;
        let (mut batch, mut commits) = (Vec::new(), Vec::new());
        while let Some(commit) = reader.read(&mut batch)? {
            assert_eq!(batch, [7; 700]);
            commits.push(commit);
        }
        Ok((commits, *reader.end().unwrap()))
    }

    #[test]
    fn it_reads_back() {
        let (commits, end) = read(&piece()).unwrap();
        assert_eq!(
            commits.iter().map(|one| (one.commit, one.event, one.clock_ms)).collect::<Vec<_>>(),
            [(5, 10, None), (6, 12, None), (7, 14, Some(900)), (8, 16, Some(901))]
        );
        assert_eq!((end.to.commit, end.to.line, end.until_ms), (8, Line([3; 16]), 1010));
        assert_eq!(end.mark(), crate::piece::Mark { commit: 8, line: Line([3; 16]), hint: 77 });
    }

    #[test]
    fn each_bit_counts_and_so_does_the_end() {
        let whole = piece();
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << (at % 8);
            assert!(matches!(read(&flipped), Err(Error::Piece { .. })), "byte {at}");
            assert!(matches!(read(&whole[..at]), Err(Error::Piece { .. })), "cut at {at}");
        }
        let longer = [whole.as_slice(), b"x"].concat();
        assert!(matches!(read(&longer), Err(Error::Piece { .. })));
    }
}
