//! Who is let in. Run as root, because it needs a second user.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

use aion_api_proto::v1 as api;
use aion_api_proto::v1::agent_service_client::AgentServiceClient;

use crate::daemon::{World, channel, code};

const SOCKET: &str = "AION_API_TEST_SOCKET";

/// Runs in the child, as another user: says with which code it is refused.
#[tokio::test(flavor = "multi_thread")]
async fn stranger() {
    let Ok(socket) = std::env::var(SOCKET) else { return };
    let mut client = AgentServiceClient::new(channel(std::path::Path::new(&socket)));
    for _ in 0..3 {
        let error = client.list(api::ListRequest::default()).await.unwrap_err();
        assert_eq!(
            (error.code(), code(&error).as_str()),
            (tonic::Code::PermissionDenied, "PERMISSION_DENIED")
        );
    }
    let start = api::StartRequest { agent: "one".into(), ..Default::default() };
    assert_eq!(code(&client.start(start).await.unwrap_err()), "PERMISSION_DENIED");
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::print_stderr, reason = "says why it skips")]
async fn strangers_are_refused_and_recorded() {
    if !rustix::process::getuid().is_root() {
        eprintln!("skipped: it needs root to become another user");
        return;
    }
    let world = World::new();
    let open = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    open(world.dir.path(), 0o755);
    open(&world.socket(), 0o666);
    // The other user may not be able to reach the test binary where it is.
    let copy = world.dir.path().join("test-binary");
    std::fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    open(&copy, 0o755);
    let mut command = Command::new(&copy);
    command
        .args(["--exact", "door::stranger"])
        .env(SOCKET, world.socket())
        .current_dir("/")
        .uid(65534)
        .gid(65534);
    let done = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
    let filter = api::Filter { verdicts: vec!["denied".into()], ..Default::default() };
    let mut records = Vec::new();
    for _ in 0..300 {
        let request = api::QueryRequest { filter: Some(filter.clone()), ..Default::default() };
        records = world.audit().query(request).await.unwrap().into_inner().records;
        if records.len() == 4 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(records.len(), 4);
    assert_eq!(records[3].kind, "api.agent.start");
    assert!(records[0].detail_json.contains("65534") && records[0].rule == "door:operators");
}
