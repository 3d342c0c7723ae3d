//! Name, version, labels, host name.

use std::collections::BTreeMap;

use aion_types::AgentName;

use super::Checker;
use crate::error::quote;
use crate::raw;

pub(super) type Identity = (AgentName, String, BTreeMap<String, String>, String);

/// Labels by which the daemon knows the processes of attempts.
const RESERVED: [&str; 3] = ["aion.agent", "aion.attempt", "aion.task"];

impl Checker<'_> {
    pub(super) fn identity(&mut self, metadata: raw::Metadata, hostname: Option<String>) -> Option<Identity> {
        let name = match AgentName::parse(&metadata.name) {
            Ok(name) => Some(name),
            Err(error) => {
                let text = format!("{} is not an agent's name: {error}", quote(&metadata.name));
                self.problem("metadata.name", &text);
                None
            }
        };
        let version = metadata.version.unwrap_or_else(|| "0.0.0".to_owned());
        if !is_version(&version) {
            let text = format!(
                "{} is not a version; write up to three numbers, as 1.4.2 or 1.4.2-rc.1",
                quote(&version)
            );
            self.problem("metadata.version", &text);
        }
        if metadata.labels.len() > 32 {
            self.problem(
                "metadata.labels",
                &format!("there are {} labels, at most 32 are allowed", metadata.labels.len()),
            );
        }
        for (key, value) in &metadata.labels {
            let field = format!("metadata.labels.{key}");
            let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
            if key.is_empty() || key.len() > 63 || !key.chars().all(good) {
                self.problem(
                    "metadata.labels",
                    &format!("{} is not a label; use 1 to 63 letters, digits and -_./", quote(key)),
                );
            } else if RESERVED.contains(&key.as_str()) {
                self.problem(&field, "this label is the daemon's own; use another");
            } else if value.len() > 256 || value.chars().any(char::is_control) {
                self.problem(
                    &field,
                    "the value is longer than 256 bytes or has control characters; shorten it",
                );
            }
        }
        let hostname = match hostname {
            None => metadata.name,
            Some(hostname) => {
                if let Err(error) = AgentName::parse(&hostname) {
                    self.problem(
                        "spec.hostname",
                        &format!("{} is not a host name: {error}", quote(&hostname)),
                    );
                }
                hostname
            }
        };
        name.map(|name| (name, version, metadata.labels, hostname))
    }
}

/// One to three numbers, then what semantic versioning allows after them.
pub(crate) fn is_version(text: &str) -> bool {
    let numbers = text.split(['-', '+']).next().unwrap_or_default();
    let parts: Vec<&str> = numbers.split('.').collect();
    let tail = &text[numbers.len()..];
    let number = |p: &&str| !p.is_empty() && p.len() <= 10 && p.bytes().all(|b| b.is_ascii_digit());
    let tail_good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+');
    text.len() <= 64
        && parts.len() <= 3
        && parts.iter().all(number)
        && (tail.is_empty() || tail.len() > 1)
        && tail.chars().all(tail_good)
}

#[cfg(test)]
mod tests {
    use super::is_version;

    #[test]
    fn versions() {
        for good in ["1", "1.0", "1.0.0", "1.10.3-rc.1+build.5"] {
            assert!(is_version(good), "{good}");
        }
        for bad in ["", "v1", "1.", "1.0.0.0", "1.0.0-", "1.x", "1.0.0 ", "-1", &"1".repeat(70)] {
            assert!(!is_version(bad), "{bad}");
        }
    }
}
