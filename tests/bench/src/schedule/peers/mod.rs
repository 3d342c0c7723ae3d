//! The peers: Debian's packages, started here with data folders beside AION's, each told to have on disk what it acknowledges.

mod beanstalk;
mod nats;
mod postgres;
mod redis;

use std::path::Path;

use anyhow::Result;

use crate::report::Report;
use crate::schedule::load::Contender;
use beanstalk::Beanstalk;
use nats::Nats;
pub(crate) use postgres::Postgres;
pub(crate) use redis::Redis;

/// The peers that work on this host; why the others do not is in the report.
pub(crate) async fn start(folder: &Path, report: &mut Report) -> Vec<Box<dyn Contender>> {
    let mut peers: Vec<Box<dyn Contender>> = Vec::new();
    let mut take = |name: &str, peer: Result<Box<dyn Contender>>| match peer {
        Ok(peer) => peers.push(peer),
        Err(error) => report.skip(format!("{name}: {error:#}")),
    };
    take("Redis Streams", Redis::start(folder).await.map(|peer| Box::new(peer) as Box<dyn Contender>));
    take("PostgreSQL", Postgres::start(folder).await.map(|peer| Box::new(peer) as Box<dyn Contender>));
    take("NATS JetStream", Nats::start(folder).await.map(|peer| Box::new(peer) as Box<dyn Contender>));
    take("beanstalkd", Beanstalk::start(folder).await.map(|peer| Box::new(peer) as Box<dyn Contender>));
    peers
}

/// A TCP port on the loopback that was free a moment ago, for servers that have no Unix socket.
fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}
