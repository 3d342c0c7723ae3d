//! Names in an archive: which there can be, and where each goes in a state folder.
//!
//! A name comes from whoever made the archive. What is not on this list is refused, so nothing has to be cleaned.

use std::path::{Path, PathBuf};

/// The longest name.
pub(crate) const MAX_NAME: usize = 1200;
/// The longest part of one: what file systems take.
const MAX_COMPONENT: usize = 255;
/// Where records of a journal may begin; no agent writes so much.
const MAX_OFFSET: u64 = 1 << 44;

/// A folder of the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// aiond's database.
    Db,
    /// The tasks' journal.
    Journal,
    /// The key that seals secrets.
    Keys,
    /// Secrets that manifests name.
    Secrets,
    /// Files of installed tools.
    Tools,
    /// What agents left behind: output, checkpoints and results of jobs.
    Agents,
    /// The audit log.
    Audit,
    /// Audit logs of states that this one was restored from.
    AuditArchive,
}

impl Part {
    /// All of them, in the order in which an archive has them.
    pub const ALL: [Self; 8] = [
        Self::Db,
        Self::Journal,
        Self::Keys,
        Self::Secrets,
        Self::Tools,
        Self::Agents,
        Self::Audit,
        Self::AuditArchive,
    ];

    /// The folder's name, in the state and in an archive.
    #[must_use]
    pub const fn folder(self) -> &'static str {
        match self {
            Self::Db => "db",
            Self::Journal => "journal",
            Self::Keys => "keys",
            Self::Secrets => "secrets",
            Self::Tools => "tools",
            Self::Agents => "agents",
            Self::Audit => "audit",
            Self::AuditArchive => "audit-archive",
        }
    }

    fn of(folder: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|part| part.folder() == folder)
    }

    /// Whether these components below the folder can be one of its files.
    fn holds(self, below: &[&str]) -> bool {
        match self {
            Self::Db | Self::Keys | Self::Secrets | Self::Audit => below.len() == 1,
            Self::Journal => matches!(below, ["db", _]),
            Self::Tools => below.len() >= 2 && is_digest(below[0]),
            Self::Agents => match below {
                [id, "checkpoint.0" | "checkpoint.1" | "result"] => is_id(id),
                [id, file] => is_id(id) && journal_offset(file).is_some(),
                _ => false,
            },
            Self::AuditArchive => below.len() == 2,
        }
    }
}

/// A file of the state, in an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// As the archive has it.
    pub name: String,
    /// Which folder it is in.
    pub part: Part,
    /// Where it goes, relative to the state.
    pub path: PathBuf,
    /// Of an agent's journal: where its bytes begin in the file.
    pub offset: Option<u64>,
    /// A program.
    pub executable: bool,
    /// Bytes in the archive.
    pub size: u64,
}

impl Entry {
    /// Judges a name.
    pub(crate) fn parse(name: &str, executable: bool, size: u64) -> Result<Self, &'static str> {
        if name.len() > MAX_NAME {
            return Err("its name is too long");
        }
        if name.chars().any(char::is_control) {
            return Err("its name has control characters");
        }
        let parts: Vec<&str> = name.split('/').collect();
        if parts.iter().any(|part| matches!(*part, "" | "." | "..") || part.len() > MAX_COMPONENT) {
            return Err("its name leads elsewhere");
        }
        let [first, below @ ..] = parts.as_slice() else { return Err("it has no name") };
        let part = Part::of(first).ok_or("no file of a state has this name")?;
        if !part.holds(below) {
            return Err("no file of a state has this name");
        }
        if executable && part != Part::Tools {
            return Err("only tools have programs");
        }
        let offset = below.last().filter(|_| part == Part::Agents).and_then(|file| journal_offset(file));
        let path = match offset {
            Some(_) => Path::new(name).with_file_name("journal"),
            None => PathBuf::from(name),
        };
        Ok(Self { name: name.to_owned(), part, path, offset, executable, size })
    }

    /// The name of an agent's journal whose oldest record begins at `offset`.
    #[must_use]
    pub fn journal_name(agent: &str, offset: u64) -> String {
        format!("{}/{agent}/journal@{offset}", Part::Agents.folder())
    }
}

/// `journal@OFFSET`, in one form only.
fn journal_offset(file: &str) -> Option<u64> {
    let digits = file.strip_prefix("journal@")?;
    let offset = digits.parse::<u64>().ok()?;
    let range = aion_agent_journal::HEADER_LEN..=MAX_OFFSET;
    (range.contains(&offset) && offset.to_string() == digits).then_some(offset)
}

/// An agent's id: a ULID.
fn is_id(text: &str) -> bool {
    text.len() == 26 && text.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_uppercase())
}

fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "01ARZ3NDEKTSV4RRFFQ69G5FAV";

    #[test]
    fn files_of_a_state_have_their_place() {
        let digest = "0a".repeat(32);
        for (name, path) in [
            ("db/CURRENT".to_owned(), "db/CURRENT".to_owned()),
            ("journal/db/000012.sst".to_owned(), "journal/db/000012.sst".to_owned()),
            ("secrets/a b.txt".to_owned(), "secrets/a b.txt".to_owned()),
            (format!("tools/{digest}/a/b/c.py"), format!("tools/{digest}/a/b/c.py")),
            (Entry::journal_name(ID, 8192), format!("agents/{ID}/journal")),
            (format!("agents/{ID}/result"), format!("agents/{ID}/result")),
            ("audit-archive/x/HEAD".to_owned(), "audit-archive/x/HEAD".to_owned()),
        ] {
            let entry = Entry::parse(&name, false, 1).unwrap();
            assert_eq!(entry.path, Path::new(&path));
        }
        assert_eq!(Entry::parse(&Entry::journal_name(ID, 8192), false, 1).unwrap().offset, Some(8192));
    }

    #[test]
    fn everything_else_is_refused() {
        let digest = "0a".repeat(32);
        for name in [
            "",
            "/",
            "/etc/passwd",
            "db",
            "db/",
            "db/../launcher/audit.key",
            "../db/x",
            "db/./x",
            "db//x",
            "launcher/audit.key",
            "volumes/x",
            "run/aion.sock",
            "doors/x",
            "tmp/x",
            "db/a/b",
            "journal/x",
            "journal/db",
            "keys/a/b",
            "secrets/x\n",
            "db/\u{1b}[2J",
            "audit/a/b",
            "audit-archive/x",
            "tools/x/y",
            "agents/x/result",
        ] {
            assert!(Entry::parse(name, false, 0).is_err(), "{name:?}");
        }
        for file in
            ["journal", "journal@0", "journal@04096", "journal@+4096", "journal@99999999999999999", "spec.pb"]
        {
            assert!(Entry::parse(&format!("agents/{ID}/{file}"), false, 0).is_err(), "{file}");
        }
        assert!(Entry::parse(&format!("tools/{digest}"), false, 0).is_err());
        assert!(Entry::parse(&format!("tools/{digest}/{}", "x".repeat(256)), false, 0).is_err());
        assert!(Entry::parse(&format!("tools/{digest}/{}", "x/".repeat(700)), false, 0).is_err());
        assert!(Entry::parse("db/CURRENT", true, 0).is_err(), "a program beside the tools");
    }
}
