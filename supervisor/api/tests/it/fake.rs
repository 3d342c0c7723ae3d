//! A launcher that keeps a table and starts no process: blocking threads, the real frames, a real journal for each
//! agent, a real audit log. What agents do is decided by their argv and by the test.

use std::collections::{BTreeMap, HashMap};
use std::fs::OpenOptions;
use std::io::{IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use aion_agent_journal::{Exit as JournalExit, Kind, PlainFile, Writer as Journal};
use aion_audit::{Detail, NewRecord, Writer as Audit};
use aion_launcher_proto::frame::{self, Decoder};
use aion_launcher_proto::v1::{self, notice, request::Op, response::Result as Answer};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

/// What the test may change, and look at.
#[derive(Default)]
pub(crate) struct Table {
    pub(crate) agents: BTreeMap<String, v1::AgentState>,
    journals: HashMap<String, Journal<PlainFile>>,
    watchers: Vec<UnixStream>,
    /// Launches that were carried out, by id and incarnation.
    pub(crate) launches: Vec<(String, u32)>,
    pub(crate) signals: Vec<(String, i32)>,
    /// Refuse the next launches with this.
    pub(crate) refuse: Option<v1::Error>,
    /// Do the launch, but say nothing.
    pub(crate) swallow_launch: bool,
    /// Neither do it nor say anything.
    pub(crate) hang_launch: bool,
    /// SIGTERM does nothing.
    pub(crate) stubborn: bool,
    pub(crate) secrets: Vec<v1::Secret>,
}

pub(crate) struct Fake {
    pub(crate) table: Arc<Mutex<Table>>,
    audit: Arc<Mutex<Audit>>,
    state: PathBuf,
    socket: PathBuf,
    connections: Arc<Mutex<Vec<UnixStream>>>,
    stop: Arc<Mutex<bool>>,
}

impl Fake {
    pub(crate) fn start(state: &Path) -> Self {
        let key = state.join("audit.key");
        let audit = Audit::open(&state.join("audit"), &key, aion_audit::Options::default()).unwrap();
        let fake = Self {
            table: Arc::default(),
            audit: Arc::new(Mutex::new(audit)),
            state: state.to_owned(),
            socket: state.join("l.sock"),
            connections: Arc::default(),
            stop: Arc::default(),
        };
        fake.listen();
        fake
    }

    pub(crate) fn table(&self) -> MutexGuard<'_, Table> {
        lock(&self.table)
    }

    /// Goes away: the socket is gone, all connections break. The table stays.
    pub(crate) fn down(&self) {
        *lock(&self.stop) = true;
        let _ = UnixStream::connect(&self.socket);
        std::thread::sleep(Duration::from_millis(20));
        let _ = std::fs::remove_file(&self.socket);
        for stream in lock(&self.connections).drain(..) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
        self.table().watchers.clear();
    }

    /// Is back, with the table as it was.
    pub(crate) fn up(&self) {
        *lock(&self.stop) = false;
        self.listen();
    }

    fn listen(&self) {
        let _ = std::fs::remove_file(&self.socket);
        let listener = UnixListener::bind(&self.socket).unwrap();
        let server = Server {
            table: Arc::clone(&self.table),
            audit: Arc::clone(&self.audit),
            state: self.state.clone(),
        };
        let (all, stop) = (Arc::clone(&self.connections), Arc::clone(&self.stop));
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if *lock(&stop) {
                    return;
                }
                lock(&all).push(stream.try_clone().unwrap());
                let server = server.clone();
                std::thread::spawn(move || server.serve(&stream));
            }
        });
    }

    fn server(&self) -> Server {
        Server { table: Arc::clone(&self.table), audit: Arc::clone(&self.audit), state: self.state.clone() }
    }

    /// The agent writes.
    pub(crate) fn output(&self, id: &str, kind: Kind, data: &[u8]) {
        let mut table = self.table();
        let journal = table.journals.get_mut(id).unwrap();
        for piece in data.chunks(1000) {
            journal.append(kind, 0, now(), piece).unwrap();
        }
    }

    /// The agent's first process ends by itself.
    pub(crate) fn exit(&self, id: &str, code: i32) {
        self.server().end(id, v1::Exit { code, signal: 0, reason: "exited".into(), time_ns: now() });
    }

    /// Something for the audit log.
    pub(crate) fn event(&self, agent: &str, kind: &str, verdict: &str) -> u64 {
        self.server().append(&v1::AppendAudit {
            tenant: "default".into(),
            agent: agent.into(),
            kind: kind.into(),
            verdict: verdict.into(),
            detail_json: "{}".into(),
            ..Default::default()
        })
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.down();
    }
}

#[derive(Clone)]
struct Server {
    table: Arc<Mutex<Table>>,
    audit: Arc<Mutex<Audit>>,
    state: PathBuf,
}

enum Reply {
    Answer(Answer),
    Fd(Answer, OwnedFd),
    Silence,
}

impl Server {
    fn serve(&self, stream: &UnixStream) {
        let mut decoder = Decoder::<OwnedFd>::new();
        while let Some(frame) = read(stream, &mut decoder) {
            let request: v1::Request = frame.message().unwrap();
            let watch = matches!(request.op, Some(Op::Watch(_)));
            let reply = self.perform(request.op.unwrap(), frame.fds);
            let (answer, fd) = match reply {
                Reply::Answer(answer) => (answer, None),
                Reply::Fd(answer, fd) => (answer, Some(fd)),
                Reply::Silence => continue,
            };
            let response = v1::Response { seq: request.seq, result: Some(answer) };
            write(stream, &frame::encode(&response).unwrap(), fd.as_slice());
            if watch {
                let mut table = lock(&self.table);
                for state in table.agents.values() {
                    tell(stream, notice::Kind::Agent(state.clone()));
                }
                table.watchers.push(stream.try_clone().unwrap());
            }
        }
    }

    fn perform(&self, op: Op, fds: Vec<OwnedFd>) -> Reply {
        let agent = |id: &str| {
            let table = lock(&self.table);
            Reply::Answer(match table.agents.get(id) {
                Some(state) => Answer::Agent(state.clone()),
                None => refusal("AGENT_NOT_FOUND", "no such agent"),
            })
        };
        match op {
            Op::Hello(_) => Reply::Answer(Answer::Hello(v1::HelloOk {
                protocol: 1,
                version: "fake".into(),
                ..Default::default()
            })),
            Op::Launch(launch) => self.launch(launch),
            Op::Signal(signal) => {
                lock(&self.table).signals.push((signal.id.clone(), signal.signo));
                let stubborn = lock(&self.table).stubborn;
                if signal.signo == 15 && !stubborn {
                    let exit = v1::Exit { code: 0, signal: 15, reason: "signaled".into(), time_ns: now() };
                    self.end(&signal.id, exit);
                }
                agent(&signal.id)
            }
            Op::Freeze(freeze) => {
                self.change(&freeze.id, |state| "frozen".clone_into(&mut state.state));
                agent(&freeze.id)
            }
            Op::Thaw(thaw) => {
                self.change(&thaw.id, |state| "running".clone_into(&mut state.state));
                agent(&thaw.id)
            }
            Op::Throttle(throttle) => {
                let left = throttle.cpu_millis;
                self.change(&throttle.id, |state| restrain(state, "throttled", &throttle.reason, left > 0));
                agent(&throttle.id)
            }
            Op::Isolate(isolate) => {
                self.change(&isolate.id, |state| restrain(state, "isolated", &isolate.reason, isolate.on));
                agent(&isolate.id)
            }
            Op::Kill(kill) => {
                let exit = v1::Exit { code: 0, signal: 9, reason: "killed".into(), time_ns: now() };
                self.end(&kill.id, exit);
                agent(&kill.id)
            }
            Op::Remove(remove) => {
                let mut table = lock(&self.table);
                let _ = std::fs::remove_dir_all(self.state.join("agents").join(&remove.id));
                Reply::Answer(match table.agents.remove(&remove.id) {
                    Some(_) => Answer::Empty(v1::Empty {}),
                    None => refusal("AGENT_NOT_FOUND", "no such agent"),
                })
            }
            Op::List(_) => {
                let agents = lock(&self.table).agents.values().cloned().collect();
                Reply::Answer(Answer::List(v1::AgentList { agents, more: false }))
            }
            Op::Watch(_) => Reply::Answer(Answer::Empty(v1::Empty {})),
            Op::Exec(exec) => self.exec(exec, fds),
            Op::AppendAudit(record) => {
                let seq = self.append(&record);
                Reply::Answer(Answer::Audit(v1::AuditSeq { seq }))
            }
            Op::Stats(_) => Reply::Answer(Answer::Stats(v1::StatsOk {
                cpu_usec: 1000,
                mem_bytes: 4096,
                pids: 2,
                ..Default::default()
            })),
            Op::Counters(_) => Reply::Answer(Answer::Counters(v1::CountersOk {
                syscalls: vec![v1::SyscallCounter { nr: 435, count: 3, ..Default::default() }],
            })),
            Op::Host(_) => {
                Reply::Answer(Answer::Host(v1::HostOk { kernel: "fake".into(), checks: Vec::new() }))
            }
            Op::OpenLog(open) => {
                let file = std::fs::File::open(self.state.join("agents").join(&open.id).join("journal"));
                Reply::Fd(Answer::Agent(v1::AgentState::default()), file.unwrap().into())
            }
            // Files are the real launcher's, and tested with it.
            Op::OpenFile(_) | Op::PutFile(_) | Op::StatFile(_) | Op::ListFolder(_) => {
                Reply::Answer(refusal("AGENT_NOT_FOUND", "no files here"))
            }
            Op::OpenResolver(_) | Op::Resolved(_) | Op::Withhold(_) | Op::WithholdFiles(_) => {
                Reply::Answer(refusal("AGENT_NOT_FOUND", "no networks here"))
            }
            Op::CheckProfile(check) => match check.file.starts_with(b"broken") {
                true => Reply::Answer(refusal("PROFILE_INVALID", "it is broken")),
                false => Reply::Answer(Answer::Empty(v1::Empty {})),
            },
            Op::OpenTty(open) => {
                let fd =
                    OpenOptions::new().write(true).open(self.state.join("agents").join(&open.id).join("tty"));
                Reply::Fd(Answer::Agent(v1::AgentState::default()), fd.unwrap().into())
            }
        }
    }

    fn launch(&self, launch: v1::Launch) -> Reply {
        let mut table = lock(&self.table);
        if table.hang_launch {
            return Reply::Silence;
        }
        if let Some(error) = &table.refuse {
            return Reply::Answer(Answer::Error(error.clone()));
        }
        table.secrets.clone_from(&launch.secrets);
        let known =
            table.agents.get(&launch.id).filter(|known| known.incarnation == launch.incarnation).cloned();
        let state = known.unwrap_or_else(|| {
            table.launches.push((launch.id.clone(), launch.incarnation));
            let folder = self.state.join("agents").join(&launch.id);
            std::fs::create_dir_all(&folder).unwrap();
            let file = OpenOptions::new()
                .create(true)
                .truncate(false)
                .read(true)
                .write(true)
                .open(folder.join("journal"));
            let journal = Journal::open(file.unwrap(), PlainFile, 0, launch.incarnation, now()).unwrap();
            table.journals.insert(launch.id.clone(), journal);
            v1::AgentState {
                id: launch.id.clone(),
                tenant: launch.tenant.clone(),
                name: launch.name.clone(),
                incarnation: launch.incarnation,
                state: "running".into(),
                pid: 4242,
                cgroup: "aion/x".into(),
                layers: vec![v1::Layer {
                    name: "seccomp".into(),
                    state: "active".into(),
                    detail: "x".into(),
                }],
                started_ns: now(),
                ..Default::default()
            }
        });
        table.agents.insert(launch.id.clone(), state.clone());
        let silent = table.swallow_launch;
        drop(table);
        // An agent whose program is a number ends with it at once.
        let word = String::from_utf8(launch.argv[0].clone()).unwrap();
        if let Some(code) = word.strip_prefix("exit-").and_then(|code| code.parse().ok()) {
            self.end(&launch.id, v1::Exit { code, signal: 0, reason: "exited".into(), time_ns: now() });
        }
        if silent { Reply::Silence } else { Reply::Answer(Answer::Agent(state)) }
    }

    fn exec(&self, exec: v1::Exec, fds: Vec<OwnedFd>) -> Reply {
        if exec.argv[0] == b"missing" {
            return Reply::Answer(refusal("COMMAND_NOT_FOUND", "no such program"));
        }
        let table = Arc::clone(&self.table);
        std::thread::spawn(move || {
            let mut fds = fds.into_iter().map(std::fs::File::from);
            let mut stdin = fds.next().unwrap();
            let mut stdout = fds.next().unwrap_or_else(|| stdin.try_clone().unwrap());
            let stderr = fds.next();
            let mut code = 0;
            match exec.argv[0].as_slice() {
                b"cat" => {
                    let mut buffer = vec![0; 10_000];
                    while let Ok(n @ 1..) = stdin.read(&mut buffer) {
                        stdout.write_all(&buffer[..n]).unwrap();
                    }
                }
                _ => {
                    stdout.write_all(b"out").unwrap();
                    if let Some(mut stderr) = stderr {
                        stderr.write_all(b"err").unwrap();
                    }
                    code = 7;
                }
            }
            drop((stdin, stdout));
            let exit = v1::Exit { code, signal: 0, reason: "exited".into(), time_ns: now() };
            let exited = v1::ExecExited { id: exec.id, exec_id: exec.exec_id, exit: Some(exit) };
            for watcher in &lock(&table).watchers {
                tell(watcher, notice::Kind::ExecExited(exited.clone()));
            }
        });
        Reply::Answer(Answer::Exec(v1::ExecOk { pid: 77 }))
    }

    fn change(&self, id: &str, change: impl FnOnce(&mut v1::AgentState)) {
        let mut table = lock(&self.table);
        let Some(state) = table.agents.get_mut(id).filter(|state| state.state != "exited") else { return };
        change(state);
        let state = state.clone();
        for watcher in &table.watchers {
            tell(watcher, notice::Kind::Agent(state.clone()));
        }
    }

    fn end(&self, id: &str, exit: v1::Exit) {
        if let Some(journal) = lock(&self.table).journals.remove(id) {
            let narrow = |n: i32| u8::try_from(n).unwrap();
            let ended = JournalExit { code: narrow(exit.code), signal: narrow(exit.signal) };
            journal.finish(ended, exit.time_ns).unwrap();
        }
        self.change(id, |state| {
            "exited".clone_into(&mut state.state);
            state.exit = Some(exit);
        });
    }

    fn append(&self, record: &v1::AppendAudit) -> u64 {
        let seq = {
            let mut audit = lock(&self.audit);
            let new = NewRecord {
                tenant: &record.tenant,
                agent: &record.agent,
                kind: &record.kind,
                verdict: &record.verdict,
                rule: &record.rule,
                detail: Detail::parse(&record.detail_json).unwrap(),
                ..NewRecord::default()
            };
            let seq = audit.append(&new).unwrap();
            audit.flush().unwrap();
            seq
        };
        for watcher in &lock(&self.table).watchers {
            tell(watcher, notice::Kind::Audit(v1::AuditSeq { seq }));
        }
        seq
    }
}

/// A test that failed while it held the lock must not fail a second time in a destructor.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn refusal(code: &str, message: &str) -> Answer {
    Answer::Error(v1::Error { code: code.into(), message: message.into(), ..Default::default() })
}

pub(crate) fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    u64::try_from(since.as_nanos()).unwrap()
}

fn tell(stream: &UnixStream, kind: notice::Kind) {
    write(stream, &frame::encode(&v1::Notice { kind: Some(kind) }).unwrap(), &[]);
}

fn read(stream: &UnixStream, decoder: &mut Decoder<OwnedFd>) -> Option<frame::Frame<OwnedFd>> {
    loop {
        let mut bytes = vec![0; decoder.want()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut slices = [IoSliceMut::new(&mut bytes)];
        let got = recvmsg(stream, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC).ok()?.bytes;
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

fn restrain(state: &mut v1::AgentState, kind: &str, reason: &str, on: bool) {
    state.restraints.retain(|known| known.kind != kind);
    if on {
        let (kind, reason) = (kind.to_owned(), reason.to_owned());
        state.restraints.push(v1::Restraint { kind, reason, since_ns: 1, cpu_millis: 0 });
    }
}
