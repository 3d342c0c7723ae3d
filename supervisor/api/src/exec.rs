//! Exec: one more program inside an agent, on pipes or a terminal that end in the client's stream.
//!
//! Backpressure goes both ways: a client that does not read stops the program at a full pipe, a program that does not read
//! stops the client's stream. A client that goes away takes the program's streams with it.

use std::sync::Arc;
use std::time::Duration;

use aion_api_proto::v1 as api;
use aion_api_proto::v1::exec_input::Kind as Input;
use aion_api_proto::v1::exec_output::Kind as Out;
use aion_launcher_proto::v1 as launcher;
use aion_store::AgentRecord;
use aion_types::ErrorCode;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::convert;
use crate::core::Core;
use crate::exec_exits::ExecExit;
use crate::launch::Size;
use crate::lifecycle::{self, Command};
use crate::logs::Answers;
use crate::principal::Principal;
use crate::problem::{Outcome, Problem};
use crate::register::new_id;
use crate::stage::Action;
use crate::terminal::{End, Pipes, terminal};
use crate::trail::Entry;

/// Answers that wait for a slow client.
const AHEAD: usize = 8;
/// The most that is read at once.
const CHUNK: usize = 32 << 10;
/// Arguments and environment together.
const MAX_ARGS: usize = 256 << 10;
/// How long the first message may take.
const FIRST: Duration = Duration::from_secs(10);
/// After the program's end its children may hold the streams open; what was written is read for so long.
const DRAIN: Duration = Duration::from_secs(2);
/// After the end of its streams a program that is not told to have ended is waited for, and given up.
const UNTOLD: Duration = Duration::from_secs(10);

type Sender = mpsc::Sender<Result<api::ExecOutput, Status>>;

/// Our ends of a program's streams.
enum Ends {
    Pipes { stdin: End, stdout: End, stderr: End },
    Terminal(Arc<End>),
}

impl Core {
    pub(crate) async fn exec(
        self: Arc<Self>,
        principal: Principal,
        mut input: Streaming<api::ExecInput>,
    ) -> Result<Answers<api::ExecOutput>, Status> {
        let start = match timeout(FIRST, input.message()).await {
            Ok(Ok(Some(api::ExecInput { kind: Some(Input::Start(start)) }))) => start,
            Ok(Err(status)) => return Err(status),
            _ => return Err(Problem::field("start", "the first message must say what to execute").into()),
        };
        let permit = self.stream_permit()?;
        let detail = json!({
            "name": start.agent,
            "argv": start.argv.iter().take(64).map(|arg| arg.chars().take(256).collect::<String>()).collect::<Vec<_>>(),
            "tty": start.tty,
        });
        let mut agent = String::new();
        let outcome = self.begin_exec(&principal, start, &mut agent).await;
        let entry = Entry { principal: &principal, kind: Action::Exec.kind(), agent: &agent, detail };
        self.trail.record(entry, outcome.as_ref().map(|_| ())).await;
        let (pid, ends, exit) = outcome?;
        let (send, receive) = mpsc::channel(AHEAD);
        tokio::spawn(async move {
            let _permit = permit;
            let started = api::ExecOutput { kind: Some(Out::Started(api::ExecStarted { pid })) };
            if send.send(Ok(started)).await.is_err() {
                return;
            }
            let end = tokio::select! {
                exit = proxy(ends, input, &send, exit) => Ok(api::ExecOutput { kind: Some(Out::Exit(exit)) }),
                () = send.closed() => return,
                () = self.shutdown.cancelled() => Err(Self::going_down()),
            };
            let _ = send.send(end).await;
        });
        Ok(Box::pin(ReceiverStream::new(receive)))
    }

    async fn begin_exec(
        &self,
        principal: &Principal,
        start: api::ExecStart,
        agent: &mut String,
    ) -> Outcome<(u32, Ends, ExecExit)> {
        let record = self.agents.find(principal.tenant(), &start.agent)?;
        record.id.as_str().clone_into(agent);
        lifecycle::check(&record, Command::Exec)?;
        check(&start)?;
        let exec_id = new_id()?.to_string();
        let size = start.size.unwrap_or_default();
        let io = |error: std::io::Error| Problem::internal("cannot make the program's streams", &error);
        let (ends, fds) = if start.tty {
            let (master, slave) = terminal(Size::new(size.rows, size.cols)).map_err(io)?;
            (Ends::Terminal(Arc::new(master)), vec![slave])
        } else {
            let pipes = Pipes::new().map_err(io)?;
            let Pipes { stdin, stdout, stderr, theirs } = pipes;
            (Ends::Pipes { stdin, stdout, stderr }, theirs)
        };
        if !self.exec_exits.are_told().await {
            return Err(Problem::new(
                ErrorCode::LauncherUnavailable,
                "aion-launcher does not tell what ends",
            ));
        }
        let exit = self.exec_exits.expect(&exec_id);
        let request = message(start, &record, exec_id);
        let pid = self
            .launcher
            .exec(request, fds)
            .await
            .map_err(|error| Problem::from(error).with("agent", record.id.as_str()))?;
        Ok((pid, ends, exit))
    }
}

fn check(start: &api::ExecStart) -> Outcome<()> {
    if start.argv.first().is_none_or(String::is_empty) {
        return Err(Problem::field("argv", "there is no program"));
    }
    let texts = start.argv.iter().chain(start.env.keys()).chain(start.env.values()).chain([&start.cwd]);
    let mut total = 0;
    for text in texts {
        if text.contains('\0') {
            return Err(Problem::field("argv", "a text holds a NUL"));
        }
        total += text.len() + 1;
    }
    if total > MAX_ARGS {
        let message = format!("arguments and environment have {total} bytes, at most {MAX_ARGS} are taken");
        return Err(Problem::new(ErrorCode::TooLarge, message).with("field", "argv"));
    }
    if let Some(name) = start.env.keys().find(|name| name.is_empty() || name.contains('=')) {
        return Err(Problem::field("env", format!("{name:?} is no name of a variable")));
    }
    if start.env.keys().any(|name| name.starts_with("AION_")) {
        return Err(Problem::field(
            "env",
            "variables that begin with AION_ are set by AION; choose another name",
        ));
    }
    if !start.cwd.is_empty() && !start.cwd.starts_with('/') {
        return Err(Problem::field("cwd", "it is not absolute"));
    }
    Ok(())
}

fn message(start: api::ExecStart, record: &AgentRecord, exec_id: String) -> launcher::Exec {
    let mut env: Vec<_> = start.env.into_iter().collect();
    env.sort();
    if start.tty && !env.iter().any(|(name, _)| name == "TERM") {
        env.push(("TERM".to_owned(), "xterm-256color".to_owned()));
    }
    launcher::Exec {
        id: record.id.to_string(),
        argv: start.argv.into_iter().map(String::into_bytes).collect(),
        env: env.into_iter().map(|(name, value)| format!("{name}={value}").into_bytes()).collect(),
        cwd: start.cwd.into_bytes(),
        tty: start.tty,
        exec_id,
    }
}

/// Carries bytes until the program has ended and all it wrote was sent.
async fn proxy(ends: Ends, input: Streaming<api::ExecInput>, send: &Sender, mut exit: ExecExit) -> api::Exit {
    let (typing, reading): (tokio::task::JoinHandle<()>, _) = match ends {
        Ends::Pipes { stdin, stdout, stderr } => {
            let typing = tokio::spawn(type_into(input, Some(Arc::new(stdin)), None));
            let (out, err) = (send.clone(), send.clone());
            let reading = tokio::spawn(async move {
                tokio::join!(carry(stdout, out, Out::Stdout), carry(stderr, err, Out::Stderr));
            });
            (typing, reading)
        }
        Ends::Terminal(master) => {
            let typing = tokio::spawn(type_into(input, Some(Arc::clone(&master)), Some(Arc::clone(&master))));
            let out = send.clone();
            let reading = tokio::spawn(async move { carry(master, out, Out::Stdout).await });
            (typing, reading)
        }
    };
    let (typing, mut reading) = (AbortOnDrop(typing), AbortOnDrop(reading));
    let ended = tokio::select! {
        ended = exit.wait() => {
            let _ = timeout(DRAIN, &mut reading.0).await;
            ended
        }
        _ = &mut reading.0 => timeout(UNTOLD, exit.wait()).await.unwrap_or(None),
    };
    drop(typing);
    match ended {
        Some(ended) => convert::exit(convert::exit_of(&ended)),
        None => api::Exit { code: 137, signal: 9, reason: "lost".to_owned() },
    }
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// From a descriptor to the client, until either ends.
async fn carry(from: impl AsRef<End>, send: Sender, wrap: fn(Vec<u8>) -> Out) {
    let mut buffer = vec![0; CHUNK];
    while let Ok(n @ 1..) = from.as_ref().read(&mut buffer).await {
        let data = buffer.get(..n).unwrap_or_default().to_vec();
        if send.send(Ok(api::ExecOutput { kind: Some(wrap(data)) })).await.is_err() {
            return;
        }
    }
}

impl AsRef<Self> for End {
    fn as_ref(&self) -> &Self {
        self
    }
}

/// From the client to the program.
async fn type_into(
    mut input: Streaming<api::ExecInput>,
    stdin: Option<Arc<End>>,
    terminal: Option<Arc<End>>,
) {
    let mut stdin = stdin;
    while let Ok(Some(message)) = input.message().await {
        match message.kind {
            Some(Input::Stdin(bytes)) => {
                if let Some(end) = &stdin
                    && end.write_all(&bytes).await.is_err()
                {
                    // The program reads no more.
                    stdin = None;
                }
            }
            Some(Input::CloseStdin(true)) if terminal.is_none() => stdin = None,
            Some(Input::Resize(size)) => {
                if let Some(terminal) = &terminal {
                    let _ = terminal.resize(Size::new(size.rows, size.cols));
                }
            }
            Some(Input::Signal(signal)) => {
                if let (Some(terminal), Some(key)) = (&terminal, key_of(signal)) {
                    let _ = terminal.write_all(&[key]).await;
                }
            }
            Some(Input::CloseStdin(_) | Input::Start(_)) | None => {}
        }
    }
}

/// The key that makes a terminal send a signal to what runs in its foreground.
const fn key_of(signal: i32) -> Option<u8> {
    match signal {
        2 => Some(0x03),
        3 => Some(0x1c),
        20 => Some(0x1a),
        _ => None,
    }
}
