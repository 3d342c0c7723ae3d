//! A change of privileges: no process of a sandbox can make one, so one of the host's enters the agent's control group, where no layer
//! but the probes looks at it, and executes a program with the set-user-ID bit as somebody else.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::process::Command;

/// Not root; it need not exist.
const NOBODY: &str = "65534";
/// It prints a line.
const PATIENCE: Duration = Duration::from_secs(20);

/// Executes it in the group, which is as the daemon tells it.
pub(crate) async fn change(group: &str) -> Result<()> {
    let folder = found(group).with_context(|| format!("there is no control group {group}"))?;
    let script = "echo $$ > \"$1/cgroup.procs\" && exec setpriv --reuid \"$2\" --clear-groups su --version";
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]).arg(&folder).arg(NOBODY);
    command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
    let status = tokio::time::timeout(PATIENCE, command.status()).await.context("it does not end")?;
    let status = status.context("sh")?;
    ensure!(
        status.success(),
        "no program with the set-user-ID bit was executed in {}: {status}",
        folder.display()
    );
    Ok(())
}

/// Its folder in the hierarchy that the probes go by.
fn found(group: &str) -> Option<PathBuf> {
    let group = group.trim_start_matches('/');
    ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]
        .iter()
        .map(|root| Path::new(root).join(group))
        .find(|folder| !group.is_empty() && folder.join("cgroup.procs").is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_that_is_not_there_is_not_taken_for_the_root() {
        assert_eq!(found(""), None);
        assert_eq!(found("aion-nobody/agents/none"), None);
    }
}
