//! The floor: what the disk gives one thread that appends and syncs; and the journal's own commit beside it.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use aion_task_journal::{Batch, Journal, Options};
use anyhow::{Context as _, Result, bail};
use nix::sys::statfs::{TMPFS_MAGIC, statfs};

use crate::report::{Report, percentile};
use crate::schedule::load::{params, per_second};

/// Fails when nothing here would ever reach a disk.
pub(crate) fn is_on_disk(folder: &Path) -> Result<()> {
    let kind = statfs(folder).with_context(|| format!("{}", folder.display()))?.filesystem_type();
    if kind == TMPFS_MAGIC {
        bail!("{} is in memory: a sync there costs nothing, and the figures would lie", folder.display());
    }
    Ok(())
}

/// Rounds that alternate: append and fdatasync of a record's bytes, and a synced batch of one task's submission.
pub(crate) fn measure(folder: &Path, rounds: usize, time: Duration, report: &mut Report) -> Result<()> {
    let path = folder.join("raw");
    let mut raw = File::create(&path)?;
    let journal = Journal::open(&folder.join("journal"), Options::default())?;
    let (mut bare, mut ours) = (Vec::new(), Vec::new());
    let mut waits = Vec::new();
    let mut sequence = 0;
    let body = params(0);
    // What a submission is on disk: a row, an event and the body, with their keys.
    let record = vec![b'x'; 2 * body.len() + 100];
    for _ in 0..rounds {
        let begun = Instant::now();
        let mut count = 0;
        while begun.elapsed() < time {
            let one = Instant::now();
            raw.write_all(&record)?;
            raw.sync_data()?;
            waits.push(one.elapsed().as_secs_f64() * 1e6);
            count += 1;
        }
        bare.push(per_second(count, begun.elapsed()));

        let begun = Instant::now();
        let mut count = 0;
        while begun.elapsed() < time {
            sequence += 1;
            let mut batch = Batch::new();
            batch.put_row(&[&b"task"[..], &u64::to_be_bytes(sequence)].concat(), &record[..100]);
            batch.event(sequence, sequence, 0, &record[..40]);
            batch.body(sequence, body.as_bytes());
            journal.commit(batch)?;
            count += 1;
        }
        ours.push(per_second(count, begun.elapsed()));
    }
    drop(raw);
    drop(journal);
    std::fs::remove_file(path)?;
    std::fs::remove_dir_all(folder.join("journal"))?;
    let bare = report.samples("disk: append and fdatasync, 1 thread", "per_s", &bare);
    report.value("disk: append and fdatasync, median", "us", percentile(&waits, 50.0));
    let ours = report.samples("journal: synced commits, 1 thread", "per_s", &ours);
    report.at_least("journal: commits / raw appends", "ratio", ours / bare, 0.9);
    Ok(())
}
