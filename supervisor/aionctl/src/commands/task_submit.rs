//! `task submit`: from a file and flags to a task, and its id or its result.

use std::io::{self, Read as _};

use aion_client::{Client, api, duration};
use aion_manifest::{QueueName, Span, TaskFile};
use aion_types::ErrorCode;

use super::task::ended;
use crate::cli::SubmitArgs;
use crate::failure::{Failure, Outcome, USAGE};
use crate::output::{Printer, lines, note};
use crate::source::Source;
use crate::view::task::TaskView;
use crate::when::Deadline;

/// What the daemon takes.
const MAX_PARAMS: usize = 1 << 20;

pub(super) async fn submit(client: &Client, args: SubmitArgs, printer: Printer) -> Outcome {
    let wait = args.wait;
    let spec = spec(args)?;
    let task = client.submit_task(api::SubmitRequest { task: Some(spec), ..Default::default() }).await?;
    if printer.is_human() {
        // At once: whoever waits may go away, and the task is there all the same.
        lines([task.id.clone()])?;
    }
    if !wait {
        if printer.is_human() {
            return Ok(0);
        }
        let view = TaskView::from(task);
        printer.document(&view, &view.id, String::new)?;
        return Ok(0);
    }
    let task = TaskView::from(ended(client, &task.id).await?);
    if printer.is_human() {
        if task.state == "succeeded" {
            note(&format!("succeeded: {}", task.result));
        }
    } else {
        printer.document(&task, &task.id, String::new)?;
    }
    if task.state == "succeeded" {
        return Ok(0);
    }
    let said = task.error.map_or_else(String::new, |error| format!(": {}: {}", error.code, error.message));
    Err(Failure::new(1, format!("task {} {}{said}", task.id, task.state)))
}

/// The task that file and flags describe.
fn spec(args: SubmitArgs) -> Outcome<api::TaskSpec> {
    let usage = |message: String| Failure::new(USAGE, message);
    let mut spec = match &args.file {
        None => api::TaskSpec::default(),
        Some(path) => {
            let source = Source::read(path)?;
            from_file(TaskFile::parse(&source.bytes, &source.name)?)?
        }
    };
    if let Some(agent) = args.agent {
        spec.agent = agent;
        spec.selector.clear();
    }
    if !args.selector.is_empty() {
        spec.agent.clear();
        spec.selector = pairs(&args.selector, "--selector")?;
    }
    if spec.agent.is_empty() && spec.selector.is_empty() {
        return Err(usage("name the agent: --agent AGENT, or --selector KEY=VALUE, or in a file".to_owned()));
    }
    if let Some(id) = args.id {
        spec.task_id = id;
    }
    if let Some(intent) = args.intent {
        spec.intent = intent;
    }
    if let Some(queue) = args.queue {
        spec.queue = queue;
    }
    if let Some(priority) = args.priority {
        spec.priority = Some(priority);
    }
    if let Some(Deadline(at)) = args.deadline {
        spec.deadline = Some(at.to_api());
    }
    if let Some(timeout) = args.timeout {
        spec.timeout = Some(duration(timeout));
    }
    if let Some(estimate) = args.estimate {
        spec.estimate = Some(duration(estimate));
    }
    match args.params {
        Some(text) if text == "-" => {
            let mut all = String::new();
            let limit = u64::try_from(MAX_PARAMS).unwrap_or(u64::MAX).saturating_add(1);
            io::stdin()
                .take(limit)
                .read_to_string(&mut all)
                .map_err(|error| Failure::new(1, "cannot read the params from stdin").cause(&error))?;
            spec.params_json = all;
        }
        Some(text) => spec.params_json = text,
        None => {}
    }
    if spec.params_json.len() > MAX_PARAMS {
        return Err(Failure::coded(
            ErrorCode::TooLarge,
            format!("params: at most {} KiB are taken", MAX_PARAMS >> 10),
        ));
    }
    if !spec.params_json.is_empty()
        && let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(&spec.params_json)
    {
        return Err(usage("params: this is not JSON".to_owned()).cause(&error));
    }
    spec.after.extend(args.after);
    if let Some(retries) = args.retries {
        spec.retry.get_or_insert_default().max_attempts = retries;
    }
    if let Some(usd) = args.usd_max {
        spec.budget.get_or_insert_default().usd_max = usd;
    }
    if let Some(tokens) = args.tokens_max {
        spec.budget.get_or_insert_default().tokens_max = tokens;
    }
    if args.slots.is_some() || args.gpu.is_some() {
        let needs = spec.needs.get_or_insert(api::Needs { slots: 1, gpu: 0 });
        needs.slots = args.slots.unwrap_or(needs.slots);
        needs.gpu = args.gpu.unwrap_or(needs.gpu);
    }
    spec.labels.extend(pairs::<std::collections::HashMap<_, _>>(&args.labels, "--label")?);
    spec.idempotent |= args.idempotent;
    Ok(spec)
}

fn pairs<T: FromIterator<(String, String)>>(given: &[String], flag: &str) -> Outcome<T> {
    given
        .iter()
        .map(|text| match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
            _ => Err(Failure::new(USAGE, format!("{flag} {text:?}: write KEY=VALUE"))),
        })
        .collect()
}

fn from_file(file: TaskFile) -> Outcome<api::TaskSpec> {
    let length = |span: Span| duration(span.duration());
    let deadline = file
        .deadline
        .map(|text| {
            text.parse::<Deadline>().map_err(|why| Failure::new(USAGE, format!("deadline {text:?}: {why}")))
        })
        .transpose()?;
    let budget = (file.usd_max.is_some() || file.tokens_max.is_some()).then(|| api::TaskBudget {
        #[expect(clippy::cast_precision_loss, reason = "12 digits at most")]
        usd_max: file.usd_max.map_or(0.0, |usd| usd.micros as f64 / 1e6),
        tokens_max: file.tokens_max.unwrap_or(0),
        ..api::TaskBudget::default()
    });
    let needs = (file.slots.is_some() || file.gpu.is_some())
        .then(|| api::Needs { slots: file.slots.unwrap_or(1), gpu: file.gpu.unwrap_or(0) });
    let queue = match file.queue {
        None => "",
        Some(QueueName::High) => "high",
        Some(QueueName::Normal) => "normal",
        Some(QueueName::Low) => "low",
    };
    Ok(api::TaskSpec {
        task_id: file.task_id.unwrap_or_default(),
        agent: file.agent.unwrap_or_default(),
        selector: file.selector.into_iter().collect(),
        intent: file.intent,
        queue: queue.to_owned(),
        priority: file.priority,
        params_json: file.params.map_or_else(String::new, |params| params.to_string()),
        deadline: deadline.map(|Deadline(at)| at.to_api()),
        timeout: file.timeout.map(length),
        retry: file.retry.map(|retry| api::Retry {
            max_attempts: retry.max_attempts,
            backoff: retry.backoff.map(length),
            max_backoff: retry.max_backoff.map(length),
            factor: retry.factor.unwrap_or(0.0),
        }),
        budget,
        after: file.after,
        needs,
        labels: file.labels.into_iter().collect(),
        idempotent: file.idempotent,
        estimate: file.estimate.map(length),
        // aionctl is in nobody's trace, and says which agent.
        ..api::TaskSpec::default()
    })
}
