//! Values of keys in lines of text: `KEY=value`, `key: value`, `"key": "value"`, `--key value`, and what YAML puts into the lines below.
//!
//! A line is not parsed, since nobody knows of what it is a line. A value ends where its quotes end; without quotes at the line's end when
//! the line begins with the key, as in a file of settings, else at the next space.

use super::MARK;
use super::beside;
use super::keys::{is_kept, looks_secret, takes_the_line};

/// What is remembered from one line to the next.
#[derive(Debug, Default)]
pub(super) struct Lines {
    below: Option<Below>,
    /// The line before was a secret's, and ended in a backslash.
    goes_on: bool,
    /// A secret's quotes that were not closed yet.
    open: Option<Open>,
    /// How the lines since then read when nobody meant those quotes to go on: who forgot them has secrets below, too.
    anew: Option<Box<Lines>>,
    /// The column of a `name:` that looks like a secret's: its value stands below it, as `value:`.
    named: Option<usize>,
}

/// Quotes that go on in the lines below.
#[derive(Debug, Clone, Copy)]
struct Open {
    quote: &'static str,
    /// What they may still take. Who forgets to close quotes does not lose the whole file.
    left: usize,
    /// Below a secret's key: what stands behind them is a secret, too.
    below: bool,
}

/// No value over several lines is longer.
const LONGEST: usize = 64 << 10;

/// The lines that belong to a key whose value is a secret.
#[derive(Debug)]
struct Below {
    /// The key's column: what is further in belongs to it.
    column: usize,
    /// Nothing stood behind the key, so that a list may begin right below it.
    list: bool,
    /// It is one text, and no tree of keys.
    whole: bool,
    /// The column of a key or an item in that tree whose value is one text: what is further in belongs to it.
    text: Option<usize>,
}

/// A key's value: from where to where.
pub(super) struct Found {
    pub(super) from: usize,
    pub(super) to: usize,
    /// A colon stood between them.
    pub(super) colon: bool,
    /// The value's quotes, when this line does not close them.
    pub(super) open: Option<&'static str>,
}

impl Open {
    const fn new(quote: &'static str, below: bool) -> Self {
        Self { quote, left: LONGEST, below }
    }
}

impl Lines {
    /// The line without secrets, and how many there were.
    pub(super) fn line(&mut self, line: &str) -> (String, u64) {
        let body = line.trim_start();
        let column = line.len() - body.len();
        if let Some(open) = self.open.take() {
            return self.quoted(line, column, open);
        }
        if std::mem::take(&mut self.goes_on) && !body.is_empty() {
            self.goes_on = line.ends_with('\\');
            return hidden(line, column, line.len());
        }
        if let Some(below) = &mut self.below {
            let item = below.list && column == below.column && (body == "-" || body.starts_with("- "));
            if body.is_empty() {
                return (line.to_owned(), 0);
            }
            if column > below.column || item {
                below.text = below.text.filter(|&text| column > text);
                if below.whole || below.text.is_some() {
                    return hidden(line, column, line.len());
                }
                if is_header(body) {
                    below.text = Some(column);
                }
                return self.branch(line, column);
            }
            self.below = None;
        }
        if let Some(value) = self.value_of_name(body, column) {
            self.below = Some(Below { column, list: false, whole: true, text: None });
            if is_header(body) || value.is_empty() {
                return (line.to_owned(), 0);
            }
            let from = line.len() - value.len();
            self.open = opened(line, from).map(|quote| Open::new(quote, true));
            return hidden(line, from, line.len());
        }
        self.pairs(line)
    }

    /// A line within quotes that an earlier one opened, and what stands behind them.
    fn quoted(&mut self, line: &str, column: usize, open: Open) -> (String, u64) {
        let mut anew = self.anew.take().unwrap_or_default();
        let (_, found) = anew.line(line);
        let closed = closing(line, 0, open.quote);
        let end = closed.unwrap_or(line.len());
        if closed.is_some() && (found > 0 || anew.open.is_some()) {
            return self.closed_or_not(line, column, open, *anew);
        }
        let (mut out, count) = if column < end {
            hidden(part(line, 0, end), column, end)
        } else {
            (part(line, 0, end).to_owned(), 0)
        };
        let left = open.left.saturating_sub(line.len());
        if closed.is_none() {
            if left > 0 {
                (self.open, self.anew) = (Some(Open { left, ..open }), Some(anew));
            }
            return (out, count);
        }
        let rest = part(line, end + open.quote.len(), line.len());
        if open.below && !is_form(rest) {
            return hidden(line, column, line.len());
        }
        out.push_str(open.quote);
        let (rest, more) = self.pairs(rest);
        out.push_str(&rest);
        (out, count + more)
    }

    /// A line whose quote ends those above, or begins those of a secret of its own, which nobody knows: all of it goes. What follows is
    /// read as below that secret.
    fn closed_or_not(&mut self, line: &str, column: usize, open: Open, anew: Self) -> (String, u64) {
        let Self { below, goes_on, open: next, anew, named } = anew;
        let (mut out, count) = hidden(line, column, line.len());
        if next.is_none() {
            // As it is read now it is read again.
            out.push_str(open.quote);
        }
        (self.goes_on, self.open, self.anew, self.named) = (goes_on, next, anew, named);
        let own = self.below.as_ref().map_or(usize::MAX, |own| own.column);
        if let Some(below) = below.filter(|below| below.column < own) {
            self.below = Some(below);
        }
        (out, count)
    }

    /// The value of a line `value:` that follows a `name:` which looks like a secret's in the same list item.
    fn value_of_name<'l>(&mut self, body: &'l str, column: usize) -> Option<&'l str> {
        let item = body.strip_prefix("- ").map(str::trim_start);
        let column = column + body.len() - item.unwrap_or(body).len();
        let said = item.unwrap_or(body);
        if item.is_some() || self.named.is_some_and(|named| column < named) {
            self.named = None;
        }
        if let Some(name) = said.strip_prefix("name:") {
            let name = name.split_once(" #").map_or(name, |(name, _)| name);
            let name = name.trim().trim_matches(['"', '\'']);
            self.named = (looks_secret(name) && !name.contains(' ')).then_some(column);
        }
        let value = said.strip_prefix("value:").map(str::trim_start)?;
        self.named.take_if(|named| *named == column).map(|_| value)
    }

    fn pairs(&mut self, line: &str) -> (String, u64) {
        let (line, count, open) = beside::line(line);
        let (line, more) = self.keyed(&line);
        self.open = open.map(|quote| Open::new(quote, false)).or(self.open);
        (line, count + more)
    }

    fn keyed(&mut self, line: &str) -> (String, u64) {
        let mut out = String::new();
        let (mut done, mut from, mut count) = (0, 0, 0);
        while let Some((start, end)) = word(line, from) {
            from = end;
            if !looks_secret(part(line, start, end)) {
                continue;
            }
            let first = is_first(line, start);
            let Some(found) = value(line, start, end, first) else { continue };
            let said = part(line, found.from, found.to);
            if first && found.colon {
                self.opens(line, start, said);
            }
            if found.open.is_some() {
                self.open = found.open.map(|quote| Open::new(quote, false));
            }
            let tail = part(line, found.from, line.len()).trim_end();
            self.goes_on |= tail == "\\" && found.open.is_none();
            if said.is_empty() || opens_a_tree(said) || is_kept(part(line, start, end), said) {
                continue;
            }
            self.goes_on |= said.ends_with('\\') && found.to == line.len() && found.open.is_none();
            out.push_str(part(line, done, found.from));
            out.push_str(MARK);
            (done, from) = (found.to, found.to);
            count += 1;
        }
        out.push_str(part(line, done, line.len()));
        (out, count)
    }

    fn opens(&mut self, line: &str, start: usize, said: &str) {
        let quote = start > 0 && matches!(line.as_bytes().get(start - 1), Some(b'"' | b'\''));
        let column = if quote { start - 1 } else { start };
        let whole = !said.is_empty() && !matches!(said, "{" | "[");
        self.below = Some(Below { column, list: said.is_empty(), whole, text: None });
    }

    /// A line of a tree below a secret's key: keys stay, so that its form can be seen.
    fn branch(&mut self, line: &str, column: usize) -> (String, u64) {
        let item = column + if part(line, column, line.len()).starts_with("- ") { 2 } else { 0 };
        let body = part(line, item, line.len());
        let plain = |c: char| c.is_ascii_alphanumeric() || "_-.\"'".contains(c);
        let from = match body.split_once(':') {
            Some((key, rest)) if key.chars().all(plain) && (rest.is_empty() || rest.starts_with(' ')) => {
                line.len() - rest.trim_start().len()
            }
            _ => item,
        };
        // A colon in a text makes no key of what is before it.
        if let Some((from, quote)) = [item, from].into_iter().find_map(|at| Some((at, opened(line, at)?))) {
            self.open = Some(Open::new(quote, true));
            return hidden(line, from, line.len());
        }
        if is_form(part(line, from, line.len())) {
            return (line.to_owned(), 0);
        }
        let to = line.len() - usize::from(line.ends_with(','));
        hidden(line, from, to)
    }
}

/// Whether nothing but what holds a tree together stands there.
fn is_form(text: &str) -> bool {
    text.chars().all(|c| "{}[], ".contains(c))
}

/// The quotes that begin here, when this line does not close them.
fn opened(line: &str, at: usize) -> Option<&'static str> {
    extent(line, at, "", true).2
}

/// What stands behind a key when its value comes in the lines below.
fn opens_a_tree(said: &str) -> bool {
    matches!(said, "{" | "[" | "|" | ">" | "|-" | ">-" | "|+" | ">+")
}

/// Whether the lines below are one text: the line ends in what YAML begins such with, as `key: |` or `- >2-`.
fn is_header(body: &str) -> bool {
    let body = body.rsplit_once(" #").map_or(body, |(before, _)| before).trim_end();
    let last = body.rsplit(' ').next().unwrap_or_default();
    last.strip_prefix(['|', '>'])
        .is_some_and(|rest| rest.len() <= 2 && rest.chars().all(|c| "+-123456789".contains(c)))
}

/// The next run of letters that a key may be made of.
pub(super) fn word(line: &str, from: usize) -> Option<(usize, usize)> {
    let of_key = |b: &u8| b.is_ascii_alphanumeric() || b"_-.".contains(b);
    let bytes = line.as_bytes();
    let start = from + bytes.get(from..)?.iter().position(of_key)?;
    let length = bytes.get(start..)?.iter().position(|b| !of_key(b));
    Some((start, length.map_or(line.len(), |length| start + length)))
}

/// Whether nothing but an indent, a list's dash, `export` or a quote stands before the key.
fn is_first(line: &str, start: usize) -> bool {
    let before = part(line, 0, start).trim_start();
    let before = before.strip_prefix("export ").unwrap_or(before);
    before.chars().all(|c| " -\"'".contains(c))
}

/// The value of the key that stands there.
pub(super) fn value(line: &str, start: usize, end: usize, first: bool) -> Option<Found> {
    let key = part(line, start, end);
    let bytes = line.as_bytes();
    let flag = key.starts_with('-');
    let (quoted, mut at) = past_quote(bytes, end);
    let spaced = at;
    at = past_spaces(bytes, at);
    let sign = bytes.get(at).copied();
    let colon = sign == Some(b':');
    match sign {
        // A path of Rust, and a path of files that a message is about.
        Some(b':') if bytes.get(at + 1) == Some(&b':') => return None,
        Some(b':') if !quoted && part(line, 0, start).ends_with('/') => return None,
        // `credential:NAME` and `secret:use:NAME` name a secret, and are values themselves.
        Some(b':') if !first && key == "credential" && bytes.get(at + 1) != Some(&b' ') => return None,
        Some(b':') if key == "secret" && part(line, at + 1, line.len()).starts_with("use:") => return None,
        Some(b'=' | b':') => {
            at += 1;
            while matches!(bytes.get(at), Some(b'=' | b'>')) {
                at += 1;
            }
        }
        // A list of arguments, as programs print it.
        Some(b',') if flag && quoted => {
            at = past_spaces(bytes, at + 1);
            past_quote(bytes, at).0.then_some(())?;
        }
        Some(next) if flag && !quoted && at > spaced && next != b'-' => {}
        _ => return None,
    }
    at = past_spaces(bytes, at);
    let (from, to, open) = extent(line, at, key, first);
    Some(Found { from, to, colon, open })
}

/// From where to where the value is that begins here, and its quotes when this line does not close them.
fn extent(line: &str, at: usize, key: &str, first: bool) -> (usize, usize, Option<&'static str>) {
    let rest = part(line, at, line.len());
    if rest.starts_with(MARK) {
        return (at, at + MARK.len(), None);
    }
    for quote in ["\\\"", "\\'", "\"", "'"] {
        if rest.starts_with(quote) {
            let from = at + quote.len();
            let closed = closing(line, from, quote);
            // Text in text is on one line.
            let open = (closed.is_none() && quote.len() == 1).then_some(quote);
            return (from, closed.unwrap_or(line.len()), open);
        }
    }
    let length = if first {
        let rest = rest.trim_end();
        rest.strip_suffix(',').unwrap_or(rest).len()
    } else if takes_the_line(key) {
        rest.find(['"', '\'']).unwrap_or(rest.len())
    } else {
        let rest = part(rest, 0, rest.find([' ', '\t', '"', '\'']).unwrap_or(rest.len()));
        rest.trim_end_matches([',', ';', ')', '}', ']', '>', '\\']).len()
    };
    (at, at + length, None)
}

/// Where the quotes end; none: not on this line.
fn closing(line: &str, from: usize, quote: &str) -> Option<usize> {
    let mut at = from;
    while let Some(found) = part(line, at, line.len()).find(quote) {
        let end = at + found;
        let doubled = quote == "'" && part(line, end + 1, line.len()).starts_with('\'');
        let slashes = part(line, from, end).bytes().rev().take_while(|&b| b == b'\\').count();
        let escaped = match quote {
            "'" => false,
            "\"" => slashes % 2 == 1,
            // Text in text: one more escape doubles the slashes.
            _ => slashes % 4 != 0,
        };
        if doubled {
            at = end + 2;
        } else if escaped {
            at = end + 1;
        } else {
            return Some(end);
        }
    }
    None
}

fn past_quote(bytes: &[u8], at: usize) -> (bool, usize) {
    let slash = usize::from(bytes.get(at) == Some(&b'\\'));
    match bytes.get(at + slash) {
        Some(b'"' | b'\'') => (true, at + slash + 1),
        _ => (false, at),
    }
}

fn past_spaces(bytes: &[u8], at: usize) -> usize {
    let rest = bytes.get(at..).unwrap_or_default();
    at + rest.iter().take_while(|b| matches!(b, b' ' | b'\t')).count()
}

fn hidden(line: &str, from: usize, to: usize) -> (String, u64) {
    if part(line, from, to).trim_matches(['"', '\'']) == MARK {
        return (line.to_owned(), 0);
    }
    (format!("{}{MARK}{}", part(line, 0, from), part(line, to, line.len())), 1)
}

/// What lies between two places that were found at ASCII letters.
pub(super) fn part(text: &str, from: usize, to: usize) -> &str {
    text.get(from..to).unwrap_or_default()
}
