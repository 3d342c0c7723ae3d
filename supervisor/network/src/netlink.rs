//! Messages to the kernel: attributes in, acknowledgements out.

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with, sockopt,
};

/// An answer that does not come is a kernel that does not answer at all.
const PATIENCE: Duration = Duration::from_secs(5);
const HEADER: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NESTED: u16 = 0x8000;
const REQUEST: u16 = 1;
const ACK: u16 = 4;
/// `NLM_F_ROOT | NLM_F_MATCH`.
const DUMP: u16 = 0x300;
/// Creates what is missing.
pub(crate) const CREATE: u16 = 0x400;
/// Refuses what is there.
pub(crate) const EXCLUSIVE: u16 = 0x200;
/// Puts it behind what is there.
pub(crate) const APPEND: u16 = 0x800;

/// The body of a message: a fixed part, then attributes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Body(Vec<u8>);

impl Body {
    pub(crate) fn new(fixed: &[u8]) -> Self {
        let mut body = Self(fixed.to_vec());
        body.pad();
        body
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn pad(&mut self) {
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    pub(crate) fn attr(mut self, kind: u16, value: &[u8]) -> Self {
        let len = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&len.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.pad();
        self
    }

    /// A string with its end.
    pub(crate) fn text(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attr(kind, &bytes)
    }

    /// A number in the machine's order, as rtnetlink has them.
    pub(crate) fn native(self, kind: u16, value: u32) -> Self {
        self.attr(kind, &value.to_ne_bytes())
    }

    /// A number in the network's order, as nf_tables has them.
    pub(crate) fn network(self, kind: u16, value: u32) -> Self {
        self.attr(kind, &value.to_be_bytes())
    }

    pub(crate) fn nest(self, kind: u16, inner: &Self) -> Self {
        self.attr(kind | NESTED, &inner.0)
    }
}

/// One message.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) body: Body,
    /// Whether the kernel says what became of it; the ends of a batch are not answered.
    pub(crate) acknowledged: bool,
}

impl Message {
    pub(crate) fn new(kind: u16, flags: u16, body: Body) -> Self {
        Self { kind, flags, body, acknowledged: true }
    }

    fn bytes(&self, seq: u32, more: u16) -> Vec<u8> {
        let body = self.body.as_bytes();
        let len = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
        let ack = if self.acknowledged && more & DUMP == 0 { ACK } else { 0 };
        let mut bytes = len.to_ne_bytes().to_vec();
        bytes.extend_from_slice(&self.kind.to_ne_bytes());
        bytes.extend_from_slice(&(self.flags | REQUEST | ack | more).to_ne_bytes());
        bytes.extend_from_slice(&seq.to_ne_bytes());
        bytes.extend_from_slice(&0u32.to_ne_bytes());
        bytes.extend_from_slice(body);
        bytes
    }
}

/// A socket to the kernel, of the network namespace that its maker was in.
#[derive(Debug)]
pub(crate) struct Netlink {
    socket: OwnedFd,
    seq: u32,
}

impl Netlink {
    /// Links, addresses and routes.
    pub(crate) fn route() -> Result<Self, Errno> {
        Self::open(None)
    }

    /// Netfilter.
    pub(crate) fn netfilter() -> Result<Self, Errno> {
        Self::open(Some(rustix::net::netlink::NETFILTER))
    }

    fn open(protocol: Option<Protocol>) -> Result<Self, Errno> {
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(PATIENCE))?;
        rustix::net::bind(&socket, &SocketAddrNetlink::new(0, 0))?;
        Ok(Self { socket, seq: 0 })
    }

    /// Has one thing done.
    pub(crate) fn request(&mut self, kind: u16, flags: u16, body: Body) -> Result<(), Errno> {
        self.batch(&[Message::new(kind, flags, body)])
    }

    /// Has things done in one datagram; the first refusal is the answer.
    pub(crate) fn batch(&mut self, messages: &[Message]) -> Result<(), Errno> {
        let mut bytes = Vec::new();
        let first = self.seq.wrapping_add(1);
        for message in messages {
            self.seq = self.seq.wrapping_add(1);
            bytes.extend(message.bytes(self.seq, 0));
        }
        self.send(&bytes)?;
        let mut waiting = messages.iter().filter(|m| m.acknowledged).count();
        while waiting > 0 {
            for answer in self.receive()? {
                if answer.kind != NLMSG_ERROR || answer.seq.wrapping_sub(first) >= 1 << 16 {
                    continue;
                }
                match error_of(&answer.body) {
                    None => waiting = waiting.saturating_sub(1),
                    Some(errno) => return Err(errno),
                }
            }
        }
        Ok(())
    }

    /// All answers to a question: kind and body of each.
    pub(crate) fn dump(&mut self, kind: u16, body: Body) -> Result<Vec<Vec<u8>>, Errno> {
        self.seq = self.seq.wrapping_add(1);
        let message = Message::new(kind, 0, body).bytes(self.seq, DUMP);
        self.send(&message)?;
        let mut all = Vec::new();
        loop {
            for answer in self.receive()? {
                match answer.kind {
                    NLMSG_DONE => return Ok(all),
                    NLMSG_ERROR => return error_of(&answer.body).map_or(Ok(all), Err),
                    _ => all.push(answer.body),
                }
            }
        }
    }

    fn send(&self, bytes: &[u8]) -> Result<(), Errno> {
        send(&self.socket, bytes, SendFlags::empty()).map(drop)
    }

    fn receive(&self) -> Result<Vec<Answer>, Errno> {
        let mut space = vec![0u8; 64 << 10];
        let got = loop {
            match recv(&self.socket, space.as_mut_slice(), RecvFlags::empty()) {
                Err(Errno::INTR) => {}
                got => break got?.0,
            }
        };
        Ok(answers(space.get(..got).unwrap_or_default()))
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Answer {
    kind: u16,
    seq: u32,
    body: Vec<u8>,
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn answers(mut bytes: &[u8]) -> Vec<Answer> {
    let mut all = Vec::new();
    while let (Some(len), Some(kind), Some(seq)) = (u32_at(bytes, 0), u16_at(bytes, 4), u32_at(bytes, 8)) {
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let Some(body) = bytes.get(HEADER..len) else { break };
        all.push(Answer { kind, seq, body: body.to_vec() });
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    all
}

/// What an acknowledgement says; `None` is success.
fn error_of(body: &[u8]) -> Option<Errno> {
    let code = u32_at(body, 0)?.cast_signed();
    (code != 0).then(|| Errno::from_raw_os_error(code.wrapping_neg()))
}

/// The attributes that follow a fixed part.
pub(crate) fn attributes(body: &[u8], fixed: usize) -> Vec<(u16, &[u8])> {
    let mut rest = body.get(fixed..).unwrap_or_default();
    let mut all = Vec::new();
    while let (Some(len), Some(kind)) = (u16_at(rest, 0), u16_at(rest, 2)) {
        let len = usize::from(len);
        let Some(value) = rest.get(4..len) else { break };
        all.push((kind & 0x3fff, value));
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_come_back_as_they_were_put() {
        let inner = Body::default().text(1, "veth");
        let body = Body::new(&[1, 2, 3, 4]).native(4, 7).nest(18, &inner);
        let all = attributes(body.as_bytes(), 4);
        assert_eq!(all[0], (4, &7u32.to_ne_bytes()[..]));
        assert_eq!((all[1].0, attributes(all[1].1, 0)), (18, vec![(1, &b"veth\0"[..])]));
    }

    #[test]
    fn what_is_cut_off_is_no_answer() {
        let whole = Message::new(2, 0, Body::new(&0u32.to_ne_bytes())).bytes(9, 0);
        assert_eq!(answers(&whole).len(), 1);
        for cut in 0..whole.len() {
            assert!(answers(&whole[..cut]).is_empty(), "{cut}");
        }
        assert!(attributes(&[3, 0, 1, 0], 0).is_empty() && attributes(&[200, 0, 1, 0], 0).is_empty());
    }

    #[test]
    fn the_kernel_answers() {
        let mut netlink = Netlink::route().unwrap();
        // The loopback is always there.
        assert!(!netlink.dump(18, Body::new(&[0; 16])).unwrap().is_empty());
        assert_eq!(netlink.request(17, 0, Body::new(&[0; 16]).text(3, "aion-none")), Err(Errno::NODEV));
    }
}
