//! Sends batches: protobuf over HTTP, or gRPC.

use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use prost::Message as _;
use tonic::metadata::MetadataMap;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request};

use crate::settings::{Error, Protocol, Settings};

/// Why a batch was not taken.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) why: String,
    /// It may be taken later.
    pub(crate) passing: bool,
}

enum Way {
    Http(reqwest::Client, String),
    Grpc(Box<TraceServiceClient<Channel>>),
}

/// Where spans go.
pub(crate) struct Exporter {
    way: Way,
    headers: http::HeaderMap,
    timeout: Duration,
}

impl Exporter {
    /// Nothing is connected yet.
    pub(crate) fn new(settings: &Settings) -> Result<Self, Error> {
        let failed = |error: &dyn std::error::Error| {
            let source = error.source().map_or(String::new(), |source| format!(": {source}"));
            Error::new("OTEL_EXPORTER_OTLP_ENDPOINT", format!("{error}{source}"))
        };
        let way = match settings.protocol {
            Protocol::Http => {
                // A collector is where the operator says: no proxy of the environment, no redirect.
                let mut builder = reqwest::Client::builder()
                    .no_proxy()
                    .redirect(reqwest::redirect::Policy::none())
                    .pool_max_idle_per_host(1);
                if let Some(pem) = &settings.authority {
                    let authority = reqwest::Certificate::from_pem(pem).map_err(|error| failed(&error))?;
                    builder = builder.tls_built_in_root_certs(false).add_root_certificate(authority);
                }
                Way::Http(builder.build().map_err(|error| failed(&error))?, settings.url())
            }
            Protocol::Grpc => {
                let mut endpoint = Endpoint::from_shared(settings.url()).map_err(|error| failed(&error))?;
                endpoint = endpoint.connect_timeout(settings.timeout);
                if settings.endpoint.scheme_str() == Some("https") {
                    let tls = match &settings.authority {
                        Some(pem) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)),
                        None => ClientTlsConfig::new().with_webpki_roots(),
                    };
                    endpoint = endpoint.tls_config(tls).map_err(|error| failed(&error))?;
                }
                Way::Grpc(Box::new(TraceServiceClient::new(endpoint.connect_lazy())))
            }
        };
        let headers = settings.headers.iter().cloned().collect();
        Ok(Self { way, headers, timeout: settings.timeout })
    }

    /// Sends a batch; gives how many of its spans the collector did not want.
    pub(crate) async fn send(&self, batch: ExportTraceServiceRequest) -> Result<u64, Failure> {
        match tokio::time::timeout(self.timeout, self.attempt(batch)).await {
            Ok(result) => result,
            Err(_) => Err(Failure { why: "no answer in time".to_owned(), passing: true }),
        }
    }

    async fn attempt(&self, batch: ExportTraceServiceRequest) -> Result<u64, Failure> {
        match &self.way {
            Way::Http(client, url) => {
                let request = client
                    .post(url)
                    .headers(self.headers.clone())
                    .header("content-type", "application/x-protobuf")
                    .body(batch.encode_to_vec());
                let answer = request.send().await.map_err(|error| Failure {
                    // The URL may hold a key.
                    why: error.without_url().to_string(),
                    passing: true,
                })?;
                let number = answer.status().as_u16();
                if answer.status().is_success() {
                    return Ok(0);
                }
                let passing = matches!(number, 429 | 502 | 503 | 504);
                Err(Failure { why: format!("the collector answered {number}"), passing })
            }
            Way::Grpc(client) => {
                let mut request = Request::new(batch);
                *request.metadata_mut() = MetadataMap::from_headers(self.headers.clone());
                let answer = client.as_ref().clone().export(request).await.map_err(|status| Failure {
                    why: format!("{:?}: {}", status.code(), status.message()),
                    passing: matches!(
                        status.code(),
                        Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted | Code::Aborted
                    ),
                })?;
                let rejected =
                    answer.into_inner().partial_success.map_or(0, |partial| partial.rejected_spans);
                Ok(u64::try_from(rejected).unwrap_or(0))
            }
        }
    }
}
