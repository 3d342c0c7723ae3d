//! What aiond tells over its API. A daemon that is away is told of in each part that only it could have filled.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::time::{Duration, Instant};

use aion_client::{Client, api};
use serde::Serialize;
use serde_json::{Value, json};

use super::super::host_files::look;
use super::bundle::{Body, Found, Limits, Piece};
use crate::view::agent::AgentView;
use crate::view::host::CheckView;
use crate::view::queue::QueuesView;
use crate::when::Moment;

/// Records and tasks a page.
const PAGE: u32 = 500;
/// A log that is read through for longer is counted in part.
const COUNTING: Duration = Duration::from_secs(30);
/// Reading a whole audit log and its signatures takes its time.
const VERIFY: Limits = Limits { time: Duration::from_secs(180), bytes: 1 << 20 };

/// The daemon, or why there is none.
pub(super) type Asked = Result<Client, String>;

/// What is asked of it.
pub(super) fn pieces(daemon: &Asked, since: Moment, agents: &[String]) -> Vec<Piece> {
    let (of_list, of_each, of_kinds) = (agents.to_vec(), agents.to_vec(), agents.to_vec());
    vec![
        Piece::new("versions.json", Limits::SMALL, versions(daemon.clone())),
        Piece::new("doctor.json", Limits::SMALL, doctor(daemon.clone())),
        ask(daemon, "agents/list.json", Limits::LARGE, move |client| list(client, of_list)),
        ask(daemon, "agents/inspect.json", Limits::LARGE, move |client| inspect(client, of_each)),
        ask(daemon, "tasks.json", Limits::LARGE, tasks),
        ask(daemon, "audit/verify.json", VERIFY, verify),
        ask(daemon, "audit/kinds.json", Limits::LARGE, move |client| kinds(client, since, of_kinds)),
    ]
}

fn ask<F>(daemon: &Asked, name: &str, limits: Limits, call: impl FnOnce(Client) -> F) -> Piece
where
    F: Future<Output = Found> + 'static,
{
    match daemon {
        Ok(client) => Piece::new(name, limits, call(client.clone())),
        Err(why) => Piece::absent(name, why),
    }
}

/// What a failure of the client's says, with its code.
pub(super) fn told(error: &aion_client::Error) -> String {
    format!("{error} ({})", error.code().as_str())
}

async fn versions(daemon: Asked) -> Found {
    let answer = match daemon {
        Ok(client) => client.version(api::VersionRequest {}).await.map_err(|error| told(&error)),
        Err(why) => Err(why),
    };
    let daemons = match answer {
        Ok(answer) => json!({
            "version": answer.version,
            "launcher": answer.launcher_version,
            "uptime_s": answer.uptime_s,
        }),
        Err(why) => json!({ "error": why }),
    };
    Ok(Body::Json(json!({ "aionctl": env!("CARGO_PKG_VERSION"), "aiond": daemons })))
}

/// As `aionctl doctor`: the daemons know best; without them, what files tell from here.
async fn doctor(daemon: Asked) -> Found {
    let answer = match daemon {
        Ok(client) => client.doctor(api::DoctorRequest {}).await.map_err(|error| told(&error)),
        Err(why) => Err(why),
    };
    let (kernel, checks, why): (_, Vec<CheckView>, _) = match answer {
        Ok(answer) => (Some(answer.kernel), answer.checks.into_iter().map(CheckView::from).collect(), None),
        Err(why) => (None, look(Path::new("/")), Some(why)),
    };
    Ok(Body::Json(json!({ "kernel": kernel, "daemon": why.is_none(), "why": why, "checks": checks })))
}

async fn list(client: Client, agents: Vec<String>) -> Found {
    let request = api::ListRequest { page_size: 1000, ..Default::default() };
    let found = client.list(request).await.map_err(|error| told(&error))?;
    let wanted = |agent: &api::Agent| {
        agents.is_empty() || agents.iter().any(|text| *text == agent.name || *text == agent.id)
    };
    let views = found.into_iter().filter(wanted).map(AgentView::from);
    document(&views.collect::<Vec<_>>())
}

/// Each with its manifest, of which the redactor takes the values of `env`.
async fn inspect(client: Client, mut agents: Vec<String>) -> Found {
    if agents.is_empty() {
        let request = api::ListRequest { page_size: 1000, ..Default::default() };
        let found = client.list(request).await.map_err(|error| told(&error))?;
        agents = found.into_iter().map(|agent| agent.id).collect();
    }
    let mut views = Vec::with_capacity(agents.len());
    for agent in agents {
        views.push(match client.get(api::GetRequest { agent: agent.clone() }).await {
            Ok(found) => serde_json::to_value(AgentView::from(found)).map_err(|error| error.to_string())?,
            // It may have been removed meanwhile; the others are there.
            Err(error) => json!({ "agent": agent, "error": told(&error) }),
        });
    }
    Ok(Body::Json(Value::Array(views)))
}

/// How many there are in each state, and how the queues are; what they are about stays where it is.
async fn tasks(client: Client) -> Found {
    let queues = client.queues(api::QueuesRequest {}).await.map_err(|error| told(&error))?;
    let mut states: BTreeMap<String, u64> = BTreeMap::new();
    let mut request = api::ListTasksRequest { page_size: PAGE, ..Default::default() };
    let begun = Instant::now();
    let complete = loop {
        let page = client.tasks_page(request.clone()).await.map_err(|error| told(&error))?;
        for task in page.tasks {
            *states.entry(task.state).or_default() += 1;
        }
        if page.next_page_token.is_empty() {
            break true;
        }
        if begun.elapsed() > COUNTING || page.next_page_token == request.page_token {
            break false;
        }
        request.page_token = page.next_page_token;
    };
    document(&json!({
        "queues": QueuesView::from(queues),
        "states": states,
        "all_counted": complete,
    }))
}

async fn verify(client: Client) -> Found {
    let answer = client.verify(api::VerifyRequest::default()).await.map_err(|error| told(&error))?;
    let faults = answer
        .faults
        .into_iter()
        .map(|fault| json!({ "segment": fault.segment, "seq": fault.seq, "what": fault.what }));
    document(&json!({
        "ok": answer.ok,
        "records": answer.records,
        "segments": answer.segments,
        "first_seq": answer.first_seq,
        "last_seq": answer.last_seq,
        "notes": answer.notes,
        "faults": faults.collect::<Vec<_>>(),
    }))
}

/// How many records of each kind: what happened, and not to what.
async fn kinds(client: Client, since: Moment, agents: Vec<String>) -> Found {
    let filter = api::Filter { agents, since: Some(since.to_api()), ..Default::default() };
    let mut kinds: BTreeMap<String, u64> = BTreeMap::new();
    let mut after_seq = 0;
    let begun = Instant::now();
    let complete = loop {
        let request = api::QueryRequest {
            filter: Some(filter.clone()),
            after_seq,
            page_size: PAGE,
            ..Default::default()
        };
        let page = client.query(request).await.map_err(|error| told(&error))?;
        for record in page.records {
            *kinds.entry(record.kind).or_default() += 1;
        }
        if !page.more || page.next_after_seq <= after_seq {
            break true;
        }
        if begun.elapsed() > COUNTING {
            break false;
        }
        after_seq = page.next_after_seq;
    };
    // No object with kinds for keys: some have the names of secrets.
    let kinds = kinds.into_iter().map(|(kind, count)| json!({ "kind": kind, "count": count }));
    document(&json!({
        "since": since.rfc3339(),
        "all_counted": complete,
        "kinds": kinds.collect::<Vec<_>>(),
    }))
}

fn document<T: Serialize + ?Sized>(view: &T) -> Found {
    serde_json::to_value(view).map(Body::Json).map_err(|error| error.to_string())
}
