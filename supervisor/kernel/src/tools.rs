//! The tools that are installed: a manifest and files, immutable under the hash of both.
//!
//! A tenant's own tool comes before everybody's of the same name. A folder that no tool names any more is removed at the next
//! start, because a call may still run from it.

use std::collections::HashMap;
use std::fs::{self, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use aion_manifest::{Classes, ToolEntry, ToolFile};
use aion_signing::{Guard, Kind, Part, Untrusted};
use aion_store::{Durability, Store, Table};
use aion_syscall::{Reason, Refusal};
use aion_types::{ErrorCode, TenantId};
use jsonschema::Validator;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::rows;

/// Bytes of all files of one tool.
const MAX_BYTES: usize = 64 << 20;
const MAX_FILES: usize = 10_000;
const MAX_TOOLS: usize = 10_000;

/// A file of a tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolFileData {
    /// Relative to the manifest.
    pub path: String,
    /// Whether it may be executed.
    pub executable: bool,
    /// What is in it.
    pub data: Vec<u8>,
}

/// What is shown of a tool.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolOverview {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Whose it is; none: everybody's.
    pub tenant: Option<TenantId>,
    /// What it does.
    pub description: String,
    /// Capabilities that whoever invokes it must have.
    pub requires: Vec<String>,
    /// Hash of its manifest and files.
    pub digest: String,
    /// When it was installed, nanoseconds since 1970.
    pub installed_ns: u64,
    /// Fingerprint of the key that signed it; empty when nobody did.
    pub signed_by: String,
    /// Form of its arguments.
    pub input: Value,
    /// Form of its result.
    pub output: Value,
}

#[derive(Clone, Serialize, Deserialize)]
struct ToolRow {
    manifest: String,
    digest: String,
    has_files: bool,
    installed_ns: u64,
    #[serde(default)]
    signed_by: String,
}

pub(crate) struct Installed {
    pub(crate) tool: ToolFile,
    pub(crate) tenant: Option<TenantId>,
    pub(crate) digest: String,
    /// Where its files are, absolute.
    pub(crate) folder: Option<PathBuf>,
    pub(crate) signed_by: String,
    installed_ns: u64,
    input: Validator,
    output: Validator,
}

impl Installed {
    pub(crate) fn check_input(&self, arguments: &Value) -> Result<(), Refusal> {
        first_fault(&self.input, arguments).map_or(Ok(()), |(place, message)| {
            Err(Refusal::field(format!("params{place}"), message)
                .hint(format!("`aionctl tool ls -o json` shows what {} takes", self.tool.name)))
        })
    }

    pub(crate) fn check_output(&self, result: &Value) -> Result<(), Refusal> {
        first_fault(&self.output, result).map_or(Ok(()), |(place, message)| {
            let message =
                format!("what {} answers is not what it promises: result{place}: {message}", self.tool.name);
            Err(Refusal::new(Reason::Failed, ErrorCode::ToolFailed, message))
        })
    }

    fn overview(&self) -> ToolOverview {
        ToolOverview {
            name: self.tool.name.clone(),
            version: self.tool.version.clone(),
            tenant: self.tenant.clone(),
            description: self.tool.description.clone(),
            requires: self.tool.requires.iter().map(|(word, _)| word.clone()).collect(),
            digest: self.digest.clone(),
            installed_ns: self.installed_ns,
            signed_by: self.signed_by.clone(),
            input: self.tool.input.clone(),
            output: self.tool.output.clone(),
        }
    }
}

fn first_fault(schema: &Validator, value: &Value) -> Option<(String, String)> {
    let error = schema.iter_errors(value).next()?;
    let message: String = error.to_string().chars().take(300).collect();
    Some((error.instance_path.to_string().replace('/', "."), message))
}

type Key = (String, String);

pub(crate) struct Tools {
    store: Arc<Store>,
    /// Where files are, absolute; inside it everything is reached from `relative`.
    folder: PathBuf,
    relative: PathBuf,
    classes: Arc<Classes>,
    guard: Arc<Guard>,
    all: RwLock<HashMap<Key, Arc<Installed>>>,
    writing: Mutex<()>,
}

fn tenant_part(tenant: Option<&TenantId>) -> &str {
    tenant.map_or("", TenantId::as_str)
}

impl Tools {
    /// Reads what is installed. A tool that cannot be read any more is left out and told in the log: the others work on.
    pub(crate) fn open(
        store: Arc<Store>,
        state: &Path,
        absolute: &Path,
        classes: Arc<Classes>,
        guard: Arc<Guard>,
    ) -> Result<Self, Refusal> {
        let tools = Self {
            store,
            folder: absolute.join("tools"),
            relative: state.join("tools"),
            classes,
            guard,
            all: RwLock::default(),
            writing: Mutex::default(),
        };
        let mut found = Vec::new();
        tools
            .store
            .rows(Table::Tools, &[], None, 0, |row| {
                found.push(row);
                true
            })
            .map_err(|error| rows::failed(&error))?;
        let mut all = HashMap::new();
        for row in found {
            let [tenant, name] = row.key.as_slice() else { continue };
            match tools.read_row(tenant, &row.value) {
                Ok(installed) => {
                    all.insert((tenant.clone(), name.clone()), Arc::new(installed));
                }
                Err(refusal) => {
                    tracing::error!(tool = name, %tenant, %refusal, "an installed tool cannot be used")
                }
            }
        }
        tools.remove_unused(&all);
        *tools.all.write().unwrap_or_else(PoisonError::into_inner) = all;
        Ok(tools)
    }

    fn read_row(&self, tenant: &str, bytes: &[u8]) -> Result<Installed, Refusal> {
        let row: ToolRow = serde_json::from_slice(bytes).map_err(|error| rows::corrupt(&error))?;
        let tenant = match tenant {
            "" => None,
            name => Some(TenantId::parse(name).map_err(|error| Refusal::field("tenant", error.to_string()))?),
        };
        let tool = self.parse(row.manifest.as_bytes(), "tool.yml")?;
        self.installed(tool, tenant, row)
    }

    fn parse(&self, manifest: &[u8], file: &str) -> Result<ToolFile, Refusal> {
        ToolFile::parse(manifest, file, &self.classes).map_err(|error| {
            let field = error.problems().first().map(|p| p.field.clone()).unwrap_or_default();
            Refusal::new(Reason::Invalid, error.code(), error.to_string()).at(field)
        })
    }

    fn installed(
        &self,
        tool: ToolFile,
        tenant: Option<TenantId>,
        row: ToolRow,
    ) -> Result<Installed, Refusal> {
        let compile = |field: &str, schema: &Value| {
            jsonschema::validator_for(schema).map_err(|error| {
                let message: String = error.to_string().chars().take(300).collect();
                Refusal::new(
                    Reason::Invalid,
                    ErrorCode::ManifestInvalid,
                    format!("{field} is no JSON Schema: {message}"),
                )
                .at(field)
            })
        };
        let input = compile("spec.io.input.schema", &tool.input)?;
        let output = compile("spec.io.output.schema", &tool.output)?;
        let ToolRow { digest, has_files, installed_ns, signed_by, .. } = row;
        let folder = has_files.then(|| self.folder.join(&digest));
        Ok(Installed { tool, tenant, digest, folder, signed_by, installed_ns, input, output })
    }

    /// A tool for a tenant: its own, else everybody's.
    pub(crate) fn find(&self, tenant: &TenantId, name: &str) -> Option<Arc<Installed>> {
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
        let own = all.get(&(tenant.as_str().to_owned(), name.to_owned()));
        own.or_else(|| all.get(&(String::new(), name.to_owned()))).cloned()
    }

    /// Whether a tool that is installed may be used: what must be signed may have come in before that was so, and keys go.
    pub(crate) fn check_signed(&self, tool: &Installed) -> Result<(), Refusal> {
        let signed_by = Some(tool.signed_by.as_str()).filter(|key| !key.is_empty());
        self.guard.keeps(Kind::Tools, signed_by).map_err(|error| {
            unsigned(&tool.tool.name, &error).hint(
                "an operator installs it again with a signature: `aionctl sign`, `aionctl tool install`",
            )
        })
    }

    /// The fingerprint of the key that signed what is to be installed; empty when nobody did, and nobody must.
    fn signer(
        &self,
        manifest: &[u8],
        file: &str,
        files: &[ToolFileData],
        signature: &str,
        now_ns: u64,
    ) -> Result<String, Refusal> {
        let parts: Vec<_> = files
            .iter()
            .map(|file| Part { path: &file.path, executable: file.executable, data: &file.data })
            .collect();
        if signature.is_empty() && !self.guard.requires(Kind::Tools) {
            return Ok(String::new());
        }
        let payload = aion_signing::payload(file, manifest, &parts)
            .map_err(|error| Refusal::field("files", error.to_string()))?;
        let by =
            self.guard.admit(Kind::Tools, &payload, signature, now_ns / 1_000_000_000).map_err(|error| {
                unsigned(file, &error).at("signature").hint("`aionctl sign --key FILE` signs it")
            })?;
        Ok(by.map(|by| by.fingerprint).unwrap_or_default())
    }

    /// What a tenant sees, by name.
    pub(crate) fn list(&self, tenant: &TenantId) -> Vec<ToolOverview> {
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
        let mut seen: Vec<ToolOverview> = all
            .iter()
            .filter(|((owner, name), _)| {
                owner == tenant.as_str()
                    || (owner.is_empty() && !all.contains_key(&(tenant.as_str().to_owned(), name.clone())))
            })
            .map(|(_, tool)| tool.overview())
            .collect();
        seen.sort_by(|a, b| a.name.cmp(&b.name));
        seen
    }

    pub(crate) fn install(
        &self,
        tenant: Option<TenantId>,
        manifest: &[u8],
        file: &str,
        files: &[ToolFileData],
        signature: &str,
        now_ns: u64,
    ) -> Result<ToolOverview, Refusal> {
        let tool = self.parse(manifest, file)?;
        check_files(&tool, files)?;
        let signed_by = self.signer(manifest, file, files, signature, now_ns)?;
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.all.read().unwrap_or_else(PoisonError::into_inner).len() >= MAX_TOOLS {
            let message = format!("{MAX_TOOLS} tools are installed, that is the limit");
            return Err(Refusal::new(Reason::Exhausted, ErrorCode::ResourceExhausted, message));
        }
        let digest = digest(manifest, files);
        if !files.is_empty() {
            write_files(&self.relative, &digest, files).map_err(|error| {
                let code = if error.kind() == io::ErrorKind::StorageFull {
                    ErrorCode::DiskFull
                } else {
                    ErrorCode::Internal
                };
                Refusal::new(
                    Reason::Unavailable,
                    code,
                    format!("the tool's files cannot be written: {error}"),
                )
            })?;
        }
        let row = ToolRow {
            manifest: String::from_utf8_lossy(manifest).into_owned(),
            digest: digest.clone(),
            has_files: !files.is_empty(),
            installed_ns: now_ns,
            signed_by,
        };
        let key = (tenant_part(tenant.as_ref()).to_owned(), tool.name.clone());
        let value = row.clone();
        let installed = self.installed(tool, tenant, row)?;
        rows::put(&self.store, Table::Tools, &[&key.0, &key.1], 0, &value, Durability::Host)?;
        let shown = installed.overview();
        self.all.write().unwrap_or_else(PoisonError::into_inner).insert(key, Arc::new(installed));
        Ok(shown)
    }

    pub(crate) fn remove(&self, tenant: Option<&TenantId>, name: &str) -> Result<(), Refusal> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (tenant_part(tenant).to_owned(), name.to_owned());
        if !self.all.read().unwrap_or_else(PoisonError::into_inner).contains_key(&key) {
            return Err(not_found(name));
        }
        rows::delete(&self.store, Table::Tools, &[&key.0, &key.1])?;
        self.all.write().unwrap_or_else(PoisonError::into_inner).remove(&key);
        Ok(())
    }

    fn remove_unused(&self, all: &HashMap<Key, Arc<Installed>>) {
        let Ok(entries) = fs::read_dir(&self.relative) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let used = all.values().any(|tool| name.to_str() == Some(tool.digest.as_str()));
            if !used && let Err(error) = fs::remove_dir_all(entry.path()) {
                tracing::warn!(folder = ?name, %error, "the files of a removed tool stay");
            }
        }
    }
}

fn unsigned(what: &str, error: &Untrusted) -> Refusal {
    Refusal::new(Reason::Denied, ErrorCode::SignatureInvalid, format!("{what}: {error}"))
}

pub(crate) fn not_found(name: &str) -> Refusal {
    let shown: String = name.chars().take(80).collect();
    Refusal::new(Reason::NotFound, ErrorCode::ToolNotFound, format!("there is no tool {shown:?}"))
        .at("params.tool")
        .hint("`aionctl tool ls` shows what is installed, `aionctl tool install FILE` installs one from its tool.yml")
}

fn check_files(tool: &ToolFile, files: &[ToolFileData]) -> Result<(), Refusal> {
    let total: usize = files.iter().map(|file| file.data.len()).sum();
    if total > MAX_BYTES || files.len() > MAX_FILES {
        let message =
            format!("{} files with {total} bytes; {MAX_FILES} with {MAX_BYTES} are taken", files.len());
        return Err(Refusal::new(Reason::TooLarge, ErrorCode::TooLarge, message).at("files"));
    }
    let clean = |path: &str| {
        !path.is_empty()
            && path.len() <= 1024
            && !path.chars().any(char::is_control)
            && path.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
    };
    let mut seen = std::collections::HashSet::new();
    for file in files {
        if !clean(&file.path) || !seen.insert(file.path.as_str()) {
            let shown: String = file.path.chars().take(80).collect();
            return Err(Refusal::field("files", format!("{shown:?} leads elsewhere, or is there twice")));
        }
    }
    let own = tool.own_files();
    let named = |path: &str| {
        own.iter().any(|o| path == *o || path.strip_prefix(o).is_some_and(|r| r.starts_with('/')))
    };
    if let Some(stray) = files.iter().find(|file| !named(&file.path)) {
        let shown: String = stray.path.chars().take(80).collect();
        return Err(Refusal::field("files", format!("{shown:?} is not among the tool's files"))
            .hint("name it under spec.files"));
    }
    let there = |o: &str| {
        files.iter().any(|f| f.path == o || f.path.strip_prefix(o).is_some_and(|r| r.starts_with('/')))
    };
    if let Some(missing) = own.iter().find(|o| !there(o)) {
        return Err(Refusal::field(
            "files",
            format!("{missing:?}, which the manifest names, did not come with it"),
        ));
    }
    if let ToolEntry::Wasm(module) = &tool.entry {
        let file = files.iter().find(|file| file.path == *module).ok_or_else(|| {
            Refusal::field("spec.entry", format!("wasm:{module}: it is a folder"))
                .hint("name the module, a file")
        })?;
        check_module(module, &file.data)?;
    }
    Ok(())
}

/// The longest module that `aion-wasm` reads.
const MAX_MODULE: usize = 64 << 20;

/// Whether a file can be a module or a component at all. Whether it compiles and what it imports only its runner can tell, which is no
/// part of this program.
fn check_module(path: &str, data: &[u8]) -> Result<(), Refusal> {
    let wrong = |message: String| {
        Err(Refusal::field("spec.entry", format!("wasm:{path}: {message}"))
            .hint(format!("`aion-wasm check {path}` says whether a file can be run; build it with Rust's target wasm32-wasip2")))
    };
    if data.len() > MAX_MODULE {
        let message = format!("wasm:{path}: it has {} bytes, at most {MAX_MODULE} are run", data.len());
        return Err(Refusal::new(Reason::TooLarge, ErrorCode::TooLarge, message).at("spec.entry"));
    }
    match data {
        // The word, and a version in which components differ from modules.
        [0, b'a', b's', b'm', 1, 0, 0, 0, ..] | [0, b'a', b's', b'm', _, 0, 1, 0, ..] => Ok(()),
        [] => wrong("it is empty".to_owned()),
        [0, b'a', b's', b'm', ..] => {
            wrong("it is WebAssembly of a version that is not run, or was cut off".to_owned())
        }
        _ if data.trim_ascii_start().starts_with(b"(") => {
            wrong("it is the text form of WebAssembly; the binary form is run".to_owned())
        }
        _ => wrong("it is neither a WebAssembly module nor a component".to_owned()),
    }
}

fn digest(manifest: &[u8], files: &[ToolFileData]) -> String {
    let mut sorted: Vec<&ToolFileData> = files.iter().collect();
    sorted.sort_by(|a, b| a.path.cmp(&b.path));
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hash.update(u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(bytes);
    };
    part(manifest);
    for file in sorted {
        part(file.path.as_bytes());
        part(&[u8::from(file.executable)]);
        part(&file.data);
    }
    hex::encode(hash.finalize())
}

/// Writes the files into a folder of their hash: all of them, or nothing that anybody would look at.
fn write_files(tools: &Path, digest: &str, files: &[ToolFileData]) -> io::Result<()> {
    let target = tools.join(digest);
    if target.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(tools)?;
    fs::set_permissions(tools, Permissions::from_mode(0o700))?;
    let fresh = tools.join(format!(".new-{digest}"));
    let _ = fs::remove_dir_all(&fresh);
    make_folder(&fresh)?;
    for file in files {
        let path = fresh.join(&file.path);
        let mut folder = fresh.clone();
        for part in Path::new(&file.path).parent().into_iter().flat_map(Path::components) {
            folder.push(part);
            if !folder.is_dir() {
                make_folder(&folder)?;
            }
        }
        let mode = if file.executable { 0o755 } else { 0o644 };
        let mut out = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&path)?;
        out.write_all(&file.data)?;
        // Whatever the umask is: the agent's user is another.
        out.set_permissions(Permissions::from_mode(mode))?;
    }
    // Once for all of them: a package of thousands of files is not waited for file by file.
    let folder = fs::File::open(tools)?;
    rustix::fs::syncfs(&folder)?;
    fs::rename(&fresh, &target)?;
    folder.sync_all()
}

fn make_folder(path: &Path) -> io::Result<()> {
    fs::create_dir(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o755))
}
