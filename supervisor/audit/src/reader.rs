//! The reader: records after a number, from a place that it remembers.
//!
//! It does not verify; it only refuses to invent. A last line without its end is left for later, since the
//! writer may be at work, and so is one that has come in part; a line that cannot be read is skipped and counted, and `verify` names it.

use std::fs::File;
use std::io::{BufReader, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::line::{self, Line, MAX_LINE};
use crate::segment::{self, Lines, Raw};
use crate::{Error, Record, Result};

const BUFFER: usize = 256 * 1024;

/// Reads a log, from any process that may read its folder.
#[derive(Debug)]
pub struct Reader {
    dir: PathBuf,
    at: Option<Place>,
    damaged: u64,
}

/// Between two lines.
#[derive(Debug)]
struct Place {
    segment: u64,
    file: File,
    offset: u64,
    /// All records up to this one are before the place.
    seq: u64,
    /// A footer was read: what follows is in the next segment.
    sealed: bool,
    /// There is a newer one: what has not come here by now does not.
    closed: bool,
}

impl Reader {
    /// Opens the log in a folder. Needs read access only.
    ///
    /// # Errors
    /// When the folder cannot be listed.
    pub fn open(dir: &Path) -> Result<Self> {
        segment::list(dir)?;
        Ok(Self { dir: dir.to_owned(), at: None, damaged: 0 })
    }

    /// At most `max` records whose number is greater than `seq`, in order. Fewer, or none, means that there
    /// are no more for now. When the oldest were pruned the first one's number shows it.
    ///
    /// # Errors
    /// What the file system says.
    pub fn read_after(&mut self, seq: u64, max: usize) -> Result<Vec<Record>> {
        let mut records = Vec::new();
        if max == 0 {
            return Ok(records);
        }
        let mut place = match self.at.take().filter(|place| place.seq == seq) {
            Some(place) => place,
            None => match self.locate(seq)? {
                Some(place) => place,
                None => return Ok(records),
            },
        };
        loop {
            self.read_segment(&mut place, seq, max, &mut records)?;
            if records.len() >= max || !self.advance(&mut place)? {
                break;
            }
        }
        self.at = Some(place);
        Ok(records)
    }

    /// The number of the newest record that can be read; 0 when there is none.
    ///
    /// # Errors
    /// What the file system says.
    pub fn last_seq(&mut self) -> Result<u64> {
        let Some(&newest) = segment::list(&self.dir)?.last() else { return Ok(0) };
        let path = segment::path(&self.dir, newest);
        let file = File::open(&path).map_err(Error::io("open", &path))?;
        let end = file.metadata().map_err(Error::io("read", &path))?.len();
        // The last records are within one longest line of the end; an older line is found by going back.
        let mut window = MAX_LINE as u64;
        loop {
            let from = end.saturating_sub(window);
            let mut last = None;
            let mut lines = self.lines_from(&file, &path, from)?;
            while let Some(raw) = lines.next().map_err(Error::io("read", &path))? {
                if let Raw::Whole(text) = raw {
                    last = line::peek_seq(text).or(last);
                }
            }
            if let Some(seq) = last {
                return Ok(seq);
            }
            if from == 0 {
                let first = segment::header(&self.dir, newest)?.map_or(1, |(header, _)| header.first);
                return Ok(first.saturating_sub(1));
            }
            window *= 2;
        }
    }

    /// The number of the oldest record that is kept.
    ///
    /// # Errors
    /// What the file system says.
    pub fn first_seq(&self) -> Result<u64> {
        for number in segment::list(&self.dir)? {
            if let Some((header, _)) = segment::header(&self.dir, number)? {
                return Ok(header.first);
            }
        }
        Ok(1)
    }

    /// How many lines could not be read so far.
    #[must_use]
    pub const fn damaged(&self) -> u64 {
        self.damaged
    }

    fn read_segment(
        &mut self,
        place: &mut Place,
        after: u64,
        max: usize,
        out: &mut Vec<Record>,
    ) -> Result<()> {
        let path = segment::path(&self.dir, place.segment);
        let mut input = BufReader::with_capacity(BUFFER, &place.file);
        input.seek(SeekFrom::Start(place.offset)).map_err(Error::io("read", &path))?;
        let mut lines = Lines::new(input, place.offset);
        while out.len() < max && !place.sealed {
            let text = match lines.next().map_err(Error::io("read", &path))? {
                None | Some(Raw::Torn(_)) => break,
                Some(Raw::Nul { .. }) if !place.closed => break,
                Some(Raw::TooLong | Raw::Nul { .. }) => {
                    self.damaged += 1;
                    place.offset = lines.offset;
                    continue;
                }
                Some(Raw::Whole(text)) => text,
            };
            match line::parse(text) {
                Some(Line::Record { record, claimed, .. }) => {
                    if record.seq > after {
                        place.seq = record.seq;
                        out.push(record.into_record(claimed));
                    }
                }
                Some(Line::Mark { mark: line::Mark::Footer { .. }, .. }) => place.sealed = true,
                Some(Line::Mark { .. } | Line::Header { .. }) => {}
                None => self.damaged += 1,
            }
            place.offset = lines.offset;
        }
        Ok(())
    }

    /// Moves to the next segment, when there is one. A segment without a footer is left only for a newer
    /// one: its writer found it damaged.
    fn advance(&self, place: &mut Place) -> Result<bool> {
        let Some(next) = segment::list(&self.dir)?.into_iter().find(|&n| n > place.segment) else {
            return Ok(false);
        };
        let path = segment::path(&self.dir, next);
        let file = File::open(&path).map_err(Error::io("open", &path))?;
        if !place.sealed {
            // The newer one may have come after the last read of this one: read its rest first.
            let length = place.file.metadata().map_err(Error::io("read", &path))?.len();
            let mut lines = self.lines_at(&place.file, &path, place.offset)?;
            lines.next().map_err(Error::io("read", &path))?;
            // A line's end was found.
            let more = lines.offset > place.offset;
            if more && length > place.offset {
                place.closed = true;
                return Ok(true);
            }
        }
        *place = Place { segment: next, file, offset: 0, seq: place.seq, sealed: false, closed: false };
        Ok(true)
    }

    /// The place after record `seq`: the newest segment that begins at or before the next one, then a
    /// binary search over its bytes.
    fn locate(&self, seq: u64) -> Result<Option<Place>> {
        let numbers = segment::list(&self.dir)?;
        let (mut low, mut high) = (0, numbers.len());
        // The invariant: segments before `low` begin at or before `seq + 1`, those from `high` on do not.
        while low < high {
            let middle = low.midpoint(high);
            let Some(&number) = numbers.get(middle) else { break };
            let begins = segment::header(&self.dir, number)?.map_or(0, |(header, _)| header.first);
            if begins <= seq.saturating_add(1) { low = middle + 1 } else { high = middle }
        }
        let Some(&number) = numbers.get(low.saturating_sub(1)) else { return Ok(None) };
        let path = segment::path(&self.dir, number);
        let file = File::open(&path).map_err(Error::io("open", &path))?;
        let offset = self.offset_after(&file, &path, seq)?;
        Ok(Some(Place { segment: number, file, offset, seq, sealed: false, closed: false }))
    }

    /// An offset in a segment, at the beginning of a line, at or before the record after `seq`.
    fn offset_after(&self, file: &File, path: &Path, seq: u64) -> Result<u64> {
        let (mut low, mut high) = (0, file.metadata().map_err(Error::io("read", path))?.len());
        // All records before `low` are at most `seq`. Near enough, reading on costs less than seeking.
        while high - low > BUFFER as u64 {
            let middle = low.midpoint(high);
            let mut lines = self.lines_from(file, path, middle)?;
            let mut found = None;
            loop {
                let begin = lines.offset;
                match lines.next().map_err(Error::io("read", path))? {
                    Some(Raw::Whole(text)) => {
                        if let Some(at) = line::peek_seq(text) {
                            found = Some((begin, at));
                            break;
                        }
                    }
                    Some(Raw::TooLong | Raw::Nul { .. }) => {}
                    Some(Raw::Torn(_)) | None => break,
                }
            }
            match found {
                Some((begin, at)) if at <= seq && begin > low => low = begin,
                _ => high = middle,
            }
        }
        Ok(low)
    }

    fn lines_at<'f>(&self, file: &'f File, path: &Path, offset: u64) -> Result<Lines<BufReader<&'f File>>> {
        let mut input = BufReader::with_capacity(16 * 1024, file);
        input.seek(SeekFrom::Start(offset)).map_err(Error::io("read", path))?;
        Ok(Lines::new(input, offset))
    }

    /// As [`Self::lines_at`], from the first line that begins after `offset`.
    fn lines_from<'f>(&self, file: &'f File, path: &Path, offset: u64) -> Result<Lines<BufReader<&'f File>>> {
        let mut lines = self.lines_at(file, path, offset.saturating_sub(1))?;
        if offset > 0 {
            lines.next().map_err(Error::io("read", path))?;
        }
        Ok(lines)
    }
}
