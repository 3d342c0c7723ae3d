//! Files of an archive into a fresh folder that only root may enter, so that no link of anybody's can be in a path.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use aion_agent_journal::MAGIC;

use crate::entry::Entry;
use crate::read::Taker;
use crate::restore::{Owners, make_folder, own, rights};
use crate::{Error, Result};

pub(crate) struct Extract<'a> {
    root: &'a Path,
    owners: Owners,
    open: Option<Open>,
}

struct Open {
    file: File,
    path: PathBuf,
    at: u64,
    mode: u32,
    user: u32,
}

impl<'a> Extract<'a> {
    pub(crate) const fn new(root: &'a Path, owners: Owners) -> Self {
        Self { root, owners, open: None }
    }

    /// Folders between the part's own and the file.
    fn folders(&self, entry: &Entry, mode: u32, user: u32) -> Result<()> {
        let mut at = self.root.to_owned();
        let folders = entry.path.parent().into_iter().flat_map(Path::components);
        for (depth, folder) in folders.enumerate() {
            at.push(folder);
            // The part's own is there.
            if depth > 0 && !at.is_dir() {
                make_folder(&at, mode, user, self.owners.group)?;
            }
        }
        Ok(())
    }
}

impl Taker for Extract<'_> {
    fn begin(&mut self, entry: &Entry) -> Result<()> {
        let (folder_mode, mode, roots) = rights(entry.part, entry.executable);
        let user = if roots { self.owners.root } else { self.owners.user };
        self.folders(entry, folder_mode, user)?;
        let path = self.root.join(&entry.path);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(Error::io("make", &path))?;
        let at = entry.offset.unwrap_or(0);
        if entry.offset.is_some() {
            // Records keep their places: cursors are places. What was dropped before them is a hole again.
            let mut header = [0; 16];
            header[..8].copy_from_slice(&MAGIC);
            header[8..].copy_from_slice(&at.to_le_bytes());
            file.write_all_at(&header, 0)
                .and_then(|()| file.set_len(at))
                .map_err(Error::io("write", &path))?;
        }
        self.open = Some(Open { file, path, at, mode, user });
        Ok(())
    }

    fn data(&mut self, bytes: &[u8]) -> Result<()> {
        let Some(open) = &mut self.open else { return Ok(()) };
        open.file.write_all_at(bytes, open.at).map_err(Error::io("write", &open.path))?;
        open.at += bytes.len() as u64;
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        let Some(open) = self.open.take() else { return Ok(()) };
        own(&open.path, open.mode, open.user, self.owners.group)
    }
}
