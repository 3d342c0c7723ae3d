//! Calls that wait for a person.
//!
//! A call waits here, and here alone: when it ends, by an answer, by its time, with its caller or with the daemon, there is nothing
//! to answer any more. Invariant: nothing is done without a yes, and each end is recorded.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aion_manifest::{ApprovalRule, Asked};
use aion_syscall::{Decision, Layer, Need, Reason, Refusal, Request, Step, SyscallName};
use aion_types::{ErrorCode, TenantId};
use serde_json::{Map, Value, json};
use tokio::sync::oneshot;

use crate::host::AuditEntry;
use crate::kernel::{Call, Kernel, now_ns};
use crate::plan::{Plan, Work};

/// Calls that wait, of one agent, of a tenant and of all.
const OF_AGENT: usize = 32;
const OF_TENANT: usize = 256;
const OF_ALL: usize = 1024;
/// Bytes of what such calls were given, which they hold for as long as they wait: of a tenant and of all.
const HELD_OF_TENANT: usize = 32 << 20;
const HELD_OF_ALL: usize = 128 << 20;
/// Nobody is waited for longer.
const LONGEST: Duration = Duration::from_secs(600);
/// Bytes of what an agent says about it, and of what is shown of a call's params.
const MAX_REASON: usize = 2000;
const MAX_SUBJECT: usize = 4096;

/// A call that waits for a person.
#[derive(Debug, Clone, PartialEq)]
pub struct Approval {
    /// The call's audit id, which is its name here, too.
    pub id: String,
    /// Whose.
    pub tenant: TenantId,
    /// The agent's address; empty: an operator's own call.
    pub agent: String,
    /// The call.
    pub syscall: String,
    /// What it is about.
    pub target: String,
    /// The rule that asks, or what the agent says.
    pub reason: String,
    /// What it was given, cut where it is long; from the agent, and not to be trusted.
    pub subject: Value,
    /// Since when, nanoseconds since 1970.
    pub since_ns: u64,
    /// It is over then.
    pub until_ns: u64,
}

/// What a person said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// Yes or no.
    pub approved: bool,
    /// Who, as `unix:0`.
    pub by: String,
    /// Why; may be empty.
    pub note: String,
}

struct Waiting {
    about: Approval,
    holds: usize,
    answer: oneshot::Sender<Answered>,
}

#[derive(Default)]
struct All {
    waiting: HashMap<String, Waiting>,
    /// The daemon is stopping: nobody is asked any more.
    closed: bool,
}

/// The calls that wait.
#[derive(Default)]
pub(crate) struct Approvals(Mutex<All>);

/// Takes a call off the list when it waits no more.
struct Place<'a> {
    all: &'a Approvals,
    id: String,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.all.lock().waiting.remove(&self.id);
    }
}

/// How it ended for a call that waited.
enum End {
    Answered(Answered),
    Late,
    CallerGone,
    Stopping,
}

impl Approvals {
    fn lock(&self) -> MutexGuard<'_, All> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn count(&self) -> usize {
        self.lock().waiting.len()
    }

    fn wait(
        &self,
        about: Approval,
        holds: usize,
    ) -> Result<(Place<'_>, oneshot::Receiver<Answered>), Refusal> {
        let mut all = self.lock();
        if all.closed {
            return Err(stopping());
        }
        let (mut own, mut tenants, mut held) = (0, 0, (holds, holds));
        for other in all.waiting.values() {
            held.1 += other.holds;
            if other.about.tenant == about.tenant {
                tenants += 1;
                held.0 += other.holds;
                own += usize::from(other.about.agent == about.agent);
            }
        }
        let full = match () {
            () if own >= OF_AGENT => Some(format!("{OF_AGENT} calls of {}", about.agent)),
            () if tenants >= OF_TENANT => Some(format!("{OF_TENANT} calls of tenant {}", about.tenant)),
            () if held.0 > HELD_OF_TENANT => {
                Some(format!("calls of tenant {} with {} MiB", about.tenant, HELD_OF_TENANT >> 20))
            }
            () if all.waiting.len() >= OF_ALL || held.1 > HELD_OF_ALL => Some("as many calls".to_owned()),
            () => None,
        };
        if let Some(which) = full {
            let message = format!("{which} wait for a person already, that is the limit");
            return Err(Refusal::new(Reason::Exhausted, ErrorCode::ResourceExhausted, message)
                .by("approval: calls that wait")
                .retry_after(1000));
        }
        let (answer, wait) = oneshot::channel();
        let id = about.id.clone();
        all.waiting.insert(id.clone(), Waiting { about, holds, answer });
        Ok((Place { all: self, id }, wait))
    }

    /// Ends what waits, for good.
    fn close(&self) {
        let mut all = self.lock();
        all.closed = true;
        // Dropping an answer's sender ends the wait for it.
        all.waiting.clear();
    }
}

fn stopping() -> Refusal {
    Refusal::new(Reason::Unavailable, ErrorCode::DaemonUnavailable, "aiond is stopping, nobody can be asked")
        .hint("call again when it is back")
}

/// Whether a rule asks a person before something that is needed: as a denial does, whatever of the rule it touches.
pub(crate) fn touches(rule: &ApprovalRule, need: &Need) -> bool {
    matches!(&rule.asked, Asked::Needs(capability) if capability.denies(&need.capability).is_some())
}

/// The rule that asks a person before such a call.
pub(crate) fn asks<'r>(
    rules: &'r [ApprovalRule],
    request: &Request,
    needs: &[Need],
) -> Option<&'r ApprovalRule> {
    rules.iter().find(|rule| match &rule.asked {
        Asked::Calls(pattern) => request.syscall.is_covered_by(pattern),
        Asked::Needs(_) => needs.iter().any(|need| touches(rule, need)),
    })
}

/// Refuses rules about calls that there are not: a misspelt one would ask nobody.
pub(crate) fn check(rules: &[ApprovalRule], calls: &[&str]) -> Result<(), Refusal> {
    let names = |pattern: &str| {
        calls.iter().any(|call| SyscallName::parse(call).is_ok_and(|name| name.is_covered_by(pattern)))
    };
    let unknown = rules.iter().find(|rule| matches!(&rule.asked, Asked::Calls(pattern) if !names(pattern)));
    unknown.map_or(Ok(()), |rule| {
        let message = format!("{rule}: this kernel has no such system call");
        Err(Refusal::new(Reason::Invalid, ErrorCode::ProfileInvalid, message)
            .at("approval")
            .hint(format!("it has {}", calls.join(", "))))
    })
}

/// `approval.request`: what is asked.
pub(crate) struct Question {
    reason: String,
    subject: Value,
}

impl Question {
    pub(crate) fn read(params: &Map<String, Value>) -> Result<Self, Refusal> {
        if let Some(unknown) = params.keys().find(|key| !["reason", "subject"].contains(&key.as_str())) {
            let shown: String = unknown.chars().take(80).collect();
            return Err(Refusal::field(format!("params.{shown}"), "it is not a field: reason, subject"));
        }
        let reason = match params.get("reason") {
            Some(Value::String(text)) if !text.trim().is_empty() && text.len() <= MAX_REASON => text.clone(),
            _ => {
                let message = format!("say in 1 to {MAX_REASON} bytes what a person is to agree to");
                return Err(Refusal::field("params.reason", message));
            }
        };
        let subject = params.get("subject").cloned().unwrap_or(Value::Null);
        if subject.to_string().len() > MAX_SUBJECT {
            return Err(Refusal::field(
                "params.subject",
                format!("it has more than {MAX_SUBJECT} bytes as JSON"),
            ));
        }
        Ok(Self { reason, subject })
    }
}

/// What is shown of what a call was given. Who is asked must see that there is more.
fn cut(params: Value, bytes: usize) -> Value {
    if bytes <= MAX_SUBJECT {
        return params;
    }
    let start: String = params.to_string().chars().take(MAX_SUBJECT / 4).collect();
    json!({"cut": start, "bytes": bytes})
}

impl Kernel {
    /// The calls that wait for a person, oldest first: of a tenant, or of all.
    #[must_use]
    pub fn approvals(&self, tenant: Option<&TenantId>) -> Vec<Approval> {
        let all = self.0.approvals.lock();
        let mine = |about: &&Approval| tenant.is_none_or(|tenant| about.tenant == *tenant);
        let mut list: Vec<_> =
            all.waiting.values().map(|waiting| &waiting.about).filter(mine).cloned().collect();
        drop(all);
        list.sort_by(|a, b| (a.since_ns, &a.id).cmp(&(b.since_ns, &b.id)));
        list
    }

    /// Answers one of them.
    ///
    /// # Errors
    /// `APPROVAL_NOT_FOUND` when nothing of that name waits (any more).
    pub fn answer(&self, id: &str, answer: Answered) -> Result<Approval, Refusal> {
        let taken = self.0.approvals.lock().waiting.remove(id);
        let gone = || {
            let shown: String = id.chars().take(80).collect();
            let message = format!("no call {shown:?} waits for an answer");
            Refusal::new(Reason::NotFound, ErrorCode::ApprovalNotFound, message)
                .at("id")
                .hint("`aionctl approvals` shows what waits; a call that has ended waits no more")
        };
        let Waiting { about, answer: way, .. } = taken.ok_or_else(gone)?;
        way.send(answer).map_err(|_| gone())?;
        Ok(about)
    }

    /// Ends all calls that wait for a person or for messages, and asks nobody any more. The daemon is stopping.
    pub fn stop_waiting(&self) {
        self.0.approvals.close();
        self.0.mail.close();
    }

    /// Asks a person whether a call may be made, when a rule wants that; says whether it did.
    pub(crate) async fn agreed(
        &self,
        call: &Call,
        plan: &Plan,
        decision: &mut Decision,
    ) -> Result<bool, Refusal> {
        // An operator's own call is a person's already, and to ask whether one may ask is one question too many.
        let nobody = call.agent.is_none() || matches!(plan.work, Work::Ask(_));
        let Some(policy) = self.0.grants.policy().filter(|_| !nobody) else { return Ok(false) };
        let Some(rule) = asks(policy.approval(), &call.request, &plan.needs) else { return Ok(false) };
        let asked = self.ask_person(call, rule.to_string(), Value::Object(call.request.params.clone())).await;
        let (allowed, said) = match &asked {
            Ok(answer) => (answer.approved, told(answer)),
            Err(refusal) => (false, refusal.message.clone()),
        };
        let rule = format!("{rule}: {said}");
        decision.allowed = allowed;
        decision.steps.push(Step {
            layer: Layer::Approval,
            about: call.request.syscall.to_string(),
            allowed,
            rule: rule.clone(),
        });
        match asked {
            Err(refusal) => Err(refusal.by(rule)),
            Ok(answer) if !answer.approved => {
                Err(Refusal::denied(format!("{} was {}", call.request.syscall, told(&answer)), rule))
            }
            Ok(_) => self.still_allowed(call, plan, decision).map(|()| true),
        }
    }

    /// Minutes may have gone by: what the rules deny by now is not done, nor what another registration of the agent would be.
    fn still_allowed(&self, call: &Call, plan: &Plan, decision: &mut Decision) -> Result<(), Refusal> {
        let Some(uri) = &call.agent else { return Ok(()) };
        let grants = self.0.grants.of(self.0.host.as_ref(), uri)?;
        if grants.id != call.agent_id {
            decision.allowed = false;
            let message = format!("{uri} was registered anew while its call waited");
            return Err(Refusal::denied(message, "approval: it was for the agent as it was"));
        }
        let again = self.decide(call, Some(&grants), &plan.needs);
        let refusal = again.refusal();
        if refusal.is_some() {
            decision.allowed = false;
            decision.steps.extend(again.steps);
        }
        refusal.map_or(Ok(()), Err)
    }

    /// Does `approval.request`.
    pub(crate) async fn ask(&self, call: &Call, question: Question) -> Result<Value, Refusal> {
        let answer = self.ask_person(call, question.reason, question.subject).await?;
        let Answered { approved, by, note } = answer;
        Ok(json!({"approved": approved, "by": by, "note": note, "approval_id": call.audit_id}))
    }

    async fn ask_person(&self, call: &Call, reason: String, subject: Value) -> Result<Answered, Refusal> {
        let most =
            call.request.budget.latency_ms.map_or(LONGEST, |ms| LONGEST.min(Duration::from_millis(ms)));
        let left = most.saturating_sub(call.began.elapsed());
        let redactor = self.redactor(call.caller.tenant());
        let holds = subject.to_string().len();
        let (mut reason, mut subject, mut target) = (reason, subject, call.target.clone());
        redactor.text(&mut reason);
        redactor.text(&mut target);
        // Before it is cut: half a secret is not found.
        redactor.value(&mut subject);
        let since_ns = now_ns();
        let about = Approval {
            id: call.audit_id.clone(),
            tenant: call.caller.tenant().clone(),
            agent: call.agent.as_ref().map_or_else(String::new, ToString::to_string),
            syscall: call.request.syscall.to_string(),
            target,
            reason,
            subject: cut(subject, holds),
            since_ns,
            until_ns: since_ns.saturating_add(u64::try_from(left.as_nanos()).unwrap_or(u64::MAX)),
        };
        let detail = json!({
            "audit_id": about.id, "agent": about.agent, "syscall": about.syscall, "target": about.target,
            "reason": about.reason.chars().take(500).collect::<String>(),
        });
        let (place, wait) = self.0.approvals.wait(about, holds)?;
        self.note(call, "api.approval.requested", "allowed", String::new(), detail).await;
        let end = ended(call, left.saturating_sub(elapsed_since(since_ns)), wait).await;
        // Nobody can answer it from here on.
        drop(place);
        let (verdict, rule, said, outcome) = match end {
            End::Answered(answer) => {
                let verdict = if answer.approved { "allowed" } else { "denied" };
                let said = json!({"audit_id": call.audit_id, "by": answer.by, "note": answer.note});
                (verdict, format!("approval: {}", told(&answer)), said, Ok(answer))
            }
            End::Late => {
                let message = format!("nobody answered within {} ms", left.as_millis());
                let refusal = Refusal::new(Reason::Timeout, ErrorCode::DeadlineExceeded, message);
                unanswered(call, refusal.hint("operators answer with `aionctl approve` and `aionctl deny`"))
            }
            End::CallerGone => {
                let message = "the caller has gone before anybody answered";
                unanswered(call, Refusal::new(Reason::Denied, ErrorCode::PolicyDenied, message))
            }
            End::Stopping => unanswered(call, stopping()),
        };
        let kind = if outcome.is_ok() { "api.approval.answered" } else { "api.approval.ended" };
        self.note(call, kind, verdict, rule, said).await;
        outcome
    }

    async fn note(
        &self,
        call: &Call,
        kind: &'static str,
        verdict: &'static str,
        rule: String,
        detail: Value,
    ) {
        let entry = AuditEntry {
            tenant: call.caller.tenant().to_string(),
            agent: call.agent_id.clone(),
            task: call.request.context.task_id.clone(),
            trace: call.request.context.trace_id.clone(),
            kind,
            verdict,
            rule,
            detail_json: detail.to_string(),
        };
        self.0.host.audit(entry).await;
    }
}

type Ended = (&'static str, String, Value, Result<Answered, Refusal>);

fn unanswered(call: &Call, refusal: Refusal) -> Ended {
    ("denied", format!("approval: {}", refusal.message), json!({"audit_id": call.audit_id}), Err(refusal))
}

fn elapsed_since(then_ns: u64) -> Duration {
    Duration::from_nanos(now_ns().saturating_sub(then_ns))
}

/// Waits for the first of an answer, the caller's going, and the time's end.
async fn ended(call: &Call, left: Duration, mut wait: oneshot::Receiver<Answered>) -> End {
    let answered = tokio::select! {
        biased;
        // A yes for nobody is no yes.
        () = call.gone() => return End::CallerGone,
        answer = &mut wait => answer.ok(),
        () = tokio::time::sleep(left) => {
            wait.close();
            // Whoever was told that the answer was taken is right.
            match wait.try_recv() {
                Ok(answer) => Some(answer),
                Err(_) => return End::Late,
            }
        }
    };
    answered.map_or(End::Stopping, End::Answered)
}

fn told(answer: &Answered) -> String {
    let word = if answer.approved { "approved" } else { "denied" };
    let note = if answer.note.is_empty() { String::new() } else { format!(": {}", answer.note) };
    format!("{word} by {}{note}", answer.by)
}
