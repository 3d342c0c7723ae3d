//! Checks of single fields.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use aion_types::{AgentId, AgentName, TenantId};

use crate::Failure;

pub(crate) type Checked<T> = Result<T, Failure>;

pub(crate) const MAX_PATH: usize = 4095;

pub(crate) fn agent_id(text: &str) -> Checked<AgentId> {
    agent_id_of("id", text)
}

pub(crate) fn agent_id_of(field: &'static str, text: &str) -> Checked<AgentId> {
    AgentId::parse(text).map_err(|e| Failure::field(field, e.to_string()))
}

pub(crate) fn tenant(text: &str) -> Checked<TenantId> {
    TenantId::parse(text).map_err(|e| Failure::field("tenant", e.to_string()))
}

pub(crate) fn agent_name(text: &str) -> Checked<AgentName> {
    AgentName::parse(text).map_err(|e| Failure::field("name", e.to_string()))
}

/// An absolute path that is the same however it is resolved.
pub(crate) fn path(field: &str, bytes: &[u8]) -> Checked<PathBuf> {
    let wrong = |why: &str| Err(Failure::field(field, why));
    if bytes.len() > MAX_PATH {
        return wrong("the path is longer than 4095 bytes");
    }
    if bytes.contains(&0) {
        return wrong("the path has a NUL byte");
    }
    if bytes.first() != Some(&b'/') {
        return wrong("the path is not absolute");
    }
    let plain = bytes == b"/"
        || bytes.get(1..).unwrap_or_default().split(|&b| b == b'/').all(|p| !matches!(p, b"" | b"." | b".."));
    if !plain {
        return wrong("the path has a part that is empty, '.' or '..'");
    }
    Ok(PathBuf::from(OsStr::from_bytes(bytes)))
}

/// A folder inside where a command starts. Not in `/proc`: descriptors that the one who enters it still has are folders there.
pub(crate) fn folder_inside(field: &str, bytes: &[u8]) -> Checked<PathBuf> {
    let path = path(field, bytes)?;
    if leads_to_descriptors(&path) {
        return Err(Failure::field(field, "a command cannot start in /proc or /dev"));
    }
    Ok(path)
}

fn leads_to_descriptors(path: &Path) -> bool {
    path.starts_with("/proc") || path.starts_with("/dev")
}

/// Arguments or variables: no NUL, not too many, not too long together.
pub(crate) fn strings(field: &str, list: &[Vec<u8>], max: usize, max_bytes: usize) -> Checked<()> {
    if list.len() > max {
        return Err(Failure::field(field, format!("{} entries, at most {max} are allowed", list.len())));
    }
    let bytes: usize = list.iter().map(Vec::len).sum();
    if bytes > max_bytes {
        return Err(Failure::field(field, format!("{bytes} bytes, at most {max_bytes} are allowed")));
    }
    match list.iter().position(|s| s.contains(&0)) {
        Some(at) => Err(Failure::field(field, format!("entry {at} has a NUL byte"))),
        None => Ok(()),
    }
}

pub(crate) fn command(argv: &[Vec<u8>]) -> Checked<()> {
    strings("argv", argv, 4096, 512 << 10)?;
    match argv.first() {
        Some(program) if leads_to_descriptors(Path::new(OsStr::from_bytes(program))) => {
            Err(Failure::field("argv", "a program cannot be taken from /proc or /dev"))
        }
        Some(program) if !program.is_empty() && program.len() <= MAX_PATH => Ok(()),
        Some(_) => Err(Failure::field("argv", "the program's name is empty or longer than 4095 bytes")),
        None => Err(Failure::field("argv", "there is no command")),
    }
}

pub(crate) fn environment(env: &[Vec<u8>]) -> Checked<()> {
    strings("env", env, 4096, 256 << 10)?;
    let named = |e: &Vec<u8>| e.iter().position(|&b| b == b'=').is_some_and(|at| at > 0);
    match env.iter().position(|e| !named(e)) {
        Some(at) => Err(Failure::field("env", format!("entry {at} is not NAME=value"))),
        None => Ok(()),
    }
}

/// A file name of letters, digits, '-', '_' and '.', not hidden.
pub(crate) fn file_name(field: &str, name: &str) -> Checked<()> {
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if (1..=128).contains(&name.len()) && name.bytes().all(good) && !name.starts_with('.') {
        return Ok(());
    }
    Err(Failure::field(
        field,
        "a name has 1 to 128 letters, digits, '-', '_' and '.', and does not begin with '.'",
    ))
}

/// A short text for people or logs, without control characters.
pub(crate) fn text(field: &str, text: &str, max: usize) -> Checked<()> {
    if text.len() > max {
        return Err(Failure::field(field, format!("{} bytes, at most {max} are allowed", text.len())));
    }
    if text.chars().any(char::is_control) {
        return Err(Failure::field(field, "a control character"));
    }
    Ok(())
}
