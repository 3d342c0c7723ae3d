//! The verifier: follows the chain from the first kept line to `HEAD` and names every place that is wrong.
//!
//! It trusts the public key and nothing else. After a fault it picks the chain up again from what the lines
//! claim, so that one change is told once and a second one further on is still found.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use crate::key::PublicKey;
use crate::line::{self, Header, Line, Mark};
use crate::segment::{self, Lines, Raw};
use crate::statement::{Found, Statement, Which};
use crate::{Error, Hash, Result};

const CHANGED: &str = "the line was changed: it is no record, checkpoint or footer";
/// Beyond this many the rest says nothing new.
const MAX_FAULTS: usize = 64;

/// A place where the log is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The file's name.
    pub segment: String,
    /// The record at which it shows.
    pub seq: u64,
    /// What is wrong there.
    pub what: String,
}

/// What somebody outside noted earlier: the chain's value at a record. A log that was set back as a whole,
/// `HEAD` included, shows only against such a note.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Anchor {
    /// The record.
    pub seq: u64,
    /// Its hash.
    pub hash: Hash,
}

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// No fault.
    pub ok: bool,
    /// How many records were checked.
    pub records: u64,
    /// How many segments were checked.
    pub segments: u64,
    /// The first record that is kept. Greater than 1: older ones were pruned, and a signed statement says so.
    pub first_seq: u64,
    /// The last record, and its hash: what an [`Anchor`] for later is made of.
    pub last: Option<Anchor>,
    /// The key that was checked against.
    pub public_key: Option<PublicKey>,
    /// The first comes first.
    pub faults: Vec<Fault>,
    /// What is worth knowing and no fault: recoveries after a crash, a line that is being written.
    pub notes: Vec<String>,
}

/// Verifies the log in a folder. Without a key it believes `key.pub`, which shows accidents and clumsy changes,
/// but not somebody who can replace that file too. May run while the writer appends.
///
/// # Errors
/// What the file system says. A log that is wrong is no error: see [`Report::faults`].
pub fn verify(dir: &Path, key: Option<PublicKey>) -> Result<Report> {
    verify_against(dir, key, &[])
}

/// As [`verify`], and the log must contain these records with these hashes.
///
/// # Errors
/// As [`verify`].
pub fn verify_against(dir: &Path, key: Option<PublicKey>, anchors: &[Anchor]) -> Result<Report> {
    let mut tries = 3;
    loop {
        let before = std::fs::read(dir.join(Which::Base.file())).ok();
        let outcome = Walk::run(dir, key, anchors);
        tries -= 1;
        // The writer pruned meanwhile: look again from the new beginning.
        let changed = std::fs::read(dir.join(Which::Base.file())).ok() != before;
        let clean = outcome.as_ref().is_ok_and(|report| report.ok);
        if clean || !changed || tries == 0 {
            return outcome;
        }
    }
}

struct Walk<'a> {
    key: PublicKey,
    anchors: &'a [Anchor],
    head: Option<Statement>,
    head_reached: bool,
    report: Report,
    /// What the next line's link may stand on; empty when a line was unreadable.
    chain: Vec<Hash>,
    /// The number that the next record must have.
    next: u64,
    /// Unreadable lines since the last record: so many numbers may be missing without a further fault.
    unread: u64,
}

impl<'a> Walk<'a> {
    fn run(dir: &Path, key: Option<PublicKey>, anchors: &'a [Anchor]) -> Result<Report> {
        let mut report = Report {
            ok: false,
            records: 0,
            segments: 0,
            first_seq: 1,
            last: None,
            public_key: None,
            faults: Vec::new(),
            notes: Vec::new(),
        };
        let key_text = std::fs::read_to_string(dir.join("key.pub")).unwrap_or_default();
        let published: Option<PublicKey> = key_text.strip_suffix('\n').and_then(|text| text.parse().ok());
        let mut fault = |segment: &str, what: &str| {
            report.faults.push(Fault { segment: segment.to_owned(), seq: 0, what: what.to_owned() });
        };
        if published.is_none_or(|k| k.to_string() != key_text.trim_end()) {
            fault("key.pub", "it is missing or not a key");
        } else if key.is_some() && key != published {
            fault("key.pub", "it is not the key that was given");
        }
        let Some(key) = key.or(published) else { return Ok(report) };
        report.public_key = Some(key);

        // HEAD first: whatever the writer adds from here on comes after what it states.
        let mut statement = |which: Which| {
            let found = Statement::read(which, dir, &key)?;
            if found == Found::Forged {
                let what = "it was changed, or is not signed with the log's key".to_owned();
                report.faults.push(Fault { segment: which.file().to_owned(), seq: 0, what });
            }
            Ok::<_, Error>(found)
        };
        let head = statement(Which::Head)?;
        let base = statement(Which::Base)?;
        if head == Found::Missing {
            let what = "it is missing, so nothing says where the log ends".to_owned();
            report.faults.push(Fault { segment: Which::Head.file().to_owned(), seq: 0, what });
        }
        let valid = |found| if let Found::Valid(statement) = found { Some(statement) } else { None };
        let base = valid(base);
        report.first_seq = base.map_or(1, |base| base.seq);
        let mut walk = Walk {
            key,
            anchors,
            head: valid(head),
            head_reached: false,
            chain: vec![base.map_or(Hash::ZERO, |base| base.hash)],
            next: report.first_seq,
            unread: 0,
            report,
        };
        walk.segments(dir, base.map_or(1, |base| base.segment))?;
        walk.ends();
        walk.report.ok = walk.report.faults.is_empty();
        Ok(walk.report)
    }

    fn segments(&mut self, dir: &Path, first: u64) -> Result<()> {
        let mut expected = first;
        let mut numbers = segment::list(dir)?;
        if numbers.first() == Some(&0) {
            self.fault(0, 0, "no segment has this number");
        }
        numbers.retain(|&number| number >= first);
        let newest = numbers.last().copied();
        for number in numbers {
            if number != expected {
                let what = match number - expected {
                    1 => "the segment is missing".to_owned(),
                    n => format!("{n} segments are missing from here on"),
                };
                self.fault(expected, self.next, &what);
                self.chain.clear();
            }
            self.segment(dir, number, newest == Some(number))?;
            self.report.segments += 1;
            expected = number + 1;
        }
        Ok(())
    }

    fn segment(&mut self, dir: &Path, number: u64, is_newest: bool) -> Result<()> {
        let path = segment::path(dir, number);
        let file = File::open(&path).map_err(Error::io("open", &path))?;
        let mut lines = Lines::new(BufReader::with_capacity(1 << 18, file), 0);
        let (mut at, mut records, mut sealed) = (0_u64, 0_u64, false);
        while let Some(raw) = lines.next().map_err(Error::io("read", &path))? {
            let text = match raw {
                Raw::Whole(text) => text,
                Raw::TooLong => &[],
                Raw::Torn(bytes) if is_newest && !sealed && at > 0 => {
                    self.report.notes.push(format!(
                        "{}: the last line has no end yet ({bytes} bytes): it is being written, or a crash cut it",
                        segment::name(number)
                    ));
                    break;
                }
                // What HEAD states was on the disk as a whole; what comes after it may be there in part.
                Raw::Nul { is_last } if at > 0 && (is_last || is_newest && self.is_past_head()) => {
                    match lines.rest().map_err(Error::io("read", &path))? {
                        0 if is_newest || !sealed => {}
                        bytes if is_newest && !sealed => self.report.notes.push(format!(
                            "{}: the last {bytes} bytes are not whole: they are being written, or a crash cut them",
                            segment::name(number)
                        )),
                        _ if sealed => self.fault(number, self.next, "something stands after the footer"),
                        _ => self.fault(number, self.next, CHANGED),
                    }
                    break;
                }
                Raw::Torn(_) | Raw::Nul { .. } => &[],
            };
            at += 1;
            if sealed {
                self.fault(number, self.next, "a line stands after the footer");
                continue;
            }
            match line::parse(text) {
                Some(Line::Header { header, covered, claimed }) if at == 1 => {
                    self.header(number, &header, covered, claimed);
                }
                Some(Line::Record { record, covered, claimed }) if at > 1 => {
                    records += 1;
                    self.record(number, record, covered, claimed);
                }
                Some(Line::Mark { mark, signature }) if at > 1 => {
                    sealed = matches!(mark, Mark::Footer { .. });
                    self.mark(number, mark, signature, text, records);
                }
                _ if at == 1 => {
                    self.fault(number, self.next, "the header was changed or removed");
                    self.chain.clear();
                }
                _ => {
                    self.fault(number, self.next, CHANGED);
                    self.chain.clear();
                    self.unread += 1;
                }
            }
            self.look_for_head(number);
        }
        if at == 0 {
            self.fault(number, self.next, "the segment is empty");
            self.chain.clear();
        }
        if !sealed && !is_newest {
            self.fault(
                number,
                self.next,
                "the footer is missing: lines were cut off, or the segment was left damaged",
            );
        }
        Ok(())
    }

    fn header(&mut self, number: u64, header: &Header, covered: &[u8], claimed: Hash) {
        if header.key != self.key {
            self.fault(number, self.next, "the segment was written with another key");
        }
        if header.segment != number {
            self.fault(number, self.next, &format!("the file holds segment {}", header.segment));
        }
        if header.prev.then(covered) != claimed {
            self.fault(number, self.next, "the header was changed");
        } else if !self.chain.is_empty() && !self.chain.contains(&header.prev) {
            self.fault(number, self.next, "the segment does not continue the one before it");
        }
        if header.first != self.next && !self.chain.is_empty() {
            self.fault(number, self.next, &format!("the segment begins with record {}", header.first));
        }
        self.next = self.next.max(header.first);
        self.unread = 0;
        self.chain = vec![claimed];
    }

    fn record(&mut self, number: u64, record: line::RecordLine<'_>, covered: &[u8], claimed: Hash) {
        self.report.records += 1;
        let seq = record.seq;
        if seq < self.next {
            self.fault(number, seq, "the record is out of its place: it was added, doubled or moved");
            self.chain.push(claimed);
            return;
        }
        if seq > self.next.saturating_add(self.unread) {
            let what = if seq == self.next + 1 {
                "the record is missing: it was removed or moved".to_owned()
            } else {
                format!("records {} to {} are missing: they were removed or moved", self.next, seq - 1)
            };
            self.fault(number, self.next, &what);
            self.chain = vec![claimed];
        } else if self.chain.is_empty() || self.chain.iter().any(|link| link.then(covered) == claimed) {
            self.chain = vec![claimed];
        } else {
            self.fault(
                number,
                seq,
                "the record does not continue the chain: it was changed, or a line before it removed",
            );
            self.chain = self.chain.iter().map(|link| link.then(covered)).chain([claimed]).collect();
        }
        self.next = seq.saturating_add(1);
        self.unread = 0;
        self.report.last = Some(Anchor { seq, hash: claimed });
        for anchor in self.anchors.iter().filter(|a| a.seq == seq && a.hash != claimed) {
            self.report.faults.push(Fault {
                segment: segment::name(number),
                seq,
                what: format!("the record is not the one that was noted: its hash was {}", anchor.hash),
            });
        }
        let record = record.into_record(claimed);
        if record.kind == "audit.recovered" {
            self.report.notes.push(format!("record {seq}: the log was recovered: {}", record.detail_json));
        }
    }

    fn mark(&mut self, number: u64, mark: Mark, signature: &str, text: &[u8], records: u64) {
        let (Mark::Checkpoint { seq, hash } | Mark::Footer { seq, hash, .. }) = mark;
        let what = if matches!(mark, Mark::Footer { .. }) { "footer" } else { "checkpoint" };
        if !mark.is_signed_by(number, &self.key, signature) {
            self.fault(number, seq, &format!("the {what}'s signature is not the log's"));
            self.chain.clear();
            return;
        }
        if seq.saturating_add(1) != self.next && self.unread == 0 {
            self.fault(
                number,
                self.next,
                &format!("the {what} of record {seq} stands here: records are missing or moved"),
            );
        } else if !self.chain.is_empty() && !self.chain.contains(&hash) {
            self.fault(
                number,
                seq,
                &format!("the {what} signs another chain: records before it were changed"),
            );
        }
        if let Mark::Footer { records: stated, .. } = mark
            && stated != records
            && self.unread == 0
        {
            self.fault(number, seq, &format!("the footer states {stated} records, there are {records}"));
        }
        self.chain = vec![mark.chain_after(text)];
    }

    fn look_for_head(&mut self, number: u64) {
        if let Some(head) = self.head
            && head.segment == number
            && head.seq.saturating_add(1) == self.next
            && self.chain.contains(&head.hash)
        {
            self.head_reached = true;
        }
    }

    /// Whether all was read that HEAD states.
    fn is_past_head(&self) -> bool {
        self.head.is_none() || self.head_reached
    }

    /// What shows only once everything was read.
    fn ends(&mut self) {
        if let Some(head) = self.head.filter(|_| !self.head_reached) {
            if head.seq >= self.next {
                let what =
                    format!("the log ends here, but it reached record {}: the tail was cut off", head.seq);
                self.fault(head.segment, self.next, &what);
            } else if self.report.faults.is_empty() {
                // Everything is in order and yet not what was stated: a line after the last record is gone.
                self.fault(
                    head.segment,
                    head.seq,
                    "the log is not the one that HEAD states: a line was removed",
                );
            }
        }
        for anchor in self.anchors {
            if anchor.seq >= self.next {
                self.fault(0, anchor.seq, "the record that was noted is not in the log: it was set back");
            }
        }
    }

    fn fault(&mut self, number: u64, seq: u64, what: &str) {
        if self.report.faults.len() < MAX_FAULTS {
            self.report.faults.push(Fault { segment: segment::name(number), seq, what: what.to_owned() });
        }
    }
}
