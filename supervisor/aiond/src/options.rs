//! What the command line and the environment say.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use aion_signing::Kind;
use anyhow::{Context as _, Result, ensure};
use clap::{Parser, Subcommand, ValueEnum};

/// The API of AION's supervisor. Runs as an unprivileged user; drops to it when started as root.
///
/// Talks to aion-launcher over STATE/run/launcher.sock and serves gRPC on a Unix socket. Agents go on running
/// when it stops.
#[derive(Debug, Clone, Parser)]
#[command(name = "aiond", version)]
pub(crate) struct Options {
    /// Something else than to serve
    #[command(subcommand)]
    pub(crate) action: Option<Action>,
    /// The configuration, and after it the files of FILE.d by name; `none` reads none [default: /etc/aion/config.yaml when it is
    /// there]. Variables and options count before it
    #[arg(long, env = "AION_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The state folder: database, secrets, sockets
    #[arg(long, env = "AION_STATE", default_value = "/var/lib/aion")]
    pub(crate) state: PathBuf,
    /// The socket to serve on; relative to the state folder. One that the service manager hands over (LISTEN_FDS) is taken instead
    #[arg(long, env = "AION_SOCKET_PATH", default_value = "run/aion.sock")]
    pub(crate) socket: PathBuf,
    /// The folder for the pid file and for the files that say where HTTP and gRPC are served; relative to the state folder. Without
    /// root its user must own it
    #[arg(long, env = "AION_RUN_DIR", default_value = "run")]
    pub(crate) run_dir: PathBuf,
    /// The launcher's socket; relative to the state folder
    #[arg(long, env = "AION_LAUNCHER_SOCKET", default_value = "run/launcher.sock")]
    pub(crate) launcher_socket: PathBuf,
    /// The user to run as, when started as root
    #[arg(long, env = "AION_USER", default_value = "aion")]
    pub(crate) user: String,
    /// The group whose members may use the socket
    #[arg(long, env = "AION_GROUP", default_value = "aion")]
    pub(crate) group: String,
    /// The folder of profiles (seccomp, cgroup classes)
    #[arg(long, env = "AION_PROFILES", default_value = "/usr/share/aion/profiles")]
    pub(crate) profiles: PathBuf,
    /// The folder of policies
    #[arg(long, env = "AION_POLICIES", default_value = "/etc/aion/policies")]
    pub(crate) policies: PathBuf,
    /// The folder of detections [default: `detections` in the folder of policies]
    #[arg(long, env = "AION_DETECTIONS", value_name = "DIR")]
    pub(crate) detections: Option<PathBuf>,
    /// What must be signed by a key that is trusted: `agents`, `tools`, `policies`, `all` or `none`
    #[arg(long, env = "AION_REQUIRE_SIGNED", value_name = "KIND", value_parser = must_be_signed, value_delimiter = ',')]
    pub(crate) require_signed: Vec<MustBeSigned>,
    /// The folder of public keys that are trusted: *.pub and *.pem
    #[arg(long, env = "AION_TRUSTED_KEYS", value_name = "DIR", default_value = "/etc/aion/keys")]
    pub(crate) trusted_keys: PathBuf,
    /// Where to serve the kernel API over HTTP: an address of this host's loopback, as 127.0.0.1:8010, or `off`. The address is
    /// in RUN_DIR/http once it is served; port 0 takes a free one
    #[arg(long, env = "AION_HTTP", value_name = "ADDRESS", value_parser = http_address)]
    pub(crate) http: Option<Http>,
    /// The port, when --http does not say
    #[arg(long, env = "AION_KERNEL_PORT", value_name = "PORT", default_value_t = 8010)]
    pub(crate) kernel_port: u16,
    /// Where to serve system calls over gRPC, as 0.0.0.0:8011; without it there is no such door. Without TLS only the loopback is
    /// served. The address is in RUN_DIR/grpc once it is served; port 0 takes a free one
    #[arg(long, env = "AION_GRPC", value_name = "ADDRESS")]
    pub(crate) grpc: Option<SocketAddr>,
    /// The certificate of that door, with what leads to its authority: a PEM file
    #[arg(long, env = "AION_GRPC_TLS_CERT", value_name = "FILE")]
    pub(crate) grpc_tls_cert: Option<PathBuf>,
    /// The certificate's key: a PEM file
    #[arg(long, env = "AION_GRPC_TLS_KEY", value_name = "FILE")]
    pub(crate) grpc_tls_key: Option<PathBuf>,
    /// The authority of clients' certificates, a PEM file: clients with one of its certificates need not sign
    #[arg(long, env = "AION_GRPC_CLIENT_CA", value_name = "FILE")]
    pub(crate) grpc_client_ca: Option<PathBuf>,
    /// Call models of this host only
    #[arg(long, env = "OFFLINE_MODE", value_parser = clap::builder::BoolishValueParser::new(), action = clap::ArgAction::Set, default_value = "false", default_missing_value = "true", num_args = 0..=1)]
    pub(crate) offline: bool,
    /// Ask this name server for the names of agents with network mode egress, as 10.0.0.2 or 10.0.0.2:53; can be given several
    /// times [default: those of /etc/resolv.conf]
    #[arg(long, env = "AION_DNS", value_name = "ADDRESS", value_parser = name_server, value_delimiter = ',')]
    pub(crate) dns: Vec<SocketAddr>,
    /// Send spans over OTLP to this endpoint, as http://127.0.0.1:4318; without one there are none. Headers, as a collector's key,
    /// come from OTEL_EXPORTER_OTLP_HEADERS
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL")]
    pub(crate) otlp_endpoint: Option<String>,
    /// How spans travel: `http/protobuf` or `grpc`
    #[arg(
        long,
        env = "OTEL_EXPORTER_OTLP_PROTOCOL",
        value_name = "PROTOCOL",
        default_value = "http/protobuf"
    )]
    pub(crate) otlp_protocol: String,
    /// The authority of the collector's certificate, a PEM file; without one Mozilla's list
    #[arg(long, env = "OTEL_EXPORTER_OTLP_CERTIFICATE", value_name = "FILE")]
    pub(crate) otlp_certificate: Option<PathBuf>,
    /// How to write the log: to standard error, or to systemd's journal with fields to ask for, as AION_AGENT= and AION_TENANT=
    #[arg(long, env = "AION_LOG_FORMAT", value_enum, default_value = "text")]
    pub(crate) log_format: LogFormat,
    /// What to log, as `info` or `aiond=debug,info`
    #[arg(long, env = "AION_LOG", default_value = "info")]
    pub(crate) log: String,
}

/// Something else than to serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
pub(crate) enum Action {
    /// Read the configuration, profiles and policies as a start would, say all that is wrong by file, line and column, and what the
    /// files set. Touches nothing
    CheckConfig,
    /// Apply a piece of the journal's archive, from standard input, to the journal in the state folder, which nobody has open: for
    /// `aionctl backup restore`
    #[command(hide = true)]
    ReplayJournal,
}

/// A file that the service manager hands over, in the place of a path: `credential:NAME`.
const CREDENTIAL: &str = "credential:";

/// Where HTTP is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Http {
    /// Nowhere.
    Off,
    /// There.
    At(SocketAddr),
}

/// What must be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MustBeSigned {
    /// All that can be.
    Everything,
    /// Nothing.
    Nothing,
    /// This.
    One(Kind),
}

fn must_be_signed(text: &str) -> Result<MustBeSigned, String> {
    match text {
        "all" => Ok(MustBeSigned::Everything),
        "none" => Ok(MustBeSigned::Nothing),
        _ => Kind::parse(text)
            .map(MustBeSigned::One)
            .ok_or_else(|| "write agents, tools, policies, all or none".to_owned()),
    }
}

/// An address, with port 53 where there is none.
fn name_server(text: &str) -> Result<SocketAddr, String> {
    let plain = text.parse::<IpAddr>().map(|address| SocketAddr::new(address, 53));
    plain.or_else(|_| text.parse()).map_err(|_| "write an address, or an address and a port".to_owned())
}

fn http_address(text: &str) -> Result<Http, String> {
    if text == "off" {
        return Ok(Http::Off);
    }
    // Clients have the same variable, with a URL in it.
    let plain = text.strip_prefix("http://").map_or(text, |rest| rest.trim_end_matches('/'));
    let address: SocketAddr =
        plain.parse().map_err(|_| "write an address and a port, as 127.0.0.1:8010, or off".to_owned())?;
    if address.ip().is_loopback() {
        Ok(Http::At(address))
    } else {
        Err("without TLS only the loopback is served: use 127.0.0.1 or [::1]".to_owned())
    }
}

/// Form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
    /// Entries of systemd's journal.
    Journald,
}

impl Options {
    /// Makes the paths absolute that are not meant relative to the state folder, before the working directory
    /// moves there.
    ///
    /// # Errors
    /// When a credential is asked for that the service manager does not hand over.
    pub(crate) fn absolute(mut self) -> Result<Self> {
        let handed = std::env::var_os("CREDENTIALS_DIRECTORY");
        // Only the service itself has them: who checks its configuration, from a shell or as its reload, knows their names.
        let checks = self.action == Some(Action::CheckConfig);
        for path in [&mut self.state, &mut self.profiles, &mut self.policies, &mut self.trusted_keys] {
            *path = std::path::absolute(&*path)?;
        }
        let files = [
            &mut self.detections,
            &mut self.otlp_certificate,
            &mut self.grpc_tls_cert,
            &mut self.grpc_tls_key,
            &mut self.grpc_client_ca,
        ];
        for path in files.into_iter().flatten() {
            *path = match path.to_str().and_then(|text| text.strip_prefix(CREDENTIAL)) {
                Some(name) if checks => {
                    credential(name, Some("/".into()))?;
                    path.clone()
                }
                Some(name) => credential(name, handed.clone())?,
                None => std::path::absolute(&*path)?,
            };
        }
        Ok(self)
    }

    /// Whether it names a credential that only the service has.
    pub(crate) fn names_credential(&self) -> bool {
        self.keys().any(is_credential)
    }

    /// Keys and certificates, without credentials that only the service has.
    pub(crate) fn key_files(&self) -> impl Iterator<Item = &Path> {
        self.keys().filter(|path| !is_credential(path))
    }

    fn keys(&self) -> impl Iterator<Item = &Path> {
        let files = [&self.otlp_certificate, &self.grpc_tls_cert, &self.grpc_tls_key, &self.grpc_client_ca];
        files.into_iter().flatten().map(PathBuf::as_path)
    }

    /// A secret's file, which is a path or a credential; none: only the service has it, and this checks its configuration.
    ///
    /// # Errors
    /// When it is a credential that the service manager does not hand over.
    pub(crate) fn secret(&self, given: &str) -> Result<Option<PathBuf>> {
        match given.strip_prefix(CREDENTIAL) {
            Some(name) if self.action == Some(Action::CheckConfig) => {
                credential(name, Some("/".into())).map(|_| None)
            }
            Some(name) => credential(name, std::env::var_os("CREDENTIALS_DIRECTORY")).map(Some),
            None => Ok(Some(std::path::absolute(given)?)),
        }
    }

    /// Where HTTP is served; none: nowhere.
    pub(crate) fn http(&self) -> Option<SocketAddr> {
        match self.http {
            Some(Http::Off) => None,
            Some(Http::At(address)) => Some(address),
            None => Some(SocketAddr::from((Ipv4Addr::LOCALHOST, self.kernel_port))),
        }
    }

    /// A path as reached from the state folder: inside it relative, so that folders above need not be
    /// searchable for aiond's user.
    pub(crate) fn inside_state<'a>(&self, path: &'a Path) -> &'a Path {
        path.strip_prefix(&self.state).unwrap_or(path)
    }
}

fn is_credential(path: &Path) -> bool {
    path.to_str().is_some_and(|text| text.starts_with(CREDENTIAL))
}

fn credential(name: &str, folder: Option<std::ffi::OsString>) -> Result<PathBuf> {
    ensure!(
        !name.is_empty() && !name.contains('/') && name != "..",
        "{CREDENTIAL}{name}: this is not a credential's name"
    );
    let folder = folder.with_context(|| {
        format!("{CREDENTIAL}{name}: no credentials are handed over; write LoadCredential={name}:FILE in a drop-in of aiond.service")
    })?;
    Ok(Path::new(&folder).join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_stays_on_the_loopback() {
        let parse = |args: &[&str]| Options::try_parse_from([&["aiond"], args].concat());
        assert_eq!(parse(&[]).unwrap().http().unwrap().to_string(), "127.0.0.1:8010");
        assert_eq!(parse(&["--kernel-port", "9"]).unwrap().http().unwrap().port(), 9);
        assert_eq!(parse(&["--http", "off"]).unwrap().http(), None);
        assert_eq!(parse(&["--http", "[::1]:0"]).unwrap().http().unwrap().to_string(), "[::1]:0");
        for wrong in ["0.0.0.0:8010", "192.168.1.1:80", "8010", "localhost"] {
            assert!(parse(&["--http", wrong]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_credential_is_a_file_of_the_service_managers_folder() {
        let folder = || Some("/run/credentials/aiond.service".into());
        let found = credential("tls.key", folder()).unwrap();
        assert_eq!(found, Path::new("/run/credentials/aiond.service/tls.key"));
        for wrong in ["", "../x", "a/b", ".."] {
            assert!(credential(wrong, folder()).is_err(), "{wrong}");
        }
        assert!(credential("x", None).unwrap_err().to_string().contains("LoadCredential"));
    }

    #[test]
    fn a_socket_in_the_state_folder_is_reached_from_there() {
        let options = Options::parse_from(["aiond", "--state", "/srv/aion"]);
        assert_eq!(options.inside_state(Path::new("/srv/aion/run/a.sock")), Path::new("run/a.sock"));
        assert_eq!(options.inside_state(Path::new("/run/aion/a.sock")), Path::new("/run/aion/a.sock"));
        assert_eq!(options.inside_state(Path::new("run/a.sock")), Path::new("run/a.sock"));
    }
}
