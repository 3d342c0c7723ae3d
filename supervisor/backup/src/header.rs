//! Headers of a tar file, in the one form that a backup has.
//!
//! Plain files only, owned by nobody, with a mode that says whether it is a program. A longer name than POSIX's header holds comes as GNU's
//! long name. A header is read by its fields and made anew from them: one that was not made here differs, whatever other readers of tar
//! files would make of it.

use std::io::{self, Read};

use tar::{EntryType, Header};

use crate::entry::MAX_NAME;

/// Everything in a tar file is a multiple of this.
pub(crate) const BLOCK: usize = 512;

const LONG_NAME: &[u8] = b"././@LongLink";
/// Bytes of a name that a header itself holds.
const SHORT: usize = 100;

/// What a header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fields {
    pub(crate) name: String,
    pub(crate) size: u64,
    pub(crate) executable: bool,
    /// Seconds since 1970.
    pub(crate) time: u64,
}

/// Why a header cannot be used.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The archive ends.
    Cut,
    /// It was changed.
    Changed(&'static str),
    /// It was made on purpose, by somebody else.
    Foreign(String),
    Io(io::Error),
}

impl Fields {
    /// One block, or with a long name three and more. None: no header holds the name.
    pub(crate) fn encode(&self) -> Option<Vec<u8>> {
        let mut header = Header::new_ustar();
        if header.set_path(&self.name).is_ok() && *header.path_bytes() == *self.name.as_bytes() {
            self.fill(&mut header);
            return Some(header.as_bytes().to_vec());
        }
        if self.name.len() > MAX_NAME {
            return None;
        }
        let mut long = Header::new_gnu();
        put(&mut long, LONG_NAME)?;
        long.set_mode(0o644);
        long.set_uid(0);
        long.set_gid(0);
        long.set_mtime(0);
        long.set_size(self.name.len() as u64 + 1);
        long.set_entry_type(EntryType::GNULongName);
        long.set_cksum();
        let mut out = long.as_bytes().to_vec();
        out.extend_from_slice(self.name.as_bytes());
        out.push(0);
        out.resize(out.len().next_multiple_of(BLOCK), 0);
        let mut header = Header::new_gnu();
        put(&mut header, self.name.as_bytes())?;
        self.fill(&mut header);
        out.extend_from_slice(header.as_bytes());
        Some(out)
    }

    fn fill(&self, header: &mut Header) {
        header.set_mode(if self.executable { 0o755 } else { 0o600 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(self.time);
        header.set_size(self.size);
        header.set_entry_type(EntryType::Regular);
        header.set_cksum();
    }

    /// Reads one, and gives the bytes that it had. None: the mark at the end, of which this is the first half.
    pub(crate) fn read(input: &mut impl Read) -> Result<Option<(Self, Vec<u8>)>, Fault> {
        let mut raw = block(input)?;
        if raw.iter().all(|&b| b == 0) {
            return Ok(None);
        }
        let mut name = None;
        let first = checked(&raw)?;
        if first.entry_type() == EntryType::GNULongName {
            let length = usize::try_from(first.size().unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
            if length > MAX_NAME + 1 {
                return Err(Fault::Foreign("its name is too long".to_owned()));
            }
            let mut text = vec![0; length.next_multiple_of(BLOCK)];
            fill(input, &mut text)?;
            name = Some(text[..length.saturating_sub(1)].to_vec());
            raw.extend(text);
            raw.extend(block(input)?);
        }
        let at = raw.len() - BLOCK;
        let header = checked(&raw[at..])?;
        refuse_others(&header)?;
        let name = name.unwrap_or_else(|| header.path_bytes().into_owned());
        let name = String::from_utf8(name).map_err(|_| Fault::Foreign("its name is not UTF-8".to_owned()))?;
        let number = |field: io::Result<u64>| field.map_err(|_| Fault::Changed("its header has no number"));
        let mode = header.mode().map_err(|_| Fault::Changed("its header has no number"))?;
        let fields = Self {
            name,
            size: number(header.size())?,
            executable: mode & 0o111 != 0,
            time: number(header.mtime())?,
        };
        if fields.encode().is_none_or(|made| made != raw) {
            return Err(Fault::Foreign("its header is not in the form that aiond writes".to_owned()));
        }
        Ok(Some((fields, raw)))
    }
}

/// Links, devices, folders, sparse files: each has been somebody's way out of an archive.
fn refuse_others(header: &Header) -> Result<(), Fault> {
    let what = match header.entry_type() {
        EntryType::Regular => return Ok(()),
        EntryType::Symlink | EntryType::Link => "a link",
        EntryType::Char | EntryType::Block => "a device",
        EntryType::Directory => "a folder",
        EntryType::Fifo => "a pipe",
        _ => "something else",
    };
    Err(Fault::Foreign(format!("it is {what}; a backup has plain files only")))
}

/// A header whose own checksum fits: a single byte that was changed shows here.
fn checked(block: &[u8]) -> Result<Header, Fault> {
    let bytes: &[u8; BLOCK] = block.try_into().map_err(|_| Fault::Cut)?;
    let header = Header::from_byte_slice(bytes).clone();
    let mut again = header.clone();
    again.set_cksum();
    let (stated, is) = (header.cksum().ok(), again.cksum().ok());
    if stated.is_none() || stated != is {
        return Err(Fault::Changed("its header was changed"));
    }
    Ok(header)
}

/// Writes a name into the first field, cut off where that ends.
fn put(header: &mut Header, name: &[u8]) -> Option<()> {
    let name = &name[..name.len().min(SHORT)];
    header.as_gnu_mut()?.name.get_mut(..name.len())?.copy_from_slice(name);
    Some(())
}

fn block(input: &mut impl Read) -> Result<Vec<u8>, Fault> {
    let mut block = vec![0; BLOCK];
    fill(input, &mut block)?;
    Ok(block)
}

fn fill(input: &mut impl Read, out: &mut [u8]) -> Result<(), Fault> {
    input.read_exact(out).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => Fault::Cut,
        _ => Fault::Io(error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(name: &str, size: u64) -> Fields {
        Fields { name: name.to_owned(), size, executable: false, time: 1_700_000_000 }
    }

    #[test]
    fn each_reads_back() {
        let long = format!("tools/{}/{}x", "0a".repeat(32), "directory/".repeat(30));
        let component = format!("tools/{}/{}", "0a".repeat(32), "x".repeat(200));
        for (name, size) in
            [("db/CURRENT", 0), ("db/x", 1 << 40), (long.as_str(), 5), (component.as_str(), 7)]
        {
            let made = fields(name, size).encode().unwrap();
            assert_eq!(made.len() % BLOCK, 0);
            let (read, raw) = Fields::read(&mut made.as_slice()).unwrap().unwrap();
            assert_eq!((read, raw), (fields(name, size), made));
        }
        assert_eq!(fields(&"x/".repeat(2000), 1).encode(), None);
    }

    #[test]
    fn other_forms_of_the_same_are_refused() {
        let refused = |edit: &dyn Fn(&mut Header)| {
            let mut header = Header::from_byte_slice(fields("db/x", 3).encode().unwrap().as_slice()).clone();
            edit(&mut header);
            header.set_cksum();
            matches!(Fields::read(&mut header.as_bytes().as_slice()), Err(Fault::Foreign(_)))
        };
        assert!(!refused(&|_| {}));
        assert!(refused(&|h| h.set_uid(1)));
        assert!(refused(&|h| h.set_mode(0o4755)));
        assert!(refused(&|h| h.set_username("root").unwrap()));
        assert!(refused(&|h| h.as_mut_bytes()[511] = 1));
        for kind in [
            EntryType::Symlink,
            EntryType::Link,
            EntryType::Char,
            EntryType::Block,
            EntryType::Directory,
            EntryType::Fifo,
            EntryType::GNUSparse,
            EntryType::XHeader,
            EntryType::XGlobalHeader,
            EntryType::GNULongLink,
            EntryType::Continuous,
        ] {
            assert!(refused(&|h| h.set_entry_type(kind)), "{kind:?}");
        }
    }
}
