//! Quantities as Kubernetes writes them: `1000m` of CPU, `1Gi` of memory.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a text is not a quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Not a number with a known unit.
    #[error("{text:?} is not a {what}: write {example}")]
    Malformed {
        /// What was given.
        text: String,
        /// What was expected.
        what: &'static str,
        /// How it is written.
        example: &'static str,
    },
    /// Over what can be meant seriously.
    #[error("{text:?} is out of range: at most {max}")]
    OutOfRange {
        /// What was given.
        text: String,
        /// The largest accepted.
        max: &'static str,
    },
}

/// Bytes: a whole number with an optional unit Ki, Mi, Gi, Ti (1024) or k, M, G, T (1000).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ByteSize(pub u64);

impl FromStr for ByteSize {
    type Err = QuantityError;
    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let malformed = || QuantityError::Malformed {
            text: text.chars().take(40).collect(),
            what: "size in bytes",
            example: "a whole number with an optional unit Ki, Mi, Gi, Ti, k, M, G or T, such as 512Mi",
        };
        let (number, unit) = text.split_at(digits);
        let scale: u64 = match unit {
            "" => 1,
            "k" => 1000,
            "M" => 1_000_000,
            "G" => 1_000_000_000,
            "T" => 1_000_000_000_000,
            "Ki" => 1 << 10,
            "Mi" => 1 << 20,
            "Gi" => 1 << 30,
            "Ti" => 1 << 40,
            _ => return Err(malformed()),
        };
        if number.is_empty() {
            return Err(malformed());
        }
        number
            .parse::<u64>()
            .ok()
            .and_then(|n| n.checked_mul(scale))
            .filter(|&n| n <= 1 << 50)
            .map(Self)
            .ok_or_else(|| QuantityError::OutOfRange { text: text.chars().take(40).collect(), max: "1024Ti" })
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shift, unit) in [(40, "Ti"), (30, "Gi"), (20, "Mi"), (10, "Ki")] {
            if self.0 != 0 && self.0.trailing_zeros() >= shift {
                return write!(f, "{}{unit}", self.0 >> shift);
            }
        }
        write!(f, "{}", self.0)
    }
}

/// CPU in thousandths of one processor: `1000m`, `2`, `0.5`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CpuMillis(pub u32);

impl FromStr for CpuMillis {
    type Err = QuantityError;
    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let short: String = text.chars().take(40).collect();
        let malformed = || QuantityError::Malformed {
            text: short.clone(),
            what: "CPU quantity",
            example: "thousandths as 500m, or processors as 2 or 0.5",
        };
        let digits = |s: &str| !s.is_empty() && s.len() <= 9 && s.bytes().all(|b| b.is_ascii_digit());
        let millis = if let Some(m) = text.strip_suffix('m') {
            if !digits(m) {
                return Err(malformed());
            }
            m.parse::<u64>().map_err(|_| malformed())?
        } else {
            let (whole, frac) = text.split_once('.').unwrap_or((text, "0"));
            if !digits(whole) || !digits(frac) || frac.len() > 3 {
                return Err(malformed());
            }
            let scale = 10u64.pow(3 - u32::try_from(frac.len()).map_err(|_| malformed())?);
            whole.parse::<u64>().map_err(|_| malformed())? * 1000
                + frac.parse::<u64>().map_err(|_| malformed())? * scale
        };
        match u32::try_from(millis) {
            Ok(m @ 1..=1_024_000) => Ok(Self(m)),
            _ => Err(QuantityError::OutOfRange { text: short, max: "1024 processors, at least 1m" }),
        }
    }
}

impl fmt::Display for CpuMillis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}m", self.0)
    }
}

macro_rules! via_text {
    ($($name:ident),*) => {$(
        impl TryFrom<String> for $name {
            type Error = QuantityError;
            fn try_from(text: String) -> Result<Self, QuantityError> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(q: $name) -> String {
                q.to_string()
            }
        }
        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                // Without a unit it may stand without quotes.
                schemars::json_schema!({ "type": ["string", "number"], "minimum": 0, "pattern": Self::PATTERN })
            }
        }
    )*};
}
via_text!(ByteSize, CpuMillis);

impl ByteSize {
    /// The pattern for JSON Schema.
    pub const PATTERN: &'static str = "^[0-9]+(Ki|Mi|Gi|Ti|k|M|G|T)?$";
}
impl CpuMillis {
    /// The pattern for JSON Schema.
    pub const PATTERN: &'static str = "^([0-9]{1,9}m|[0-9]{1,9}(\\.[0-9]{1,3})?)$";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!("1Gi".parse(), Ok(ByteSize(1 << 30)));
        assert_eq!("512".parse(), Ok(ByteSize(512)));
        assert_eq!(ByteSize(1 << 30).to_string(), "1Gi");
        assert_eq!(ByteSize(1500).to_string(), "1500");
        for bad in ["", "Gi", "1gi", "-1", "1.5Gi", "1 Gi", "99999999999999999999", "2000Ti"] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad}");
        }
    }

    #[test]
    fn cpus() {
        assert_eq!("1000m".parse(), Ok(CpuMillis(1000)));
        assert_eq!("2".parse(), Ok(CpuMillis(2000)));
        assert_eq!("0.25".parse(), Ok(CpuMillis(250)));
        for bad in ["", "m", "0", "0m", "1.2345", "-1", "1e3", "2000000", "."] {
            assert!(bad.parse::<CpuMillis>().is_err(), "{bad}");
        }
    }
}
