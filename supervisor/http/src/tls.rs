//! TLS of the door for gRPC over TCP: the operator's certificate, and the authority of clients' certificates.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::certificate::{Holder, holder};

/// A handshake takes no longer.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// What is wrong with the operator's files.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {why}")]
pub struct TlsError {
    what: &'static str,
    why: String,
}

impl TlsError {
    fn new(what: &'static str, why: impl ToString) -> Self {
        Self { what, why: why.to_string() }
    }
}

/// TLS as the operator set it up. Cheap to clone.
#[derive(Clone)]
pub struct Tls(TlsAcceptor);

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls(…)")
    }
}

/// Who is at the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Peer {
    /// It showed no certificate: each request is signed.
    Unknown,
    /// Its certificate says who it is.
    Holder(Holder),
    /// Its certificate is of the authority, and names nobody.
    Nameless,
}

fn certificates(what: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let all = all.map_err(|error| TlsError::new(what, error))?;
    if all.is_empty() { Err(TlsError::new(what, "it holds no certificate in PEM")) } else { Ok(all) }
}

impl Tls {
    /// From PEM: the server's chain, its key, and the authority of clients' certificates; without that no client shows one.
    ///
    /// # Errors
    /// Which of them cannot be used, and why.
    pub fn new(chain: &[u8], key: &[u8], clients: Option<&[u8]>) -> Result<Self, TlsError> {
        let chain = certificates("the server's certificate", chain)?;
        let key =
            PrivateKeyDer::from_pem_slice(key).map_err(|error| TlsError::new("the server's key", error))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError::new("TLS", error))?;
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(pem) => {
                const WHAT: &str = "the authority of clients";
                let mut roots = RootCertStore::empty();
                for root in certificates(WHAT, pem)? {
                    roots.add(root).map_err(|error| TlsError::new(WHAT, error))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                    // Who shows none signs its requests.
                    .allow_unauthenticated()
                    .build()
                    .map_err(|error| TlsError::new(WHAT, error))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder
            .with_single_cert(chain, key)
            .map_err(|error| TlsError::new("the server's certificate and key", error))?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }

    /// Shakes hands.
    ///
    /// # Errors
    /// Whether the client's certificate was the reason.
    pub(crate) async fn accept(&self, stream: TcpStream) -> Result<(TlsStream<TcpStream>, Peer), bool> {
        let Ok(accepted) = tokio::time::timeout(HANDSHAKE, self.0.accept(stream)).await else {
            return Err(false);
        };
        let stream = accepted.map_err(|error| {
            let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
            matches!(inner, Some(rustls::Error::InvalidCertificate(_)))
        })?;
        let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let peer = shown.map_or(Peer::Unknown, |leaf| holder(leaf).map_or(Peer::Nameless, Peer::Holder));
        Ok((stream, peer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_used_is_named() {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let (cert, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        Tls::new(cert.as_bytes(), key.as_bytes(), Some(cert.as_bytes())).unwrap();
        let told = |chain: &str, key: &str, clients: Option<&str>| {
            Tls::new(chain.as_bytes(), key.as_bytes(), clients.map(str::as_bytes)).unwrap_err().to_string()
        };
        assert!(told("", &key, None).contains("server's certificate"));
        assert!(told(&cert, "", None).contains("server's key"));
        assert!(told(&cert, &key, Some(&key)).contains("authority"));
        let other = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let wrong = told(&cert, &other.signing_key.serialize_pem(), None);
        assert!(wrong.contains("certificate and key"), "{wrong}");
    }
}
