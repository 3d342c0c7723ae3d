//! `state-N.pb`: what a new launcher must know of an agent to take it over.

use aion_launcher_proto::v1;
use prost::Message;

/// How far an agent has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Phase {
    /// Not readable, or of another version.
    Unknown = 0,
    /// Written before anything is done.
    Launching = 1,
    /// Its first process executes.
    Running = 2,
    /// It ended, and was not removed.
    Exited = 3,
}

/// A device that an agent was given, as its node was at the launch.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct GivenDevice {
    /// Its node on the host.
    #[prost(string, tag = "1")]
    pub path: String,
    /// Its driver.
    #[prost(uint32, tag = "2")]
    pub major: u32,
    /// Which of the driver's.
    #[prost(uint32, tag = "3")]
    pub minor: u32,
    /// Whether it was given for writing, too.
    #[prost(bool, tag = "4")]
    pub writable: bool,
}

/// The record of an agent.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Record {
    /// As the protocol shows it.
    #[prost(message, required, tag = "1")]
    pub agent: v1::AgentState,
    /// How far it has come.
    #[prost(enumeration = "Phase", tag = "2")]
    pub phase: i32,
    /// Name of its group below the parent.
    #[prost(string, tag = "3")]
    pub slot: String,
    /// The first of its user ids on the host.
    #[prost(uint32, tag = "4")]
    pub uid_base: u32,
    /// init's start, in clock ticks since boot.
    #[prost(uint64, tag = "5")]
    pub init_start: u64,
    /// The first process's start, in clock ticks since boot.
    #[prost(uint64, tag = "6")]
    pub agent_start: u64,
    /// When its time is over, on the monotonic clock in ns; 0 for never.
    #[prost(uint64, tag = "7")]
    pub deadline_ns: u64,
    /// Why it is being killed, once it is: `killed`, `timeout` or `oom`.
    #[prost(string, tag = "8")]
    pub kill_reason: String,
    /// Up to where its journal was read for denied calls.
    #[prost(uint64, tag = "9")]
    pub journal_cursor: u64,
    /// The boot in which the numbers above mean something.
    #[prost(string, tag = "10")]
    pub boot_id: String,
    /// Its volume's file in `volumes/`; empty for none.
    #[prost(string, tag = "11")]
    pub volume: String,
    /// Size of the volume.
    #[prost(uint64, tag = "12")]
    pub volume_bytes: u64,
    /// Frozen because somebody asked for it, and not for a moment by the launcher itself.
    #[prost(bool, tag = "13")]
    pub paused: bool,
    /// The number of its network, with mode `egress`.
    #[prost(uint32, optional, tag = "14")]
    pub network: Option<u32>,
    /// Hosts of its launch that are withheld from it.
    #[prost(string, repeated, tag = "15")]
    pub withheld: Vec<String>,
    /// The kernel's table may not say so yet.
    #[prost(bool, tag = "16")]
    pub reach_is_behind: bool,
    /// `fs:`, `exec:` and `device:` rules of its launch that are withheld from it.
    #[prost(string, repeated, tag = "24")]
    pub withheld_files: Vec<String>,
    /// The kernel may not withhold them yet.
    #[prost(bool, tag = "25")]
    pub files_are_behind: bool,
    /// Its devices.
    #[prost(message, repeated, tag = "26")]
    pub devices: Vec<GivenDevice>,
}

impl Record {
    /// Reads a record back. Whatever the bytes, the answer is a record or nothing.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let record = Self::decode(bytes).ok()?;
        (record.phase() != Phase::Unknown).then_some(record)
    }

    /// The file's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.encode_to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn records_round_trip() {
        let mut record = Record {
            agent: v1::AgentState { id: "x".into(), pid: 7, ..Default::default() },
            slot: "s1".into(),
            uid_base: 0x6000_0000,
            deadline_ns: 5,
            devices: vec![GivenDevice { path: "/dev/fuse".into(), major: 10, minor: 229, writable: true }],
            ..Default::default()
        };
        record.set_phase(Phase::Running);
        assert_eq!(Record::read(&record.to_bytes()), Some(record));
    }

    #[test]
    fn torn_and_empty_files_are_nothing() {
        assert_eq!(Record::read(b""), None);
        let mut record = Record { slot: "s1".into(), ..Default::default() };
        record.set_phase(Phase::Running);
        let bytes = record.to_bytes();
        let torn = Record::read(&bytes[..bytes.len() - 3]);
        assert!(torn.is_none_or(|r| r != record));
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes: Vec<u8>) {
            let _ = Record::read(&bytes);
        }
    }
}
