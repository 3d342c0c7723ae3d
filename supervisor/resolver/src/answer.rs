//! What the world answered, and what the agent hears of it.

use std::net::IpAddr;

use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA};
use hickory_proto::rr::{Name, RData, Record};

use crate::question::Question;

/// The shortest and the longest time that an answer is good for, in seconds, whatever it says.
const TTL: std::ops::RangeInclusive<u32> = 1..=600;
/// Addresses of one answer.
const MAX_ADDRESSES: usize = 16;
/// Names that lead to each other.
const MAX_ALIASES: usize = 16;

/// What a name resolved to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// Addresses, perhaps none, and how long they are good for.
    Addresses(Vec<IpAddr>, u32),
    /// There is no such name.
    NoName,
    /// The server could not say.
    Failed(ResponseCode),
}

/// Whether it answers what was asked.
pub(crate) fn answers(message: &Message, asked: &Message) -> bool {
    message.metadata.message_type == MessageType::Response
        && message.metadata.id == asked.metadata.id
        && message.queries == asked.queries
}

/// The addresses of the name that was asked for, along its aliases; other records do not count.
pub(crate) fn addresses(message: &Message) -> Found {
    match message.metadata.response_code {
        ResponseCode::NoError => {}
        ResponseCode::NXDomain => return Found::NoName,
        code => return Found::Failed(code),
    }
    let Some(query) = message.queries.first() else { return Found::Failed(ResponseCode::FormErr) };
    let mut name: &Name = &query.name;
    let mut ttl = *TTL.end();
    for _ in 0..MAX_ALIASES {
        let own = || message.answers.iter().filter(|record| &record.name == name);
        let found: Vec<&Record> = own().filter(|record| record.record_type() == query.query_type).collect();
        if !found.is_empty() {
            ttl = found.iter().map(|record| record.ttl).fold(ttl, u32::min);
            let mut all: Vec<IpAddr> = found.iter().filter_map(|record| address(&record.data)).collect();
            all.truncate(MAX_ADDRESSES);
            return Found::Addresses(all, ttl.clamp(*TTL.start(), *TTL.end()));
        }
        let alias = own().find_map(|record| match &record.data {
            RData::CNAME(target) => Some((&target.0, record.ttl)),
            _ => None,
        });
        let Some((target, alias_ttl)) = alias else { break };
        ttl = ttl.min(alias_ttl);
        name = target;
    }
    Found::Addresses(Vec::new(), ttl.clamp(*TTL.start(), *TTL.end()))
}

fn address(data: &RData) -> Option<IpAddr> {
    match data {
        RData::A(A(v4)) => Some((*v4).into()),
        RData::AAAA(AAAA(v6)) => Some((*v6).into()),
        _ => None,
    }
}

/// An answer with addresses, as if the name had them itself.
pub(crate) fn with(question: &Question, addresses: &[IpAddr], ttl: u32) -> Message {
    let mut answer = question.empty(ResponseCode::NoError);
    for address in addresses {
        let data = match address {
            IpAddr::V4(v4) => RData::A(A(*v4)),
            IpAddr::V6(v6) => RData::AAAA(AAAA(*v6)),
        };
        answer.add_answer(Record::from_rdata(question.query.name.clone(), ttl, data));
    }
    answer
}

/// The bytes for UDP: what does not fit is asked for again over TCP.
pub(crate) fn fitted(answer: &Message, room: u16) -> Option<Vec<u8>> {
    let bytes = answer.to_vec().ok()?;
    if bytes.len() <= usize::from(room) { Some(bytes) } else { answer.truncate().to_vec().ok() }
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::Query;
    use hickory_proto::rr::RecordType;
    use hickory_proto::rr::rdata::CNAME;

    use super::*;

    fn record(name: &str, ttl: u32, data: RData) -> Record {
        Record::from_rdata(name.parse().unwrap(), ttl, data)
    }

    fn a(name: &str, ttl: u32, address: [u8; 4]) -> Record {
        record(name, ttl, RData::A(A(address.into())))
    }

    fn alias(name: &str, to: &str) -> Record {
        record(name, 90, RData::CNAME(CNAME(to.parse().unwrap())))
    }

    fn found(records: &[Record]) -> Found {
        let mut message = Message::query().into_response();
        message.add_query(Query::query("a.b.".parse().unwrap(), RecordType::A));
        message.answers = records.to_vec();
        addresses(&message)
    }

    #[test]
    fn aliases_are_followed_and_strangers_do_not_count() {
        let records = [alias("a.b.", "c.d."), a("c.d.", 30, [8, 8, 8, 8]), a("evil.", 9, [9, 9, 9, 9])];
        assert_eq!(found(&records), Found::Addresses(vec![[8, 8, 8, 8].into()], 30));
        assert_eq!(found(&[a("evil.", 9, [9, 9, 9, 9])]), Found::Addresses(Vec::new(), 600));
        let turning = [alias("a.b.", "c.d."), alias("c.d.", "a.b.")];
        assert_eq!(found(&turning), Found::Addresses(Vec::new(), 90));
    }

    #[test]
    fn times_and_numbers_are_bounded() {
        assert_eq!(found(&[a("a.b.", 0, [8, 8, 8, 8])]), Found::Addresses(vec![[8, 8, 8, 8].into()], 1));
        assert_eq!(
            found(&[a("A.B.", 99_999, [8, 8, 8, 8])]),
            Found::Addresses(vec![[8, 8, 8, 8].into()], 600)
        );
        let many: Vec<Record> = (0..40).map(|i| a("a.b.", 5, [8, 8, 8, i])).collect();
        let Found::Addresses(all, 5) = found(&many) else { panic!() };
        assert_eq!(all.len(), MAX_ADDRESSES);
    }
}
