//! One attempt of a task, checked.

use aion_launcher_proto::v1;
use aion_sandbox::{CHECKPOINT_FOLDER, MAX_CHECKPOINT, RESULT_FILE};

use crate::Failure;
use crate::request::field::Checked;

const MIN_CHECKPOINT: u64 = 64 << 10;
/// What the launcher itself says to the process.
const NAMES: [&str; 4] = ["AION_TASK_ID", "AION_TASK_ATTEMPT", "AION_CHECKPOINT_DIR", "AION_RESULT"];

/// One attempt of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// The task.
    pub task_id: String,
    /// The attempt's number.
    pub attempt: u32,
    /// The largest checkpoint.
    pub checkpoint_max: u64,
    /// Whether its standard input comes with the launch.
    pub stdin: bool,
    /// Whether a checkpoint comes with the launch.
    pub restore: bool,
}

impl Job {
    pub(super) fn check(job: &v1::Job, launch: &v1::Launch) -> Checked<Self> {
        let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':');
        if !(1..=128).contains(&job.task_id.len()) || !job.task_id.bytes().all(good) {
            return Err(Failure::field("job.task_id", "1 to 128 letters, digits, '-', '_', '.' and ':'"));
        }
        if !(MIN_CHECKPOINT..=MAX_CHECKPOINT).contains(&job.checkpoint_max_bytes) {
            let why =
                format!("{} is not within {MIN_CHECKPOINT} and {MAX_CHECKPOINT}", job.checkpoint_max_bytes);
            return Err(Failure::field("job.checkpoint_max_bytes", why));
        }
        if job.attempt == 0 {
            return Err(Failure::field("job.attempt", "attempts are counted from 1"));
        }
        if launch.tty {
            return Err(Failure::field("job", "a job has no terminal: its standard input is the task's"));
        }
        let is_ours = |entry: &[u8]| {
            NAMES.iter().any(|n| entry.strip_prefix(n.as_bytes()).is_some_and(|rest| rest.starts_with(b"=")))
        };
        if launch.env.iter().any(|e| is_ours(e)) {
            return Err(Failure::field("env", format!("{} are the launcher's to set", NAMES.join(", "))));
        }
        Ok(Self {
            task_id: job.task_id.clone(),
            attempt: job.attempt,
            checkpoint_max: job.checkpoint_max_bytes,
            stdin: job.stdin,
            restore: job.restore,
        })
    }

    /// How many descriptors come with it.
    pub(crate) fn fds(&self) -> usize {
        usize::from(self.stdin) + usize::from(self.restore)
    }

    pub(crate) fn env(&self) -> impl Iterator<Item = Vec<u8>> {
        let attempt = self.attempt.to_string();
        let values = [self.task_id.as_str(), &attempt, CHECKPOINT_FOLDER, RESULT_FILE];
        let variables: Vec<_> =
            NAMES.iter().zip(values).map(|(n, v)| format!("{n}={v}").into_bytes()).collect();
        variables.into_iter()
    }

    pub(crate) fn plan(&self) -> aion_sandbox::Job {
        aion_sandbox::Job { checkpoint_max: self.checkpoint_max, restore: self.restore }
    }
}
