//! A resolver between an agent that asks and a name server of the test's.

#![expect(clippy::unwrap_used, reason = "a failing test panics")]

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aion_egress::{Name, Rules};
use aion_resolver::{Admit, Refused, Upstream, serve};
use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, CNAME};
use hickory_proto::rr::{RData, Record, RecordType};

/// A name server: answers what the table has, and remembers what it was asked.
struct World {
    at: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

fn world(table: &[(&str, RData)]) -> World {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = socket.local_addr().unwrap();
    let table: HashMap<String, RData> =
        table.iter().map(|(name, data)| ((*name).to_owned(), data.clone())).collect();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let note = Arc::clone(&asked);
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((len, from)) = socket.recv_from(&mut buffer) {
            let question = Message::from_vec(&buffer[..len]).unwrap();
            let mut name = question.queries[0].name.to_ascii();
            note.lock().unwrap().push(name.clone());
            let mut answer = question.into_response();
            answer.metadata.response_code = ResponseCode::NXDomain;
            while let Some(data) = table.get(&name) {
                answer.metadata.response_code = ResponseCode::NoError;
                answer.add_answer(Record::from_rdata(name.parse().unwrap(), 60, data.clone()));
                let RData::CNAME(target) = data else { break };
                name = target.0.to_ascii();
            }
            // Somebody who guesses comes first.
            let mut forged = answer.clone();
            forged.metadata.id = forged.metadata.id.wrapping_add(1);
            forged.answers = vec![Record::from_rdata(forged.queries[0].name.clone(), 60, a([6, 6, 6, 6]))];
            socket.send_to(&forged.to_vec().unwrap(), from).unwrap();
            socket.send_to(&answer.to_vec().unwrap(), from).unwrap();
        }
    });
    World { at, asked }
}

fn a(address: [u8; 4]) -> RData {
    RData::A(A(address.into()))
}

#[derive(Clone, Default)]
struct Gate {
    admitted: Arc<Mutex<Vec<(String, IpAddr)>>>,
    refused: Arc<Mutex<Vec<(String, Refused)>>>,
}

impl Admit for Gate {
    async fn admit(&self, name: &Name, addresses: &[IpAddr], _: u32) -> Result<Vec<IpAddr>, String> {
        let rules = Rules::parse(&["good.example:443", "*.wild.example:443"]).unwrap();
        let good: Vec<IpAddr> =
            addresses.iter().copied().filter(|address| rules.admit(name, *address).is_some()).collect();
        self.admitted.lock().unwrap().extend(good.iter().map(|address| (name.to_string(), *address)));
        Ok(good)
    }

    fn refused(&self, name: &Name, why: Refused) {
        self.refused.lock().unwrap().push((name.to_string(), why));
    }
}

/// Asks over UDP, and over TCP when told to; gives the code and the addresses.
fn ask(at: SocketAddr, name: &str, kind: RecordType, over_tcp: bool) -> (ResponseCode, Vec<IpAddr>) {
    let mut message = Message::query();
    message.add_query(Query::query(name.parse().unwrap(), kind));
    let bytes = message.to_vec().unwrap();
    let answer = if over_tcp {
        use std::io::{Read as _, Write as _};
        let mut stream = std::net::TcpStream::connect(at).unwrap();
        stream.write_all(&u16::try_from(bytes.len()).unwrap().to_be_bytes()).unwrap();
        stream.write_all(&bytes).unwrap();
        let mut len = [0; 2];
        stream.read_exact(&mut len).unwrap();
        let mut answer = vec![0; usize::from(u16::from_be_bytes(len))];
        stream.read_exact(&mut answer).unwrap();
        answer
    } else {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        socket.send_to(&bytes, at).unwrap();
        let mut buffer = vec![0; 4096];
        let len = socket.recv(&mut buffer).unwrap();
        buffer[..len].to_vec()
    };
    let answer = Message::from_vec(&answer).unwrap();
    assert_eq!((answer.metadata.id, &answer.queries), (message.metadata.id, &message.queries));
    let addresses = answer.answers.iter().filter_map(|record| record.data.ip_addr()).collect();
    (answer.metadata.response_code, addresses)
}

#[tokio::test(flavor = "multi_thread")]
async fn only_names_of_the_rules_are_asked_for_and_only_admitted_addresses_are_told() {
    let alias = |to: &str| RData::CNAME(CNAME(to.parse().unwrap()));
    let world = world(&[
        ("good.example.", a([8, 8, 8, 8])),
        ("x.wild.example.", alias("cdn.elsewhere.")),
        ("cdn.elsewhere.", a([8, 8, 4, 4])),
        ("private.wild.example.", alias("internal.")),
        ("internal.", a([10, 0, 0, 1])),
        ("evil.example.", a([9, 9, 9, 9])),
    ]);
    let (udp, tcp) = (UdpSocket::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let (at, at_tcp) = (udp.local_addr().unwrap(), tcp.local_addr().unwrap());
    let gate = Gate::default();
    let rules = Rules::parse(&["good.example:443", "*.wild.example:443"]).unwrap();
    let (_, rules) = tokio::sync::watch::channel(rules);
    tokio::spawn(serve(udp, tcp, rules, Upstream::Servers(vec![world.at]), gate.clone()));
    let asked = Arc::clone(&world.asked);
    tokio::task::spawn_blocking(move || {
        use ResponseCode as R;
        let good = vec![IpAddr::from([8, 8, 8, 8])];
        assert_eq!(ask(at, "Good.Example.", RecordType::A, false), (R::NoError, good.clone()));
        assert_eq!(ask(at_tcp, "good.example.", RecordType::A, true), (R::NoError, good));
        assert_eq!(ask(at, "x.wild.example.", RecordType::A, false).1, [IpAddr::from([8, 8, 4, 4])]);
        assert_eq!(ask(at, "private.wild.example.", RecordType::A, false), (R::Refused, vec![]));
        assert_eq!(ask(at, "none.wild.example.", RecordType::A, false), (R::NXDomain, vec![]));
        for name in ["evil.example.", "wild.example.", "good.example.evil.", "c2VjcmV0.tunnel.evil.example."]
        {
            assert_eq!(ask(at, name, RecordType::A, false), (R::Refused, vec![]), "{name}");
            assert_eq!(ask(at_tcp, name, RecordType::TXT, true), (R::Refused, vec![]), "{name}");
        }
        assert_eq!(ask(at, "good.example.", RecordType::TXT, false), (R::NoError, vec![]));
    })
    .await
    .unwrap();
    let asked = asked.lock().unwrap().clone();
    assert_eq!(
        asked,
        ["good.example.", "good.example.", "x.wild.example.", "private.wild.example.", "none.wild.example."],
        "nothing else left, and no other record was asked for"
    );
    assert_eq!(gate.admitted.lock().unwrap().len(), 3);
    assert!(gate.refused.lock().unwrap().contains(&("private.wild.example".to_owned(), Refused::Addresses)));
}
