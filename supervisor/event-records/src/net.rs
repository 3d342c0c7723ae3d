//! What was asked of the network.

use aion_probe_types::{Net, Verdict};
use serde_json::{Map, Value};

use crate::{Description, text};

pub(crate) fn describe(kind: &'static str, mut detail: Map<String, Value>, net: &Net) -> Description {
    let protocol = match net.protocol {
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        other => other.to_string(),
    };
    detail.insert("addr".to_owned(), net.addr.ip().to_string().into());
    detail.insert("port".to_owned(), net.addr.port().into());
    detail.insert("protocol".to_owned(), protocol.into());
    detail.insert("comm".to_owned(), text(net.comm.as_bytes()));
    let denied = net.verdict == Verdict::Denied;
    if let Some(limit) = net.limit {
        detail.insert("limit".to_owned(), limit.kind.as_str().into());
        return Description::new(kind, denied, limit.to_string(), detail);
    }
    Description::new(kind, denied, if denied { "network: none" } else { "network: host" }, detail)
}
