//! Making an archive: the manifest, files one after the other, the end.

use std::io::{Read, Write};

use sha2::{Digest as _, Sha256};

use crate::end::{self, Chain};
use crate::entry::Entry;
use crate::header::{BLOCK, Fields};
use crate::manifest::{self, Manifest};
use crate::{Error, Result};

const BUFFER: usize = 256 << 10;

/// An archive that is being written. Without [`Writer::finish`] it is none.
pub struct Writer<W> {
    out: W,
    time: u64,
    chain: Chain,
    sums: String,
    buffer: Vec<u8>,
    files: u64,
    bytes: u64,
}

impl<W> std::fmt::Debug for Writer<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer")
            .field("files", &self.files)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

impl<W: Write> Writer<W> {
    /// Begins with the manifest.
    ///
    /// # Errors
    /// When it cannot be written, or `created` is no time.
    pub fn begin(out: W, manifest: &Manifest) -> Result<Self> {
        let time = manifest
            .created_secs()
            .ok_or_else(|| Error::Name { name: manifest.created.clone(), why: "it is no time".to_owned() })?;
        let mut writer = Self {
            out,
            time,
            chain: Chain::default(),
            sums: String::new(),
            buffer: vec![0; BUFFER],
            files: 0,
            bytes: 0,
        };
        let text = manifest.encode();
        writer.put(manifest::NAME, false, text.len() as u64, text.as_slice())?;
        Ok(writer)
    }

    /// Adds a file: exactly `size` bytes of `body`.
    ///
    /// # Errors
    /// [`Error::Name`] for what is no file of a state, [`Error::Short`], or when it cannot be read or written. The archive is of no
    /// use then.
    pub fn file(&mut self, name: &str, executable: bool, size: u64, body: impl Read) -> Result<()> {
        Entry::parse(name, executable, size)
            .map_err(|why| Error::Name { name: name.to_owned(), why: why.to_owned() })?;
        self.put(name, executable, size, body)?;
        self.files += 1;
        self.bytes += size;
        Ok(())
    }

    fn put(&mut self, name: &str, executable: bool, size: u64, mut body: impl Read) -> Result<()> {
        let fields = Fields { name: name.to_owned(), size, executable, time: self.time };
        let header = fields
            .encode()
            .ok_or_else(|| Error::Name { name: name.to_owned(), why: "its name is too long".to_owned() })?;
        self.write(&header)?;
        let mut sum = Sha256::new();
        let mut left = size;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len());
            let part = self.buffer.get_mut(..most).unwrap_or_default();
            let n = match body.read(part) {
                Ok(0) => return Err(Error::Short { name: name.to_owned() }),
                Ok(n) => n,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(Error::Io { action: "read", path: name.into(), source }),
            };
            let part = self.buffer.get(..n).unwrap_or_default();
            sum.update(part);
            self.out.write_all(part).map_err(Error::stream("write"))?;
            left -= n as u64;
        }
        self.pad(size)?;
        let sum = sum.finalize().into();
        self.chain.add(&header, &sum);
        self.sums.push_str(&end::line(name, &sum));
        Ok(())
    }

    /// Files and their bytes so far.
    #[must_use]
    pub const fn written(&self) -> (u64, u64) {
        (self.files, self.bytes)
    }

    /// Ends it, and gives back where it went.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(mut self) -> Result<W> {
        let sums = std::mem::take(&mut self.sums);
        let mark =
            end::mark(std::mem::take(&mut self.chain).finish(), Sha256::digest(sums.as_bytes()).into());
        for (name, text) in [(end::SUMS, sums), (end::END, mark)] {
            self.write(&end::header(name, text.len() as u64, self.time))?;
            self.write(text.as_bytes())?;
            self.pad(text.len() as u64)?;
        }
        self.write(&[0; end::TAIL])?;
        self.out.flush().map_err(Error::stream("write"))?;
        Ok(self.out)
    }

    fn pad(&mut self, size: u64) -> Result<()> {
        let zeros = [0; BLOCK];
        self.write(zeros.get(..end::padding(size)).unwrap_or_default())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(Error::stream("write"))
    }
}
