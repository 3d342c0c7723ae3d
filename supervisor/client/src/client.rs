//! The connection: made anew by itself whenever the daemon is back.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aion_api_proto::v1::agent_service_client::AgentServiceClient;
use aion_api_proto::v1::audit_service_client::AuditServiceClient;
use aion_api_proto::v1::event_service_client::EventServiceClient;
use aion_api_proto::v1::host_service_client::HostServiceClient;
use aion_api_proto::v1::journal_service_client::JournalServiceClient;
use aion_api_proto::v1::task_service_client::TaskServiceClient;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

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
}

impl Default for Options {
    fn default() -> Self {
        Self { socket: default_socket(), patience: Duration::from_secs(60) }
    }
}

/// A connection to aiond. Cheap to clone; all clones share it.
#[derive(Debug, Clone)]
pub struct Client {
    pub(crate) options: Options,
    channel: Channel,
    /// How many calls wait for the daemon to come back.
    pub(crate) waiting: Arc<AtomicUsize>,
}

impl Client {
    /// Connects, and fails at once when nobody listens.
    ///
    /// # Errors
    /// [`Error::Unreachable`] with what the system said.
    pub async fn connect(options: Options) -> Result<Self> {
        probe(&options.socket).await?;
        Ok(Self::connect_lazily(options))
    }

    /// Connects when the first call needs it.
    #[must_use]
    pub fn connect_lazily(options: Options) -> Self {
        let socket = options.socket.clone();
        let connector = tower::service_fn(move |_: Uri| {
            let socket = socket.clone();
            async move { Ok::<_, io::Error>(TokioIo::new(UnixStream::connect(socket).await?)) }
        });
        // The address only fills the `:authority` header; the connector decides where the bytes go.
        let channel = Endpoint::from_static("http://aiond.local").connect_with_connector_lazy(connector);
        Self { options, channel, waiting: Arc::default() }
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

    pub(crate) fn agents(&self) -> AgentServiceClient<Channel> {
        AgentServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    pub(crate) fn events(&self) -> EventServiceClient<Channel> {
        EventServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    pub(crate) fn audit(&self) -> AuditServiceClient<Channel> {
        AuditServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    pub(crate) fn host(&self) -> HostServiceClient<Channel> {
        HostServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    pub(crate) fn tasks(&self) -> TaskServiceClient<Channel> {
        TaskServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    pub(crate) fn task_journal(&self) -> JournalServiceClient<Channel> {
        JournalServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE)
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
