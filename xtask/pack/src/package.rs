//! The RPM package: what `packaging/rpm` says of it, and the files of a tree.
//!
//! The same tree gives the same bytes: names in order, one time, root as owner, one thread of compression.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use rpm::{BuildConfig, CompressionWithLevel, Dependency, FileMode, FileOptions, PackageBuilder, Timestamp};
use serde::Deserialize;

use crate::tree::{self, Entry, Kind};

#[derive(Debug, Args)]
pub(crate) struct RpmArgs {
    /// The folder of package.json and of the scripts post, preun and postun
    #[arg(long, value_name = "DIR")]
    from: PathBuf,
    /// The tree to pack
    #[arg(long, value_name = "DIR")]
    root: PathBuf,
    /// The package to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// The text of the licence
    #[arg(long, value_name = "FILE")]
    licence: PathBuf,
    /// The version of what is in it
    #[arg(long, value_name = "VERSION")]
    package_version: String,
    /// The package's revision
    #[arg(long, value_name = "N")]
    release: u32,
    /// Seconds since 1970 that the package and each file in it have
    #[arg(long, value_name = "SECONDS")]
    epoch: u32,
    /// What its programs need besides, as RPM names it: libc.so.6(GLIBC_2.34)(64bit)
    #[arg(long, value_name = "NAME")]
    requires: Vec<String>,
}

/// `package.json`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    name: String,
    arch: String,
    license: String,
    summary: String,
    description: String,
    packager: String,
    /// `NAME` or `NAME >= VERSION`.
    requires: Vec<String>,
    recommends: Vec<String>,
    moves: Vec<(String, Option<String>)>,
}

/// Makes the package.
pub(crate) fn make(args: &RpmArgs) -> Result<()> {
    let text = read(&args.from.join("package.json"))?;
    let about: Description =
        serde_json::from_str(&text).with_context(|| format!("{} is not valid", args.from.display()))?;
    let mut builder =
        PackageBuilder::new(&about.name, &args.package_version, &about.license, &about.arch, &about.summary);
    let config = BuildConfig::v4()
        .source_date(Timestamp(args.epoch))
        // What every rpm of these years can read. zlib-rs works in one thread.
        .compression(CompressionWithLevel::Gzip(9));
    builder.using_config(config).release(args.release.to_string()).build_host("localhost");
    builder.description(&about.description).vendor("AION").packager(&about.packager);
    for need in args.requires.iter().chain(&about.requires).collect::<BTreeSet<_>>() {
        builder.requires(dependency(need));
    }
    for need in &about.recommends {
        builder.recommends(dependency(need));
    }
    builder.post_install_script(read(&args.from.join("post"))?);
    builder.pre_uninstall_script(read(&args.from.join("preun"))?);
    builder.post_uninstall_script(read(&args.from.join("postun"))?);
    for entry in tree::read(&args.root, &about.name, &about.moves)? {
        add(&mut builder, entry)?;
    }
    let folder = format!("/usr/share/licenses/{}", about.name);
    let licence = FileOptions::new(format!("{folder}/LICENSE")).permissions(0o644).license();
    builder.with_dir_entry(FileOptions::dir(&folder))?;
    builder.with_file_contents(read(&args.licence)?, licence)?;
    let package = builder.build().context("the package cannot be made")?;
    package.write_file(&args.out).with_context(|| format!("cannot write {}", args.out.display()))
}

fn add(builder: &mut PackageBuilder, entry: Entry) -> Result<()> {
    let path = format!("/{}", entry.path);
    match entry.kind {
        Kind::Folder => builder.with_dir_entry(FileOptions::dir(path).permissions(0o755))?,
        Kind::Link { target } => builder.with_symlink(FileOptions::symlink(path, target))?,
        Kind::File { mode, content } => {
            let options = FileOptions::new(&path).mode(FileMode::regular(mode));
            let options = if path.starts_with("/etc/") {
                // The operator's: an upgrade leaves what was changed and puts its own beside it.
                options.config().noreplace()
            } else if path.starts_with("/usr/share/doc/") || path.starts_with("/usr/share/man/") {
                options.doc()
            } else {
                options
            };
            builder.with_file_contents(content, options)?
        }
    };
    Ok(())
}

fn dependency(text: &str) -> Dependency {
    match text.split_once(" >= ") {
        Some((name, version)) => Dependency::greater_eq(name, version),
        None => Dependency::any(text),
    }
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
#[path = "package_tests.rs"]
mod tests;
