//! Redis Streams: a consumer group, `appendfsync always`, over a Unix socket.
//!
//! Submission is XADD, dispatch XREADGROUP, the end a transaction of XADD of the result, XACK and XDEL. All of it is pipelined:
//! what a client has to say goes out as one.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use redis::aio::MultiplexedConnection;
use redis::streams::StreamReadReply;
use redis::{AsyncConnectionConfig, Client, Value};

use crate::schedule::Work;
use crate::schedule::load::{Contender, Load, number, params, result};
use crate::schedule::process::{Server, until};

const TASKS: &str = "tasks";
const RESULTS: &str = "results";
const GROUP: &str = "workers";
/// Entries in a command of a bulk load.
const BULK: u32 = 1000;

/// A Redis of our own.
#[derive(Debug)]
pub(crate) struct Redis {
    folder: PathBuf,
    server: Server,
    client: Client,
}

impl Redis {
    /// Starts one with an empty folder.
    pub(crate) async fn start(folder: &Path) -> Result<Self> {
        let folder = folder.join("redis");
        std::fs::create_dir_all(&folder)?;
        let client = Client::open(format!("redis+unix://{}", folder.join("socket").display()))?;
        let server = serve(&folder)?;
        let mut redis = Self { folder, server, client };
        redis.ready().await?;
        Ok(redis)
    }

    /// Waits until it answers. While it loads it says so instead.
    async fn ready(&mut self) -> Result<()> {
        until("Redis answers", Duration::from_secs(120), async || {
            self.server.check()?;
            let Ok(mut connection) = self.client.get_multiplexed_async_connection().await else {
                return Ok(None);
            };
            let answer = redis::cmd("XLEN").arg(TASKS).query_async::<u64>(&mut connection).await;
            Ok(answer.ok())
        })
        .await
        .map(|_| ())
    }

    /// As many tasks, waiting.
    pub(crate) async fn fill(&self, count: u32) -> Result<()> {
        let mut connection = connect(&self.client).await?;
        for first in (0..count).step_by(BULK as usize) {
            let numbers: Vec<u32> = (first..count.min(first + BULK)).collect();
            add(&mut connection, &numbers).await?;
        }
        let length: u64 = redis::cmd("XLEN").arg(TASKS).query_async(&mut connection).await?;
        ensure!(length == u64::from(count), "Redis has {length} tasks of {count}");
        Ok(())
    }

    /// From SIGKILL on: the time until a new process answers.
    pub(crate) async fn restart(&mut self) -> Result<Duration> {
        self.server.kill();
        let begun = Instant::now();
        self.server = serve(&self.folder)?;
        self.ready().await?;
        Ok(begun.elapsed())
    }

    /// Its process.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.server.pid()
    }
}

fn serve(folder: &Path) -> Result<Server> {
    let mut command = Command::new("redis-server");
    command.args(["--port", "0", "--unixsocket"]).arg(folder.join("socket")).arg("--dir").arg(folder);
    command.args(["--appendonly", "yes", "--appendfsync", "always", "--save", "", "--daemonize", "no"]);
    Server::start(command, None, &folder.join("log"))
}

async fn connect(client: &Client) -> Result<MultiplexedConnection> {
    // A read that waits for tasks waits longer than the client would let it.
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    client.get_multiplexed_async_connection_with_config(&config).await.context("a connection to Redis")
}

async fn add(connection: &mut MultiplexedConnection, numbers: &[u32]) -> Result<()> {
    let mut pipe = redis::pipe();
    for &number in numbers {
        pipe.cmd("XADD").arg(TASKS).arg("*").arg("params").arg(params(number));
    }
    let _: Vec<Value> = pipe.query_async(connection).await?;
    Ok(())
}

async fn work(client: Client, load: Arc<Load>) -> Result<()> {
    let mut connection = connect(&client).await?;
    let consumer = format!("worker-{:p}", &raw const connection);
    let body = result();
    while !load.is_over() {
        let mut read = redis::cmd("XREADGROUP");
        read.arg("GROUP").arg(GROUP).arg(consumer.as_str()).arg("COUNT").arg(256);
        read.arg("BLOCK").arg(50).arg("STREAMS").arg(TASKS).arg(">");
        let Some(reply) = read.query_async::<Option<StreamReadReply>>(&mut connection).await? else {
            continue;
        };
        let entries: Vec<_> = reply.keys.into_iter().flat_map(|key| key.ids).collect();
        let mut numbers = Vec::with_capacity(entries.len());
        let mut pipe = redis::pipe();
        pipe.atomic();
        for entry in &entries {
            let params: Vec<u8> = entry.get("params").context("an entry without parameters")?;
            let number = number(&params)?;
            numbers.push(number);
            pipe.cmd("XADD").arg(RESULTS).arg("*").arg("task").arg(number).arg("result").arg(&body);
        }
        let ids: Vec<&str> = entries.iter().map(|entry| entry.id.as_str()).collect();
        pipe.cmd("XACK").arg(TASKS).arg(GROUP).arg(&ids);
        pipe.cmd("XDEL").arg(TASKS).arg(&ids);
        let _: Vec<Value> = pipe.query_async(&mut connection).await?;
        load.ended(numbers);
    }
    Ok(())
}

impl Contender for Redis {
    fn name(&self) -> &str {
        "Redis Streams"
    }

    fn workers(&self) -> usize {
        2
    }

    fn prepare(&self) -> Work {
        let client = self.client.clone();
        Box::pin(async move {
            let mut connection = connect(&client).await?;
            redis::cmd("FLUSHALL").exec_async(&mut connection).await?;
            let mut group = redis::cmd("XGROUP");
            group.arg("CREATE").arg(TASKS).arg(GROUP).arg("0").arg("MKSTREAM");
            group.exec_async(&mut connection).await?;
            Ok(())
        })
    }

    fn submit(&self, load: Arc<Load>) -> Work {
        let (client, clients) = (self.client.clone(), self.clients());
        Box::pin(async move {
            let mut connection = connect(&client).await?;
            while let Some(numbers) = load.next(load.share(clients)).await {
                add(&mut connection, &numbers.collect::<Vec<_>>()).await?;
            }
            Ok(())
        })
    }

    fn work(&self, load: Arc<Load>) -> Work {
        Box::pin(work(self.client.clone(), load))
    }
}
