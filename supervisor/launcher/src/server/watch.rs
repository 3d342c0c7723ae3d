//! A connection that has become a stream of notices: the current states first, then what happens.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use aion_launcher_proto::v1::{self, notice::Kind};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::hub::Subscription;
use crate::launcher::Launcher;
use crate::server::connection::{Broken, send};

/// A watcher that is told nothing is looked at this often: it may have gone.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// While the audit log grows without a pause, it is told so often. What comes after a pause is told at once.
const GATHER: Duration = Duration::from_millis(5);

pub(crate) fn follow(
    launcher: &Arc<Launcher>,
    stream: &UnixStream,
    from: &Subscription,
    audit_after_seq: u64,
) -> Result<(), Broken> {
    let tell = |kind| send(stream, &v1::Notice { kind: Some(kind) }, &[]);
    for view in launcher.views() {
        tell(Kind::Agent(view))?;
    }
    let mut told = launcher.hub.audit_seq();
    if told > audit_after_seq {
        tell(Kind::Audit(v1::AuditSeq { seq: told }))?;
    }
    let mut tell_growth = || -> Result<bool, Broken> {
        let seq = launcher.hub.audit_seq();
        let more = seq > told;
        if more {
            told = seq;
            tell(Kind::Audit(v1::AuditSeq { seq }))?;
        }
        Ok(more)
    };
    // When to look whether the log has grown since it was told; none: the queue says it.
    let mut look = None;
    loop {
        let patience = look.map_or(LOOK_EVERY, |at: Instant| at.saturating_duration_since(Instant::now()));
        let next = from.queue.recv_timeout(patience);
        if look.is_some_and(|at| at <= Instant::now()) {
            let mut grown = tell_growth()?;
            if !grown {
                from.rely_on_queue();
                // What came between the look and the word.
                grown = tell_growth()?;
            }
            look = grown.then(|| Instant::now() + GATHER);
        }
        match next {
            Ok(notice) if matches!(notice.kind, Some(Kind::Audit(_))) => {
                tell_growth()?;
                look = Some(Instant::now() + GATHER);
            }
            Ok(notice) => send(stream, notice.as_ref(), &[])?,
            Err(RecvTimeoutError::Timeout) if patience == LOOK_EVERY && has_gone(stream) => return Ok(()),
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
