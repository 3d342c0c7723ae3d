//! Lines: how each kind is written, and how it is read back.
//!
//! Headers and records end in `,"hash":"…"}`; that hash covers the link before and every byte in front
//! of it. Checkpoints and footers carry the link they sign. Headers, checkpoints and footers have exactly one
//! byte form, and the verifier compares with it, so that no byte of the log is outside a hash or a signature.

use std::borrow::Cow;
use std::io::Write;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::key::{Key, PublicKey};
use crate::{Hash, NewRecord, Record};

/// The longest line that a writer makes, with room for escapes (six bytes for one).
pub(crate) const MAX_LINE: usize = 512 * 1024;
const HASH_MARK: &[u8] = br#","hash":""#;
const SUFFIX: usize = HASH_MARK.len() + 64 + 2;

/// The first line of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) segment: u64,
    /// The number of its first record.
    pub(crate) first: u64,
    pub(crate) prev: Hash,
    pub(crate) time: u64,
    pub(crate) key: PublicKey,
}

/// A signed statement about the chain inside a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    /// The chain reached `hash` with record `seq`.
    Checkpoint { seq: u64, hash: Hash },
    /// The segment is complete.
    Footer { records: u64, seq: u64, hash: Hash },
}

/// A line, as far as it can be told without the chain.
pub(crate) enum Line<'a> {
    Header { header: Header, covered: &'a [u8], claimed: Hash },
    Record { record: RecordLine<'a>, covered: &'a [u8], claimed: Hash },
    Mark { mark: Mark, signature: &'a str },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RecordLine<'a> {
    pub(crate) seq: u64,
    time: u64,
    #[serde(borrow)]
    tenant: Cow<'a, str>,
    #[serde(borrow)]
    agent: Cow<'a, str>,
    #[serde(borrow)]
    task: Cow<'a, str>,
    #[serde(borrow)]
    trace: Cow<'a, str>,
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    verdict: Cow<'a, str>,
    #[serde(borrow)]
    rule: Cow<'a, str>,
    #[serde(borrow)]
    detail: &'a RawValue,
    #[serde(rename = "hash")]
    _hash: &'a str,
}

impl RecordLine<'_> {
    pub(crate) const fn time(&self) -> u64 {
        self.time
    }

    pub(crate) fn into_record(self, hash: Hash) -> Record {
        Record {
            seq: self.seq,
            time_ns: self.time,
            tenant: self.tenant.into_owned(),
            agent: self.agent.into_owned(),
            task: self.task.into_owned(),
            trace: self.trace.into_owned(),
            kind: self.kind.into_owned(),
            verdict: self.verdict.into_owned(),
            rule: self.rule.into_owned(),
            detail_json: self.detail.get().to_owned(),
            hash,
        }
    }
}

/// Appends the record's line and answers the new end of the chain.
pub(crate) fn push_record(out: &mut Vec<u8>, seq: u64, time: u64, new: &NewRecord<'_>, chain: Hash) -> Hash {
    let start = out.len();
    push(out, format_args!("{{\"seq\":{seq},\"time\":{time}"));
    for (name, text) in [
        ("tenant", new.tenant),
        ("agent", new.agent),
        ("task", new.task),
        ("trace", new.trace),
        ("kind", new.kind),
        ("verdict", new.verdict),
        ("rule", new.rule),
    ] {
        out.extend_from_slice(b",\"");
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\":");
        push_text(out, text);
    }
    out.extend_from_slice(b",\"detail\":");
    out.extend_from_slice(new.detail.as_str().as_bytes());
    seal(out, start, chain)
}

impl Header {
    pub(crate) fn push(&self, out: &mut Vec<u8>) -> Hash {
        let start = out.len();
        let Self { segment, first, prev, time, key } = self;
        push(
            out,
            format_args!(
                "{{\"v\":1,\"segment\":{segment},\"first\":{first},\"prev\":\"{prev}\",\"time\":{time},\"key\":\"{key}\""
            ),
        );
        seal(out, start, *prev)
    }
}

impl Mark {
    /// What is signed. The words keep one kind of statement from passing for another.
    fn message(self, segment: u64) -> Vec<u8> {
        let mut message = Vec::with_capacity(96);
        let (word, hash, numbers): (&[u8], Hash, [u64; 3]) = match self {
            Self::Checkpoint { seq, hash } => (b"aion-audit/1 checkpoint\0", hash, [segment, seq, 0]),
            Self::Footer { records, seq, hash } => (b"aion-audit/1 footer\0", hash, [segment, seq, records]),
        };
        message.extend_from_slice(word);
        for number in numbers {
            message.extend_from_slice(&number.to_le_bytes());
        }
        message.extend_from_slice(hash.as_bytes());
        message
    }

    fn push_signed(self, out: &mut Vec<u8>, signature: &str) {
        match self {
            Self::Checkpoint { seq, hash } => {
                push(
                    out,
                    format_args!(
                        "{{\"checkpoint\":true,\"seq\":{seq},\"hash\":\"{hash}\",\"sig\":\"{signature}\"}}"
                    ),
                );
            }
            Self::Footer { records, seq, hash } => push(
                out,
                format_args!(
                    "{{\"end\":true,\"records\":{records},\"seq\":{seq},\"hash\":\"{hash}\",\"sig\":\"{signature}\"}}"
                ),
            ),
        }
    }

    /// Appends the signed line and answers the chain after it.
    pub(crate) fn push(self, out: &mut Vec<u8>, segment: u64, key: &Key) -> Hash {
        let start = out.len();
        self.push_signed(out, &key.sign(&self.message(segment)));
        let chain = self.chain_after(out.get(start..).unwrap_or_default());
        out.push(b'\n');
        chain
    }

    /// A checkpoint is a link of its own, so that it cannot be taken out; a footer ends the segment.
    pub(crate) fn chain_after(self, line: &[u8]) -> Hash {
        match self {
            Self::Checkpoint { hash, .. } => hash.then(line),
            Self::Footer { hash, .. } => hash,
        }
    }

    pub(crate) fn is_signed_by(self, segment: u64, key: &PublicKey, signature: &str) -> bool {
        key.verifies(&self.message(segment), signature)
    }
}

/// Reads a line (without its line end). `None`: it is no line of this format.
pub(crate) fn parse(line: &[u8]) -> Option<Line<'_>> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct HeaderLine<'a> {
        v: u32,
        segment: u64,
        first: u64,
        prev: &'a str,
        time: u64,
        key: &'a str,
        #[serde(rename = "hash")]
        _hash: &'a str,
    }
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct MarkLine<'a> {
        checkpoint: Option<bool>,
        end: Option<bool>,
        records: Option<u64>,
        seq: u64,
        hash: &'a str,
        sig: &'a str,
    }
    if line.starts_with(b"{\"seq\":") {
        let (covered, claimed) = split(line)?;
        return Some(Line::Record { record: serde_json::from_slice(line).ok()?, covered, claimed });
    }
    if line.starts_with(b"{\"v\":") {
        let (covered, claimed) = split(line)?;
        let read: HeaderLine<'_> = serde_json::from_slice(line).ok()?;
        let header = Header {
            segment: read.segment,
            first: read.first,
            prev: Hash::parse(read.prev)?,
            time: read.time,
            key: read.key.parse().ok()?,
        };
        return (read.v == 1).then_some(Line::Header { header, covered, claimed });
    }
    let read: MarkLine<'_> = serde_json::from_slice(line).ok()?;
    let (seq, hash) = (read.seq, Hash::parse(read.hash)?);
    let mark = match (read.checkpoint, read.end, read.records) {
        (Some(true), None, None) => Mark::Checkpoint { seq, hash },
        (None, Some(true), Some(records)) => Mark::Footer { records, seq, hash },
        _ => return None,
    };
    let mut canonical = Vec::with_capacity(line.len());
    mark.push_signed(&mut canonical, read.sig);
    (canonical == line).then_some(Line::Mark { mark, signature: read.sig })
}

/// The sequence number of a record's or checkpoint's line, without reading the rest.
pub(crate) fn peek_seq(line: &[u8]) -> Option<u64> {
    let rest = [&b"{\"seq\":"[..], b"{\"checkpoint\":true,\"seq\":"]
        .into_iter()
        .find_map(|p| line.strip_prefix(p))?;
    let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
    std::str::from_utf8(rest.get(..digits)?).ok()?.parse().ok()
}

/// Splits a line into what its hash covers and the hash.
fn split(line: &[u8]) -> Option<(&[u8], Hash)> {
    let (covered, suffix) = line.split_at_checked(line.len().checked_sub(SUFFIX)?)?;
    let text = suffix.strip_prefix(HASH_MARK)?.strip_suffix(b"\"}")?;
    Some((covered, Hash::parse(std::str::from_utf8(text).ok()?)?))
}

fn seal(out: &mut Vec<u8>, start: usize, chain: Hash) -> Hash {
    let hash = chain.then(out.get(start..).unwrap_or_default());
    out.extend_from_slice(HASH_MARK);
    hash.push_hex(out);
    out.extend_from_slice(b"\"}\n");
    hash
}

fn push(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Writing to a Vec cannot fail.
    let _ = out.write_fmt(text);
}

fn push_text(out: &mut Vec<u8>, text: &str) {
    if text.bytes().all(|b| (0x20..0x80).contains(&b) && b != b'"' && b != b'\\') {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else {
        // Writing to a Vec cannot fail, and neither can a text.
        let _ = serde_json::to_writer(&mut *out, text);
    }
}
