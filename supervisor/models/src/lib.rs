//! Models behind one interface: routes, bounds, prices, retries and caches calls of OpenAI-compatible backends.
//!
//! A call goes through types that carry the proof: [`Request`] (parsed and bounded), [`Plan`] (a backend that privacy
//! allows, with a [`Quote`] of the most that it can cost), then [`Answer`] or [`Generation`] with what it did cost.
//! Neighbours: the kernel above decides who may call what and pays; provider keys come from `aion-tenants` and never
//! leave this crate but in a request's header to the backend that they belong to.

mod answer;
mod attempt;
mod bound;
mod breaker;
mod cache;
mod config;
mod error;
mod estimate;
mod generation;
mod key;
mod loopback;
mod metrics;
mod model;
mod models;
mod options;
mod plan;
mod price;
mod render;
mod request;
mod retry;
mod sse;
mod transport;

pub use answer::{Answer, Call};
pub use breaker::State as BreakerState;
pub use config::{Kind, ModelConfig, OutputLimit, Problem};
pub use error::{CloudRule, Error};
pub use generation::{Event, Generation};
pub use key::ApiKey;
pub use metrics::ModelMetrics;
pub use models::Models;
pub use options::Options;
pub use plan::{Plan, Privacy, Quote};
pub use price::{Tokens, Usage};
pub use request::Request;

/// The result of everything here.
pub type Result<T> = std::result::Result<T, Error>;
