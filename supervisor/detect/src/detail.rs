//! A record's detail, read for rules alone: its texts stay where they are, and what rules cannot ask for is passed over.
//!
//! Neighbours: [`crate::Fields`] is how rules ask. What the whole of a detail says is known to `serde_json`.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::event::{Field, Fields};

/// The fields of a JSON object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Detail<'a>(Vec<(Cow<'a, str>, Option<Field<'a>>)>);

impl<'a> Detail<'a> {
    /// Reads an object.
    ///
    /// # Errors
    /// When it is none.
    pub fn read(text: &'a str) -> serde_json::Result<Self> {
        serde_json::from_str(text)
    }
}

impl Fields for Detail<'_> {
    fn field(&self, name: &str) -> Option<Field<'_>> {
        // Of two with one name the last one counts.
        let (_, field) = self.0.iter().rfind(|(known, _)| known == name)?;
        field.as_ref().map(Field::as_ref)
    }
}

struct Object;
struct Any;

/// A name, where it stands if it can.
struct Name<'a>(Cow<'a, str>);
/// A field's value.
struct Told<'a>(Option<Field<'a>>);

impl<'de: 'a, 'a> Deserialize<'de> for Detail<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(Object).map(Self)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Name<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match from.deserialize_str(Any)? {
            Told(Some(Field::Text(name))) => Ok(Self(name)),
            _ => Ok(Self(Cow::Borrowed(""))),
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Told<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Any)
    }
}

impl<'de> Visitor<'de> for Object {
    type Value = Vec<(Cow<'de, str>, Option<Field<'de>>)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Self::Value, A::Error> {
        // As many as the longest kind has.
        let mut fields = Vec::with_capacity(24);
        while let Some((Name(name), Told(field))) = from.next_entry()? {
            fields.push((name, field));
        }
        Ok(fields)
    }
}

impl<'de> Visitor<'de> for Any {
    type Value = Told<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Told<'de>, E> {
        Ok(Told(Some(Field::Text(Cow::Borrowed(text)))))
    }

    fn visit_str<E>(self, text: &str) -> Result<Told<'de>, E> {
        Ok(Told(Some(Field::Text(Cow::Owned(text.to_owned())))))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Told<'de>, E> {
        Ok(Told(Some(Field::Number(number))))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Told<'de>, E> {
        Ok(Told(Some(Field::Number(i64::try_from(number).unwrap_or(i64::MAX)))))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Told<'de>, E> {
        let number = serde_json::Number::from_f64(number).map(|number| number.to_string());
        Ok(Told(number.map(|number| Field::Text(Cow::Owned(number)))))
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Told<'de>, E> {
        Ok(Told(Some(Field::Flag(flag))))
    }

    fn visit_unit<E>(self) -> Result<Told<'de>, E> {
        Ok(Told(None))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Told<'de>, A::Error> {
        while from.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Told(None))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Told<'de>, A::Error> {
        let mut words = String::new();
        let mut any = false;
        while let Some(Told(item)) = from.next_element()? {
            // Texts alone are words: numbers stay, and inner lists are none.
            if let Some(Field::Text(word)) = item {
                if any {
                    words.push(' ');
                }
                words.push_str(&word);
                any = true;
            }
        }
        Ok(Told(Some(Field::Text(Cow::Owned(words)))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Map, Value};

    /// What both readers say of every field, and of one that is not there.
    fn agree(text: &str) {
        let whole: Map<String, Value> = serde_json::from_str(text).unwrap();
        let read = Detail::read(text).unwrap();
        for name in whole.keys().map(String::as_str).chain(["not there"]) {
            assert_eq!(read.field(name), whole.field(name), "{name} of {text}");
        }
    }

    #[test]
    fn it_says_what_the_whole_says() {
        agree(
            r#"{"a":"x","b":1,"c":-1,"d":true,"e":null,"f":{"a":[1,{"b":2}]},"g":["sh","-c","x y"],"h":[]}"#,
        );
        agree(
            r#"{"tab":"a\tb","\u006eame":"x","big":18446744073709551615,"real":0.5,"mixed":["a",1,"b",null]}"#,
        );
        agree(r#"{"twice":1,"twice":"two"}"#);
        agree("{}");
        assert!(
            Detail::read("[]").is_err() && Detail::read("{").is_err() && Detail::read(r#"{"a":1}x"#).is_err()
        );
    }

    #[test]
    fn texts_stay_where_they_are() {
        let read = Detail::read(r#"{"comm":"sh","told":"a\nb"}"#).unwrap();
        let borrowed = |name| {
            matches!(
                read.0.iter().find(|(known, _)| known == name),
                Some((_, Some(Field::Text(Cow::Borrowed(_)))))
            )
        };
        assert!(borrowed("comm") && !borrowed("told"));
        assert_eq!(read.field("told"), Some(Field::Text(Cow::Borrowed("a\nb"))));
    }
}
