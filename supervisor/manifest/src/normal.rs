//! A checked manifest back to YAML, with every value decided: what is stored and shown.

use crate::capability::{Capability, Coarse};
use crate::raw::{self, ListOr, TextOrList, WordOr};
use crate::spec::{AgentSpec, Network, NetworkLimit, NetworkLimits, Rootfs, Spec};

impl AgentSpec {
    /// The manifest in full. Reading it again gives an equal spec.
    #[must_use]
    pub fn to_yaml(&self) -> String {
        let manifest = raw_manifest(self);
        match serde_yaml::to_string(&manifest) {
            Ok(yaml) if !yaml.contains(is_ambiguous) => yaml,
            _ => to_ascii_json(&manifest),
        }
    }
}

/// YAML 1.1, which the writer follows, breaks lines where YAML 1.2, which the reader follows, does not; and a byte order mark or a
/// control character would not survive either.
fn is_ambiguous(c: char) -> bool {
    matches!(c, '\u{85}' | '\u{2028}' | '\u{2029}' | '\u{feff}') || (c.is_control() && c != '\n')
}

/// JSON is YAML, too, and can escape every character.
fn to_ascii_json(manifest: &raw::Manifest) -> String {
    let json = serde_json::to_string_pretty(manifest).unwrap_or_default();
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        if is_ambiguous(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                text.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            text.push(c);
        }
    }
    text.push('\n');
    text
}

fn raw_manifest(spec: &Spec) -> raw::Manifest {
    let r = &spec.resources;
    raw::Manifest {
        api_version: raw::ApiVersion::V1,
        kind: raw::ManifestKind::Agent,
        metadata: raw::Metadata {
            name: spec.name.as_str().to_owned(),
            version: Some(spec.version.clone()),
            labels: spec.labels.clone(),
        },
        spec: raw::Spec {
            entry: Some(TextOrList::List(spec.argv.clone())),
            mode: Some(spec.mode),
            priority: Some(u32::from(spec.priority)),
            timeout_ms: spec.timeout_ms,
            tasks: Some(spec.tasks.is_some()),
            concurrency: spec.tasks.map(|t| u64::from(t.concurrency)),
            checkpoint: spec.tasks.map(|t| raw::Checkpoint {
                interval_ms: t.checkpoint.interval_ms,
                grace_ms: Some(t.checkpoint.grace_ms),
                max_bytes: Some(t.checkpoint.max_bytes),
                freeze: Some(t.checkpoint.freeze),
            }),
            memory: Some(raw::Memory {
                short_ttl_s: Some(spec.memory.short_s),
                long_ttl_s: Some(spec.memory.long_s),
                episodic_ttl_s: Some(spec.memory.episodic_s),
            }),
            capabilities: Some(ListOr::Full(capabilities(spec))),
            syscalls: Some(spec.syscalls.clone()),
            resources: Some(raw::Resources {
                class: Some(r.class.clone()),
                cpu: Some(r.cpu),
                mem: Some(r.mem),
                gpu: Some(r.gpu),
                pids: Some(u64::from(r.pids)),
                disk: Some(r.disk),
                file_size: Some(r.file_size),
                open_files: Some(u64::from(r.open_files)),
                io: Some(raw::Io {
                    read_bps: r.io_read_bps,
                    write_bps: r.io_write_bps,
                    weight: Some(u64::from(r.io_weight)),
                }),
                network: (!r.network.is_none()).then(|| network_limits(&r.network)),
            }),
            env: spec.env.clone(),
            secrets: spec.secrets.clone(),
            workspace: Some(workspace(spec)),
            rootfs: Some(match &spec.rootfs {
                Rootfs::Host => "host".to_owned(),
                Rootfs::Directory(path) => path.to_string_lossy().into_owned(),
            }),
            network: Some(match spec.network {
                Network::None => raw::NetworkMode::None,
                Network::Host => raw::NetworkMode::Host,
                Network::Egress => raw::NetworkMode::Egress,
            }),
            restart: Some(WordOr::Full(raw::Restart {
                policy: Some(spec.restart.policy),
                max_restarts: Some(u64::from(spec.restart.max_restarts)),
                backoff_ms: Some(spec.restart.backoff_ms),
            })),
            audit: Some(WordOr::Full(raw::Audit { mode: Some(spec.audit), strict: Some(spec.audit_strict) })),
            seccomp_profile: Some(spec.seccomp_profile.clone()),
            allow_degraded: spec.allow_degraded.clone(),
            hostname: Some(spec.hostname.clone()),
            tty: Some(spec.tty),
            stop_grace_ms: Some(spec.stop_grace_ms),
            log_max: spec.log_max,
            policy_overrides: (spec.policy_overrides != raw::PolicyOverrides::default())
                .then(|| spec.policy_overrides.clone()),
            quota: (spec.quota != raw::Quota::default()).then_some(spec.quota),
        },
    }
}

fn network_limits(limits: &NetworkLimits) -> raw::NetworkLimits {
    let rate = |limit: &NetworkLimit, per_minute| {
        let rate = limit.connections.filter(|rate| rate.per_minute == per_minute);
        rate.map(|rate| u64::from(rate.count))
    };
    let burst = |limit: &NetworkLimit| limit.connections.map(|rate| u64::from(rate.burst));
    raw::NetworkLimits {
        bytes_out_per_hour: limits.whole.bytes_out_per_hour,
        bytes_in_per_hour: limits.whole.bytes_in_per_hour,
        connections_per_second: rate(&limits.whole, false),
        connections_per_minute: rate(&limits.whole, true),
        connections_burst: burst(&limits.whole),
        destinations: limits
            .destinations
            .iter()
            .map(|(to, limit)| raw::DestinationLimits {
                to: to.clone(),
                bytes_out_per_hour: limit.bytes_out_per_hour,
                bytes_in_per_hour: limit.bytes_in_per_hour,
                connections_per_second: rate(limit, false),
                connections_per_minute: rate(limit, true),
                connections_burst: burst(limit),
            })
            .collect(),
    }
}

/// What the four coarse words say is said by them, the rest in fine words.
fn capabilities(spec: &Spec) -> raw::Capabilities {
    let has = |c: &Capability| spec.allow.iter().any(|r| r.capability == *c);
    let coarse: Vec<Coarse> = Coarse::ALL.into_iter().filter(|c| c.expand().iter().all(has)).collect();
    let said: Vec<Capability> = coarse.iter().flat_map(|c| c.expand()).collect();
    let flag = |c: Coarse| Some(coarse.contains(&c));
    raw::Capabilities {
        filesystem: flag(Coarse::Filesystem),
        network: flag(Coarse::Network),
        gpu: flag(Coarse::Gpu),
        subprocess: flag(Coarse::Subprocess),
        allow: spec
            .allow
            .iter()
            .map(|r| &r.capability)
            .filter(|c| !said.contains(c))
            .map(ToString::to_string)
            .collect(),
        deny: spec.deny.iter().map(|r| r.capability.to_string()).collect(),
    }
}

fn workspace(spec: &Spec) -> WordOr<String, raw::Workspace> {
    let path = spec.workspace.directory.as_ref().map_or("managed".into(), |p| p.to_string_lossy());
    if spec.workspace.read_only {
        WordOr::Full(raw::Workspace { path: Some(path.into_owned()), read_only: Some(true) })
    } else {
        WordOr::Word(path.into_owned())
    }
}
