//! Attach: the terminal of an agent that was started with one. Input goes to the pty's master, output comes from the
//! journal (aion-init reads the pty), so that an attached client takes nothing from the log and a detached one misses
//! nothing.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aion_api_proto::v1 as api;
use aion_api_proto::v1::attach_input::Kind as Input;
use aion_api_proto::v1::attach_output::Kind as Out;
use aion_types::{AgentId, ErrorCode};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::convert;
use crate::core::Core;
use crate::launch::Size;
use crate::lifecycle::{self, Command};
use crate::logs::Answers;
use crate::output::{Begin, Following};
use crate::principal::Principal;
use crate::problem::{Outcome, Problem};
use crate::stage::Action;
use crate::terminal::End;
use crate::trail::Entry;

/// What a client that comes later is shown of the past.
const REPLAY: usize = 64 << 10;
const AHEAD: usize = 8;
const FIRST: Duration = Duration::from_secs(10);

/// Agents whose terminal somebody has.
#[derive(Default, Clone)]
pub(crate) struct Attached(Arc<Mutex<HashSet<AgentId>>>);

/// The only client on a terminal.
struct Place {
    attached: Attached,
    id: AgentId,
}

impl Attached {
    fn take(&self, id: &AgentId, name: &str) -> Outcome<Place> {
        if self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone()) {
            return Ok(Place { attached: self.clone(), id: id.clone() });
        }
        Err(Problem::new(ErrorCode::ResourceExhausted, format!("somebody else has the terminal of {name}"))
            .with("agent", id.as_str())
            .hint("one client at a time; `aionctl logs -f` shows the output to any number"))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.attached.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

impl Core {
    pub(crate) async fn attach(
        self: Arc<Self>,
        principal: Principal,
        mut input: Streaming<api::AttachInput>,
    ) -> Result<Answers<api::AttachOutput>, Status> {
        let agent = match timeout(FIRST, input.message()).await {
            Ok(Ok(Some(api::AttachInput { kind: Some(Input::Agent(agent)) }))) => agent,
            Ok(Err(status)) => return Err(status),
            _ => return Err(Problem::field("agent", "the first message must name the agent").into()),
        };
        let permit = self.stream_permit()?;
        let mut id = String::new();
        let outcome = self.begin_attach(&principal, &agent, &mut id).await;
        let entry = Entry {
            principal: &principal,
            kind: Action::Attach.kind(),
            agent: &id,
            detail: json!({"name": agent}),
        };
        self.trail.record(entry, outcome.as_ref().map(|_| ())).await;
        let (place, terminal, mut following) = outcome?;
        let (send, receive) = mpsc::channel(AHEAD);
        tokio::spawn(async move {
            let _kept = (permit, &place);
            let show = async {
                while let Some(chunks) = following.next().await? {
                    for chunk in chunks {
                        let kind = Some(Out::Data(chunk.data));
                        if send.send(Ok(api::AttachOutput { kind })).await.is_err() {
                            return Ok(());
                        }
                    }
                }
                Ok::<_, Problem>(())
            };
            let typed = async {
                type_into(input, &terminal).await;
                // A client that types no more may still look on.
                std::future::pending::<()>().await;
            };
            let end = tokio::select! {
                shown = show => shown.map_err(Status::from),
                () = typed => return,
                () = send.closed() => return,
                () = self.shutdown.cancelled() => Err(Self::going_down()),
            };
            let end = end.map(|()| {
                let record = self.agents.find(principal.tenant(), place.id.as_str()).ok();
                let exit = record.and_then(|record| record.exit).map(|ended| convert::exit(ended.exit));
                api::AttachOutput { kind: Some(Out::Exit(exit.unwrap_or_default())) }
            });
            let _ = send.send(end).await;
        });
        Ok(Box::pin(ReceiverStream::new(receive)))
    }

    async fn begin_attach(
        self: &Arc<Self>,
        principal: &Principal,
        agent: &str,
        id: &mut String,
    ) -> Outcome<(Place, End, Following)> {
        let record = self.agents.find(principal.tenant(), agent)?;
        record.id.as_str().clone_into(id);
        if !record.tty {
            let message = format!("{} has no terminal", record.name);
            return Err(Problem::new(ErrorCode::InvalidField, message)
                .with("field", "agent")
                .hint("start it with --tty, or read it with `aionctl logs -f`"));
        }
        lifecycle::check(&record, Command::Signal)?;
        let place = self.attached.take(&record.id, record.name.as_str())?;
        let master = self.launcher.open_tty(record.id.as_str()).await?;
        let terminal =
            End::new(master).map_err(|error| Problem::internal("cannot use the terminal", &error))?;
        let following = Following::new(Arc::clone(self), &record, Begin::LastBytes(REPLAY), 0, true);
        Ok((place, terminal, following))
    }
}

async fn type_into(mut input: Streaming<api::AttachInput>, terminal: &End) {
    while let Ok(Some(message)) = input.message().await {
        let result = match message.kind {
            Some(Input::Stdin(bytes)) => terminal.write_all(&bytes).await,
            Some(Input::Resize(size)) => terminal.resize(Size::new(size.rows, size.cols)),
            Some(Input::Agent(_)) | None => Ok(()),
        };
        if result.is_err() {
            return;
        }
    }
}
