//! Records that the kernel could not keep: each loss is itself a record, by agent.

use serde_json::json;

use crate::agent::{Agent, Run};
use crate::audit::Entry;
use crate::launcher::Launcher;
use crate::limits;
use crate::lock::lock;

/// Tells of losses since the last call.
pub(crate) fn tell(launcher: &Launcher, agent: &Agent, run: &Run, dropped: u64) {
    let new = {
        let mut told = lock(&run.told);
        let new = dropped.saturating_sub(told.dropped);
        told.dropped = dropped;
        new
    };
    if new > 0 {
        let detail = json!({ "dropped": new, "total": dropped });
        limits::tell(launcher, agent, vec![Entry::new("events.dropped", "error", &detail)]);
        tracing::warn!(agent = %agent.id, tenant = agent.tenant(), dropped = new, "records were lost");
    }
}
