//! The files of a tool: what its manifest names, read from beside it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use aion_client::api;
use aion_manifest::ToolFile;
use aion_types::ErrorCode;

use crate::failure::{Failure, Outcome, USAGE};
use crate::source::{Source, classes};

/// What only the daemon knows.
const CLASS: &str = "spec.security.cgroup";
/// Bytes of a tool's files.
const MAX_FILES: usize = 64 << 20;

/// The folder that a manifest's files are in.
pub(super) fn folder_of(manifest: &Path) -> &Path {
    manifest.parent().unwrap_or(Path::new(""))
}

/// The files that a tool's manifest names, from beside it.
///
/// `all`: which files these are must be known here, not only to the daemon.
pub(super) fn files_of(source: &Source, folder: &Path, all: bool) -> Outcome<Vec<api::ToolFile>> {
    let tool = ToolFile::parse(&source.bytes, &source.name, &classes()?);
    // The daemon may know classes that this client does not; anything else is the same there.
    let unknown = |error: &aion_manifest::Error| error.problems().iter().all(|p| p.field == CLASS);
    let tool = match tool {
        Err(error) if unknown(&error) && !all => return Ok(Vec::new()),
        other => other?,
    };
    let mut files = Vec::new();
    let mut total = 0;
    for path in tool.own_files() {
        collect(folder, path, &mut files, &mut total)?;
    }
    Ok(files)
}

fn collect(folder: &Path, path: &str, files: &mut Vec<api::ToolFile>, total: &mut usize) -> Outcome<()> {
    let full = folder.join(path);
    let unreadable =
        |error: std::io::Error| Failure::new(1, format!("cannot read {}: {error}", full.display()));
    let mut meta = fs::symlink_metadata(&full).map_err(unreadable)?;
    if meta.is_symlink() && leads_inside(folder, &full) {
        // Packages link to their own programs; what is copied is the file.
        meta = fs::metadata(&full).map_err(unreadable)?;
        if meta.is_dir() {
            return Err(Failure::new(USAGE, format!("{} is a link to a folder", full.display()))
                .hint("name the folder itself"));
        }
    }
    if meta.is_dir() {
        let mut names = Vec::new();
        for entry in fs::read_dir(&full).map_err(unreadable)? {
            names.push(entry.map_err(unreadable)?.file_name());
        }
        names.sort();
        for name in names {
            let Some(name) = name.to_str() else {
                return Err(Failure::new(USAGE, format!("{}: a file's name is not UTF-8", full.display())));
            };
            collect(folder, &format!("{path}/{name}"), files, total)?;
        }
        return Ok(());
    }
    if !meta.is_file() {
        return Err(Failure::new(
            USAGE,
            format!("{} is neither a file nor a folder of the tool's", full.display()),
        )
        .hint("a tool's files are copied; devices, and links that lead out of its folder, are not"));
    }
    let data = fs::read(&full).map_err(unreadable)?;
    *total += data.len();
    if *total > MAX_FILES {
        let message = format!("the tool's files have more than {} MiB", MAX_FILES >> 20);
        return Err(Failure::coded(ErrorCode::TooLarge, message));
    }
    let executable = meta.permissions().mode() & 0o111 != 0;
    files.push(api::ToolFile { path: path.to_owned(), executable, data });
    Ok(())
}

/// Whether a link ends at something below the tool's own folder.
fn leads_inside(folder: &Path, link: &Path) -> bool {
    match (fs::canonicalize(folder), fs::canonicalize(link)) {
        (Ok(folder), Ok(end)) => end.starts_with(folder),
        _ => false,
    }
}
