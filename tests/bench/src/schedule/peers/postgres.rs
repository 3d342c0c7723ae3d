//! PostgreSQL as a queue: a table, SKIP LOCKED, `fsync` and `synchronous_commit` on, over a Unix socket.
//!
//! A batch is one statement, for a client as for a worker: that is one sync of the log instead of many.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::Signal;
use nix::unistd::{User, chown};
use tokio_postgres::{Client, Config, NoTls};

use crate::schedule::Work;
use crate::schedule::load::{Contender, Load, number, params, result};
use crate::schedule::process::{Server, until};

const SCHEMA: &str = "
    DROP TABLE IF EXISTS tasks;
    CREATE TABLE tasks (
        id bigserial PRIMARY KEY, params text NOT NULL, state smallint NOT NULL DEFAULT 0,
        attempts smallint NOT NULL DEFAULT 0, started timestamptz, result text
    ) WITH (fillfactor = 50);
    CREATE INDEX waiting ON tasks (id) WHERE state = 0;
    CHECKPOINT";
const INSERT: &str = "INSERT INTO tasks (params) SELECT unnest($1::text[])";
const TAKE: &str = "
    UPDATE tasks SET state = 1, attempts = attempts + 1, started = now()
    WHERE id = ANY (ARRAY (SELECT id FROM tasks WHERE state = 0 ORDER BY id LIMIT 256 FOR UPDATE SKIP LOCKED))
    RETURNING id, params";
const END: &str = "UPDATE tasks SET state = 2, result = $2 WHERE id = ANY ($1)";
/// What an idle worker sleeps. Shorter than anybody would have it, so that waiting does not count against it.
const PAUSE: Duration = Duration::from_micros(200);

/// A PostgreSQL of our own.
#[derive(Debug)]
pub(crate) struct Postgres {
    folder: PathBuf,
    bin: PathBuf,
    user: User,
    server: Server,
    config: Config,
}

impl Postgres {
    /// Makes a cluster in an empty folder and starts it as the package's user: it refuses to be root.
    pub(crate) async fn start(folder: &Path) -> Result<Self> {
        let user = User::from_name("postgres")?.context("there is no user postgres")?;
        let bin = newest(Path::new("/usr/lib/postgresql"))?;
        let folder = folder.join("postgres");
        std::fs::create_dir_all(&folder)?;
        chown(&folder, Some(user.uid), Some(user.gid))?;
        let mut init = Command::new(bin.join("initdb"));
        init.args(["--auth", "trust", "--encoding", "UTF8", "--locale", "C", "--pgdata"]);
        init.arg(folder.join("data")).current_dir(&folder);
        let mut init =
            Server::start(init, Some((user.uid.as_raw(), user.gid.as_raw())), &folder.join("log"))?;
        until("initdb", Duration::from_secs(60), async || Ok(init.check().is_err().then_some(()))).await?;
        ensure!(folder.join("data/postgresql.conf").is_file(), "initdb: {}", init.last_words());
        let mut config = Config::new();
        config.host_path(&folder).user("postgres").dbname("postgres");
        let server = serve(&folder, &bin, &user)?;
        let mut postgres = Self { folder, bin, user, server, config };
        postgres.ready().await?;
        Ok(postgres)
    }

    async fn ready(&mut self) -> Result<()> {
        until("PostgreSQL answers", Duration::from_secs(120), async || {
            self.server.check()?;
            let Ok(client) = connect(&self.config).await else { return Ok(None) };
            Ok(client.simple_query("SELECT 1").await.ok())
        })
        .await
        .map(|_| ())
    }

    /// As many tasks, waiting.
    pub(crate) async fn fill(&self, count: u32) -> Result<()> {
        let client = connect(&self.config).await?;
        client.batch_execute(SCHEMA).await?;
        for first in (0..count).step_by(10_000) {
            let batch: Vec<String> = (first..count.min(first + 10_000)).map(params).collect();
            client.execute(INSERT, &[&batch]).await?;
        }
        Ok(())
    }

    /// From SIGKILL of all of it on: the time until a new process has found its tasks.
    pub(crate) async fn restart(&mut self) -> Result<Duration> {
        self.server.kill();
        // Its children see that it is gone, and hold the folder until then.
        let begun = until("PostgreSQL is gone", Duration::from_secs(30), async || {
            let begun = Instant::now();
            self.server = serve(&self.folder, &self.bin, &self.user)?;
            tokio::time::sleep(Duration::from_millis(30)).await;
            Ok(self.server.check().is_ok().then_some(begun))
        })
        .await?;
        self.ready().await?;
        Ok(begun.elapsed())
    }
}

/// The programs of the newest version that is installed.
fn newest(folder: &Path) -> Result<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir(folder)
        .context("it is not installed")?
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            Some((path.file_name()?.to_str()?.parse().ok()?, path.join("bin")))
        })
        .filter(|(_, bin)| bin.join("postgres").is_file())
        .collect();
    versions.sort();
    match versions.pop() {
        Some((_, bin)) => Ok(bin),
        None => bail!("no server in {}", folder.display()),
    }
}

fn serve(folder: &Path, bin: &Path, user: &User) -> Result<Server> {
    let mut command = Command::new(bin.join("postgres"));
    command.arg("-D").arg(folder.join("data")).arg("-k").arg(folder).current_dir(folder);
    for setting in [
        "listen_addresses=",
        "fsync=on",
        "synchronous_commit=on",
        "full_page_writes=on",
        "shared_buffers=256MB",
        "max_wal_size=4GB",
    ] {
        command.args(["-c", setting]);
    }
    let user = Some((user.uid.as_raw(), user.gid.as_raw()));
    // SIGINT ends sessions, too; SIGTERM would wait for them.
    Ok(Server::start(command, user, &folder.join("log"))?.ended_by(Signal::SIGINT))
}

async fn connect(config: &Config) -> Result<Client> {
    let (client, connection) = config.connect(NoTls).await.context("a connection to PostgreSQL")?;
    tokio::spawn(connection);
    Ok(client)
}

async fn work(config: Config, load: Arc<Load>) -> Result<()> {
    let client = connect(&config).await?;
    let (take, end) = (client.prepare(TAKE).await?, client.prepare(END).await?);
    let body = result();
    while !load.is_over() {
        let rows = client.query(&take, &[]).await?;
        if rows.is_empty() {
            tokio::time::sleep(PAUSE).await;
            continue;
        }
        let ids: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
        let numbers: Result<Vec<u32>> =
            rows.iter().map(|row| number(row.get::<_, &str>(1).as_bytes())).collect();
        client.execute(&end, &[&ids, &body]).await?;
        load.ended(numbers?);
    }
    Ok(())
}

impl Contender for Postgres {
    fn name(&self) -> &str {
        "PostgreSQL"
    }

    fn workers(&self) -> usize {
        2
    }

    fn prepare(&self) -> Work {
        let config = self.config.clone();
        Box::pin(async move { Ok(connect(&config).await?.batch_execute(SCHEMA).await?) })
    }

    fn submit(&self, load: Arc<Load>) -> Work {
        let (config, clients) = (self.config.clone(), self.clients());
        Box::pin(async move {
            let client = connect(&config).await?;
            let insert = client.prepare(INSERT).await?;
            while let Some(numbers) = load.next(load.share(clients)).await {
                let batch: Vec<String> = numbers.map(params).collect();
                client.execute(&insert, &[&batch]).await?;
            }
            Ok(())
        })
    }

    fn work(&self, load: Arc<Load>) -> Work {
        Box::pin(work(self.config.clone(), load))
    }
}
