//! `run --tty`: this terminal as the agent's. Raw mode is undone whatever happens; ctrl-p ctrl-q leaves the agent
//! running; when aiond was away, the terminal is taken again.

use aion_client::api::attach_input::Kind as Input;
use aion_client::api::attach_output::Kind as Output;
use aion_client::{Client, api};
use aion_types::ErrorCode;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::forward::{Forwarder, Next};
use super::signals::{Signals, window_changes};
use super::sync_output::To;
use crate::failure::{Failure, Outcome, RUN_ERROR};
use crate::terminal::{DetachKeys, Raw, read_stdin, size};

/// End of file, as the terminal's line discipline reads it.
const EOT: u8 = 0x04;

/// How it ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    Exited,
    Detached,
}

pub(super) async fn attach(client: &Client, agent: &api::Agent, signals: &mut Signals) -> Outcome<End> {
    let raw = Raw::enter();
    let mut typed = read_stdin();
    let mut typing = true;
    let mut keys = DetachKeys::default();
    let mut window = window_changes()?;
    let mut forwarder = Forwarder::new(client, &agent.id);
    loop {
        let (send, receive) = mpsc::channel(64);
        // The channel is empty and has room for both.
        let _ = send.try_send(input(Input::Agent(agent.id.clone())));
        let _ = send.try_send(input(Input::Resize(window_size())));
        let mut output = match client.attach(ReceiverStream::new(receive)).await {
            Ok(output) => output,
            Err(error) if error.is_disconnect() => {
                client.reconnected(error).await?;
                continue;
            }
            // It ended before we came.
            Err(error) if error.code() == ErrorCode::AgentNotRunning => return Ok(End::Exited),
            Err(error) => return Err(error.into()),
        };
        let broken = loop {
            tokio::select! {
                message = client.next(&mut output) => match message {
                    Ok(Some(api::AttachOutput { kind: Some(Output::Data(data)) })) => To::Stdout.write(&data)?,
                    Ok(Some(api::AttachOutput { kind: Some(Output::Exit(_)) })) => return Ok(End::Exited),
                    Ok(Some(api::AttachOutput { kind: None })) => {}
                    // A daemon that shuts down ends the stream without an exit.
                    Ok(None) => break None,
                    Err(error) if error.is_disconnect() => break Some(error),
                    Err(error) => return Err(error.into()),
                },
                chunk = typed.recv(), if typing => {
                    let chunk = chunk.unwrap_or_default();
                    typing = !chunk.is_empty();
                    let (pass, detach) = if typing { keys.filter(&chunk) } else { (vec![EOT], false) };
                    if !pass.is_empty() {
                        // A closed channel shows as the stream's end.
                        let _ = send.send(input(Input::Stdin(pass))).await;
                    }
                    if detach {
                        drop(raw);
                        return Ok(End::Detached);
                    }
                },
                _ = window.recv() => {
                    let _ = send.send(input(Input::Resize(window_size()))).await;
                }
                kind = signals.next() => if forwarder.signal(kind) == Next::Leave {
                    return Err(Failure::new(RUN_ERROR, format!("left {} while it runs", agent.name)));
                },
            }
        };
        match broken {
            Some(error) => client.reconnected(error).await?,
            None => {
                let now = client.get(api::GetRequest { agent: agent.id.clone() }).await?;
                if !crate::view::agent::is_live(&now.state) {
                    return Ok(End::Exited);
                }
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

fn input(kind: Input) -> api::AttachInput {
    api::AttachInput { kind: Some(kind) }
}

/// The size of this terminal; what is none passes for the usual one.
pub(super) fn window_size() -> api::Winsize {
    let (rows, cols) = size(&std::io::stdout()).unwrap_or((24, 80));
    api::Winsize { rows: u32::from(rows), cols: u32::from(cols) }
}
