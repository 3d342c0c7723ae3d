//! Reading tasks that have ended.

use crate::batch::EndedTask;
use crate::error::Error;
use crate::format;
use crate::journal::Journal;
use crate::keys::{self, ENDED};

/// Ended tasks, the latest first.
#[derive(Debug, Default)]
pub struct EndedPage {
    /// The tasks.
    pub tasks: Vec<EndedTask>,
    /// There are more.
    pub more: bool,
}

impl Journal {
    /// One row of an ended task, under the key that it had.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn ended_row(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        self.get(ENDED, &keys::ended_row(key))
    }

    /// Visits rows of ended tasks whose keys begin with `prefix`, from the key `from` on, until `visit` says false.
    ///
    /// # Errors
    /// When the rows cannot be read, or what `visit` says.
    pub fn ended_rows<E: From<Error>>(
        &self,
        prefix: &[u8],
        from: &[u8],
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<bool, E>,
    ) -> Result<(), E> {
        self.scan(ENDED, &keys::ended_row(from.max(prefix)), |key, value| {
            match key.strip_prefix(&[keys::ENDED_ROW]).filter(|key| key.starts_with(prefix)) {
                Some(key) => visit(key, value),
                None => Ok(false),
            }
        })
    }

    /// Tasks that ended before one of another page, or before now: the latest first.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn ended_before(&self, before: Option<&EndedTask>, limit: usize) -> Result<EndedPage, Error> {
        let from = before
            .map_or(keys::ended_at(u64::MAX, u64::MAX), |task| keys::ended_at(task.ended_ms, task.task));
        let mut page = EndedPage::default();
        self.iterate(ENDED, rocksdb::ReadOptions::default(), |iter| {
            iter.seek_for_prev(from);
            if before.is_some() && iter.key() == Some(&from) {
                iter.prev();
            }
            while let (Some(key), Some(value)) = (iter.key(), iter.value()) {
                let Some((ended_ms, task)) = keys::ended_at_parts(key) else { break };
                if page.tasks.len() >= limit {
                    page.more = true;
                    break;
                }
                let last_event = format::ended_entry(value)?.last_event;
                page.tasks.push(EndedTask { task, ended_ms, last_event });
                iter.prev();
            }
            Ok::<_, Error>(())
        })?;
        Ok(page)
    }
}
