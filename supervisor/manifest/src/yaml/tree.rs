//! Text to a tree of nodes that know where they are.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::budget::BudgetBreach;
use serde_saphyr::{DuplicateKeyPolicy, Location, MergeKeyPolicy, Spanned};

use crate::error::{Place, Problem};

/// Larger than any manifest that a person writes.
pub(crate) const MAX_BYTES: usize = 256 * 1024;
/// Levels of nesting; the deepest field is at 5.
const MAX_DEPTH: usize = 24;
/// Nodes, aliases expanded.
const MAX_NODES: usize = 20_000;

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) kind: Kind,
}

/// What a value is. Scalars keep their text; whoever reads them knows what they should be.
#[derive(Debug, Clone)]
pub(crate) enum Kind {
    Null,
    Scalar { text: String, plain: bool },
    Seq(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// A mapping's key.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub(crate) place: Place,
    pub(crate) text: String,
}

impl Kind {
    /// For messages.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Null => "nothing".to_owned(),
            Self::Scalar { text, .. } => crate::error::quote(text),
            Self::Seq(_) => "a list".to_owned(),
            Self::Map(_) => "a mapping".to_owned(),
        }
    }
}

impl Node {
    /// The value of a key of this mapping.
    pub(crate) fn get(&self, name: &str) -> Option<&Self> {
        match &self.kind {
            Kind::Map(entries) => entries.iter().find(|(k, _)| k.text == name).map(|(_, v)| v),
            _ => None,
        }
    }

    /// The text of a scalar.
    pub(crate) fn scalar(&self) -> Option<&str> {
        match &self.kind {
            Kind::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// The place of a field: of its value, or of the nearest enclosing one that exists.
    pub(crate) fn place_of(&self, field: &str) -> Place {
        self.walk(field).0.place
    }

    /// A field, when it is there itself. List items are `name[3]`.
    pub(crate) fn find(&self, field: &str) -> Option<&Self> {
        match self.walk(field) {
            (node, true) => Some(node),
            _ => None,
        }
    }

    /// As far as the path goes, and whether that is all the way.
    fn walk(&self, field: &str) -> (&Self, bool) {
        let mut node = self;
        for part in field.split('.').filter(|p| !p.is_empty()) {
            let (name, index) = match part.strip_suffix(']').and_then(|p| p.rsplit_once('[')) {
                Some((name, index)) => (name, index.parse::<usize>().ok()),
                None => (part, None),
            };
            let Some(next) = node.get(name) else { return (node, false) };
            node = next;
            if let Some(index) = index {
                let Kind::Seq(items) = &node.kind else { return (node, false) };
                let Some(next) = items.get(index) else { return (node, false) };
                node = next;
            }
        }
        (node, true)
    }
}

/// What is wrong with a text as YAML.
pub(crate) struct Malformed {
    pub(crate) too_large: bool,
    pub(crate) problem: Box<Problem>,
}

/// Parses one document.
pub(crate) fn parse(bytes: &[u8], file: &str) -> Result<Node, Malformed> {
    let problem = |place, message: String, fix: &str| Problem {
        file: file.to_owned(),
        place,
        field: String::new(),
        message,
        fix: fix.to_owned(),
    };
    if bytes.len() > MAX_BYTES {
        let message = format!("the file has {} bytes, at most {MAX_BYTES} are allowed", bytes.len());
        return Err(Malformed { too_large: true, problem: Box::new(problem(None, message, "")) });
    }
    let malformed = |place, message, fix: &str| Malformed {
        too_large: false,
        problem: Box::new(problem(place, message, fix)),
    };
    let text = std::str::from_utf8(bytes).map_err(|e| {
        let place = place_at(&bytes[..e.valid_up_to()]);
        let byte = bytes.get(e.valid_up_to()).copied().unwrap_or_default();
        malformed(Some(place), format!("byte {byte:#04x} is not UTF-8"), "save the file as UTF-8")
    })?;
    if let Some(at) = text.find('\0') {
        let place = place_at(&bytes[..at]);
        return Err(malformed(Some(place), "there is a NUL character".to_owned(), "remove it"));
    }
    let raw: Option<Spanned<Raw>> = serde_saphyr::from_str_with_options(text, options()).map_err(|e| {
        let (place, text, too_large) = explain(e.without_snippet());
        let (message, fix) = text.split_once("; ").unwrap_or((&text, ""));
        Malformed { too_large, problem: Box::new(problem(place, message.to_owned(), fix)) }
    })?;
    match raw {
        Some(raw) => convert(raw, text, file)
            .map_err(|problem| Malformed { too_large: false, problem: Box::new(problem) }),
        None => Err(malformed(None, "the file is empty".to_owned(), "")),
    }
}

fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            flow_nesting_limit: MAX_DEPTH,
            max_nodes: MAX_NODES,
            max_events: MAX_NODES * 3,
            max_aliases: 100,
            max_anchors: 100,
            max_documents: 1,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: MAX_NODES,
            max_replay_stack_depth: 8,
        },
        duplicate_keys: DuplicateKeyPolicy::Error,
        merge_keys: MergeKeyPolicy::Error,
        reject_unsupported_tags: true,
        with_snippet: false,
    }
}

/// serde-saphyr's message in our words where it matters, and without the place, which stands in front.
fn explain(error: &serde_saphyr::Error) -> (Option<Place>, String, bool) {
    use serde_saphyr::Error as E;
    let place = error.location().map(place).filter(|p| p.line != 0);
    let mut error = error;
    while let E::AliasError { error: inner, .. } = error {
        error = inner.without_snippet();
    }
    let (message, too_large) = match error {
        E::Budget { breach, .. } => match breach {
            BudgetBreach::Documents { .. } => (
                "there is more than one document; remove everything from the second \"---\" on".to_owned(),
                false,
            ),
            BudgetBreach::Depth { .. } => (too_deep(), true),
            BudgetBreach::Anchors { .. } | BudgetBreach::Aliases { .. } => {
                (too_many("anchors and aliases"), true)
            }
            _ => (too_many("values"), true),
        },
        E::AliasReplayLimitExceeded { .. }
        | E::AliasExpansionLimitExceeded { .. }
        | E::AliasReplayStackDepthExceeded { .. } => {
            (too_many("values once its aliases are written out"), true)
        }
        E::DuplicateMappingKey { key, .. } => {
            let key = crate::error::quote(key.as_deref().unwrap_or("?"));
            (format!("key {key} is given twice; remove one"), false)
        }
        E::MergeKeyNotAllowed { .. } => {
            ("merge keys (<<) are not read; write the fields out".to_owned(), false)
        }
        _ => match plain(error) {
            // The scanner's own limit on nesting comes before the budget's, and has no variant.
            text if text.contains("recursion limit") => (too_deep(), true),
            text => (text, false),
        },
    };
    (place, message, too_large)
}

fn too_deep() -> String {
    format!("the document is nested deeper than {MAX_DEPTH} levels")
}

fn too_many(what: &str) -> String {
    format!("the document has more {what} than a manifest needs")
}

fn plain(error: &serde_saphyr::Error) -> String {
    let text = error.to_string();
    let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(before, _)| before);
    text.lines().next().unwrap_or_default().trim_end_matches([',', ':', '.']).to_owned()
}

/// The place after these bytes, which are UTF-8.
fn place_at(before: &[u8]) -> Place {
    let line = before.iter().filter(|&&b| b == b'\n').count() + 1;
    let start = before.iter().rposition(|&b| b == b'\n').map_or(0, |p| p + 1);
    let column = String::from_utf8_lossy(&before[start..]).chars().count() + 1;
    Place { line: line as u64, column: column as u64 }
}

fn place(location: Location) -> Place {
    Place { line: location.line(), column: location.column() }
}

/// A node as serde-saphyr tells it: plain scalars that look like numbers lose their spelling, which is then taken from the source.
enum Raw {
    Null,
    Str(String),
    /// A number or boolean; the text is a fallback.
    Typed(String),
    Seq(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<Raw>, Spanned<Raw>)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyNode;
        impl<'de> Visitor<'de> for AnyNode {
            type Value = Raw;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a YAML node")
            }
            fn visit_unit<E>(self) -> Result<Raw, E> {
                Ok(Raw::Null)
            }
            fn visit_none<E>(self) -> Result<Raw, E> {
                Ok(Raw::Null)
            }
            fn visit_str<E>(self, v: &str) -> Result<Raw, E> {
                Ok(Raw::Str(v.to_owned()))
            }
            fn visit_bool<E>(self, v: bool) -> Result<Raw, E> {
                Ok(Raw::Typed(v.to_string()))
            }
            fn visit_i64<E>(self, v: i64) -> Result<Raw, E> {
                Ok(Raw::Typed(v.to_string()))
            }
            fn visit_i128<E>(self, v: i128) -> Result<Raw, E> {
                Ok(Raw::Typed(v.to_string()))
            }
            fn visit_u64<E>(self, v: u64) -> Result<Raw, E> {
                Ok(Raw::Typed(v.to_string()))
            }
            fn visit_u128<E>(self, v: u128) -> Result<Raw, E> {
                Ok(Raw::Typed(v.to_string()))
            }
            fn visit_f64<E>(self, v: f64) -> Result<Raw, E> {
                Ok(Raw::Typed(v.to_string()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Raw, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Raw::Seq(items))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Raw::Map(entries))
            }
        }
        deserializer.deserialize_any(AnyNode)
    }
}

/// Depth is bounded by the budget, so recursion is.
fn convert(raw: Spanned<Raw>, source: &str, file: &str) -> Result<Node, Problem> {
    let place = place(raw.referenced);
    let written = slice(source, raw.defined);
    let kind = match raw.value {
        Raw::Null => Kind::Null,
        Raw::Str(text) => Kind::Scalar { plain: written == Some(text.as_str()), text },
        Raw::Typed(fallback) => {
            let text =
                written.filter(|w| !w.is_empty() && !w.contains(['\n', '"', '\'', '!'])).map(str::to_owned);
            Kind::Scalar { text: text.unwrap_or(fallback), plain: true }
        }
        Raw::Seq(items) => {
            Kind::Seq(items.into_iter().map(|i| convert(i, source, file)).collect::<Result<_, _>>()?)
        }
        Raw::Map(entries) => {
            let mut converted: Vec<(Key, Node)> = Vec::with_capacity(entries.len());
            for (key, value) in entries {
                let key = convert(key, source, file)?;
                let Kind::Scalar { text, .. } = key.kind else {
                    return Err(Problem {
                        file: file.to_owned(),
                        place: Some(key.place),
                        field: String::new(),
                        message: format!("{} cannot be a key", key.kind.describe()),
                        fix: "write a plain word before the colon".to_owned(),
                    });
                };
                converted.push((Key { place: key.place, text }, convert(value, source, file)?));
            }
            Kind::Map(converted)
        }
    };
    Ok(Node { place, kind })
}

fn slice(source: &str, location: Location) -> Option<&str> {
    let span = location.span();
    let start = usize::try_from(span.byte_offset()?).ok()?;
    let len = usize::try_from(span.byte_len()?).ok()?;
    source.get(start..start.checked_add(len)?).map(str::trim)
}

/// Never constructed; says to serde's derive that errors are texts.
impl de::Error for Problem {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self {
            file: String::new(),
            place: None,
            field: String::new(),
            message: message.to_string(),
            fix: String::new(),
        }
    }
}
impl std::error::Error for Problem {}
