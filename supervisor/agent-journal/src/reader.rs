//! The reading end: follows a journal from a cursor while it is being written.
//!
//! A record that is not complete is not there yet. When the writer has moved the head past the cursor, the
//! reader says how many bytes are gone and goes on at the head.

use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::Error;
use crate::format::{Decoded, HEADER_LEN, Kind, MAGIC, MAX_PAYLOAD, RECORD_HEADER_LEN, Record, RecordHeader};

/// What a reader finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A record.
    Record(Record),
    /// The writer dropped records before they were read.
    Lost {
        /// How many bytes of the file, record headers included.
        bytes: u64,
        /// Where reading goes on.
        cursor: u64,
    },
}

/// Reads records from a cursor on.
#[derive(Debug)]
pub struct Reader {
    file: File,
    cursor: u64,
    /// Bytes of the file from `cursor` on that were read ahead, `start..` of the buffer.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Reader {
    /// Opens the journal in `file` at a cursor; 0 is the oldest record.
    ///
    /// # Errors
    /// [`Error::NotAJournal`] (also when it is still empty), or the file cannot be read.
    pub fn open(file: File, cursor: u64) -> Result<Self, Error> {
        let head = read_head(&file)?;
        let cursor = if cursor == 0 { head } else { cursor.max(HEADER_LEN) };
        Ok(Self { file, cursor, buffer: Vec::new(), start: 0, end: 0 })
    }

    /// Where the next record is: a cursor to resume at.
    #[must_use]
    pub fn cursor(&self) -> u64 {
        self.cursor
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The next record, or `None` when there is no further one yet.
    ///
    /// # Errors
    /// The file cannot be read, or holds no record at the cursor.
    #[expect(clippy::should_implement_trait, reason = "an iterator ends for good, a journal goes on")]
    pub fn next(&mut self) -> Result<Option<Item>, Error> {
        if let Some(record) = self.take_buffered() {
            return Ok(Some(Item::Record(record)));
        }
        if self.buffer.is_empty() {
            self.buffer.resize(RECORD_HEADER_LEN + MAX_PAYLOAD, 0);
        }
        loop {
            (self.start, self.end) = (0, 0);
            let got = read_up_to(&self.file, &mut self.buffer, self.cursor)?;
            // The head is read after the bytes: if it is still behind them, they were whole.
            if let Some(lost) = self.behind()? {
                return Ok(Some(lost));
            }
            self.end = got;
            if let Some(record) = self.take_buffered() {
                return Ok(Some(Item::Record(record)));
            }
            match self.peek() {
                Some(Decoded::Bad) => return Err(Error::Corrupt { cursor: self.cursor }),
                // Records of other versions were passed over; what follows them may not have been read whole.
                _ if self.start > 0 => {}
                _ => return Ok(None),
            }
        }
    }

    /// The next record that is not output, reading only the headers of those that are.
    ///
    /// # Errors
    /// As [`Reader::next`].
    pub fn next_event(&mut self) -> Result<Option<Item>, Error> {
        loop {
            (self.start, self.end) = (0, 0);
            let mut bytes = [0; RECORD_HEADER_LEN + 16];
            let got = read_up_to(&self.file, &mut bytes, self.cursor)?;
            let len = self.file.metadata().map_err(Error::io("read its size"))?.len();
            if let Some(lost) = self.behind()? {
                return Ok(Some(lost));
            }
            let Some(first) = bytes[..got].first_chunk() else { return Ok(None) };
            let header = match RecordHeader::decode(first) {
                Decoded::Header(h) => h,
                Decoded::Foreign(record) if self.cursor + record <= len => {
                    self.cursor += record;
                    continue;
                }
                Decoded::Foreign(_) => return Ok(None),
                Decoded::Zero => return Ok(None),
                Decoded::Bad => return Err(Error::Corrupt { cursor: self.cursor }),
            };
            if self.cursor + header.record_len() > len {
                return Ok(None);
            }
            if header.kind.is_output() {
                self.cursor += header.record_len();
                continue;
            }
            return self.next();
        }
    }

    /// Moves to the end of what is there now, so that only later records are found.
    ///
    /// # Errors
    /// The file cannot be read, or holds no record at the cursor.
    pub fn skip_to_end(&mut self) -> Result<(), Error> {
        while let Some(item) = self.next_event()? {
            if let Item::Lost { cursor, .. } = item {
                self.cursor = cursor;
            }
        }
        Ok(())
    }

    fn behind(&mut self) -> Result<Option<Item>, Error> {
        let head = read_head(&self.file)?;
        if self.cursor >= head {
            return Ok(None);
        }
        let bytes = head - self.cursor;
        self.cursor = head;
        Ok(Some(Item::Lost { bytes, cursor: head }))
    }

    fn peek(&self) -> Option<Decoded> {
        self.buffer.get(self.start..self.end)?.first_chunk().map(RecordHeader::decode)
    }

    fn take_buffered(&mut self) -> Option<Record> {
        let h = loop {
            match self.peek()? {
                Decoded::Header(h) => break h,
                Decoded::Foreign(record) => {
                    let to = self.start + usize::try_from(record).ok()?;
                    if to > self.end {
                        return None;
                    }
                    self.start = to;
                    self.cursor += record;
                }
                Decoded::Zero | Decoded::Bad => return None,
            }
        };
        let from = self.start + RECORD_HEADER_LEN;
        let to = from + h.len as usize;
        if to > self.end {
            return None;
        }
        let payload = self.buffer[from..to].to_vec();
        let record =
            Record { cursor: self.cursor, kind: h.kind, flags: h.flags, time_ns: h.time_ns, payload };
        self.start = to;
        self.cursor += h.record_len();
        Some(record)
    }
}

impl Reader {
    /// Reads to the end and gives the exit of the last incarnation, when there is one: for a launcher that was
    /// away when it was written.
    ///
    /// # Errors
    /// As [`Reader::next`].
    pub fn last_exit(&mut self) -> Result<Option<Record>, Error> {
        let mut exit = None;
        while let Some(item) = self.next_event()? {
            if let Item::Record(record) = item {
                match record.kind {
                    Kind::Start => exit = None,
                    Kind::Exit => exit = Some(record),
                    _ => {}
                }
            }
        }
        Ok(exit)
    }
}

pub(crate) fn read_head(file: &File) -> Result<u64, Error> {
    let mut bytes = [0; 16];
    match file.read_exact_at(&mut bytes, 0) {
        Ok(()) => {}
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Err(Error::NotAJournal),
        Err(e) => return Err(Error::io("read its header")(e)),
    }
    let [m0, m1, m2, m3, m4, m5, m6, m7, head @ ..] = bytes;
    let head = u64::from_le_bytes(head);
    if [m0, m1, m2, m3, m4, m5, m6, m7] != MAGIC || head < HEADER_LEN {
        return Err(Error::NotAJournal);
    }
    Ok(head)
}

fn read_up_to(file: &File, buffer: &mut [u8], at: u64) -> Result<usize, Error> {
    let mut got = 0;
    while got < buffer.len() {
        match file.read_at(&mut buffer[got..], at + got as u64) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Error::io("read a record")(e)),
        }
    }
    Ok(got)
}
