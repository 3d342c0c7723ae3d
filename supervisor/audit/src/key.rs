//! The signing key: a file that only root reads, which also carries the lock of the one writer.
//!
//! The lock sits on this file and not in the log's folder because anyone who can open a file can lock it.

use std::fmt;
use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::str::FromStr;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use zeroize::Zeroizing;

use crate::{Error, Result};

/// An Ed25519 public key; its text form is 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    pub(crate) fn verifies(&self, message: &[u8], signature: &str) -> bool {
        let mut bytes = [0; 64];
        // `verify_strict` refuses the malleable encodings, so that one signature has one text.
        !signature.bytes().any(|b| b.is_ascii_uppercase())
            && hex::decode_to_slice(signature, &mut bytes).is_ok()
            && self.0.verify_strict(message, &Signature::from_bytes(&bytes)).is_ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0.as_bytes()))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl FromStr for PublicKey {
    type Err = &'static str;
    fn from_str(text: &str) -> std::result::Result<Self, &'static str> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| "not 64 hex digits")?;
        VerifyingKey::from_bytes(&bytes).map(Self).map_err(|_| "not a point of the curve")
    }
}

/// The private key, with the lock.
pub(crate) struct Key {
    signing: SigningKey,
    _lock: File,
}

impl Key {
    /// Opens the key and takes the lock; makes a key when there is none and `may_create`.
    pub(crate) fn open(path: &Path, dir: &Path, may_create: bool) -> Result<Self> {
        let mut file = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && may_create => create(path)?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::KeyMissing { dir: dir.to_owned(), key: path.to_owned() });
            }
            Err(e) => return Err(Error::io("open", path)(e)),
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::Locked { key: path.to_owned() }),
            Err(TryLockError::Error(e)) => return Err(Error::io("lock", path)(e)),
        }
        let mode = file.metadata().map_err(Error::io("read", path))?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(Error::KeyInvalid { path: path.to_owned(), why: "others than its owner may use it" });
        }
        let mut text = Zeroizing::new(String::new());
        file.read_to_string(&mut text).map_err(Error::io("read", path))?;
        let mut seed = Zeroizing::new([0; 32]);
        hex::decode_to_slice(text.trim_end(), &mut *seed)
            .map_err(|_| Error::KeyInvalid { path: path.to_owned(), why: "not 64 hex digits" })?;
        Ok(Self { signing: SigningKey::from_bytes(&seed), _lock: file })
    }

    pub(crate) fn public(&self) -> PublicKey {
        PublicKey(self.signing.verifying_key())
    }

    /// The signature as hex.
    pub(crate) fn sign(&self, message: &[u8]) -> String {
        hex::encode(self.signing.sign(message).to_bytes())
    }
}

/// Writes a new key beside the place and links it there, so that a half-written key is never found.
fn create(path: &Path) -> Result<File> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *seed).map_err(|e| Error::NoRandom { why: e.to_string() })?;
    // One allocation, so that no copy of the digits is left behind in freed memory.
    let mut text = Zeroizing::new([b'\n'; 65]);
    if let Some(digits) = text.get_mut(..64) {
        hex::encode_to_slice(*seed, digits).map_err(|e| Error::NoRandom { why: e.to_string() })?;
    }
    let temporary = path.with_extension("new");
    let _ = fs::remove_file(&temporary);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(Error::io("create", &temporary))?;
    file.set_permissions(Permissions::from_mode(0o600)).map_err(Error::io("protect", &temporary))?;
    file.write_all(&*text).map_err(Error::io("write", &temporary))?;
    file.sync_all().map_err(Error::io("sync", &temporary))?;
    fs::rename(&temporary, path).map_err(Error::io("rename to", path))?;
    if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        File::open(parent).and_then(|d| d.sync_all()).map_err(Error::io("sync", parent))?;
    }
    OpenOptions::new().read(true).write(true).open(path).map_err(Error::io("open", path))
}
