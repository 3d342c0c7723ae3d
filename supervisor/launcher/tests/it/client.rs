//! A client of the protocol, as small as one can be.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use aion_launcher_proto::frame::{self, Decoder, Frame};
use aion_launcher_proto::v1::{self, notice::Kind, request::Op, response::Result as Answer};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

pub(crate) struct Client {
    stream: UnixStream,
    decoder: Decoder<OwnedFd>,
    seq: u64,
}

impl Client {
    pub(crate) fn connect(socket: &Path) -> std::io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        Ok(Self { stream, decoder: Decoder::new(), seq: 0 })
    }

    pub(crate) fn send(&mut self, op: Op, fds: &[BorrowedFd<'_>]) {
        self.seq += 1;
        let bytes = frame::encode(&v1::Request { seq: self.seq, op: Some(op) }).unwrap();
        self.send_bytes(&bytes, fds).unwrap();
    }

    pub(crate) fn send_bytes(&mut self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> rustix::io::Result<()> {
        let mut sent = 0;
        while sent < bytes.len() {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if sent == 0 && !fds.is_empty() {
                assert!(control.push(SendAncillaryMessage::ScmRights(fds)));
            }
            sent +=
                sendmsg(&self.stream, &[IoSlice::new(&bytes[sent..])], &mut control, SendFlags::NOSIGNAL)?;
        }
        Ok(())
    }

    /// The next frame; `None` when the launcher has closed the connection.
    pub(crate) fn frame(&mut self) -> Option<Frame<OwnedFd>> {
        loop {
            let mut bytes = vec![0; self.decoder.want().min(65_536)];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let got = match recvmsg(
                &self.stream,
                &mut [IoSliceMut::new(&mut bytes)],
                &mut control,
                RecvFlags::CMSG_CLOEXEC,
            ) {
                Ok(got) if got.bytes > 0 => got.bytes,
                Ok(_) | Err(rustix::io::Errno::CONNRESET) => return None,
                Err(e) => panic!("no answer: {e}"),
            };
            let mut fds = Vec::new();
            for part in control.drain() {
                if let RecvAncillaryMessage::ScmRights(more) = part {
                    fds.extend(more);
                }
            }
            if let Some(frame) = self.decoder.push(&bytes[..got], fds).unwrap() {
                return Some(frame);
            }
        }
    }

    pub(crate) fn call_with(
        &mut self,
        op: Op,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(Answer, Vec<OwnedFd>), v1::Error> {
        self.send(op, fds);
        let frame = self.frame().expect("the connection is closed");
        let response: v1::Response = frame.message().unwrap();
        assert_eq!(response.seq, self.seq);
        match response.result.unwrap() {
            Answer::Error(error) => Err(error),
            answer => Ok((answer, frame.fds)),
        }
    }

    pub(crate) fn call(&mut self, op: Op) -> Result<Answer, v1::Error> {
        self.call_with(op, &[]).map(|(answer, _)| answer)
    }

    fn agent(&mut self, op: Op) -> Result<v1::AgentState, v1::Error> {
        self.call(op).map(|answer| match answer {
            Answer::Agent(state) => state,
            other => panic!("not an agent: {other:?}"),
        })
    }

    pub(crate) fn launch(&mut self, launch: &v1::Launch) -> Result<v1::AgentState, v1::Error> {
        self.agent(Op::Launch(launch.clone()))
    }

    pub(crate) fn kill(&mut self, id: &str) -> Result<v1::AgentState, v1::Error> {
        self.agent(Op::Kill(v1::Kill { id: id.into(), reason: "test".into() }))
    }

    pub(crate) fn freeze(&mut self, id: &str) -> Result<v1::AgentState, v1::Error> {
        self.agent(Op::Freeze(v1::Freeze { id: id.into(), ..Default::default() }))
    }

    pub(crate) fn thaw(&mut self, id: &str) -> Result<v1::AgentState, v1::Error> {
        self.agent(Op::Thaw(v1::Thaw { id: id.into() }))
    }

    pub(crate) fn signal(&mut self, id: &str, signo: i32) -> Result<v1::AgentState, v1::Error> {
        self.agent(Op::Signal(v1::Signal { id: id.into(), signo }))
    }

    pub(crate) fn remove(&mut self, id: &str) -> Result<(), v1::Error> {
        self.call(Op::Remove(v1::Remove { id: id.into(), keep_journal: false })).map(drop)
    }

    pub(crate) fn list(&mut self) -> Vec<v1::AgentState> {
        match self.call(Op::List(v1::List::default())).unwrap() {
            Answer::List(list) => list.agents,
            other => panic!("not a list: {other:?}"),
        }
    }

    pub(crate) fn page(&mut self, after: &str, limit: u32) -> Result<v1::AgentList, v1::Error> {
        match self.call(Op::List(v1::List { after: after.into(), limit }))? {
            Answer::List(list) => Ok(list),
            other => panic!("not a list: {other:?}"),
        }
    }

    pub(crate) fn get(&mut self, id: &str) -> Option<v1::AgentState> {
        self.list().into_iter().find(|a| a.id == id)
    }

    pub(crate) fn stats(&mut self, id: &str) -> v1::StatsOk {
        match self.call(Op::Stats(v1::Stats { id: id.into(), ..Default::default() })).unwrap() {
            Answer::Stats(stats) => stats,
            other => panic!("not stats: {other:?}"),
        }
    }

    /// Waits until the agent has ended.
    pub(crate) fn wait(&mut self, id: &str) -> v1::AgentState {
        let mut last = None;
        until("the agent has ended", || {
            last = self.get(id);
            last.as_ref().is_some_and(|a| a.state == "exited")
        });
        last.unwrap()
    }

    pub(crate) fn exec(&mut self, exec: v1::Exec, fds: &[BorrowedFd<'_>]) -> Result<u32, v1::Error> {
        self.call_with(Op::Exec(exec), fds).map(|(answer, _)| match answer {
            Answer::Exec(ok) => ok.pid,
            other => panic!("not an exec: {other:?}"),
        })
    }

    /// Turns this connection into a watch.
    pub(crate) fn watch(mut self, audit_after_seq: u64) -> Watch {
        assert!(matches!(self.call(Op::Watch(v1::Watch { audit_after_seq })), Ok(Answer::Empty(_))));
        Watch(self)
    }
}

pub(crate) struct Watch(Client);

impl Watch {
    /// The first notice that `pick` takes.
    pub(crate) fn find<T>(&mut self, mut pick: impl FnMut(Kind) -> Option<T>) -> T {
        loop {
            let frame = self.0.frame().expect("the watch is closed");
            let notice: v1::Notice = frame.message().unwrap();
            if let Some(found) = pick(notice.kind.unwrap()) {
                return found;
            }
        }
    }

    pub(crate) fn exit_of(&mut self, id: &str) -> v1::Exit {
        self.find(|kind| match kind {
            Kind::Agent(agent) if agent.id == id && agent.state == "exited" => agent.exit,
            _ => None,
        })
    }
}

pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(20), "not in time: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Borrowed, for a call.
pub(crate) fn borrowed(fds: &[OwnedFd]) -> Vec<BorrowedFd<'_>> {
    fds.iter().map(AsFd::as_fd).collect()
}
