//! Secrets that the kernel knows are in nothing that it tells: each is replaced by its name, also where it was encoded on its way.
//!
//! A tenant's callers are told nothing of its own secrets, nor of models' keys. Another tenant's secrets are not looked for: what is
//! replaced tells a caller that it guessed right. Neighbours: `kernel` passes every end of a call through here, before the row and
//! the record are made.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use aho_corasick::{AhoCorasick, MatchKind};
use aion_syscall::{Decision, Refusal};
use aion_tenants::Tenant;
use aion_types::TenantId;
use serde_json::{Map, Value};

use crate::kernel::{Call, Done, Inner, Kernel};

mod escapes;
mod forms;
mod lines;
mod stream;

use escapes::{Plain, unfinished};
use forms::forms;
use lines::{Found, Lines};
pub(crate) use stream::Streamed;

/// Shorter ones would be found in words that are none.
pub(crate) const SHORTEST: usize = 8;
/// Fewer letters of a secret's beginning tell nothing.
const BEGUN: usize = 4;
/// Bytes in which escapes are undone at once.
const WINDOW: usize = 1 << 20;
/// A letter has so many bytes at most when it is escaped, on the average of a secret.
const ESCAPED: usize = 6;
/// Tenants whose secrets are ready to be looked for.
const MOST: usize = 1024;

/// Looks for some secrets.
#[derive(Debug, Default)]
pub(crate) struct Redactor {
    matcher: Option<AhoCorasick>,
    /// What stands in the place of each pattern.
    marks: Vec<String>,
    /// Sorted.
    patterns: Vec<Vec<u8>>,
    shortest: usize,
    longest: usize,
}

impl Redactor {
    pub(crate) fn new<'a>(secrets: impl IntoIterator<Item = (String, &'a [u8])>) -> Self {
        let mut all = BTreeMap::new();
        for (name, secret) in secrets {
            if secret.len() < SHORTEST {
                continue;
            }
            for pattern in forms(secret) {
                all.entry(pattern).or_insert_with(|| format!("[redacted:{name}]"));
            }
        }
        let (patterns, marks): (Vec<_>, Vec<_>) = all.into_iter().unzip();
        if patterns.is_empty() {
            return Self::default();
        }
        let shortest = patterns.iter().map(Vec::len).min().unwrap_or(0);
        let longest = patterns.iter().map(Vec::len).max().unwrap_or(0);
        let built = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(&patterns);
        match built {
            Ok(matcher) => Self { matcher: Some(matcher), marks, patterns, shortest, longest },
            Err(error) => {
                // The register of secrets bounds them, so that this does not come to be.
                tracing::error!(%error, "secrets cannot be looked for in what is told");
                Self::default()
            }
        }
    }

    /// The bytes without secrets.
    pub(crate) fn bytes<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        let mut out = Vec::new();
        let mut from = 0;
        for Found { start, end, pattern } in self.found(bytes) {
            // One that reaches into another goes with it.
            if start >= from {
                out.extend_from_slice(bytes.get(from..start).unwrap_or_default());
                let mark = self.marks.get(pattern).map_or("[redacted]", String::as_str);
                out.extend_from_slice(mark.as_bytes());
            }
            from = from.max(end);
        }
        if from == 0 {
            return Cow::Borrowed(bytes);
        }
        out.extend_from_slice(bytes.get(from..).unwrap_or_default());
        Cow::Owned(out)
    }

    /// Where they are, in order; also where lines were broken within them.
    fn found(&self, bytes: &[u8]) -> Vec<Found> {
        // To undo an escape and to join lines makes bytes fewer.
        let Some(matcher) = self.matcher.as_ref().filter(|_| bytes.len() >= self.shortest) else {
            return Vec::new();
        };
        let mut found: Vec<_> = matcher.find_iter(bytes).map(Found::from).collect();
        if let Some(lines) = Lines::join(bytes) {
            found.extend(matcher.find_iter(&lines.joined).map(|m| lines.place(&m)));
        }
        for (from, window) in self.windows(bytes) {
            for plain in self.plain(window) {
                let mut there: Vec<_> = matcher.find_iter(&plain.bytes).map(Found::from).collect();
                if let Some(lines) = Lines::join(&plain.bytes) {
                    there.extend(matcher.find_iter(&lines.joined).map(|m| lines.place(&m)));
                }
                found.extend(there.into_iter().map(|found| Found {
                    start: from + plain.start(found.start),
                    end: from + plain.end(found.end),
                    pattern: found.pattern,
                }));
            }
        }
        found.sort_unstable_by_key(|found| (found.start, std::cmp::Reverse(found.end)));
        found
    }

    /// The bytes in pieces in which escapes are undone, so that what is large takes no multiple of its size: each reaches into the next
    /// by as much as the longest secret can have with escapes.
    fn windows<'a>(&self, bytes: &'a [u8]) -> impl Iterator<Item = (usize, &'a [u8])> + use<'a> {
        let reach = WINDOW.saturating_add(self.longest.saturating_mul(ESCAPED));
        (0..bytes.len()).step_by(WINDOW).map(move |from| {
            let end = bytes.len().min(from.saturating_add(reach));
            (from, bytes.get(from..end).unwrap_or_default())
        })
    }

    /// The end of the bytes that may hold the beginning of a secret, with escapes, and where it begins.
    fn tail<'a>(&self, bytes: &'a [u8]) -> (usize, &'a [u8]) {
        let from = bytes.len().saturating_sub(self.longest.saturating_mul(ESCAPED));
        (from, bytes.get(from..).unwrap_or_default())
    }

    /// The bytes with their escapes undone, once and twice.
    fn plain(&self, bytes: &[u8]) -> Vec<Plain> {
        if self.matcher.is_none() {
            return Vec::new();
        }
        let Some(once) = Plain::of(bytes) else { return Vec::new() };
        let twice = once.again();
        std::iter::once(once).chain(twice).collect()
    }

    /// As [`Redactor::bytes`], where the bytes were cut off at some place: what may be the beginning of a secret at their end goes,
    /// too, or a caller that moves the cut would have it letter by letter.
    pub(crate) fn cut(&self, bytes: &mut Vec<u8>) {
        if let Cow::Owned(clean) = self.bytes(bytes) {
            *bytes = clean;
        }
        let across = Lines::join(bytes).and_then(|lines| Some(lines.back(self.begun(&lines.joined)?)));
        // An escape that was cut in two may be the next letter of one.
        let whole = bytes.get(..unfinished(bytes)).unwrap_or_default();
        let (from, tail) = self.tail(whole);
        let escaped = self.plain(tail);
        let escaped = escaped
            .iter()
            .filter_map(|plain| Some(from + plain.start(plain.opens(&|bytes| self.begun(bytes))?)));
        let begun = (whole.len() < bytes.len()).then(|| self.begun(whole)).flatten();
        if let Some(at) = self.begun(bytes).into_iter().chain(across).chain(escaped).chain(begun).min() {
            bytes.truncate(at);
        }
    }

    /// Where the end of the bytes begins that may be the beginning of a secret.
    fn begun(&self, bytes: &[u8]) -> Option<usize> {
        let from = bytes.len().saturating_sub(self.longest);
        (from..(bytes.len() + 1).saturating_sub(BEGUN)).find(|at| {
            let end = bytes.get(*at..).unwrap_or_default();
            let next = self.patterns.partition_point(|pattern| pattern.as_slice() < end);
            self.patterns.get(next).is_some_and(|pattern| pattern.starts_with(end))
        })
    }

    /// Whether there is one in there.
    pub(crate) fn finds(&self, text: &str) -> bool {
        !self.found(text.as_bytes()).is_empty()
    }

    /// Whether there is one in JSON, names of fields included.
    pub(crate) fn finds_in(&self, value: &Value) -> bool {
        match value {
            Value::String(text) => self.finds(text),
            Value::Array(items) => items.iter().any(|item| self.finds_in(item)),
            Value::Object(map) => map.iter().any(|(name, value)| self.finds(name) || self.finds_in(value)),
            Value::Number(number) => self.finds(&number.to_string()),
            Value::Null | Value::Bool(_) => false,
        }
    }

    /// Takes them out of a text.
    pub(crate) fn text(&self, text: &mut String) {
        if let Cow::Owned(clean) = self.bytes(text.as_bytes()) {
            *text = String::from_utf8_lossy(&clean).into_owned();
        }
    }

    /// Takes them out of JSON, names of fields included.
    pub(crate) fn value(&self, value: &mut Value) {
        if self.matcher.is_none() {
            return;
        }
        match value {
            Value::String(text) => self.text(text),
            Value::Array(items) => items.iter_mut().for_each(|item| self.value(item)),
            Value::Object(map) => {
                map.values_mut().for_each(|value| self.value(value));
                if map.keys().any(|key| self.finds(key)) {
                    *map = std::mem::take(map)
                        .into_iter()
                        .map(|(key, value)| (self.clean(key), value))
                        .collect::<Map<_, _>>();
                }
            }
            // A secret of digits alone may be told as a number.
            Value::Number(number) => {
                let text = number.to_string();
                if self.finds(&text) {
                    *value = Value::String(self.clean(text));
                }
            }
            Value::Null | Value::Bool(_) => {}
        }
    }

    fn clean(&self, mut text: String) -> String {
        self.text(&mut text);
        text
    }

    /// Takes them out of why a call was not done.
    pub(crate) fn refusal(&self, refusal: &mut Refusal) {
        for text in [&mut refusal.message, &mut refusal.field, &mut refusal.rule, &mut refusal.hint] {
            self.text(text);
        }
    }

    /// Takes them out of how it was decided.
    pub(crate) fn decision(&self, decision: &mut Decision) {
        for step in &mut decision.steps {
            self.text(&mut step.about);
            self.text(&mut step.rule);
        }
    }
}

struct Known {
    tenant: Option<Arc<Tenant>>,
    changes: u64,
    redactor: Arc<Redactor>,
}

/// The redactors of tenants, made anew when a secret changed.
#[derive(Default)]
pub(crate) struct Redactors(Mutex<HashMap<TenantId, Known>>);

impl Redactors {
    pub(crate) fn of(&self, inner: &Inner, name: &TenantId) -> Arc<Redactor> {
        let tenant = inner.tenants.get(name);
        let same = |known: &Known| match (&known.tenant, &tenant) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (None, None) => true,
            _ => false,
        };
        // Counted before they are read: what changes meanwhile is seen the next time.
        let changes = inner.secrets.changes().wrapping_add(inner.models.changes());
        {
            let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(known) = all.get(name).filter(|known| known.changes == changes && same(known)) {
                return Arc::clone(&known.redactor);
            }
        }
        let own = inner.secrets.values(name);
        let keys = inner.models.keys();
        let mut secrets: Vec<(String, &[u8])> = Vec::new();
        secrets.extend(own.iter().map(|(name, value)| (name.clone(), value.expose())));
        secrets.extend(keys.iter().map(|(name, value)| (format!("model:{name}"), value.expose())));
        if let Some(tenant) = &tenant {
            secrets.extend(tenant.secrets().map(|secret| ("tenant".to_owned(), secret.expose())));
        }
        let redactor = Arc::new(Redactor::new(secrets));
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MOST {
            all.clear();
        }
        all.insert(name.clone(), Known { tenant, changes, redactor: Arc::clone(&redactor) });
        redactor
    }
}

impl Kernel {
    /// What keeps the kernel's secrets out of what a tenant's callers, rows and records are told.
    pub(crate) fn redactor(&self, tenant: &TenantId) -> Arc<Redactor> {
        self.0.redactors.of(&self.0, tenant)
    }

    /// What a call has come to, without the kernel's secrets. Nothing of it is told before.
    pub(crate) fn redacted(&self, call: &mut Call, mut done: Result<Done, Refusal>) -> Result<Done, Refusal> {
        let redactor = self.redactor(call.caller.tenant());
        let later = std::mem::take(&mut *call.later.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some(decision) = &mut call.decision {
            decision.allowed &= later.iter().all(|step| step.allowed);
            decision.steps.extend(later);
            redactor.decision(decision);
        }
        redactor.text(&mut call.target);
        redactor.text(&mut call.request.context.task_id);
        redactor.text(&mut call.request.context.trace_id);
        match &mut done {
            // An agent's own memories hold what it has, and it has none of them.
            Ok(_) if call.request.syscall.as_str().starts_with("memory.") => {}
            Ok(done) => redactor.value(&mut done.result),
            Err(refusal) => redactor.refusal(refusal),
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use percent_encoding::{percent_encode, percent_encode_byte};
    use serde_json::json;

    use super::forms::{UNRESERVED, lower_escapes};
    use super::*;

    const SECRET: &str = "s3cr\"t/+ä value?";

    fn redactor() -> Redactor {
        Redactor::new([
            ("own".to_owned(), SECRET.as_bytes()),
            ("model:m".to_owned(), &b"sk-other-key"[..]),
            ("short".to_owned(), &b"1234567"[..]),
        ])
    }

    #[test]
    fn it_is_found_however_it_was_encoded() {
        let redactor = redactor();
        let mut lower = percent_encode(SECRET.as_bytes(), UNRESERVED).to_string();
        lower = String::from_utf8(lower_escapes(&lower)).unwrap();
        let mut told = vec![
            SECRET.to_owned(),
            hex::encode(SECRET),
            hex::encode_upper(SECRET),
            percent_encode(SECRET.as_bytes(), UNRESERVED).to_string(),
            lower,
            SECRET.bytes().map(percent_encode_byte).collect(),
            json!({"x": SECRET}).to_string(),
        ];
        for before in ["", "a", "ab", "abc", "Bearer ", "user:"] {
            for after in ["", "z", "zz", "\n"] {
                let text = format!("{before}{SECRET}{after}");
                told.push(base64::engine::general_purpose::STANDARD.encode(&text));
                told.push(base64::engine::general_purpose::URL_SAFE.encode(&text));
            }
        }
        // What encoders write who escape more than JSON asks for: PHP, Python, Go, and some who escape all.
        let inner = json!(SECRET).to_string().trim_matches('"').replace("\\\"", "\u{1}");
        let inner = inner.replace('\u{1}', "\\\"");
        told.push(inner.replace('/', "\\/"));
        told.push(inner.replace('ä', "\\u00e4"));
        told.push(inner.replace('ä', "\\u00E4").replace('/', "\\/"));
        told.push(SECRET.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect());
        for text in told {
            let clean = redactor.clean(format!("<{text}>"));
            assert!(clean.contains("[redacted:own]"), "{text}: {clean}");
            assert!(redactor.finds(&text));
        }
        // What is escaped is the encoder's own choice.
        let safe = "AbC/dEf+GhI/jKl0mNoPqRsT==";
        let odd = "A&b=c'd<e>f123456\"(!~*)";
        let redactor =
            Redactor::new([("safe".to_owned(), safe.as_bytes()), ("odd".to_owned(), odd.as_bytes())]);
        for (text, name) in [
            ("AbC/dEf%2BGhI/jKl0mNoPqRsT%3D%3D", "safe"),
            ("AbC/dEf+GhI/jKl0mNoPqRsT%3d=", "safe"),
            ("AbC&sol;dEf&#43;GhI/jKl0mNoPqRsT=&#x3D;", "safe"),
            ("A\\u0026b=c'd\\u003ce\\u003ef123456\\\"(!~*)", "odd"),
            ("A&amp;b=c&#x27;d&lt;e&gt;f123456&quot;(!~*)", "odd"),
            ("A%26b%3Dc'd%3Ce%3Ef123456%22(!~*)", "odd"),
            ("A%2526b%253Dc'd%253Ce%253Ef123456%2522(!~*)", "odd"),
        ] {
            let clean = redactor.clean(format!("x{text}y"));
            assert_eq!(clean, format!("x[redacted:{name}]y"), "{text}");
        }
        let redactor = self::redactor();
        assert_eq!(redactor.clean("a sk-other-key, 1234567".to_owned()), "a [redacted:model:m], 1234567");
        assert_eq!(redactor.clean("nothing".to_owned()), "nothing");
    }

    #[test]
    fn it_is_found_across_lines() {
        let redactor = redactor();
        let text = format!("{}{SECRET}{}", "abcdefg".repeat(9), "hijklmn".repeat(9));
        let base64 = base64::engine::general_purpose::STANDARD.encode(text);
        for width in [7, 19, 64, 76] {
            for end in ["\n", "\r\n", "\\n", "\n  "] {
                let lines: Vec<_> =
                    base64.as_bytes().chunks(width).map(|line| std::str::from_utf8(line).unwrap()).collect();
                let told = lines.join(end);
                let clean = redactor.clean(told.clone());
                assert!(clean.contains("[redacted:own]"), "{told}");
                assert!(clean.len() < told.len());
                assert!(redactor.finds(&told));
            }
        }
        assert_eq!(redactor.clean("a\nsk-ot\nher-key\nb\n".to_owned()), "a\n[redacted:model:m]\nb\n");
        assert_eq!(redactor.clean("a\nb\r\n".to_owned()), "a\nb\r\n");
    }

    #[test]
    fn it_is_found_wherever_it_lies_in_what_is_large() {
        let redactor = redactor();
        for before in [WINDOW - 9, WINDOW - 3, WINDOW - 1, WINDOW, 2 * WINDOW - 5] {
            let around = "x".repeat(before);
            let clean = redactor.clean(format!("{around}sk%2Dother%2Dkey%"));
            assert_eq!(clean.len(), before + "[redacted:model:m]%".len(), "{before}");
            assert!(clean.ends_with("x[redacted:model:m]%"), "{before}");
        }
    }

    #[test]
    fn json_is_looked_through() {
        let mut value = json!({"a": [SECRET, 5, null], "sk-other-key": {"b": format!("x{SECRET}y")}});
        redactor().value(&mut value);
        assert_eq!(
            value,
            json!({"a": ["[redacted:own]", 5, null], "[redacted:model:m]": {"b": "x[redacted:own]y"}})
        );
        let digits = Redactor::new([("n".to_owned(), &b"8391740265518842"[..])]);
        let mut value = json!({"n": 8_391_740_265_518_842_u64, "m": 1});
        digits.value(&mut value);
        assert_eq!(value, json!({"n": "[redacted:n]", "m": 1}));
        let mut same = json!({"sk-other-key": 1});
        Redactor::default().value(&mut same);
        assert_eq!(same, json!({"sk-other-key": 1}));
    }

    #[test]
    fn a_cut_does_not_give_it_away_by_the_letter() {
        let redactor = redactor();
        for length in 0..=12 {
            let mut bytes = b"text sk-other-key".get(..5 + length).unwrap().to_vec();
            redactor.cut(&mut bytes);
            let text = String::from_utf8(bytes).unwrap();
            match length {
                0..4 => assert_eq!(text.len(), 5 + length),
                4..12 => assert_eq!(text, "text "),
                _ => assert_eq!(text, "text [redacted:model:m]"),
            }
        }
        for cut in ["text sk%2Dother", "text sk%2Dother%2", "text sk-oth&#10", "text sk-o\\u00"] {
            let mut bytes = cut.as_bytes().to_vec();
            redactor.cut(&mut bytes);
            assert_eq!(bytes, b"text ", "{cut}");
        }
        let mut bytes = b"text\nsk-ot\n  her-".to_vec();
        redactor.cut(&mut bytes);
        assert_eq!(bytes, b"text\n", "also across lines");
        let mut bytes = b"sk-other-key and more".to_vec();
        redactor.cut(&mut bytes);
        assert_eq!(bytes, b"[redacted:model:m] and more");
    }
}
