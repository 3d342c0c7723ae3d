//! `run`: a program as a new agent, with this process standing for it: its output comes out here, signals go to it,
//! and its exit code becomes this one's. The agent does not hang on this process or on aiond: when aiond is away,
//! this waits for it and goes on where it was.

use std::time::Duration;

use aion_client::{Client, Error, Options, api};
use aion_types::ErrorCode;
use tokio::time::Instant;

use super::forward::{Forwarder, Next};
use super::signals::Signals;
use super::sync_output::To;
use super::target::environment;
use super::tty;
use crate::cli::RunArgs;
use crate::failure::{Failure, NOT_EXECUTABLE, NOT_FOUND, Outcome, RUN_ERROR};
use crate::output::{Printer, lines, note};
use crate::synth::{COMMAND_LINE, Manifest, manifest};

/// How many random names are tried.
const NAME_ATTEMPTS: u32 = 8;
/// SIGKILL as a shell shows it.
const KILLED: u8 = 137;

pub(super) async fn run(options: Options, args: RunArgs, printer: Printer) -> Outcome {
    attempt(options, args, printer).await.map_err(|failure| {
        let exit = match failure.exit {
            // The reader of our output has gone; there is nothing to add.
            141 => 141,
            _ if failure.is(ErrorCode::CommandNotFound) => NOT_FOUND,
            _ if failure.is(ErrorCode::CommandNotExecutable) => NOT_EXECUTABLE,
            _ => RUN_ERROR,
        };
        failure.exiting(exit)
    })
}

async fn attempt(options: Options, args: RunArgs, printer: Printer) -> Outcome {
    let overrides = overrides(&args)?;
    let manifest = manifest(&args)?;
    // From here on a signal is the agent's, also one that comes before it runs.
    let signals = if args.detach { None } else { Some(Signals::catch()?) };
    let client = Client::connect(options).await?;
    let agent = register(&client, manifest, overrides, args.name.is_none() && args.file.is_none()).await?;
    let start = api::StartRequest { agent: agent.id.clone(), ..Default::default() };
    let agent = match client.start(start).await {
        Ok(agent) => agent,
        Err(error) => {
            // What was registered for this run alone is not left behind.
            let remove = api::RemoveRequest { agent: agent.id, force: true, ..Default::default() };
            if !error.is_disconnect() {
                let _ = client.remove(remove).await;
            }
            return Err(error.into());
        }
    };
    let Some(signals) = signals else {
        if printer.is_human() {
            lines([agent.id])?;
        } else {
            let name = agent.name.clone();
            printer.document(&crate::view::agent::AgentView::from(agent), &name, String::new)?;
        }
        return Ok(0);
    };
    stay(&client, agent, signals, &args).await
}

fn overrides(args: &RunArgs) -> Outcome<api::Overrides> {
    let workspace = match &args.workspace {
        None => String::new(),
        Some(dir) => {
            let wrong = |why: String| {
                Failure::coded(ErrorCode::WorkspaceInvalid, format!("--workspace {}: {why}", dir.display()))
            };
            let whole = dir.canonicalize().map_err(|error| wrong(error.to_string()))?;
            if !whole.is_dir() {
                return Err(wrong("it is no folder".to_owned()));
            }
            whole.into_os_string().into_string().map_err(|_| wrong("its path is not UTF-8".to_owned()))?
        }
    };
    let (rows, cols) = crate::terminal::size(&std::io::stdout()).unwrap_or((24, 80));
    Ok(api::Overrides {
        name: args.name.clone().unwrap_or_default(),
        argv: args.command.clone(),
        workspace,
        env: environment(&args.env)?.into_iter().collect(),
        tty: args.tty,
        rows: if args.tty { u32::from(rows) } else { 0 },
        cols: if args.tty { u32::from(cols) } else { 0 },
        auto_remove: args.rm && args.detach,
        labels: args.labels.iter().cloned().collect(),
    })
}

async fn register(
    client: &Client,
    manifest: Manifest,
    mut overrides: api::Overrides,
    random_name: bool,
) -> Outcome<api::Agent> {
    let mut attempt = 0;
    loop {
        if random_name {
            let mut random = [0u8; 3];
            getrandom::fill(&mut random)
                .map_err(|error| Failure::new(RUN_ERROR, format!("no randomness for a name: {error}")))?;
            overrides.name = crate::names::propose(random, attempt);
        }
        let request = api::RegisterRequest {
            manifest: manifest.bytes.clone(),
            manifest_name: manifest.name.clone(),
            signature: manifest.signature.clone(),
            overrides: Some(overrides.clone()),
            ..Default::default()
        };
        attempt += 1;
        match client.register(request).await {
            Err(error) if random_name && error.code() == ErrorCode::NameTaken && attempt < NAME_ATTEMPTS => {}
            // Lines of a manifest that nobody wrote would help nobody.
            other => return other.map_err(|error| Failure::from(error).without_places(COMMAND_LINE)),
        }
    }
}

/// Stands for the agent until it ends.
async fn stay(client: &Client, agent: api::Agent, mut signals: Signals, args: &RunArgs) -> Outcome {
    let ended = if agent.tty {
        match tty::attach(client, &agent, &mut signals).await? {
            tty::End::Exited => {
                client.wait(api::WaitRequest { agent: agent.id.clone(), timeout: None }).await?
            }
            tty::End::Detached => {
                let name = &agent.name;
                note(&format!(
                    "\r\ndetached; {name} runs on: `aionctl logs -f {name}`, `aionctl stop {name}`"
                ));
                return Ok(0);
            }
        }
    } else {
        follow(client, &agent, &mut signals).await?
    };
    if args.rm {
        let remove = api::RemoveRequest { agent: agent.id, ..Default::default() };
        match client.remove(remove).await {
            Ok(_) => {}
            Err(error) if error.code() == ErrorCode::AgentNotFound => {}
            Err(error) => note(&format!("warning: {} could not be removed: {error}", agent.name)),
        }
    }
    ending(&ended)
}

/// Passes output and signals on until the agent has ended and all of its output was written.
async fn follow(client: &Client, agent: &api::Agent, signals: &mut Signals) -> Outcome<api::Agent> {
    let id = &agent.id;
    let mut output = client.logs(api::LogsRequest { agent: id.clone(), follow: true, ..Default::default() });
    let wait = client.wait(api::WaitRequest { agent: id.clone(), timeout: None });
    let mut wait = std::pin::pin!(wait);
    let mut ended: Option<aion_client::Result<api::Agent>> = None;
    let mut open = true;
    let mut forwarder = Forwarder::new(client, id);
    let mut watch = tokio::time::interval(Duration::from_secs(1));
    let mut away = Away::default();
    while open || ended.is_none() {
        tokio::select! {
            chunk = output.next(), if open => match chunk {
                Ok(Some(chunk)) => {
                    if chunk.lost_bytes > 0 {
                        note(&format!("note: {} bytes of output are gone: the size limit", chunk.lost_bytes));
                    }
                    if let Err(error) = To::of(chunk.stream).write(&chunk.data) {
                        stop(client, id).await;
                        return Err(error.into());
                    }
                }
                Ok(None) => open = false,
                Err(error) if error.code() == ErrorCode::AgentNotFound && ended.is_some() => open = false,
                Err(error) => return Err(left(error, &agent.name)),
            },
            result = &mut wait, if ended.is_none() => ended = Some(result),
            kind = signals.next() => match forwarder.signal(kind) {
                Next::Stay => {}
                Next::Leave => {
                    let hint = format!("`aionctl ps` shows it, `aionctl kill {}` ends it", agent.name);
                    let message = format!("left {} while it runs", agent.name);
                    return Err(Failure::new(RUN_ERROR, message).hint(hint));
                }
            },
            _ = watch.tick() => away.look(client, &agent.name),
        }
    }
    match ended {
        Some(Ok(agent)) => Ok(agent),
        Some(Err(error)) => Err(left(error, &agent.name)),
        None => Err(Failure::coded(ErrorCode::Internal, "the wait ended without an end")),
    }
}

/// Says once that the daemon is away, and once that it is back.
#[derive(Default)]
struct Away {
    since: Option<Instant>,
    told: bool,
}

impl Away {
    fn look(&mut self, client: &Client, name: &str) {
        if !client.is_away() {
            if std::mem::take(self).told {
                note(&format!("note: aiond is back; {name} went on meanwhile"));
            }
            return;
        }
        let since = *self.since.get_or_insert_with(Instant::now);
        if !self.told && since.elapsed() >= Duration::from_secs(2) {
            self.told = true;
            note(&format!("note: aiond is away; {name} goes on, its output comes when aiond is back"));
        }
    }
}

/// A failure that leaves the agent to itself.
fn left(error: Error, name: &str) -> Failure {
    let disconnected = error.is_disconnect();
    let failure = Failure::from(error);
    if disconnected {
        return failure
            .hint(format!("{name} goes on; `aionctl logs -f {name}` follows it when aiond is back"));
    }
    failure
}

/// Ends an agent whose output nobody reads any more, as a shell's pipeline does.
async fn stop(client: &Client, id: &str) {
    let grace = Some(aion_client::duration(Duration::from_secs(2)));
    let request = api::StopRequest { agent: id.to_owned(), grace, ..Default::default() };
    // It may have ended by itself.
    let _ = client.stop(request).await;
}

/// The exit status, and on stderr what the status alone does not say.
fn ending(agent: &api::Agent) -> Outcome {
    let name = &agent.name;
    let Some(exit) = &agent.exit else {
        let why = if agent.message.is_empty() { "it has no exit code" } else { &agent.message };
        return Err(Failure::new(RUN_ERROR, format!("{name} did not run: {why}")));
    };
    let code = u8::try_from(exit.code).unwrap_or(u8::MAX);
    let code = |killed: bool| if killed && code == 0 { KILLED } else { code };
    match exit.reason.as_str() {
        "oom" => {
            note(&format!("{name} was killed: it reached its memory limit"));
            Ok(code(true))
        }
        "timeout" => {
            note(&format!("{name} was killed: it reached its time limit"));
            Ok(code(true))
        }
        "killed" => {
            note(&format!("{name} was stopped"));
            Ok(code(true))
        }
        "lost" => {
            Err(Failure::new(RUN_ERROR, format!("nobody saw how {name} ended: the host went down under it")))
        }
        _ => Ok(code(false)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(code: i32, signal: i32, reason: &str) -> api::Agent {
        let exit = Some(api::Exit { code, signal, reason: reason.to_owned() });
        api::Agent { name: "x".to_owned(), exit, ..Default::default() }
    }

    #[test]
    fn the_childs_code_is_ours() {
        for (agent, expected) in [
            (ended(0, 0, "exited"), 0),
            (ended(3, 0, "exited"), 3),
            (ended(143, 15, "signaled"), 143),
            (ended(137, 9, "oom"), 137),
            (ended(0, 0, "timeout"), 137),
            (ended(137, 9, "killed"), 137),
        ] {
            assert_eq!(ending(&agent).expect("a code"), expected, "{agent:?}");
        }
        assert_eq!(ending(&ended(0, 0, "lost")).expect_err("lost").exit, 125);
        assert_eq!(ending(&api::Agent::default()).expect_err("none").exit, 125);
    }
}
