//! A file of an agent, checked.

use std::path::PathBuf;

use aion_launcher_proto::v1;
use aion_types::AgentId;

use crate::Failure;
use crate::request::field::{self, Checked};

/// Entries of a page.
const MAX_PAGE: u32 = 1000;
/// Letters of a ULID.
const PART: usize = 26;

/// A file or folder of an agent, at the path that the agent sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentFile {
    /// Whose.
    pub id: AgentId,
    /// Absolute, and the same however it is resolved.
    pub path: PathBuf,
}

/// What a file is opened for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileUse {
    /// Reading.
    Read,
    /// Writing; it is made when it is missing.
    Write,
    /// Writing at its end; it is made when it is missing.
    Append,
    /// Writing; it must be missing.
    New,
    /// Writing to a new file of this name beside it.
    Part(String),
}

/// Something that is done with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as in the protocol")]
pub enum FileOp {
    Open { file: AgentFile, what_for: FileUse },
    Put { file: AgentFile, part: String, keep: bool },
    Stat(AgentFile),
    List { file: AgentFile, after: u64, limit: usize },
}

impl AgentFile {
    fn check(id: &str, path: &[u8]) -> Checked<Self> {
        Ok(Self { id: field::agent_id(id)?, path: field::path("path", path)? })
    }
}

/// The name of a part: AION's own, so that no other file is renamed or removed by way of it.
fn part_name(part: &str) -> Checked<String> {
    let good = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit();
    if part.len() == PART && part.bytes().all(good) {
        return Ok(format!(".aion-{part}.part"));
    }
    Err(Failure::field("part", "it is not a ULID"))
}

impl FileOp {
    pub(crate) fn open(open: &v1::OpenFile) -> Checked<Self> {
        let file = AgentFile::check(&open.id, &open.path)?;
        let named = !open.part.is_empty();
        let what_for = match v1::FileUse::try_from(open.r#use) {
            Ok(v1::FileUse::Part) => FileUse::Part(part_name(&open.part)?),
            Ok(_) if named => return Err(Failure::field("part", "only a part has a name of its own")),
            Ok(v1::FileUse::Read) => FileUse::Read,
            Ok(v1::FileUse::Write) => FileUse::Write,
            Ok(v1::FileUse::Append) => FileUse::Append,
            Ok(v1::FileUse::New) => FileUse::New,
            Err(_) => return Err(Failure::field("use", format!("{} is none", open.r#use))),
        };
        Ok(Self::Open { file, what_for })
    }

    pub(crate) fn put(put: &v1::PutFile) -> Checked<Self> {
        let file = AgentFile::check(&put.id, &put.path)?;
        Ok(Self::Put { file, part: part_name(&put.part)?, keep: put.keep })
    }

    pub(crate) fn stat(stat: &v1::StatFile) -> Checked<Self> {
        Ok(Self::Stat(AgentFile::check(&stat.id, &stat.path)?))
    }

    pub(crate) fn list(list: &v1::ListFolder) -> Checked<Self> {
        if !(1..=MAX_PAGE).contains(&list.limit) {
            return Err(Failure::field("limit", format!("{} is not 1 to {MAX_PAGE}", list.limit)));
        }
        let limit = usize::try_from(list.limit).unwrap_or(1);
        Ok(Self::List { file: AgentFile::check(&list.id, &list.path)?, after: list.after, limit })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "01J00000000000000000000000";

    fn wrong<T: std::fmt::Debug>(checked: Checked<T>) -> String {
        checked.unwrap_err().field
    }

    #[test]
    fn paths_are_plain_and_parts_are_our_own() {
        let open = |path: &[u8], part: &str, what_for: v1::FileUse| {
            FileOp::open(&v1::OpenFile {
                id: ID.into(),
                path: path.to_vec(),
                part: part.into(),
                r#use: what_for.into(),
            })
        };
        open(b"/workspace/a b*?[", "", v1::FileUse::Read).unwrap();
        for path in [
            &b"workspace/a"[..],
            b"/workspace/../a",
            b"/workspace//a",
            b"/workspace/a/",
            b"/a\0b",
            b"",
            b"/./a",
        ] {
            assert_eq!(wrong(open(path, "", v1::FileUse::Read)), "path", "{path:?}");
        }
        let made = open(b"/workspace/a", ID, v1::FileUse::Part).unwrap();
        let FileOp::Open { what_for: FileUse::Part(name), .. } = made else { panic!("{made:?}") };
        assert_eq!(name, format!(".aion-{ID}.part"));
        for part in ["", "x", "../../../../../../../../..", &ID.to_lowercase().replace('0', "a")] {
            assert_eq!(wrong(open(b"/workspace/a", part, v1::FileUse::Part)), "part", "{part}");
        }
        assert_eq!(wrong(open(b"/workspace/a", ID, v1::FileUse::Read)), "part");
        let raw = v1::OpenFile { id: ID.into(), path: b"/a".to_vec(), r#use: 9, ..Default::default() };
        assert_eq!(wrong(FileOp::open(&raw)), "use");
        for limit in [0, 1001] {
            let list = v1::ListFolder { id: ID.into(), path: b"/a".to_vec(), limit, ..Default::default() };
            assert_eq!(wrong(FileOp::list(&list)), "limit");
        }
    }
}
