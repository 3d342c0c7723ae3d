//! One typed method for each operation of the protocol.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use aion_launcher_proto::v1::{self, request::Op, response::Result as Answer};
use tokio::time::timeout;

use crate::pool::{self, Pool};
use crate::{Error, Options, Result, Watch};

/// A client of the launcher. Cheap to clone; all clones share the connections.
#[derive(Clone)]
pub struct Client {
    pool: Arc<Pool>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("socket", &self.pool.options.socket).finish_non_exhaustive()
    }
}

/// How many agents are asked for at once; the launcher gives fewer when they are long.
const PAGE: u32 = 256;

/// Whether doing it twice does more than doing it once.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Repeat {
    Safe,
    Unsafe,
}

impl Client {
    /// Makes a client. It connects when it is first used.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self { pool: Arc::new(Pool::new(options)) }
    }

    /// How it was made.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.pool.options
    }

    /// Who answers: version, boot id, epoch.
    ///
    /// # Errors
    /// When nobody answers, or in another protocol.
    pub async fn hello(&self) -> Result<v1::HelloOk> {
        Ok(pool::connect(&self.pool.options, self.pool.options.connect_patience).await?.1)
    }

    /// Launches an agent. Repeating it with the same id and incarnation answers what the first did, so a lost answer
    /// is asked for again. With `tty` the answer carries the pty's master.
    ///
    /// # Errors
    /// The launcher's refusal, or that it cannot be reached.
    pub async fn launch(&self, launch: v1::Launch) -> Result<(v1::AgentState, Option<OwnedFd>)> {
        self.launch_with(launch, Vec::new()).await
    }

    /// As [`Client::launch`], with the descriptors that a job is given.
    ///
    /// # Errors
    /// The launcher's refusal, or that it cannot be reached.
    pub async fn launch_with(
        &self,
        launch: v1::Launch,
        fds: Vec<OwnedFd>,
    ) -> Result<(v1::AgentState, Option<OwnedFd>)> {
        let (answer, fds) = self.call("Launch", Op::Launch(launch), fds, Repeat::Safe, self.slow()).await?;
        Ok((agent("Launch", answer)?, fds.into_iter().next()))
    }

    /// Sends a signal to the agent's first process.
    ///
    /// # Errors
    /// The launcher's refusal, or that it cannot be reached.
    pub async fn signal(&self, id: &str, signo: i32) -> Result<v1::AgentState> {
        let op = Op::Signal(v1::Signal { id: id.to_owned(), signo });
        agent("Signal", self.call("Signal", op, Vec::new(), Repeat::Unsafe, self.quick()).await?.0)
    }

    /// Freezes the agent; a reason is told and kept.
    ///
    /// # Errors
    /// The launcher's refusal, or that it cannot be reached.
    pub async fn freeze(&self, id: &str, reason: &str) -> Result<v1::AgentState> {
        let op = Op::Freeze(v1::Freeze { id: id.to_owned(), reason: reason.to_owned() });
        agent("Freeze", self.call("Freeze", op, Vec::new(), Repeat::Safe, self.slow()).await?.0)
    }

    /// Thaws the agent.
    ///
    /// # Errors
    /// The launcher's refusal, or that it cannot be reached.
    pub async fn thaw(&self, id: &str) -> Result<v1::AgentState> {
        let op = Op::Thaw(v1::Thaw { id: id.to_owned() });
        agent("Thaw", self.call("Thaw", op, Vec::new(), Repeat::Safe, self.slow()).await?.0)
    }

    /// Leaves the agent so many thousandths of a processor; with 0 it has again what it was launched with.
    ///
    /// # Errors
    /// The launcher's refusal, or that it cannot be reached.
    pub async fn throttle(&self, id: &str, cpu_millis: u32, reason: &str) -> Result<v1::AgentState> {
        let op = Op::Throttle(v1::Throttle { id: id.to_owned(), cpu_millis, reason: reason.to_owned() });
        agent("Throttle", self.call("Throttle", op, Vec::new(), Repeat::Safe, self.quick()).await?.0)
    }

    /// Takes the agent's network away, or gives it back.
    ///
    /// # Errors
    /// The launcher's refusal, or that it cannot be reached.
    pub async fn isolate(&self, id: &str, on: bool, reason: &str) -> Result<v1::AgentState> {
        let op = Op::Isolate(v1::Isolate { id: id.to_owned(), on, reason: reason.to_owned() });
        agent("Isolate", self.call("Isolate", op, Vec::new(), Repeat::Safe, self.quick()).await?.0)
    }

    /// Kills the whole agent; answers when nothing of it is left.
    ///
    /// # Errors
    /// The launcher's refusal, or that it cannot be reached.
    pub async fn kill(&self, id: &str, reason: &str) -> Result<v1::AgentState> {
        let op = Op::Kill(v1::Kill { id: id.to_owned(), reason: reason.to_owned() });
        agent("Kill", self.call("Kill", op, Vec::new(), Repeat::Safe, self.slow()).await?.0)
    }

    /// Removes what is left of an agent that has ended.
    ///
    /// # Errors
    /// The launcher's refusal, or that it cannot be reached.
    pub async fn remove(&self, id: &str, keep_journal: bool) -> Result<()> {
        let op = Op::Remove(v1::Remove { id: id.to_owned(), keep_journal });
        match self.call("Remove", op, Vec::new(), Repeat::Safe, self.slow()).await?.0 {
            Answer::Empty(_) => Ok(()),
            _ => Err(Error::Unexpected { op: "Remove" }),
        }
    }

    /// All agents of the launcher's table.
    ///
    /// They come in pages: one that is launched or removed meanwhile may be in it or not.
    ///
    /// # Errors
    /// That it cannot be reached.
    pub async fn list(&self) -> Result<Vec<v1::AgentState>> {
        let (mut agents, mut after) = (Vec::new(), String::new());
        loop {
            let op = Op::List(v1::List { after, limit: PAGE });
            let (answer, _) = self.call("List", op, Vec::new(), Repeat::Safe, self.quick()).await?;
            let Answer::List(page) = answer else { return Err(Error::Unexpected { op: "List" }) };
            let last = page.agents.last().map(|agent| agent.id.clone());
            agents.extend(page.agents);
            match last {
                Some(last) if page.more => after = last,
                _ => return Ok(agents),
            }
        }
    }

    /// Starts one more program in an agent, on the given descriptors (stdin, stdout, stderr, or one pty slave).
    ///
    /// # Errors
    /// The launcher's refusal, or that it cannot be reached.
    pub async fn exec(&self, exec: v1::Exec, fds: Vec<OwnedFd>) -> Result<u32> {
        match self.call("Exec", Op::Exec(exec), fds, Repeat::Unsafe, self.slow()).await?.0 {
            Answer::Exec(ok) => Ok(ok.pid),
            _ => Err(Error::Unexpected { op: "Exec" }),
        }
    }

    /// Adds one record to the audit log and says its number.
    ///
    /// # Errors
    /// The launcher's refusal, or that it cannot be reached.
    pub async fn append_audit(&self, record: v1::AppendAudit) -> Result<u64> {
        let op = Op::AppendAudit(record);
        match self.call("AppendAudit", op, Vec::new(), Repeat::Unsafe, self.quick()).await?.0 {
            Answer::Audit(at) => Ok(at.seq),
            _ => Err(Error::Unexpected { op: "AppendAudit" }),
        }
    }

    /// What an agent uses.
    ///
    /// # Errors
    /// As [`Self::stats_with`].
    pub async fn stats(&self, id: &str) -> Result<v1::StatsOk> {
        self.stats_with(v1::Stats { id: id.to_owned(), ..v1::Stats::default() }).await
    }

    /// What an agent uses, with what costs more than to read a figure and is asked for by name.
    ///
    /// # Errors
    /// The launcher's refusal, or that it cannot be reached.
    pub async fn stats_with(&self, asked: v1::Stats) -> Result<v1::StatsOk> {
        match self.call("Stats", Op::Stats(asked), Vec::new(), Repeat::Safe, self.quick()).await?.0 {
            Answer::Stats(stats) => Ok(stats),
            _ => Err(Error::Unexpected { op: "Stats" }),
        }
    }

    /// An agent's system calls, counted.
    ///
    /// # Errors
    /// The launcher's refusal, or that it cannot be reached.
    pub async fn counters(&self, id: &str) -> Result<Vec<v1::SyscallCounter>> {
        let op = Op::Counters(v1::Counters { id: id.to_owned() });
        match self.call("Counters", op, Vec::new(), Repeat::Safe, self.quick()).await?.0 {
            Answer::Counters(counters) => Ok(counters.syscalls),
            _ => Err(Error::Unexpected { op: "Counters" }),
        }
    }

    /// What this host gives each layer.
    ///
    /// # Errors
    /// That it cannot be reached.
    pub async fn host(&self) -> Result<v1::HostOk> {
        match self.call("Host", Op::Host(v1::Host {}), Vec::new(), Repeat::Safe, self.slow()).await?.0 {
            Answer::Host(host) => Ok(host),
            _ => Err(Error::Unexpected { op: "Host" }),
        }
    }

    /// An agent's journal, read-only, for a reader who cannot open it by path.
    ///
    /// # Errors
    /// The launcher's refusal, or that it cannot be reached.
    pub async fn open_log(&self, id: &str) -> Result<OwnedFd> {
        let op = Op::OpenLog(v1::OpenLog { id: id.to_owned() });
        let (_, fds) = self.call("OpenLog", op, Vec::new(), Repeat::Safe, self.quick()).await?;
        fds.into_iter().next().ok_or(Error::Unexpected { op: "OpenLog" })
    }

    /// The master of the pty that an agent runs on.
    ///
    /// # Errors
    /// The launcher's refusal, or that it cannot be reached.
    pub async fn open_tty(&self, id: &str) -> Result<OwnedFd> {
        let op = Op::OpenTty(v1::OpenTty { id: id.to_owned() });
        let (_, fds) = self.call("OpenTty", op, Vec::new(), Repeat::Safe, self.quick()).await?;
        fds.into_iter().next().ok_or(Error::Unexpected { op: "OpenTty" })
    }

    /// Opens a file of a running agent, as the agent itself could.
    ///
    /// # Errors
    /// The launcher's refusal, or that it cannot be reached.
    pub async fn open_file(&self, open: v1::OpenFile) -> Result<(v1::FileInfo, OwnedFd)> {
        // What was made the first time is there the second time.
        let repeat = if open.r#use() == v1::FileUse::Read { Repeat::Safe } else { Repeat::Unsafe };
        match self.call("OpenFile", Op::OpenFile(open), Vec::new(), repeat, self.quick()).await? {
            (Answer::File(info), mut fds) if fds.len() == 1 => {
                let fd = fds.pop().ok_or(Error::Unexpected { op: "OpenFile" })?;
                Ok((info, fd))
            }
            _ => Err(Error::Unexpected { op: "OpenFile" }),
        }
    }

    /// Puts a part that was opened into its place, or removes it.
    ///
    /// # Errors
    /// The launcher's refusal, or that it cannot be reached.
    pub async fn put_file(&self, put: v1::PutFile) -> Result<()> {
        match self.call("PutFile", Op::PutFile(put), Vec::new(), Repeat::Unsafe, self.quick()).await?.0 {
            Answer::Empty(_) => Ok(()),
            _ => Err(Error::Unexpected { op: "PutFile" }),
        }
    }

    /// Looks at a file of a running agent.
    ///
    /// # Errors
    /// The launcher's refusal, or that it cannot be reached.
    pub async fn stat_file(&self, stat: v1::StatFile) -> Result<v1::FileInfo> {
        match self.call("StatFile", Op::StatFile(stat), Vec::new(), Repeat::Safe, self.quick()).await?.0 {
            Answer::File(info) => Ok(info),
            _ => Err(Error::Unexpected { op: "StatFile" }),
        }
    }

    /// A page of what is in a folder of a running agent.
    ///
    /// # Errors
    /// The launcher's refusal, or that it cannot be reached.
    pub async fn list_folder(&self, list: v1::ListFolder) -> Result<v1::FolderPage> {
        match self.call("ListFolder", Op::ListFolder(list), Vec::new(), Repeat::Safe, self.quick()).await?.0 {
            Answer::Folder(page) => Ok(page),
            _ => Err(Error::Unexpected { op: "ListFolder" }),
        }
    }

    /// The sockets of the resolver of an agent with network mode `egress`, and whom the agent reaches.
    ///
    /// # Errors
    /// The launcher's refusal, or that it cannot be reached.
    pub async fn open_resolver(&self, id: &str) -> Result<(Vec<String>, OwnedFd, OwnedFd)> {
        let op = Op::OpenResolver(v1::OpenResolver { id: id.to_owned() });
        let unexpected = || Error::Unexpected { op: "OpenResolver" };
        match self.call("OpenResolver", op, Vec::new(), Repeat::Safe, self.quick()).await? {
            (Answer::Resolver(ok), fds) if fds.len() == 2 => {
                let mut fds = fds.into_iter();
                let udp = fds.next().ok_or_else(unexpected)?;
                Ok((ok.rules, udp, fds.next().ok_or_else(unexpected)?))
            }
            _ => Err(unexpected()),
        }
    }

    /// Lets an agent reach what a name resolved to; gives the addresses that it may hear of.
    ///
    /// # Errors
    /// The launcher's refusal, or that it cannot be reached.
    pub async fn resolved(&self, resolved: v1::Resolved) -> Result<Vec<Vec<u8>>> {
        let op = Op::Resolved(resolved);
        match self.call("Resolved", op, Vec::new(), Repeat::Safe, self.quick()).await?.0 {
            Answer::Resolved(ok) => Ok(ok.addresses),
            _ => Err(Error::Unexpected { op: "Resolved" }),
        }
    }

    /// Takes hosts that a running agent was launched with from it, all others of its are its again.
    ///
    /// # Errors
    /// The launcher's refusal, or that it cannot be reached.
    pub async fn withhold(&self, id: &str, rules: Vec<String>) -> Result<v1::AgentState> {
        let op = Op::Withhold(v1::Withhold { id: id.to_owned(), rules });
        match self.call("Withhold", op, Vec::new(), Repeat::Safe, self.quick()).await?.0 {
            Answer::Agent(state) => Ok(state),
            _ => Err(Error::Unexpected { op: "Withhold" }),
        }
    }

    /// Whether a seccomp profile can be compiled: the file of that name, or this one in its place.
    ///
    /// # Errors
    /// What is wrong with it, or that the launcher cannot be reached.
    pub async fn check_profile(&self, name: &str, file: Vec<u8>) -> Result<()> {
        let op = Op::CheckProfile(v1::CheckProfile { name: name.to_owned(), file });
        match self.call("CheckProfile", op, Vec::new(), Repeat::Safe, self.quick()).await?.0 {
            Answer::Empty(_) => Ok(()),
            _ => Err(Error::Unexpected { op: "CheckProfile" }),
        }
    }

    /// Takes `fs:` and `exec:` rules that a running agent was launched with from it, all others of its hold again.
    ///
    /// # Errors
    /// The launcher's refusal, or that it cannot be reached.
    pub async fn withhold_files(&self, id: &str, rules: Vec<String>) -> Result<v1::AgentState> {
        let op = Op::WithholdFiles(v1::WithholdFiles { id: id.to_owned(), rules });
        match self.call("WithholdFiles", op, Vec::new(), Repeat::Safe, self.quick()).await?.0 {
            Answer::Agent(state) => Ok(state),
            _ => Err(Error::Unexpected { op: "WithholdFiles" }),
        }
    }

    /// Follows the launcher's notices from an audit record on.
    #[must_use]
    pub fn watch(&self, audit_after_seq: u64) -> Watch {
        Watch::new(self.clone(), audit_after_seq)
    }

    pub(crate) fn forget_idle(&self) {
        self.pool.forget_idle();
    }

    fn quick(&self) -> Duration {
        self.pool.options.call_timeout
    }

    fn slow(&self) -> Duration {
        self.pool.options.slow_call_timeout
    }

    async fn call(
        &self,
        name: &'static str,
        op: Op,
        fds: Vec<OwnedFd>,
        repeat: Repeat,
        limit: Duration,
    ) -> Result<(Answer, Vec<OwnedFd>)> {
        // An operation that is safe to repeat is sent once more when the launcher goes away under it.
        let again = (repeat == Repeat::Safe).then(|| op.clone());
        let mut lease = self.pool.lease().await?;
        let first = timeout(limit, lease.connection.call(name, op, &fds)).await;
        match (first, again) {
            (Ok(Err(Error::Lost { source, .. })), Some(op)) => {
                tracing::debug!(op = name, reused = lease.reused, %source, "launcher went away, asking again");
                drop(lease);
                self.pool.forget_idle();
                lease = self.pool.lease().await?;
                let second = timeout(limit, lease.connection.call(name, op, &fds)).await;
                self.finish(name, lease, second, limit)
            }
            (outcome, _) => self.finish(name, lease, outcome, limit),
        }
    }

    fn finish(
        &self,
        name: &'static str,
        lease: pool::Lease,
        outcome: std::result::Result<Result<(Answer, Vec<OwnedFd>)>, tokio::time::error::Elapsed>,
        limit: Duration,
    ) -> Result<(Answer, Vec<OwnedFd>)> {
        let outcome = outcome.unwrap_or(Err(Error::Timeout { op: name, after: limit }));
        if matches!(outcome, Ok(_) | Err(Error::Refused(_))) {
            self.pool.give_back(lease);
        }
        outcome
    }
}

fn agent(op: &'static str, answer: Answer) -> Result<v1::AgentState> {
    match answer {
        Answer::Agent(state) => Ok(state),
        _ => Err(Error::Unexpected { op }),
    }
}
