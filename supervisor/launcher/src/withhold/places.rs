//! From a rule of a launch to the inodes that the kernel knows it by.
//!
//! The agent may have made links and moved folders to be somewhere else than where it is looked for. So nothing that it can change is
//! trusted: what lies below a mount that it can write to is withheld with all of that mount, and a mount that hangs in such a one with
//! all that hang there. Its mounts themselves it cannot change. Rules are looked for one by one: what cannot be found of one because
//! the agent moves it all the time holds up no other.

use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use aion_probes::FilePlace;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, openat2};
use rustix::io::Errno;

use super::rules::Where;
use crate::Failure;
use crate::agent::Run;
use crate::files;

/// How often a moment is looked for in which the agent moves nothing.
const TRIES: usize = 32;

/// As the system's own links lead, within the agent's root.
const BY_LINKS: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

/// A mount of the agent's.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mount {
    id: u64,
    device: (u32, u32),
    at: PathBuf,
    writable: bool,
}

impl Mount {
    /// Whether the agent can change what is in it. Its root it cannot.
    fn is_agents(&self) -> bool {
        self.writable && self.at != Path::new("/")
    }
}

/// All of them.
#[derive(Debug)]
pub(super) struct Mounts(Vec<Mount>);

impl Mounts {
    fn of(run: &Run) -> Result<Self, Failure> {
        let path = PathBuf::from(format!("/proc/{}/mountinfo", run.init_pid));
        let text = std::fs::read(&path).map_err(|e| Failure::state("read", &path, &e))?;
        Ok(Self::parse(&text))
    }

    /// A line is `ID PARENT MAJOR:MINOR ROOT POINT OPTIONS …`. Those that are none are left out.
    fn parse(text: &[u8]) -> Self {
        let mount = |line: &[u8]| {
            let mut fields = line.split(|&b| b == b' ');
            let id = word(fields.next()?)?.parse().ok()?;
            let (major, minor) = word(fields.nth(1)?)?.split_once(':')?;
            let device = (major.parse().ok()?, minor.parse().ok()?);
            let at = plain(fields.nth(1)?);
            let writable = fields.next()?.split(|&b| b == b',').any(|option| option == b"rw");
            Some(Mount { id, device, at, writable })
        };
        Self(text.split(|&b| b == b'\n').filter_map(mount).collect())
    }

    /// The outermost mount on the way to a path that the agent can write to.
    fn writable_above(&self, path: &Path, counts: impl Fn(&Mount) -> bool) -> Option<&Mount> {
        let on_the_way = |m: &&Mount| m.is_agents() && path.starts_with(&m.at);
        self.0.iter().filter(on_the_way).filter(|m| counts(m)).min_by_key(|m| m.at.as_os_str().len())
    }

    /// Mounts at a path or below it.
    fn below<'a>(&'a self, path: &'a Path) -> impl Iterator<Item = &'a Mount> {
        self.0.iter().filter(move |m| m.at.starts_with(path))
    }

    /// Mounts below a folder that was given, which came with it: not those of another that was given below it.
    fn with<'a>(&'a self, path: &'a Path, given: &'a [&'a Path]) -> impl Iterator<Item = &'a Mount> {
        let innermost = move |at: &Path| {
            let above = given.iter().copied().filter(|folder| at.starts_with(folder));
            above.max_by_key(|folder| folder.as_os_str().len())
        };
        self.below(path).filter(move |m| m.at != path && innermost(&m.at) == Some(path))
    }

    fn by_id(&self, id: u64) -> Option<&Mount> {
        self.0.iter().find(|m| m.id == id)
    }
}

fn word(field: &[u8]) -> Option<&str> {
    std::str::from_utf8(field).ok()
}

/// A path as mountinfo writes it: blanks and backslashes are `\040` and the like.
fn plain(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|_| first == b'\\');
        let escaped = octal.and_then(|digits| u8::from_str_radix(word(digits)?, 8).ok());
        bytes.push(escaped.unwrap_or(first));
        rest = if escaped.is_some() { after.get(3..).unwrap_or_default() } else { after };
    }
    PathBuf::from(OsString::from_vec(bytes))
}

/// Mount and inode of an open file, as the kernel numbers them: `stat` shows others on some file systems.
fn numbers(fdinfo: &str) -> Option<(u64, u64)> {
    let field = |name: &str| {
        let line = fdinfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().parse().ok()
    };
    Some((field("mnt_id")?, field("ino")?))
}

/// Where the agent's rules lie, seen once.
struct Look<'a> {
    root: &'a OwnedFd,
    mounts: &'a Mounts,
    /// Where the folders are that the agent was given, one by one.
    given: &'a [&'a Path],
}

/// Something was moved while it was looked for.
struct Moved;

impl Look<'_> {
    fn open(&self, path: &Path, how: ResolveFlags) -> Result<OwnedFd, Errno> {
        let inside = path.strip_prefix("/").unwrap_or(path);
        let inside = if inside.as_os_str().is_empty() { Path::new(".") } else { inside };
        openat2(self.root.as_fd(), inside, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), how)
    }

    /// The mount that an open file is on, and what the file is.
    fn place(&self, file: &OwnedFd) -> Result<(&Mount, FilePlace), Moved> {
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd()));
        let (id, inode) = numbers(&info.map_err(|_| Moved)?).ok_or(Moved)?;
        let mount = self.mounts.by_id(id).ok_or(Moved)?;
        let (major, minor) = mount.device;
        Ok((mount, FilePlace::new(major, minor, inode).ok_or(Moved)?))
    }

    /// What is at the root of a mount.
    fn root_of(&self, mount: &Mount) -> Result<FilePlace, Moved> {
        let file = self.open(&mount.at, files::INSIDE).map_err(|_| Moved)?;
        let (found, place) = self.place(&file)?;
        if found.id == mount.id { Ok(place) } else { Err(Moved) }
    }

    /// Of mounts that are there, each: one that is not found was moved.
    fn roots_of<'m>(&self, mounts: impl Iterator<Item = &'m Mount>) -> Result<Vec<FilePlace>, Moved> {
        let all: Vec<FilePlace> = mounts
            .filter(|m| self.is_on_top(m))
            .map(|mount| self.root_of(mount))
            .collect::<Result<_, _>>()?;
        if all.is_empty() { Err(Moved) } else { Ok(all) }
    }

    /// Whether no later mount stands at the same point.
    fn is_on_top(&self, mount: &Mount) -> bool {
        self.mounts.0.iter().rev().find(|other| other.at == mount.at).is_none_or(|top| top.id == mount.id)
    }

    fn of(&self, place: &Where) -> Result<Vec<FilePlace>, Moved> {
        match place {
            Where::AllPrograms => Ok(vec![FilePlace::EVERYTHING]),
            Where::Mount(path) => match self.mounts.writable_above(path, |m| m.at != *path) {
                // The agent can move the folder that it hangs in.
                Some(above) => self.roots_of(self.mounts.below(&above.at).filter(|m| m.at != above.at)),
                None => {
                    let mut all = self.roots_of(self.mounts.0.iter().filter(|m| m.at == *path))?;
                    // Nobody moves these: one that is not found is hidden by another.
                    let more = self.mounts.with(path, self.given);
                    all.extend(more.filter_map(|mount| self.root_of(mount).ok()));
                    Ok(all)
                }
            },
            Where::Programs(path) => self.programs(path),
        }
    }

    fn programs(&self, path: &Path) -> Result<Vec<FilePlace>, Moved> {
        if let Some(above) = self.mounts.writable_above(path, |_| true) {
            return self.roots_of(self.mounts.below(&above.at));
        }
        let mut all: Vec<FilePlace> =
            self.mounts.below(path).filter_map(|mount| self.root_of(mount).ok()).collect();
        match self.open(path, BY_LINKS) {
            Ok(file) => {
                let (mount, place) = self.place(&file)?;
                if mount.is_agents() {
                    all.extend(self.roots_of(self.mounts.below(&mount.at))?);
                } else {
                    all.push(place);
                }
            }
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
                if self.may_be_elsewhere(path)? {
                    all.extend(self.writable_roots()?);
                }
            }
            Err(_) => return Err(Moved),
        }
        Ok(all)
    }

    /// Of a path at which nothing is: whether the agent may have moved what was. If not, nothing was allowed there either.
    fn may_be_elsewhere(&self, path: &Path) -> Result<bool, Moved> {
        for above in path.ancestors().skip(1) {
            let Ok(folder) = self.open(above, BY_LINKS) else { continue };
            let (mount, _) = self.place(&folder)?;
            if mount.is_agents() {
                return Ok(true);
            }
            let name = path.strip_prefix(above).ok().and_then(|rest| rest.iter().next());
            // A link of the system's that leads nowhere now.
            return Ok(name.is_some_and(|name| is_link(&folder, Path::new(name))));
        }
        Ok(true)
    }

    /// The roots of all mounts that the agent can write to.
    fn writable_roots(&self) -> Result<Vec<FilePlace>, Moved> {
        let mut all = Vec::new();
        for mount in self.mounts.0.iter().filter(|m| m.is_agents() && self.is_on_top(m)) {
            match self.root_of(mount) {
                Ok(place) => all.push(place),
                // Nobody moves it: it is hidden by another.
                Err(Moved) if self.mounts.writable_above(&mount.at, |m| m.at != mount.at).is_none() => {}
                Err(Moved) => return Err(Moved),
            }
        }
        Ok(all)
    }

    /// The roots of mounts in which the agent may be moving what a rule is about, as far as they are found.
    fn movers(&self, place: &Where) -> Vec<FilePlace> {
        let (Where::Mount(path) | Where::Programs(path)) = place else { return Vec::new() };
        let above = self.mounts.writable_above(path, |_| true);
        // It may be reached by a link: then it is in any of them.
        let counts = |m: &&Mount| m.is_agents() && above.is_none_or(|above| m.at.starts_with(&above.at));
        self.mounts.0.iter().filter(counts).filter_map(|mount| self.root_of(mount).ok()).collect()
    }
}

fn is_link(folder: &OwnedFd, name: &Path) -> bool {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat2(folder.as_fd(), name, flags, Mode::empty(), BY_LINKS);
    let stat = file.and_then(|file| fstat(&file));
    stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink)
}

/// The places of each of these rules, of an agent that was given folders at `given`. None: it moves that rule's all the time.
pub(super) fn find(
    run: &Run,
    rules: &[&Where],
    given: &[&Path],
) -> Result<Vec<Option<Vec<FilePlace>>>, Failure> {
    let root = files::root_of(run)?;
    let mut all: Vec<Option<Vec<FilePlace>>> = rules.iter().map(|_| None).collect();
    for _ in 0..TRIES {
        let mounts = Mounts::of(run)?;
        let look = Look { root: &root, mounts: &mounts, given };
        for (found, rule) in all.iter_mut().zip(rules).filter(|(found, _)| found.is_none()) {
            *found = look.of(rule).ok();
        }
        if all.iter().all(Option::is_some) {
            break;
        }
    }
    Ok(all)
}

/// Where an agent must not write for a rule's places to stay where they are.
pub(super) fn movers(run: &Run, rule: &Where) -> Result<Vec<FilePlace>, Failure> {
    let root = files::root_of(run)?;
    let mounts = Mounts::of(run)?;
    Ok(Look { root: &root, mounts: &mounts, given: &[] }.movers(rule))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"100 99 0:40 / / ro,relatime - tmpfs aion ro\n\
        101 100 254:1 /usr /usr ro,nosuid - ext4 /dev/vda1 rw\n\
        102 100 254:1 /srv/data /srv/my\\040data rw,nosuid shared:3 - ext4 /dev/vda1 rw\n\
        103 102 254:1 /srv/in /srv/my\\040data/in ro - ext4 /dev/vda1 rw\n\
        nonsense\n";

    #[test]
    fn mounts_are_read() {
        let mounts = Mounts::parse(TEXT);
        assert_eq!(mounts.0.len(), 4);
        let data = mounts.by_id(102).unwrap();
        assert_eq!(
            (data.device, data.at.as_path(), data.writable),
            ((254, 1), Path::new("/srv/my data"), true)
        );
        assert!(!mounts.by_id(101).unwrap().writable, "the mount's own options count, not the file system's");
        assert_eq!(mounts.below(Path::new("/srv")).count(), 2);
        assert_eq!(mounts.below(Path::new("/sr")).count(), 0);
    }

    #[test]
    fn what_is_mounted_below_a_folder_comes_with_it() {
        let text = b"1 0 0:40 / / ro - tmpfs aion ro\n\
            2 1 254:1 /srv /srv ro - ext4 /dev/vda1 rw\n\
            3 2 254:2 / /srv/disk ro - ext4 /dev/vda2 rw\n\
            4 2 254:1 /srv/own /srv/own ro - ext4 /dev/vda1 rw\n";
        let mounts = Mounts::parse(text);
        let given = [Path::new("/srv"), Path::new("/srv/own")];
        let with = |path: &str| mounts.with(Path::new(path), &given).map(|m| m.id).collect::<Vec<_>>();
        assert_eq!(with("/srv"), [3]);
        assert_eq!(with("/srv/own"), [0; 0]);
    }

    #[test]
    fn what_the_agent_can_move_is_known() {
        let mounts = Mounts::parse(TEXT);
        let above = |path: &str| mounts.writable_above(Path::new(path), |_| true).map(|m| m.id);
        assert_eq!(above("/srv/my data/in"), Some(102));
        assert_eq!(above("/srv/my data"), Some(102));
        assert_eq!(above("/usr/bin/git"), None);
        let own = Path::new("/srv/my data");
        assert_eq!(mounts.writable_above(own, |m| m.at != own), None, "itself is fixed where it is");
    }

    #[test]
    fn a_link_that_leads_nowhere_may_lead_to_what_was_moved() {
        let root = OwnedFd::from(std::fs::File::open("/").unwrap());
        let mut mounts = Mounts::parse(&std::fs::read("/proc/self/mountinfo").unwrap());
        mounts.0.iter_mut().for_each(|m| m.writable = false);
        let look = Look { root: &root, mounts: &mounts, given: &[] };
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("nowhere", dir.path().join("link")).unwrap();
        std::fs::write(dir.path().join("file"), "").unwrap();
        let found = |name: &str| look.may_be_elsewhere(&dir.path().join(name)).ok();
        assert_eq!((found("link"), found("link/below")), (Some(true), Some(true)));
        assert_eq!((found("absent"), found("absent/below")), (Some(false), Some(false)));
        assert_eq!(found("file/below"), Some(false));
    }

    #[test]
    fn numbers_of_a_file() {
        let text = "pos:\t0\nflags:\t012100000\nmnt_id:\t31\nino:\t8193\n";
        assert_eq!(numbers(text), Some((31, 8193)));
        assert_eq!(numbers("pos:\t0\nmnt_id:\t31\n"), None);
        assert_eq!(plain(b"/a\\040b\\134c\\"), Path::new("/a b\\c\\"));
    }
}
