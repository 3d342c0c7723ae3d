//! `cargo xtask dist`: a Debian package, a tarball and their checksums, of what `cargo xtask build` makes.
//!
//! Reproducible from the binaries on: names in order, times of the commit (SOURCE_DATE_EPOCH), root as owner, one thread of compression.
//! `--check` makes all of it twice and compares.

mod deb;
mod tarball;
mod tree;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use crate::binaries;
use crate::process::{head, note, read, write_whole};
use crate::project::Project;
use crate::setup::{Group, setup};

/// How the binaries are compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Profile {
    /// As `up` and all tests have them: what ships is what was tested, and nothing is compiled again.
    Dev,
    /// With link-time optimization; compiles everything once more.
    Release,
}

#[derive(Debug, Args)]
pub(crate) struct DistArgs {
    /// How the binaries are compiled
    #[arg(long, value_enum, default_value = "dev")]
    profile: Profile,
    /// The package's revision: the N of VERSION-N
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    revision: u32,
    /// Where to put the files; below the clone unless it is absolute [default: aion-dist in the target folder]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Make everything twice, and fail when a byte differs
    #[arg(long)]
    check: bool,
}

/// One set of packages.
pub(crate) struct Order<'a> {
    pub(crate) out: &'a Path,
    pub(crate) revision: u32,
    /// Seconds since 1970 that every file in the packages has.
    pub(crate) epoch: u64,
}

/// Builds and packs.
pub(crate) fn dist(project: &Project, args: &DistArgs) -> Result<()> {
    setup(&[Group::Build, Group::Dist])?;
    let project = match args.profile {
        Profile::Dev => {
            binaries::build(project)?;
            project.clone()
        }
        Profile::Release => binaries::build_release(project)?,
    };
    let out = match &args.out {
        Some(out) if out.is_absolute() => out.clone(),
        Some(out) => project.root.join(out),
        None => project.target.join("aion-dist"),
    };
    let order = Order { out: &out, revision: args.revision, epoch: epoch(&project)? };
    let made = pack(&project, &order)?;
    if args.check {
        check(&project, &order, &made)?;
    }
    for file in &made {
        println!("{}", file.display());
    }
    Ok(())
}

/// Packs what is in the stage. Gives the files, the package first.
pub(crate) fn pack(project: &Project, order: &Order<'_>) -> Result<Vec<PathBuf>> {
    head(&format!("packing revision {}", order.revision));
    fs::create_dir_all(order.out).with_context(|| format!("cannot make {}", order.out.display()))?;
    let work = order.out.join("work.part");
    let result = pack_in(project, order, &work);
    if work.exists() {
        fs::remove_dir_all(&work)?;
    }
    result
}

fn pack_in(project: &Project, order: &Order<'_>, work: &Path) -> Result<Vec<PathBuf>> {
    if work.exists() {
        fs::remove_dir_all(work)?;
    }
    let root = work.join("root");
    tree::fill(project, &root)?;
    let version = format!("{}-{}", env!("CARGO_PKG_VERSION"), order.revision);
    // The tarball first: the package adds its own folder to the tree.
    let tarball = tarball::make(&root, order, &version)?;
    let package = deb::make(project, work, &root, order, &version)?;
    let sums = sums(order.out, &[&package, &tarball])?;
    Ok(vec![package, tarball, sums])
}

/// SHA256SUMS, as `sha256sum --check` reads it.
fn sums(out: &Path, files: &[&Path]) -> Result<PathBuf> {
    let names: Vec<_> = files.iter().filter_map(|file| file.file_name()).collect();
    let text = read(Command::new("sha256sum").args(names).current_dir(out))?;
    let path = out.join("SHA256SUMS");
    write_whole(&path, text.as_bytes())?;
    Ok(path)
}

/// Makes everything once more, elsewhere, and compares.
pub(crate) fn check(project: &Project, order: &Order<'_>, made: &[PathBuf]) -> Result<()> {
    let again = order.out.join("again.part");
    let second = pack(project, &Order { out: &again, ..*order })?;
    for (one, other) in made.iter().zip(&second) {
        if fs::read(one)? != fs::read(other)? {
            bail!(
                "not reproducible: {} and {} differ; both are left to be compared",
                one.display(),
                other.display()
            );
        }
    }
    fs::remove_dir_all(&again)?;
    note(&format!("made twice, {} files the same byte for byte", made.len()));
    Ok(())
}

/// The time of everything in the packages: SOURCE_DATE_EPOCH, else the commit's.
pub(crate) fn epoch(project: &Project) -> Result<u64> {
    let text = match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) if !text.is_empty() => text,
        _ => read(Command::new("git").arg("-C").arg(&project.root).args(["log", "-1", "--format=%ct"]))?,
    };
    text.trim()
        .parse()
        .with_context(|| format!("SOURCE_DATE_EPOCH is no number of seconds: {:?}", text.trim()))
}
