//! Commands on signatures.

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct SignArgs {
    /// The private key: a PEM file of the curve P-256, as `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256` makes it
    #[arg(long, value_name = "FILE", required_unless_present = "payload")]
    pub(crate) key: Option<PathBuf>,
    /// Write what is to be signed to stdout, for a signer of your own, as `cosign sign-blob --key KEY -`
    #[arg(long, conflicts_with = "key")]
    pub(crate) payload: bool,
    /// Manifests of agents and tools, capability rules, detections. A tool's files are signed with it. The signature goes into FILE.sig
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct TrustArgs {
    /// A public key: a PEM file; can be repeated
    #[arg(long = "key", value_name = "FILE")]
    pub(crate) keys: Vec<PathBuf>,
    /// The folder of the keys that are trusted, when no key is given
    #[arg(
        long,
        value_name = "DIR",
        env = "AION_TRUSTED_KEYS",
        default_value = "/etc/aion/keys",
        hide_env_values = true
    )]
    pub(crate) trusted_keys: PathBuf,
    /// What must be signed by a key that is trusted with it: manifests of agents and tools, capability rules, detections
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
}
