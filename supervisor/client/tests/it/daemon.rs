//! A daemon that can be killed: it serves one agent's output and some records, from a cursor, like aiond.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aion_api_proto::v1 as api;
use api::agent_service_server::{AgentService, AgentServiceServer};
use api::audit_service_server::{AuditService, AuditServiceServer};
use api::event_service_server::{EventService, EventServiceServer};
use tokio::net::UnixListener;
use tokio::sync::{broadcast, watch};
use tokio_stream::{Stream, wrappers::UnixListenerStream};
use tonic::{Request, Response, Status, Streaming};
use tonic_types::{ErrorDetails, StatusExt as _};

/// Records in the log.
pub(crate) const RECORDS: u64 = 400;
/// Bytes of output.
pub(crate) const OUTPUT_LEN: usize = 1_000_003;

/// The agent's output: every position is told apart from its neighbours.
pub(crate) fn output() -> Vec<u8> {
    (0..OUTPUT_LEN).map(|i| u8::try_from((i * 31 + i / 251) % 251).unwrap()).collect()
}

#[derive(Clone)]
struct Shared {
    /// Kept across restarts, as aiond keeps it on disk.
    ended: watch::Sender<bool>,
    starts: Arc<Mutex<Vec<String>>>,
    die_on_start: Arc<AtomicBool>,
    /// The whole output has been handed out.
    drained: Arc<AtomicBool>,
    /// True: the connections break. False: the streams end in good order.
    end: broadcast::Sender<bool>,
}

pub(crate) struct Daemon {
    dir: tempfile::TempDir,
    shared: Shared,
    server: Arc<Mutex<Option<std::thread::JoinHandle<()>>>>,
    stop: Arc<Mutex<Option<tokio::sync::oneshot::Sender<()>>>>,
}

impl Daemon {
    pub(crate) fn start() -> Self {
        let shared = Shared {
            ended: watch::channel(false).0,
            starts: Arc::default(),
            die_on_start: Arc::default(),
            drained: Arc::default(),
            end: broadcast::channel(16).0,
        };
        let dir = tempfile::tempdir().unwrap();
        let daemon = Self { dir, shared, server: Arc::default(), stop: Arc::default() };
        serve(daemon.socket(), &daemon.shared, &daemon.server, &daemon.stop);
        daemon
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("aion.sock")
    }

    /// Breaks all connections at once, as SIGKILL does.
    pub(crate) fn crash(&self) {
        crash(&self.server, &self.stop);
        let _ = std::fs::remove_file(self.socket());
    }

    pub(crate) fn crash_and_restart(&self, pause: Duration) {
        self.crash();
        let (socket, shared) = (self.socket(), self.shared.clone());
        let (server, stop) = (Arc::clone(&self.server), Arc::clone(&self.stop));
        std::thread::spawn(move || {
            std::thread::sleep(pause);
            serve(socket, &shared, &server, &stop);
        });
    }

    /// Ends all streams in good order, as a shutdown does.
    pub(crate) fn close_streams(&self) {
        let _ = self.shared.end.send(false);
    }

    pub(crate) fn end_agent(&self) {
        self.shared.ended.send_replace(true);
    }

    /// The next Start is received, and the daemon dies before it answers.
    pub(crate) fn die_on_next_start(&self) {
        self.shared.die_on_start.store(true, Ordering::SeqCst);
        let (socket, shared) = (self.socket(), self.shared.clone());
        let (server, stop) = (Arc::clone(&self.server), Arc::clone(&self.stop));
        std::thread::spawn(move || {
            while shared.starts.lock().unwrap().is_empty() {
                std::thread::sleep(Duration::from_millis(5));
            }
            crash(&server, &stop);
            let _ = std::fs::remove_file(&socket);
            serve(socket, &shared, &server, &stop);
        });
    }

    /// The request ids of all Starts.
    pub(crate) fn starts(&self) -> Vec<String> {
        self.shared.starts.lock().unwrap().clone()
    }
}

type Slot<T> = Arc<Mutex<Option<T>>>;

fn crash(server: &Slot<std::thread::JoinHandle<()>>, stop: &Slot<tokio::sync::oneshot::Sender<()>>) {
    // A restart may be under way.
    let thread = loop {
        if let Some(thread) = server.lock().unwrap().take() {
            break thread;
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    drop(stop.lock().unwrap().take());
    thread.join().unwrap();
}

/// Runs a server on a thread with a runtime of its own: dropping the runtime breaks every connection.
fn serve(
    socket: PathBuf,
    shared: &Shared,
    server: &Slot<std::thread::JoinHandle<()>>,
    stop: &Slot<tokio::sync::oneshot::Sender<()>>,
) {
    let (send, receive) = tokio::sync::oneshot::channel::<()>();
    let (ready, is_ready) = std::sync::mpsc::channel();
    let service = Service(shared.clone());
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = UnixListener::bind(&socket).unwrap();
            ready.send(()).unwrap();
            let server = tonic::transport::Server::builder()
                .add_service(AgentServiceServer::new(service.clone()))
                .add_service(EventServiceServer::new(service.clone()))
                .add_service(AuditServiceServer::new(service))
                .serve_with_incoming(UnixListenerStream::new(listener));
            tokio::select! {
                result = server => result.unwrap(),
                _ = receive => {}
            }
        });
        runtime.shutdown_background();
    });
    is_ready.recv().unwrap();
    *stop.lock().unwrap() = Some(send);
    *server.lock().unwrap() = Some(thread);
}

#[derive(Clone)]
struct Service(Shared);

type BoxStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Service {
    /// Sends items until they end or the streams are told to end.
    fn stream<T: Send + 'static>(
        &self,
        mut items: impl Iterator<Item = T> + Send + 'static,
        open: bool,
    ) -> BoxStream<T> {
        let (send, receive) = tokio::sync::mpsc::channel(1);
        let mut end = self.0.end.subscribe();
        tokio::spawn(async move {
            for number in 1_u32.. {
                // All of it would fit into the client's window before the first crash.
                if number.is_multiple_of(16) {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                let item = items.next();
                tokio::select! {
                    biased;
                    _ = end.recv() => return,
                    () = std::future::pending(), if item.is_none() && open => {}
                    sent = async { match item { Some(item) => send.send(Ok(item)).await.is_ok(), None => false } } => {
                        if !sent { return }
                    }
                }
            }
        });
        Box::pin(tokio_stream::wrappers::ReceiverStream::new(receive))
    }
}

fn agent(state: &str) -> api::Agent {
    let exit = (state == "exited").then(|| api::Exit { code: 3, signal: 0, reason: "exited".into() });
    api::Agent { id: "a".into(), name: "a".into(), state: state.into(), exit, ..Default::default() }
}

macro_rules! unused {
    ($($method:ident($request:ident) -> $answer:ident;)*) => {$(
        // As async_trait writes it: the attribute does not look into macros.
        fn $method<'a, 'b>(
            &'a self,
            _: Request<api::$request>,
        ) -> Pin<Box<dyn Future<Output = Result<Response<api::$answer>, Status>> + Send + 'b>>
        where
            'a: 'b,
            Self: 'b,
        {
            Box::pin(async { Err(Status::unimplemented("not in this test")) })
        }
    )*};
}

#[tonic::async_trait]
impl AgentService for Service {
    unused! {
        register(RegisterRequest) -> Agent;
        stop(StopRequest) -> Agent;
        kill(KillRequest) -> Agent;
        pause(PauseRequest) -> Agent;
        resume(ResumeRequest) -> Agent;
        heartbeat(HeartbeatRequest) -> HeartbeatResponse;
        list(ListRequest) -> ListResponse;
        remove(RemoveRequest) -> RemoveResponse;
        validate(ValidateRequest) -> ValidateResponse;
    }

    async fn start(&self, request: Request<api::StartRequest>) -> Result<Response<api::Agent>, Status> {
        self.0.starts.lock().unwrap().push(request.into_inner().request_id);
        if self.0.die_on_start.swap(false, Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        Ok(Response::new(agent("running")))
    }

    async fn get(&self, request: Request<api::GetRequest>) -> Result<Response<api::Agent>, Status> {
        let name = request.into_inner().agent;
        if name != "a" {
            let meta = [("agent".to_owned(), name)];
            let details = ErrorDetails::with_error_info("AGENT_NOT_FOUND", "aion", meta);
            return Err(Status::with_error_details(tonic::Code::NotFound, "no such agent", details));
        }
        let ended = self.0.drained.load(Ordering::SeqCst);
        Ok(Response::new(agent(if ended { "exited" } else { "running" })))
    }

    async fn wait(&self, _: Request<api::WaitRequest>) -> Result<Response<api::Agent>, Status> {
        let mut ended = self.0.ended.subscribe();
        ended.wait_for(|ended| *ended).await.map_err(|_| Status::cancelled("gone"))?;
        Ok(Response::new(agent("exited")))
    }

    type LogsStream = BoxStream<api::LogChunk>;
    async fn logs(&self, request: Request<api::LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        let output = output();
        let mut at = usize::try_from(request.into_inner().cursor).unwrap();
        let drained = Arc::clone(&self.0.drained);
        let chunks = std::iter::from_fn(move || {
            // Sizes that do not line up with anything.
            let end = output.len().min(at + 1 + (at * 7) % 1999);
            if at == output.len() {
                drained.store(true, Ordering::SeqCst);
                return None;
            }
            let data = output[at..end].to_vec();
            at = end;
            Some(api::LogChunk { stream: 1, data, next_cursor: end as u64, ..Default::default() })
        });
        Ok(Response::new(self.stream(chunks, false)))
    }

    type ExecStream = BoxStream<api::ExecOutput>;
    async fn exec(
        &self,
        _: Request<Streaming<api::ExecInput>>,
    ) -> Result<Response<Self::ExecStream>, Status> {
        Err(Status::unimplemented("not in this test"))
    }
    type AttachStream = BoxStream<api::AttachOutput>;
    async fn attach(
        &self,
        _: Request<Streaming<api::AttachInput>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        Err(Status::unimplemented("not in this test"))
    }
    type StatsStream = BoxStream<api::StatsSample>;
    async fn stats(&self, _: Request<api::StatsRequest>) -> Result<Response<Self::StatsStream>, Status> {
        Err(Status::unimplemented("not in this test"))
    }
}

#[tonic::async_trait]
impl EventService for Service {
    type SubscribeStream = BoxStream<api::Record>;
    async fn subscribe(
        &self,
        request: Request<api::SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let after = request.into_inner().cursor;
        let records = (after + 1..=RECORDS).map(|seq| api::Record { seq, ..Default::default() });
        Ok(Response::new(self.stream(records, true)))
    }
}

#[tonic::async_trait]
impl AuditService for Service {
    async fn query(&self, _: Request<api::QueryRequest>) -> Result<Response<api::QueryResponse>, Status> {
        let records = vec![api::Record { seq: RECORDS, ..Default::default() }];
        Ok(Response::new(api::QueryResponse { records, next_after_seq: RECORDS, more: false }))
    }
    async fn verify(&self, _: Request<api::VerifyRequest>) -> Result<Response<api::VerifyResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }
}
