//! The version of everything on disk, and the way from older ones to it.

use rocksdb::DB;

use crate::db;
use crate::error::Error;
use crate::keys::{self, META, META_SCHEMA};

/// What this build writes. A journal written by a newer one is refused.
pub const SCHEMA_VERSION: u64 = STEPS.len() as u64 + 1;

/// One step: changes everything from the version of its place in the list to the next. It is run again after a crash,
/// so it must not mind what it finds done.
type Step = fn(&DB) -> Result<(), Error>;

/// The first leads from version 1 to 2.
const STEPS: [Step; 0] = [];

/// Brings the database to [`SCHEMA_VERSION`].
pub(crate) fn migrate(db: &DB) -> Result<(), Error> {
    migrate_with(db, &STEPS)
}

fn migrate_with(db: &DB, steps: &[Step]) -> Result<(), Error> {
    let meta = db::handle(db, META)?;
    let supported = steps.len() as u64 + 1;
    let found = match db.get_cf(meta, META_SCHEMA).map_err(Error::Database)? {
        None => return put(db, supported),
        Some(bytes) => keys::number(&bytes)
            .filter(|&found| found > 0)
            .ok_or_else(|| Error::Corrupt { family: META, detail: "no schema version".to_owned() })?,
    };
    if found > supported {
        return Err(Error::SchemaTooNew { found, supported });
    }
    for (version, step) in (1u64..).zip(steps).filter(|(version, _)| *version >= found) {
        tracing::info!(from = version, "migrating the journal");
        step(db)?;
        put(db, version + 1)?;
    }
    Ok(())
}

fn put(db: &DB, version: u64) -> Result<(), Error> {
    let mut write = rocksdb::WriteOptions::default();
    write.set_sync(true);
    db.put_cf_opt(db::handle(db, META)?, META_SCHEMA, version.to_be_bytes(), &write).map_err(Error::Database)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(db: &DB) -> Result<(), Error> {
        let meta = db::handle(db, META)?;
        let done = db.get_cf(meta, "done").map_err(Error::Database)?.unwrap_or_default();
        db.put_cf(meta, "done", [done, vec![b'x']].concat()).map_err(Error::Database)
    }

    #[test]
    fn an_old_one_goes_through_each_step_once_and_a_newer_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let db = db::open(dir.path(), &crate::Options::default()).unwrap();
        migrate_with(&db, &[]).unwrap();
        migrate_with(&db, &[mark, mark]).unwrap();
        migrate_with(&db, &[mark, mark]).unwrap();
        migrate_with(&db, &[mark, mark, mark]).unwrap();
        assert_eq!(db.get_cf(db::handle(&db, META).unwrap(), "done").unwrap().unwrap(), b"xxx");
        assert!(matches!(migrate_with(&db, &[mark]), Err(Error::SchemaTooNew { found: 4, supported: 2 })));
    }
}
