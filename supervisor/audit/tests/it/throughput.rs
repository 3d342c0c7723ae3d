//! How fast records are appended. A figure, with a floor far under it so that a loaded machine passes.

use std::time::Instant;

use aion_audit::{Detail, NewRecord, Options};
use sha2::{Digest, Sha256};

use crate::support::Log;

#[test]
fn throughput() {
    const RECORDS: u32 = 200_000;
    let log = Log::new();
    let mut writer = log.writer(Options::default());
    let detail = Detail::parse(
        r#"{"pid":4711,"ppid":4710,"comm":"python3","argv":["/usr/bin/python3","-c","pass"],"errno":0}"#,
    )
    .unwrap();
    let begin = Instant::now();
    for _ in 0..RECORDS {
        let new = NewRecord {
            tenant: "default",
            agent: "01ARZ3NDEKTSV4RRFFQ69G5FAV",
            kind: "proc.exec",
            verdict: "allowed",
            rule: "default-restrictive",
            detail: detail.clone(),
            ..NewRecord::default()
        };
        writer.append(&new).unwrap();
    }
    let appended = begin.elapsed();
    let line = std::fs::read_to_string(log.segment(1)).unwrap().lines().nth(1).unwrap().len();
    let begin = Instant::now();
    let mut chain = [0; 32];
    let bytes = vec![b'x'; line - 75];
    for _ in 0..RECORDS {
        chain = Sha256::new().chain_update(chain).chain_update(&bytes).finalize().into();
    }
    let hashed = begin.elapsed();
    let begin = Instant::now();
    drop(writer);
    let closed = begin.elapsed();
    let begin = Instant::now();
    let report = log.verify();
    let verified = begin.elapsed();
    assert!(report.ok);
    let rate = |time: std::time::Duration| f64::from(RECORDS) / time.as_secs_f64();
    println!(
        "append: {:.0} records/s of {line} bytes ({:.0} ns each, of which hash {:.0} ns: {:?}); close {closed:?}; verify {:.0} records/s",
        rate(appended),
        1e9 / rate(appended),
        1e9 / rate(hashed),
        &chain[..1],
        rate(verified),
    );
    assert!(rate(appended) > 50_000.0);
}
