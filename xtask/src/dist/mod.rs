//! `cargo xtask dist`: packages for Debian and RPM distributions, a tarball, the bill of materials, checksums and signatures, of what
//! `cargo xtask build` makes.
//!
//! Reproducible from the binaries on: names in order, times of the commit (SOURCE_DATE_EPOCH), root as owner, one thread of compression.
//! `--check` makes all of it twice and compares.

mod agree;
mod deb;
mod elf;
mod linked;
mod rpm;
mod sbom;
mod sign;
mod tarball;
mod tree;

pub(crate) use rpm::{MANIFEST as PACKER, cargo as packer, forget as forget_packer};

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use crate::binaries;
use crate::process::{head, note, read, warn, write_whole};
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
    /// Build nothing, and pack what is in this folder: bin/ and aion-probes.bpf.o, as a build leaves them in target/aion
    #[arg(long, value_name = "DIR", conflicts_with = "profile")]
    binaries: Option<PathBuf>,
    /// The package's revision: the N of VERSION-N
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    revision: u32,
    /// Where to put the files; below the clone unless it is absolute [default: aion-dist in the target folder]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Make everything twice, and fail when a byte differs
    #[arg(long)]
    check: bool,
    /// Sign each file with this private key: P-256, PEM. AION_SIGN_PASSPHRASE opens one that is encrypted. Without a key nothing is signed
    #[arg(long, env = "AION_SIGN_KEY", value_name = "FILE")]
    sign_key: Option<PathBuf>,
}

/// What is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kinds {
    /// The Debian package alone.
    Deb,
    All,
}

/// One set of packages.
pub(crate) struct Order<'a> {
    pub(crate) out: &'a Path,
    pub(crate) kinds: Kinds,
    pub(crate) revision: u32,
    /// Seconds since 1970 that every file in the packages has.
    pub(crate) epoch: u64,
}

impl Order<'_> {
    /// What Debian calls the version: upstream's and the revision.
    fn version(&self) -> String {
        format!("{VERSION}-{}", self.revision)
    }
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Whether the packages have a program of this name.
#[cfg(test)]
pub(crate) fn installs(program: &str) -> bool {
    tree::programs().any(|(name, _)| name == program)
}

/// Builds and packs.
pub(crate) fn dist(project: &Project, args: &DistArgs) -> Result<()> {
    setup(&[Group::Build, Group::Dist])?;
    if let Some(key) = &args.sign_key {
        // Before anything is built.
        sign::check(key)?;
    }
    let project = match (&args.binaries, args.profile) {
        (Some(folder), _) => Project { staged: std::path::absolute(folder)?, ..project.clone() },
        (None, Profile::Dev) => {
            binaries::build(project)?;
            project.clone()
        }
        (None, Profile::Release) => binaries::build_release(project)?,
    };
    let out = match &args.out {
        Some(out) if out.is_absolute() => out.clone(),
        Some(out) => project.root.join(out),
        None => project.target.join("aion-dist"),
    };
    let order = Order { out: &out, kinds: Kinds::All, revision: args.revision, epoch: epoch(&project)? };
    let mut made = pack(&project, &order)?;
    if args.check {
        check(&project, &order, &made)?;
    }
    match &args.sign_key {
        Some(key) => made.extend(sign::sign(key, &out, &made)?),
        None => warn("not signed: no key was given (--sign-key or AION_SIGN_KEY)"),
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
    let bill = order.out.join(format!("aion-{}.cdx.json", order.version()));
    sbom::write(project, &root, order, &bill)?;
    tree::add(&root, &bill, "usr/share/doc/aion/aion.cdx.json")?;
    tree::settle(&root, order.epoch)?;
    if order.kinds == Kinds::Deb {
        return Ok(vec![deb::make(project, work, &root, order)?, bill]);
    }
    let rpm = rpm::make(project, &root, order)?;
    let tarball = tarball::make(&root, order)?;
    // Last: it adds its own folder to the tree.
    let deb = deb::make(project, work, &root, order)?;
    agree::check(project, work, &deb, &rpm)?;
    let sums = sums(order.out, &[&deb, &rpm, &tarball, &bill])?;
    Ok(vec![deb, rpm, tarball, bill, sums])
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
