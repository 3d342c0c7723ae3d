//! What an agent asks, from bytes that it chose.

use aion_egress::Name;
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, RecordType};

/// What is answered without EDNS, and at most with it.
const PLAIN: u16 = 512;
const MOST: u16 = 1232;

/// A question for addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Question {
    /// As it was asked, for the answer.
    pub(crate) query: Query,
    pub(crate) id: u16,
    pub(crate) name: Name,
    /// How long an answer over UDP may be.
    pub(crate) room: u16,
}

/// What is to be done about a packet.
#[derive(Debug, Clone)]
pub(crate) enum Asked {
    /// Look it up, if the name is the agent's.
    Addresses(Question),
    /// The name is a name, but other records than addresses are asked for.
    Other(Question),
    /// It is answered at once.
    Wrong(Message),
    /// It is no question; an answer could start a loop.
    Nothing,
}

pub(crate) fn read(bytes: &[u8]) -> Asked {
    let Ok(message) = Message::from_vec(bytes) else { return Asked::Nothing };
    let (id, op_code) = (message.metadata.id, message.metadata.op_code);
    if message.metadata.message_type != MessageType::Query {
        return Asked::Nothing;
    }
    let wrong = |code| {
        let mut answer = Message::error_msg(id, op_code, code);
        answer.queries.clone_from(&message.queries);
        Asked::Wrong(answer)
    };
    if op_code != OpCode::Query {
        return wrong(ResponseCode::NotImp);
    }
    let [query] = message.queries.as_slice() else { return wrong(ResponseCode::FormErr) };
    if query.query_class != DNSClass::IN {
        return wrong(ResponseCode::Refused);
    }
    let Ok(name) = Name::parse(&query.name.to_ascii()) else { return wrong(ResponseCode::Refused) };
    let room = message.edns.as_ref().map_or(PLAIN, |edns| edns.max_payload().clamp(PLAIN, MOST));
    let question = Question { query: query.clone(), id, name, room };
    match query.query_type {
        RecordType::A | RecordType::AAAA => Asked::Addresses(question),
        _ => Asked::Other(question),
    }
}

impl Question {
    /// An answer without records.
    pub(crate) fn empty(&self, code: ResponseCode) -> Message {
        let mut answer = Message::response(self.id, OpCode::Query);
        answer.metadata.response_code = code;
        answer.metadata.recursion_desired = true;
        answer.metadata.recursion_available = true;
        answer.add_query(self.query.clone());
        answer
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ask(name: &str, kind: RecordType) -> Vec<u8> {
        let mut message = Message::query();
        message.add_query(Query::query(name.parse().unwrap(), kind));
        message.to_vec().unwrap()
    }

    #[test]
    fn questions_are_sorted() {
        let Asked::Addresses(question) = read(&ask("API.Example.com.", RecordType::AAAA)) else { panic!() };
        assert_eq!((question.name.as_str(), question.room), ("api.example.com", 512));
        for other in [RecordType::TXT, RecordType::HTTPS, RecordType::MX, RecordType::ANY] {
            assert!(matches!(read(&ask("a.b.", other)), Asked::Other(_)), "{other}");
        }
        let code = |bytes: &[u8]| match read(bytes) {
            Asked::Wrong(answer) => answer.metadata.response_code,
            other => panic!("{other:?}"),
        };
        assert_eq!(code(&ask("a\\.b.c.", RecordType::A)), ResponseCode::Refused, "a dot inside a label");
        let mut two = Message::query();
        two.add_query(Query::query("a.b.".parse().unwrap(), RecordType::A));
        two.add_query(Query::query("evil.org.".parse().unwrap(), RecordType::A));
        assert_eq!(code(&two.to_vec().unwrap()), ResponseCode::FormErr);
        let answer = Message::response(1, OpCode::Query).to_vec().unwrap();
        assert!(matches!(read(&answer), Asked::Nothing));
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes: Vec<u8>) {
            let _ = read(&bytes);
        }
    }
}
