//! Reads which interpreter the kernel runs for a program: the ELF interpreter, or the one after `#!`.

use std::fs::File;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;
const PT_INTERP: u32 = 3;
const MAX_PATH: usize = 4096;
/// What the kernel itself reads of a script's first line.
const FIRST_LINE: usize = 256;

/// What a file needs to be executed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Needs {
    Nothing,
    /// The ELF interpreter.
    Loader(PathBuf),
    /// A script's interpreter, and its argument when it has one.
    Script(PathBuf, Option<Vec<u8>>),
}

pub(crate) fn needs(path: &Path) -> Option<Needs> {
    let file = File::open(path).ok()?;
    let mut start = [0; FIRST_LINE];
    let got = file.read_at(&mut start, 0).ok()?;
    let start = start.get(..got)?;
    if let Some(line) = start.strip_prefix(b"#!") {
        return script(line);
    }
    if start.starts_with(b"\x7fELF\x02\x01") && got >= HEADER {
        return Some(loader(&file, start).map_or(Needs::Nothing, Needs::Loader));
    }
    Some(Needs::Nothing)
}

fn script(line: &[u8]) -> Option<Needs> {
    let line = line.split(|&b| b == b'\n').next()?.trim_ascii();
    let end = line.iter().position(|b| matches!(b, b' ' | b'\t')).unwrap_or(line.len());
    let (interpreter, argument) = line.split_at(end);
    if interpreter.is_empty() {
        return None;
    }
    let argument = argument.trim_ascii();
    let path = PathBuf::from(std::ffi::OsString::from_vec(interpreter.to_vec()));
    Some(Needs::Script(path, (!argument.is_empty()).then(|| argument.to_vec())))
}

fn loader(file: &File, header: &[u8]) -> Option<PathBuf> {
    let table = u64::from_le_bytes(header.get(32..40)?.try_into().ok()?);
    let size = u64::from(u16::from_le_bytes(header.get(54..56)?.try_into().ok()?));
    let count = u64::from(u16::from_le_bytes(header.get(56..58)?.try_into().ok()?));
    for i in 0..count.min(128) {
        let mut entry = [0; PROGRAM_HEADER];
        file.read_exact_at(&mut entry, table.checked_add(i.checked_mul(size)?)?).ok()?;
        if u32::from_le_bytes(entry[..4].try_into().ok()?) != PT_INTERP {
            continue;
        }
        let offset = u64::from_le_bytes(entry[8..16].try_into().ok()?);
        let len = usize::try_from(u64::from_le_bytes(entry[32..40].try_into().ok()?)).ok()?;
        if len == 0 || len > MAX_PATH {
            return None;
        }
        let mut name = vec![0; len];
        file.read_exact_at(&mut name, offset).ok()?;
        name.truncate(name.iter().position(|&b| b == 0).unwrap_or(len));
        return Some(PathBuf::from(std::ffi::OsString::from_vec(name)));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn scripts_name_their_interpreter() {
        let f = file(b"#! /usr/bin/env  python3 -u\nprint()\n");
        let arg = Some(b"python3 -u".to_vec());
        assert_eq!(needs(f.path()), Some(Needs::Script("/usr/bin/env".into(), arg)));
        assert_eq!(needs(file(b"#!/bin/sh").path()), Some(Needs::Script("/bin/sh".into(), None)));
        assert_eq!(needs(file(b"#!\n").path()), None);
    }

    #[test]
    fn elf_files_name_their_loader() {
        let Some(Needs::Loader(path)) = needs(Path::new("/bin/sh")) else { panic!("no loader") };
        assert!(path.to_str().unwrap().contains("ld"), "{path:?}");
        let mut cut = std::fs::read("/bin/sh").unwrap();
        cut.truncate(70);
        assert_eq!(needs(file(&cut).path()), Some(Needs::Nothing));
    }
}
