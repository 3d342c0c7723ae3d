//! Server-sent events of a bounded size, from chunks of an untrusted body.
//!
//! Only the data of `message` events matters to the protocol as this crate speaks it; ids and retries are for
//! resumption, which it does not do.

use crate::Closed;

#[derive(Debug)]
pub(crate) struct Decoder {
    limit: usize,
    line: Vec<u8>,
    data: Option<Vec<u8>>,
    /// An event of another name than `message`.
    other: bool,
    /// The last byte was a carriage return, which a line feed may complete.
    after_return: bool,
    first_line: bool,
}

impl Decoder {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, line: Vec::new(), data: None, other: false, after_return: false, first_line: true }
    }

    /// Takes bytes from the front of a chunk until they complete an event or are used up.
    pub(crate) fn take(&mut self, chunk: &mut &[u8]) -> Result<Option<Vec<u8>>, Closed> {
        while let Some(at) = chunk.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            let (part, rest) = chunk.split_at(at);
            let end = rest.first().copied();
            *chunk = rest.get(1..).unwrap_or_default();
            let completes_return = std::mem::take(&mut self.after_return) && part.is_empty();
            self.after_return = end == Some(b'\r');
            if completes_return && end == Some(b'\n') {
                continue;
            }
            self.extend(part)?;
            if let Some(event) = self.end_line()? {
                return Ok(Some(event));
            }
        }
        if !chunk.is_empty() {
            self.after_return = false;
            self.extend(chunk)?;
            *chunk = &[];
        }
        Ok(None)
    }

    fn extend(&mut self, part: &[u8]) -> Result<(), Closed> {
        // `data: ` comes on top of the data.
        if self.line.len() + part.len() > self.limit.saturating_add(16) {
            return Err(Closed::TooLong { limit: self.limit });
        }
        self.line.extend_from_slice(part);
        Ok(())
    }

    fn end_line(&mut self) -> Result<Option<Vec<u8>>, Closed> {
        let line = std::mem::take(&mut self.line);
        let mut line = &line[..];
        if std::mem::take(&mut self.first_line) {
            line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        }
        if line.is_empty() {
            let other = std::mem::take(&mut self.other);
            return Ok(self.data.take().filter(|_| !other));
        }
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let (field, value) = line.split_at(colon);
        let value = value.strip_prefix(b":").unwrap_or(value);
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"data" => self.add_data(value)?,
            b"event" => self.other = value != b"message",
            _ => {}
        }
        Ok(None)
    }

    fn add_data(&mut self, value: &[u8]) -> Result<(), Closed> {
        let limit = self.limit;
        match &mut self.data {
            Some(data) if data.len() + value.len() + 1 > limit => return Err(Closed::TooLong { limit }),
            Some(data) => {
                data.push(b'\n');
                data.extend_from_slice(value);
            }
            none if value.len() <= limit => *none = Some(value.to_vec()),
            _ => return Err(Closed::TooLong { limit }),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn events(text: &[u8], chunk: usize) -> Result<Vec<String>, Closed> {
        let mut decoder = Decoder::new(32);
        let mut events = Vec::new();
        for mut part in text.chunks(chunk) {
            while !part.is_empty() {
                events
                    .extend(decoder.take(&mut part)?.map(|data| String::from_utf8_lossy(&data).into_owned()));
            }
        }
        Ok(events)
    }

    #[test]
    fn events_whatever_the_chunks() {
        let text = b"\xef\xbb\xbfdata: a\n\n: comment\nid: 7\nevent: message\ndata:b\r\ndata: c\r\n\r\n\
            event: other\ndata: no\n\ndata: d\r\rretry: 1\n\ndata: cut";
        for chunk in 1..text.len() {
            assert_eq!(events(text, chunk).unwrap(), ["a", "b\nc", "d"], "{chunk}");
        }
    }

    #[test]
    fn events_are_bounded() {
        let line = format!("data: {}\n\n", "x".repeat(33));
        assert!(matches!(events(line.as_bytes(), 5), Err(Closed::TooLong { limit: 32 })));
        assert!(matches!(events("x".repeat(1000).as_bytes(), 7), Err(Closed::TooLong { .. })));
        assert!(matches!(events("data: 12345678\n".repeat(5).as_bytes(), 7), Err(Closed::TooLong { .. })));
    }

    proptest! {
        #[test]
        fn any_bytes_give_bounded_events(bytes: Vec<u8>, chunk in 1..9usize) {
            let whole = events(&bytes, bytes.len().max(1));
            let parts = events(&bytes, chunk);
            prop_assert_eq!(whole.is_ok(), parts.is_ok());
            if let (Ok(whole), Ok(parts)) = (whole, parts) {
                prop_assert_eq!(whole, parts);
            }
        }
    }
}
