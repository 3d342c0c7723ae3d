//! Denied system calls: init counts them in the agent's journal; from there they go into the audit log.

use std::fs::File;

use aion_agent_journal::{Item, Kind, Reader};
use aion_types::AgentId;
use serde_json::json;

use crate::agent::{Agent, Journal, Run};
use crate::audit::Entry;
use crate::launcher::Launcher;
use crate::limits;
use crate::lock::lock;

/// Reads what is new in an agent's journal: denied calls, and its exit. Output is skipped over.
pub(crate) fn read(launcher: &Launcher, agent: &Agent, run: &Run) {
    let mut journal = lock(&run.journal);
    if journal.reader.is_none() {
        // Until init has written the header it is no journal.
        journal.reader = File::open(launcher.folder.journal(&agent.id))
            .ok()
            .and_then(|file| Reader::open(file, journal.cursor).ok());
    }
    let profile = agent.lock().spec.as_ref().map(|s| s.seccomp_profile.clone()).unwrap_or_default();
    let Journal { reader: Some(reader), cursor, exit } = &mut *journal else { return };
    let mut entries = Vec::new();
    loop {
        match reader.next_event() {
            Ok(Some(Item::Record(record))) => match record.kind {
                Kind::Denied => entries.extend(record.denied().map(|d| of(&d, &profile).at(record.time_ns))),
                Kind::Start => *exit = None,
                Kind::Exit => *exit = record.exit().map(|e| (e, record.time_ns)),
                Kind::Stdout | Kind::Stderr | Kind::Checkpoint | Kind::Result | Kind::TaskNote => {}
            },
            Ok(Some(Item::Lost { .. })) => {}
            Ok(None) => break,
            Err(e) => {
                tracing::error!(agent = %agent.id, error = crate::failure::chain(&e), "the journal cannot be read");
                break;
            }
        }
    }
    *cursor = reader.cursor();
    limits::tell(launcher, agent, entries);
}

/// The record of denied calls.
pub(crate) fn of(denied: &aion_agent_journal::DeniedCall, profile: &str) -> Entry {
    entry(denied, profile, None)
}

/// The same for a command that was run in the agent: its helper tells us, the journal has only one writer. Its number is
/// the host's.
pub(crate) fn of_command(denied: &aion_agent_journal::DeniedCall, profile: &str, exec: &AgentId) -> Entry {
    entry(denied, profile, Some(exec))
}

fn entry(denied: &aion_agent_journal::DeniedCall, profile: &str, exec: Option<&AgentId>) -> Entry {
    let mut detail = json!({
        "nr": denied.nr, "syscall": syscall_name(denied.nr), "count": denied.count, "errno": denied.errno,
    });
    match exec {
        None => detail["pid_inside"] = json!(denied.pid),
        Some(exec) => {
            detail["exec"] = json!(exec.as_str());
            detail["pid"] = json!(denied.pid);
        }
    }
    Entry::new("sys.denied", "denied", &detail).rule(format!("seccomp:{profile}"))
}

/// The name of a system call on this machine.
pub(crate) fn syscall_name(nr: u32) -> String {
    let name =
        i32::try_from(nr).ok().and_then(|nr| libseccomp::ScmpSyscall::from_raw_syscall(nr).get_name().ok());
    name.unwrap_or_else(|| format!("syscall_{nr}"))
}
