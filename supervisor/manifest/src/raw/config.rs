//! `config.yaml` as it is written. The comments become the descriptions in the JSON Schema.

use schemars::JsonSchema;
use serde::Deserialize;

use super::detection::SeverityWord;
use super::manifest::ApiVersion;
use super::span::Span;

/// The settings of aiond. What is left out is as `aiond --help` says; a variable or an option of the command line counts before this
/// file, a file of `config.yaml.d` before this one.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[schemars(title = "AION configuration")]
pub(crate) struct Config {
    /// The version of this format.
    #[expect(dead_code, reason = "its type admits one value")]
    pub(crate) api_version: ApiVersion,
    /// What this file is.
    #[expect(dead_code, reason = "its type admits one value")]
    pub(crate) kind: ConfigKind,
    /// Folders and sockets.
    #[serde(default)]
    pub(crate) paths: Paths,
    /// Who aiond is, and who may use it.
    #[serde(default)]
    pub(crate) access: Access,
    /// The kernel API over HTTP, for this host.
    #[serde(default)]
    pub(crate) http: Http,
    /// System calls over gRPC, for other hosts.
    #[serde(default)]
    pub(crate) grpc: Grpc,
    /// What must be signed, and by whom.
    #[serde(default)]
    pub(crate) signatures: Signatures,
    /// Models.
    #[serde(default)]
    pub(crate) models: Models,
    /// The names of agents with network mode egress.
    #[serde(default)]
    pub(crate) dns: Dns,
    /// Spans over OTLP.
    #[serde(default)]
    pub(crate) tracing: Tracing,
    /// The log.
    #[serde(default)]
    pub(crate) log: Log,
    /// Who is told of what detections find.
    #[serde(default)]
    pub(crate) alerts: Alerts,
}

/// The kind of that file.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) enum ConfigKind {
    /// The settings of aiond.
    Config,
}

/// Folders and sockets.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Paths {
    /// The state folder: database, secrets, sockets.
    pub(crate) state: Option<String>,
    /// The socket to serve on; relative to the state folder. Under systemd that of aiond.socket counts.
    pub(crate) socket: Option<String>,
    /// The folder for the pid file and for the files that say where HTTP and gRPC are served; relative to the state folder.
    pub(crate) run_dir: Option<String>,
    /// The launcher's socket; relative to the state folder.
    pub(crate) launcher_socket: Option<String>,
    /// The folder of profiles.
    pub(crate) profiles: Option<String>,
    /// The folder of policies.
    pub(crate) policies: Option<String>,
    /// The folder of detections.
    pub(crate) detections: Option<String>,
}

/// Who aiond is, and who may use it.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Access {
    /// The user to run as, when started as root.
    pub(crate) user: Option<String>,
    /// The group whose members may use the socket.
    pub(crate) group: Option<String>,
}

/// The kernel API over HTTP.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Http {
    /// An address of this host's loopback and a port, as 127.0.0.1:8010; or off.
    pub(crate) address: Option<String>,
    /// The port, when the address is left out.
    pub(crate) port: Option<u16>,
}

/// System calls over gRPC. Files are paths, or `credential:NAME` for one that systemd hands over (LoadCredential=).
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Grpc {
    /// An address and a port, as 0.0.0.0:8011; without it there is no such door.
    pub(crate) address: Option<String>,
    /// The certificate, with what leads to its authority: a PEM file.
    pub(crate) tls_cert: Option<String>,
    /// Its key: a PEM file.
    pub(crate) tls_key: Option<String>,
    /// The authority of clients' certificates: a PEM file.
    pub(crate) client_ca: Option<String>,
}

/// Signatures: ECDSA on P-256 over SHA-256, as `aionctl sign` and `cosign sign-blob` make them.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Signatures {
    /// What is refused without one: `true` is everything that can be signed, else a list of `agents`, `tools` and `policies`.
    pub(crate) require_signed: Option<RequireSigned>,
    /// The folder of public keys that are trusted: *.pub and *.pem.
    pub(crate) trusted_keys: Option<String>,
}

/// What must be signed.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "write true, false, or a list of agents, tools and policies")]
pub(crate) enum RequireSigned {
    /// Everything, or nothing.
    All(bool),
    /// Some of it.
    Some(Vec<String>),
}

impl RequireSigned {
    /// As the option of the command line has it.
    pub(crate) fn words(self) -> Vec<String> {
        match self {
            Self::All(true) => vec!["all".to_owned()],
            Self::All(false) => vec!["none".to_owned()],
            Self::Some(kinds) if kinds.is_empty() => vec!["none".to_owned()],
            Self::Some(kinds) => kinds,
        }
    }
}

/// Models.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Models {
    /// Call those of this host only.
    pub(crate) offline: Option<bool>,
}

/// Names.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Dns {
    /// Name servers to ask, as 10.0.0.2 or 10.0.0.2:53; those of /etc/resolv.conf when absent.
    pub(crate) servers: Option<Vec<String>>,
}

/// Spans.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Tracing {
    /// The collector, as http://127.0.0.1:4318; without one there are no spans.
    pub(crate) otlp_endpoint: Option<String>,
    /// `http/protobuf` or `grpc`.
    pub(crate) otlp_protocol: Option<String>,
    /// The authority of the collector's certificate: a PEM file, or `credential:NAME`.
    pub(crate) otlp_certificate: Option<String>,
}

/// What is logged, and how.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Log {
    /// What to log, as `info` or `aiond=debug,info`. Counts after `systemctl reload aiond`, too.
    pub(crate) level: Option<String>,
    /// `text` or `json`, to standard error; `journald`, to systemd's journal.
    pub(crate) format: Option<String>,
}

/// Who is told of what detections find.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Alerts {
    /// Receivers that findings are posted to as JSON; at most 16.
    pub(crate) webhooks: Option<Vec<AlertWebhook>>,
}

/// One receiver.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AlertWebhook {
    /// Unique, for figures and the log: 1 to 63 of a-z, 0-9 and '-'.
    pub(crate) name: String,
    /// Where alerts are posted, as https://alerts.example.com/aion; http only to this host, unless `insecure` is true.
    pub(crate) url: String,
    /// What alerts are signed with: a file, or `credential:NAME` for one that systemd hands over. Without it they are not signed.
    #[serde(default)]
    pub(crate) secret: Option<String>,
    /// Authorities in PEM that the receiver's certificate may be of, besides those on Mozilla's list: a file, or `credential:NAME`.
    #[serde(default)]
    pub(crate) ca_file: Option<String>,
    /// What is less bad is not told; `medium` when absent.
    #[serde(default)]
    pub(crate) min_severity: Option<SeverityWord>,
    /// Names of detections, with '*' for anything; all of them when absent.
    #[serde(default)]
    pub(crate) rules: Option<Vec<String>>,
    /// One try takes no longer: 100ms to 60s; 5s when absent.
    #[serde(default)]
    pub(crate) timeout: Option<Span>,
    /// Whether http may go to other hosts, where everybody on the way can read and change what is told; false when absent.
    #[serde(default)]
    pub(crate) insecure: Option<bool>,
}
