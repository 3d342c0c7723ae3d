//! `fs.read`, `fs.write`, `fs.list`, `fs.stat`: files of a running agent, at the paths that it sees.
//!
//! What is decided is the path, so the path must be the file: whoever opens it (see [`Host::file`]) follows no link. Here params
//! become a [`FileCall`], and bytes go through the descriptor that came back; it is a regular file, so nothing waits for anybody.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex, PoisonError};

use aion_manifest::{Access, Capability, PathPattern};
use aion_syscall::{Need, Reason, Refusal};
use aion_types::{ErrorCode, TenantId};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::host::{FileAnswer, FileAsk, FileInfo, FileUse, Host};
use crate::kernel::{Call, Kernel};
use crate::params::{number, text};

/// Calls of one tenant at once: each may hold megabytes, and a thread.
const AT_ONCE: usize = 8;
/// Bytes that are read at once: as much as a body may have, and what is read when nothing is said.
const MOST: u64 = 4 << 20;
const USUAL: u64 = 1 << 20;
/// Entries of a page.
const MAX_PAGE: u64 = 1000;
const USUAL_PAGE: u64 = 100;
/// The longest file that there can be.
const FAR: u64 = 1 << 62;

/// How bytes become text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    /// Text where it is text, else base64.
    Any,
    Utf8,
    Base64,
}

/// What becomes of what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Truncate,
    New,
    Append,
    Update(u64),
    Replace,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    Read { offset: u64, most: u64, encoding: Encoding },
    Write { data: Vec<u8>, mode: Mode, word: &'static str },
    List { after: u64, limit: u32 },
    Stat,
}

/// A call that is understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileCall {
    path: String,
    pattern: PathPattern,
    what: What,
}

impl FileCall {
    pub(crate) fn read(syscall: &str, params: &Map<String, Value>) -> Result<Self, Refusal> {
        let known: &[&str] = match syscall {
            "fs.read" => &["path", "offset", "max_bytes", "encoding"],
            "fs.write" => &["path", "data", "encoding", "mode", "offset"],
            "fs.list" => &["path", "limit", "after"],
            _ => &["path"],
        };
        if let Some(unknown) = params.keys().find(|key| !known.contains(&key.as_str())) {
            let shown: String = unknown.chars().take(80).collect();
            return Err(Refusal::field(format!("params.{shown}"), "it is not a field")
                .hint(format!("the fields are {}", known.join(", "))));
        }
        let path = match text(params, "path")? {
            Some(path) => path.to_owned(),
            None => return Err(Refusal::field("params.path", "it is missing: which file is it?")),
        };
        let pattern = PathPattern::one(&path).map_err(|why| {
            Refusal::field("params.path", why)
                .hint("write the path as the agent sees it, as /workspace/notes.txt")
        })?;
        let what = match syscall {
            "fs.read" => What::Read {
                offset: number(params, "offset", 0, 0, FAR)?,
                most: number(params, "max_bytes", USUAL, 1, MOST)?,
                encoding: encoding(params)?,
            },
            "fs.write" => write(params)?,
            "fs.list" => What::List {
                after: after(params)?,
                limit: u32::try_from(number(params, "limit", USUAL_PAGE, 1, MAX_PAGE)?).unwrap_or(1),
            },
            _ => What::Stat,
        };
        Ok(Self { path, pattern, what })
    }

    pub(crate) fn needs(&self) -> Vec<Need> {
        let access = if matches!(self.what, What::Write { .. }) { Access::Write } else { Access::Read };
        let capability = Capability::Fs { access, path: self.pattern.clone() };
        vec![Need { capability, word: String::new() }]
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }
}

fn encoding(params: &Map<String, Value>) -> Result<Encoding, Refusal> {
    match text(params, "encoding")? {
        None => Ok(Encoding::Any),
        Some("utf8") => Ok(Encoding::Utf8),
        Some("base64") => Ok(Encoding::Base64),
        Some(_) => Err(Refusal::field("params.encoding", "it is neither utf8 nor base64")),
    }
}

fn after(params: &Map<String, Value>) -> Result<u64, Refusal> {
    let given = text(params, "after")?.unwrap_or("0");
    given.parse().map_err(|_| Refusal::field("params.after", "it is not what `next` of a page was"))
}

fn write(params: &Map<String, Value>) -> Result<What, Refusal> {
    let data = text(params, "data")?
        .ok_or_else(|| Refusal::field("params.data", "it is missing: what is written?"))?;
    let data = match encoding(params)? {
        Encoding::Base64 => STANDARD
            .decode(data)
            .map_err(|error| Refusal::field("params.data", format!("it is not base64: {error}")))?,
        Encoding::Any | Encoding::Utf8 => data.as_bytes().to_vec(),
    };
    let offset = number(params, "offset", 0, 0, FAR)?;
    let (mode, word) = match text(params, "mode")? {
        None | Some("truncate") => (Mode::Truncate, "truncate"),
        Some("new") => (Mode::New, "new"),
        Some("append") => (Mode::Append, "append"),
        Some("update") => (Mode::Update(offset), "update"),
        Some("replace") => (Mode::Replace, "replace"),
        Some(_) => {
            return Err(Refusal::field("params.mode", "it is not truncate, new, append, update or replace"));
        }
    };
    if word != "update" && params.get("offset").is_some_and(|offset| !offset.is_null()) {
        return Err(Refusal::field("params.offset", "only mode update has an offset"));
    }
    Ok(What::Write { data, mode, word })
}

/// Calls under way.
#[derive(Default)]
pub(crate) struct Files(Mutex<HashMap<TenantId, Arc<Semaphore>>>);

impl Files {
    fn enter(&self, tenant: &TenantId) -> Result<OwnedSemaphorePermit, Refusal> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let places = all.entry(tenant.clone()).or_insert_with(|| Arc::new(Semaphore::new(AT_ONCE)));
        Arc::clone(places).try_acquire_owned().map_err(|_| {
            let message = format!("{AT_ONCE} calls of tenant {tenant} use files, that is the limit");
            Refusal::new(Reason::Exhausted, ErrorCode::ResourceExhausted, message)
                .by("fs: calls at once")
                .retry_after(100)
        })
    }
}

impl Kernel {
    /// Does a planned call.
    pub(crate) async fn files(&self, call: &Call, what: FileCall) -> Result<Value, Refusal> {
        let Some(uri) = &call.agent else {
            return Err(Refusal::field("agent_id", "whose files are they? name an agent"));
        };
        let grants = self.0.grants.of(self.0.host.as_ref(), uri)?;
        let place = self.0.files.enter(call.caller.tenant())?;
        let files = Of {
            host: Arc::clone(&self.0.host),
            // The one that it was decided for.
            agent: call.agent_id.clone(),
            path: what.path,
            largest: grants.spec.resources.file_size.0,
        };
        match what.what {
            What::Read { offset, most, encoding } => files.read(offset, most, encoding).await,
            What::Write { data, mode: Mode::Replace, .. } => files.replace(data, place).await,
            What::Write { data, mode, word } => files.write(data, mode, word).await,
            What::List { after, limit } => files.list(after, limit).await,
            What::Stat => files.stat().await,
        }
    }
}

/// One path of one agent.
struct Of {
    host: Arc<dyn Host>,
    agent: String,
    path: String,
    largest: u64,
}

impl Of {
    async fn ask(&self, ask: FileAsk) -> Result<FileAnswer, Refusal> {
        self.host.file(&self.agent, &self.path, ask).await
    }

    async fn open(&self, what_for: FileUse) -> Result<(FileInfo, File), Refusal> {
        match self.ask(FileAsk::Open { what_for }).await? {
            FileAnswer::Opened(info, file) => Ok((info, file)),
            _ => Err(strange()),
        }
    }

    async fn read(self, offset: u64, most: u64, encoding: Encoding) -> Result<Value, Refusal> {
        let (info, file) = self.open(FileUse::Read).await?;
        let (bytes, more) =
            blocking(move || read_some(&file, offset, most)).await?.map_err(|error| failed(&error, 0))?;
        let (word, data, bytes) = encoded(bytes, more, encoding)?;
        Ok(json!({
            "path": self.path, "offset": offset, "bytes": bytes, "more": more, "size": info.size,
            "modified_ms": info.modified_ns / 1_000_000, "encoding": word, "data": data,
        }))
    }

    /// The disk has its own end; this is the manifest's, which the agent's processes have as an rlimit.
    fn fits(&self, end: Option<u64>) -> Result<(), Refusal> {
        if end.is_some_and(|end| end <= self.largest) {
            return Ok(());
        }
        let message = format!("the file would have more than {} bytes", self.largest);
        Err(Refusal::new(Reason::TooLarge, ErrorCode::TooLarge, message)
            .by("spec.resources.file_size")
            .at("params.data"))
    }

    async fn write(self, data: Vec<u8>, mode: Mode, word: &str) -> Result<Value, Refusal> {
        let length = len(&data);
        let (what_for, at) = match mode {
            Mode::New => (FileUse::New, 0),
            Mode::Append => (FileUse::Append, 0),
            Mode::Update(offset) => (FileUse::Write, offset),
            Mode::Truncate | Mode::Replace => (FileUse::Write, 0),
        };
        self.fits(at.checked_add(length))?;
        let (info, mut file) = self.open(what_for).await?;
        if mode == Mode::Append {
            self.fits(info.size.checked_add(length))?;
        }
        let size = blocking(move || {
            let told = |(written, error): (u64, io::Error)| failed(&error, written);
            if mode == Mode::Truncate {
                file.set_len(0).map_err(|error| failed(&error, 0))?;
            }
            match mode {
                Mode::Append => write_end(&mut file, &data).map_err(told)?,
                _ => write_at(&file, &data, at).map_err(told)?,
            }
            file.metadata().map(|data| data.len()).map_err(|error| failed(&error, length))
        });
        let size = size.await??;
        Ok(json!({"path": self.path, "mode": word, "bytes": length, "size": size}))
    }

    /// All of it at once, or nothing. In a task of its own: a caller who goes away leaves no part behind.
    async fn replace(self, data: Vec<u8>, place: OwnedSemaphorePermit) -> Result<Value, Refusal> {
        let length = len(&data);
        self.fits(Some(length))?;
        let (caller, waits) = oneshot::channel::<()>();
        let path = self.path.clone();
        let done = tokio::spawn(async move {
            let _place = place;
            let part = part_name()?;
            let (_, file) = self.open(FileUse::Part(part.clone())).await?;
            let written = blocking(move || {
                write_at(&file, &data, 0).map_err(|(written, error)| failed(&error, written))?;
                // Else a power cut could leave the new name with nothing in it.
                file.sync_all().map_err(|error| failed(&error, length))
            });
            let written = written.await.and_then(|written| written);
            // A call that is over was not made.
            let keep = written.is_ok() && !caller.is_closed();
            let put = self.ask(FileAsk::Put { part, keep }).await;
            written.and(put.map(|_| ()))
        });
        let done = done.await.unwrap_or_else(|_| Err(strange()));
        drop(waits);
        done?;
        Ok(json!({"path": path, "mode": "replace", "bytes": length, "size": length}))
    }

    async fn list(self, after: u64, limit: u32) -> Result<Value, Refusal> {
        let FileAnswer::Page(entries, next) = self.ask(FileAsk::List { after, limit }).await? else {
            return Err(strange());
        };
        let entries: Vec<_> = entries.into_iter().map(|entry| shown(&entry, true)).collect();
        Ok(json!({"path": self.path, "entries": entries, "next": next.map(|next| next.to_string())}))
    }

    async fn stat(self) -> Result<Value, Refusal> {
        let FileAnswer::Info(info) = self.ask(FileAsk::Stat).await? else { return Err(strange()) };
        let mut found = shown(&info, false);
        found["path"] = json!(self.path);
        Ok(found)
    }
}

fn shown(info: &FileInfo, named: bool) -> Value {
    let mut shown = json!({
        "kind": info.kind, "size": info.size, "modified_ms": info.modified_ns / 1_000_000,
        "mode": format!("{:04o}", info.mode & 0o7777),
    });
    let mut name = |field: &str, bytes: &[u8]| {
        shown[field] = json!(String::from_utf8_lossy(bytes));
        if std::str::from_utf8(bytes).is_err() {
            shown[format!("{field}_base64")] = json!(STANDARD.encode(bytes));
        }
    };
    if named {
        name("name", &info.name);
    }
    if !info.target.is_empty() {
        name("target", &info.target);
    }
    shown
}

fn len(data: &[u8]) -> u64 {
    u64::try_from(data.len()).unwrap_or(u64::MAX)
}

/// Bytes from an offset, and whether there are more behind them.
fn read_some(file: &File, offset: u64, most: u64) -> io::Result<(Vec<u8>, bool)> {
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let mut bytes = Vec::new();
    let mut piece = vec![0; (256 << 10).min(most.saturating_add(1))];
    // One more than was asked for tells whether there is more, whatever the file says of its size.
    while bytes.len() <= most {
        let room = (most + 1 - bytes.len()).min(piece.len());
        match file.read_at(&mut piece[..room], offset.saturating_add(len(&bytes))) {
            Ok(0) => break,
            Ok(n) => bytes.extend_from_slice(&piece[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let more = bytes.len() > most;
    bytes.truncate(most);
    Ok((bytes, more))
}

/// Text where it is text; a letter that the limit has cut in two is left for the next time.
fn encoded(
    mut bytes: Vec<u8>,
    more: bool,
    encoding: Encoding,
) -> Result<(&'static str, String, u64), Refusal> {
    if encoding != Encoding::Base64 {
        if let Err(error) = std::str::from_utf8(&bytes)
            && more
            && error.error_len().is_none()
            && error.valid_up_to() > 0
        {
            bytes.truncate(error.valid_up_to());
        }
        match String::from_utf8(bytes) {
            Ok(text) => {
                let length = len(text.as_bytes());
                return Ok(("utf8", text, length));
            }
            Err(_) if encoding == Encoding::Utf8 => {
                return Err(Refusal::field("params.encoding", "it is not UTF-8 there").hint("ask for base64"));
            }
            Err(error) => bytes = error.into_bytes(),
        }
    }
    let length = len(&bytes);
    Ok(("base64", STANDARD.encode(bytes), length))
}

type Written = Result<(), (u64, io::Error)>;

fn write_at(file: &File, data: &[u8], at: u64) -> Written {
    written(data, |rest, done| file.write_at(rest, at.saturating_add(done)))
}

/// The kernel finds the end, for each write anew.
fn write_end(file: &mut File, data: &[u8]) -> Written {
    written(data, |rest, _| file.write(rest))
}

fn written(data: &[u8], mut write: impl FnMut(&[u8], u64) -> io::Result<usize>) -> Written {
    let mut done = 0;
    while let Some(rest) = data.get(done..).filter(|rest| !rest.is_empty()) {
        match write(rest, u64::try_from(done).unwrap_or(u64::MAX)) {
            Ok(0) => return Err((len(&data[..done]), io::ErrorKind::WriteZero.into())),
            Ok(n) => done += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err((len(&data[..done]), error)),
        }
    }
    Ok(())
}

fn failed(error: &io::Error, written: u64) -> Refusal {
    let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    if full {
        let message =
            format!("there is no room left where the agent stores it; {written} bytes were written");
        return Refusal::new(Reason::Exhausted, ErrorCode::DiskFull, message)
            .by("spec.resources.disk")
            .at("params.path");
    }
    Refusal::new(Reason::Failed, ErrorCode::FileRefused, format!("the file cannot be used: {error}"))
        .at("params.path")
}

fn strange() -> Refusal {
    Refusal::new(Reason::Internal, ErrorCode::Internal, "the file was not used to its end")
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(work).await.map_err(|_| strange())
}

/// A name that nothing has: as a ULID is written.
fn part_name() -> Result<String, Refusal> {
    let mut random = [0; 13];
    getrandom::fill(&mut random).map_err(|_| strange())?;
    Ok(hex::encode_upper(random))
}
