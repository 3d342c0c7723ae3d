//! Manifests that must be signed.

use std::sync::Arc;

use aion_api_proto::v1 as api;
use aion_signing::{Guard, Kind, SecretKey, Trust};

use crate::daemon::{World, code, manifest, meta};

fn key(byte: u8) -> SecretKey {
    SecretKey::from_bytes(&[byte; 32]).unwrap()
}

fn trust(key: &SecretKey, more: &str) -> Trust {
    Trust::parse([("release", format!("{more}{}", key.public_pem()).as_str())]).unwrap()
}

fn signed(by: &SecretKey, name: &str, yaml: &str) -> api::RegisterRequest {
    let request = manifest(name, yaml);
    api::RegisterRequest { signature: by.sign(&request.manifest), ..request }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_comes_in_signed_alone_and_says_by_whom() {
    let guard = Arc::new(Guard::new([Kind::Agents], trust(&key(1), "")));
    let world = World::guarded(guard);
    let why = async |request| {
        let error = world.agents().register(request).await.unwrap_err();
        assert_eq!(code(&error), "SIGNATURE_INVALID");
        meta(&error, "why")
    };
    let good = signed(&key(1), "a", "  entry: [true]");
    let tampered = api::RegisterRequest { manifest: manifest("a", "  entry: [sh]").manifest, ..good.clone() };
    assert_eq!(why(manifest("a", "  entry: [true]")).await, "missing");
    assert_eq!(why(tampered).await, "unknown");
    assert_eq!(why(signed(&key(2), "a", "  entry: [true]")).await, "unknown");
    let named = |name: &str| Some(api::Overrides { name: name.to_owned(), ..Default::default() });
    let mut other = api::RegisterRequest { overrides: named("b"), ..good.clone() };
    for overrides in [
        api::Overrides { argv: vec!["sh".to_owned()], ..Default::default() },
        api::Overrides { env: [("LD_PRELOAD".to_owned(), "x".to_owned())].into(), ..Default::default() },
        api::Overrides { labels: [("pool".to_owned(), "x".to_owned())].into(), ..Default::default() },
    ] {
        assert_eq!(why(api::RegisterRequest { overrides: Some(overrides), ..good.clone() }).await, "");
    }
    // What is asked before anything is stopped says the same.
    let ask = async |manifest: &[u8], signature: &str| {
        let request = api::ValidateRequest {
            manifest: manifest.to_vec(),
            signature: signature.to_owned(),
            ..Default::default()
        };
        world.agents().validate(request).await.map(|valid| valid.into_inner().signed_by)
    };
    assert_eq!(code(&ask(&good.manifest, "").await.unwrap_err()), "SIGNATURE_INVALID");
    assert_eq!(ask(&good.manifest, &good.signature).await.unwrap(), key(1).public("").fingerprint());
    let agent = world.agents().register(good).await.unwrap().into_inner();
    assert_eq!(agent.signed_by, key(1).public("").fingerprint());
    // Another name is no other agent.
    other.replace = true;
    world.agents().register(other).await.unwrap();
    let bare = api::Overrides { argv: vec!["true".to_owned()], ..Default::default() };
    assert_eq!(why(api::RegisterRequest { overrides: Some(bare), ..Default::default() }).await, "missing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_goes_takes_what_it_signed_along_and_one_that_expires_does_not() {
    let guard = Arc::new(Guard::new([Kind::Agents], trust(&key(1), "")));
    let world = World::guarded(Arc::clone(&guard));
    let request = signed(&key(1), "a", "  entry: [true]");
    world.agents().register(request.clone()).await.unwrap();
    guard.exchange(trust(&key(2), ""));
    let start = || async {
        world.agents().start(api::StartRequest { agent: "a".into(), ..Default::default() }).await
    };
    let error = start().await.unwrap_err();
    assert_eq!((code(&error).as_str(), meta(&error, "why").as_str()), ("SIGNATURE_INVALID", "withdrawn"));
    guard.exchange(trust(&key(1), "not-after: 2001-01-01\n"));
    let again = api::RegisterRequest { replace: true, ..request };
    assert_eq!(meta(&world.agents().register(again).await.unwrap_err(), "why"), "expired");
    start().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_must_be_signed_what_is_signed_is_looked_at() {
    let world = World::guarded(Arc::new(Guard::new([], trust(&key(1), ""))));
    let agent = world.register("plain", "  entry: [true]").await;
    assert_eq!(agent.signed_by, "");
    let error = world.agents().register(signed(&key(2), "a", "  entry: [true]")).await.unwrap_err();
    assert_eq!(code(&error), "SIGNATURE_INVALID");
    let none = World::new();
    none.agents().register(signed(&key(2), "a", "  entry: [true]")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_label_makes_an_agent_the_process_of_an_attempt() {
    let world = World::guarded(Arc::new(Guard::new([Kind::Agents], trust(&key(1), ""))));
    for label in ["aion.attempt", "aion.task", "aion.agent"] {
        let yaml = format!("  entry: [true]\nmetadata: {{name: a, labels: {{{label}: x}}}}");
        let text = format!("apiVersion: aion.os/v1\nkind: Agent\nspec:\n{yaml}\n").into_bytes();
        let request =
            api::RegisterRequest { signature: key(1).sign(&text), manifest: text, ..Default::default() };
        assert_eq!(code(&world.agents().register(request).await.unwrap_err()), "MANIFEST_INVALID", "{label}");
    }
}
