//! The peers: bubblewrap, crun and runc, each told to isolate about as much as AION does.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

use crate::without_unified;

/// A way to run a program in isolation.
#[derive(Debug)]
pub(crate) enum Peer {
    /// bubblewrap: all namespaces, a read-only system, no limits.
    Bubblewrap,
    /// An OCI runtime with a bundle that has limits on memory, CPU and processes.
    Oci { runtime: &'static str, bundle: PathBuf },
}

impl Peer {
    /// The peers that work on this host, and why the others do not.
    pub(crate) fn all(folder: &Path, program: &Path) -> (Vec<Self>, Vec<String>) {
        let (mut peers, mut skipped) = (Vec::new(), Vec::new());
        let candidates =
            [Ok(Self::Bubblewrap), Self::oci("crun", folder, program), Self::oci("runc", folder, program)];
        for candidate in candidates {
            let tried = candidate.and_then(|peer| {
                let output = peer.run(program, "try")?;
                if output.status.success() {
                    return Ok(peer);
                }
                bail!("{}: {}", peer.name(), String::from_utf8_lossy(&output.stderr).trim())
            });
            match tried {
                Ok(peer) => peers.push(peer),
                Err(error) => skipped.push(format!("{error:#}")),
            }
        }
        (peers, skipped)
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Bubblewrap => "bubblewrap",
            Self::Oci { runtime, .. } => runtime,
        }
    }

    /// A bundle whose root holds the system read-only and the program.
    fn oci(runtime: &'static str, folder: &Path, program: &Path) -> Result<Self> {
        let bundle = folder.join(format!("bundle-{runtime}"));
        let root = bundle.join("rootfs");
        for name in ["usr", "proc", "dev", "tmp", "workspace", "sys"] {
            std::fs::create_dir_all(root.join(name))?;
        }
        for name in ["bin", "lib", "lib64"] {
            std::os::unix::fs::symlink(format!("usr/{name}"), root.join(name))?;
        }
        let output = Command::new(runtime)
            .arg("spec")
            .current_dir(&bundle)
            .output()
            .with_context(|| format!("{runtime} is not installed"))?;
        if !output.status.success() {
            bail!("{runtime} spec: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        let file = bundle.join("config.json");
        let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&file)?)?;
        config["process"]["terminal"] = false.into();
        config["process"]["args"] = serde_json::json!(["/workspace/stamp"]);
        config["process"]["cwd"] = "/workspace".into();
        config["linux"]["resources"] = serde_json::json!({
            "memory": { "limit": 512 << 20 },
            "cpu": { "quota": 100_000, "period": 100_000 },
            "pids": { "limit": 256 },
        });
        if let Some(mounts) = config["mounts"].as_array_mut() {
            // Neither runtime can mount sysfs or a cgroup file system everywhere; AION shows neither.
            mounts.retain(|mount| !matches!(mount["destination"].as_str(), Some("/sys" | "/sys/fs/cgroup")));
            let program_folder = program.parent().context("a program has a folder")?;
            mounts.push(serde_json::json!({
                "destination": "/usr", "type": "bind", "source": "/usr", "options": ["rbind", "ro"]
            }));
            mounts.push(serde_json::json!({
                "destination": "/workspace", "type": "bind", "source": program_folder, "options": ["rbind"]
            }));
        }
        std::fs::write(&file, serde_json::to_vec_pretty(&config)?)?;
        Ok(Self::Oci { runtime, bundle })
    }

    /// The command that runs the program of the bundle (OCI) or `program` (bubblewrap). `id` must be unused.
    pub(crate) fn command(&self, program: &Path, id: &str) -> Command {
        match self {
            Self::Bubblewrap => {
                let mut command = Command::new("bwrap");
                command.args(["--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]);
                command.args(["--ro-bind", "/usr", "/usr", "--symlink", "usr/bin", "/bin"]);
                command.args(["--symlink", "usr/lib", "/lib", "--symlink", "usr/lib64", "/lib64"]);
                command.args(["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]);
                let folder = program.parent().unwrap_or(Path::new("/"));
                command.arg("--bind").arg(folder).arg("/workspace").args(["--chdir", "/workspace"]);
                command.arg(Path::new("/workspace").join(program.file_name().unwrap_or_default()));
                command
            }
            Self::Oci { runtime, bundle } => {
                let mut command = Command::new(runtime);
                command
                    .args(["run", "--bundle"])
                    .arg(bundle)
                    .arg(format!("aion-bench-{}-{id}", std::process::id()));
                command
            }
        }
    }

    /// Runs it to its end.
    pub(crate) fn run(&self, program: &Path, id: &str) -> Result<Output> {
        let mut command = self.command(program, id);
        command.stdin(Stdio::null());
        let output = match self {
            // crun refuses hosts whose unified hierarchy has a controller beside those of v1.
            Self::Oci { runtime: "crun", .. } => without_unified::run(command)?,
            _ => command.output(),
        };
        output.with_context(|| format!("{} is not installed", self.name()))
    }
}
