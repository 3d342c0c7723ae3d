//! Private keys in PEM's form, over several lines or, escaped, on one.

use std::borrow::Cow;

use super::MARK;

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";
const PRIVATE: &str = "PRIVATE KEY";
/// A longer label is none.
const LABEL: usize = 80;
/// No key is longer, also with what a journal writes before each line.
const LONGEST: usize = 64 << 10;

/// The text without private keys, and how many there were.
pub(super) fn blocks(text: &str) -> (Cow<'_, str>, u64) {
    if !text.contains(PRIVATE) {
        return (Cow::Borrowed(text), 0);
    }
    let mut out = String::with_capacity(text.len());
    let (mut done, mut from, mut count) = (0, 0, 0);
    while let Some((start, end)) = next(text, from) {
        out.push_str(text.get(done..start).unwrap_or_default());
        out.push_str(MARK);
        (done, from) = (end, end);
        count += 1;
    }
    out.push_str(text.get(done..).unwrap_or_default());
    (Cow::Owned(out), count)
}

/// Where the next key is: from its first line to its last, or to where it was cut off.
fn next(text: &str, mut from: usize) -> Option<(usize, usize)> {
    loop {
        // One way through the text, however many beginnings without an end there are.
        let at = from + text.get(from..)?.find(DASHES)?;
        let here = text.get(at..)?;
        let opens = here.starts_with(BEGIN);
        if !opens && !here.starts_with(END) {
            from = at + 1;
            continue;
        }
        let label = at + if opens { BEGIN.len() } else { END.len() };
        let Some(body) = private_label(text, label) else {
            from = label;
            continue;
        };
        return Some(if opens { (at, end_of(text, body)) } else { (start_of(text, from, at), body) });
    }
}

/// Behind the label's dashes, when it is that of a private key.
fn private_label(text: &str, at: usize) -> Option<usize> {
    let rest = text.get(at..)?;
    let dashes = ahead(rest, LABEL + DASHES.len()).find(DASHES)?;
    rest.get(..dashes)?.contains(PRIVATE).then_some(at + dashes + DASHES.len())
}

/// The beginning of a text: so many bytes, to the end of a letter.
fn ahead(text: &str, most: usize) -> &str {
    text.get(..text.floor_char_boundary(most)).unwrap_or_default()
}

fn end_of(text: &str, body: usize) -> usize {
    let rest = text.get(body..).unwrap_or_default();
    if let Some(end) = ahead(rest, LONGEST).find(END) {
        let label = body + end + END.len();
        let dashes = text.get(label..).and_then(|rest| ahead(rest, LABEL + DASHES.len()).find(DASHES));
        return dashes.map_or(label, |dashes| label + dashes + DASHES.len());
    }
    // It was cut off: the rest of this line, and what looks like more of it.
    let mut end = body;
    for (n, line) in rest.split_inclusive('\n').enumerate() {
        if n > 0 && !is_body(line) {
            break;
        }
        end += line.len();
    }
    let taken = text.get(body..end).unwrap_or_default();
    body + taken.trim_end_matches(['\n', '\r']).len()
}

/// Where a key begins of which only the end is there.
fn start_of(text: &str, from: usize, at: usize) -> usize {
    let mut start = at;
    let before = text.get(from..at).unwrap_or_default();
    for line in before.split_inclusive('\n').rev() {
        if !is_body(line) {
            break;
        }
        start -= line.len();
    }
    start
}

fn is_body(line: &str) -> bool {
    let line = line.trim();
    !line.is_empty() && line.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/=".contains(&b))
}
