//! What operators do with the kernel, and the calls of the HTTP contract that are no system calls.

use std::sync::Arc;

use aion_models::ModelConfig;
use aion_syscall::{Reason, Refusal};
use aion_tenants::Secret;
use aion_types::{AgentUri, ErrorCode, TenantId};
use serde_json::{Map, Value, json};

use crate::caller::Caller;
use crate::kernel::{Kernel, now_ns};
use crate::memory;
use crate::record::{self, DecisionRow};
use crate::secrets::{SecretConfig, SecretOverview};
use crate::tools::{ToolFileData, ToolOverview};
use crate::usage::{self, UsageRow};

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(Refusal::new(
            Reason::Internal,
            ErrorCode::Internal,
            format!("it did not run to its end: {error}"),
        ))
    })
}

impl Kernel {
    /// Installs a tool, in the place of one of the same name.
    ///
    /// # Errors
    /// What is wrong with the manifest or the files, with the field.
    pub async fn install_tool(
        &self,
        tenant: Option<TenantId>,
        manifest: Vec<u8>,
        file: String,
        files: Vec<ToolFileData>,
        signature: String,
    ) -> Result<ToolOverview, Refusal> {
        let inner = Arc::clone(&self.0);
        blocking(move || {
            let shown = inner.tools.install(tenant, &manifest, &file, &files, &signature, now_ns())?;
            inner.servers.forget(&shown.name);
            Ok(shown)
        })
        .await
    }

    /// Forgets a tool.
    ///
    /// # Errors
    /// `TOOL_NOT_FOUND`.
    pub async fn remove_tool(&self, tenant: Option<TenantId>, name: String) -> Result<(), Refusal> {
        let inner = Arc::clone(&self.0);
        blocking(move || {
            inner.tools.remove(tenant.as_ref(), &name)?;
            inner.servers.forget(&name);
            Ok(())
        })
        .await
    }

    /// The tools that a tenant sees.
    #[must_use]
    pub fn tools(&self, tenant: &TenantId) -> Vec<ToolOverview> {
        self.0.tools.list(tenant)
    }

    /// Adds a model, in the place of one of the same name. The key is sealed.
    ///
    /// # Errors
    /// What is wrong with it, with the field.
    pub async fn add_model(&self, config: ModelConfig, key: Option<Secret>) -> Result<(), Refusal> {
        let inner = Arc::clone(&self.0);
        blocking(move || inner.models.add(config, key.as_ref())).await
    }

    /// Forgets a model and its key.
    ///
    /// # Errors
    /// `MODEL_NOT_FOUND`.
    pub async fn remove_model(&self, name: String) -> Result<(), Refusal> {
        let inner = Arc::clone(&self.0);
        blocking(move || inner.models.remove(&name)).await
    }

    /// The models, without their keys.
    #[must_use]
    pub fn models(&self) -> Vec<ModelConfig> {
        self.0.models.models.list()
    }

    /// Stores a secret of a tenant, in the place of one of the same name. It is sealed.
    ///
    /// # Errors
    /// What is wrong with it, with the field.
    pub async fn add_secret(
        &self,
        tenant: TenantId,
        config: SecretConfig,
        value: Secret,
    ) -> Result<SecretOverview, Refusal> {
        let inner = Arc::clone(&self.0);
        blocking(move || inner.secrets.add(&tenant, config, value, now_ns())).await
    }

    /// Forgets a secret.
    ///
    /// # Errors
    /// `SECRET_NOT_FOUND`.
    pub async fn remove_secret(&self, tenant: TenantId, name: String) -> Result<(), Refusal> {
        let inner = Arc::clone(&self.0);
        blocking(move || inner.secrets.remove(&tenant, &name)).await
    }

    /// Forgets all secrets of a tenant that is no more, and what it kept as itself.
    ///
    /// # Errors
    /// When they cannot be deleted.
    pub async fn forget_secrets(&self, tenant: TenantId) -> Result<(), Refusal> {
        let inner = Arc::clone(&self.0);
        blocking(move || {
            inner.secrets.forget(&tenant)?;
            memory::forget(&inner.store, &tenant)
        })
        .await
    }

    /// The secrets of a tenant, without their values.
    #[must_use]
    pub fn secrets(&self, tenant: &TenantId) -> Vec<SecretOverview> {
        self.0.secrets.list(tenant)
    }

    /// How a call was decided.
    ///
    /// # Errors
    /// `DECISION_NOT_FOUND`, also for another tenant's.
    pub async fn explain(&self, tenant: Option<TenantId>, audit_id: String) -> Result<DecisionRow, Refusal> {
        let store = Arc::clone(&self.0.store);
        let shown: String = audit_id.chars().take(80).collect();
        let found = blocking(move || record::find(&store, &audit_id, now_ns())).await?;
        found.filter(|row| tenant.is_none_or(|tenant| tenant.as_str() == row.tenant)).ok_or_else(|| {
            Refusal::new(
                Reason::NotFound,
                ErrorCode::DecisionNotFound,
                format!("there is no decision {shown:?}"),
            )
            .hint("decisions are kept for 7 days; the audit log may have it for longer")
        })
    }

    /// What was used, by account.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn usage(&self, tenant: Option<TenantId>) -> Result<Vec<UsageRow>, Refusal> {
        let store = Arc::clone(&self.0.store);
        let mut rows = blocking(move || usage::all(&store, now_ns())).await?;
        rows.retain(|row| tenant.as_ref().is_none_or(|tenant| tenant.as_str() == row.tenant));
        Ok(rows)
    }

    /// A heartbeat: `{agent_id, …}`.
    ///
    /// # Errors
    /// Another tenant's agent, or none.
    pub fn heartbeat(&self, caller: &Caller, body: &Value) -> Result<Value, Refusal> {
        let beat = || {
            let uri = own_agent(caller, body)?;
            self.0.host.heartbeat(&uri.tenant, &uri.name)?;
            self.0.metrics.heartbeat(uri.tenant.as_str(), uri.name.as_str());
            Ok(json!({"agent_id": uri.to_string(), "time_ms": now_ns() / 1_000_000}))
        };
        self.without_secrets(caller, beat())
    }

    /// Submits a task: `{task_id, intent, priority, quota, params}`.
    ///
    /// # Errors
    /// What is wrong with it, with the field. What names a task stands in records and figures, so that no secret may be in it; its
    /// `params` are for its agent alone.
    pub async fn schedule(&self, caller: &Caller, body: Value) -> Result<Value, Refusal> {
        let redactor = self.redactor(caller.tenant());
        let told = |map: &Map<String, Value>| {
            let has = |(name, value): &(&String, &Value)| {
                redactor.finds(name) || (*name != "params" && redactor.finds_in(value))
            };
            map.iter().find(has).map(|(name, _)| name.clone())
        };
        let submitted = match body.as_object().and_then(told) {
            Some(field) => {
                Err(Refusal::field(field, "there is a secret in it, and it is written into records")
                    .hint("name the task otherwise, and have its agent use the secret by secret.use"))
            }
            None => self.0.host.submit(caller.tenant().clone(), body).await,
        };
        self.without_secrets(caller, submitted)
    }

    /// What a caller is told that made no system call, without the kernel's secrets.
    pub(crate) fn without_secrets<T>(&self, caller: &Caller, done: Result<T, Refusal>) -> Result<T, Refusal> {
        done.map_err(|mut refusal| {
            self.redactor(caller.tenant()).refusal(&mut refusal);
            refusal
        })
    }
}

pub(crate) fn own_agent(caller: &Caller, body: &Value) -> Result<AgentUri, Refusal> {
    let Some(map) = body.as_object() else { return Err(Refusal::field("body", "it is not a JSON object")) };
    let own = match caller {
        Caller::Agent { tenant, name, .. } => Some(AgentUri { tenant: tenant.clone(), name: name.clone() }),
        _ => None,
    };
    let given = match map.get("agent_id") {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => {
            Some(AgentUri::parse(text).map_err(|error| Refusal::field("agent_id", error.to_string()))?)
        }
        Some(_) => return Err(Refusal::field("agent_id", "it is not a text")),
    };
    let uri = match (given, own) {
        (Some(given), Some(own)) if given != own => Err(given),
        (Some(given), None) if given.tenant != *caller.tenant() => Err(given),
        (Some(given), _) => Ok(given),
        (None, Some(own)) => Ok(own),
        (None, None) => return Err(Refusal::field("agent_id", "it is missing")),
    };
    uri.map_err(|given| {
        let message = format!("{} does not speak for {given}", caller.subject());
        Refusal::new(Reason::Denied, ErrorCode::PermissionDenied, message).by("door: agent_id").at("agent_id")
    })
}
