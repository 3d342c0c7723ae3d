//! Server-sent events out of bytes, as they come: a pure parser that holds one event at most.
//!
//! Lines end with LF, CRLF or CR; an event is its `data:` lines joined, and ends with an empty line. All other fields
//! and comments are skipped, since OpenAI's streams carry meaning in `data` only.

use bytes::{Buf, BytesMut};

/// A line or an event over the limit.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

#[derive(Debug)]
pub(crate) struct Parser {
    limit: usize,
    bytes: BytesMut,
    /// How much of `bytes` holds no line end, so that it is not searched twice.
    searched: usize,
    after_cr: bool,
    data: Option<Vec<u8>>,
}

impl Parser {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, bytes: BytesMut::new(), searched: 0, after_cr: false, data: None }
    }

    /// The limit in bytes.
    pub(crate) const fn limit(&self) -> usize {
        self.limit
    }

    /// Takes what has arrived. Call [`Parser::next`] until it is empty before the next time.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next event's data.
    pub(crate) fn next(&mut self) -> Result<Option<Vec<u8>>, TooLong> {
        while let Some(line) = self.line()? {
            if line.is_empty() {
                if let Some(data) = self.data.take() {
                    return Ok(Some(data));
                }
                continue;
            }
            let Some(value) = line.strip_prefix(b"data") else { continue };
            let value = match value {
                [] => value,
                [b':', b' ', value @ ..] | [b':', value @ ..] => value,
                _ => continue,
            };
            let data = match &mut self.data {
                Some(data) => {
                    data.push(b'\n');
                    data
                }
                none => none.insert(Vec::new()),
            };
            if data.len() + value.len() > self.limit {
                return Err(TooLong);
            }
            data.extend_from_slice(value);
        }
        Ok(None)
    }

    /// The last event, when the stream ended without an empty line after it.
    pub(crate) fn finish(&mut self) -> Result<Option<Vec<u8>>, TooLong> {
        self.push(b"\n\n");
        self.next()
    }

    fn line(&mut self) -> Result<Option<BytesMut>, TooLong> {
        if self.after_cr && !self.bytes.is_empty() {
            self.after_cr = false;
            if self.bytes[0] == b'\n' {
                self.bytes.advance(1);
            }
        }
        let end = self.bytes[self.searched..].iter().position(|byte| matches!(byte, b'\n' | b'\r'));
        let Some(end) = end.map(|at| at + self.searched) else {
            self.searched = self.bytes.len();
            return if self.searched > self.limit { Err(TooLong) } else { Ok(None) };
        };
        let line = self.bytes.split_to(end);
        self.after_cr = self.bytes[0] == b'\r';
        self.bytes.advance(1);
        self.searched = 0;
        if line.len() > self.limit { Err(TooLong) } else { Ok(Some(line)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &[u8], step: usize) -> Vec<String> {
        let mut parser = Parser::new(100);
        let mut events = Vec::new();
        for bytes in text.chunks(step) {
            parser.push(bytes);
            while let Some(data) = parser.next().unwrap() {
                events.push(String::from_utf8(data).unwrap());
            }
        }
        events.extend(parser.finish().unwrap().map(|data| String::from_utf8(data).unwrap()));
        events
    }

    #[test]
    fn events_do_not_depend_on_how_the_bytes_arrive() {
        let text =
            ": hello\n\nevent: x\ndata: é1\n\ndata:2\r\ndata: 3\r\n\r\nid: 4\rdata\r\rdatax: 5\n\ndata:  6";
        for step in 1..text.len() {
            assert_eq!(parse(text.as_bytes(), step), ["é1", "2\n3", "", " 6"], "step {step}");
        }
    }

    #[test]
    fn lines_and_events_are_bounded() {
        let mut parser = Parser::new(10);
        parser.push(b"data: 12345678901");
        assert_eq!(parser.next(), Err(TooLong));
        let mut parser = Parser::new(10);
        parser.push(b"data:12345\ndata:67890\ndata:1\n\n");
        assert_eq!(parser.next(), Err(TooLong));
    }
}
