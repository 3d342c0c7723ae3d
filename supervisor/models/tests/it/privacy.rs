//! What stays on this host stays there.

use aion_models::{ApiKey, Call, CloudRule, Error, Kind, Models, Privacy, Request};
use serde_json::json;

use crate::backend::{Backend, Reply};
use crate::{body, config, quick};

async fn denied(offline: bool, allow_cloud: bool, local: bool) -> Option<CloudRule> {
    let backend = Backend::start(vec![Reply::Normal]).await;
    let mut options = quick();
    options.offline = offline;
    let models = Models::new(options).unwrap();
    let mut config = config(&backend);
    config.local = local;
    models.put(config, Some(ApiKey::new(crate::KEY).unwrap())).unwrap();
    let request = Request::from_value(Kind::Generate, body(json!({}))).unwrap();
    match models.plan(&request, Privacy { allow_cloud }) {
        Ok(plan) => {
            assert_eq!(plan.quote().local, local);
            assert_eq!(models.answer(plan, &Call::default()).await.unwrap().local, local);
            assert_eq!(backend.count(), 1);
            None
        }
        Err(Error::CloudDenied { model, rule }) => {
            assert!(model == "m" && backend.count() == 0);
            Some(rule)
        }
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test]
async fn each_rule_is_named() {
    assert_eq!(denied(false, true, false).await, None);
    assert_eq!(denied(false, false, false).await, Some(CloudRule::AllowCloud));
    assert_eq!(denied(true, true, false).await, Some(CloudRule::OfflineMode));
    assert_eq!(denied(true, false, false).await, Some(CloudRule::OfflineMode));
    assert_eq!(denied(true, false, true).await, None);
    assert_eq!(denied(false, false, true).await, None);
    assert!(
        Error::CloudDenied { model: "m".into(), rule: CloudRule::OfflineMode }
            .to_string()
            .contains("OFFLINE_MODE=true")
    );
    assert!(
        Error::CloudDenied { model: "m".into(), rule: CloudRule::AllowCloud }
            .to_string()
            .contains("allow_cloud: false")
    );
}

#[tokio::test]
async fn a_local_model_cannot_be_elsewhere() {
    let backend = Backend::start(vec![Reply::Normal]).await;
    let models = Models::new(quick()).unwrap();
    for url in ["http://192.0.2.1/v1", "https://api.openai.com/v1", "http://localhost.example.com/v1"] {
        let mut config = config(&backend);
        config.url = url.into();
        assert!(matches!(models.put(config, None), Err(Error::Invalid { field, .. }) if field == "url"));
    }
    assert!(models.list().is_empty());
}

#[tokio::test]
async fn the_key_goes_to_its_own_backend_only() {
    let (one, other) = (Backend::start(vec![Reply::Normal]).await, Backend::start(vec![Reply::Normal]).await);
    let models = Models::new(quick()).unwrap();
    models.put(config(&one), Some(ApiKey::new(crate::KEY).unwrap())).unwrap();
    let mut keyless = config(&other);
    keyless.name = "keyless".into();
    models.put(keyless, None).unwrap();
    for name in ["m", "keyless"] {
        let request = Request::from_value(Kind::Generate, body(json!({"model": name}))).unwrap();
        let plan = models.plan(&request, Privacy::default()).unwrap();
        models.answer(plan, &Call::default()).await.unwrap();
    }
    assert!(one.seen()[0].headers.contains_key("authorization"));
    assert!(!other.seen()[0].headers.contains_key("authorization"));
}

/// Proxy variables are read once by a process, so a child has them from its start.
#[tokio::test]
async fn proxy_variables_are_ignored() {
    if std::env::var_os("http_proxy").is_none() {
        let proxy = Backend::start(vec![Reply::status(599, "the proxy")]).await;
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        let address = format!("http://{}", proxy.address);
        for name in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
            child.env(name, &address);
        }
        child.args(["--exact", "privacy::proxy_variables_are_ignored"]);
        let output = tokio::task::spawn_blocking(move || child.output()).await.unwrap().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        assert_eq!(proxy.count(), 0);
        return;
    }
    assert_eq!(denied(false, true, true).await, None);
    assert_eq!(denied(false, true, false).await, None);
}
