//! Register, Validate, List.

use aion_api_proto::v1 as api;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::daemon::{World, code, manifest, meta};

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_becomes_an_agent() {
    let world = World::new();
    let agent = world.register("one", "  entry: [sleep, '1']\n  restart: on-failure").await;
    assert_eq!(
        (agent.name.as_str(), agent.state.as_str(), agent.tenant.as_str()),
        ("one", "created", "default")
    );
    assert_eq!(agent.command, ["sleep", "1"]);
    let found = world.get("one").await;
    assert_eq!(found.id, agent.id);
    assert!(found.manifest_yaml.contains("kind: Agent"));
    assert_eq!(found.restart_policy, "on-failure");

    let taken = world.agents().register(manifest("one", "  entry: [true]")).await.unwrap_err();
    assert_eq!((taken.code(), code(&taken).as_str()), (Code::AlreadyExists, "NAME_TAKEN"));
    let mut again = manifest("one", "  entry: [env]");
    again.replace = true;
    let replaced = world.agents().register(again.clone()).await.unwrap().into_inner();
    assert_ne!(replaced.id, agent.id);
    assert_eq!(world.get("one").await.command, ["env"]);
    world.agents().start(api::StartRequest { agent: "one".into(), ..Default::default() }).await.unwrap();
    let running = world.agents().register(again).await.unwrap_err();
    assert_eq!(code(&running), "AGENT_RUNNING");
}

#[tokio::test(flavor = "multi_thread")]
async fn problems_name_their_place() {
    let world = World::new();
    let bad = world
        .agents()
        .register(manifest("one", "  entry: [true]\n  resources: {mem: 1Zi}"))
        .await
        .unwrap_err();
    assert_eq!((bad.code(), code(&bad).as_str()), (Code::InvalidArgument, "MANIFEST_INVALID"));
    assert_eq!((meta(&bad, "line").as_str(), meta(&bad, "field").as_str()), ("6", "spec.resources.mem"));
    let details = bad.get_error_details();
    assert_eq!(details.bad_request().unwrap().field_violations[0].field, "spec.resources.mem");

    // Many problems with long foreign names still fit what a client accepts.
    let many: String = (0..40).map(|n| format!("  {}{n}: 1\n", "ü".repeat(200))).collect();
    for yaml in [many.as_str(), &format!("  entry: ['{}']\n  env: {{{}}}", "ß".repeat(9000), "'ä ö': x")] {
        let bad = world.agents().register(manifest("one", yaml)).await.unwrap_err();
        assert!(["MANIFEST_INVALID", "TOO_LARGE"].contains(&code(&bad).as_str()), "{bad:?}");
    }

    let empty = world.agents().register(api::RegisterRequest::default()).await.unwrap_err();
    assert_eq!(code(&empty), "INVALID_FIELD");
    let huge = api::RegisterRequest { manifest: vec![b'a'; 300 << 10], ..Default::default() };
    assert_eq!(code(&world.agents().register(huge).await.unwrap_err()), "TOO_LARGE");
    let over = api::RegisterRequest { manifest: vec![b'a'; 2 << 20], ..Default::default() };
    assert_eq!(world.agents().register(over).await.unwrap_err().code(), Code::OutOfRange);

    let request = manifest("x", "  entry: [true]\n  secrets: [db]");
    let valid = world
        .agents()
        .validate(api::ValidateRequest { manifest: request.manifest, ..Default::default() })
        .await;
    assert!(valid.unwrap().into_inner().normalised_yaml.contains("db"));
    // Its profile is compiled when that is asked for, also one that is not installed yet.
    let manifest = manifest("x", "  entry: [true]").manifest;
    for (with_profile, profile, expected) in [
        (true, &b""[..], None),
        (false, b"{}", None),
        (false, b"broken", Some("PROFILE_INVALID")),
        (true, &[b' '; 600 << 10], Some("TOO_LARGE")),
    ] {
        let request = api::ValidateRequest {
            manifest: manifest.clone(),
            with_profile,
            profile: profile.to_vec(),
            ..Default::default()
        };
        let told = world.agents().validate(request).await.err().map(|status| code(&status));
        assert_eq!(told.as_deref(), expected);
    }
    for missing in ["nobody", "NOT_A_NAME", "01ARZ3NDEKTSV4RRFFQ69G5FAV"] {
        let error = world.agents().get(api::GetRequest { agent: missing.into() }).await.unwrap_err();
        assert_eq!((error.code(), code(&error).as_str()), (Code::NotFound, "AGENT_NOT_FOUND"), "{missing}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bare_command_needs_no_manifest() {
    let world = World::new();
    let overrides = api::Overrides {
        name: "bare".into(),
        argv: vec!["sleep".into(), "9".into()],
        labels: [("a".to_owned(), "b".to_owned())].into(),
        ..Default::default()
    };
    let request = api::RegisterRequest { overrides: Some(overrides), ..Default::default() };
    let agent = world.agents().register(request).await.unwrap().into_inner();
    assert_eq!((agent.name.as_str(), agent.workspace.as_str()), ("bare", "managed"));
    assert_eq!(agent.labels["a"], "b");
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_come_in_pages() {
    let world = World::new();
    for n in 0..7 {
        world.register(&format!("agent-{n}"), "  entry: [true]").await;
    }
    world.agents().start(api::StartRequest { agent: "agent-3".into(), ..Default::default() }).await.unwrap();
    let mut request = api::ListRequest { page_size: 3, ..Default::default() };
    let mut names = Vec::new();
    loop {
        let page = world.agents().list(request.clone()).await.unwrap().into_inner();
        names.extend(page.agents.into_iter().map(|agent| agent.name));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    names.sort();
    assert_eq!(names, (0..7).map(|n| format!("agent-{n}")).collect::<Vec<_>>());

    let other = api::ListRequest { states: vec!["running".into()], ..request.clone() };
    assert_eq!(code(&world.agents().list(other.clone()).await.unwrap_err()), "INVALID_FIELD");
    let running = api::ListRequest { page_token: String::new(), ..other };
    let page = world.agents().list(running).await.unwrap().into_inner();
    assert_eq!(page.agents.iter().map(|a| a.name.as_str()).collect::<Vec<_>>(), ["agent-3"]);
    for bad in [
        api::ListRequest { page_size: 1001, ..Default::default() },
        api::ListRequest { states: vec!["flying".into()], ..Default::default() },
    ] {
        assert_eq!(code(&world.agents().list(bad).await.unwrap_err()), "INVALID_FIELD");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_needs_a_gpu_is_told_that_there_is_none() {
    let world = World::new();
    let register = async |gpu: &str| {
        let manifest = format!(
            "apiVersion: aion.os/v1\nkind: Agent\nmetadata: {{name: g}}\nspec:\n  entry: [sleep]\n  capabilities: {{gpu: true}}\n  resources: {{gpu: {gpu}}}\n"
        );
        let request = api::RegisterRequest { manifest: manifest.into_bytes(), ..Default::default() };
        world.agents().register(request).await
    };
    for gpu in ["required", "4"] {
        assert_eq!(code(&register(gpu).await.unwrap_err()), "LAYER_UNAVAILABLE", "{gpu}");
    }
    register("optional").await.unwrap();
}
