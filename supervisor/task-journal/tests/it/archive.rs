//! Point in time: a copy, and what an archive has after it, is the journal as it was.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use aion_backup::{Error, Name, PieceReader, Pieces, Point, Position, Route, gaps, survey};
use aion_task_journal::{Archived, Journal, Options};

use crate::{load, small};

fn keeping() -> Options {
    Options { keep_log_bytes: 64 << 20, ..small() }
}

fn open(path: &Path, options: Options) -> Arc<Journal> {
    Arc::new(Journal::open(path, options).unwrap())
}

fn file(path: &Path) -> Result<File, Error> {
    Ok(File::open(path).unwrap())
}

fn exported(journal: &Journal) -> Vec<u8> {
    let mut bytes = Vec::new();
    journal.export(&mut bytes).unwrap();
    bytes
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

struct Archive(tempfile::TempDir);

impl Archive {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn pieces(&self) -> Pieces {
        Pieces::list(self.0.path()).unwrap()
    }

    /// As aionctl does.
    fn take(&self, journal: &Journal) -> Archived {
        let pieces = self.pieces();
        let mut bytes = Vec::new();
        let done = journal.archive(&pieces.ends(), &mut bytes).unwrap();
        let from = PieceReader::open("x", bytes.as_slice()).unwrap().header().from;
        if done.commits > 0 || done.begins {
            fs::write(pieces.path(&Name { from, to: done.end.mark() }), &bytes).unwrap();
        }
        done
    }

    fn route(&self, from: Position, point: Point) -> Result<Route, Error> {
        Route::find(self.pieces(), from, point, file)
    }
}

#[test]
fn a_copy_and_an_archive_are_the_journal_as_it_was_after_each_commit() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let journal = open(&path("one"), keeping());
    let archive = Archive::new();
    for n in 1..=21 {
        load::step(&journal, n);
    }
    let begun = archive.take(&journal);
    assert!((begun.begins, begun.commits) == (true, 0));
    // Also from a copy that is younger than the archive's beginning.
    load::step(&journal, 22);
    let from = journal.copy_to(&path("copy")).unwrap();
    let mut then = Vec::new();
    for n in 23..=39 {
        load::step(&journal, n);
        then.push((n, exported(&journal)));
        if n.is_multiple_of(7) {
            assert!(!archive.take(&journal).begins);
        }
    }
    assert!(archive.take(&journal).commits > 0);
    assert_eq!(archive.take(&journal).commits, 0, "nothing is new");
    let runs = survey(&archive.pieces(), file).unwrap();
    assert_eq!((runs.len(), runs[0].to.event), (1, 78), "{runs:#?}");

    for (n, bytes) in &then {
        let to = path(&format!("at-{n}"));
        copy(&path("copy"), &to);
        let route = archive.route(from, Point::Event(2 * n)).unwrap();
        assert_eq!(route.reached.event, 2 * n);
        let piece = route.copy(file, Vec::new()).unwrap();
        let replayed = Journal::replay(&to, &small(), piece.as_slice()).unwrap();
        assert_eq!((replayed.commits, replayed.checkpoints_left_out), (route.commits, 0));
        let reader = Journal::open_read_only(&to, small()).unwrap();
        assert!(exported(&reader) == *bytes, "after commit {n}");
        drop(reader);
        let restored = open(&to, small());
        assert_eq!((load::verify(&restored), restored.epoch()), (*n, journal.epoch() + 1));
        // A second time it is not where it begins.
        drop(restored);
        assert!(matches!(
            Journal::replay(&to, &small(), piece.as_slice()),
            Err(aion_task_journal::Error::Elsewhere { .. })
        ));
    }
    // An event in the middle of a commit: that commit is not there.
    let route = archive.route(from, Point::Event(61)).unwrap();
    assert_eq!(route.reached.event, 60);
    // Times are those of commits.
    let at = archive.route(from, Point::Event(60)).unwrap().reached;
    let by_time = archive.route(from, Point::Time(at.time_ms)).unwrap();
    assert!(by_time.reached.time_ms == at.time_ms && by_time.reached.commit >= at.commit);
    assert_eq!(archive.route(from, Point::End).unwrap().reached.event, 78);
}

#[test]
fn a_large_checkpoint_that_no_piece_has_is_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let journal = open(&path("one"), keeping());
    let archive = Archive::new();
    archive.take(&journal);
    let from = journal.copy_to(&path("copy")).unwrap();
    for n in 1..=21 {
        load::step(&journal, n);
    }
    archive.take(&journal);
    let piece = archive.route(from, Point::End).unwrap().copy(file, Vec::new()).unwrap();
    let replayed = Journal::replay(&path("copy"), &small(), piece.as_slice()).unwrap();
    assert_eq!(replayed.checkpoints_left_out, 1);
    let restored = open(&path("copy"), small());
    let checked = restored.check(load::decode);
    assert!(checked.is_ok(), "{:#?}", checked.problems);
    let numbers: Vec<_> = restored.checkpoints(20).unwrap().iter().map(|info| info.number).collect();
    assert_eq!(numbers, [1], "the older one stays");
}

#[test]
fn a_start_goes_on_and_another_history_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let journal = open(&path("one"), keeping());
    let archive = Archive::new();
    for n in 1..=5 {
        load::step(&journal, n);
    }
    archive.take(&journal);
    let from = journal.copy_to(&path("copy")).unwrap();
    for n in 6..=8 {
        load::step(&journal, n);
    }
    drop(journal);
    let journal = open(&path("one"), keeping());
    for n in 9..=12 {
        load::step(&journal, n);
    }
    let taken = archive.take(&journal);
    assert_eq!((taken.begins, taken.commits), (false, 8), "seven, and the start");
    let whole = archive.route(from, Point::End).unwrap();
    assert_eq!(whole.reached.event, 24);
    assert_ne!(whole.reached.line, from.line);

    // The copy goes on by itself: the same numbers, and something else.
    let fork = open(&path("copy"), keeping());
    for n in 6..=9 {
        load::step(&fork, n);
    }
    let at = fork.copy_to(&path("fork")).unwrap();
    assert!(at.commit < whole.reached.commit);
    let refused = archive.route(at, Point::Event(20));
    assert!(matches!(refused, Err(Error::Gap { .. })), "{refused:?}");
    let piece = whole.copy(file, Vec::new()).unwrap();
    drop(fork);
    assert!(matches!(
        Journal::replay(&path("copy"), &small(), piece.as_slice()),
        Err(aion_task_journal::Error::Elsewhere { .. })
    ));
    // The same archive serves it from where it takes it up.
    let fork = open(&path("copy"), keeping());
    archive.take(&fork);
    let at = fork.copy_to(&path("second-fork")).unwrap();
    for n in 10..=30 {
        load::step(&fork, n);
    }
    assert!(!archive.take(&fork).begins);
    assert_eq!(archive.route(at, Point::End).unwrap().reached.event, 60);
}

#[test]
fn what_is_damaged_missing_or_not_there_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(&dir.path().join("one"), keeping());
    let archive = Archive::new();
    load::step(&journal, 1);
    archive.take(&journal);
    let from = journal.copy_to(&dir.path().join("copy")).unwrap();
    for n in 2..=13 {
        load::step(&journal, n);
        if n.is_multiple_of(4) {
            archive.take(&journal);
        }
    }
    let pieces = archive.pieces();
    assert_eq!(pieces.names().len(), 4);
    let name = pieces.names()[2];
    let whole = fs::read(pieces.path(&name)).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    fs::write(pieces.path(&name), &flipped).unwrap();
    let Err(Error::Piece { piece, .. }) = archive.route(from, Point::End) else { panic!("it was taken") };
    assert_eq!(piece, name.to_string());
    assert!(survey(&pieces, file).is_err());
    assert!(archive.route(from, Point::Event(6)).is_ok(), "what is before it can be reached");
    fs::write(pieces.path(&name), &whole[..whole.len() - 1]).unwrap();
    assert!(matches!(archive.route(from, Point::End), Err(Error::Piece { .. })));
    // Another piece's bytes under this name.
    fs::copy(pieces.path(&pieces.names()[3]), pieces.path(&name)).unwrap();
    assert!(archive.route(from, Point::End).is_err());
    fs::remove_file(pieces.path(&name)).unwrap();
    for point in [Point::End, Point::Event(24)] {
        assert!(matches!(archive.route(from, point), Err(Error::Gap { .. })));
    }
    fs::write(pieces.path(&name), &whole).unwrap();
    assert_eq!(archive.route(from, Point::End).unwrap().reached.event, 24);
    for point in [Point::Event(1), Point::Event(25), Point::Time(from.time_ms - 1), Point::Time(u64::MAX)] {
        let refused = archive.route(from, point);
        assert!(matches!(refused, Err(Error::Point { .. })), "{point}: {refused:?}");
    }
    let empty = Archive::new();
    assert!(matches!(empty.route(from, Point::End), Err(Error::Gap { .. })));
}

#[test]
fn a_log_that_is_gone_is_a_gap_that_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(&dir.path().join("one"), small());
    let archive = Archive::new();
    load::step(&journal, 1);
    archive.take(&journal);
    let from = journal.copy_to(&dir.path().join("copy")).unwrap();
    for n in 2..=400 {
        load::step(&journal, n);
    }
    let taken = archive.take(&journal);
    assert_eq!((taken.begins, taken.commits), (true, 0), "nothing was kept");
    assert!(archive.route(from, Point::Event(100)).is_err());
    let later = journal.copy_to(&dir.path().join("later")).unwrap();
    load::step(&journal, 401);
    archive.take(&journal);
    assert_eq!(archive.route(later, Point::End).unwrap().reached.event, 802);
    let runs = survey(&archive.pieces(), file).unwrap();
    let told = |backups: &[Position]| {
        gaps(&runs, backups).iter().map(|gap| (gap.missing, gap.harmless)).collect::<Vec<_>>()
    };
    assert_eq!(runs.len(), 2);
    assert_eq!(told(&[]), [(false, false)], "it began anew, and said so");
    assert_eq!((told(&[from]), told(&[from, later])), (vec![(false, false)], vec![(false, true)]));
}
