//! NATS JetStream: a work queue in files, pulled by workers, a result published before the task is acknowledged twice.
//!
//! Versions before 2.10 know no `sync_interval: always`: they acknowledge what is not on disk yet. The name says so then.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use async_nats::jetstream::consumer::{AckPolicy, Consumer, pull};
use async_nats::jetstream::stream::{Config, RetentionPolicy, StorageType};
use async_nats::jetstream::{self, Context};
use futures::future::try_join_all;
use futures::stream::TryStreamExt as _;

use crate::schedule::Work;
use crate::schedule::load::{Contender, Load, number, params, result};
use crate::schedule::peers::free_port;
use crate::schedule::process::{Server, until};

const TASKS: &str = "tasks";
const RESULTS: &str = "results";

/// A NATS of our own.
#[derive(Debug)]
pub(crate) struct Nats {
    _server: Server,
    url: String,
    name: String,
}

impl Nats {
    /// Starts one with an empty folder.
    pub(crate) async fn start(folder: &Path) -> Result<Self> {
        let folder = folder.join("nats");
        std::fs::create_dir_all(&folder)?;
        let port = free_port()?;
        let (major, minor) = version()?;
        let syncs = (major, minor) >= (2, 10);
        let sync = if syncs { "sync_interval: always" } else { "" };
        let file = folder.join("conf");
        let store = folder.join("store");
        std::fs::write(
            &file,
            format!(
                "listen: \"127.0.0.1:{port}\"\njetstream {{ store_dir: \"{}\"\n {sync} }}\n",
                store.display()
            ),
        )?;
        let mut command = Command::new("nats-server");
        command.arg("-c").arg(&file);
        let mut server = Server::start(command, None, &folder.join("log"))?;
        let url = format!("127.0.0.1:{port}");
        until("NATS answers", Duration::from_secs(20), async || {
            server.check()?;
            Ok(connect(&url).await.ok())
        })
        .await?;
        let note = if syncs { "" } else { ", unsynced" };
        Ok(Self { _server: server, url, name: format!("NATS {major}.{minor}{note}") })
    }
}

fn version() -> Result<(u32, u32)> {
    let output = Command::new("nats-server").arg("--version").output().context("it is not installed")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut numbers = text.rsplit('v').next().unwrap_or_default().split('.').map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Ok((major, minor)),
        _ => Err(anyhow!("no version: {text}")),
    }
}

async fn connect(url: &str) -> Result<Context> {
    let client = async_nats::connect(url).await?;
    Ok(jetstream::new(client))
}

fn config(name: &str, retention: RetentionPolicy) -> Config {
    Config {
        name: name.to_owned(),
        subjects: vec![name.to_owned()],
        storage: StorageType::File,
        retention,
        ..Config::default()
    }
}

async fn work(url: String, load: Arc<Load>) -> Result<()> {
    let context = connect(&url).await?;
    let stream = context.get_stream(TASKS).await?;
    let consumer: Consumer<pull::Config> =
        stream.get_consumer("workers").await.map_err(|error| anyhow!(error))?;
    let body = result();
    while !load.is_over() {
        let batch = consumer.batch().max_messages(256).expires(Duration::from_millis(50)).messages().await?;
        // In groups as they come, so that nobody waits for a batch to be full.
        let mut messages = batch.map_err(|error| anyhow!(error)).try_ready_chunks(64);
        while let Some(messages) = messages.try_next().await.map_err(|error| error.1)? {
            try_join_all(messages.iter().map(|_| async {
                context.publish(RESULTS, body.clone().into()).await?.await.map_err(anyhow::Error::from)
            }))
            .await?;
            try_join_all(messages.iter().map(|message| message.double_ack()))
                .await
                .map_err(|error| anyhow!(error))?;
            let numbers: Result<Vec<u32>> = messages.iter().map(|message| number(&message.payload)).collect();
            load.ended(numbers?);
        }
    }
    Ok(())
}

impl Contender for Nats {
    fn name(&self) -> &str {
        &self.name
    }

    fn workers(&self) -> usize {
        2
    }

    fn prepare(&self) -> Work {
        let url = self.url.clone();
        Box::pin(async move {
            let context = connect(&url).await?;
            for name in [TASKS, RESULTS] {
                let _not_there_the_first_time = context.delete_stream(name).await;
            }
            context.create_stream(config(RESULTS, RetentionPolicy::Limits)).await?;
            let stream = context.create_stream(config(TASKS, RetentionPolicy::WorkQueue)).await?;
            let consumer = pull::Config {
                durable_name: Some("workers".to_owned()),
                ack_policy: AckPolicy::Explicit,
                max_ack_pending: 4096,
                ..pull::Config::default()
            };
            stream.create_consumer(consumer).await?;
            Ok(())
        })
    }

    fn submit(&self, load: Arc<Load>) -> Work {
        let (url, clients) = (self.url.clone(), self.clients());
        Box::pin(async move {
            let context = connect(&url).await?;
            while let Some(numbers) = load.next(load.share(clients)).await {
                try_join_all(numbers.map(|number| {
                    let context = context.clone();
                    async move {
                        let sent = context.publish(TASKS, params(number).into()).await?;
                        sent.await.map_err(anyhow::Error::from)
                    }
                }))
                .await?;
            }
            Ok(())
        })
    }

    fn work(&self, load: Arc<Load>) -> Work {
        Box::pin(work(self.url.clone(), load))
    }
}
