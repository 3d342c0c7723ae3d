//! An agent in memory: what was asked, how it is, and its running processes.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use aion_agent_journal::Reader;
use aion_cgroup::LimitCounters;
use aion_launcher_proto::v1;
use aion_probes::FinalCounters;
use aion_sandbox::InitProcess;
use aion_types::AgentId;

use crate::egress::{Reach, Resolver};
use crate::lock::lock;
use crate::network_limits;
use crate::request::Launch;
use crate::slots::Held;
use crate::state::{Phase, Record};

/// One agent.
#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) id: AgentId,
    /// Held while an operation changes the agent: operations on one agent happen one after the other.
    pub(crate) turn: Mutex<()>,
    inner: Mutex<Inner>,
    /// Wakes when a run has ended, and again when it is cleaned up.
    over: Condvar,
}

#[derive(Debug)]
pub(crate) struct Inner {
    /// `None` when the file of an ended agent cannot be read any more.
    pub(crate) spec: Option<Arc<Launch>>,
    pub(crate) record: Record,
    /// From the launch until everything of it is gone.
    pub(crate) run: Option<Arc<Run>>,
    /// What the probes counted in runs that are over.
    pub(crate) last_counters: FinalCounters,
}

/// The processes of one incarnation.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) held: Held,
    /// `None` when a new launcher finds that it has ended.
    pub(crate) init: Mutex<Option<InitProcess>>,
    pub(crate) init_pid: u32,
    /// The first process; `None` when a new launcher found only init.
    pub(crate) agent_pidfd: Option<OwnedFd>,
    /// The master of its terminal.
    pub(crate) tty: Mutex<Option<OwnedFd>>,
    pub(crate) strict: bool,
    /// Not our child: an earlier launcher made it.
    pub(crate) adopted: bool,
    /// Entered into the probes' maps.
    pub(crate) probed: bool,
    /// The number of its network, with mode `egress`.
    pub(crate) network: Option<u32>,
    /// Its resolver's sockets, which stand in its network before it runs.
    pub(crate) resolver: Option<Resolver>,
    /// What has become of the hosts of its launch.
    pub(crate) reach: Mutex<Reach>,
    pub(crate) journal: Mutex<Journal>,
    /// What has been told of limits so far.
    pub(crate) told: Mutex<Told>,
}

/// Where the journal is read for denied calls.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    pub(crate) reader: Option<Reader>,
    pub(crate) cursor: u64,
    /// The exit of this incarnation, when it was met: code and signal, and when.
    pub(crate) exit: Option<(aion_agent_journal::Exit, u64)>,
}

/// Counters as last told in the audit log.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) limits: LimitCounters,
    pub(crate) at: Instant,
    pub(crate) dropped: u64,
    pub(crate) network: network_limits::Told,
}

impl Default for Told {
    fn default() -> Self {
        Self {
            limits: LimitCounters::default(),
            at: Instant::now(),
            dropped: 0,
            network: network_limits::Told::default(),
        }
    }
}

impl Agent {
    pub(crate) fn new(id: AgentId, spec: Option<Arc<Launch>>, record: Record) -> Arc<Self> {
        let inner = Inner { spec, record, run: None, last_counters: FinalCounters::default() };
        Arc::new(Self { id, turn: Mutex::default(), inner: Mutex::new(inner), over: Condvar::new() })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }

    /// Whose it is, as the log's field; not for those who hold its lock.
    pub(crate) fn tenant(&self) -> String {
        self.lock().record.agent.tenant.clone()
    }

    /// Its run, when it runs.
    pub(crate) fn running(&self) -> Option<Arc<Run>> {
        let inner = self.lock();
        if inner.record.phase() == Phase::Running { inner.run.clone() } else { None }
    }

    /// The run is over and nothing of it is left.
    pub(crate) fn end_run(&self) {
        self.lock().run = None;
        self.over.notify_all();
    }

    /// The record says that it has ended.
    pub(crate) fn tell_ended(&self) {
        self.over.notify_all();
    }

    /// Waits until it has ended: no process is left, and the exit is known. False at the timeout.
    pub(crate) fn wait_ended(&self, timeout: Duration) -> bool {
        let inner = self.lock();
        let waited =
            self.over.wait_timeout_while(inner, timeout, |inner| inner.record.phase() == Phase::Running);
        let (inner, _) = waited.unwrap_or_else(PoisonError::into_inner);
        inner.record.phase() != Phase::Running
    }

    /// Waits until no run is there. False at the timeout.
    pub(crate) fn wait_over(&self, timeout: Duration) -> bool {
        let inner = self.lock();
        let waited = self.over.wait_timeout_while(inner, timeout, |inner| inner.run.is_some());
        let (inner, _) = waited.unwrap_or_else(PoisonError::into_inner);
        inner.run.is_none()
    }

    /// As the protocol shows it now.
    pub(crate) fn view(&self) -> v1::AgentState {
        self.lock().view()
    }
}

impl Run {
    /// A copy of init's pidfd.
    pub(crate) fn pidfd(&self) -> Option<OwnedFd> {
        lock(&self.init).as_ref()?.pidfd().try_clone_to_owned().ok()
    }
}

impl Inner {
    pub(crate) fn view(&self) -> v1::AgentState {
        let mut view = self.record.agent.clone();
        view.withheld.clone_from(&self.record.withheld);
        view.withheld_files.clone_from(&self.record.withheld_files);
        match self.record.phase() {
            Phase::Running if self.record.paused => "frozen",
            Phase::Running | Phase::Launching => "running",
            Phase::Exited | Phase::Unknown => "exited",
        }
        .clone_into(&mut view.state);
        view
    }
}
