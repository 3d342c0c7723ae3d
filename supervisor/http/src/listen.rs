//! Connections, bounded in number: what comes beyond waits in the listener's line.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// After a failed accept (too many open files).
const PAUSE: Duration = Duration::from_millis(50);
/// What was sent and nobody acknowledges for so long, in milliseconds, ends the connection: a peer that went without a word would
/// hold its place for as long as the kernel repeats (a quarter of an hour), or for ever where its window is shut.
const UNHEARD_MS: u32 = 30_000;

/// A listener with so many places.
pub(crate) struct Places {
    listener: TcpListener,
    places: Arc<Semaphore>,
}

impl Places {
    pub(crate) fn new(listener: TcpListener, connections: usize) -> Self {
        Self { listener, places: Arc::new(Semaphore::new(connections)) }
    }

    /// The next connection and its place; none: `stop` has ended.
    pub(crate) async fn next(
        &mut self,
        mut stop: Pin<&mut (impl Future<Output = ()> + Send)>,
    ) -> Option<(TcpStream, OwnedSemaphorePermit)> {
        let place = tokio::select! {
            place = Arc::clone(&self.places).acquire_owned() => place.ok()?,
            () = &mut stop => return None,
        };
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = &mut stop => return None,
            };
            match accepted {
                Ok((stream, _)) => {
                    let _ = stream.set_nodelay(true);
                    let _ = sockopt::set_tcp_user_timeout(&stream, UNHEARD_MS);
                    return Some((stream, place));
                }
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}
