//! The queue between those who make spans and the one who sends them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span as Told};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::export::Exporter;
use crate::settings::{Error, Settings};
use crate::span::{Span, key_value};

/// Attempts at one batch, when what is in the way may pass.
const ATTEMPTS: u32 = 3;
/// Before the second attempt; doubled.
const PAUSE: Duration = Duration::from_secs(1);

/// What became of spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// The collector has them.
    pub exported: u64,
    /// There was no room in the queue.
    pub dropped: u64,
    /// The collector did not take them.
    pub failed: u64,
}

#[derive(Debug, Default)]
struct Counters {
    exported: AtomicU64,
    dropped: AtomicU64,
    failed: AtomicU64,
}

enum Message {
    Span(Box<Span>),
    /// Answered when all that came before was tried.
    Flush(oneshot::Sender<()>),
}

#[derive(Debug)]
struct Inner {
    queue: mpsc::Sender<Message>,
    counters: Arc<Counters>,
}

/// Takes spans. Cheap to clone; without an endpoint it takes none.
#[derive(Debug, Clone, Default)]
pub struct Spans(Option<Arc<Inner>>);

impl Spans {
    /// Begins to send. On a runtime.
    ///
    /// # Errors
    /// When the endpoint can be none.
    pub fn start(settings: &Settings) -> Result<Self, Error> {
        let exporter = Exporter::new(settings)?;
        let (queue, spans) = mpsc::channel(settings.queue.max(1));
        let counters = Arc::new(Counters::default());
        let sender = Sender {
            exporter,
            resource: Resource {
                attributes: settings
                    .resource
                    .iter()
                    .map(|(key, value)| key_value(key, Value::StringValue(value.clone())))
                    .collect(),
                ..Resource::default()
            },
            counters: Arc::clone(&counters),
            batch: settings.batch.max(1),
            delay: settings.delay,
            failing: false,
        };
        tokio::spawn(sender.run(spans));
        Ok(Self(Some(Arc::new(Inner { queue, counters }))))
    }

    /// Whether spans are wanted: who makes none needs not gather what they tell.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Takes a span. Never waits.
    pub fn record(&self, span: Span) {
        let Some(inner) = &self.0 else { return };
        if span.is_sampled() && inner.queue.try_send(Message::Span(Box::new(span))).is_err() {
            inner.counters.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What became of them; none: it is off.
    #[must_use]
    pub fn counts(&self) -> Option<Counts> {
        let counters = &self.0.as_ref()?.counters;
        Some(Counts {
            exported: counters.exported.load(Ordering::Relaxed),
            dropped: counters.dropped.load(Ordering::Relaxed),
            failed: counters.failed.load(Ordering::Relaxed),
        })
    }

    /// Waits until all that came before was tried, but no longer than that.
    pub async fn flush(&self, within: Duration) {
        let Some(inner) = &self.0 else { return };
        let (done, wait) = oneshot::channel();
        let flushed = async {
            if inner.queue.send(Message::Flush(done)).await.is_ok() {
                let _ = wait.await;
            }
        };
        let _ = tokio::time::timeout(within, flushed).await;
    }
}

struct Sender {
    exporter: Exporter,
    resource: Resource,
    counters: Arc<Counters>,
    batch: usize,
    delay: Duration,
    /// The last batch was not taken: it is said once.
    failing: bool,
}

impl Sender {
    async fn run(mut self, mut queue: mpsc::Receiver<Message>) {
        let mut batch: Vec<Told> = Vec::new();
        let mut due = None;
        loop {
            let message = match due {
                Some(at) => tokio::time::timeout_at(at, queue.recv()).await,
                None => Ok(queue.recv().await),
            };
            let flush = match message {
                Ok(Some(Message::Span(span))) => {
                    batch.push(span.told());
                    due.get_or_insert_with(|| Instant::now() + self.delay);
                    if batch.len() < self.batch {
                        continue;
                    }
                    None
                }
                Ok(Some(Message::Flush(done))) => Some(done),
                Ok(None) => {
                    self.send(std::mem::take(&mut batch)).await;
                    return;
                }
                Err(_) => None,
            };
            due = None;
            self.send(std::mem::take(&mut batch)).await;
            if let Some(done) = flush {
                let _ = done.send(());
            }
        }
    }

    async fn send(&mut self, spans: Vec<Told>) {
        if spans.is_empty() {
            return;
        }
        let count = u64::try_from(spans.len()).unwrap_or(u64::MAX);
        let scope = InstrumentationScope {
            name: "aion.kernel".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..InstrumentationScope::default()
        };
        let batch = ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(self.resource.clone()),
                scope_spans: vec![ScopeSpans { scope: Some(scope), spans, ..ScopeSpans::default() }],
                ..ResourceSpans::default()
            }],
        };
        let mut pause = PAUSE;
        for attempt in 1..=ATTEMPTS {
            match self.exporter.send(batch.clone()).await {
                Ok(rejected) => {
                    self.failing = false;
                    let rejected = rejected.min(count);
                    self.counters.exported.fetch_add(count - rejected, Ordering::Relaxed);
                    self.counters.failed.fetch_add(rejected, Ordering::Relaxed);
                    return;
                }
                Err(failure) if failure.passing && attempt < ATTEMPTS => {
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                Err(failure) => {
                    self.counters.failed.fetch_add(count, Ordering::Relaxed);
                    if !std::mem::replace(&mut self.failing, true) {
                        tracing::warn!(why = failure.why, count, "spans are not taken");
                    }
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
