//! The agent table on disk: a folder for each agent, with what was asked (`spec.pb`) and how it is (`state-N.pb`).
//!
//! Each state is a new file, after which the one before is removed. To rename over it would be the same to a
//! reader, but ext4 then allocates and writes the new file at once, in case of a power cut that is no concern here;
//! the states of a short life otherwise never reach the disk.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use aion_launcher_proto::v1;
use aion_types::AgentId;
use prost::Message;

use crate::Failure;
use crate::lock::lock;
use crate::request::Launch;
use crate::state::folder::make;
use crate::state::{Record, replace};

/// The table.
#[derive(Debug)]
pub struct StoredAgents {
    dir: PathBuf,
    /// Number of each agent's newest state.
    newest: Mutex<HashMap<AgentId, u64>>,
}

/// One agent as found on disk.
#[derive(Debug)]
pub struct Stored {
    /// Its folder's name.
    pub id: AgentId,
    /// What was asked, when it can be read; without its secrets.
    pub spec: Option<Launch>,
    /// How it is, when it can be read.
    pub record: Option<Record>,
}

impl StoredAgents {
    /// The table in a folder.
    #[must_use]
    pub fn new(dir: PathBuf) -> Self {
        Self { dir, newest: Mutex::default() }
    }

    /// Writes what was asked. Secrets stay in memory: a restart brings them again.
    ///
    /// # Errors
    /// `DISK_FULL` or another failure of the file system.
    pub fn write_spec(&self, id: &AgentId, launch: &v1::Launch) -> Result<(), Failure> {
        make(&self.agent(id), 0o700)?;
        let mut launch = launch.clone();
        launch.secrets.clear();
        let path = self.agent(id).join("spec.pb");
        replace(&path, &launch.encode_to_vec()).map_err(|e| Failure::state("write", &path, &e))
    }

    /// Writes how it is.
    ///
    /// # Errors
    /// `DISK_FULL` or another failure of the file system; the state before stays then.
    pub fn write_record(&self, id: &AgentId, record: &Record) -> Result<(), Failure> {
        let mut newest = lock(&self.newest);
        let old = newest.get(id).copied().unwrap_or(0);
        let path = self.state(id, old + 1);
        replace(&path, &record.to_bytes()).map_err(|e| Failure::state("write", &path, &e))?;
        newest.insert(id.clone(), old + 1);
        // One that stays is older, and so of no account.
        let _ = fs::remove_file(self.state(id, old));
        Ok(())
    }

    /// Forgets an agent.
    ///
    /// # Errors
    /// A failure of the file system.
    pub fn remove(&self, id: &AgentId) -> Result<(), Failure> {
        lock(&self.newest).remove(id);
        remove_tree(&self.agent(id))
    }

    /// Every agent. What is not an agent's folder is left alone; a file that cannot be read is `None`.
    ///
    /// # Errors
    /// The table cannot be listed.
    pub fn all(&self) -> Result<Vec<Stored>, Failure> {
        let failed = |e: io::Error| Failure::state("list", &self.dir, &e);
        let mut agents = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let Some(id) = name.to_str().and_then(|n| AgentId::parse(n).ok()) else { continue };
            let dir = self.agent(&id);
            let spec = read(&dir.join("spec.pb"))
                .and_then(|b| v1::Launch::decode(b.as_slice()).ok())
                .and_then(|launch| Launch::check(&launch).ok())
                .filter(|launch| launch.id == id);
            let record = self.newest_state(&id).filter(|r| r.agent.id == id.as_str());
            agents.push(Stored { id, spec, record });
        }
        agents.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(agents)
    }

    /// The newest state that can be read. What is older is removed.
    fn newest_state(&self, id: &AgentId) -> Option<Record> {
        let number = |entry: fs::DirEntry| {
            entry.file_name().to_str()?.strip_prefix("state-")?.strip_suffix(".pb")?.parse::<u64>().ok()
        };
        let mut numbers: Vec<u64> = fs::read_dir(self.agent(id)).ok()?.flatten().filter_map(number).collect();
        numbers.sort_unstable();
        let last = numbers.pop()?;
        lock(&self.newest).insert(id.clone(), last);
        let record = read(&self.state(id, last)).and_then(|b| Record::read(&b));
        for older in numbers {
            let _ = fs::remove_file(self.state(id, older));
        }
        record
    }

    fn state(&self, id: &AgentId, number: u64) -> PathBuf {
        self.agent(id).join(format!("state-{number}.pb"))
    }

    fn agent(&self, id: &AgentId) -> PathBuf {
        self.dir.join(id.as_str())
    }
}

fn read(path: &Path) -> Option<Vec<u8>> {
    fs::read(path).ok()
}

/// Removes a folder with all that is in it; one that is not there is fine.
pub(crate) fn remove_tree(path: &Path) -> Result<(), Failure> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Failure::state("remove", path, &e)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Phase;

    fn table() -> (tempfile::TempDir, StoredAgents) {
        let dir = tempfile::tempdir().unwrap();
        let table = StoredAgents::new(dir.path().to_owned());
        (dir, table)
    }

    fn launch() -> (AgentId, v1::Launch) {
        let launch = crate::request::tests_usual();
        (AgentId::parse(&launch.id).unwrap(), launch)
    }

    #[test]
    fn what_is_written_is_found_without_its_secrets() {
        let (_dir, table) = table();
        let (id, mut launch) = launch();
        launch.secrets = vec![v1::Secret { name: "key".into(), value: b"hush".to_vec() }];
        table.write_spec(&id, &launch).unwrap();
        let mut record = Record {
            agent: v1::AgentState { id: launch.id.clone(), ..Default::default() },
            ..Default::default()
        };
        record.set_phase(Phase::Launching);
        table.write_record(&id, &record).unwrap();
        let bytes = fs::read(table.agent(&id).join("spec.pb")).unwrap();
        assert!(!bytes.windows(4).any(|w| w == b"hush"));
        let all = table.all().unwrap();
        assert_eq!(all.len(), 1);
        assert!(all[0].spec.as_ref().unwrap().secrets.is_empty());
        assert_eq!(all[0].record, Some(record));
        table.remove(&id).unwrap();
        assert!(table.all().unwrap().is_empty());
        table.remove(&id).unwrap();
    }

    #[test]
    fn the_newest_state_counts() {
        let (dir, table) = table();
        let (id, launch) = launch();
        table.write_spec(&id, &launch).unwrap();
        let mut record = Record {
            agent: v1::AgentState { id: launch.id.clone(), ..Default::default() },
            ..Default::default()
        };
        for phase in [Phase::Launching, Phase::Running, Phase::Exited] {
            record.set_phase(phase);
            table.write_record(&id, &record).unwrap();
        }
        let files = || fs::read_dir(table.agent(&id)).unwrap().count();
        assert_eq!(files(), 2, "the spec and one state");
        // A launcher that died between the two steps leaves two.
        let mut older = record.clone();
        older.set_phase(Phase::Launching);
        fs::write(table.state(&id, 2), older.to_bytes()).unwrap();
        let next = StoredAgents::new(dir.path().to_owned());
        assert_eq!(next.all().unwrap()[0].record, Some(record.clone()));
        assert_eq!(files(), 2);
        next.write_record(&id, &record).unwrap();
        assert_eq!(files(), 2);
    }

    #[test]
    fn foreign_and_broken_files_are_no_agents() {
        let (dir, table) = table();
        let (id, launch) = launch();
        fs::create_dir(dir.path().join("lost+found")).unwrap();
        table.write_spec(&id, &launch).unwrap();
        fs::write(table.agent(&id).join("state-7.pb"), b"\xff\xff\xff").unwrap();
        fs::write(table.agent(&id).join("spec.pb"), b"\xff\xff\xff").unwrap();
        let all = table.all().unwrap();
        assert_eq!(all.len(), 1);
        assert!(all[0].spec.is_none() && all[0].record.is_none());
    }
}
