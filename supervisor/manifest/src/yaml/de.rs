//! A serde deserializer over located nodes.
//!
//! Errors start bare and get field and place from the innermost node that they pass on the way up. Unknown fields and
//! variants get a suggestion.

use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, Expected, IntoDeserializer, Unexpected, Visitor,
};

use super::tree::{Key, Kind, Node};
use crate::error::{Place, Problem, did_you_mean, quote};

/// Faults of one document that are told at most.
const MAX_FAULTS: usize = 64;

/// Reads a whole document into a type.
pub(crate) fn from_node<T: DeserializeOwned>(node: &Node, file: &str) -> Result<T, Problem> {
    T::deserialize(At { node, passed: &[] }).map_err(|fault| fault.problem(node, file))
}

/// As [`from_node`], with all that is wrong. serde stops at the first fault, so that what has it is passed over and the rest read again,
/// until it can be; none is read when the document as a whole is at fault.
pub(crate) fn all_from_node<T: DeserializeOwned>(node: &Node, file: &str) -> (Option<T>, Vec<Problem>) {
    let (mut passed, mut problems) = (Vec::new(), Vec::new());
    loop {
        let fault = match T::deserialize(At { node, passed: &passed }) {
            Ok(read) => return (Some(read), problems),
            Err(fault) => fault,
        };
        let found = fault.node(node);
        let field = fault.missing.and_then(|field| found?.get(field));
        // A field that is missing because it was passed over has been told.
        if field.is_none_or(|field| !is_among(&passed, field)) {
            problems.push(fault.problem(node, file));
        }
        match found {
            // What was passed over cannot be at fault once more; should it be, that is the end.
            Some(found) if !std::ptr::eq(found, node) && !is_among(&passed, found) => passed.push(found),
            _ => return (None, problems),
        }
        if problems.len() == MAX_FAULTS {
            return (None, problems);
        }
    }
}

/// The same, where nothing is read when something is wrong.
pub(crate) fn whole_from_node<T: DeserializeOwned>(node: &Node, file: &str) -> Result<T, Vec<Problem>> {
    match all_from_node(node, file) {
        (Some(read), problems) if problems.is_empty() => Ok(read),
        (_, problems) => Err(problems),
    }
}

fn is_among(nodes: &[&Node], one: &Node) -> bool {
    nodes.iter().any(|node| std::ptr::eq(*node, one))
}

/// An error on its way up.
#[derive(Debug)]
struct Fault {
    place: Option<Place>,
    /// From the innermost outwards.
    path: Vec<String>,
    message: String,
    fix: String,
    /// It is about a key, whose place it has, and not about what is at the path.
    key: bool,
    /// The field that is not there.
    missing: Option<&'static str>,
}

impl Fault {
    fn bare(message: String, fix: String) -> Self {
        Self { place: None, path: Vec::new(), message, fix, key: false, missing: None }
    }

    fn at(mut self, place: Place) -> Self {
        self.place.get_or_insert(place);
        self
    }

    fn inside(mut self, part: String) -> Self {
        self.path.push(part);
        self
    }

    fn problem(self, document: &Node, file: &str) -> Problem {
        Problem {
            file: file.to_owned(),
            place: self.place.or(Some(document.place)),
            field: self.path(),
            message: self.message,
            fix: self.fix,
        }
    }

    /// What has the fault: the value at the path, or of the key.
    fn node<'n>(&self, document: &'n Node) -> Option<&'n Node> {
        let mut node = document;
        for part in self.path.iter().rev() {
            node = match &node.kind {
                Kind::Seq(items) => items.get(part.trim_matches(['[', ']']).parse::<usize>().ok()?)?,
                _ => node.get(part)?,
            };
        }
        match &node.kind {
            Kind::Map(entries) if self.key => {
                entries.iter().find(|(key, _)| Some(key.place) == self.place).map(|(_, value)| value)
            }
            _ => Some(node),
        }
    }

    fn path(&self) -> String {
        let mut path = String::new();
        for part in self.path.iter().rev() {
            if !path.is_empty() && !part.starts_with('[') {
                path.push('.');
            }
            path.push_str(part);
        }
        path
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}
impl std::error::Error for Fault {}

fn choices(word: &str, known: &'static [&'static str]) -> String {
    match did_you_mean(word, known.iter().copied()) {
        Some(near) => format!("did you mean {near:?}?"),
        None if known.len() == 1 => format!("write {}", known[0]),
        None => format!("known here: {}", known.join(", ")),
    }
}

impl de::Error for Fault {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        // A message of ours may carry its fix after the first semicolon and space.
        let text = message.to_string();
        match text.split_once("; ") {
            Some((message, fix)) => Self::bare(message.to_owned(), fix.to_owned()),
            None => Self::bare(text, String::new()),
        }
    }
    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let found = match unexpected {
            Unexpected::Str(text) => quote(text),
            Unexpected::Seq => "a list".to_owned(),
            Unexpected::Map => "a mapping".to_owned(),
            Unexpected::Unit | Unexpected::Option => "nothing".to_owned(),
            other => other.to_string(),
        };
        Self::bare(format!("expected {expected}, found {found}"), String::new())
    }
    fn invalid_value(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(unexpected, expected)
    }
    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self::bare(format!("unknown field {}", quote(field)), choices(field, expected))
    }
    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::bare(
            format!("{} is not known here", quote(variant)),
            format!("use one of: {}", expected.join(", ")),
        )
    }
    fn missing_field(field: &'static str) -> Self {
        Self { missing: Some(field), ..Self::bare(format!("{field} is missing"), String::new()) }
    }
    fn duplicate_field(field: &'static str) -> Self {
        Self::bare(format!("{field} is given twice"), String::new())
    }
}

/// A node that is being read.
#[derive(Clone, Copy)]
struct At<'a> {
    node: &'a Node,
    /// What is read as if it were not there.
    passed: &'a [&'a Node],
}

impl At<'_> {
    fn wrong(self, expected: &str) -> Fault {
        Fault::bare(format!("expected {expected}, found {}", self.node.kind.describe()), String::new())
            .at(self.node.place)
    }

    fn scalar(&self, expected: &str) -> Result<(&str, bool), Fault> {
        match &self.node.kind {
            Kind::Scalar { text, plain } => Ok((text, *plain)),
            _ => Err(self.wrong(expected)),
        }
    }

    fn whole<T: std::str::FromStr>(self) -> Result<T, Fault> {
        let (text, plain) = self.scalar("a whole number")?;
        let digits = text.strip_prefix('-').unwrap_or(text);
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            let mut fault = self.wrong("a whole number");
            fault.fix = "write digits only, without a unit".to_owned();
            return Err(fault);
        }
        if !plain {
            let message = format!("expected a number, found the text {}", quote(text));
            return Err(Fault::bare(message, "remove the quotes".to_owned()).at(self.node.place));
        }
        text.parse().map_err(|_| {
            let problem = if text.starts_with('-') { "is negative" } else { "is too large" };
            Fault::bare(format!("{text} {problem}"), String::new()).at(self.node.place)
        })
    }
}

macro_rules! whole_numbers {
    ($($method:ident $visit:ident,)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            let place = self.node.place;
            visitor.$visit(self.whole()?).map_err(|f: Fault| f.at(place))
        }
    )*};
}

impl<'de> Deserializer<'de> for At<'_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let place = self.node.place;
        match &self.node.kind {
            Kind::Null => visitor.visit_unit(),
            Kind::Scalar { text, .. } => visitor.visit_str(text),
            Kind::Seq(items) => visitor.visit_seq(Items { items, passed: self.passed, next: 0 }),
            Kind::Map(entries) => visitor.visit_map(Entries { entries, passed: self.passed, next: 0 }),
        }
        .map_err(|f: Fault| f.at(place))
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.kind {
            Kind::Scalar { text, plain: true } if text == "true" => visitor.visit_bool(true),
            Kind::Scalar { text, plain: true } if text == "false" => visitor.visit_bool(false),
            Kind::Scalar { text, plain } => {
                let mut fault = self.wrong("true or false");
                fault.fix = match text.to_lowercase().as_str() {
                    "true" | "false" if !plain => "remove the quotes".to_owned(),
                    "true" | "yes" | "on" | "y" | "1" => "write true".to_owned(),
                    "false" | "no" | "off" | "n" | "0" => "write false".to_owned(),
                    _ => String::new(),
                };
                Err(fault)
            }
            _ => Err(self.wrong("true or false")),
        }
    }

    whole_numbers! {
        deserialize_u8 visit_u8, deserialize_u16 visit_u16, deserialize_u32 visit_u32, deserialize_u64 visit_u64,
        deserialize_i8 visit_i8, deserialize_i16 visit_i16, deserialize_i32 visit_i32, deserialize_i64 visit_i64,
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let (text, _) = self.scalar("a text")?;
        visitor.visit_str(text).map_err(|f: Fault| f.at(self.node.place))
    }
    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }
    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.node.kind {
            Kind::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.node.kind {
            Kind::Seq(_) => self.deserialize_any(visitor),
            // `secrets:` with nothing behind it has none.
            Kind::Null => visitor.visit_seq(Items { items: &[], passed: &[], next: 0 }),
            _ => Err(self.wrong("a list")),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.node.kind {
            Kind::Map(_) => self.deserialize_any(visitor),
            Kind::Null => visitor.visit_map(Entries { entries: &[], passed: &[], next: 0 }),
            _ => Err(self.wrong("a mapping")),
        }
    }
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self.node.kind {
            Kind::Map(_) => self.deserialize_any(visitor),
            _ => Err(self.wrong("a mapping")),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let (text, _) = self.scalar("a word")?;
        visitor.visit_enum(text.into_deserializer()).map_err(|f: Fault| f.at(self.node.place))
    }

    serde::forward_to_deserialize_any! {
        i128 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct ignored_any
    }
}

struct Items<'a> {
    items: &'a [Node],
    passed: &'a [&'a Node],
    next: usize,
}

impl<'de> de::SeqAccess<'de> for Items<'_> {
    type Error = Fault;
    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        while self.items.get(self.next).is_some_and(|node| is_among(self.passed, node)) {
            self.next += 1;
        }
        let Some(node) = self.items.get(self.next) else { return Ok(None) };
        let index = self.next;
        self.next += 1;
        seed.deserialize(At { node, passed: self.passed })
            .map(Some)
            .map_err(|f| f.at(node.place).inside(format!("[{index}]")))
    }
    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len() - self.next)
    }
}

struct Entries<'a> {
    entries: &'a [(Key, Node)],
    passed: &'a [&'a Node],
    next: usize,
}

impl<'de> de::MapAccess<'de> for Entries<'_> {
    type Error = Fault;
    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        while self.entries.get(self.next).is_some_and(|(_, node)| is_among(self.passed, node)) {
            self.next += 1;
        }
        let Some((key, _)) = self.entries.get(self.next) else { return Ok(None) };
        seed.deserialize(key.text.as_str().into_deserializer())
            .map(Some)
            .map_err(|f: Fault| Fault { key: true, ..f }.at(key.place))
    }
    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let Some((key, node)) = self.entries.get(self.next) else {
            return Err(de::Error::custom("a value without a key"));
        };
        self.next += 1;
        seed.deserialize(At { node, passed: self.passed })
            .map_err(|f| f.at(node.place).inside(key.text.clone()))
    }
}
