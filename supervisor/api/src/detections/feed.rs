//! Records of the audit log as events of the engine.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use aion_audit::{Reader, Record};
use aion_detect::{Detail, Engine, Event, Fields, KindId, Who};
use aion_types::TenantId;
use serde_json::{Map, Value};

use super::Found;
use crate::core::Core;

/// Records in one batch.
const STEP: usize = 512;
/// Records of the time before that are read once more, at most.
const BACK: u64 = 50_000;
/// Names that are remembered.
const NAMES: usize = 4096;
/// Records after the cursor that are searched for findings that were told already.
const AHEAD: usize = 100_000;

/// What an agent's end, its beginning, and an operator's word make of what is remembered.
const BEGINS_ANEW: [&str; 5] =
    ["agent.launched", "agent.exited", "agent.thawed", "agent.unthrottled", "agent.reconnected"];
/// The kind of which one record tells of several events.
const GATHERED: &str = "api.syscall";
pub(super) const FINDING: &str = "detection.finding";

/// What one batch gave.
pub(super) struct Fed {
    pub(super) found: Vec<Found>,
    pub(super) cursor: u64,
    pub(super) moved: bool,
    pub(super) more: bool,
}

/// Reads the log.
pub(super) struct Feed {
    dir: PathBuf,
    reader: Option<Reader>,
    cursor: Option<u64>,
    /// Findings that the daemon before has told: agent, rule, record.
    told: HashSet<(String, String, u64)>,
    names: HashMap<String, String>,
}

impl Feed {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir, reader: None, cursor: None, told: HashSet::new(), names: HashMap::new() }
    }

    /// Looks at the next records. Blocks.
    pub(super) fn step(&mut self, core: &Core) -> Result<Fed, String> {
        let nothing = |cursor| Fed { found: Vec::new(), cursor, moved: false, more: false };
        if !self.dir.is_dir() {
            // The launcher has not made it yet.
            return Ok(nothing(0));
        }
        if self.reader.is_none() {
            self.reader = Some(Reader::open(&self.dir).map_err(|error| error.to_string())?);
        }
        let cursor = match self.cursor {
            Some(cursor) => cursor,
            None => self.begin(core)?,
        };
        let records = self.read(cursor, STEP)?;
        let (Some(first), Some(last)) = (records.first(), records.last()) else { return Ok(nothing(cursor)) };
        let lost = first.seq.saturating_sub(cursor.saturating_add(1));
        let (last, more) = (last.seq, records.len() == STEP);
        let mut found = Vec::new();
        {
            let mut state = core.detections.lock().ok_or("detections are not served")?;
            for record in &records {
                state.figures.events += 1;
                observe(&mut self.names, core, &mut state.engine, record, &mut found);
            }
            if lost > 0 {
                tracing::warn!(
                    from = cursor + 1,
                    to = first.seq - 1,
                    "records are gone that detections have not seen"
                );
                state.figures.lost += lost;
            }
            state.cursor = last;
        }
        self.cursor = Some(last);
        found.retain(|one| {
            let key = (one.finding.agent.clone(), one.finding.rule.name.clone(), one.finding.seq);
            !self.told.contains(&key)
        });
        Ok(Fed { found, cursor: last, moved: true, more })
    }

    fn read(&mut self, after: u64, max: usize) -> Result<Vec<Record>, String> {
        let reader = self.reader.as_mut().ok_or("the log is not open")?;
        reader.read_after(after, max).map_err(|error| error.to_string())
    }

    /// Where to go on, with what the windows need of the time before.
    fn begin(&mut self, core: &Core) -> Result<u64, String> {
        let cursor = core.store.detected().map_err(|error| error.to_string())?.unwrap_or(0);
        let longest = core.detections.lock().map_or(0, |state| state.engine.longest_ns());
        let since = self.read(cursor.saturating_sub(1), 1)?.first().map_or(0, |record| record.time_ns);
        let since = since.saturating_sub(longest);
        let mut at = cursor.saturating_sub(BACK);
        while at < cursor {
            let records = self.read(at, STEP)?;
            let Some(last) = records.last() else { break };
            at = last.seq;
            let mut state = core.detections.lock().ok_or("detections are not served")?;
            for record in records.iter().filter(|r| r.seq <= cursor && r.time_ns >= since) {
                // It was acted upon then.
                observe(&mut self.names, core, &mut state.engine, record, &mut Vec::new());
            }
        }
        let (mut at, mut seen) = (cursor, 0);
        while seen < AHEAD {
            let records = self.read(at, STEP)?;
            let Some(last) = records.last() else { break };
            (at, seen) = (last.seq, seen + records.len());
            self.told.extend(records.iter().filter(|record| record.kind == FINDING).filter_map(told));
        }
        if let Some(mut state) = core.detections.lock() {
            state.engine.count_anew();
            state.cursor = cursor;
        }
        self.cursor = Some(cursor);
        Ok(cursor)
    }
}

fn told(record: &Record) -> Option<(String, String, u64)> {
    let detail: Map<String, Value> = serde_json::from_str(&record.detail_json).ok()?;
    let rule = detail.get("rule")?.as_str()?.to_owned();
    Some((record.agent.clone(), rule, detail.get("seq")?.as_u64()?))
}

/// One record; a record of several calls is as many events.
fn observe(
    names: &mut HashMap<String, String>,
    core: &Core,
    engine: &mut Engine,
    record: &Record,
    found: &mut Vec<Found>,
) {
    if record.agent.is_empty() {
        return;
    }
    if BEGINS_ANEW.contains(&record.kind.as_str()) {
        return engine.forget(&record.agent);
    }
    let Some(kind) = KindId::parse(&record.kind).filter(|kind| engine.wants(*kind)) else { return };
    let reads = engine.reads(kind);
    let name = name_of(names, core, record);
    let mut one = |detail: &dyn Fields, whole: &dyn Fn() -> Map<String, Value>| {
        let who = Who { agent: &record.agent, name, tenant: &record.tenant };
        let (verdict, time_ns, seq) = (record.verdict.as_str(), record.time_ns, record.seq);
        let mut findings = Vec::new();
        engine.observe(&Event { who, kind, verdict, time_ns, seq, detail }, &mut findings);
        found.extend(findings.into_iter().map(|finding| Found {
            finding,
            kind: kind.as_str(),
            detail: whole(),
        }));
    };
    let whole = || serde_json::from_str(&record.detail_json).unwrap_or_default();
    if record.kind != GATHERED {
        // Nearly all that comes: nothing of it is copied, and what no rule reads is not even looked at.
        let detail = if reads { Detail::read(&record.detail_json) } else { Ok(Detail::default()) };
        return detail.map_or((), |detail| one(&detail, &whole));
    }
    let detail: Map<String, Value> = whole();
    match detail.get("calls") {
        Some(Value::Array(calls)) => {
            calls.iter().filter_map(Value::as_object).for_each(|call| one(call, &|| call.clone()));
        }
        _ => one(&detail, &|| detail.clone()),
    }
}

/// The agent's name, for exceptions; empty for what is no agent of the store, as the run of a tool.
fn name_of<'a>(names: &'a mut HashMap<String, String>, core: &Core, record: &Record) -> &'a str {
    if !names.contains_key(&record.agent) {
        let tenant = TenantId::parse(&record.tenant).ok();
        let name = tenant.and_then(|tenant| core.store.name_of(&tenant, &record.agent).ok().flatten());
        if names.len() >= NAMES {
            names.clear();
        }
        names.insert(record.agent.clone(), name.unwrap_or_default());
    }
    names.get(&record.agent).map_or("", String::as_str)
}
