//! Bytes of rows and events: integers as LEB128, texts and lists with their length before them.
//!
//! Written by hand because it is on the path of every command: no reflection, one buffer, the same bytes always.

/// Why bytes are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {reason}")]
pub struct DecodeError {
    /// What was read.
    pub what: &'static str,
    /// What is wrong with it.
    pub reason: &'static str,
}

#[derive(Default)]
pub(crate) struct Writer(pub(crate) Vec<u8>);

impl Writer {
    pub(crate) fn with(version: u8, capacity: usize) -> Self {
        let mut bytes = Vec::with_capacity(capacity);
        bytes.push(version);
        Self(bytes)
    }

    pub(crate) fn byte(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(crate) fn flag(&mut self, value: bool) {
        self.0.push(u8::from(value));
    }

    #[expect(clippy::cast_possible_truncation, reason = "seven bits at a time")]
    pub(crate) fn int(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    /// Zero is none.
    pub(crate) fn option(&mut self, value: Option<u64>) {
        self.int(value.map_or(0, |v| v.saturating_add(1)));
    }

    pub(crate) fn len(&mut self, value: usize) {
        self.int(value as u64);
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.len(text.len());
        self.0.extend_from_slice(text.as_bytes());
    }
}

pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    /// Takes off the version and checks it.
    pub(crate) fn new(what: &'static str, version: u8, bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Self { bytes, what };
        match reader.byte()? {
            found if found == version => Ok(reader),
            _ => reader.fail("a version that this program does not know"),
        }
    }

    /// Takes off the version of a layout that has grown: those from `oldest` on are known.
    pub(crate) fn since(
        what: &'static str,
        oldest: u8,
        newest: u8,
        bytes: &'a [u8],
    ) -> Result<(Self, u8), DecodeError> {
        let mut reader = Self { bytes, what };
        match reader.byte()? {
            found if (oldest..=newest).contains(&found) => Ok((reader, found)),
            _ => reader.fail("a version that this program does not know"),
        }
    }

    pub(crate) fn fail<T>(&self, reason: &'static str) -> Result<T, DecodeError> {
        Err(DecodeError { what: self.what, reason })
    }

    pub(crate) fn byte(&mut self) -> Result<u8, DecodeError> {
        let Some((&first, rest)) = self.bytes.split_first() else { return self.fail("cut short") };
        self.bytes = rest;
        Ok(first)
    }

    pub(crate) fn flag(&mut self) -> Result<bool, DecodeError> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => self.fail("neither true nor false"),
        }
    }

    pub(crate) fn int(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return self.fail("a number out of range");
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        self.fail("a number out of range")
    }

    /// A number of a narrower type.
    pub(crate) fn small<T: TryFrom<u64>>(&mut self) -> Result<T, DecodeError> {
        let value = self.int()?;
        T::try_from(value).or_else(|_| self.fail("a number out of range"))
    }

    pub(crate) fn option(&mut self) -> Result<Option<u64>, DecodeError> {
        Ok(self.int()?.checked_sub(1))
    }

    /// A length: never more than the bytes that are left, so that a broken one allocates nothing.
    pub(crate) fn len(&mut self) -> Result<usize, DecodeError> {
        let len: usize = self.small()?;
        if len > self.bytes.len() {
            return self.fail("a length beyond the end");
        }
        Ok(len)
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, DecodeError> {
        let len = self.len()?;
        let (text, rest) = self.bytes.split_at(len);
        self.bytes = rest;
        std::str::from_utf8(text).or_else(|_| self.fail("not UTF-8"))
    }

    pub(crate) fn end(self) -> Result<(), DecodeError> {
        if self.bytes.is_empty() { Ok(()) } else { self.fail("bytes after the end") }
    }
}
