//! What goes wrong at a backend, and what callers see of it.

use std::time::{Duration, Instant};

use aion_models::{BreakerState, Call, Error};
use serde_json::json;

use crate::backend::{Backend, Reply, completion};
use crate::{KEY, ask, models, plan};

#[tokio::test]
async fn busy_then_fine() {
    let busy = Reply::Plain(429, vec![("retry-after-ms", "150".into())], "{}".into());
    let backend = Backend::start(vec![busy, Reply::status(500, "oops"), Reply::Normal]).await;
    let models = models(&backend, |_| ());
    let start = Instant::now();
    assert_eq!(ask(&models).await.unwrap().attempts, 3);
    assert!(start.elapsed() >= Duration::from_millis(150), "what the backend asks for is waited");
    assert_eq!(models.metrics()[0].retries, 2);
}

#[tokio::test]
async fn a_wait_beyond_the_deadline_is_not_begun() {
    let busy = Reply::Plain(429, vec![("retry-after", "60".into())], r#"{"error":"slow down"}"#.into());
    let backend = Backend::start(vec![busy]).await;
    let models = models(&backend, |_| ());
    let start = Instant::now();
    match ask(&models).await.unwrap_err() {
        Error::Upstream { status: 429, message, retry_after_ms: Some(60_000), .. } => {
            assert_eq!(message, "slow down");
        }
        other => panic!("{other}"),
    }
    assert!(start.elapsed() < Duration::from_secs(2) && backend.count() == 1);
}

#[tokio::test]
async fn the_callers_errors_are_not_repeated() {
    for status in [400, 404, 413, 422] {
        let backend = Backend::start(vec![Reply::status(status, "your fault")]).await;
        let models = models(&backend, |_| ());
        match ask(&models).await.unwrap_err() {
            Error::Upstream { status: seen, message, .. } => {
                assert_eq!((seen, message.as_str()), (status, "your fault"));
            }
            other => panic!("{other}"),
        }
        assert_eq!(backend.count(), 1);
        assert_eq!(models.metrics()[0].errors, 1);
    }
}

#[tokio::test]
async fn retries_are_bounded() {
    for status in [408, 429, 500, 503] {
        let backend = Backend::start(vec![Reply::status(status, "again")]).await;
        let models = models(&backend, |config| config.max_retries = 2);
        assert!(matches!(ask(&models).await, Err(Error::Upstream { status: seen, .. }) if seen == status));
        assert_eq!(backend.count(), 3);
    }
}

#[tokio::test]
async fn a_broken_connection_is_repeated() {
    let backend = Backend::start(vec![Reply::Broken, Reply::Normal]).await;
    assert_eq!(ask(&models(&backend, |_| ())).await.unwrap().attempts, 2);
}

#[tokio::test]
async fn nobody_listens() {
    let backend = Backend::start(vec![Reply::Normal]).await;
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let models = models(&backend, |config| config.url = format!("http://{free}/v1"));
    let error = ask(&models).await.unwrap_err();
    assert!(matches!(error, Error::Transport { sent: false, .. }) && !error.may_have_cost());
    assert!(!error.to_string().contains(&free.port().to_string()), "callers need no address: {error}");
}

#[tokio::test]
async fn the_circuit_opens_and_one_probe_closes_it() {
    let backend = Backend::start(vec![Reply::status(500, "down")]).await;
    let models = models(&backend, |config| config.max_retries = 0);
    for _ in 0..5 {
        assert!(matches!(ask(&models).await, Err(Error::Upstream { status: 500, .. })));
    }
    assert_eq!(models.metrics()[0].breaker, BreakerState::Open);
    match ask(&models).await.unwrap_err() {
        Error::Unavailable { model, retry_after_ms } => {
            assert!(model == "m" && (1..=1000).contains(&retry_after_ms));
        }
        other => panic!("{other}"),
    }
    assert_eq!(backend.count(), 5, "an open circuit asks nobody");

    tokio::time::sleep(Duration::from_millis(1020)).await;
    backend.script(vec![Reply::Normal]);
    let (one, other) = tokio::join!(ask(&models), ask(&models));
    assert!(one.is_ok() != other.is_ok(), "one probe at a time");
    assert_eq!(models.metrics()[0].breaker, BreakerState::Closed);
    assert!(ask(&models).await.is_ok());
}

#[tokio::test]
async fn refusals_keep_the_circuit_closed() {
    let backend = Backend::start(vec![Reply::status(400, "no")]).await;
    let models = models(&backend, |_| ());
    for _ in 0..8 {
        ask(&models).await.unwrap_err();
    }
    assert_eq!(models.metrics()[0].breaker, BreakerState::Closed);
}

#[tokio::test]
async fn a_hanging_backend_ends_at_the_deadline() {
    let backend = Backend::start(vec![Reply::Hang]).await;
    let models = models(&backend, |config| config.timeout_ms = 60_000);
    for _ in 0..6 {
        let start = Instant::now();
        let call = Call { scope: String::new(), deadline: Some(start + Duration::from_millis(200)) };
        let error = models.answer(plan(&models, json!({})), &call).await.unwrap_err();
        assert!(matches!(error, Error::Timeout { .. }) && error.may_have_cost());
        assert!(start.elapsed() < Duration::from_secs(2));
    }
    assert_eq!(backend.count(), 6, "a timeout is not repeated");
    let breaker = models.metrics()[0].breaker;
    assert_eq!(breaker, BreakerState::Closed, "a caller's haste is not the backend's failure");
}

#[tokio::test]
async fn dropping_a_call_ends_it_and_makes_room_for_the_next_probe() {
    let backend = Backend::start(vec![Reply::status(500, "down")]).await;
    let models = models(&backend, |config| config.max_retries = 0);
    for _ in 0..5 {
        ask(&models).await.unwrap_err();
    }
    tokio::time::sleep(Duration::from_millis(1020)).await;
    backend.script(vec![Reply::Hang, Reply::Normal]);
    assert!(tokio::time::timeout(Duration::from_millis(100), ask(&models)).await.is_err());
    assert!(backend.was_dropped().await, "the backend learns that nobody waits");
    assert!(ask(&models).await.is_ok());
}

#[tokio::test]
async fn the_models_own_timeout_is_the_backends_failure() {
    let backend = Backend::start(vec![Reply::Hang]).await;
    let models = models(&backend, |config| config.timeout_ms = 40);
    for _ in 0..5 {
        assert!(matches!(ask(&models).await, Err(Error::Timeout { .. })));
    }
    assert_eq!(models.metrics()[0].breaker, BreakerState::Open);
}

#[tokio::test]
async fn a_huge_answer_is_cut_off() {
    let backend = Backend::start(vec![Reply::Huge(64 << 20)]).await;
    let models = models(&backend, |_| ());
    assert!(matches!(ask(&models).await, Err(Error::TooLarge { limit, .. }) if limit == 16 << 20));
    assert_eq!(backend.count(), 1);
}

#[tokio::test]
async fn nonsense_is_a_bad_gateway() {
    for body in ["", "<html>", "{\"choices\": [", "[]", "{\"choices\": 1}", "{\"ok\": true}"] {
        let backend = Backend::start(vec![Reply::Plain(200, Vec::new(), body.into())]).await;
        let error = ask(&models(&backend, |_| ())).await.unwrap_err();
        assert!(matches!(error, Error::Upstream { status: 502, .. }), "{body}: {error}");
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = Backend::start(vec![Reply::Normal]).await;
    for status in [301, 302, 303, 307, 308] {
        let location = format!("{}/chat/completions", elsewhere.url());
        let backend =
            Backend::start(vec![Reply::Plain(status, vec![("location", location)], String::new())]).await;
        let error = ask(&models(&backend, |_| ())).await.unwrap_err();
        assert!(matches!(error, Error::Upstream { status: seen, .. } if seen == status), "{error}");
        assert_eq!(backend.count(), 1);
    }
    assert_eq!(elsewhere.count(), 0);
}

#[tokio::test]
async fn no_error_and_no_answer_shows_the_key() {
    let fragments = format!("{}****{}", &KEY[..8], &KEY[KEY.len() - 6..]);
    for (status, words) in [
        (400, format!("bad key {KEY} given")),
        (400, fragments.clone()),
        (401, format!("Incorrect API key provided: {fragments}")),
        (403, KEY.to_owned()),
        (500, format!("Authorization: Bearer {KEY}")),
    ] {
        for reply in [Reply::status(status, &words), Reply::Plain(status, Vec::new(), words.clone())] {
            let backend = Backend::start(vec![reply]).await;
            let models = models(&backend, |config| config.max_retries = 0);
            let error = ask(&models).await.unwrap_err();
            let shown = format!("{error} {error:?} {models:?} {:?}", plan(&models, json!({})));
            for start in 0..=KEY.len() - 6 {
                assert!(!shown.contains(&KEY[start..start + 6]), "{shown}");
            }
        }
    }
    let backend = Backend::start(vec![Reply::json(&completion(&format!("you sent {KEY}")))]).await;
    let error = ask(&models(&backend, |_| ())).await.unwrap_err();
    assert!(matches!(error, Error::Upstream { status: 502, .. }) && !format!("{error:?}").contains(KEY));
}

#[tokio::test]
async fn an_upstreams_words_are_short_and_on_one_line() {
    let backend = Backend::start(vec![Reply::status(400, &"ä\n".repeat(5000))]).await;
    match ask(&models(&backend, |_| ())).await.unwrap_err() {
        Error::Upstream { message, .. } => {
            assert_eq!(message.chars().count(), 500);
            assert!(!message.contains('\n'));
        }
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_body_that_drips_ends_at_the_deadline() {
    let backend = Backend::start(vec![Reply::Endless]).await;
    let models = models(&backend, |config| config.timeout_ms = 300);
    let start = Instant::now();
    assert!(matches!(ask(&models).await, Err(Error::Timeout { .. })));
    assert!(start.elapsed() < Duration::from_secs(2) && backend.was_dropped().await);
    backend.script(vec![Reply::Hang]);
    let stream = models.stream(plan(&models, json!({})), &Call::default()).await;
    assert!(matches!(stream, Err(Error::Timeout { .. })));
}
