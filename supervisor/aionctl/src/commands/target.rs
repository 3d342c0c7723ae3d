//! Agents as users name them: by name, by id, or by a piece of an id; several at once; and nearly right.

use std::collections::BTreeMap;
use std::future::Future;

use aion_client::{Client, Error, api};
use aion_types::ErrorCode;

use crate::failure::{Failure, Outcome};
use crate::output::{Printer, report};
use crate::text::nearest;

/// The shortest piece of an id that is looked for.
const SHORTEST: usize = 4;

/// Calls for the agent that `text` names. When there is none, a piece of an id is completed, or else the error says
/// what may have been meant.
pub(crate) async fn on_agent<T, F>(client: &Client, text: &str, call: impl Fn(String) -> F) -> Outcome<T>
where
    F: Future<Output = aion_client::Result<T>>,
{
    let error = match call(text.to_owned()).await {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    // Upper-case text is no valid name, so the daemon may refuse a piece of an id as a bad field.
    if !matches!(error.code(), ErrorCode::AgentNotFound | ErrorCode::InvalidField) {
        return Err(error.into());
    }
    let agents = client.list(api::ListRequest { page_size: 1000, ..Default::default() }).await?;
    match complete(text, &agents) {
        Some(id) => Ok(call(id).await?),
        None => Err(unknown(text, error, &agents)),
    }
}

/// The id that begins or ends with `text`, when there is exactly one.
fn complete(text: &str, agents: &[api::Agent]) -> Option<String> {
    if text.len() < SHORTEST {
        return None;
    }
    let text = text.to_ascii_uppercase();
    let mut found = agents.iter().filter(|agent| agent.id.starts_with(&text) || agent.id.ends_with(&text));
    let first = found.next()?;
    found.next().is_none().then(|| first.id.clone())
}

fn unknown(text: &str, error: Error, agents: &[api::Agent]) -> Failure {
    let failure = Failure::from(error);
    match nearest(text, agents.iter().map(|agent| agent.name.as_str())) {
        Some(name) => failure.hint(format!("did you mean {name:?}?")),
        None if agents.is_empty() => failure.hint("there are no agents; `aionctl run -- CMD` starts one"),
        None => failure.hint("`aionctl ps -a` lists all agents"),
    }
}

/// Calls for each agent in turn; a failure is reported and does not keep the others from their turn. The exit status
/// is the highest of theirs.
pub(crate) async fn each<F>(agents: &[String], call: impl Fn(String) -> F) -> Outcome
where
    F: Future<Output = Outcome<()>>,
{
    let mut worst = 0;
    for agent in agents {
        if let Err(failure) = call(agent.clone()).await {
            if agents.len() == 1 {
                return Err(failure);
            }
            worst = worst.max(failure.exit);
            report(&failure.about(agent));
        }
    }
    Ok(worst)
}

/// As [`each`], for agents that a listing gave: one that came to its end meanwhile needs nothing to be done to it.
pub(crate) async fn each_listed<F>(agents: &[String], listed: bool, call: impl Fn(String) -> F) -> Outcome
where
    F: Future<Output = Outcome<()>>,
{
    let gone = [ErrorCode::AgentNotFound, ErrorCode::AgentNotRunning];
    let call = &call;
    each(agents, async |agent| match call(agent).await {
        Err(failure) if listed && gone.iter().any(|&code| failure.is(code)) => Ok(()),
        outcome => outcome,
    })
    .await
}

/// As [`each`], without waiting for anything.
pub(crate) fn each_sync(items: &[String], mut call: impl FnMut(&str) -> Outcome<()>) -> Outcome {
    let mut worst = 0;
    for item in items {
        if let Err(failure) = call(item) {
            if items.len() == 1 {
                return Err(failure);
            }
            worst = worst.max(failure.exit);
            report(&failure.about(item));
        }
    }
    Ok(worst)
}

/// The agents that were named, or all in one of `states` (all at all when there are none).
pub(crate) async fn named_or_all(
    client: &Client,
    agents: Vec<String>,
    all: bool,
    states: &[&str],
) -> Outcome<Vec<String>> {
    if !all {
        return Ok(agents);
    }
    let states = states.iter().map(|&state| state.to_owned()).collect();
    let request = api::ListRequest { page_size: 1000, states, ..Default::default() };
    Ok(client.list(request).await?.into_iter().map(|agent| agent.name).collect())
}

/// Tells that something was done to an agent: its name as it was given, or the agent itself in the formats for programs.
pub(crate) fn done(printer: Printer, text: &str, agent: api::Agent) -> Outcome<()> {
    if printer.is_human() || printer.format == crate::cli::Format::Name {
        return crate::output::lines([text.to_owned()]);
    }
    let view = crate::view::agent::AgentView::from(agent);
    printer.document(&view, text, String::new)
}

/// NAME=VALUE as given, and NAME alone with its value from here; an unset one is left out, as podman does.
pub(crate) fn environment(given: &[String]) -> Outcome<BTreeMap<String, String>> {
    let mut env = BTreeMap::new();
    for text in given {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text.as_str(), std::env::var(text).ok()),
        };
        if name.is_empty() || name.contains('\0') {
            let message = format!("--env {text:?}: write NAME=VALUE, or NAME for its value here");
            return Err(Failure::new(crate::failure::USAGE, message));
        }
        if let Some(value) = value {
            env.insert(name.to_owned(), value);
        }
    }
    Ok(env)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agents() -> Vec<api::Agent> {
        ["01JD5Z0000ABCDEFGHJKMNPQRS", "01JD5Z0000ABCDEFGHJKMNPQRT"]
            .map(|id| api::Agent { id: id.to_owned(), name: "x".to_owned(), ..Default::default() })
            .to_vec()
    }

    #[test]
    fn a_piece_of_an_id_is_enough_when_it_is_unique() {
        assert_eq!(complete("NPQRS", &agents()).as_deref(), Some("01JD5Z0000ABCDEFGHJKMNPQRS"));
        assert_eq!(complete("npqrt", &agents()).as_deref(), Some("01JD5Z0000ABCDEFGHJKMNPQRT"));
        assert_eq!(complete("01JD5Z", &agents()), None);
        assert_eq!(complete("QRS", &agents()), None);
    }

    #[test]
    fn environment_variables() {
        let given = ["A=1".to_owned(), "B=x=y".to_owned(), "AION_NO_SUCH_VARIABLE".to_owned()];
        let env = environment(&given).expect("valid");
        assert_eq!(
            env.into_iter().collect::<Vec<_>>(),
            [("A".into(), "1".into()), ("B".into(), "x=y".into())]
        );
        assert!(environment(&["=1".to_owned()]).is_err());
    }
}
