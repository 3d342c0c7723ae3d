//! The first file of an archive: what wrote it, when, and what is in it.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::{Error, Position, Result};

/// The version of the archive's form.
pub const FORMAT: u32 = 1;
/// Its name.
pub(crate) const NAME: &str = "aion-backup.json";
/// The longest.
pub(crate) const MAX: u64 = 1 << 20;

/// Versions of what a state folder holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// Which folders there are, and whose.
    pub layout: u32,
    /// The rows of aiond's database.
    pub store: u32,
    /// The rows of the tasks' journal.
    pub journal: u32,
}

/// The newest that this build restores. That they are what the daemons write is tested where both are known.
pub const SUPPORTED: Versions = Versions { layout: 1, store: 1, journal: 1 };

/// The first file. Fields that it does not know are a later version's, and no reason to refuse: `format` is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u32,
    /// The version of AION that wrote it.
    pub aion: String,
    /// When, as RFC 3339 in UTC with whole seconds.
    pub created: String,
    /// The machine's name.
    pub host: String,
    /// What restores it must understand.
    pub state: Versions,
    /// The newest audit record that the database has indexed.
    pub cursor: u64,
    /// For how long tasks were held up, in microseconds.
    pub paused_us: u64,
    /// Where the tasks' journal stands: an archive of the journal goes on from here. Backups of older versions do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub journal: Option<Position>,
    /// Folders of the state that are in it.
    pub parts: Vec<String>,
    /// What is not, in words for people.
    pub left_out: Vec<String>,
}

#[derive(Deserialize)]
struct Form {
    format: u32,
}

impl Manifest {
    /// A moment as [`Manifest::created`] has it.
    #[must_use]
    pub fn time(at: SystemTime) -> String {
        humantime::format_rfc3339_seconds(at).to_string()
    }

    /// Seconds since 1970 of [`Manifest::created`]; none when it is no time.
    #[must_use]
    pub fn created_secs(&self) -> Option<u64> {
        let at = humantime::parse_rfc3339(&self.created).ok()?;
        at.duration_since(SystemTime::UNIX_EPOCH).as_ref().map(Duration::as_secs).ok()
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        // Strings and numbers: nothing of it can fail.
        let mut text = serde_json::to_vec_pretty(self).unwrap_or_default();
        text.push(b'\n');
        text
    }

    /// Reads one; a newer form is told before anything else of it is understood.
    pub(crate) fn decode(bytes: &[u8], offset: u64) -> Result<Self> {
        let broken = |what: String| Error::Broken { file: NAME.to_owned(), offset, what };
        let form: Form = serde_json::from_slice(bytes).map_err(|e| broken(e.to_string()))?;
        newer("format", form.format, FORMAT)?;
        let manifest: Self = serde_json::from_slice(bytes).map_err(|e| broken(e.to_string()))?;
        if manifest.created_secs().is_none() {
            return Err(broken("created: it is no time".to_owned()));
        }
        Ok(manifest)
    }

    /// Whether this build can restore it.
    ///
    /// # Errors
    /// [`Error::Newer`].
    pub fn check_versions(&self) -> Result<()> {
        newer("layout", self.state.layout, SUPPORTED.layout)?;
        newer("database", self.state.store, SUPPORTED.store)?;
        newer("tasks' journal", self.state.journal, SUPPORTED.journal)
    }
}

fn newer(what: &'static str, found: u32, supported: u32) -> Result<()> {
    if found > supported { Err(Error::Newer { what, found, supported }) } else { Ok(()) }
}

#[cfg(test)]
pub(crate) fn sample() -> Manifest {
    Manifest {
        format: FORMAT,
        aion: "0.1.0".to_owned(),
        created: "2026-01-31T12:00:00Z".to_owned(),
        host: "here".to_owned(),
        state: SUPPORTED,
        cursor: 7,
        paused_us: 1200,
        journal: Some(Position { commit: 5, event: 9, ..Position::default() }),
        parts: vec!["db".to_owned()],
        left_out: vec!["managed workspaces".to_owned()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_back_and_a_newer_form_is_told_whatever_else_it_says() {
        let manifest = sample();
        assert_eq!(Manifest::decode(&manifest.encode(), 0).unwrap(), manifest);
        let older = Manifest { journal: None, ..sample() };
        assert_eq!(Manifest::decode(&older.encode(), 0).unwrap(), older);
        let newer = Manifest::decode(br#"{"format": 2, "shape": []}"#, 0);
        assert!(matches!(newer, Err(Error::Newer { what: "format", found: 2, supported: 1 })));
        assert!(matches!(Manifest::decode(b"{}", 0), Err(Error::Broken { .. })));
    }

    #[test]
    fn a_newer_state_is_told() {
        let mut manifest = sample();
        assert!(manifest.check_versions().is_ok());
        manifest.state.journal += 1;
        assert!(matches!(manifest.check_versions(), Err(Error::Newer { what: "tasks' journal", .. })));
    }
}
