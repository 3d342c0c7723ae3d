//! The audit log of a backup: it stays as it was, beside the one that begins after it.
//!
//! Its key is root's on the machine where it was written and is in no backup, so it cannot go on. The new log's numbers do.

use std::fs;
use std::path::Path;

use aion_audit::{Hash, Origin, Report, verify};
use serde_json::json;

use crate::entry::Part;
use crate::manifest::Manifest;
use crate::restore::{Owners, make_folder};
use crate::{Error, Result};

/// The audit log that came with a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditFound {
    /// Where it is, relative to the state.
    pub folder: String,
    /// It verifies against the public key that came with it.
    pub intact: bool,
    /// Its records.
    pub records: u64,
    /// Its last record's number, and hash.
    pub last: (u64, String),
    /// The public key that it verifies against.
    pub key: String,
    /// The first places that are wrong.
    pub faults: Vec<String>,
}

/// Moves the log out of the way of a new one, and says in the new one's place from where it goes on.
pub(crate) fn set_aside(root: &Path, manifest: &Manifest, owners: Owners) -> Result<Option<AuditFound>> {
    let log = root.join(Part::Audit.folder());
    let found = if is_empty(&log)? { None } else { Some(move_aside(root, &log, manifest)?) };
    if found.is_some() {
        make_folder(&log, 0o750, owners.root, owners.group)?;
    }
    let (seq, hash) = found.as_ref().map_or((0, String::new()), |found| found.last.clone());
    // The database may know of records that a damaged log does not have: their numbers are taken all the same.
    let seq = seq.max(manifest.cursor);
    if seq > 0 {
        let detail = json!({
            "archive": found.as_ref().map(|found| found.folder.as_str()),
            "intact": found.as_ref().is_some_and(|found| found.intact),
            "backup": {"created": cut(&manifest.created), "host": cut(&manifest.host), "aion": cut(&manifest.aion)},
        });
        let detail = detail.as_object().cloned().unwrap_or_default();
        let hash = Hash::parse(&hash).unwrap_or(Hash::ZERO);
        Origin { seq, hash, detail }.write(&log, Some(owners.group)).map_err(Error::Audit)?;
    }
    Ok(found)
}

fn move_aside(root: &Path, log: &Path, manifest: &Manifest) -> Result<AuditFound> {
    let report = verify(log, None).map_err(Error::Audit)?;
    let folder = free_name(root, manifest);
    let to = root.join(&folder);
    fs::rename(log, &to).map_err(Error::io("move", log))?;
    Ok(told(folder, &report))
}

fn told(folder: String, report: &Report) -> AuditFound {
    let faults = report.faults.iter().take(3);
    AuditFound {
        folder,
        intact: report.ok,
        records: report.records,
        last: report.last.map_or((0, String::new()), |last| (last.seq, last.hash.to_string())),
        key: report.public_key.map(|key| key.to_string()).unwrap_or_default(),
        faults: faults
            .map(|fault| format!("{}, record {}: {}", fault.segment, fault.seq, fault.what))
            .collect(),
    }
}

/// After the moment of the backup, so that a list of them is in order.
fn free_name(root: &Path, manifest: &Manifest) -> String {
    let moment: String =
        manifest.created.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
    let plain = format!("{}/{moment}", Part::AuditArchive.folder());
    let more = (2..).map(|n: u32| format!("{plain}.{n}"));
    std::iter::once(plain.clone()).chain(more).find(|name| !root.join(name).exists()).unwrap_or(plain)
}

fn is_empty(dir: &Path) -> Result<bool> {
    let mut entries = fs::read_dir(dir).map_err(Error::io("list", dir))?;
    Ok(entries.next().is_none())
}

/// What the manifest says is somebody's word.
fn cut(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(128).collect()
}
