//! `agent.yml`, the global capability rules and the cgroup classes.

use std::sync::LazyLock;

use aion_manifest::{AgentSpec, CapabilityPolicy, Classes, Context, Error, Overrides};

static CONTEXT: LazyLock<Context> = LazyLock::new(Context::builtin);

const POLICY: &[u8] = include_bytes!("../../../../policies/agent.capabilities.yaml");
const CLASSES: &[u8] = include_bytes!("../../../../profiles/cgroup_profiles.yaml");

/// What is read is the same after it was written, and what is refused is explained in words that a terminal can show.
pub fn check(data: &[u8]) {
    match AgentSpec::parse(data, "fuzz.yml", Overrides::default(), &CONTEXT) {
        Ok(spec) => {
            let yaml = spec.to_yaml();
            match AgentSpec::parse(yaml.as_bytes(), "again.yml", Overrides::default(), &CONTEXT) {
                Ok(again) => assert_eq!(again.to_yaml(), yaml, "the normal form is not a fixed point"),
                Err(error) => panic!("the normal form is refused: {error}\n{yaml}"),
            }
            if let Ok(policy) = CapabilityPolicy::parse(POLICY, "policy.yaml") {
                let _ = spec.restrict(&policy).map_err(|e| explained(&e));
            }
        }
        Err(error) => explained(&error),
    }
    if let Err(error) = CapabilityPolicy::parse(data, "policy.yaml") {
        explained(&error);
    }
    if let Err(error) = Classes::parse(data, "classes.yaml") {
        explained(&error);
    }
}

fn explained(error: &Error) {
    assert!(!error.problems().is_empty(), "refused without a reason");
    for problem in error.problems() {
        let text = problem.to_string();
        assert!(!problem.message.is_empty() && text.len() < 2000, "not a message: {text:?}");
        assert!(!text.contains(char::is_control), "a message with control characters: {text:?}");
        if let Some(place) = problem.place {
            assert!(place.line >= 1 && place.column >= 1, "places count from 1: {text}");
        }
    }
}

/// Files that are valid, or nearly.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let manifest = |spec: &str| {
        format!("apiVersion: aion.os/v1\nkind: Agent\nmetadata: {{name: a, version: 1.0.0, labels: {{k: v}}}}\nspec:\n{spec}")
            .into_bytes()
    };
    vec![
        manifest(
            "  entry: \"python -m my_agent.start\"\n  priority: 5\n  timeout_ms: 120000\n  memory: {short_ttl_s: 3600}\n",
        ),
        manifest(
            "  entry: [sh, -c, 'true']\n  capabilities: {filesystem: true, network: true, gpu: true, subprocess: false}\n  network: host\n",
        ),
        manifest(
            "  entry: x\n  capabilities:\n    allow: ['fs:read:/srv/**', 'exec:/usr/bin/git', 'tool:web_*', 'memory:put:*']\n    deny: ['net:connect:[::1]:80']\n",
        ),
        manifest(
            "  entry: x\n  resources: {class: tool-low, cpu: 0.5, mem: 1Gi, gpu: 2, io: {read_bps: 50Mi, weight: 3}}\n  capabilities: [gpu]\n",
        ),
        manifest(
            "  entry: &e [x]\n  syscalls: [tool.invoke, \"memory.*\"]\n  env: {A: 'b', C: \"\\x07\"}\n  secrets: [s]\n",
        ),
        manifest(
            "  entry: x\n  workspace: {path: /srv/w, read_only: true}\n  rootfs: /srv/r\n  restart: {policy: always}\n  audit: strict\n",
        ),
        manifest(
            "  entry: x\n  policy_overrides:\n    sla: {p95_ms: 2500}\n    budget: {usd_max: 0.10}\n    privacy: {allow_cloud: false}\n",
        ),
        POLICY.to_vec(),
        CLASSES.to_vec(),
        b"- *a\n- &a !!str \"\\u263A\"\n- |\n  text\n- >-\n  folded\n".to_vec(),
    ]
}

/// Pieces of YAML and of our words.
pub const WORDS: &[&[u8]] = &[
    b"\n",
    b": ",
    b"- ",
    b"  ",
    b"{",
    b"}",
    b"[",
    b"]",
    b"&a ",
    b"*a",
    b"!!int ",
    b"!x ",
    b"<<: ",
    b"|\n",
    b">\n",
    b"'",
    b"\"",
    b"#",
    b"---\n",
    b"...\n",
    b"%YAML 1.2\n",
    b"? ",
    b"~",
    b"null",
    b"true",
    b"yes",
    b"0x1",
    b"1e9",
    b".inf",
    b"-1",
    b"\\x1b",
    b"\x1b[31m",
    b"\xef\xbb\xbf",
    b"\xff",
    b"\0",
    b"\r\n",
    b"\xe2\x80\xa8",
    b"/**",
    b"..",
    b"fs:read:",
    b"net:connect:",
    b"exec:",
    b"1Gi",
    b"9999999999999999999999",
    b"spec",
    b"entry: ",
    b"network",
    b"deny",
];
