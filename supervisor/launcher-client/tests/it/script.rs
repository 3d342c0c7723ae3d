//! A launcher that answers by script: blocking threads, the real frames.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aion_launcher_proto::frame::{self, Decoder};
use aion_launcher_proto::v1::{self, notice, request::Op, response::Result as Answer};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

pub(crate) enum Reply {
    Answer(Answer),
    Fd(Answer, OwnedFd),
    Later(Duration, Answer),
    Notices(Vec<notice::Kind>),
    Hang,
    Close,
}

impl Reply {
    pub(crate) fn with_fd(answer: Answer, fd: OwnedFd) -> Self {
        Self::Fd(answer, fd)
    }
}

pub(crate) struct Launcher {
    path: PathBuf,
    connections: Arc<Mutex<Vec<UnixStream>>>,
    stop: Arc<std::sync::atomic::AtomicBool>,
}

impl Launcher {
    pub(crate) fn start(path: &Path, script: impl Fn(&Op) -> Reply + Send + Clone + 'static) -> Self {
        let _ = std::fs::remove_file(path);
        let listener = UnixListener::bind(path).unwrap();
        let connections = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let (all, stopped) = (Arc::clone(&connections), Arc::clone(&stop));
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if stopped.load(std::sync::atomic::Ordering::SeqCst) {
                    return;
                }
                all.lock().unwrap().push(stream.try_clone().unwrap());
                let script = script.clone();
                std::thread::spawn(move || serve(&stream, &script));
            }
        });
        Self { path: path.to_owned(), connections, stop }
    }
}

impl Drop for Launcher {
    fn drop(&mut self) {
        self.stop.store(true, std::sync::atomic::Ordering::SeqCst);
        let _ = UnixStream::connect(&self.path);
        let _ = std::fs::remove_file(&self.path);
        for stream in self.connections.lock().unwrap().drain(..) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

fn serve(stream: &UnixStream, script: &impl Fn(&Op) -> Reply) {
    let mut decoder = Decoder::<OwnedFd>::new();
    while let Some(frame) = read(stream, &mut decoder) {
        let request: v1::Request = frame.message().unwrap();
        let op = request.op.unwrap();
        let reply = match &op {
            Op::Hello(_) => Reply::Answer(Answer::Hello(v1::HelloOk {
                protocol: 1,
                version: "scripted".into(),
                ..Default::default()
            })),
            op => script(op),
        };
        let respond = |answer, fds: &[OwnedFd]| {
            let response = v1::Response { seq: request.seq, result: Some(answer) };
            write(stream, &frame::encode(&response).unwrap(), fds);
        };
        match reply {
            Reply::Answer(answer) => respond(answer, &[]),
            Reply::Fd(answer, fd) => respond(answer, &[fd]),
            Reply::Later(after, answer) => {
                std::thread::sleep(after);
                respond(answer, &[]);
            }
            Reply::Notices(kinds) => {
                respond(Answer::Empty(v1::Empty {}), &[]);
                for kind in kinds {
                    write(stream, &frame::encode(&v1::Notice { kind: Some(kind) }).unwrap(), &[]);
                }
            }
            Reply::Hang => {}
            Reply::Close => {
                let _ = stream.shutdown(std::net::Shutdown::Both);
                return;
            }
        }
    }
}

fn read(stream: &UnixStream, decoder: &mut Decoder<OwnedFd>) -> Option<frame::Frame<OwnedFd>> {
    loop {
        let mut bytes = vec![0; decoder.want()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let got = recvmsg(stream, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)
            .ok()?
            .bytes;
        if got == 0 {
            return None;
        }
        let mut fds = Vec::new();
        for part in control.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = part {
                fds.extend(received);
            }
        }
        if let Some(frame) = decoder.push(&bytes[..got], fds).unwrap() {
            return Some(frame);
        }
    }
}

fn write(stream: &UnixStream, bytes: &[u8], fds: &[OwnedFd]) {
    let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    }
    let _ = sendmsg(stream, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL);
}
