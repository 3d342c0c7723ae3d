//! What flags gave, and errors about it: the daemon names a field of its request, but who typed knows the flag.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use aion_types::ErrorCode;

use crate::failure::{Failure, Outcome, USAGE};

/// The largest secret or key that is read; the daemon takes less.
const MAX_SECRET: u64 = 8192;

/// A secret from a file or standard input, without the newline that editors leave at its end.
pub(super) fn secret(flag: &str, path: &Path) -> Outcome<Vec<u8>> {
    let stdin = path.as_os_str() == "-";
    let name = if stdin { "standard input".to_owned() } else { path.display().to_string() };
    let hint = format!("{flag} takes a file with nothing but the secret in it, or - for standard input");
    let mut bytes = Vec::new();
    let read = if stdin {
        io::stdin().take(MAX_SECRET + 1).read_to_end(&mut bytes)
    } else {
        File::open(path).and_then(|file| file.take(MAX_SECRET + 1).read_to_end(&mut bytes))
    };
    if let Err(error) = read {
        return Err(Failure::new(1, format!("{flag}: cannot read {name}")).cause(&error).hint(hint));
    }
    if u64::try_from(bytes.len()).is_ok_and(|length| length > MAX_SECRET) {
        let message = format!("{flag}: {name} has more than {MAX_SECRET} bytes");
        return Err(Failure::coded(ErrorCode::TooLarge, message).hint(hint));
    }
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    if bytes.is_empty() {
        return Err(Failure::new(USAGE, format!("{flag}: {name} is empty")).hint(hint));
    }
    Ok(bytes)
}

/// A field of a request: the flag that gives it, and what to write there.
pub(super) type Flag = (&'static str, &'static str, &'static str);

/// An error of the daemon about a field, in the words of who typed.
pub(super) fn told(error: aion_client::Error, flags: &[Flag]) -> Failure {
    let known = flags.iter().find(|(field, ..)| error.meta("field") == Some(field));
    let failure = Failure::from(error);
    match known {
        Some((field, flag, fix)) => failure.of_flag(field, flag, fix),
        None => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_names_its_flag() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, bytes: &[u8]| {
            let path = dir.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            path
        };
        assert_eq!(secret("--file", &file("good", b"abc\n\n")).unwrap(), b"abc\n");
        let large = vec![b'x'; 8193];
        for (path, exit, text) in [
            (dir.path().join("missing"), 1, "cannot read"),
            (dir.path().to_owned(), 1, "cannot read"),
            (file("empty", b""), 2, "is empty"),
            (file("newline", b"\n"), 2, "is empty"),
            (file("large", &large), 2, "more than 8192 bytes"),
        ] {
            let failure = secret("--key-file", &path).unwrap_err();
            let told = failure.render();
            assert!(told.contains("--key-file: ") && told.contains("hint"), "{told}");
            assert!(told.contains(text) && told.contains(&path.display().to_string()), "{told}");
            assert_eq!(failure.exit, exit, "{told}");
        }
    }
}
