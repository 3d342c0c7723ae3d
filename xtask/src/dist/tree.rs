//! What is installed where: the one list of it.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::ebpf;
use crate::process::{read, run};
use crate::project::{Project, tracked};

/// Programs, by the folder that they go to.
const PROGRAMS: &[(&str, &[&str])] = &[
    ("usr/bin", &["aionctl"]),
    ("usr/sbin", &["aiond", "aion-launcher"]),
    ("usr/libexec/aion", &["aion-init", "aion-wasm"]),
];

/// Those that are linked to the host's libraries.
pub(crate) const DYNAMIC: [&str; 4] =
    ["usr/bin/aionctl", "usr/sbin/aiond", "usr/sbin/aion-launcher", "usr/libexec/aion/aion-wasm"];

/// Files of the clone.
const FILES: &[(&str, &str)] = &[
    ("systemd/aiond.socket", "lib/systemd/system/aiond.socket"),
    ("systemd/aiond.service", "lib/systemd/system/aiond.service"),
    ("systemd/aion-launcher.service", "lib/systemd/system/aion-launcher.service"),
    ("systemd/aion-agents.service", "lib/systemd/system/aion-agents.service"),
    ("systemd/aion-backup.service", "lib/systemd/system/aion-backup.service"),
    ("systemd/aion-backup.timer", "lib/systemd/system/aion-backup.timer"),
    ("systemd/aion-archive.service", "lib/systemd/system/aion-archive.service"),
    ("systemd/aion-archive.timer", "lib/systemd/system/aion-archive.timer"),
    ("systemd/aion.slice", "lib/systemd/system/aion.slice"),
    ("systemd/90-aion.preset", "usr/lib/systemd/system-preset/90-aion.preset"),
    ("systemd/aion.sysusers", "usr/lib/sysusers.d/aion.conf"),
    ("systemd/aion.tmpfiles", "usr/lib/tmpfiles.d/aion.conf"),
    ("packaging/config.yaml", "etc/aion/config.yaml"),
    ("systemd/aiond.env", "etc/aion/aiond.env"),
    ("systemd/aion-launcher.env", "etc/aion/aion-launcher.env"),
    ("policies/agent.capabilities.yaml", "etc/aion/policies/agent.capabilities.yaml"),
    ("profiles/scheduler.yaml", "etc/aion/scheduler.yaml"),
    ("profiles/cgroup_profiles.yaml", "etc/aion/cgroup_profiles.yaml"),
    ("packaging/deb/copyright", "usr/share/doc/aion/copyright"),
    ("SECURITY.md", "usr/share/doc/aion/SECURITY.md"),
];

/// Pages that are kept in the clone, made from the daemons' own descriptions of their options; they are packed compressed.
const PAGES: &[(&str, &str)] = &[
    ("packaging/man/aiond.8", "usr/share/man/man8/aiond.8"),
    ("packaging/man/aion-launcher.8", "usr/share/man/man8/aion-launcher.8"),
    ("packaging/man/aion-launcher-hold.8", "usr/share/man/man8/aion-launcher-hold.8"),
    ("packaging/man/aion-launcher-purge.8", "usr/share/man/man8/aion-launcher-purge.8"),
];

/// Folders of the clone, whole.
const FOLDERS: &[(&str, &str)] = &[
    ("profiles", "usr/share/aion/profiles"),
    ("policies", "usr/share/aion/policies"),
    ("docs", "usr/share/doc/aion"),
    ("examples", "usr/share/doc/aion/examples"),
    ("deploy", "usr/share/doc/aion/deploy"),
];

/// The operator's, so they are in /etc; the daemons look for them beside what is not.
const LINKS: &[(&str, &str)] = &[
    ("usr/share/aion/profiles/scheduler.yaml", "/etc/aion/scheduler.yaml"),
    ("usr/share/aion/profiles/cgroup_profiles.yaml", "/etc/aion/cgroup_profiles.yaml"),
];

const COMPLETIONS: &[(&str, &str)] = &[
    ("bash", "usr/share/bash-completion/completions/aionctl"),
    ("zsh", "usr/share/zsh/vendor-completions/_aionctl"),
    ("fish", "usr/share/fish/vendor_completions.d/aionctl.fish"),
];

/// Fills `root` with what is installed. Folders are 0755, files 0644, programs 0755.
pub(crate) fn fill(project: &Project, root: &Path) -> Result<()> {
    for (folder, names) in PROGRAMS {
        for name in *names {
            let to = place(root, &format!("{folder}/{name}"))?;
            // Line tables are several times the program. The build's id is a hash of them, too: they name the folders of the build.
            let mut strip = Command::new("strip");
            strip.args(["--strip-unneeded", "--remove-section=.note.gnu.build-id", "-o"]);
            run(strip.arg(&to).arg(project.binary(name)))?;
            fs::set_permissions(&to, Permissions::from_mode(0o755))?;
        }
    }
    copy(&project.stage().join(ebpf::OBJECT), &place(root, &format!("usr/lib/aion/{}", ebpf::OBJECT))?)?;
    for (from, to) in FOLDERS {
        for name in listed(project, from)? {
            copy(&project.root.join(from).join(&name), &place(root, &format!("{to}/{name}"))?)?;
        }
    }
    for (from, to) in FILES {
        copy(&project.root.join(from), &place(root, to)?)?;
    }
    for (link, target) in LINKS {
        let link = root.join(link);
        fs::remove_file(&link).with_context(|| format!("{} is not there to be linked", link.display()))?;
        symlink(target, &link)?;
    }
    generated(project, root)
}

/// Every file below /etc: what an upgrade leaves as the operator has it.
pub(crate) fn configuration() -> impl Iterator<Item = &'static str> {
    FILES.iter().map(|(_, to)| *to).filter(|to| to.starts_with("etc/"))
}

/// Puts a file that was just made into the tree.
pub(crate) fn add(root: &Path, from: &Path, to: &str) -> Result<()> {
    copy(from, &place(root, to)?)
}

/// Gives everything one time, links and folders too, and files 0755 or 0644, whatever the clock and the umask of whoever packs.
pub(crate) fn settle(root: &Path, epoch: u64) -> Result<()> {
    readable(root)?;
    let date = format!("--date=@{epoch}");
    let touch = ["-exec", "touch", "--no-dereference", &date, "{}", "+"];
    run_quietly(Command::new("find").arg(root).args(touch))
}

/// What it takes installed, as dpkg counts: of folders and links 1 KiB each, because their sizes are the file system's own.
pub(crate) fn kibibytes(folder: &Path) -> Result<u64> {
    let mut sum = 1;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        sum += match (kind.is_dir(), kind.is_file()) {
            (true, _) => kibibytes(&entry.path())?,
            (_, true) => entry.metadata()?.len().div_ceil(1024),
            _ => 1,
        };
    }
    Ok(sum)
}

/// Every program: its name and where it is in the tree.
pub(crate) fn programs() -> impl Iterator<Item = (&'static str, String)> {
    PROGRAMS
        .iter()
        .flat_map(|(folder, names)| names.iter().map(move |name| (*name, format!("{folder}/{name}"))))
}

/// Man pages and completions, as aionctl itself writes them.
fn generated(project: &Project, root: &Path) -> Result<()> {
    let program = project.binary("aionctl");
    let man = root.join("usr/share/man/man1");
    fs::create_dir_all(&man)?;
    // It names the files that it has written.
    read(Command::new(&program).arg("man").arg(&man))?;
    for entry in fs::read_dir(&man)? {
        compress(&entry?.path())?;
    }
    for (from, to) in PAGES {
        let to = place(root, to)?;
        copy(&project.root.join(from), &to)?;
        compress(&to)?;
    }
    let changes = place(root, "usr/share/doc/aion/changelog")?;
    copy(&project.root.join("CHANGELOG.md"), &changes)?;
    compress(&changes)?;
    for (shell, to) in COMPLETIONS {
        let to = place(root, to)?;
        fs::write(&to, read(Command::new(&program).args(["completion", shell]))?)?;
        fs::set_permissions(&to, Permissions::from_mode(0o644))?;
    }
    Ok(())
}

/// gzip without time and name.
fn compress(path: &Path) -> Result<()> {
    run_quietly(Command::new("gzip").args(["-9", "-n"]).arg(path))
}

fn run_quietly(command: &mut Command) -> Result<()> {
    read(command).map(drop)
}

/// The plain files below a folder: what a build leaves there stays out.
fn listed(project: &Project, folder: &str) -> Result<Vec<String>> {
    let folder = project.root.join(folder);
    let mut names = tracked(&folder)?;
    names.retain(|name| folder.join(name).is_file());
    Ok(names)
}

fn place(root: &Path, path: &str) -> Result<PathBuf> {
    let path = root.join(path);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    Ok(path)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    let program = fs::metadata(from)?.permissions().mode() & 0o100 != 0;
    fs::set_permissions(to, Permissions::from_mode(if program { 0o755 } else { 0o644 }))?;
    Ok(())
}

fn readable(folder: &Path) -> Result<()> {
    fs::set_permissions(folder, Permissions::from_mode(0o755))?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            readable(&entry.path())?;
        } else if kind.is_file() {
            let program = entry.metadata()?.permissions().mode() & 0o100 != 0;
            fs::set_permissions(entry.path(), Permissions::from_mode(if program { 0o755 } else { 0o644 }))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_listed_is_there() {
        let project = Project::locate().unwrap();
        for (from, _) in FILES.iter().chain(PAGES) {
            assert!(project.root.join(from).is_file(), "{from}");
        }
        for (from, _) in FOLDERS {
            assert!(!listed(&project, from).unwrap().is_empty(), "{from}");
        }
        assert!(configuration().count() >= 5);
        for path in DYNAMIC {
            assert!(programs().any(|(_, to)| to == path), "{path}");
        }
    }

    #[test]
    fn every_unit_is_installed() {
        let project = Project::locate().unwrap();
        for name in listed(&project, "systemd").unwrap() {
            let from = format!("systemd/{name}");
            assert!(
                name == "README.md" || FILES.iter().any(|(file, _)| *file == from),
                "{name} goes nowhere"
            );
        }
    }
}
