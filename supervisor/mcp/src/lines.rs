//! Lines of a bounded length from an untrusted stream.

use std::io;
use std::sync::Arc;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::Closed;

/// How much room is made for a read.
const CHUNK: usize = 16 << 10;

pub(crate) struct Lines<R> {
    reader: R,
    buffer: BytesMut,
    /// How much of the buffer is known to hold no end of a line.
    searched: usize,
    limit: usize,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(crate) fn new(reader: R, limit: usize) -> Self {
        Self { reader, buffer: BytesMut::new(), searched: 0, limit }
    }

    /// The next line, without its end. What stands after the last end of a line is no line. It never holds more than
    /// the limit and one chunk.
    pub(crate) async fn next(&mut self) -> Result<BytesMut, Closed> {
        loop {
            let new = self.buffer.get(self.searched..).unwrap_or_default();
            if let Some(at) = new.iter().position(|byte| *byte == b'\n') {
                let length = self.searched + at;
                self.searched = 0;
                if length > self.limit {
                    return Err(self.too_long());
                }
                let mut line = self.buffer.split_to(length + 1);
                line.truncate(length);
                return Ok(line);
            }
            self.searched = self.buffer.len();
            if self.searched > self.limit {
                return Err(self.too_long());
            }
            self.buffer.reserve(CHUNK);
            let read = self.reader.read_buf(&mut self.buffer).await;
            if read.map_err(|error: io::Error| Closed::Io(Arc::new(error)))? == 0 {
                return Err(Closed::Eof);
            }
        }
    }

    /// Passes over what is left of a line that was too long.
    pub(crate) async fn skip(&mut self) -> Result<(), Closed> {
        loop {
            self.searched = 0;
            if let Some(at) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let _ = self.buffer.split_to(at + 1);
                return Ok(());
            }
            self.buffer.clear();
            self.buffer.reserve(CHUNK);
            let read = self.reader.read_buf(&mut self.buffer).await;
            if read.map_err(|error: io::Error| Closed::Io(Arc::new(error)))? == 0 {
                return Err(Closed::Eof);
            }
        }
    }

    fn too_long(&self) -> Closed {
        Closed::TooLong { limit: self.limit }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_and_what_is_none() {
        let mut lines = Lines::new(&b"a\n\nbcd\r\nrest"[..], 4);
        assert_eq!(lines.next().await.unwrap(), "a");
        assert_eq!(lines.next().await.unwrap(), "");
        assert_eq!(lines.next().await.unwrap(), "bcd\r");
        assert!(matches!(lines.next().await, Err(Closed::Eof)));
        assert!(matches!(Lines::new(&b"abcde\n"[..], 4).next().await, Err(Closed::TooLong { limit: 4 })));
    }

    #[tokio::test]
    async fn a_long_line_is_passed_over() {
        let mut lines = Lines::new(&b"abcde\nfg\n123456789"[..], 4);
        assert!(matches!(lines.next().await, Err(Closed::TooLong { .. })));
        lines.skip().await.unwrap();
        assert_eq!(lines.next().await.unwrap(), "fg");
        assert!(matches!(lines.next().await, Err(Closed::TooLong { .. })));
        assert!(matches!(lines.skip().await, Err(Closed::Eof)));
    }

    #[tokio::test]
    async fn an_endless_line_takes_no_more_than_the_limit() {
        let mut lines = Lines::new(tokio::io::repeat(b'x'), 100_000);
        assert!(matches!(lines.next().await, Err(Closed::TooLong { .. })));
        assert!(lines.buffer.capacity() < 400_000, "{}", lines.buffer.capacity());
    }
}
