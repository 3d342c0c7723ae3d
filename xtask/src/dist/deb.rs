//! The Debian package, by dpkg-deb; what it depends on, by dpkg-shlibdeps.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{Order, tree};
use crate::process::{read, run};
use crate::project::Project;

const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];

/// Makes `aion_VERSION_amd64.deb` of the tree, to which it adds its DEBIAN folder.
pub(crate) fn make(project: &Project, work: &Path, root: &Path, order: &Order<'_>) -> Result<PathBuf> {
    let version = order.version();
    let from = project.root.join("packaging/deb");
    let text = fs::read_to_string(from.join("control.in")).context("cannot read packaging/deb/control.in")?;
    let control = text
        .replace("@VERSION@", &version)
        .replace("@SIZE@", &tree::kibibytes(root)?.to_string())
        .replace("@SHLIBS@", &libraries(work, root)?);
    let folder = root.join("DEBIAN");
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("control"), control)?;
    let conffiles: String = tree::configuration().map(|path| format!("/{path}\n")).collect();
    fs::write(folder.join("conffiles"), conffiles)?;
    for script in SCRIPTS {
        fs::copy(from.join(script), folder.join(script)).with_context(|| format!("cannot copy {script}"))?;
        fs::set_permissions(folder.join(script), Permissions::from_mode(0o755))?;
    }
    tree::settle(root, order.epoch)?;
    let path = order.out.join(format!("aion_{version}_amd64.deb"));
    // Several threads would cut the stream by their number. zstd, because a small machine unpacks it in a tenth of the time.
    let mut command = Command::new("dpkg-deb");
    command.args(["--root-owner-group", "-Zzstd", "-z9", "--threads-max=1", "--build"]).arg(root).arg(&path);
    run(command.env("SOURCE_DATE_EPOCH", order.epoch.to_string()))?;
    Ok(path)
}

/// The packages that the programs' libraries are in, with the versions that they need.
fn libraries(work: &Path, root: &Path) -> Result<String> {
    let folder = work.join("shlibs");
    fs::create_dir_all(folder.join("debian"))?;
    fs::write(folder.join("debian/control"), "Source: aion\n\nPackage: aion\nArchitecture: amd64\n")?;
    let mut command = Command::new("dpkg-shlibdeps");
    command.arg("-O").current_dir(&folder);
    for program in tree::DYNAMIC {
        command.arg(format!("-e{}", root.join(program).display()));
    }
    let said = read(&mut command)?;
    match said.lines().find_map(|line| line.strip_prefix("shlibs:Depends=")) {
        Some(list) if list.contains("libc6") => Ok(list.to_owned()),
        _ => bail!("dpkg-shlibdeps names no libc6: {said}"),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::super::Kinds;
    use super::*;
    use crate::process::in_path;

    /// A package of a few files that are made in this order; its programs are the host's `true`.
    fn made(project: &Project, folder: &Path, reverse: bool) -> Vec<u8> {
        let root = folder.join("root");
        let mut files: Vec<&str> = tree::DYNAMIC.iter().copied().chain(tree::configuration()).collect();
        if reverse {
            files.reverse();
        }
        for name in files {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::copy("/bin/true", &path).unwrap();
            let mode = if tree::DYNAMIC.contains(&name) { 0o755 } else { 0o644 };
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        // As a strict umask leaves it.
        if reverse {
            let strict = Permissions::from_mode(0o600);
            fs::set_permissions(root.join(tree::configuration().next().unwrap()), strict).unwrap();
        }
        // What is older than the epoch and what is younger have one time in the end.
        let past = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(5);
        fs::File::open(root.join(tree::DYNAMIC[0])).unwrap().set_modified(past).unwrap();
        let order = Order { out: folder, kinds: Kinds::Deb, revision: 1, epoch: 1_000_000_000 };
        tree::settle(&root, order.epoch).unwrap();
        fs::read(make(project, &folder.join("work"), &root, &order).unwrap()).unwrap()
    }

    #[test]
    fn the_same_tree_gives_the_same_bytes_whatever_its_times_order_and_place() {
        if !in_path("dpkg-deb") || !in_path("dpkg-shlibdeps") {
            println!("skipped: there is no dpkg-deb or no dpkg-shlibdeps here (Debian's package dpkg-dev)");
            return;
        }
        let project = Project::locate().unwrap();
        let folder = std::env::temp_dir().join(format!("aion-deb-{}", std::process::id()));
        let (one, two) = (folder.join("one"), folder.join("two/deeper"));
        assert!(made(&project, &one, false) == made(&project, &two, true));
        let package = one.join(format!("aion_{}-1_amd64.deb", super::super::VERSION));
        let listed = read(Command::new("dpkg-deb").arg("-c").arg(&package)).unwrap();
        assert!(
            listed.lines().all(|line| line.contains(" root/root ") && line.contains(" 2001-09-0")),
            "{listed}"
        );
        fs::remove_dir_all(&folder).unwrap();
    }
}
