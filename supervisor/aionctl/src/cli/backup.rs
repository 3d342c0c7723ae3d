//! Commands on backups of the state.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::when::Moment;

#[derive(Debug, Subcommand)]
pub(crate) enum BackupCommand {
    /// Write the state to a file, as of one moment, while everything runs
    Create(BackupCreate),
    /// Add what was committed of tasks since the last time to an archive, with which a restore goes on from a backup
    Archive(BackupArchive),
    /// Check every byte of a backup, or of an archive, and show what is in it; needs no daemon
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

#[derive(Debug, Args)]
pub(crate) struct BackupArchive {
    /// The folder of the archive; it is made when it is not there
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// Encrypt for the owner of this public key, as `age-keygen` prints it; can be repeated
    #[arg(long = "recipient", value_name = "age1...")]
    pub(crate) recipients: Vec<String>,
}

/// What opens encrypted backups and archives: one may have a passphrase, and the other a key.
#[derive(Debug, Args)]
pub(crate) struct Keys {
    /// The file with the passphrase: its first line
    #[arg(long, value_name = "FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,
    /// The file with the private key, as `age-keygen` writes it; can be repeated
    #[arg(short, long = "identity", value_name = "FILE")]
    pub(crate) identities: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct BackupVerify {
    /// The backup, or the folder of an archive; `-` is stdin
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Of an archive: a backup to go on from, which is checked, too; can be repeated. A gap before the newest one is no failure
    #[arg(long = "backup", value_name = "FILE")]
    pub(crate) backups: Vec<PathBuf>,
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
    /// Go on from the backup with the archive of the tasks' journal in this folder
    #[arg(long, value_name = "DIR")]
    pub(crate) journal: Option<PathBuf>,
    /// Go on to this event of a task's history only, not to the archive's end
    #[arg(long, value_name = "N", requires = "journal", conflicts_with = "to_time")]
    pub(crate) to_seq: Option<u64>,
    /// Go on to this moment only, as 2026-01-31T14:02:00Z
    #[arg(long, value_name = "TIME", requires = "journal")]
    pub(crate) to_time: Option<Moment>,
    #[command(flatten)]
    pub(crate) keys: Keys,
    /// The user that aiond runs as
    #[arg(long, env = "AION_USER", default_value = "aion", hide_env_values = true)]
    pub(crate) user: String,
    /// The group whose members are operators
    #[arg(long, env = "AION_GROUP", default_value = "aion", hide_env_values = true)]
    pub(crate) group: String,
}
