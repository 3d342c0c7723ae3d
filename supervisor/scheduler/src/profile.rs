//! How much of something is taken, over time: what runs until it is thought to end, and what is promised from then to then.
//!
//! A sorted list of steps (time, change), in buckets that know their sum and their highest point, so that a change touches one
//! bucket and a question about a stretch of time mostly skips over whole ones.

const FULL: usize = 128;

/// Something taken from one time up to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) amount: i64,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Bucket {
    /// (time, change), one for a time.
    steps: Vec<(u64, i64)>,
    sum: i64,
    /// The highest sum after one of its steps, counted from its beginning.
    most: i64,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Profile {
    buckets: Vec<Bucket>,
}

impl Bucket {
    fn count(&mut self) {
        self.sum = 0;
        self.most = i64::MIN;
        for (_, change) in &self.steps {
            self.sum += change;
            self.most = self.most.max(self.sum);
        }
    }

    fn first(&self) -> u64 {
        self.steps.first().map_or(0, |step| step.0)
    }

    fn last(&self) -> u64 {
        self.steps.last().map_or(0, |step| step.0)
    }
}

impl Profile {
    pub(crate) fn add(&mut self, taken: Taken) {
        if taken.from < taken.to {
            self.step(taken.from, taken.amount);
            self.step(taken.to, -taken.amount);
        }
    }

    fn step(&mut self, time: u64, change: i64) {
        let mut at = self.buckets.partition_point(|bucket| bucket.last() < time);
        if at == self.buckets.len() {
            match at.checked_sub(1) {
                Some(last) => at = last,
                None => self.buckets.push(Bucket::default()),
            }
        }
        let bucket = &mut self.buckets[at];
        match bucket.steps.binary_search_by_key(&time, |step| step.0) {
            Ok(place) => {
                bucket.steps[place].1 += change;
                if bucket.steps[place].1 == 0 {
                    bucket.steps.remove(place);
                }
            }
            Err(place) => bucket.steps.insert(place, (time, change)),
        }
        if bucket.steps.is_empty() {
            self.buckets.remove(at);
            return;
        }
        if bucket.steps.len() > FULL {
            let mut upper = Bucket { steps: bucket.steps.split_off(FULL / 2), ..Bucket::default() };
            upper.count();
            bucket.count();
            self.buckets.insert(at + 1, upper);
        } else {
            bucket.count();
        }
    }

    /// (time, change), in order.
    pub(crate) fn steps(&self) -> impl Iterator<Item = (u64, i64)> + '_ {
        self.buckets.iter().flat_map(|bucket| bucket.steps.iter().copied())
    }

    /// The most that is taken at any time of `from..to`.
    pub(crate) fn most(&self, from: u64, to: u64) -> i64 {
        let mut sum = 0;
        let mut most: Option<i64> = None;
        let higher = |most: Option<i64>, value: i64| Some(most.map_or(value, |most| most.max(value)));
        'all: for bucket in &self.buckets {
            if bucket.last() <= from {
                sum += bucket.sum;
                continue;
            }
            if bucket.first() > from && bucket.last() < to {
                most = higher(most, sum + bucket.most.max(0));
                sum += bucket.sum;
                continue;
            }
            for (time, change) in &bucket.steps {
                if *time > from {
                    most = higher(most, sum);
                }
                if *time >= to {
                    break 'all;
                }
                sum += change;
            }
        }
        // The last step, or none at all, lies before the end.
        if most.is_none() || self.buckets.last().is_some_and(|bucket| bucket.last() < to) {
            most = higher(most, sum);
        }
        most.unwrap_or(0)
    }

    /// As [`Profile::most`], were some things not taken.
    pub(crate) fn most_but(&self, from: u64, to: u64, but: &[Taken]) -> i64 {
        let mut cuts: Vec<u64> = but.iter().flat_map(|taken| [taken.from, taken.to]).collect();
        cuts.retain(|at| *at > from && *at < to);
        cuts.extend([from, to]);
        cuts.sort_unstable();
        cuts.dedup();
        let pieces = cuts.windows(2).map(|piece| {
            let away = but.iter().filter(|taken| taken.from <= piece[0] && taken.to >= piece[1]);
            self.most(piece[0], piece[1]) - away.map(|taken| taken.amount).sum::<i64>()
        });
        pieces.max().unwrap_or(0)
    }

    /// The latest start of a stretch of this length within `from..to` in which no more than `room` is taken.
    pub(crate) fn latest(&self, from: u64, to: u64, length: u64, room: i64) -> Option<u64> {
        let mut found = None;
        self.stretches(from, to, room, |begin, end| {
            if end - begin >= length {
                found = Some(end - length);
            }
            true
        });
        found
    }

    /// The earliest start of such a stretch, from `from` on.
    pub(crate) fn earliest(&self, from: u64, length: u64, room: i64) -> Option<u64> {
        let mut found = None;
        self.stretches(from, u64::MAX, room, |begin, end| {
            if end - begin >= length {
                found = Some(begin);
            }
            found.is_none()
        });
        found
    }

    /// Tells every stretch of `from..to` in which no more than `room` is taken, in order, as long as it is wanted.
    fn stretches(&self, from: u64, to: u64, room: i64, mut tell: impl FnMut(u64, u64) -> bool) {
        let mut sum = 0;
        let mut begin = Some(from);
        for bucket in &self.buckets {
            let calm = begin.is_some() && sum + bucket.most <= room;
            if bucket.last() <= from || (calm && bucket.last() < to) {
                // What lies before has been added up before the first step after it is looked at.
                sum += bucket.sum;
                if bucket.last() <= from {
                    begin = (sum <= room).then_some(from);
                }
                continue;
            }
            for (time, change) in &bucket.steps {
                if *time >= to {
                    break;
                }
                sum += change;
                let at = (*time).max(from);
                match begin {
                    Some(start) if sum > room => {
                        begin = None;
                        if start < at && !tell(start, at) {
                            return;
                        }
                    }
                    None if sum <= room => begin = Some(at),
                    _ => {}
                }
            }
            if bucket.last() >= to {
                break;
            }
        }
        if let Some(start) = begin.filter(|start| *start < to) {
            tell(start, to);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_is_what_counting_every_moment_gives(
            changes in proptest::collection::vec((any::<bool>(), 0u64..600, 1u64..60, 1i64..4), 1..500),
            questions in proptest::collection::vec((0u64..700, 1u64..300, 1u64..80, 0i64..12), 20),
        ) {
            let mut profile = Profile::default();
            let mut all: Vec<Taken> = Vec::new();
            for (add, from, length, amount) in changes {
                if add || all.is_empty() {
                    let taken = Taken { from, to: from + length, amount };
                    profile.add(taken);
                    all.push(taken);
                } else {
                    let place = usize::try_from(from).unwrap() % all.len();
                    let taken = all.swap_remove(place);
                    profile.add(Taken { amount: -taken.amount, ..taken });
                }
            }
            let count = |at: u64, all: &[Taken]| -> i64 {
                all.iter().filter(|t| t.from <= at && at < t.to).map(|t| t.amount).sum()
            };
            for (from, span, length, room) in questions {
                let to = from + span;
                let most = (from..to).map(|at| count(at, &all)).max().unwrap();
                prop_assert_eq!(profile.most(from, to), most);
                let some: Vec<Taken> = all.iter().take(3).copied().collect();
                let but = (from..to).map(|at| count(at, &all) - count(at, &some)).max().unwrap();
                prop_assert_eq!(profile.most_but(from, to, &some), but);
                let fits = |start: u64| (start..start + length).all(|at| count(at, &all) <= room);
                let latest = (from..=to.saturating_sub(length)).rev().find(|start| to >= length && fits(*start));
                prop_assert_eq!(profile.latest(from, to, length, room), latest);
                prop_assert_eq!(profile.earliest(from, length, room), (from..2000).find(|start| fits(*start)));
            }
            for taken in all {
                profile.add(Taken { amount: -taken.amount, ..taken });
            }
            prop_assert_eq!(profile, Profile::default());
        }
    }
}
