//! Tasks through AION's API: batches over SubmitStream, or a call for each; one agent at its door ends them.

use std::collections::HashMap;
use std::sync::Arc;

use aion_client::api::to_agent::Kind as To;
use aion_client::{Client, api};
use anyhow::{Context as _, Result, bail};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::agent::{Seat, completion, token};
use super::refusal;
use crate::schedule::Work;
use crate::schedule::load::{Contender, Load, number, params, result};

/// Submission in batches over streams.
pub(crate) struct Streamed {
    /// Makes clients, each with a connection of its own.
    pub(crate) client: Arc<dyn Fn() -> Client + Send + Sync>,
    /// The agent's name.
    pub(crate) agent: String,
    /// Its door.
    pub(crate) seat: Seat,
}

/// Submission with a call for each task.
pub(crate) struct Calls(pub(crate) Streamed);

/// Calls that are under way on one connection.
const CALLS: usize = 8;

fn spec(agent: &str, number: u32) -> api::TaskSpec {
    api::TaskSpec { agent: agent.to_owned(), params_json: params(number), ..api::TaskSpec::default() }
}

async fn stream(client: Client, agent: String, clients: usize, load: Arc<Load>) -> Result<()> {
    let (send, batches) = mpsc::channel(4);
    let mut answers = client.submit_tasks(ReceiverStream::new(batches)).await?;
    while let Some(numbers) = load.next(load.share(clients)).await {
        let mut missing = numbers.len();
        let tasks = numbers.map(|number| spec(&agent, number)).collect();
        send.send(api::SubmitBatch { tasks }).await.context("the stream of tasks is gone")?;
        while missing > 0 {
            let answer = client.next(&mut answers).await?.context("aiond closed the stream of tasks")?;
            refusal(&answer.results)?;
            missing = missing.saturating_sub(answer.results.len());
        }
    }
    Ok(())
}

async fn call(client: Client, agent: String, load: Arc<Load>) -> Result<()> {
    while let Some(numbers) = load.next(1).await {
        for number in numbers {
            let task = Some(spec(&agent, number));
            client.submit_task(api::SubmitRequest { task, ..api::SubmitRequest::default() }).await?;
        }
    }
    Ok(())
}

/// Ends what it is assigned at once; a task counts as ended when aiond says that it is on disk.
async fn serve(seat: Seat, load: Arc<Load>) -> Result<()> {
    let mut door = seat.attach(Vec::new()).await?;
    let mut running = HashMap::new();
    let body = result();
    loop {
        let message = tokio::select! {
            () = load.over() => return Ok(()),
            message = door.next() => message?,
        };
        match message {
            To::Assignments(assignments) => {
                let mut completions = Vec::with_capacity(assignments.assignments.len());
                for one in assignments.assignments {
                    running.insert(token(one.attempt.as_ref())?, number(one.params_json.as_bytes())?);
                    completions.push(completion(one.attempt, &body));
                }
                door.complete(completions).await?;
            }
            To::Recorded(recorded) => {
                let tokens = recorded.attempts.iter().map(|attempt| (attempt.epoch, attempt.seq));
                load.ended(tokens.filter_map(|token| running.remove(&token)));
            }
            To::Refused(refused) => bail!("AION refuses an end: {} {}", refused.code, refused.message),
            _ => {}
        }
    }
}

impl Contender for Streamed {
    fn name(&self) -> &str {
        "AION"
    }

    fn workers(&self) -> usize {
        1
    }

    fn submit(&self, load: Arc<Load>) -> Work {
        Box::pin(stream((self.client)(), self.agent.clone(), self.clients(), load))
    }

    fn work(&self, load: Arc<Load>) -> Work {
        Box::pin(serve(self.seat.clone(), load))
    }
}

impl Contender for Calls {
    fn name(&self) -> &str {
        "AION, a call each"
    }

    fn workers(&self) -> usize {
        1
    }

    fn submit(&self, load: Arc<Load>) -> Work {
        let (client, agent) = ((self.0.client)(), self.0.agent.clone());
        Box::pin(async move {
            let calls =
                (0..CALLS).map(|_| tokio::spawn(call(client.clone(), agent.clone(), Arc::clone(&load))));
            for call in calls.collect::<Vec<_>>() {
                call.await??;
            }
            Ok(())
        })
    }

    fn work(&self, load: Arc<Load>) -> Work {
        self.0.work(load)
    }
}
