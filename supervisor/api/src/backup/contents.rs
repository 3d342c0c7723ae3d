//! What is in a backup, and in which order.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read as _, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use aion_backup::{Part, Writer};

use crate::backup::audit::{self, Log};
use crate::backup::staging::{entries, failed};
use crate::backup::{JOURNAL, Moment, output, told};
use crate::problem::Outcome;

/// A file that does not change.
struct Still {
    name: String,
    path: PathBuf,
}

/// Everything, found and not read yet.
pub(super) struct Contents<'a> {
    state: &'a Path,
    scratch: &'a Path,
    still: Vec<Still>,
    agents: Option<&'a BTreeSet<String>>,
    parts: Vec<Part>,
    left_out: Vec<String>,
}

impl<'a> Contents<'a> {
    pub(super) fn find(state: &'a Path, moment: &'a Moment, with_output: bool) -> Outcome<Self> {
        let staging = moment.staging.path();
        let mut this = Self {
            state,
            scratch: staging,
            still: Vec::new(),
            agents: with_output.then_some(&moment.agents),
            parts: Part::ALL.into(),
            left_out: always_left_out(),
        };
        let of = |part: Part| part.folder().to_owned();
        this.folder(&staging.join(Part::Db.folder()), &of(Part::Db), 0)?;
        this.folder(&staging.join(JOURNAL), JOURNAL, 0)?;
        this.folder(&state.join(Part::Keys.folder()), &of(Part::Keys), 0)?;
        this.secrets()?;
        this.folder(&staging.join(Part::Tools.folder()), &of(Part::Tools), u32::MAX)?;
        this.folder(&state.join(Part::AuditArchive.folder()), &of(Part::AuditArchive), 1)?;
        if !with_output {
            this.parts.retain(|&part| part != Part::Agents);
            this.left_out.push("agents' output and what jobs left (as was asked)".to_owned());
        }
        Ok(this)
    }

    pub(super) fn parts(&self) -> &[Part] {
        &self.parts
    }

    pub(super) fn left_out(&self) -> &[String] {
        &self.left_out
    }

    /// Plain files of a folder, down to a depth. What else is there is nothing of ours.
    fn folder(&mut self, dir: &Path, name: &str, depth: u32) -> Outcome<()> {
        for entry in entries(dir)? {
            let path = dir.join(&entry);
            let Some(entry) = entry.to_str() else { continue };
            let name = format!("{name}/{entry}");
            let found = std::fs::symlink_metadata(&path).map_err(|error| failed("look at", &path, &error))?;
            if found.is_dir() && depth > 0 {
                self.folder(&path, &name, depth - 1)?;
            } else if found.is_file() {
                self.still.push(Still { name, path });
            }
        }
        Ok(())
    }

    /// An operator puts these there: one that aiond cannot read is of no use to it, and no reason for having no backup.
    fn secrets(&mut self) -> Outcome<()> {
        let folder = Part::Secrets.folder();
        let before = self.still.len();
        self.folder(&self.state.join(folder), folder, 0)?;
        for secret in self.still.split_off(before) {
            match File::open(&secret.path) {
                Ok(_) => self.still.push(secret),
                Err(error) => self.left_out.push(format!("{}: aiond cannot read it ({error})", secret.name)),
            }
        }
        Ok(())
    }

    pub(super) fn write<W: Write>(&self, writer: &mut Writer<W>) -> Outcome<()> {
        for Still { name, path } in &self.still {
            let file = File::open(path).map_err(|error| failed("read", path, &error))?;
            let found = file.metadata().map_err(|error| failed("look at", path, &error))?;
            let program = found.permissions().mode() & 0o111 != 0 && name.starts_with(Part::Tools.folder());
            writer.file(name, program, found.len(), file).map_err(told)?;
        }
        for agent in self.agents.into_iter().flatten() {
            output::write(writer, self.state, self.scratch, agent)?;
        }
        // Last: it has every record that what came before can know of.
        self.audit(writer)
    }

    fn audit<W: Write>(&self, writer: &mut Writer<W>) -> Outcome<()> {
        let folder = Part::Audit.folder();
        for log in audit::open(&self.state.join(folder))? {
            let (name, length) = log.parts();
            let name = format!("{folder}/{name}");
            let written = match log {
                Log::Statement(_, bytes) => writer.file(&name, false, length, bytes.as_slice()),
                Log::Segment(_, file, _) => writer.file(&name, false, length, file.take(length)),
            };
            written.map_err(told)?;
        }
        Ok(())
    }
}

/// What aiond cannot read, or is not AION's.
fn always_left_out() -> Vec<String> {
    [
        "managed workspaces (volumes/): root's",
        "the launcher's table and the audit log's private key (launcher/): root's; a restored state begins a new log after the old one",
        "workspaces that are folders of the host",
        "configuration (/etc/aion)",
    ]
    .map(str::to_owned)
    .into()
}
