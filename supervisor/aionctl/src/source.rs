//! Reading manifests: from a file or stdin, never more than a manifest may have.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aion_manifest::{AgentSpec, Classes, Context, Overrides};
use aion_types::ErrorCode;

use crate::failure::{Failure, Outcome};

/// What the daemon takes.
const MAX: u64 = 256 << 10;
const MAX_SIGNATURE: u64 = 1 << 10;

/// A manifest as it was read.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) bytes: Vec<u8>,
    /// For messages.
    pub(crate) name: String,
    /// The text beside it that signs it; empty when there is none.
    pub(crate) signature: String,
}

impl Source {
    /// What nobody has signed.
    pub(crate) fn of(bytes: Vec<u8>, name: impl Into<String>) -> Self {
        Self { bytes, name: name.into(), signature: String::new() }
    }

    /// Reads a manifest and its signature, or stdin for `-`.
    pub(crate) fn read(path: &Path) -> Outcome<Self> {
        Self::read_at_most(path, MAX)
    }

    /// Reads a file of at most so many bytes, and its signature.
    pub(crate) fn read_at_most(path: &Path, max: u64) -> Outcome<Self> {
        let mut source = Self::read_alone(path, max)?;
        let beside = beside(path);
        if path.as_os_str() != "-" && beside.exists() {
            let signature = Self::read_alone(&beside, MAX_SIGNATURE)?;
            source.signature = String::from_utf8_lossy(&signature.bytes).trim().to_owned();
        }
        Ok(source)
    }

    fn read_alone(path: &Path, max: u64) -> Outcome<Self> {
        let (name, mut from): (String, Box<dyn Read>) = if path.as_os_str() == "-" {
            ("stdin".to_owned(), Box::new(io::stdin()))
        } else {
            let name = path.display().to_string();
            let file = File::open(path).map_err(|error| unreadable(&name, &error))?;
            (name, Box::new(file))
        };
        let mut bytes = Vec::new();
        let read = from.by_ref().take(max + 1).read_to_end(&mut bytes);
        if let Err(error) = read {
            return Err(unreadable(&name, &error));
        }
        if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > max {
            let message = format!("{name} is larger than such a file may be: at most {} KiB", max >> 10);
            return Err(Failure::coded(ErrorCode::TooLarge, message));
        }
        Ok(Self::of(bytes, name))
    }
}

/// Where a file's signature is.
pub(crate) fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", aion_signing::EXTENSION));
    name.into()
}

/// Checks a manifest as the daemon does, but for what only the daemon knows: its secrets and seccomp profiles.
pub(crate) fn check(source: &Source, overrides: Overrides) -> Outcome<AgentSpec> {
    Ok(AgentSpec::parse(&source.bytes, &source.name, overrides, &context()?)?)
}

/// What manifests are checked against: the shipped classes, or those of the folder that `AION_PROFILES` names.
fn context() -> Outcome<Context> {
    let mut context = Context::builtin();
    context.classes = Arc::new(classes()?);
    Ok(context)
}

/// The classes of cgroups, from the same folder.
pub(crate) fn classes() -> Outcome<Classes> {
    if let Some(dir) = std::env::var_os("AION_PROFILES").filter(|dir| !dir.is_empty()) {
        let path = Path::new(&dir).join("cgroup_profiles.yaml");
        if path.exists() {
            let source = Source::read(&path)?;
            return Ok(Classes::parse(&source.bytes, &source.name)?);
        }
    }
    Ok(Classes::builtin())
}

impl From<aion_manifest::Error> for Failure {
    fn from(error: aion_manifest::Error) -> Self {
        Self::coded(error.code(), error.to_string())
    }
}

fn unreadable(name: &str, error: &io::Error) -> Failure {
    Failure::new(1, format!("cannot read {name}")).cause(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endless_files_are_refused() {
        let failure = Source::read(Path::new("/dev/zero")).expect_err("too large");
        assert_eq!(failure.exit, 2);
        assert_eq!(Source::read(Path::new("/no/such/file")).expect_err("missing").exit, 1);
        assert_eq!(Source::read(Path::new("/")).expect_err("a folder").exit, 1);
    }
}
