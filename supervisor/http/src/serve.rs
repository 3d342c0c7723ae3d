//! The listener: connections that are bounded in number, and heads that must come in time.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use aion_kernel::Kernel;
use http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tower::ServiceExt as _;

use crate::auth::Acquainted;
use crate::backend::Backend;
use crate::routes::{Shared, router};
use crate::{events, listen, mcp};

/// How the door is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Connections at once; more wait in the listener's line. Default 2048.
    pub connections: usize,
    /// A request's head takes no longer to come, and a connection is idle no longer. Default 10 s.
    pub head_time: Duration,
    /// What is under way at the end has so long. Default 3 s.
    pub last_requests: Duration,
    /// A quiet stream of events gives a sign of life so often; who does not answer three of them is let go. Default 10 s.
    pub quiet: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connections: 2048,
            head_time: Duration::from_secs(10),
            last_requests: Duration::from_secs(3),
            quiet: events::QUIET,
        }
    }
}

/// The door.
pub struct Service {
    shared: Shared,
    options: Options,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Service {
    /// A door of this kernel.
    #[must_use]
    pub fn new(kernel: Kernel, backend: Arc<dyn Backend>, options: Options) -> Self {
        let mcp = Arc::new(mcp::server(kernel.clone()));
        let quiet = options.quiet;
        Self { shared: Shared { kernel, backend, mcp, quiet }, options }
    }

    /// Serves until `stop` ends; then lets requests under way finish.
    pub async fn serve(self, listener: TcpListener, stop: impl Future<Output = ()> + Send) {
        let mut places = listen::Places::new(listener, self.options.connections);
        let graceful = GracefulShutdown::new();
        let service = router(self.shared).into_service::<Incoming>();
        let mut builder = Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(self.options.head_time)
            .max_buf_size(64 << 10);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(128)
            .max_header_list_size(64 << 10)
            .keep_alive_interval(Duration::from_secs(30));
        tokio::pin!(stop);
        while let Some((stream, place)) = places.next(stop.as_mut()).await {
            let acquainted = Acquainted::default();
            let service = service.clone().map_err(|never: Infallible| match never {});
            let service = service.map_request(move |mut request: Request<Incoming>| {
                request.extensions_mut().insert(acquainted.clone());
                request
            });
            let service = TowerToHyperService::new(service);
            let (builder, watcher, patience) = (builder.clone(), graceful.watcher(), self.options.head_time);
            tokio::spawn(async move {
                let _place = place;
                // hyper's own limit begins with the first byte; who sends none would hold the place for ever.
                match tokio::time::timeout(patience, stream.peek(&mut [0])).await {
                    Ok(Ok(1..)) => {}
                    _ => return,
                }
                let connection =
                    builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
                let connection = watcher.watch(connection);
                // What a client does wrong ends its connection and is nobody else's business.
                let _ = connection.await;
            });
        }
        tokio::select! {
            () = graceful.shutdown() => {}
            () = tokio::time::sleep(self.options.last_requests) => tracing::warn!("some requests over HTTP were cut off"),
        }
    }
}
