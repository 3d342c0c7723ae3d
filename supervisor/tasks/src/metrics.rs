//! Counters and gauges, as `queue` shows them and as Prometheus reads them. The engine feeds them once for each group.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aion_scheduler::{Class, Event, EventKind, QueueView, Rung, Scheduler};
use aion_types::ErrorCode;

use crate::clock::now_ms;

/// Seconds that rates and waits look back.
const WINDOW: u64 = 60;
/// Waits that are remembered.
const WAITS: usize = 4096;
/// Waits that are measured in one group: looking a task up costs more than counting it.
const SAMPLED: usize = 16;
/// Upper bounds of the histograms, in milliseconds.
const BOUNDS: [u64; 13] = [1, 2, 5, 10, 20, 50, 100, 250, 500, 1000, 5000, 30_000, 300_000];

#[derive(Debug, Clone, Copy, Default)]
struct Histogram {
    buckets: [u64; BOUNDS.len()],
    count: u64,
    sum_us: u64,
}

impl Histogram {
    fn add(&mut self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        for (bucket, bound) in self.buckets.iter_mut().zip(BOUNDS) {
            *bucket += u64::from(us <= bound * 1000);
        }
        self.count += 1;
        self.sum_us = self.sum_us.saturating_add(us);
    }

    fn write(&self, out: &mut String, name: &str, labels: &str) {
        let comma = if labels.is_empty() { "" } else { "," };
        #[expect(clippy::cast_precision_loss, reason = "seconds")]
        let seconds = |us: u64| us as f64 / 1e6;
        for (count, bound) in self.buckets.iter().zip(BOUNDS) {
            let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"{}\"}} {count}", seconds(bound * 1000));
        }
        let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {}", self.count);
        let braces = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        let _ = writeln!(out, "{name}_sum{braces} {}", seconds(self.sum_us));
        let _ = writeln!(out, "{name}_count{braces} {}", self.count);
    }
}

/// How a queue was at the end of a second.
#[derive(Debug, Clone, Copy, Default)]
struct Second {
    at: u64,
    submitted: [u64; 3],
    level: [u64; 3],
}

#[derive(Debug, Default)]
struct Counts {
    submitted: [u64; 3],
    succeeded: u64,
    failed: u64,
    cancelled: u64,
    expired: u64,
    retried: u64,
    lost: u64,
    checkpoints: u64,
    checkpoint_bytes: u64,
    preempted: BTreeMap<&'static str, u64>,
    preempted_of: [u64; 3],
    refused: BTreeMap<&'static str, u64>,
    waits: VecDeque<(u64, Class, u64)>,
    waited: [Histogram; 3],
    commits: Histogram,
    recoveries: u64,
    seconds: VecDeque<Second>,
    queues: Vec<QueueView>,
    slots: u32,
    quota_waits: u64,
}

/// What `queue` shows of the last minute.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Rates {
    pub(crate) submitted_per_s: f64,
    pub(crate) finished_per_s: f64,
    pub(crate) wait_p50_ms: Option<u64>,
    pub(crate) wait_p99_ms: Option<u64>,
    pub(crate) preemptions: u64,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Metrics(Mutex<Counts>);

const fn at(class: Class) -> usize {
    class as usize
}

impl Metrics {
    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn submitted(&self, class: Class) {
        self.lock().submitted[at(class)] += 1;
    }

    pub(crate) fn refused(&self, code: ErrorCode) {
        *self.lock().refused.entry(code.as_str()).or_default() += 1;
    }

    pub(crate) fn committed(&self, took: Duration) {
        self.lock().commits.add(took);
    }

    pub(crate) fn recovered(&self) {
        self.lock().recoveries += 1;
    }

    /// Takes in how it is now.
    pub(crate) fn looked(&self, core: &Scheduler) {
        gauges(&mut self.lock(), core);
    }

    pub(crate) fn restarted(&self, core: &Scheduler, now: u64) {
        let mut counts = self.lock();
        counts.seconds.clear();
        second(&mut counts, core, now);
    }

    /// Takes in a group that was applied.
    pub(crate) fn applied(&self, core: &Scheduler, events: &[Event], now: u64) {
        let mut counts = self.lock();
        let mut sampled = 0;
        for event in events {
            match &event.kind {
                EventKind::Dispatched { number: 1, .. } if sampled < SAMPLED => {
                    sampled += 1;
                    if let Some(task) = core.task_by_number(event.task) {
                        let wait = event.time.saturating_sub(task.submitted);
                        counts.waited[at(task.class)].add(Duration::from_millis(wait));
                        if counts.waits.len() >= WAITS {
                            counts.waits.pop_front();
                        }
                        counts.waits.push_back((event.time, task.class, wait));
                    }
                }
                EventKind::Preempted { rung, .. } => {
                    *counts.preempted.entry(Rung::as_str(*rung)).or_default() += 1;
                    if let Some(task) = core.task_by_number(event.task) {
                        counts.preempted_of[at(task.class)] += 1;
                    }
                }
                EventKind::Checkpointed { bytes, .. } => {
                    counts.checkpoints += 1;
                    counts.checkpoint_bytes = counts.checkpoint_bytes.saturating_add(*bytes);
                }
                EventKind::Succeeded => counts.succeeded += 1,
                EventKind::Failed { .. } => counts.failed += 1,
                EventKind::Cancelled { .. } => counts.cancelled += 1,
                EventKind::Expired => counts.expired += 1,
                EventKind::Retried { .. } => counts.retried += 1,
                EventKind::Lost { .. } => counts.lost += 1,
                _ => {}
            }
        }
        if counts.seconds.back().is_none_or(|last| now >= last.at + 1000) {
            second(&mut counts, core, now);
        }
    }

    /// Of the last minute; `level`: the tasks that wait or run now.
    pub(crate) fn rates(&self, class: Class, level: u64) -> Rates {
        let counts = self.lock();
        let now = now_ms();
        let since = now.saturating_sub(WINDOW * 1000);
        let mut waits: Vec<u64> = counts
            .waits
            .iter()
            .filter(|(time, of, _)| *of == class && *time >= since)
            .map(|(_, _, wait)| *wait)
            .collect();
        waits.sort_unstable();
        let quantile = |percent: usize| {
            waits.get((waits.len() * percent / 100).min(waits.len().wrapping_sub(1))).copied()
        };
        let mut rates = Rates {
            wait_p50_ms: quantile(50),
            wait_p99_ms: quantile(99),
            preemptions: counts.preempted_of[at(class)],
            ..Rates::default()
        };
        // How it was a minute ago is how it was when something happened last before that.
        let before = counts.seconds.iter().rev().find(|second| second.at <= since);
        if let Some(first) = before.or_else(|| counts.seconds.front())
            && now > first.at
        {
            let (i, ms) = (at(class), (now - first.at.max(since)).max(1000));
            let submitted = counts.submitted[i].saturating_sub(first.submitted[i]);
            let finished = (submitted + first.level[i]).saturating_sub(level);
            #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
            let per_second = |n: u64| n as f64 * 1000.0 / ms as f64;
            (rates.submitted_per_s, rates.finished_per_s) = (per_second(submitted), per_second(finished));
        }
        rates
    }

    /// The text that Prometheus reads. `waiting`: commands that wait for the engine.
    pub(crate) fn text(&self, waiting: usize, sessions: usize, jobs: usize) -> String {
        let counts = self.lock();
        let mut out = String::with_capacity(8 << 10);
        let head = |out: &mut String, name: &str, kind: &str, help: &str| {
            let _ = writeln!(out, "# HELP {name} {help}.\n# TYPE {name} {kind}");
        };
        let gauge = |out: &mut String, name: &str, help: &str, value: u64| {
            head(out, name, "gauge", help);
            let _ = writeln!(out, "{name} {value}");
        };
        let counter = |out: &mut String, name: &str, help: &str, value: u64| {
            head(out, name, "counter", help);
            let _ = writeln!(out, "{name} {value}");
        };
        head(&mut out, "aion_kernel_scheduler_queue_depth", "gauge", "Tasks that wait");
        for queue in &counts.queues {
            let _ = writeln!(
                out,
                "aion_kernel_scheduler_queue_depth{{queue=\"{}\"}} {}",
                queue.class.as_str(),
                queue.depth
            );
        }
        head(&mut out, "aion_kernel_scheduler_running", "gauge", "Tasks that run");
        for queue in &counts.queues {
            let _ = writeln!(
                out,
                "aion_kernel_scheduler_running{{queue=\"{}\"}} {}",
                queue.class.as_str(),
                queue.running
            );
        }
        let used = counts.queues.iter().map(|queue| queue.slots).sum();
        gauge(&mut out, "aion_kernel_scheduler_slots_used", "Slots in use", used);
        gauge(&mut out, "aion_kernel_scheduler_slots", "Slots of the node", counts.slots.into());
        gauge(
            &mut out,
            "aion_kernel_scheduler_quota_waits",
            "Tenants that a quota holds back",
            counts.quota_waits,
        );
        gauge(
            &mut out,
            "aion_kernel_scheduler_waiting_commands",
            "Requests that wait for the engine",
            waiting as u64,
        );
        gauge(
            &mut out,
            "aion_kernel_scheduler_attached_agents",
            "Service agents with an open stream",
            sessions as u64,
        );
        gauge(&mut out, "aion_kernel_scheduler_jobs", "Processes of attempts at jobs", jobs as u64);
        head(&mut out, "aion_kernel_scheduler_submitted_total", "counter", "Tasks that were taken");
        for class in Class::ALL {
            let n = counts.submitted[at(class)];
            let _ =
                writeln!(out, "aion_kernel_scheduler_submitted_total{{queue=\"{}\"}} {n}", class.as_str());
        }
        head(&mut out, "aion_kernel_scheduler_ended_total", "counter", "Tasks that ended");
        for (state, n) in [
            ("succeeded", counts.succeeded),
            ("failed", counts.failed),
            ("cancelled", counts.cancelled),
            ("expired", counts.expired),
        ] {
            let _ = writeln!(out, "aion_kernel_scheduler_ended_total{{state=\"{state}\"}} {n}");
        }
        counter(
            &mut out,
            "aion_kernel_scheduler_retried_total",
            "Attempts that failed and were followed by another",
            counts.retried,
        );
        counter(&mut out, "aion_kernel_scheduler_lost_total", "Attempts that were lost", counts.lost);
        let preempted: u64 = counts.preempted.values().sum();
        // The name is the contract's. It counts; as a counter it would have to end with _total.
        head(&mut out, "aion_kernel_preemption_count", "untyped", "Attempts that made room");
        let _ = writeln!(out, "aion_kernel_preemption_count {preempted}");
        head(&mut out, "aion_kernel_preemption_rung_total", "counter", "Attempts that made room, by how");
        for (rung, n) in &counts.preempted {
            let _ = writeln!(out, "aion_kernel_preemption_rung_total{{rung=\"{rung}\"}} {n}");
        }
        counter(
            &mut out,
            "aion_kernel_scheduler_checkpoints_total",
            "Checkpoints that were stored",
            counts.checkpoints,
        );
        counter(
            &mut out,
            "aion_kernel_scheduler_checkpoint_bytes_total",
            "Bytes of them",
            counts.checkpoint_bytes,
        );
        head(&mut out, "aion_kernel_scheduler_refused_total", "counter", "Commands that were refused");
        for (code, n) in &counts.refused {
            let _ = writeln!(out, "aion_kernel_scheduler_refused_total{{code=\"{code}\"}} {n}");
        }
        counter(
            &mut out,
            "aion_kernel_scheduler_recoveries_total",
            "Failed writes of the journal that were recovered from",
            counts.recoveries,
        );
        let name = "aion_kernel_scheduler_wait_seconds";
        head(&mut out, name, "histogram", "From submission to the first attempt, of a sample of tasks");
        for class in Class::ALL {
            counts.waited[at(class)].write(&mut out, name, &format!("queue=\"{}\"", class.as_str()));
        }
        let name = "aion_kernel_scheduler_commit_seconds";
        head(&mut out, name, "histogram", "From handing a group to the journal until it is on disk");
        counts.commits.write(&mut out, name, "");
        out
    }
}

fn second(counts: &mut Counts, core: &Scheduler, now: u64) {
    let queues = core.queues(None);
    let mut level = [0; 3];
    for queue in &queues {
        level[at(queue.class)] = queue.depth + queue.running;
    }
    let submitted = counts.submitted;
    counts.seconds.push_back(Second { at: now, submitted, level });
    // One from before the window stays, to compare with.
    while counts.seconds.get(1).is_some_and(|next| next.at + WINDOW * 1000 < now) {
        counts.seconds.pop_front();
    }
    gauges(counts, core);
}

fn gauges(counts: &mut Counts, core: &Scheduler) {
    counts.queues = core.queues(None);
    counts.slots = core.config().slots;
    counts.quota_waits = core.tenants().iter().filter(|tenant| tenant.limited_by.is_some()).count() as u64;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_names_what_it_must() {
        let metrics = Metrics::default();
        metrics.committed(Duration::from_millis(3));
        metrics.refused(ErrorCode::AttemptStale);
        let text = metrics.text(1, 2, 3);
        assert!(
            text.contains("# TYPE aion_kernel_preemption_count untyped\naion_kernel_preemption_count 0\n")
        );
        assert!(text.contains("aion_kernel_scheduler_refused_total{code=\"ATTEMPT_STALE\"} 1"));
        assert!(text.contains("aion_kernel_scheduler_commit_seconds_bucket{le=\"0.005\"} 1"));
        assert!(text.contains("aion_kernel_scheduler_commit_seconds_bucket{le=\"0.002\"} 0"));
    }
}
