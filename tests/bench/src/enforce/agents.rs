//! The programs that are measured, and agents that have them as their workspace.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::world::World;
use crate::schedule::process::inside;
use crate::tools::compile;

/// Where agents find them.
const WORKSPACE: &str = "/workspace";

/// A folder of static programs.
#[derive(Debug)]
pub(crate) struct Programs(PathBuf);

/// Which network an agent has.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Network<'a> {
    None,
    Host,
    /// With rules, as HOST:PORT.
    Egress(&'a [String]),
}

impl Programs {
    /// Compiles all of them.
    pub(crate) fn new(folder: &Path) -> Result<Self> {
        std::fs::create_dir(folder)?;
        for (name, source) in [
            ("calls", include_str!("../../c/calls.c")),
            ("ask", include_str!("../../c/ask.c")),
            ("hold", include_str!("../../c/hold.c")),
            ("storm", include_str!("../../c/storm.c")),
        ] {
            compile(folder, name, source)?;
        }
        Ok(Self(folder.to_owned()))
    }

    /// An agent that runs one of them.
    pub(crate) fn agent(&self, program: &str, words: &[&str], network: Network<'_>) -> Value {
        let entry: Vec<String> =
            std::iter::once(at(program)).chain(words.iter().map(|word| (*word).to_owned())).collect();
        self.spec(json!(entry), network)
    }

    /// An agent that only stays, for programs to be run in it.
    pub(crate) fn stays(&self, network: Network<'_>) -> Value {
        self.spec(json!(["/usr/bin/sleep", "infinity"]), network)
    }

    fn spec(&self, entry: Value, network: Network<'_>) -> Value {
        let mut spec = json!({
            "entry": entry, "mode": "service", "restart": "never",
            "workspace": { "path": self.0.to_string_lossy(), "read_only": true },
            "capabilities": { "subprocess": true },
            // One that computes is not to meet its share of a processor.
            "resources": { "cpu": "2" },
        });
        match network {
            Network::None => {}
            Network::Host => {
                spec["network"] = "host".into();
                spec["capabilities"]["network"] = true.into();
            }
            Network::Egress(rules) => {
                let allow: Vec<String> = rules.iter().map(|rule| format!("net:connect:{rule}")).collect();
                spec["network"] = "egress".into();
                spec["capabilities"]["allow"] = json!(allow);
            }
        }
        spec
    }

    /// Runs one outside of any agent, in a network namespace; gives the numbers that it printed.
    pub(crate) fn bare(&self, netns: &Path, program: &str, words: &[&str]) -> Result<Vec<f64>> {
        let done = inside(netns, self.0.join(program)).args(words).output().context("nsenter")?;
        ensure!(done.status.success(), "{program}: {}", String::from_utf8_lossy(&done.stderr).trim());
        numbers(&done.stdout)
    }
}

fn at(program: &str) -> String {
    format!("{WORKSPACE}/{program}")
}

/// Runs one in an agent; gives the numbers that it printed.
pub(crate) fn within(world: &World, agent: &str, program: &str, words: &[&str]) -> Result<Vec<f64>> {
    let program = at(program);
    let argv: Vec<&str> = std::iter::once(program.as_str()).chain(words.iter().copied()).collect();
    numbers(&world.daemons.exec(agent, &argv)?)
}

/// A number a line.
pub(crate) fn numbers(output: &[u8]) -> Result<Vec<f64>> {
    let text = String::from_utf8_lossy(output);
    let numbers: Vec<f64> = text
        .lines()
        .map(|line| line.parse::<f64>().with_context(|| format!("not a number: {line:?}")))
        .collect::<Result<_>>()?;
    ensure!(!numbers.is_empty(), "no number was printed");
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_read_as_a_whole() {
        assert_eq!(numbers(b"12\n7\n").unwrap(), [12.0, 7.0]);
        for wrong in [&b""[..], b"12\nno\n"] {
            assert!(numbers(wrong).is_err());
        }
    }

    #[test]
    fn agents_have_the_network_that_is_asked_for() {
        let programs = Programs("/srv/programs".into());
        let rules = ["45.92.0.0/16:443".to_owned()];
        let egress = programs.agent("calls", &["udp"], Network::Egress(&rules));
        assert_eq!(egress["entry"], json!(["/workspace/calls", "udp"]));
        assert_eq!(
            (&egress["network"], &egress["capabilities"]["allow"][0]),
            (&json!("egress"), &json!("net:connect:45.92.0.0/16:443"))
        );
        assert_eq!(programs.stays(Network::Host)["capabilities"]["network"], true);
        assert_eq!(programs.stays(Network::None)["network"], Value::Null);
    }
}
