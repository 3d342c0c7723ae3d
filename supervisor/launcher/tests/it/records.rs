//! The audit log: what agents do, what was denied them, and what aiond adds.

use aion_audit::{Reader, Record};
use aion_launcher_proto::v1::{self, notice::Kind, request::Op, response::Result as Answer};

use crate::client::until;
use crate::daemon::Daemon;
use crate::fixtures::{launch, python, sh};

pub(crate) fn records(daemon: &Daemon) -> Vec<Record> {
    let mut reader = Reader::open(&daemon.state().join("audit")).unwrap();
    let mut all: Vec<Record> = Vec::new();
    loop {
        let more = reader.read_after(all.last().map_or(0, |r| r.seq), 10_000).unwrap();
        if more.is_empty() {
            return all;
        }
        all.extend(more);
    }
}

fn verified(daemon: &Daemon) {
    let report = aion_audit::verify(&daemon.state().join("audit"), None).unwrap();
    assert!(report.faults.is_empty(), "{:?}", report.faults);
}

#[test]
fn a_life_is_recorded() {
    let Some(daemon) = Daemon::start(&[]) else { return };
    let mut client = daemon.client();
    let asked = sh("/bin/echo one two; exit 3");
    client.launch(&asked).unwrap();
    client.wait(&asked.id);
    until("the exit is recorded", || records(&daemon).iter().any(|r| r.kind == "agent.exited"));
    let all = records(&daemon);
    let of = |kind: &str| all.iter().filter(|r| r.kind == kind && r.agent == asked.id).collect::<Vec<_>>();
    assert_eq!(of("agent.launched").len(), 1);
    assert_eq!(of("agent.exited").len(), 1);
    let execs = of("proc.exec");
    assert!(execs.iter().any(|r| r.detail_json.contains(r#""argv":["/bin/echo","one","two"]"#)), "{execs:?}");
    assert!(!of("proc.fork").is_empty() && !of("proc.exit").is_empty());
    assert!(all.iter().all(|r| r.tenant.is_empty() || r.tenant == "default"));
    verified(&daemon);
}

#[test]
fn denied_calls_and_connections_are_recorded() {
    let Some(daemon) = Daemon::start(&[]) else { return };
    let mut client = daemon.client();
    let asked = python(
        "import ctypes, socket\nlibc = ctypes.CDLL(None)\nlibc.mount(b'none', b'/tmp', b'tmpfs', 0, None)\n\
         s = socket.socket()\ntry: s.connect(('192.0.2.1', 80))\nexcept OSError as e: print(e.errno)",
    );
    client.launch(&asked).unwrap();
    client.wait(&asked.id);
    until("both are recorded", || {
        let all = records(&daemon);
        let denied = |kind: &str| all.iter().any(|r| r.kind == kind && r.verdict == "denied");
        denied("sys.denied") && denied("net.connect")
    });
    let all = records(&daemon);
    let call = all.iter().find(|r| r.kind == "sys.denied").unwrap();
    assert!(call.detail_json.contains("mount"), "{call:?}");
    assert_eq!(call.rule, "seccomp:default-restrictive");
}

#[test]
fn aiond_appends_and_is_told_when_it_is_durable() {
    let Some(daemon) = Daemon::start(&[]) else { return };
    let mut watch = daemon.client().watch(u64::MAX);
    let append = v1::AppendAudit {
        tenant: "default".into(),
        kind: "api.agent.start".into(),
        verdict: "allowed".into(),
        detail_json: r#"{"who":"root"}"#.into(),
        ..Default::default()
    };
    let seq = match daemon.client().call(Op::AppendAudit(append)).unwrap() {
        Answer::Audit(audit) => audit.seq,
        other => panic!("{other:?}"),
    };
    watch.find(|kind| match kind {
        Kind::Audit(audit) if audit.seq >= seq => Some(()),
        _ => None,
    });
    let mine = records(&daemon).into_iter().find(|r| r.seq == seq).unwrap();
    assert_eq!((mine.kind.as_str(), mine.detail_json.as_str()), ("api.agent.start", r#"{"who":"root"}"#));
}

#[test]
fn system_calls_are_counted_on_request() {
    let Some(daemon) = Daemon::start(&[]) else { return };
    let mut client = daemon.client();
    let asked =
        v1::Launch { audit: v1::AuditMode::Count.into(), ..sh("sleep 0.3; cat /etc/passwd > /dev/null") };
    client.launch(&asked).unwrap();
    client.wait(&asked.id);
    match client.call(Op::Counters(v1::Counters { id: asked.id.clone() })).unwrap() {
        Answer::Counters(counters) => assert!(counters.syscalls.len() > 5, "{counters:?}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn bystanders_are_never_recorded() {
    let Some(daemon) = Daemon::start(&[]) else { return };
    let mut client = daemon.client();
    let asked = launch(&["/bin/sleep", "1"]);
    client.launch(&asked).unwrap();
    for _ in 0..20 {
        std::process::Command::new("/bin/true").arg("bystander-mark").status().unwrap();
    }
    client.wait(&asked.id);
    assert!(!records(&daemon).iter().any(|r| r.detail_json.contains("bystander-mark")));
}

#[test]
fn a_strict_storm_loses_nothing() {
    let Some(daemon) = Daemon::start(&["--ring-mib", "1"]) else { return };
    let mut client = daemon.client();
    let small = std::env::var("AION_E2E_SCALE").is_ok_and(|scale| scale == "small");
    let count = if small { 300 } else { 3000 };
    let asked = v1::Launch {
        audit_strict: true,
        ..python(&format!(
            "import os\nfor i in range({count}):\n  p = os.posix_spawn('/bin/true', ['true', str(i)], {{}})\n  os.waitpid(p, 0)",
        ))
    };
    client.launch(&asked).unwrap();
    let mut state = None;
    for _ in 0..60 {
        state = client.get(&asked.id).filter(|a| a.state == "exited");
        if state.is_some() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_secs(2));
    }
    let state = state.expect("the storm ends");
    assert_eq!((state.exit.unwrap().code, state.dropped_events), (0, 0));
    until("all is recorded", || records(&daemon).iter().any(|r| r.kind == "agent.exited"));
    let all = records(&daemon);
    let spawned =
        all.iter().filter(|r| r.kind == "proc.exec" && r.detail_json.contains("\"/bin/true\"")).count();
    assert_eq!(spawned, count);
    verified(&daemon);
}

fn append(detail: &str) -> Op {
    Op::AppendAudit(v1::AppendAudit {
        kind: "api.flood".into(),
        verdict: "allowed".into(),
        detail_json: detail.into(),
        ..Default::default()
    })
}

#[test]
fn a_flood_of_records_is_slowed_and_counted() {
    let Some(daemon) = Daemon::start(&["--audit-append-rate", "5"]) else { return };
    let mut flood = daemon.client();
    let (mut taken, mut refused) = (0, 0);
    for _ in 0..120 {
        match flood.call(append("{}")) {
            Ok(_) => taken += 1,
            Err(error) => {
                assert_eq!(error.code, "RESOURCE_EXHAUSTED");
                assert!(error.message.contains("try again in"), "{}", error.message);
                refused += 1;
            }
        }
    }
    assert!((50..80).contains(&taken), "{taken} were taken");
    // Another connection is not held up by it.
    daemon.client().call(append("{}")).unwrap();
    drop(flood);
    let told = || -> u64 {
        let all = records(&daemon);
        let limited = all.iter().filter(|r| r.kind == "audit.limited" && r.verdict == "denied");
        let count = |json: &str| {
            serde_json::from_str::<serde_json::Value>(json).unwrap()["refused"].as_u64().unwrap()
        };
        limited.map(|r| count(&r.detail_json)).sum()
    };
    until("what was refused is told", || told() == refused);
    verified(&daemon);
}

#[test]
fn the_log_is_kept_within_its_size_and_stays_verifiable() {
    let Some(daemon) = Daemon::start(&["--audit-max-mib", "1"]) else { return };
    let mut client = daemon.client();
    let large = format!("{{\"x\":\"{}\"}}", "y".repeat(60_000));
    for _ in 0..300 {
        client.call(append(&large)).unwrap();
    }
    until("the oldest are gone", || records(&daemon).first().is_some_and(|r| r.seq > 1));
    let all = records(&daemon);
    let pruned = all.iter().find(|r| r.kind == "audit.pruned").expect("it is told");
    assert_eq!(pruned.rule, "retention");
    let report = aion_audit::verify(&daemon.state().join("audit"), None).unwrap();
    assert!(report.faults.is_empty() && report.first_seq > 1, "{report:?}");
}
