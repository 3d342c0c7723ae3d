//! No byte can be changed and no part cut off unseen.

use std::io::{self, Read};

use aion_backup::{Error, Part, Writer};
use proptest::prelude::*;

use crate::support::{archive, files, manifest, verify};

#[test]
fn what_was_written_is_read() {
    let bytes = archive();
    let summary = verify(bytes.as_slice()).unwrap();
    assert_eq!(summary.manifest, manifest());
    let files = files();
    let total: usize = files.iter().map(|(_, _, bytes)| bytes.len()).sum();
    assert_eq!((summary.total().files, summary.total().bytes), (files.len() as u64, total as u64));
    assert_eq!(summary.parts[&Part::Db].files, 2);
    assert_eq!(summary.archive_bytes, bytes.len() as u64);
}

#[test]
fn other_programs_read_it_too() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("b.tar");
    std::fs::write(&file, archive()).unwrap();
    let run = |command: &str| {
        let done =
            std::process::Command::new("sh").arg("-c").arg(command).current_dir(dir.path()).output().unwrap();
        assert!(done.status.success(), "{command}: {}", String::from_utf8_lossy(&done.stderr));
    };
    run("tar -xf b.tar && sha256sum --quiet -c aion-backup.sums");
    assert_eq!(std::fs::read(dir.path().join("secrets/token")).unwrap(), b"hunter2");
}

#[test]
fn each_single_byte_counts() {
    let whole = archive();
    for at in 0..whole.len() {
        for bit in [0x01, 0x20, 0x80] {
            let mut bytes = whole.clone();
            bytes[at] ^= bit;
            assert!(verify(bytes.as_slice()).is_err(), "byte {at} was changed by {bit:#x}");
        }
    }
}

#[test]
fn each_cut_shows() {
    let whole = archive();
    for end in 0..whole.len() {
        assert!(verify(&whole[..end]).is_err(), "cut at {end}");
    }
    let longer = [whole.as_slice(), b"\0"].concat();
    assert!(verify(longer.as_slice()).is_err(), "something after the end");
}

proptest! {
    #[test]
    fn nothing_can_be_taken_out_put_in_or_moved(from in 0usize..12_000, length in 1usize..3000, to in 0usize..12_000) {
        let whole = archive();
        let (from, to) = (from % whole.len(), to % whole.len());
        let end = (from + length).min(whole.len());
        let piece = &whole[from..end];
        let without = [&whole[..from], &whole[end..]].concat();
        prop_assert!(verify(without.as_slice()).is_err());
        let doubled = [&whole[..to], piece, &whole[to..]].concat();
        prop_assert!(verify(doubled.as_slice()).is_err());
    }

    #[test]
    fn anything_else_is_refused_in_good_order(bytes in proptest::collection::vec(any::<u8>(), 0..4096)) {
        prop_assert!(verify(bytes.as_slice()).is_err());
        let begun = [b"aion-backup.json".as_slice(), &bytes].concat();
        prop_assert!(verify(begun.as_slice()).is_err());
    }
}

#[test]
fn the_bad_file_is_named_with_its_place() {
    let whole = archive();
    let at = whole.windows(7).position(|window| window == b"hunter2").unwrap();
    let mut bytes = whole.clone();
    bytes[at + 2] ^= 1;
    let Err(Error::Broken { file, offset, what }) = verify(bytes.as_slice()) else {
        panic!("it was not told")
    };
    assert_eq!((file.as_str(), offset), ("secrets/token", at as u64), "{what}");

    // The list itself: the files are right.
    let line = whole.windows(15).rposition(|window| window == b"  secrets/token").unwrap();
    let mut bytes = whole.clone();
    bytes[line - 1] ^= 1;
    let Err(Error::Broken { file, .. }) = verify(bytes.as_slice()) else { panic!("it was not told") };
    assert_eq!(file, "aion-backup.sums");

    let Err(Error::Broken { file, offset, what }) = verify(&whole[..at + 3]) else {
        panic!("it was not told")
    };
    assert_eq!((file.as_str(), offset), ("secrets/token", at as u64 + 3));
    assert!(what.contains("cut off"), "{what}");
}

#[test]
fn what_cannot_be_read_is_not_called_damaged() {
    struct Failing(usize, io::ErrorKind);
    impl Read for Failing {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let whole = archive();
            if self.0 >= 2000 {
                return Err(self.1.into());
            }
            let n = out.len().min(2000 - self.0);
            out[..n].copy_from_slice(&whole[self.0..self.0 + n]);
            self.0 += n;
            Ok(n)
        }
    }
    assert!(matches!(verify(Failing(0, io::ErrorKind::PermissionDenied)), Err(Error::Io { .. })));
    // This is how decryption tells that what it was given is not what was encrypted.
    assert!(matches!(verify(Failing(0, io::ErrorKind::InvalidData)), Err(Error::Broken { .. })));
}

#[test]
fn a_file_that_is_shorter_than_was_said_ends_the_writing() {
    let mut writer = Writer::begin(Vec::new(), &manifest()).unwrap();
    assert!(matches!(writer.file("db/x", false, 5, b"1234".as_slice()), Err(Error::Short { .. })));
    let mut writer = Writer::begin(Vec::new(), &manifest()).unwrap();
    assert!(matches!(writer.file("launcher/audit.key", false, 1, b"1".as_slice()), Err(Error::Name { .. })));
}
