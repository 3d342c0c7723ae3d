//! The secrets that the kernel uses for a tenant's agents: stored, listed, forgotten. A value goes in and never comes out.

use aion_api_proto::v1 as api;
use aion_kernel::{SecretConfig, SecretOverview};
use aion_tenants::Secret;
use aion_types::TenantId;
use serde_json::json;
use tonic::{Request, Response, Status};

use crate::clock::timestamp;
use crate::service::Services;
use crate::stage::Action;

/// What a secret goes as, when nothing is said.
const HEADER: &str = "authorization";
const PREFIX: &str = "Bearer ";

fn shown(tenant: &TenantId, secret: SecretOverview) -> api::Secret {
    let SecretConfig { name, hosts, header, prefix } = secret.config;
    api::Secret {
        name,
        tenant: tenant.to_string(),
        hosts,
        header,
        prefix,
        created: timestamp(secret.created_ns),
    }
}

pub(crate) async fn add(
    services: &Services,
    request: Request<api::AddSecretRequest>,
) -> Result<Response<api::Secret>, Status> {
    let (principal, request) = services.admit(request, Action::ManageSecrets).await?.into_parts();
    let api::AddSecretRequest { name, value, hosts, header, prefix } = request;
    let value = Secret::new(value);
    let header = if header.is_empty() { HEADER.to_owned() } else { header };
    let usual = if header.eq_ignore_ascii_case(HEADER) { PREFIX } else { "" };
    let config = SecretConfig { name, hosts, prefix: prefix.unwrap_or_else(|| usual.to_owned()), header };
    let cut = |text: &str| text.chars().take(200).collect::<String>();
    let hosts: Vec<_> = config.hosts.iter().take(64).map(|host| cut(host)).collect();
    let detail = json!({"secret": cut(&config.name), "hosts": hosts, "header": cut(&config.header)});
    let tenant = principal.tenant().clone();
    let outcome = async {
        let stored = services.0.kernel()?.add_secret(tenant.clone(), config, value).await?;
        Ok(shown(&tenant, stored))
    };
    let outcome = outcome.await;
    services.done(&principal, "api.secret.add", detail, outcome).await
}

pub(crate) async fn remove(
    services: &Services,
    request: Request<api::RemoveSecretRequest>,
) -> Result<Response<api::RemoveSecretResponse>, Status> {
    let (principal, request) = services.admit(request, Action::ManageSecrets).await?.into_parts();
    let detail = json!({"secret": request.name.chars().take(200).collect::<String>()});
    let outcome = async {
        services.0.kernel()?.remove_secret(principal.tenant().clone(), request.name).await?;
        Ok(api::RemoveSecretResponse {})
    };
    let outcome = outcome.await;
    services.done(&principal, "api.secret.remove", detail, outcome).await
}

pub(crate) async fn list(
    services: &Services,
    request: Request<api::ListSecretsRequest>,
) -> Result<Response<api::ListSecretsResponse>, Status> {
    let (principal, _) = services.admit(request, Action::ReadKernel).await?.into_parts();
    let tenant = principal.tenant();
    let secrets =
        services.0.kernel()?.secrets(tenant).into_iter().map(|secret| shown(tenant, secret)).collect();
    Ok(Response::new(api::ListSecretsResponse { secrets }))
}
