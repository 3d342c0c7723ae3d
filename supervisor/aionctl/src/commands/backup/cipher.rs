//! Encryption of backups, in the format of `age`, so that `age -d` opens them without AION.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;
use std::str::FromStr as _;

use age::secrecy::SecretString;
use age::stream::StreamWriter;
use age::{DecryptError, Decryptor, Encryptor, Identity, IdentityFile, scrypt, x25519};
use aion_types::ErrorCode;

use crate::cli::Keys;
use crate::failure::{Failure, Outcome, USAGE};

/// How an encrypted file begins.
const MAGIC: &[u8] = b"age-encryption.org/v1\n";
/// How long a guess at a passphrase takes, as a power of two: about a second, and 256 MiB. What `age` takes.
const WORK: u8 = 18;
/// The most that is spent on a file from somewhere, and what `age` allows.
const MAX_WORK: u8 = 22;
/// A passphrase file is no disk image.
const MAX_PASSPHRASE: u64 = 64 << 10;

/// For whom a backup is encrypted.
pub(super) enum Lock {
    Open,
    Passphrase(SecretString),
    Recipients(Vec<x25519::Recipient>),
}

impl Lock {
    pub(super) fn new(passphrase: Option<&Path>, recipients: &[String]) -> Outcome<Self> {
        if let Some(path) = passphrase {
            return Ok(Self::Passphrase(read_passphrase(path)?));
        }
        if recipients.is_empty() {
            return Ok(Self::Open);
        }
        let parsed = recipients.iter().map(|text| {
            x25519::Recipient::from_str(text).map_err(|why| {
                let is_private = text.to_ascii_uppercase().starts_with("AGE-SECRET-KEY");
                let shown = if is_private { "(a private key)" } else { text };
                Failure::new(USAGE, format!("--recipient {shown}: it is no public key of age: {why}"))
                    .hint("`age-keygen -o key.txt` makes a pair and prints the public key, age1...")
            })
        });
        parsed.collect::<Outcome<_>>().map(Self::Recipients)
    }

    pub(super) const fn is_open(&self) -> bool {
        matches!(self, Self::Open)
    }

    /// What is written to the end and then [finished](Sealed::finish) is in `out`.
    pub(super) fn seal<W: Write>(&self, out: W) -> Outcome<Sealed<W>> {
        let encryptor = match self {
            Self::Open => return Ok(Sealed::Plain(out)),
            Self::Passphrase(passphrase) => {
                let mut recipient = scrypt::Recipient::new(passphrase.clone());
                recipient.set_work_factor(WORK);
                Encryptor::with_recipients(std::iter::once(&recipient as &dyn age::Recipient))
            }
            Self::Recipients(all) => {
                Encryptor::with_recipients(all.iter().map(|one| one as &dyn age::Recipient))
            }
        };
        let encryptor = encryptor.map_err(|error| Failure::new(1, "cannot encrypt").cause(&error))?;
        Ok(Sealed::Age(encryptor.wrap_output(out)?))
    }
}

/// A file that is encrypted while it is written, or not.
pub(super) enum Sealed<W: Write> {
    Plain(W),
    Age(StreamWriter<W>),
}

impl<W: Write> Sealed<W> {
    /// Without it an encrypted file lacks its end, and does not open.
    pub(super) fn finish(self) -> io::Result<W> {
        match self {
            Self::Plain(out) => Ok(out),
            Self::Age(out) => out.finish(),
        }
    }
}

impl<W: Write> Write for Sealed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(out) => out.write(bytes),
            Self::Age(out) => out.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(out) => out.flush(),
            Self::Age(out) => out.flush(),
        }
    }
}

/// A backup as it is read: decrypted where it is encrypted.
pub(super) struct Opened {
    pub(super) input: Box<dyn Read>,
    pub(super) encrypted: bool,
}

pub(super) fn open(path: &Path, keys: &Keys) -> Outcome<Opened> {
    let unreadable =
        |error: io::Error| Failure::new(1, format!("cannot read {}", path.display())).cause(&error);
    let mut from: Box<dyn Read> = match path.as_os_str() == "-" {
        true => Box::new(io::stdin()),
        false => Box::new(File::open(path).map_err(unreadable)?),
    };
    let mut begin = Vec::new();
    from.by_ref().take(MAGIC.len() as u64).read_to_end(&mut begin).map_err(unreadable)?;
    let encrypted = begin == MAGIC;
    let whole = io::Cursor::new(begin).chain(from);
    if !encrypted {
        return Ok(Opened { input: Box::new(BufReader::with_capacity(1 << 20, whole)), encrypted });
    }
    let decryptor = Decryptor::new(BufReader::with_capacity(1 << 20, whole)).map_err(|e| locked(path, &e))?;
    let identities = identities(keys, decryptor.is_scrypt())?;
    let plain = decryptor
        .decrypt(identities.iter().map(|identity| identity.as_ref() as &dyn Identity))
        .map_err(|error| locked(path, &error))?;
    Ok(Opened { input: Box::new(BufReader::with_capacity(1 << 20, plain)), encrypted })
}

fn identities(keys: &Keys, wants_passphrase: bool) -> Outcome<Vec<Box<dyn Identity>>> {
    if wants_passphrase {
        let Some(path) = &keys.passphrase_file else {
            return Err(Failure::coded(ErrorCode::BackupLocked, "the backup is encrypted with a passphrase")
                .hint("give it in a file: --passphrase-file FILE"));
        };
        let mut identity = scrypt::Identity::new(read_passphrase(path)?);
        identity.set_max_work_factor(MAX_WORK);
        return Ok(vec![Box::new(identity)]);
    }
    if keys.identities.is_empty() {
        return Err(Failure::coded(ErrorCode::BackupLocked, "the backup is encrypted for a public key")
            .hint("give the file with the private key: --identity FILE"));
    }
    let mut all: Vec<Box<dyn Identity>> = Vec::new();
    for path in &keys.identities {
        let unusable = |error: &dyn std::error::Error| {
            Failure::new(USAGE, format!("--identity {}: it has no private key of age", path.display()))
                .cause(error)
                .hint("it is the file that `age-keygen -o FILE` wrote")
        };
        let file = File::open(path).map_err(|error| unusable(&error))?;
        let file = IdentityFile::from_buffer(BufReader::new(file)).map_err(|error| unusable(&error))?;
        all.extend(file.into_identities().map_err(|error| unusable(&error))?);
    }
    Ok(all)
}

fn locked(path: &Path, error: &DecryptError) -> Failure {
    match error {
        DecryptError::Io(error) if error.kind() != io::ErrorKind::UnexpectedEof => {
            Failure::new(1, format!("cannot read {}", path.display())).cause(error)
        }
        DecryptError::DecryptionFailed
        | DecryptError::KeyDecryptionFailed
        | DecryptError::NoMatchingKeys
        | DecryptError::ExcessiveWork { .. } => Failure::coded(
            ErrorCode::BackupLocked,
            format!("{} does not open with what was given", path.display()),
        )
        .cause(error)
        .hint("give the passphrase, or the private key, of when it was made"),
        _ => Failure::coded(
            ErrorCode::BackupBroken,
            format!("{}: what says for whom it is encrypted was changed or cut off", path.display()),
        )
        .cause(error),
    }
}

/// The first line. An empty one would be no secret.
fn read_passphrase(path: &Path) -> Outcome<SecretString> {
    let wrong = |why: &str| Failure::new(USAGE, format!("--passphrase-file {}: {why}", path.display()));
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(MAX_PASSPHRASE).read_to_string(&mut text))
        .map_err(|error| wrong("it cannot be read").cause(&error))?;
    match text.lines().next().filter(|line| !line.trim().is_empty()) {
        Some(line) => Ok(SecretString::from(line.to_owned())),
        None => Err(wrong("its first line is empty")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(passphrase_file: Option<&Path>, identity: Option<&Path>) -> Keys {
        Keys {
            passphrase_file: passphrase_file.map(Path::to_owned),
            identities: identity.map(Path::to_owned).into_iter().collect(),
        }
    }

    fn seal(lock: &Lock, to: &Path) {
        let mut out = lock.seal(File::create(to).unwrap()).unwrap();
        out.write_all(&[7; 200_000]).unwrap();
        out.finish().unwrap();
    }

    fn opened(path: &Path, keys: &Keys) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        let mut opened = open(path, keys).map_err(|failure| failure.render())?;
        opened.input.read_to_end(&mut bytes).map_err(|error| error.to_string())?;
        Ok(bytes)
    }

    #[test]
    fn it_opens_with_its_own_key_and_no_other() {
        use age::secrecy::ExposeSecret as _;

        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let (key, other) = (x25519::Identity::generate(), x25519::Identity::generate());
        for (name, key) in [("key", &key), ("other", &other)] {
            std::fs::write(path(name), key.to_string().expose_secret()).unwrap();
        }
        let lock = Lock::new(None, &[key.to_public().to_string()]).unwrap();
        seal(&lock, &path("b"));
        assert_eq!(opened(&path("b"), &keys(None, Some(&path("key")))).unwrap(), [7; 200_000]);
        let refused = opened(&path("b"), &keys(None, Some(&path("other")))).unwrap_err();
        assert!(refused.contains("BACKUP_LOCKED"), "{refused}");
        assert!(opened(&path("b"), &keys(None, None)).unwrap_err().contains("--identity"));

        // A change or a cut anywhere is told, and never taken for the end.
        let whole = std::fs::read(path("b")).unwrap();
        for at in [30, 150, whole.len() / 2, whole.len() - 1] {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            std::fs::write(path("c"), &bytes).unwrap();
            assert!(opened(&path("c"), &keys(None, Some(&path("key")))).is_err(), "byte {at}");
            std::fs::write(path("c"), &whole[..at]).unwrap();
            assert!(opened(&path("c"), &keys(None, Some(&path("key")))).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn passphrases_are_first_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("right"), "correct horse\nsecond line\n").unwrap();
        std::fs::write(path("wrong"), "battery staple\n").unwrap();
        std::fs::write(path("empty"), "\n").unwrap();
        seal(&Lock::new(Some(&path("right")), &[]).unwrap(), &path("b"));
        assert_eq!(opened(&path("b"), &keys(Some(&path("right")), None)).unwrap().len(), 200_000);
        let refused = opened(&path("b"), &keys(Some(&path("wrong")), None)).unwrap_err();
        assert!(refused.contains("BACKUP_LOCKED"), "{refused}");
        assert!(Lock::new(Some(&path("empty")), &[]).is_err());
        assert!(Lock::new(None, &["age1nonsense".to_owned()]).is_err());
    }
}
