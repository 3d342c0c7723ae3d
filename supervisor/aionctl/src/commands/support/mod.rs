//! `support-bundle`: one archive with what somebody who helps needs, and nothing that is a secret.
//!
//! `daemon`, `host`, `files`, `programs` and `http` know where things are, `bundle` collects them side by side, `redact` takes secrets out,
//! `archive` writes. A daemon that is down is no failure here but the reason to make one.

mod archive;
mod bundle;
mod daemon;
mod files;
mod host;
mod http;
mod programs;
mod redact;
mod summary;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aion_client::{Client, Options};

use self::archive::{Partial, pack, unwritable};
use self::bundle::{Part, Piece, collect};
use self::summary::{Daemon, Summary};
use crate::cli::SupportBundle;
use crate::commands::signals::Signals;
use crate::failure::{Failure, Outcome};
use crate::output::{Printer, note};
use crate::when::Moment;

/// How long a call waits for a daemon that went away: each part has a time limit, and one that is down stays down.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a daemon may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(5);

pub(super) async fn bundle(options: Options, args: &SupportBundle, printer: Printer) -> Outcome {
    let now = Moment::now();
    let to = args.out.clone().unwrap_or_else(|| name(now));
    let to_stdout = to.as_os_str() == "-";
    // Before there is a file: a signal takes it away again. Without one it ends the process, as ever.
    let mut signals = if to_stdout { None } else { Some(Signals::catch()?) };
    let ended = async {
        match &mut signals {
            Some(signals) => signals.end().await,
            None => std::future::pending().await,
        }
    };
    // Where nothing can be written, nothing need be collected.
    let partial = if to_stdout { None } else { Some(Partial::begin(&to, args.force)?) };
    let socket = options.socket.clone();
    let collected = async {
        let asked = connect(Options { patience: PATIENCE, ..options }).await;
        let parts = collect(pieces(&asked, &socket, args)).await;
        (asked, parts)
    };
    let (asked, parts) = tokio::select! {
        collected = collected => collected,
        failure = ended => return Err(failure),
    };
    let daemon = Daemon { socket: socket.display().to_string(), answers: asked.is_ok(), why: asked.err() };
    let summary = Summary::new(daemon, now, args.since, &args.agents, &parts);
    write(&to, partial, &summary, &parts, now)?;
    tell(&summary);
    if to_stdout {
        return Ok(0);
    }
    let path = to.display().to_string();
    printer.document(&summary, &path, || format!("{path}\n"))?;
    Ok(0)
}

/// In the working directory, by the time.
fn name(now: Moment) -> PathBuf {
    let time: String = now.rfc3339().chars().take(19).filter(|c| !matches!(c, '-' | ':')).collect();
    PathBuf::from(format!("aion-support-{time}Z.tar.zst"))
}

async fn connect(options: Options) -> daemon::Asked {
    let socket = options.socket.display().to_string();
    match tokio::time::timeout(CONNECT, Client::connect(options)).await {
        Ok(connected) => connected.map_err(|error| {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
            format!("{}{}", daemon::told(&error), cause.unwrap_or_default())
        }),
        Err(_) => Err(format!("aiond at {socket} does not accept connections")),
    }
}

fn pieces(asked: &daemon::Asked, socket: &Path, args: &SupportBundle) -> Vec<Piece> {
    let mut pieces = daemon::pieces(asked, args.since, &args.agents);
    pieces.extend(http::pieces(socket));
    pieces.push(host::piece(args.state.clone()));
    pieces.extend(files::configuration(&args.config));
    pieces.push(files::policies(args.policies.clone()));
    pieces.push(programs::units());
    pieces.push(programs::journal(args.since));
    pieces.extend(files::logs(&args.state));
    pieces
}

/// The summary comes first: who unpacks it sees at once what is there.
fn write(to: &Path, partial: Option<Partial>, summary: &Summary, parts: &[Part], now: Moment) -> Outcome<()> {
    let text = serde_json::to_string_pretty(summary)
        .map_err(|error| Failure::new(1, "the summary cannot be written").cause(&error))?;
    let held =
        parts.iter().filter_map(|part| Some((part.name.as_str(), part.held.as_ref().ok()?.text.as_str())));
    let files = std::iter::once((summary::NAME, text.as_str())).chain(held);
    let time = u64::try_from(now.0 / 1_000_000_000).unwrap_or(0);
    let Some(partial) = partial else {
        return pack(io::stdout().lock(), files, time).map(drop).map_err(|error| unwritable(to, &error));
    };
    pack(io::BufWriter::new(partial.file()), files, time).map_err(|error| partial.failed(&error))?;
    partial.into_place()
}

fn tell(summary: &Summary) {
    let mut table = summary.table();
    table.force_no_tty();
    note(&table.trim_fmt());
    if let Some(why) = &summary.daemon.why {
        note(&format!("\naiond does not answer: {why}"));
    }
    note(&format!(
        "\n{} secrets were redacted by their form. Look through it before you give it away: who knows what is secret here is you.",
        summary.redactions
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_is_named_by_its_time() {
        assert_eq!(
            name(Moment(1_700_000_000_000_000_000)).to_str(),
            Some("aion-support-20231114T221320Z.tar.zst")
        );
    }

    #[tokio::test]
    async fn without_a_daemon_the_bundle_has_the_rest_and_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let asked = connect(Options { socket: dir.path().join("none"), ..Options::default() }).await;
        let mut pieces = daemon::pieces(&asked, Moment(0), &[]);
        pieces.extend(http::pieces(&dir.path().join("none")));
        pieces.push(host::piece(dir.path().to_owned()));
        let parts = collect(pieces).await;
        let daemon = Daemon { socket: String::new(), answers: asked.is_ok(), why: asked.err() };
        let summary = Summary::new(daemon, Moment::now(), Moment(0), &[], &parts);
        assert!(!summary.daemon.answers && summary.daemon.why.is_some(), "{summary:?}");
        let state = |name: &str| summary.files.iter().find(|file| file.name == name).unwrap().state;
        for there in ["versions.json", "doctor.json", "host.json"] {
            assert_eq!(state(there), "ok", "{there}");
        }
        for missing in ["agents/list.json", "tasks.json", "audit/verify.json", "metrics.txt"] {
            assert_eq!(state(missing), "missing", "{missing}");
        }
        let why = summary.files.iter().find(|file| file.name == "tasks.json").unwrap().why.clone().unwrap();
        assert!(why.contains("DAEMON_UNAVAILABLE"), "{why}");
        let out = dir.path().join("x.tar.zst");
        write(&out, Some(Partial::begin(&out, false).unwrap()), &summary, &parts, Moment::now()).unwrap();
        let plain = zstd::stream::decode_all(std::fs::File::open(&out).unwrap()).unwrap();
        let mut archive = tar::Archive::new(plain.as_slice());
        let names: Vec<String> = archive
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().display().to_string())
            .collect();
        assert_eq!(names.first().map(String::as_str), Some("aion-support/summary.json"));
        assert_eq!(names.len(), 1 + summary.files.len() - summary.missing);
    }
}
