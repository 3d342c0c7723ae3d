//! A name server: each name has an address of its own, for ten minutes.
//!
//! As little of it as the resolver asks for: questions for one address, answers without compression but for the name's.

use std::collections::HashMap;
use std::net::{Ipv4Addr, UdpSocket};

/// The resolver's longest.
const TTL_S: u32 = 600;
const FIRST: Ipv4Addr = Ipv4Addr::new(45, 100, 0, 1);
const HEAD: usize = 12;
/// Type A of class IN.
const ADDRESS: [u8; 4] = [0, 1, 0, 1];

/// Serves until the benchmark ends.
pub(crate) fn serve(socket: UdpSocket) {
    std::thread::spawn(move || {
        let (mut known, mut bytes) = (HashMap::new(), [0; 1500]);
        while let Ok((length, from)) = socket.recv_from(&mut bytes) {
            if let Some(answer) = bytes.get(..length).and_then(|question| answer(question, &mut known)) {
                // Who asks asks again.
                let _ = socket.send_to(&answer, from);
            }
        }
    });
}

/// The answer; none to what is no question.
fn answer(question: &[u8], known: &mut HashMap<Vec<u8>, u32>) -> Option<Vec<u8>> {
    let asked = question.get(HEAD..)?;
    let end = 1 + asked.iter().position(|byte| *byte == 0)?;
    let (name, kind) = (asked.get(..end)?, asked.get(end..end + ADDRESS.len())?);
    let is_address = kind == ADDRESS;
    let mut answer = question.get(..2)?.to_vec();
    // An answer without an error: one question, one record or none.
    answer.extend([0x81, 0x80, 0, 1, 0, u8::from(is_address), 0, 0, 0, 0]);
    answer.extend(name);
    answer.extend(kind);
    if is_address {
        let next = u32::try_from(known.len()).ok()?;
        let number = *known.entry(name.to_vec()).or_insert(next);
        // The name is that of the question.
        answer.extend([0xc0, 12]);
        answer.extend(ADDRESS);
        answer.extend(TTL_S.to_be_bytes());
        answer.extend([0, 4]);
        answer.extend(FIRST.to_bits().checked_add(number)?.to_be_bytes());
    }
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(name: &str, kind: u8) -> Vec<u8> {
        let mut question = vec![7, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
        for label in name.split('.') {
            question.push(u8::try_from(label.len()).unwrap());
            question.extend(label.as_bytes());
        }
        question.extend([0, 0, kind, 0, 1]);
        // Options, which come after the question.
        question.extend([0, 0, 41]);
        question
    }

    #[test]
    fn each_name_has_an_address_and_keeps_it() {
        let mut known = HashMap::new();
        let mut last = |name: &str| {
            let answer = answer(&ask(name, 1), &mut known).unwrap();
            assert_eq!((&answer[..2], answer[3] & 15, answer[7]), (&[7, 9][..], 0, 1));
            answer[answer.len() - 4..].to_vec()
        };
        assert_eq!(last("a.example"), [45, 100, 0, 1]);
        assert_eq!(last("b.example"), [45, 100, 0, 2]);
        assert_eq!(last("a.example"), [45, 100, 0, 1]);
    }

    #[test]
    fn other_records_are_not_there_and_other_bytes_are_not_answered() {
        let answered = answer(&ask("a.example", 28), &mut HashMap::new()).unwrap();
        assert_eq!((answered[7], answered.len()), (0, HEAD + 11 + 4));
        assert_eq!(answer(&[1, 2, 3], &mut HashMap::new()), None);
        assert_eq!(answer(&ask("a.example", 1)[..20], &mut HashMap::new()), None);
    }
}
