//! One request, checked.

use aion_egress::Rule;
use aion_launcher_proto::{PROTOCOL, v1};
use aion_types::{AgentId, ErrorCode};

use crate::Failure;
use crate::egress;
use crate::request::field::{self, Checked};
use crate::request::{AuditEntry, Exec, FileOp, Job, Launch, Resolved};

/// Rules of one request, and the longest of them.
const MAX_FILE_RULES: usize = 1024;
const MAX_FILE_RULE: usize = 4200;
/// The kernel's last real-time signal.
const LAST_SIGNAL: i32 = 64;

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as in the protocol")]
pub enum Op {
    Hello,
    Launch(Box<Launch>),
    Signal { id: AgentId, signal: i32 },
    Freeze { id: AgentId, reason: String },
    Thaw(AgentId),
    Kill { id: AgentId, reason: String },
    Remove { id: AgentId, keep_journal: bool },
    List { after: Option<AgentId>, limit: usize },
    Watch { audit_after_seq: u64 },
    Exec(Box<Exec>),
    AppendAudit(Box<AuditEntry>),
    Stats { id: AgentId, grams: bool, deleted_programs: bool },
    Host,
    OpenLog(AgentId),
    OpenTty(AgentId),
    Counters(AgentId),
    File(Box<FileOp>),
    OpenResolver(AgentId),
    Resolved(Box<Resolved>),
    Withhold { id: AgentId, rules: Vec<Rule> },
    WithholdFiles { id: AgentId, rules: Vec<String> },
    Throttle { id: AgentId, cpu_millis: Option<u32>, reason: String },
    Isolate { id: AgentId, on: bool, reason: String },
    CheckProfile { name: String, file: Vec<u8> },
}

/// Checks a request that came with `fds` descriptors.
///
/// # Errors
/// `INVALID_FIELD` with the field, or `PROTOCOL_MISMATCH`.
pub fn parse(request: &v1::Request, fds: usize) -> Result<Op, Failure> {
    use v1::request::Op as Raw;
    let Some(op) = request.op.as_ref() else {
        return Err(Failure::field("op", "it is not set, or this launcher does not know it"));
    };
    if fds != 0 && !matches!(op, Raw::Exec(_) | Raw::Launch(_)) {
        return Err(Failure::field("fds", "only Exec and Launch carry descriptors"));
    }
    let id = |text: &str| field::agent_id(text);
    Ok(match op {
        Raw::Hello(hello) if hello.protocol == PROTOCOL => Op::Hello,
        Raw::Hello(hello) => {
            let message = format!("this launcher speaks protocol {PROTOCOL}, not {}", hello.protocol);
            return Err(Failure::new(ErrorCode::ProtocolMismatch, message));
        }
        Raw::Launch(launch) => {
            let checked = Launch::check(launch)?;
            let wanted = checked.input.fds() + checked.job.as_ref().map_or(0, Job::fds);
            if fds != wanted {
                return Err(Failure::field("fds", format!("{fds} descriptors came, {wanted} are needed")));
            }
            Op::Launch(Box::new(checked))
        }
        Raw::Signal(signal) => Op::Signal { id: id(&signal.id)?, signal: signal_number(signal.signo)? },
        Raw::Freeze(freeze) => Op::Freeze { id: id(&freeze.id)?, reason: reason(&freeze.reason)? },
        Raw::Thaw(thaw) => Op::Thaw(id(&thaw.id)?),
        Raw::Kill(kill) => Op::Kill { id: id(&kill.id)?, reason: reason(&kill.reason)? },
        Raw::Remove(remove) => Op::Remove { id: id(&remove.id)?, keep_journal: remove.keep_journal },
        Raw::List(list) => Op::List {
            after: if list.after.is_empty() { None } else { Some(field::agent_id_of("after", &list.after)?) },
            limit: usize::try_from(list.limit).unwrap_or(usize::MAX),
        },
        Raw::Watch(watch) => Op::Watch { audit_after_seq: watch.audit_after_seq },
        Raw::Exec(exec) => Op::Exec(Box::new(Exec::check(exec, fds)?)),
        Raw::AppendAudit(append) => Op::AppendAudit(Box::new(AuditEntry::check(append)?)),
        Raw::Stats(stats) => {
            Op::Stats { id: id(&stats.id)?, grams: stats.grams, deleted_programs: stats.deleted_programs }
        }
        Raw::Host(_) => Op::Host,
        Raw::OpenLog(open) => Op::OpenLog(id(&open.id)?),
        Raw::OpenTty(open) => Op::OpenTty(id(&open.id)?),
        Raw::Counters(counters) => Op::Counters(id(&counters.id)?),
        Raw::OpenFile(open) => Op::File(Box::new(FileOp::open(open)?)),
        Raw::PutFile(put) => Op::File(Box::new(FileOp::put(put)?)),
        Raw::StatFile(stat) => Op::File(Box::new(FileOp::stat(stat)?)),
        Raw::OpenResolver(open) => Op::OpenResolver(id(&open.id)?),
        Raw::Resolved(resolved) => Op::Resolved(Box::new(Resolved::check(resolved)?)),
        Raw::Withhold(withhold) => {
            Op::Withhold { id: id(&withhold.id)?, rules: egress::rules("rules", &withhold.rules)? }
        }
        Raw::WithholdFiles(withhold) => {
            Op::WithholdFiles { id: id(&withhold.id)?, rules: file_rules(&withhold.rules)? }
        }
        Raw::Throttle(throttle) => Op::Throttle {
            id: id(&throttle.id)?,
            cpu_millis: cpu_millis(throttle.cpu_millis)?,
            reason: reason(&throttle.reason)?,
        },
        Raw::Isolate(isolate) => {
            Op::Isolate { id: id(&isolate.id)?, on: isolate.on, reason: reason(&isolate.reason)? }
        }
        Raw::CheckProfile(check) => {
            field::file_name("name", &check.name)?;
            Op::CheckProfile { name: check.name.clone(), file: check.file.clone() }
        }
        Raw::ListFolder(list) => Op::File(Box::new(FileOp::list(list)?)),
    })
}

/// That the agent was launched with them is looked at where it is known.
fn file_rules(rules: &[String]) -> Checked<Vec<String>> {
    if rules.len() > MAX_FILE_RULES {
        return Err(Failure::field("rules", format!("more than {MAX_FILE_RULES} rules")));
    }
    rules.iter().try_for_each(|rule| field::text("rules", rule, MAX_FILE_RULE))?;
    let mut rules = rules.to_vec();
    rules.sort();
    rules.dedup();
    Ok(rules)
}

fn signal_number(signo: i32) -> Checked<i32> {
    if (1..=LAST_SIGNAL).contains(&signo) {
        return Ok(signo);
    }
    Err(Failure::field("signo", format!("{signo} is not a signal (1 to {LAST_SIGNAL})")))
}

/// Why something is done: it ends in records and in front of operators.
fn reason(text: &str) -> Checked<String> {
    field::text("reason", text, 256)?;
    Ok(text.to_owned())
}

fn cpu_millis(millis: u32) -> Checked<Option<u32>> {
    const MAX: u32 = 1_024_000;
    if millis > MAX {
        return Err(Failure::field(
            "cpu_millis",
            format!("{millis} is over {MAX} (0 gives back what it had)"),
        ));
    }
    Ok((millis > 0).then_some(millis))
}
