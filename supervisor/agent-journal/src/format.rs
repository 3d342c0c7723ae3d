//! The bytes of a journal: file header, record header and the payloads that have a structure.
//!
//! Everything is little endian. Decoding never trusts a length.

use crate::task::{Checkpoint, TaskNote, TaskResult};

/// The first eight bytes of a journal.
pub const MAGIC: [u8; 8] = *b"AIONJNL1";
/// Where the first record is.
pub const HEADER_LEN: u64 = 4096;
/// Bytes before each payload.
pub const RECORD_HEADER_LEN: usize = 16;
/// The longest payload.
pub const MAX_PAYLOAD: usize = 64 * 1024;

/// What a record holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Bytes from standard output, or from the terminal.
    Stdout = 1,
    /// Bytes from standard error.
    Stderr = 2,
    /// How the first process ended: [`Exit`].
    Exit = 3,
    /// A system call that the filter denied: [`DeniedCall`].
    Denied = 4,
    /// An incarnation begins: [`Start`].
    Start = 5,
    /// A job's checkpoint is complete: [`Checkpoint`].
    Checkpoint = 6,
    /// A job's result: [`TaskResult`].
    Result = 7,
    /// What went wrong with a checkpoint or result: [`TaskNote`].
    TaskNote = 8,
}

impl Kind {
    /// Reads the number back.
    #[must_use]
    pub const fn from_u8(value: u8) -> Option<Self> {
        match value {
            1 => Some(Self::Stdout),
            2 => Some(Self::Stderr),
            3 => Some(Self::Exit),
            4 => Some(Self::Denied),
            5 => Some(Self::Start),
            6 => Some(Self::Checkpoint),
            7 => Some(Self::Result),
            8 => Some(Self::TaskNote),
            _ => None,
        }
    }

    /// Whether it is output, of which there can be much.
    #[must_use]
    pub const fn is_output(self) -> bool {
        matches!(self, Self::Stdout | Self::Stderr)
    }
}

/// The fixed part of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHeader {
    /// Bytes of payload.
    pub len: u32,
    /// What it holds.
    pub kind: Kind,
    /// Reserved for the kind; 0.
    pub flags: u8,
    /// Nanoseconds since 1970.
    pub time_ns: u64,
}

/// What 16 bytes turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decoded {
    Header(RecordHeader),
    /// A record of a kind that a later version has, and its length with the header: readers pass over it.
    Foreign(u64),
    /// All zero: a hole, or space that was given but not yet written.
    Zero,
    Bad,
}

impl RecordHeader {
    /// The bytes on disk.
    #[must_use]
    pub fn encode(&self) -> [u8; RECORD_HEADER_LEN] {
        let mut out = [0; RECORD_HEADER_LEN];
        out[..4].copy_from_slice(&self.len.to_le_bytes());
        out[4] = self.kind as u8;
        out[5] = self.flags;
        out[8..].copy_from_slice(&self.time_ns.to_le_bytes());
        out
    }

    /// Bytes of the whole record.
    #[must_use]
    pub const fn record_len(&self) -> u64 {
        RECORD_HEADER_LEN as u64 + self.len as u64
    }

    pub(crate) fn decode(bytes: &[u8; RECORD_HEADER_LEN]) -> Decoded {
        if bytes.iter().all(|&b| b == 0) {
            return Decoded::Zero;
        }
        let [l0, l1, l2, l3, kind, flags, z0, z1, time @ ..] = *bytes;
        let len = u32::from_le_bytes([l0, l1, l2, l3]);
        if len as usize > MAX_PAYLOAD || (z0, z1) != (0, 0) || kind == 0 {
            return Decoded::Bad;
        }
        match Kind::from_u8(kind) {
            Some(kind) => Decoded::Header(Self { len, kind, flags, time_ns: u64::from_le_bytes(time) }),
            None => Decoded::Foreign(RECORD_HEADER_LEN as u64 + u64::from(len)),
        }
    }
}

/// A whole record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Where it begins.
    pub cursor: u64,
    /// What it holds.
    pub kind: Kind,
    /// Reserved for the kind; 0.
    pub flags: u8,
    /// Nanoseconds since 1970.
    pub time_ns: u64,
    /// The payload.
    pub payload: Vec<u8>,
}

impl Record {
    /// Where the next record begins: the cursor to resume at.
    #[must_use]
    pub fn next_cursor(&self) -> u64 {
        self.cursor + (RECORD_HEADER_LEN + self.payload.len()) as u64
    }

    /// The exit, when this is one.
    #[must_use]
    pub fn exit(&self) -> Option<Exit> {
        if self.kind == Kind::Exit { Exit::decode(&self.payload) } else { None }
    }

    /// The denied call, when this is one.
    #[must_use]
    pub fn denied(&self) -> Option<DeniedCall> {
        if self.kind == Kind::Denied { DeniedCall::decode(&self.payload) } else { None }
    }

    /// The checkpoint, when this is one.
    #[must_use]
    pub fn checkpoint(&self) -> Option<Checkpoint> {
        if self.kind == Kind::Checkpoint { Checkpoint::decode(&self.payload) } else { None }
    }

    /// The result, when this is one.
    #[must_use]
    pub fn result(&self) -> Option<TaskResult> {
        if self.kind == Kind::Result { TaskResult::decode(&self.payload) } else { None }
    }

    /// The note, when this is one.
    #[must_use]
    pub fn task_note(&self) -> Option<TaskNote> {
        if self.kind == Kind::TaskNote { TaskNote::decode(&self.payload) } else { None }
    }

    /// The start, when this is one.
    #[must_use]
    pub fn start(&self) -> Option<Start> {
        if self.kind == Kind::Start { Start::decode(&self.payload) } else { None }
    }
}

/// Payload of [`Kind::Exit`]. Exactly one of the two is meaningful.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// The exit code, 0 when a signal ended it.
    pub code: u8,
    /// The signal, 0 when it exited by itself.
    pub signal: u8,
}

impl Exit {
    /// The bytes on disk.
    #[must_use]
    pub fn encode(self) -> [u8; 2] {
        [self.code, self.signal]
    }

    /// Reads the bytes back.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        match *bytes {
            [code, signal] => Some(Self { code, signal }),
            _ => None,
        }
    }
}

/// Payload of [`Kind::Denied`]: calls of one kind, counted since the last such record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeniedCall {
    /// The system call's number.
    pub nr: u32,
    /// The process that called first, in the sandbox's numbering; 0 when several are counted together.
    pub pid: u32,
    /// How many calls.
    pub count: u32,
    /// The errno that they got.
    pub errno: i32,
}

impl DeniedCall {
    /// The bytes on disk.
    #[must_use]
    pub fn encode(self) -> [u8; 16] {
        let mut out = [0; 16];
        out[..4].copy_from_slice(&self.nr.to_le_bytes());
        out[4..8].copy_from_slice(&self.pid.to_le_bytes());
        out[8..12].copy_from_slice(&self.count.to_le_bytes());
        out[12..].copy_from_slice(&self.errno.to_le_bytes());
        out
    }

    /// Reads the bytes back.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; 16] = bytes.try_into().ok()?;
        let [a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3] = *bytes;
        Some(Self {
            nr: u32::from_le_bytes([a0, a1, a2, a3]),
            pid: u32::from_le_bytes([b0, b1, b2, b3]),
            count: u32::from_le_bytes([c0, c1, c2, c3]),
            errno: i32::from_le_bytes([d0, d1, d2, d3]),
        })
    }
}

/// Payload of [`Kind::Start`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    /// 0, then one more for each restart.
    pub incarnation: u32,
}

impl Start {
    /// The bytes on disk.
    #[must_use]
    pub fn encode(self) -> [u8; 4] {
        self.incarnation.to_le_bytes()
    }

    /// Reads the bytes back.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        Some(Self { incarnation: u32::from_le_bytes(bytes.try_into().ok()?) })
    }
}
