//! Secrets, as their commands show them: all but the value.

use aion_client::api;
use comfy_table::Table;
use serde::Serialize;

use crate::output::{cell, table};
use crate::when::Moment;

/// The JSON of a secret.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct SecretView {
    pub(crate) name: String,
    tenant: String,
    hosts: Vec<String>,
    header: String,
    prefix: String,
    created: String,
}

impl From<api::Secret> for SecretView {
    fn from(secret: api::Secret) -> Self {
        let created = Moment::from_api(secret.created.as_ref()).map_or_else(String::new, Moment::rfc3339);
        let api::Secret { name, tenant, hosts, header, prefix, .. } = secret;
        Self { name, tenant, hosts, header, prefix, created }
    }
}

pub(crate) fn secrets_table(secrets: &[SecretView]) -> Table {
    let mut table = table(&["NAME", "HOSTS", "HEADER", "STORED"]);
    for secret in secrets {
        table.add_row(vec![
            cell(&secret.name),
            cell(secret.hosts.join(" ")),
            cell(format!("{}: {}", secret.header, secret.prefix).trim_end()),
            cell(&secret.created),
        ]);
    }
    table
}
