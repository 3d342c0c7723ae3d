//! The harness of the end-to-end suite: a pair of real daemons on a state folder of their own, the real command
//! line, and a look from outside at what is left behind.
//!
//! Other suites use it too. It knows nothing of how the daemons work inside: it starts programs, sends signals,
//! and reads what the command line, /proc and /sys say.

mod ctl;
mod daemons;
mod leftovers;
mod place;
mod scale;
mod suite;
mod wait;

pub use ctl::{Ctl, Done, Live};
pub use daemons::{Daemons, Which};
pub use leftovers::{Leftovers, leftovers};
pub use place::{Place, why_not};
pub use scale::{Scale, slowness};
pub use suite::{Options, Report, Suite, Verdict};
pub use wait::{eventually, until};
