//! What is signed.

use std::borrow::Cow;
use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

use crate::Error;

/// A file that belongs to a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part<'a> {
    /// Relative to the manifest.
    pub path: &'a str,
    /// Whether it may be executed.
    pub executable: bool,
    /// What is in it.
    pub data: &'a [u8],
}

/// What a signature is over: a manifest that is alone, as it is; one with files, the list of all of them in the form of `sha256sum`:
/// the manifest first, then the files by path, `*` before the path of what may be executed. So `sha256sum --check` reads the list.
///
/// # Errors
/// A name has a character that such a list would have to write in another way.
pub fn payload<'a>(name: &str, manifest: &'a [u8], parts: &[Part<'_>]) -> Result<Cow<'a, [u8]>, Error> {
    if parts.is_empty() {
        return Ok(Cow::Borrowed(manifest));
    }
    let name = name.rsplit('/').next().unwrap_or(name);
    let mut sorted = parts.to_vec();
    sorted.sort_by(|a, b| a.path.cmp(b.path));
    let own = Part { path: name, executable: false, data: manifest };
    let mut list = String::new();
    for part in std::iter::once(&own).chain(&sorted) {
        if part.path.is_empty() || part.path.chars().any(|c| c == '\\' || c.is_control()) {
            return Err(Error(format!(
                "{:?}: what is signed has no backslash and no control character in its name",
                part.path
            )));
        }
        let mark = if part.executable { '*' } else { ' ' };
        let _ = writeln!(list, "{} {mark}{}", hex::encode(Sha256::digest(part.data)), part.path);
    }
    Ok(Cow::Owned(list.into_bytes()))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_manifest_alone_is_signed_as_it_is() {
        assert_eq!(payload("tool.yml", b"kind: Tool\n", &[]).unwrap().as_ref(), b"kind: Tool\n");
    }

    #[test]
    fn the_list_is_what_sha256sum_reads() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("data")).unwrap();
        let parts = [
            Part { path: "run.py", executable: true, data: b"print(1)" },
            Part { path: "data/b c.txt", executable: false, data: b"" },
        ];
        for part in &parts {
            std::fs::write(folder.path().join(part.path), part.data).unwrap();
        }
        std::fs::write(folder.path().join("tool.yml"), "kind: Tool\n").unwrap();
        let list = payload("/somewhere/tool.yml", b"kind: Tool\n", &parts).unwrap();
        let text = String::from_utf8(list.to_vec()).unwrap();
        let names: Vec<_> = text.lines().map(|line| &line[65..]).collect();
        assert_eq!(names, [" tool.yml", " data/b c.txt", "*run.py"]);
        std::fs::write(folder.path().join("SUMS"), &list).unwrap();
        let check = || {
            let mut command = Command::new("sha256sum");
            command.args(["--check", "--quiet", "--strict", "SUMS"]).current_dir(folder.path());
            command.status().unwrap().success()
        };
        assert!(check());
        std::fs::write(folder.path().join("run.py"), "print(2)").unwrap();
        assert!(!check());
    }

    #[test]
    fn whatever_changes_changes_the_list() {
        let list = |path: &str, executable, data: &[u8], manifest: &[u8]| {
            payload("t.yml", manifest, &[Part { path, executable, data }]).unwrap().into_owned()
        };
        let all = [
            list("a", false, b"x", b"m"),
            list("b", false, b"x", b"m"),
            list("a", true, b"x", b"m"),
            list("a", false, b"y", b"m"),
            list("a", false, b"x", b"n"),
        ];
        for (i, one) in all.iter().enumerate() {
            assert!(all[i + 1..].iter().all(|other| other != one), "{i}");
        }
    }

    #[test]
    fn a_name_that_the_list_cannot_tell_is_refused() {
        for path in ["a\nb", "a\\b", ""] {
            let part = Part { path, executable: false, data: b"" };
            assert!(payload("t.yml", b"", &[part]).is_err(), "{path:?}");
        }
    }
}
