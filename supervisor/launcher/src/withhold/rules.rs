//! What of a launch can be withheld while the agent runs: its `fs:` and `exec:` rules, one by one. Pure.

use std::path::{Path, PathBuf};

use aion_probes::FileAccess;

use crate::request::{Device, Launch, WorkspaceKind};

/// The host folder that stands for it is a rule of its own.
const WORKSPACE: &str = "/workspace";

/// What a rule is about, inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Where {
    /// A mount of the agent's: a bind, or its workspace.
    Mount(PathBuf),
    /// A program, or a folder of programs.
    Programs(PathBuf),
    /// All programs.
    AllPrograms,
}

impl Where {
    /// Where the agent was given a folder or file.
    pub(crate) fn mount(&self) -> Option<&Path> {
        match self {
            Self::Mount(path) => Some(path),
            Self::Programs(_) | Self::AllPrograms => None,
        }
    }
}

/// A rule of a launch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileRule {
    /// `fs:read:PATH`, `fs:write:PATH`, `exec:PATH`; `exec:/**` where everything may be executed.
    pub(crate) text: String,
    pub(crate) access: FileAccess,
    pub(crate) place: Where,
}

/// All rules of a launch, always in the same order: a record of the kernel has the place in it, counted from 1.
pub(crate) fn of(launch: &Launch) -> Vec<FileRule> {
    let mut all = Vec::new();
    let mut files = |path: PathBuf, writable: bool| {
        let uses = [("read", FileAccess::Read), ("write", FileAccess::Write)];
        for (word, access) in uses.into_iter().take(if writable { 2 } else { 1 }) {
            let text = format!("fs:{word}:{}", path.display());
            all.push(FileRule { text, access, place: Where::Mount(path.clone()) });
        }
    };
    for bind in &launch.binds {
        files(bind.path.clone(), bind.writable);
    }
    if matches!(launch.workspace.kind, WorkspaceKind::Directory(_)) {
        files(PathBuf::from(WORKSPACE), !launch.workspace.read_only);
    }
    for path in &launch.exec_allow {
        let text = format!("exec:{}", path.display());
        all.push(FileRule { text, access: FileAccess::Exec, place: Where::Programs(path.clone()) });
    }
    if !launch.restrict_exec && launch.exec_allow.is_empty() {
        let text = "exec:/**".to_owned();
        all.push(FileRule { text, access: FileAccess::Exec, place: Where::AllPrograms });
    }
    all
}

/// The texts, for whoever shows what a record is about; then those of its devices, which records tell by their numbers.
pub(crate) fn texts(launch: &Launch) -> Vec<String> {
    let files = of(launch).into_iter().map(|rule| rule.text);
    let devices = launch.devices.iter().flat_map(|device| {
        let path = device.path.to_string_lossy();
        let write = device.writable.then(|| Device::write_rule(&path));
        [Some(Device::read_rule(&path)), write].into_iter().flatten()
    });
    files.chain(devices).collect()
}

#[cfg(test)]
mod tests {
    use aion_launcher_proto::v1;

    use super::*;

    fn of_raw(change: impl FnOnce(&mut v1::Launch)) -> Vec<String> {
        let mut raw = crate::request::tests_usual();
        change(&mut raw);
        texts(&Launch::check(&raw).unwrap())
    }

    #[test]
    fn each_rule_stands_for_itself() {
        let bind = |path: &[u8], writable| v1::Bind { path: path.to_vec(), writable };
        let all = of_raw(|raw| {
            raw.binds = vec![bind(b"/srv/in", false), bind(b"/srv/out", true)];
            raw.restrict_exec = true;
            raw.exec_allow = vec![b"/usr/bin/git".to_vec()];
        });
        assert_eq!(all, ["fs:read:/srv/in", "fs:read:/srv/out", "fs:write:/srv/out", "exec:/usr/bin/git"]);
        assert_eq!(of_raw(|raw| raw.restrict_exec = false), ["exec:/**"]);
        assert_eq!(of_raw(|raw| raw.restrict_exec = true), [""; 0]);
        let device = |path: &[u8], writable| v1::Device { path: path.to_vec(), writable };
        let all = of_raw(|raw| raw.devices = vec![device(b"/dev/fuse", true), device(b"/dev/kvm", false)]);
        assert_eq!(
            all,
            ["exec:/**", "device:read:/dev/fuse", "device:write:/dev/fuse", "device:read:/dev/kvm"]
        );
    }

    #[test]
    fn a_host_folder_as_workspace_is_a_rule() {
        let folder = v1::workspace::Kind::Directory(b"/srv/work".to_vec());
        let all = of_raw(|raw| {
            raw.restrict_exec = true;
            raw.workspace = Some(v1::Workspace { kind: Some(folder), read_only: false });
        });
        assert_eq!(all, ["fs:read:/workspace", "fs:write:/workspace"]);
    }
}
