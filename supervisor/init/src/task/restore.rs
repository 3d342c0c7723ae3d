//! Unpacking a checkpoint into an empty folder, before the agent's first process is there.
//!
//! It was packed by an init, and has been elsewhere since: every byte is checked as if an enemy had written it.

use std::fs::File;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{Mode, OFlags, ResolveFlags, fchmod, fchown, mkdirat, openat2};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};

use super::format::{HEADER, Header, Kind, MAGIC, MAX_ENTRIES, is_sound};

const PIECE: usize = 256 << 10;

/// Unpacks; what is made belongs to `owner`. At most `max` bytes are read.
pub(crate) fn unpack(from: &File, into: BorrowedFd<'_>, owner: (u32, u32), max: u64) -> Result<(), String> {
    let mut source = Source { from, at: 0, max, buffer: vec![0; PIECE] };
    if source.array()? != MAGIC {
        return Err("it is not a packed checkpoint".to_owned());
    }
    let (mut entries, mut content) = (0, 0u64);
    loop {
        let header: [u8; HEADER] = source.array()?;
        let header = Header::decode(header).ok_or("an entry makes no sense")?;
        if header.kind == Kind::End {
            let whole = (header.mode, header.size) == (entries, content);
            return if whole { Ok(()) } else { Err("its end does not fit".to_owned()) };
        }
        entries += 1;
        if entries > MAX_ENTRIES {
            return Err(format!("more than {MAX_ENTRIES} files and folders"));
        }
        let mut path = vec![0; usize::from(header.path)];
        source.fill(&mut path)?;
        if !is_sound(&path) {
            return Err("a path leads elsewhere".to_owned());
        }
        let failed = |e: Errno| format!("cannot make {:?}: {e}", String::from_utf8_lossy(&path));
        let made = match header.kind {
            Kind::Folder => folder(into, &path).map_err(failed)?,
            _ => {
                let file = File::from(make(into, &path).map_err(failed)?);
                source.copy(&file, header.size)?;
                content += header.size;
                file.into()
            }
        };
        fchown(&made, Some(Uid::from_raw(owner.0)), Some(Gid::from_raw(owner.1))).map_err(failed)?;
        fchmod(&made, Mode::from_raw_mode(header.mode)).map_err(failed)?;
    }
}

fn open(into: BorrowedFd<'_>, path: &[u8], flags: OFlags, mode: u32) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    openat2(into, path, flags | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::from_raw_mode(mode), resolve)
}

fn make(into: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
    open(into, path, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL, 0o600)
}

fn folder(into: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
    let folder = OFlags::RDONLY | OFlags::DIRECTORY;
    match path.iter().rposition(|&b| b == b'/') {
        None => mkdirat(into, path, Mode::from_raw_mode(0o700))?,
        Some(slash) => {
            let parent = open(into, &path[..slash], folder, 0)?;
            mkdirat(&parent, &path[slash + 1..], Mode::from_raw_mode(0o700))?;
        }
    }
    open(into, path, folder, 0)
}

struct Source<'a> {
    from: &'a File,
    at: u64,
    max: u64,
    buffer: Vec<u8>,
}

impl Source<'_> {
    fn fill(&mut self, into: &mut [u8]) -> Result<(), String> {
        let end = self.at.saturating_add(into.len() as u64);
        if end > self.max {
            return Err(format!("it is larger than {} bytes", self.max));
        }
        // Its own offset is shared with whoever sent it.
        self.from.read_exact_at(into, self.at).map_err(|e| format!("it cannot be read: {e}"))?;
        self.at = end;
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut bytes = [0; N];
        self.fill(&mut bytes).map(|()| bytes)
    }

    fn copy(&mut self, to: &File, size: u64) -> Result<(), String> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut done = 0;
        let mut result = Ok(());
        while done < size && result.is_ok() {
            let want = usize::try_from(size - done).unwrap_or(PIECE).min(PIECE);
            result = self.fill(&mut buffer[..want]).and_then(|()| {
                to.write_all_at(&buffer[..want], done).map_err(|e| format!("it cannot be written: {e}"))
            });
            done += want as u64;
        }
        self.buffer = buffer;
        result
    }
}

#[cfg(test)]
mod tests {
    use super::super::pack::{Failed, Packed, Packer};
    use super::*;
    use proptest::prelude::*;
    use std::os::fd::AsFd;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::Path;

    fn pack(dir: &Path, max: u64) -> Result<(File, Packed), String> {
        let out = tempfile::tempfile().unwrap();
        let folder = File::open(dir).unwrap();
        let refused = |f| match f {
            Failed::Refused(why) => why,
            Failed::Disk => panic!("the disk"),
        };
        let mut packer = Packer::new(folder.as_fd(), max).map_err(refused)?;
        loop {
            if let Some(packed) = packer.step(&out).map_err(refused)? {
                return Ok((out, packed));
            }
        }
    }

    fn restore(from: &File, max: u64) -> Result<tempfile::TempDir, String> {
        let dir = tempfile::tempdir().unwrap();
        let me = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        let folder = File::open(dir.path()).unwrap();
        unpack(from, folder.as_fd(), me, max).map(|()| dir)
    }

    #[test]
    fn a_folder_comes_back_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let at = |p: &str| dir.path().join(p);
        std::fs::create_dir_all(at("b/c/empty")).unwrap();
        std::fs::write(at("a"), vec![7; 700_000]).unwrap();
        std::fs::write(at("b/c/x y"), b"").unwrap();
        std::fs::write(at("b/z"), b"zz").unwrap();
        std::fs::set_permissions(at("b/z"), std::fs::Permissions::from_mode(0o751)).unwrap();
        std::fs::write(at(".commit"), b"no").unwrap();
        symlink("/etc/shadow", at("link")).unwrap();
        let (one, packed) = pack(dir.path(), 1 << 20).unwrap();
        assert_eq!((packed.entries, packed.skipped.count), (6, 1));
        assert_eq!(packed.skipped.names, ["link"]);
        assert_eq!(packed.len, one.metadata().unwrap().len());
        let back = restore(&one, 1 << 20).unwrap();
        assert_eq!(std::fs::read(back.path().join("a")).unwrap(), vec![7; 700_000]);
        assert_eq!(std::fs::read(back.path().join("b/c/x y")).unwrap(), b"");
        assert!(back.path().join("b/c/empty").is_dir());
        let mode = std::fs::metadata(back.path().join("b/z")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o751);
        assert!(!back.path().join(".commit").exists() && !back.path().join("link").exists());
        let (_, again) = pack(back.path(), 1 << 20).unwrap();
        assert_eq!(again.sha256, packed.sha256, "the same folder packs to the same bytes");
        assert!(restore(&one, packed.len - 1).unwrap_err().contains("larger"));
    }

    #[test]
    fn what_is_too_much_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let big = File::create(dir.path().join("sparse")).unwrap();
        big.set_len(1 << 40).unwrap();
        assert!(pack(dir.path(), 1 << 20).unwrap_err().contains("larger"));
        std::fs::remove_file(dir.path().join("sparse")).unwrap();
        std::fs::create_dir_all(dir.path().join("d/".repeat(40))).unwrap();
        assert!(pack(dir.path(), 1 << 20).unwrap_err().contains("in each other"));
    }

    proptest! {
        #[test]
        fn hostile_bytes_neither_panic_nor_leave_the_folder(
            noise in prop::collection::vec(any::<u8>(), 0..300), at in 0usize..120, flip in any::<u8>(),
        ) {
            let dir = tempfile::tempdir().unwrap();
            std::fs::create_dir(dir.path().join("d")).unwrap();
            std::fs::write(dir.path().join("d/f"), &noise).unwrap();
            let (packed, _) = pack(dir.path(), 1 << 20).unwrap();
            let mut byte = [0];
            if packed.read_at(&mut byte, at as u64).unwrap() == 1 {
                packed.write_all_at(&[byte[0] ^ flip], at as u64).unwrap();
            }
            let _ = restore(&packed, 1 << 20);
            let raw = tempfile::tempfile().unwrap();
            raw.write_all_at(&MAGIC, 0).unwrap();
            raw.write_all_at(&noise, 8).unwrap();
            prop_assert!(restore(&raw, 1 << 20).is_err());
        }
    }
}
