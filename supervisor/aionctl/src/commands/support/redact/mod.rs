//! Secrets that are known by their form are taken out of what leaves the host.
//!
//! Two ways in: [`text`] for what others wrote, line by line, and [`json`] for documents, whose keys say more than their text does. Both
//! tell how much they took, and find nothing more in what they gave. The kernel's own redactor knows the secrets themselves; here
//! nobody does, so that in doubt a value goes. Names of agents and tenants, ids and paths stay: without them nothing can be followed.

mod beside;
mod keys;
mod lines;
mod pem;
mod shapes;

use serde_json::{Map, Value};

use keys::{is_kept, looks_secret};

/// What stands in the place of a secret.
pub(super) const MARK: &str = "[redacted]";

/// Text without its secrets, and how many there were.
pub(super) fn text(text: &str) -> (String, u64) {
    let (text, mut count) = pem::blocks(text);
    let mut lines = lines::Lines::default();
    let mut out = String::with_capacity(text.len());
    for whole in text.split_inclusive('\n') {
        let body = whole.trim_end_matches(['\n', '\r']);
        let (line, found) = lines.line(body);
        let (line, more) = shapes::line(&line);
        count += found + more;
        out.push_str(&line);
        out.push_str(whole.get(body.len()..).unwrap_or_default());
    }
    (out, count)
}

/// A document without its secrets, and how many there were: values of keys that look like one, all values of `env`, what follows a flag
/// that looks like one in a list of arguments, and what [`text`] finds in the rest.
pub(super) fn json(value: Value) -> (Value, u64) {
    let mut count = 0;
    let value = walk(value, false, &mut count);
    (value, count)
}

fn walk(value: Value, hidden: bool, count: &mut u64) -> Value {
    match value {
        Value::Object(fields) => Value::Object(object(fields, hidden, count)),
        Value::Array(items) => Value::Array(array(items, hidden, count)),
        Value::String(said) if hidden => Value::String(hide(said, count)),
        Value::Number(_) if hidden => Value::String(hide(value.to_string(), count)),
        Value::String(said) => Value::String(clean(&said, count)),
        // Yes, no and nothing are no secrets.
        other => other,
    }
}

fn object(fields: Map<String, Value>, hidden: bool, count: &mut u64) -> Map<String, Value> {
    // A variable as others list them: its name, and its value beside it.
    let name =
        fields.get("name").and_then(Value::as_str).filter(|name| looks_secret(name)).map(str::to_owned);
    let fields = fields.into_iter().map(|(key, value)| {
        // Manifests list the names of secrets, and only those.
        let names = key == "secrets" && value.is_array();
        let secret = looks_secret(&key) && !names && !scalar(&value).is_some_and(|said| is_kept(&key, &said));
        let variables = key == "env" && value.is_object();
        let named = name
            .as_deref()
            .is_some_and(|name| key == "value" && !scalar(&value).is_some_and(|said| is_kept(name, &said)));
        let value = walk(value, hidden || secret || variables || named, count);
        (clean(&key, count), value)
    });
    fields.collect()
}

fn array(items: Vec<Value>, hidden: bool, count: &mut u64) -> Vec<Value> {
    let mut out = Vec::with_capacity(items.len());
    let mut flag: Option<String> = None;
    for item in items {
        let said = item.as_str().map(str::to_owned);
        let given = match (&flag, &said) {
            (Some(flag), Some(said)) => !said.starts_with('-') && !is_kept(flag, said),
            _ => false,
        };
        out.push(walk(item, hidden || given, count));
        flag = said.filter(|said| said.starts_with('-') && !said.contains('=') && looks_secret(said));
    }
    out
}

/// As it would be written; none for what has parts.
fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::Object(_) | Value::Array(_) => None,
        Value::String(said) => Some(said.clone()),
        other => Some(other.to_string()),
    }
}

fn hide(said: String, count: &mut u64) -> String {
    if said.is_empty() || said == MARK {
        return said;
    }
    *count += 1;
    MARK.to_owned()
}

fn clean(said: &str, count: &mut u64) -> String {
    let (said, found) = text(said);
    *count += found;
    said
}

#[cfg(test)]
mod tests;
