//! The kernel: takes a call through its stages. Each call runs in a task of its own, so that a caller who goes away leaves
//! nothing half settled.

use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aion_manifest::{CapabilityPolicy, Classes, Context};
use aion_signing::Guard;
use aion_store::Store;
use aion_syscall::{
    Answer, Decision, Engine, ErrorBody, Layer, Limit, Reason, Refusal, Request, Step, Usage,
};
use aion_telemetry::Spans;
use aion_tenants::{Sealer, Tenants};
use aion_types::{AgentUri, ErrorCode, TenantId};
use futures::FutureExt as _;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use crate::approvals::{self, Approvals};
use crate::authority::{keep_here, privacy_alone, push, within};
use crate::caller::Caller;
use crate::fetch::Fetches;
use crate::files::Files;
use crate::grants::{Grants, GrantsOf};
use crate::host::{AuditEntry, Host};
use crate::mail::Mail;
use crate::memory;
use crate::metrics::Metrics;
use crate::models::ModelsOf;
use crate::plan::{self, Work};
use crate::record::{DecisionRow, Recorder};
use crate::redact::Redactors;
use crate::secrets::Secrets;
use crate::servers::Servers;
use crate::telling::Telling;
use crate::tools::Tools;
use crate::turned_away::TurnedAway;
use crate::usage::Accounts;

mod ending;
mod work;

pub(crate) use ending::answer_of;

/// How long recording the end of a question may take.
const TO_TELL: Duration = Duration::from_secs(5);

/// How the kernel is set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// The state folder as reached by this process.
    pub state: PathBuf,
    /// The same, absolute: what the launcher is told.
    pub state_absolute: PathBuf,
    /// What manifests are checked against.
    pub manifests: Context,
    /// The cgroup classes.
    pub classes: Arc<Classes>,
    /// What agents may have at all; none: everything.
    pub policy: Option<Arc<CapabilityPolicy>>,
    /// Models of this host alone are called.
    pub offline: bool,
    /// The program that runs WebAssembly tools, `aion-wasm`.
    pub wasm_runner: PathBuf,
    /// Who gets spans.
    pub spans: Spans,
    /// What must be signed.
    pub signatures: Arc<Guard>,
}

pub(crate) struct Inner {
    pub(crate) store: Arc<Store>,
    pub(crate) host: Arc<dyn Host>,
    pub(crate) tenants: Tenants,
    pub(crate) tools: Tools,
    pub(crate) models: ModelsOf,
    pub(crate) secrets: Secrets,
    pub(crate) fetches: Fetches,
    pub(crate) redactors: Redactors,
    pub(crate) offline: bool,
    pub(crate) classes: Arc<Classes>,
    pub(crate) grants: GrantsOf,
    pub(crate) accounts: Accounts,
    pub(crate) servers: Arc<Servers>,
    pub(crate) approvals: Approvals,
    pub(crate) files: Files,
    pub(crate) mail: Mail,
    wasm_runner: PathBuf,
    kept: memory::Kept,
    pub(crate) metrics: Metrics,
    recorder: Recorder,
    turned_away: TurnedAway,
    telling: Telling,
}

/// The kernel. Cheap to clone.
#[derive(Clone)]
pub struct Kernel(pub(crate) Arc<Inner>);

impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Kernel(…)")
    }
}

/// An answer, and why it is none.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// What is sent.
    pub answer: Answer,
    /// What it is on doors that have numbers for it.
    pub refusal: Option<Refusal>,
}

/// What is known of a call so far.
pub(crate) struct Call {
    pub(crate) audit_id: String,
    time_ns: u64,
    pub(crate) began: Instant,
    pub(crate) caller: Caller,
    pub(crate) request: Request,
    pub(crate) agent: Option<AgentUri>,
    pub(crate) agent_id: String,
    /// What the agent has, as it was when the call was decided.
    pub(crate) grants: Option<Arc<Grants>>,
    engine: Engine,
    pub(crate) target: String,
    /// Where parts of the answer go as they come.
    chunks: Option<mpsc::Sender<Value>>,
    /// Closed when the caller waits no more.
    caller_waits: watch::Receiver<()>,
    pub(crate) decision: Option<Decision>,
    /// What it has cost, also when it failed.
    spent: Limit,
    /// What was decided while the work was under way.
    pub(crate) later: Mutex<Vec<Step>>,
}

/// What came of the work.
pub(crate) struct Done {
    pub(crate) result: Value,
    used: Limit,
    tokens_in: u64,
    tokens_out: u64,
    /// Whether a model's backend did not say what it used.
    estimated: bool,
}

pub(crate) fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

impl Call {
    /// Ends when nobody waits for the answer any more.
    pub(crate) async fn gone(&self) {
        let mut waits = self.caller_waits.clone();
        let left = async { while waits.changed().await.is_ok() {} };
        match &self.chunks {
            Some(chunks) => tokio::select! {
                () = chunks.closed() => {}
                () = left => {}
            },
            None => left.await,
        }
    }
}

impl Kernel {
    /// Opens the kernel over a store. On a runtime.
    ///
    /// # Errors
    /// When keys or rows cannot be read.
    pub fn open(options: Options, store: Arc<Store>, host: Arc<dyn Host>) -> Result<Self, Refusal> {
        let failed = |error: &dyn std::error::Error| {
            let source = error.source().map_or(String::new(), |source| format!(": {source}"));
            Refusal::new(Reason::Internal, ErrorCode::Internal, format!("{error}{source}"))
        };
        if let Some(policy) = &options.policy {
            approvals::check(policy.approval(), &plan::SYSCALLS)?;
        }
        let seal = options.state.join("keys/seal.key");
        let was_there = seal.exists();
        let sealer = Sealer::open(&seal).map_err(|error| failed(&error))?;
        let now = now_ns();
        let models = ModelsOf::open(Arc::clone(&store), sealer.clone(), options.offline)?;
        let secrets = Secrets::open(Arc::clone(&store), sealer.clone())?;
        let tenants =
            Tenants::open(Arc::clone(&store), sealer, now / 1_000_000).map_err(|error| match was_there {
                true => failed(&error),
                false => {
                    // A new one in its place would hide that it is gone.
                    let _ = std::fs::remove_file(&seal);
                    let message =
                        format!("{} is gone, and tenants' secrets are sealed with it", seal.display());
                    Refusal::new(Reason::Internal, ErrorCode::Internal, message)
                        .hint("put it back from a backup")
                }
            })?;
        let tools = Tools::open(
            Arc::clone(&store),
            &options.state,
            &options.state_absolute,
            Arc::clone(&options.classes),
            Arc::clone(&options.signatures),
        )?;
        Ok(Self(Arc::new(Inner {
            accounts: Accounts::restore(&store, now)?,
            kept: memory::Kept::default(),
            recorder: Recorder::start(Arc::clone(&store), Arc::clone(&host)),
            servers: Servers::start(Arc::clone(&host)),
            approvals: Approvals::default(),
            files: Files::default(),
            mail: Mail::default(),
            wasm_runner: options.wasm_runner,
            offline: options.offline,
            grants: GrantsOf::new(options.manifests, options.policy),
            metrics: Metrics::default(),
            turned_away: TurnedAway::default(),
            telling: Telling::new(options.spans),
            classes: options.classes,
            fetches: Fetches::open()?,
            redactors: Redactors::default(),
            tools,
            models,
            secrets,
            tenants,
            host,
            store,
        })))
    }

    /// The tenants.
    #[must_use]
    pub fn tenants(&self) -> &Tenants {
        &self.0.tenants
    }

    /// What agents may have at all; none: everything.
    #[must_use]
    pub fn policy(&self) -> Option<Arc<CapabilityPolicy>> {
        self.0.grants.policy()
    }

    /// Decides by other rules from now on. Calls that were let in go on.
    ///
    /// # Errors
    /// A rule asks for a person's agreement to a call that this kernel has not.
    pub fn set_policy(&self, policy: Arc<CapabilityPolicy>) -> Result<(), Refusal> {
        approvals::check(policy.approval(), &plan::SYSCALLS)?;
        self.0.grants.set_policy(policy);
        Ok(())
    }

    /// The figures.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// The figures as Prometheus' text, those of the models included.
    #[must_use]
    pub fn metrics_text(&self) -> String {
        let mut text = self.0.metrics.text();
        text.push_str(&crate::metrics::gauges_text(self.0.servers.count(), self.0.approvals.count()));
        text.push_str(&crate::metrics::models_text(&self.0.models.metrics()));
        text.push_str(&self.0.telling.text());
        text
    }

    /// Makes a call. Always answers; also a call that was not valid has an audit id.
    pub async fn invoke(&self, caller: Caller, request: Request) -> Outcome {
        self.begin(caller, request, None).await
    }

    /// Makes a call whose answer comes in parts where it can: `chunks` gets them as they come, the outcome ends it.
    pub async fn invoke_stream(
        &self,
        caller: Caller,
        request: Request,
        chunks: mpsc::Sender<Value>,
    ) -> Outcome {
        self.begin(caller, request, Some(chunks)).await
    }

    /// Answers what was let in and could not be read as a call; it is recorded as one that failed.
    pub async fn refused(&self, caller: &Caller, syscall: &str, refusal: Refusal) -> Outcome {
        let audit_id = audit_id();
        let mut refusal = refusal;
        let redactor = self.redactor(caller.tenant());
        redactor.refusal(&mut refusal);
        let mut syscall: String = syscall.chars().take(80).collect();
        redactor.text(&mut syscall);
        let row = DecisionRow {
            audit_id: audit_id.clone(),
            time_ns: now_ns(),
            syscall,
            tenant: caller.tenant().to_string(),
            agent: String::new(),
            agent_id: String::new(),
            caller: caller.subject(),
            task: String::new(),
            trace: String::new(),
            target: String::new(),
            decision: None,
            status: refusal.status(),
            error: Some(ErrorBody::from(&refusal)),
            usage: Usage::default(),
            engine: plan::kernel_engine(),
        };
        self.0.recorder.record(row).await;
        answer_of(refusal, audit_id)
    }

    /// Counts and records a request that no door let in; `tenant` is whom it claims to be, `why` one word.
    pub fn turned_away(&self, tenant: &str, why: &'static str) {
        self.0.metrics.unauthenticated(why);
        let Some(more) = self.0.turned_away.take(Instant::now()) else { return };
        // What is long and no tenant's name can be a secret in the wrong header: those have 16 bytes and more.
        let is_told = tenant.len() < 16
            || TenantId::parse(tenant).is_ok_and(|name| self.0.tenants.get(&name).is_some());
        let mut detail = json!({"claimed": if is_told { tenant } else { "" }});
        if more > 0 {
            detail["more_before"] = json!(more);
        }
        let entry = AuditEntry {
            // What anybody can claim does not get into a tenant's own records.
            tenant: String::new(),
            agent: String::new(),
            task: String::new(),
            trace: String::new(),
            kind: "api.unauthenticated",
            verdict: "denied",
            rule: format!("door:{why}"),
            detail_json: detail.to_string(),
        };
        let host = Arc::clone(&self.0.host);
        tokio::spawn(async move { host.audit(entry).await });
    }

    async fn begin(&self, caller: Caller, request: Request, chunks: Option<mpsc::Sender<Value>>) -> Outcome {
        // A process that was started for a task spends that task's budget, whatever it says.
        let request = match &caller {
            Caller::Agent { task: Some(task), .. } => request.for_task(task),
            _ => request,
        };
        // Dropped with this future, when the door lets go of it.
        let (_waits, caller_waits) = watch::channel(());
        let call = Call {
            audit_id: audit_id(),
            time_ns: now_ns(),
            began: Instant::now(),
            caller,
            request,
            agent: None,
            agent_id: String::new(),
            grants: None,
            engine: plan::kernel_engine(),
            target: String::new(),
            chunks,
            caller_waits,
            decision: None,
            spent: Limit::default(),
            later: Mutex::default(),
        };
        let kernel = self.clone();
        match tokio::spawn(async move { kernel.run(call).await }).await {
            Ok(outcome) => outcome,
            Err(error) => {
                tracing::error!(%error, "a system call did not run to its end");
                let refusal =
                    Refusal::new(Reason::Internal, ErrorCode::Internal, "the call did not run to its end");
                answer_of(refusal, String::new())
            }
        }
    }

    async fn run(&self, mut call: Call) -> Outcome {
        self.0.metrics.began();
        let done = self.stages(&mut call).await;
        self.finish(call, done).await
    }

    async fn stages(&self, call: &mut Call) -> Result<Done, Refusal> {
        let tenant = call.caller.tenant().clone();
        call.agent = call.caller.agent_of(&call.request)?;
        let grants = match &call.agent {
            Some(uri) => Some(self.0.grants.of(self.0.host.as_ref(), uri)?),
            None => None,
        };
        if let Some(grants) = &grants {
            // A tenant's own call is no agent's.
            if !grants.uri.name.is_whole_tenant() {
                call.agent_id.clone_from(&grants.id);
            }
            call.grants = Some(Arc::clone(grants));
        }
        let privacy = grants.as_ref().and_then(|grants| grants.spec.policy_overrides.privacy.as_ref());
        let with = plan::With {
            tenant: &tenant,
            tools: &self.0.tools,
            models: &self.0.models.models,
            allow_cloud: privacy.is_none_or(|privacy| privacy.allow_cloud),
            offline: self.0.offline,
        };
        let plan = plan::plan(&call.request, &with).inspect_err(|refusal| {
            // A model elsewhere is refused before it is known what the call needs.
            call.decision = privacy_alone(refusal);
        })?;
        call.engine = plan.engine.clone();
        call.target.clone_from(&plan.target);
        let mut decision = self.decide(call, grants.as_deref(), &plan.needs);
        keep_here(&mut decision, &plan);
        let refused = decision.refusal();
        if let Some(refusal) = refused {
            call.decision = Some(decision);
            return Err(refusal);
        }
        // What it is given is looked at after it is known that it may have it: a denial tells nothing about the tool.
        if let Work::Tool(installed, arguments) = &plan.work {
            call.decision = Some(decision.clone());
            installed.check_input(arguments)?;
        }
        let task = self.task_of(call, grants.as_deref()).await.inspect_err(|refusal| {
            let (layer, about) = (Layer::Door, "context.task_id".to_owned());
            decision.steps.push(Step { layer, about, allowed: false, rule: refusal.rule.clone() });
            decision.allowed = false;
            call.decision = Some(decision.clone());
        })?;
        let asked = Instant::now();
        let waited = match self.agreed(call, &plan, &mut decision).await {
            Ok(true) => asked.elapsed(),
            Ok(false) => Duration::ZERO,
            Err(refusal) => {
                call.decision = Some(decision);
                return Err(refusal);
            }
        };
        let (accounts, per_call) = self.accounts(call, grants.as_deref(), task);
        if let Err(refusal) = within(&plan, per_call) {
            push(&mut decision, false, &refusal.rule);
            call.decision = Some(decision);
            return Err(refusal);
        }
        let (store, audit_id) = (Arc::clone(&self.0.store), call.audit_id.clone());
        let reserved = self.0.accounts.reserve(&store, call.time_ns, &audit_id, &accounts, plan.most);
        let held = match reserved {
            Ok(held) => held,
            Err(refusal) => {
                push(&mut decision, false, &refusal.rule);
                call.decision = Some(decision);
                return Err(refusal);
            }
        };
        push(&mut decision, true, "budget: there is enough left");
        call.decision = Some(decision);
        let (latency_ms, own_timeout) = (call.request.budget.latency_ms, plan.timeout);
        let timeout = latency_ms
            .map_or(own_timeout, |ms| own_timeout.min(Duration::from_millis(ms).saturating_sub(waited)));
        let (price, most) = (plan.price, plan.most);
        // A question ends by itself, and what became of it is recorded before its call is cut off.
        let patience =
            if matches!(plan.work, Work::Ask(_)) { timeout.saturating_add(TO_TELL) } else { timeout };
        // Whatever happens in there, what was reserved is settled.
        let work = AssertUnwindSafe(self.work(call, plan, timeout)).catch_unwind();
        let result = match tokio::time::timeout(patience, work).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => {
                let message = "the call did not run to its end";
                Err((Refusal::new(Reason::Internal, ErrorCode::Internal, message), most))
            }
            Err(_) => {
                let message = format!("the call was ended after {} ms", timeout.as_millis());
                let refusal = Refusal::new(Reason::Timeout, ErrorCode::DeadlineExceeded, message);
                // What was cut off may have cost all that it could.
                // The field is the caller's when the limit is; else it is the tool's, the model's or the kernel's own.
                let asked = latency_ms
                    .is_some_and(|ms| Duration::from_millis(ms).saturating_sub(waited) <= own_timeout);
                Err((if asked { refusal.at("budget.latency_ms") } else { refusal }, most))
            }
        };
        // A tool's price is for the attempt.
        let used = match &result {
            Ok(done) => done.used,
            Err((_, used)) if *used == Limit::default() => price,
            Err((_, used)) => *used,
        };
        self.0.accounts.settle(&store, now_ns(), &audit_id, &accounts, held, used);
        call.spent = used;
        result.map_err(|(refusal, _)| refusal)
    }

    /// Old accounts and rows go. Called now and then; blocks.
    pub fn tidy(&self) {
        let now = now_ns();
        self.0.accounts.tidy(now);
        loop {
            match self.0.store.sweep_rows(now, 1000) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%error, "rows that are over cannot be swept");
                    return;
                }
            }
        }
    }
}

/// `sc-` and a number that grows with time: 48 bits of milliseconds, 80 of chance.
fn audit_id() -> String {
    let mut random = [0u8; 10];
    // Without randomness the time alone must do; ids are names, not secrets.
    if getrandom::fill(&mut random).is_err() {
        random.copy_from_slice(&now_ns().to_be_bytes().repeat(2)[..10]);
    }
    let ms = now_ns() / 1_000_000;
    format!("sc-{}{}", hex::encode(&ms.to_be_bytes()[2..]), hex::encode(random))
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
