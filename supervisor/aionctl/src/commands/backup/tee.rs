//! Parts as they come, each written before it is judged.

use std::io::{self, Read, Write};

use tokio::sync::mpsc;

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
