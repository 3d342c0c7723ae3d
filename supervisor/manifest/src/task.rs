//! `task.yml`: what is submitted, as a file.

use std::collections::BTreeMap;

use aion_types::ErrorCode;

use crate::error::{Error, Problem};
use crate::raw::{self, QueueName, Span, Usd};
use crate::yaml::{self, Kind, Node};

/// A task as its file describes it. Whether it can be done is for the daemon to say.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskFile {
    /// Its id, when it has one of its own.
    pub task_id: Option<String>,
    /// The agent's name.
    pub agent: Option<String>,
    /// Labels that the agent must have.
    pub selector: BTreeMap<String, String>,
    /// What is wanted.
    pub intent: String,
    /// The queue.
    pub queue: Option<QueueName>,
    /// Within the queue.
    pub priority: Option<u32>,
    /// For the agent.
    pub params: Option<serde_json::Value>,
    /// When it must be done, as it is written: a time, or a length of time from now.
    pub deadline: Option<String>,
    /// Of one attempt.
    pub timeout: Option<Span>,
    /// When attempts fail.
    pub retry: Option<TaskRetry>,
    /// What it may cost.
    pub usd_max: Option<Usd>,
    /// What it may use.
    pub tokens_max: Option<u64>,
    /// Tasks that must have succeeded first.
    pub after: Vec<String>,
    /// Slots that it takes.
    pub slots: Option<u32>,
    /// GPUs that it takes.
    pub gpu: Option<u32>,
    /// Anything to find it by.
    pub labels: BTreeMap<String, String>,
    /// Whether its effects may be repeated without harm.
    pub idempotent: bool,
    /// How long it is expected to run.
    pub estimate: Option<Span>,
}

/// When attempts fail.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskRetry {
    /// Attempts that may fail.
    pub max_attempts: u32,
    /// Before the second.
    pub backoff: Option<Span>,
    /// At most.
    pub max_backoff: Option<Span>,
    /// How it grows.
    pub factor: Option<f64>,
}

impl TaskFile {
    /// Reads the file's content; `file` is its name for messages.
    ///
    /// # Errors
    /// `INVALID_FIELD` (or `TOO_LARGE`) with every problem, its line, column and field.
    pub fn parse(bytes: &[u8], file: &str) -> Result<Self, Error> {
        let failed = |problems| Error::new(ErrorCode::InvalidField, problems);
        let tree = yaml::parse(bytes, file).map_err(|m| {
            let code = if m.too_large { ErrorCode::TooLarge } else { ErrorCode::InvalidField };
            Error::new(code, vec![*m.problem])
        })?;
        let raw: raw::Task = yaml::from_node(&tree, file).map_err(|p| failed(vec![p]))?;
        let mut problems = Vec::new();
        let mut wrong = |field: &str, message: String, fix: &str| {
            problems.push(Problem {
                file: file.to_owned(),
                place: Some(tree.place_of(field)),
                field: field.to_owned(),
                message,
                fix: fix.to_owned(),
            });
        };
        if raw.priority.is_some_and(|n| n > 9) {
            wrong("priority", "it is out of range".to_owned(), "use 0 to 9, 9 is first");
        }
        if raw.agent.is_some() != raw.selector.is_empty() {
            let fix = "name the agent with `agent`, or the labels it must have with `selector`";
            wrong("agent", "there must be one of `agent` and `selector`".to_owned(), fix);
        }
        let retry = raw.retry.map(|retry| {
            if !(1..=100).contains(&retry.max_attempts) {
                wrong("retry.max_attempts", "it is out of range".to_owned(), "use 1 to 100");
            }
            let factor = retry.factor.and_then(|text| {
                let factor = text.parse::<f64>().ok().filter(|f| (1.0..=10.0).contains(f));
                if factor.is_none() {
                    wrong("retry.factor", "it is no factor".to_owned(), "use 1 to 10");
                }
                factor
            });
            let raw::Retry { max_attempts, backoff, max_backoff, .. } = retry;
            TaskRetry { max_attempts, backoff, max_backoff, factor }
        });
        let budget = raw.budget.unwrap_or_default();
        let needs = raw.needs.unwrap_or_default();
        if needs.slots == Some(0) {
            wrong("needs.slots", "it is out of range".to_owned(), "use at least 1");
        }
        if !problems.is_empty() {
            return Err(failed(problems));
        }
        Ok(Self {
            task_id: raw.task_id,
            agent: raw.agent,
            selector: raw.selector,
            intent: raw.intent.unwrap_or_default(),
            queue: raw.queue,
            priority: raw.priority,
            params: tree.get("params").map(json),
            deadline: raw.deadline,
            timeout: raw.timeout,
            retry,
            usd_max: budget.usd_max,
            tokens_max: budget.tokens_max,
            after: match raw.after {
                None => Vec::new(),
                Some(raw::TextOrList::Text(one)) => vec![one],
                Some(raw::TextOrList::List(all)) => all,
            },
            slots: needs.slots,
            gpu: needs.gpu,
            labels: raw.labels,
            idempotent: raw.idempotent,
            estimate: raw.estimate,
        })
    }
}

/// What YAML's core schema makes of a value.
pub(crate) fn json(node: &Node) -> serde_json::Value {
    use serde_json::Value;
    match &node.kind {
        Kind::Null => Value::Null,
        Kind::Seq(items) => items.iter().map(json).collect(),
        Kind::Map(entries) => {
            entries.iter().map(|(key, value)| (key.text.clone(), json(value))).collect::<Value>()
        }
        Kind::Scalar { text, plain: false } => Value::String(text.clone()),
        Kind::Scalar { text, plain: true } => match text.as_str() {
            "true" | "True" | "TRUE" => Value::Bool(true),
            "false" | "False" | "FALSE" => Value::Bool(false),
            "null" | "Null" | "NULL" | "~" | "" => Value::Null,
            // What JSON takes for a number is one; 0x10, 010 and .5 stay texts.
            _ => match serde_json::from_str::<serde_json::Number>(text) {
                Ok(number) => Value::Number(number),
                Err(_) => Value::String(text.clone()),
            },
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_reads() {
        let text = "agent: writer\nqueue: high\npriority: 9\nparams: {n: 3, f: 1.5, s: \"3\", t: true, l: [a, null]}\n\
                    after: a\nretry: {max_attempts: 3, backoff: 2s, factor: 1.5}\ntimeout: 5m\n";
        let task = TaskFile::parse(text.as_bytes(), "task.yml").unwrap();
        assert_eq!(task.params.unwrap().to_string(), r#"{"f":1.5,"l":["a",null],"n":3,"s":"3","t":true}"#);
        assert_eq!(
            (task.queue, task.after, task.timeout),
            (Some(QueueName::High), vec!["a".into()], Some(Span(300_000)))
        );
        assert_eq!(task.retry.unwrap().factor, Some(1.5));
    }

    #[test]
    fn what_is_wrong_has_its_place() {
        let said = |text: &str| TaskFile::parse(text.as_bytes(), "t.yml").unwrap_err().to_string();
        assert!(said("agent: a\npriority: 10\n").starts_with("t.yml:2:11: priority: it is out of range"));
        assert!(
            said("agent: a\nqueue: urgent\n").contains("t.yml:2:"),
            "{}",
            said("agent: a\nqueue: urgent\n")
        );
        assert!(said("intent: x\n").contains("one of `agent` and `selector`"));
        assert!(said("agent: a\nprio: 1\n").contains("prio"));
    }
}
