//! Frames: a 4-byte big-endian length, then one message; descriptors come with the first byte.
//!
//! Pure: bytes and descriptors in, frames out. The reader asks [`Decoder::want`] how many bytes it may
//! take, so one `recvmsg` never spans two frames and a descriptor cannot be credited to the wrong one.

use prost::Message;

/// Length of the header.
pub const HEADER_BYTES: usize = 4;
/// The largest message.
pub const MAX_BODY_BYTES: usize = 1 << 20;
/// The most descriptors that one frame carries.
pub const MAX_FDS: usize = 8;

/// Why bytes are not a frame. The connection must be closed: its position in the stream is lost.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The length is over [`MAX_BODY_BYTES`].
    #[error("a frame of {len} bytes is over the limit of {MAX_BODY_BYTES}")]
    TooLong {
        /// The length that was announced or encoded.
        len: usize,
    },
    /// More than [`MAX_FDS`] descriptors.
    #[error("{count} descriptors with one frame, at most {MAX_FDS} are allowed")]
    TooManyFds {
        /// How many came.
        count: usize,
    },
    /// Descriptors that did not come with the first byte of a frame.
    #[error("descriptors in the middle of a frame")]
    StrayFds,
    /// More bytes than [`Decoder::want`] allowed.
    #[error("{got} bytes where {want} were wanted")]
    Overrun {
        /// How many were pushed.
        got: usize,
        /// How many were wanted.
        want: usize,
    },
    /// The frame's body is not a message.
    #[error("the frame is not a message")]
    Malformed {
        /// What the decoder says.
        #[source]
        source: prost::DecodeError,
    },
}

/// A message as the bytes of its frame.
///
/// # Errors
/// [`Error::TooLong`] when the message is over the limit.
pub fn encode<M: Message>(message: &M) -> Result<Vec<u8>, Error> {
    let len = message.encoded_len();
    let header = u32::try_from(len).ok().filter(|_| len <= MAX_BODY_BYTES).ok_or(Error::TooLong { len })?;
    let mut bytes = Vec::with_capacity(HEADER_BYTES + len);
    bytes.extend_from_slice(&header.to_be_bytes());
    message.encode_raw(&mut bytes);
    Ok(bytes)
}

/// One frame: a message's bytes and the descriptors that came with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame<F> {
    /// The encoded message.
    pub body: Vec<u8>,
    /// Its descriptors, in order.
    pub fds: Vec<F>,
}

impl<F> Frame<F> {
    /// Decodes the message.
    ///
    /// # Errors
    /// [`Error::Malformed`] when the body is not one.
    pub fn message<M: Message + Default>(&self) -> Result<M, Error> {
        M::decode(self.body.as_slice()).map_err(|source| Error::Malformed { source })
    }
}

/// Cuts a stream into frames. `F` is the descriptor type (`OwnedFd`; `()` in a fuzz target).
#[derive(Debug)]
pub struct Decoder<F> {
    header: [u8; HEADER_BYTES],
    header_len: usize,
    body: Vec<u8>,
    fds: Vec<F>,
}

impl<F> Default for Decoder<F> {
    fn default() -> Self {
        Self::new()
    }
}

impl<F> Decoder<F> {
    /// At the start of a stream.
    #[must_use]
    pub const fn new() -> Self {
        Self { header: [0; HEADER_BYTES], header_len: 0, body: Vec::new(), fds: Vec::new() }
    }

    /// How many bytes may be pushed next; never 0.
    #[must_use]
    pub fn want(&self) -> usize {
        if self.header_len < HEADER_BYTES {
            HEADER_BYTES - self.header_len
        } else {
            self.body_len() - self.body.len()
        }
    }

    /// Between two frames: the end of the stream is clean here and nowhere else.
    #[must_use]
    pub const fn is_idle(&self) -> bool {
        self.header_len == 0
    }

    /// Takes what one read gave; answers with a frame when it is complete.
    ///
    /// # Errors
    /// When it is not a frame; the decoder must not be used afterwards.
    pub fn push(&mut self, bytes: &[u8], fds: Vec<F>) -> Result<Option<Frame<F>>, Error> {
        let want = self.want();
        if bytes.len() > want {
            return Err(Error::Overrun { got: bytes.len(), want });
        }
        if !fds.is_empty() {
            if !self.is_idle() || bytes.is_empty() {
                return Err(Error::StrayFds);
            }
            if fds.len() > MAX_FDS {
                return Err(Error::TooManyFds { count: fds.len() });
            }
            self.fds = fds;
        }
        if self.header_len < HEADER_BYTES {
            for (to, from) in self.header.iter_mut().skip(self.header_len).zip(bytes) {
                *to = *from;
            }
            self.header_len += bytes.len();
            if self.header_len < HEADER_BYTES {
                return Ok(None);
            }
            let len = self.body_len();
            if len > MAX_BODY_BYTES {
                return Err(Error::TooLong { len });
            }
        } else {
            // The buffer grows with what really came: an announced length alone costs nothing.
            self.body.extend_from_slice(bytes);
        }
        if self.body.len() < self.body_len() {
            return Ok(None);
        }
        self.header_len = 0;
        Ok(Some(Frame { body: std::mem::take(&mut self.body), fds: std::mem::take(&mut self.fds) }))
    }

    fn body_len(&self) -> usize {
        usize::try_from(u32::from_be_bytes(self.header)).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1;
    use proptest::prelude::*;

    fn request(seq: u64, id: &str) -> v1::Request {
        v1::Request {
            seq,
            op: Some(v1::request::Op::Freeze(v1::Freeze { id: id.to_owned(), ..Default::default() })),
        }
    }

    #[test]
    fn a_message_survives_any_fragmentation_and_keeps_its_descriptors() {
        let mut stream = encode(&request(1, "a")).unwrap();
        let second = stream.len();
        stream.extend(encode(&request(2, "b")).unwrap());
        for step in 1..=stream.len() {
            let (mut decoder, mut at, mut frames) = (Decoder::new(), 0, Vec::new());
            while at < stream.len() {
                let end = (at + step.min(decoder.want())).min(stream.len());
                let fds = if at == second { vec![7, 8] } else { vec![] };
                frames.extend(decoder.push(&stream[at..end], fds).unwrap());
                at = end;
            }
            assert!(decoder.is_idle());
            assert_eq!(frames.len(), 2);
            assert!(frames[0].fds.is_empty());
            assert_eq!(frames[1].fds, [7, 8]);
            assert_eq!(frames[1].message::<v1::Request>().unwrap(), request(2, "b"));
        }
    }

    #[test]
    fn an_empty_message_is_a_frame() {
        let mut decoder = Decoder::<()>::new();
        let frame = decoder.push(&[0, 0, 0, 0], vec![]).unwrap().unwrap();
        assert_eq!(frame.message::<v1::Request>().unwrap(), v1::Request::default());
    }

    #[test]
    fn limits_hold() {
        let mut decoder = Decoder::<()>::new();
        assert_eq!(decoder.push(&[0, 16, 0, 1], vec![]), Err(Error::TooLong { len: MAX_BODY_BYTES + 1 }));
        let mut decoder = Decoder::new();
        assert_eq!(decoder.push(&[0], vec![(); 9]), Err(Error::TooManyFds { count: 9 }));
        let mut decoder = Decoder::new();
        decoder.push(&[0], vec![]).unwrap();
        assert_eq!(decoder.push(&[0], vec![()]), Err(Error::StrayFds));
        let big = v1::Error { message: "x".repeat(MAX_BODY_BYTES), ..Default::default() };
        assert!(matches!(encode(&big), Err(Error::TooLong { .. })));
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(stream: Vec<u8>, step in 1usize..64) {
            let (mut decoder, mut at) = (Decoder::<()>::new(), 0);
            while at < stream.len() {
                let end = (at + step.min(decoder.want())).min(stream.len());
                match decoder.push(&stream[at..end], vec![]) {
                    Ok(Some(frame)) => { let _ = frame.message::<v1::Request>(); }
                    Ok(None) => {}
                    Err(_) => break,
                }
                at = end;
            }
        }
    }
}
