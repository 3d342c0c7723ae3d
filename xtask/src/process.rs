//! Running other programs: what is run is shown, what fails says how.
//!
//! Every command of `xtask` goes through here, so that a log of a run reads like a script of it.

use std::ffi::OsStr;
use std::io::IsTerminal;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// The command as somebody would type it; long ones are cut in the middle of nothing, just at the end.
pub(crate) fn show(command: &Command) -> String {
    let mut line = String::new();
    for word in std::iter::once(command.get_program()).chain(command.get_args()) {
        let word = word.to_string_lossy();
        let plain =
            !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c));
        if !line.is_empty() {
            line.push(' ');
        }
        if plain {
            line.push_str(&word);
        } else {
            line.push('\'');
            line.push_str(&word.replace('\'', r"'\''"));
            line.push('\'');
        }
    }
    if line.len() > 300 {
        let end = (0..=300).rev().find(|&i| line.is_char_boundary(i)).unwrap_or(0);
        line.truncate(end);
        line.push_str(" …");
    }
    line
}

/// Runs it with our own stdout and stderr.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    note(&format!("$ {}", show(command)));
    let status = command.status().with_context(|| format!("cannot run {}", show(command)))?;
    if !status.success() {
        bail!("{} ended with {status}", show(command));
    }
    Ok(())
}

/// Runs it as [`run`] does, and ends it with all its descendants when it takes longer than `limit`: a suite that
/// hangs must not take the report of the others with it.
pub(crate) fn run_within(command: &mut Command, limit: Duration) -> Result<()> {
    note(&format!("$ {}", show(command)));
    let mut child = command.spawn().with_context(|| format!("cannot run {}", show(command)))?;
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            if !status.success() {
                bail!("{} ended with {status}", show(command));
            }
            return Ok(());
        }
        if begun.elapsed() > limit {
            for pid in descendants(child.id()) {
                succeeds(as_root("kill").args(["-KILL", &pid.to_string()]));
            }
            child.wait()?;
            bail!("{} was not done after {} s and was ended", show(command), limit.as_secs());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A process and all below it, from the top.
fn descendants(top: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            // The name may hold anything, brackets too; what follows the last one does not.
            let parent = stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse().ok()?;
            Some((pid, parent))
        })
        .collect();
    let mut found = vec![top];
    let mut next = 0;
    while let Some(&at) = found.get(next) {
        found.extend(parents.iter().filter(|(_, parent)| *parent == at).map(|(pid, _)| *pid));
        next += 1;
    }
    found
}

/// Runs it unseen and gives its stdout; a failure shows what it said.
pub(crate) fn read(command: &mut Command) -> Result<String> {
    let output = capture(command)?;
    if !output.status.success() {
        bail!(
            "{} ended with {}: {}",
            show(command),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs it unseen and gives all of it, whatever its status.
pub(crate) fn capture(command: &mut Command) -> Result<Output> {
    command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {}", show(command)))
}

/// Whether it can be run and says yes.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Whether a program of this name is in PATH.
pub(crate) fn in_path(name: &str) -> bool {
    let Some(path) = std::env::var_os("PATH") else { return false };
    std::env::split_paths(&path).any(|folder| folder.join(name).is_file())
}

/// Whether we are root.
pub(crate) fn is_root() -> bool {
    read(Command::new("id").arg("-u")).is_ok_and(|uid| uid.trim() == "0")
}

/// The program as root: as it is when we are root, else through sudo, which is told of once.
pub(crate) fn as_root(program: impl AsRef<OsStr>) -> Command {
    static SAID: std::sync::Once = std::sync::Once::new();
    if is_root() {
        return Command::new(program);
    }
    SAID.call_once(|| warn("this needs root: using sudo, which may ask for your password"));
    let mut command = Command::new("sudo");
    command.arg("--preserve-env").arg("env");
    // sudo replaces PATH by its own even when told to keep the environment.
    if let Some(path) = std::env::var_os("PATH") {
        let mut assignment = std::ffi::OsString::from("PATH=");
        assignment.push(path);
        command.arg(assignment);
    }
    command.arg(program);
    command
}

/// A line about what is being done, on stderr, dimmed on a terminal.
pub(crate) fn note(text: &str) {
    if colour() { eprintln!("\x1b[2m{text}\x1b[0m") } else { eprintln!("{text}") }
}

/// A headline, on stderr.
pub(crate) fn head(text: &str) {
    if colour() { eprintln!("\x1b[1m▸ {text}\x1b[0m") } else { eprintln!("▸ {text}") }
}

/// A warning, on stderr.
pub(crate) fn warn(text: &str) {
    if colour() { eprintln!("\x1b[33m! {text}\x1b[0m") } else { eprintln!("! {text}") }
}

/// What went wrong, on stderr.
pub(crate) fn fail(text: &str) {
    if colour() { eprintln!("\x1b[31;1merror:\x1b[0m {text}") } else { eprintln!("error: {text}") }
}

fn colour() -> bool {
    std::env::var_os("NO_COLOR").is_none() && std::io::stderr().is_terminal()
}

/// Replaces a file whole, so that a run that was cut short leaves the old one.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    std::fs::write(&temporary, bytes).with_context(|| format!("cannot write {}", temporary.display()))?;
    std::fs::rename(&temporary, path).with_context(|| format!("cannot replace {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_shown_as_typed() {
        let mut command = Command::new("echo");
        command.args(["a b", "it's", "--x=1"]);
        assert_eq!(show(&command), r"echo 'a b' 'it'\''s' --x=1");
    }

    #[test]
    fn what_hangs_is_ended_with_all_below_it() {
        let begun = Instant::now();
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 61.25 & sh -c 'sleep 61.25; true'; true"]);
        let error = run_within(&mut command, Duration::from_millis(300)).unwrap_err();
        assert!(error.to_string().contains("was not done"), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(20));
        assert!(!succeeds(Command::new("pgrep").args(["-f", "^sleep 61.25"])));
    }

    #[test]
    fn failures_carry_what_was_said() {
        let error = read(Command::new("sh").args(["-c", "echo why >&2; exit 3"])).unwrap_err();
        assert!(error.to_string().contains("why"), "{error}");
    }
}
