//! The sockets of agents that serve tasks: a folder for each, made by aiond, shown read-only inside the sandbox. Who is at the
//! other end is known from the socket alone.

use std::collections::HashMap;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use aion_api_proto::v1::runtime_service_server::RuntimeServiceServer;
use aion_types::{AgentId, AgentName, TenantId};
use tokio::net::UnixListener;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::AbortHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Routes;
use tonic::transport::Server;

use crate::connection::Connection;
use crate::runtime::Runtime;
use crate::tasks::Tasks;

/// The socket in an agent's folder.
const SOCKET: &str = "kernel.sock";
/// Connections of one agent.
const CONNECTIONS: usize = 8;
/// Streams and calls of one connection at once.
const STREAMS: u32 = 64;
/// The largest message: a checkpoint's part or some results, with room to spare.
const MAX_MESSAGE: usize = 8 << 20;

/// Who is at the other end of a door. Each request on it carries that as an extension.
#[derive(Debug, Clone)]
pub struct Visitor {
    /// Whose.
    pub tenant: TenantId,
    /// The registered agent.
    pub agent: AgentName,
    /// The task whose attempt this process is, if it is one.
    pub task: Option<String>,
}

/// The doors that are open. Cheap to clone.
#[derive(Clone)]
pub struct Doors {
    folder: PathBuf,
    open: Arc<Mutex<HashMap<AgentId, AbortHandle>>>,
    connections: mpsc::Sender<io::Result<Connection<Visitor>>>,
}

impl std::fmt::Debug for Doors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Doors").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl Doors {
    /// Begins serving. `folder` is `STATE/doors`; `more` are services besides the tasks', which find out who calls by [`Visitor`].
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn start(folder: impl Into<PathBuf>, tasks: &Tasks, more: Routes) -> io::Result<Self> {
        let folder = folder.into();
        fs::create_dir_all(&folder)?;
        // Nobody else on the host comes near the sockets.
        fs::set_permissions(&folder, Permissions::from_mode(0o700))?;
        let (connections, incoming) = mpsc::channel(64);
        let service = RuntimeServiceServer::new(Runtime(tasks.clone()))
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        // No keep-alive: an agent that is frozen answers nothing and is still there.
        let server = Server::builder()
            .accept_http1(true)
            .max_concurrent_streams(STREAMS)
            .add_routes(more.add_service(service));
        let end = tasks.inner.end.clone();
        tokio::spawn(async move {
            let served = server
                .serve_with_incoming_shutdown(ReceiverStream::new(incoming), end.cancelled_owned())
                .await;
            if let Err(error) = served {
                tracing::error!(%error, "agents' streams are not served any more");
            }
        });
        Ok(Self { folder, open: Arc::default(), connections })
    }

    /// Opens an agent's door, or leaves it open.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn open(&self, id: &AgentId, visitor: Visitor) -> io::Result<()> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.get(id).is_some_and(|accepting| !accepting.is_finished()) {
            return Ok(());
        }
        let folder = self.folder.join(id.as_str());
        let listener = bind(&folder)?;
        let accepting = tokio::spawn(accept(listener, visitor, self.connections.clone()));
        open.insert(id.clone(), accepting.abort_handle());
        Ok(())
    }

    /// Closes a door for good and removes its folder.
    pub fn close(&self, id: &AgentId) {
        if let Some(accepting) = self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(id) {
            accepting.abort();
        }
        let folder = self.folder.join(id.as_str());
        let gone = fs::remove_file(folder.join(SOCKET)).and_then(|()| fs::remove_dir(&folder));
        if let Err(error) = gone
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(agent = %id, %error, "a door's folder stays");
        }
    }
}

fn bind(folder: &Path) -> io::Result<UnixListener> {
    match fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    // The agent is another user in there; the folder above keeps everybody else out.
    fs::set_permissions(folder, Permissions::from_mode(0o755))?;
    let path = folder.join(SOCKET);
    // A new one beside the old, then in its place: an agent that connects finds one of the two.
    let fresh = folder.join(".new");
    let _ = fs::remove_file(&fresh);
    let listener = UnixListener::bind(&fresh)?;
    fs::set_permissions(&fresh, Permissions::from_mode(0o666))?;
    fs::rename(&fresh, &path)?;
    Ok(listener)
}

async fn accept(
    listener: UnixListener,
    visitor: Visitor,
    connections: mpsc::Sender<io::Result<Connection<Visitor>>>,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let connection = Connection::new(stream, visitor.clone()).keeping(place);
                if connections.send(Ok(connection)).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::warn!(tenant = %visitor.tenant, agent = %visitor.agent, %error, "accept failed");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}
