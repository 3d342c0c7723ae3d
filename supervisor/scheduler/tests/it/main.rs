//! The core as its users see it: commands in; events, rows and effects out.

mod fairness;
mod rules;
mod sim;
mod world;
