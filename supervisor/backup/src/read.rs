//! Reading an archive: every byte is judged, and handed on as it comes.
//!
//! What is handed on before the end is not known to be whole: whoever takes it must be able to forget it. No length is believed; nothing
//! grows with what a header claims.

use std::collections::BTreeMap;
use std::io::{self, Read};

use sha2::{Digest as _, Sha256};

use crate::end::{self, Chain, END, SUMS, Sum};
use crate::entry::{Entry, Part};
use crate::header::{BLOCK, Fault, Fields};
use crate::manifest::{self, Manifest};
use crate::{Error, Result};

const BUFFER: usize = 256 << 10;
/// More files than any state has.
const MAX_FILES: usize = 4_000_000;
/// And more bytes of names.
const MAX_NAMES: usize = 512 << 20;

/// Who gets what is read.
pub trait Taker {
    /// What the archive says of itself.
    ///
    /// # Errors
    /// Ends the reading.
    fn manifest(&mut self, _: &Manifest) -> Result<()> {
        Ok(())
    }

    /// A file begins.
    ///
    /// # Errors
    /// Ends the reading.
    fn begin(&mut self, _: &Entry) -> Result<()> {
        Ok(())
    }

    /// Bytes of it.
    ///
    /// # Errors
    /// Ends the reading.
    fn data(&mut self, _: &[u8]) -> Result<()> {
        Ok(())
    }

    /// It has ended.
    ///
    /// # Errors
    /// Ends the reading.
    fn end(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Takes nothing: the archive is only checked.
#[derive(Debug, Clone, Copy, Default)]
pub struct Check;

impl Taker for Check {}

/// Files of a folder.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    /// How many.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What was read, whole and as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// What it says of itself.
    pub manifest: Manifest,
    /// What is in each folder.
    pub parts: BTreeMap<Part, Counted>,
    /// Bytes of the archive.
    pub archive_bytes: u64,
    /// SHA-256 over all headers and files: what two archives of the same content share.
    pub sha256: [u8; 32],
}

impl Summary {
    /// All files together.
    #[must_use]
    pub fn total(&self) -> Counted {
        let add = |a: Counted, b: &Counted| Counted { files: a.files + b.files, bytes: a.bytes + b.bytes };
        self.parts.values().fold(Counted::default(), add)
    }
}

/// Reads an archive to its end.
///
/// # Errors
/// [`Error::NotABackup`], [`Error::Broken`], [`Error::Refused`], [`Error::Newer`] for the form, what `taker` says, or
/// [`Error::Io`] when the input cannot be read.
pub fn read(input: impl Read, taker: &mut dyn Taker) -> Result<Summary> {
    let mut walk = Walk {
        input: Counting { inner: input, bytes: 0 },
        at: manifest::NAME.to_owned(),
        chain: Chain::default(),
        list: Vec::new(),
        names: 0,
        buffer: vec![0; BUFFER],
    };
    let manifest = walk.first()?;
    taker.manifest(&manifest)?;
    let (parts, sums) = walk.files(taker)?;
    walk.ends(&manifest, sums)?;
    let archive_bytes = walk.input.bytes;
    Ok(Summary { manifest, parts, archive_bytes, sha256: walk.chain.finish() })
}

/// A file that was read: its name, where its bytes begin, their hash.
struct Seen {
    name: Box<str>,
    offset: u64,
    sum: Sum,
}

struct Walk<R> {
    input: Counting<R>,
    /// The file that is being read.
    at: String,
    chain: Chain,
    list: Vec<Seen>,
    names: usize,
    buffer: Vec<u8>,
}

impl<R: Read> Walk<R> {
    fn first(&mut self) -> Result<Manifest> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while let Some(rest) = block.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.input.read(rest) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.unreadable(error)),
            }
        }
        if !block.starts_with(manifest::NAME.as_bytes()) {
            return Err(Error::NotABackup);
        }
        let begun = block.get(..filled).unwrap_or_default();
        let read = Fields::read(&mut begun.chain(&mut self.input)).map_err(|fault| self.fault(fault, 0))?;
        let Some((fields, raw)) = read.filter(|(fields, _)| fields.name == manifest::NAME) else {
            return Err(Error::NotABackup);
        };
        let offset = self.input.bytes;
        if fields.size > manifest::MAX {
            return Err(self.refused(offset, "it is larger than any manifest"));
        }
        let mut text = Vec::new();
        let sum = self.body(fields.size, &mut |part| {
            text.extend_from_slice(part);
            Ok(())
        })?;
        self.note(&fields, &raw, offset, sum)?;
        let manifest = Manifest::decode(&text, offset)?;
        if manifest.created_secs() != Some(fields.time) {
            return Err(self.broken(offset, "created: it is not the time of the files"));
        }
        Ok(manifest)
    }

    /// All files, and the size of the list that follows them.
    fn files(&mut self, taker: &mut dyn Taker) -> Result<(BTreeMap<Part, Counted>, u64)> {
        let mut parts = BTreeMap::<Part, Counted>::new();
        loop {
            let begins = self.input.bytes;
            let read = Fields::read(&mut self.input).map_err(|fault| self.fault(fault, begins))?;
            let Some((fields, raw)) = read else {
                return Err(
                    self.broken(begins, "its end is missing: it was cut off, or put together by hand")
                );
            };
            self.at.clone_from(&fields.name);
            let offset = self.input.bytes;
            if fields.name == SUMS {
                let time = fields.time;
                if raw != end::header(SUMS, fields.size, time) {
                    return Err(self.broken(begins, "its header was changed"));
                }
                return Ok((parts, fields.size));
            }
            let entry = Entry::parse(&fields.name, fields.executable, fields.size)
                .map_err(|why| self.refused(offset, why))?;
            taker.begin(&entry)?;
            let sum = self.body(fields.size, &mut |part| taker.data(part))?;
            taker.end()?;
            self.note(&fields, &raw, offset, sum)?;
            let counted = parts.entry(entry.part).or_default();
            counted.files += 1;
            counted.bytes += fields.size;
        }
    }

    fn note(&mut self, fields: &Fields, raw: &[u8], offset: u64, sum: Sum) -> Result<()> {
        self.chain.add(raw, &sum);
        self.names += fields.name.len();
        if self.list.len() >= MAX_FILES || self.names > MAX_NAMES {
            return Err(self.refused(offset, "there are more files than any state has"));
        }
        self.list.push(Seen { name: fields.name.as_str().into(), offset, sum });
        Ok(())
    }

    /// The list, the mark, and nothing after it.
    fn ends(&mut self, manifest: &Manifest, sums: u64) -> Result<()> {
        let offset = self.input.bytes;
        let expected: u64 = self.list.iter().map(|seen| seen.name.len() as u64 + 67).sum();
        if sums != expected {
            return Err(self.broken(offset, "it lists other files than there are"));
        }
        let (differs, listed) = self.compare_list()?;
        self.pad(sums)?;
        let time = manifest.created_secs().unwrap_or_default();
        let files = self.chain.clone().finish();
        let mark = end::mark(files, listed);
        let expected = end::header(END, mark.len() as u64, time);
        END.clone_into(&mut self.at);
        self.exactly(&expected, "its header was changed")?;
        let begins = self.input.bytes;
        let mut text = vec![0; mark.len()];
        self.fill(&mut text)?;
        if text != mark.as_bytes() {
            let same = text.starts_with(mark.split('\n').next().unwrap_or_default().as_bytes());
            return Err(match differs {
                // Files and headers are what they were: the list is not.
                Some(_) if same => self.broken_in(SUMS, offset, "it is not the list that was written"),
                Some(at) => {
                    let (name, offset) =
                        self.list.get(at).map_or((SUMS, offset), |seen| (&*seen.name, seen.offset));
                    self.broken_in(name, offset, "its SHA-256 is not the one that was written")
                }
                None => self.broken(begins, "it is of another archive: a header, or itself, was changed"),
            });
        }
        if differs.is_some() {
            return Err(self.broken_in(SUMS, offset, "it is not the list that was written"));
        }
        self.pad(mark.len() as u64)?;
        self.exactly(&[0; end::TAIL], "something stands after it")?;
        let begins = self.input.bytes;
        match self.input.read(&mut [0]) {
            Ok(0) => {}
            Ok(_) => return Err(self.broken(begins, "something stands after it")),
            Err(error) => return Err(self.unreadable(error)),
        }
        self.no_doubles()
    }

    /// The first line that is not of the file that was read, and the hash of the list.
    fn compare_list(&mut self) -> Result<(Option<usize>, Sum)> {
        let list = std::mem::take(&mut self.list);
        let mut hash = Sha256::new();
        let mut differs = None;
        for (at, seen) in list.iter().enumerate() {
            let expected = end::line(&seen.name, &seen.sum);
            let mut line = vec![0; expected.len()];
            self.fill(&mut line)?;
            hash.update(&line);
            if line != expected.as_bytes() {
                differs.get_or_insert(at);
            }
        }
        self.list = list;
        Ok((differs, hash.finalize().into()))
    }

    fn no_doubles(&mut self) -> Result<()> {
        self.list.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        match self.list.windows(2).find(|pair| pair[0].name == pair[1].name) {
            Some(pair) => Err(Error::Refused {
                file: pair[1].name.to_string(),
                offset: pair[1].offset,
                what: "it is there twice".to_owned(),
            }),
            None => Ok(()),
        }
    }

    /// A file's bytes, with what fills up its last block.
    fn body(&mut self, size: u64, take: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<Sum> {
        let mut sum = Sha256::new();
        let mut left = size;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len());
            let n = match self.input.read(self.buffer.get_mut(..most).unwrap_or_default()) {
                Ok(0) => return Err(self.fault(Fault::Cut, self.input.bytes)),
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.unreadable(error)),
            };
            let part = self.buffer.get(..n).unwrap_or_default();
            sum.update(part);
            take(part)?;
            left -= n as u64;
        }
        self.pad(size)?;
        Ok(sum.finalize().into())
    }

    fn pad(&mut self, size: u64) -> Result<()> {
        let zeros = [0; BLOCK];
        self.exactly(
            zeros.get(..end::padding(size)).unwrap_or_default(),
            "what fills up its last block was changed",
        )
    }

    fn exactly(&mut self, expected: &[u8], otherwise: &str) -> Result<()> {
        let begins = self.input.bytes;
        let mut found = vec![0; expected.len()];
        self.fill(&mut found)?;
        match found.iter().zip(expected).position(|(a, b)| a != b) {
            Some(at) => Err(self.broken(begins + at as u64, otherwise)),
            None => Ok(()),
        }
    }

    fn fill(&mut self, out: &mut [u8]) -> Result<()> {
        match self.input.read_exact(out) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(self.fault(Fault::Cut, self.input.bytes))
            }
            Err(error) => Err(self.unreadable(error)),
        }
    }

    fn fault(&self, fault: Fault, offset: u64) -> Error {
        match fault {
            Fault::Cut => self.broken(self.input.bytes, "it ends here: it was cut off"),
            Fault::Changed(what) => {
                self.broken_in(&format!("what follows {}", shown(&self.at)), offset, what)
            }
            Fault::Foreign(what) => {
                Error::Refused { file: format!("what follows {}", shown(&self.at)), offset, what }
            }
            Fault::Io(error) => self.unreadable(error),
        }
    }

    /// Decryption tells a change as invalid data, and a cut as an end.
    fn unreadable(&self, error: io::Error) -> Error {
        match error.kind() {
            io::ErrorKind::InvalidData => self.broken(self.input.bytes, "what was encrypted was changed"),
            io::ErrorKind::UnexpectedEof => self.broken(self.input.bytes, "it ends here: it was cut off"),
            _ => Error::stream("read")(error),
        }
    }

    fn broken(&self, offset: u64, what: &str) -> Error {
        self.broken_in(&self.at, offset, what)
    }

    fn broken_in(&self, file: &str, offset: u64, what: &str) -> Error {
        Error::Broken { file: shown(file), offset, what: what.to_owned() }
    }

    fn refused(&self, offset: u64, what: &str) -> Error {
        Error::Refused { file: shown(&self.at), offset, what: what.to_owned() }
    }
}

/// A name that somebody else chose.
fn shown(name: &str) -> String {
    name.chars().take(200).flat_map(char::escape_debug).collect()
}

struct Counting<R> {
    inner: R,
    bytes: u64,
}

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(out)?;
        self.bytes += n as u64;
        Ok(n)
    }
}
