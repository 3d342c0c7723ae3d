//! Whether a call may be made, and what it is charged to.

use aion_syscall::{Account, Ask, Authority, Decision, Layer, Limits, Need, Reason, Refusal, Step, decide};
use aion_types::ErrorCode;

use crate::grants::Grants;
use crate::host::{AccountLimits, TaskFound, TaskLimits};
use crate::kernel::{Call, Kernel};
use crate::plan::Plan;

/// The tenant of local operators: it has no secret, and is always there.
const LOCAL_TENANT: &str = "default";

impl Kernel {
    pub(crate) fn decide(&self, call: &Call, grants: Option<&Grants>, needs: &[Need]) -> Decision {
        let Some(grants) = grants else {
            // An operator may do what the host may.
            let step = Step {
                layer: Layer::Door,
                about: call.request.syscall.to_string(),
                allowed: true,
                rule: format!("door: operator {}", call.caller.subject()),
            };
            return Decision { allowed: true, steps: vec![step] };
        };
        let tenant = self.0.tenants.get(&grants.uri.tenant);
        if tenant.is_none() && grants.uri.tenant.as_str() != LOCAL_TENANT {
            // Its rules went with it: what they would have said is not known.
            let step = Step {
                layer: Layer::Tenant,
                about: call.request.syscall.to_string(),
                allowed: false,
                rule: format!("tenant {}: it was revoked", grants.uri.tenant),
            };
            return Decision { allowed: false, steps: vec![step] };
        }
        let authority = Authority {
            agent: &grants.address,
            effective: &grants.effective,
            allow: &grants.spec.allow,
            deny: &grants.spec.deny,
            syscalls: &grants.spec.syscalls,
            global: grants.policy.as_deref(),
            tenant: tenant.as_ref().and_then(|tenant| tenant.policy.as_ref()),
        };
        let ask = Ask { syscall: &call.request.syscall, caps_required: &call.request.caps_required, needs };
        decide(&authority, &ask)
    }

    /// The task that a call says it is for; none: it says nothing of one, or of one that AION does not know.
    ///
    /// # Errors
    /// It is another agent's.
    pub(crate) async fn task_of(
        &self,
        call: &Call,
        grants: Option<&Grants>,
    ) -> Result<Option<TaskLimits>, Refusal> {
        let task = call.request.context.task_id.as_str();
        let Some(grants) = grants.filter(|_| !task.is_empty()) else { return Ok(None) };
        let shown: String = task.chars().take(80).collect();
        match self.0.host.task(&grants.uri.tenant, &grants.uri.name, task).await? {
            TaskFound::Own(limits) => Ok(Some(limits)),
            // The caller's own name for what it does, as clients with tasks of their own send it: it is recorded, and opens no account.
            TaskFound::Unknown => Ok(None),
            TaskFound::Foreign => {
                let message = format!("context.task_id: task {shown:?} is not one of {}", grants.uri);
                Err(Refusal::new(Reason::Denied, ErrorCode::PermissionDenied, message)
                    .by("kernel: a task is its agent's")
                    .at("context.task_id")
                    .hint("name a task of the agent that makes the call, or leave task_id out"))
            }
        }
    }

    /// The accounts that a call is charged to, and what it alone may cost.
    pub(crate) fn accounts(
        &self,
        call: &Call,
        grants: Option<&Grants>,
        task: Option<TaskLimits>,
    ) -> (Vec<(Account, Limits)>, Limits) {
        let tenant = call.caller.tenant();
        let mut per_call =
            Limits { usd_micros: call.request.budget.usd_micros, tokens: call.request.budget.tokens };
        let mut accounts = Vec::new();
        let mut limits = AccountLimits::default();
        if let Some(grants) = grants {
            let (quota, uri) = (grants.spec.quota, &grants.uri);
            limits = self.0.host.limits(&uri.tenant, &uri.name);
            limits.agent.usd_micros =
                least(limits.agent.usd_micros, quota.usd_per_hour.map(|usd| usd.micros));
            if let Some(rate) = quota.token_rate {
                let minute = Account::AgentMinute { tenant: tenant.to_string(), name: uri.name.to_string() };
                accounts.push((minute, tokens(rate)));
            }
            let own = grants.spec.policy_overrides.budget.as_ref().map(|budget| budget.usd_max.micros);
            match task {
                Some(of_task) => {
                    let (tenant, task) = (tenant.to_string(), call.request.context.task_id.clone());
                    if let Some(usd) = of_task.usd_micros_per_hour {
                        let hour = Account::TaskHour { tenant: tenant.clone(), task: task.clone() };
                        accounts.push((hour, Limits { usd_micros: Some(usd), tokens: None }));
                    }
                    if let Some(rate) = of_task.token_rate {
                        let minute = Account::TaskMinute { tenant: tenant.clone(), task: task.clone() };
                        accounts.push((minute, tokens(rate)));
                    }
                    let usd_micros = least(of_task.all.usd_micros, own);
                    let limits = Limits { usd_micros, tokens: of_task.all.tokens };
                    accounts.push((Account::Task { tenant, task }, limits));
                }
                // Without a task of its own a call is its own task, or a made-up id would be a new budget.
                None => per_call.usd_micros = least(per_call.usd_micros, own),
            }
            let agent = Account::Agent { tenant: tenant.to_string(), name: grants.uri.name.to_string() };
            accounts.push((agent, limits.agent));
        }
        if let Some(settings) = self.0.tenants.get(tenant).map(|tenant| tenant.settings.clone()) {
            limits.tenant.usd_micros = least(limits.tenant.usd_micros, settings.usd_micros_per_hour);
            limits.tenant.tokens = least(limits.tenant.tokens, settings.tokens_per_hour);
        }
        accounts.push((Account::Tenant { tenant: tenant.to_string() }, limits.tenant));
        (accounts, per_call)
    }
}

pub(crate) fn push(decision: &mut Decision, allowed: bool, rule: &str) {
    decision.allowed = allowed;
    decision.steps.push(Step {
        layer: Layer::Budget,
        about: "cost".to_owned(),
        allowed,
        rule: rule.to_owned(),
    });
}

/// What may be done, but on another host, is not done where the caller's data stays here.
pub(crate) fn keep_here(decision: &mut Decision, plan: &Plan) {
    let Some(rule) = plan.kept_here.filter(|_| decision.allowed) else { return };
    decision.allowed = false;
    let about = format!("{}, which another host serves,", plan.target);
    decision.steps.push(Step { layer: Layer::Privacy, about, allowed: false, rule: rule.to_owned() });
}

/// The decision of a refusal that privacy alone made.
pub(crate) fn privacy_alone(refusal: &Refusal) -> Option<Decision> {
    let rule = refusal.rule.strip_prefix("privacy: ")?.to_owned();
    let about = refusal.message.clone();
    let step = Step { layer: Layer::Privacy, about, allowed: false, rule };
    Some(Decision { allowed: false, steps: vec![step] })
}

const fn tokens(rate: u64) -> Limits {
    Limits { usd_micros: None, tokens: Some(rate) }
}

const fn least(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(if a < b { a } else { b }),
        (Some(one), None) | (None, Some(one)) => Some(one),
        (None, None) => None,
    }
}

/// A call's own budget is kept to the letter: what could cost more is not begun.
pub(crate) fn within(plan: &Plan, limits: Limits) -> Result<(), Refusal> {
    let over = |what: &str, most: u64, limit: Option<u64>| match limit {
        Some(limit) if most > limit => {
            let message = format!("the call can cost {most} {what}, its budget has {limit}");
            Err(Refusal::new(Reason::Exhausted, ErrorCode::BudgetExceeded, message)
                .by(format!("budget: the call: {what}"))
                .at("budget"))
        }
        _ => Ok(()),
    };
    over("millionths of a USD", plan.most.usd_micros, limits.usd_micros)?;
    over("tokens", plan.most.tokens, limits.tokens)
}
