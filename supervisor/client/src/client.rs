//! The connection: made anew by itself whenever the daemon is back.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aion_api_proto::v1::agent_service_client::AgentServiceClient;
use aion_api_proto::v1::audit_service_client::AuditServiceClient;
use aion_api_proto::v1::backup_service_client::BackupServiceClient;
use aion_api_proto::v1::detection_service_client::DetectionServiceClient;
use aion_api_proto::v1::event_service_client::EventServiceClient;
use aion_api_proto::v1::host_service_client::HostServiceClient;
use aion_api_proto::v1::journal_service_client::JournalServiceClient;
use aion_api_proto::v1::kernel_service_client::KernelServiceClient;
use aion_api_proto::v1::policy_service_client::PolicyServiceClient;
use aion_api_proto::v1::syscall_service_client::SyscallServiceClient;
use aion_api_proto::v1::task_service_client::TaskServiceClient;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Status};

use crate::{Error, Result};

/// The largest answer that is taken: a page of a thousand agents, a megabyte of output, with room to spare.
const MAX_MESSAGE: usize = 32 << 20;

/// The socket that `AION_SOCKET` names, else the installed daemon's.
#[must_use]
pub fn default_socket() -> PathBuf {
    std::env::var_os("AION_SOCKET")
        .filter(|path| !path.is_empty())
        .map_or_else(|| PathBuf::from("/run/aion/aion.sock"), PathBuf::from)
}

/// How to connect.
#[derive(Debug, Clone)]
pub struct Options {
    /// aiond's socket.
    pub socket: PathBuf,
    /// For how long a call that was cut off waits for the daemon to come back.
    pub patience: Duration,
    /// In which tenant; none: `default`.
    pub tenant: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self { socket: default_socket(), patience: Duration::from_secs(60), tenant: None }
    }
}

/// Names the tenant on each call.
#[derive(Debug, Clone)]
pub(crate) struct InTenant(Option<MetadataValue<Ascii>>);

impl Interceptor for InTenant {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(tenant) = &self.0 {
            request.metadata_mut().insert("aion-tenant", tenant.clone());
        }
        Ok(request)
    }
}

/// What calls go through.
pub(crate) type Way = InterceptedService<Channel, InTenant>;

/// A connection to aiond. Cheap to clone; all clones share it.
#[derive(Debug, Clone)]
pub struct Client {
    pub(crate) options: Options,
    way: Way,
    /// How many calls wait for the daemon to come back.
    pub(crate) waiting: Arc<AtomicUsize>,
}

impl Client {
    /// Connects, and fails at once when nobody listens. A daemon that dies with this connection in its queue did
    /// listen: the first call waits for it to come back, as any call does.
    ///
    /// # Errors
    /// [`Error::Unreachable`] with what the system said.
    pub async fn connect(options: Options) -> Result<Self> {
        let first = match UnixStream::connect(&options.socket).await {
            Ok(stream) => Some(stream),
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => None,
            Err(source) => return Err(Error::Unreachable { socket: options.socket, source }),
        };
        Ok(Self::over(options, first))
    }

    /// Connects when the first call needs it.
    #[must_use]
    pub fn connect_lazily(options: Options) -> Self {
        Self::over(options, None)
    }

    /// `first` is used before another connection is made.
    fn over(options: Options, first: Option<UnixStream>) -> Self {
        let socket = options.socket.clone();
        let first = Arc::new(Mutex::new(first));
        let connector = tower::service_fn(move |_: Uri| {
            let first = first.lock().unwrap_or_else(PoisonError::into_inner).take();
            let socket = socket.clone();
            async move {
                let stream = match first {
                    Some(stream) => stream,
                    None => UnixStream::connect(socket).await?,
                };
                Ok::<_, io::Error>(TokioIo::new(stream))
            }
        });
        // The address only fills the `:authority` header; the connector decides where the bytes go.
        let channel = Endpoint::from_static("http://aiond.local").connect_with_connector_lazy(connector);
        // A name that no header can carry is no tenant's; the daemon says so of the empty one.
        let tenant = options.tenant.as_ref();
        let tenant = tenant.map(|name| name.parse().unwrap_or_else(|_| MetadataValue::from_static("?")));
        let way = InterceptedService::new(channel, InTenant(tenant));
        Self { options, way, waiting: Arc::default() }
    }

    /// The socket this client talks to.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.options.socket
    }

    /// Whether some call waits for the daemon to come back.
    #[must_use]
    pub fn is_away(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    pub(crate) fn agents(&self) -> AgentServiceClient<Way> {
        AgentServiceClient::new(self.way.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    pub(crate) fn events(&self) -> EventServiceClient<Way> {
        EventServiceClient::new(self.way.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    pub(crate) fn audit(&self) -> AuditServiceClient<Way> {
        AuditServiceClient::new(self.way.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    pub(crate) fn backup(&self) -> BackupServiceClient<Way> {
        BackupServiceClient::new(self.way.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    pub(crate) fn detection(&self) -> DetectionServiceClient<Way> {
        DetectionServiceClient::new(self.way.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    pub(crate) fn host(&self) -> HostServiceClient<Way> {
        HostServiceClient::new(self.way.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    pub(crate) fn tasks(&self) -> TaskServiceClient<Way> {
        TaskServiceClient::new(self.way.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    pub(crate) fn task_journal(&self) -> JournalServiceClient<Way> {
        JournalServiceClient::new(self.way.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    pub(crate) fn policy(&self) -> PolicyServiceClient<Way> {
        PolicyServiceClient::new(self.way.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    pub(crate) fn kernel(&self) -> KernelServiceClient<Way> {
        KernelServiceClient::new(self.way.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    pub(crate) fn syscalls(&self) -> SyscallServiceClient<Way> {
        SyscallServiceClient::new(self.way.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    pub(crate) fn error(&self, status: tonic::Status) -> Error {
        Error::from_status(&self.options.socket, status)
    }
}

/// Whether somebody listens at the socket.
pub(crate) async fn probe(socket: &Path) -> Result<()> {
    match UnixStream::connect(socket).await {
        Ok(_) => Ok(()),
        Err(source) => Err(Error::Unreachable { socket: socket.to_owned(), source }),
    }
}
