//! What the daemons hold.

use std::path::Path;

use anyhow::{Context, Result};

use crate::report::Report;

pub(crate) fn measure(state: Option<&Path>, when: &str, report: &mut Report) -> Result<()> {
    let Some(state) = state else {
        report.skip(format!("memory {when}: AION_STATE is not set"));
        return Ok(());
    };
    for (daemon, limit) in [("aion-launcher", 25.0), ("aiond", 64.0)] {
        let file = state.join("run").join(format!("{daemon}.pid"));
        let pid = std::fs::read_to_string(&file).with_context(|| format!("{}", file.display()))?;
        let status = std::fs::read_to_string(format!("/proc/{}/status", pid.trim()))?;
        let kilobytes: f64 = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse().ok())
            .context("no VmRSS")?;
        report.at_most(format!("memory {when}: {daemon}"), "MB", kilobytes / 1024.0, limit);
    }
    Ok(())
}
