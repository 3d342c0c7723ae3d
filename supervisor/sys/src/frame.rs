//! Frames on a Unix stream socket: a little-endian length of four bytes, then that many bytes. Descriptors
//! travel with the first byte. Every wait has a deadline.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, UCred, recv as recv_bytes, recvmsg, send as send_bytes, sendmsg,
};
use rustix::process::{Pid, getgid, getuid};

/// Descriptors in one frame; the kernel's limit is 253.
pub const MAX_FDS: usize = 96;

/// A frame as received.
#[derive(Debug, Default)]
pub struct Frame {
    /// The payload.
    pub bytes: Vec<u8>,
    /// The descriptors, close-on-exec.
    pub fds: Vec<OwnedFd>,
    /// The process that the sender named, in our numbering, when the socket passes credentials.
    pub pid: Option<u32>,
}

/// Sends a frame. `about` names a process of the sender's pid namespace (other than itself with the right to):
/// the kernel translates its number for the receiver, even when it is gone by then.
///
/// # Errors
/// `TIMEDOUT` at the deadline, else as sendmsg says.
pub fn send(
    socket: BorrowedFd<'_>,
    payload: &[u8],
    fds: &[BorrowedFd<'_>],
    about: Option<u32>,
    deadline: Option<Instant>,
) -> Result<(), Errno> {
    let len = u32::try_from(payload.len()).map_err(|_| Errno::MSGSIZE)?.to_le_bytes();
    if fds.len() > MAX_FDS {
        return Err(Errno::MSGSIZE);
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS), ScmCredentials(1))];
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    let mut sent = loop {
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(Errno::MSGSIZE);
        }
        if let Some(pid) = about {
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH)?;
            let named = UCred { pid, uid: getuid(), gid: getgid() };
            if !control.push(SendAncillaryMessage::ScmCredentials(named)) {
                return Err(Errno::MSGSIZE);
            }
        }
        match sendmsg(socket, &[IoSlice::new(&len), IoSlice::new(payload)], &mut control, flags) {
            Ok(sent) => break sent,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => wait(socket, PollFlags::OUT, None, deadline)?,
            Err(errno) => return Err(errno),
        }
    };
    while sent < len.len() + payload.len() {
        let rest = if sent < len.len() { &len[sent..] } else { &payload[sent - len.len()..] };
        match send_bytes(socket, rest, flags) {
            Ok(n) => sent += n,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => wait(socket, PollFlags::OUT, None, deadline)?,
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Receives a frame of at most `max` bytes. `peer` is the pidfd of the process at the other end: when it ends, so
/// does the wait, with `PIPE`.
///
/// # Errors
/// `TIMEDOUT` at the deadline; `PIPE` when the other end is closed or gone; `MSGSIZE` for a frame over `max`; else as
/// recvmsg says.
pub fn recv(
    socket: BorrowedFd<'_>,
    max: usize,
    peer: Option<BorrowedFd<'_>>,
    deadline: Option<Instant>,
) -> Result<Frame, Errno> {
    let mut frame = Frame::default();
    let mut len = [0; 4];
    let mut got = 0;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS), ScmCredentials(1))];
    while got < len.len() {
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        match recvmsg(socket, &mut [IoSliceMut::new(&mut len[got..])], &mut control, flags) {
            Ok(message) => {
                for part in control.drain() {
                    match part {
                        RecvAncillaryMessage::ScmRights(fds) => frame.fds.extend(fds),
                        RecvAncillaryMessage::ScmCredentials(from) => {
                            frame.pid = u32::try_from(from.pid.as_raw_nonzero().get()).ok();
                        }
                        _ => {}
                    }
                }
                if message.bytes == 0 {
                    return Err(Errno::PIPE);
                }
                got += message.bytes;
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => wait(socket, PollFlags::IN, peer, deadline)?,
            Err(Errno::CONNRESET) => return Err(Errno::PIPE),
            Err(errno) => return Err(errno),
        }
    }
    let len = usize::try_from(u32::from_le_bytes(len)).map_err(|_| Errno::MSGSIZE)?;
    if len > max {
        return Err(Errno::MSGSIZE);
    }
    frame.bytes.resize(len, 0);
    let mut got = 0;
    while got < len {
        match recv_bytes(socket, &mut frame.bytes[got..], RecvFlags::DONTWAIT) {
            Ok((_, 0)) | Err(Errno::CONNRESET) => return Err(Errno::PIPE),
            Ok((_, n)) => got += n,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => wait(socket, PollFlags::IN, peer, deadline)?,
            Err(errno) => return Err(errno),
        }
    }
    Ok(frame)
}

fn wait(
    socket: BorrowedFd<'_>,
    events: PollFlags,
    peer: Option<BorrowedFd<'_>>,
    deadline: Option<Instant>,
) -> Result<(), Errno> {
    let left = match deadline {
        None => None,
        Some(at) => {
            let left = at.checked_duration_since(Instant::now()).ok_or(Errno::TIMEDOUT)?;
            Some(Timespec::try_from(left).map_err(|_| Errno::INVAL)?)
        }
    };
    // Without a peer the socket stands in for it, with nothing asked.
    let mut fds = [
        PollFd::from_borrowed_fd(socket, events),
        PollFd::from_borrowed_fd(
            peer.unwrap_or(socket),
            if peer.is_some() { PollFlags::IN } else { PollFlags::empty() },
        ),
    ];
    match poll(&mut fds, left.as_ref()) {
        Ok(0) => Err(Errno::TIMEDOUT),
        // What the peer wrote before it ended is read first: only an empty socket says that it is over.
        Ok(_) if fds[0].revents().is_empty() && !fds[1].revents().is_empty() => Err(Errno::PIPE),
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    #[test]
    fn frames_carry_bytes_and_descriptors() {
        let (a, b) = UnixStream::pair().unwrap();
        let file = tempfile::tempfile().unwrap();
        send(a.as_fd(), b"hello", &[file.as_fd(), a.as_fd()], None, None).unwrap();
        send(a.as_fd(), b"", &[], None, None).unwrap();
        let frame = recv(b.as_fd(), 5, None, None).unwrap();
        assert_eq!((frame.bytes.as_slice(), frame.fds.len()), (&b"hello"[..], 2));
        assert_eq!(recv(b.as_fd(), 0, None, None).unwrap().bytes, b"");
    }

    #[test]
    fn long_frames_and_deadlines() {
        let (a, b) = UnixStream::pair().unwrap();
        let long = vec![7; 3 << 20];
        let reader = {
            let b = b.try_clone().unwrap();
            std::thread::spawn(move || recv(b.as_fd(), 4 << 20, None, None).unwrap().bytes)
        };
        send(a.as_fd(), &long, &[], None, None).unwrap();
        assert_eq!(reader.join().unwrap(), long);
        let soon = Some(Instant::now() + Duration::from_millis(20));
        assert_eq!(recv(b.as_fd(), 9, None, soon).unwrap_err(), Errno::TIMEDOUT);
        send(a.as_fd(), b"too long", &[], None, None).unwrap();
        assert_eq!(recv(b.as_fd(), 4, None, None).unwrap_err(), Errno::MSGSIZE);
        drop(a);
    }

    #[test]
    fn a_closed_end_is_no_hang() {
        let (a, b) = UnixStream::pair().unwrap();
        drop(a);
        assert_eq!(recv(b.as_fd(), 9, None, None).unwrap_err(), Errno::PIPE);
    }
}
