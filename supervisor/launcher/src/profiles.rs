//! Seccomp profiles, compiled once: a profile's file is compiled again when it, or what it extends, changed.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use aion_sandbox::{NotifyRule, Seccomp};
use aion_seccomp::{Arch, Profile, compile};
use aion_types::LayerName;

use crate::Failure;
use crate::lock::lock;

/// The compiled profiles of a folder.
#[derive(Debug)]
pub(crate) struct Profiles {
    dir: PathBuf,
    compiled: Mutex<HashMap<String, (Version, Arc<Seccomp>)>>,
}

/// Newest change and number of the folder's files: cheap to look at, and any edit shows.
type Version = (Option<SystemTime>, usize);

impl Profiles {
    /// The profiles below `dir`: in its folder `seccomp` when there is one.
    pub(crate) fn new(dir: &Path) -> Self {
        let inner = dir.join("seccomp");
        let dir = if inner.is_dir() { inner } else { dir.to_owned() };
        Self { dir, compiled: Mutex::default() }
    }

    /// A profile, ready for a plan.
    ///
    /// # Errors
    /// `PROFILE_NOT_FOUND`, or layer `seccomp` when it cannot be compiled.
    pub(crate) fn get(&self, name: &str) -> Result<Arc<Seccomp>, Failure> {
        let version = self.version();
        if let Some((made_of, ready)) = lock(&self.compiled).get(name)
            && *made_of == version
        {
            return Ok(Arc::clone(ready));
        }
        let compiled = compile(&Profile::load(&self.dir, name)?, native()?)?;
        let rules: Vec<NotifyRule> =
            compiled.notify.iter().map(|&(nr, errno)| NotifyRule { nr, errno }).collect();
        let ready = Arc::new(Seccomp {
            profile: name.to_owned(),
            program: compiled.bpf,
            notify: (!rules.is_empty()).then_some(rules),
        });
        lock(&self.compiled).insert(name.to_owned(), (version, Arc::clone(&ready)));
        Ok(ready)
    }

    /// Whether a profile can be compiled: the one that is there, or this file in its place. An empty file is none.
    ///
    /// # Errors
    /// As [`Profiles::get`].
    pub(crate) fn check(&self, name: &str, file: &[u8]) -> Result<(), Failure> {
        if file.is_empty() {
            return self.get(name).map(drop);
        }
        compile(&Profile::parse_in(&self.dir, name, file)?, native()?)?;
        Ok(())
    }

    fn version(&self) -> Version {
        let entries = std::fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let times: Vec<SystemTime> = entries.filter_map(|e| e.metadata().ok()?.modified().ok()).collect();
        (times.iter().max().copied(), times.len())
    }
}

fn native() -> Result<Arch, Failure> {
    Arch::native().ok_or_else(|| {
        Failure::layer(LayerName::Seccomp, 0, "filters are made for x86-64 only, and this is another machine")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use aion_types::ErrorCode;

    #[test]
    fn a_broken_profile_and_a_missing_one_have_their_codes() {
        let dir = tempfile::tempdir().unwrap();
        let profiles = Profiles::new(dir.path());
        std::fs::write(dir.path().join("broken.json"), "{ \"groups\": 3").unwrap();
        std::fs::write(dir.path().join("odd.json"), "{}").unwrap();
        let code = |name| profiles.get(name).unwrap_err().code;
        assert_eq!(code("broken"), ErrorCode::ProfileInvalid);
        assert_eq!(code("odd"), ErrorCode::ProfileInvalid);
        assert_eq!(code("none"), ErrorCode::ProfileNotFound);
        assert_eq!(code("../x"), ErrorCode::ProfileNotFound);
    }

    #[test]
    fn a_file_is_compiled_before_it_is_in_its_place() {
        let profiles = Profiles::new(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../profiles")));
        let learned = |group: &str| {
            format!(
                "{{\"version\": 1, \"description\": \"d\", \"extends\": \"default-restrictive\", \"groups\": [{group}]}}"
            )
        };
        let denies = |call: &str| {
            learned(&format!(
                "{{\"name\": \"g\", \"reason\": \"r\", \"action\": {{\"notify\": \"ENOSYS\"}}, \"syscalls\": [\"{call}\"]}}"
            ))
        };
        let check = |file: &str| profiles.check("new-one", file.as_bytes());
        check(&denies("getpriority")).unwrap();
        for broken in [denies("getpriorities"), denies("execve"), learned("{}"), "{".to_owned()] {
            assert_eq!(check(&broken).unwrap_err().code, ErrorCode::ProfileInvalid, "{broken}");
        }
        // Nothing was kept of it, and what is there is looked at by its name.
        assert_eq!(profiles.check("new-one", b"").unwrap_err().code, ErrorCode::ProfileNotFound);
        profiles.check("default-restrictive", b"").unwrap();
    }
}
