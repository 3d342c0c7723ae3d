//! A journal as one stream of bytes, and a journal from one.
//!
//! ```text
//! "AIONTJX1" | schema, u64
//! record: family u8 | length of the key u32 | length of the value u32 | key | value
//! 0xff | records, u64 | SHA-256 of everything before it
//! ```
//! Big endian; families and keys in order, so that equal journals give equal bytes.

use std::fs;
use std::io::{BufReader, BufWriter, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use rocksdb::{DB, IngestExternalFileOptions, SstFileWriter, WriteBatch, WriteOptions};
use sha2::{Digest as _, Sha256};

use crate::error::Error;
use crate::journal::Journal;
use crate::keys::{self, BLOBS};
use crate::options::Options;
use crate::{db, schema};

const MAGIC: &[u8; 8] = b"AIONTJX1";
const END: u8 = 0xff;
const MAX_KEY: u32 = 64 << 10;
const MAX_VALUE: u32 = 1 << 30;

/// How much went over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Transferred {
    /// Records.
    pub records: u64,
    /// Bytes of the stream.
    pub bytes: u64,
}

struct Hashed<T> {
    inner: T,
    hash: Sha256,
    bytes: u64,
}

impl<T> Hashed<T> {
    fn new(inner: T) -> Self {
        Self { inner, hash: Sha256::new(), bytes: 0 }
    }
}

impl<T: Write> Hashed<T> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        self.inner.write_all(bytes).map_err(Error::io("write the export"))
    }
}

impl<T: Read> Hashed<T> {
    fn read(&mut self, out: &mut [u8]) -> Result<(), Error> {
        self.inner.read_exact(out).map_err(|source| match source.kind() {
            ErrorKind::UnexpectedEof => bad("it ends too early"),
            _ => Error::Io { action: "read the export", source },
        })?;
        self.hash.update(&*out);
        self.bytes += out.len() as u64;
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let mut out = [0; N];
        self.read(&mut out)?;
        Ok(out)
    }

    fn bytes(&mut self, length: u32) -> Result<Vec<u8>, Error> {
        let mut out = vec![0; length as usize];
        self.read(&mut out)?;
        Ok(out)
    }
}

fn bad(detail: impl Into<String>) -> Error {
    Error::Import { detail: detail.into() }
}

impl Journal {
    /// Writes everything, as of one moment, to `out`. Commits go on meanwhile.
    ///
    /// # Errors
    /// When the journal cannot be read or `out` not written.
    pub fn export(&self, out: impl Write) -> Result<Transferred, Error> {
        let _files_stay = self.sweeping.lock().unwrap_or_else(PoisonError::into_inner);
        let mut out = Hashed::new(BufWriter::with_capacity(1 << 20, out));
        let mut records = 0u64;
        out.put(MAGIC)?;
        out.put(&schema::SCHEMA_VERSION.to_be_bytes())?;
        self.with_db(|db| {
            let snapshot = db.snapshot();
            for (family, name) in (0u8..).zip(keys::ALL) {
                let mut iter = snapshot.raw_iterator_cf_opt(db::handle(db, name)?, db::sequential());
                iter.seek_to_first();
                while let (Some(key), Some(value)) = (iter.key(), iter.value()) {
                    let length = |part: &[u8]| {
                        u32::try_from(part.len()).map_err(|_| Error::Corrupt {
                            family: name,
                            detail: "more than 4 GiB".to_owned(),
                        })
                    };
                    out.put(&[family])?;
                    out.put(&length(key)?.to_be_bytes())?;
                    out.put(&length(value)?.to_be_bytes())?;
                    out.put(key)?;
                    out.put(value)?;
                    records += 1;
                    iter.next();
                }
                iter.status().map_err(Error::Database)?;
            }
            Ok(())
        })?;
        out.put(&[END])?;
        out.put(&records.to_be_bytes())?;
        let hash = std::mem::take(&mut out.hash).finalize();
        out.put(&hash)?;
        out.inner.flush().map_err(Error::io("write the export"))?;
        Ok(Transferred { records, bytes: out.bytes })
    }

    /// Makes a journal in `path` of what [`Journal::export`] wrote. There must be none yet; there is none after an error.
    ///
    /// # Errors
    /// [`Error::NotEmpty`], [`Error::Import`], [`Error::SchemaTooNew`], or why it cannot be written.
    pub fn import(path: &Path, options: &Options, input: impl Read) -> Result<Transferred, Error> {
        match fs::read_dir(path).map(|mut files| files.next().is_some()) {
            Ok(true) => return Err(Error::NotEmpty { path: path.to_owned() }),
            Ok(false) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(source) => return Err(Error::Io { action: "read the journal's folder", source }),
        }
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".importing");
        let making = path.with_file_name(name);
        let _ = fs::remove_dir_all(&making);
        make(&making)?;
        let result = import_into(&making, options, input);
        if result.is_err() {
            let _ = fs::remove_dir_all(&making);
            return result;
        }
        // An empty folder gives way to a rename.
        fs::rename(&making, path).map_err(Error::io("move the imported journal to its place"))?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let synced = fs::File::open(parent).and_then(|dir| dir.sync_all());
        synced.map_err(Error::io("sync the folder above the journal"))?;
        result
    }
}

fn make(path: &Path) -> Result<(), Error> {
    use std::os::unix::fs::DirBuilderExt as _;

    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(Error::io("make the journal's folder"))
}

fn import_into(path: &Path, options: &Options, input: impl Read) -> Result<Transferred, Error> {
    let mut input = Hashed::new(BufReader::with_capacity(1 << 20, input));
    if &input.array::<8>()? != MAGIC {
        return Err(bad("it is not an exported journal"));
    }
    let found = u64::from_be_bytes(input.array()?);
    if found > schema::SCHEMA_VERSION {
        return Err(Error::SchemaTooNew { found, supported: schema::SCHEMA_VERSION });
    }
    let db = db::open(path, options)?;
    let mut loader = Loader {
        db: &db,
        options,
        incoming: path.join("incoming"),
        write: WriteBatch::default(),
        chunks: Vec::new(),
    };
    let mut records = 0u64;
    loop {
        let [family] = input.array()?;
        if family == END {
            break;
        }
        let name = keys::ALL
            .get(usize::from(family))
            .copied()
            .ok_or_else(|| bad(format!("unknown family {family}")))?;
        let (key_len, value_len) = (u32::from_be_bytes(input.array()?), u32::from_be_bytes(input.array()?));
        if key_len > MAX_KEY || value_len > MAX_VALUE {
            return Err(bad(format!("a record of {name} is too long")));
        }
        let (key, value) = (input.bytes(key_len)?, input.bytes(value_len)?);
        loader.put(name, key, value)?;
        records += 1;
    }
    if u64::from_be_bytes(input.array()?) != records {
        return Err(bad("it has another number of records than it says"));
    }
    let expected = <[u8; 32]>::from(input.hash.clone().finalize());
    if input.array::<32>()? != expected {
        return Err(bad("its checksum is another one"));
    }
    loader.flush()?;
    loader.ingest()?;
    for name in keys::ALL {
        db.flush_cf(db::handle(&db, name)?).map_err(Error::Database)?;
    }
    Ok(Transferred { records, bytes: input.bytes })
}

/// Writes records in large steps, and the data of each large checkpoint as a file of its own.
struct Loader<'a> {
    db: &'a DB,
    options: &'a Options,
    incoming: PathBuf,
    write: WriteBatch,
    chunks: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Loader<'_> {
    fn put(&mut self, family: &'static str, key: Vec<u8>, value: Vec<u8>) -> Result<(), Error> {
        if family == BLOBS {
            if key.len() != 24 {
                return Err(bad("a chunk of a checkpoint has no proper key"));
            }
            if self.chunks.last().is_some_and(|(last, _)| last[..20] != key[..20]) {
                self.ingest()?;
            }
            self.chunks.push((key, value));
            return Ok(());
        }
        self.write.put_cf(db::handle(self.db, family)?, key, value);
        if self.write.size_in_bytes() > 1 << 20 { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Error> {
        let mut options = WriteOptions::default();
        // All of it is written to tables before the journal gets its name.
        options.disable_wal(true);
        self.db.write_opt(std::mem::take(&mut self.write), &options).map_err(Error::Database)
    }

    fn ingest(&mut self) -> Result<(), Error> {
        if self.chunks.is_empty() {
            return Ok(());
        }
        make(&self.incoming)?;
        let file = self.incoming.join("import.sst");
        let options = db::database_options(self.options).map_err(Error::Database)?;
        let mut table = SstFileWriter::create(&options);
        table.open(&file).map_err(Error::Database)?;
        for (key, value) in self.chunks.drain(..) {
            table.put(key, value).map_err(Error::Database)?;
        }
        table.finish().map_err(Error::Database)?;
        let mut ingest = IngestExternalFileOptions::default();
        ingest.set_move_files(true);
        let family = db::handle(self.db, BLOBS)?;
        self.db.ingest_external_file_cf_opts(family, &ingest, vec![file]).map_err(Error::Database)
    }
}
