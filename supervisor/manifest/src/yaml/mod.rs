//! YAML to Rust types, with the place of every node kept.
//!
//! `tree` lets serde-saphyr parse (it bounds depth, aliases and nodes) into nodes that know where they are; `de` hands
//! them to serde and puts field and place on every error. The types decide what a scalar is, so that `1.10` stays a version, and `no` is
//! never a boolean by accident.

mod de;
mod tree;

pub(crate) use de::{all_from_node, from_node, whole_from_node};
pub(crate) use tree::{Kind, Node, parse};
