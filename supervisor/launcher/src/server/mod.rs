//! The socket: who may connect, and one thread for each connection.

mod connection;
mod watch;

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::Uid;

use crate::Failure;
use crate::launcher::Launcher;
use crate::state::{Group, give};

/// aiond's pool and its watchers are a few dozen.
const MAX_CONNECTIONS: usize = 256;

/// Who may connect, besides root.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peers {
    pub(crate) user: Option<Uid>,
}

/// The listening socket; its file is removed when it is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    listener: UnixListener,
    peers: Peers,
    stopping: Arc<AtomicBool>,
}

impl Server {
    /// Listens. A socket that a dead launcher left is replaced.
    pub(crate) fn listen(path: &Path, group: Group, peers: Peers) -> Result<Self, Failure> {
        let failed = |e: std::io::Error| Failure::state("listen at", path, &e);
        match std::fs::remove_file(path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(failed(e)),
            _ => {}
        }
        // Nobody connects between bind and chmod: what is not readable for others is made so first.
        let before = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o177));
        let listener = UnixListener::bind(path).map_err(failed);
        nix::sys::stat::umask(before);
        let listener = listener?;
        give(path, group)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).map_err(failed)?;
        Ok(Self { listener, peers, stopping: Arc::default() })
    }

    /// Ends [`Self::run`] when called.
    pub(crate) fn stopper(&self, path: &Path) -> impl Fn() + Send + 'static + use<> {
        let (stopping, path) = (Arc::clone(&self.stopping), path.to_owned());
        move || {
            stopping.store(true, Ordering::Relaxed);
            // accept(2) has no other way out.
            let _ = UnixStream::connect(&path);
        }
    }

    /// Accepts connections until stopped.
    pub(crate) fn run(&self, launcher: &Arc<Launcher>) {
        let open = Arc::new(AtomicUsize::new(0));
        for stream in self.listener.incoming() {
            if self.stopping.load(Ordering::Relaxed) {
                return;
            }
            match stream {
                Ok(stream) => self.accept(launcher, stream, &open),
                Err(e) => {
                    tracing::error!(error = %e, "cannot accept a connection");
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
        }
    }

    fn accept(&self, launcher: &Arc<Launcher>, stream: UnixStream, open: &Arc<AtomicUsize>) {
        // Not rustix's: its process number cannot be 0, and the kernel's is for a peer outside of our process namespace.
        match getsockopt(&stream, PeerCredentials) {
            Ok(peer) if self.admits(peer.uid()) => {}
            Ok(peer) => return tracing::warn!(uid = peer.uid(), "a connection was refused"),
            Err(e) => return tracing::error!(error = %e, "a connection without credentials"),
        }
        if open.fetch_add(1, Ordering::AcqRel) >= MAX_CONNECTIONS {
            open.fetch_sub(1, Ordering::AcqRel);
            return tracing::error!(max = MAX_CONNECTIONS, "too many connections");
        }
        let (launcher, counted) = (Arc::clone(launcher), Counted(Arc::clone(open)));
        let thread = std::thread::Builder::new().name("connection".into()).stack_size(512 << 10);
        let spawned = thread.spawn(move || {
            let _counted = counted;
            connection::serve(&launcher, &stream);
        });
        if let Err(e) = spawned {
            tracing::error!(error = %e, "cannot start a thread for a connection");
        }
    }

    fn admits(&self, uid: u32) -> bool {
        uid == 0 || self.peers.user.is_some_and(|user| user.as_raw() == uid)
    }
}

/// One of the connections that are open.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
