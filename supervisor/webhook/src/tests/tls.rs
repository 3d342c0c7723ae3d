//! A receiver whose certificate is of an authority that only the operator knows.

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::Authorities;

/// An authority, in PEM, and a server with a certificate of it for localhost.
async fn receiver() -> (String, SocketAddr) {
    let mut params = CertificateParams::new(vec!["ca of the operator".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    let ca = Issuer::new(params, key);
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let key = KeyPair::generate().unwrap();
    let cert = params.signed_by(&key, &ca).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            // Who does not trust it breaks the handshake off.
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut request = Vec::new();
            // An alert is a JSON object, and nothing before it ends so.
            while !request.ends_with(b"}") && stream.read_buf(&mut request).await.is_ok_and(|n| n > 0) {}
            let _ = stream.write_all(b"HTTP/1.1 204 taken\r\nconnection: close\r\n\r\n").await;
            let _ = stream.shutdown().await;
        }
    });
    (pem, address)
}

#[tokio::test]
async fn a_receiver_of_an_own_authority_is_told_by_who_knows_that() {
    let (pem, address) = receiver().await;
    let (other, _) = receiver().await;
    let webhook = |name: &str, ca: Option<&str>| Webhook {
        name: name.to_owned(),
        url: format!("https://localhost:{}/aion", address.port()),
        secret: None,
        ca: ca.map(|pem| Authorities::new(pem.as_bytes()).unwrap()),
        min_severity: Severity::Info,
        rules: vec!["*".to_owned()],
        timeout: Duration::from_secs(10),
    };
    for (name, ca) in [("nobody", None), ("another", Some(other.as_str()))] {
        let webhooks = start(vec![webhook(name, ca)], quick());
        webhooks.tell(alert("one", Severity::High));
        let gone = webhooks.undelivered().await.unwrap();
        assert!(gone.why.contains("certificate"), "{name}: {}", gone.why);
    }
    let webhooks = start(vec![webhook("own", Some(&pem))], quick());
    webhooks.tell(alert("one", Severity::High));
    wait_for(|| counted(&webhooks, "own", "delivered") == 1).await;
}
