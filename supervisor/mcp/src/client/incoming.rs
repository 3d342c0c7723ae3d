//! What a client makes of one message from its server. Pure.
//!
//! Neighbours: the pipes' driver and the HTTP exchange, which act on it. Invariant: whatever the bytes are, the result
//! is a list of [`Event`]s or the reason to give the server up, and every [`Event::Reply`] is valid JSON-RPC.

use serde_json::{Map, Value};

use crate::message::{self, METHOD_NOT_FOUND, Message, RpcError, Unreadable};
use crate::{Closed, Revision};

#[derive(Debug, PartialEq)]
pub(crate) enum Event {
    /// The answer to a call.
    Answer { id: u64, outcome: Result<Value, RpcError> },
    /// The server asked for something; this is to be sent.
    Reply(Value),
    /// The server's tools are not what they were.
    ToolsChanged,
    /// Nothing that this client acts on.
    Ignored,
}

/// Reads a message, or a batch of them where the revision has batches. Before a revision is agreed on there are none.
pub(crate) fn read(bytes: &[u8], revision: Option<Revision>) -> Result<Vec<Event>, Closed> {
    if bytes.trim_ascii().is_empty() {
        return Ok(vec![Event::Ignored]);
    }
    match message::read(bytes) {
        Ok(Value::Array(batch)) if !batch.is_empty() && revision.is_some_and(Revision::has_batches) => {
            batch.into_iter().map(event).collect()
        }
        Ok(value) => Ok(vec![event(value)?]),
        Err(Unreadable::NotJson) => Err(Closed::NotJson),
        Err(Unreadable::TooManyValues) => Err(Closed::TooManyValues { limit: message::MAX_VALUES }),
    }
}

fn event(value: Value) -> Result<Event, Closed> {
    Ok(match Message::from_value(value).map_err(|defect| Closed::NotMessage { what: defect.what })? {
        Message::Answer { id: Some(id), outcome } => {
            Event::Answer { id: id.as_u64().ok_or(Closed::UnknownId)?, outcome }
        }
        // The server could not read a message of ours and cannot say which.
        Message::Answer { id: None, .. } => Event::Ignored,
        Message::Request { id, method, .. } if method == "ping" => {
            Event::Reply(message::result(&id, Value::Object(Map::new())))
        }
        // Roots, sampling and elicitation were not offered.
        Message::Request { id, .. } => {
            Event::Reply(message::failure(Some(&id), METHOD_NOT_FOUND, "this client offers no such method"))
        }
        Message::Notification { method } if method == "notifications/tools/list_changed" => {
            Event::ToolsChanged
        }
        Message::Notification { .. } => Event::Ignored,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::noise::{hostile_bytes, is_answer};

    fn one(value: &Value) -> Result<Vec<Event>, Closed> {
        read(value.to_string().as_bytes(), None)
    }

    #[test]
    fn requests_of_the_server() {
        let events = one(&json!({"jsonrpc": "2.0", "id": "x", "method": "ping"})).unwrap();
        assert_eq!(events, [Event::Reply(json!({"jsonrpc": "2.0", "id": "x", "result": {}}))]);
        for method in ["roots/list", "sampling/createMessage", "elicitation/create", "rm -rf"] {
            let events = one(&json!({"jsonrpc": "2.0", "id": 1, "method": method})).unwrap();
            let [Event::Reply(reply)] = &events[..] else { panic!("{events:?}") };
            assert_eq!(reply["error"]["code"], METHOD_NOT_FOUND);
        }
    }

    #[test]
    fn batches_only_where_they_are() {
        let batch = json!([{"jsonrpc": "2.0", "method": "a"}, {"jsonrpc": "2.0", "id": 1, "result": {}}]);
        let text = batch.to_string();
        assert_eq!(read(text.as_bytes(), Some(Revision::V2025_03_26)).unwrap().len(), 2);
        for revision in [None, Some(Revision::V2025_06_18)] {
            assert!(matches!(read(text.as_bytes(), revision), Err(Closed::NotMessage { .. })));
        }
        assert!(matches!(read(b"[]", Some(Revision::V2025_03_26)), Err(Closed::NotMessage { .. })));
    }

    #[test]
    fn ids_that_no_client_gives() {
        for id in [json!("1"), json!(-1)] {
            let answer = json!({"jsonrpc": "2.0", "id": id, "result": {}});
            assert!(matches!(one(&answer), Err(Closed::UnknownId)));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_give_valid_replies_or_none(bytes in hostile_bytes(), batches: bool) {
            let revision = if batches { Revision::V2025_03_26 } else { Revision::V2025_06_18 };
            for event in read(&bytes, Some(revision)).unwrap_or_default() {
                if let Event::Reply(reply) = event {
                    prop_assert!(is_answer(&reply), "{reply}");
                }
            }
        }
    }
}
