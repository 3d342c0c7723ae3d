//! What is refused. The messages are a snapshot: read them as a user would.

use std::fmt::Write;
use std::time::{Duration, Instant};

use aion_manifest::{AgentSpec, Context, Overrides};
use aion_types::ErrorCode;

use crate::{bad, good, parse, parse_bytes, with};

/// Lines of a spec that are wrong.
const SPECS: &[&str] = &[
    "priorty: 5",
    "volumes: []",
    "priority: 10",
    "priority: -1",
    "priority: high",
    "quota: {max_concurrency: 0}",
    "quota: {token_rate: 0}",
    "quota: {usd_per_hour: 0}",
    "quota: {usd: 1}",
    "priority: \"5\"",
    "priority: 99999999999999999999",
    "timeout_ms: 2m",
    "timeout_ms: 0",
    "tty: yes",
    "tty: \"true\"",
    "mode: daemon",
    "entry: []",
    "entry: ''",
    "entry: {cmd: x}",
    "entry: 'sh -c \"unclosed'",
    "entry: [sh, [x]]",
    "resources: {mem: 512MB}",
    "resources: {mem: 1.5Gi}",
    "resources: {mem: 1}",
    "resources: {mem: 999999999999999999999}",
    "resources: {mem: 900Ti}",
    "resources: {cpu: 2 cores}",
    "resources: {cpu: 1m}",
    "resources: {cpu: 0}",
    "resources: {pids: 0}",
    "resources: {pids: 1}",
    "resources: {disk: 15Mi}",
    "resources: {pids: 5000000}",
    "resources: {memory: 1Gi}",
    "resources: {gpu: many}",
    "resources: {gpu: 100}",
    "resources: {gpu: required}",
    "resources: {class: agent-lrge}",
    "resources: {class: huge}",
    "resources: {io: {weight: 0}}",
    "resources: {io: {read_bps: 1}}",
    "resources: [cpu, mem]",
    "tasks: maybe",
    "concurrency: 0",
    "concurrency: 1025",
    "mode: service\nconcurrency: 4",
    "mode: service\ncheckpoint: {grace_ms: 1}",
    "tasks: false\ncheckpoint: {}\nconcurrency: 2",
    "mode: service\ntasks: true\nconcurrency: 2\ncheckpoint: {freeze: true}",
    "checkpoint: {interval_ms: 99, grace_ms: 600001, max_bytes: 2Gi}",
    "checkpoint: {max_bytes: 1Ki, every: 5}",
    "checkpoint: 5000",
    "env: {1A: x}",
    "env: {AION_SOCKET: x}",
    "env: [A=1]",
    "env: {A: [x]}",
    "secrets: [../etc/passwd]",
    "secrets: [a, a]",
    "workspace: data",
    "workspace: /srv/../etc",
    "workspace: /srv//x",
    "workspace: /",
    "workspace: /proc/self",
    "workspace: /etc",
    "workspace: /var/lib",
    "workspace: /var/lib/aion/db",
    "workspace: {read_only: true}",
    "workspace: {dir: /srv}",
    "rootfs: debian",
    "rootfs: /",
    "rootfs: /run/x",
    "network: bridge",
    "network: egress\ncapabilities: {allow: ['net:connect:*:443'], deny: ['net:connect:10.0.0.1:*']}",
    "network: egress\ncapabilities: ['net:connect:127.0.0.1:80']",
    "network: egress\ncapabilities: ['net:connect:224.0.0.0/4:80']",
    "network: egress\ncapabilities: ['net:connect:999.1.1.1:80']",
    "network: egress\ncapabilities: ['net:connect:10.0.0.1/8:80']",
    "network: host",
    "network: host\ncapabilities: ['net:connect:example.com:443']",
    "network: host\ncapabilities: {network: true, allow: ['net:connect:example.com:443']}",
    "network: host\ncapabilities: {network: true, deny: ['net:connect:10.0.0.1:*']}",
    "capabilities: {netwrok: true}",
    "capabilities: {network: maybe}",
    "capabilities: network",
    "capabilities: [quantum]",
    "capabilities: ['fs:read:/data/*.txt']",
    "capabilities: ['fs:read:data']",
    "capabilities: ['fs:read:/data/../etc/**']",
    "capabilities: ['fs:read:/**']",
    "capabilities: ['fs:read:/proc/1/root/**']",
    "capabilities: ['fs:write:/usr/lib/**']",
    "capabilities: ['fs:read:/var/**']",
    "capabilities: ['fs:read:/tmp/**']",
    "capabilities: ['fs:write:/var/lib/aion/**']",
    "capabilities: ['net:connect:example.com']",
    "capabilities: {subprocess: true, deny: ['exec:/usr/bin/curl']}",
    "capabilities: {allow: ['fs:read:/srv/**'], deny: ['fs:read:/srv/secret/**']}",
    "syscalls: [Tool.Invoke]",
    "syscalls: ['mem*']",
    "restart: sometimes",
    "restart: {policy: always, max_restarts: 100000}",
    "audit: everything",
    "audit: {mode: strict}",
    "seccomp_profile: ../../etc/passwd",
    "allow_degraded: [selinux]",
    "hostname: under_score",
    "stop_grace_ms: 3600000",
    "log_max: 1",
    "memory: {short_ttl_s: 0}",
    "memory: {short: 5}",
    "policy_overrides: {sla: {p95_ms: 0}}",
    "policy_overrides: {budget: {usd_max: -1}}",
    "policy_overrides: {budget: {usd_max: 1e9}}",
    "policy_overrides: {privacy: {allow_cloud: sometimes}}",
    "policy_overrides: {slo: {}}",
    "tty: true\ntty: false",
    "<<: {tty: true}",
    "tty: !secret x",
    "priority: 77\nresources: {cpu: 1m, pids: 0}\nnetwork: host",
];

/// Whole files that are wrong.
const FILES: &[&str] = &[
    "",
    "# nothing\n",
    "hello",
    "- a\n- b\n",
    "apiVersion: aion.os/v2\nkind: Agent\n",
    "kind: Agent\n",
    "apiVersion: aion.os/v1\nkind: Tool\nmetadata: {name: x}\n",
    "apiVersion: aion.os/v1\nkind: [Agent]\n",
    "apiVersion: aion.os/v1\nkind: Agent\nmetadata: {name: a}\n",
    "apiVersion: aion.os/v1\nkind: Agent\nmetadata: {}\nspec: {entry: [x]}\n",
    "apiVersion: aion.os/v1\nkind: Agent\nmetadata: {name: ../etc}\nspec: {entry: [x]}\n",
    "apiVersion: aion.os/v1\nkind: Agent\nmetadata: {name: a, version: latest}\nspec: {entry: [x]}\n",
    "apiVersion: aion.os/v1\nkind: Agent\nmetadata: {name: a, labels: {'a b': c}}\nspec: {entry: [x]}\n",
    "apiVersion: aion.os/v1\nkind: Agent\nmetadata: {name: a}\nspec: {}\n",
    "apiVersion: aion.os/v1\nkind: Agent\nmetadata: {name: a}\nspec: [x]\n",
    "apiVersion: aion.os/v1\nkind: Agent\nmetadata: {name: a\nspec: {entry: [x]}\n",
    "apiVersion: aion.os/v1\nkind: Agent\n  metadata: {name: a}\n",
    "apiVersion: aion.os/v1\nkind: Agent\nmetadata:\n\tname: a\n",
    "apiVersion: aion.os/v1\nkind: Agent\nmetadata: {name: a}\nspec: {entry: [x]}\n---\nkind: Agent\n",
    "apiVersion: aion.os/v1\nkind: Agent\nmetadata: {name: a}\nspec: {entry: [*nope]}\n",
    "{? [a, b] : c}",
    "apiVersion: aion.os/v1\nkind: Agent\nmetadata: {name: \"a\u{0}b\"}\n",
    "apiVersion: aion.os/v1\nkind: Agent\nmetadata: {name: a}\nspec: {entry: [\"a\\0b\"], env: {A: \"\\0\"}}\n",
];

#[test]
fn messages() {
    let mut report = String::new();
    for spec in SPECS {
        writeln!(report, "{spec}\n    {}\n", bad(spec).replace('\n', "\n    ")).unwrap();
    }
    for file in FILES {
        let error = parse(file).expect_err(file).to_string();
        writeln!(report, "{file:?}\n    {}\n", error.replace('\n', "\n    ")).unwrap();
    }
    insta::assert_snapshot!(report);
}

#[test]
fn every_message_names_its_place() {
    for spec in SPECS {
        let error = parse(&with(spec)).expect_err(spec);
        assert_eq!(error.code(), ErrorCode::ManifestInvalid, "{spec}");
        for problem in error.problems() {
            let place = problem.place.unwrap_or_else(|| panic!("{spec}: {problem}"));
            let last = with(spec).lines().count() as u64;
            assert!((1..=last).contains(&place.line) && place.column >= 1, "{spec}: {problem}");
        }
    }
}

#[test]
fn hostile_files_are_refused_at_once() {
    let bomb = {
        let mut text = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned();
        for i in 1..12 {
            let refs = vec![format!("*a{}", i - 1); 9].join(",");
            writeln!(text, "a{i}: &a{i} [{refs}]").unwrap();
        }
        text
    };
    let long_key = format!("{}: x", "k".repeat(100_000));
    let cases: Vec<(&str, Vec<u8>, ErrorCode)> = vec![
        ("100,000 brackets", "[".repeat(100_000).into_bytes(), ErrorCode::TooLarge),
        ("100,000 braces", "{a: ".repeat(60_000).into_bytes(), ErrorCode::TooLarge),
        (
            "brackets in the spec",
            with(&format!("entry: {}", "[".repeat(100_000))).into_bytes(),
            ErrorCode::TooLarge,
        ),
        (
            "block nesting",
            (0..600).map(|i| format!("{}a:\n", " ".repeat(i))).collect::<String>().into_bytes(),
            ErrorCode::TooLarge,
        ),
        ("billion laughs", bomb.into_bytes(), ErrorCode::TooLarge),
        ("257 KiB", vec![b'a'; 257 * 1024], ErrorCode::TooLarge),
        (
            "50,000 items",
            with(&format!("syscalls: [{}]", "a,".repeat(50_000))).into_bytes(),
            ErrorCode::TooLarge,
        ),
        ("a long key", long_key.into_bytes(), ErrorCode::ManifestInvalid),
        ("not UTF-8", b"apiVersion: aion.os/v1\nkind: \xff\xfe\n".to_vec(), ErrorCode::ManifestInvalid),
        (
            "UTF-16",
            "apiVersion".encode_utf16().flat_map(u16::to_le_bytes).collect(),
            ErrorCode::ManifestInvalid,
        ),
        ("question marks", "? ".repeat(100_000).into_bytes(), ErrorCode::TooLarge),
        ("dashes", "- ".repeat(100_000).into_bytes(), ErrorCode::TooLarge),
        ("quotes", "'".repeat(99_999).into_bytes(), ErrorCode::ManifestInvalid),
        (
            "anchors",
            (0..5000).map(|i| format!("- &a{i} x\n")).collect::<String>().into_bytes(),
            ErrorCode::TooLarge,
        ),
    ];
    for (what, bytes, code) in cases {
        let start = Instant::now();
        let error = parse_bytes(&bytes).expect_err(what);
        let took = start.elapsed();
        assert!(took < Duration::from_secs(1), "{what}: {took:?}");
        assert!(error.to_string().len() < 600, "{what}: a message must not repeat the file");
        assert_eq!(error.code(), code, "{what}: {error}");
    }
}

#[test]
fn the_place_of_a_wrong_byte_is_named() {
    let error = parse_bytes(b"apiVersion: aion.os/v1\nkind: \xc3\xa9\xff\n").expect_err("not UTF-8");
    assert!(error.to_string().starts_with("agent.yml:2:8: byte 0xff is not UTF-8"), "{error}");
}

#[test]
fn absurd_counts_are_refused() {
    let many = |n: usize, item: &str| {
        (0..n).map(|i| item.replace('#', &i.to_string())).collect::<Vec<_>>().join(", ")
    };
    for spec in [
        format!("env: {{{}}}", many(300, "A#: x")),
        format!("env: {{A: {}}}", "x".repeat(200_000)),
        format!("entry: [{}]", many(2000, "a#")),
        format!("secrets: [{}]", many(100, "s#")),
        format!("syscalls: [{}]", many(200, "s.x#")),
        format!("capabilities: [{}]", many(300, "'tool:t#'")),
        format!("capabilities: [{}]", many(200, "'fs:read:/srv/#'")),
    ] {
        let error = bad(&spec);
        assert!(error.contains("are allowed"), "{error}");
    }
}

#[test]
fn wrong_words_on_the_command_line_are_named_by_their_option() {
    let said = |overrides: Overrides| {
        AgentSpec::parse(with("").as_bytes(), "agent.yml", overrides, &Context::builtin())
            .expect_err("wrong")
            .to_string()
    };
    let default = Overrides::default;
    assert_eq!(
        said(Overrides { name: Some("A B".into()), ..default() }),
        "command line: --name: \"A B\" is not an agent's name: character 'A' at position 1 is not allowed: use a-z, 0-9 and '-', beginning and ending with a letter or digit"
    );
    assert!(
        said(Overrides { workspace: Some("x".into()), ..default() })
            .starts_with("command line: --workspace: \"x\" is neither")
    );
    assert!(
        said(Overrides { argv: vec![String::new()], ..default() })
            .starts_with("command line: command: nothing to run")
    );
    assert!(
        said(Overrides { env: [("A".to_owned(), "\0".to_owned())].into(), ..default() })
            .starts_with("command line: --env \"A\": the value has a NUL")
    );
    assert_eq!(
        AgentSpec::for_command(default(), &Context::builtin()).expect_err("nothing to run").to_string(),
        "command line: spec.entry: nothing to run; set entry, or give a command after --"
    );
}

#[test]
fn private_folders_come_from_the_context() {
    let mut context = Context::builtin();
    context.private.push("/srv/state".into());
    let parse = |spec: &str| AgentSpec::parse(with(spec).as_bytes(), "f", Overrides::default(), &context);
    assert!(parse("workspace: /srv/state/x").is_err());
    assert!(parse("workspace: /srv").is_err());
    assert!(parse("workspace: /srv/states").is_ok());
    good("workspace: /srv/state/x");
}
