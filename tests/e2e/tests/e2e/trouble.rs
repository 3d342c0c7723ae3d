//! A host that has run out of something: a clear error, nothing left behind, and all is well when there is room again.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use aion_e2e::{Daemons, Verdict, eventually};

/// A small file system, unmounted at the end.
pub(crate) struct Small {
    dir: tempfile::TempDir,
}

impl Small {
    pub(crate) fn mount(mib: u32) -> Option<Self> {
        let dir = tempfile::Builder::new().prefix("aion-e2e-small-").tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs"]).arg(dir.path());
        mount.status().ok()?.success().then_some(Self { dir })
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.dir.path()).status();
    }
}

/// Fills what is left of a file system.
pub(crate) fn fill(folder: &Path) -> std::path::PathBuf {
    let path = folder.join("ballast");
    let mut file = std::fs::File::create(&path).unwrap();
    let block = vec![0u8; 64 << 10];
    while std::io::Write::write_all(&mut file, &block).is_ok() {}
    path
}

/// The same until nothing becomes free any more: what was removed just before is given back a little later.
fn fill_for_good(folder: &Path) -> std::path::PathBuf {
    let path = fill(folder);
    let mut file = std::fs::File::options().append(true).open(&path).unwrap();
    let mut quiet = 0;
    eventually("nothing becomes free any more", Duration::from_secs(20), || {
        std::thread::sleep(Duration::from_millis(100));
        let before = file.metadata().unwrap().len();
        // To the last page.
        while std::io::Write::write_all(&mut file, &[0u8; 4096]).is_ok() {}
        quiet = if file.metadata().unwrap().len() == before { quiet + 1 } else { 0 };
        quiet == 10
    });
    path
}

pub(crate) fn a_full_disk() -> Verdict {
    let Some(small) = Small::mount(192) else {
        return Verdict::Skipped("no tmpfs can be mounted here".to_owned());
    };
    let daemons = match Daemons::start_in(small.dir.path()) {
        Ok(daemons) => daemons,
        Err(error) => panic!("{error:#}"),
    };
    daemons.ctl(["run", "--rm", "--disk", "16Mi", "--", "true"]).ok();
    let ballast = fill_for_good(small.dir.path());
    let done = daemons.ctl(["run", "--name", "unlucky", "--disk", "16Mi", "--", "true"]).done().expect(125);
    assert!(done.err.contains("DISK_FULL") || done.err.contains("No space left"), "{}", done.err);
    daemons.ctl(["inspect", "unlucky"]).done().expect(4);
    daemons.ctl(["ps", "-a"]).ok();
    std::fs::remove_file(ballast).unwrap();
    eventually("all is well again", Duration::from_secs(30), || {
        daemons.ctl(["run", "--rm", "--name", "lucky", "--disk", "16Mi", "--", "true"]).done().code == 0
    });
    daemons.ctl(["audit", "verify"]).ok();
    daemons.finish().unwrap();
    Verdict::Passed
}

pub(crate) fn no_more_cgroups() {
    let daemons = Daemons::start().unwrap();
    daemons.ctl(["run", "--rm", "--", "true"]).ok();
    let limits: Vec<_> = daemons
        .groups()
        .into_iter()
        .map(|group| group.join("cgroup.max.descendants"))
        .filter(|path| path.exists())
        .collect();
    assert!(!limits.is_empty(), "the group is in the unified hierarchy");
    for path in &limits {
        std::fs::write(path, "0").unwrap();
    }
    // A few are kept ready; then there is none.
    let mut refused = None;
    for n in 0..40 {
        let name = format!("crowd-{n}");
        let done = daemons.ctl(["run", "-d", "--name", &name, "--", "sleep", "300"]).done();
        if done.code != 0 {
            refused = Some((name, done));
            break;
        }
    }
    let (name, done) = refused.expect("no group can be made any more");
    assert_eq!(done.code, 125);
    assert!(done.err.contains("cgroup") && done.err.contains("code: "), "{}", done.err);
    daemons.ctl(["inspect", &name]).done().expect(4);
    for path in &limits {
        std::fs::write(path, "max").unwrap();
    }
    eventually("all is well again", Duration::from_secs(20), || {
        daemons.ctl(["run", "--rm", "--", "true"]).done().code == 0
    });
    daemons.finish().unwrap();
}
