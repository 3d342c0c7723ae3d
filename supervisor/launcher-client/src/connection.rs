//! One connection: frames out, frames in, descriptors with both.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use aion_launcher_proto::frame::{self, Decoder, Frame, MAX_FDS};
use aion_launcher_proto::v1::{self, request::Op, response::Result as Answer};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use tokio::io::Interest;
use tokio::net::UnixStream;

use crate::{Error, Refusal};

/// Most reads are small; a list of agents is read in a few.
const CHUNK: usize = 64 << 10;

pub(crate) struct Connection {
    stream: UnixStream,
    decoder: Decoder<OwnedFd>,
    seq: u64,
    chunk: Vec<u8>,
}

impl Connection {
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self { stream, decoder: Decoder::new(), seq: 0, chunk: Vec::new() }
    }

    /// Sends a request and reads its answer. After an error the connection is not used again.
    pub(crate) async fn call(
        &mut self,
        name: &'static str,
        op: Op,
        fds: &[OwnedFd],
    ) -> Result<(Answer, Vec<OwnedFd>), Error> {
        self.seq += 1;
        let request = v1::Request { seq: self.seq, op: Some(op) };
        let bytes = frame::encode(&request).map_err(Error::Frame)?;
        let lost = |source| Error::Lost { op: name, source };
        self.send(&bytes, fds).await.map_err(lost)?;
        let frame = self.receive(name).await?;
        let response: v1::Response = frame.message().map_err(Error::Frame)?;
        if response.seq != self.seq {
            return Err(Error::Unexpected { op: name });
        }
        match response.result {
            Some(Answer::Error(error)) => Err(Error::Refused(Refusal::from(error))),
            Some(answer) => Ok((answer, frame.fds)),
            None => Err(Error::Unexpected { op: name }),
        }
    }

    /// Whether the other end closed it, or spoke out of turn, while it lay idle.
    pub(crate) fn is_stale(&self) -> bool {
        let mut byte = [0; 1];
        !matches!(self.stream.try_read(&mut byte), Err(e) if e.kind() == io::ErrorKind::WouldBlock)
    }

    async fn send(&self, bytes: &[u8], fds: &[OwnedFd]) -> io::Result<()> {
        let mut sent = 0;
        let mut fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
        while sent < bytes.len() {
            let rest = &bytes[sent..];
            let n = self
                .stream
                .async_io(Interest::WRITABLE, || {
                    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
                    let mut control = SendAncillaryBuffer::new(&mut space);
                    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&fds)) {
                        return Err(io::Error::from(Errno::MSGSIZE));
                    }
                    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
                    Ok(sendmsg(&self.stream, &[IoSlice::new(rest)], &mut control, flags)?)
                })
                .await?;
            // The descriptors went with the first byte.
            fds.clear();
            sent += n;
        }
        Ok(())
    }

    /// The next frame.
    pub(crate) async fn receive(&mut self, name: &'static str) -> Result<Frame<OwnedFd>, Error> {
        loop {
            let want = self.decoder.want().min(CHUNK);
            self.chunk.resize(want, 0);
            let (got, fds) = {
                let (stream, chunk) = (&self.stream, &mut self.chunk);
                stream.async_io(Interest::READABLE, || receive_some(stream, chunk)).await
            }
            .map_err(|source| Error::Lost { op: name, source })?;
            if got == 0 {
                let source = io::Error::from(io::ErrorKind::UnexpectedEof);
                return Err(Error::Lost { op: name, source });
            }
            if let Some(frame) = self.decoder.push(&self.chunk[..got], fds).map_err(Error::Frame)? {
                return Ok(frame);
            }
        }
    }
}

fn receive_some(stream: &UnixStream, into: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let message = recvmsg(stream, &mut [IoSliceMut::new(into)], &mut control, flags)?;
    let mut fds = Vec::new();
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = part {
            fds.extend(received);
        }
    }
    Ok((message.bytes, fds))
}
