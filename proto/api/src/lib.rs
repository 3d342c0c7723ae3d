//! The public API's messages, clients and servers, generated from `proto/aion/v1`.
//!
//! Nothing is written by hand here except the two constants; neighbours are `aion-api` (serves it) and
//! `aion-client` (calls it).

/// Package `aion.v1`.
#[expect(missing_docs, reason = "generated; the .proto files are the documentation")]
#[allow(clippy::all, clippy::pedantic, clippy::allow_attributes_without_reason, reason = "generated")]
pub mod v1 {
    tonic::include_proto!("aion.v1");
}

/// The compiled descriptors of package `aion.v1`, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/aion.v1.fds"));

/// The domain of every ErrorInfo that AION sends.
pub const ERROR_DOMAIN: &str = "aion";
