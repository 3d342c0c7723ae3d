//! A connection that has become a stream of notices: the current states first, then what happens.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use aion_launcher_proto::v1::{self, notice::Kind};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::launcher::Launcher;
use crate::server::connection::{Broken, send};

/// A watcher that is told nothing is looked at this often: it may have gone.
const LOOK_EVERY: Duration = Duration::from_secs(2);

pub(crate) fn follow(
    launcher: &Arc<Launcher>,
    stream: &UnixStream,
    queue: &Receiver<Arc<v1::Notice>>,
    audit_after_seq: u64,
) -> Result<(), Broken> {
    let tell = |kind| send(stream, &v1::Notice { kind: Some(kind) }, &[]);
    for view in launcher.views() {
        tell(Kind::Agent(view))?;
    }
    let seq = launcher.hub.audit_seq();
    if seq > audit_after_seq {
        tell(Kind::Audit(v1::AuditSeq { seq }))?;
    }
    loop {
        match queue.recv_timeout(LOOK_EVERY) {
            Ok(notice) => send(stream, notice.as_ref(), &[])?,
            Err(RecvTimeoutError::Timeout) if has_gone(stream) => return Ok(()),
            Err(RecvTimeoutError::Timeout) => {}
            // It did not keep up, or the launcher stops.
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}

/// A watcher says nothing: whatever can be read is its end.
fn has_gone(stream: &UnixStream) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut fds = [PollFd::from_borrowed_fd(stream.as_fd(), PollFlags::IN | PollFlags::RDHUP)];
    poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0)
}
