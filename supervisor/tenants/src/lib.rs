//! Tenants: who may sign requests, with which secrets, and within which bounds.
//!
//! A tenant's secret is sealed on disk and open in memory only; it is compared in constant time and never logged. A rotation
//! leaves the old secret valid for a while. Neighbours: `aion-store` keeps the rows, `aion-http` asks [`Tenants::verify`] before
//! anything else. Calls that write block.

mod error;
mod nonces;
mod seal;
mod signature;
mod tenants;

pub use error::{AuthError, Error};
pub use seal::{SealError, Sealer, Secret};
pub use signature::{MAX_SKEW_MS, Signed, bearer, sign, sign_timed};
pub use tenants::{Overview, Settings, Standing, Tenant, Tenants};
