//! A call's standard output and error: kept in memory, within a limit.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

/// How much one write may hand over.
const CHUNK: usize = 64 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Policy {
    /// More than the limit ends the call.
    Refuse,
    /// The last bytes are kept.
    KeepLast,
}

/// What was written so far; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Capture {
    shared: Arc<Mutex<Written>>,
    limit: usize,
    policy: Policy,
}

#[derive(Debug, Default)]
struct Written {
    bytes: Vec<u8>,
    over: bool,
}

impl Capture {
    pub(crate) fn new(limit: usize, policy: Policy) -> Self {
        Self { shared: Arc::default(), limit, policy }
    }

    /// Takes what was written, and whether there was more than the limit.
    pub(crate) fn take(&self) -> (Vec<u8>, bool) {
        let mut written = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = std::mem::take(&mut written.bytes);
        if self.policy == Policy::KeepLast {
            bytes.drain(..bytes.len().saturating_sub(self.limit));
        }
        (bytes, written.over)
    }

    /// Whether it was taken.
    fn push(&self, more: &[u8]) -> bool {
        let mut written = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = written.bytes.len().saturating_add(more.len()) <= self.limit;
        match self.policy {
            Policy::Refuse if fits => written.bytes.extend_from_slice(more),
            Policy::Refuse => {
                written.over = true;
                // Nobody will look at it.
                written.bytes = Vec::new();
                return false;
            }
            Policy::KeepLast => {
                let more = more.get(more.len().saturating_sub(self.limit)..).unwrap_or_default();
                written.bytes.extend_from_slice(more);
                // Cut when it is twice the limit, so that each byte is moved once at most.
                if written.bytes.len() >= self.limit * 2 {
                    let surplus = written.bytes.len() - self.limit;
                    written.bytes.drain(..surplus);
                }
            }
        }
        true
    }
}

impl IsTerminal for Capture {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Capture {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }

    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Capture {
    async fn ready(&mut self) {}
}

impl OutputStream for Capture {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        if self.push(&bytes) {
            return Ok(());
        }
        // An error that the module could pass over would let it write for ever.
        Err(StreamError::Trap(wasmtime::Error::msg("too much output")))
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(CHUNK)
    }
}

impl AsyncWrite for Capture {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(if self.push(bytes) { Ok(bytes.len()) } else { Err(io::ErrorKind::StorageFull.into()) })
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_over_the_limit_is_refused() {
        let mut capture = Capture::new(8, Policy::Refuse);
        assert!(OutputStream::write(&mut capture, Bytes::from_static(b"12345678")).is_ok());
        assert!(OutputStream::write(&mut capture, Bytes::from_static(b"9")).is_err());
        assert_eq!(capture.take(), (Vec::new(), true));
    }

    #[test]
    fn of_errors_the_last_bytes_are_kept() {
        let mut capture = Capture::new(4, Policy::KeepLast);
        for byte in b"abcdefghijk" {
            assert!(OutputStream::write(&mut capture, Bytes::copy_from_slice(&[*byte])).is_ok());
        }
        assert!(capture.shared.lock().unwrap().bytes.len() < 8);
        assert_eq!(capture.take(), (b"hijk".to_vec(), false));
        assert!(OutputStream::write(&mut capture, Bytes::from_static(b"0123456789")).is_ok());
        assert_eq!(capture.take(), (b"6789".to_vec(), false));
    }
}
