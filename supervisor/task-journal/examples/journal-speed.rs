//! What the journal costs, beside a bare append and fdatasync of the same bytes, in turns on the same disk.
//!
//! `cargo run --release -p aion-task-journal --example journal-speed [FOLDER]`; prints JSON lines.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    reason = "a program for people, on their own machine"
)]

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use aion_task_journal::{Batch, Error, Journal, Options, Writer, WriterOptions};

fn main() {
    let folder = std::env::args().nth(1).unwrap_or_else(|| "/var/tmp".to_owned());
    let only = std::env::var("ONLY").unwrap_or_default();
    if only == "reopen" {
        return reopen(Path::new(&folder));
    }
    let dir = tempfile::tempdir_in(folder).unwrap();
    for (name, run) in
        [("raw", against_raw as fn(&Path)), ("batch", batches), ("start", start), ("checkpoint", checkpoints)]
    {
        if only.is_empty() || only == name {
            run(dir.path());
        }
    }
}

fn percentile(times: &mut [Duration], p: usize) -> u128 {
    times.sort_unstable();
    times[(times.len() - 1) * p / 100].as_micros()
}

/// One task's submission: its row, its body, its event.
fn submission(batch: &mut Batch, n: u64) {
    let mut key = [0u8; 9];
    key[0] = b't';
    key[1..].copy_from_slice(&n.to_be_bytes());
    batch.put_row(&key, &[n as u8; 160]);
    batch.body(n, &[n as u8; 100]);
    batch.event(n, n, 0, &[n as u8; 40]);
}

fn against_raw(dir: &Path) {
    let journal = Journal::open(&dir.join("one"), Options::default()).unwrap();
    let mut file = std::fs::File::create(dir.join("raw")).unwrap();
    let mut n = 0;
    let mut ratios = Vec::new();
    let (mut raw_all, mut ours_all) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        let before = journal.stats().unwrap();
        let begun = Instant::now();
        for _ in 0..200 {
            n += 1;
            let mut batch = Batch::new();
            submission(&mut batch, n);
            let at = Instant::now();
            journal.commit(batch).unwrap();
            ours_all.push(at.elapsed());
        }
        let ours = begun.elapsed();
        let bytes = (journal.stats().unwrap().bytes - before.bytes) / 200;
        let record = vec![7u8; bytes as usize];
        let begun = Instant::now();
        for _ in 0..200 {
            let at = Instant::now();
            file.write_all(&record).unwrap();
            file.sync_data().unwrap();
            raw_all.push(at.elapsed());
        }
        ratios.push(begun.elapsed().as_secs_f64() / ours.as_secs_f64());
    }
    ratios.sort_by(f64::total_cmp);
    println!(
        "{{\"figure\":\"synced commits, 1 thread\",\"of_raw\":{:.2},\"raw_us\":{{\"p50\":{},\"p99\":{}}},\"journal_us\":{{\"p50\":{},\"p99\":{}}}}}",
        ratios[ratios.len() / 2],
        percentile(&mut raw_all, 50),
        percentile(&mut raw_all, 99),
        percentile(&mut ours_all, 50),
        percentile(&mut ours_all, 99)
    );
}

fn batches(dir: &Path) {
    for size in [64u64, 512, 4096] {
        let journal = Arc::new(Journal::open(&dir.join(format!("batch{size}")), Options::default()).unwrap());
        let (mut n, mut done) = (0, 0);
        let total = 300_000u64;
        let (begun, cpu) = (Instant::now(), cpu_ms());
        while done < total {
            let mut batch = Batch::new();
            for _ in 0..size / 3 {
                n += 1;
                submission(&mut batch, n);
            }
            done += batch.len() as u64;
            journal.commit(batch).unwrap();
        }
        let direct = done as f64 / begun.elapsed().as_secs_f64();
        let per_cpu = done as f64 * 1000.0 / (cpu_ms() - cpu) as f64;

        let writer =
            Writer::start(Arc::clone(&journal), WriterOptions { queue: 8, ..WriterOptions::default() })
                .unwrap();
        let acknowledged = Arc::new(AtomicU64::new(0));
        let begun = Instant::now();
        let mut sent = 0;
        while sent < total {
            let mut batch = Batch::new();
            for _ in 0..size / 3 {
                n += 1;
                submission(&mut batch, n);
            }
            let records = batch.len() as u64;
            sent += records;
            let acknowledged = Arc::clone(&acknowledged);
            writer.submit(batch, move |result| {
                result.unwrap();
                acknowledged.fetch_add(records, Ordering::Relaxed);
            });
        }
        drop(writer);
        assert_eq!(acknowledged.load(Ordering::Relaxed), sent);
        let piped = sent as f64 / begun.elapsed().as_secs_f64();
        println!(
            "{{\"figure\":\"records/s\",\"batch\":{size},\"direct\":{direct:.0},\"direct, per second of CPU\":{per_cpu:.0},\"with the writer's thread\":{piped:.0},\"rss_mb\":{}}}",
            rss_mb()
        );
    }
}

fn start(dir: &Path) {
    let at = dir.join("start");
    {
        let journal = Journal::open(&at, Options::default()).unwrap();
        let mut n = 0;
        while n < 1_000_000 {
            let mut batch = Batch::new();
            for _ in 0..5000 {
                n += 1;
                submission(&mut batch, n);
            }
            journal.commit(batch).unwrap();
        }
    }
    // Each in a process of its own, as a daemon's start is.
    for _ in 0..5 {
        let program = std::env::current_exe().unwrap();
        assert!(
            std::process::Command::new(program).arg(&at).env("ONLY", "reopen").status().unwrap().success()
        );
    }
}

fn reopen(at: &Path) {
    let (begun, cpu) = (Instant::now(), cpu_ms());
    let journal = Journal::open(at, Options::default()).unwrap();
    let (open, open_cpu, before) = (begun.elapsed(), cpu_ms() - cpu, rss_mb());
    let (mut rows, mut bytes) = (0u64, 0);
    let (begun, cpu) = (Instant::now(), cpu_ms());
    journal
        .rows(|key, value| {
            rows += 1;
            bytes += key.len() + value.len();
            Ok::<_, Error>(())
        })
        .unwrap();
    println!(
        "{{\"figure\":\"start\",\"open_ms\":{},\"open_cpu_ms\":{open_cpu},\"rows\":{rows},\"rows_ms\":{},\"rows_cpu_ms\":{},\"mb\":{},\"rss_mb\":[{before},{}]}}",
        open.as_millis(),
        begun.elapsed().as_millis(),
        cpu_ms() - cpu,
        bytes >> 20,
        rss_mb()
    );
}

/// CPU time of this thread.
fn cpu_ms() -> i64 {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap();
    time.tv_sec() * 1000 + time.tv_nsec() / 1_000_000
}

fn checkpoints(dir: &Path) {
    let journal = Arc::new(Journal::open(&dir.join("blobs"), Options::default()).unwrap());
    let mut x = 1u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x.to_le_bytes()
    })
    .take(8 << 20)
    .flatten()
    .collect();
    let text: Vec<u8> = (0u64..)
        .flat_map(|n| format!("{{\"n\":{n},\"v\":{}}}", n * 7919 % 10_007).into_bytes())
        .take(64 << 20)
        .collect();
    let stop = Arc::new(AtomicU64::new(0));
    let commits = {
        let (journal, stop) = (Arc::clone(&journal), Arc::clone(&stop));
        std::thread::spawn(move || {
            let mut phases = vec![Vec::new(); 3];
            let mut n = 0;
            loop {
                let phase = stop.load(Ordering::Relaxed) as usize;
                if phase > 2 {
                    return phases;
                }
                n += 1;
                let mut batch = Batch::new();
                submission(&mut batch, n);
                let at = Instant::now();
                journal.commit(batch).unwrap();
                phases[phase].push(at.elapsed());
                std::thread::sleep(Duration::from_millis(1));
            }
        })
    };
    std::thread::sleep(Duration::from_secs(2));
    let mut kinds = Vec::new();
    for (phase, (kind, data)) in (1u64..).zip([("noise", &noise), ("text", &text)]) {
        stop.store(phase, Ordering::Relaxed);
        let (mut writes, mut reads, mut raw) = (Vec::new(), Vec::new(), Vec::new());
        let mut stored = 0;
        for number in 0..20 {
            let at = Instant::now();
            let mut file = std::fs::File::create(dir.join("raw")).unwrap();
            file.write_all(data).unwrap();
            file.sync_data().unwrap();
            raw.push(at.elapsed());
            let at = Instant::now();
            let mut writer = journal.checkpoint_writer(phase, number).unwrap();
            for part in data.chunks(64 << 10) {
                writer.write(part).unwrap();
            }
            let checkpoint = writer.finish().unwrap();
            stored = checkpoint.info().stored;
            let mut batch = Batch::new();
            batch.checkpoint(&checkpoint);
            // The commits of the other thread carry the events; this one has none.
            journal.commit(batch).unwrap();
            writes.push(at.elapsed());
            let at = Instant::now();
            journal.read_checkpoint(phase, number, |_| Ok::<_, Error>(())).unwrap();
            reads.push(at.elapsed());
        }
        kinds.push((kind, writes, reads, raw, stored));
    }
    stop.store(3, Ordering::Relaxed);
    let mut phases = commits.join().unwrap();
    for (phase, (kind, mut writes, mut reads, mut raw, stored)) in (1..).zip(kinds) {
        let (quiet, busy) = (&mut phases[0].clone(), &mut phases[phase]);
        println!(
            "{{\"figure\":\"64 MiB checkpoint\",\"data\":\"{kind}\",\"stored\":{stored},\"raw_us\":{{\"p50\":{},\"max\":{}}},\"write_us\":{{\"p50\":{},\"max\":{}}},\"read_us\":{{\"p50\":{},\"max\":{}}},\"commit_us\":{{\"quiet_p50\":{},\"quiet_p99\":{},\"p50\":{},\"p99\":{},\"max\":{}}},\"rss_mb\":{}}}",
            percentile(&mut raw, 50),
            percentile(&mut raw, 100),
            percentile(&mut writes, 50),
            percentile(&mut writes, 100),
            percentile(&mut reads, 50),
            percentile(&mut reads, 100),
            percentile(quiet, 50),
            percentile(quiet, 99),
            percentile(busy, 50),
            percentile(busy, 99),
            percentile(busy, 100),
            rss_mb()
        );
    }
    println!("{{\"figure\":\"disk after\",\"mb\":{}}}", journal.stats().unwrap().disk_bytes >> 20);
}

fn rss_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    line.and_then(|line| line.split_whitespace().nth(1)).and_then(|kb| kb.parse::<u64>().ok()).unwrap_or(0)
        >> 10
}
