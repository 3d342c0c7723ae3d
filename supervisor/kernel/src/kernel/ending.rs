//! The end of a call: its record, its figures, its answer.

use aion_syscall::{Answer, ErrorBody, Refusal, Status, Usage};
use aion_types::ErrorCode;
use serde_json::Value;

use super::{Call, Done, Kernel, Outcome};
use crate::plan;
use crate::record::DecisionRow;

impl Kernel {
    pub(super) async fn finish(&self, mut call: Call, done: Result<Done, Refusal>) -> Outcome {
        let done = self.redacted(&mut call, done);
        let (result, used, (tokens_in, tokens_out), estimated, refusal) = match done {
            Ok(done) => (done.result, done.used, (done.tokens_in, done.tokens_out), done.estimated, None),
            // Nobody said how the tokens of a call that failed divide; what is charged is told as a whole, and is a bound.
            Err(refusal) => {
                (Value::Null, call.spent, (call.spent.tokens, 0), call.spent.tokens > 0, Some(refusal))
            }
        };
        let elapsed = call.began.elapsed();
        let usage = Usage {
            latency_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
            cost_usd: dollars(used.usd_micros),
            tokens_in,
            tokens_out,
            estimated,
        };
        let engine = call.engine;
        let status = refusal.as_ref().map_or(Status::Ok, Refusal::status);
        let error = refusal.as_ref().map(ErrorBody::from);
        let syscall = call.request.syscall.to_string();
        let parent = call.request.context.parent;
        let row = DecisionRow {
            audit_id: call.audit_id.clone(),
            time_ns: call.time_ns,
            syscall: syscall.clone(),
            tenant: call.caller.tenant().to_string(),
            agent: call.agent.as_ref().map_or(String::new(), ToString::to_string),
            agent_id: call.agent_id,
            caller: call.caller.subject(),
            task: call.request.context.task_id,
            trace: call.request.context.trace_id,
            target: call.target,
            decision: call.decision,
            status,
            error: error.clone(),
            usage,
            engine: engine.clone(),
        };
        let ended_ns = call.time_ns.saturating_add(u64::try_from(elapsed.as_nanos()).unwrap_or(0));
        self.0.telling.ended(&self.0.metrics, &row, refusal.as_ref(), parent, ended_ns);
        self.0.recorder.record(row).await;
        let code = refusal.as_ref().map(|refusal| refusal.code.as_str());
        let ms = call.began.elapsed().as_secs_f64() * 1000.0;
        // Names that callers make up would be figures without number.
        let known = refusal.as_ref().is_none_or(|refusal| refusal.code != ErrorCode::SyscallUnknown);
        let counted = if known { syscall.as_str() } else { "other" };
        self.0.metrics.ended(counted, ms, code, used.usd_micros, used.tokens);
        let answer = Answer { status, result, error, usage, engine, audit_id: call.audit_id };
        Outcome { answer, refusal }
    }
}

/// An answer for what never came to be a call.
pub(crate) fn answer_of(refusal: Refusal, audit_id: String) -> Outcome {
    let answer = Answer {
        status: refusal.status(),
        result: Value::Null,
        error: Some(ErrorBody::from(&refusal)),
        usage: Usage::default(),
        engine: plan::kernel_engine(),
        audit_id,
    };
    Outcome { answer, refusal: Some(refusal) }
}

impl Outcome {
    /// The answer to a request that could not be read, or was not let in.
    #[must_use]
    pub fn refused(refusal: Refusal) -> Self {
        answer_of(refusal, String::new())
    }
}

fn dollars(micros: u64) -> f64 {
    // Exact up to nine billion dollars.
    let (whole, part) = (micros / 1_000_000, micros % 1_000_000);
    let float = |n: u64| f64::from(u32::try_from(n).unwrap_or(u32::MAX));
    float(whole) + float(part) / 1_000_000.0
}
