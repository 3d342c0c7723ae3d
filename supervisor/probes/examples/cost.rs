//! What the probes cost, and how much the ring buffer takes: prints one JSON object.
//! `cargo run -p aion-probes --example cost -- OBJECT [ROUNDS]` as root, on a quiet machine.
//!
//! Rounds go through all configurations in turn, so that a slow spell of the machine hits each of them; of
//! each the fastest batch counts, and the median is given beside it.
#![expect(clippy::print_stdout, reason = "a tool for the terminal")]

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::hint::black_box;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use aion_probes::{AgentConfig, AuditMode, Event, GramModel, NetPolicy, Object, Opened, Options, Probes};
use serde_json::{Value, json};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Calls in a batch, and batches in a worker.
const CALLS: u32 = 200_000;
const SPAWNS: u32 = 60;
const BATCHES: usize = 7;
const DRAIN_EVERY: Duration = Duration::from_millis(5);

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["worker", "getppid"] => worker(CALLS, || {
            black_box(nix::unistd::getppid());
        }),
        ["worker", "spawn"] => worker(SPAWNS, || drop(black_box(Command::new("/bin/true").status()))),
        ["worker", "flood", ms] => flood(Duration::from_millis(ms.parse()?)),
        [object] => measure(object.into(), 5),
        [object, rounds] => measure(object.into(), rounds.parse()?),
        _ => Err("usage: cost OBJECT [ROUNDS]".into()),
    }
}

/// The sink: the records are decoded, and that is all.
fn ignore(event: Event<'_>) {
    black_box(event);
}

/// Prints ns per call of each batch.
fn worker(calls: u32, call: impl Fn()) -> Result<()> {
    for _ in 0..BATCHES {
        let begun = Instant::now();
        for _ in 0..calls {
            call();
        }
        println!("{}", begun.elapsed().as_nanos() / u128::from(calls));
    }
    Ok(())
}

/// System calls as fast as they go; prints how many.
fn flood(time: Duration) -> Result<()> {
    let begun = Instant::now();
    let mut calls = 0u64;
    while begun.elapsed() < time {
        for _ in 0..1000 {
            black_box(nix::unistd::getppid());
        }
        calls += 1000;
    }
    println!("{calls}");
    Ok(())
}

struct Bench {
    parent: PathBuf,
    agent: PathBuf,
    options: Options,
}

impl Bench {
    fn new(object: PathBuf) -> Result<Self> {
        let root = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]
            .iter()
            .map(Path::new)
            .find(|root| root.join("cgroup.controllers").exists())
            .ok_or("no cgroup v2 is mounted")?;
        let name = format!("aion-cost-{}", std::process::id());
        let parent = root.join(&name);
        let agent = parent.join("agent");
        fs::create_dir_all(&agent)?;
        let options = Options {
            object: Object::Path(object),
            pin_dir: Path::new("/sys/fs/bpf").join(name),
            cgroup: parent.clone(),
            ring_bytes: Options::RING_BYTES,
        };
        Ok(Self { parent, agent, options })
    }

    fn id(&self) -> Result<u64> {
        Ok(fs::metadata(&self.agent)?.ino())
    }

    /// A worker, in the agent's cgroup or outside of it.
    fn spawn(&self, inside: bool, words: &[&str]) -> Result<Child> {
        let me = std::env::current_exe()?;
        let mut command = if inside {
            let mut command = Command::new("/bin/sh");
            command
                .args(["-c", "echo $$ > \"$0\" && exec \"$@\""])
                .arg(self.agent.join("cgroup.procs"))
                .arg(me);
            command
        } else {
            Command::new(me)
        };
        Ok(command.arg("worker").args(words).stdout(Stdio::piped()).spawn()?)
    }

    /// Runs a worker while the ring is drained; gives the numbers that it printed.
    fn run(&self, opened: Option<&mut Opened>, inside: bool, words: &[&str]) -> Result<Vec<u64>> {
        let mut child = self.spawn(inside, words)?;
        if let Some(opened) = opened {
            while child.try_wait()?.is_none() {
                opened.ring.drain(&mut ignore)?;
                std::thread::sleep(DRAIN_EVERY);
            }
        }
        let output = child.wait_with_output()?;
        if !output.status.success() {
            return Err(format!("the worker ended with {}", output.status).into());
        }
        Ok(String::from_utf8(output.stdout)?
            .split_whitespace()
            .map(str::parse)
            .collect::<std::result::Result<_, _>>()?)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = Probes::unpin_all(&self.options.pin_dir);
        let _ = fs::remove_dir(&self.agent);
        let _ = fs::remove_dir(&self.parent);
    }
}

const fn config(mode: AuditMode, strict: bool) -> AgentConfig {
    AgentConfig { mode, strict, net: NetPolicy::AllowAll }
}

#[derive(Default)]
struct Samples(BTreeMap<&'static str, Vec<u64>>);

impl Samples {
    fn add(&mut self, name: &'static str, numbers: Vec<u64>) {
        self.0.entry(name).or_default().extend(numbers);
    }

    fn best(&self, name: &str) -> u64 {
        self.0.get(name).and_then(|all| all.iter().min().copied()).unwrap_or(0)
    }

    fn json(&self, base: &str) -> Value {
        let base = self.best(base);
        let rows = self.0.iter().map(|(&name, all)| {
            let mut sorted = all.clone();
            sorted.sort_unstable();
            let best = self.best(name);
            let median = sorted.get(sorted.len() / 2).copied().unwrap_or(0);
            let row = json!({ "best": best, "median": median, "added": best.saturating_sub(base) });
            (name.to_owned(), row)
        });
        Value::Object(rows.collect())
    }
}

const MODES: [(AuditMode, &str, &str); 4] = [
    (AuditMode::Events, "bystander_enforce", "agent_enforce"),
    (AuditMode::Count, "bystander_count", "agent_count"),
    (AuditMode::Latency, "bystander_latency", "agent_latency"),
    (AuditMode::Full, "bystander_full", "agent_full"),
];

fn measure(object: PathBuf, rounds: usize) -> Result<()> {
    let bench = Bench::new(object)?;
    let id = bench.id()?;
    let mut calls = Samples::default();
    let mut spawns = Samples::default();
    for _ in 0..rounds {
        calls.add("no_probes", bench.run(None, false, &["getppid"])?);
        spawns.add("no_probes", bench.run(None, false, &["spawn"])?);
        let mut opened = Probes::open_or_load(&bench.options)?;
        for (mode, bystander, agent) in MODES {
            opened.probes.add_agent(id, config(mode, false))?;
            calls.add(bystander, bench.run(Some(&mut opened), false, &["getppid"])?);
            calls.add(agent, bench.run(Some(&mut opened), true, &["getppid"])?);
            if mode == AuditMode::Events {
                spawns.add("bystander", bench.run(Some(&mut opened), false, &["spawn"])?);
                spawns.add("agent", bench.run(Some(&mut opened), true, &["spawn"])?);
            }
            opened.probes.remove_agent(id)?;
        }
        opened.probes.add_agent(id, config(AuditMode::Count, false))?;
        opened.probes.watch_grams(id, &GramModel::default())?;
        calls.add("bystander_grams", bench.run(Some(&mut opened), false, &["getppid"])?);
        calls.add("agent_grams", bench.run(Some(&mut opened), true, &["getppid"])?);
        opened.probes.remove_agent(id)?;
        drop(opened);
        Probes::unpin_all(&bench.options.pin_dir)?;
    }
    let mut opened = Probes::open_or_load(&bench.options)?;
    let ring = ring(&bench, &mut opened, id)?;
    let plain = storm(&bench, &mut opened, id, false)?;
    let strict = storm(&bench, &mut opened, id, true)?;
    let per_cent = |name: &str| spawns.best(name) as f64 / spawns.best("no_probes").max(1) as f64;
    let report = json!({
        "kernel": fs::read_to_string("/proc/sys/kernel/osrelease")?.trim(),
        "cpus": std::thread::available_parallelism()?.get(),
        "rounds": rounds,
        "syscall_ns": calls.json("no_probes"),
        "fork_exec_ns": spawns.json("no_probes"),
        "fork_exec_ratio": { "bystander": per_cent("bystander"), "agent": per_cent("agent") },
        "ring": ring,
        "storm": plain,
        "storm_strict": strict,
        "resident_kib": resident()?,
    });
    println!("{}", serde_json::to_string_pretty(&report)?);
    Ok(())
}

/// One process in mode full, as fast as it goes, against a reader on another processor.
fn ring(bench: &Bench, opened: &mut Opened, id: u64) -> Result<Value> {
    const MS: u64 = 2000;
    opened.probes.add_agent(id, config(AuditMode::Full, false))?;
    let mut child = bench.spawn(true, &["flood", &MS.to_string()])?;
    let mut read = 0;
    let mut peak = 0;
    while child.try_wait()?.is_none() {
        peak = peak.max(opened.ring.pressure().percent());
        read += opened.ring.drain(&mut ignore)?.events;
        std::thread::sleep(Duration::from_millis(2));
    }
    read += opened.ring.drain(&mut ignore)?.events;
    let last = opened.probes.remove_agent(id)?.counters;
    Ok(json!({
        "bytes": Options::RING_BYTES,
        "events_per_s": last.events * 1000 / MS,
        "events": last.events,
        "read": read,
        "dropped": last.dropped,
        "peak_percent": peak,
    }))
}

/// 10,000 fork+exec by a shell: three records each.
fn storm(bench: &Bench, opened: &mut Opened, id: u64, strict: bool) -> Result<Value> {
    opened.probes.add_agent(id, config(AuditMode::Events, strict))?;
    let script = "i=0; while [ $i -lt 10000 ]; do /bin/true; i=$((i+1)); done";
    let begun = Instant::now();
    let mut child = Command::new("/bin/sh")
        .args(["-c", "echo $$ > \"$0\" && exec /bin/sh -c \"$1\""])
        .arg(bench.agent.join("cgroup.procs"))
        .arg(script)
        .spawn()?;
    let mut read = 0;
    let mut resumed = 0;
    let mut peak = 0;
    while child.try_wait()?.is_none() {
        peak = peak.max(opened.ring.pressure().percent());
        let drained = opened.ring.drain(&mut ignore)?;
        read += drained.events;
        resumed += drained.resumed;
        std::thread::sleep(DRAIN_EVERY);
    }
    let took = begun.elapsed();
    std::thread::sleep(Duration::from_millis(20));
    read += opened.ring.drain(&mut ignore)?.events;
    let last = opened.probes.remove_agent(id)?.counters;
    Ok(json!({
        "processes": 10_000,
        "expected": 30_002,
        "recorded": last.events,
        "read": read,
        "dropped": last.dropped,
        "throttled": last.throttled,
        "resumed": resumed,
        "peak_percent": peak,
        "seconds": took.as_secs_f64(),
    }))
}

fn resident() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.split_whitespace().next().ok_or("no VmRSS")?.parse()?)
}
