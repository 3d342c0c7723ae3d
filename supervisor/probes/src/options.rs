//! Where things are.

use std::path::PathBuf;

/// Where the BPF object comes from. Bytes of its own or a file: either is dropped after the load.
#[derive(Debug, Clone)]
pub enum Object {
    /// A file.
    Path(PathBuf),
    /// The bytes.
    Bytes(Vec<u8>),
}

/// How the probes are opened.
#[derive(Debug, Clone)]
pub struct Options {
    /// The object; `cargo xtask build-ebpf` makes it.
    pub object: Object,
    /// Folder for the pins, in or below a BPF file system (`/sys/fs/bpf/aion/HASH`). It is made; the BPF
    /// file system is mounted at `/sys/fs/bpf` when it is not there.
    pub pin_dir: PathBuf,
    /// The cgroup (v2) below which all agents' cgroups are.
    pub cgroup: PathBuf,
    /// Size of the ring buffer: a power of two, at least a page. Only used when the maps are made.
    pub ring_bytes: u32,
}

impl Options {
    /// Default size of the ring buffer.
    pub const RING_BYTES: u32 = 8 << 20;
}
