//! Name resolution for local backends: a name that has any address outside this host does not resolve.
//!
//! The client asks it each time that it connects, and connects to no address that it was not given here, so an answer
//! of DNS or of /etc/hosts that changes after a model was taken in changes nothing.

use std::net::SocketAddr;
use std::sync::Arc;

use futures::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// How a name becomes addresses.
pub(crate) type Lookup =
    Arc<dyn Fn(String) -> BoxFuture<'static, std::io::Result<Vec<SocketAddr>>> + Send + Sync>;

/// The system's own way.
pub(crate) fn system() -> Lookup {
    Arc::new(|name| Box::pin(async move { Ok(tokio::net::lookup_host((name, 0)).await?.collect()) }))
}

pub(crate) struct LoopbackOnly(pub(crate) Lookup);

impl Resolve for LoopbackOnly {
    fn resolve(&self, name: Name) -> Resolving {
        let lookup = (self.0)(name.as_str().to_owned());
        Box::pin(async move {
            let addresses = lookup.await?;
            if addresses.iter().all(|address| address.ip().to_canonical().is_loopback()) {
                Ok(Box::new(addresses.into_iter()) as Addrs)
            } else {
                Err("a local model's host resolves to an address outside this host".into())
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::Options;
    use crate::transport::Transport;

    /// Whether a connection to `name` arrives at the listener when the name resolves to these addresses.
    async fn arrives(local: bool, addresses: &'static [&'static str]) -> bool {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let lookup: Lookup = Arc::new(move |_| {
            Box::pin(async move {
                Ok(addresses.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), 0)).collect())
            })
        });
        let transport = Transport::new(&Options::default(), lookup).unwrap();
        let client = transport.client(local).unwrap().clone();
        let sending = tokio::spawn(client.get(format!("http://localhost:{port}/")).send());
        let arrived = tokio::time::timeout(Duration::from_secs(1), listener.accept()).await.is_ok();
        sending.abort();
        arrived
    }

    #[tokio::test]
    async fn only_loopback_is_connected_to() {
        assert!(arrives(true, &["127.0.0.1"]).await);
        assert!(arrives(true, &["::1", "127.0.0.1"]).await);
        assert!(!arrives(true, &["127.0.0.1", "192.0.2.1"]).await, "one address outside is one too many");
        assert!(!arrives(true, &["192.0.2.1"]).await);
        assert!(arrives(false, &["127.0.0.1"]).await, "others resolve as the system says");
    }

    #[tokio::test]
    async fn a_name_that_is_rebound_is_caught_at_the_next_connection() {
        let calls = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let seen = Arc::clone(&calls);
        let resolver = LoopbackOnly(Arc::new(move |_| {
            let first = seen.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0;
            let ip = if first { "127.0.0.1" } else { "10.0.0.1" };
            Box::pin(async move { Ok(vec![SocketAddr::new(ip.parse().unwrap(), 0)]) })
        }));
        assert!(resolver.resolve("localhost".parse().unwrap()).await.is_ok());
        assert!(resolver.resolve("localhost".parse().unwrap()).await.is_err());
    }
}
