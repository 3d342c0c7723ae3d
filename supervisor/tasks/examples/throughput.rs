//! How many tasks go through: submitted durably, assigned over the runtime protocol, completed durably.
//!
//! `cargo run --release -p aion-tasks --example throughput -- [SECONDS]`. The submitting side is in this process; the agent
//! speaks over its socket. Prints one JSON object a line.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aion_api_proto::v1 as api;
use aion_api_proto::v1::runtime_service_client::RuntimeServiceClient;
use aion_manifest::SchedulerFile;
use aion_tasks::{
    AuditRecord, BoxFuture, Doors, Host, JobFound, JobLaunch, Known, LaunchError, Options, Place, Tasks,
};
use aion_types::{AgentId, AgentName, ErrorCode, TenantId};
use api::to_agent::Kind as Told;
use hyper_util::rt::TokioIo;
use tokio::sync::{Mutex, Semaphore, mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Endpoint, Uri};

struct Nobody;

fn ready<T: Send + 'static>(value: T) -> BoxFuture<T> {
    Box::pin(std::future::ready(value))
}

impl Host for Nobody {
    fn wake(&self, _: TenantId, _: AgentName) -> BoxFuture<Result<(), String>> {
        ready(Ok(()))
    }
    fn launch(&self, _: JobLaunch) -> BoxFuture<Result<std::path::PathBuf, LaunchError>> {
        ready(Err(LaunchError { code: ErrorCode::Internal, message: String::new(), passing: false }))
    }
    fn find(&self, _: Place) -> BoxFuture<Result<Option<JobFound>, String>> {
        ready(Ok(None))
    }
    fn terminate(&self, _: Place) -> BoxFuture<Result<(), String>> {
        ready(Ok(()))
    }
    fn freeze(&self, _: Place) -> BoxFuture<Result<(), String>> {
        ready(Ok(()))
    }
    fn thaw(&self, _: Place) -> BoxFuture<Result<(), String>> {
        ready(Ok(()))
    }
    fn stop(&self, _: Place) -> BoxFuture<Result<(), String>> {
        ready(Ok(()))
    }
    fn forget(&self, _: Place) -> BoxFuture<Result<(), String>> {
        ready(Ok(()))
    }
    fn is_registered(&self, _: &TenantId, _: &AgentName) -> bool {
        false
    }
    fn audit(&self, _: Vec<AuditRecord>) -> BoxFuture<()> {
        ready(())
    }
}

type Ends = Arc<Mutex<HashMap<(u64, u64), String>>>;
type Waits = Arc<std::sync::Mutex<HashMap<String, oneshot::Sender<()>>>>;

async fn serve(state: std::path::PathBuf, waits: Waits) -> anyhow_free::Result {
    let path = state.join("doors").join(AgentId::from_parts(1, 0).as_str()).join("kernel.sock");
    let connect = tower::service_fn(move |_: Uri| {
        let path = path.clone();
        async move { Ok::<_, std::io::Error>(TokioIo::new(tokio::net::UnixStream::connect(path).await?)) }
    });
    let channel = Endpoint::from_static("http://aion").connect_with_connector(connect).await?;
    let (say, said) = mpsc::channel(1024);
    let hello = api::RuntimeHello { protocol: 1, ..api::RuntimeHello::default() };
    say.send(api::FromAgent { kind: Some(api::from_agent::Kind::Hello(hello)) }).await?;
    let mut client = RuntimeServiceClient::new(channel).max_decoding_message_size(16 << 20);
    let mut hear = client.attach(ReceiverStream::new(said)).await?.into_inner();
    let ids: Ends = Arc::default();
    while let Some(message) = hear.message().await? {
        match message.kind {
            Some(Told::Assignments(all)) => {
                let mut known = ids.lock().await;
                let completions = all.assignments.into_iter().map(|one| {
                    let attempt = one.attempt.unwrap_or_default();
                    known.insert((attempt.epoch, attempt.seq), one.task_id);
                    let outcome = Some(api::completion::Outcome::ResultJson("1".to_owned()));
                    api::Completion { attempt: Some(attempt), outcome }
                });
                let completions = api::Completions { completions: completions.collect() };
                drop(known);
                say.send(api::FromAgent { kind: Some(api::from_agent::Kind::Completions(completions)) })
                    .await?;
            }
            Some(Told::Recorded(recorded)) => {
                let mut known = ids.lock().await;
                let mut waits = waits.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                for attempt in recorded.attempts {
                    if let Some(done) =
                        known.remove(&(attempt.epoch, attempt.seq)).and_then(|id| waits.remove(&id))
                    {
                        let _ = done.send(());
                    }
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// The example's only error.
mod anyhow_free {
    pub(crate) type Result = std::result::Result<(), Box<dyn std::error::Error + Send + Sync>>;
}

fn main() -> anyhow_free::Result {
    let seconds: u64 = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(3);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(run(seconds))
}

async fn run(seconds: u64) -> anyhow_free::Result {
    let folder = tempfile::Builder::new().prefix("throughput").tempdir_in(
        std::env::var_os("AION_BENCH_DIR").map_or_else(std::env::temp_dir, std::path::PathBuf::from),
    )?;
    let agent = Known {
        tenant: TenantId::parse("default")?,
        name: AgentName::parse("w")?,
        job: false,
        concurrency: 1024,
        labels: Default::default(),
        memory_bytes: 0,
        may_freeze: false,
        checkpoint_interval_ms: Some(0),
        grace_ms: 1000,
        checkpoint_max: 1 << 20,
    };
    let settings = "apiVersion: aion.os/v1\nkind: Scheduler\nnode: {slots: 4096}\n";
    let reload = move || {
        SchedulerFile::parse(settings.as_bytes(), "s.yaml")
            .map_err(|error| aion_tasks::Error::of(error.code(), error.to_string()))
    };
    let state = folder.path().to_owned();
    let tasks = Tasks::start(Options::new(&state), Arc::new(Nobody), vec![agent.clone()], reload)?;
    let doors = Doors::start(state.join("doors"), &tasks, tonic::service::Routes::default())?;
    let visitor = aion_tasks::Visitor { tenant: agent.tenant.clone(), agent: agent.name.clone(), task: None };
    doors.open(&AgentId::from_parts(1, 0), visitor)?;
    let waits = Waits::default();
    tokio::spawn(serve(state, Arc::clone(&waits)));
    for (name, in_flight, batch) in [("stream", 64, 16), ("stream", 512, 64), ("unary", 64, 1), ("one", 1, 1)]
    {
        figure(&tasks, &agent.tenant, &waits, name, in_flight, batch, Duration::from_secs(seconds)).await?;
    }
    tasks.shut_down().await;
    Ok(())
}

async fn figure(
    tasks: &Tasks,
    tenant: &TenantId,
    waits: &Waits,
    name: &str,
    in_flight: usize,
    batch: usize,
    length: Duration,
) -> anyhow_free::Result {
    let places = Arc::new(Semaphore::new(in_flight));
    let took = Arc::new(std::sync::Mutex::new(Vec::new()));
    let begin = Instant::now();
    let mut n = 0u64;
    while begin.elapsed() < length {
        let mut specs = Vec::with_capacity(batch);
        let sent = Instant::now();
        while specs.len() < batch {
            let place = if specs.is_empty() {
                Some(Arc::clone(&places).acquire_owned().await?)
            } else {
                Arc::clone(&places).try_acquire_owned().ok()
            };
            let Some(place) = place else { break };
            n += 1;
            let id = format!("{name}-{in_flight}-{n}");
            let (done, is_done) = oneshot::channel();
            waits.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(id.clone(), done);
            let took = Arc::clone(&took);
            tokio::spawn(async move {
                if is_done.await.is_ok() {
                    took.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(sent.elapsed());
                }
                drop(place);
            });
            specs.push(api::TaskSpec { task_id: id, agent: "w".to_owned(), ..api::TaskSpec::default() });
        }
        if name == "stream" {
            let underway = tasks.submit_batch(tenant, api::SubmitBatch { tasks: specs }).await?;
            let (tasks, tenant) = (tasks.clone(), tenant.clone());
            tokio::spawn(async move { drop(underway.results(&tasks, &tenant).await) });
        } else {
            for spec in specs {
                let (tasks, tenant) = (tasks.clone(), tenant.clone());
                let request = api::SubmitRequest { request_id: String::new(), task: Some(spec) };
                tokio::spawn(async move { tasks.submit(&tenant, request).await });
            }
        }
    }
    let all = Arc::clone(&places).acquire_many_owned(u32::try_from(in_flight)?).await?;
    let length = begin.elapsed().as_secs_f64();
    drop(all);
    let mut took = std::mem::take(&mut *took.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    took.sort_unstable();
    let ms = |percent: usize| {
        took.get((took.len() * percent / 100).min(took.len().saturating_sub(1)))
            .map_or(0.0, |t| t.as_secs_f64() * 1e3)
    };
    use std::io::Write as _;
    writeln!(
        std::io::stdout(),
        "{{\"figure\":\"{name}\",\"in_flight\":{in_flight},\"tasks_per_s\":{:.0},\"p50_ms\":{:.2},\"p99_ms\":{:.2}}}",
        took.len() as f64 / length,
        ms(50),
        ms(99),
    )?;
    Ok(())
}
