//! `sign` and `verify`: signatures of manifests, tools and policies, made and judged without the daemon.

use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use aion_client::api;
use aion_signing::{Kind, Part, SecretKey, Trust, payload};
use aion_types::ErrorCode;
use serde::Serialize;
use serde_json::Value;
use zeroize::Zeroizing;

use super::partial::{NotBegun, Partial};
use super::target::each_sync;
use super::tool_files::{files_of, folder_of};
use crate::cli::{SignArgs, TrustArgs};
use crate::failure::{Failure, Outcome, USAGE};
use crate::output::{Printer, lines, table};
use crate::source::{Source, beside};

/// What a policy's file may have.
const MAX: u64 = 1 << 20;

/// A file with all that is signed with it.
struct Signable {
    source: Source,
    kind: Kind,
    files: Vec<api::ToolFile>,
}

impl Signable {
    fn read(path: &Path) -> Outcome<Self> {
        if path.as_os_str() == "-" {
            return Err(Failure::new(USAGE, "-: a signature lies beside a file: name it"));
        }
        let source = Source::read_at_most(path, MAX)?;
        let (kind, files) = match kind_of(&source)? {
            Kind::Tools => (Kind::Tools, files_of(&source, folder_of(path), true)?),
            kind => (kind, Vec::new()),
        };
        Ok(Self { source, kind, files })
    }

    fn payload(&self) -> Outcome<Vec<u8>> {
        let parts: Vec<_> = self
            .files
            .iter()
            .map(|file| Part { path: &file.path, executable: file.executable, data: &file.data })
            .collect();
        payload(&self.source.name, &self.source.bytes, &parts)
            .map(std::borrow::Cow::into_owned)
            .map_err(|error| Failure::new(USAGE, error.to_string()))
    }
}

/// What a file is, by its `kind`. Whether it is a valid one of that kind is not a signer's business.
fn kind_of(source: &Source) -> Outcome<Kind> {
    let wrong = |why: &str| {
        Failure::new(USAGE, format!("{}: {why}", source.name))
            .hint("manifests of agents and tools, capability rules and detections can be signed")
    };
    let value: Value =
        serde_yaml::from_slice(&source.bytes).map_err(|_| wrong("it cannot be read as YAML"))?;
    match value.get("kind").and_then(Value::as_str) {
        Some("Agent") => Ok(Kind::Agents),
        Some("Tool") => Ok(Kind::Tools),
        Some("CapabilityPolicy" | "Detection") => Ok(Kind::Policies),
        _ => Err(wrong("its kind is none that can be signed")),
    }
}

#[derive(Serialize)]
struct Signed {
    file: String,
    kind: &'static str,
    signature: String,
    key: String,
}

pub(super) fn sign(args: &SignArgs, printer: Printer) -> Outcome {
    let Some(path) = &args.key else {
        let [one] = args.files.as_slice() else {
            return Err(Failure::new(USAGE, "--payload: of one file at a time"));
        };
        let bytes = Signable::read(one)?.payload()?;
        std::io::stdout().write_all(&bytes).map_err(|error| Failure::new(1, format!("stdout: {error}")))?;
        return Ok(0);
    };
    let key = private(path)?;
    let fingerprint = key.public("").fingerprint().to_owned();
    let mut done = Vec::new();
    let status =
        each_sync(&args.files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>(), |file| {
            let signable = Signable::read(file.as_ref())?;
            let signature = beside(file.as_ref());
            write_whole(&signature, &key.sign(&signable.payload()?))?;
            done.push(Signed {
                file: file.to_owned(),
                kind: signable.kind.as_str(),
                signature: signature.display().to_string(),
                key: fingerprint.clone(),
            });
            Ok(())
        })?;
    if printer.is_human() {
        lines(done.iter().map(|one| format!("{}: signed, the signature is {}", one.file, one.signature)))?;
    } else {
        printer.items(&done, |one| one.signature.clone(), || table(&[]))?;
    }
    Ok(status)
}

fn private(path: &Path) -> Outcome<SecretKey> {
    let text = fs::read(path)
        .map(|bytes| Zeroizing::new(String::from_utf8_lossy(&bytes).into_owned()))
        .map_err(|error| Failure::new(1, format!("cannot read {}", path.display())).cause(&error))?;
    SecretKey::parse(&text).map_err(|error| Failure::new(USAGE, format!("--key {}: {error}", path.display())))
}

/// Beside it first, so that there is never half a signature.
fn write_whole(path: &Path, text: &str) -> Outcome<()> {
    let failed =
        |error: &std::io::Error| Failure::new(1, format!("cannot write {}", path.display())).cause(error);
    let partial = match Partial::begin(path, &format!(".partial-{}", std::process::id()), true) {
        Ok(partial) => partial,
        Err(NotBegun::Cannot(_, error)) => return Err(failed(&error)),
        Err(NotBegun::Taken) => return Err(failed(&std::io::ErrorKind::AlreadyExists.into())),
    };
    let written = writeln!(partial.file(), "{text}")
        .and_then(|()| partial.file().set_permissions(Permissions::from_mode(0o644)))
        .and_then(|()| partial.into_place());
    written.map_err(|error| failed(&error))
}

#[derive(Serialize)]
struct Verified {
    file: String,
    kind: &'static str,
    name: String,
    key: String,
}

pub(super) fn verify(args: &TrustArgs, printer: Printer) -> Outcome {
    let trust = trust(args)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut done = Vec::new();
    let status =
        each_sync(&args.files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>(), |file| {
            let signable = Signable::read(file.as_ref())?;
            let by = trust
                .verify(signable.kind, &signable.payload()?, &signable.source.signature, now)
                .map_err(|error| Failure::coded(ErrorCode::SignatureInvalid, format!("{file}: {error}")))?;
            done.push(Verified {
                file: file.to_owned(),
                kind: signable.kind.as_str(),
                name: by.name,
                key: by.fingerprint,
            });
            Ok(())
        })?;
    if printer.is_human() {
        lines(
            done.iter()
                .map(|one| format!("{}: signed by {} (sha256:{})", one.file, one.name, &one.key[..16])),
        )?;
    } else {
        printer.items(&done, |one| one.file.clone(), || table(&[]))?;
    }
    Ok(status)
}

fn trust(args: &TrustArgs) -> Outcome<Trust> {
    let paths = if args.keys.is_empty() { keys_of(&args.trusted_keys)? } else { args.keys.clone() };
    if paths.is_empty() {
        return Err(Failure::new(USAGE, format!("{} has no key", args.trusted_keys.display()))
            .hint("--key FILE names the public key that must have signed"));
    }
    let mut files = Vec::new();
    for path in &paths {
        let source = Source::read(path)?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        files.push((name, String::from_utf8_lossy(&source.bytes).into_owned()));
    }
    Trust::parse(files.iter().map(|(name, text)| (name.as_str(), text.as_str()))).map_err(|wrong| {
        let told: Vec<_> = wrong.iter().map(ToString::to_string).collect();
        Failure::new(USAGE, told.join("\n"))
    })
}

fn keys_of(folder: &Path) -> Outcome<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)
        .map_err(|error| Failure::new(1, format!("cannot read {}", folder.display())).cause(&error))?;
    let mut keys: Vec<_> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "pub" || kind == "pem"))
        .filter(|path| path.file_name().is_none_or(|name| !name.as_encoded_bytes().starts_with(b".")))
        .collect();
    keys.sort();
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_is_what_the_file_says() {
        let kind = |text: &str| kind_of(&Source::of(text.as_bytes().to_vec(), "x")).ok();
        for (text, expected) in [
            ("apiVersion: aion.os/v1\nkind: Agent\n", Some(Kind::Agents)),
            ("\"kind\" : \"Tool\"  # mine\n", Some(Kind::Tools)),
            ("{kind: Tool, spec: {}}", Some(Kind::Tools)),
            ("kind: Detection\n", Some(Kind::Policies)),
            ("kind: CapabilityPolicy\r\n", Some(Kind::Policies)),
            ("spec:\n  kind: Tool\n", None),
            ("kind: Config\n", None),
            ("", None),
            ("kind: [", None),
        ] {
            assert_eq!(kind(text), expected, "{text:?}");
        }
    }
}
