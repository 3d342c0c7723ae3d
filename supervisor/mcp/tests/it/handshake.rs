//! What the two agree on before anything else.

use std::time::Duration;

use aion_mcp::{Error, Options, Revision};
use serde_json::{Map, json};

use crate::fake::Fake;
use crate::soon;

#[tokio::test]
async fn a_server_says_who_it_is() {
    let (client, mut fake) = Fake::start(Options { name: "tester".to_owned(), ..Options::default() });
    assert!(client.server().is_none());
    assert!(matches!(client.list_tools().await, Err(Error::NotInitialized)));
    assert!(matches!(client.call_tool("x", Map::new(), soon()).await, Err(Error::NotInitialized)));
    let script = async {
        let hello = fake.expect("initialize").await;
        assert_eq!(hello["params"]["protocolVersion"], "2025-06-18");
        assert_eq!(hello["params"]["clientInfo"]["name"], "tester");
        assert_eq!(hello["params"]["capabilities"], json!({}));
        let result = json!({"protocolVersion": "2024-11-05", "capabilities": {}, "instructions": "be kind",
            "serverInfo": {"name": "s", "version": "1"}});
        fake.answer(&hello["id"], result).await;
        fake.expect("notifications/initialized").await;
    };
    let (info, ()) = tokio::join!(client.initialize(), script);
    let info = info.unwrap().clone();
    assert_eq!((info.revision, info.name.as_str(), info.has_tools), (Revision::V2024_11_05, "s", false));
    assert_eq!(info.instructions.as_deref(), Some("be kind"));
    // Done once, and a server without tools is not asked for them.
    assert_eq!(client.clone().initialize().await.unwrap(), &info);
    assert!(client.list_tools().await.unwrap().is_empty());
    assert!(fake.is_silent().await);
}

#[tokio::test]
async fn a_revision_that_is_not_spoken() {
    for version in [json!("1999-01-01"), json!(7), json!("x".repeat(1000))] {
        let (client, mut fake) = Fake::start(Options::default());
        let script = async {
            let id = fake.expect("initialize").await["id"].take();
            fake.answer(&id, json!({"protocolVersion": version})).await;
        };
        let (info, ()) = tokio::join!(client.initialize(), script);
        let Err(Error::Version { theirs }) = info else { panic!("{info:?}") };
        assert!(theirs.len() <= 64);
        assert!(client.server().is_none());
    }
}

#[tokio::test]
async fn a_handshake_that_is_not_answered_is_not_cancelled() {
    let options = Options { request_timeout: Duration::from_millis(50), ..Options::default() };
    let (client, mut fake) = Fake::start(options);
    assert!(matches!(client.initialize().await, Err(Error::Timeout { method: "initialize", .. })));
    fake.expect("initialize").await;
    assert!(fake.is_silent().await);
}
