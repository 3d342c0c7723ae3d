//! The queue against real collectors: one that takes spans, one that never answers, one that is not there.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

use super::*;
use crate::span::TraceOf;

type Seen = Arc<Mutex<Vec<(Option<String>, ExportTraceServiceRequest)>>>;

struct Collector(Seen);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let key = request.metadata().get("x-key").and_then(|value| value.to_str().ok()).map(str::to_owned);
        self.0.lock().unwrap().push((key, request.into_inner()));
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn span() -> Span {
    Span {
        name: "kernel.syscall",
        of: TraceOf::named("11111111222233334444555555555555", None),
        began_ns: 1,
        ended_ns: 2,
        attributes: vec![("aion.tenant", "a".into())],
        error: None,
    }
}

async fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    (listener, url)
}

#[tokio::test]
async fn a_collector_gets_them_over_grpc() {
    let (listener, url) = listener().await;
    let seen = Seen::default();
    let service = TraceServiceServer::new(Collector(Arc::clone(&seen)));
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming(TcpListenerStream::new(listener)),
    );
    let settings = Settings::new(&url, "grpc").unwrap().headers("x-key=secret").unwrap();
    let spans = Spans::start(&settings).unwrap();
    for _ in 0..3 {
        spans.record(span());
    }
    spans.flush(Duration::from_secs(10)).await;
    assert_eq!(spans.counts(), Some(Counts { exported: 3, ..Counts::default() }));
    let seen = seen.lock().unwrap();
    let (key, request) = &seen[0];
    assert_eq!(key.as_deref(), Some("secret"));
    let told = &request.resource_spans[0].scope_spans[0].spans;
    assert_eq!((told.len(), told[0].name.as_str()), (3, "kernel.syscall"));
    assert_eq!(told[0].trace_id[..2], [0x11, 0x11]);
    assert_ne!(told[0].span_id, told[1].span_id);
}

#[tokio::test]
async fn a_collector_that_hangs_holds_nobody_up() {
    // It takes the connection and says nothing.
    let (listener, url) = listener().await;
    for protocol in ["grpc", "http/protobuf"] {
        let mut settings = Settings::new(&url, protocol).unwrap();
        (settings.queue, settings.batch) = (4, 1);
        let spans = Spans::start(&settings).unwrap();
        for _ in 0..100 {
            spans.record(span());
            tokio::task::yield_now().await;
        }
        let dropped = spans.counts().unwrap().dropped;
        assert!((90..=100).contains(&dropped), "{protocol}: {dropped}");
    }
    drop(listener);
}

#[tokio::test]
async fn what_is_not_taken_is_counted() {
    let (listener, url) = listener().await;
    drop(listener);
    let mut settings = Settings::new(&url, "http/protobuf").unwrap();
    settings.delay = Duration::from_millis(1);
    let spans = Spans::start(&settings).unwrap();
    spans.record(span());
    let mut unsampled = span();
    unsampled.of = TraceOf::named(
        "",
        aion_types::TraceParent::parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"),
    );
    spans.record(unsampled);
    spans.flush(Duration::from_secs(10)).await;
    assert_eq!(spans.counts(), Some(Counts { failed: 1, ..Counts::default() }));
    assert!(!Spans::default().is_on() && Spans::default().counts().is_none());
    Spans::default().record(span());
}
