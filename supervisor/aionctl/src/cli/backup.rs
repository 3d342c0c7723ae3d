//! Commands on backups of the state.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum BackupCommand {
    /// Write the state to a file, as of one moment, while everything runs
    Create(BackupCreate),
    /// Check every byte of a backup and show what is in it; needs no daemon
    Verify(BackupVerify),
    /// Make a state folder from a backup, on this machine or another; needs root and no daemon
    Restore(BackupRestore),
}

#[derive(Debug, Args)]
pub(crate) struct BackupCreate {
    /// The file to write, which must not be there; `-` is stdout
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Encrypt with the passphrase in this file: its first line
    #[arg(long, value_name = "FILE", conflicts_with = "recipients")]
    pub(crate) passphrase_file: Option<PathBuf>,
    /// Encrypt for the owner of this public key, as `age-keygen` prints it; can be repeated
    #[arg(long = "recipient", value_name = "age1...")]
    pub(crate) recipients: Vec<String>,
    /// Leave out what agents wrote, and what jobs left behind
    #[arg(long)]
    pub(crate) without_output: bool,
}

/// What opens an encrypted backup.
#[derive(Debug, Args)]
pub(crate) struct Keys {
    /// The file with the passphrase: its first line
    #[arg(long, value_name = "FILE", conflicts_with = "identities")]
    pub(crate) passphrase_file: Option<PathBuf>,
    /// The file with the private key, as `age-keygen` writes it; can be repeated
    #[arg(short, long = "identity", value_name = "FILE")]
    pub(crate) identities: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct BackupVerify {
    /// The backup; `-` is stdin
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) keys: Keys,
}

#[derive(Debug, Args)]
pub(crate) struct BackupRestore {
    /// The backup
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// The folder that becomes the state; it must be empty, or not there
    #[arg(
        long,
        value_name = "DIR",
        env = "AION_STATE",
        default_value = "/var/lib/aion",
        hide_env_values = true
    )]
    pub(crate) state: PathBuf,
    #[command(flatten)]
    pub(crate) keys: Keys,
    /// The user that aiond runs as
    #[arg(long, env = "AION_USER", default_value = "aion", hide_env_values = true)]
    pub(crate) user: String,
    /// The group whose members are operators
    #[arg(long, env = "AION_GROUP", default_value = "aion", hide_env_values = true)]
    pub(crate) group: String,
}
