//! Values that may be written in two ways: as one word, or in full.

use std::fmt;
use std::marker::PhantomData;

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserialize, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor};

/// One word, or a mapping.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum WordOr<W, M> {
    /// In short.
    Word(W),
    /// In full.
    Full(M),
}

/// A list, or a mapping.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum ListOr<M> {
    /// A list of texts.
    List(Vec<String>),
    /// In full.
    Full(M),
}

/// A text, or a list of texts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum TextOrList {
    /// One text, split as a shell splits words.
    Text(String),
    /// The words.
    List(Vec<String>),
}

impl<'de, W: Deserialize<'de>, M: Deserialize<'de>> Deserialize<'de> for WordOr<W, M> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Shape<W, M>(PhantomData<(W, M)>);
        impl<'de, W: Deserialize<'de>, M: Deserialize<'de>> Visitor<'de> for Shape<W, M> {
            type Value = WordOr<W, M>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a word or a mapping")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
                W::deserialize(text.into_deserializer()).map(WordOr::Word)
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                M::deserialize(MapAccessDeserializer::new(map)).map(WordOr::Full)
            }
        }
        deserializer.deserialize_any(Shape(PhantomData))
    }
}

impl<'de, M: Deserialize<'de>> Deserialize<'de> for ListOr<M> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Shape<M>(PhantomData<M>);
        impl<'de, M: Deserialize<'de>> Visitor<'de> for Shape<M> {
            type Value = ListOr<M>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list or a mapping")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(seq)).map(ListOr::List)
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                M::deserialize(MapAccessDeserializer::new(map)).map(ListOr::Full)
            }
        }
        deserializer.deserialize_any(Shape(PhantomData))
    }
}

impl<'de> Deserialize<'de> for TextOrList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Shape;
        impl<'de> Visitor<'de> for Shape {
            type Value = TextOrList;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a list of texts")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(TextOrList::Text(text.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(seq)).map(TextOrList::List)
            }
        }
        deserializer.deserialize_any(Shape)
    }
}

/// For the schema: a text that may stand without quotes when it looks like a number or a boolean.
pub(crate) struct Scalar;

impl JsonSchema for Scalar {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Scalar".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": ["string", "number", "boolean"] })
    }
}

/// US dollars, to the millionth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Usd {
    /// Millionths of a dollar.
    pub micros: u64,
}

impl Usd {
    /// A million dollars: more is a mistake.
    const MAX_MICROS: u64 = 1_000_000_000_000;

    fn parse(text: &str) -> Option<Self> {
        let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(part) || whole.len() > 7 || part.len() > 6 {
            return None;
        }
        let part: u64 = format!("{part:0<6}").parse().ok()?;
        let micros = whole.parse::<u64>().ok()? * 1_000_000 + part;
        (micros <= Self::MAX_MICROS).then_some(Self { micros })
    }
}

impl fmt::Display for Usd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{}.{:06}", self.micros / 1_000_000, self.micros % 1_000_000);
        f.write_str(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

impl<'de> Deserialize<'de> for Usd {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Amount;
        impl Visitor<'_> for Amount {
            type Value = Usd;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an amount of US dollars, such as 0.10")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Usd, E> {
                Usd::parse(text).ok_or_else(|| {
                    E::custom(format!(
                        "{} is not an amount of US dollars; write 0 to 1000000 with at most 6 decimals, such as 0.10",
                        crate::error::quote(text)
                    ))
                })
            }
        }
        deserializer.deserialize_any(Amount)
    }
}

impl Serialize for Usd {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // 12 digits at most: a double holds them exactly enough to print them again.
        let number: f64 = self.to_string().parse().map_err(serde::ser::Error::custom)?;
        serializer.serialize_f64(number)
    }
}

impl JsonSchema for Usd {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Usd".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": ["number", "string"],
            "description": "US dollars, at most 6 decimals.",
            "minimum": 0,
            "maximum": 1_000_000,
            "pattern": "^[0-9]{1,7}(\\.[0-9]{1,6})?$"
        })
    }
}

/// `none`, `optional`, `required`, or how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Gpu {
    /// None.
    None,
    /// One when there is one.
    Optional,
    /// This many, at least 1; the agent does not start without. `required` is 1.
    Count(u8),
}

impl Gpu {
    /// The most that one agent may ask for.
    pub const MAX: u8 = 64;
}

impl fmt::Display for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Optional => f.write_str("optional"),
            Self::Count(1) => f.write_str("required"),
            Self::Count(n) => write!(f, "{n}"),
        }
    }
}

impl<'de> Deserialize<'de> for Gpu {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Word;
        impl Visitor<'_> for Word {
            type Value = Gpu;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("none, optional, required or a number of GPUs")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Gpu, E> {
                match text {
                    "none" | "0" => Ok(Gpu::None),
                    "optional" => Ok(Gpu::Optional),
                    "required" => Ok(Gpu::Count(1)),
                    _ => match text.parse::<u8>() {
                        Ok(n @ 1..=Gpu::MAX) if text.bytes().all(|b| b.is_ascii_digit()) => Ok(Gpu::Count(n)),
                        _ => Err(E::custom(format!(
                            "{} is not a GPU request; write none, optional, required, or a number from 1 to {}",
                            crate::error::quote(text),
                            Gpu::MAX
                        ))),
                    },
                }
            }
        }
        deserializer.deserialize_any(Word)
    }
}

impl Serialize for Gpu {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Count(n) if *n > 1 => serializer.serialize_u8(*n),
            other => serializer.collect_str(other),
        }
    }
}

impl JsonSchema for Gpu {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Gpu".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "anyOf": [
                { "enum": ["none", "optional", "required"] },
                { "type": "integer", "minimum": 0, "maximum": Self::MAX }
            ]
        })
    }
}
