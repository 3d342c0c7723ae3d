//! The engine as its callers use it: rules in, events in, findings out.

mod bounds;
mod rules;
mod stream;
