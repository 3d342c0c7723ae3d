//! Asking the world: a question of our own, from a port of its own, over UDP and then TCP.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use hickory_proto::op::{Edns, Message, Query};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::answer::answers;

/// A server has so long; then the next is asked.
const PATIENCE: Duration = Duration::from_secs(2);
/// As the C library has it.
const MAX_SERVERS: usize = 3;

/// Who is asked.
#[derive(Debug, Clone)]
pub enum Upstream {
    /// These servers.
    Servers(Vec<SocketAddr>),
    /// Those of a `resolv.conf`, as it is at the moment.
    File(PathBuf),
}

impl Upstream {
    fn servers(&self) -> Vec<SocketAddr> {
        let mut servers = match self {
            Self::Servers(servers) => servers.clone(),
            Self::File(path) => parse(&std::fs::read_to_string(path).unwrap_or_default()),
        };
        servers.truncate(MAX_SERVERS);
        servers
    }

    /// The first answer of the servers, in order.
    pub(crate) async fn ask(&self, query: &Query) -> Option<Message> {
        let mut asked = Message::query();
        asked.metadata.recursion_desired = true;
        asked.add_query(query.clone());
        let mut edns = Edns::new();
        edns.set_max_payload(1232);
        asked.set_edns(edns);
        let bytes = asked.to_vec().ok()?;
        for server in self.servers() {
            match timeout(PATIENCE, one(server, &asked, &bytes)).await {
                Ok(Ok(answer)) => return Some(answer),
                Ok(Err(error)) => tracing::debug!(%server, %error, "a name server does not answer"),
                Err(_) => tracing::debug!(%server, "a name server is silent"),
            }
        }
        None
    }
}

async fn one(server: SocketAddr, asked: &Message, bytes: &[u8]) -> io::Result<Message> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(bytes).await?;
    let mut buffer = vec![0; 4096];
    loop {
        let len = socket.recv(&mut buffer).await?;
        // Whoever guesses must guess all of it; what does not fit is not an answer, and the true one may still come.
        let answer = buffer.get(..len).and_then(|bytes| Message::from_vec(bytes).ok());
        let Some(answer) = answer.filter(|answer| answers(answer, asked)) else { continue };
        if !answer.metadata.truncation {
            return Ok(answer);
        }
        return over_tcp(server, asked, bytes).await;
    }
}

async fn over_tcp(server: SocketAddr, asked: &Message, bytes: &[u8]) -> io::Result<Message> {
    let wrong = |what: &'static str| io::Error::new(io::ErrorKind::InvalidData, what);
    let mut stream = TcpStream::connect(server).await?;
    let len = u16::try_from(bytes.len()).map_err(|_| wrong("the question is too long"))?;
    stream.write_all(&[&len.to_be_bytes(), bytes].concat()).await?;
    let len = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(len)];
    stream.read_exact(&mut answer).await?;
    let answer = Message::from_vec(&answer).map_err(|_| wrong("the answer cannot be read"))?;
    if answers(&answer, asked) { Ok(answer) } else { Err(wrong("the answer is to another question")) }
}

/// The servers of a `resolv.conf`.
fn parse(text: &str) -> Vec<SocketAddr> {
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        if words.next() != Some("nameserver") {
            return None;
        }
        // A link-local address with its link would need the link's number.
        words.next()?.parse::<IpAddr>().ok().map(|address| SocketAddr::new(address, 53))
    };
    text.lines().filter_map(server).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_as_the_c_library_does() {
        let text = "# x\nsearch a.b\nnameserver 10.0.0.2\nnameserver ::1\noptions x\nnameserver nonsense\n";
        assert_eq!(parse(text), ["10.0.0.2:53".parse().unwrap(), "[::1]:53".parse().unwrap()]);
    }
}
