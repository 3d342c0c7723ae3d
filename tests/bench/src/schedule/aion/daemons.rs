//! A pair of daemons of the benchmark's own: a folder, rules for the scheduler, killed and started again at will.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use aion_client::{Client, Options, api};
use anyhow::{Context as _, Result, bail, ensure};

use super::ground::{Ground, clone_dir, copy};
use crate::schedule::process::{Server, processor_seconds, until};

/// How long a daemon may take to serve.
const PATIENCE: Duration = Duration::from_secs(60);

/// What `scheduler.yaml` says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    /// Slots of the node.
    pub(crate) slots: u32,
    /// How long a task runs undisturbed, in milliseconds.
    pub(crate) min_run_ms: u32,
}

impl Settings {
    fn yaml(self) -> String {
        let Self { slots, min_run_ms } = self;
        // All that is a guard in production and would only stop the measurement is as wide as it goes.
        format!(
            "apiVersion: aion.os/v1\nkind: Scheduler\nnode: {{slots: {slots}}}\n\
             preemption: {{high_cap_percent: 100, min_run: {min_run_ms}ms, max_per_task: 1000}}\n\
             checkpoints: {{every: 1h, max_size: 256Mi}}\n\
             retention: {{ended: 1h, max_ended: 5000000}}\n\
             quotas: {{max_queued: 2000000}}\n"
        )
    }
}

/// The daemons of one folder.
#[derive(Debug)]
pub(crate) struct Daemons {
    bin: PathBuf,
    clone: PathBuf,
    folder: PathBuf,
    ground: Ground,
    launcher: Option<Server>,
    aiond: Option<Server>,
}

impl Daemons {
    /// Starts a pair below `folder`, which must be empty.
    pub(crate) async fn start(folder: &Path, settings: Settings) -> Result<Self> {
        Self::start_on(folder, settings, Ground::default()).await
    }

    /// The same on a ground of its own.
    pub(crate) async fn start_on(folder: &Path, settings: Settings, ground: Ground) -> Result<Self> {
        let mut daemons = Self::prepare(folder, settings, ground)?;
        daemons.begin().await?;
        Ok(daemons)
    }

    /// Restores a backup below `folder`, which must be empty, and starts a pair on it.
    pub(crate) async fn restored(folder: &Path, settings: Settings, archive: &Path) -> Result<Self> {
        let mut daemons = Self::prepare(folder, settings, Ground::default())?;
        let mut command = Command::new(daemons.bin.join("aionctl"));
        command.args(["backup", "restore", "--state"]).arg(daemons.state()).arg(archive);
        output(command)?;
        daemons.begin().await?;
        Ok(daemons)
    }

    async fn begin(&mut self) -> Result<()> {
        self.start_launcher()?;
        self.start_aiond().await?;
        Ok(())
    }

    /// Runs aionctl; gives what it printed.
    pub(crate) fn ctl(&self, words: &[&str], file: &Path) -> Result<Vec<u8>> {
        let mut command = Command::new(self.bin.join("aionctl"));
        command.env("AION_SOCKET", self.state().join("run/aion.sock")).args(words).arg(file);
        output(command)
    }

    /// Runs a program in an agent; gives what it printed.
    pub(crate) fn exec(&self, agent: &str, argv: &[&str]) -> Result<Vec<u8>> {
        let mut command = Command::new(self.bin.join("aionctl"));
        command.env("AION_SOCKET", self.state().join("run/aion.sock")).args(["exec", agent]).args(argv);
        output(command)
    }

    fn prepare(folder: &Path, settings: Settings, ground: Ground) -> Result<Self> {
        let bin = PathBuf::from(std::env::var_os("AION_BIN_DIR").context("AION_BIN_DIR is not set")?);
        let clone = clone_dir()?;
        for name in ["aiond", "aion-launcher", "aion-init"] {
            ensure!(bin.join(name).is_file(), "no {name} in {}: run `cargo xtask build`", bin.display());
        }
        let folder = folder.to_owned();
        copy(&clone.join("profiles"), &folder.join("profiles"))?;
        fs::write(folder.join("profiles/scheduler.yaml"), settings.yaml())?;
        fs::create_dir_all(folder.join("state"))?;
        Ok(Self { bin, clone, folder, ground, launcher: None, aiond: None })
    }

    /// The state folder.
    pub(crate) fn state(&self) -> PathBuf {
        self.folder.join("state")
    }

    /// A client on a connection of its own.
    pub(crate) fn client(&self) -> Client {
        let socket = self.state().join("run/aion.sock");
        Client::connect_lazily(Options { socket, ..Options::default() })
    }

    /// aiond's process.
    pub(crate) fn aiond_pid(&self) -> Result<u32> {
        self.aiond.as_ref().and_then(Server::pid).context("aiond does not run")
    }

    /// The launcher's process.
    pub(crate) fn launcher_pid(&self) -> Result<u32> {
        self.launcher.as_ref().and_then(Server::pid).context("aion-launcher does not run")
    }

    /// Processor time that both daemons have used, in seconds.
    pub(crate) fn processor_seconds(&self) -> Result<f64> {
        Ok(processor_seconds(self.aiond_pid()?)? + processor_seconds(self.launcher_pid()?)?)
    }

    fn start_launcher(&mut self) -> Result<()> {
        let command = self.command("aion-launcher");
        self.launcher = Some(Server::start(command, None, &self.folder.join("aion-launcher.log"))?);
        Ok(())
    }

    /// Starts aiond and waits until it answers for its tasks. Gives the time that took.
    pub(crate) async fn start_aiond(&mut self) -> Result<Duration> {
        let mut command = self.command("aiond");
        let policies = self.ground.policies.clone().unwrap_or_else(|| self.clone.join("policies"));
        command.arg("--policies").arg(policies).arg("--http").arg("127.0.0.1:0");
        if let Some(dns) = &self.ground.dns {
            command.arg("--dns").arg(dns);
        }
        let begun = Instant::now();
        let mut server = Server::start(command, None, &self.folder.join("aiond.log"))?;
        let socket = self.state().join("run/aion.sock");
        // A client of its own for each question: one that waited would wait by its own clock, not by ours.
        let answer = until("aiond answers", PATIENCE, async || {
            server.check()?;
            if tokio::net::UnixStream::connect(&socket).await.is_err() {
                return Ok(None);
            }
            let client = Client::connect_lazily(Options {
                socket: socket.clone(),
                patience: Duration::ZERO,
                ..Options::default()
            });
            match client.queues(api::QueuesRequest {}).await {
                Ok(queues) => Ok(Some(queues)),
                Err(error) if error.is_disconnect() => Ok(None),
                Err(error) => Err(error.into()),
            }
        })
        .await;
        let elapsed = begun.elapsed();
        let words = server.last_words();
        self.aiond = Some(server);
        answer.map(|_| elapsed).with_context(|| format!("aiond does not serve tasks; it said:\n{words}"))
    }

    /// SIGKILL.
    pub(crate) fn kill_aiond(&mut self) {
        if let Some(mut server) = self.aiond.take() {
            server.kill();
        }
    }

    fn command(&self, name: &str) -> Command {
        let mut command = self.ground.command(self.bin.join(name));
        command.arg("--state").arg(self.state()).arg("--profiles").arg(self.folder.join("profiles"));
        command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("AION_CONFIG", "none");
        for (key, value) in std::env::vars_os() {
            if key.to_string_lossy().starts_with("AION_LOG") || key == "RUST_BACKTRACE" {
                command.env(key, value);
            }
        }
        command.current_dir("/");
        command
    }

    /// Registers an agent from `spec` and starts it when it is one that serves.
    pub(crate) async fn agent(&self, name: &str, spec: serde_json::Value) -> Result<api::Agent> {
        launch(&self.client(), name, spec).await
    }

    /// An agent that only holds a door open: who serves at it is the benchmark itself.
    pub(crate) async fn held_door(&self, name: &str, concurrency: u32) -> Result<api::Agent> {
        let spec = serde_json::json!({
            "entry": ["/usr/bin/sleep", "infinity"], "mode": "service", "tasks": true, "concurrency": concurrency,
        });
        self.agent(name, spec).await
    }

    /// Ends all of it and leaves nothing.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.take_down()
    }

    fn take_down(&mut self) -> Result<()> {
        if self.launcher.is_none() && self.aiond.is_none() {
            return Ok(());
        }
        drop(self.aiond.take());
        drop(self.launcher.take());
        let purged = self
            .ground
            .command(self.bin.join("aion-launcher"))
            .arg("purge")
            .arg("--state")
            .arg(self.state())
            .output()
            .context("aion-launcher purge")?;
        if !purged.status.success() {
            bail!("aion-launcher purge: {}", String::from_utf8_lossy(&purged.stderr).trim());
        }
        Ok(())
    }
}

impl Drop for Daemons {
    fn drop(&mut self) {
        // Reached with something to do only when a measurement failed; that error is the one to be told.
        let _ = self.take_down();
    }
}

/// Registers an agent from `spec` and starts it when it is one that serves.
pub(crate) async fn launch(client: &Client, name: &str, spec: serde_json::Value) -> Result<api::Agent> {
    let serves = spec["mode"] != "job";
    let manifest = serde_json::json!({
        "apiVersion": "aion.os/v1", "kind": "Agent",
        "metadata": { "name": name, "version": "1.0.0" }, "spec": spec,
    });
    let request = api::RegisterRequest {
        manifest: manifest.to_string().into_bytes(),
        manifest_name: "bench.json".to_owned(),
        ..api::RegisterRequest::default()
    };
    let agent = client.register(request).await.with_context(|| format!("registering {name}"))?;
    if !serves {
        return Ok(agent);
    }
    let request = api::StartRequest { agent: agent.id.clone(), ..api::StartRequest::default() };
    client.start(request).await.with_context(|| format!("starting {name}"))
}

fn output(mut command: Command) -> Result<Vec<u8>> {
    let done = command.output().context("aionctl")?;
    ensure!(done.status.success(), "aionctl: {}", String::from_utf8_lossy(&done.stderr).trim());
    Ok(done.stdout)
}
