//! Sequences: one event after another, all with the same key, the whole within the window.

use std::collections::VecDeque;

use crate::event::Event;
use crate::rule::Step;
use crate::window::Reached;

/// Beginnings that are remembered; the oldest goes for another.
pub(crate) const BEGINNINGS: usize = 64;

#[derive(Debug, Clone, Copy)]
struct Begun {
    key: u64,
    next: usize,
    first_ns: u64,
    first_seq: u64,
}

/// What has begun, of one agent.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sequences {
    begun: VecDeque<Begun>,
}

impl Sequences {
    pub(crate) fn add(
        &mut self,
        steps: &[Step],
        span_ns: u64,
        now_ns: u64,
        event: &Event<'_>,
    ) -> Option<Reached> {
        self.begun.retain(|begun| begun.first_ns.saturating_add(span_ns) > now_ns);
        let key =
            |step: &Step| step.key.as_deref().map_or(0, |field| crate::engine::hash([&*event.text(field)]));
        let mut done = None;
        for begun in &mut self.begun {
            let Some(step) = steps.get(begun.next) else { continue };
            if step.of.matches(event) && key(step) == begun.key {
                begun.next += 1;
                if begun.next == steps.len() {
                    done = Some((begun.first_ns, begun.first_seq));
                }
            }
        }
        if let Some((first_ns, first_seq)) = done {
            self.begun.retain(|begun| begun.next < steps.len());
            let value = u64::try_from(steps.len()).unwrap_or(u64::MAX);
            return Some(Reached { value, first_ns, first_seq });
        }
        if let Some(first) = steps.first()
            && first.of.matches(event)
        {
            let new = Begun { key: key(first), next: 1, first_ns: now_ns, first_seq: event.seq };
            match self.begun.iter_mut().find(|begun| begun.next == 1 && begun.key == new.key) {
                Some(same) => *same = new,
                None => {
                    if self.begun.len() >= BEGINNINGS {
                        self.begun.pop_front();
                    }
                    self.begun.push_back(new);
                }
            }
        }
        None
    }
}
