//! The pieces of a bundle, each collected by itself within limits of its own: one that fails or hangs costs nothing but itself.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use serde_json::Value;
use tokio::task::{JoinSet, LocalSet};

use super::redact;

/// What a collector may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) time: Duration,
    pub(super) bytes: usize,
}

impl Limits {
    /// For what is there at once, and small.
    pub(super) const SMALL: Self = Self { time: Duration::from_secs(20), bytes: 1 << 20 };
    /// For what is read through, or written by a daemon that has much to say.
    pub(super) const LARGE: Self = Self { time: Duration::from_secs(60), bytes: 5 << 20 };
}

/// What a collector found, with secrets still in it.
#[derive(Debug)]
pub(super) enum Body {
    Json(Value),
    /// As it is; `cut` when only its end is there.
    Text {
        bytes: Vec<u8>,
        cut: bool,
    },
    /// Files and their SHA-256, in the order of their names. Long hex is a secret everywhere else.
    Digests(Vec<(String, String)>),
}

/// What a collector found, or why it found nothing.
pub(super) type Found = Result<Body, String>;

/// One file of a bundle, not collected yet.
pub(super) struct Piece {
    name: String,
    limits: Limits,
    work: Pin<Box<dyn Future<Output = Found>>>,
}

impl Piece {
    pub(super) fn new(
        name: impl Into<String>,
        limits: Limits,
        work: impl Future<Output = Found> + 'static,
    ) -> Self {
        Self { name: name.into(), limits, work: Box::pin(work) }
    }

    /// One whose work blocks. It has a thread of its own, which nobody waits for: a file system that hangs keeps it, and not us.
    pub(super) fn blocking(
        name: impl Into<String>,
        limits: Limits,
        work: impl FnOnce() -> Found + Send + 'static,
    ) -> Self {
        let (send, receive) = tokio::sync::oneshot::channel();
        Self::new(name, limits, async move {
            // Nobody listens any more when time is up.
            std::thread::spawn(move || drop(send.send(work())));
            receive.await.unwrap_or_else(|_| Err("collecting it did not run to its end".to_owned()))
        })
    }

    #[cfg(test)]
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// One that is known not to be there.
    pub(super) fn absent(name: impl Into<String>, why: impl Into<String>) -> Self {
        Self::new(name, Limits::SMALL, std::future::ready(Err(why.into())))
    }
}

/// One file of a bundle, collected and redacted.
#[derive(Debug)]
pub(super) struct Part {
    /// Below the archive's folder.
    pub(super) name: String,
    pub(super) limits: Limits,
    pub(super) held: Result<Held, String>,
}

/// What goes into the archive.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) text: String,
    pub(super) redactions: u64,
    pub(super) cut: bool,
}

/// Collects all pieces side by side; parts come in the pieces' order.
pub(super) async fn collect(pieces: Vec<Piece>) -> Vec<Part> {
    let mut parts = Vec::with_capacity(pieces.len());
    let mut all = JoinSet::new();
    let here = LocalSet::new();
    for (at, piece) in pieces.into_iter().enumerate() {
        let Piece { name, limits, work } = piece;
        // What stays when a collector panics.
        let held = Err("collecting it did not run to its end".to_owned());
        parts.push(Part { name, limits, held });
        all.spawn_local_on(async move { (at, tokio::time::timeout(limits.time, work).await) }, &here);
    }
    let gather = async {
        while let Some(done) = all.join_next().await {
            let Ok((at, found)) = done else { continue };
            let Some(part) = parts.get_mut(at) else { continue };
            let found = found.unwrap_or_else(|_| {
                let limit = humantime::format_duration(part.limits.time);
                Err(format!("it took longer than {limit}"))
            });
            part.held =
                found.and_then(|body| hold(body, part.limits.bytes)).map_err(|why| redact::text(&why).0);
        }
    };
    here.run_until(gather).await;
    parts
}

/// Redacts what was found and keeps to the limit.
fn hold(body: Body, most: usize) -> Result<Held, String> {
    let (text, redactions, cut) = match body {
        Body::Json(value) => {
            let (value, redactions) = redact::json(value);
            (document(&value, most)?, redactions, false)
        }
        Body::Digests(digests) => {
            let mut redactions = 0;
            let digests = digests.into_iter().map(|(name, digest)| {
                let (name, found) = redact::text(&name);
                redactions += found;
                serde_json::json!({ "file": name, "sha256": digest })
            });
            let digests = Value::Array(digests.collect());
            (document(&digests, most)?, redactions, false)
        }
        Body::Text { bytes, cut } => {
            let (bytes, cut) = end_of(bytes, cut, most);
            let (text, redactions) = redact::text(&String::from_utf8_lossy(&bytes));
            (text, redactions, cut)
        }
    };
    Ok(Held { text, redactions, cut })
}

/// A document that was cut would be none, so that one over the limit is left out.
fn document(value: &Value, most: usize) -> Result<String, String> {
    let mut text = serde_json::to_string_pretty(value).map_err(|error| error.to_string())?;
    text.push('\n');
    if text.len() > most {
        return Err(format!("it has {}, more than {}", size(text.len()), size(most)));
    }
    Ok(text)
}

fn size(bytes: usize) -> String {
    crate::text::bytes(u64::try_from(bytes).unwrap_or(u64::MAX))
}

/// At most so many bytes of the end, from a line's beginning on: half a line might be the half of a secret whose key is in the other.
fn end_of(mut bytes: Vec<u8>, cut: bool, most: usize) -> (Vec<u8>, bool) {
    let over = bytes.len().saturating_sub(most);
    if over == 0 && !cut {
        return (bytes, false);
    }
    bytes.drain(..over);
    let line = bytes.iter().position(|&b| b == b'\n').map_or(bytes.len(), |at| at + 1);
    bytes.drain(..line);
    (bytes, true)
}

/// The folder that all of a bundle is in, and a file's place there.
pub(super) fn place(name: &str) -> PathBuf {
    PathBuf::from("aion-support").join(name)
}

#[cfg(test)]
mod tests;
