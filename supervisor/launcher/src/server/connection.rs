//! One connection: requests in, answers out, in order.

use std::io::IoSlice;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aion_launcher_proto::frame::{self, Decoder, Frame, MAX_FDS};
use aion_launcher_proto::v1::{self, response::Result as Answer};
use prost::Message;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

use crate::audit::Allowance;
use crate::launcher::Launcher;
use crate::request::{Op, parse};
use crate::server::watch;
use crate::{Failure, ops};

/// A frame that has begun must end within this time, in either direction.
const PATIENCE: Duration = Duration::from_secs(30);
/// Most requests are small; larger ones are read in pieces.
const PIECE: usize = 16 << 10;

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    /// What came is no frame, or no message.
    #[error(transparent)]
    Frame(#[from] frame::Error),
    /// The socket failed.
    #[error("the socket failed: {0}")]
    Socket(#[from] Errno),
    /// A frame or an answer took too long.
    #[error("the peer took too long")]
    Slow,
    /// It ended in the middle of a frame.
    #[error("the connection ended in the middle of a frame")]
    Cut,
}

/// Serves a connection until its end.
pub(crate) fn serve(launcher: &Arc<Launcher>, stream: &UnixStream) {
    if let Err(broken) = converse(launcher, stream) {
        tracing::warn!(error = %broken, "a connection broke");
    }
}

fn converse(launcher: &Arc<Launcher>, stream: &UnixStream) -> Result<(), Broken> {
    let mut decoder = Decoder::new();
    let mut piece = Vec::with_capacity(PIECE);
    let mut appends = Appends::new(launcher);
    while let Some(frame) = next(stream, &mut decoder, &mut piece)? {
        let request: v1::Request = frame.message()?;
        let seq = request.seq;
        let op = parse(&request, frame.fds.len()).and_then(|op| appends.admit(op, request.encoded_len()));
        let watching = match &op {
            Ok(Op::Watch { audit_after_seq }) => Some(*audit_after_seq),
            _ => None,
        };
        // The queue is there before the answer is: nothing that happens after it is missed.
        let subscribed = watching.map(|_| launcher.hub.subscribe());
        let done = op.and_then(|op| ops::perform(launcher, op, request, frame.fds));
        answer(stream, seq, done)?;
        if let (Some(after), Some(from)) = (watching, subscribed) {
            return watch::follow(launcher, stream, &from, after);
        }
    }
    Ok(())
}

/// The connection's part in the audit log; what was refused is told at the latest with its end.
struct Appends<'a> {
    launcher: &'a Launcher,
    allowance: Allowance,
}

impl<'a> Appends<'a> {
    fn new(launcher: &'a Launcher) -> Self {
        Self { launcher, allowance: launcher.allowance() }
    }

    fn admit(&mut self, op: Op, length: usize) -> Result<Op, Failure> {
        if matches!(op, Op::AppendAudit(_)) {
            let now = Instant::now();
            let taken = self.allowance.take(length, now);
            self.allowance.tell(&self.launcher.audit, now, false);
            taken?;
        }
        Ok(op)
    }
}

impl Drop for Appends<'_> {
    fn drop(&mut self) {
        self.allowance.tell(&self.launcher.audit, Instant::now(), true);
    }
}

fn answer(stream: &UnixStream, seq: u64, done: ops::Done) -> Result<(), Broken> {
    let (result, fds) = done.unwrap_or_else(|failure| (Answer::Error(failure.to_proto()), Vec::new()));
    let response = v1::Response { seq, result: Some(result) };
    let sent = send(stream, &response, &fds);
    match sent {
        // An answer too long for a frame is an error that fits.
        Err(Broken::Frame(frame::Error::TooLong { len })) => {
            let failure =
                Failure::internal(format!("the answer has {len} bytes and does not fit into a frame"));
            send(stream, &v1::Response { seq, result: Some(Answer::Error(failure.to_proto())) }, &[])
        }
        sent => sent,
    }
}

/// The next frame; `None` at a clean end.
fn next(
    stream: &UnixStream,
    decoder: &mut Decoder<OwnedFd>,
    piece: &mut Vec<u8>,
) -> Result<Option<Frame<OwnedFd>>, Broken> {
    let mut deadline = None;
    loop {
        wait(stream.as_fd(), PollFlags::IN, deadline)?;
        piece.resize(decoder.want().min(PIECE), 0);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let got = match recvmsg(stream, &mut [IoSliceMut::new(piece)], &mut control, flags) {
            Ok(got) => got,
            Err(Errno::INTR | Errno::AGAIN) => continue,
            Err(Errno::CONNRESET) if decoder.is_idle() => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        let mut fds = Vec::new();
        for part in control.drain() {
            if let RecvAncillaryMessage::ScmRights(more) = part {
                fds.extend(more);
            }
        }
        // More came than a frame may carry; the kernel closed them.
        if got.flags.contains(rustix::net::ReturnFlags::CTRUNC) {
            return Err(frame::Error::TooManyFds { count: MAX_FDS + 1 }.into());
        }
        if got.bytes == 0 {
            return if decoder.is_idle() { Ok(None) } else { Err(Broken::Cut) };
        }
        let bytes = piece.get(..got.bytes).unwrap_or_default();
        if let Some(frame) = decoder.push(bytes, fds)? {
            return Ok(Some(frame));
        }
        deadline.get_or_insert_with(|| Instant::now() + PATIENCE);
    }
}

/// Sends a frame with its descriptors.
pub(crate) fn send<M: Message>(stream: &UnixStream, message: &M, fds: &[OwnedFd]) -> Result<(), Broken> {
    let bytes = frame::encode(message)?;
    let deadline = Some(Instant::now() + PATIENCE);
    let borrowed: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
    let mut sent = 0;
    while let Some(rest) = bytes.get(sent..).filter(|rest| !rest.is_empty()) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if sent == 0 && !borrowed.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&borrowed)) {
            return Err(frame::Error::TooManyFds { count: borrowed.len() }.into());
        }
        match sendmsg(stream, &[IoSlice::new(rest)], &mut control, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)
        {
            Ok(count) => sent += count,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => wait(stream.as_fd(), PollFlags::OUT, deadline)?,
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

fn wait(socket: BorrowedFd<'_>, flags: PollFlags, deadline: Option<Instant>) -> Result<(), Broken> {
    loop {
        let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(&mut [PollFd::from_borrowed_fd(socket, flags)], timeout.as_ref()) {
            Ok(0) => return Err(Broken::Slow),
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}
