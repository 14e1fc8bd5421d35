//! The open store: its file, its transactions and its ids.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use redb::{Database, ReadableDatabase, ReadableTable, WriteTransaction};

use super::error::{Error, OpenError};
use super::file;
use super::ids::Ids;
use super::read::Reader;
use super::tables::META;
use crate::state::layout;
use crate::state::lock::{Lock, LockError};
use crate::state::reserved_space::ReservedSpace;

/// The open store. It locks its file: a second process that opens it is refused.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    database: RwLock<Opened>,
    ids: Ids,
    pub(super) reserved_space: ReservedSpace,
    _lock: Lock,
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
        root.join(layout::METADATA)
    }

    /// Opens the store in the state directory `root`, and makes it if it is not there.
    pub fn open(root: &Path) -> Result<Self, OpenError> {
        Self::open_locked(root, Self::lock(root)?)
    }

    /// Takes the lock of the state directory.
    pub(in crate::state) fn lock(root: &Path) -> Result<Lock, OpenError> {
        Lock::take(root).map_err(|error| match error {
            LockError::InUse => OpenError::InUse(Self::path(root)),
            LockError::Io(source) => OpenError::Io { path: root.to_owned(), source },
        })
    }

    /// As [`Store::open`], with the lock of the state directory.
    pub(in crate::state) fn open_locked(root: &Path, lock: Lock) -> Result<Self, OpenError> {
        let path = Self::path(root);
        let is_new = !OpenError::io(&path, path.try_exists())?;
        if is_new {
            // Made aside, so that a crash never leaves a file without its tables under the real name.
            let aside = root.join(layout::NEW_METADATA);
            OpenError::io(&aside, file::create(&aside))?;
            OpenError::io(&path, std::fs::rename(&aside, &path))?;
            OpenError::io(root, File::open(root).and_then(|dir| dir.sync_all()))?;
        }
        let reserved_space = ReservedSpace::new(root);
        let mut opened = file::open(&path);
        for room in [ReservedSpace::release, ReservedSpace::settle] {
            if opened.as_ref().is_err_and(OpenError::is_full) {
                room(&reserved_space);
                opened = file::open(&path);
            }
        }
        let file::Open { database, next_id } = opened?;
        let database = RwLock::new(Opened { database: Some(database), generation: 0 });
        let store = Self { path, database, ids: Ids::new(next_id), reserved_space, _lock: lock };
        store.refill();
        Ok(store)
    }

    /// Takes up the room again that removals on a full disk have used.
    pub fn refill(&self) {
        self.reserved_space.fill();
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

    pub(super) fn begin_write(&self) -> Result<WriteTransaction, Error> {
        self.begin(file::begin_write)
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
            opened.database = Some(file::open_again(&self.path).map_err(redb::Error::from)?);
            tracing::info!(path = %self.path.display(), "reopened the metadata store after an error");
        }
        match &opened.database {
            Some(database) => Ok(begin(database)?),
            None => Err(redb::Error::PreviousIo.into()),
        }
    }
}
