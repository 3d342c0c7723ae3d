//! KernelService: each method lets a request through its stages and hands it to the kernel.

use aion_api_proto::v1 as api;
use aion_api_proto::v1::kernel_service_server::KernelService;
use aion_kernel::{ModelConfig, ModelKind, ToolFileData, ToolOverview};
use aion_tenants::{Overview, Secret, Settings};
use aion_types::{AgentUri, ErrorCode, TenantId};
use serde_json::{Value, json};
use tonic::{Request, Response, Status};

use crate::clock::{now_ns, timestamp};
use crate::principal::Principal;
use crate::problem::{Outcome, Problem};
use crate::service::Services;
use crate::stage::Action;
use crate::trail::Entry;
use crate::{approvals, secrets};

/// How long a secret stays good after a rotation that does not say.
const OVERLAP_NS: u64 = 3_600_000_000_000;
fn settings(given: Option<api::TenantSettings>) -> Outcome<Settings> {
    let given = given.unwrap_or_default();
    let usd_micros_per_hour = match given.usd_per_hour {
        None => None,
        Some(usd) if (0.0..=1e9).contains(&usd) => Some(micros(usd)),
        Some(_) => return Err(Problem::field("usd_per_hour", "use 0 to 1000000000")),
    };
    Ok(Settings {
        require_timestamp: given.require_timestamp,
        allow: given.allow,
        deny: given.deny,
        rate_per_second: match given.rate_per_second {
            Some(0) => {
                return Err(Problem::field("rate_per_second", "use 1 or more, or leave it out: no limit"));
            }
            rate => rate,
        },
        usd_micros_per_hour,
        tokens_per_hour: given.tokens_per_hour,
    })
}

fn micros(usd: f64) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the caller has bounded it")]
    let micros = (usd * 1_000_000.0).round() as u64;
    micros
}

fn usd(micros: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "amounts are far below 2^53 millionths")]
    let usd = micros as f64 / 1_000_000.0;
    usd
}

fn tenant(overview: Overview) -> api::Tenant {
    let Settings { require_timestamp, allow, deny, rate_per_second, usd_micros_per_hour, tokens_per_hour } =
        overview.settings;
    let usd_per_hour = usd_micros_per_hour.map(usd);
    api::Tenant {
        name: overview.name.to_string(),
        settings: Some(api::TenantSettings {
            require_timestamp,
            allow,
            deny,
            rate_per_second,
            usd_per_hour,
            tokens_per_hour,
        }),
        created: timestamp(overview.created_ns),
        secrets: overview
            .secrets
            .into_iter()
            .map(|(id, created, until)| api::TenantSecret {
                id,
                created: timestamp(created),
                until: until.and_then(timestamp),
            })
            .collect(),
    }
}

impl From<aion_tenants::Error> for Problem {
    fn from(error: aion_tenants::Error) -> Self {
        use aion_tenants::Error as E;
        let message = error.to_string();
        match error {
            E::Exists { .. } => Self::new(ErrorCode::TenantExists, message)
                .hint("`aionctl tenant rotate` gives it a new secret, `tenant set` other settings"),
            E::NotFound { .. } => Self::new(ErrorCode::TenantNotFound, message),
            E::Invalid { field, .. } => Self::field(field, message),
            E::Store(error) => Self::from(error),
            other => Self::internal("the register of tenants failed", &other),
        }
    }
}

fn name_of(text: &str) -> Outcome<TenantId> {
    let name = TenantId::parse(text).map_err(|error| Problem::field("name", error.to_string()))?;
    if name.as_str() == "default" {
        return Err(Problem::field("name", "default is the tenant of local operators, and has no secret"));
    }
    Ok(name)
}

/// Empty: for all.
fn owner(text: &str) -> Outcome<Option<TenantId>> {
    if text.is_empty() {
        return Ok(None);
    }
    TenantId::parse(text).map(Some).map_err(|error| Problem::field("tenant", error.to_string()))
}

fn tool(tool: ToolOverview) -> api::Tool {
    api::Tool {
        name: tool.name,
        version: tool.version,
        tenant: tool.tenant.map_or_else(String::new, |tenant| tenant.to_string()),
        description: tool.description,
        requires: tool.requires,
        digest: tool.digest,
        installed: timestamp(tool.installed_ns),
        input_schema_json: tool.input.to_string(),
        output_schema_json: tool.output.to_string(),
        signed_by: tool.signed_by,
    }
}

fn length(ms: u64) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(ms / 1000).unwrap_or(i64::MAX),
        nanos: i32::try_from(ms % 1000 * 1_000_000).unwrap_or(0),
    }
}

fn millis(length: &prost_types::Duration) -> u64 {
    let seconds = u64::try_from(length.seconds).unwrap_or(0);
    seconds.saturating_mul(1000).saturating_add(u64::try_from(length.nanos / 1_000_000).unwrap_or(0))
}

fn model(config: ModelConfig) -> api::Model {
    let word = |value: Value| value.as_str().unwrap_or_default().to_owned();
    api::Model {
        upstream: config.upstream.unwrap_or_default(),
        local: config.local,
        usd_per_mtok_in: usd(config.usd_per_mtok_in),
        usd_per_mtok_out: usd(config.usd_per_mtok_out),
        max_output_tokens: config.max_output_tokens,
        context_tokens: config.context_tokens,
        timeout: Some(length(config.timeout_ms)),
        max_retries: config.max_retries,
        cache_ttl: Some(length(config.cache_ttl_s.saturating_mul(1000))),
        aliases: config.aliases,
        kinds: config.kinds.into_iter().map(|kind| kind.as_str().to_owned()).collect(),
        output_limit: word(json!(config.output_limit)),
        name: config.name,
        url: config.url,
    }
}

fn config(given: api::Model) -> Outcome<ModelConfig> {
    let price = |field: &'static str, usd: f64| match usd {
        usd if (0.0..=1e6).contains(&usd) => Ok(micros(usd)),
        _ => Err(Problem::field(field, "use 0 to 1000000")),
    };
    let mut config = ModelConfig::new(given.name, given.url, given.context_tokens);
    config.upstream = Some(given.upstream).filter(|upstream| !upstream.is_empty());
    config.local = given.local;
    config.usd_per_mtok_in = price("usd_per_mtok_in", given.usd_per_mtok_in)?;
    config.usd_per_mtok_out = price("usd_per_mtok_out", given.usd_per_mtok_out)?;
    if given.max_output_tokens > 0 {
        config.max_output_tokens = given.max_output_tokens;
    }
    if let Some(timeout) = &given.timeout {
        config.timeout_ms = millis(timeout);
    }
    config.max_retries = given.max_retries;
    config.cache_ttl_s = given.cache_ttl.as_ref().map_or(0, |ttl| millis(ttl) / 1000);
    config.aliases = given.aliases;
    if !given.kinds.is_empty() {
        let kind = |word: &String| match word.as_str() {
            "generate" => Ok(ModelKind::Generate),
            "embed" => Ok(ModelKind::Embed),
            _ => Err(Problem::field("kinds", format!("{word:?} is neither generate nor embed"))),
        };
        config.kinds = given.kinds.iter().map(kind).collect::<Outcome<_>>()?;
    }
    if !given.output_limit.is_empty() {
        config.output_limit = serde_json::from_value(json!(given.output_limit))
            .map_err(|_| Problem::field("output_limit", "use max_tokens or max_completion_tokens"))?;
    }
    Ok(config)
}

type Answer<T> = Result<Response<T>, Status>;

/// Does it to its end, also when the client goes away: agents that are held to half of a change, and no record of it, help nobody.
async fn to_its_end<T: Send + 'static>(work: impl Future<Output = Answer<T>> + Send + 'static) -> Answer<T> {
    tokio::spawn(work)
        .await
        .unwrap_or_else(|error| Err(Problem::internal("it did not run to its end", &error).into()))
}

impl Services {
    /// Writes a mutation down and answers with what came of it.
    pub(crate) async fn done<T>(
        &self,
        principal: &Principal,
        kind: &'static str,
        detail: Value,
        outcome: Outcome<T>,
    ) -> Result<Response<T>, Status> {
        let entry = Entry { principal, kind, agent: "", detail };
        self.0.trail.record(entry, outcome.as_ref().map(|_| ())).await;
        outcome.map(Response::new).map_err(Status::from)
    }

    async fn add_tenant_held(
        &self,
        principal: Principal,
        request: api::AddTenantRequest,
    ) -> Answer<api::Tenant> {
        let api::AddTenantRequest { name, secret, settings: given } = request;
        let detail = json!({"tenant": name});
        let outcome = async {
            let name = name_of(&name)?;
            let new = name.clone();
            let made = self
                .with_tenants(move |tenants| {
                    Ok(tenants.add(&new, Secret::new(secret), settings(given)?, now_ns())?)
                })
                .await?;
            // A crash may have left those of a tenant of the same name that was revoked.
            self.0.kernel()?.forget_secrets(name.clone()).await?;
            // Agents of a tenant of the same name that was revoked may still run: they get back what it leaves them. The tenant is there
            // also where that must wait.
            if let Err(problem) = self.0.hold_tenant(&name).await {
                tracing::warn!(tenant = %name, code = problem.code().as_str(), %problem, "its running agents are not looked at yet");
            }
            Ok(tenant(made))
        };
        let outcome = outcome.await;
        self.done(&principal, "api.tenant.add", detail, outcome).await
    }

    async fn set_tenant_held(
        &self,
        principal: Principal,
        request: api::SetTenantRequest,
    ) -> Answer<api::Tenant> {
        let api::SetTenantRequest { name, settings: given } = request;
        let detail = json!({"tenant": name});
        let outcome = async {
            let name = name_of(&name)?;
            let changed = name.clone();
            let set = self
                .with_tenants(move |tenants| Ok(tenants.set(&changed, settings(given)?, now_ns())?))
                .await?;
            self.0.hold_tenant(&name).await?;
            Ok(tenant(set))
        };
        let outcome = outcome.await;
        self.done(&principal, "api.tenant.set", detail, outcome).await
    }

    async fn rotate_tenant_held(
        &self,
        principal: Principal,
        request: api::RotateTenantRequest,
    ) -> Answer<api::Tenant> {
        let api::RotateTenantRequest { name, secret, overlap } = request;
        let overlap_ns =
            overlap.as_ref().map_or(OVERLAP_NS, |overlap| millis(overlap).saturating_mul(1_000_000));
        let detail = json!({"tenant": name, "overlap_ms": overlap_ns / 1_000_000});
        let outcome = self
            .with_tenants(move |tenants| {
                Ok(tenant(tenants.rotate(&name_of(&name)?, Secret::new(secret), overlap_ns, now_ns())?))
            })
            .await;
        self.done(&principal, "api.tenant.rotate", detail, outcome).await
    }

    async fn revoke_tenant_held(
        &self,
        principal: Principal,
        request: api::RevokeTenantRequest,
    ) -> Answer<api::RevokeTenantResponse> {
        let detail = json!({"tenant": request.name});
        let outcome = async {
            let name = name_of(&request.name)?;
            let revoked = name.clone();
            self.with_tenants(move |tenants| Ok(tenants.revoke(&revoked)?)).await?;
            // Another tenant of this name shall not have them.
            self.0.kernel()?.forget_secrets(name.clone()).await?;
            self.0.hold_tenant(&name).await?;
            Ok(api::RevokeTenantResponse {})
        };
        let outcome = outcome.await;
        self.done(&principal, "api.tenant.revoke", detail, outcome).await
    }

    async fn with_tenants<T: Send + 'static>(
        &self,
        work: impl FnOnce(aion_tenants::Tenants) -> Outcome<T> + Send + 'static,
    ) -> Outcome<T> {
        let tenants = self.0.kernel()?.tenants().clone();
        tokio::task::spawn_blocking(move || work(tenants))
            .await
            .map_err(|error| Problem::internal("it did not run to its end", &error))?
    }
}

#[tonic::async_trait]
impl KernelService for Services {
    async fn add_tenant(
        &self,
        request: Request<api::AddTenantRequest>,
    ) -> Result<Response<api::Tenant>, Status> {
        let (principal, request) = self.admit(request, Action::ManageTenants).await?.into_parts();
        let services = self.clone();
        to_its_end(async move { services.add_tenant_held(principal, request).await }).await
    }

    async fn set_tenant(
        &self,
        request: Request<api::SetTenantRequest>,
    ) -> Result<Response<api::Tenant>, Status> {
        let (principal, request) = self.admit(request, Action::ManageTenants).await?.into_parts();
        let services = self.clone();
        to_its_end(async move { services.set_tenant_held(principal, request).await }).await
    }

    async fn rotate_tenant(
        &self,
        request: Request<api::RotateTenantRequest>,
    ) -> Result<Response<api::Tenant>, Status> {
        let (principal, request) = self.admit(request, Action::ManageTenants).await?.into_parts();
        let services = self.clone();
        to_its_end(async move { services.rotate_tenant_held(principal, request).await }).await
    }

    async fn revoke_tenant(
        &self,
        request: Request<api::RevokeTenantRequest>,
    ) -> Result<Response<api::RevokeTenantResponse>, Status> {
        let (principal, request) = self.admit(request, Action::ManageTenants).await?.into_parts();
        let services = self.clone();
        to_its_end(async move { services.revoke_tenant_held(principal, request).await }).await
    }

    async fn list_tenants(
        &self,
        request: Request<api::ListTenantsRequest>,
    ) -> Result<Response<api::ListTenantsResponse>, Status> {
        self.admit(request, Action::ReadKernel).await?;
        let tenants = self.0.kernel()?.tenants().list().into_iter().map(tenant).collect();
        Ok(Response::new(api::ListTenantsResponse { tenants }))
    }

    async fn mint_token(
        &self,
        request: Request<api::MintTokenRequest>,
    ) -> Result<Response<api::MintTokenResponse>, Status> {
        let (principal, request) = self.admit(request, Action::ManageTenants).await?.into_parts();
        let outcome = async {
            let uri = AgentUri::parse(&request.agent)
                .map_err(|error| Problem::field("agent", error.to_string()))?;
            Ok(api::MintTokenResponse { token: self.0.kernel()?.tenants().bearer(&uri)? })
        };
        let outcome = outcome.await;
        self.done(&principal, "api.tenant.token", json!({"agent": request.agent}), outcome).await
    }

    async fn install_tool(
        &self,
        request: Request<api::InstallToolRequest>,
    ) -> Result<Response<api::Tool>, Status> {
        let (principal, request) = self.admit(request, Action::ManageTools).await?.into_parts();
        let api::InstallToolRequest { tenant, manifest, manifest_name, files, signature } = request;
        let files: Vec<_> = files
            .into_iter()
            .map(|file| ToolFileData { path: file.path, executable: file.executable, data: file.data })
            .collect();
        let name = if manifest_name.is_empty() { "tool.yml".to_owned() } else { manifest_name };
        let mut detail = json!({"tenant": tenant, "manifest": name.chars().take(200).collect::<String>()});
        let outcome = async {
            let owner = match owner(&tenant)? {
                Some(tenant) => Some(self.0.tenant_named(tenant.as_str())?),
                None => None,
            };
            Ok(tool(self.0.kernel()?.install_tool(owner, manifest, name, files, signature).await?))
        };
        let outcome = outcome.await;
        if let (Ok(tool), Some(map)) = (&outcome, detail.as_object_mut()) {
            map.insert("tool".to_owned(), json!(tool.name));
            map.insert("digest".to_owned(), json!(tool.digest));
            map.insert("signed_by".to_owned(), json!(tool.signed_by));
        }
        self.done(&principal, "api.tool.install", detail, outcome).await
    }

    async fn remove_tool(
        &self,
        request: Request<api::RemoveToolRequest>,
    ) -> Result<Response<api::RemoveToolResponse>, Status> {
        let (principal, request) = self.admit(request, Action::ManageTools).await?.into_parts();
        let detail = json!({"tenant": request.tenant, "tool": request.name});
        let outcome = async {
            self.0.kernel()?.remove_tool(owner(&request.tenant)?, request.name).await?;
            Ok(api::RemoveToolResponse {})
        };
        let outcome = outcome.await;
        self.done(&principal, "api.tool.remove", detail, outcome).await
    }

    async fn list_tools(
        &self,
        request: Request<api::ListToolsRequest>,
    ) -> Result<Response<api::ListToolsResponse>, Status> {
        let (principal, _) = self.admit(request, Action::ReadKernel).await?.into_parts();
        let tools = self.0.kernel()?.tools(principal.tenant()).into_iter().map(tool).collect();
        Ok(Response::new(api::ListToolsResponse { tools }))
    }

    async fn add_model(
        &self,
        request: Request<api::AddModelRequest>,
    ) -> Result<Response<api::Model>, Status> {
        let (principal, request) = self.admit(request, Action::ManageModels).await?.into_parts();
        let given = request.model.unwrap_or_default();
        let detail = json!({"model": given.name, "url": given.url, "local": given.local, "with_key": !request.key.is_empty()});
        let key = (!request.key.is_empty()).then(|| Secret::new(request.key));
        let outcome = async {
            let config = config(given)?;
            self.0.kernel()?.add_model(config.clone(), key).await?;
            Ok(model(config))
        };
        let outcome = outcome.await;
        self.done(&principal, "api.model.add", detail, outcome).await
    }

    async fn remove_model(
        &self,
        request: Request<api::RemoveModelRequest>,
    ) -> Result<Response<api::RemoveModelResponse>, Status> {
        let (principal, request) = self.admit(request, Action::ManageModels).await?.into_parts();
        let detail = json!({"model": request.name});
        let outcome = async {
            self.0.kernel()?.remove_model(request.name).await?;
            Ok(api::RemoveModelResponse {})
        };
        let outcome = outcome.await;
        self.done(&principal, "api.model.remove", detail, outcome).await
    }

    async fn list_models(
        &self,
        request: Request<api::ListModelsRequest>,
    ) -> Result<Response<api::ListModelsResponse>, Status> {
        self.admit(request, Action::ReadKernel).await?;
        let models = self.0.kernel()?.models().into_iter().map(model).collect();
        Ok(Response::new(api::ListModelsResponse { models }))
    }

    async fn add_secret(
        &self,
        request: Request<api::AddSecretRequest>,
    ) -> Result<Response<api::Secret>, Status> {
        secrets::add(self, request).await
    }

    async fn remove_secret(
        &self,
        request: Request<api::RemoveSecretRequest>,
    ) -> Result<Response<api::RemoveSecretResponse>, Status> {
        secrets::remove(self, request).await
    }

    async fn list_secrets(
        &self,
        request: Request<api::ListSecretsRequest>,
    ) -> Result<Response<api::ListSecretsResponse>, Status> {
        secrets::list(self, request).await
    }

    async fn list_approvals(
        &self,
        request: Request<api::ListApprovalsRequest>,
    ) -> Result<Response<api::ListApprovalsResponse>, Status> {
        approvals::list(self, request).await
    }

    async fn answer_approval(
        &self,
        request: Request<api::AnswerApprovalRequest>,
    ) -> Result<Response<api::Approval>, Status> {
        approvals::answer(self, request).await
    }

    async fn explain(
        &self,
        request: Request<api::ExplainRequest>,
    ) -> Result<Response<api::ExplainResponse>, Status> {
        let (principal, api::ExplainRequest { audit_id, agent }) =
            self.admit(request, Action::ReadKernel).await?.into_parts();
        let is_call = audit_id.starts_with("sc-");
        let told = match (audit_id.is_empty(), agent.is_empty()) {
            (false, true) if is_call => {
                let row = self.0.kernel()?.explain(None, audit_id).await.map_err(Problem::from)?;
                serde_json::to_value(&row)
                    .map_err(|error| Problem::internal("a decision cannot be written", &error))?
            }
            (false, true) | (true, false) => self.0.explain_record(&principal, &audit_id, &agent).await?,
            _ => return Err(Problem::field("audit_id", "name either a decision or an agent").into()),
        };
        let decision_json = told.to_string();
        Ok(Response::new(api::ExplainResponse { decision_json }))
    }

    async fn usage(
        &self,
        request: Request<api::KernelUsageRequest>,
    ) -> Result<Response<api::KernelUsageResponse>, Status> {
        let (principal, _) = self.admit(request, Action::ReadKernel).await?.into_parts();
        // The operators' own tenant sees all.
        let tenant = Some(principal.tenant().clone()).filter(|tenant| tenant.as_str() != "default");
        let rows = self.0.kernel()?.usage(tenant).await.map_err(Problem::from)?;
        let accounts = rows
            .into_iter()
            .map(|row| api::AccountUsage {
                kind: row.kind,
                tenant: row.tenant,
                name: row.name,
                since: timestamp(row.since_ms.saturating_mul(1_000_000)),
                usd_micros: row.usd_micros,
                tokens: row.tokens,
            })
            .collect();
        Ok(Response::new(api::KernelUsageResponse { accounts }))
    }
}
