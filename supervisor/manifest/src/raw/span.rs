//! Lengths of time as people write them: `250ms`, `30s`, `5m`, `12h`, `7d`.

use std::fmt;
use std::time::Duration;

use schemars::JsonSchema;
use serde::de::{Deserialize, Deserializer, Visitor};

/// A length of time, in milliseconds; at most ten years.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Span(pub u64);

/// Ten years.
const MAX_MS: u64 = 10 * 365 * 86_400_000;

impl Span {
    /// Reads one; none when it is none, or too long.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let scale = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "" if number == "0" => 1,
            _ => return None,
        };
        number.parse::<u64>().ok()?.checked_mul(scale).filter(|&ms| ms <= MAX_MS).map(Self)
    }

    /// The same for the standard library.
    #[must_use]
    pub const fn duration(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (scale, unit) in [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s")] {
            if self.0 != 0 && self.0.is_multiple_of(scale) {
                return write!(f, "{}{unit}", self.0 / scale);
            }
        }
        write!(f, "{}ms", self.0)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Length;
        impl Visitor<'_> for Length {
            type Value = Span;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a length of time, such as 30s")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Span, E> {
                Span::parse(text).ok_or_else(|| {
                    E::custom(format!(
                        "{} is not a length of time; write a whole number with ms, s, m, h or d, such as 30s",
                        crate::error::quote(text)
                    ))
                })
            }
        }
        deserializer.deserialize_any(Length)
    }
}

impl JsonSchema for Span {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Span".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": ["string", "integer"],
            "description": "A length of time: a whole number with ms, s, m, h or d.",
            "pattern": "^(0|[0-9]+(ms|s|m|h|d))$"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_read_and_print() {
        for (text, ms) in [("0", 0), ("250ms", 250), ("30s", 30_000), ("5m", 300_000), ("7d", 604_800_000)] {
            assert_eq!(Span::parse(text), Some(Span(ms)), "{text}");
        }
        assert_eq!(Span(300_000).to_string(), "5m");
        assert_eq!(Span(1500).to_string(), "1500ms");
        for bad in ["", "5", "s", "-1s", "1.5s", "99999999999d", "1 s"] {
            assert_eq!(Span::parse(bad), None, "{bad}");
        }
    }
}
