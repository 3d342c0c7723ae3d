//! Exec and Stats.

use aion_api_proto::v1 as api;
use aion_api_proto::v1::exec_input::Kind as Input;
use aion_api_proto::v1::exec_output::Kind as Out;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::daemon::{World, code};

fn start(agent: &str, argv: &[&str], tty: bool) -> api::ExecInput {
    let argv = argv.iter().map(|arg| (*arg).to_owned()).collect();
    api::ExecInput {
        kind: Some(Input::Start(api::ExecStart { agent: agent.into(), argv, tty, ..Default::default() })),
    }
}

#[derive(Default, Debug)]
struct Session {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    exit: Option<api::Exit>,
    pid: u32,
}

async fn collect(mut stream: tonic::Streaming<api::ExecOutput>) -> Session {
    let mut session = Session::default();
    while let Some(message) = stream.message().await.unwrap() {
        match message.kind.unwrap() {
            Out::Stdout(data) => session.stdout.extend(data),
            Out::Stderr(data) => session.stderr.extend(data),
            Out::Exit(exit) => session.exit = Some(exit),
            Out::Started(started) => session.pid = started.pid,
        }
    }
    session
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_has_streams_and_a_code() {
    let world = World::new();
    world.run("one", "  entry: [sleep]").await;
    let input = tokio_stream::iter([start("one", &["print"], false)]);
    let session = collect(world.agents().exec(input).await.unwrap().into_inner()).await;
    assert_eq!((session.stdout.as_slice(), session.stderr.as_slice()), (&b"out"[..], &b"err"[..]));
    assert_eq!((session.exit.unwrap().code, session.pid), (7, 77));

    let input = tokio_stream::iter([start("one", &["print"], true)]);
    let session = collect(world.agents().exec(input).await.unwrap().into_inner()).await;
    assert_eq!((session.stdout.as_slice(), session.exit.unwrap().code), (&b"out"[..], 7));
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_go_both_ways_with_backpressure() {
    let world = World::new();
    world.run("one", "  entry: [sleep]").await;
    let (send, receive) = mpsc::channel(4);
    send.send(start("one", &["cat"], false)).await.unwrap();
    let output = world.agents().exec(ReceiverStream::new(receive)).await.unwrap().into_inner();
    let total = 4 << 20;
    tokio::spawn(async move {
        for _ in 0..(total / 50_000) + 1 {
            send.send(api::ExecInput { kind: Some(Input::Stdin(vec![5; 50_000])) }).await.unwrap();
        }
        send.send(api::ExecInput { kind: Some(Input::CloseStdin(true)) }).await.unwrap();
        // The channel stays open: it is the closed stdin that ends the program.
        tokio::time::sleep(std::time::Duration::from_secs(20)).await;
    });
    // The reader is late; nobody's memory grows meanwhile.
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    let session = collect(output).await;
    assert_eq!(session.stdout.len(), ((total / 50_000) + 1) * 50_000);
    assert_eq!(session.exit.unwrap().code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_executed() {
    let world = World::new();
    let agent = world.run("one", "  entry: [sleep]").await;
    let attempt = async |first: api::ExecInput| {
        code(&world.agents().exec(tokio_stream::iter([first])).await.unwrap_err())
    };
    assert_eq!(attempt(start("one", &["missing"], false)).await, "COMMAND_NOT_FOUND");
    assert_eq!(attempt(start("one", &[], false)).await, "INVALID_FIELD");
    let mut own = start("one", &["print"], false);
    if let Some(Input::Start(start)) = &mut own.kind {
        start.env.insert("AION_TASK_ID".into(), "x".into());
    }
    assert_eq!(attempt(own).await, "INVALID_FIELD");
    assert_eq!(attempt(start("nobody", &["cat"], false)).await, "AGENT_NOT_FOUND");
    assert_eq!(attempt(api::ExecInput { kind: Some(Input::CloseStdin(true)) }).await, "INVALID_FIELD");
    world.fake.exit(&agent.id, 0);
    world.until("one", "exited").await;
    assert_eq!(attempt(start("one", &["cat"], false)).await, "AGENT_NOT_RUNNING");
}

#[tokio::test(flavor = "multi_thread")]
async fn samples() {
    let world = World::new();
    world.run("one", "  entry: [sleep]\n  audit: count").await;
    world.run("two", "  entry: [sleep]").await;
    let once = api::StatsRequest { once: true, ..Default::default() };
    let mut stream = world.agents().stats(once).await.unwrap().into_inner();
    let mut samples = Vec::new();
    while let Some(sample) = stream.message().await.unwrap() {
        samples.push(sample);
    }
    samples.sort_by(|a, b| a.name.cmp(&b.name));
    assert_eq!(samples.len(), 2);
    assert_eq!((samples[0].mem_bytes, samples[0].pids_limit), (4096, 256));
    assert_eq!(samples[0].syscalls[0].name, "clone3");
    assert!(samples[1].syscalls.is_empty());
    let gone = api::StatsRequest { agents: vec!["nobody".into()], ..Default::default() };
    assert_eq!(code(&world.agents().stats(gone).await.unwrap_err()), "AGENT_NOT_FOUND");
}
