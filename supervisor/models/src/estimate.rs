//! What a call took whose backend does not say: counted from the bytes that went there and came back.
//!
//! Vocabularies hold four bytes of ordinary words in a token, and of what is no letter a byte each at worst. That is right for most calls
//! and low for words that are made to be dear, so it holds for answers that came to their end alone: one that was cut off is charged from above, or whoever
//! cuts it off would choose the price. Never more than the plan's bounds.

use crate::{OutputLimit, Plan, Tokens};

/// Bytes of text that a token stands for, on average.
const TOKEN_BYTES: u64 = 4;

/// What came of an answer, as far as it can be seen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    /// Bytes of text.
    pub(crate) bytes: u64,
    /// Pieces that brought some; each is a token at least.
    pub(crate) pieces: u64,
    /// Whether it came to its end.
    pub(crate) whole: bool,
}

/// The tokens of a call.
pub(crate) fn tokens(plan: &Plan, seen: Seen) -> Tokens {
    let most = plan.quote.tokens;
    let (input, output) = if seen.whole {
        let input = plan.prompt_quarters().map_or(most.input, |quarters| quarters.div_ceil(TOKEN_BYTES));
        let output = seen.bytes.div_ceil(TOKEN_BYTES).max(seen.pieces);
        (input, if plan.predicts() { most.output } else { output })
    } else {
        (most.input, seen.bytes)
    };
    let output = match plan.model.config.output_limit {
        OutputLimit::MaxTokens => output.min(most.output),
        // These models think unseen, so what is seen says nothing.
        OutputLimit::MaxCompletionTokens => most.output,
    };
    Tokens { input: input.min(most.input), output }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{Kind, ModelConfig, Models, Options, Privacy, Request};

    fn plan(limit: OutputLimit, kind: Kind, body: Value) -> Plan {
        let models = Models::new(Options::default()).unwrap();
        let mut config = ModelConfig::new("m", "http://localhost:1/v1", 8192);
        config.local = true;
        config.kinds = vec![kind];
        config.output_limit = limit;
        models.put(config, None).unwrap();
        models.plan(&Request::from_value(kind, body).unwrap(), Privacy::default()).unwrap()
    }

    fn chat(content: Value) -> Value {
        json!({"model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": content}]})
    }

    fn whole(bytes: u64, pieces: u64) -> Seen {
        Seen { bytes, pieces, whole: true }
    }

    #[test]
    fn four_bytes_or_a_piece_are_a_token() {
        let plan = plan(OutputLimit::MaxTokens, Kind::Generate, chat(json!("x".repeat(400))));
        let input = tokens(&plan, whole(0, 0)).input;
        // The text, and what JSON puts around it.
        assert!((100..=120).contains(&input), "{input}");
        assert_eq!(tokens(&plan, whole(13, 1)).output, 4);
        assert_eq!(tokens(&plan, whole(13, 9)).output, 9, "a backend that sends each token by itself");
        assert_eq!(tokens(&plan, whole(4000, 1)).output, 100, "never more than the bound");
        let digits = self::plan(OutputLimit::MaxTokens, Kind::Generate, chat(json!("1".repeat(400))));
        assert!(tokens(&digits, whole(0, 0)).input >= 400, "each may be a token");
        let tools = json!([{"type": "function", "function": {"name": "f", "parameters": {}}}]);
        let mut with = chat(json!("x".repeat(400)));
        with["tools"] = tools;
        assert!(tokens(&self::plan(OutputLimit::MaxTokens, Kind::Generate, with), whole(0, 0)).input > input);
    }

    #[test]
    fn what_was_cut_off_is_charged_from_above() {
        let plan = plan(OutputLimit::MaxTokens, Kind::Generate, chat(json!("hello")));
        let cut = tokens(&plan, Seen { bytes: 13, pieces: 1, whole: false });
        assert_eq!(cut, Tokens { input: plan.quote.tokens.input, output: 13 });
    }

    #[test]
    fn where_bytes_say_nothing_the_bound_holds() {
        let picture = json!([{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]);
        let opaque = plan(OutputLimit::MaxTokens, Kind::Generate, chat(picture));
        assert_eq!(tokens(&opaque, whole(4, 1)), Tokens { input: 8192, output: 1 });
        let thinks = plan(OutputLimit::MaxCompletionTokens, Kind::Generate, chat(json!("hello")));
        assert_eq!(tokens(&thinks, whole(4, 1)).output, 100);
        let embed = json!({"model": "m", "input": "hello"});
        let embed = plan(OutputLimit::MaxTokens, Kind::Embed, embed);
        assert_eq!(tokens(&embed, whole(0, 0)), embed.quote.tokens);
    }
}
