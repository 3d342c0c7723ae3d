//! `exec`: one more program inside an agent. The session lives in aiond and ends with it.

use aion_client::api::exec_input::Kind as Input;
use aion_client::api::exec_output::Kind as Output;
use aion_client::{Client, api};
use aion_types::ErrorCode;
use tokio::signal::unix::SignalKind;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::signals::{Signals, window_changes};
use super::sync_output::To;
use super::target::{environment, on_agent};
use super::tty::window_size;
use crate::cli::ExecArgs;
use crate::failure::{Failure, NOT_EXECUTABLE, NOT_FOUND, Outcome};
use crate::terminal::{Raw, read_stdin};

pub(super) async fn exec(client: &Client, args: ExecArgs) -> Outcome {
    session(client, args).await.map_err(|failure| {
        if failure.is(ErrorCode::CommandNotFound) {
            failure.exiting(NOT_FOUND)
        } else if failure.is(ErrorCode::CommandNotExecutable) {
            failure.exiting(NOT_EXECUTABLE)
        } else if failure.is(ErrorCode::LayerFailed) {
            // What the agent's manifest may leave out, a further program cannot.
            failure.hint(
                "-w and the program are paths inside the agent; `aionctl inspect AGENT` shows its layers",
            )
        } else {
            failure
        }
    })
}

async fn session(client: &Client, args: ExecArgs) -> Outcome {
    let env = environment(&args.env)?.into_iter().collect();
    let agent = on_agent(client, &args.agent, |agent| client.get(api::GetRequest { agent })).await?;
    let start = api::ExecStart {
        agent: agent.id,
        argv: args.command,
        env,
        cwd: args.workdir.unwrap_or_default(),
        tty: args.tty,
        size: args.tty.then(window_size),
    };
    // Keys reach a program on a terminal only. Without one nothing could be passed on, so a signal ends this process as it ends any other.
    let mut signals = args.tty.then(Signals::catch).transpose()?;
    let mut window = window_changes()?;
    let (send, receive) = mpsc::channel(64);
    let _ = send.try_send(input(Input::Start(start)));
    if !args.interactive {
        let _ = send.try_send(input(Input::CloseStdin(true)));
    }
    let raw = if args.interactive && args.tty { Raw::enter() } else { None };
    let mut typed = args.interactive.then(read_stdin);
    let mut output = client.exec(ReceiverStream::new(receive)).await?;
    let exit = loop {
        tokio::select! {
            message = client.next(&mut output) => match message?.map(|message| message.kind) {
                Some(Some(Output::Stdout(data))) => To::Stdout.write(&data)?,
                Some(Some(Output::Stderr(data))) => To::Stderr.write(&data)?,
                Some(Some(Output::Exit(exit))) => break exit,
                Some(Some(Output::Started(_)) | None) => {}
                None => {
                    drop(raw);
                    return Err(Failure::coded(ErrorCode::Internal, "the session ended without an exit code"));
                }
            },
            chunk = next_chunk(&mut typed) => {
                if chunk.is_empty() {
                    typed = None;
                    // A terminal has no end of input but a key; a pipe is closed.
                    let end = if args.tty { Input::Stdin(vec![0x04]) } else { Input::CloseStdin(true) };
                    let _ = send.send(input(end)).await;
                } else {
                    let _ = send.send(input(Input::Stdin(chunk))).await;
                }
            }
            _ = window.recv(), if args.tty => {
                let _ = send.send(input(Input::Resize(window_size()))).await;
            }
            kind = next_signal(&mut signals) => {
                if !has_key(kind) {
                    drop(raw);
                    return Ok(u8::try_from(128 + kind.as_raw_value()).unwrap_or(u8::MAX));
                }
                let _ = send.send(input(Input::Signal(kind.as_raw_value()))).await;
            }
        }
    };
    drop(raw);
    match exit.reason.as_str() {
        "oom" => crate::output::note("the program was killed: the agent reached its memory limit"),
        "lost" => return Err(Failure::new(1, "nobody saw how the program ended")),
        _ => {}
    }
    Ok(u8::try_from(exit.code).unwrap_or(u8::MAX))
}

fn input(kind: Input) -> api::ExecInput {
    api::ExecInput { kind: Some(kind) }
}

/// Whether a terminal has a key for it. For the others the session ends: the program gets the SIGHUP of a terminal that is closed.
fn has_key(kind: SignalKind) -> bool {
    [SignalKind::interrupt(), SignalKind::quit()].contains(&kind)
}

/// Waits for ever when signals are not caught.
async fn next_signal(signals: &mut Option<Signals>) -> SignalKind {
    match signals {
        Some(signals) => signals.next().await,
        None => std::future::pending().await,
    }
}

/// What was typed; an empty chunk is the end. Waits for ever when stdin is not passed on.
async fn next_chunk(typed: &mut Option<mpsc::Receiver<Vec<u8>>>) -> Vec<u8> {
    match typed {
        Some(typed) => typed.recv().await.unwrap_or_default(),
        None => std::future::pending().await,
    }
}
