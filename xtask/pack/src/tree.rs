//! The tree that is packed, as RPM distributions lay it out: what Debian has elsewhere moves.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// What lies at a path.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Folder,
    File { mode: u16, content: Vec<u8> },
    Link { target: String },
}

/// One path of the package, without the leading slash.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) path: String,
    pub(crate) kind: Kind,
}

/// Where a path goes: the first prefix that fits is replaced; without a replacement the path is left out.
pub(crate) type Moves = [(String, Option<String>)];

/// Everything below `root`, by name. Of folders those alone that are this package's own: one in whose path stands `name`.
pub(crate) fn read(root: &Path, name: &str, moves: &Moves) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    walk(root, "", name, moves, &mut entries)?;
    entries.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(entries)
}

fn walk(root: &Path, below: &str, name: &str, moves: &Moves, entries: &mut Vec<Entry>) -> Result<()> {
    let folder = root.join(below);
    for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let entry = entry?;
        let Ok(own) = entry.file_name().into_string() else { bail!("{:?} is not UTF-8", entry.path()) };
        let inside = if below.is_empty() { own } else { format!("{below}/{own}") };
        let kind = entry.file_type()?;
        if kind.is_dir() {
            if inside.split('/').any(|part| part == name)
                && let Some(path) = moved(&inside, moves)
            {
                entries.push(Entry { path, kind: Kind::Folder });
            }
            walk(root, &inside, name, moves, entries)?;
            continue;
        }
        let Some(path) = moved(&inside, moves) else { continue };
        let kind = if kind.is_symlink() {
            let target = fs::read_link(entry.path())?;
            Kind::Link { target: target.to_str().context("a link to what is not UTF-8")?.to_owned() }
        } else {
            // Whether it is a program is all that counts: the rest is the umask of whoever packs.
            let program = entry.metadata()?.permissions().mode() & 0o100 != 0;
            Kind::File { mode: if program { 0o755 } else { 0o644 }, content: fs::read(entry.path())? }
        };
        entries.push(Entry { path, kind });
    }
    Ok(())
}

fn moved(path: &str, moves: &Moves) -> Option<String> {
    for (from, to) in moves {
        if let Some(rest) = path.strip_prefix(from.as_str()) {
            return to.as_ref().map(|to| format!("{to}{rest}"));
        }
    }
    Some(path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_move_by_their_first_prefix() {
        let moves = [
            ("lib/systemd/".to_owned(), Some("usr/lib/systemd/".to_owned())),
            ("usr/share/doc/aion/copyright".to_owned(), None),
        ];
        assert_eq!(
            moved("lib/systemd/system/a.service", &moves).unwrap(),
            "usr/lib/systemd/system/a.service"
        );
        assert_eq!(moved("usr/share/doc/aion/copyright", &moves), None);
        assert_eq!(moved("usr/bin/aionctl", &moves).unwrap(), "usr/bin/aionctl");
    }
}
