//! What can go wrong with tenants, and with signatures.

use aion_types::TenantId;

/// A change of a tenant that is not made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is one of this name.
    #[error("there is a tenant {name} already")]
    Exists {
        /// Its name.
        name: TenantId,
    },
    /// There is none of this name.
    #[error("there is no tenant {name}")]
    NotFound {
        /// The name.
        name: TenantId,
    },
    /// A field that is not valid.
    #[error("{message}")]
    Invalid {
        /// Which.
        field: &'static str,
        /// What is wrong.
        message: String,
    },
    /// The seal failed.
    #[error("a tenant's secret cannot be sealed or opened")]
    Seal(#[source] crate::seal::SealError),
    /// A row that does not read as it was written.
    #[error("the record of tenant {name} cannot be read")]
    Corrupt {
        /// Whose.
        name: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] aion_store::Error),
}

/// Why a request is not let in. What is told to the caller is the same for an unknown tenant and a wrong secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// No tenant is named, or none that can be.
    #[error("X-Tenant-Id is missing, or is not a tenant's name")]
    NoTenant,
    /// There is no signature, or it does not look like one.
    #[error("X-Sig-HMAC is missing, or is not 64 hexadecimal digits")]
    NoSignature,
    /// Unknown tenant, wrong secret or altered body.
    #[error("the signature does not fit: wrong tenant, wrong secret, or the body was altered on its way")]
    Mismatch,
    /// The tenant requires a time and a nonce.
    #[error("this tenant requires X-Timestamp and X-Nonce")]
    TimeRequired,
    /// One of the two is missing or cannot be read.
    #[error(
        "X-Timestamp must be milliseconds since 1970, X-Nonce 8 to 64 letters, digits, '-' and '_': both or none"
    )]
    BadTime,
    /// Too old, or from the future.
    #[error("X-Timestamp differs by more than five minutes from the kernel's clock: set the clock")]
    Skew,
    /// From before the kernel's start, which remembers nothing of it.
    #[error("the request was signed before the kernel's start: sign it anew")]
    BeforeStart,
    /// The nonce was used before.
    #[error("a request with this nonce was taken already")]
    Replayed,
    /// No more nonces can be remembered now.
    #[error("too many requests with nonces are remembered, or the disk takes no more: try again later")]
    NoRoom,
    /// A certificate that is over, or of nobody.
    #[error("the certificate names no tenant that is there, or is over")]
    Certificate,
    /// Too many requests with wrong signatures.
    #[error("too many requests with wrong signatures")]
    TooMany,
}
