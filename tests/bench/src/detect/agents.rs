//! Agents of the soak: started with a workspace of their own, and what is told of them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use aion_client::{Client, api, timestamp_ns};
use anyhow::{Context as _, Result};
use serde_json::{Value, json};

/// Records of a kind that are asked for at once; more than any agent here makes of findings.
const PAGE: u32 = 500;

/// A pair of daemons, and the folder in which workspaces are made.
#[derive(Debug)]
pub(crate) struct World {
    /// On a connection of its own.
    pub(crate) client: Client,
    /// Not in memory: kernels before 6.3 map no owners there.
    pub(crate) folder: PathBuf,
    /// For what agents are shown of it.
    pub(crate) clone: PathBuf,
}

/// An agent that was started.
#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) id: String,
    client: Client,
}

/// What was found of an agent.
#[derive(Debug, Clone)]
pub(crate) struct Finding {
    pub(crate) rule: String,
    pub(crate) severity: String,
    pub(crate) action: String,
    pub(crate) result: String,
    /// When the event happened that was the last it took.
    pub(crate) event_ns: i128,
    /// When it was recorded, which is after the action.
    pub(crate) told_ns: i128,
    pub(crate) evidence: Value,
}

impl World {
    /// Starts an agent with these files in its workspace. System calls are counted, so that all is told that can be.
    pub(crate) async fn start(
        &self,
        name: &str,
        files: &[(String, String)],
        mut spec: Value,
    ) -> Result<Agent> {
        let workspace = self.folder.join(name);
        make(&workspace)?;
        for (file, text) in files {
            let path = workspace.join(file);
            if let Some(folder) = path.parent().filter(|folder| !folder.is_dir()) {
                make(folder)?;
            }
            fs::write(&path, text)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
        }
        spec["workspace"] = json!(workspace);
        spec["mode"] = json!("service");
        spec["restart"] = json!("never");
        spec["audit"] = json!("count");
        // The folder's file system need not have quotas.
        spec["allow_degraded"] = json!(["disk"]);
        let manifest = json!({
            "apiVersion": "aion.os/v1", "kind": "Agent",
            "metadata": { "name": name, "version": "1.0.0" }, "spec": spec,
        });
        let request = api::RegisterRequest {
            manifest: manifest.to_string().into_bytes(),
            manifest_name: "soak.json".to_owned(),
            ..api::RegisterRequest::default()
        };
        let agent = self.client.register(request).await.with_context(|| format!("registering {name}"))?;
        let request = api::StartRequest { agent: agent.id.clone(), ..api::StartRequest::default() };
        self.client.start(request).await.with_context(|| format!("starting {name}"))?;
        Ok(Agent { id: agent.id, client: self.client.clone() })
    }
}

/// A folder that the agent's user may use, whoever that is.
fn make(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o777))?;
    Ok(())
}

impl Agent {
    /// How it is.
    pub(crate) async fn look(&self) -> Result<api::Agent> {
        Ok(self.client.get(api::GetRequest { agent: self.id.clone() }).await?)
    }

    /// All that it has printed.
    pub(crate) async fn said(&self) -> Result<String> {
        let mut logs =
            self.client.logs(api::LogsRequest { agent: self.id.clone(), ..api::LogsRequest::default() });
        let mut bytes = Vec::new();
        while let Some(chunk) = logs.next().await? {
            bytes.extend_from_slice(&chunk.data);
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// When it began to do what it is for, as it says itself: hosts and sandboxes have the same wall clock.
    pub(crate) async fn acted_ns(&self) -> Result<Option<i128>> {
        let said = self.said().await?;
        Ok(said.lines().find_map(|line| line.strip_prefix("act ")?.trim().parse().ok()))
    }

    /// Its records of a kind, the oldest first.
    pub(crate) async fn records(&self, kind: &str) -> Result<Vec<api::Record>> {
        let filter = api::Filter {
            agents: vec![self.id.clone()],
            kinds: vec![kind.to_owned()],
            ..api::Filter::default()
        };
        let request =
            api::QueryRequest { filter: Some(filter), page_size: PAGE, ..api::QueryRequest::default() };
        Ok(self.client.query(request).await?.records)
    }

    /// What was found of it, the oldest first.
    pub(crate) async fn findings(&self) -> Result<Vec<Finding>> {
        self.records("detection.finding").await?.iter().map(finding).collect()
    }

    /// Ends it and forgets it.
    pub(crate) async fn remove(self) -> Result<()> {
        let request = api::RemoveRequest { agent: self.id, force: true, ..api::RemoveRequest::default() };
        self.client.remove(request).await?;
        Ok(())
    }
}

fn finding(record: &api::Record) -> Result<Finding> {
    let detail: Value = serde_json::from_str(&record.detail_json).context("the detail of a finding")?;
    let word = |field: &str| detail[field].as_str().unwrap_or_default().to_owned();
    Ok(Finding {
        rule: word("rule"),
        severity: word("severity"),
        action: word("action"),
        result: word("result"),
        event_ns: i128::from(detail["event_ns"].as_u64().unwrap_or_default()),
        told_ns: time_ns(record),
        evidence: detail["evidence"].clone(),
    })
}

/// When a record was made.
pub(crate) fn time_ns(record: &api::Record) -> i128 {
    record.time.as_ref().map(timestamp_ns).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_read_from_its_record() {
        let detail = json!({
            "rule": "memfd-exec", "severity": "high", "action": "freeze", "result": "done", "event_ns": 7_000_000_001_u64,
            "evidence": {"kind": "proc.exec", "detail": {"memfd": true}},
        });
        let record = api::Record {
            time: Some(aion_client::timestamp(7_100_000_000)),
            detail_json: detail.to_string(),
            ..api::Record::default()
        };
        let found = finding(&record).unwrap();
        assert_eq!((found.rule.as_str(), found.action.as_str()), ("memfd-exec", "freeze"));
        assert_eq!((found.event_ns, found.told_ns), (7_000_000_001, 7_100_000_000));
        assert_eq!(found.evidence["detail"]["memfd"], true);
    }
}
