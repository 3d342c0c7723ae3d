//! Names of pieces: they say where each begins and ends, so that an archive of encrypted pieces is gone on with by somebody who cannot read
//! it. A reader compares them with what is inside.

use std::fmt;
use std::str::FromStr;

use crate::piece::{Line, Mark};

const SUFFIX: &str = ".piece";

/// `FROM-TO-HINT-LINE.piece`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Name {
    /// The commit before the first one.
    pub from: u64,
    /// Its end.
    pub to: Mark,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Mark { commit, line, hint } = self.to;
        write!(f, "{:020}-{commit:020}-{hint:x}-{line}{SUFFIX}", self.from)
    }
}

impl FromStr for Name {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.strip_suffix(SUFFIX).ok_or(())?.split('-');
        let mut next = || parts.next().ok_or(());
        let number = |text: &str| text.parse::<u64>().map_err(|_| ());
        let (from, commit) = (number(next()?)?, number(next()?)?);
        let hint = u64::from_str_radix(next()?, 16).map_err(|_| ())?;
        let line: Line = next()?.parse().map_err(|_| ())?;
        let name = Self { from, to: Mark { commit, line, hint } };
        // One form only, and no end before its beginning.
        if from <= commit && name.to_string() == text { Ok(name) } else { Err(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_reads_back_in_one_form_only() {
        let name = Name { from: 7, to: Mark { commit: 70, line: Line([3; 16]), hint: 0xbeef } };
        let text = name.to_string();
        assert_eq!(text.parse(), Ok(name));
        let line = "03".repeat(16);
        for wrong in [
            format!("7-70-beef-{line}.piece"),
            text.replace("beef", "BEEF"),
            text.replace(".piece", ".partial"),
            format!("{text}.piece"),
            Name { from: 71, ..name }.to_string(),
            String::new(),
        ] {
            assert!(wrong.parse::<Name>().is_err(), "{wrong}");
        }
    }
}
