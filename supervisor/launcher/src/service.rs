//! What the service manager is told: that the launcher is ready, that it stops, and, while it can do its work, that it lives.
//!
//! A thread that does nothing else gives the signs of life, so that a process that is stopped is found out within seconds. It goes on only
//! while requests that go the whole way come back: accept, a thread, every agent's lock, the answer. What hangs there is started again;
//! agents do not notice. Without a service manager nothing of this happens.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Builder;
use std::time::{Duration, Instant};

use aion_launcher_proto::frame;
use aion_launcher_proto::v1::response::Result as Answer;
use aion_launcher_proto::v1::{AgentList, List, Request, Response, request::Op};
use sd_notify::NotifyState;

/// Signs in the time that the service manager allows between two.
const SIGNS: u32 = 3;
/// Between two requests.
const PAUSE: Duration = Duration::from_secs(10);
/// Agents that are asked for at once.
const PAGE: u32 = 256;
/// So long a round may take for its answers. Launches hold locks, and a busy host takes its time for them.
const PATIENCE: Duration = Duration::from_secs(30);
/// Without an answer for so long there are no more signs. The pause before the round is no fault of the answer's.
const SILENCE: Duration = PATIENCE.saturating_add(PAUSE);

/// When the last round was answered.
struct Answered(Mutex<Instant>);

impl Answered {
    fn new() -> Self {
        Self(Mutex::new(Instant::now()))
    }

    fn now(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn within(&self, patience: Duration) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).elapsed() < patience
    }
}

/// The launcher serves from now on.
pub(crate) fn ready(socket: &Path) {
    say_ready();
    let Some(allowed) = sd_notify::watchdog_enabled() else { return };
    let answered = Arc::new(Answered::new());
    let (socket, told) = (socket.to_owned(), Arc::clone(&answered));
    begin("watchdog-asks", move || ask_again(&socket, &told));
    begin("watchdog", move || live(&answered, allowed / SIGNS));
}

fn begin(name: &str, work: impl FnOnce() + Send + 'static) {
    if let Err(e) = Builder::new().name(name.to_owned()).spawn(work) {
        tracing::error!(error = %e, "no thread for the watchdog: the service manager will start the launcher again");
    }
}

/// What was to be set up is.
pub(crate) fn say_ready() {
    notify(&NotifyState::Ready);
}

/// It stops; agents run on.
pub(crate) fn stopping() {
    notify(&NotifyState::Stopping);
}

fn live(answered: &Answered, pause: Duration) {
    loop {
        if answered.within(SILENCE) {
            notify(&NotifyState::Watchdog);
        } else {
            tracing::error!(
                seconds = SILENCE.as_secs(),
                "the launcher does not answer itself: no sign of life"
            );
        }
        std::thread::sleep(pause);
    }
}

fn ask_again(socket: &Path, answered: &Answered) {
    loop {
        match round(socket, PATIENCE) {
            Ok(()) => answered.now(),
            Err(e) => tracing::warn!(error = %e, "a request to the launcher's own socket failed"),
        }
        std::thread::sleep(PAUSE);
    }
}

/// Asks for all agents, page by page, so that each one's lock is met.
fn round(socket: &Path, patience: Duration) -> std::io::Result<()> {
    let began = Instant::now();
    let mut after = String::new();
    loop {
        let left = patience.saturating_sub(began.elapsed());
        if left.is_zero() {
            return Err(std::io::ErrorKind::TimedOut.into());
        }
        match ask(socket, left, after)? {
            None => return Ok(()),
            Some(last) => after = last,
        }
    }
}

/// Asks for a page of the agents, and waits for the answer, whatever it is. Gives after whom the next page begins, if there is one.
fn ask(socket: &Path, patience: Duration, after: String) -> std::io::Result<Option<String>> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    let request = Request { seq: 1, op: Some(Op::List(List { after, limit: PAGE })) };
    stream.write_all(&frame::encode(&request).map_err(std::io::Error::other)?)?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u64::from(u32::from_be_bytes(length));
    let mut body = Vec::new();
    stream.take(length).read_to_end(&mut body)?;
    let answer = <Response as prost::Message>::decode(body.as_slice()).map_err(std::io::Error::other)?.result;
    let Some(Answer::List(AgentList { mut agents, more: true })) = answer else { return Ok(None) };
    Ok(agents.pop().map(|agent| agent.id))
}

fn notify(state: &NotifyState<'_>) {
    if let Err(e) = sd_notify::notify(std::slice::from_ref(state)) {
        tracing::warn!(error = %e, "cannot notify the service manager");
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use aion_launcher_proto::v1::AgentState;

    use super::*;

    #[test]
    fn an_answer_counts_for_a_while() {
        let answered = Answered::new();
        std::thread::sleep(Duration::from_millis(20));
        assert!(answered.within(PATIENCE) && !answered.within(Duration::from_millis(20)));
        answered.now();
        assert!(answered.within(PATIENCE));
        assert!(SILENCE > PATIENCE && PATIENCE >= 2 * PAUSE);
    }

    #[test]
    fn who_does_not_answer_shows_no_life() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("launcher.sock");
        let listener = UnixListener::bind(&path).unwrap();
        // Connected, because the kernel's queue takes it, and never answered.
        assert!(ask(&path, Duration::from_millis(50), String::new()).is_err());
        let (silent, _) = listener.accept().unwrap();
        drop(silent);
        let answering = std::thread::spawn(move || {
            for (expected, last, more) in [("", "a", true), ("a", "b", true), ("b", "c", false)] {
                let (mut peer, _) = listener.accept().unwrap();
                let mut length = [0; 4];
                peer.read_exact(&mut length).unwrap();
                let mut body = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap()];
                peer.read_exact(&mut body).unwrap();
                let request: Request = prost::Message::decode(body.as_slice()).unwrap();
                let Some(Op::List(List { after, .. })) = request.op else { panic!("{request:?}") };
                assert_eq!(after, expected);
                let agents = vec![AgentState { id: last.to_owned(), ..AgentState::default() }];
                let result = Some(Answer::List(AgentList { agents, more }));
                peer.write_all(&frame::encode(&Response { seq: 1, result }).unwrap()).unwrap();
            }
        });
        round(&path, Duration::from_secs(30)).unwrap();
        answering.join().unwrap();
    }
}
