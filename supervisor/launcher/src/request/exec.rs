//! A command in a running agent, and a record for the audit log, checked.

use std::path::PathBuf;

use aion_audit::Detail;
use aion_launcher_proto::v1;
use aion_types::AgentId;

use crate::Failure;
use crate::request::field::{self, Checked};

/// A command in a running agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exec {
    /// In which.
    pub id: AgentId,
    /// Its own identity.
    pub exec_id: AgentId,
    /// The command.
    pub argv: Vec<Vec<u8>>,
    /// Added to the agent's environment.
    pub env: Vec<Vec<u8>>,
    /// Where it starts; the agent's own folder when not set.
    pub cwd: Option<PathBuf>,
    /// Its one descriptor is a terminal.
    pub tty: bool,
}

impl Exec {
    pub(crate) fn check(exec: &v1::Exec, fds: usize) -> Checked<Self> {
        field::command(&exec.argv)?;
        field::environment(&exec.env)?;
        let wanted = if exec.tty { 1 } else { 3 };
        if fds != wanted {
            return Err(Failure::field("fds", format!("{fds} descriptors came, {wanted} are needed")));
        }
        let cwd = if exec.cwd.is_empty() { None } else { Some(field::folder_inside("cwd", &exec.cwd)?) };
        Ok(Self {
            id: field::agent_id(&exec.id)?,
            exec_id: AgentId::parse(&exec.exec_id).map_err(|e| Failure::field("exec_id", e.to_string()))?,
            argv: exec.argv.clone(),
            env: exec.env.clone(),
            cwd,
            tty: exec.tty,
        })
    }
}

/// A record that aiond wants in the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as in the protocol")]
pub struct AuditEntry {
    pub tenant: String,
    pub agent: String,
    pub task: String,
    pub trace: String,
    pub kind: String,
    pub verdict: String,
    pub rule: String,
    pub detail: Detail,
}

impl AuditEntry {
    pub(crate) fn check(append: &v1::AppendAudit) -> Checked<Self> {
        if !append.tenant.is_empty() {
            field::tenant(&append.tenant)?;
        }
        if !append.agent.is_empty() {
            AgentId::parse(&append.agent).map_err(|e| Failure::field("agent", e.to_string()))?;
        }
        field::text("task", &append.task, 256)?;
        field::text("trace", &append.trace, 256)?;
        field::text("rule", &append.rule, 1024)?;
        // Kernel records are the launcher's own: a taken-over aiond must not be able to invent one.
        let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-');
        let own = ["api.", "task.", "detection."].iter().any(|start| append.kind.starts_with(start));
        if append.kind.len() > 64 || !own || !append.kind.bytes().all(word) {
            let why = "it must be api.…, task.… or detection.…, of at most 64 of a-z, 0-9, '.', '_', '-'";
            return Err(Failure::field("kind", why));
        }
        if !["allowed", "denied", "error"].contains(&append.verdict.as_str()) {
            return Err(Failure::field("verdict", "it must be allowed, denied or error"));
        }
        let detail = match append.detail_json.as_str() {
            "" => Detail::default(),
            json => Detail::parse(json).map_err(|e| Failure::field("detail_json", e.to_string()))?,
        };
        Ok(Self {
            tenant: append.tenant.clone(),
            agent: append.agent.clone(),
            task: append.task.clone(),
            trace: append.trace.clone(),
            kind: append.kind.clone(),
            verdict: append.verdict.clone(),
            rule: append.rule.clone(),
            detail,
        })
    }
}
