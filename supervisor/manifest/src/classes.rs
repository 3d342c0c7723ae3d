//! `profiles/cgroup_profiles.yaml`: what agents of a class have unless their manifest says otherwise.

use std::collections::BTreeMap;

use aion_types::{ByteSize, CpuMillis, ErrorCode};

use crate::error::{Error, Problem};
use crate::raw::{self, Gpu};
use crate::yaml;

/// The class of an agent that names none.
pub const DEFAULT_CLASS: &str = "agent-default";

/// The file as AION ships it.
const BUILTIN: &str = include_str!("../../../profiles/cgroup_profiles.yaml");

/// A class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Class {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// CPU time.
    pub cpu: CpuMillis,
    /// Share of the CPU.
    pub cpu_weight: u32,
    /// Memory.
    pub mem: ByteSize,
    /// Processes and threads.
    pub pids: u32,
    /// What may be stored in a managed workspace.
    pub disk: ByteSize,
    /// The largest file; none: the disk limit.
    pub file_size: Option<ByteSize>,
    /// Descriptors for each process.
    pub open_files: u32,
    /// GPUs.
    pub gpu: Gpu,
    /// Bytes read in a second.
    pub io_read_bps: Option<ByteSize>,
    /// Bytes written in a second.
    pub io_write_bps: Option<ByteSize>,
    /// Share of the disk.
    pub io_weight: u32,
}

/// The classes, among them always [`DEFAULT_CLASS`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Classes {
    default: Class,
    all: BTreeMap<String, Class>,
}

impl Classes {
    /// Reads the file's content; `file` is its name for messages.
    ///
    /// # Errors
    /// [`Error`] with every problem that the file has.
    pub fn parse(bytes: &[u8], file: &str) -> Result<Self, Error> {
        let failed = |problems| Error::new(ErrorCode::ProfileInvalid, problems);
        let tree = yaml::parse(bytes, file).map_err(|m| failed(vec![*m.problem]))?;
        let document: raw::CgroupProfiles = yaml::whole_from_node(&tree, file).map_err(failed)?;
        let mut problems = Vec::new();
        let mut all = BTreeMap::new();
        for (name, profile) in document.profiles {
            let mut wrong = |field: &str, message: &str, fix: &str| {
                let field = format!("profiles.{name}{field}");
                problems.push(Problem {
                    file: file.to_owned(),
                    place: Some(tree.place_of(&field)),
                    field,
                    message: message.to_owned(),
                    fix: fix.to_owned(),
                });
            };
            let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
            if name.is_empty() || name.len() > 63 || !name.bytes().all(plain) {
                wrong("", "this is not a class's name", "use 1 to 63 of a-z, 0-9 and '-'");
            }
            if profile.cpu.0 < 10 {
                wrong(".cpu", "it is less than the kernel can keep to", "use at least 10m");
            }
            if profile.mem.0 < 8 << 20 {
                wrong(".mem", "no program runs in so little", "use at least 8Mi");
            }
            if profile.disk.0 < 1 << 20 {
                wrong(".disk", "it is too little for a file system", "use at least 1Mi");
            }
            if !(1..=10_000).contains(&profile.cpu_weight) {
                wrong(".cpu_weight", "it is out of range", "use 1 to 10000");
            }
            if !(1..=100_000).contains(&profile.pids) {
                wrong(".pids", "it is out of range", "use 1 to 100000");
            }
            if !(16..=1_048_576).contains(&profile.open_files) {
                wrong(".open_files", "it is out of range", "use 16 to 1048576");
            }
            let io = profile.io.unwrap_or_default();
            let weight = io.weight.unwrap_or(100);
            if !(1..=10_000).contains(&weight) {
                wrong(".io.weight", "it is out of range", "use 1 to 10000");
            }
            let class = Class {
                name: name.clone(),
                description: profile.description,
                cpu: profile.cpu,
                cpu_weight: profile.cpu_weight,
                mem: profile.mem,
                pids: profile.pids,
                disk: profile.disk,
                file_size: profile.file_size,
                open_files: profile.open_files,
                gpu: profile.gpu,
                io_read_bps: io.read_bps,
                io_write_bps: io.write_bps,
                io_weight: u32::try_from(weight).unwrap_or(100),
            };
            all.insert(name, class);
        }
        match all.get(DEFAULT_CLASS).cloned() {
            Some(default) if problems.is_empty() => Ok(Self { default, all }),
            Some(_) => Err(failed(problems)),
            None => {
                problems.push(Problem {
                    file: file.to_owned(),
                    place: Some(tree.place_of("profiles")),
                    field: "profiles".to_owned(),
                    message: format!("the class {DEFAULT_CLASS} is missing"),
                    fix: "agents that name no class are of it".to_owned(),
                });
                Err(failed(problems))
            }
        }
    }

    /// The classes that AION ships.
    #[must_use]
    pub fn builtin() -> Self {
        match Self::parse(BUILTIN.as_bytes(), "cgroup_profiles.yaml") {
            Ok(classes) => classes,
            // A test reads the file as it is compiled in, so this cannot be reached.
            Err(error) => unreachable!("the built-in cgroup classes are wrong: {error}"),
        }
    }

    /// A class.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Class> {
        self.all.get(name)
    }

    /// [`DEFAULT_CLASS`].
    #[must_use]
    pub const fn default_class(&self) -> &Class {
        &self.default
    }

    /// Their names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.all.keys().map(String::as_str)
    }
}
