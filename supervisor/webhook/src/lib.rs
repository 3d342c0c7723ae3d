//! Alerts of what detections found, posted as JSON to whoever the operator names; nobody unless there is a webhook.
//!
//! ```text
//! tell ─by severity and rule─▶ queue of each webhook ─Worker─▶ POST, signed ─▶ again with growing pauses, or given up
//! ```
//! [`Webhooks::tell`] never waits: an alert goes into a bounded queue, and one that finds no room is counted. Each webhook has a queue,
//! a task and connections of its own, so that none waits for another. Neighbours: `aion-api` tells of findings once they are recorded,
//! `aiond` reads the settings.

mod alert;
mod aside;
mod authority;
mod figures;
mod post;
mod schedule;
mod settings;
mod signature;
mod webhooks;
mod worker;

pub use alert::Alert;
pub use authority::Authorities;
pub use settings::{Error, Webhook};
pub use signature::Secret;
pub use webhooks::Webhooks;
pub use worker::Undelivered;
