//! The kernel API's contract and its judgement: what a system call looks like, who may make it, and what it may cost.
//!
//! ```text
//! bytes ─Request::parse─▶ Request ─decide─▶ Decision ─Ledger::reserve─▶ (work) ─Ledger::settle─▶ Answer
//! ```
//! Everything here is pure: no I/O, no clock. Neighbours: `aion-kernel` does what is allowed here, `aion-http` and `aion-api`
//! carry requests and answers.

mod answer;
mod budget;
mod decide;
mod name;
mod refusal;
mod request;

pub use answer::{Answer, Engine, EngineKind, ErrorBody, Status, Usage};
pub use budget::{Account, Ledger, Limit, Limits, Reservation, Shortage};
pub use decide::{Ask, Authority, Decision, Layer, Need, Step, decide};
pub use name::{MAX_NAME, SyscallName};
pub use refusal::{Reason, Refusal};
pub use request::{Budget, CallContext, MAX_BODY, Request, SCHEMA, shown_field, usd_micros};
