//! Debian packages, by name: nothing is fetched while everything is there.
//!
//! Another apt may hold a lock, so every call waits and tries again.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::process::{as_root, capture, head, note, read, run, show, succeeds, warn};

/// What dpkg does not have installed, of these.
pub(crate) fn missing<'a>(packages: &[&'a str]) -> Result<Vec<&'a str>> {
    if !Path::new("/usr/bin/dpkg-query").exists() {
        bail!(
            "this is not a Debian system: install what these packages hold by hand: {}",
            packages.join(" ")
        );
    }
    let output = capture(
        Command::new("dpkg-query").args(["-W", "-f", "${db:Status-Abbrev}${Package}\\n"]).args(packages),
    )?;
    let listed = String::from_utf8_lossy(&output.stdout);
    let installed: Vec<&str> =
        listed.lines().filter_map(|line| line.strip_prefix("ii ")).map(str::trim).collect();
    Ok(packages.iter().copied().filter(|name| !installed.contains(name)).collect())
}

/// Installs what is missing of these, from `release` when given (`bookworm-backports`).
pub(crate) fn install(packages: &[&str], release: Option<&str>) -> Result<()> {
    let wanted = missing(packages)?;
    if wanted.is_empty() {
        return Ok(());
    }
    head(&format!("installing {}", wanted.join(" ")));
    update()?;
    let mut command = apt_get();
    command.args(["install", "--yes", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=600"]);
    if let Some(release) = release {
        command.args(["-t", release]);
    }
    patiently(command.args(&wanted))?;
    let still = missing(&wanted)?;
    if !still.is_empty() {
        bail!("apt-get said it was done, and these are not installed: {}", still.join(" "));
    }
    Ok(())
}

/// Installs what is missing of these servers, and starts none: Debian would start each at once and with the host.
pub(crate) fn install_idle(packages: &[&str]) -> Result<()> {
    const POLICY: &str = "/usr/sbin/policy-rc.d";
    let wanted = missing(packages)?;
    if wanted.is_empty() {
        return Ok(());
    }
    let ours = !Path::new(POLICY).exists();
    if ours {
        // What Debian's packages ask before they start a service; 101 forbids it.
        let refuse = format!("printf '#!/bin/sh\nexit 101\n' >{POLICY} && chmod 755 {POLICY}");
        run(as_root("sh").args(["-c", &refuse]))?;
    }
    let installed = install(&wanted, None);
    if ours {
        run(as_root("rm").args(["-f", POLICY]))?;
    }
    installed?;
    if Path::new("/run/systemd/system").is_dir() {
        run(as_root("systemctl").args(["--quiet", "disable"]).args(&wanted))?;
    }
    Ok(())
}

/// Brings the package lists up to date, once a run.
fn update() -> Result<()> {
    static DONE: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);
    if DONE.swap(true, std::sync::atomic::Ordering::Relaxed) {
        return Ok(());
    }
    update_now()
}

fn update_now() -> Result<()> {
    patiently(apt_get().args(["update", "--quiet"]))
}

/// Makes bookworm-backports known to apt, from the mirror that this host uses already.
pub(crate) fn enable_backports() -> Result<()> {
    if succeeds(Command::new("sh").args(["-c", "apt-cache policy | grep -q bookworm-backports/main"])) {
        return Ok(());
    }
    let uri = mirror()?;
    let source = format!(
        "Types: deb\nURIs: {uri}\nSuites: bookworm-backports\nComponents: main\n\
         Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
    );
    head("making bookworm-backports known to apt");
    let mut child = as_root("tee")
        .arg("/etc/apt/sources.list.d/aion-backports.sources")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .context("cannot run tee")?;
    if let Some(mut stdin) = child.stdin.take() {
        std::io::Write::write_all(&mut stdin, source.as_bytes())?;
    }
    if !child.wait()?.success() {
        bail!("cannot write /etc/apt/sources.list.d/aion-backports.sources");
    }
    update_now()
}

/// The URI of the main Debian archive that this host installs from.
pub(crate) fn mirror() -> Result<String> {
    archives()?
        .into_iter()
        .find(|(_, suite)| suite == "bookworm")
        .map(|(uri, _)| uri)
        .context("apt knows no source of Debian 12 (bookworm)")
}

/// The `deb` lines of Debian 12 and its security updates, as this host has them.
pub(crate) fn bookworm_lines() -> Result<Vec<String>> {
    let wanted = ["bookworm", "bookworm-updates", "bookworm-security"];
    let lines: Vec<String> = archives()?
        .into_iter()
        .filter(|(_, suite)| wanted.contains(&suite.as_str()))
        .map(|(uri, suite)| format!("deb {uri} {suite} main"))
        .collect();
    if lines.is_empty() {
        bail!("apt knows no source of Debian 12 (bookworm)");
    }
    Ok(lines)
}

/// Every (URI, code name) that apt has an index for, in both formats of source files.
fn archives() -> Result<Vec<(String, String)>> {
    let known = indexed()?;
    if known.iter().any(|(_, suite)| suite == "bookworm") {
        return Ok(known);
    }
    // A bare image comes without package lists, and the code names are in them.
    update_now()?;
    indexed()
}

fn indexed() -> Result<Vec<(String, String)>> {
    let listed = read(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(SITE) $(CODENAME) $(CREATED_BY)",
    ]))?;
    let mut found = Vec::new();
    for line in listed.lines() {
        let mut words = line.split(' ');
        if let (Some(site), Some(release), Some("Packages")) = (words.next(), words.next(), words.next()) {
            let pair = (site.to_owned(), release.to_owned());
            if !found.contains(&pair) {
                found.push(pair);
            }
        }
    }
    Ok(found)
}

/// What this host's apt is told about reaching its mirrors (proxies, checks), for another apt to be told the same.
pub(crate) fn acquire_options() -> Result<Vec<String>> {
    let wanted = ["Proxy", "Check-Valid-Until", "Check-Date", "CaInfo", "Verify-Peer", "Retries"];
    Ok(read(Command::new("apt-config").arg("dump"))?
        .lines()
        .filter(|line| line.starts_with("Acquire::") && wanted.iter().any(|word| line.contains(word)))
        .filter(|line| !line.ends_with("\"\";"))
        .map(|line| line.trim_end_matches(';').to_owned())
        .collect())
}

/// Fetches a package's file into `folder` without installing it, and gives its path.
pub(crate) fn download(package: &str, folder: &Path) -> Result<std::path::PathBuf> {
    let fetch =
        || patiently(Command::new("apt-get").args(["download", "--quiet", package]).current_dir(folder));
    if fetch().is_err() {
        // Old package lists name files that the mirror has replaced.
        update_now()?;
        fetch()?;
    }
    let prefix = format!("{package}_");
    std::fs::read_dir(folder)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| {
            let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            name.starts_with(&prefix) && Path::new(&name).extension().is_some_and(|ext| ext == "deb")
        })
        .with_context(|| format!("apt-get download left no file of {package}"))
}

/// The first dependency of a package: how Debian's kernel meta-packages name the kernel of the day.
pub(crate) fn first_dependency(package: &str) -> Result<String> {
    let ask = || -> Result<Option<String>> {
        let listed = read(Command::new("apt-cache").args(["depends", package]))?;
        Ok(listed.lines().find_map(|line| line.trim().strip_prefix("Depends: ")).map(str::to_owned))
    };
    if let Ok(Some(name)) = ask() {
        return Ok(name);
    }
    update_now()?;
    ask()?.with_context(|| format!("{package} depends on nothing"))
}

fn apt_get() -> Command {
    let mut command = as_root("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}

/// Runs apt, again and again while another one holds its locks, and twice more on anything else: mirrors
/// stumble.
fn patiently(command: &mut Command) -> Result<()> {
    let begun = Instant::now();
    let mut failures = 0;
    loop {
        note(&format!("$ {}", show(command)));
        let output = capture(command)?;
        if output.status.success() {
            return Ok(());
        }
        let said =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let locked = ["Could not get lock", "Unable to acquire the dpkg frontend lock", "Unable to lock"]
            .iter()
            .any(|text| said.contains(text));
        if locked && begun.elapsed() < Duration::from_secs(900) {
            note("apt is busy with something else: waiting");
        } else {
            failures += 1;
            if failures == 3 {
                bail!("{} ended with {}:\n{}", show(command), output.status, tail(&said, 30));
            }
            warn(&format!("apt-get failed, trying again: {}", tail(&said, 3)));
        }
        std::thread::sleep(Duration::from_secs(5));
    }
}

fn tail(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.trim().lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_names_what_is_not_there() {
        if !Path::new("/usr/bin/dpkg-query").exists() {
            println!("skipped: not a Debian system");
            return;
        }
        assert_eq!(missing(&["libc6", "no-such-package-ever"]).unwrap(), ["no-such-package-ever"]);
    }
}
