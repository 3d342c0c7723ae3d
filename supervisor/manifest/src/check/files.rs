//! Host paths that an agent may see: workspace, root, and binds from `fs:` rules.

use std::path::{Path, PathBuf};

use super::Checker;
use crate::capability::{Access, Capability, Rule};
use crate::error::quote;
use crate::raw;
use crate::spec::{Bind, Rootfs, Workspace};

/// The kernel's own file systems, sockets of the host's daemons, and the boot files: never shown, not in part either.
const NEVER: &[&str] = &["/proc", "/sys", "/dev", "/run", "/var/run", "/boot"];
/// The system: may be read, and is never written.
const SYSTEM: &[&str] = &["/usr", "/etc", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"];
/// Folders that the sandbox brings itself.
const OWN: &[&str] = &["/tmp", "/workspace", "/var", "/etc", "/usr"];
const MAX_BINDS: usize = 128;

/// Whether one lies in the other, or the other way round.
fn touches(a: &Path, b: &Path) -> bool {
    a.starts_with(b) || b.starts_with(a)
}

/// Why a host path cannot be shown, as `what; fix`.
fn forbidden(path: &str, writable: bool, private: &[PathBuf]) -> Option<String> {
    let p = Path::new(path);
    if path == "/" {
        return Some("the whole of the host's file system cannot be shown; name a folder in it".to_owned());
    }
    if let Some(folder) = NEVER.iter().find(|f| p.starts_with(f)) {
        return Some(format!(
            "{folder} belongs to the kernel or to the host's daemons; choose another folder"
        ));
    }
    if let Some(folder) = private.iter().find(|f| touches(p, f)) {
        return Some(format!(
            "it would show AION's own state in {}; choose another folder",
            folder.display()
        ));
    }
    if writable && SYSTEM.iter().any(|f| p.starts_with(f)) {
        return Some(
            "the host's system is never written by an agent; choose a folder outside of it".to_owned(),
        );
    }
    None
}

impl Checker<'_> {
    pub(super) fn workspace(&mut self, given: Option<raw::WordOr<String, raw::Workspace>>) -> Workspace {
        let (path, read_only, field) = match given {
            None => (None, None, ""),
            Some(raw::WordOr::Word(path)) => (Some(path), None, "spec.workspace"),
            Some(raw::WordOr::Full(w)) => (w.path, w.read_only, "spec.workspace.path"),
        };
        let read_only = read_only.unwrap_or(false);
        let directory = path.filter(|p| p != "managed").map(|path| {
            if !path.starts_with('/') {
                self.problem(
                    field,
                    &format!(
                        "{} is neither \"managed\" nor an absolute path; write the whole path",
                        quote(&path)
                    ),
                );
            } else {
                self.host_folder(field, &path, true);
            }
            PathBuf::from(path)
        });
        if read_only && directory.is_none() {
            self.problem(
                "spec.workspace.read_only",
                "an empty workspace that cannot be written is of no use; give a path, or remove read_only",
            );
        }
        Workspace { directory, read_only }
    }

    pub(super) fn rootfs(&mut self, given: Option<String>) -> Rootfs {
        const FIELD: &str = "spec.rootfs";
        match given.as_deref() {
            None | Some("host") => Rootfs::Host,
            Some("/") => {
                self.problem(
                    FIELD,
                    "the host's root cannot be an agent's root; write host for the host's system, read-only",
                );
                Rootfs::Host
            }
            Some(path) if path.starts_with('/') => {
                self.host_folder(FIELD, path, false);
                Rootfs::Directory(PathBuf::from(path))
            }
            Some(other) => {
                self.problem(
                    FIELD,
                    &format!(
                        "{} is neither \"host\" nor an absolute path; write the whole path",
                        quote(other)
                    ),
                );
                Rootfs::Host
            }
        }
    }

    fn host_folder(&mut self, field: &str, path: &str, writable: bool) {
        if let Err(text) = crate::capability::check_path(path) {
            self.problem(field, &text);
        } else if let Some(text) = forbidden(path, writable, &self.context.private) {
            self.problem(field, &format!("{} cannot be used: {text}", quote(path)));
        }
    }

    /// `fs:` rules for host paths become binds at the same path.
    pub(super) fn binds(&mut self, allow: &[Rule], deny: &[Rule]) -> Vec<Bind> {
        let mut binds: Vec<Bind> = Vec::new();
        for rule in allow.iter().filter(|r| r.capability.is_enforced_by_sandbox()) {
            let Capability::Fs { access, path } = &rule.capability else { continue };
            let field = self.rule_field(rule);
            let writable = *access == Access::Write;
            if deny.iter().any(|d| d.capability.denies(&rule.capability).as_ref() == Some(&rule.capability)) {
                continue;
            }
            if let Some(d) = deny.iter().find(|d| d.capability.denies(&rule.capability).is_some()) {
                let text = format!(
                    "{} cannot be taken out of {}, which is shown as a whole; allow its other parts instead",
                    d.capability, rule.capability
                );
                self.problem(&field, &text);
                continue;
            }
            if let Some(text) = forbidden(path.path(), writable, &self.context.private) {
                self.problem(&field, &format!("{} cannot be allowed: {text}", rule.capability));
                continue;
            }
            if path.is_subtree() && OWN.contains(&path.path()) {
                let text = format!(
                    "the sandbox has a {} of its own, which this would hide; name a folder in it",
                    path.path()
                );
                self.problem(&field, &format!("{} cannot be allowed: {text}", rule.capability));
                continue;
            }
            let path = PathBuf::from(path.path());
            match binds.iter_mut().find(|b| b.path == path) {
                Some(bind) => bind.writable |= writable,
                None => binds.push(Bind { path, writable }),
            }
        }
        if binds.len() > MAX_BINDS {
            self.problem(
                "spec.capabilities",
                &format!("there are {} fs: rules, at most {MAX_BINDS} are allowed", binds.len()),
            );
        }
        binds.sort_by(|a, b| a.path.cmp(&b.path));
        binds
    }
}
