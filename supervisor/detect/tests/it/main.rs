//! The engine as its callers use it: rules in, events in, findings out.

#![expect(clippy::unwrap_used, reason = "a test may stop")]

mod bounds;
mod rules;
mod stream;
