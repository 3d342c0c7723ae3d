//! Values beside their names on one line: `{name: API_TOKEN, value: abc}` and `{"value": "abc", "name": "API_TOKEN"}`.
//!
//! What stands over several lines is `lines`' work, and so is what follows when a value's quotes stay open.

use super::MARK;
use super::keys::{is_kept, looks_secret};
use super::lines::{Found, part, value, word};

/// What one pair of braces was seen to hold.
#[derive(Default)]
struct Held<'l> {
    name: Option<&'l str>,
    value: Option<Found>,
}

/// The line without them, how many there were, and the quotes that it leaves open.
pub(super) fn line(line: &str) -> (String, u64, Option<&'static str>) {
    if !line.contains("name") || !line.contains("value") {
        return (line.to_owned(), 0, None);
    }
    let mut secrets: Vec<Found> = Vec::new();
    let mut held = vec![Held::default()];
    let mut from = 0;
    while let Some((start, end)) = word(line, from) {
        for c in part(line, from, start).chars() {
            match c {
                '{' => held.push(Held::default()),
                '}' => _ = held.pop(),
                _ => {}
            }
        }
        from = end;
        if held.is_empty() {
            held.push(Held::default());
        }
        let (Some(found), Some(held)) = (value(line, start, end, false), held.last_mut()) else { continue };
        if !found.colon {
            continue;
        }
        let quoted = part(line, 0, found.from).ends_with(['"', '\'']);
        // Braces in a text hold nothing.
        if quoted {
            from = found.to;
        }
        match part(line, start, end) {
            "name" => {
                let said = part(line, found.from, found.to);
                held.name = if quoted { Some(said) } else { said.split([',', '}']).next() };
            }
            "value" if quoted => held.value = Some(found),
            "value" => {
                let to = found.from + plain(part(line, found.from, line.len()));
                held.value = (to > found.from).then_some(Found { to, ..found });
            }
            _ => continue,
        }
        if let Some(found) = held.secret(line) {
            secrets.push(found);
        }
    }
    secrets.sort_by_key(|found| found.from);
    let (mut out, mut done, mut count) = (String::with_capacity(line.len()), 0, 0);
    for found in &secrets {
        let said = part(line, found.from, found.to);
        if found.from >= done && !matches!(said, "" | MARK) {
            out.push_str(part(line, done, found.from));
            out.push_str(MARK);
            (done, count) = (found.to, count + 1);
        }
    }
    out.push_str(part(line, done, line.len()));
    (out, count, secrets.last().and_then(|found| found.open))
}

impl Held<'_> {
    /// The value, once both are known and the name is a secret's.
    fn secret(&mut self, line: &str) -> Option<Found> {
        let name = self.name.filter(|name| looks_secret(name) && !name.contains(' '))?;
        let said = |found: &Found| part(line, found.from, found.to);
        self.value.take().filter(|found| found.open.is_some() || !is_kept(name, said(found)))
    }
}

/// How long a value without quotes is.
fn plain(rest: &str) -> usize {
    let ends: &[&str] = match rest.bytes().next() {
        // What is in these braces is looked at by itself.
        Some(b'{') => return 0,
        Some(b'[') if rest.starts_with(MARK) => return MARK.len(),
        Some(b'[') => &["]"],
        _ => &["}", ", ", ",name", ",\"name", " #"],
    };
    let is_end = |at: &usize| ends.iter().any(|end| part(rest, *at, rest.len()).starts_with(end));
    (0..rest.len()).find(is_end).unwrap_or(rest.len())
}
