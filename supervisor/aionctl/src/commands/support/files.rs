//! Files: the configuration as it lies there, digests of the policies, and the daemons' logs where they write some.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use sha2::{Digest as _, Sha256};

use super::bundle::{Body, Found, Limits, Piece};

/// Files that lie beside the configuration.
const BESIDE: [&str; 4] = ["aiond.env", "aion-launcher.env", "scheduler.yaml", "cgroup_profiles.yaml"];
/// More files than any folder of policies has.
const MOST: usize = 2000;
/// How long a folder may take to be listed.
const MOMENT: std::time::Duration = std::time::Duration::from_secs(5);
/// How deep such a folder is at most.
const DEPTH: usize = 8;

/// The configuration: FILE, those of FILE.d, and what lies beside it. `none` is none.
pub(super) fn configuration(config: &Path) -> Vec<Piece> {
    if config == Path::new("none") {
        return vec![Piece::absent("config/config.yaml", "no configuration is read: --config none")];
    }
    let piece = |name: String, path: PathBuf| {
        Piece::blocking(name, Limits::SMALL, move || last(&path, Limits::SMALL.bytes, OFlag::empty()))
    };
    let mut pieces = vec![piece("config/config.yaml".to_owned(), config.to_owned())];
    let mut folder = config.as_os_str().to_owned();
    folder.push(".d");
    for path in listed(Path::new(&folder), "yaml") {
        pieces.push(piece(format!("config/config.yaml.d/{}", name_of(&path)), path));
    }
    let beside = BESIDE.map(|name| config.with_file_name(name));
    let beside = soon(|| beside.into_iter().filter(|path| path.exists()).collect::<Vec<_>>());
    pieces.extend(beside.into_iter().flatten().map(|path| piece(format!("config/{}", name_of(&path)), path)));
    pieces
}

/// The policies' files and their digests: which rules these are, and not what they say.
pub(super) fn policies(folder: PathBuf) -> Piece {
    Piece::blocking("config/policies.json", Limits::SMALL, move || {
        let mut digests = Vec::new();
        digest_all(&folder, &folder, DEPTH, &mut digests).map_err(|error| told(&folder, &error))?;
        digests.sort();
        Ok(Body::Digests(digests))
    })
}

/// Logs below the state folder, which daemons have that were started without a service manager.
pub(super) fn logs(state: &Path) -> Vec<Piece> {
    let folder = state.join("log");
    // The folder may be another user's, who must not choose which files of root's are read here.
    let found = soon(move || {
        let real = fs::symlink_metadata(&folder).is_ok_and(|meta| meta.is_dir());
        if real { files(&folder, "log") } else { Vec::new() }
    });
    let logs = found.into_iter().flatten().map(|path| {
        let name = format!("logs/{}", name_of(&path));
        let work = move || last(&path, Limits::LARGE.bytes, OFlag::O_NOFOLLOW);
        Piece::blocking(name, Limits::LARGE, work)
    });
    logs.collect()
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Does what a file system that hangs would keep: in a thread, which nobody waits for longer than a moment.
fn soon<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (send, receive) = std::sync::mpsc::sync_channel(1);
    std::thread::spawn(move || drop(send.send(work())));
    receive.recv_timeout(MOMENT).ok()
}

/// The files of a folder that end so, by name; none when it cannot be read, or hangs.
fn listed(folder: &Path, extension: &'static str) -> Vec<PathBuf> {
    let folder = folder.to_owned();
    soon(move || files(&folder, extension)).unwrap_or_default()
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let mut paths: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|end| end == extension)).take(MOST).collect();
    paths.sort();
    paths
}

/// The end of a plain file, of at most so many bytes.
fn last(path: &Path, most: usize, flags: OFlag) -> Found {
    let read = || -> io::Result<Body> {
        let mut file = open(path, flags)?;
        let most = u64::try_from(most).unwrap_or(u64::MAX);
        let from = file.metadata()?.len().saturating_sub(most);
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.take(most).read_to_end(&mut bytes)?;
        Ok(Body::Text { bytes, cut: from > 0 })
    };
    read().map_err(|error| told(path, &error))
}

/// Opens what is a plain file; a pipe would be waited for.
fn open(path: &Path, flags: OFlag) -> io::Result<File> {
    let flags = (flags | OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is no plain file")) }
}

fn digest_all(
    folder: &Path,
    root: &Path,
    depth: usize,
    digests: &mut Vec<(String, String)>,
) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        if digests.len() >= MOST {
            return Err(io::Error::other(format!("it has more than {MOST} files")));
        }
        if entry.file_type()?.is_dir() {
            if depth > 0 {
                digest_all(&path, root, depth - 1, digests)?;
            }
            continue;
        }
        let name = path.strip_prefix(root).unwrap_or(&path).display().to_string();
        digests.push((name, digest(&path).unwrap_or_else(|error| format!("unreadable: {error}"))));
    }
    Ok(())
}

fn digest(path: &Path) -> io::Result<String> {
    let mut file = open(path, OFlag::empty())?;
    let mut sum = Sha256::new();
    let mut part = vec![0; 64 << 10];
    loop {
        match file.read(&mut part)? {
            0 => break,
            n => sum.update(part.get(..n).unwrap_or_default()),
        }
    }
    let mut hex = String::new();
    for byte in sum.finalize() {
        // Writing to a string does not fail.
        let _ = write!(hex, "{byte:02x}");
    }
    Ok(hex)
}

fn told(path: &Path, error: &io::Error) -> String {
    format!("cannot read {}: {error}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(found: Found) -> (String, bool) {
        match found {
            Ok(Body::Text { bytes, cut }) => (String::from_utf8(bytes).unwrap(), cut),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn of_a_long_file_the_end_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("aiond.log");
        fs::write(&path, "one\ntwo\nthree\n").unwrap();
        assert_eq!(text(last(&path, 6, OFlag::empty())), ("three\n".to_owned(), true));
        assert_eq!(text(last(&path, 100, OFlag::empty())), ("one\ntwo\nthree\n".to_owned(), false));
    }

    #[test]
    fn what_is_no_plain_file_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let (pipe, link) = (dir.path().join("pipe"), dir.path().join("link"));
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &link).unwrap();
        assert!(last(&pipe, 10, OFlag::empty()).unwrap_err().contains("no plain file"));
        assert!(last(&link, 10, OFlag::O_NOFOLLOW).is_err());
        assert!(last(dir.path(), 10, OFlag::empty()).is_err());
    }

    #[test]
    fn policies_are_known_by_their_digests() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("detections")).unwrap();
        fs::write(dir.path().join("detections/a.yaml"), "abc").unwrap();
        let mut digests = Vec::new();
        digest_all(dir.path(), dir.path(), DEPTH, &mut digests).unwrap();
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(digests, [("detections/a.yaml".to_owned(), abc.to_owned())]);
    }

    #[test]
    fn what_lies_there_is_collected() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("config.yaml");
        fs::create_dir(dir.path().join("config.yaml.d")).unwrap();
        fs::write(dir.path().join("config.yaml.d/50-mine.yaml"), "").unwrap();
        fs::write(dir.path().join("config.yaml.d/notes.txt"), "").unwrap();
        fs::write(dir.path().join("aiond.env"), "").unwrap();
        let names: Vec<String> = configuration(&config).iter().map(|piece| piece.name().to_owned()).collect();
        assert_eq!(names, ["config/config.yaml", "config/config.yaml.d/50-mine.yaml", "config/aiond.env"]);
        assert!(logs(dir.path()).is_empty());
    }
}
