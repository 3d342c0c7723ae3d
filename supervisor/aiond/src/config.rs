//! Profiles and policies: read while the files can be reached, parsed when root is gone.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use aion_api::ReloadRules;
use aion_manifest::{
    CapabilityPolicy, Classes, Context, SchedulerFile, parse_detections, shipped_detections,
};
use aion_signing::{Guard, Kind};
use aion_types::ErrorCode;
use anyhow::{Context as _, Result};

use crate::options::Options;
use crate::settings::Refused;
use crate::signatures::{self, When};

/// The rules as AION ships them, for an installation that has none of its own.
const BUILTIN_POLICY: &str = include_str!("../../../policies/agent.capabilities.yaml");
/// The rules' file in the folder of policies.
pub(crate) const RULES: &str = "agent.capabilities.yaml";
/// Detections in one folder.
const MAX_DETECTIONS: usize = 1024;
/// No configuration file is larger.
const MAX_FILE: u64 = 1 << 20;

/// The files' contents; none for a file that is not there.
#[derive(Debug)]
pub(crate) struct Files {
    classes: (PathBuf, Option<Vec<u8>>),
    policy: (PathBuf, Option<Vec<u8>>),
    scheduler: (PathBuf, Option<Vec<u8>>),
    detections: (PathBuf, Folder),
    guard: Arc<Guard>,
}

/// The YAML files of a folder by name; none when it is not there.
type Folder = Option<Vec<(String, Vec<u8>)>>;

impl Files {
    /// Reads them.
    ///
    /// # Errors
    /// All that cannot be read.
    pub(crate) fn read(options: &Options) -> Result<Self, Refused> {
        let (files, wrong) = Self::look(options);
        if wrong.is_empty() { Ok(files) } else { Err(Refused(wrong)) }
    }

    /// What can be read, and why the rest cannot: that is then as if it were not there.
    pub(crate) fn look(options: &Options) -> (Self, Vec<String>) {
        let classes = options.profiles.join("cgroup_profiles.yaml");
        let policy = options.policies.join(RULES);
        let scheduler = options.profiles.join("scheduler.yaml");
        let detections = options.detections.clone().unwrap_or_else(|| options.policies.join("detections"));
        let mut wrong = Vec::new();
        let mut told = |error: anyhow::Error| wrong.push(format!("{error:#}"));
        let guard = signatures::guard(options).map_err(&mut told).unwrap_or_default();
        let files = Self {
            classes: (classes.clone(), read(&classes).map_err(&mut told).unwrap_or_default()),
            policy: (
                policy.clone(),
                read_signed(&guard, &policy, When::Start).map_err(&mut told).unwrap_or_default(),
            ),
            scheduler: (scheduler.clone(), read(&scheduler).map_err(&mut told).unwrap_or_default()),
            detections: (
                detections.clone(),
                read_signed_folder(&guard, &detections, When::Start).map_err(&mut told).unwrap_or_default(),
            ),
            guard: Arc::new(guard),
        };
        (files, wrong)
    }

    /// The files of rules that are not there, so that what AION ships counts, and what that is.
    pub(crate) fn built_in(&self) -> Vec<(&'static str, &Path)> {
        let files = [
            ("capability rules", &self.policy.0, self.policy.1.is_none()),
            ("cgroup classes", &self.classes.0, self.classes.1.is_none()),
            ("scheduler settings", &self.scheduler.0, self.scheduler.1.is_none()),
            ("detections", &self.detections.0, self.detections.1.is_none()),
        ];
        files.into_iter().filter(|(.., gone)| *gone).map(|(what, path, _)| (what, path.as_path())).collect()
    }

    /// What must be signed, and by whom.
    pub(crate) fn guard(&self) -> &Arc<Guard> {
        &self.guard
    }

    /// What manifests are checked against. `state` is the state folder, which no agent may see.
    pub(crate) fn manifests(&self, state: &Path) -> Result<Context> {
        let mut context = Context::builtin();
        let (path, bytes) = &self.classes;
        if let Some(bytes) = bytes {
            context.classes = Arc::new(Classes::parse(bytes, &path.display().to_string())?);
        }
        context.private.push(state.to_owned());
        // What the folder is called may be a link.
        if let Ok(real) = state.canonicalize() {
            context.private.push(real);
        }
        Ok(context)
    }

    /// All that is wrong with them.
    pub(crate) fn problems(&self, state: &Path) -> Vec<String> {
        let failed = [
            self.manifests(state).err().map(|error| format!("{error:#}")),
            self.policy().err().map(|error| format!("{error:#}")),
            self.scheduler()().err().map(|error| error.to_string()),
            self.detections()().err(),
        ];
        failed.into_iter().flatten().collect()
    }

    /// Reads the scheduler's settings: first as they were when root read them, then the file as aiond's user may read it. A file
    /// that cannot be read any more, or is gone, is an error, so that a slip does not undo the quotas.
    pub(crate) fn scheduler(
        &self,
    ) -> impl Fn() -> Result<SchedulerFile, aion_tasks::Error> + Send + Sync + use<> {
        let (path, first) = self.scheduler.clone();
        let first = Mutex::new(Some(first));
        let was_there = AtomicBool::new(false);
        move || {
            let wrong = |why: String| aion_tasks::Error::of(ErrorCode::ProfileInvalid, why);
            let given = first.lock().unwrap_or_else(PoisonError::into_inner).take();
            let bytes = match given {
                Some(bytes) => bytes,
                None => read(&path).map_err(|error| wrong(format!("{error:#}")))?,
            };
            match bytes {
                Some(bytes) => {
                    let read = SchedulerFile::parse(&bytes, &path.display().to_string());
                    let read =
                        read.map_err(|error| aion_tasks::Error::of(error.code(), error.to_string()))?;
                    was_there.store(true, Ordering::Relaxed);
                    Ok(read)
                }
                None if was_there.load(Ordering::Relaxed) => Err(wrong(format!(
                    "{}: it was there when it was read last, and is gone; put it back",
                    path.display()
                ))),
                None => Ok(SchedulerFile::builtin()),
            }
        }
    }

    /// Reads the rules of the detections, as [`Files::scheduler`] reads its file. A folder that is not there means the built-in ones; one
    /// that is there and empty means none. One that was there does not go while aiond runs; where they must be signed, none of its rules does.
    pub(crate) fn detections(&self) -> ReloadRules {
        let (path, first) = self.detections.clone();
        let guard = Arc::clone(&self.guard);
        let was_there = AtomicBool::new(first.is_some());
        let first = Mutex::new(Some(first));
        let known = Mutex::new(BTreeSet::new());
        Box::new(move || {
            let given = first.lock().unwrap_or_else(PoisonError::into_inner).take();
            // A start says itself what is not there.
            let again = given.is_none();
            let files = match given {
                Some(files) => files,
                None => {
                    read_signed_folder(&guard, &path, When::Reload).map_err(|error| format!("{error:#}"))?
                }
            };
            if files.is_none() && was_there.load(Ordering::Relaxed) {
                return Err(format!(
                    "{}: it was there when it was read last, and is gone; put it back",
                    path.display()
                ));
            }
            if files.is_none() && again {
                tracing::info!(path = %path.display(), "not there: the built-in detections are used");
            }
            let is_there = files.is_some();
            let rules = match files {
                Some(files) => {
                    parse_detections(files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())))
                }
                None => shipped_detections(),
            };
            let rules = rules.map_err(|error| error.to_string())?;
            if guard.requires(Kind::Policies) {
                let names = rules.iter().map(|rule| rule.name.clone()).collect();
                grown(&mut known.lock().unwrap_or_else(PoisonError::into_inner), names)?;
            }
            was_there.store(is_there, Ordering::Relaxed);
            Ok(rules)
        })
    }

    /// What agents may have.
    pub(crate) fn policy(&self) -> Result<CapabilityPolicy> {
        let (path, bytes) = &self.policy;
        Ok(policy_of(path, bytes.as_deref())?)
    }

    /// The same, from the file as it is then and as aiond's user may read it. One that cannot be read any more, or is gone, is an error:
    /// a slip gives nobody more than they had.
    pub(crate) fn policy_again(
        &self,
    ) -> impl Fn() -> Result<CapabilityPolicy, aion_manifest::Error> + Send + Sync + use<> {
        let (path, first) = self.policy.clone();
        let guard = Arc::clone(&self.guard);
        let was_there = AtomicBool::new(first.is_some());
        move || match read_signed(&guard, &path, When::Reload) {
            Ok(None) if was_there.load(Ordering::Relaxed) => {
                Err(unreadable(&path, "it was there when it was read last, and is gone".to_owned()))
            }
            Ok(bytes) => {
                let policy = policy_of(&path, bytes.as_deref())?;
                was_there.store(bytes.is_some(), Ordering::Relaxed);
                Ok(policy)
            }
            Err(error) => Err(unreadable(&path, format!("{error:#}"))),
        }
    }
}

/// A signature says nothing of what is not there, so that what was there is remembered.
fn grown(known: &mut BTreeSet<String>, names: BTreeSet<String>) -> Result<(), String> {
    let gone: Vec<&str> = known.difference(&names).map(String::as_str).collect();
    if !gone.is_empty() {
        return Err(format!(
            "of the detections that were read before there is no more: {}; what must be signed does not go while aiond runs: put it back, \
             sign it with `enabled: false`, or restart aiond",
            gone.join(", ")
        ));
    }
    *known = names;
    Ok(())
}

fn policy_of(path: &Path, bytes: Option<&[u8]>) -> Result<CapabilityPolicy, aion_manifest::Error> {
    match bytes {
        Some(bytes) => CapabilityPolicy::parse(bytes, &path.display().to_string()),
        None => CapabilityPolicy::parse(BUILTIN_POLICY.as_bytes(), "built-in capability rules"),
    }
}

fn unreadable(path: &Path, message: String) -> aion_manifest::Error {
    let fix = "put the file back, readable for the user of aiond, who must get through the folders above it; what was before holds on";
    aion_manifest::Error::of_file(ErrorCode::ProfileInvalid, path.display().to_string(), message, fix)
}

/// Reads a policy's file, and judges its signature.
fn read_signed(guard: &Guard, path: &Path, when: When) -> Result<Option<Vec<u8>>> {
    let bytes = read(path)?;
    if let Some(bytes) = &bytes {
        signatures::admit(guard, path, bytes, when)?;
    }
    Ok(bytes)
}

fn read_signed_folder(guard: &Guard, folder: &Path, when: When) -> Result<Folder> {
    let files = read_folder(folder)?;
    for (path, bytes) in files.iter().flatten() {
        signatures::admit(guard, Path::new(path), bytes, when)?;
    }
    Ok(files)
}

pub(crate) fn read_folder(folder: &Path) -> Result<Folder> {
    let context = || format!("cannot read {}", folder.display());
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        entries => entries.with_context(context)?,
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.with_context(context)?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.extension().is_some_and(|kind| kind == "yaml" || kind == "yml") {
            paths.push(path);
        }
    }
    anyhow::ensure!(paths.len() <= MAX_DETECTIONS, "{} has too many files", folder.display());
    paths.sort();
    let mut files = Vec::new();
    for path in paths {
        // One that is gone since the folder was read is no file of it.
        if let Some(bytes) = read(&path)? {
            files.push((path.display().to_string(), bytes));
        }
    }
    Ok(Some(files))
}

pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    let context = || format!("cannot read {}", path.display());
    match std::fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(context),
        // Opening a pipe waits for whoever writes to it.
        Ok(meta) if !meta.is_file() => anyhow::bail!("{} is not a file", path.display()),
        Ok(meta) => anyhow::ensure!(
            meta.len() <= MAX_FILE,
            "{} has {} bytes, at most {MAX_FILE} are read",
            path.display(),
            meta.len()
        ),
    }
    std::fs::read(path).map(Some).with_context(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_file_is_read() {
        assert!(read(Path::new("/dev/null")).unwrap_err().to_string().contains("not a file"));
    }

    #[test]
    fn a_signed_detection_does_not_go_while_aiond_runs() {
        let folder = std::env::temp_dir().join(format!("aiond-detections-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        let key = aion_signing::SecretKey::from_bytes(&[1; 32]).unwrap();
        let trust = aion_signing::Trust::parse([("a", key.public_pem().as_str())]).unwrap();
        let write = |file: &str, text: &str| {
            std::fs::write(folder.join(file), text).unwrap();
            std::fs::write(folder.join(format!("{file}.sig")), key.sign(text.as_bytes())).unwrap();
        };
        let [(_, beacons), (_, canaries), ..] = aion_manifest::SHIPPED_DETECTIONS else {
            panic!("none is shipped")
        };
        write("one.yaml", beacons);
        write("two.yaml", canaries);
        let files = |required: &[Kind]| Files {
            classes: (PathBuf::new(), None),
            policy: (PathBuf::new(), None),
            scheduler: (PathBuf::new(), None),
            detections: (folder.clone(), read_folder(&folder).unwrap()),
            guard: Arc::new(Guard::new(required.iter().copied(), trust.clone())),
        };
        let (read, unsigned) = (files(&[Kind::Policies]).detections(), files(&[]).detections());
        assert_eq!((read().unwrap().len(), unsigned().unwrap().len()), (2, 2));
        // Another file may have it.
        std::fs::rename(folder.join("two.yaml"), folder.join("three.yaml")).unwrap();
        std::fs::rename(folder.join("two.yaml.sig"), folder.join("three.yaml.sig")).unwrap();
        assert_eq!(read().unwrap().len(), 2);
        std::fs::remove_file(folder.join("three.yaml")).unwrap();
        assert!(read().unwrap_err().contains("there is no more: "));
        assert!(read().is_err(), "it is not forgotten");
        assert_eq!(unsigned().unwrap().len(), 1, "where nothing must be signed, files may go");
        write("three.yaml", canaries);
        assert_eq!(read().unwrap().len(), 2);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn rules_and_quotas_that_were_read_once_do_not_go_while_aiond_runs() {
        let folder = std::env::temp_dir().join(format!("aiond-rules-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        let (rules, quotas) = (folder.join(RULES), folder.join("scheduler.yaml"));
        let found = folder.join("detections");
        let files = Files {
            classes: (PathBuf::new(), None),
            policy: (rules.clone(), None),
            scheduler: (quotas.clone(), None),
            detections: (found.clone(), None),
            guard: Arc::default(),
        };
        let (policy, scheduler, detections) = (files.policy_again(), files.scheduler(), files.detections());
        assert_eq!(files.built_in().len(), 4);
        assert!(policy().is_ok() && scheduler().is_ok(), "what AION ships counts where there is no file");
        assert!(detections().unwrap().len() > 10 && detections().is_ok(), "nor a folder");
        let few = "apiVersion: aion.os/v1\nkind: CapabilityPolicy\nallow: []\n";
        std::fs::write(&rules, few).unwrap();
        std::fs::write(&quotas, include_str!("../../../profiles/scheduler.yaml")).unwrap();
        std::fs::create_dir(&found).unwrap();
        assert!(policy().is_ok() && scheduler().is_ok());
        assert_eq!(detections().unwrap().len(), 0, "an empty folder means none");
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(policy().unwrap_err().to_string().contains("is gone; put the file back"));
        assert!(scheduler().unwrap_err().to_string().contains("is gone"));
        assert!(detections().unwrap_err().contains("is gone"));
        assert!(policy().is_err() && scheduler().is_err() && detections().is_err(), "it is not forgotten");
    }

    #[test]
    fn what_ships_parses() {
        let none = Files {
            classes: (PathBuf::new(), None),
            policy: (PathBuf::new(), None),
            scheduler: (PathBuf::new(), None),
            detections: (PathBuf::new(), None),
            guard: Arc::default(),
        };
        assert!(none.detections()().unwrap().len() > 10);
        none.policy().unwrap();
        let context = none.manifests(Path::new("/srv/state")).unwrap();
        assert!(context.private.contains(&PathBuf::from("/srv/state")));
    }
}
