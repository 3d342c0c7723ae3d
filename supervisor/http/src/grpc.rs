//! The door for gRPC over TCP: who it is, before a byte of the message is read as one.
//!
//! A client shows a certificate of the operator's authority, or signs each message with its tenant's secret. What is signed is
//! `TIMESTAMP \n NONCE \n POST \n PATH \n MESSAGE`: the path is `/aion.v1.SyscallService/Invoke` or `…/InvokeStream`, the message is
//! the request as protobuf, without the five bytes that gRPC puts before it. Time and nonce are always there. What comes after is the
//! inner service's, which finds the [`Caller`] among the request's extensions.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aion_kernel::{Caller, Kernel};
use aion_syscall::{MAX_BODY, Refusal};
use aion_tenants::{AuthError, Signed};
use axum::Router;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{Request, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tower::ServiceExt as _;

use crate::auth::{header, now_ns, unauthenticated, verified, within_rate};
use crate::body::{Large, Sender, read_up_to};
use crate::listen;
use crate::tls::{Peer, Tls};

/// A message: params of `MAX_BODY` as JSON, with room for what is around them.
const MAX_MESSAGE: usize = MAX_BODY + (1 << 20);
/// What gRPC puts before a message: a flag, and its length.
const PREFIX: usize = 5;
/// Bodies of one connection that are read at once: each may be of 64 KiB before it needs a place among all.
const BODIES: usize = 4;
/// How often a connection on which a large first message is coming is looked at.
const LOOK: Duration = Duration::from_secs(1);
const SERVICE: &str = "/aion.v1.SyscallService/";

/// How a refusal is told in gRPC.
pub type Refuse = fn(Refusal) -> Response;

/// How the door is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GrpcOptions {
    /// Connections at once; more wait in the listener's line. Default 1024.
    pub connections: usize,
    /// Calls of one connection at once. Default 64.
    pub streams: u32,
    /// A connection that nobody was let in on goes after that, unless a large body is coming on it. Default 40 s: a small one may
    /// take 30.
    pub first_request: Duration,
    /// What is under way at the end has so long. Default 3 s.
    pub last_requests: Duration,
}

impl Default for GrpcOptions {
    fn default() -> Self {
        Self {
            connections: 1024,
            streams: 64,
            first_request: Duration::from_secs(40),
            last_requests: Duration::from_secs(3),
        }
    }
}

struct Shared {
    kernel: Kernel,
    inner: Router,
    refuse: Refuse,
    tls: Option<Tls>,
    options: GrpcOptions,
}

/// One connection.
struct Visitor {
    peer: Peer,
    /// Somebody was let in on it.
    known: AtomicBool,
    bodies: Semaphore,
    large: Large,
}

/// The door.
pub struct Grpc(Arc<Shared>);

impl std::fmt::Debug for Grpc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Grpc").field("options", &self.0.options).finish_non_exhaustive()
    }
}

impl Grpc {
    /// A door of this kernel; `inner` answers what is let in.
    #[must_use]
    pub fn new(
        kernel: Kernel,
        inner: Router,
        refuse: Refuse,
        tls: Option<Tls>,
        options: GrpcOptions,
    ) -> Self {
        Self(Arc::new(Shared { kernel, inner, refuse, tls, options }))
    }

    /// Serves until `stop` ends; then lets requests under way finish.
    pub async fn serve(self, listener: TcpListener, stop: impl Future<Output = ()> + Send) {
        let mut places = listen::Places::new(listener, self.0.options.connections);
        let graceful = GracefulShutdown::new();
        tokio::pin!(stop);
        while let Some((stream, place)) = places.next(stop.as_mut()).await {
            let (shared, watcher) = (Arc::clone(&self.0), graceful.watcher());
            tokio::spawn(async move {
                let _place = place;
                shared.connection(stream, watcher).await;
            });
        }
        tokio::select! {
            () = graceful.shutdown() => {}
            () = tokio::time::sleep(self.0.options.last_requests) => {
                tracing::warn!("some requests over gRPC were cut off");
            }
        }
    }
}

impl Shared {
    async fn connection(self: Arc<Self>, stream: TcpStream, watcher: Watcher) {
        match &self.tls {
            None => Arc::clone(&self).speak(stream, Peer::Unknown, watcher).await,
            Some(tls) => match tls.accept(stream).await {
                Ok((stream, peer)) => Arc::clone(&self).speak(stream, peer, watcher).await,
                Err(true) => self.kernel.turned_away("", "certificate"),
                Err(false) => {}
            },
        }
    }

    async fn speak<S>(self: Arc<Self>, stream: S, peer: Peer, watcher: Watcher)
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let mut builder = Builder::new(TokioExecutor::new()).http2_only();
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(self.options.streams)
            .max_header_list_size(16 << 10)
            .keep_alive_interval(Duration::from_secs(30));
        let patience = self.options.first_request;
        let visitor = Arc::new(Visitor {
            peer,
            known: AtomicBool::new(false),
            bodies: Semaphore::new(BODIES),
            large: Large::default(),
        });
        let (shared, seen) = (self, Arc::clone(&visitor));
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let (shared, visitor) = (Arc::clone(&shared), Arc::clone(&visitor));
            async move { Ok::<_, Infallible>(shared.answer(request.map(Body::new), &visitor).await) }
        });
        let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
        let connection = watcher.watch(connection);
        tokio::pin!(connection);
        // What a client does wrong ends its connection and is nobody else's business.
        tokio::select! {
            _ = &mut connection => return,
            () = tokio::time::sleep(patience) => {}
        }
        // A first message that is large may come over a slow line: it has one of a few places, and keeps it while it comes on. When it
        // is there, who sent it is known within a moment.
        while !seen.known.load(Ordering::Relaxed) {
            let coming = seen.large.any();
            tokio::select! {
                _ = &mut connection => return,
                () = tokio::time::sleep(LOOK) => {}
            }
            if !coming && !seen.known.load(Ordering::Relaxed) {
                return;
            }
        }
        let _ = connection.await;
    }

    async fn answer(&self, request: Request<Body>, visitor: &Visitor) -> Response {
        let is_grpc = request
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|kind| kind.to_str().ok())
            .is_some_and(|kind| kind.starts_with("application/grpc"));
        if !is_grpc {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return response;
        }
        let (parts, body) = request.into_parts();
        if !parts.uri.path().starts_with(SERVICE) {
            let empty = Request::from_parts(parts, Body::empty());
            return self.inner.clone().oneshot(empty).await.unwrap_or_else(|never| match never {});
        }
        match self.admit(parts, body, visitor).await {
            Ok(request) => {
                visitor.known.store(true, Ordering::Relaxed);
                self.inner.clone().oneshot(request).await.unwrap_or_else(|never| match never {})
            }
            Err(refusal) => (self.refuse)(refusal),
        }
    }

    async fn admit(&self, mut parts: Parts, body: Body, visitor: &Visitor) -> Result<Request<Body>, Refusal> {
        let (caller, body) = match self.certified(&visitor.peer)? {
            Some(caller) => (caller, read(body, visitor, Sender::Known).await?),
            None => self.signed(&parts, body, visitor).await?,
        };
        parts.extensions.insert(caller);
        Ok(Request::from_parts(parts, Body::from(body)))
    }

    /// Who a certificate says it is; none: there was none.
    fn certified(&self, peer: &Peer) -> Result<Option<Caller>, Refusal> {
        let refused = |claimed: &str| unauthenticated(&self.kernel, claimed, AuthError::Certificate);
        let holder = match peer {
            Peer::Unknown => return Ok(None),
            Peer::Nameless => return Err(refused("")),
            Peer::Holder(holder) => holder,
        };
        let now = now_ns();
        let tenant = self.kernel.tenants().get(&holder.tenant);
        // A connection may outlive its certificate, and its tenant.
        let good = i64::try_from(now / 1_000_000_000).is_ok_and(|seconds| seconds <= holder.until);
        let Some(tenant) = tenant.filter(|_| good) else {
            return Err(refused(holder.tenant.as_str()));
        };
        within_rate(&tenant, now)?;
        Ok(Some(match &holder.agent {
            Some(name) => Caller::Agent { tenant: tenant.name.clone(), name: name.clone(), task: None },
            None => Caller::Certificate(tenant),
        }))
    }

    async fn signed(&self, parts: &Parts, body: Body, visitor: &Visitor) -> Result<(Caller, Bytes), Refusal> {
        let headers = &parts.headers;
        let claimed = header(headers, "x-tenant-id");
        let refused = |error| unauthenticated(&self.kernel, claimed.unwrap_or_default(), error);
        let (signature, timestamp, nonce) =
            (header(headers, "x-sig-hmac"), header(headers, "x-timestamp"), header(headers, "x-nonce"));
        // Who does not even try is not read.
        match (claimed, signature, timestamp, nonce) {
            (None, ..) => return Err(refused(AuthError::NoTenant)),
            (_, None, ..) => return Err(refused(AuthError::NoSignature)),
            (_, _, None, _) | (_, _, _, None) => return Err(refused(AuthError::TimeRequired)),
            _ => {}
        }
        let sender = Sender::of(visitor.known.load(Ordering::Relaxed));
        let body = read(body, visitor, sender).await?;
        let message = message(&body)?;
        let given = Signed {
            signature,
            timestamp,
            nonce,
            method: parts.method.as_str(),
            path: parts.uri.path(),
            body: message,
        };
        let now = now_ns();
        let tenant = verified(&self.kernel, claimed, given, now).await.map_err(refused)?;
        within_rate(&tenant, now)?;
        Ok((Caller::Tenant(tenant), body))
    }
}

/// Reads a body, with a few others of its connection.
async fn read(body: Body, visitor: &Visitor, sender: Sender) -> Result<Bytes, Refusal> {
    // It is never closed.
    let _turn = visitor.bodies.acquire().await;
    read_up_to(body, MAX_MESSAGE, sender, &visitor.large).await
}

/// The one message of a request, as it was sent.
pub(crate) fn message(body: &[u8]) -> Result<&[u8], Refusal> {
    let wrong = |message: &str| Refusal::field("body", message);
    let (prefix, message) =
        body.split_first_chunk::<PREFIX>().ok_or_else(|| wrong("it is no message of gRPC"))?;
    let [flag, length @ ..] = *prefix;
    if flag != 0 {
        return Err(wrong("it is compressed: send it as it is, for that is what is signed"));
    }
    if usize::try_from(u32::from_be_bytes(length)).is_ok_and(|length| length == message.len()) {
        Ok(message)
    } else {
        Err(wrong("it is not exactly one message"))
    }
}
