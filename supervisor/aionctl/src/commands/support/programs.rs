//! What systemd tells: the units as they are, and their journal. Where it does not run, that is what is told.

use std::path::Path;
use std::process::Stdio;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;

use super::bundle::{Body, Found, Limits, Piece};
use crate::when::Moment;

const UNITS: [&str; 4] = ["aiond.service", "aiond.socket", "aion-launcher.service", "aion-agents.service"];
/// What of an entry tells something: systemd's own fields, and those that the daemons give it.
const FIELDS: [&str; 24] = [
    "MESSAGE",
    "PRIORITY",
    "SYSLOG_IDENTIFIER",
    "TARGET",
    "AION_AGENT",
    "AION_TENANT",
    "AION_TASK",
    "AION_ATTEMPT",
    "AION_CODE",
    "AION_ERROR",
    "AION_PROBLEM",
    "AION_FAILURE",
    "AION_WHAT",
    "AION_WHY",
    "AION_REASON",
    "AION_CHANGE",
    "AION_EXIT_CODE",
    "AION_SIGNAL",
    "AION_RUNNING",
    "AION_ENDED",
    "AION_TO_LAUNCH",
    "AION_MISSING",
    "AION_UNKNOWN",
    "AION_FAILED",
];
/// What a program may say about why it failed.
const WORDS: usize = 2 << 10;

/// How the units are.
pub(super) fn units() -> Piece {
    const NAME: &str = "units.txt";
    if !Path::new("/run/systemd/system").exists() {
        return Piece::absent(NAME, "systemd does not run here");
    }
    let args = ["show", "--no-pager"].into_iter().chain(UNITS).map(str::to_owned).collect();
    program(NAME, Limits::SMALL, "systemctl", args)
}

/// What both daemons wrote to the journal.
pub(super) fn journal(since: Moment) -> Piece {
    const NAME: &str = "logs/journal.txt";
    if !Path::new("/run/systemd/journal/socket").exists() {
        return Piece::absent(NAME, "journald does not run here");
    }
    let since = format!("--since=@{}", since.0.max(0) / 1_000_000_000);
    // The words alone do not say why: that is in the fields.
    let fields = format!("--output-fields={}", FIELDS.join(","));
    let args = ["--no-pager", "--output=verbose", "--unit=aiond", "--unit=aion-launcher"];
    let args = args.into_iter().map(str::to_owned).chain([fields, since]).collect();
    program(NAME, Limits::LARGE, "journalctl", args)
}

fn program(name: &str, limits: Limits, program: &'static str, args: Vec<String>) -> Piece {
    Piece::new(name, limits, async move { run(program, &args, limits.bytes).await })
}

/// Runs a program to its end and keeps the end of what it writes. It is killed when nobody waits any more.
async fn run(program: &str, args: &[String], most: usize) -> Found {
    let mut command = Command::new(program);
    command.args(args).env("LC_ALL", "C.UTF-8").env("SYSTEMD_COLORS", "0").kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let failed = |error: std::io::Error| format!("{program}: {error}");
    let mut child = command.spawn().map_err(failed)?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let (out, err) = tokio::join!(last(out, most), last(err, WORDS));
    let status = child.wait().await.map_err(failed)?;
    let (bytes, cut) = out.map_err(failed)?;
    if status.success() {
        return Ok(Body::Text { bytes, cut });
    }
    let said = err.map(|(bytes, _)| String::from_utf8_lossy(&bytes).trim().to_owned()).unwrap_or_default();
    Err(format!("{program} ended with {status}: {said}"))
}

/// The last bytes that come, and whether there were more.
async fn last(from: Option<impl AsyncRead + Unpin>, most: usize) -> std::io::Result<(Vec<u8>, bool)> {
    let Some(mut from) = from else { return Ok((Vec::new(), false)) };
    let (mut bytes, mut cut) = (Vec::new(), false);
    let mut part = vec![0; 64 << 10];
    loop {
        let n = from.read(&mut part).await?;
        if n == 0 {
            break;
        }
        bytes.extend_from_slice(part.get(..n).unwrap_or_default());
        // Not at each part: to move what is kept costs as much as it has.
        if bytes.len() > most.saturating_mul(2) {
            bytes.drain(..bytes.len() - most);
            cut = true;
        }
    }
    let over = bytes.len().saturating_sub(most);
    bytes.drain(..over);
    Ok((bytes, cut || over > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn shell(script: &str, most: usize) -> Found {
        run("sh", &["-c".to_owned(), script.to_owned()], most).await
    }

    #[tokio::test]
    async fn the_end_of_what_a_program_writes_is_kept() {
        match shell("seq 1 100000; echo end", 10).await {
            Ok(Body::Text { bytes, cut: true }) => assert_eq!(bytes, b"00000\nend\n"),
            other => panic!("{other:?}"),
        }
        match shell("echo all", 10).await {
            Ok(Body::Text { bytes, cut: false }) => assert_eq!(bytes, b"all\n"),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_program_that_fails_is_told_in_its_words() {
        let said = shell("echo no permission >&2; exit 3", 10).await.unwrap_err();
        assert!(said.starts_with("sh ended with") && said.contains("no permission"), "{said}");
        let said = run("/no/such/program", &[], 10).await.unwrap_err();
        assert!(said.contains("/no/such/program"), "{said}");
    }
}
