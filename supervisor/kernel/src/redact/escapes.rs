//! Bytes whose escapes are undone, and the way back: what an encoder escapes and what it leaves is its own choice (`encodeURI`,
//! `quote(safe='/')`, `html.escape`), so that no list of forms has them all.

/// As a URL, JSON and HTML escape; each byte with where it came from.
pub(super) struct Plain {
    pub(super) bytes: Vec<u8>,
    /// Where each byte begins and ends in what was given.
    places: Vec<(usize, usize)>,
}

/// An escape that begins here: what it stands for, and its length.
struct Escape {
    letter: Letter,
    length: usize,
}

enum Letter {
    Byte(u8),
    Char(char),
}

impl Plain {
    /// None when nothing is escaped.
    pub(super) fn of(bytes: &[u8]) -> Option<Self> {
        if !bytes.iter().any(|byte| matches!(byte, b'%' | b'\\' | b'&')) {
            return None;
        }
        let mut plain = Self { bytes: Vec::new(), places: Vec::new() };
        let (mut at, mut any) = (0, false);
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            let Some(Escape { letter, length }) = escape(rest) else {
                plain.push(rest.first().copied().unwrap_or_default(), at, at + 1);
                at += 1;
                continue;
            };
            any = true;
            match letter {
                Letter::Byte(byte) => plain.push(byte, at, at + length),
                Letter::Char(letter) => {
                    for byte in letter.encode_utf8(&mut [0; 4]).bytes() {
                        plain.push(byte, at, at + length);
                    }
                }
            }
            at += length;
        }
        any.then_some(plain)
    }

    /// The same once more: JSON within JSON, a URL within HTML.
    pub(super) fn again(&self) -> Option<Self> {
        let mut twice = Self::of(&self.bytes)?;
        for (start, end) in &mut twice.places {
            *start = self.start(*start);
            *end = self.end(*end);
        }
        Some(twice)
    }

    fn push(&mut self, byte: u8, start: usize, end: usize) {
        self.bytes.push(byte);
        self.places.push((start, end));
    }

    /// Where something opens that may go on behind the end, also when an escape within what was escaped is cut in two.
    pub(super) fn opens(&self, opens: &dyn Fn(&[u8]) -> Option<usize>) -> Option<usize> {
        let whole = unfinished(&self.bytes);
        let until = self.bytes.get(..whole).unwrap_or_default();
        let cut = (whole < self.bytes.len()).then_some(whole);
        opens(&self.bytes).into_iter().chain(opens(until)).chain(cut).min()
    }

    /// Where a byte came from.
    pub(super) fn start(&self, at: usize) -> usize {
        let last = self.places.last().map_or(0, |(_, end)| *end);
        self.places.get(at).map_or(last, |(start, _)| *start)
    }

    /// The end of what comes before `at`.
    pub(super) fn end(&self, at: usize) -> usize {
        at.checked_sub(1).and_then(|last| self.places.get(last)).map_or(0, |(_, end)| *end)
    }
}

fn escape(bytes: &[u8]) -> Option<Escape> {
    let byte = |byte, length| Some(Escape { letter: Letter::Byte(byte), length });
    match bytes {
        [b'%', high, low, ..] => byte(u8::try_from(hex(&[*high, *low])?).ok()?, 3),
        [b'\\', b'u', rest @ ..] => unicode(rest),
        [b'\\', escaped @ (b'/' | b'"' | b'\\' | b'\''), ..] => byte(*escaped, 2),
        [b'\\', b'x', high, low, ..] => byte(u8::try_from(hex(&[*high, *low])?).ok()?, 4),
        [b'\\', b't', ..] => byte(b'\t', 2),
        [b'\\', b'n', ..] => byte(b'\n', 2),
        [b'\\', b'r', ..] => byte(b'\r', 2),
        [b'&', rest @ ..] => entity(rest),
        _ => None,
    }
}

fn hex(digits: &[u8]) -> Option<u32> {
    let digits = std::str::from_utf8(digits).ok()?;
    let all = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    u32::from_str_radix(digits, 16).ok().filter(|_| all)
}

/// `\uXXXX`, also as a pair.
fn unicode(rest: &[u8]) -> Option<Escape> {
    let first = hex(rest.get(..4)?)?;
    if let Some(letter) = char::from_u32(first) {
        return Some(Escape { letter: Letter::Char(letter), length: 6 });
    }
    let second =
        rest.get(4..10).filter(|next| next.starts_with(b"\\u")).and_then(|next| hex(next.get(2..)?))?;
    let pair = [u16::try_from(first).ok()?, u16::try_from(second).ok()?];
    let letter = char::decode_utf16(pair).next()?.ok()?;
    Some(Escape { letter: Letter::Char(letter), length: 12 })
}

/// Letters of the longest entity that is undone.
const LONGEST_ENTITY: usize = 10;

fn entity(rest: &[u8]) -> Option<Escape> {
    let length = rest.iter().take(LONGEST_ENTITY).position(|byte| *byte == b';')?;
    let name = std::str::from_utf8(rest.get(..length)?).ok()?;
    let letter = match name {
        "amp" | "AMP" => '&',
        "lt" | "LT" => '<',
        "gt" | "GT" => '>',
        "quot" | "QUOT" => '"',
        "apos" => '\'',
        "sol" => '/',
        "equals" => '=',
        "plus" => '+',
        _ => {
            let number = name.strip_prefix('#')?;
            let code = match number.strip_prefix(['x', 'X']) {
                Some(digits) => hex(digits.as_bytes())?,
                None => number.parse().ok()?,
            };
            char::from_u32(code)?
        }
    };
    Some(Escape { letter: Letter::Char(letter), length: length + 2 })
}

/// Where the end begins that may be the beginning of an escape; the length when nothing does.
pub(super) fn unfinished(bytes: &[u8]) -> usize {
    // The longest is a pair of `\uXXXX`.
    let from = bytes.len().saturating_sub(11);
    let opens = |at: &usize| match bytes.get(*at..).unwrap_or_default() {
        [b'%'] => true,
        [b'%', digit] => digit.is_ascii_hexdigit(),
        [b'\\'] => true,
        [b'\\', b'x', digits @ ..] => digits.len() < 2 && digits.iter().all(u8::is_ascii_hexdigit),
        [b'\\', b'u', digits @ ..] if digits.len() < 4 => digits.iter().all(u8::is_ascii_hexdigit),
        // The first half of a pair.
        [b'\\', b'u', digits @ ..] => {
            let half = digits.get(..4).and_then(hex).is_some_and(|code| (0xd800..0xdc00).contains(&code));
            half && digits.len() < 10
        }
        [b'&', name @ ..] => {
            name.len() < LONGEST_ENTITY
                && name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'#')
        }
        _ => false,
    };
    let escaped = |at: &usize| {
        bytes.get(..*at).unwrap_or_default().iter().rev().take_while(|b| **b == b'\\').count() % 2 == 1
    };
    (from..bytes.len())
        .find(|at| opens(at) && !(bytes.get(*at) == Some(&b'\\') && escaped(at)))
        .unwrap_or(bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: &str) -> Option<String> {
        Plain::of(text.as_bytes()).map(|plain| String::from_utf8_lossy(&plain.bytes).into_owned())
    }

    #[test]
    fn escapes_are_undone() {
        for (text, expected) in [
            ("a%2Fb%zz", "a/b%zz"),
            ("A\\u0026b=c'd\\u003ce\\u003Ef", "A&b=c'd<e>f"),
            ("A&amp;b=c&#x27;d&lt;e&#62;f &unknown; &#;", "A&b=c'd<e>f &unknown; &#;"),
            ("\\ud83d\\ude00\\/\\\"\\\\", "\u{1f600}/\"\\"),
            ("\\x41\\ud83d", "A\\ud83d"),
        ] {
            assert_eq!(plain(text).as_deref(), Some(expected), "{text}");
        }
        assert_eq!(plain("nothing"), None);
        assert_eq!(plain("100% & \\d"), None);
        let twice = Plain::of(b"x\\\\u0041%2541y").unwrap().again().unwrap();
        assert_eq!(twice.bytes, b"xAAy");
        assert_eq!((twice.start(1), twice.end(2), twice.start(2), twice.end(3)), (1, 8, 8, 13));
    }

    #[test]
    fn the_beginning_of_an_escape_is_seen() {
        for (text, at) in [
            ("ab%", 2),
            ("ab%4", 2),
            ("ab%41", 5),
            ("a\\", 1),
            ("a\\\\", 3),
            ("a\\u00", 1),
            ("a\\u0041", 7),
            ("a\\ud83d", 1),
            ("a\\ud83d\\u", 1),
            ("a&am", 1),
            ("a & b", 5),
            ("", 0),
        ] {
            assert_eq!(unfinished(text.as_bytes()), at, "{text}");
        }
    }
}
