//! Reading agents: by id, by name, in pages.

use std::collections::BTreeMap;

use aion_types::{AgentId, AgentName, TenantId};

use crate::agent::{AgentRecord, AgentState};
use crate::db::Store;
use crate::error::Error;
use crate::{codec, keys};

/// What to list. Pages run in order of id, which is the order of creation.
#[derive(Debug, Clone)]
pub struct ListQuery {
    /// Only this tenant's.
    pub tenant: TenantId,
    /// Only in these states; empty: in any.
    pub states: Vec<AgentState>,
    /// Only names that begin so.
    pub name_prefix: String,
    /// Only with all of these labels.
    pub labels: BTreeMap<String, String>,
    /// Ids after this one.
    pub after: Option<AgentId>,
    /// At most so many.
    pub limit: usize,
}

impl ListQuery {
    fn matches(&self, record: &AgentRecord) -> bool {
        (self.states.is_empty() || self.states.contains(&record.state))
            && record.name.as_str().starts_with(&self.name_prefix)
            && self.labels.iter().all(|(k, v)| record.labels.get(k) == Some(v))
    }
}

/// A page of agents.
#[derive(Debug)]
pub struct ListedAgents {
    /// The agents.
    pub agents: Vec<AgentRecord>,
    /// Whether there are more after the last one.
    pub more: bool,
}

impl Store {
    /// One agent.
    ///
    /// # Errors
    /// When the record cannot be read.
    pub fn agent(&self, tenant: &TenantId, id: &AgentId) -> Result<Option<AgentRecord>, Error> {
        self.get(keys::AGENTS, &keys::agent(tenant, id))?
            .map(|bytes| codec::from_json(keys::AGENTS, &bytes))
            .transpose()
    }

    /// The id that a name belongs to.
    ///
    /// # Errors
    /// When the row cannot be read.
    pub fn agent_by_name(&self, tenant: &TenantId, name: &AgentName) -> Result<Option<AgentId>, Error> {
        let key = keys::name(tenant, name);
        let version = match self.names.find(&key) {
            Ok(owner) => return Ok(Some(owner)),
            Err(version) => version,
        };
        let Some(bytes) = self.get(keys::NAMES, &key)? else { return Ok(None) };
        let text = codec::payload(keys::NAMES, &bytes)?;
        let id = std::str::from_utf8(text).ok().and_then(|text| AgentId::parse(text).ok());
        let id = id.ok_or_else(|| Error::Corrupt { family: keys::NAMES, detail: "not an id".to_owned() })?;
        self.names.remember(version, key, id.clone());
        Ok(Some(id))
    }

    /// The name that an id has or had, when it is this tenant's.
    ///
    /// # Errors
    /// When the row cannot be read.
    pub fn name_of(&self, tenant: &TenantId, id: &str) -> Result<Option<String>, Error> {
        let Some(bytes) = self.get(keys::NAMES, &keys::name_of_id(id))? else { return Ok(None) };
        let text = std::str::from_utf8(codec::payload(keys::NAMES, &bytes)?)
            .map_err(|e| Error::Corrupt { family: keys::NAMES, detail: e.to_string() })?;
        Ok(text
            .split_once('\0')
            .filter(|(owner, _)| *owner == tenant.as_str())
            .map(|(_, name)| name.to_owned()))
    }

    /// What to hand to the launcher, encoded by whoever registered the agent.
    ///
    /// # Errors
    /// When the row cannot be read.
    pub fn launch_of(&self, tenant: &TenantId, id: &AgentId) -> Result<Option<Vec<u8>>, Error> {
        self.get(keys::AGENTS, &keys::launch(tenant, id))?
            .map(|bytes| codec::payload(keys::AGENTS, &bytes).map(<[u8]>::to_vec))
            .transpose()
    }

    /// The normalised manifest.
    ///
    /// # Errors
    /// When the row cannot be read.
    pub fn manifest_of(&self, tenant: &TenantId, id: &AgentId) -> Result<Option<String>, Error> {
        self.text_of(&keys::manifest(tenant, id))
    }

    /// The manifest, as it was then, that an agent was made from which has none of its own.
    ///
    /// # Errors
    /// When the row cannot be read.
    pub fn origin_of(&self, tenant: &TenantId, id: &AgentId) -> Result<Option<String>, Error> {
        self.text_of(&keys::origin(tenant, id))
    }

    fn text_of(&self, key: &[u8]) -> Result<Option<String>, Error> {
        let Some(bytes) = self.get(keys::AGENTS, key)? else { return Ok(None) };
        let text = codec::payload(keys::AGENTS, &bytes)?;
        Ok(Some(String::from_utf8_lossy(text).into_owned()))
    }

    /// A page of a tenant's agents.
    ///
    /// # Errors
    /// When a record cannot be read.
    pub fn list(&self, query: &ListQuery) -> Result<ListedAgents, Error> {
        let prefix = keys::agents_of(&query.tenant);
        let mut from = prefix.clone();
        if let Some(after) = &query.after {
            from = keys::agent(&query.tenant, after);
            from.push(0);
        }
        let mut page = ListedAgents { agents: Vec::new(), more: false };
        let mut failed = None;
        self.scan(keys::AGENTS, &from, |key, value| {
            if !key.starts_with(&prefix) {
                return false;
            }
            match codec::from_json::<AgentRecord>(keys::AGENTS, value) {
                Ok(record) if !query.matches(&record) => true,
                Ok(_) if page.agents.len() >= query.limit => {
                    page.more = true;
                    false
                }
                Ok(record) => {
                    page.agents.push(record);
                    true
                }
                Err(error) => {
                    failed = Some(error);
                    false
                }
            }
        })?;
        failed.map_or(Ok(page), Err)
    }

    /// Calls `visit` with every agent of every tenant. For the daemon itself, at its start.
    ///
    /// # Errors
    /// When a record cannot be read.
    pub fn each_agent(&self, mut visit: impl FnMut(AgentRecord)) -> Result<(), Error> {
        let mut failed = None;
        self.scan(keys::AGENTS, keys::ALL_AGENTS, |key, value| {
            if !key.starts_with(keys::ALL_AGENTS) {
                return false;
            }
            match codec::from_json::<AgentRecord>(keys::AGENTS, value) {
                Ok(record) => visit(record),
                Err(error) => failed = Some(error),
            }
            failed.is_none()
        })?;
        failed.map_or(Ok(()), Err)
    }
}
