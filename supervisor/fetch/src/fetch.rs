//! From a request to an answer, hop by hop: each is decided, resolved, checked and asked in the same way.

use std::net::IpAddr;
use std::sync::Arc;

use futures::future::BoxFuture;
use http::header::{CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_TYPE, HeaderMap, LOCATION};
use http::{Method, StatusCode};
use tokio::sync::Semaphore;

use crate::address::{Special, special_here};
use crate::answer::{Answer, Hop};
use crate::error::{Error, Failure};
use crate::exchange::{self, Exchange, Message};
use crate::request::{Request, goes_along};
use crate::target::Target;

/// Names that are looked up at once: each holds a thread for as long as it takes.
const LOOKUPS: usize = 64;

/// How a name becomes addresses.
pub type Lookup = Arc<dyn Fn(String) -> BoxFuture<'static, std::io::Result<Vec<IpAddr>>> + Send + Sync>;

/// Who decides. It is asked about every hop, the first as the last.
pub trait Gate: Send + Sync {
    /// Why something is not done.
    type Denial;

    /// Whether a host may be asked, before anything is looked up; and headers that go to it beside the caller's own. `hop` is 0
    /// for the request itself, then the number of the redirect.
    ///
    /// # Errors
    /// Why not.
    fn host(&self, target: &Target, hop: usize) -> Result<HeaderMap, Self::Denial>;

    /// Whether one of its addresses may be connected to. All of them must, or none is.
    ///
    /// # Errors
    /// Why not.
    fn address(&self, target: &Target, address: IpAddr, special: Option<Special>)
    -> Result<(), Self::Denial>;
}

/// Makes requests. Cheap to clone.
#[derive(Clone)]
pub struct Fetcher {
    lookup: Lookup,
    lookups: Arc<Semaphore>,
    tls: Arc<rustls::ClientConfig>,
}

impl std::fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fetcher(…)")
    }
}

impl Fetcher {
    /// With the system's resolver, and Mozilla's list of authorities.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new() -> Result<Self, rustls::Error> {
        let roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        let lookup: Lookup = Arc::new(|name| {
            Box::pin(async move {
                let found = tokio::net::lookup_host((name, 0)).await?;
                Ok(found.map(|address| address.ip()).collect())
            })
        });
        Self::with(lookup, roots)
    }

    pub(crate) fn with(lookup: Lookup, roots: rustls::RootCertStore) -> Result<Self, rustls::Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        // A ticket would tell a host which requests come from one caller.
        tls.resumption = rustls::client::Resumption::disabled();
        Ok(Self { lookup, lookups: Arc::new(Semaphore::new(LOOKUPS)), tls: Arc::new(tls) })
    }

    /// Makes a request. Dropping the future ends it.
    ///
    /// # Errors
    /// [`Error`]: what the gate said, or what went wrong.
    pub async fn fetch<G: Gate>(&self, request: Request, gate: &G) -> Result<Answer, Error<G::Denial>> {
        let timeout = request.timeout;
        let ended = tokio::time::timeout(timeout, self.hops(request, gate)).await;
        ended.unwrap_or_else(|_| {
            let ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
            Err(Failure::Timeout { ms }.into())
        })
    }

    async fn hops<G: Gate>(&self, mut request: Request, gate: &G) -> Result<Answer, Error<G::Denial>> {
        let mut redirects = Vec::new();
        loop {
            let target = request.target.clone();
            let added = gate.host(&target, redirects.len()).map_err(Error::Denied)?;
            let addresses = self.addresses(&target).await?;
            for address in &addresses {
                gate.address(&target, *address, special_here(*address)).map_err(Error::Denied)?;
            }
            let message = Message {
                target: &target,
                method: &request.method,
                headers: &request.headers,
                added: &added,
                body: request.body.clone(),
            };
            let exchange = exchange::send(message, &addresses, &self.tls).await?;
            let status = exchange.response.status();
            let next = if request.redirects == 0 { None } else { leads_to(&target, &exchange)? };
            let Some(next) = next else {
                let (headers, body, truncated) = exchange.body(&target, request.max_bytes).await?;
                let url = target.url().to_string();
                return Ok(Answer { status: status.as_u16(), headers, url, redirects, body, truncated });
            };
            if redirects.len() >= request.redirects {
                let why = format!("it is the redirect after {} of them", redirects.len());
                return Err(Failure::Redirect { host: target.place(), why }.into());
            }
            if target.is_https() && !next.is_https() {
                let why = format!("from https to {}", next.url());
                return Err(Failure::Redirect { host: target.place(), why }.into());
            }
            redirects.push(Hop { status: status.as_u16(), url: next.url().to_string() });
            go_on(&mut request, status, next);
        }
    }

    /// The addresses of a host: looked up once, and these are what is connected to.
    async fn addresses(&self, target: &Target) -> Result<Vec<IpAddr>, Failure> {
        if let Some(address) = target.address() {
            return Ok(vec![address.to_canonical()]);
        }
        let host = target.host().to_owned();
        let failed = |why: String| Failure::Resolve { host: host.clone(), why };
        let permit = Arc::clone(&self.lookups).acquire_owned().await;
        let looking = (self.lookup)(host.clone());
        // A task of its own: a lookup holds its thread, and so its place, also when nobody waits for it any more.
        let looked = tokio::spawn(async move {
            let found = looking.await;
            drop(permit);
            found
        });
        let found = looked.await.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        let found = found.map_err(|error| failed(error.to_string()))?;
        if found.is_empty() {
            return Err(failed("it has no address".to_owned()));
        }
        Ok(found.into_iter().map(|address| address.to_canonical()).collect())
    }
}

/// Where an answer sends its reader, if it does.
fn leads_to(target: &Target, exchange: &Exchange) -> Result<Option<Target>, Failure> {
    if !matches!(exchange.response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let Some(location) = exchange.response.headers().get(LOCATION) else { return Ok(None) };
    let location = std::str::from_utf8(location.as_bytes()).map_err(|_| Failure::Redirect {
        host: target.place(),
        why: "its Location is not text".to_owned(),
    })?;
    target.join(location).map(Some)
}

/// What is asked next, as the Fetch standard has it; and nothing that tells who asks goes along to another origin.
fn go_on(request: &mut Request, status: StatusCode, next: Target) {
    let post = request.method == Method::POST;
    let reads = request.method == Method::GET || request.method == Method::HEAD;
    let asks_anew = match status.as_u16() {
        301 | 302 => post,
        303 => !reads,
        _ => false,
    };
    if asks_anew {
        request.method = Method::GET;
        request.body = bytes::Bytes::new();
        for name in [CONTENT_TYPE, CONTENT_LANGUAGE, CONTENT_ENCODING] {
            request.headers.remove(name);
        }
    }
    if !request.target.is_same_origin(&next) {
        let kept: Vec<_> = request.headers.keys().filter(|name| !goes_along(name)).cloned().collect();
        for name in kept {
            request.headers.remove(name);
        }
    }
    request.target = next;
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
