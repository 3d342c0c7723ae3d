//! Segments as files: their names, their list, their lines, the room behind them, and how one is begun.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::line::{self, Header, Line, MAX_LINE};
use crate::{Error, Hash, Result};

/// The path of a segment.
pub(crate) fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(name(number))
}

/// The file name of a segment.
pub(crate) fn name(number: u64) -> String {
    format!("{number:010}.seg")
}

/// The numbers of all segments, in order. Other files are none of ours.
pub(crate) fn list(dir: &Path) -> Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir).map_err(Error::io("list", dir))? {
        let entry = entry.map_err(Error::io("list", dir))?;
        let file = entry.file_name();
        let Some(number) =
            file.to_str().and_then(|n| n.strip_suffix(".seg")).and_then(|n| n.parse::<u64>().ok())
        else {
            continue;
        };
        if file.to_str() == Some(&name(number)) {
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// The header, or `None` when the first line is not one.
pub(crate) fn header(dir: &Path, number: u64) -> Result<Option<(Header, Hash)>> {
    let path = path(dir, number);
    let file = File::open(&path).map_err(Error::io("open", &path))?;
    let mut first = Vec::new();
    BufReader::with_capacity(1024, file)
        .take(4096)
        .read_until(b'\n', &mut first)
        .map_err(Error::io("read", &path))?;
    let Some(text) = first.strip_suffix(b"\n") else { return Ok(None) };
    Ok(match line::parse(text) {
        Some(Line::Header { header, covered, claimed }) if header.segment == number => {
            (header.prev.then(covered) == claimed).then_some((header, claimed))
        }
        _ => None,
    })
}

/// Begins a segment: it appears under its name only with its header, so no reader meets an empty one.
pub(crate) fn begin(dir: &Path, header: &Header, gid: Option<u32>) -> Result<(File, u64, Hash)> {
    let path = path(dir, header.segment);
    let mut text = Vec::with_capacity(512);
    let chain = header.push(&mut text);
    install(dir, &path, &text, gid)?;
    let file = OpenOptions::new().read(true).write(true).open(&path).map_err(Error::io("open", &path))?;
    Ok((file, text.len() as u64, chain))
}

/// Puts a whole file in its place at once, readable by the group, and makes that durable.
pub(crate) fn install(dir: &Path, path: &Path, text: &[u8], gid: Option<u32>) -> Result<()> {
    let temporary = path.with_extension("tmp");
    let _ = fs::remove_file(&temporary);
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(text)?;
        if let Some(gid) = gid {
            std::os::unix::fs::fchown(&file, None, Some(gid))?;
        }
        file.set_permissions(Permissions::from_mode(0o640))?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(dir)?.sync_all()
    })();
    written.map_err(|e| {
        let _ = fs::remove_file(&temporary);
        Error::io("write", path)(e)
    })
}

/// How much of a segment's file is lines. Behind those of the newest one there may be room for more: zeros.
///
/// # Errors
/// What the file system says.
pub fn written(file: &File) -> std::io::Result<u64> {
    let mut block = [0; 4096];
    let mut end = file.metadata()?.len();
    while end > 0 {
        let from = end.saturating_sub(block.len() as u64);
        let length = usize::try_from(end - from).unwrap_or(block.len());
        let part = block.get_mut(..length).unwrap_or_default();
        match file.read_exact_at(part, from) {
            Ok(()) => {}
            // It was sealed meanwhile: the room went.
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
                end = file.metadata()?.len();
                continue;
            }
            Err(e) => return Err(e),
        }
        match part.iter().rposition(|&byte| byte != 0) {
            Some(last) => return Ok(from + last as u64 + 1),
            None => end = from,
        }
    }
    Ok(0)
}

/// A line of a segment, as [`Lines`] gives it.
pub(crate) enum Raw<'a> {
    /// A whole line, without its line end.
    Whole(&'a [u8]),
    /// Bytes after the last line end: the file is torn here, or its writer is at work.
    Torn(usize),
    /// A line longer than any that is ever written; it was skipped.
    TooLong,
    /// A line with a NUL in it, which JSON has not: the room behind the lines; or a block that never reached the disk, or has not reached
    /// the reader yet, while a later one has. [`Lines::rest`] tells what there is.
    Nul {
        /// It has no line end: no line comes after it.
        is_last: bool,
    },
}

/// Reads a segment line by line, with bounded memory.
pub(crate) struct Lines<R> {
    input: R,
    buffer: Vec<u8>,
    /// Where the next line begins.
    pub(crate) offset: u64,
}

impl<R: BufRead> Lines<R> {
    pub(crate) fn new(input: R, offset: u64) -> Self {
        Self { input, buffer: Vec::new(), offset }
    }

    pub(crate) fn next(&mut self) -> std::io::Result<Option<Raw<'_>>> {
        self.buffer.clear();
        let read = self.input.by_ref().take(MAX_LINE as u64).read_until(b'\n', &mut self.buffer)?;
        if read == 0 {
            return Ok(None);
        }
        let is_whole = self.buffer.last() == Some(&b'\n');
        if is_whole {
            self.offset += read as u64;
        }
        if (is_whole || read < MAX_LINE) && self.buffer.contains(&0) {
            return Ok(Some(Raw::Nul { is_last: !is_whole }));
        }
        if is_whole {
            return Ok(Some(Raw::Whole(self.buffer.get(..read - 1).unwrap_or_default())));
        }
        if read < MAX_LINE {
            return Ok(Some(Raw::Torn(read)));
        }
        self.offset += read as u64;
        loop {
            self.buffer.clear();
            let more = self.input.by_ref().take(MAX_LINE as u64).read_until(b'\n', &mut self.buffer)?;
            self.offset += more as u64;
            if more == 0 || self.buffer.last() == Some(&b'\n') {
                return Ok(Some(Raw::TooLong));
            }
        }
    }

    /// After [`Raw::Nul`]: reads to the end of the file, and says how many bytes it has from that line's beginning to the last one that
    /// is not zero; 0: there is room and nothing else.
    pub(crate) fn rest(&mut self) -> std::io::Result<usize> {
        let last = |bytes: &[u8]| bytes.iter().rposition(|&byte| byte != 0).map(|at| at + 1);
        let mut length = self.buffer.len();
        let mut rest = last(&self.buffer).unwrap_or(0);
        loop {
            let bytes = self.input.fill_buf()?;
            if bytes.is_empty() {
                return Ok(rest);
            }
            if let Some(at) = last(bytes) {
                rest = length + at;
            }
            let read = bytes.len();
            length += read;
            self.input.consume(read);
        }
    }
}
