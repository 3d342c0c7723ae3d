//! Connections, bounded in number: what comes beyond waits in the listener's line.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// After a failed accept (too many open files).
const PAUSE: Duration = Duration::from_millis(50);

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
