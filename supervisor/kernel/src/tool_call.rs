//! One call of a tool: arguments in, a result out, within its time.

use std::time::Duration;

use aion_manifest::{Classes, ToolEntry};
use aion_syscall::{Reason, Refusal};
use aion_types::{ErrorCode, TenantId};
use serde_json::Value;

use crate::host::{Host, ToolEnd, ToolRun};
use crate::tools::Installed;

/// Bytes of a result.
const MAX_OUTPUT: usize = 4 << 20;
/// Standard error that a failure shows.
const SHOWN: usize = 2000;

pub(crate) async fn call(
    host: &dyn Host,
    classes: &Classes,
    installed: &Installed,
    tenant: &TenantId,
    audit_id: &str,
    arguments: &Value,
    timeout: Duration,
) -> Result<Value, Refusal> {
    let tool = &installed.tool;
    let ToolEntry::Exec(argv) = &tool.entry else {
        let message = format!("tool {} is of a kind that is not served yet", tool.name);
        return Err(Refusal::new(Reason::Failed, ErrorCode::ToolFailed, message));
    };
    let class = classes.get(&tool.class).cloned().ok_or_else(|| {
        let message = format!("there is no class {:?} any more", tool.class);
        Refusal::new(Reason::Conflict, ErrorCode::ProfileNotFound, message)
    })?;
    let mut argv = argv.clone();
    if let Some(program) = argv.first_mut()
        && program.contains('/')
        && !program.starts_with('/')
    {
        // Inside, its files are its working directory.
        *program = format!("/workspace/{program}");
    }
    let mut env: Vec<(String, String)> = tool.env.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
    env.push(("AION_TOOL".to_owned(), tool.name.clone()));
    let run = ToolRun {
        tenant: tenant.clone(),
        audit_id: audit_id.to_owned(),
        argv,
        env,
        folder: installed.folder.clone(),
        stdin: arguments.to_string().into_bytes(),
        class,
        seccomp_profile: tool.seccomp_profile.clone(),
        network: tool.network,
        timeout,
        max_output: MAX_OUTPUT,
    };
    let end = host.run(run).await?;
    result(&tool.name, timeout, &end)
}

fn result(name: &str, timeout: Duration, end: &ToolEnd) -> Result<Value, Refusal> {
    let failed = |message: String| Err(Refusal::new(Reason::Failed, ErrorCode::ToolFailed, message));
    match end.reason.as_str() {
        "timeout" => {
            let message = format!("tool {name} was ended after {} ms", timeout.as_millis());
            return Err(Refusal::new(Reason::Timeout, ErrorCode::DeadlineExceeded, message));
        }
        "oom" => return failed(format!("tool {name} took more memory than its class has")),
        _ => {}
    }
    if end.code != 0 {
        let said = String::from_utf8_lossy(&end.stderr);
        let said = said.trim();
        let from = said.char_indices().rev().nth(SHOWN).map_or(0, |(at, _)| at);
        return failed(format!(
            "tool {name} ended with {} ({}): {}",
            end.code,
            end.reason,
            said.get(from..).unwrap_or_default()
        ));
    }
    if end.cut {
        return failed(format!("tool {name} answered with more than {MAX_OUTPUT} bytes"));
    }
    match serde_json::from_slice(&end.stdout) {
        Ok(value) => Ok(value),
        Err(error) => failed(format!("tool {name} did not answer with JSON: {error}")),
    }
}
