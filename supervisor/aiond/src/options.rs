//! What the command line and the environment say.

use std::path::{Path, PathBuf};

use clap::{Parser, ValueEnum};

/// The API of AION's supervisor. Runs as an unprivileged user; drops to it when started as root.
///
/// Talks to aion-launcher over STATE/run/launcher.sock and serves gRPC on a Unix socket. Agents go on running
/// when it stops.
#[derive(Debug, Parser)]
#[command(name = "aiond", version)]
pub(crate) struct Options {
    /// The state folder: database, secrets, sockets
    #[arg(long, env = "AION_STATE", default_value = "/var/lib/aion")]
    pub(crate) state: PathBuf,
    /// The socket to serve on; relative to the state folder
    #[arg(long, env = "AION_SOCKET_PATH", default_value = "run/aion.sock")]
    pub(crate) socket: PathBuf,
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
    /// How to write the log, to standard error
    #[arg(long, env = "AION_LOG_FORMAT", value_enum, default_value = "text")]
    pub(crate) log_format: LogFormat,
    /// What to log, as `info` or `aiond=debug,info`
    #[arg(long, env = "AION_LOG", default_value = "info")]
    pub(crate) log: String,
}

/// Form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Options {
    /// Makes the paths absolute that are not meant relative to the state folder, before the working directory
    /// moves there.
    pub(crate) fn absolute(mut self) -> std::io::Result<Self> {
        for path in [&mut self.state, &mut self.profiles, &mut self.policies] {
            *path = std::path::absolute(&*path)?;
        }
        Ok(self)
    }

    /// A path as reached from the state folder: inside it relative, so that folders above need not be
    /// searchable for aiond's user.
    pub(crate) fn inside_state<'a>(&self, path: &'a Path) -> &'a Path {
        path.strip_prefix(&self.state).unwrap_or(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_in_the_state_folder_is_reached_from_there() {
        let options = Options::parse_from(["aiond", "--state", "/srv/aion"]);
        assert_eq!(options.inside_state(Path::new("/srv/aion/run/a.sock")), Path::new("run/a.sock"));
        assert_eq!(options.inside_state(Path::new("/run/aion/a.sock")), Path::new("/run/aion/a.sock"));
        assert_eq!(options.inside_state(Path::new("run/a.sock")), Path::new("run/a.sock"));
    }
}
