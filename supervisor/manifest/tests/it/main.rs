//! `agent.yml` from outside: what is accepted, what is refused, and what is said then.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test may stop")]

mod accepted;
mod detections;
mod examples;
mod network_limits;
mod policy;
mod refused;
mod schema;

use aion_manifest::{AgentSpec, Context, Error, Overrides};

pub(crate) fn parse(text: &str) -> Result<AgentSpec, Error> {
    parse_bytes(text.as_bytes())
}

pub(crate) fn parse_bytes(bytes: &[u8]) -> Result<AgentSpec, Error> {
    AgentSpec::parse(bytes, "agent.yml", Overrides::default(), &Context::builtin())
}

/// A manifest whose spec has these lines, indented by two spaces.
pub(crate) fn with(spec: &str) -> String {
    let mut text = "apiVersion: aion.os/v1\nkind: Agent\nmetadata: {name: a}\nspec:\n".to_owned();
    if !spec.contains("entry:") {
        text.push_str("  entry: [x]\n");
    }
    for line in spec.lines() {
        text.push_str("  ");
        text.push_str(line);
        text.push('\n');
    }
    text
}

pub(crate) fn good(spec: &str) -> AgentSpec {
    parse(&with(spec)).unwrap_or_else(|e| panic!("{spec}\n{e}"))
}

pub(crate) fn bad(spec: &str) -> String {
    parse(&with(spec)).expect_err(spec).to_string()
}
