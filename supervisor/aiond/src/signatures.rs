//! The keys that are trusted: public keys in a folder, read again with a reload.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use aion_signing::{EXTENSION, Guard, Kind, Reason, Trust};
use anyhow::{Context as _, Result, ensure};

use crate::config::read;
use crate::options::{MustBeSigned, Options};

/// Keys in the folder.
const MAX_KEYS: usize = 256;

/// What must be signed, as the options say, by the keys of their folder.
pub(crate) fn guard(options: &Options) -> Result<Guard> {
    let mut required = BTreeSet::new();
    for word in &options.require_signed {
        match word {
            MustBeSigned::Nothing => {}
            MustBeSigned::Everything => required.extend(Kind::ALL),
            MustBeSigned::One(kind) => {
                required.insert(*kind);
            }
        }
    }
    let trust = trust(&options.trusted_keys)?;
    if trust.is_empty() && !required.is_empty() {
        tracing::warn!(keys = %options.trusted_keys.display(), "no key is trusted: what must be signed is refused");
    }
    Ok(Guard::new(required, trust))
}

/// Reads the keys of a folder: none, when it is not there.
pub(crate) fn trust(folder: &Path) -> Result<Trust> {
    let context = || format!("cannot read {}", folder.display());
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Trust::default()),
        entries => entries.with_context(context)?,
    };
    not_writable(folder)?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.with_context(context)?.path();
        let is_key = path.extension().is_some_and(|kind| kind == "pub" || kind == "pem");
        if !is_key || path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".")) {
            continue;
        }
        let Some(bytes) = read(&path)? else { continue };
        not_writable(&path)?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        files.push((name, String::from_utf8_lossy(&bytes).into_owned()));
    }
    ensure!(files.len() <= MAX_KEYS, "{} has more than {MAX_KEYS} keys", folder.display());
    files.sort();
    Trust::parse(files.iter().map(|(name, text)| (name.as_str(), text.as_str()))).map_err(|wrong| {
        let told: Vec<_> = wrong.iter().map(|error| format!("{}/{error}", folder.display())).collect();
        anyhow::anyhow!("{}", told.join("\n"))
    })
}

/// Whoever may write a key decides what is trusted.
fn not_writable(path: &Path) -> Result<()> {
    let mode = std::fs::metadata(path)
        .with_context(|| format!("cannot read {}", path.display()))?
        .permissions()
        .mode();
    ensure!(
        mode & 0o022 == 0,
        "{} may be written by others than its owner (mode {:03o}): chmod go-w it",
        path.display(),
        mode & 0o777
    );
    Ok(())
}

/// When a policy is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// At a start, when nothing else holds: one whose key has expired is taken, for the host must come up with its rules.
    Start,
    /// While others hold.
    Reload,
}

/// A policy's file, looked at before it is used: its signature lies beside it.
///
/// # Errors
/// It must be signed and is not, or by nobody who is trusted.
pub(crate) fn admit(guard: &Guard, path: &Path, bytes: &[u8], when: When) -> Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{EXTENSION}"));
    let signature = read(Path::new(&beside))?.unwrap_or_default();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    match guard.admit(Kind::Policies, bytes, &String::from_utf8_lossy(&signature), now) {
        Ok(Some(by)) => {
            tracing::debug!(path = %path.display(), %by, "a policy is signed");
            Ok(())
        }
        Ok(None) => Ok(()),
        Err(error) if error.reason == Reason::Expired && when == When::Start => {
            tracing::warn!(path = %path.display(), %error, "taken at this start, and not with a reload: sign it anew");
            Ok(())
        }
        Err(error) => anyhow::bail!("{}: {error} ({})", path.display(), Path::new(&beside).display()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;

    use aion_signing::SecretKey;

    use super::*;

    fn folder(name: &str) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("aiond-signatures-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    fn key() -> SecretKey {
        SecretKey::from_bytes(&[1; 32]).unwrap()
    }

    #[test]
    fn keys_are_files_that_their_owner_alone_may_write() {
        let folder = folder("keys");
        assert!(trust(&folder.join("none")).unwrap().is_empty());
        let file = folder.join("release.pub");
        std::fs::write(&file, key().public_pem()).unwrap();
        std::fs::write(folder.join("notes.txt"), "no key").unwrap();
        std::fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        let found = trust(&folder).unwrap();
        assert_eq!(found.keys().iter().map(aion_signing::PublicKey::name).collect::<Vec<_>>(), ["release"]);
        std::fs::set_permissions(&file, Permissions::from_mode(0o664)).unwrap();
        assert!(trust(&folder).unwrap_err().to_string().contains("release.pub may be written by others"));
        std::fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        std::fs::write(folder.join("other.pem"), "nothing").unwrap();
        assert!(trust(&folder).unwrap_err().to_string().contains("other: there is no PEM block"));
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_policy_has_its_signature_beside_it() {
        let folder = folder("policy");
        let pem = key().public_pem();
        let guard = Guard::new([Kind::Policies], Trust::parse([("a", pem.as_str())]).unwrap());
        let path = folder.join("rules.yaml");
        let admit = |bytes: &[u8]| admit(&guard, &path, bytes, When::Reload);
        assert!(admit(b"x").unwrap_err().to_string().contains("rules.yaml: it is not signed"));
        std::fs::write(folder.join("rules.yaml.sig"), key().sign(b"x")).unwrap();
        admit(b"x").unwrap();
        assert!(admit(b"y").is_err());
        // An expired key keeps no host from coming up, and brings nothing new.
        let old = format!("not-after: 2001-01-01\n{pem}");
        guard.exchange(Trust::parse([("a", old.as_str())]).unwrap());
        assert!(admit(b"x").unwrap_err().to_string().contains("expired"));
        super::admit(&guard, &path, b"x", When::Start).unwrap();
        assert!(super::admit(&guard, &path, b"y", When::Start).is_err());
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
