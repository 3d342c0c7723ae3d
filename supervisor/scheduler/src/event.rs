//! What happened, in order. The journal keeps events; a client sees them as a task's history.

use crate::codec::{DecodeError, Reader, Writer};
use crate::{Attempt, Name, TaskNumber};

const VERSION: u8 = 1;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its number: grows by one.
    pub seq: u64,
    /// When, in ms since 1970.
    pub time: u64,
    /// The tenant; empty when it concerns the node.
    pub tenant: Name,
    /// The task's number; 0 when it concerns no task.
    pub task: TaskNumber,
    /// The task's id.
    pub id: Name,
    /// The event before it of the same task; 0: none.
    pub previous: u64,
    /// The attempt that it concerns.
    pub attempt: Option<Attempt>,
    /// The agent that it concerns.
    pub agent: Option<Name>,
    /// What happened.
    pub kind: EventKind,
}

/// How an attempt made room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rung {
    /// It left a checkpoint, or gave up by itself.
    Yielded,
    /// It was frozen in place.
    Frozen,
    /// It was stopped.
    Stopped,
}

impl Rung {
    /// The word in histories.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Yielded => "checkpoint",
            Self::Frozen => "freeze",
            Self::Stopped => "stop",
        }
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventKind {
    /// A daemon started.
    Booted {
        /// Its epoch.
        epoch: u64,
    },
    /// The settings changed.
    Configured,
    /// An agent is known, or known anew.
    AgentKnown,
    /// An agent is gone.
    AgentGone,
    /// A service agent attached.
    Attached {
        /// How much it takes at once.
        concurrency: u32,
    },
    /// A service agent's stream ended.
    Detached,
    /// The task is in.
    Submitted {
        /// It waits for this many others.
        blocked_by: u32,
    },
    /// What it waited for is done, or its pause is over.
    Queued,
    /// An attempt was assigned.
    Dispatched {
        /// Which one of the task, from 1.
        number: u32,
        /// From this checkpoint.
        resume: Option<u32>,
    },
    /// The agent began.
    Started,
    /// How far it is; told at most once a second.
    Progress {
        /// 0 to 1000.
        permille: u16,
        /// In words.
        note: String,
    },
    /// A checkpoint is safe.
    Checkpointed {
        /// Its number.
        number: u32,
        /// Its size.
        bytes: u64,
    },
    /// A checkpoint was not taken: the tenant's quota is used up.
    CheckpointRefused {
        /// Its size.
        bytes: u64,
    },
    /// The attempt is to make room.
    Preempting {
        /// For this task.
        by: TaskNumber,
        /// How long it has; 0: it is frozen or stopped at once.
        grace_ms: u64,
    },
    /// It made room.
    Preempted {
        /// How.
        rung: Rung,
        /// Running time that is to be repeated.
        lost_ms: u64,
    },
    /// It could not be frozen.
    FreezeFailed,
    /// It goes on from where it was frozen.
    Thawed,
    /// The attempt failed, and another one follows.
    Retried {
        /// The agent's code.
        code: String,
        /// In words.
        message: String,
        /// When the next one may start.
        at: u64,
    },
    /// The attempt was lost; the task goes on from its last checkpoint.
    Lost {
        /// Why.
        reason: String,
    },
    /// The attempt ran longer than it may.
    TimedOut,
    /// It ended well.
    Succeeded,
    /// It ended badly.
    Failed {
        /// The code.
        code: String,
        /// In words.
        message: String,
    },
    /// It was cancelled.
    Cancelled {
        /// Why.
        reason: String,
    },
    /// Its deadline passed.
    Expired,
    /// It still ran when its deadline passed.
    DeadlineMissed,
    /// The attempt's process is over; only told after the task had ended without it.
    Released,
    /// Something of the attempt that is worth knowing: what a checkpoint leaves out, why there is none.
    Noted {
        /// In words.
        text: String,
    },
}

impl EventKind {
    /// The word in answers.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Booted { .. } => "booted",
            Self::Configured => "configured",
            Self::AgentKnown => "agent_known",
            Self::AgentGone => "agent_gone",
            Self::Attached { .. } => "attached",
            Self::Detached => "detached",
            Self::Submitted { .. } => "submitted",
            Self::Queued => "queued",
            Self::Dispatched { .. } => "dispatched",
            Self::Started => "started",
            Self::Progress { .. } => "progress",
            Self::Checkpointed { .. } => "checkpointed",
            Self::CheckpointRefused { .. } => "checkpoint_refused",
            Self::Preempting { .. } => "preempting",
            Self::Preempted { rung: Rung::Frozen, .. } => "frozen",
            Self::Preempted { .. } => "preempted",
            Self::FreezeFailed => "freeze_failed",
            Self::Thawed => "thawed",
            Self::Retried { .. } => "retried",
            Self::Lost { .. } => "lost",
            Self::TimedOut => "timed_out",
            Self::Succeeded => "succeeded",
            Self::Failed { .. } => "failed",
            Self::Cancelled { .. } => "cancelled",
            Self::Expired => "expired",
            Self::DeadlineMissed => "deadline_missed",
            Self::Released => "released",
            Self::Noted { .. } => "noted",
        }
    }
}

impl Event {
    /// The bytes for the journal.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::with(VERSION, 96);
        w.int(self.seq);
        w.int(self.time);
        w.text(&self.tenant);
        w.int(self.task.0);
        w.text(&self.id);
        w.int(self.previous);
        w.flag(self.attempt.is_some());
        if let Some(attempt) = self.attempt {
            w.int(attempt.epoch);
            w.int(attempt.seq);
        }
        w.text(self.agent.as_deref().unwrap_or_default());
        self.kind.encode(&mut w);
        w.0
    }

    /// Reads what [`Event::encode`] wrote.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new("event", VERSION, bytes)?;
        let seq = r.int()?;
        let time = r.int()?;
        let tenant = r.text()?.into();
        let task = TaskNumber(r.int()?);
        let id = r.text()?.into();
        let previous = r.int()?;
        let attempt = if r.flag()? { Some(Attempt { epoch: r.int()?, seq: r.int()? }) } else { None };
        let agent = Some(r.text()?).filter(|name| !name.is_empty()).map(Name::from);
        let kind = EventKind::decode(&mut r)?;
        r.end()?;
        Ok(Self { seq, time, tenant, task, id, previous, attempt, agent, kind })
    }
}

impl EventKind {
    fn encode(&self, w: &mut Writer) {
        match self {
            Self::Booted { epoch } => {
                w.byte(0);
                w.int(*epoch);
            }
            Self::Configured => w.byte(1),
            Self::AgentKnown => w.byte(2),
            Self::AgentGone => w.byte(3),
            Self::Attached { concurrency } => {
                w.byte(4);
                w.int((*concurrency).into());
            }
            Self::Detached => w.byte(5),
            Self::Submitted { blocked_by } => {
                w.byte(6);
                w.int((*blocked_by).into());
            }
            Self::Queued => w.byte(7),
            Self::Dispatched { number, resume } => {
                w.byte(8);
                w.int((*number).into());
                w.option(resume.map(u64::from));
            }
            Self::Started => w.byte(9),
            Self::Progress { permille, note } => {
                w.byte(10);
                w.int((*permille).into());
                w.text(note);
            }
            Self::Checkpointed { number, bytes } => {
                w.byte(11);
                w.int((*number).into());
                w.int(*bytes);
            }
            Self::CheckpointRefused { bytes } => {
                w.byte(12);
                w.int(*bytes);
            }
            Self::Preempting { by, grace_ms } => {
                w.byte(13);
                w.int(by.0);
                w.int(*grace_ms);
            }
            Self::Preempted { rung, lost_ms } => {
                w.byte(14);
                w.byte(*rung as u8);
                w.int(*lost_ms);
            }
            Self::FreezeFailed => w.byte(15),
            Self::Thawed => w.byte(16),
            Self::Retried { code, message, at } => {
                w.byte(17);
                w.text(code);
                w.text(message);
                w.int(*at);
            }
            Self::Lost { reason } => {
                w.byte(18);
                w.text(reason);
            }
            Self::TimedOut => w.byte(19),
            Self::Succeeded => w.byte(20),
            Self::Failed { code, message } => {
                w.byte(21);
                w.text(code);
                w.text(message);
            }
            Self::Cancelled { reason } => {
                w.byte(22);
                w.text(reason);
            }
            Self::Expired => w.byte(23),
            Self::DeadlineMissed => w.byte(24),
            Self::Released => w.byte(25),
            Self::Noted { text } => {
                w.byte(26);
                w.text(text);
            }
        }
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match r.byte()? {
            0 => Self::Booted { epoch: r.int()? },
            1 => Self::Configured,
            2 => Self::AgentKnown,
            3 => Self::AgentGone,
            4 => Self::Attached { concurrency: r.small()? },
            5 => Self::Detached,
            6 => Self::Submitted { blocked_by: r.small()? },
            7 => Self::Queued,
            8 => {
                let number = r.small()?;
                let resume = match r.option()? {
                    Some(n) => {
                        Some(u32::try_from(n).or_else(|_| r.fail("a checkpoint's number out of range"))?)
                    }
                    None => None,
                };
                Self::Dispatched { number, resume }
            }
            9 => Self::Started,
            10 => Self::Progress { permille: r.small()?, note: r.text()?.to_owned() },
            11 => Self::Checkpointed { number: r.small()?, bytes: r.int()? },
            12 => Self::CheckpointRefused { bytes: r.int()? },
            13 => Self::Preempting { by: TaskNumber(r.int()?), grace_ms: r.int()? },
            14 => {
                let rung = match r.byte()? {
                    0 => Rung::Yielded,
                    1 => Rung::Frozen,
                    2 => Rung::Stopped,
                    _ => return r.fail("an unknown rung"),
                };
                Self::Preempted { rung, lost_ms: r.int()? }
            }
            15 => Self::FreezeFailed,
            16 => Self::Thawed,
            17 => Self::Retried { code: r.text()?.to_owned(), message: r.text()?.to_owned(), at: r.int()? },
            18 => Self::Lost { reason: r.text()?.to_owned() },
            19 => Self::TimedOut,
            20 => Self::Succeeded,
            21 => Self::Failed { code: r.text()?.to_owned(), message: r.text()?.to_owned() },
            22 => Self::Cancelled { reason: r.text()?.to_owned() },
            23 => Self::Expired,
            24 => Self::DeadlineMissed,
            25 => Self::Released,
            26 => Self::Noted { text: r.text()?.to_owned() },
            _ => return r.fail("an unknown kind"),
        })
    }
}
