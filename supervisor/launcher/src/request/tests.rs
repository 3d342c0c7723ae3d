//! What may not come through the door.

use aion_launcher_proto::v1;
use aion_types::{AgentId, ErrorCode};
use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::Failure;

pub(crate) fn usual() -> v1::Launch {
    v1::Launch {
        id: AgentId::from_parts(1, 1).as_str().to_owned(),
        tenant: "default".into(),
        name: "researcher".into(),
        argv: vec![b"/bin/true".to_vec()],
        env: vec![b"PATH=/usr/bin:/bin".to_vec()],
        rootfs: Some(v1::Rootfs { kind: Some(v1::rootfs::Kind::HostSystem(v1::Empty {})) }),
        workspace: Some(v1::Workspace {
            kind: Some(v1::workspace::Kind::Managed(v1::Empty {})),
            read_only: false,
        }),
        limits: Some(v1::Limits { mem_bytes: 512 << 20, pids: 256, ..Default::default() }),
        seccomp_profile: "default-restrictive".into(),
        ..Default::default()
    }
}

fn device(path: &[u8]) -> v1::Device {
    v1::Device { path: path.to_vec(), writable: false }
}

fn refused(change: impl FnOnce(&mut v1::Launch)) -> Failure {
    let mut launch = usual();
    change(&mut launch);
    let failure = Launch::check(&launch).unwrap_err();
    assert_eq!(failure.code, ErrorCode::InvalidField, "{failure}");
    failure
}

fn job(change: impl FnOnce(&mut v1::Job)) -> Option<v1::Job> {
    let mut job =
        v1::Job { task_id: "T1".into(), attempt: 1, checkpoint_max_bytes: 1 << 20, ..v1::Job::default() };
    change(&mut job);
    Some(job)
}

#[test]
fn a_job_says_how_many_descriptors_come() {
    for (stdin, restore, wanted) in [(false, false, 0), (true, false, 1), (false, true, 1), (true, true, 2)] {
        let launch = v1::Launch { job: job(|j| (j.stdin, j.restore) = (stdin, restore)), ..usual() };
        for fds in 0..4 {
            let op = v1::request::Op::Launch(launch.clone());
            let parsed = parse(&v1::Request { seq: 1, op: Some(op) }, fds);
            assert_eq!(parsed.is_ok(), fds == wanted, "{fds} for {wanted}");
        }
    }
}

#[test]
fn an_input_brings_its_descriptors_and_is_the_only_one() {
    for (field, wanted) in [("stdio", 2), ("stdin", 1)] {
        let set = |l: &mut v1::Launch| (l.stdio, l.stdin) = (field == "stdio", field == "stdin");
        let mut launch = usual();
        set(&mut launch);
        for fds in 0..4 {
            let op = v1::request::Op::Launch(launch.clone());
            assert_eq!(parse(&v1::Request { seq: 1, op: Some(op) }, fds).is_ok(), fds == wanted, "{fds}");
        }
        for change in [|l: &mut v1::Launch| l.tty = true, |l: &mut v1::Launch| l.job = job(|_| {})] {
            let failure = refused(|l| {
                set(l);
                change(l);
            });
            assert_eq!(failure.field, field);
        }
    }
    assert_eq!(refused(|l| (l.stdio, l.stdin) = (true, true)).field, "stdin");
}

fn directory(path: &str) -> Option<v1::Workspace> {
    let kind = Some(v1::workspace::Kind::Directory(path.as_bytes().to_vec()));
    Some(v1::Workspace { kind, read_only: false })
}

#[test]
fn the_usual_launch_is_fine() {
    let launch = Launch::check(&usual()).unwrap();
    assert_eq!(launch.cwd.to_str(), Some("/workspace"));
    assert_eq!(launch.hostname, "researcher");
    assert_eq!(launch.limits.cpu_millis, None);
}

#[test]
fn each_refusal_names_its_field() {
    type Change = fn(&mut v1::Launch);
    let cases: &[(&str, Change)] = &[
        ("id", |l| l.id = "../../etc".into()),
        ("id", |l| l.id = String::new()),
        ("tenant", |l| l.tenant = "A/B".into()),
        ("name", |l| l.name = "-x".into()),
        ("name", |l| l.name = "x".repeat(64)),
        ("job.task_id", |l| l.job = job(|j| j.task_id = "a b".into())),
        ("job.task_id", |l| l.job = job(|j| j.task_id = String::new())),
        ("job.attempt", |l| l.job = job(|j| j.attempt = 0)),
        ("job.checkpoint_max_bytes", |l| l.job = job(|j| j.checkpoint_max_bytes = 0)),
        ("job.checkpoint_max_bytes", |l| l.job = job(|j| j.checkpoint_max_bytes = (1 << 30) + 1)),
        ("job", |l| (l.job, l.tty) = (job(|_| {}), true)),
        ("env", |l| {
            l.job = job(|_| {});
            l.env.push(b"AION_RESULT=/etc/x".to_vec());
        }),
        ("argv", |l| l.argv = vec![]),
        ("argv", |l| l.argv = vec![b"/proc/self/fd/4".to_vec()]),
        ("cwd", |l| l.cwd = b"/proc/self/fd/4".to_vec()),
        ("cwd", |l| l.cwd = b"/dev/fd/4".to_vec()),
        ("log_max_bytes", |l| l.log_max_bytes = 1 << 40),
        ("argv", |l| l.argv = vec![vec![]]),
        ("argv", |l| l.argv = vec![b"a\0b".to_vec()]),
        ("argv", |l| l.argv = vec![vec![b'a']; 5000]),
        ("argv", |l| l.argv = vec![vec![b'a'; 4096]]),
        ("env", |l| l.env = vec![b"NOVALUE".to_vec()]),
        ("env", |l| l.env = vec![b"=x".to_vec()]),
        ("env", |l| l.env = vec![b"A=\0".to_vec()]),
        ("cwd", |l| l.cwd = b"relative".to_vec()),
        ("cwd", |l| l.cwd = b"/a/../b".to_vec()),
        ("cwd", |l| l.cwd = b"/a//b".to_vec()),
        ("rootfs", |l| l.rootfs = None),
        ("workspace", |l| l.workspace = None),
        ("workspace", |l| l.workspace = directory("work")),
        ("workspace", |l| l.workspace = directory("/work/../etc")),
        ("workspace", |l| l.workspace = directory("/")),
        ("workspace", |l| l.workspace = directory("/a\0b")),
        ("binds", |l| l.binds = vec![v1::Bind { path: b"/".to_vec(), writable: false }]),
        ("binds", |l| l.binds = vec![v1::Bind { path: b"/a".to_vec(), writable: false }; 65]),
        ("network", |l| l.network = 7),
        ("audit", |l| l.audit = -1),
        ("limits.mem_bytes", |l| l.limits = Some(v1::Limits { mem_bytes: 1, ..Default::default() })),
        ("limits.mem_bytes", |l| l.limits = Some(v1::Limits { mem_bytes: u64::MAX, ..Default::default() })),
        ("limits.cpu_millis", |l| l.limits = Some(v1::Limits { cpu_millis: u32::MAX, ..Default::default() })),
        ("limits.pids", |l| l.limits = Some(v1::Limits { pids: 1, ..Default::default() })),
        ("limits.wall_ms", |l| l.limits = Some(v1::Limits { wall_ms: u64::MAX, ..Default::default() })),
        ("limits.cpu_weight", |l| l.limits = Some(v1::Limits { cpu_weight: 10_001, ..Default::default() })),
        ("seccomp_profile", |l| l.seccomp_profile = "../x".into()),
        ("seccomp_profile", |l| l.seccomp_profile = String::new()),
        ("devices", |l| l.devices = vec![device(b"/etc/passwd")]),
        ("devices", |l| l.devices = vec![device(b"/dev")]),
        ("devices", |l| l.devices = vec![device(b"/dev/../etc/passwd")]),
        ("devices", |l| l.devices = vec![device(b"/dev/null")]),
        ("devices", |l| l.devices = vec![device(b"/dev/pts/0")]),
        ("devices", |l| l.devices = vec![device(b"/dev/\xff")]),
        ("devices", |l| l.devices = vec![device(b"/dev/fuse"); 2]),
        ("exec_allow", |l| l.exec_allow = vec![b"bin/sh".to_vec()]),
        ("egress", |l| l.egress = vec!["a.b:1".into()]),
        ("egress", |l| (l.network, l.egress) = (v1::Network::Egress.into(), vec!["a.b".into()])),
        ("egress", |l| (l.network, l.egress) = (v1::Network::Egress.into(), vec!["127.0.0.1:1".into()])),
        ("allow_degraded", |l| l.allow_degraded = vec!["everything".into()]),
        ("rows", |l| (l.tty, l.rows) = (true, 70_000)),
        ("secrets", |l| l.secrets = vec![v1::Secret { name: "a/b".into(), value: vec![] }]),
        ("secrets", |l| l.secrets = vec![v1::Secret { name: "a".into(), value: vec![] }; 2]),
        ("hostname", |l| l.hostname = "a..b".into()),
        ("hostname", |l| l.hostname = "a\nb".into()),
        ("log_max_bytes", |l| l.log_max_bytes = 1),
    ];
    for (field, change) in cases {
        let failure = refused(change);
        assert_eq!(&failure.field, field, "{failure}");
    }
}

fn op(op: v1::request::Op, fds: usize) -> Result<Op, Failure> {
    parse(&v1::Request { seq: 1, op: Some(op) }, fds)
}

#[test]
fn descriptors_come_with_exec_alone() {
    use v1::request::Op as Raw;
    let id = usual().id;
    let failure = op(Raw::Freeze(v1::Freeze { id: id.clone(), ..Default::default() }), 1).unwrap_err();
    assert_eq!(failure.field, "fds");
    let exec = |tty| v1::Exec {
        id: id.clone(),
        exec_id: id.clone(),
        argv: vec![b"sh".to_vec()],
        tty,
        ..Default::default()
    };
    assert!(op(Raw::Exec(exec(false)), 3).is_ok());
    assert!(op(Raw::Exec(exec(true)), 1).is_ok());
    assert_eq!(op(Raw::Exec(exec(true)), 3).unwrap_err().field, "fds");
    assert_eq!(op(Raw::Exec(exec(false)), 0).unwrap_err().field, "fds");
}

#[test]
fn aiond_writes_no_kernel_records() {
    use v1::request::Op as Raw;
    let record = |kind: &str| {
        let append = v1::AppendAudit { kind: kind.into(), verdict: "allowed".into(), ..Default::default() };
        op(Raw::AppendAudit(append), 0)
    };
    for good in ["api.agent.start", "task.submitted", "detection.finding"] {
        assert!(record(good).is_ok(), "{good}");
    }
    for bad in ["proc.exec", "agent.killed", "api", "task", "api.x\n", "api.X"] {
        assert_eq!(record(bad).unwrap_err().field, "kind", "{bad}");
    }
}

#[test]
fn what_is_taken_from_an_agent_has_its_bounds() {
    use v1::request::Op as Raw;
    let id = usual().id;
    let throttle = |cpu_millis, reason: &str| {
        op(Raw::Throttle(v1::Throttle { id: id.clone(), cpu_millis, reason: reason.into() }), 0)
    };
    let Ok(Op::Throttle { cpu_millis: Some(100), .. }) = throttle(100, "rule") else { panic!() };
    let Ok(Op::Throttle { cpu_millis: None, .. }) = throttle(0, "") else { panic!("0 gives it back") };
    assert_eq!(throttle(1_024_001, "").unwrap_err().field, "cpu_millis");
    assert_eq!(throttle(1, &"x".repeat(257)).unwrap_err().field, "reason");
    let isolate = v1::Isolate { id: "nobody".into(), on: true, reason: String::new() };
    assert_eq!(op(Raw::Isolate(isolate), 0).unwrap_err().field, "id");
}

#[test]
fn unknown_and_missing_operations_are_refused() {
    assert_eq!(parse(&v1::Request::default(), 0).unwrap_err().field, "op");
    let hello = v1::request::Op::Hello(v1::Hello { protocol: 9 });
    assert_eq!(op(hello, 0).unwrap_err().code, ErrorCode::ProtocolMismatch);
    let signal = v1::request::Op::Signal(v1::Signal { id: usual().id, signo: 65 });
    assert_eq!(op(signal, 0).unwrap_err().field, "signo");
}

proptest! {
    #[test]
    fn hostile_bytes_never_panic(bytes: Vec<u8>, fds in 0usize..9) {
        if let Ok(request) = v1::Request::decode(bytes.as_slice()) {
            let _ = parse(&request, fds);
        }
    }

    #[test]
    fn hostile_strings_never_panic(text: String, blob: Vec<u8>, number: u64) {
        let mut launch = usual();
        launch.hostname = text.clone();
        launch.cwd = blob.clone();
        launch.log_max_bytes = number;
        launch.workspace = Some(v1::Workspace {
            kind: Some(v1::workspace::Kind::Directory(blob)),
            read_only: false,
        });
        launch.allow_degraded = vec![text];
        let _ = Launch::check(&launch);
    }
}

#[test]
fn the_hosts_system_is_not_given_away() {
    for path in [
        "/",
        "/etc",
        "/usr/local",
        "/var",
        "/var/lib/aion",
        "/root",
        "/home",
        "/proc/1/root",
        "/run/user",
        "/boot",
    ] {
        assert_eq!(refused(|l| l.workspace = directory(path)).field, "workspace", "{path}");
    }
    let bind = |path: &str, writable| vec![v1::Bind { path: path.as_bytes().to_vec(), writable }];
    refused(|l| l.binds = bind("/etc/ssl", true));
    refused(|l| l.binds = bind("/run/docker.sock", false));
    let mut launch = usual();
    launch.workspace = directory("/srv/data");
    launch.binds = bind("/etc/ssl", false);
    Launch::check(&launch).unwrap();
}
