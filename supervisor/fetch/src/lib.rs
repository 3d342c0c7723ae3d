//! HTTP requests on behalf of callers that nobody trusts.
//!
//! ```text
//! params ─▶ Request ─▶ Gate::host ─▶ lookup ─▶ Gate::address, each ─▶ connect to that address ─▶ Answer
//!                          ▲                                                          │
//!                          └──────────────────────── redirect ────────────────────────┘
//! ```
//! [`Fetcher`] is cheap to clone. It reads no variable for proxies, keeps no connection or cookie, decompresses nothing, and
//! follows a redirect only through the same [`Gate`] as the request. Invariant: a connection goes to an address that the gate has
//! let through, and no name is looked up between.

mod address;
mod answer;
mod error;
mod exchange;
mod fetch;
mod request;
mod target;

pub use address::{Special, special};
pub use aion_egress::Kind as SpecialKind;
pub use answer::{Answer, Hop};
pub use error::{Error, Failure};
pub use fetch::{Fetcher, Gate, Lookup};
pub use http::header::{HeaderMap, HeaderName, HeaderValue};
pub use request::{DEFAULT_BYTES, MAX_BODY, MAX_BYTES, Request, header_name};
pub use target::{MAX_URL, Target};
