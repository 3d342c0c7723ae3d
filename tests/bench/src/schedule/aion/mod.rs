//! AION as a contender for tasks: daemons of its own, clients on its socket, agents at their doors.

mod agent;
mod contender;
mod daemons;
mod ground;

use anyhow::{Result, bail};

pub(crate) use agent::{Door, Seat, completion, token};
pub(crate) use contender::{Calls, Streamed};
pub(crate) use daemons::{Daemons, Settings, launch};
pub(crate) use ground::{Ground, clone_dir, copy};

/// What the answer to a batch refuses.
pub(crate) fn refusal(results: &[aion_client::api::SubmitResult]) -> Result<()> {
    match results.iter().find(|result| !result.error_code.is_empty()) {
        Some(result) => bail!("AION refuses a task: {} {}", result.error_code, result.error_message),
        None => Ok(()),
    }
}
