//! `aiond replay-journal`: a piece of the journal's archive, from standard input, into the journal of a state that is being made. What
//! `aionctl backup restore --journal` asks for: it has no database of its own.
//!
//! As aiond's user, like everything that reads what somebody else may have made.

use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::privileges::Account;
use crate::settings::Loaded;

/// Says how many commits were applied, and how many large checkpoints are in no piece.
///
/// # Errors
/// When the piece does not go on from that journal, or cannot be applied; the journal is of no use then.
pub(crate) fn replay(loaded: &Loaded) -> Result<()> {
    let options = &loaded.options;
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    let account = Account::resolve(&options.user, &options.group)?;
    let folder = options.state.join("journal");
    // The user need not be able to search the folders above.
    std::env::set_current_dir(&folder).with_context(|| format!("cannot enter {}", folder.display()))?;
    account.drop_to()?;
    let done = aion_tasks::replay_journal(Path::new("db"), std::io::stdin().lock())?;
    writeln!(std::io::stdout(), "{} {}", done.commits, done.checkpoints_left_out)?;
    Ok(())
}
