//! Register and Validate: a manifest becomes a stored agent.

use std::sync::Arc;

use aion_api_proto::v1 as api;
use aion_manifest::{AgentSpec, Gpu, Overrides};
use aion_store::{AgentRecord, Batch};
use aion_types::{AgentId, ErrorCode, TenantId};
use prost::Message as _;
use serde_json::json;

use crate::clock::now_ns;
use crate::core::Core;
use crate::launch::{self, Size};
use crate::lifecycle::{self, Command};
use crate::principal::Principal;
use crate::problem::{Outcome, Problem};
use crate::requests::Claim;
use crate::trail::Entry;
use crate::{convert, stage};

/// The largest manifest.
const MAX_MANIFEST: usize = 256 << 10;
/// The largest profile, a little above what the launcher takes: it says so itself.
const MAX_PROFILE: usize = 512 << 10;
/// The longest file name in messages.
const MAX_FILE_NAME: usize = 256;

impl Core {
    pub(crate) async fn register(
        self: Arc<Self>,
        principal: Principal,
        request: api::RegisterRequest,
        claim: Claim,
    ) -> Outcome<api::Agent> {
        let mut name = String::new();
        let outcome = self.try_register(&principal, &request, &claim, &mut name).await;
        let agent = outcome.as_ref().map_or("", |agent| agent.id.as_str());
        let signed_by = outcome.as_ref().map_or("", |agent| agent.signed_by.as_str());
        let detail = json!({
            "name": name, "replace": request.replace, "request_id": request.request_id, "signed_by": signed_by,
        });
        let kind = stage::Action::Register.kind();
        self.trail
            .record(Entry { principal: &principal, kind, agent, detail }, outcome.as_ref().map(|_| ()))
            .await;
        outcome
    }

    async fn try_register(
        &self,
        principal: &Principal,
        request: &api::RegisterRequest,
        claim: &Claim,
        name: &mut String,
    ) -> Outcome<api::Agent> {
        self.store.check_room(false)?;
        let given = request.overrides.clone().unwrap_or_default();
        let size = Size::new(given.rows, given.cols);
        let (auto_remove, tty_size) = (given.auto_remove, size);
        let signed_by = self.signer(&request.manifest, &request.signature)?;
        self.check_overrides(&given)?;
        let spec = self.spec(&request.manifest, &request.manifest_name, overrides(given)?)?;
        spec.name.as_str().clone_into(name);
        check_gpu(&spec)?;
        let tenant = principal.tenant();
        let id = new_id()?;
        self.permit_as(tenant, &id, &spec)?;
        let launch = launch::plan(&spec, tenant, &id, tty_size);
        let record = AgentRecord { auto_remove, signed_by, ..record_of(&spec, tenant, &id) };
        let answer = convert::agent(&record);
        let old = if request.replace { self.store.agent_by_name(tenant, &spec.name)? } else { None };
        let Some(old) = old else {
            let mut batch = Batch::new();
            batch.create_agent(&record, &launch.encode_to_vec(), &spec.to_yaml())?;
            claim.note_answer(&mut batch, &answer);
            self.agents.commit(&id, batch).await?;
            self.registered(&record, &spec);
            return Ok(answer);
        };
        // The old one's lock keeps a start of it from coming in between.
        let _op = self.agents.lock(&old).await;
        let old = self.agents.find(tenant, old.as_str())?;
        lifecycle::check(&old, Command::Replace)?;
        self.forget_at_launcher(&old).await?;
        let mut batch = Batch::new();
        batch.replace_agent(&old, &record, &launch.encode_to_vec(), &spec.to_yaml())?;
        claim.note_answer(&mut batch, &answer);
        self.agents.commit(&old.id, batch).await?;
        self.unregistered(&old, true);
        self.registered(&record, &spec);
        Ok(answer)
    }

    pub(crate) async fn validate(
        &self,
        principal: &Principal,
        request: api::ValidateRequest,
    ) -> Outcome<api::ValidateResponse> {
        let spec = self.spec(&request.manifest, &request.manifest_name, Overrides::default())?;
        self.permit(principal.tenant(), &spec)?;
        let signed_by = self.signer(&request.manifest, &request.signature)?;
        if request.with_profile || !request.profile.is_empty() {
            if request.profile.len() > MAX_PROFILE {
                let message = format!("it has more than {MAX_PROFILE} bytes");
                return Err(Problem::new(ErrorCode::TooLarge, message).with("field", "profile"));
            }
            // Only the launcher can say: it has the profiles, and compiles them.
            self.launcher.check_profile(&spec.seccomp_profile, request.profile).await?;
        }
        Ok(api::ValidateResponse {
            normalised_yaml: spec.to_yaml(),
            warnings: spec.warnings.clone(),
            signed_by,
        })
    }

    /// Parses and checks. An empty manifest is that of a bare command.
    fn spec(&self, manifest: &[u8], file: &str, overrides: Overrides) -> Outcome<AgentSpec> {
        if manifest.len() > MAX_MANIFEST {
            let message =
                format!("the manifest has {} bytes, at most {MAX_MANIFEST} are read", manifest.len());
            return Err(Problem::new(ErrorCode::TooLarge, message).with("field", "manifest"));
        }
        if file.len() > MAX_FILE_NAME || file.chars().any(char::is_control) {
            return Err(Problem::field("manifest_name", "it is too long or holds a control character"));
        }
        let context = &self.options.manifests;
        let file = if file.is_empty() { "agent.yml" } else { file };
        let spec = if manifest.is_empty() {
            if overrides.argv.is_empty() {
                return Err(Problem::field("manifest", "there is neither a manifest nor a command"));
            }
            AgentSpec::for_command(overrides, context)?
        } else {
            AgentSpec::parse(manifest, file, overrides, context)?
        };
        Ok(spec)
    }
}

/// `device:` rules show nodes; that they are a GPU is known to nobody: who needs one would run without it, and not know.
fn check_gpu(spec: &AgentSpec) -> Outcome<()> {
    const FIELD: &str = "spec.resources.gpu";
    if !matches!(spec.resources.gpu, Gpu::Count(_)) {
        return Ok(());
    }
    let message = format!("{FIELD}: the agent needs a GPU, and this version shows none to an agent");
    Err(Problem::new(ErrorCode::LayerUnavailable, message)
        .with("field", FIELD)
        .hint("write `gpu: optional` or `gpu: none` if it can do without"))
}

/// The record of an agent that is registered now.
pub(crate) fn record_of(spec: &AgentSpec, tenant: &TenantId, id: &AgentId) -> AgentRecord {
    AgentRecord {
        version: spec.version.clone(),
        restart: launch::restart_rule(spec),
        created_ns: now_ns(),
        command: spec.argv.clone(),
        workspace: launch::workspace_word(spec),
        audit: launch::audit_word(spec),
        labels: spec.labels.clone(),
        tty: spec.tty,
        ..AgentRecord::new(id.clone(), tenant.clone(), spec.name.clone())
    }
}

fn overrides(given: api::Overrides) -> Outcome<Overrides> {
    let total: usize = given.argv.iter().map(String::len).sum::<usize>()
        + given.env.iter().map(|(k, v)| k.len() + v.len()).sum::<usize>();
    if total > MAX_MANIFEST {
        let message = format!("command and environment have {total} bytes, at most {MAX_MANIFEST} are taken");
        return Err(Problem::new(ErrorCode::TooLarge, message).with("field", "overrides"));
    }
    let some = |text: String| if text.is_empty() { None } else { Some(text) };
    Ok(Overrides {
        name: some(given.name),
        argv: given.argv,
        workspace: some(given.workspace),
        env: given.env.into_iter().collect(),
        tty: given.tty,
        labels: given.labels.into_iter().collect(),
        ..Overrides::default()
    })
}

/// A fresh id: the time, then 80 random bits.
pub(crate) fn new_id() -> Outcome<AgentId> {
    let mut random = [0u8; 16];
    getrandom::fill(&mut random)
        .map_err(|error| Problem::new(ErrorCode::Internal, format!("no randomness for an id: {error}")))?;
    Ok(AgentId::from_parts(now_ns() / 1_000_000, u128::from_le_bytes(random)))
}
