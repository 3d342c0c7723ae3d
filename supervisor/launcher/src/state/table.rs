//! The agent table on disk: a folder for each agent, with what was asked (`spec.pb`) and how it is (`state.pb`).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use aion_launcher_proto::v1;
use aion_types::AgentId;
use prost::Message;

use crate::Failure;
use crate::request::Launch;
use crate::state::folder::make;
use crate::state::{Record, replace};

/// The table.
#[derive(Debug, Clone)]
pub struct StoredAgents {
    dir: PathBuf,
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
        Self { dir }
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
    /// `DISK_FULL` or another failure of the file system.
    pub fn write_record(&self, id: &AgentId, record: &Record) -> Result<(), Failure> {
        let path = self.agent(id).join("state.pb");
        replace(&path, &record.to_bytes()).map_err(|e| Failure::state("write", &path, &e))
    }

    /// Forgets an agent.
    ///
    /// # Errors
    /// A failure of the file system.
    pub fn remove(&self, id: &AgentId) -> Result<(), Failure> {
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
            let record = read(&dir.join("state.pb"))
                .and_then(|b| Record::read(&b))
                .filter(|r| r.agent.id == id.as_str());
            agents.push(Stored { id, spec, record });
        }
        agents.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(agents)
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
    fn foreign_and_broken_files_are_no_agents() {
        let (dir, table) = table();
        let (id, launch) = launch();
        fs::create_dir(dir.path().join("lost+found")).unwrap();
        table.write_spec(&id, &launch).unwrap();
        fs::write(table.agent(&id).join("state.pb"), b"\xff\xff\xff").unwrap();
        fs::write(table.agent(&id).join("spec.pb"), b"\xff\xff\xff").unwrap();
        let all = table.all().unwrap();
        assert_eq!(all.len(), 1);
        assert!(all[0].spec.is_none() && all[0].record.is_none());
    }
}
