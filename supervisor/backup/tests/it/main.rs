//! Archives as those who need them meet them: whole, damaged, made by somebody else, and turned into a state.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may stop")]

mod damage;
mod hostile;
mod restore;
mod support;
