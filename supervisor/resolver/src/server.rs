//! One agent's resolver: its sockets, its rules, its budget.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aion_egress::{Name, Rules};
use hickory_proto::op::{Message, ResponseCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::answer::{self, Found};
use crate::budget::Budget;
use crate::question::{self, Asked, Question};
use crate::upstream::Upstream;

/// Questions of one agent at once; more wait in its socket.
const AT_ONCE: usize = 32;
/// Connections of one agent at once.
const CONNECTIONS: usize = 8;
/// A connection on which nothing is asked ends.
const IDLE: Duration = Duration::from_secs(10);

/// Why a question was not answered with addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refused {
    /// No rule has the name.
    Name,
    /// It resolved to addresses that the agent must not reach.
    Addresses,
}

/// Whoever lets an agent reach addresses.
pub trait Admit: Send + Sync + 'static {
    /// Lets the agent reach what the name resolved to for a time in seconds; answers which addresses it may hear of.
    fn admit(
        &self,
        name: &Name,
        addresses: &[IpAddr],
        ttl_s: u32,
    ) -> impl Future<Output = Result<Vec<IpAddr>, String>> + Send;

    /// A question was refused.
    fn refused(&self, name: &Name, why: Refused);
}

struct Shared<A> {
    rules: watch::Receiver<Rules>,
    upstream: Upstream,
    admit: A,
    budget: Mutex<Budget>,
    at_once: Semaphore,
}

/// Serves one agent until it is dropped. Each question is judged by the rules as they are then.
///
/// # Errors
/// The sockets cannot be used.
pub async fn serve<A: Admit>(
    udp: std::net::UdpSocket,
    tcp: std::net::TcpListener,
    rules: watch::Receiver<Rules>,
    upstream: Upstream,
    admit: A,
) -> io::Result<()> {
    udp.set_nonblocking(true)?;
    tcp.set_nonblocking(true)?;
    let (udp, tcp) = (Arc::new(UdpSocket::from_std(udp)?), TcpListener::from_std(tcp)?);
    let shared = Arc::new(Shared {
        rules,
        upstream,
        admit,
        budget: Mutex::new(Budget::new(Instant::now())),
        at_once: Semaphore::new(AT_ONCE),
    });
    let mut tasks = JoinSet::new();
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    let mut buffer = vec![0; 4096];
    loop {
        while tasks.try_join_next().is_some() {}
        let free = tasks.len() < AT_ONCE + CONNECTIONS;
        tokio::select! {
            received = udp.recv_from(&mut buffer), if free => {
                // An earlier answer that met a closed port is told here.
                let Ok((len, from)) = received else { continue };
                let bytes = buffer.get(..len).unwrap_or_default().to_vec();
                let (shared, udp) = (Arc::clone(&shared), Arc::clone(&udp));
                tasks.spawn(async move {
                    if let Some((answer, room)) = shared.answer(&bytes).await
                        && let Some(bytes) = answer::fitted(&answer, room)
                    {
                        let _ = udp.send_to(&bytes, from).await;
                    }
                });
            }
            accepted = tcp.accept(), if free => {
                let (Ok((stream, _)), Ok(permit)) = (accepted, Arc::clone(&connections).try_acquire_owned()) else {
                    continue;
                };
                let shared = Arc::clone(&shared);
                tasks.spawn(async move {
                    let _ = shared.converse(stream).await;
                    drop(permit);
                });
            }
            Some(_) = tasks.join_next(), if !free => {}
        }
    }
}

impl<A: Admit> Shared<A> {
    async fn converse(&self, mut stream: TcpStream) -> io::Result<()> {
        loop {
            let len = timeout(IDLE, stream.read_u16()).await??;
            let mut bytes = vec![0; usize::from(len)];
            timeout(IDLE, stream.read_exact(&mut bytes)).await??;
            let Some((answer, _)) = self.answer(&bytes).await else { return Ok(()) };
            let Ok(bytes) = answer.to_vec() else { return Ok(()) };
            let len = u16::try_from(bytes.len()).unwrap_or(0);
            timeout(IDLE, stream.write_all(&[&len.to_be_bytes(), bytes.as_slice()].concat())).await??;
        }
    }

    /// The answer, and how long it may be over UDP.
    async fn answer(&self, bytes: &[u8]) -> Option<(Message, u16)> {
        match question::read(bytes) {
            Asked::Nothing => None,
            Asked::Wrong(answer) => Some((answer, 512)),
            Asked::Other(question) => {
                // Programs ask for other records on their way to addresses (HTTPS, SRV): there are none, they hear.
                let code =
                    if self.may_ask(&question) { ResponseCode::NoError } else { ResponseCode::Refused };
                Some((question.empty(code), question.room))
            }
            Asked::Addresses(question) if !self.may_ask(&question) => {
                Some((question.empty(ResponseCode::Refused), question.room))
            }
            Asked::Addresses(question) => {
                let within = self.budget.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now());
                let answer = if within {
                    self.look_up(&question).await
                } else {
                    question.empty(ResponseCode::ServFail)
                };
                Some((answer, question.room))
            }
        }
    }

    fn may_ask(&self, question: &Question) -> bool {
        let allowed = self.rules.borrow().allows_name(&question.name);
        if !allowed {
            self.admit.refused(&question.name, Refused::Name);
        }
        allowed
    }

    async fn look_up(&self, question: &Question) -> Message {
        let failed = || question.empty(ResponseCode::ServFail);
        let Ok(_permit) = self.at_once.acquire().await else { return failed() };
        // The name alone goes on, in lower case: how it was written could carry words.
        let Ok(name) = format!("{}.", question.name).parse() else { return failed() };
        let mut query = question.query.clone();
        query.set_name(name);
        let Some(answered) = self.upstream.ask(&query).await else { return failed() };
        let (addresses, ttl) = match answer::addresses(&answered) {
            Found::NoName => return question.empty(ResponseCode::NXDomain),
            Found::Failed(_) => return failed(),
            Found::Addresses(none, _) if none.is_empty() => return question.empty(ResponseCode::NoError),
            Found::Addresses(addresses, ttl) => (addresses, ttl),
        };
        match self.admit.admit(&question.name, &addresses, ttl).await {
            Ok(admitted) if admitted.is_empty() => {
                self.admit.refused(&question.name, Refused::Addresses);
                question.empty(ResponseCode::Refused)
            }
            Ok(admitted) => answer::with(question, &admitted, ttl),
            Err(why) => {
                tracing::warn!(name = %question.name, why, "a name's addresses were not admitted");
                failed()
            }
        }
    }
}
