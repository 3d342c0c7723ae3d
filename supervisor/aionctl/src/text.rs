//! Text from agents and manifests, made fit for a terminal, and names that are nearly right.

use std::fmt::Write as _;

/// Control characters become visible escapes, so that nothing an agent says moves the cursor or hides a line.
/// Line ends and tabs stay.
pub(crate) fn clean(text: &str) -> String {
    escape(text, true)
}

/// As [`clean`], for one line: line ends and tabs are escaped too.
pub(crate) fn clean_line(text: &str) -> String {
    escape(text, false)
}

fn escape(text: &str, lines: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for ch in text.chars() {
        match ch {
            '\n' | '\t' if lines => out.push(ch),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            // The bidirectional controls can make a line read as another one.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                let _ = write!(out, "{}", ch.escape_unicode());
            }
            ch if ch.is_control() => {
                let _ = write!(out, "{}", ch.escape_unicode());
            }
            ch => out.push(ch),
        }
    }
    out
}

/// At most `max` characters, the last of them an ellipsis when something was cut.
pub(crate) fn shorten(text: &str, max: usize) -> String {
    if text.chars().count() <= max {
        return text.to_owned();
    }
    text.chars().take(max.saturating_sub(1)).chain(['…']).collect()
}

/// An argument list as a shell would take it.
pub(crate) fn command_line(argv: &[String]) -> String {
    let plain = |arg: &str| {
        !arg.is_empty() && arg.chars().all(|ch| ch.is_alphanumeric() || "_-./=:,@%+".contains(ch))
    };
    let words: Vec<String> = argv
        .iter()
        .map(|arg| if plain(arg) { arg.clone() } else { format!("'{}'", arg.replace('\'', r"'\''")) })
        .collect();
    words.join(" ")
}

/// The nearest of `known`, when it is near enough to have been meant.
pub(crate) fn nearest<'a>(text: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (text.chars().count() / 3).clamp(1, 3);
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(text, name), name))
        .filter(|(distance, name)| {
            *distance <= allowed || (text.chars().count() >= 3 && name.starts_with(text))
        })
        .min()
        .map(|(_, name)| name)
}

/// Bytes as 1.2 MiB.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    #[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_become_visible() {
        assert_eq!(clean("a\x1b[31mb\r\nc\u{9b}d"), "a\\u{1b}[31mb\\u{d}\nc\\u{9b}d");
        assert_eq!(clean_line("a\nb\tc\u{202e}d"), "a\\nb\\tc\\u{202e}d");
    }

    #[test]
    fn command_lines_can_be_pasted() {
        let argv = ["sh", "-c", "echo 'hi' > x", ""].map(str::to_owned);
        assert_eq!(command_line(&argv), r"sh -c 'echo '\''hi'\'' > x' ''");
    }

    #[test]
    fn near_names_are_found_and_far_ones_are_not() {
        let known = ["researcher", "builder", "web"];
        assert_eq!(nearest("reseacher", known), Some("researcher"));
        assert_eq!(nearest("bulider", known), Some("builder"));
        assert_eq!(nearest("resea", known), Some("researcher"));
        assert_eq!(nearest("wbe", known), Some("web"));
        assert_eq!(nearest("database", known), None);
        assert_eq!(nearest("x", known), None);
    }

    #[test]
    fn sizes() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(1 << 20), "1.0 MiB");
        assert_eq!(bytes((1 << 30) - 1), "1.0 GiB");
        assert_eq!(bytes(u64::MAX), "16384.0 PiB");
    }

    #[test]
    fn long_texts_are_cut() {
        assert_eq!(shorten("abcdef", 4), "abc…");
        assert_eq!(shorten("äöü", 3), "äöü");
    }
}
