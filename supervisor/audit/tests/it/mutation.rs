//! Any single change of any byte or line is found.

use std::fs;
use std::sync::LazyLock;

use proptest::prelude::*;
use proptest::sample::Index;

use crate::support::Log;

type NamedFile = (String, Vec<u8>);

/// The files of one closed log; each case damages a copy.
static FILES: LazyLock<(Log, Vec<NamedFile>)> = LazyLock::new(|| {
    let log = Log::filled(37);
    log.key();
    let mut files: Vec<(String, Vec<u8>)> = fs::read_dir(log.dir())
        .unwrap()
        .map(|e| e.unwrap())
        .map(|e| (e.file_name().into_string().unwrap(), fs::read(e.path()).unwrap()))
        .collect();
    files.sort();
    (log, files)
});

/// Verifies a copy of the log in which one file was changed.
fn is_found(name: &str, bytes: Option<&[u8]>) -> bool {
    let (log, files) = &*FILES;
    let copy = tempfile::tempdir().unwrap();
    for (file, original) in files {
        let content = if file == name { bytes } else { Some(original.as_slice()) };
        if let Some(content) = content {
            fs::write(copy.path().join(file), content).unwrap();
        }
    }
    !aion_audit::verify(copy.path(), Some(log.key())).unwrap().ok
}

fn segments() -> Vec<&'static NamedFile> {
    FILES.1.iter().filter(|(name, _)| name.ends_with(".seg")).collect()
}

fn lines(bytes: &[u8]) -> Vec<&[u8]> {
    bytes.split_inclusive(|&b| b == b'\n').collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn one_changed_byte(file: Index, at: Index, xor in 1_u8..) {
        let (name, bytes) = file.get(&FILES.1);
        let mut bytes = bytes.clone();
        let at = at.index(bytes.len());
        bytes[at] ^= xor;
        prop_assert!(is_found(name, Some(&bytes)), "{name} byte {at} xor {xor}");
    }

    #[test]
    fn one_removed_or_added_byte(file: Index, at: Index, added: Option<u8>) {
        let (name, bytes) = file.get(&FILES.1);
        let mut bytes = bytes.clone();
        let at = at.index(bytes.len());
        match added {
            Some(byte) => bytes.insert(at, byte),
            None => { bytes.remove(at); }
        }
        prop_assert!(is_found(name, Some(&bytes)), "{name} byte {at} added {added:?}");
    }

    #[test]
    fn a_cut_tail(file: Index, at: Index) {
        let (name, bytes) = file.get(&FILES.1);
        let at = at.index(bytes.len());
        prop_assert!(is_found(name, Some(&bytes[..at])), "{name} cut at {at}");
    }

    #[test]
    fn one_removed_line(file: Index, at: Index) {
        let segments = segments();
        let (name, bytes) = file.get(&segments);
        let mut lines = lines(bytes);
        let at = at.index(lines.len());
        lines.remove(at);
        prop_assert!(is_found(name, Some(&lines.concat())), "{name} line {at}");
    }

    #[test]
    fn one_line_put_elsewhere(from_file: Index, from: Index, to_file: Index, to: Index, keep: bool) {
        let segments = segments();
        let (from_name, from_bytes) = from_file.get(&segments);
        let (to_name, to_bytes) = to_file.get(&segments);
        let source = lines(from_bytes);
        let line = from.get(&source);
        let mut target = lines(to_bytes);
        if from_name == to_name && !keep {
            let at = from.index(source.len());
            target.remove(at);
            target.insert(to.index(target.len() + 1), line);
        } else {
            target.insert(to.index(target.len() + 1), line);
        }
        let changed = target.concat();
        prop_assume!(&changed != to_bytes);
        prop_assert!(is_found(to_name, Some(&changed)), "{from_name} -> {to_name}");
    }

    #[test]
    fn two_swapped_lines(file: Index, a: Index, b: Index) {
        let segments = segments();
        let (name, bytes) = file.get(&segments);
        let mut lines = lines(bytes);
        let (a, b) = (a.index(lines.len()), b.index(lines.len()));
        prop_assume!(a != b);
        lines.swap(a, b);
        prop_assert!(is_found(name, Some(&lines.concat())), "{name} lines {a} and {b}");
    }
}

#[test]
fn any_one_removed_file() {
    for (name, _) in &FILES.1 {
        assert!(is_found(name, None), "{name}");
    }
}
