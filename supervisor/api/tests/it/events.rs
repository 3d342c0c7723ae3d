//! Events and the audit log.

use std::time::Duration;

use aion_api_proto::v1 as api;

use crate::daemon::{World, code};

async fn query(world: &World, filter: api::Filter) -> Vec<api::Record> {
    let mut records = Vec::new();
    let mut request = api::QueryRequest { filter: Some(filter), page_size: 7, ..Default::default() };
    loop {
        let page = world.audit().query(request.clone()).await.unwrap().into_inner();
        records.extend(page.records);
        if !page.more {
            return records;
        }
        request.after_seq = page.next_after_seq;
    }
}

async fn indexed(world: &World, seq: u64) {
    for _ in 0..500 {
        let newest = api::QueryRequest { newest: true, page_size: 1, ..Default::default() };
        let page = world.audit().query(newest).await.unwrap().into_inner();
        if page.records.last().is_some_and(|record| record.seq >= seq) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("record {seq} was not indexed");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_and_denials_are_in_the_log() {
    let world = World::new();
    let agent = world.run("one", "  entry: [sleep]").await;
    let again = api::StartRequest { agent: "one".into(), ..Default::default() };
    world.agents().start(again).await.unwrap_err();
    world.fake.event(&agent.id, "net.connect", "denied");
    let last = world.fake.event("", "launcher.started", "allowed");
    indexed(&world, last).await;
    let all = query(&world, api::Filter::default()).await;
    let seen: Vec<_> = all.iter().map(|r| (r.kind.as_str(), r.verdict.as_str())).collect();
    assert_eq!(
        seen,
        [
            ("api.agent.register", "allowed"),
            ("api.agent.start", "allowed"),
            ("api.agent.start", "error"),
            ("net.connect", "denied"),
            ("launcher.started", "allowed"),
        ]
    );
    assert!(
        all[0].detail_json.contains("\"uid\":0") && all[0].detail_json.contains("\"subject\":\"unix:0\"")
    );
    assert!(all[2].detail_json.contains("AGENT_RUNNING"));
    assert_eq!(all[3].agent_name, "one");

    let filter =
        api::Filter { kinds: vec!["api.*".into()], verdicts: vec!["allowed".into()], ..Default::default() };
    assert_eq!(query(&world, filter).await.len(), 2);
    let filter =
        api::Filter { agents: vec!["one".into()], kinds: vec!["net.connect".into()], ..Default::default() };
    assert_eq!(query(&world, filter).await.len(), 1);
    for filter in [
        api::Filter { kinds: vec!["*".into()], ..Default::default() },
        api::Filter { verdicts: vec!["maybe".into()], ..Default::default() },
    ] {
        let request = api::QueryRequest { filter: Some(filter), ..Default::default() };
        assert_eq!(code(&world.audit().query(request).await.unwrap_err()), "INVALID_FIELD");
    }
    let report = world.audit().verify(api::VerifyRequest::default()).await.unwrap().into_inner();
    assert!(report.ok && report.records == 5, "{report:?}");
    // Against what was noted elsewhere.
    let noted = |seq, hash: &str| vec![api::Anchor { seq, hash: hash.to_owned() }];
    let verify = async |public_key: &str, anchors| {
        let request = api::VerifyRequest { public_key: public_key.to_owned(), anchors };
        world.audit().verify(request).await.map(tonic::Response::into_inner)
    };
    let (last, hash) = (report.last_seq, report.last_hash.as_str());
    assert!(verify(&report.public_key, noted(last, hash)).await.unwrap().ok);
    let other = "3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29";
    assert!(!verify(other, Vec::new()).await.unwrap().ok, "another key");
    let back = verify("", noted(last + 9, hash)).await.unwrap();
    assert!(!back.ok && back.faults[0].what.contains("set back"), "{back:?}");
    for (key, anchors) in
        [("xyz", Vec::new()), ("", noted(1, "12")), ("", vec![noted(1, hash).remove(0); 65])]
    {
        assert_eq!(code(&verify(key, anchors).await.unwrap_err()), "INVALID_FIELD");
    }
    // Events of an agent that is gone can still be asked for by its id.
    let remove = api::RemoveRequest { agent: "one".into(), force: true, ..Default::default() };
    world.agents().remove(remove).await.unwrap();
    let filter = api::Filter { agents: vec![agent.id], kinds: vec!["net.*".into()], ..Default::default() };
    let found = query(&world, filter).await;
    assert_eq!((found.len(), found[0].agent_name.as_str()), (1, "one"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_gets_each_record_once_across_crashes() {
    let mut world = World::new();
    let agent = world.register("one", "  entry: [sleep]").await;
    let filter = Some(api::Filter {
        agents: vec![agent.id.clone()],
        kinds: vec!["proc.*".into()],
        ..Default::default()
    });
    let mut request = api::SubscribeRequest { filter, from_start: true, follow: true, cursor: 0 };
    let mut got = Vec::new();
    let mut sent = Vec::new();
    for round in 0..4u64 {
        let mut stream = world.events().subscribe(request.clone()).await.unwrap().into_inner();
        for n in 0..300 {
            let kind = if n % 10 == 9 { "net.connect" } else { "proc.exec" };
            let seq = world.fake.event(&agent.id, kind, "allowed");
            if kind == "proc.exec" {
                sent.push(seq);
            }
        }
        while u64::try_from(got.len()).unwrap() < 270 * round + 100 {
            let record = stream.message().await.unwrap().unwrap();
            request.cursor = record.seq;
            got.push(record.seq);
        }
        world.crash();
        world.start();
    }
    request.follow = false;
    indexed(&world, *sent.last().unwrap()).await;
    let mut stream = world.events().subscribe(request).await.unwrap().into_inner();
    while let Some(record) = stream.message().await.unwrap() {
        got.push(record.seq);
    }
    assert_eq!(got, sent);
    // The index holds what the log holds.
    let every = query(&world, api::Filter::default()).await;
    let seqs: Vec<u64> = every.iter().map(|r| r.seq).collect();
    assert_eq!(seqs, (1..=*seqs.last().unwrap()).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn from_now_on_means_from_now_on() {
    let world = World::new();
    let before = world.fake.event("", "a.b", "allowed");
    indexed(&world, before).await;
    let request = api::SubscribeRequest { follow: true, ..Default::default() };
    let mut stream = world.events().subscribe(request).await.unwrap().into_inner();
    let after = world.fake.event("", "a.c", "allowed");
    assert_eq!(stream.message().await.unwrap().unwrap().seq, after);
}

#[tokio::test(flavor = "multi_thread")]
async fn records_wait_for_an_absent_launcher() {
    let world = World::new();
    world.fake.down();
    world.register("one", "  entry: [sleep]").await;
    world.register("two", "  entry: [sleep]").await;
    world.fake.up();
    indexed(&world, 2).await;
    let kinds: Vec<_> = query(&world, api::Filter::default()).await.into_iter().map(|r| r.kind).collect();
    assert_eq!(kinds, ["api.agent.register", "api.agent.register"]);
}
