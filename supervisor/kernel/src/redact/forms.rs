//! How a secret may look on its way: itself, and in the codings that it meets.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode, percent_encode_byte};
use serde_json::Value;

use super::SHORTEST;

/// What stays as it is in a URL.
pub(super) const UNRESERVED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A secret as it may be found: itself, and in the codings that it meets on its way.
pub(super) fn forms(secret: &[u8]) -> BTreeSet<Vec<u8>> {
    let mut forms = BTreeSet::from([secret.to_vec()]);
    for text in [hex::encode(secret), hex::encode_upper(secret)] {
        forms.insert(text.into_bytes());
    }
    let percent = percent_encode(secret, UNRESERVED).to_string();
    let all: String = secret.iter().map(|byte| percent_encode_byte(*byte)).collect();
    for text in [&percent, &all] {
        forms.insert(text.as_bytes().to_vec());
        forms.insert(lower_escapes(text));
        forms.insert(text.replace("%20", "+").into_bytes());
    }
    if let Ok(text) = std::str::from_utf8(secret) {
        forms.extend(json(text).map(String::into_bytes));
        forms.insert(
            text.replace('&', "&amp;")
                .replace('<', "&lt;")
                .replace('>', "&gt;")
                .replace('"', "&quot;")
                .into_bytes(),
        );
    }
    // Within a longer text it may begin at each third of a group; the letters that it shares with its neighbours are left out.
    for shift in 0..3 {
        let mut shifted = vec![0; shift];
        shifted.extend_from_slice(secret);
        let skip = [0, 2, 3].get(shift).copied().unwrap_or(0);
        let whole = shifted.len() * 8 / 6;
        for text in [STANDARD_NO_PAD.encode(&shifted), URL_SAFE_NO_PAD.encode(&shifted)] {
            if let Some(inner) = text.as_bytes().get(skip..whole).filter(|inner| inner.len() >= SHORTEST) {
                forms.insert(inner.to_vec());
            }
        }
    }
    forms
}

/// `%2f` for `%2F`.
pub(super) fn lower_escapes(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut left = 0;
    for byte in text.bytes() {
        out.push(if left > 0 { byte.to_ascii_lowercase() } else { byte });
        left = if byte == b'%' { 2 } else { left.max(1) - 1 };
    }
    out
}

/// Within JSON: as it must be escaped, and with what encoders escape besides: slashes, what is not ASCII, what HTML
/// gives a meaning, or everything.
fn json(text: &str) -> impl Iterator<Item = String> {
    let quoted = Value::from(text).to_string();
    let least = quoted.get(1..quoted.len() - 1).unwrap_or_default();
    let mut all = BTreeSet::from([least.to_owned()]);
    for upper in [false, true] {
        all.insert(escaped(text, upper, |_| true));
        for html in [false, true] {
            for ascii in [false, true] {
                let escapes = |letter: char| {
                    ascii && !letter.is_ascii() || html && matches!(letter, '<' | '>' | '&' | '\'' | '=')
                };
                let told = escaped(least, upper, escapes);
                all.insert(told.replace('/', "\\/"));
                all.insert(told);
            }
        }
    }
    all.into_iter()
}

fn escaped(text: &str, upper: bool, escapes: impl Fn(char) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        if !escapes(letter) {
            out.push(letter);
            continue;
        }
        for unit in letter.encode_utf16(&mut [0; 2]) {
            // Writing to a String does not fail.
            let _ = if upper { write!(out, "\\u{unit:04X}") } else { write!(out, "\\u{unit:04x}") };
        }
    }
    out
}
