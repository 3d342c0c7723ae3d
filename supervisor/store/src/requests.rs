//! Request ids: a mutation that is repeated answers what the first did.
//!
//! A row is written as [`RequestRow::pending`] in the same batch as the mutation's first effect and completed with its
//! outcome. A row that is still pending after a crash tells the next attempt that the first one may have happened.

use aion_types::TenantId;
use sha2::{Digest as _, Sha256};

use crate::batch::{Batch, Durability};
use crate::db::Store;
use crate::error::Error;
use crate::{codec, keys};

/// Whose request, and which.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RequestKey {
    /// Ids of two tenants never meet.
    pub tenant: TenantId,
    /// As the client chose it.
    pub id: String,
}

/// SHA-256 of the method and the encoded request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestHash([u8; 32]);

impl RequestHash {
    /// Hashes a request.
    #[must_use]
    pub fn of(method: &str, request: &[u8]) -> Self {
        let mut hash = Sha256::new();
        hash.update(method.as_bytes());
        hash.update([0]);
        hash.update(request);
        Self(hash.finalize().into())
    }
}

/// How a request ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoredOutcome {
    /// The encoded response.
    Ok(Vec<u8>),
    /// gRPC code, message and the encoded details.
    Err {
        /// gRPC code.
        code: i32,
        /// Message.
        message: String,
        /// `google.rpc.Status`, encoded.
        details: Vec<u8>,
    },
}

/// What is known about a request id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestRow {
    /// The request itself, to tell a repetition from a mistake.
    pub hash: RequestHash,
    /// The agent that it is about, so that a pending one can be finished.
    pub agent: Option<String>,
    /// None while it is under way.
    pub outcome: Option<StoredOutcome>,
    /// When the row may go.
    pub expires_ns: u64,
}

impl RequestRow {
    /// A request that has just begun.
    #[must_use]
    pub const fn pending(hash: RequestHash, agent: Option<String>, expires_ns: u64) -> Self {
        Self { hash, agent, outcome: None, expires_ns }
    }
}

/// The row on disk.
#[derive(Clone, PartialEq, prost::Message)]
struct Encoded {
    #[prost(bytes = "vec", tag = "1")]
    hash: Vec<u8>,
    #[prost(string, optional, tag = "2")]
    agent: Option<String>,
    #[prost(uint64, tag = "3")]
    expires_ns: u64,
    #[prost(bytes = "vec", optional, tag = "4")]
    response: Option<Vec<u8>>,
    #[prost(message, optional, tag = "5")]
    refusal: Option<Refusal>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Refusal {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(bytes = "vec", tag = "3")]
    details: Vec<u8>,
}

impl RequestRow {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let (response, refusal) = match self.outcome.clone() {
            None => (None, None),
            Some(StoredOutcome::Ok(response)) => (Some(response), None),
            Some(StoredOutcome::Err { code, message, details }) => {
                (None, Some(Refusal { code, message, details }))
            }
        };
        codec::message(&Encoded {
            hash: self.hash.0.to_vec(),
            agent: self.agent.clone(),
            expires_ns: self.expires_ns,
            response,
            refusal,
        })
    }

    fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let row: Encoded = codec::from_message(keys::REQUESTS, bytes)?;
        let hash = <[u8; 32]>::try_from(row.hash.as_slice())
            .map_err(|e| Error::Corrupt { family: keys::REQUESTS, detail: e.to_string() })?;
        let outcome = match (row.response, row.refusal) {
            (Some(response), _) => Some(StoredOutcome::Ok(response)),
            (None, Some(Refusal { code, message, details })) => {
                Some(StoredOutcome::Err { code, message, details })
            }
            (None, None) => None,
        };
        Ok(Self { hash: RequestHash(hash), agent: row.agent, outcome, expires_ns: row.expires_ns })
    }
}

impl Store {
    /// What is known about a request id; nothing once it has expired.
    ///
    /// # Errors
    /// When the row cannot be read.
    pub fn request(&self, key: &RequestKey, now_ns: u64) -> Result<Option<RequestRow>, Error> {
        let Some(bytes) = self.get(keys::REQUESTS, &keys::request(&key.tenant, &key.id))? else {
            return Ok(None);
        };
        let row = RequestRow::decode(&bytes)?;
        Ok((row.expires_ns > now_ns).then_some(row))
    }

    /// Drops expired rows, at most `limit` of them; returns how many went.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub fn expire_requests(&self, now_ns: u64, limit: usize) -> Result<usize, Error> {
        let mut due = Vec::new();
        self.scan(keys::REQUESTS, b"t", |key, _| {
            let Some((at, _)) = keys::expiry_parts(key) else { return false };
            if at > now_ns || due.len() >= limit {
                return false;
            }
            due.push(key.to_vec());
            true
        })?;
        let mut batch = Batch::bookkeeping();
        for key in &due {
            batch.delete(keys::REQUESTS, key.clone());
            let Some((_, request)) = keys::expiry_parts(key) else { continue };
            // The id may have been used anew since: then its row carries a later expiry.
            if let Some(bytes) = self.get(keys::REQUESTS, request)? {
                let row = RequestRow::decode(&bytes)?;
                if row.expires_ns <= now_ns {
                    batch.delete(keys::REQUESTS, request);
                }
            }
        }
        if !batch.is_empty() {
            self.commit(batch, Durability::Process)?;
        }
        Ok(due.len())
    }
}
