//! Rows on disk: one byte of version, then the payload. A row of an unknown version is an error, never a guess.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Error;

/// Version 1: JSON for agents and requests, protobuf for events.
const V1: u8 = 1;

pub(crate) fn json<T: Serialize>(family: &'static str, value: &T) -> Result<Vec<u8>, Error> {
    let mut out = vec![V1];
    serde_json::to_writer(&mut out, value).map_err(|e| Error::Corrupt { family, detail: e.to_string() })?;
    Ok(out)
}

pub(crate) fn from_json<T: DeserializeOwned>(family: &'static str, bytes: &[u8]) -> Result<T, Error> {
    let payload = payload(family, bytes)?;
    serde_json::from_slice(payload).map_err(|e| Error::Corrupt { family, detail: e.to_string() })
}

pub(crate) fn message<M: prost::Message>(value: &M) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 + value.encoded_len());
    out.push(V1);
    // `Vec` grows as needed, so that encoding cannot fail.
    value.encode_raw(&mut out);
    out
}

pub(crate) fn from_message<M: prost::Message + Default>(
    family: &'static str,
    bytes: &[u8],
) -> Result<M, Error> {
    let payload = payload(family, bytes)?;
    M::decode(payload).map_err(|e| Error::Corrupt { family, detail: e.to_string() })
}

pub(crate) fn raw(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 + bytes.len());
    out.push(V1);
    out.extend_from_slice(bytes);
    out
}

pub(crate) fn payload<'a>(family: &'static str, bytes: &'a [u8]) -> Result<&'a [u8], Error> {
    match bytes.split_first() {
        Some((&V1, rest)) => Ok(rest),
        Some((other, _)) => Err(Error::Corrupt { family, detail: format!("unknown row version {other}") }),
        None => Err(Error::Corrupt { family, detail: "empty row".to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_another_version_are_refused() {
        let mut row = json("agents", &7u32).unwrap();
        assert_eq!(from_json::<u32>("agents", &row).unwrap(), 7);
        row[0] = 2;
        assert!(matches!(from_json::<u32>("agents", &row), Err(Error::Corrupt { family: "agents", .. })));
        assert!(matches!(from_json::<u32>("agents", &[]), Err(Error::Corrupt { .. })));
    }
}
