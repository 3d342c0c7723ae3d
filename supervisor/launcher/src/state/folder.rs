//! The state folder's layout and who may read which part (docs/architecture.md).

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use aion_types::{AgentId, ErrorCode, UNFINISHED_RESTORE};
use nix::unistd::{Gid, chown};

use crate::Failure;

/// The group that may read what agents leave behind.
pub type Group = Gid;

/// The state folder.
#[derive(Debug, Clone)]
pub struct Folder {
    root: PathBuf,
}

impl Folder {
    /// Makes what is missing. The path becomes absolute and free of symbolic links.
    ///
    /// # Errors
    /// A folder that cannot be made, or that is not one.
    pub fn open(path: &Path, group: Group) -> Result<Self, Failure> {
        make(path, 0o755)?;
        let root = path.canonicalize().map_err(|e| Failure::state("open", path, &e))?;
        if root.join(UNFINISHED_RESTORE).exists() {
            let message = format!(
                "a restore into {} was cut off, so the state is not whole: remove everything in it and restore again",
                root.display()
            );
            return Err(Failure::new(ErrorCode::StateNotEmpty, message));
        }
        let folder = Self { root };
        for (name, mode, shared) in [
            ("run", 0o755, true),
            ("launcher", 0o700, false),
            ("launcher/agents", 0o700, false),
            ("agents", 0o750, true),
            ("audit", 0o750, true),
            ("volumes", 0o700, false),
        ] {
            let at = folder.root.join(name);
            make(&at, mode)?;
            // A folder that was there already may have had other rights.
            fs::set_permissions(&at, fs::Permissions::from_mode(mode))
                .map_err(|e| Failure::state("change the mode of", &at, &e))?;
            if shared {
                give(&at, group)?;
            }
        }
        Ok(folder)
    }

    /// The folder as it is, for a clean-up.
    ///
    /// # Errors
    /// It is not there.
    pub fn existing(path: &Path) -> Result<Self, Failure> {
        let root = path.canonicalize().map_err(|e| Failure::state("open", path, &e))?;
        Ok(Self { root })
    }

    /// The folder itself, absolute.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A name for what belongs to this folder elsewhere in the kernel: so that two instances do not collide.
    #[must_use]
    pub fn hash(&self) -> String {
        use std::os::unix::ffi::OsStrExt;
        // FNV-1a: stable over versions, and nobody chooses state folders to collide.
        let fold = |h: u64, b: &u8| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3);
        let hash = self.root.as_os_str().as_bytes().iter().fold(0xcbf2_9ce4_8422_2325, fold);
        format!("{hash:016x}")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.root.join("run/launcher.sock")
    }

    pub(crate) fn pid_file(&self) -> PathBuf {
        self.root.join("run/aion-launcher.pid")
    }

    pub(crate) fn launcher(&self) -> PathBuf {
        self.root.join("launcher")
    }

    pub(crate) fn table(&self) -> PathBuf {
        self.root.join("launcher/agents")
    }

    pub(crate) fn audit(&self) -> PathBuf {
        self.root.join("audit")
    }

    pub(crate) fn audit_key(&self) -> PathBuf {
        self.root.join("launcher/audit.key")
    }

    /// What was changed on the host for agents' networks.
    pub(crate) fn network(&self) -> PathBuf {
        self.root.join("launcher/network")
    }

    /// What agents with network mode `egress` see as /etc/resolv.conf.
    pub(crate) fn resolv_conf(&self) -> PathBuf {
        self.root.join("launcher/resolv.conf")
    }

    pub(crate) fn volumes(&self) -> PathBuf {
        self.root.join("volumes")
    }

    pub(crate) fn agent(&self, id: &AgentId) -> PathBuf {
        self.root.join("agents").join(id.as_str())
    }

    /// Where aiond has a folder for each agent that serves tasks.
    pub(crate) fn doors(&self) -> PathBuf {
        self.root.join("doors")
    }

    pub(crate) fn journal(&self, id: &AgentId) -> PathBuf {
        self.agent(id).join("journal")
    }

    /// What the sequences of its system calls are known for.
    pub(crate) fn grams(&self, id: &AgentId) -> PathBuf {
        self.agent(id).join("grams")
    }

    /// Whether a path of the host would show this folder, or part of it, to an agent.
    #[must_use]
    pub fn touches(&self, path: &Path) -> bool {
        path.starts_with(&self.root) || self.root.starts_with(path)
    }

    /// Whether a path is the folder of one installed tool: `tools/DIGEST`. Tools are public to the agents of their tenants, and what
    /// runs in there is a tool.
    #[must_use]
    pub fn is_tool(&self, path: &Path) -> bool {
        let digest =
            |name: &str| name.len() == 64 && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        path.strip_prefix(self.root.join("tools"))
            .is_ok_and(|rest| rest.components().count() == 1 && rest.to_str().is_some_and(digest))
    }
}

/// root:group, as it is otherwise.
pub(crate) fn give(path: &Path, group: Group) -> Result<(), Failure> {
    let owner = nix::unistd::Uid::from_raw(0);
    chown(path, Some(owner), Some(group)).map_err(|e| Failure::state("give away", path, &e.into()))
}

pub(crate) fn make(path: &Path, mode: u32) -> Result<(), Failure> {
    match fs::DirBuilder::new().recursive(false).mode(mode).create(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(e) => Err(Failure::state("make the folder", path, &e)),
        Ok(()) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_s_folder_is_one_digest_below_tools() {
        let folder = Folder { root: PathBuf::from("/s") };
        let digest = "0a".repeat(32);
        assert!(folder.is_tool(&Path::new("/s/tools").join(&digest)));
        let wrong = [
            "/s/tools".to_owned(),
            format!("/s/tools/{digest}/x"),
            "/s/tools/../db".to_owned(),
            format!("/s/db/{digest}"),
            format!("/s/tools/{}", "zz".repeat(32)),
        ];
        for other in wrong {
            assert!(!folder.is_tool(Path::new(&other)), "{other}");
        }
    }

    #[test]
    fn what_would_show_the_state_is_told() {
        let folder = Folder { root: PathBuf::from("/var/lib/aion") };
        for shows in ["/var/lib/aion", "/var/lib/aion/secrets", "/var/lib", "/"] {
            assert!(folder.touches(Path::new(shows)), "{shows}");
        }
        for fine in ["/var/lib/aion2", "/home", "/var/lib/other"] {
            assert!(!folder.touches(Path::new(fine)), "{fine}");
        }
    }

    #[test]
    fn two_folders_have_two_names() {
        let name = |p: &str| Folder { root: PathBuf::from(p) }.hash();
        assert_ne!(name("/a/.aion"), name("/b/.aion"));
        assert_eq!(name("/a/.aion").len(), 16);
    }
}
