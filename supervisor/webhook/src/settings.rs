//! Who is told, and of what.

use std::fmt;
use std::time::Duration;

use aion_detect::Severity;

use crate::authority::Authorities;
use crate::signature::Secret;

/// Why a webhook cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Its address is none.
    #[error("webhook {name}: its URL is not valid")]
    Url {
        /// The webhook.
        name: String,
    },
    /// A file that holds no authority's certificate.
    #[error("no certificate of an authority: {why}")]
    Authority {
        /// What is wrong with it.
        why: String,
    },
    /// A secret with nothing in it.
    #[error("the secret is empty")]
    EmptySecret,
    /// The HTTP client could not be made.
    #[error("webhook {name}: cannot set up the HTTP client")]
    Setup {
        /// The webhook.
        name: String,
        /// What is wrong.
        #[source]
        source: reqwest::Error,
    },
}

/// One webhook.
#[derive(Clone)]
pub struct Webhook {
    /// Unique; for figures and the log.
    pub name: String,
    /// Where alerts are posted. Some services have a key in it: it is not shown.
    pub url: String,
    /// What alerts are signed with; none: they are not.
    pub secret: Option<Secret>,
    /// Whose certificates it may have, besides those of authorities on Mozilla's list.
    pub ca: Option<Authorities>,
    /// What is less bad is not told.
    pub min_severity: Severity,
    /// Patterns of rules' names, in which `*` stands for anything. One of them must fit.
    pub rules: Vec<String>,
    /// One try takes no longer.
    pub timeout: Duration,
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Webhook {
    /// Whether it is told of what this rule finds.
    pub(crate) fn wants(&self, severity: Severity, rule: &str) -> bool {
        severity >= self.min_severity && self.rules.iter().any(|pattern| fits(pattern, rule))
    }
}

/// Whether a text is what a pattern says. Between its first and its last `*` each part is looked for where it comes first: if any way
/// fits, that one does.
fn fits(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(text) = text.strip_prefix(start) else { return false };
    let (middle, end) = rest.rsplit_once('*').unwrap_or(("", rest));
    let Some(mut text) = text.strip_suffix(end) else { return false };
    for part in middle.split('*').filter(|part| !part.is_empty()) {
        let Some(at) = text.find(part) else { return false };
        text = &text[at + part.len()..];
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything() {
        for (pattern, text, expected) in [
            ("*", "reverse-shell", true),
            ("*", "", true),
            ("reverse-shell", "reverse-shell", true),
            ("reverse-shell", "reverse-shell-2", false),
            ("fork-*", "fork-bomb", true),
            ("fork-*", "fork", false),
            ("*-shell", "reverse-shell", true),
            ("*-shell", "shell", false),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("*deni*urst", "denied-burst", true),
            ("*b*a*", "ab", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c", false),
            ("**", "x", true),
        ] {
            assert_eq!(fits(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn severity_and_rule_must_both_fit() {
        let webhook = Webhook {
            name: "oncall".to_owned(),
            url: "https://key.example/secret-path".to_owned(),
            secret: None,
            ca: None,
            min_severity: Severity::Medium,
            rules: vec!["fork-*".to_owned(), "memfd-exec".to_owned()],
            timeout: Duration::from_secs(5),
        };
        assert!(
            webhook.wants(Severity::Medium, "fork-bomb") && webhook.wants(Severity::Critical, "memfd-exec")
        );
        assert!(!webhook.wants(Severity::Low, "fork-bomb") && !webhook.wants(Severity::High, "beaconing"));
        assert!(!format!("{webhook:?}").contains("secret-path"));
    }
}
