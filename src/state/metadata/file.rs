//! The file of the store: making it, opening it, and beginning to write to it.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use redb::{Database, Durability, ReadableDatabase, WriteTransaction};

use super::error::OpenError;
use super::migrate::migrate;
use super::tables::{CHILDREN, FORMAT, LAYERS, META, NAMES, PLANS, SHAPES, SNAPSHOTS, TARGETS};

/// Bytes of the file that are kept in memory. The whole store of a busy node (1 000 snapshots) has about 2 MiB; redb's
/// default of 1 GiB would be the daemon's largest use of memory.
const CACHE_BYTES: usize = 32 * 1024 * 1024;

/// A file that was opened.
pub(super) struct Open {
    pub database: Database,
    /// The first id that is not reserved.
    pub next_id: u64,
}

/// Opens the file after comparing all of its pages with their checksums: of a file that something else has damaged redb
/// would give wrong answers otherwise, or panic. With 1 000 snapshots it takes a millisecond.
pub(super) fn open(path: &Path) -> Result<Open, OpenError> {
    let builder = &mut Database::builder();
    let opened = builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true).open(path);
    let database = opened.map_err(|error| OpenError::from_redb(path, error.into()))?;
    let number = |name| number(&database, name).map_err(|error| OpenError::from_redb(path, error));
    match number("format")?.unwrap_or(0) {
        FORMAT => {}
        1 => {
            bring_up_to_date(&database).map_err(|error| OpenError::from_redb(path, error))?;
            tracing::info!(path = %path.display(), from = 1, to = FORMAT, "brought the metadata store to a new format");
        }
        found => return Err(OpenError::Format { path: path.to_owned(), found, known: FORMAT }),
    }
    let next_id = number("next-id")?.unwrap_or(1);
    Ok(Open { database, next_id })
}

fn bring_up_to_date(database: &Database) -> Result<(), redb::Error> {
    let transaction = begin_write(database)?;
    migrate(&transaction)?;
    Ok(transaction.commit()?)
}

/// As [`open`], for a file that this process has opened before: its pages are not compared again, for which requests
/// would have to wait.
pub(super) fn open_again(path: &Path) -> Result<Database, redb::DatabaseError> {
    Database::builder().set_cache_size(CACHE_BYTES).open(path)
}

fn number(database: &Database, name: &str) -> Result<Option<u64>, redb::Error> {
    let transaction = database.begin_read()?;
    let meta = transaction.open_table(META)?;
    Ok(meta.get(name)?.map(|guard| guard.value()))
}

pub(super) fn begin_write(database: &Database) -> Result<WriteTransaction, redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    // After a crash the file is usable at once, instead of after a walk over all of it.
    transaction.set_quick_repair(true);
    Ok(transaction)
}

/// Makes the file with all its tables, so that readers always find them.
pub(super) fn create(path: &Path) -> std::io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(path)?;
    let tables = || -> Result<(), redb::Error> {
        let database = Database::builder().create(path)?;
        let transaction = begin_write(&database)?;
        transaction.open_table(META)?.insert("format", FORMAT)?;
        transaction.open_table(SNAPSHOTS)?;
        transaction.open_table(NAMES)?;
        transaction.open_table(CHILDREN)?;
        transaction.open_table(TARGETS)?;
        transaction.open_table(LAYERS)?;
        transaction.open_table(PLANS)?;
        transaction.open_table(SHAPES)?;
        transaction.commit()?;
        Ok(())
    };
    tables().map_err(std::io::Error::other)?;
    file.sync_all()
}
