//! What a call tells besides its record: a span in the caller's trace, a figure, and a line in the log. None
//! of them holds the caller up.

use std::time::Instant;

use aion_syscall::{Layer, Reason, Refusal, Status};
use aion_telemetry::{Counts, Span, Spans, TraceOf};
use aion_types::{ErrorCode, TraceParent};

use crate::metrics::Metrics;
use crate::record::DecisionRow;
use crate::turned_away::TurnedAway;

/// Tells of calls.
#[derive(Debug, Default)]
pub(crate) struct Telling {
    spans: Spans,
    /// Calls that were not done get a line each, but a flood of them is counted.
    lines: TurnedAway,
}

impl Telling {
    pub(crate) fn new(spans: Spans) -> Self {
        Self { spans, lines: TurnedAway::default() }
    }

    /// A call has ended. `row` holds no secret any more.
    pub(crate) fn ended(
        &self,
        metrics: &Metrics,
        row: &DecisionRow,
        refusal: Option<&Refusal>,
        parent: Option<TraceParent>,
        ended_ns: u64,
    ) {
        self.line(row);
        if let Some(refusal) = refusal {
            let step = row.decision.as_ref().and_then(|decision| decision.steps.iter().rfind(|s| !s.allowed));
            match (refusal.code, refusal.reason) {
                (ErrorCode::BudgetExceeded, _) => metrics.over_budget(&refusal.rule),
                // Before any layer looked at it, it was another's agent.
                (_, Reason::Denied) => metrics.denied(step.map_or(Layer::Door, |step| step.layer)),
                _ => {}
            }
        }
        if !self.spans.is_on() {
            return;
        }
        let code = row.error.as_ref().map_or("", |error| error.code.as_str());
        let mut attributes = vec![
            ("aion.syscall", row.syscall.as_str().into()),
            ("aion.tenant", row.tenant.as_str().into()),
            ("aion.agent", row.agent.as_str().into()),
            ("aion.task", row.task.as_str().into()),
            ("aion.trace", row.trace.as_str().into()),
            ("aion.target", row.target.as_str().into()),
            ("aion.audit_id", row.audit_id.as_str().into()),
            ("aion.status", word(row.status).into()),
            ("aion.code", code.into()),
            ("aion.engine", row.engine.name.as_str().into()),
        ];
        if row.usage.cost_usd > 0.0 {
            attributes.push(("aion.cost_usd", row.usage.cost_usd.into()));
        }
        if row.usage.tokens_in + row.usage.tokens_out > 0 {
            attributes.push(("aion.tokens_in", row.usage.tokens_in.into()));
            attributes.push(("aion.tokens_out", row.usage.tokens_out.into()));
        }
        self.spans.record(Span {
            name: "kernel.syscall",
            of: TraceOf::named(&row.trace, parent),
            began_ns: row.time_ns,
            ended_ns,
            attributes,
            error: Some(code.to_owned()).filter(|code| !code.is_empty()),
        });
    }

    fn line(&self, row: &DecisionRow) {
        macro_rules! fields {
            ($level:ident, $more:expr, $words:literal) => {{
                let error = row.error.as_ref();
                tracing::$level!(
                    syscall = row.syscall,
                    tenant = row.tenant,
                    agent = row.agent,
                    task = row.task,
                    trace = row.trace,
                    audit_id = row.audit_id,
                    caller = row.caller,
                    code = error.map_or("", |error| error.code.as_str()),
                    rule = error.map_or("", |error| error.rule.as_str()),
                    ms = row.usage.latency_ms,
                    more_before = $more,
                    $words
                );
            }};
        }
        if row.status == Status::Ok {
            fields!(debug, 0, "a system call was done");
        } else if let Some(more) = self.lines.take(Instant::now()) {
            fields!(info, more, "a system call was not done");
        }
    }

    /// The spans' figures; empty when there are none.
    pub(crate) fn text(&self) -> String {
        const NAME: &str = "aion_telemetry_spans_total";
        let Some(Counts { exported, dropped, failed }) = self.spans.counts() else { return String::new() };
        format!(
            "# HELP {NAME} Spans that the collector has, that found no room in the queue, or were not taken.\n\
             # TYPE {NAME} counter\n{NAME}{{result=\"exported\"}} {exported}\n{NAME}{{result=\"dropped\"}} {dropped}\n\
             {NAME}{{result=\"failed\"}} {failed}\n"
        )
    }
}

const fn word(status: Status) -> &'static str {
    match status {
        Status::Ok => "ok",
        Status::Denied => "denied",
        Status::Error => "error",
    }
}
