//! What each operation does. The fields are checked already; here it is about the agents.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aion_launcher_proto::{PROTOCOL, v1};
use aion_types::{AgentId, ErrorCode, ExitReason};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use serde_json::json;
use v1::response::Result as Answer;

use crate::agent::{Agent, Run};
use crate::audit::Entry;
use crate::failure::chain;
use crate::launcher::{END_PATIENCE, Launcher};
use crate::lock::lock;
use crate::request::Op;
use crate::state::{Phase, remove_tree};
use crate::{Failure, files, grams, host, limits, network_limits, process, restrain, terminal};

/// How long processes may take to stand still.
const FREEZE_PATIENCE: Duration = Duration::from_secs(10);

/// An answer and the descriptors that go with it.
pub(crate) type Done = Result<(Answer, Vec<OwnedFd>), Failure>;

/// What the agents of a page take at most, unless one alone takes more: a frame has room for four times that.
const PAGE_BYTES: usize = 256 << 10;

/// Does what was asked. `raw` is the same request as it came, `fds` its descriptors.
pub(crate) fn perform(launcher: &Arc<Launcher>, op: Op, raw: v1::Request, fds: Vec<OwnedFd>) -> Done {
    let only = |answer| Ok((answer, Vec::new()));
    match op {
        Op::Hello => only(Answer::Hello(v1::HelloOk {
            protocol: PROTOCOL,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            boot_id: launcher.boot_id.clone(),
            epoch: launcher.epoch,
        })),
        Op::Launch(launch) => {
            let Some(v1::request::Op::Launch(raw)) = raw.op else {
                return Err(Failure::internal("the request changed under our hands"));
            };
            let done = launcher.launch(&raw, *launch, fds)?;
            Ok((Answer::Agent(done.state), done.tty.into_iter().collect()))
        }
        Op::Signal { id, signal } => only(Answer::Agent(launcher.signal(&id, signal)?)),
        Op::Freeze { id, reason } => only(Answer::Agent(launcher.pause(&id, true, &reason)?)),
        Op::Thaw(id) => only(Answer::Agent(launcher.pause(&id, false, "")?)),
        Op::Throttle { id, cpu_millis, reason } => {
            only(Answer::Agent(launcher.throttle(&id, cpu_millis, &reason)?))
        }
        Op::Isolate { id, on, reason } => only(Answer::Agent(launcher.isolate(&id, on, &reason)?)),
        Op::Kill { id, reason } => only(Answer::Agent(launcher.kill(&id, &reason)?)),
        Op::Remove { id, keep_journal } => {
            launcher.remove(&id, keep_journal)?;
            only(Answer::Empty(v1::Empty {}))
        }
        Op::List { limit: 0, .. } => {
            only(Answer::List(v1::AgentList { agents: launcher.views(), more: false }))
        }
        Op::List { after, limit } => only(Answer::List(launcher.page(after.as_ref(), limit))),
        Op::Watch { .. } => only(Answer::Empty(v1::Empty {})),
        Op::Exec(exec) => only(Answer::Exec(launcher.exec(*exec, fds)?)),
        Op::AppendAudit(entry) => {
            let seq = launcher.audit.append_durable(Entry::from(*entry))?;
            only(Answer::Audit(v1::AuditSeq { seq }))
        }
        Op::Stats { id, grams, deleted_programs } => {
            only(Answer::Stats(launcher.stats(&id, grams, deleted_programs)?))
        }
        Op::Host => only(Answer::Host(host::answer(launcher))),
        Op::OpenLog(id) => {
            let agent = launcher.agent(&id)?;
            let path = launcher.folder.journal(&id);
            let file = File::open(&path).map_err(|e| Failure::state("open", &path, &e))?;
            Ok((Answer::Agent(agent.view()), vec![file.into()]))
        }
        Op::OpenTty(id) => {
            let (agent, run) = launcher.running(&id)?;
            let master = terminal::master(&run)
                .ok_or_else(|| Failure::field("id", format!("agent {id} was launched without a terminal")))?;
            Ok((Answer::Agent(agent.view()), vec![master]))
        }
        Op::Counters(id) => only(Answer::Counters(launcher.counters(&id)?)),
        Op::File(op) => files::perform(launcher, *op),
        Op::OpenResolver(id) => {
            let (answer, fds) = launcher.open_resolver(&id)?;
            Ok((Answer::Resolver(answer), fds))
        }
        Op::Resolved(resolved) => only(Answer::Resolved(launcher.resolved(&resolved)?)),
        Op::Withhold { id, rules } => only(Answer::Agent(launcher.withhold(&id, rules)?)),
        Op::CheckProfile { name, file } => {
            launcher.profiles.check(&name, &file)?;
            only(Answer::Empty(v1::Empty {}))
        }
        Op::WithholdFiles { id, rules } => only(Answer::Agent(launcher.withhold_files(&id, rules)?)),
    }
}

/// What is told of an agent that was launched.
fn known(agent: &Arc<Agent>) -> Option<v1::AgentState> {
    let inner = agent.lock();
    matches!(inner.record.phase(), Phase::Running | Phase::Exited).then(|| inner.view())
}

impl Launcher {
    pub(crate) fn running(&self, id: &AgentId) -> Result<(Arc<Agent>, Arc<Run>), Failure> {
        let agent = self.agent(id)?;
        let run = agent.running().ok_or_else(|| Failure::not_running(id))?;
        Ok((agent, run))
    }

    /// The current states of all agents that were ever launched.
    pub(crate) fn views(&self) -> Vec<v1::AgentState> {
        self.all().iter().filter_map(known).collect()
    }

    /// The current states of agents after this one, so many at most.
    fn page(&self, after: Option<&AgentId>, limit: usize) -> v1::AgentList {
        let all = self.all();
        let rest = &all[after.map_or(0, |after| all.partition_point(|agent| agent.id <= *after))..];
        let mut page = v1::AgentList::default();
        let mut bytes = 0;
        for view in rest.iter().filter_map(known) {
            bytes += prost::Message::encoded_len(&view);
            if page.agents.len() >= limit || (bytes > PAGE_BYTES && !page.agents.is_empty()) {
                page.more = true;
                break;
            }
            page.agents.push(view);
        }
        page
    }

    fn signal(&self, id: &AgentId, signal: i32) -> Result<v1::AgentState, Failure> {
        let (agent, run) = self.running(id)?;
        let sent = match &run.agent_pidfd {
            Some(pidfd) => match aion_sys::signal::send(std::os::fd::AsFd::as_fd(pidfd), signal) {
                // It has ended; what is left of the agent ends with it.
                Ok(()) | Err(aion_sys::Errno::SRCH) => Ok(()),
                Err(e) => Err(Failure::internal(format!("cannot signal the agent: {e}"))),
            },
            None => match lock(&run.init).as_ref() {
                Some(init) => init.signal(signal).map_err(Failure::from),
                None => Err(Failure::not_running(id)),
            },
        };
        sent.map(|()| agent.view())
    }

    fn pause(&self, id: &AgentId, pause: bool, reason: &str) -> Result<v1::AgentState, Failure> {
        let agent = self.agent(id)?;
        let _turn = lock(&agent.turn);
        let run = agent.running().ok_or_else(|| Failure::not_running(id))?;
        let before = std::mem::replace(&mut agent.lock().record.paused, pause);
        let group = &run.held.group;
        let done = if pause { group.freeze(FREEZE_PATIENCE) } else { group.thaw(FREEZE_PATIENCE) };
        if let Err(e) = done {
            if agent.running().is_none() {
                return Err(Failure::not_running(id));
            }
            if pause && !before {
                let _ = group.thaw(Duration::ZERO);
            }
            agent.lock().record.paused = before;
            return Err(Failure::internal(chain(&e)));
        }
        // One that stands still already may have to for another reason now.
        if before != pause || (pause && !reason.is_empty()) {
            let frozen = pause.then(|| restrain::new(restrain::FROZEN, reason, 0));
            restrain::note(&agent, restrain::FROZEN, frozen);
            if let Err(failure) = self.publish(&agent) {
                tracing::error!(agent = %id, tenant = agent.tenant(), code = failure.code.as_str(), %failure, "the agent's record cannot be written");
            }
            let kind = if pause { "agent.frozen" } else { "agent.thawed" };
            let detail = if reason.is_empty() { json!({}) } else { json!({ "reason": reason }) };
            limits::tell(self, &agent, vec![Entry::new(kind, "allowed", &detail)]);
        }
        Ok(agent.view())
    }

    pub(crate) fn kill(self: &Arc<Self>, id: &AgentId, reason: &str) -> Result<v1::AgentState, Failure> {
        let agent = self.agent(id)?;
        let _turn = lock(&agent.turn);
        if let Some(run) = agent.running() {
            let exit_reason = if reason == "timeout" { ExitReason::Timeout } else { ExitReason::Killed };
            limits::tell(
                self,
                &agent,
                vec![Entry::new("agent.killed", "allowed", &json!({ "reason": reason }))],
            );
            limits::end(self, &agent, &run, exit_reason);
        }
        if !agent.wait_ended(END_PATIENCE) {
            return Err(Failure::internal("the agent was killed, and some of its processes do not end"));
        }
        Ok(agent.view())
    }

    fn remove(&self, id: &AgentId, keep_journal: bool) -> Result<(), Failure> {
        let agent = match self.agent(id) {
            Ok(agent) => agent,
            // Removed before, with its journal kept: that goes now.
            Err(_) if !keep_journal && self.folder.agent(id).is_dir() => {
                return remove_tree(&self.folder.agent(id));
            }
            Err(failure) => return Err(failure),
        };
        let _turn = lock(&agent.turn);
        match agent.lock().record.phase() {
            Phase::Running | Phase::Launching => {
                return Err(Failure::new(ErrorCode::AgentRunning, format!("agent {id} runs")));
            }
            Phase::Exited | Phase::Unknown => {}
        }
        if !agent.wait_over(END_PATIENCE) {
            return Err(Failure::new(
                ErrorCode::AgentRunning,
                format!("agent {id} is still being cleaned up"),
            ));
        }
        if let Some(volumes) = &self.volumes {
            volumes.remove(id.as_str()).map_err(|e| Failure::internal(chain(&e)))?;
        }
        if !keep_journal {
            remove_tree(&self.folder.agent(id))?;
        }
        {
            // Whoever waits for a turn finds an agent that never was.
            let mut inner = agent.lock();
            inner.record = crate::state::Record::default();
        }
        self.forget(&agent);
        Ok(())
    }

    fn stats(&self, id: &AgentId, with_grams: bool, with_programs: bool) -> Result<v1::StatsOk, Failure> {
        let (agent, run) = self.running(id)?;
        let stats = run.held.group.stats();
        // A folder of the host may be on a file system that does not answer, which would hold this thread.
        let has_volume = !agent.lock().record.volume.is_empty();
        let counters = match self.probes.get() {
            Some(probes) if run.probed => probes.counters(run.held.group.id()).unwrap_or_default(),
            _ => aion_probes::AgentCounters::default(),
        };
        Ok(v1::StatsOk {
            cpu_usec: stats.cpu_usec,
            mem_bytes: stats.memory_bytes,
            mem_peak_bytes: stats.memory_peak_bytes,
            pids: stats.pids,
            io_read_bytes: stats.io_read_bytes,
            io_write_bytes: stats.io_write_bytes,
            net_rx_bytes: counters.net.rx_bytes,
            net_tx_bytes: counters.net.tx_bytes,
            oom_kills: stats.oom_kills,
            throttled_usec: stats.throttled_usec,
            dropped_events: counters.dropped,
            events: counters.events,
            disk_bytes: if has_volume { disk_used(&run).unwrap_or(0) } else { 0 },
            network: network_limits::used(self, &agent, &run),
            grams: if with_grams { grams::asked(self, &agent, &run) } else { None },
            deleted_programs: if with_programs {
                process::deleted_programs(run.init_pid, &run.held.group.processes().unwrap_or_default())
            } else {
                0
            },
        })
    }

    fn counters(&self, id: &AgentId) -> Result<v1::CountersOk, Failure> {
        let agent = self.agent(id)?;
        let syscalls = match (agent.running(), self.probes.get()) {
            (Some(run), Some(probes)) if run.probed => probes.syscalls(run.held.group.id())?,
            _ => agent.lock().last_counters.syscalls.clone(),
        };
        let to_proto = |c: aion_probes::SyscallCounter| v1::SyscallCounter {
            nr: c.nr,
            count: c.count,
            errors: c.errors,
            latency_log2_ns: c.latency_log2_ns,
        };
        Ok(v1::CountersOk { syscalls: syscalls.into_iter().map(to_proto).collect() })
    }
}

/// Bytes in use on the volume that is the workspace. Its mount is looked up in the sandbox without following any
/// link that the agent might have made.
fn disk_used(run: &Run) -> Option<u64> {
    let root = format!("/proc/{}/root", run.init_pid);
    let root = rustix::fs::open(Path::new(&root), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let inside = ResolveFlags::NO_SYMLINKS | ResolveFlags::IN_ROOT;
    let workspace =
        openat2(&root, "workspace", OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), inside).ok()?;
    let found = rustix::fs::fstatvfs(&workspace).ok()?;
    Some(found.f_blocks.saturating_sub(found.f_bfree).saturating_mul(found.f_frsize))
}
