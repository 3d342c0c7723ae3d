//! What agents left behind, while some of them go on writing.

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom, Write};
use std::path::Path;

use aion_backup::{Entry, Part, Writer};
use rustix::fs::{Mode, OFlags};

use crate::backup::staging::failed;
use crate::backup::told;
use crate::problem::{Outcome, Problem};

/// What a job leaves besides its journal.
const LEFT: [&str; 3] = ["checkpoint.0", "checkpoint.1", "result"];

/// One agent's. What went away meanwhile was removed with its agent, after the moment of the backup.
pub(super) fn write<W: Write>(
    writer: &mut Writer<W>,
    state: &Path,
    scratch: &Path,
    agent: &str,
) -> Outcome<()> {
    let folder = state.join(Part::Agents.folder()).join(agent);
    if let Some(file) = there(&folder.join("journal"))? {
        journal(writer, &file, scratch, agent)?;
    }
    for name in LEFT {
        let path = folder.join(name);
        let Some(file) = there(&path)? else { continue };
        let length = file.metadata().map_err(|error| failed("look at", &path, &error))?.len();
        // It is written anew while it is read, perhaps: then its checksum, which the journal has, is another, and it counts for nothing there
        // either. Here only its length must be what was said.
        let body = file.chain(io::repeat(0));
        writer
            .file(&format!("{}/{agent}/{name}", Part::Agents.folder()), false, length, body)
            .map_err(told)?;
    }
    Ok(())
}

/// From its oldest record on. The writer drops old ones while this reads, and what it drops turns into zeros: so the bytes are
/// copied first, and what was dropped by then is left out.
fn journal<W: Write>(writer: &mut Writer<W>, file: &File, scratch: &Path, agent: &str) -> Outcome<()> {
    let unread = |error: io::Error| Problem::internal("an agent's journal cannot be read", &error);
    let before = match aion_agent_journal::head(file) {
        Ok(head) => head,
        // Nothing was written yet.
        Err(aion_agent_journal::Error::NotAJournal) => return Ok(()),
        Err(error) => return Err(Problem::internal("an agent's journal cannot be read", &error)),
    };
    let length = file.metadata().map_err(unread)?.len().max(before);
    let made = rustix::fs::open(scratch, OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC, Mode::RUSR);
    let made = made.map_err(|errno| failed("make a file in", scratch, &errno.into()))?;
    let mut copy = File::from(made);
    let mut from = file;
    from.seek(SeekFrom::Start(before)).map_err(unread)?;
    io::copy(&mut from.take(length - before), &mut copy)
        .map_err(|error| failed("copy to", scratch, &error))?;
    let head = aion_agent_journal::head(file)
        .map_err(|error| Problem::internal("an agent's journal cannot be read", &error))?
        .clamp(before, length);
    copy.seek(SeekFrom::Start(head - before)).map_err(unread)?;
    // A tail that was cut off meanwhile, by the next incarnation, was half a record.
    let body = copy.chain(io::repeat(0));
    writer.file(&Entry::journal_name(agent, head), false, length - head, body).map_err(told)
}

fn there(path: &Path) -> Outcome<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", path, &error)),
    }
}
