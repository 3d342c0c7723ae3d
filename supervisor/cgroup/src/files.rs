//! Files of a cgroup file system: small texts, read and written in one call.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

use crate::{Error, Result};

pub(crate) fn write(path: &Path, text: &str) -> Result<()> {
    // No O_TRUNC and no O_CREAT: a file that is not there must not be made by mistake on a tmpfs.
    let file = OpenOptions::new().write(true).open(path);
    file.and_then(|mut f| f.write_all(text.as_bytes())).map_err(Error::io("write", path))
}

pub(crate) fn read(path: &Path) -> Result<String> {
    let mut text = String::with_capacity(512);
    File::open(path).and_then(|mut f| f.read_to_string(&mut text)).map_err(Error::io("read", path))?;
    Ok(text)
}

/// A file's only number, or none when the file is not there or says `max`.
pub(crate) fn number(path: &Path) -> Option<u64> {
    read(path).ok()?.trim().parse().ok()
}

/// The value of a line `KEY VALUE`.
pub(crate) fn field(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// Makes a folder; one that is there is fine.
pub(crate) fn mkdir(path: &Path) -> Result<()> {
    match fs::create_dir(path) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(Error::io("create", path)(e)),
        _ => Ok(()),
    }
}

/// Processes of one group, without those of its children.
pub(crate) fn processes(group: &Path) -> Result<Vec<i32>> {
    Ok(read(&group.join("cgroup.procs"))?.lines().filter_map(|l| l.trim().parse().ok()).collect())
}

/// Names of the groups below one; none when it is not there.
pub(crate) fn children(group: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(group) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io("list", group)(e)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(Error::io("list", group))?;
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_whole_words() {
        let text = "oom 1\noom_kill 3\nmax 7\n";
        assert_eq!(field(text, "oom"), Some(1));
        assert_eq!(field(text, "oom_kill"), Some(3));
        assert_eq!(field(text, "ma"), None);
    }

    #[test]
    fn writing_makes_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cpu.max");
        assert!(write(&path, "1").unwrap_err().is_not_found());
        assert!(!path.exists());
    }
}
