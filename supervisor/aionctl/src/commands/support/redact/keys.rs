//! Which keys have secrets for values, and which of their values are none all the same.

use super::MARK;

/// Parts of a key's name, in small letters and without what stands between words.
const WORDS: [&str; 10] = [
    "secret",
    "token",
    "password",
    "passwd",
    "passphrase",
    "apikey",
    "authorization",
    "credential",
    "privatekey",
    "cookie",
];

/// Ends of such names, which are parts of other words, too.
const ENDS: [&str; 5] = ["pass", "pwd", "signingkey", "accesskey", "secretkey"];

/// Ends of names whose values say where a secret is.
const PLACES: [&str; 4] = ["file", "path", "dir", "folder"];

/// Whether a key, a variable or a flag is the name of a secret.
pub(super) fn looks_secret(key: &str) -> bool {
    let plain = plain(key);
    WORDS.iter().any(|word| plain.contains(word))
        || ENDS.iter().any(|end| plain.ends_with(end))
        || are_headers(&plain)
}

/// Whether a value under such a key tells nothing: a word for nothing, a count of models' tokens, a path.
pub(super) fn is_kept(key: &str, value: &str) -> bool {
    let plain = plain(key);
    let nothing = ["", "true", "false", "null", "none", "~", "-", MARK];
    let counts = plain.contains("tokens") || plain.contains("tokenrate");
    let place = PLACES.iter().any(|end| plain.ends_with(end));
    // What systemd hands over, by its name.
    let handed = value.strip_prefix("credential:").is_some_and(|name| {
        !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
    });
    nothing.contains(&value)
        || handed
        || (counts && value.len() <= 15 && value.parse::<f64>().is_ok())
        || (place && ["/", "./", "../", "~/"].iter().any(|start| value.starts_with(start)))
}

/// Whether the whole line belongs to the value: it has spaces in it.
pub(super) fn takes_the_line(key: &str) -> bool {
    let plain = plain(key);
    plain.contains("authorization") || plain.contains("cookie") || are_headers(&plain)
}

/// Headers that are sent along, as those of `OTEL_EXPORTER_OTLP_HEADERS`: whatever they are called, keys are among them.
fn are_headers(plain: &str) -> bool {
    plain.len() > "headers".len() && plain.ends_with("headers")
}

fn plain(key: &str) -> String {
    key.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}
