//! The launcher's protocol: a stream is cut into frames, and frames are decoded into messages.

use aion_launcher_proto::{frame, v1};
use prost::Message;

/// However the stream is cut into reads, the frames are the same; a message that is read is the same after it was written.
pub fn check(data: &[u8]) {
    let whole = frames(data, usize::MAX);
    for cut in [1, 7] {
        assert_eq!(frames(data, cut), whole, "frames depend on how the stream arrives");
    }
    for body in &whole.0 {
        round_trip::<v1::Request>(body);
        round_trip::<v1::Response>(body);
        round_trip::<v1::Notice>(body);
    }
    round_trip::<v1::Request>(data);
    round_trip::<v1::Response>(data);
}

/// The bodies of all complete frames, and whether the stream was refused.
fn frames(mut data: &[u8], cut: usize) -> (Vec<Vec<u8>>, bool) {
    let mut decoder = frame::Decoder::<()>::new();
    let mut bodies = Vec::new();
    loop {
        let want = decoder.want();
        assert!(want > 0 || !decoder.is_idle(), "a decoder that wants nothing");
        let take = want.min(cut).min(data.len());
        let (now, later) = data.split_at(take);
        data = later;
        match decoder.push(now, Vec::new()) {
            Ok(Some(frame)) => bodies.push(frame.body),
            Ok(None) => {}
            Err(_) => return (bodies, true),
        }
        if data.is_empty() {
            return (bodies, false);
        }
    }
}

fn round_trip<M: Message + Default + PartialEq + std::fmt::Debug>(body: &[u8]) {
    let Ok(message) = M::decode(body) else { return };
    if let Ok(bytes) = frame::encode(&message) {
        let (bodies, refused) = frames(&bytes, usize::MAX);
        assert!(!refused && bodies.len() == 1, "our own frame is refused");
        let again = bodies.first().and_then(|b| M::decode(b.as_slice()).ok());
        // Maps and unknown fields may move, so the messages are compared, not their bytes.
        assert!(again.as_ref() == Some(&message), "a message changed on its way: {message:?}");
    }
}

/// Streams of valid requests and answers.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    use v1::request::Op;
    let launch = v1::Launch {
        id: "01HF7YAT00000000000000000A".into(),
        tenant: "default".into(),
        name: "a".into(),
        argv: vec![b"python3".to_vec(), b"-c".to_vec(), b"1".to_vec()],
        env: vec![b"A=b".to_vec()],
        workspace: Some(v1::Workspace {
            kind: Some(v1::workspace::Kind::Directory(b"/srv/w".to_vec())),
            read_only: false,
        }),
        limits: Some(v1::Limits { cpu_millis: 1000, mem_bytes: 1 << 29, pids: 256, ..Default::default() }),
        seccomp_profile: "default-restrictive".into(),
        ..Default::default()
    };
    let request = |seq, op| frame::encode(&v1::Request { seq, op: Some(op) }).unwrap_or_default();
    let error =
        v1::Error { code: "LAYER_FAILED".into(), message: "no".into(), errno: 28, ..Default::default() };
    let response = v1::Response { seq: 9, result: Some(v1::response::Result::Error(error)) };
    vec![
        request(1, Op::Hello(v1::Hello { protocol: 1 })),
        request(2, Op::Launch(launch)),
        [
            request(3, Op::Freeze(v1::Freeze { id: "x".into(), ..Default::default() })),
            request(4, Op::List(v1::List::default())),
        ]
        .concat(),
        frame::encode(&response).unwrap_or_default(),
        vec![0, 0, 0, 0],
        vec![0xff, 0xff, 0xff, 0xff, 0],
    ]
}

/// Lengths and field headers.
pub const WORDS: &[&[u8]] = &[
    b"\0\0\0\0",
    b"\0\0\0\x01",
    b"\0\x10\0\0",
    b"\0\x10\0\x01",
    b"\x0a",
    b"\x12\xff\xff\xff\xff\x0f",
    b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
    b"\x1a\x00",
    b"\xff",
];
