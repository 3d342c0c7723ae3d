//! That the RPM holds what the Debian package does: the same files with the same modes and owners, but for what `packaging/rpm` moves.
//!
//! What is compared is what dpkg and rpm themselves read in the packages, and what rpm puts below a folder of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::process::{in_path, is_root, note, read, warn};
use crate::project::Project;

/// What a package says of a path: mode, owner, size where it is a plain file, target where it is a link.
type Listing = BTreeMap<String, String>;

/// What the RPM has besides: where RPM distributions look for licences.
const BESIDES: [&str; 2] = ["/usr/share/licenses/aion", "/usr/share/licenses/aion/LICENSE"];

/// Compares them; `work` is a folder for what is tried.
pub(crate) fn check(project: &Project, work: &Path, deb: &Path, rpm: &Path) -> Result<()> {
    if !in_path("rpm") {
        warn("the RPM is not compared with the Debian package: there is no rpm here");
        return Ok(());
    }
    let verdict = read(Command::new("rpm").args(["-K", "--nosignature"]).arg(rpm))?;
    ensure!(verdict.trim_end().ends_with("digests OK"), "rpm does not take its own package: {verdict}");
    let moves = moves(project)?;
    let wanted = as_rpm(&of_deb(&read(Command::new("dpkg-deb").arg("-c").arg(deb))?)?, &moves);
    let found = of_rpm(&query(rpm, &["--queryformat", FORMAT])?)?;
    let differences = differences(&wanted, &found);
    ensure!(differences.is_empty(), "the packages do not hold the same:\n{}", differences.join("\n"));
    let kept = |text: String| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
    let conffiles = kept(read(Command::new("dpkg-deb").arg("-I").arg(deb).arg("conffiles"))?);
    ensure!(
        conffiles == kept(query(rpm, &["--configfiles"])?),
        "the packages do not keep the same configuration: {conffiles:?} are the Debian package's"
    );
    if is_root() {
        installs(&work.join("rpm-root"), rpm)?;
        note(&format!("the RPM installs, and holds the {} paths of the Debian package", found.len()));
    } else {
        note("the RPM holds what the Debian package does; to install it below a folder wants root");
    }
    Ok(())
}

/// Of each file: `-rwxr-xr-x root/root 5 PATH`, a tab, and where a link leads.
const FORMAT: &str =
    "[%{FILEMODES:perms} %{FILEUSERNAME}/%{FILEGROUPNAME} %{FILESIZES} %{FILENAMES}\\t%{FILELINKTOS}\\n]";

fn query(rpm: &Path, options: &[&str]) -> Result<String> {
    read(Command::new("rpm").args(["-qp", "--nosignature"]).args(options).arg(rpm))
}

/// Installs it below `root` without its scripts, has rpm compare that with the package, and removes it again.
fn installs(root: &Path, rpm: &Path) -> Result<()> {
    fs::create_dir_all(root)?;
    let rpm_in = |options: &[&str]| {
        let mut command = Command::new("rpm");
        // Debian's own does not install without being told that it is meant so.
        if Path::new("/etc/debian_version").exists() {
            command.arg("--force-debian");
        }
        command.arg("--root").arg(root).args(["--dbpath", "/var/lib/rpm"]).args(options);
        command
    };
    // What it needs is not there: that folder is no distribution.
    read(rpm_in(&["--install", "--nodeps", "--noscripts", "--nosignature"]).arg(rpm))?;
    read(&mut rpm_in(&["--verify", "--nodeps", "--noscripts", "aion"]))?;
    read(&mut rpm_in(&["--erase", "--nodeps", "--noscripts", "aion"]))?;
    for left in ["etc/aion", "usr/share/aion", "usr/bin/aionctl"] {
        ensure!(!root.join(left).exists(), "rpm leaves {left}");
    }
    Ok(())
}

/// Lines of `dpkg-deb -c`: `-rw-r--r-- root/root 271 2001-09-09 01:46 ./etc/aion/aiond.env`, links with ` -> TARGET`.
fn of_deb(text: &str) -> Result<Listing> {
    let mut found = Listing::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let (Some(mode), Some(owner), Some(size)) = (words.next(), words.next(), words.next()) else {
            bail!("dpkg-deb lists {line:?}");
        };
        let (path, target) = line
            .split_once(" ./")
            .map(|(_, path)| path.split_once(" -> ").unwrap_or((path, "")))
            .with_context(|| format!("dpkg-deb lists {line:?}"))?;
        found.insert(format!("/{}", path.trim_end_matches('/')), entry(mode, owner, size, target));
    }
    Ok(found)
}

fn of_rpm(text: &str) -> Result<Listing> {
    let mut found = Listing::new();
    for line in text.lines() {
        let mut words = line.splitn(4, ' ');
        let (Some(mode), Some(owner), Some(size), Some(rest)) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            bail!("rpm lists {line:?}");
        };
        let (path, target) = rest.split_once('\t').unwrap_or((rest, ""));
        found.insert(path.to_owned(), entry(mode, owner, size, target));
    }
    Ok(found)
}

/// Folders and links have sizes of their own in each format.
fn entry(mode: &str, owner: &str, size: &str, target: &str) -> String {
    let size = if mode.starts_with('-') { size } else { "-" };
    format!("{mode} {owner} {size} {target}").trim_end().to_owned()
}

/// From where to where paths go, as `packaging/rpm` says it; without a second one they are left out.
fn moves(project: &Project) -> Result<Vec<(String, Option<String>)>> {
    let text = fs::read_to_string(project.root.join("packaging/rpm/package.json"))?;
    let about: Value = serde_json::from_str(&text).context("packaging/rpm/package.json is not JSON")?;
    serde_json::from_value(about["moves"].clone()).context("packaging/rpm/package.json has no moves")
}

/// What the RPM is to hold: of folders its own alone, those below one that is called aion.
fn as_rpm(deb: &Listing, moves: &[(String, Option<String>)]) -> Listing {
    let mut wanted = Listing::new();
    for (path, entry) in deb {
        if entry.starts_with('d') && !path.split('/').any(|part| part == "aion") {
            continue;
        }
        let rule = moves.iter().find_map(|(from, to)| Some((path[1..].strip_prefix(from.as_str())?, to)));
        match rule {
            None => wanted.insert(path.clone(), entry.clone()),
            Some((rest, Some(to))) => wanted.insert(format!("/{to}{rest}"), entry.clone()),
            Some((_, None)) => None,
        };
    }
    wanted
}

fn differences(wanted: &Listing, found: &Listing) -> Vec<String> {
    fn told(entry: Option<&String>) -> &str {
        entry.map_or("nothing", String::as_str)
    }
    let paths: BTreeSet<&str> =
        wanted.keys().chain(found.keys()).map(String::as_str).chain(BESIDES).collect();
    let mut differences = Vec::new();
    for path in paths {
        let (one, other) = (wanted.get(path), found.get(path));
        let agree = if BESIDES.contains(&path) { other.is_some() } else { one == other };
        if !agree {
            let (one, other) = (told(one), told(other));
            differences.push(format!("{path}: {one} in the Debian package, {other} in the RPM"));
        }
    }
    differences
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEB: &str = "\
drwxr-xr-x root/root         0 2001-09-09 01:46 ./
drwxr-xr-x root/root         0 2001-09-09 01:46 ./etc/
drwxr-xr-x root/root         0 2001-09-09 01:46 ./etc/aion/
-rw-r--r-- root/root       271 2001-09-09 01:46 ./etc/aion/aiond.env
-rw-r--r-- root/root        12 2001-09-09 01:46 ./lib/systemd/system/aiond.service
-rwxr-xr-x root/root      9000 2001-09-09 01:46 ./usr/bin/aionctl
-rw-r--r-- root/root        44 2001-09-09 01:46 ./usr/share/doc/aion/copyright
lrwxrwxrwx root/root         0 2001-09-09 01:46 ./usr/share/aion/env -> /etc/aion/aiond.env
";
    const RPM: &str = "\
drwxr-xr-x root/root 0 /etc/aion\t
-rw-r--r-- root/root 271 /etc/aion/aiond.env\t
-rwxr-xr-x root/root 9000 /usr/bin/aionctl\t
-rw-r--r-- root/root 12 /usr/lib/systemd/system/aiond.service\t
lrwxrwxrwx root/root 19 /usr/share/aion/env\t/etc/aion/aiond.env
drwxr-xr-x root/root 0 /usr/share/licenses/aion\t
-rw-r--r-- root/root 11358 /usr/share/licenses/aion/LICENSE\t
";

    fn told(deb: &str, rpm: &str) -> Vec<String> {
        let moves = moves(&Project::locate().unwrap()).unwrap();
        differences(&as_rpm(&of_deb(deb).unwrap(), &moves), &of_rpm(rpm).unwrap())
    }

    #[test]
    fn packages_with_the_same_files_agree() {
        assert_eq!(told(DEB, RPM), [""; 0]);
    }

    #[test]
    fn each_difference_is_told() {
        for (from, to, path) in [
            ("-rwxr-xr-x root/root 9000", "-rwxr-xr-x root/root 9001", "/usr/bin/aionctl"),
            ("-rwxr-xr-x", "-rwsr-xr-x", "/usr/bin/aionctl"),
            ("-rw-r--r-- root/root 271", "-rw-r--r-- aion/root 271", "/etc/aion/aiond.env"),
            ("\t/etc/aion/aiond.env", "\t/etc/aion/other.env", "/usr/share/aion/env"),
            ("/usr/lib/systemd/", "/lib/systemd/", "/usr/lib/systemd/system/aiond.service"),
            ("drwxr-xr-x root/root 0 /etc/aion\t\n", "", "/etc/aion"),
            ("aion/LICENSE", "aion/COPYING", "/usr/share/licenses/aion/LICENSE"),
        ] {
            let changed = RPM.replacen(from, to, 1);
            assert_ne!(changed, RPM, "{from}");
            let said = told(DEB, &changed);
            assert!(said.iter().any(|line| line.starts_with(&format!("{path}: "))), "{path}: {said:?}");
        }
        assert!(of_deb("what is this").is_err() && of_rpm("what").is_err());
    }
}
