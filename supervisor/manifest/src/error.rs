//! What is wrong with a file: every problem with its place, its field, and what would be right.

use std::fmt;

use aion_types::ErrorCode;

/// A place in a file; lines and columns count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The line.
    pub line: u64,
    /// The column, in characters.
    pub column: u64,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file, or `command line`.
    pub file: String,
    /// Where in the file; none for the command line and for what is missing altogether.
    pub place: Option<Place>,
    /// The field, as `spec.resources.mem`; empty when the file is wrong as a whole.
    pub field: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it; may be empty.
    pub fix: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.file.is_empty() {
            f.write_str(&self.file)?;
            if let Some(Place { line, column }) = self.place {
                write!(f, ":{line}:{column}")?;
            }
            f.write_str(": ")?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)?;
        if !self.fix.is_empty() {
            write!(f, "; {}", self.fix)?;
        }
        Ok(())
    }
}

/// Why a file was refused: at least one problem, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    code: ErrorCode,
    problems: Vec<Problem>,
}

impl Error {
    pub(crate) fn new(code: ErrorCode, mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|p| p.place);
        for problem in &mut problems {
            // Keys and file names come from outside and end on a terminal.
            for text in [&mut problem.file, &mut problem.field, &mut problem.message, &mut problem.fix] {
                tame(text);
            }
        }
        Self { code, problems }
    }

    /// About a file as a whole.
    #[must_use]
    pub fn of_file(code: ErrorCode, file: String, message: String, fix: &str) -> Self {
        let problem = Problem { file, place: None, field: String::new(), message, fix: fix.to_owned() };
        Self::new(code, vec![problem])
    }

    /// The stable code that a user sees.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        self.code
    }

    /// All that is wrong.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// The same, to be told together with others.
    pub(crate) fn into_problems(self) -> Vec<Problem> {
        self.problems
    }

    /// The field of the first problem.
    #[must_use]
    pub fn field(&self) -> &str {
        self.problems.first().map_or("", |p| p.field.as_str())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().enumerate() {
            if i != 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// The longest part of a problem.
const LONGEST: usize = 600;

/// Control characters escaped, and no more than a message's length.
fn tame(text: &mut String) {
    if text.len() > LONGEST {
        let end = (0..=LONGEST).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    if text.contains(char::is_control) {
        *text = text
            .chars()
            .map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() })
            .collect();
    }
}

/// At most this much of a user's text is repeated in a message.
const SHOWN: usize = 60;

/// A text for a message: quoted, escaped and cut.
pub(crate) fn quote(text: &str) -> String {
    if text.chars().count() <= SHOWN {
        return format!("{text:?}");
    }
    let start: String = text.chars().take(SHOWN).collect();
    format!("{start:?}…")
}

/// The known word that was probably meant.
pub(crate) fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > SHOWN {
        return None;
    }
    let folded = word.to_lowercase().replace('-', "_");
    // What is cut off or spelled out is near, too: `memory` for `mem`.
    let alike = |k: &str| k.len() >= 3 && word.len() >= 3 && (k.starts_with(word) || word.starts_with(k));
    let known: Vec<&str> = known.into_iter().collect();
    let near = known
        .iter()
        .map(|&k| (strsim::damerau_levenshtein(&folded, &k.to_lowercase().replace('-', "_")), k))
        .filter(|(distance, k)| *distance <= 1 + k.len() / 5 && *distance < k.len())
        .min()
        .map(|(_, k)| k);
    near.or_else(|| known.into_iter().find(|k| alike(k)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggestions_are_near() {
        let known = ["timeout_ms", "resources", "env", "entry"];
        assert_eq!(did_you_mean("timeoutMs", known), Some("timeout_ms"));
        assert_eq!(did_you_mean("resource", known), Some("resources"));
        assert_eq!(did_you_mean("Env", known), Some("env"));
        assert_eq!(did_you_mean("environment", known), Some("env"));
        assert_eq!(did_you_mean("volume", known), None);
        assert_eq!(did_you_mean(&"x".repeat(100_000), known), None);
    }

    #[test]
    fn quotes_are_bounded_and_harmless() {
        assert_eq!(quote("a\u{1b}[31m\n"), r#""a\u{1b}[31m\n""#);
        assert!(quote(&"x".repeat(100_000)).len() < 100);
    }
}
