//! The protocol between aiond and aion-launcher: messages and frames.
//!
//! [`v1`] is generated from `proto/aion/launcher/v1/launcher.proto`, whose comments are the reference.
//! [`frame`] cuts a byte stream into messages; both sides and the fuzz target use it. No I/O here.

pub mod frame;

/// Messages of protocol version 1.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::doc_markdown,
    clippy::large_enum_variant,
    reason = "generated from the .proto, which is documented"
)]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/aion.launcher.v1.rs"));
}

/// The version that `Hello` and `HelloOk` carry.
pub const PROTOCOL: u32 = 1;
