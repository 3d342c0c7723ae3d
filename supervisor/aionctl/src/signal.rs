//! Signals by name or number, as `kill` takes them.

use nix::sys::signal::Signal;

/// Reads `TERM`, `SIGTERM`, `sigterm` or `15`.
pub(crate) fn parse(text: &str) -> Result<i32, String> {
    let unknown = || format!("no such signal: {text:?}; write a name as TERM or a number from 1 to 64");
    if let Ok(number) = text.parse::<i32>() {
        return if (1..=64).contains(&number) { Ok(number) } else { Err(unknown()) };
    }
    let upper = text.to_ascii_uppercase();
    let full = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    full.parse::<Signal>().map(|signal| signal as i32).map_err(|_| unknown())
}

/// `SIGTERM` for 15; the number when it has no name.
pub(crate) fn name(number: i32) -> String {
    Signal::try_from(number).map_or_else(|_| format!("signal {number}"), |signal| signal.as_str().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for text in ["TERM", "SIGTERM", "sigterm", "term", "15"] {
            assert_eq!(parse(text), Ok(15), "{text}");
        }
        assert_eq!(parse("64"), Ok(64));
        for text in ["", "0", "65", "-1", "NOPE", "SIG"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!(name(9), "SIGKILL");
        assert_eq!(name(40), "signal 40");
    }
}
