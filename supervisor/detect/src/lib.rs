//! Detections: rules over the stream of an agent's events, and what must be remembered to decide them.
//!
//! ```text
//! agent's events ─▶ Engine ─by kind─▶ rules ─filter, exceptions─▶ windows, sequences, beats, baselines ─▶ Findings
//! ```
//! Pure: no I/O and no clock. Events come in with their time, findings go out; the same events give the same findings. What is
//! remembered of an agent is bounded, and so is the number of agents. Neighbours: `aion-manifest` reads rules from YAML,
//! `aion-api` feeds the engine and acts upon what it finds.

mod baseline;
mod beat;
mod detail;
mod engine;
mod event;
mod kinds;
mod rule;
mod sequence;
mod window;

pub use beat::BEATS as MAX_BEATS;
pub use detail::Detail;
pub use engine::{Engine, Finding, Status};
pub use event::{Event, Field, Fields, SAMPLE, Who};
pub use kinds::{FieldType, KindId, field_type, fields_of, kind_names};
pub use rule::{Action, Beacon, Deviation, Exception, Filter, Op, Rate, Rule, Severity, Step, Test, When};
pub use window::DISTINCT as MAX_DISTINCT;
