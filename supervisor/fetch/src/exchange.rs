//! One request on a connection of its own, and its answer. HTTP/1.1: nothing is kept, shared or pushed.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, HOST, HeaderMap, HeaderValue, USER_AGENT};
use http::{Method, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::error::Failure;
use crate::target::Target;

/// For each address of a host; what is left of the request's time ends it sooner.
const CONNECT: Duration = Duration::from_secs(5);
/// Addresses of one host that are tried.
const TRIED: usize = 4;
/// Bytes and number of an answer's headers.
const HEAD_BYTES: usize = 64 << 10;
const HEADERS: usize = 128;
const AGENT: &str = concat!("aion/", env!("CARGO_PKG_VERSION"));

/// Drives a connection for as long as somebody holds it.
struct Driver(tokio::task::JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// An answer whose body is still to come.
pub(crate) struct Exchange {
    pub(crate) response: Response<Incoming>,
    _driver: Driver,
}

/// What is sent.
pub(crate) struct Message<'a> {
    pub(crate) target: &'a Target,
    pub(crate) method: &'a Method,
    pub(crate) headers: &'a HeaderMap,
    /// These go in the place of the caller's own.
    pub(crate) added: &'a HeaderMap,
    pub(crate) body: Bytes,
}

/// Sends it to the first of these addresses that can be connected to: they were checked, and no name is looked up any more.
pub(crate) async fn send(
    message: Message<'_>,
    addresses: &[IpAddr],
    tls: &Arc<rustls::ClientConfig>,
) -> Result<Exchange, Failure> {
    let target = message.target;
    let stream = connect(target, addresses).await?;
    if target.is_https() {
        let failed = |why: String| Failure::Tls { host: target.place(), why };
        let name = match target.address() {
            Some(address) => ServerName::IpAddress(address.into()),
            None => {
                ServerName::try_from(target.host().to_owned()).map_err(|error| failed(error.to_string()))?
            }
        };
        let connector = TlsConnector::from(Arc::clone(tls));
        let stream = connector.connect(name, stream).await.map_err(|error| failed(error.to_string()))?;
        speak(message, stream).await
    } else {
        speak(message, stream).await
    }
}

async fn connect(target: &Target, addresses: &[IpAddr]) -> Result<TcpStream, Failure> {
    let mut why = "it has no address".to_owned();
    for address in addresses.iter().take(TRIED) {
        let to = SocketAddr::new(*address, target.port());
        match tokio::time::timeout(CONNECT, TcpStream::connect(to)).await {
            Ok(Ok(stream)) => {
                // Small requests are not held back; without it they are only slower.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(error)) => why = error.kind().to_string(),
            Err(_) => why = "it does not answer".to_owned(),
        }
    }
    Err(Failure::Connect { host: target.place(), why })
}

async fn speak<S>(message: Message<'_>, stream: S) -> Result<Exchange, Failure>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let failed = |why: String| Failure::Http { host: message.target.place(), why };
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD_BYTES)
        .max_headers(HEADERS)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| failed(told(&error)))?;
    let driver = Driver(tokio::spawn(async move {
        // Why it ended, the sender is told.
        let _ = connection.await;
    }));
    let mut request = http::Request::new(Full::new(message.body));
    *request.method_mut() = message.method.clone();
    *request.uri_mut() =
        message.target.path().parse().map_err(|_| failed("its path cannot be sent".to_owned()))?;
    let headers = request.headers_mut();
    headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    for name in message.headers.keys() {
        headers.remove(name);
    }
    for (name, value) in message.headers {
        headers.append(name, value.clone());
    }
    for (name, value) in message.added {
        headers.insert(name, value.clone());
    }
    let host = HeaderValue::from_str(&message.target.authority())
        .map_err(|_| failed("its name cannot be sent".to_owned()))?;
    headers.insert(HOST, host);
    let response = sender.send_request(request).await.map_err(|error| failed(told(&error)))?;
    // The buffer's limit is looked at now and then only.
    let bytes: usize = response.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if bytes > HEAD_BYTES {
        return Err(failed(format!("its headers have {bytes} bytes, at most {HEAD_BYTES} are read")));
    }
    Ok(Exchange { response, _driver: driver })
}

impl Exchange {
    /// Reads at most so many bytes of the body; and whether there was more.
    pub(crate) async fn body(
        self,
        target: &Target,
        max: usize,
    ) -> Result<(HeaderMap, Vec<u8>, bool), Failure> {
        let (head, mut body) = self.response.into_parts();
        let mut out = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| Failure::Http { host: target.place(), why: told(&error) })?;
            let Some(data) = frame.data_ref() else { continue };
            let room = max - out.len();
            out.extend_from_slice(data.get(..room).unwrap_or(data));
            if data.len() > room {
                return Ok((head.headers, out, true));
            }
        }
        Ok((head.headers, out, false))
    }
}

/// With what is behind it: hyper's own words alone say little.
fn told(error: &hyper::Error) -> String {
    let source = std::error::Error::source(error).map_or(String::new(), |source| format!(": {source}"));
    format!("{error}{source}")
}
