//! Global rules over an agent's, with the rules that AION ships and with others.

use aion_manifest::{Capability, CapabilityPolicy};
use aion_types::ErrorCode;

use crate::good;

fn shipped() -> CapabilityPolicy {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../policies/agent.capabilities.yaml");
    CapabilityPolicy::parse(&std::fs::read(path).unwrap(), "agent.capabilities.yaml")
        .unwrap_or_else(|e| panic!("{e}"))
}

fn global(rules: &str) -> CapabilityPolicy {
    let text = format!("apiVersion: aion.os/v1\nkind: CapabilityPolicy\n{rules}\n");
    CapabilityPolicy::parse(text.as_bytes(), "caps.yaml").unwrap_or_else(|e| panic!("{e}"))
}

fn cap(text: &str) -> Capability {
    text.parse().unwrap_or_else(|e| panic!("{e}"))
}

/// Golden cases: what the shipped rules let an agent have.
#[test]
fn the_shipped_rules() {
    for (capabilities, allowed) in [
        ("[]", true),
        ("{filesystem: true, network: true, gpu: true, subprocess: true}", true),
        ("['fs:read:/srv/**', 'fs:write:/srv/out/**']", true),
        ("['fs:read:/etc/hosts']", true),
        ("['fs:read:/etc/shadow']", false),
        ("['fs:read:/etc/ssh/ssh_host_ed25519_key']", false),
        ("['fs:read:/root/.ssh/**']", false),
        ("['fs:write:/root/x']", false),
        ("['fs:read:/opt/tool/**']", true),
        ("['fs:write:/opt/tool/**']", false),
        ("['fs:write:/var/spool/cron/root']", false),
        ("['exec:/usr/bin/git', 'tool:web_search', 'model:any', 'memory:*:*']", true),
    ] {
        let spec = good(&format!("capabilities: {capabilities}"));
        let result = spec.restrict(&shipped());
        assert_eq!(result.is_ok(), allowed, "{capabilities}: {result:?}");
        if let Err(error) = result {
            assert_eq!(error.code(), ErrorCode::PolicyDenied);
        }
    }
}

#[test]
fn a_denial_names_the_request_and_the_rule() {
    let policy = global("allow: [network, 'tool:*']\ndeny:\n  - gpu\n  - tool:admin_*");
    let spec = good("capabilities:\n  allow:\n    - gpu\n    - fs:read:/srv/x\n    - tool:admin_reset");
    assert_eq!(
        spec.restrict(&policy).unwrap_err().to_string(),
        "agent.yml:8:1: spec.capabilities: gpu is denied by caps.yaml:5: deny gpu; remove it from the manifest, or have the operator change the rule\n\
         agent.yml:9:1: spec.capabilities: fs:read:/srv/x is allowed by no rule of the operator; remove it from the manifest, or have the operator change the rule\n\
         agent.yml:10:1: spec.capabilities: tool:admin_reset is denied by caps.yaml:6: deny tool:admin_*; remove it from the manifest, or have the operator change the rule"
    );
}

#[test]
fn the_kernel_api_may_be_narrowed_the_sandbox_may_not() {
    let policy = global(
        "allow: ['tool:web_*', 'fs:read:/srv/a/**', subprocess]\ndeny: ['tool:web_admin', 'exec:/usr/bin/curl']",
    );
    let tools = good("capabilities: ['tool:*']").restrict(&policy).unwrap();
    assert!(tools.check(&cap("tool:web_search")).allowed);
    assert_eq!(tools.check(&cap("tool:web_search")).rule, "caps.yaml:3: allow tool:web_*");
    let denied = tools.check(&cap("tool:web_admin"));
    assert_eq!((denied.allowed, denied.rule.as_str()), (false, "caps.yaml:4: deny tool:web_admin"));
    let none = tools.check(&cap("tool:shell"));
    assert_eq!((none.allowed, none.rule.as_str()), (false, "no rule allows tool:shell"));
    let folder = good("capabilities: ['fs:read:/srv/**']").restrict(&policy).unwrap_err().to_string();
    assert!(folder.contains("is more than is allowed: fs:read:/srv/a/**, by caps.yaml:3"), "{folder}");
    let programs = good("capabilities: {subprocess: true}").restrict(&policy).unwrap_err().to_string();
    assert!(programs.contains("denied in part by caps.yaml:4: deny exec:/usr/bin/curl"), "{programs}");
}

#[test]
fn the_hosts_network_is_given_as_a_whole() {
    let policy = global("allow: [network]\ndeny: ['net:connect:169.254.169.254:*']");
    assert!(good("capabilities: [network]").restrict(&policy).is_ok(), "the kernel API can keep to it");
    assert!(good("capabilities: [network]\nnetwork: host").restrict(&policy).is_err());
    let only = global("allow: ['net:connect:*:443']");
    assert!(good("capabilities: [network]\nnetwork: host").restrict(&only).is_err());
}

#[test]
fn a_tenants_bounds_hold_for_what_the_sandbox_gives_alone() {
    let bounds = global("allow: ['tool:search', 'net:connect:93.184.0.0/16:443', 'fs:read:/srv/data/**']");
    for (fields, allowed) in [
        // Decided call by call.
        ("capabilities: ['tool:other', network]", true),
        ("capabilities: ['net:connect:93.184.216.34:443']\nnetwork: egress", true),
        ("capabilities: ['net:connect:93.184.216.34:80']\nnetwork: egress", false),
        ("capabilities: [network]\nnetwork: host", false),
        ("capabilities: ['fs:read:/srv/data/**']", true),
        ("capabilities: ['fs:write:/srv/data/**']", false),
        ("workspace: /srv/data", false),
    ] {
        let result = good(fields).restrict_sandbox(&bounds);
        assert_eq!(result.is_ok(), allowed, "{fields}: {result:?}");
    }
}

#[test]
fn a_name_leads_to_no_address_that_an_operator_denies() {
    let policy =
        global("allow: [network]\ndeny: ['net:connect:93.184.0.0/16:443', 'net:connect:10.0.0.0/8:*']");
    let egress = |rule: &str| good(&format!("capabilities: ['net:connect:{rule}']\nnetwork: egress"));
    for (rule, allowed) in [
        ("example.com:443", false),
        ("*.example.com:*", false),
        ("93.184.216.34:443", false),
        ("93.0.0.0/8:443", false),
        ("10.1.0.0/16:443", false),
        // Another port; other addresses. What is special no name leads to.
        ("example.com:80", true),
        ("93.185.0.1:443", true),
    ] {
        let result = egress(rule).restrict(&policy);
        assert_eq!(result.is_ok(), allowed, "{rule}: {result:?}");
    }
    let told = egress("example.com:443").restrict(&policy).unwrap_err().to_string();
    assert!(told.contains("may lead to addresses that are denied by caps.yaml:4"), "{told}");
    assert!(
        good("capabilities: ['net:connect:example.com:443']").restrict(&policy).is_ok(),
        "net.fetch looks itself"
    );
}

#[test]
fn host_folders_need_the_rules_that_their_binds_would_need() {
    for (fields, allowed) in [
        ("workspace: managed", true),
        ("workspace: /tmp", true),
        ("workspace: /home/ann/project", true),
        ("workspace: {path: /opt/tool, read_only: true}", true),
        ("workspace: /opt/tool", false),
        ("workspace: /opt", false),
        ("workspace: /root/.cache", false),
        ("workspace: {path: /root, read_only: true}", false),
        ("workspace: /var/spool", false),
        ("workspace: {path: /var/spool, read_only: true}", true),
        ("rootfs: /srv/images/debian", true),
        ("rootfs: /opt/images/debian", true),
        ("rootfs: /root/debian", false),
        ("workspace: /opt/tool\ncapabilities: {filesystem: false}", false),
    ] {
        let result = good(fields).restrict(&shipped());
        assert_eq!(result.is_ok(), allowed, "{fields}: {result:?}");
    }
    let policy = global(
        "allow: [filesystem, 'fs:read:/srv/**', 'fs:write:/srv/a/**']\ndeny: ['fs:read:/srv/a/x/key']",
    );
    let said = |fields: &str| good(fields).restrict(&policy).unwrap_err().to_string();
    assert_eq!(
        said("workspace: /srv/a/x\nrootfs: /srv/b"),
        "spec.workspace: it takes fs:write:/srv/a/x/**, which is denied in part by caps.yaml:4: deny fs:read:/srv/a/x/key; \
         choose another folder, or have the operator change the rule"
    );
    assert_eq!(
        said("workspace: /srv/b\nrootfs: /data"),
        "spec.workspace: it takes fs:write:/srv/b/**, which is allowed as a whole by no global rule; \
         choose another folder, or have the operator change the rule\n\
         spec.rootfs: it takes fs:read:/data/**, which is allowed as a whole by no global rule; \
         choose another folder, or have the operator change the rule"
    );
    assert!(good("workspace: {path: /srv/b, read_only: true}").restrict(&policy).is_ok());
    assert!(good("workspace: /srv/a/y").restrict(&policy).is_ok());
}

#[test]
fn deny_wins_whoever_says_it() {
    let policy = global("allow: ['tool:*']");
    let own = good("capabilities: {allow: ['tool:*'], deny: ['tool:shell']}").restrict(&policy).unwrap();
    assert!(own.check(&cap("tool:x")).allowed);
    let verdict = own.check(&cap("tool:shell"));
    assert!(!verdict.allowed && verdict.rule.starts_with("agent.yml:"), "{verdict:?}");
    let all = good("capabilities: {allow: ['tool:*'], deny: ['tool:*']}").restrict(&policy).unwrap();
    assert!(!all.check(&cap("tool:x")).allowed);
}

#[test]
fn wrong_policy_files_are_explained() {
    let said = |text: &str| CapabilityPolicy::parse(text.as_bytes(), "caps.yaml").unwrap_err().to_string();
    assert_eq!(
        said("apiVersion: aion.os/v1\nkind: CapabilityPolicy\nallow: [tool:*, netwrok]\n"),
        "caps.yaml:3:17: allow[1]: \"netwrok\" is not a capability; did you mean \"network\"?"
    );
    assert_eq!(
        said("apiVersion: aion.os/v1\nkind: Policy\nallow: []\n"),
        "caps.yaml:2:7: kind: \"Policy\" is not known here; use one of: CapabilityPolicy"
    );
    assert!(said("apiVersion: aion.os/v1\nkind: CapabilityPolicy\n").contains("allow is missing"));
}

const BOUND: &str = "allow: [network]
resources:
  network: {bytes_out_per_hour: 1Gi, connections_per_second: 2, connections_burst: 50}";

#[test]
fn who_asks_for_more_of_the_network_than_there_is_is_told_where() {
    let policy = global(BOUND);
    let host = |limits: &str| {
        good(&format!("network: host\ncapabilities: [network]\nresources: {{network: {{{limits}}}}}"))
    };
    for limits in ["", "bytes_out_per_hour: 1Gi", "bytes_in_per_hour: 1Ti", "connections_per_minute: 50"] {
        assert!(host(limits).restrict(&policy).is_ok(), "{limits}");
    }
    let told = |limits: &str| {
        let error = host(limits).restrict(&policy).unwrap_err();
        assert_eq!(error.code(), ErrorCode::PolicyDenied);
        error.to_string()
    };
    assert_eq!(
        told("bytes_out_per_hour: 2Gi"),
        "spec.resources.network.bytes_out_per_hour: 2Gi is more than caps.yaml:5 gives, which is 1Gi; \
         use 1Gi or less, or have the operator change it"
    );
    // In another unit, and at once.
    assert_eq!(
        told("connections_per_minute: 121, connections_burst: 51"),
        "spec.resources.network.connections_per_minute: connections_per_minute: 121 is more than caps.yaml:5 gives, \
         which is connections_per_second: 2; use connections_per_second: 2 or less, or have the operator change it\n\
         spec.resources.network.connections_burst: 51 is more than caps.yaml:5 gives, which is 50; \
         use 50 or less, or have the operator change it"
    );
    let kept = host("bytes_out_per_hour: 2Gi").beyond_while_running(&policy, true);
    assert_eq!(kept.len(), 1, "it keeps that until its next start");
    assert_eq!(global("allow: []").network().limit, Default::default());
}

#[test]
fn bounds_that_cannot_be_are_explained() {
    let said = |network: &str| {
        let text = format!(
            "apiVersion: aion.os/v1\nkind: CapabilityPolicy\nallow: []\nresources:\n  network: {{{network}}}\n"
        );
        CapabilityPolicy::parse(text.as_bytes(), "caps.yaml").unwrap_err().to_string()
    };
    for (network, parts) in [
        ("bytes_out_per_hour: 1Ki", ["resources.network.bytes_out_per_hour", "use 64Ki to 1Ti"]),
        ("connections_per_second: 0", ["resources.network.connections_per_second", "use 1 to 10000"]),
        ("connections_per_second: 1, connections_per_minute: 1", ["connections_per_minute", "remove one"]),
        ("connections_burst: 5", ["resources.network.connections_burst", "a burst is of a rate"]),
        ("connections_per_minute: 1, connections_burst: 61", ["connections_burst", "use 1 to 60"]),
        ("destinations: []", ["destinations", ""]),
    ] {
        let said = said(network);
        assert!(said.starts_with("caps.yaml:5") && parts.iter().all(|part| said.contains(part)), "{said}");
    }
}
