//! The metadata of all snapshots, in one redb file.
//!
//! ```text
//! <root>/metadata.redb
//!   meta       name -> number                     format version, first id that is not reserved yet
//!   snapshots  key or name -> record              see `record`
//!   names      id -> key or name
//!   children   (id of the parent or 0, id)
//!   targets    (value of containerd.io/snapshot.ref, id)
//!   layers     (layer digest, id)                 remote snapshots only
//!   plans      layer digest -> marker plan        what hides the deleted files of a remote layer
//! ```
//!
//! **Durability.** Every mutation is one transaction, and is on the disk when the call returns. What is on the disk
//! outside this file follows it: directories are made before the transaction and removed after it.
//!
//! **Concurrency.** One writer at a time; readers see the last committed state and never wait. Checks that a mutation
//! depends on are made inside its transaction.
//!
//! **Ids.** An id names a directory, so no id is ever used twice: ids are reserved in blocks, durably, before the first
//! of the block is given out.
//!
//! **Damage.** Opening compares every page with its checksum, and refuses a file that something else has changed. Nothing
//! is ever rolled back to an older state: commits are in two phases, so that the newest is always whole.
//!
//! **Full disks.** A removal makes room and has to write first: `<root>/reserve` takes up the room for that, and is given
//! away when there is no other.
//!
//! **Format.** `meta.format` is 1. A file with a greater number is refused and left alone.

mod error;
mod ids;
mod read;
mod record;
mod reserve;
mod rows;
mod tables;
mod write;

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use redb::{Database, Durability, ReadableDatabase, ReadableTable, WriteTransaction};

pub use error::{COPY, Error, OpenError, way_back};
pub use read::{Lookup, Reader};
pub use record::{Content, Kind, Snapshot, Usage};
pub use rows::Rows;
pub use write::{Created, New, Removed, What};

use ids::Ids;
use reserve::Reserve;
use tables::{CHILDREN, LAYERS, META, NAMES, PLANS, SNAPSHOTS, TARGETS};

/// The format that this version writes.
const FORMAT: u64 = 1;

/// Bytes of the file that are kept in memory. The whole store of a busy node (1 000 snapshots) has about 2 MiB; redb's
/// default of 1 GiB would be the daemon's largest use of memory.
const CACHE_BYTES: usize = 32 * 1024 * 1024;

/// The marker plan of a layer as it is stored; the store does not look into it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPlan {
    /// What identifies the content that the plan was made of.
    pub identity: String,
    /// The encoded plan.
    pub bytes: Vec<u8>,
}

/// The open store. It locks its file: a second process that opens it is refused.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    database: RwLock<Opened>,
    ids: Ids,
    reserve: Reserve,
    _lock: Lock,
}

/// The state directory, locked: before the store is there, two that make it would each work on one of their own.
#[derive(Debug)]
struct Lock(File);

impl Lock {
    fn take(root: &Path, store: &Path) -> Result<Self, OpenError> {
        let directory = OpenError::io(root, File::open(root))?;
        match directory.try_lock() {
            Ok(()) => Ok(Self(directory)),
            Err(TryLockError::WouldBlock) => Err(OpenError::InUse(store.to_owned())),
            Err(TryLockError::Error(error)) => OpenError::io(root, Err(error)),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing it is not enough while a child that was just forked has it open, too.
        let _ = self.0.unlock();
    }
}

/// The open file. After a failed write redb refuses everything until the file is opened again.
#[derive(Debug)]
struct Opened {
    /// `None` if it could not be opened again yet.
    database: Option<Database>,
    /// Counts how often it was opened, so that of several requests that fail together one opens it.
    generation: u64,
}

impl Store {
    /// The file of the store in a state directory.
    pub fn path(root: &Path) -> PathBuf {
        root.join("metadata.redb")
    }

    /// Opens the store in the state directory `root`, and makes it if it is not there.
    pub fn open(root: &Path) -> Result<Self, OpenError> {
        let path = Self::path(root);
        let lock = Lock::take(root, &path)?;
        let is_new = !OpenError::io(&path, path.try_exists())?;
        if is_new {
            // Made aside, so that a crash never leaves a file without its tables under the real name.
            let aside = root.join("metadata.redb.new");
            OpenError::io(&aside, create(&aside))?;
            OpenError::io(&path, std::fs::rename(&aside, &path))?;
            OpenError::io(root, File::open(root).and_then(|dir| dir.sync_all()))?;
        }
        let reserve = Reserve::new(root);
        let mut opened = open(&path);
        for room in [Reserve::release, Reserve::settle] {
            if opened.as_ref().is_err_and(is_full) {
                room(&reserve);
                opened = open(&path);
            }
        }
        let database = opened.map_err(|source| OpenError::from_redb(&path, source))?;
        match number(&database, "format", 0)
            .map_err(|source| OpenError::Unreadable { path: path.clone(), source: source.into() })?
        {
            FORMAT => {}
            found => return Err(OpenError::Format { path, found, known: FORMAT }),
        }
        let next = number(&database, "next-id", 1)
            .map_err(|source| OpenError::Unreadable { path: path.clone(), source: source.into() })?;
        let database = RwLock::new(Opened { database: Some(database), generation: 0 });
        let store = Self { path, database, ids: Ids::new(next), reserve, _lock: lock };
        store.refill();
        Ok(store)
    }

    /// Takes up the room again that removals on a full disk have used.
    pub fn refill(&self) {
        self.reserve.fill();
    }

    /// A view of the store as it is now.
    pub fn read(&self) -> Result<Reader, Error> {
        Reader::new(self.begin(|database| Ok(database.begin_read()?))?)
    }

    /// An id that was never given out before and never will be again.
    pub fn new_id(&self) -> Result<u64, Error> {
        self.ids.next(|count| {
            let transaction = self.begin_write()?;
            let first = {
                let mut meta = transaction.open_table(META)?;
                let first = meta.get("next-id")?.map_or(1, |guard| guard.value());
                meta.insert("next-id", first + count)?;
                first
            };
            transaction.commit()?;
            Ok(first)
        })
    }

    /// An id that is greater than all that were ever given out, and that no later one is less than.
    pub fn skip_ids(&self) -> u64 {
        self.ids.skip()
    }

    fn begin_write(&self) -> Result<WriteTransaction, Error> {
        self.begin(begin_write)
    }

    /// Begins a transaction. If an earlier write failed (a full disk, a panic), the file is opened again first.
    fn begin<T>(&self, begin: impl Fn(&Database) -> Result<T, redb::Error>) -> Result<T, Error> {
        let generation = {
            let opened = self.database.read().unwrap_or_else(PoisonError::into_inner);
            match opened.database.as_ref().map(&begin) {
                // The latter is what redb says of its own state in memory: a damaged file is refused when it is opened.
                Some(Err(redb::Error::PreviousIo | redb::Error::Corrupted(_))) | None => opened.generation,
                Some(result) => return Ok(result?),
            }
        };
        let mut opened = self.database.write().unwrap_or_else(PoisonError::into_inner);
        if opened.generation == generation || opened.database.is_none() {
            // Closed before it is opened: it locks its file.
            opened.database = None;
            opened.generation += 1;
            opened.database = Some(open_again(&self.path).map_err(redb::Error::from)?);
            tracing::info!(path = %self.path.display(), "the metadata store was opened again after an error");
        }
        match &opened.database {
            Some(database) => Ok(begin(database)?),
            None => Err(redb::Error::PreviousIo.into()),
        }
    }
}

/// As [`open`], for a file that this process has opened before: its pages are not compared again, for which requests
/// would have to wait.
fn open_again(path: &Path) -> Result<Database, redb::DatabaseError> {
    Database::builder().set_cache_size(CACHE_BYTES).open(path)
}

/// Opens the file after comparing all of its pages with their checksums: of a file that something else has damaged redb
/// would give wrong answers otherwise, or panic. With 1 000 snapshots it takes a millisecond.
fn open(path: &Path) -> Result<Database, redb::DatabaseError> {
    Database::builder().set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true).open(path)
}

fn is_full(error: &redb::DatabaseError) -> bool {
    matches!(error, redb::DatabaseError::Storage(redb::StorageError::Io(error)) if error::is_full(error))
}

fn number(database: &Database, name: &str, default: u64) -> Result<u64, redb::Error> {
    let transaction = database.begin_read()?;
    let meta = transaction.open_table(META)?;
    Ok(meta.get(name)?.map_or(default, |guard| guard.value()))
}

fn begin_write(database: &Database) -> Result<WriteTransaction, redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    // After a crash the file is usable at once, instead of after a walk over all of it.
    transaction.set_quick_repair(true);
    Ok(transaction)
}

/// Makes the file with all its tables, so that readers always find them.
fn create(path: &Path) -> std::io::Result<()> {
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
        transaction.commit()?;
        Ok(())
    };
    tables().map_err(std::io::Error::other)?;
    file.sync_all()
}

#[cfg(test)]
mod tests;
