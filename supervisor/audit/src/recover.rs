//! Where a writer goes on: the end of the newest segment, checked, and what was found wrong there.
//!
//! A torn end is what a crash leaves: half a line, or, in the room that was made ahead, lines of which some blocks are zeros. It is cut
//! off. Anything else that is wrong is evidence, so are zeros in what HEAD states: the segment stays as it is, a new one continues after it,
//! and numbers that HEAD has stated are not used again.

use std::fs::{self, File, OpenOptions};
use std::io::BufReader;
use std::path::Path;

use serde_json::{Value, json};

use crate::key::PublicKey;
use crate::line::{self, Line, Mark};
use crate::origin::Origin;
use crate::segment::{self, Lines, Raw};
use crate::statement::{Found, Statement, Which};
use crate::{Error, Hash, Result};

/// Where to go on.
pub(crate) struct Start {
    pub(crate) segment: u64,
    pub(crate) state: State,
    /// The detail of `audit.recovered`.
    pub(crate) trouble: Option<Value>,
}

/// The end of the chain.
pub(crate) struct State {
    /// The segment's file and length, when it is continued; otherwise a new one begins.
    pub(crate) resume: Option<(File, u64)>,
    pub(crate) chain: Hash,
    pub(crate) seq: u64,
    pub(crate) time: u64,
    pub(crate) records: u64,
}

/// What a walk over the newest segment found.
#[derive(Default)]
struct Tail {
    chain: Option<Hash>,
    seq: u64,
    time: u64,
    records: u64,
    sealed: bool,
    /// Length up to the last whole line.
    whole: u64,
    torn: usize,
    /// There are zeros at its end.
    room: bool,
    /// The record at which the chain first broke.
    damaged: Option<u64>,
}

pub(crate) fn start(dir: &Path, key: &PublicKey, origin: Option<&Origin>) -> Result<Start> {
    if let Found::Valid(base) = Statement::read(Which::Base, dir, key)? {
        // Pruning was interrupted between its statement and the removal.
        for number in segment::list(dir)?.into_iter().filter(|&n| n < base.segment) {
            let path = segment::path(dir, number);
            fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        }
    }
    let head = Statement::read(Which::Head, dir, key)?;
    let newest = segment::list(dir)?.last().copied();
    let stated = match head {
        Found::Valid(head) => Some(head),
        Found::Missing | Found::Forged => None,
    };
    let mut trouble = serde_json::Map::new();
    if newest.is_some_and(|n| n > 1) && stated.is_none() || head == Found::Forged {
        trouble.insert("head".to_owned(), json!(if head == Found::Forged { "forged" } else { "missing" }));
    }
    let Some(newest) = newest else {
        let Some(head) = stated else {
            let (chain, seq) = origin.map_or((Hash::ZERO, 0), |origin| (origin.hash, origin.seq));
            let state = State { resume: None, chain, seq, time: 0, records: 0 };
            return Ok(Start { segment: 1, state, trouble: none_if_empty(trouble) });
        };
        trouble.insert("missing_segments_to".to_owned(), json!(head.segment));
        let state = State { resume: None, chain: head.hash, seq: head.seq, time: head.time, records: 0 };
        return Ok(Start { segment: head.segment + 1, state, trouble: none_if_empty(trouble) });
    };

    let path = segment::path(dir, newest);
    let tail = walk(dir, newest, key, stated.map_or(0, |head| head.seq))?;
    let mut state = State {
        resume: None,
        chain: tail.chain.unwrap_or(Hash::ZERO),
        seq: tail.seq,
        time: tail.time,
        records: 0,
    };
    let mut next = newest + 1;
    let removed = stated.filter(|head| head.segment > newest);
    if let Some(head) = removed {
        trouble.insert("missing_segments_to".to_owned(), json!(head.segment));
        next = head.segment + 1;
        state.chain = head.hash;
    } else if let Some(at) = tail.damaged {
        trouble.insert("damaged_at".to_owned(), json!({"segment": newest, "seq": at}));
    } else if !tail.sealed {
        let file = OpenOptions::new().read(true).write(true).open(&path).map_err(Error::io("open", &path))?;
        if tail.torn > 0 {
            trouble.insert("torn_bytes".to_owned(), json!(tail.torn));
            trouble.insert("segment".to_owned(), json!(newest));
            cut(&file, &path, tail.whole)?;
        }
        state.records = tail.records;
        state.resume = Some((file, tail.whole));
        next = newest;
    } else if tail.room {
        // The crash came between the footer and the end of the room behind it.
        let file = OpenOptions::new().write(true).open(&path).map_err(Error::io("open", &path))?;
        cut(&file, &path, tail.whole)?;
    }
    if let Some(head) = stated.filter(|head| head.seq > state.seq) {
        trouble.insert("missing_records".to_owned(), json!({"from": state.seq + 1, "to": head.seq}));
        state.seq = head.seq;
    }
    Ok(Start { segment: next, state, trouble: none_if_empty(trouble) })
}

fn none_if_empty(map: serde_json::Map<String, Value>) -> Option<Value> {
    (!map.is_empty()).then_some(Value::Object(map))
}

fn cut(file: &File, path: &Path, length: u64) -> Result<()> {
    file.set_len(length).map_err(Error::io("truncate", path))?;
    file.sync_all().map_err(Error::io("sync", path))
}

/// Follows the chain through a segment. After a break it goes on with what the lines claim, to learn the
/// last number in use. Records up to `stated` were on the disk.
fn walk(dir: &Path, number: u64, key: &PublicKey, stated: u64) -> Result<Tail> {
    let path = segment::path(dir, number);
    let mut tail = Tail::default();
    let Some((header, mut chain)) = segment::header(dir, number)?.filter(|(h, _)| h.key == *key) else {
        tail.damaged = Some(0);
        return Ok(tail);
    };
    tail.seq = header.first.saturating_sub(1);
    tail.time = header.time;
    let file = File::open(&path).map_err(Error::io("open", &path))?;
    let mut lines = Lines::new(BufReader::with_capacity(1 << 18, file), 0);
    let mut is_first = true;
    loop {
        let raw = lines.next().map_err(Error::io("read", &path))?;
        let text = match raw {
            None => break,
            Some(Raw::Torn(bytes)) => {
                tail.torn = bytes;
                break;
            }
            Some(Raw::Nul { is_last }) if is_last || stated <= tail.seq => {
                tail.torn = lines.rest().map_err(Error::io("read", &path))?;
                tail.room = true;
                break;
            }
            Some(Raw::TooLong | Raw::Nul { .. }) => {
                tail.damaged.get_or_insert(tail.seq + 1);
                continue;
            }
            Some(Raw::Whole(text)) => text,
        };
        if std::mem::take(&mut is_first) {
            tail.whole = lines.offset;
            continue;
        }
        let good = match line::parse(text) {
            Some(Line::Record { record, covered, claimed }) if !tail.sealed => {
                let good = record.seq > tail.seq && chain.then(covered) == claimed;
                (tail.seq, tail.time) = (tail.seq.max(record.seq), record.time());
                tail.records += 1;
                chain = claimed;
                good
            }
            Some(Line::Mark { mark, signature }) if !tail.sealed => {
                let (Mark::Checkpoint { seq, hash } | Mark::Footer { seq, hash, .. }) = mark;
                let good = seq == tail.seq && hash == chain && mark.is_signed_by(number, key, signature);
                tail.sealed = matches!(mark, Mark::Footer { .. });
                chain = mark.chain_after(text);
                good
            }
            _ => false,
        };
        if !good {
            tail.damaged.get_or_insert(tail.seq);
        }
        tail.whole = lines.offset;
    }
    if tail.sealed && tail.torn > 0 {
        tail.damaged.get_or_insert(tail.seq);
    }
    tail.chain = Some(chain);
    Ok(tail)
}
