//! `task`: the list, one task in full, its transitions, and its end.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;

use aion_client::{Client, api};

use super::target::each;
use super::task_submit::submit;
use crate::cli::{CancelArgs, CheckpointArgs, Format, TaskCommand, TaskPsArgs, TaskWatchArgs};
use crate::failure::{Failure, Outcome, USAGE};
use crate::output::{Printer, json_line, lines, report, table};
use crate::view::task::{EventView, TaskView, has_ended, inspect_text, tasks_table};
use crate::when::Moment;

const STATES: [&str; 10] = [
    "blocked",
    "queued",
    "waiting",
    "running",
    "preempting",
    "frozen",
    "succeeded",
    "failed",
    "cancelled",
    "expired",
];

pub(super) async fn task(client: &Client, command: TaskCommand, printer: Printer) -> Outcome {
    match command {
        TaskCommand::Submit(args) => submit(client, *args, printer).await,
        TaskCommand::Ps(args) => ps(client, &args, printer).await,
        TaskCommand::Inspect(names) => inspect(client, &names.tasks, printer).await,
        TaskCommand::Watch(args) => watch(client, args, printer).await,
        TaskCommand::Cancel(args) => cancel(client, args, printer).await,
        TaskCommand::History(name) => history(client, &name.task, printer).await,
        TaskCommand::Checkpoint(args) => checkpoint(client, &args).await,
    }
}

async fn ps(client: &Client, args: &TaskPsArgs, printer: Printer) -> Outcome {
    let wrong = |text: &str, why: &str| Failure::new(USAGE, format!("--filter {text:?}: {why}"));
    let mut request = api::ListTasksRequest {
        page_size: u32::try_from(args.limit.clamp(1, 1000)).unwrap_or(1000),
        ..Default::default()
    };
    let mut labels = HashMap::new();
    for text in &args.filters {
        let (key, value) = text.split_once('=').ok_or_else(|| wrong(text, "write KEY=VALUE"))?;
        match key {
            "state" if STATES.contains(&value) => request.states.push(value.to_owned()),
            "state" => return Err(wrong(text, &format!("the states are {}", STATES.join(", ")))),
            "queue" if ["high", "normal", "low"].contains(&value) => request.queues.push(value.to_owned()),
            "queue" => return Err(wrong(text, "the queues are high, normal, low")),
            "agent" => value.clone_into(&mut request.agent),
            "label" => {
                let (label, value) =
                    value.split_once('=').ok_or_else(|| wrong(text, "write label=KEY=VALUE"))?;
                labels.insert(label.to_owned(), value.to_owned());
            }
            _ => return Err(wrong(text, "the keys are state, queue, agent and label")),
        }
    }
    request.labels = labels;
    if request.states.is_empty() && !args.all {
        request.states =
            STATES.iter().filter(|state| !has_ended(state)).map(|&state| state.to_owned()).collect();
    }
    let tasks: Vec<TaskView> =
        client.tasks_all(request, args.limit).await?.into_iter().map(TaskView::from).collect();
    if args.quiet {
        lines(tasks.iter().map(|task| task.id.clone()))?;
        return Ok(0);
    }
    let wide = printer.format == Format::Wide;
    printer.items(&tasks, |task| task.id.clone(), || tasks_table(&tasks, wide, Moment::now()))?;
    Ok(0)
}

async fn whole(client: &Client, id: &str) -> Outcome<TaskView> {
    let mut view = TaskView::from(client.task(api::GetTaskRequest { task: id.to_owned() }).await?);
    view.history = Some(client.task_history(id).await?.into_iter().map(EventView::from).collect());
    Ok(view)
}

async fn inspect(client: &Client, ids: &[String], printer: Printer) -> Outcome {
    let mut found = Vec::new();
    let mut worst = 0;
    for id in ids {
        match whole(client, id).await {
            Ok(task) => found.push(task),
            Err(failure) if ids.len() == 1 => return Err(failure),
            Err(failure) => {
                worst = worst.max(failure.exit);
                report(&failure.about(id));
            }
        }
    }
    match (printer.format, found.as_slice()) {
        (Format::Table | Format::Wide, tasks) => {
            printer.text(&tasks.iter().map(inspect_text).collect::<Vec<_>>().join("\n"))?;
        }
        (_, [task]) if ids.len() == 1 => printer.document(task, &task.id, String::new)?,
        (_, tasks) => printer.items(tasks, |task| task.id.clone(), || table(&[]))?,
    }
    Ok(worst)
}

/// Waits for a task's end.
pub(super) async fn ended(client: &Client, id: &str) -> Outcome<api::Task> {
    let request = api::WatchTasksRequest { task: id.to_owned(), cursor: 0, from_start: true, follow: true };
    let mut follower = client.watch_tasks(request);
    // The stream of one task ends with the task.
    while follower.next().await?.is_some() {}
    Ok(client.task(api::GetTaskRequest { task: id.to_owned() }).await?)
}

async fn watch(client: &Client, args: TaskWatchArgs, printer: Printer) -> Outcome {
    let one = args.task.is_some();
    let request = api::WatchTasksRequest {
        // One task is shown from its beginning; all of them from now on.
        from_start: args.from_start || (one && args.cursor.is_none()),
        task: args.task.unwrap_or_default(),
        cursor: args.cursor.unwrap_or(0),
        follow: true,
    };
    let mut follower = client.watch_tasks(request);
    while let Some(event) = follower.next().await? {
        print(printer, &EventView::from(event), !one)?;
    }
    Ok(0)
}

fn print(printer: Printer, event: &EventView, with_task: bool) -> Outcome<()> {
    match printer.format {
        Format::Table | Format::Wide => lines([event.line(with_task)]),
        Format::Name => lines([event.kind.clone()]),
        Format::Json | Format::Jsonl | Format::Yaml => json_line(event),
    }
}

async fn history(client: &Client, id: &str, printer: Printer) -> Outcome {
    let events: Vec<EventView> = client.task_history(id).await?.into_iter().map(EventView::from).collect();
    if printer.is_human() {
        lines(events.iter().map(|event| event.line(false)))?;
    } else {
        printer.items(&events, |event| event.kind.clone(), || table(&[]))?;
    }
    Ok(0)
}

async fn cancel(client: &Client, args: CancelArgs, printer: Printer) -> Outcome {
    each(&args.names.tasks, async |id| {
        let request =
            api::CancelTaskRequest { task: id.clone(), reason: args.reason.clone(), ..Default::default() };
        let task = client.cancel_task(request).await?;
        if printer.is_human() {
            return lines([id]);
        }
        printer.document(&TaskView::from(task), &id, String::new)
    })
    .await
}

async fn checkpoint(client: &Client, args: &CheckpointArgs) -> Outcome {
    let mut parts = client.task_checkpoint(&args.task).await?;
    let mut out: Box<dyn Write> = match &args.out {
        None => Box::new(io::stdout()),
        Some(path) => {
            let opened = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
            Box::new(
                opened.map_err(|error| {
                    Failure::new(1, format!("cannot make {}", path.display())).cause(&error)
                })?,
            )
        }
    };
    while let Some(part) = client.next(&mut parts).await? {
        out.write_all(&part.data)?;
    }
    out.flush()?;
    Ok(0)
}
