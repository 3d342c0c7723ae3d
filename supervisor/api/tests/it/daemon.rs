//! A daemon under test: the services on a socket, in a runtime of their own that can be killed at any moment.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aion_api::{Api, Door, Options};
use aion_api_proto::v1 as api;
use aion_api_proto::v1::agent_service_client::AgentServiceClient;
use aion_api_proto::v1::audit_service_client::AuditServiceClient;
use aion_api_proto::v1::event_service_client::EventServiceClient;
use aion_launcher_client::{Client, Options as LauncherOptions};
use aion_signing::Guard;
use aion_store::{Options as StoreOptions, Store};
use aion_types::TenantId;
use hyper_util::rt::TokioIo;
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic_types::StatusExt as _;

use crate::fake::Fake;

pub(crate) struct World {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) fake: Fake,
    guard: Arc<Guard>,
    daemon: Option<Daemon>,
}

struct Daemon {
    runtime: Runtime,
    store: std::sync::Weak<Store>,
}

impl World {
    /// A launcher and a daemon.
    pub(crate) fn new() -> Self {
        Self::guarded(Arc::default())
    }

    /// The same where things must be signed.
    pub(crate) fn guarded(guard: Arc<Guard>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("secrets")).unwrap();
        let fake = Fake::start(dir.path());
        let mut world = Self { dir, fake, guard, daemon: None };
        world.start();
        world
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("api.sock")
    }

    pub(crate) fn start(&mut self) {
        let store_options =
            StoreOptions { reserve_bytes: 1 << 20, hard_reserve_bytes: 1 << 20, ..StoreOptions::default() };
        let store = loop {
            // The one before may still be letting go of its lock.
            match Store::open(&self.dir.path().join("db"), store_options.clone()) {
                Ok(store) => break Arc::new(store),
                Err(error)
                    if std::error::Error::source(&error).is_some_and(|e| e.to_string().contains("lock")) =>
                {
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err(error) => panic!("{error}"),
            }
        };
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let weak = Arc::downgrade(&store);
        let (state, socket) = (self.dir.path().to_owned(), self.socket());
        let guard = Arc::clone(&self.guard);
        let _ = std::fs::remove_file(&socket);
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        listener.set_nonblocking(true).unwrap();
        runtime.spawn(async move {
            let listener = UnixListener::from_std(listener).unwrap();
            serve(state, guard, store, listener).await;
        });
        self.daemon = Some(Daemon { runtime, store: weak });
    }

    /// As kill -9: everything stops where it is.
    pub(crate) fn crash(&mut self) {
        let Some(daemon) = self.daemon.take() else { return };
        daemon.runtime.shutdown_background();
        while daemon.store.strong_count() > 0 {
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    pub(crate) fn agents(&self) -> AgentServiceClient<Channel> {
        AgentServiceClient::new(channel(&self.socket()))
    }

    pub(crate) fn events(&self) -> EventServiceClient<Channel> {
        EventServiceClient::new(channel(&self.socket()))
    }

    pub(crate) fn audit(&self) -> AuditServiceClient<Channel> {
        AuditServiceClient::new(channel(&self.socket()))
    }

    pub(crate) async fn register(&self, name: &str, yaml: &str) -> api::Agent {
        self.agents().register(manifest(name, yaml)).await.unwrap().into_inner()
    }

    pub(crate) async fn run(&self, name: &str, yaml: &str) -> api::Agent {
        let agent = self.register(name, yaml).await;
        self.agents()
            .start(api::StartRequest { agent: agent.id, ..Default::default() })
            .await
            .unwrap()
            .into_inner()
    }

    pub(crate) async fn get(&self, agent: &str) -> api::Agent {
        self.agents().get(api::GetRequest { agent: agent.to_owned() }).await.unwrap().into_inner()
    }

    /// Waits until an agent is in a state.
    pub(crate) async fn until(&self, agent: &str, state: &str) -> api::Agent {
        let mut last = None;
        for _ in 0..500 {
            if let Ok(found) = self.agents().get(api::GetRequest { agent: agent.to_owned() }).await {
                let found = found.into_inner();
                if found.state == state {
                    return found;
                }
                last = Some(found);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{agent} did not become {state}: {last:?}");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.crash();
    }
}

async fn serve(state: PathBuf, guard: Arc<Guard>, store: Arc<Store>, listener: UnixListener) {
    let mut launcher = LauncherOptions::new(state.join("l.sock"));
    launcher.connect_patience = Duration::from_millis(200);
    launcher.call_timeout = Duration::from_secs(2);
    launcher.slow_call_timeout = Duration::from_secs(2);
    let mut options = Options::new(&state);
    options.linger = Duration::from_millis(100);
    options.signatures = guard;
    let api = Api::new(options, store, Client::new(launcher)).unwrap();
    let door = Door::new(TenantId::parse("default").unwrap(), 0, None);
    api.serve(listener, door, tonic::service::Routes::default(), std::future::pending()).await.unwrap();
}

pub(crate) fn channel(socket: &Path) -> Channel {
    let socket = socket.to_owned();
    Endpoint::from_static("http://aiond.local").connect_with_connector_lazy(tower::service_fn(
        move |_: Uri| {
            let socket = socket.clone();
            async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(socket).await?)) }
        },
    ))
}

pub(crate) fn manifest(name: &str, yaml: &str) -> api::RegisterRequest {
    let text = format!("apiVersion: aion.os/v1\nkind: Agent\nmetadata: {{name: {name}}}\nspec:\n{yaml}\n");
    api::RegisterRequest {
        manifest: text.into_bytes(),
        manifest_name: "agent.yml".into(),
        ..Default::default()
    }
}

/// The stable code of an error, and one of its metadata.
pub(crate) fn code(status: &tonic::Status) -> String {
    status.get_details_error_info().map_or_else(|| format!("none: {status:?}"), |info| info.reason)
}

pub(crate) fn meta(status: &tonic::Status, key: &str) -> String {
    status.get_details_error_info().and_then(|info| info.metadata.get(key).cloned()).unwrap_or_default()
}
