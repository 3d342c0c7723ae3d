//! Tells followers that a journal has grown: one inotify instance for the whole daemon (users have few of them).
//!
//! A follower that finds nothing new looks again after a while anyway, so that a watch that cannot be had costs
//! latency and nothing else.

use std::collections::HashMap;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;
use tokio::time::timeout;

/// How long a follower sleeps at most: with a watch, and without.
const WATCHED: Duration = Duration::from_secs(2);
const UNWATCHED: Duration = Duration::from_millis(100);

#[derive(Default)]
struct Watches {
    by_wd: HashMap<WatchDescriptor, (Arc<Notify>, usize)>,
}

struct Inner {
    inotify: Inotify,
    watches: Mutex<Watches>,
}

/// The daemon's watches on journals.
pub(crate) struct JournalWatch {
    inner: Option<Arc<Inner>>,
}

/// One follower's interest in one journal.
pub(crate) struct Growth {
    watch: Option<(Arc<Inner>, WatchDescriptor, Arc<Notify>)>,
}

impl JournalWatch {
    /// Begins watching, on the current runtime.
    pub(crate) fn start() -> Self {
        let inotify = match Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC) {
            Ok(inotify) => inotify,
            Err(errno) => {
                tracing::warn!(%errno, "no inotify: output is followed by looking again and again");
                return Self { inner: None };
            }
        };
        let Ok(fd) = inotify.as_fd().try_clone_to_owned() else { return Self { inner: None } };
        let inner = Arc::new(Inner { inotify, watches: Mutex::default() });
        let weak = Arc::downgrade(&inner);
        tokio::spawn(async move {
            #[expect(
                deprecated,
                reason = "its replacement is unsafe for types that lie about their descriptor"
            )]
            let Ok(fd) = AsyncFd::<OwnedFd>::with_interest(fd, Interest::READABLE) else { return };
            while let Ok(mut ready) = fd.readable().await {
                let Some(inner) = weak.upgrade() else { return };
                ready.clear_ready();
                while let Ok(events) = inner.inotify.read_events() {
                    let watches = inner.watches.lock().unwrap_or_else(PoisonError::into_inner);
                    for event in events {
                        if let Some((notify, _)) = watches.by_wd.get(&event.wd) {
                            notify.notify_waiters();
                        }
                    }
                }
            }
        });
        Self { inner: Some(inner) }
    }

    /// Watches a file.
    pub(crate) fn growth(&self, path: &Path) -> Growth {
        let Some(inner) = &self.inner else { return Growth { watch: None } };
        let mut watches = inner.watches.lock().unwrap_or_else(PoisonError::into_inner);
        // The same file gives the same descriptor: followers of one journal share it.
        let Ok(wd) = inner.inotify.add_watch(path, AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CLOSE_WRITE)
        else {
            return Growth { watch: None };
        };
        let entry = watches.by_wd.entry(wd).or_default();
        entry.1 += 1;
        let notify = Arc::clone(&entry.0);
        drop(watches);
        Growth { watch: Some((Arc::clone(inner), wd, notify)) }
    }
}

/// An interest in growth from a moment on.
pub(crate) struct Armed {
    notified: Option<Pin<Box<OwnedNotified>>>,
}

impl Growth {
    /// Growth from now on wakes; arm it before looking at the file.
    pub(crate) fn arm(&self) -> Armed {
        let notified = self.watch.as_ref().map(|(_, _, notify)| {
            let mut notified = Box::pin(Arc::clone(notify).notified_owned());
            notified.as_mut().enable();
            notified
        });
        Armed { notified }
    }
}

impl Armed {
    /// Waits until the file may have grown; sometimes it has not.
    pub(crate) async fn grown(self) {
        match self.notified {
            Some(notified) => {
                let _ = timeout(WATCHED, notified).await;
            }
            None => tokio::time::sleep(UNWATCHED).await,
        }
    }
}

impl Drop for Growth {
    fn drop(&mut self) {
        let Some((inner, wd, _)) = &self.watch else { return };
        let mut watches = inner.watches.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = watches.by_wd.get_mut(wd) {
            entry.1 -= 1;
            if entry.1 == 0 {
                watches.by_wd.remove(wd);
                // Fails when the file is gone, and with it the watch.
                let _ = inner.inotify.rm_watch(*wd);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[tokio::test]
    async fn growth_wakes_every_follower() {
        let watch = JournalWatch::start();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let (a, b) = (watch.growth(file.path()), watch.growth(file.path()));
        let begin = std::time::Instant::now();
        let both = tokio::spawn(async move { tokio::join!(a.arm().grown(), b.arm().grown()) });
        tokio::time::sleep(Duration::from_millis(30)).await;
        file.write_all(b"x").unwrap();
        both.await.unwrap();
        assert!(begin.elapsed() < WATCHED, "{:?}", begin.elapsed());
    }
}
