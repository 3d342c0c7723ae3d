//! Tokens, and what they cost.

use serde_json::Value;

use crate::ModelConfig;

/// Token counts of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tokens {
    /// Of the prompt, or of an embedding's input.
    pub input: u64,
    /// Of the output, reasoning included.
    pub output: u64,
}

impl Tokens {
    /// Both together.
    #[must_use]
    pub const fn total(self) -> u64 {
        self.input.saturating_add(self.output)
    }

    /// Reads OpenAI's `usage` object. Prompt tokens must be there; an embedding has no output.
    pub(crate) fn from_usage(usage: &Value) -> Option<Self> {
        let input = usage.get("prompt_tokens")?.as_u64()?;
        let output = usage.get("completion_tokens").and_then(Value::as_u64).unwrap_or(0);
        Some(Self { input, output })
    }
}

/// What a call consumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// The tokens.
    pub tokens: Tokens,
    /// Their price in millionths of a dollar, rounded up.
    pub usd_micros: u64,
    /// Whether the backend gave no counts, and these are estimated: from the bytes of an answer that came to its end, from
    /// above for one that was cut off.
    pub estimated: bool,
}

/// The price of tokens in millionths of a dollar. It grows with both counts and rounds up once, so a bound on tokens
/// gives a bound on cost.
pub(crate) fn usd_micros(config: &ModelConfig, tokens: Tokens) -> u64 {
    let part = |count: u64, price: u64| u128::from(count) * u128::from(price);
    let sum = part(tokens.input, config.usd_per_mtok_in)
        .saturating_add(part(tokens.output, config.usd_per_mtok_out));
    u64::try_from(sum.div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_round_up_once_and_do_not_overflow() {
        let mut config = ModelConfig::new("m", "http://localhost", 10);
        config.usd_per_mtok_in = 150_000;
        config.usd_per_mtok_out = 600_000;
        // $0.15 and $0.60 per million: a million of each is 0.75 dollars.
        let million = Tokens { input: 1_000_000, output: 1_000_000 };
        assert_eq!(usd_micros(&config, million), 750_000);
        assert_eq!(usd_micros(&config, Tokens { input: 1, output: 1 }), 1);
        assert_eq!(usd_micros(&config, Tokens::default()), 0);
        config.usd_per_mtok_in = u64::MAX;
        assert_eq!(usd_micros(&config, Tokens { input: u64::MAX, output: 1 }), u64::MAX);
    }

    #[test]
    fn reads_usage() {
        let read = |text: &str| Tokens::from_usage(&serde_json::from_str(text).unwrap());
        let both = r#"{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}"#;
        assert_eq!(read(both), Some(Tokens { input: 3, output: 4 }));
        assert_eq!(read(r#"{"prompt_tokens":3,"total_tokens":3}"#), Some(Tokens { input: 3, output: 0 }));
        assert_eq!(read(r#"{"prompt_tokens":-3}"#), None);
        assert_eq!(read("null"), None);
    }
}
