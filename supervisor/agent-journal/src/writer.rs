//! The writing end. One per journal; `aion-init` is the only one that makes it.
//!
//! A record is one `pwrite` at the tail, so that a crash leaves at most one torn record. Space for the next
//! records is reserved ahead: the exit record finds room on a full disk. A failed append changes
//! nothing and can be repeated.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::format::{
    Decoded, Exit, HEADER_LEN, Kind, MAGIC, MAX_PAYLOAD, RECORD_HEADER_LEN, RecordHeader, Start,
};
use crate::space::{Space, tolerate_unsupported};
use crate::{Error, reader};

/// Room that stays ours behind the tail, for the exit and the last counts of denied calls.
const LAST_WORDS: u64 = 256;
/// No file system has smaller blocks, and the block that the tail is in is ours already.
const BLOCK: u64 = 512;
/// What is reserved at a time once output comes.
const CHUNK: u64 = 256 * 1024;
/// The smallest limit: below it, moving the head would be most of the work.
const MIN_LIMIT: u64 = 256 * 1024;

/// Appends records and keeps the file below its limit.
pub struct Writer<S> {
    file: File,
    space: S,
    head: u64,
    tail: u64,
    /// Blocks up to here are ours.
    reserved: u64,
    /// Whether some were reserved that are to be given back.
    asked: bool,
    limit: u64,
    /// One record: its header, then room for the longest payload.
    buffer: Vec<u8>,
}

impl<S> std::fmt::Debug for Writer<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("head", &self.head).field("tail", &self.tail).finish_non_exhaustive()
    }
}

impl<S: Space> Writer<S> {
    /// Opens the journal in `file`, or begins one when it is empty, and appends a start record. A torn record
    /// at the end is cut off. `limit` is in bytes, 0 for none.
    ///
    /// # Errors
    /// [`Error::NotAJournal`], or the file cannot be read or written.
    pub fn open(file: File, space: S, limit: u64, incarnation: u32, time_ns: u64) -> Result<Self, Error> {
        let len = file.metadata().map_err(Error::io("read its size"))?.len();
        let limit = if limit == 0 { u64::MAX } else { limit.max(MIN_LIMIT) };
        let mut buffer = vec![0; RECORD_HEADER_LEN + MAX_PAYLOAD];
        if len == 0 {
            let tail = begin(&file, &mut buffer, incarnation, time_ns)?;
            let mut new =
                Self { file, space, head: HEADER_LEN, tail, reserved: 0, asked: false, limit, buffer };
            new.reserve_for(0)?;
            return Ok(new);
        }
        let head = reader::read_head(&file)?;
        let tail = find_tail(&file, head, len)?;
        if tail < len {
            file.set_len(tail).map_err(Error::io("cut off a torn record"))?;
        }
        let mut new = Self { file, space, head, tail, reserved: 0, asked: false, limit, buffer };
        new.append(Kind::Start, 0, time_ns, &Start { incarnation }.encode())?;
        Ok(new)
    }

    /// Where the next record will begin.
    pub fn tail(&self) -> u64 {
        self.tail
    }

    /// Where the oldest kept record begins.
    pub fn head(&self) -> u64 {
        self.head
    }

    /// Waits until all records are on the disk.
    ///
    /// # Errors
    /// As the file system says.
    pub fn sync(&self) -> Result<(), Error> {
        self.file.sync_data().map_err(Error::io("sync it"))
    }

    /// The payload of the next record, to be filled in place and then [committed](Self::commit).
    pub fn payload_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[RECORD_HEADER_LEN..]
    }

    /// Appends a record.
    ///
    /// # Errors
    /// As [`Writer::commit`].
    pub fn append(&mut self, kind: Kind, flags: u8, time_ns: u64, payload: &[u8]) -> Result<(), Error> {
        let Some(room) = self.payload_mut().get_mut(..payload.len()) else {
            return Err(Error::TooLong { len: payload.len() });
        };
        room.copy_from_slice(payload);
        self.commit(kind, flags, time_ns, payload.len())
    }

    /// Appends a record whose payload is the first `len` bytes of [`Writer::payload_mut`]. After a failure
    /// they are still there, and the same commit can be tried again.
    ///
    /// # Errors
    /// The disk is full ([`Error::is_disk_full`]), or another failure of the file system.
    pub fn commit(&mut self, kind: Kind, flags: u8, time_ns: u64, len: usize) -> Result<(), Error> {
        let short = u32::try_from(len).map_err(|_| Error::TooLong { len })?;
        if len > MAX_PAYLOAD {
            return Err(Error::TooLong { len });
        }
        self.make_room(len as u64)?;
        self.reserve_for((RECORD_HEADER_LEN + len) as u64)?;
        self.write(RecordHeader { len: short, kind, flags, time_ns }, len)
    }

    /// Appends the exit, for which room is kept, and gives unused space back.
    ///
    /// # Errors
    /// As the file system says; a full disk is not among them where it can reserve space.
    pub fn finish(mut self, exit: Exit, time_ns: u64) -> Result<(), Error> {
        let bytes = exit.encode();
        self.buffer[RECORD_HEADER_LEN..RECORD_HEADER_LEN + bytes.len()].copy_from_slice(&bytes);
        let header = RecordHeader { len: 2, kind: Kind::Exit, flags: 0, time_ns };
        // A failed append may have left a part of a record behind the tail.
        let result = match self.write(header, bytes.len()) {
            Err(_) => {
                self.file.set_len(self.tail).map_err(Error::io("cut off a torn record"))?;
                self.write(header, bytes.len())
            }
            ok => ok,
        };
        if self.asked {
            self.file.set_len(self.tail).map_err(Error::io("give space back"))?;
        }
        result
    }

    fn write(&mut self, header: RecordHeader, len: usize) -> Result<(), Error> {
        self.buffer[..RECORD_HEADER_LEN].copy_from_slice(&header.encode());
        let record = &self.buffer[..RECORD_HEADER_LEN + len];
        if let Err(e) = self.file.write_all_at(record, self.tail) {
            // A part of it may be there.
            self.asked = true;
            return Err(Error::io("append a record")(e));
        }
        self.tail += record.len() as u64;
        Ok(())
    }

    /// Has blocks for a record and for the last words behind it.
    fn reserve_for(&mut self, record: u64) -> Result<(), Error> {
        let need = self.tail + record + LAST_WORDS;
        self.reserved = self.reserved.max(self.tail.next_multiple_of(BLOCK));
        if need <= self.reserved {
            return Ok(());
        }
        self.asked = true;
        let from = self.reserved;
        let mut upto = if record == 0 { need } else { need.max(from + CHUNK) };
        let mut result = tolerate_unsupported(self.space.reserve(&self.file, from, upto - from));
        if result.is_err() && upto > need {
            upto = need;
            result = tolerate_unsupported(self.space.reserve(&self.file, from, upto - from));
        }
        result.map_err(Error::io("reserve space"))?;
        self.reserved = upto;
        Ok(())
    }

    /// Moves the head when the next record would pass the limit. An eighth of the limit goes at a time, so
    /// that a steady stream does not pay for each record.
    fn make_room(&mut self, len: u64) -> Result<(), Error> {
        let record = RECORD_HEADER_LEN as u64 + len;
        let held = (self.tail - self.head).saturating_add(record);
        if held <= self.limit {
            return Ok(());
        }
        // A record can be longer than an eighth.
        let kept = self.limit.saturating_sub(record.max(self.limit / 8));
        let target = self.tail - kept.min(self.tail - self.head);
        let mut head = self.head;
        while head < target.min(self.tail) {
            match read_header(&self.file, head)? {
                Decoded::Header(h) => head += h.record_len(),
                Decoded::Foreign(len) => head += len,
                _ => return Err(Error::Corrupt { cursor: head }),
            }
        }
        // The head moves first: a reader that then sees zeros looks at the head again.
        self.file.write_all_at(&head.to_le_bytes(), 8).map_err(Error::io("move the head"))?;
        let punched = self.space.punch(&self.file, HEADER_LEN, head - HEADER_LEN);
        self.head = head;
        tolerate_unsupported(punched).map_err(Error::io("give space back"))
    }
}

/// Writes the file header and the first record at once.
fn begin(file: &File, buffer: &mut [u8], incarnation: u32, time_ns: u64) -> Result<u64, Error> {
    let payload = Start { incarnation }.encode();
    let header = RecordHeader { len: 4, kind: Kind::Start, flags: 0, time_ns };
    let mut at = 0;
    let mut put = |bytes: &[u8]| {
        buffer[at..at + bytes.len()].copy_from_slice(bytes);
        at += bytes.len();
    };
    put(&MAGIC);
    put(&HEADER_LEN.to_le_bytes());
    put(&[0; 4080]);
    put(&header.encode());
    put(&payload);
    file.write_all_at(&buffer[..at], 0).map_err(Error::io("begin it"))?;
    Ok(at as u64)
}

pub(crate) fn read_header(file: &File, at: u64) -> Result<Decoded, Error> {
    let mut bytes = [0; RECORD_HEADER_LEN];
    match file.read_exact_at(&mut bytes, at) {
        Ok(()) => Ok(RecordHeader::decode(&bytes)),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(Decoded::Zero),
        Err(e) => Err(Error::io("read a record")(e)),
    }
}

/// The end of the last whole record.
fn find_tail(file: &File, head: u64, len: u64) -> Result<u64, Error> {
    let mut at = head;
    while at < len {
        match read_header(file, at)? {
            Decoded::Header(h) if at + h.record_len() <= len => at += h.record_len(),
            Decoded::Foreign(record) if at + record <= len => at += record,
            _ => break,
        }
    }
    Ok(at)
}
