//! Which agent has which slot. Rebuilt from the `AGENTS` map after a restart.

use std::collections::BTreeMap;

use aion_probe_types::layout::{Agent, MAX_AGENTS};

/// The agents, by cgroup id.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    agents: BTreeMap<u64, Agent>,
    free: Vec<u32>,
    next: u32,
}

impl Slots {
    pub(crate) fn new(agents: BTreeMap<u64, Agent>) -> Self {
        let used: std::collections::BTreeSet<u32> = agents.values().map(|agent| agent.slot).collect();
        let next = used.last().map_or(0, |last| last.saturating_add(1));
        let free = (0..next).filter(|slot| !used.contains(slot)).rev().collect();
        Self { agents, free, next }
    }

    pub(crate) fn get(&self, cgroup: u64) -> Option<Agent> {
        self.agents.get(&cgroup).copied()
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (u64, Agent)> + '_ {
        self.agents.iter().map(|(&cgroup, &agent)| (cgroup, agent))
    }

    /// Bits that any agent has.
    pub(crate) fn flags(&self) -> u32 {
        self.agents.values().fold(0, |all, agent| all | agent.flags)
    }

    /// A slot that nobody has; it stays free until [`Slots::insert`].
    pub(crate) fn vacant(&self) -> Option<u32> {
        self.free.last().copied().or((self.next < MAX_AGENTS).then_some(self.next))
    }

    pub(crate) fn insert(&mut self, cgroup: u64, agent: Agent) {
        if self.free.last() == Some(&agent.slot) {
            self.free.pop();
        } else if agent.slot == self.next {
            self.next += 1;
        }
        self.agents.insert(cgroup, agent);
    }

    pub(crate) fn remove(&mut self, cgroup: u64) {
        if let Some(agent) = self.agents.remove(&cgroup) {
            self.free.push(agent.slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_reused_and_survive_a_restart() {
        let mut slots = Slots::default();
        for cgroup in 10..14 {
            let slot = slots.vacant().unwrap();
            slots.insert(cgroup, Agent { slot, flags: 0 });
        }
        assert_eq!(slots.get(13).unwrap().slot, 3);
        slots.remove(11);
        assert_eq!(slots.vacant(), Some(1));
        let again = Slots::new(slots.agents.clone());
        assert_eq!(again.vacant(), Some(1));
        slots.insert(11, Agent { slot: 1, flags: 0 });
        assert_eq!(slots.vacant(), Some(4));
    }

    #[test]
    fn no_more_than_fit() {
        let agents =
            (0..u64::from(MAX_AGENTS)).zip(0..).map(|(c, slot)| (c, Agent { slot, flags: 0 })).collect();
        assert_eq!(Slots::new(agents).vacant(), None);
    }
}
