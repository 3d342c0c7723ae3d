//! Checking a journal: every record is read, every checksum compared, every reference followed.

use std::collections::{HashMap, HashSet};

use crate::checkpoint::checkpoint_key;
use crate::db;
use crate::error::Error;
use crate::events::event_seq;
use crate::format::{self, CheckpointInfo};
use crate::journal::Journal;
use crate::keys::{self, BLOBS, BODIES, CHECKPOINTS, ENDED, EVENTS, RESULTS, ROWS, SMALL_BLOBS};

/// Problems that are told; of more only the number is.
const TOLD: usize = 100;

/// What a row says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowRefs {
    /// The task that it is.
    pub task: u64,
    /// The task's last event; 0: it has none.
    pub last_event: u64,
}

/// What a check found.
#[derive(Debug, Default)]
pub struct Checked {
    /// Rows of what lives.
    pub rows: u64,
    /// Rows of ended tasks.
    pub ended_rows: u64,
    /// Events.
    pub events: u64,
    /// Bodies.
    pub bodies: u64,
    /// Results.
    pub results: u64,
    /// Checkpoints.
    pub checkpoints: u64,
    /// Their bytes, as the agents gave them.
    pub checkpoint_bytes: u64,
    /// How much is wrong.
    pub problem_count: u64,
    /// What is, up to a hundred.
    pub problems: Vec<String>,
}

impl Checked {
    /// Whether nothing is wrong.
    #[must_use]
    pub const fn is_ok(&self) -> bool {
        self.problem_count == 0
    }

    fn problem(&mut self, text: String) {
        self.problem_count += 1;
        if self.problems.len() < TOLD {
            self.problems.push(text);
        }
    }

    /// A family that cannot be read is a problem like another: the rest is checked all the same.
    fn note(&mut self, family: &str, result: Result<(), Error>) {
        if let Err(error) = result {
            let source =
                std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
            self.problem(format!("{family}: {error}{source}"));
        }
    }
}

/// Reads a row: which task it is, if it is one, or what is wrong with it.
type Decode<'a> = dyn FnMut(&[u8], &[u8]) -> Result<Option<RowRefs>, String> + 'a;

struct Check<'a> {
    journal: &'a Journal,
    found: Checked,
    /// The last event of each task that has a row.
    tasks: HashMap<u64, u64>,
}

impl Journal {
    /// Reads everything and follows all references. `decode` reads a row of the core, of what lives or has ended. Nothing may be
    /// committed meanwhile, else what is new may look wrong.
    pub fn check(&self, mut decode: impl FnMut(&[u8], &[u8]) -> Result<Option<RowRefs>, String>) -> Checked {
        let mut check = Check { journal: self, found: Checked::default(), tasks: HashMap::new() };
        let steps: [(&str, Result<(), Error>); 2] =
            [(ROWS, check.rows(&mut decode)), (ENDED, check.ended(&mut decode))];
        for (family, result) in steps {
            check.found.note(family, result);
        }
        let result = check.events();
        check.found.note(EVENTS, result);
        for family in [BODIES, RESULTS] {
            let result = check.by_task(family);
            check.found.note(family, result);
        }
        let result = check.checkpoints();
        check.found.note(CHECKPOINTS, result);
        check.found
    }
}

impl Check<'_> {
    fn row(&mut self, family: &str, key: &[u8], value: &[u8], decode: &mut Decode<'_>) {
        match decode(key, value) {
            Ok(None) => {}
            Ok(Some(refs)) => {
                if self.tasks.insert(refs.task, refs.last_event).is_some() {
                    self.found.problem(format!("{family}: task {} has two rows", refs.task));
                }
            }
            Err(detail) => self.found.problem(format!("{family}: row {}: {detail}", key.escape_ascii())),
        }
    }

    fn rows(&mut self, decode: &mut Decode<'_>) -> Result<(), Error> {
        self.journal.rows(|key, value| {
            self.found.rows += 1;
            self.row(ROWS, key, value, decode);
            Ok(())
        })
    }

    fn ended(&mut self, decode: &mut Decode<'_>) -> Result<(), Error> {
        let mut named = HashSet::new();
        let mut entries = 0u64;
        self.journal.scan(ENDED, &[], |key, value| {
            if let Some((_, task)) = keys::ended_at_parts(key) {
                entries += 1;
                for key in format::ended_entry(value)?.keys {
                    if !named.insert(key.to_vec()) {
                        self.found.problem(format!(
                            "ended: row {} of task {task} is named twice",
                            key.escape_ascii()
                        ));
                    }
                }
            } else if let Some(key) = key.strip_prefix(&[keys::ENDED_ROW]) {
                self.found.ended_rows += 1;
                if !named.remove(key) {
                    self.found.problem(format!("ended: row {} belongs to no task", key.escape_ascii()));
                }
                self.row(ENDED, key, value, decode);
            } else {
                self.found.problem(format!("ended: unknown key {}", key.escape_ascii()));
            }
            Ok::<_, Error>(true)
        })?;
        for key in named {
            self.found.problem(format!("ended: row {} is named and not there", key.escape_ascii()));
        }
        let counted = self.journal.number(keys::META_ENDED)?.unwrap_or(0);
        if counted != entries {
            self.found.problem(format!("ended: {entries} tasks, {counted} were counted"));
        }
        Ok(())
    }

    /// Above what retention has dropped the sequence has no gap, and each event names the one before it of its task.
    fn events(&mut self) -> Result<(), Error> {
        let floor = self.journal.number(keys::META_PRUNED)?.unwrap_or(0);
        let newest = self.journal.number(keys::META_EVENTS)?.unwrap_or(0);
        let mut last = 0;
        let mut chains: HashMap<u64, u64> = HashMap::new();
        self.journal.scan(EVENTS, &[], |key, value| {
            let seq = event_seq(key)?;
            let (task, previous, _) = format::event_parts(value)?;
            self.found.events += 1;
            if seq > floor && seq != last.max(floor) + 1 {
                self.found.problem(format!("events: {} are missing before {seq}", seq - last.max(floor) - 1));
            }
            last = seq;
            if task != 0 {
                let before = chains.insert(task, seq).unwrap_or(0);
                if before != previous {
                    self.found
                        .problem(format!("events: {seq} of task {task} names {previous}, not {before}"));
                }
            }
            Ok::<_, Error>(true)
        })?;
        if last.max(floor) != newest {
            self.found.problem(format!("events: the newest is {last}, it should be {newest}"));
        }
        for (task, last_event) in &self.tasks {
            let found = chains.remove(task).unwrap_or(0);
            if found != *last_event {
                self.found
                    .problem(format!("events: task {task} names {last_event} as its last, which is {found}"));
            }
        }
        if !self.tasks.is_empty() {
            for task in chains.keys() {
                self.found.problem(format!("events: task {task} has events and no row"));
            }
        }
        Ok(())
    }

    fn by_task(&mut self, family: &'static str) -> Result<(), Error> {
        let mut count = 0;
        self.journal.scan(family, &[], |key, _| {
            count += 1;
            match keys::number(key) {
                Some(task) if self.tasks.is_empty() || self.tasks.contains_key(&task) => {}
                Some(task) => self.found.problem(format!("{family}: task {task} has no row")),
                None => self.found.problem(format!("{family}: a key is not a number")),
            }
            Ok::<_, Error>(true)
        })?;
        *(if family == BODIES { &mut self.found.bodies } else { &mut self.found.results }) = count;
        Ok(())
    }

    fn checkpoints(&mut self) -> Result<(), Error> {
        let mut known: HashMap<(u64, u32), CheckpointInfo> = HashMap::new();
        self.journal.scan(CHECKPOINTS, &[], |key, value| {
            let (task, number) = checkpoint_key(key)?;
            known.insert((task, number), format::checkpoint_info(task, number, value)?);
            Ok::<_, Error>(true)
        })?;
        for info in known.values() {
            self.found.checkpoints += 1;
            self.found.checkpoint_bytes += info.length;
            if !self.tasks.is_empty() && !self.tasks.contains_key(&info.task) {
                self.found.problem(format!("checkpoints: task {} has no row", info.task));
            }
            let result = self.journal.read_chunks(info, |_| Ok::<_, Error>(()));
            self.found.note(CHECKPOINTS, result);
        }
        for (family, large) in [(SMALL_BLOBS, false), (BLOBS, true)] {
            let mut read = db::sequential();
            read.set_readahead_size(0);
            let found = &mut self.found;
            let result = self.journal.iterate(family, read, |iter| {
                iter.seek_to_first();
                while let Some(key) = iter.key() {
                    let named = keys::checkpoint_parts(key).zip(keys::chunk_nonce(key));
                    let owner =
                        named.and_then(|(at, nonce)| known.get(&at).filter(|info| info.nonce == nonce));
                    // Large data that nothing names is one that is being written, or waits to be removed.
                    if !large && owner.is_none_or(|info| info.large) {
                        found.problem(format!("{family}: {} belongs to no checkpoint", key.escape_ascii()));
                    }
                    iter.next();
                }
                Ok(())
            });
            self.found.note(family, result);
        }
        Ok(())
    }
}
