//! What is mounted where, and which controller belongs to which side.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cgroups_rs::fs::Controllers;
use cgroups_rs::fs::hierarchies::{self, V1};

use crate::{Controller, Error, Result, files};

/// How this host mounts its control groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// cgroup v2 alone.
    Unified,
    /// v2 beside v1, which has controllers.
    Hybrid,
    /// v1 alone.
    Legacy,
}

impl Mode {
    /// The word that `doctor` shows.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unified => "unified",
            Self::Hybrid => "hybrid",
            Self::Legacy => "legacy",
        }
    }
}

/// The host's control groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    pub(crate) unified: Option<PathBuf>,
    pub(crate) v2_controllers: Vec<Controller>,
    /// Mount points of the controllers that v2 does not have.
    pub(crate) v1: BTreeMap<Controller, PathBuf>,
    /// v1's freezer, needed only where there is no v2.
    pub(crate) v1_freezer: Option<PathBuf>,
    /// `/proc/self/cgroup` when this process started: where its own threads belong.
    own: String,
}

impl Hierarchy {
    /// Reads the mount table.
    ///
    /// # Errors
    /// [`Error::NotMounted`] when there is nothing to work with.
    pub fn detect() -> Result<Self> {
        let unified = if hierarchies::is_cgroup2_unified_mode() {
            Some(PathBuf::from(hierarchies::UNIFIED_MOUNTPOINT))
        } else {
            // cgroups-rs knows v2 only at its usual place.
            let path = Path::new("/proc/self/mountinfo");
            find_cgroup2(&files::read(path)?)
        };
        let v2_controllers = match &unified {
            None => Vec::new(),
            Some(root) => {
                let listed = files::read(&root.join("cgroup.controllers"))?;
                let has = |c: &Controller| listed.split_whitespace().any(|name| name == c.v2_name());
                Controller::ALL.into_iter().filter(has).collect()
            }
        };
        let mounts = V1::new();
        let at = |controller| mounts.get_mount_point(controller).map(|(point, _)| point);
        let v1: BTreeMap<_, _> = Controller::ALL
            .into_iter()
            .filter(|c| !v2_controllers.contains(c))
            .filter_map(|c| Some((c, at(cgroups_rs_name(c))?)))
            .collect();
        let v1_freezer = if unified.is_none() { at(Controllers::Freezer) } else { None };
        if unified.is_none() && v1.is_empty() {
            return Err(Error::NotMounted);
        }
        let own = files::read(Path::new("/proc/self/cgroup"))?;
        Ok(Self { unified, v2_controllers, v1, v1_freezer, own })
    }

    /// Unified, hybrid or legacy.
    #[must_use]
    pub fn mode(&self) -> Mode {
        match (&self.unified, self.v1.is_empty()) {
            (Some(_), true) => Mode::Unified,
            (Some(_), false) => Mode::Hybrid,
            (None, _) => Mode::Legacy,
        }
    }

    /// Where v2 is mounted.
    #[must_use]
    pub fn unified_root(&self) -> Option<&Path> {
        self.unified.as_deref()
    }

    /// Whether a controller is there, on either side.
    #[must_use]
    pub fn has(&self, controller: Controller) -> bool {
        self.v2_controllers.contains(&controller) || self.v1.contains_key(&controller)
    }

    /// For people: `cpu (v1), memory (v2)`.
    #[must_use]
    pub fn describe(&self) -> String {
        let side = |c: Controller| {
            if self.v2_controllers.contains(&c) {
                "v2"
            } else if self.v1.contains_key(&c) {
                "v1"
            } else {
                "missing"
            }
        };
        let each: Vec<String> = Controller::ALL.into_iter().map(|c| format!("{c} ({})", side(c))).collect();
        each.join(", ")
    }

    /// Every mount point that a group has a folder in, each once: v1 controllers may share one.
    pub(crate) fn v1_roots(&self) -> Vec<&Path> {
        let mut roots: Vec<&Path> = self.v1.values().chain(&self.v1_freezer).map(PathBuf::as_path).collect();
        roots.sort_unstable();
        roots.dedup();
        roots
    }

    /// The folder of this process's own group below a v1 mount point.
    pub(crate) fn own_v1(&self, root: &Path) -> PathBuf {
        let controllers: Vec<&str> =
            self.v1.iter().filter(|(_, at)| *at == root).map(|(c, _)| c.v1_name()).collect();
        let path = self.own.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let (names, path) = (parts.next()?, parts.next()?);
            names.split(',').any(|n| controllers.contains(&n)).then(|| path.trim_start_matches('/'))
        });
        let own = root.join(path.unwrap_or_default());
        // In a cgroup namespace the path may not be one below the mount point.
        if own.is_dir() { own } else { root.to_owned() }
    }

    pub(crate) fn v1_root(&self, controller: Controller) -> Option<&Path> {
        self.v1.get(&controller).map(PathBuf::as_path)
    }
}

const fn cgroups_rs_name(controller: Controller) -> Controllers {
    match controller {
        Controller::Cpu => Controllers::Cpu,
        Controller::Memory => Controllers::Mem,
        Controller::Pids => Controllers::Pids,
        Controller::Io => Controllers::BlkIo,
    }
}

fn find_cgroup2(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let is_v2 = right.split(' ').next() == Some("cgroup2");
        is_v2.then(|| left.split(' ').nth(4).map(PathBuf::from))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroup2_is_found_beside_v1() {
        let table = "31 24 0:27 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n\
                     40 24 0:36 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n";
        assert_eq!(find_cgroup2(table), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert_eq!(find_cgroup2("31 24 0:27 / /a rw - cgroup cgroup rw,cpu\n"), None);
    }

    #[test]
    fn controllers_that_share_a_mount_are_one_root() {
        let at = |p: &str| PathBuf::from(p);
        let h = Hierarchy {
            unified: Some(at("/u")),
            v2_controllers: vec![Controller::Memory],
            v1: [(Controller::Cpu, at("/c")), (Controller::Pids, at("/c"))].into(),
            v1_freezer: None,
            own: String::new(),
        };
        assert_eq!(h.v1_roots(), [Path::new("/c")]);
        assert_eq!(h.mode(), Mode::Hybrid);
        assert_eq!(h.describe(), "cpu (v1), memory (v2), pids (v1), io (missing)");
    }
}
