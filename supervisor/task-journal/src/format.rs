//! Values on disk that are the journal's own: one byte of version, then fields. An unknown version is an error.

use crate::error::Error;
use crate::keys::{CHECKPOINTS, ENDED, EVENTS};

const V1: u8 = 1;

/// Takes fields off the front of a value.
struct Fields<'a> {
    family: &'static str,
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    fn open(family: &'static str, value: &'a [u8]) -> Result<Self, Error> {
        match value.split_first() {
            Some((&V1, rest)) => Ok(Self { family, rest }),
            Some((other, _)) => {
                Err(Error::Corrupt { family, detail: format!("unknown version {other} of a value") })
            }
            None => Err(Error::Corrupt { family, detail: "empty value".to_owned() }),
        }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or_else(|| self.short())?;
        self.rest = rest;
        Ok(*head)
    }

    fn u64(&mut self) -> Result<u64, Error> {
        Ok(u64::from_be_bytes(self.take()?))
    }

    fn u32(&mut self) -> Result<u32, Error> {
        Ok(u32::from_be_bytes(self.take()?))
    }

    fn bytes(&mut self) -> Result<&'a [u8], Error> {
        let len = usize::from(u16::from_be_bytes(self.take()?));
        let (head, rest) = self.rest.split_at_checked(len).ok_or_else(|| self.short())?;
        self.rest = rest;
        Ok(head)
    }

    fn short(&self) -> Error {
        Error::Corrupt { family: self.family, detail: "a value is too short".to_owned() }
    }
}

/// An event as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its place in the sequence; the first is 1.
    pub seq: u64,
    /// The task that it is about; 0: none.
    pub task: u64,
    /// The event before it of the same task; 0: it is the first.
    pub previous: u64,
    /// The core's own bytes.
    pub bytes: Vec<u8>,
}

pub(crate) const EVENT_HEAD: usize = 17;

pub(crate) fn event_head(task: u64, previous: u64) -> [u8; EVENT_HEAD] {
    let mut out = [V1; EVENT_HEAD];
    out[1..9].copy_from_slice(&task.to_be_bytes());
    out[9..].copy_from_slice(&previous.to_be_bytes());
    out
}

/// Task, previous event and the core's bytes.
pub(crate) fn event_parts(value: &[u8]) -> Result<(u64, u64, &[u8]), Error> {
    let mut fields = Fields::open(EVENTS, value)?;
    Ok((fields.u64()?, fields.u64()?, fields.rest))
}

pub(crate) fn event(seq: u64, value: &[u8]) -> Result<Event, Error> {
    let (task, previous, bytes) = event_parts(value)?;
    Ok(Event { seq, task, previous, bytes: bytes.to_vec() })
}

/// What the time index of ended tasks says of one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct EndedEntry<'a> {
    pub(crate) last_event: u64,
    pub(crate) keys: Vec<&'a [u8]>,
}

pub(crate) fn ended<'a>(last_event: u64, keys: impl Iterator<Item = &'a [u8]>) -> Result<Vec<u8>, Error> {
    let mut out = vec![V1];
    out.extend_from_slice(&last_event.to_be_bytes());
    for key in keys {
        let len = u16::try_from(key.len())
            .map_err(|_| Error::Corrupt { family: ENDED, detail: "a key is too long".to_owned() })?;
        out.extend_from_slice(&len.to_be_bytes());
        out.extend_from_slice(key);
    }
    Ok(out)
}

pub(crate) fn ended_entry(value: &[u8]) -> Result<EndedEntry<'_>, Error> {
    let mut fields = Fields::open(ENDED, value)?;
    let last_event = fields.u64()?;
    let mut keys = Vec::new();
    while !fields.rest.is_empty() {
        keys.push(fields.bytes()?);
    }
    Ok(EndedEntry { last_event, keys })
}

/// What is known of a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckpointInfo {
    /// The task's number.
    pub task: u64,
    /// The checkpoint's, counted per task.
    pub number: u32,
    /// Its length as the agent gave it.
    pub length: u64,
    /// What it takes on disk.
    pub stored: u64,
    /// SHA-256 of it as the agent gave it.
    pub sha256: [u8; 32],
    pub(crate) nonce: u64,
    pub(crate) chunks: u32,
    /// In a table file of its own, not in the batch.
    pub(crate) large: bool,
}

pub(crate) fn checkpoint(info: &CheckpointInfo) -> Vec<u8> {
    let mut out = vec![V1];
    out.extend_from_slice(&info.length.to_be_bytes());
    out.extend_from_slice(&info.stored.to_be_bytes());
    out.extend_from_slice(&info.sha256);
    out.extend_from_slice(&info.nonce.to_be_bytes());
    out.extend_from_slice(&info.chunks.to_be_bytes());
    out.push(u8::from(info.large));
    out
}

pub(crate) fn checkpoint_info(task: u64, number: u32, value: &[u8]) -> Result<CheckpointInfo, Error> {
    let mut fields = Fields::open(CHECKPOINTS, value)?;
    Ok(CheckpointInfo {
        task,
        number,
        length: fields.u64()?,
        stored: fields.u64()?,
        sha256: fields.take()?,
        nonce: fields.u64()?,
        chunks: fields.u32()?,
        large: fields.take::<1>()? != [0],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_and_strange_ones_are_refused() {
        let mut value = event_head(7, 3).to_vec();
        value.extend_from_slice(b"x");
        assert_eq!(event(9, &value).unwrap(), Event { seq: 9, task: 7, previous: 3, bytes: b"x".to_vec() });
        value[0] = 2;
        assert!(matches!(event(9, &value), Err(Error::Corrupt { family: "events", .. })));
        assert!(event(9, &[V1, 0]).is_err());

        let keys: [&[u8]; 2] = [b"one", b""];
        let value = ended(4, keys.into_iter()).unwrap();
        assert_eq!(ended_entry(&value).unwrap(), EndedEntry { last_event: 4, keys: keys.to_vec() });
        assert!(ended_entry(&value[..value.len() - 1]).is_err());

        let info = CheckpointInfo {
            task: 1,
            number: 2,
            length: 3,
            stored: 4,
            sha256: [5; 32],
            nonce: 6,
            chunks: 7,
            large: true,
        };
        assert_eq!(checkpoint_info(1, 2, &checkpoint(&info)).unwrap(), info);
    }
}
