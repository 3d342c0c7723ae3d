//! Secrets in the answers of models that come in parts: one that is split between two parts is found all the same.
//!
//! Each text that grows (a choice's content, a tool call's arguments) is told up to where its end may be the beginning of a secret;
//! the rest is held back until what comes next decides it. A choice's `logprobs` spell its text once more and wait with it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::escapes::unfinished;
use super::{BEGUN, Lines, Redactor};

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Field(String),
    /// Of an item with that `index`.
    Item(u64),
}

/// A text that grows: of which choice, and where in its `delta`.
type Place = (u64, Vec<Step>);

/// Fields of a `delta` that do not grow: what comes first stays.
const WHOLE: [&str; 3] = ["role", "type", "index"];

impl Redactor {
    /// Where the end begins that may become a secret; everything before it is clean once it is redacted by itself.
    fn open_end(&self, text: &str) -> usize {
        let bytes = text.as_bytes();
        let opens = |bytes: &[u8]| -> Option<usize> {
            let from = bytes.len().saturating_sub(self.longest);
            (from..bytes.len()).find(|at| {
                let end = bytes.get(*at..).unwrap_or_default();
                let next = self.patterns.partition_point(|pattern| pattern.as_slice() <= end);
                self.patterns.get(next).is_some_and(|pattern| pattern.starts_with(end))
            })
        };
        // Also where its lines are broken.
        let across = Lines::join(bytes).and_then(|lines| Some(lines.back(opens(&lines.joined)?)));
        // Also where its letters are escaped; an escape that has only begun waits for the rest.
        let whole = unfinished(bytes);
        let until = bytes.get(..whole).unwrap_or_default();
        let (from, tail) = self.tail(until);
        let escaped = self.plain(tail);
        let escaped = escaped.iter().filter_map(|plain| Some(from + plain.start(plain.opens(&opens)?)));
        let begun = opens(bytes).into_iter().chain(opens(until)).chain(across).chain(escaped).min();
        let mut at = begun.unwrap_or(bytes.len()).min(whole);
        // A secret that reaches into the end is told with it.
        let found = self.found(bytes);
        while let Some(reaching) = found.iter().find(|found| found.start < at && found.end > at) {
            at = reaching.start;
        }
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    }
}

/// One answer on its way.
pub(crate) struct Streamed<'a> {
    redactor: &'a Redactor,
    held: BTreeMap<Place, String>,
    logprobs: BTreeMap<u64, Vec<Value>>,
    /// Choices in which a secret was found: what spells their text is left out.
    found: BTreeSet<u64>,
    /// Choices that have ended: nothing is added to them.
    ended: BTreeSet<u64>,
    /// What does not grow, as it came first: in parts a secret would be told by and by.
    first: BTreeMap<String, Value>,
    /// Of the last part: what stands around the choices.
    around: Map<String, Value>,
}

impl<'a> Streamed<'a> {
    pub(crate) fn new(redactor: &'a Redactor) -> Self {
        Self {
            redactor,
            held: BTreeMap::new(),
            logprobs: BTreeMap::new(),
            found: BTreeSet::new(),
            ended: BTreeSet::new(),
            first: BTreeMap::new(),
            around: Map::new(),
        }
    }

    /// A part as it may be told.
    pub(crate) fn part(&mut self, mut part: Value) -> Value {
        if self.redactor.matcher.is_none() {
            return part;
        }
        if let Some(choices) = part.get_mut("choices").and_then(Value::as_array_mut) {
            let mut taken = std::mem::take(choices);
            for choice in &mut taken {
                self.choice(choice);
            }
            if let Value::Object(map) = &part {
                self.around = map.clone();
            }
            if let Some(choices) = part.get_mut("choices") {
                *choices = Value::Array(taken);
            }
        }
        if let Some(map) = part.as_object_mut() {
            for (name, value) in map.iter_mut().filter(|(_, value)| value.is_string()) {
                value.clone_from(self.first.entry(name.clone()).or_insert_with(|| value.clone()));
            }
        }
        // What does not grow.
        self.redactor.value(&mut part);
        part
    }

    /// What was held back at the end of a stream that gave no reason for its end.
    pub(crate) fn end(&mut self) -> Option<Value> {
        let open: BTreeSet<u64> = self.held.keys().map(|(index, _)| *index).collect();
        let choices = open.into_iter().map(|index| {
            let mut choice = json!({"index": index, "delta": {}, "finish_reason": null});
            self.flush(index, &mut choice, false);
            choice
        });
        let choices: Vec<_> = choices.collect();
        if choices.is_empty() {
            return None;
        }
        let mut last = std::mem::take(&mut self.around);
        last.remove("usage");
        last.insert("choices".to_owned(), Value::Array(choices));
        Some(Value::Object(last))
    }

    fn choice(&mut self, choice: &mut Value) {
        let index = choice.get("index").and_then(Value::as_u64).unwrap_or(0);
        if self.ended.contains(&index) {
            if let Some(choice) = choice.as_object_mut() {
                choice.insert("delta".to_owned(), json!({}));
                choice.remove("logprobs");
            }
            return;
        }
        if let Some(delta) = choice.get_mut("delta") {
            self.grow(index, &mut Vec::new(), delta);
        }
        let ended = choice.get("finish_reason").and_then(Value::as_str).map(|why| why == "length");
        if let Some(cut) = ended {
            self.flush(index, choice, cut);
            self.ended.insert(index);
        }
        self.spell(index, choice);
    }

    fn grow(&mut self, index: u64, path: &mut Vec<Step>, value: &mut Value) {
        match value {
            Value::String(text) => {
                let place = (index, path.clone());
                let mut whole = self.held.remove(&place).unwrap_or_default();
                whole.push_str(text);
                let held = whole.split_off(self.redactor.open_end(&whole));
                if !held.is_empty() {
                    self.held.insert(place, held);
                }
                if self.redactor.finds(&whole) {
                    self.found.insert(index);
                    self.redactor.text(&mut whole);
                }
                *text = whole;
            }
            Value::Object(map) => {
                for (key, value) in map.iter_mut() {
                    path.push(Step::Field(key.clone()));
                    if WHOLE.contains(&key.as_str()) {
                        if value.is_string() {
                            let place = format!("{index} {path:?}");
                            value.clone_from(self.first.entry(place).or_insert_with(|| value.clone()));
                        }
                        path.pop();
                        continue;
                    }
                    self.grow(index, path, value);
                    path.pop();
                }
            }
            Value::Array(items) => {
                for (at, item) in items.iter_mut().enumerate() {
                    let own = item.get("index").and_then(Value::as_u64);
                    path.push(Step::Item(own.unwrap_or_else(|| u64::try_from(at).unwrap_or(0))));
                    self.grow(index, path, item);
                    path.pop();
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// Puts what is held of a choice at the end of its texts. `cut`: the text goes on where nobody sees it, so that what may be the
    /// beginning of a secret is left out, or a caller that moves the cut would have it letter by letter.
    fn flush(&mut self, index: u64, choice: &mut Value, cut: bool) {
        let places: Vec<Place> = self.held.keys().filter(|(of, _)| *of == index).cloned().collect();
        for place in places {
            let Some(mut text) = self.held.remove(&place) else { continue };
            if cut && text.len() >= BEGUN {
                self.found.insert(index);
                continue;
            }
            if self.redactor.finds(&text) {
                self.found.insert(index);
                self.redactor.text(&mut text);
            }
            let Some(choice) = choice.as_object_mut() else { return };
            let delta = choice.entry("delta").or_insert_with(|| json!({}));
            if let Some(Value::String(there)) = at(delta, &place.1) {
                there.push_str(&text);
            }
        }
    }

    fn spell(&mut self, index: u64, choice: &mut Value) {
        let Some(choice) = choice.as_object_mut() else { return };
        let given = match choice.get_mut("logprobs") {
            Some(Value::Object(spelt)) => Some(spelt),
            _ => None,
        };
        let waits = self.held.keys().any(|(of, _)| *of == index);
        let mut content = self.logprobs.remove(&index).unwrap_or_default();
        if let Some(Value::Array(new)) = given.and_then(|spelt| spelt.remove("content")) {
            content.extend(new);
        }
        if content.is_empty() {
            return;
        }
        if self.found.contains(&index) {
            choice.insert("logprobs".to_owned(), Value::Null);
        } else if waits {
            self.logprobs.insert(index, content);
            choice.insert("logprobs".to_owned(), Value::Null);
        } else {
            choice.insert("logprobs".to_owned(), json!({"content": content}));
        }
    }
}

/// A text in a `delta`, made where it is not there.
fn at<'v>(delta: &'v mut Value, path: &[Step]) -> Option<&'v mut Value> {
    let Some((step, rest)) = path.split_first() else {
        if !delta.is_string() {
            *delta = json!("");
        }
        return Some(delta);
    };
    match step {
        Step::Field(key) => {
            if !delta.is_object() {
                *delta = json!({});
            }
            at(delta.as_object_mut()?.entry(key.as_str()).or_insert(Value::Null), rest)
        }
        Step::Item(index) => {
            if !delta.is_array() {
                *delta = json!([]);
            }
            let items = delta.as_array_mut()?;
            let found =
                items.iter().position(|item| item.get("index").and_then(Value::as_u64) == Some(*index));
            let place = found.unwrap_or_else(|| {
                items.push(json!({"index": index}));
                items.len() - 1
            });
            at(items.get_mut(place)?, rest)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "sk-geheim-0123456789";

    fn redactor() -> Redactor {
        Redactor::new([
            ("own".to_owned(), SECRET.as_bytes()),
            ("short".to_owned(), &b"sk-geheim"[..]),
            ("umlaut".to_owned(), "äöü-äöü-äöü".as_bytes()),
        ])
    }

    fn part(text: &str, finish: Option<&str>) -> Value {
        json!({"id": "x", "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]})
    }

    /// What a client puts together.
    fn told(parts: &[Value]) -> String {
        let text =
            |part: &Value| part["choices"][0]["delta"]["content"].as_str().unwrap_or_default().to_owned();
        parts.iter().map(text).collect()
    }

    fn split(text: &str, sizes: &[usize], finish: Option<&str>) -> String {
        let redactor = redactor();
        let mut streamed = Streamed::new(&redactor);
        let (mut parts, mut rest, mut sizes) = (Vec::new(), text.to_owned(), sizes.iter().cycle());
        while !rest.is_empty() {
            let mut size = (*sizes.next().unwrap()).min(rest.len());
            while !rest.is_char_boundary(size) {
                size += 1;
            }
            let next = rest.split_off(size);
            parts.push(streamed.part(part(&rest, None)));
            rest = next;
        }
        if finish.is_some() {
            parts.push(streamed.part(part("", finish)));
        }
        parts.extend(streamed.end());
        told(&parts)
    }

    #[test]
    fn however_it_is_split_it_is_not_told() {
        for size in 1..30 {
            for finish in [None, Some("stop")] {
                let whole = format!("before {SECRET} after, and äöü-äöü-äöü too, sk-geheim alone; sk");
                let expected =
                    "before [redacted:own] after, and [redacted:umlaut] too, [redacted:short] alone; sk";
                assert_eq!(split(&whole, &[size], finish), expected, "{size}");
                assert_eq!(split(&whole, &[size, 1, 3], finish), expected, "{size}");
            }
        }
        assert_eq!(split(SECRET, &[7], None), "[redacted:own]");
        for size in 1..30 {
            for end in ["\n", "\r\n", "\n  "] {
                let (first, rest) = SECRET.split_at(5);
                let whole = format!("before\n{first}{end}{rest}\nafter");
                assert_eq!(
                    split(&whole, &[size], Some("stop")),
                    "before\n[redacted:own]\nafter",
                    "{size} {end:?}"
                );
            }
        }
        assert_eq!(split("sk-geheim-01 is none", &[3], Some("stop")), "[redacted:short]-01 is none");
    }

    #[test]
    fn a_text_that_is_cut_ends_before_what_may_be_a_secret() {
        assert_eq!(split("it is sk-gehe", &[2], Some("length")), "it is ");
        assert_eq!(split("it is sk-gehe", &[2], Some("stop")), "it is sk-gehe");
        assert_eq!(split("it is s", &[2], Some("length")), "it is s");
    }

    #[test]
    fn nothing_waits_that_cannot_be_the_beginning_of_one() {
        let redactor = redactor();
        let mut streamed = Streamed::new(&redactor);
        assert_eq!(told(&[streamed.part(part("hello", None))]), "hello");
        assert_eq!(streamed.end(), None);
        let none = Redactor::default();
        assert_eq!(Streamed::new(&none).part(part("sk-", None)), part("sk-", None));
    }

    #[test]
    fn choices_and_arguments_of_tools_grow_by_themselves() {
        let redactor = redactor();
        let mut streamed = Streamed::new(&redactor);
        let call = |arguments: &str, at: u64| {
            json!({"choices": [{"index": 1, "delta": {"tool_calls": [
                {"index": at, "id": "call", "function": {"name": "f", "arguments": arguments}}]}}]})
        };
        let first = streamed.part(call("{\"a\": \"sk-gehe", 2));
        assert_eq!(first["choices"][0]["delta"]["tool_calls"][0]["function"]["arguments"], "{\"a\": \"");
        // Another one does not complete it.
        streamed.part(call("im-0123456789", 3));
        let second = streamed.part(call("im-0123456789\"}", 2));
        assert_eq!(
            second["choices"][0]["delta"]["tool_calls"][0]["function"]["arguments"],
            "[redacted:own]\"}"
        );
        streamed.part(call("sk-", 2));
        let last = streamed.end().unwrap();
        assert_eq!(
            last["choices"],
            json!([{"index": 1, "finish_reason": null, "delta": {"tool_calls": [{"index": 2, "function": {"arguments": "sk-"}}]}}])
        );
    }

    #[test]
    fn what_spells_a_text_waits_with_it() {
        let redactor = redactor();
        let spelt = |text: &str| {
            let mut part = part(text, None);
            part["choices"][0]["logprobs"] = json!({"content": [{"token": text}]});
            part
        };
        let mut streamed = Streamed::new(&redactor);
        assert_eq!(streamed.part(spelt("sk"))["choices"][0]["logprobs"], Value::Null);
        assert_eq!(
            streamed.part(spelt("y"))["choices"][0]["logprobs"]["content"],
            json!([{"token": "sk"}, {"token": "y"}])
        );
        let mut streamed = Streamed::new(&redactor);
        for text in ["sk-geheim-", "0123456789", " end"] {
            assert_eq!(streamed.part(spelt(text))["choices"][0]["logprobs"], Value::Null, "{text}");
        }
    }

    #[test]
    fn escapes_that_are_split_are_waited_for() {
        let redactor = redactor();
        let once = SECRET.replace('-', "%2D").replace('g', "\\u0067");
        let twice = SECRET.replace('-', "%252D").replace('g', "\\\\u0067");
        for encoded in [once, twice] {
            for cut in 1..encoded.len() {
                let mut streamed = Streamed::new(&redactor);
                let (a, b) = encoded.split_at(cut);
                let parts = [streamed.part(part(a, None)), streamed.part(part(b, Some("stop")))];
                assert_eq!(told(&parts), "[redacted:own]", "{encoded} {cut}");
            }
        }
        let mut streamed = Streamed::new(&redactor);
        let parts = [streamed.part(part("100% \\", None)), streamed.part(part("done&", Some("stop")))];
        assert_eq!(told(&parts), "100% \\done&");
    }

    #[test]
    fn what_has_ended_is_not_added_to_and_what_does_not_grow_stays() {
        let redactor = redactor();
        let mut streamed = Streamed::new(&redactor);
        let parts =
            [streamed.part(part("sk-geh", Some("stop"))), streamed.part(part("eim-0123456789", None))];
        assert_eq!(told(&parts), "sk-geh");
        let mut streamed = Streamed::new(&redactor);
        let ids = ["sk-geheim-01", "23456789"].map(|id| {
            let call = json!([{"index": 0, "id": id, "type": id, "function": {"name": id}}]);
            let told = streamed.part(json!({"id": id, "choices": [{"index": 0, "delta": {"role": id, "tool_calls": call}, "finish_reason": null}]}));
            told.to_string()
        });
        assert!(!ids[1].contains("23456789"), "{ids:?}");
    }
}
