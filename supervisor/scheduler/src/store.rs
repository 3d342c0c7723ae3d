//! Where tasks lie: found by number in constant time, by id through a table of indices, walked in order of number.
//!
//! Memory grows in pieces of fixed size and the table of ids is split in many small ones, so that no single insert pays for moving a
//! million others.

use std::collections::{BTreeSet, VecDeque};
use std::hash::{BuildHasher, DefaultHasher, Hasher};
use std::ops::{Index, IndexMut};

use hashbrown::HashTable;

use crate::task::Task;

const CHUNK: usize = 1024;
const PAGE: usize = 256;
const SHARDS: usize = 256;
const NONE: u32 = u32::MAX;

/// A hash that depends on a secret seed, and on nothing else: ids come from clients.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keyed(pub(crate) u64);

impl BuildHasher for Keyed {
    type Hasher = DefaultHasher;
    fn build_hasher(&self) -> DefaultHasher {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.0);
        hasher
    }
}

impl Keyed {
    fn id(self, tenant: u32, id: &str) -> u64 {
        let mut hasher = self.build_hasher();
        hasher.write_u32(tenant);
        hasher.write(id.as_bytes());
        hasher.finish()
    }
}

#[derive(Debug)]
struct Page {
    count: u32,
    indices: [u32; PAGE],
}

#[derive(Debug)]
pub(crate) struct Tasks {
    chunks: Vec<Vec<Option<Task>>>,
    free: Vec<u32>,
    /// By number / PAGE, from `base` on.
    pages: VecDeque<Option<Box<Page>>>,
    base: u64,
    ids: Vec<HashTable<u32>>,
    seed: Keyed,
    len: usize,
}

fn at(chunks: &[Vec<Option<Task>>], index: u32) -> Option<&Task> {
    let index = index as usize;
    chunks.get(index / CHUNK)?.get(index % CHUNK)?.as_ref()
}

impl Tasks {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            chunks: Vec::new(),
            free: Vec::new(),
            pages: VecDeque::new(),
            base: 0,
            ids: (0..SHARDS).map(|_| HashTable::new()).collect(),
            seed: Keyed(seed),
            len: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    fn hash(&self, tenant: u32, id: &str) -> u64 {
        self.seed.id(tenant, id)
    }

    fn shard(hash: u64) -> usize {
        (hash >> 48) as usize % SHARDS
    }

    fn index_of(&self, number: u64) -> Option<u32> {
        let page = usize::try_from((number / PAGE as u64).checked_sub(self.base)?).ok()?;
        let index = self.pages.get(page)?.as_ref()?.indices[Self::within(number)];
        (index != NONE).then_some(index)
    }

    #[expect(clippy::cast_possible_truncation, reason = "a remainder below 256")]
    fn within(number: u64) -> usize {
        (number % PAGE as u64) as usize
    }

    pub(crate) fn get(&self, number: u64) -> Option<&Task> {
        at(&self.chunks, self.index_of(number)?)
    }

    pub(crate) fn get_mut(&mut self, number: u64) -> Option<&mut Task> {
        let index = self.index_of(number)? as usize;
        self.chunks[index / CHUNK][index % CHUNK].as_mut()
    }

    pub(crate) fn find(&self, tenant: u32, id: &str) -> Option<&Task> {
        let hash = self.hash(tenant, id);
        let same = |index: &u32| at(&self.chunks, *index).is_some_and(|t| t.tenant == tenant && &*t.id == id);
        at(&self.chunks, *self.ids[Self::shard(hash)].find(hash, same)?)
    }

    /// Room for so many, taken at once: for a restore.
    pub(crate) fn reserve(&mut self, count: usize) {
        let each = count / SHARDS + count / SHARDS / 8;
        for shard in &mut self.ids {
            shard.reserve(each, |_| 0);
        }
    }

    pub(crate) fn insert(&mut self, task: Task) {
        let hash = self.hash(task.tenant, &task.id);
        let number = task.number;
        let index = self.place(task);
        let page = number / PAGE as u64;
        if self.pages.is_empty() {
            self.base = page;
        }
        while page < self.base {
            self.pages.push_front(None);
            self.base -= 1;
        }
        let position = usize::try_from(page - self.base).unwrap_or(usize::MAX);
        while self.pages.len() <= position {
            self.pages.push_back(None);
        }
        let page =
            self.pages[position].get_or_insert_with(|| Box::new(Page { count: 0, indices: [NONE; PAGE] }));
        page.indices[Self::within(number)] = index;
        page.count += 1;
        self.len += 1;
        let (chunks, seed) = (&self.chunks, self.seed);
        let rehash = |index: &u32| at(chunks, *index).map_or(0, |task| seed.id(task.tenant, &task.id));
        self.ids[Self::shard(hash)].insert_unique(hash, index, rehash);
    }

    fn place(&mut self, task: Task) -> u32 {
        if let Some(index) = self.free.pop() {
            self.chunks[index as usize / CHUNK][index as usize % CHUNK] = Some(task);
            return index;
        }
        match self.chunks.last_mut() {
            Some(chunk) if chunk.len() < CHUNK => chunk.push(Some(task)),
            _ => {
                let mut chunk = Vec::with_capacity(CHUNK);
                chunk.push(Some(task));
                self.chunks.push(chunk);
            }
        }
        let last = self.chunks.last().map_or(0, Vec::len);
        u32::try_from((self.chunks.len() - 1) * CHUNK + last - 1).unwrap_or(NONE)
    }

    pub(crate) fn remove(&mut self, number: u64) -> Option<Task> {
        let index = self.index_of(number)?;
        let place = index as usize;
        let task = self.chunks[place / CHUNK][place % CHUNK].take()?;
        let hash = self.hash(task.tenant, &task.id);
        if let Ok(entry) = self.ids[Self::shard(hash)].find_entry(hash, |other| *other == index) {
            entry.remove();
        }
        let position = usize::try_from(number / PAGE as u64 - self.base).unwrap_or(usize::MAX);
        if let Some(slot) = self.pages.get_mut(position)
            && let Some(page) = slot.as_mut()
        {
            page.indices[Self::within(number)] = NONE;
            page.count -= 1;
            if page.count == 0 {
                *slot = None;
            }
        }
        while let Some(None) = self.pages.front() {
            self.pages.pop_front();
            self.base += 1;
        }
        self.free.push(index);
        self.len -= 1;
        Some(task)
    }

    /// In order of number.
    pub(crate) fn iter_from(&self, number: u64) -> impl Iterator<Item = &Task> + '_ {
        let first = usize::try_from((number / PAGE as u64).saturating_sub(self.base)).unwrap_or(usize::MAX);
        self.pages
            .iter()
            .skip(first)
            .flatten()
            .flat_map(|page| page.indices.iter())
            .filter(|index| **index != NONE)
            .filter_map(|index| at(&self.chunks, *index))
            .filter(move |task| task.number >= number)
    }
}

impl Index<u64> for Tasks {
    type Output = Task;
    fn index(&self, number: u64) -> &Task {
        match self.get(number) {
            Some(task) => task,
            None => unreachable!("task {number} is not in memory"),
        }
    }
}

impl IndexMut<u64> for Tasks {
    fn index_mut(&mut self, number: u64) -> &mut Task {
        match self.get_mut(number) {
            Some(task) => task,
            None => unreachable!("task {number} is not in memory"),
        }
    }
}

/// Few things with small stable ids. A new one takes the lowest that is free, so that ids depend on what is there and on nothing else.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    items: Vec<Option<T>>,
    free: BTreeSet<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { items: Vec::new(), free: BTreeSet::new() }
    }
}

impl<T> Slab<T> {
    pub(crate) fn next_id(&self) -> u32 {
        self.free.first().copied().unwrap_or_else(|| u32::try_from(self.items.len()).unwrap_or(u32::MAX))
    }

    pub(crate) fn put(&mut self, id: u32, item: T) {
        let place = id as usize;
        while self.items.len() <= place {
            self.free.insert(u32::try_from(self.items.len()).unwrap_or(u32::MAX));
            self.items.push(None);
        }
        self.free.remove(&id);
        self.items[place] = Some(item);
    }

    pub(crate) fn remove(&mut self, id: u32) -> Option<T> {
        let item = self.items.get_mut(id as usize)?.take()?;
        self.free.insert(id);
        // Trailing holes are given back, as a restore would not make them.
        while let Some(None) = self.items.last() {
            self.items.pop();
            self.free.remove(&u32::try_from(self.items.len()).unwrap_or(u32::MAX));
        }
        Some(item)
    }

    pub(crate) fn get(&self, id: u32) -> Option<&T> {
        self.items.get(id as usize)?.as_ref()
    }

    pub(crate) fn ids(&self) -> Vec<u32> {
        self.iter().map(|(id, _)| id).collect()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> + '_ {
        self.items.iter().zip(0u32..).filter_map(|(item, id)| Some((id, item.as_ref()?)))
    }
}

impl<T> Index<u32> for Slab<T> {
    type Output = T;
    fn index(&self, id: u32) -> &T {
        match self.get(id) {
            Some(item) => item,
            None => unreachable!("nothing has the id {id}"),
        }
    }
}

impl<T> IndexMut<u32> for Slab<T> {
    fn index_mut(&mut self, id: u32) -> &mut T {
        match self.items.get_mut(id as usize).and_then(Option::as_mut) {
            Some(item) => item,
            None => unreachable!("nothing has the id {id}"),
        }
    }
}
