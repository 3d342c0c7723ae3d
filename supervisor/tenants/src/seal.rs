//! Sealing: what lies on disk is XChaCha20-Poly1305 under a key of the instance, bound to what it is and whose.
//!
//! The key is a file of its own, readable by aiond's user alone, so that a copy of the database alone opens nothing.

use std::fs::OpenOptions;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use zeroize::Zeroizing;

const NONCE: usize = 24;

/// Bytes that are wiped when they are dropped, and that `Debug` does not show.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes the bytes.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes, for those who need them.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Why sealing or opening failed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The key's file.
    #[error("the key {path} cannot be read or made")]
    Key {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The key's file does not hold 32 bytes.
    #[error("the key {path} does not have 32 bytes")]
    KeyLength {
        /// Where.
        path: PathBuf,
    },
    /// No randomness.
    #[error("there is no randomness")]
    Random,
    /// Sealed under another key, for something else, or altered.
    #[error("the seal does not open: another key, or it was altered")]
    Broken,
}

/// Seals and opens. Cheap to clone.
#[derive(Clone)]
pub struct Sealer(XChaCha20Poly1305);

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealer(…)")
    }
}

impl Sealer {
    /// With the key in a file, which is made when it is not there (0600).
    ///
    /// # Errors
    /// [`SealError`] when it can neither be read nor made.
    pub fn open(path: &Path) -> Result<Self, SealError> {
        let failed = |source| SealError::Key { path: path.to_owned(), source };
        let mut key = Zeroizing::new(Vec::new());
        match OpenOptions::new().read(true).custom_flags(libc_nofollow()).open(path) {
            Ok(file) => {
                file.take(64).read_to_end(&mut key).map_err(failed)?;
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                key.resize(32, 0);
                getrandom::fill(&mut key).map_err(|_| SealError::Random)?;
                write_new(path, &key).map_err(failed)?;
            }
            Err(error) => return Err(failed(error)),
        }
        let key: &[u8; 32] =
            key.as_slice().try_into().map_err(|_| SealError::KeyLength { path: path.to_owned() })?;
        Ok(Self(XChaCha20Poly1305::new(Key::from_slice(key))))
    }

    /// Seals a secret for a place: it opens nowhere else.
    ///
    /// # Errors
    /// [`SealError::Random`].
    pub fn seal(&self, place: &str, secret: &Secret) -> Result<Vec<u8>, SealError> {
        let mut sealed = vec![0; NONCE];
        getrandom::fill(&mut sealed).map_err(|_| SealError::Random)?;
        let payload = Payload { msg: secret.expose(), aad: place.as_bytes() };
        let text = self.0.encrypt(XNonce::from_slice(&sealed), payload).map_err(|_| SealError::Broken)?;
        sealed.extend_from_slice(&text);
        Ok(sealed)
    }

    /// Opens what was sealed for this place.
    ///
    /// # Errors
    /// [`SealError::Broken`].
    pub fn open_sealed(&self, place: &str, sealed: &[u8]) -> Result<Secret, SealError> {
        let (nonce, text) = sealed.split_at_checked(NONCE).ok_or(SealError::Broken)?;
        let payload = Payload { msg: text, aad: place.as_bytes() };
        let opened = self.0.decrypt(XNonce::from_slice(nonce), payload).map_err(|_| SealError::Broken)?;
        Ok(Secret::new(opened))
    }
}

/// A new file in the place, whole or not at all.
fn write_new(path: &Path, key: &[u8]) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).create(folder)?;
        std::fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    }
    let fresh = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(key)?;
    file.sync_all()?;
    std::fs::rename(&fresh, path)?;
    if let Some(folder) = path.parent() {
        std::fs::File::open(folder)?.sync_all()?;
    }
    Ok(())
}

/// `O_NOFOLLOW` of Linux, the same on all its architectures that AION runs on but the number.
const fn libc_nofollow() -> i32 {
    if cfg!(any(target_arch = "aarch64", target_arch = "arm")) { 0o100_000 } else { 0o400_000 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_in_its_place_with_its_key_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys/seal.key");
        let sealer = Sealer::open(&path).unwrap();
        let secret = Secret::new(b"hunter2".to_vec());
        let sealed = sealer.seal("tenant a", &secret).unwrap();
        assert!(!sealed.windows(7).any(|w| w == b"hunter2"));
        let again = Sealer::open(&path).unwrap();
        assert_eq!(again.open_sealed("tenant a", &sealed).unwrap(), secret);
        assert!(again.open_sealed("tenant b", &sealed).is_err());
        let mut altered = sealed.clone();
        *altered.last_mut().unwrap() ^= 1;
        assert!(again.open_sealed("tenant a", &altered).is_err());
        assert!(again.open_sealed("tenant a", &sealed[..5]).is_err());
        let other = Sealer::open(&dir.path().join("other.key")).unwrap();
        assert!(other.open_sealed("tenant a", &sealed).is_err());
        assert_eq!(format!("{secret:?}{sealer:?}"), "Secret(…)Sealer(…)");
    }

    #[test]
    fn the_key_is_nobody_else_s() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys/seal.key");
        Sealer::open(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::write(&path, b"short").unwrap();
        assert!(matches!(Sealer::open(&path), Err(SealError::KeyLength { .. })));
    }
}
