//! The client against a scripted launcher on the real socket protocol.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod script;

use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::time::Duration;

use aion_launcher_client::{Client, Error, Options, WatchEvent};
use aion_launcher_proto::v1::{self, notice, request::Op, response::Result as Answer};
use aion_types::ErrorCode;
use script::{Launcher, Reply};

fn client(dir: &std::path::Path) -> Client {
    let mut options = Options::new(dir.join("l.sock"));
    options.connect_patience = Duration::from_millis(300);
    options.call_timeout = Duration::from_millis(500);
    options.slow_call_timeout = Duration::from_millis(700);
    Client::new(options)
}

fn state(id: &str) -> v1::AgentState {
    v1::AgentState { id: id.to_owned(), state: "running".to_owned(), pid: 7, ..Default::default() }
}

#[tokio::test]
async fn nobody_there() {
    let dir = tempfile::tempdir().unwrap();
    let error = client(dir.path()).list().await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::LauncherUnavailable);
    assert!(!error.is_ambiguous());
}

#[tokio::test]
async fn the_table_is_put_together_from_its_pages() {
    let dir = tempfile::tempdir().unwrap();
    let _launcher = Launcher::start(&dir.path().join("l.sock"), |op| {
        let Op::List(list) = op else { return Reply::Hang };
        assert!(list.limit > 0, "all at once may not fit");
        let (agents, more) = match list.after.as_str() {
            "" => (vec![state("a"), state("b")], true),
            "b" => (vec![state("c")], true),
            // Those that were left have gone meanwhile.
            _ => (Vec::new(), false),
        };
        Reply::Answer(Answer::List(v1::AgentList { agents, more }))
    });
    let ids: Vec<_> = client(dir.path()).list().await.unwrap().into_iter().map(|agent| agent.id).collect();
    assert_eq!(ids, ["a", "b", "c"]);
}

#[tokio::test]
async fn calls_refusals_and_descriptors() {
    let dir = tempfile::tempdir().unwrap();
    let _launcher = Launcher::start(&dir.path().join("l.sock"), |op| match op {
        Op::Launch(launch) if launch.id == "tty" => Reply::with_fd(
            Answer::Agent(state("tty")),
            std::fs::File::open("/proc/self/status").unwrap().into(),
        ),
        Op::Launch(launch) => Reply::Answer(Answer::Agent(state(&launch.id))),
        Op::Kill(_) => Reply::Answer(Answer::Error(v1::Error {
            code: "LAYER_FAILED".into(),
            message: "no".into(),
            layer: "cgroup".into(),
            ..Default::default()
        })),
        Op::Exec(_) => Reply::Answer(Answer::Exec(v1::ExecOk { pid: 9 })),
        _ => Reply::Hang,
    });
    let client = client(dir.path());
    assert_eq!(client.hello().await.unwrap().version, "scripted");
    let (agent, fd) = client.launch(v1::Launch { id: "a".into(), ..Default::default() }).await.unwrap();
    assert!(agent.pid == 7 && fd.is_none());
    let (_, fd) = client.launch(v1::Launch { id: "tty".into(), ..Default::default() }).await.unwrap();
    let mut text = String::new();
    std::fs::File::from(fd.unwrap()).read_to_string(&mut text).unwrap();
    assert!(text.starts_with("Name:"));

    let error = client.kill("a", "").await.unwrap_err();
    let refusal = error.refusal().unwrap();
    assert_eq!((refusal.code, refusal.layer.as_str()), (ErrorCode::LayerFailed, "cgroup"));

    let fds: Vec<OwnedFd> = (0..3).map(|_| std::fs::File::open("/dev/null").unwrap().into()).collect();
    assert_eq!(client.exec(v1::Exec::default(), fds).await.unwrap(), 9);

    let error = client.stats("a").await.unwrap_err();
    assert!(matches!(error, Error::Timeout { op: "Stats", .. }), "{error}");
    // The connection that hangs is not used again.
    assert_eq!(client.exec(v1::Exec::default(), Vec::new()).await.unwrap(), 9);
}

#[tokio::test]
async fn a_repeatable_call_survives_a_restart_of_the_launcher() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("l.sock");
    let answer = |op: &Op| match op {
        Op::Launch(launch) => Reply::Answer(Answer::Agent(state(&launch.id))),
        Op::AppendAudit(_) => Reply::Close,
        _ => Reply::Hang,
    };
    let launcher = Launcher::start(&path, answer);
    let client = client(dir.path());
    client.launch(v1::Launch { id: "a".into(), ..Default::default() }).await.unwrap();
    drop(launcher);
    let restart = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(100)).await;
        Launcher::start(&path, answer)
    });
    client.launch(v1::Launch { id: "b".into(), ..Default::default() }).await.unwrap();
    let _launcher = restart.await.unwrap();
    // What must not be done twice is not sent twice.
    let error = client.append_audit(v1::AppendAudit::default()).await.unwrap_err();
    assert!(matches!(error, Error::Lost { op: "AppendAudit", .. }), "{error}");
}

#[tokio::test]
async fn calls_run_in_parallel_up_to_the_limit() {
    let dir = tempfile::tempdir().unwrap();
    let _launcher = Launcher::start(&dir.path().join("l.sock"), |op| match op {
        Op::Freeze(_) => Reply::Later(Duration::from_millis(100), Answer::Agent(state("x"))),
        _ => Reply::Hang,
    });
    let client = client(dir.path());
    let begin = std::time::Instant::now();
    let calls: Vec<_> = (0..16)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.freeze("x", "").await.unwrap() })
        })
        .collect();
    for call in calls {
        call.await.unwrap();
    }
    let took = begin.elapsed();
    assert!(took >= Duration::from_millis(190) && took < Duration::from_millis(650), "{took:?}");
}

#[tokio::test]
async fn watch_syncs_first_and_again_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("l.sock");
    let answer = |op: &Op| match op {
        Op::Watch(watch) => Reply::Notices(vec![
            notice::Kind::Audit(v1::AuditSeq { seq: watch.audit_after_seq + 5 }),
            notice::Kind::Agent(state("n")),
        ]),
        Op::List(_) => Reply::Answer(Answer::List(v1::AgentList { agents: vec![state("l")], more: false })),
        _ => Reply::Hang,
    };
    let launcher = Launcher::start(&path, answer);
    let mut watch = client(dir.path()).watch(10);
    let synced = |event: WatchEvent| match event {
        WatchEvent::Synced { agents, .. } => assert_eq!(agents, vec![state("l")]),
        other => panic!("{other:?}"),
    };
    synced(watch.next().await);
    assert_eq!(watch.next().await, WatchEvent::Audit(15));
    assert_eq!(watch.next().await, WatchEvent::Agent(Box::new(state("n"))));
    drop(launcher);
    assert_eq!(watch.next().await, WatchEvent::Lost);
    let _launcher = Launcher::start(&path, answer);
    synced(watch.next().await);
    // It goes on where it was.
    assert_eq!(watch.next().await, WatchEvent::Audit(20));
}
