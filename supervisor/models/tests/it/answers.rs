//! Answers in one piece: what is sent, what comes back, what it costs, what is kept.

use std::io::Write as _;
use std::time::{Duration, Instant};

use aion_models::{Call, Kind, Privacy, Request, Tokens};
use serde_json::json;

use crate::backend::{Backend, Reply, completion};
use crate::{KEY, ask, body, models, plan};

#[tokio::test]
async fn a_completion() {
    let backend = Backend::start(vec![Reply::Normal]).await;
    let models = models(&backend, |_| ());
    let answer = ask(&models).await.unwrap();
    assert_eq!(answer.body["choices"][0]["message"]["content"], "Hello");
    assert_eq!(answer.body["model"], "m");
    assert!(!answer.body.to_string().contains("secret-upstream-name"));
    assert_eq!(answer.usage.tokens, Tokens { input: 12, output: 5 });
    assert_eq!(answer.usage.usd_micros, 12 + 2 * 5);
    assert!(!answer.usage.estimated && !answer.cached && answer.local);
    assert_eq!((answer.attempts, answer.model.as_str()), (1, "m"));

    let seen = backend.seen().remove(0);
    assert_eq!(seen.path, "/v1/chat/completions");
    assert_eq!(seen.headers["authorization"], format!("Bearer {KEY}"));
    assert_eq!(seen.headers["content-type"], "application/json");
    let mut sent = body(json!({"max_tokens": 4096}));
    sent["model"] = json!("secret-upstream-name");
    assert_eq!(seen.body, sent);

    let metrics = models.metrics().remove(0);
    assert_eq!((metrics.calls, metrics.errors, metrics.tokens_in, metrics.tokens_out), (1, 0, 12, 5));
    assert_eq!((metrics.usd_micros, metrics.cache_hits, metrics.retries), (22, 0, 0));
}

#[tokio::test]
async fn embeddings() {
    let backend = Backend::start(vec![Reply::Normal]).await;
    let models = models(&backend, |config| config.kinds.push(Kind::Embed));
    let request =
        Request::from_value(Kind::Embed, json!({"model": "m", "input": ["one two", "three"], "user": "u"}));
    let plan = models.plan(&request.unwrap(), Privacy::default()).unwrap();
    let most = plan.quote().usd_micros_max;
    let answer = models.answer(plan, &Call::default()).await.unwrap();
    assert_eq!(answer.body["data"][0]["embedding"], json!([0.5, -0.5]));
    assert_eq!(answer.body["model"], "m");
    assert_eq!(answer.usage.tokens, Tokens { input: 3, output: 0 });
    assert!(answer.usage.usd_micros == 3 && most >= 3);
    let seen = backend.seen().remove(0);
    assert_eq!(seen.path, "/v1/embeddings");
    let sent = json!({"model": "secret-upstream-name", "input": ["one two", "three"], "user": "u"});
    assert_eq!(seen.body, sent, "an embedding carries no max_tokens");
}

/// What a chat template puts around a conversation of one message, in tokens; a long one.
const TEMPLATE: usize = 500;

/// A backend that takes all that it is allowed: a token for each byte of the prompt, and every token of output.
#[tokio::test]
async fn a_quote_is_never_exceeded() {
    let backend = Backend::start(vec![Reply::Normal]).await;
    let models = models(&backend, |config| config.max_output_tokens = 300);
    let prompts = ["", "a", "Grüße, 日本 😀", &"x\n\"".repeat(3000)];
    for (at, prompt) in prompts.into_iter().enumerate() {
        let more = json!({"messages": [{"role": "user", "content": prompt}], "n": at + 1, "max_tokens": 200 * at + 1});
        let planned = plan(&models, more);
        let quote = planned.quote().clone();
        models.answer(planned, &Call::default()).await.unwrap();
        let sent = backend.seen().pop().unwrap().body;
        let greedy = json!({"choices": [], "usage": {
            "prompt_tokens": (TEMPLATE + prompt.len()).min(8192),
            "completion_tokens": sent["max_tokens"].as_u64().unwrap() * sent["n"].as_u64().unwrap()}});
        backend.script(vec![Reply::json(&greedy)]);
        let again = plan(
            &models,
            json!({"messages": [{"role": "user", "content": prompt}], "n": at + 1, "max_tokens": 200 * at + 1}),
        );
        let answer = models.answer(again, &Call::default()).await.unwrap();
        assert!(quote.usd_micros_max >= answer.usage.usd_micros, "{quote:?} {:?}", answer.usage);
        assert!(quote.tokens_max >= answer.usage.tokens.total());
        backend.script(vec![Reply::Normal]);
    }
}

#[tokio::test]
async fn without_usage_it_is_estimated() {
    let mut silent = completion("four words of output");
    silent.as_object_mut().unwrap().remove("usage");
    let backend = Backend::start(vec![Reply::json(&silent)]).await;
    let models = models(&backend, |_| ());
    let planned = plan(&models, json!({}));
    let quote = planned.quote().clone();
    let answer = models.answer(planned, &Call::default()).await.unwrap();
    assert!(answer.usage.estimated);
    // 18 and 20 bytes of text, and what is written around them.
    assert!((15..30).contains(&answer.usage.tokens.input), "{:?}", answer.usage);
    assert!((5..20).contains(&answer.usage.tokens.output), "{:?}", answer.usage);
    assert!(answer.usage.usd_micros < quote.usd_micros_max);
}

#[tokio::test]
async fn answers_are_kept_for_their_scope_and_time() {
    let backend = Backend::start(vec![Reply::Normal]).await;
    let models = models(&backend, |config| config.cache_ttl_s = 1);
    let ask = async |scope: &str, more| models.answer(plan(&models, more), &Call::new(scope)).await.unwrap();
    let first = ask("acme", json!({"seed": 1, "top_p": 1})).await;
    let start = Instant::now();
    let second = ask("acme", json!({"top_p": 1, "seed": 1})).await;
    assert!(!first.cached && second.cached);
    assert_eq!(second.body, first.body);
    assert_eq!((second.usage.usd_micros, second.usage.tokens.total(), second.attempts), (0, 0, 0));
    assert_eq!(backend.count(), 1);
    assert!(!ask("other", json!({"seed": 1, "top_p": 1})).await.cached, "another tenant's");
    assert!(!ask("acme", json!({"seed": 2, "top_p": 1})).await.cached, "another question");
    assert_eq!(models.metrics()[0].cache_hits, 1);
    assert_eq!(models.metrics()[0].usd_micros, 3 * 22);
    tokio::time::sleep(Duration::from_millis(1050).saturating_sub(start.elapsed())).await;
    assert!(!ask("acme", json!({"seed": 1, "top_p": 1})).await.cached, "too old");
}

#[tokio::test]
async fn without_a_ttl_nothing_is_kept_and_errors_never_are() {
    let backend = Backend::start(vec![Reply::Normal]).await;
    let plain = models(&backend, |_| ());
    ask(&plain).await.unwrap();
    assert!(!ask(&plain).await.unwrap().cached);
    backend.script(vec![Reply::status(400, "no"), Reply::Normal]);
    let keeping = models(&backend, |config| config.cache_ttl_s = 60);
    ask(&keeping).await.unwrap_err();
    assert!(!ask(&keeping).await.unwrap().cached);
}

/// Not a bound that a shared machine keeps; run it alone to see the figure.
#[tokio::test]
#[ignore = "a measurement"]
async fn overhead() {
    let backend = Backend::start(vec![Reply::Normal]).await;
    let models = models(&backend, |_| ());
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let (mut direct, mut through) = (Vec::new(), Vec::new());
    for _ in 0..1000 {
        let start = Instant::now();
        let url = format!("{}/chat/completions", backend.url());
        client.post(url).json(&body(json!({}))).send().await.unwrap().bytes().await.unwrap();
        direct.push(start.elapsed());
        let start = Instant::now();
        ask(&models).await.unwrap();
        through.push(start.elapsed());
    }
    direct.sort_unstable();
    through.sort_unstable();
    writeln!(
        std::io::stderr(),
        "p50 {:?} over {:?}, p95 {:?} over {:?}",
        through[500],
        direct[500],
        through[950],
        direct[950]
    )
    .unwrap();
    assert!(through[950].saturating_sub(direct[950]) < Duration::from_millis(5));
}
