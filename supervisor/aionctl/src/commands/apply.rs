//! `apply`: what the manifests say is what runs. An agent that runs as its manifest says is left alone; one that
//! does not is replaced and started.

use std::time::Duration;

use aion_client::{Client, api, duration};
use aion_types::{AgentName, ErrorCode};
use serde::Serialize;

use super::target::each;
use crate::cli::ApplyArgs;
use crate::failure::{Failure, Outcome};
use crate::output::{Printer, lines};
use crate::source::{Source, check};
use crate::view::agent::{AgentView, is_live};

/// What was done.
#[derive(Serialize)]
struct Applied {
    /// created, configured or unchanged.
    result: &'static str,
    agent: AgentView,
}

pub(super) async fn apply(client: &Client, args: &ApplyArgs, printer: Printer) -> Outcome {
    let files: Vec<String> = args.files.iter().map(|path| path.display().to_string()).collect();
    each(&files, async |file| {
        let start = !args.no_start && args.instance.is_none();
        let applied =
            one(client, Source::read(file.as_ref())?, args.instance.as_deref(), start, false).await?;
        if printer.is_human() {
            return lines([format!("{} {}", applied.agent.name, applied.result)]);
        }
        printer.document(&applied, &applied.agent.name, String::new)
    })
    .await
}

/// Makes an agent what a manifest says, and starts it. `anew`: also what runs as its manifest says, because what that names has
/// changed. Gives what was done, in a word.
pub(super) async fn to_be(client: &Client, source: Source, anew: bool) -> Outcome<&'static str> {
    one(client, source, None, true, anew).await.map(|applied| applied.result)
}

async fn one(
    client: &Client,
    source: Source,
    instance: Option<&str>,
    start: bool,
    anew: bool,
) -> Outcome<Applied> {
    if let Some(name) = instance {
        AgentName::parse(name).map_err(|error| Failure::new(2, format!("--as: {error}")))?;
    }
    // Here first: a manifest that cannot be used does not even stop what runs.
    let overrides =
        aion_manifest::Overrides { name: instance.map(str::to_owned), ..aion_manifest::Overrides::default() };
    let spec = check(&source, overrides)?;
    let name = spec.name.as_str().to_owned();
    let before = match client.get(api::GetRequest { agent: name.clone() }).await {
        Ok(agent) => Some(agent),
        Err(error) if error.code() == ErrorCode::AgentNotFound => None,
        Err(error) => return Err(error.into()),
    };
    let Source { bytes: manifest, name: manifest_name, signature } = source;
    let request = api::ValidateRequest {
        manifest: manifest.clone(),
        manifest_name: manifest_name.clone(),
        signature: signature.clone(),
        // What could not be launched stops nothing.
        with_profile: start,
        ..Default::default()
    };
    let valid = client.validate(request).await?;
    if let Some(agent) = before.as_ref().filter(|agent| is_live(&agent.state)) {
        // Signed by another key it is another one: the one before may be trusted no more.
        let same = agent.manifest_yaml == valid.normalised_yaml && agent.signed_by == valid.signed_by;
        if same && !anew {
            return Ok(Applied { result: "unchanged", agent: AgentView::from(agent.clone()) });
        }
        if !start {
            let message = format!("agent {name} runs, and its manifest has changed; nothing was done");
            let hint = "stop it first; without --no-start `apply` stops it and starts it anew";
            return Err(Failure::coded(ErrorCode::AgentRunning, message).hint(hint));
        }
        let grace = Some(duration(Duration::from_millis(spec.stop_grace_ms)));
        let stop = api::StopRequest { agent: agent.id.clone(), grace, ..Default::default() };
        match client.stop(stop).await {
            Ok(_) => {}
            Err(error) if error.code() == ErrorCode::AgentNotRunning => {}
            Err(error) => return Err(error.into()),
        }
    }
    let overrides = instance.map(|name| api::Overrides { name: name.to_owned(), ..Default::default() });
    let register = api::RegisterRequest {
        manifest,
        manifest_name,
        overrides,
        replace: true,
        signature,
        ..Default::default()
    };
    let agent = client.register(register).await?;
    let agent = if start {
        client.start(api::StartRequest { agent: agent.id, ..Default::default() }).await?
    } else {
        agent
    };
    let result = if before.is_some() { "configured" } else { "created" };
    Ok(Applied { result, agent: AgentView::from(agent) })
}
