//! An agent's output as a sequence of chunks, read from its journal. No gRPC here; `logs` and `attach` send it.
//!
//! Reading happens on the blocking pool in steps of bounded size; between two steps nothing is held but the reader. A
//! chunk's cursor is the offset after it, so that a reader who comes back with it misses and repeats nothing.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aion_agent_journal::{Error as JournalError, HEADER_LEN, Item, Kind, Reader, Record};
use aion_types::{AgentId, TenantId};
use tokio::time::timeout;

use crate::core::Core;
use crate::problem::{Outcome, Problem};

/// The largest chunk.
const CHUNK: usize = 64 << 10;
/// What one step reads at most.
const STEP: usize = 256 << 10;
/// What is written in so short a time has one time.
const TOGETHER_NS: u64 = 1_000_000;
/// A tail of more lines is not remembered.
const MAX_TAIL: usize = 100_000;

/// Some output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub(crate) stderr: bool,
    pub(crate) data: Vec<u8>,
    pub(crate) time_ns: u64,
    pub(crate) next_cursor: u64,
    /// Bytes that the size limit dropped before this chunk.
    pub(crate) lost: u64,
}

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begin {
    /// The record at this offset; 0: the oldest.
    Cursor(u64),
    /// The last lines.
    Lines(usize),
    /// The last bytes of the current incarnation.
    LastBytes(usize),
}

/// Reads one journal.
pub(crate) struct Output {
    reader: Reader,
    since_ns: u64,
    /// Where a client said to begin.
    given: Option<u64>,
    /// Bytes of the first record that do not belong to the tail.
    skip: usize,
    lost: u64,
}

impl Core {
    /// An agent's journal, relative to the working directory.
    pub(crate) fn journal_path(&self, id: &AgentId) -> PathBuf {
        self.options.state.join("agents").join(id.as_str()).join("journal")
    }

    /// Opens an agent's output; none while there is no journal yet.
    pub(crate) async fn open_output(
        &self,
        id: &AgentId,
        begin: Begin,
        since_ns: u64,
    ) -> Outcome<Option<Output>> {
        let path = self.journal_path(id);
        let file = match tokio::fs::File::open(&path).await {
            Ok(file) => file.into_std().await,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            // Set up so that our group may not read it: the launcher opens it for us.
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                std::fs::File::from(self.launcher.open_log(id.as_str()).await?)
            }
            Err(error) => return Err(Problem::internal("cannot open an agent's journal", &error)),
        };
        blocking(None, move || match Output::open(file, begin, since_ns) {
            Err(JournalError::NotAJournal) => Ok(None),
            other => other.map(Some),
        })
        .await
    }
}

impl Output {
    fn open(file: std::fs::File, begin: Begin, since_ns: u64) -> Result<Self, JournalError> {
        let cursor = match begin {
            // From the first record that there ever was: what is gone of it is told.
            Begin::Cursor(0) => HEADER_LEN,
            Begin::Cursor(cursor) => cursor,
            Begin::Lines(_) | Begin::LastBytes(_) => 0,
        };
        let mut reader = Reader::open(file, cursor)?;
        let given = if let Begin::Cursor(cursor) = begin { Some(cursor) } else { None };
        let mut skip = 0;
        if let Begin::Lines(_) | Begin::LastBytes(_) = begin {
            let (at, inside) = find_tail(&mut reader, begin)?;
            let file = reader
                .file()
                .try_clone()
                .map_err(|source| JournalError::Io { doing: "open it again", source })?;
            reader = Reader::open(file, at)?;
            skip = inside;
        }
        Ok(Self { reader, since_ns, given, skip, lost: 0 })
    }

    /// The next chunks, none when there is no more now. Gives the reader back.
    pub(crate) async fn step(self) -> Outcome<(Self, Vec<Chunk>)> {
        blocking(self.given, move || {
            let mut output = self;
            let chunks = output.read_step()?;
            Ok((output, chunks))
        })
        .await
    }

    fn read_step(&mut self) -> Result<Vec<Chunk>, JournalError> {
        let mut chunks: Vec<Chunk> = Vec::new();
        let mut read = 0;
        while read < STEP {
            let record = match self.reader.next()? {
                None => break,
                Some(Item::Lost { bytes, .. }) => {
                    self.lost = self.lost.saturating_add(bytes);
                    self.skip = 0;
                    continue;
                }
                Some(Item::Record(record)) => record,
            };
            read += record.payload.len().max(1);
            let skip = std::mem::take(&mut self.skip);
            if !record.kind.is_output() || record.time_ns < self.since_ns {
                continue;
            }
            self.push(&mut chunks, record, skip);
        }
        Ok(chunks)
    }

    /// Small records of one stream and one moment become one chunk, which has the time of the first.
    fn push(&mut self, chunks: &mut Vec<Chunk>, record: Record, skip: usize) {
        let next_cursor = record.next_cursor();
        let stderr = record.kind == Kind::Stderr;
        let data = record.payload.get(skip..).unwrap_or_default();
        if let Some(last) = chunks.last_mut()
            && last.stderr == stderr
            && self.lost == 0
            && record.time_ns.saturating_sub(last.time_ns) < TOGETHER_NS
            && last.data.len() + data.len() <= CHUNK
        {
            last.data.extend_from_slice(data);
            last.next_cursor = next_cursor;
            return;
        }
        let lost = std::mem::take(&mut self.lost);
        chunks.push(Chunk { stderr, data: data.to_vec(), time_ns: record.time_ns, next_cursor, lost });
    }
}

/// The record, and the offset in it, at which a tail begins. The journal has no links backwards, so it is read from its
/// beginning; its size is limited.
fn find_tail(reader: &mut Reader, begin: Begin) -> Result<(u64, usize), JournalError> {
    let mut lines: VecDeque<(u64, usize)> = VecDeque::new();
    let mut bytes: VecDeque<(u64, usize)> = VecDeque::new();
    let mut total = 0;
    // Whether the next byte of stdout and of stderr begins a line.
    let mut fresh = [true, true];
    while let Some(item) = reader.next()? {
        let Item::Record(record) = item else { continue };
        if let (Kind::Start, Begin::LastBytes(_)) = (record.kind, begin) {
            bytes.clear();
            total = 0;
        }
        if !record.kind.is_output() {
            continue;
        }
        match begin {
            Begin::Lines(wanted) => {
                let wanted = wanted.clamp(1, MAX_TAIL);
                let at_start = &mut fresh[usize::from(record.kind == Kind::Stderr)];
                for (i, &byte) in record.payload.iter().enumerate() {
                    if std::mem::replace(at_start, byte == b'\n') {
                        lines.push_back((record.cursor, i));
                        if lines.len() > wanted {
                            lines.pop_front();
                        }
                    }
                }
            }
            Begin::LastBytes(wanted) => {
                total += record.payload.len();
                bytes.push_back((record.cursor, record.payload.len()));
                while let Some(&(_, first)) = bytes.front()
                    && total - first >= wanted
                {
                    total -= first;
                    bytes.pop_front();
                }
            }
            Begin::Cursor(_) => {}
        }
    }
    let end = (reader.cursor(), 0);
    Ok(match begin {
        Begin::Lines(_) => lines.front().copied().unwrap_or(end),
        _ => bytes.front().map_or(end, |&(cursor, _)| (cursor, 0)),
    })
}

/// `given`: where a client said that a record is. That none is there is its mistake and no damage.
async fn blocking<T: Send + 'static>(
    given: Option<u64>,
    work: impl FnOnce() -> Result<T, JournalError> + Send + 'static,
) -> Outcome<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Problem::internal("reading a journal did not run to its end", &error))?
        .map_err(|error| match error {
            JournalError::Corrupt { cursor } if given == Some(cursor) => {
                Problem::field("cursor", "it is not one of this agent's output: give back a next_cursor")
            }
            error => Problem::internal("an agent's journal cannot be read", &error),
        })
}

/// Follows one agent's output to its end.
pub(crate) struct Following {
    core: Arc<Core>,
    id: AgentId,
    tenant: TenantId,
    follower: crate::agents::Follower,
    growth: Option<crate::journal_watch::Growth>,
    output: Option<Output>,
    begin: Begin,
    since_ns: u64,
    follow: bool,
}

impl Following {
    pub(crate) fn new(
        core: Arc<Core>,
        record: &aion_store::AgentRecord,
        begin: Begin,
        since_ns: u64,
        follow: bool,
    ) -> Self {
        let follower = core.agents.follow(&record.id);
        Self {
            core,
            id: record.id.clone(),
            tenant: record.tenant.clone(),
            follower,
            growth: None,
            output: None,
            begin,
            since_ns,
            follow,
        }
    }

    /// The next chunks; none at the end: when the agent has ended and all is read, or, not following, when there
    /// is no more now.
    pub(crate) async fn next(&mut self) -> Outcome<Option<Vec<Chunk>>> {
        loop {
            // Judged before the last look: what was written before the end is seen by a look after it.
            let live =
                self.core.agents.get(&self.tenant, &self.id)?.is_some_and(|record| record.state.is_live());
            let last = !self.follow || !live;
            if self.output.is_none() {
                self.output = self.core.open_output(&self.id, self.begin, self.since_ns).await?;
            }
            let Some(output) = self.output.take() else {
                if last {
                    return Ok(None);
                }
                // The launcher makes the journal while it launches.
                let _ = timeout(Duration::from_millis(20), self.follower.changed()).await;
                continue;
            };
            // Armed before the look, so that what comes after the look is not missed.
            let armed = if last {
                None
            } else {
                let path = self.core.journal_path(&self.id);
                Some(self.growth.get_or_insert_with(|| self.core.journals.growth(&path)).arm())
            };
            let (back, chunks) = output.step().await?;
            self.output = Some(back);
            if !chunks.is_empty() {
                return Ok(Some(chunks));
            }
            let Some(armed) = armed else { return Ok(None) };
            tokio::select! {
                () = armed.grown() => {}
                () = self.follower.changed() => {}
            }
        }
    }
}
