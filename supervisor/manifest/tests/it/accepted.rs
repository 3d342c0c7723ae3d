//! What is accepted, and what it means.

use std::path::PathBuf;

use aion_manifest::{
    AgentSpec, AuditMode, Bind, Context, ExecPolicy, Gpu, Mode, Network, Overrides, Quota, RestartPolicy,
    Rootfs, Usd,
};
use aion_types::{ByteSize, CpuMillis, LayerName};

use crate::{good, parse};

/// As the contract has it, to the letter.
const CONTRACT: &str = r#"apiVersion: aion.os/v1
kind: Agent
metadata: {name: researcher, version: "1.0.0"}
spec:
  entry: "python -m my_agent.start"
  priority: 5
  timeout_ms: 120000
  memory: {short_ttl_s: 3600, long_ttl_s: 1209600, episodic_ttl_s: 259200}
  capabilities: {filesystem: false, network: true, gpu: true, subprocess: false}
  syscalls: [tool.invoke, model.generate, "memory.*"]
  resources: {cpu: "1000m", mem: "1Gi", gpu: optional}
  policy_overrides:
    sla: {p95_ms: 2500}
    budget: {usd_max: 0.10}
    privacy: {allow_cloud: false}
"#;

/// Every field, in its long form where it has two.
const EVERYTHING: &str = r#"apiVersion: aion.os/v1
kind: Agent
metadata:
  name: everything
  version: 2.10.0-rc.1
  labels: {team: search, "example.com/tier": "1"}
spec:
  entry: [python3, -c, "print('hi')"]
  mode: service
  priority: 9
  timeout_ms: 1
  memory: {short_ttl_s: 1}
  capabilities:
    filesystem: true
    network: true
    gpu: true
    subprocess: false
    allow: ["fs:read:/srv/data/**", "fs:write:/srv/out", "fs:read:/srv/out", "exec:/usr/bin/git", "tool:web_*"]
    deny: ["tool:web_admin"]
  syscalls: ["*"]
  resources:
    class: agent-large
    cpu: 1.5
    mem: 2Gi
    gpu: 2
    pids: 100
    disk: 5Gi
    file_size: 1Gi
    open_files: 512
    io: {read_bps: 50Mi, write_bps: 20Mi, weight: 300}
  env: {GREETING: "hello world", EMPTY: "", N: 42, V: 1.10, FLAG: yes}
  secrets: [api-key, db.password]
  workspace: {path: /srv/work, read_only: true}
  rootfs: /srv/images/debian
  network: host
  restart: {policy: always, max_restarts: 0, backoff_ms: 50}
  audit: {mode: latency, strict: true}
  seccomp_profile: network-client
  allow_degraded: [lsm, landlock, lsm]
  hostname: box
  tty: true
  stop_grace_ms: 0
  log_max: 1Mi
  policy_overrides: {budget: {usd_max: "12.5"}}
"#;

#[test]
fn the_contracts_manifest_is_read_unchanged() {
    let spec = parse(CONTRACT).unwrap();
    assert_eq!(spec.name.as_str(), "researcher");
    assert_eq!(spec.argv, ["python", "-m", "my_agent.start"]);
    assert_eq!((spec.priority, spec.timeout_ms, spec.mode), (5, Some(120_000), Mode::Job));
    assert_eq!(spec.wall_ms(), Some(120_000));
    assert_eq!(spec.resources.gpu, Gpu::Optional);
    assert_eq!(spec.syscalls, ["tool.invoke", "model.generate", "memory.*"]);
    assert_eq!(spec.exec, ExecPolicy::EntryOnly);
    assert!(spec.restrict_exec());
    assert_eq!(spec.policy_overrides.budget.as_ref().unwrap().usd_max.micros, 100_000);
    assert!(!spec.policy_overrides.privacy.as_ref().unwrap().allow_cloud);
    assert!(spec.warnings.is_empty());
}

#[test]
fn defaults_are_those_of_a_bare_run() {
    let spec = good("");
    let r = &spec.resources;
    assert_eq!(
        (r.cpu, r.mem, r.pids, r.disk),
        (CpuMillis(1000), ByteSize(512 << 20), 256, ByteSize(1 << 30))
    );
    assert_eq!(r.file_size, r.disk);
    assert_eq!((spec.network, &spec.rootfs), (Network::None, &Rootfs::Host));
    assert_eq!(spec.seccomp_profile, "default-restrictive");
    assert_eq!((spec.audit, spec.audit_strict), (AuditMode::Events, false));
    assert_eq!(spec.exec, ExecPolicy::EntryOnly, "a capability that is missing is not given");
    assert!(spec.allow.is_empty() && spec.binds.is_empty() && spec.allow_degraded.is_empty());
    assert_eq!(spec.hostname, "a");
    assert_eq!(spec.restart.policy, RestartPolicy::Never);
    assert_eq!(good("mode: service").restart.policy, RestartPolicy::OnFailure);
    assert_eq!(good("mode: service\ntimeout_ms: 5").wall_ms(), None, "a service's timeout is for its tasks");
}

#[test]
fn every_field_is_read() {
    let spec = parse(EVERYTHING).unwrap();
    assert_eq!(spec.version, "2.10.0-rc.1");
    assert_eq!(spec.labels["example.com/tier"], "1");
    assert_eq!(
        (spec.env["N"].as_str(), spec.env["V"].as_str(), spec.env["FLAG"].as_str()),
        ("42", "1.10", "yes")
    );
    assert_eq!(
        spec.binds,
        [
            Bind { path: "/srv/data".into(), writable: false },
            Bind { path: "/srv/out".into(), writable: true },
        ]
    );
    assert_eq!(spec.exec_allow(), [PathBuf::from("/usr/bin/git")]);
    assert!(spec.restrict_exec(), "what is named, and nothing else");
    assert_eq!(spec.resources.gpu, Gpu::Count(2));
    assert_eq!((spec.resources.cpu, spec.resources.open_files), (CpuMillis(1500), 512));
    assert_eq!((spec.cpu_weight(), spec.resources.io_weight), (1000, 300));
    assert_eq!(spec.resources.io_read_bps, Some(ByteSize(50 << 20)));
    assert_eq!(spec.workspace.directory, Some("/srv/work".into()));
    assert!(spec.workspace.read_only && spec.audit_strict && spec.tty);
    assert_eq!((spec.audit, spec.network), (AuditMode::Latency, Network::Host));
    assert_eq!(spec.allow_degraded, [LayerName::Landlock, LayerName::Lsm]);
    assert_eq!((spec.restart.max_restarts, spec.restart.backoff_ms), (0, 50));
    assert_eq!(spec.policy_overrides.budget.as_ref().unwrap().usd_max.to_string(), "12.5");
}

#[test]
fn normalised_yaml_means_the_same() {
    for text in [
        CONTRACT.to_owned(),
        EVERYTHING.to_owned(),
        crate::with(""),
        crate::with("env: {A: 'null', B: '~', C: '1e3', D: ' x ', E: \"a\\nb\\u0007\", F: '0x10', G: 'no'}"),
    ] {
        let spec = parse(&text).unwrap();
        let yaml = spec.to_yaml();
        let again = parse(&yaml).unwrap_or_else(|e| panic!("{e}\n{yaml}"));
        // Rules know their line, which is another one now.
        assert_eq!(again.to_yaml(), yaml);
        assert_eq!(again.env, spec.env);
        assert_eq!((&again.resources, &again.binds, &again.exec), (&spec.resources, &spec.binds, &spec.exec));
        let capabilities = |s: &AgentSpec| {
            s.allow.iter().map(|r| r.capability.to_string()).collect::<std::collections::BTreeSet<_>>()
        };
        assert_eq!(capabilities(&again), capabilities(&spec));
    }
}

#[test]
fn no_character_is_lost_in_the_normal_form() {
    for c in [
        '\u{1}',
        '\t',
        '\r',
        '\u{7f}',
        '\u{85}',
        '\u{2028}',
        '\u{2029}',
        '\u{feff}',
        '\u{1f600}',
        '\\',
        '\'',
        '"',
        '%',
    ] {
        for value in [format!("a{c}"), format!("{c}b"), format!("a {c}  b"), c.to_string()] {
            let overrides =
                Overrides { env: [("A".to_owned(), value.clone())].into(), ..Overrides::default() };
            let spec =
                AgentSpec::parse(crate::with("").as_bytes(), "f", overrides, &Context::builtin()).unwrap();
            assert_eq!(parse(&spec.to_yaml()).unwrap().env["A"], value, "{c:?}: {}", spec.to_yaml());
        }
    }
}

#[test]
fn the_normal_form_is_complete() {
    insta::assert_snapshot!(parse(CONTRACT).unwrap().to_yaml());
}

#[test]
fn short_forms() {
    assert!(good("audit: strict").audit_strict);
    assert_eq!(good("audit: full").audit, AuditMode::Full);
    assert_eq!(good("restart: on-failure").restart.policy, RestartPolicy::OnFailure);
    assert_eq!(good("workspace: /srv/x").workspace.directory, Some("/srv/x".into()));
    assert_eq!(good("workspace: managed").workspace.directory, None);
    assert_eq!(good("resources: {gpu: 0}").resources.gpu, Gpu::None);
    assert_eq!(good("resources: {mem: 1073741824}").resources.mem, ByteSize(1 << 30));
    assert_eq!(good("resources: {class: tool-low, pids: 5}").resources.mem, ByteSize(256 << 20));
    assert_eq!(good("capabilities: [network, subprocess]\nnetwork: host").exec, ExecPolicy::Any);
    assert_eq!(good(r#"entry: 'sh -c "echo $HOME" a\ b'"#).argv, ["sh", "-c", "echo $HOME", "a b"]);
    assert!(!good("tty: null\nenv: ~").tty, "nothing is as if the field were not there");
    assert_eq!(good("memory: &m {short_ttl_s: 7}\nsyscalls: []").memory.short_s, 7);
}

#[test]
fn json_is_yaml() {
    let json = r#"{"apiVersion":"aion.os/v1","kind":"Agent","metadata":{"name":"j"},"spec":{"entry":["x"],"tty":true}}"#;
    assert!(parse(json).unwrap().tty);
}

#[test]
fn deny_takes_away() {
    let spec = good(
        "capabilities: {subprocess: true, allow: ['fs:read:/srv/a/**'], deny: [subprocess, 'fs:read:/srv/**']}",
    );
    assert_eq!(spec.exec, ExecPolicy::EntryOnly);
    assert!(spec.binds.is_empty());
}

#[test]
fn what_is_probably_not_meant_is_a_warning() {
    let spec = good("entry: 'cat a | grep b'");
    assert_eq!(spec.argv, ["cat", "a", "|", "grep", "b"]);
    assert!(spec.warnings[0].contains("no shell runs the entry"), "{:?}", spec.warnings);
}

#[test]
fn a_bare_command_has_safe_defaults() {
    let overrides = |argv: &[&str]| Overrides {
        argv: argv.iter().map(|s| (*s).to_owned()).collect(),
        ..Default::default()
    };
    let spec =
        AgentSpec::for_command(overrides(&["/usr/bin/Python3.11", "-c", "1"]), &Context::builtin()).unwrap();
    assert_eq!(spec.name.as_str(), "python3-11");
    assert_eq!(spec.exec, ExecPolicy::Any);
    assert_eq!((spec.network, spec.resources.pids), (Network::None, 256));
    assert_eq!(parse(&spec.to_yaml()).unwrap().to_yaml(), spec.to_yaml());
    for odd in ["é", "--", "/", "."] {
        assert_eq!(
            AgentSpec::for_command(overrides(&[odd]), &Context::builtin()).unwrap().name.as_str(),
            "agent"
        );
    }
}

#[test]
fn the_command_line_is_over_the_file() {
    let overrides = Overrides {
        name: Some("other".into()),
        argv: vec!["y".into()],
        workspace: Some("/srv/w".into()),
        env: [("A".to_owned(), "2".to_owned())].into(),
        tty: true,
        labels: [("l".to_owned(), "v".to_owned())].into(),
        quota: Quota { max_concurrency: Some(3), token_rate: Some(10), usd_per_hour: None },
    };
    let text = crate::with(
        "env: {A: 1, B: 1}\nquota: {max_concurrency: 2, usd_per_hour: 0.5}\nworkspace: {read_only: true, path: /srv/old}",
    );
    let spec = AgentSpec::parse(text.as_bytes(), "agent.yml", overrides, &Context::builtin()).unwrap();
    assert_eq!((spec.name.as_str(), spec.argv[0].as_str()), ("other", "y"));
    assert_eq!((spec.env["A"].as_str(), spec.env["B"].as_str()), ("2", "1"));
    assert_eq!((spec.workspace.directory.clone(), spec.workspace.read_only), (Some("/srv/w".into()), true));
    assert!(spec.tty);
    // Of a quota it is the tighter one.
    let usd_per_hour = Some(Usd { micros: 500_000 });
    assert_eq!(spec.quota, Quota { max_concurrency: Some(2), token_rate: Some(10), usd_per_hour });
    assert_eq!(crate::parse(&spec.to_yaml()).unwrap().quota, spec.quota);
}

#[test]
fn who_serves_tasks_and_how() {
    let job = good("");
    let tasks = job.tasks.unwrap();
    assert_eq!((tasks.concurrency, job.has_door()), (1, false));
    let checkpoint = tasks.checkpoint;
    assert_eq!(
        (checkpoint.interval_ms, checkpoint.grace_ms, checkpoint.max_bytes.0, checkpoint.freeze),
        (None, 5000, 64 << 20, true)
    );
    assert_eq!(good("tasks: false").tasks, None);
    let plain = good("mode: service");
    assert_eq!((plain.tasks, plain.has_door()), (None, false));
    let text = "mode: service\ntasks: true\nconcurrency: 8\ncheckpoint: {interval_ms: 1000, max_bytes: 1Gi}";
    let service = good(text);
    assert!(service.has_door());
    let tasks = service.tasks.unwrap();
    assert_eq!((tasks.concurrency, tasks.checkpoint.interval_ms), (8, Some(1000)));
    assert!(!tasks.checkpoint.freeze, "several tasks share its process");
    assert!(good("concurrency: 8").tasks.unwrap().checkpoint.freeze, "each task of a job has its own");
    for spec in [job, plain, service] {
        assert_eq!(crate::parse(&spec.to_yaml()).unwrap(), spec);
    }
}
