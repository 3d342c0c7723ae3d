//! The writer: appends to the newest segment, signs checkpoints, seals full segments and begins the next.
//!
//! Writes go to an offset that only moves when all of them arrived. A write that fails half-way (a full
//! disk) is cut off again and later repeated with the same bytes, so the file is whole at any time and no
//! accepted record is lost. Each step of a checkpoint or a rotation can be repeated after a failure.
//!
//! Behind the lines of the newest segment zeros are written ahead. Lines that go over them change neither the file's size nor its blocks, so
//! that a sync waits for them alone, and not for the file system's journal with whatever others have put into it.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::key::{Key, PublicKey};
use crate::line::{self, Header, Mark};
use crate::origin::Origin;
use crate::recover::{self, Start};
use crate::segment;
use crate::statement::{Statement, Which};
use crate::{Detail, Error, Hash, NewRecord, Result};

/// How many bytes are gathered before they are written.
const FLUSH_AT: usize = 64 * 1024;
/// With half a line before it, room is still shorter than what a reader takes for too long a line.
const MAX_ROOM: usize = line::MAX_LINE / 2;
/// Records of several processors arrive a little out of order; up to this, time is made to not run backwards.
const REORDER_NS: u64 = 1_000_000_000;

/// How a log is written.
#[derive(Debug, Clone)]
pub struct Options {
    /// A segment is sealed when it would grow over this.
    pub segment_max_bytes: u64,
    /// While records come, a checkpoint is signed at least this often.
    pub checkpoint_every: Duration,
    /// The group that may read the log; none leaves what the folder gives.
    pub gid: Option<u32>,
    /// So many zeros are written ahead at once, 256 KiB at most; 0: none.
    pub room_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_max_bytes: 16 << 20,
            checkpoint_every: Duration::from_secs(1),
            gid: None,
            room_bytes: 128 << 10,
        }
    }
}

/// The one writer of a log.
pub struct Writer {
    pub(crate) dir: PathBuf,
    pub(crate) key: Key,
    pub(crate) options: Options,
    file: File,
    /// The newest segment.
    pub(crate) segment: u64,
    /// Bytes of it that are written.
    written: u64,
    /// Bytes of its file: what is behind those is room.
    length: u64,
    /// Records in it, the gathered ones too.
    records: u64,
    /// Its footer is written or gathered.
    sealed: bool,
    /// Lines that are not written yet.
    gathered: Vec<u8>,
    chain: Hash,
    last_seq: u64,
    last_time: u64,
    durable_seq: u64,
    /// Lines since the last checkpoint or footer.
    unsigned: bool,
    /// A HEAD that is to be written once the lines before it are synced.
    head_due: bool,
    last_checkpoint: Instant,
    poisoned: bool,
}

impl Writer {
    /// Opens the log in `dir` and takes the one writer's lock. Makes the folder, the key at `key_path` and
    /// `key.pub` when there is no log yet. A torn last line is cut off and told by a record
    /// `audit.recovered`, as is everything else that was not as the last writer left it.
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::KeyMissing`], or what the file system says.
    pub fn open(dir: &Path, key_path: &Path, options: Options) -> Result<Self> {
        if !dir.exists() {
            fs::create_dir_all(dir).map_err(Error::io("create", dir))?;
        }
        let is_new = segment::list(dir)?.is_empty() && !dir.join(Which::Head.file()).exists();
        let key = Key::open(key_path, dir, is_new)?;
        let public = key.public();
        let key_file = dir.join("key.pub");
        let key_text = format!("{public}\n");
        let key_known = fs::read(&key_file).is_ok_and(|text| text == key_text.as_bytes());
        if !key_known {
            segment::install(dir, &key_file, key_text.as_bytes(), options.gid)?;
        }
        Origin::share(dir, options.gid)?;
        let origin = if is_new { Origin::read(dir)? } else { None };
        if let Some(origin) = &origin {
            // Before the first segment: without it, a log that does not begin with record 1 lacks its beginning.
            let base = Statement { segment: 1, seq: origin.seq + 1, hash: origin.hash, time: now() };
            base.write(Which::Base, dir, &key, options.gid)?;
        }
        let Start { segment: number, state, trouble } = recover::start(dir, &public, origin.as_ref())?;
        let (file, written, chain) = match state.resume {
            Some((file, written)) => (file, written, state.chain),
            None => {
                let header = Header {
                    segment: number,
                    first: state.seq + 1,
                    prev: state.chain,
                    time: now(),
                    key: public,
                };
                segment::begin(dir, &header, options.gid)?
            }
        };
        let length = file.metadata().map_err(Error::io("read", &segment::path(dir, number)))?.len();
        let mut writer = Self {
            dir: dir.to_owned(),
            key,
            options,
            file,
            segment: number,
            written,
            length,
            records: state.records,
            sealed: false,
            gathered: Vec::with_capacity(2 * FLUSH_AT),
            chain,
            last_seq: state.seq,
            last_time: state.time,
            durable_seq: 0,
            unsigned: false,
            head_due: true,
            last_checkpoint: Instant::now(),
            poisoned: false,
        };
        if let Some(Origin { seq, hash, mut detail }) = origin {
            detail.insert("seq".to_owned(), seq.into());
            detail.insert("hash".to_owned(), hash.to_string().into());
            writer.append(&NewRecord {
                kind: "audit.continued",
                verdict: "allowed",
                detail: Detail::from_value(&detail.into())?,
                ..NewRecord::default()
            })?;
        }
        if let Some(trouble) = trouble {
            writer.append(&NewRecord {
                kind: "audit.recovered",
                verdict: "error",
                detail: Detail::from_value(&trouble)?,
                ..NewRecord::default()
            })?;
        }
        writer.checkpoint()?;
        Ok(writer)
    }

    /// The number of the newest segment.
    #[must_use]
    pub fn segment(&self) -> u64 {
        self.segment
    }

    /// Appends a record to what is gathered and answers its number. Nothing is durable before [`Self::sync`].
    ///
    /// # Errors
    /// The record is not appended when it is not valid, or when earlier records have to be written first and
    /// cannot be (a full disk); it may be tried again.
    pub fn append(&mut self, new: &NewRecord<'_>) -> Result<u64> {
        self.usable()?;
        new.check()?;
        if self.sealed || self.written + self.gathered.len() as u64 >= self.options.segment_max_bytes {
            self.rotate()?;
        }
        if self.unsigned && self.last_checkpoint.elapsed() >= self.options.checkpoint_every {
            self.checkpoint()?;
        }
        if self.gathered.len() >= FLUSH_AT {
            self.flush()?;
        }
        let mut time = if new.time_ns == 0 { now() } else { new.time_ns };
        if time < self.last_time && self.last_time - time < REORDER_NS {
            time = self.last_time;
        }
        self.chain = line::push_record(&mut self.gathered, self.last_seq + 1, time, new, self.chain);
        self.last_seq += 1;
        self.last_time = time;
        self.records += 1;
        self.unsigned = true;
        Ok(self.last_seq)
    }

    /// Writes what is gathered, without syncing: readers see it, a power cut may lose it.
    ///
    /// # Errors
    /// What the file system says; nothing is lost, and it may be tried again.
    pub fn flush(&mut self) -> Result<()> {
        self.usable()?;
        if self.gathered.is_empty() {
            return Ok(());
        }
        if let Err(e) = self.file.write_all_at(&self.gathered, self.written) {
            // Cut what arrived. Should that fail too, the next write goes over it with the same bytes.
            self.cut();
            return Err(Error::io("write", &self.path())(e));
        }
        self.written += self.gathered.len() as u64;
        self.gathered.clear();
        if self.written > self.length {
            self.make_room();
        }
        Ok(())
    }

    /// Writes zeros behind the lines. Where the disk has no room for them there are none, and lines make the file longer as they come.
    fn make_room(&mut self) {
        self.length = self.written;
        let most = self.options.segment_max_bytes.saturating_sub(self.written);
        let room = usize::try_from(self.options.room_bytes.min(most)).unwrap_or(0).min(MAX_ROOM);
        if room == 0 || self.sealed {
            return;
        }
        if self.file.write_all_at(&vec![0; room], self.written).is_ok() {
            self.length += room as u64;
        } else {
            self.cut();
        }
    }

    /// Cuts off what a failed write left. What stays nevertheless is known, so that it is cut before the segment is closed.
    fn cut(&mut self) {
        self.length = match self.file.set_len(self.written) {
            Ok(()) => self.written,
            Err(_) => self.file.metadata().map_or(u64::MAX, |file| file.len()),
        };
    }

    /// Cuts the room off: a segment that is closed is its lines and nothing else.
    fn cut_room(&mut self) -> Result<()> {
        if self.length > self.written {
            self.file.set_len(self.written).map_err(Error::io("truncate", &self.path()))?;
            self.length = self.written;
        }
        Ok(())
    }

    /// Makes every appended record durable and answers the last one's number.
    ///
    /// # Errors
    /// As [`Self::flush`]. When the sync itself fails the writer must be opened again: the kernel may have
    /// dropped the pages, so that a second try would succeed without having written them.
    pub fn sync(&mut self) -> Result<u64> {
        self.flush()?;
        if self.durable_seq != self.last_seq || self.head_due {
            if let Err(e) = self.file.sync_data() {
                self.poisoned = true;
                return Err(Error::io("sync", &self.path())(e));
            }
            self.durable_seq = self.last_seq;
        }
        Ok(self.durable_seq)
    }

    /// Signs the chain as it stands, makes it durable, and states it in `HEAD`. Does nothing when nothing
    /// came since the last checkpoint.
    ///
    /// # Errors
    /// As [`Self::sync`]; it may be tried again.
    pub fn checkpoint(&mut self) -> Result<()> {
        self.usable()?;
        if self.unsigned && !self.sealed {
            let mark = Mark::Checkpoint { seq: self.last_seq, hash: self.chain };
            self.chain = mark.push(&mut self.gathered, self.segment, &self.key);
            self.unsigned = false;
            self.head_due = true;
        }
        self.last_checkpoint = Instant::now();
        if self.head_due {
            self.sync()?;
            let head = Statement { segment: self.segment, seq: self.last_seq, hash: self.chain, time: now() };
            head.write(Which::Head, &self.dir, &self.key, self.options.gid)?;
            self.head_due = false;
        }
        Ok(())
    }

    /// The number of the last appended record; 0 when there is none.
    #[must_use]
    pub const fn last_seq(&self) -> u64 {
        self.last_seq
    }

    /// The number of the last record that is known to be on the disk.
    #[must_use]
    pub const fn durable_seq(&self) -> u64 {
        self.durable_seq
    }

    /// The key that verifies this log.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        self.key.public()
    }

    /// Seals the segment with a signed footer and begins the next.
    fn rotate(&mut self) -> Result<()> {
        if !self.sealed {
            let footer = Mark::Footer { records: self.records, seq: self.last_seq, hash: self.chain };
            self.chain = footer.push(&mut self.gathered, self.segment, &self.key);
            self.sealed = true;
            self.unsigned = false;
            self.head_due = true;
        }
        self.flush()?;
        // Before the sync, which the new length is a part of: when there is a next segment, this one has no room.
        self.cut_room()?;
        self.checkpoint()?;
        let header = Header {
            segment: self.segment + 1,
            first: self.last_seq + 1,
            prev: self.chain,
            time: now(),
            key: self.key.public(),
        };
        (self.file, self.written, self.chain) = segment::begin(&self.dir, &header, self.options.gid)?;
        self.length = self.written;
        self.segment += 1;
        self.records = 0;
        self.sealed = false;
        Ok(())
    }

    fn path(&self) -> PathBuf {
        segment::path(&self.dir, self.segment)
    }

    fn usable(&self) -> Result<()> {
        if self.poisoned { Err(Error::Poisoned { path: self.path() }) } else { Ok(()) }
    }
}

impl Drop for Writer {
    /// What is gathered goes out, signed; there is nobody to tell when it cannot.
    fn drop(&mut self) {
        let _ = self.checkpoint();
        let _ = self.cut_room();
    }
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer")
            .field("dir", &self.dir)
            .field("last_seq", &self.last_seq)
            .finish_non_exhaustive()
    }
}

pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_not_be_cut_is_cut_before_the_segment_is_closed() {
        let root = tempfile::tempdir().unwrap();
        let key = root.path().join("audit.key");
        let mut writer = Writer::open(&root.path().join("audit"), &key, Options::default()).unwrap();
        writer.append(&NewRecord { kind: "test", verdict: "allowed", ..NewRecord::default() }).unwrap();
        writer.flush().unwrap();
        let path = writer.path();
        let size = || fs::metadata(&path).unwrap().len();
        assert!(size() > writer.written, "there is room");
        // A file that cannot be written fails the cut as a bad disk does.
        let good = std::mem::replace(&mut writer.file, File::open(&path).unwrap());
        writer.make_room();
        assert_eq!(writer.length, size());
        writer.file = good;
        writer.cut_room().unwrap();
        assert_eq!((writer.length, size()), (writer.written, writer.written));
    }
}
