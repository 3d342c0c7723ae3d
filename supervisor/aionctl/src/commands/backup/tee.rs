//! Parts as they come, each written before it is judged.

use std::io::{self, Read, Write};

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::commands::signals::Signals;
use crate::failure::{Failure, Outcome};

/// Hands parts to whoever writes them, until there are no more or a signal comes; gives what was made of them.
pub(super) async fn pass_on<T>(
    mut next: impl AsyncFnMut() -> Outcome<Option<Vec<u8>>>,
    to: mpsc::Sender<Vec<u8>>,
    signals: &mut Signals,
    writer: JoinHandle<Outcome<T>>,
) -> Outcome<T> {
    let taken = async {
        while let Some(part) = next().await? {
            if to.send(part).await.is_err() {
                // Whoever writes has ended, and says why.
                break;
            }
        }
        Ok(())
    };
    let taken = tokio::select! {
        taken = taken => taken,
        failure = signals.end() => Err(failure),
    };
    drop(to);
    let written =
        writer.await.map_err(|error| Failure::new(1, "writing did not run to its end").cause(&error))?;
    // What ended the stream is the reason for what was missing in the file.
    taken?;
    written
}

/// What is read from it is in `to`.
pub(super) struct Tee<W> {
    from: mpsc::Receiver<Vec<u8>>,
    part: Vec<u8>,
    at: usize,
    to: W,
    failed: Option<io::Error>,
}

impl<W> Tee<W> {
    pub(super) const fn new(from: mpsc::Receiver<Vec<u8>>, to: W) -> Self {
        Self { from, part: Vec::new(), at: 0, to, failed: None }
    }

    /// Where it went; or why it could not be written, which whoever read took for the reading's fault.
    pub(super) fn written(self) -> io::Result<W> {
        self.failed.map_or(Ok(self.to), Err)
    }
}

impl<W: Write> Read for Tee<W> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.at == self.part.len() {
            let Some(part) = self.from.blocking_recv() else { return Ok(0) };
            if let Err(error) = self.to.write_all(&part) {
                let kind = error.kind();
                self.failed = Some(error);
                return Err(kind.into());
            }
            (self.part, self.at) = (part, 0);
        }
        let rest = self.part.get(self.at..).unwrap_or_default();
        let n = out.len().min(rest.len());
        if let (Some(to), Some(from)) = (out.get_mut(..n), rest.get(..n)) {
            to.copy_from_slice(from);
        }
        self.at += n;
        Ok(n)
    }
}
