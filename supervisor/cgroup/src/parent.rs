//! The group below which all agents' groups are. It holds no process itself.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::group::{AgentGroup, remove_dirs};
use crate::{Error, Hierarchy, Result, files};

/// The parent group, by default `aion`.
#[derive(Debug, Clone)]
pub struct Parent {
    pub(crate) hierarchy: Arc<Hierarchy>,
    /// Relative to each mount point.
    pub(crate) path: PathBuf,
}

impl Parent {
    /// Makes the parent, and gives its children the controllers. `name` may have several parts, as a slice
    /// that systemd delegates has (`aion.slice/agents`).
    ///
    /// # Errors
    /// [`Error::BadName`], or what the cgroup file system says.
    pub fn open(hierarchy: Hierarchy, name: &str) -> Result<Self> {
        let parent = Self::at(hierarchy, name)?;
        if let Some(root) = parent.hierarchy.unified.clone() {
            let mut at = root;
            parent.delegate(&at)?;
            for part in &parent.path {
                at.push(part);
                files::mkdir(&at)?;
                parent.delegate(&at)?;
            }
        }
        for root in parent.hierarchy.v1_roots() {
            let mut at = root.to_owned();
            for part in &parent.path {
                at.push(part);
                files::mkdir(&at)?;
            }
        }
        Ok(parent)
    }

    /// The parent as it is, without making anything: for a clean-up.
    ///
    /// # Errors
    /// [`Error::BadName`].
    pub fn at(hierarchy: Hierarchy, name: &str) -> Result<Self> {
        let bad = || Error::BadName { name: name.chars().take(80).collect() };
        let parts: Vec<&str> = name.split('/').collect();
        if parts.len() > 8 || !parts.iter().all(|p| is_name(p)) {
            return Err(bad());
        }
        Ok(Self { hierarchy: Arc::new(hierarchy), path: parts.iter().collect() })
    }

    /// Lets the children of a v2 group use the controllers. Only what is not on yet is written: under
    /// systemd the upper groups are not ours, and have it on already.
    fn delegate(&self, group: &Path) -> Result<()> {
        let file = group.join("cgroup.subtree_control");
        let on = files::read(&file)?;
        let wanted: Vec<String> = self
            .hierarchy
            .v2_controllers
            .iter()
            .filter(|c| !on.split_whitespace().any(|name| name == c.v2_name()))
            .map(|c| format!("+{c}"))
            .collect();
        if wanted.is_empty() { Ok(()) } else { files::write(&file, &wanted.join(" ")) }
    }

    /// The host's control groups.
    #[must_use]
    pub fn hierarchy(&self) -> &Hierarchy {
        &self.hierarchy
    }

    /// Its path below each mount point.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its folder in v2: where cgroup BPF programs are attached.
    #[must_use]
    pub fn unified_path(&self) -> Option<PathBuf> {
        Some(self.hierarchy.unified.as_ref()?.join(&self.path))
    }

    /// Names of the groups below it, on any side.
    ///
    /// # Errors
    /// What the cgroup file system says.
    pub fn groups(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for root in self.roots() {
            names.extend(files::children(&root.join(&self.path))?);
        }
        names.sort_unstable();
        names.dedup();
        names.retain(|n| is_name(n));
        Ok(names)
    }

    /// Kills and removes every group below, then the parent.
    ///
    /// # Errors
    /// The first failure, after everything was tried.
    pub fn remove_all(&self, timeout: Duration) -> Result<()> {
        let deadline = Instant::now() + timeout;
        let mut first = Ok(());
        for name in self.groups()? {
            let done = AgentGroup::open(self, &name)
                .and_then(|g| g.kill_and_remove(deadline.saturating_duration_since(Instant::now())));
            first = first.and(done);
        }
        first?;
        let own: Vec<PathBuf> = self.roots().map(|root| root.join(&self.path)).collect();
        remove_dirs(&own, deadline)
    }

    fn roots(&self) -> impl Iterator<Item = &Path> {
        self.hierarchy.unified.as_deref().into_iter().chain(self.hierarchy.v1_roots())
    }
}

/// One folder name that no cgroup file has.
pub(crate) fn is_name(name: &str) -> bool {
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'@');
    (1..=200).contains(&name.len())
        && name.bytes().all(good)
        && !name.starts_with('.')
        && !name.starts_with("cgroup.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_folders() {
        for good in ["aion", "aion-0011aabb", "aion.slice", "slot_1"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "cgroup.procs", "a\0", "a b", &"x".repeat(201)] {
            assert!(!is_name(bad), "{bad:?}");
        }
    }
}
