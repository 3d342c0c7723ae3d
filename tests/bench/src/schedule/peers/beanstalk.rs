//! beanstalkd with `-f 0`: each change synced to its log. Its protocol is lines of text, so the client is a few of them.
//!
//! It has no place for results: deleting a job is all there is to its end, which flatters it.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

use crate::schedule::Work;
use crate::schedule::load::{Contender, Load, number, params};
use crate::schedule::process::{Server, until};

/// Commands that are sent before their answers are read.
const AHEAD: usize = 32;

/// A beanstalkd of our own.
#[derive(Debug)]
pub(crate) struct Beanstalk {
    _server: Server,
    socket: std::path::PathBuf,
}

impl Beanstalk {
    /// Starts one with an empty folder.
    pub(crate) async fn start(folder: &Path) -> Result<Self> {
        let folder = folder.join("beanstalk");
        std::fs::create_dir_all(folder.join("binlog"))?;
        let socket = folder.join("socket");
        let mut command = Command::new("beanstalkd");
        command.arg("-b").arg(folder.join("binlog")).args(["-f", "0", "-l"]);
        command.arg(format!("unix:{}", socket.display()));
        let mut server = Server::start(command, None, &folder.join("log"))?;
        until("beanstalkd answers", Duration::from_secs(20), async || {
            server.check()?;
            Ok(UnixStream::connect(&socket).await.ok())
        })
        .await?;
        Ok(Self { _server: server, socket })
    }
}

struct Connection(BufReader<UnixStream>);

impl Connection {
    async fn open(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket).await.context("a connection to beanstalkd")?;
        Ok(Self(BufReader::new(stream)))
    }

    async fn send(&mut self, text: &str) -> Result<()> {
        Ok(self.0.get_mut().write_all(text.as_bytes()).await?)
    }

    async fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.0.read_line(&mut line).await? == 0 {
            bail!("beanstalkd hung up");
        }
        Ok(line.trim_end().to_owned())
    }

    /// Reads the answer to a reservation: id and number, or none.
    async fn reserved(&mut self) -> Result<Option<(u64, u32)>> {
        let line = self.line().await?;
        let mut words = line.split(' ');
        match words.next() {
            Some("RESERVED") => {}
            Some("TIMED_OUT") => return Ok(None),
            _ => bail!("beanstalkd says {line}"),
        }
        let mut next = || words.next().and_then(|word| word.parse::<u64>().ok()).context("a number");
        let (id, length) = (next()?, next()?);
        let mut body = vec![0; usize::try_from(length)? + 2];
        self.0.read_exact(&mut body).await?;
        Ok(Some((id, number(&body)?)))
    }
}

async fn work(socket: std::path::PathBuf, load: Arc<Load>) -> Result<()> {
    let mut connection = Connection::open(&socket).await?;
    while !load.is_over() {
        // The first may wait; the others take what is there.
        connection.send("reserve-with-timeout 1\r\n").await?;
        let Some(first) = connection.reserved().await? else { continue };
        let mut jobs = vec![first];
        connection.send(&"reserve-with-timeout 0\r\n".repeat(AHEAD - 1)).await?;
        for _ in 1..AHEAD {
            jobs.extend(connection.reserved().await?);
        }
        let deletes: String = jobs.iter().map(|(id, _)| format!("delete {id}\r\n")).collect();
        connection.send(&deletes).await?;
        for (_, number) in jobs {
            let line = connection.line().await?;
            anyhow::ensure!(line == "DELETED", "beanstalkd says {line}");
            load.ended([number]);
        }
    }
    Ok(())
}

impl Contender for Beanstalk {
    fn name(&self) -> &str {
        "beanstalkd"
    }

    fn workers(&self) -> usize {
        4
    }

    fn submit(&self, load: Arc<Load>) -> Work {
        let (socket, clients) = (self.socket.clone(), self.clients());
        Box::pin(async move {
            let mut connection = Connection::open(&socket).await?;
            while let Some(numbers) = load.next(load.share(clients)).await {
                let count = numbers.len();
                let puts: String = numbers
                    .map(|number| {
                        let params = params(number);
                        format!("put 0 0 60 {}\r\n{params}\r\n", params.len())
                    })
                    .collect();
                connection.send(&puts).await?;
                for _ in 0..count {
                    let line = connection.line().await?;
                    anyhow::ensure!(line.starts_with("INSERTED"), "beanstalkd says {line}");
                }
            }
            Ok(())
        })
    }

    fn work(&self, load: Arc<Load>) -> Work {
        Box::pin(work(self.socket.clone(), load))
    }
}
