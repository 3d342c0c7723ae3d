//! Deadlines that were admitted: whether all of them can still be met, and by how much.
//!
//! With list scheduling on `m` slots a task starts at the latest when the work that runs and the work that is due before it, spread over
//! `m`, is done (Graham). So the promise to a task with deadline D and length e holds while `m(D - e) - W - R - m now >= 0`, where W is the work
//! that is due before it and R what is left of what runs. The least of `m(D - e) - W` over all is kept; now and R are common to all.
//! Tasks lie in buckets, so that a change touches one bucket and one number of each of the others.

const FULL: usize = 128;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Promise {
    pub(crate) deadline: u64,
    pub(crate) number: u64,
    /// Slots times length.
    pub(crate) work: u64,
    /// The latest time to start, with the margin.
    pub(crate) latest: u64,
    /// What is lost because a task of several slots waits for all of them: (slots - 1) times the time to its latest start.
    pub(crate) penalty: u64,
}

#[derive(Debug, Default)]
struct Bucket {
    items: Vec<Promise>,
    work: u64,
    /// The least of `m latest - penalty - (work before it in the bucket)`.
    least: i128,
}

#[derive(Debug, Default)]
pub(crate) struct Promises {
    buckets: Vec<Bucket>,
    slots: u64,
    least: Option<i128>,
}

impl Promises {
    pub(crate) fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    /// How many slots there are.
    pub(crate) fn resize(&mut self, slots: u64) {
        if self.slots != slots {
            self.slots = slots;
            for bucket in &mut self.buckets {
                Self::sum(bucket, slots);
            }
            self.find_least();
        }
    }

    fn sum(bucket: &mut Bucket, slots: u64) {
        bucket.work = 0;
        bucket.least = i128::MAX;
        for item in &bucket.items {
            let value = i128::from(slots) * i128::from(item.latest)
                - i128::from(item.penalty)
                - i128::from(bucket.work);
            bucket.least = bucket.least.min(value);
            bucket.work = bucket.work.saturating_add(item.work);
        }
    }

    fn find_least(&mut self) {
        let mut before: u64 = 0;
        self.least = None;
        for bucket in &self.buckets {
            let value = bucket.least - i128::from(before);
            self.least = Some(self.least.map_or(value, |least| least.min(value)));
            before = before.saturating_add(bucket.work);
        }
    }

    fn bucket_of(&self, item: &Promise) -> usize {
        self.buckets.partition_point(|bucket| bucket.items.last().is_some_and(|last| last < item))
    }

    pub(crate) fn insert(&mut self, item: Promise) {
        let mut at = self.bucket_of(&item);
        if at == self.buckets.len() {
            match at.checked_sub(1) {
                Some(last) => at = last,
                None => self.buckets.push(Bucket::default()),
            }
        }
        let slots = self.slots;
        let bucket = &mut self.buckets[at];
        let place = bucket.items.partition_point(|other| other < &item);
        bucket.items.insert(place, item);
        if bucket.items.len() > FULL {
            let mut upper = Bucket { items: bucket.items.split_off(FULL / 2), ..Bucket::default() };
            Self::sum(&mut upper, slots);
            Self::sum(bucket, slots);
            self.buckets.insert(at + 1, upper);
        } else {
            Self::sum(bucket, slots);
        }
        self.find_least();
    }

    pub(crate) fn remove(&mut self, item: &Promise) -> bool {
        let at = self.bucket_of(item);
        let slots = self.slots;
        let Some(bucket) = self.buckets.get_mut(at) else { return false };
        let Ok(place) = bucket.items.binary_search(item) else { return false };
        bucket.items.remove(place);
        if bucket.items.is_empty() {
            self.buckets.remove(at);
        } else {
            Self::sum(bucket, slots);
        }
        self.find_least();
        true
    }

    /// How much slot-time may be given to others before a promise breaks; none: no promise. `running` is what is left of what runs.
    pub(crate) fn slack(&self, now: u64, running: u64) -> Option<i128> {
        self.least.map(|least| least - i128::from(self.slots) * i128::from(now) - i128::from(running))
    }

    /// As [`Promises::slack`], of those alone that are due at this time or later.
    pub(crate) fn slack_after(&self, deadline: u64, now: u64, running: u64) -> Option<i128> {
        let mut before: u64 = 0;
        let mut least: Option<i128> = None;
        for bucket in &self.buckets {
            if bucket.items.first().is_some_and(|first| first.deadline >= deadline) {
                let value = bucket.least - i128::from(before);
                least = Some(least.map_or(value, |l| l.min(value)));
                before = before.saturating_add(bucket.work);
                continue;
            }
            for item in &bucket.items {
                if item.deadline >= deadline {
                    let value = self.value(item) - i128::from(before);
                    least = Some(least.map_or(value, |l| l.min(value)));
                }
                before = before.saturating_add(item.work);
            }
        }
        least.map(|least| least - i128::from(self.slots) * i128::from(now) - i128::from(running))
    }

    /// As [`Promises::slack`], of those alone that stand before this one: what it may take from them when it starts before they do.
    pub(crate) fn slack_before(&self, item: &Promise, now: u64, running: u64) -> Option<i128> {
        let mut before: u64 = 0;
        let mut least: Option<i128> = None;
        for bucket in &self.buckets {
            if bucket.items.last().is_some_and(|last| last < item) {
                let value = bucket.least - i128::from(before);
                least = Some(least.map_or(value, |l| l.min(value)));
                before = before.saturating_add(bucket.work);
                continue;
            }
            for other in bucket.items.iter().take_while(|other| *other < item) {
                let value = self.value(other) - i128::from(before);
                least = Some(least.map_or(value, |l| l.min(value)));
                before = before.saturating_add(other.work);
            }
            break;
        }
        least.map(|least| least - i128::from(self.slots) * i128::from(now) - i128::from(running))
    }

    fn value(&self, item: &Promise) -> i128 {
        i128::from(self.slots) * i128::from(item.latest) - i128::from(item.penalty)
    }

    /// All of it.
    pub(crate) fn total(&self) -> u64 {
        self.buckets.iter().fold(0, |sum, bucket| sum.saturating_add(bucket.work))
    }

    /// Work that is due before this time.
    pub(crate) fn due_before(&self, deadline: u64) -> u64 {
        let mut work: u64 = 0;
        for bucket in &self.buckets {
            if bucket.items.last().is_some_and(|last| last.deadline < deadline) {
                work = work.saturating_add(bucket.work);
                continue;
            }
            let due = bucket.items.iter().take_while(|item| item.deadline < deadline).map(|item| item.work);
            return due.fold(work, u64::saturating_add);
        }
        work
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_least_slack_is_that_of_all_one_by_one(
            changes in proptest::collection::vec((any::<bool>(), 0u64..5000, 1u64..50), 1..600),
            slots in 1u64..5,
        ) {
            let mut promises = Promises::default();
            promises.resize(slots);
            let mut model: Vec<Promise> = Vec::new();
            for (number, (add, deadline, work)) in changes.into_iter().enumerate() {
                if add || model.is_empty() {
                    let item = Promise { deadline, number: number as u64, work, latest: deadline.saturating_sub(work), penalty: 0 };
                    promises.insert(item);
                    model.push(item);
                    model.sort();
                } else {
                    let item = model.remove(usize::try_from(deadline).unwrap() % model.len());
                    prop_assert!(promises.remove(&item));
                }
                let mut before = 0;
                let mut least = None;
                for item in &model {
                    let value = i128::from(slots * item.latest) - i128::from(before);
                    least = Some(least.map_or(value, |l: i128| l.min(value)));
                    before += item.work;
                }
                prop_assert_eq!(promises.slack(0, 0), least);
            }
        }
    }
}
