//! The errors of the store.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::kind::Kind;
use crate::state::recovery::{COPY, way_back};
use crate::sys::disk_error::remedy;

/// The store could not be opened. Its records are as they were; redb may have written to the header of the file.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file operation failed.
    #[error("{path}: {source}{}", remedy(.source))]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// Another process has it open.
    #[error(
        "{0} is in use by another process: only one cvmfs-snapshotter can work on a state directory; stop the other one, or choose another --root"
    )]
    InUse(PathBuf),
    /// Written by a newer version.
    #[error(
        "{path} has format {found}, this version knows format {known} only: it was written by a newer version of cvmfs-snapshotter; install that version again"
    )]
    Format {
        /// The file.
        path: PathBuf,
        /// The format in the file.
        found: u64,
        /// The newest format that this version reads.
        known: u64,
    },
    /// The content makes no sense.
    #[error(
        "{path} cannot be read: {source}; the file is damaged and was left as it is. {} {}", COPY, way_back(.path.parent().unwrap_or(.path))
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: Box<redb::Error>,
    },
}

impl OpenError {
    pub(super) fn io<T>(path: &Path, result: std::io::Result<T>) -> Result<T, Self> {
        result.map_err(|source| Self::Io { path: path.to_owned(), source })
    }

    /// Whether the disk is full.
    pub(super) fn is_full(&self) -> bool {
        matches!(self, Self::Io { source, .. } if is_full(source))
    }

    pub(super) fn from_redb(path: &Path, error: redb::Error) -> Self {
        let path = path.to_owned();
        match error {
            redb::Error::DatabaseAlreadyOpen => Self::InUse(path),
            // An empty file, or one that does not begin as a store does, is as damaged as any.
            redb::Error::Io(source) if !matches!(source.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof) => {
                Self::Io { path, source }
            }
            other => Self::Unreadable { path, source: Box::new(other) },
        }
    }
}

/// A request could not be carried out; nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no snapshot of this key or name.
    #[error("snapshot {0:?} does not exist")]
    NotFound(String),
    /// The key or name is taken.
    #[error("snapshot {0:?} exists already")]
    Exists(String),
    /// The parent is not there.
    #[error("parent snapshot {0:?} does not exist")]
    ParentNotFound(String),
    /// The parent is not committed.
    #[error("parent snapshot {0:?} is not committed")]
    ParentNotCommitted(String),
    /// Only an active snapshot will do.
    #[error("snapshot {name:?} is {kind}, not active")]
    NotActive {
        /// The snapshot.
        name: String,
        /// What it is.
        kind: Kind,
    },
    /// Other snapshots stand on it.
    #[error("cannot remove snapshot {0:?}: it is the parent of other snapshots, remove those first")]
    HasChildren(String),
    /// The labels after an update are too large.
    #[error(transparent)]
    Labels(#[from] crate::containerd::label::TooLarge),
    /// A record cannot be decoded, or an index points to nothing.
    #[error("the metadata store is damaged at {0:?}; restart the snapshotter: its log names the recovery steps")]
    Damaged(String),
    /// The database failed.
    #[error("the metadata store (metadata.redb in the state directory) failed: {0}{remedy}", remedy = io_of(.0).map_or("", remedy))]
    Database(Box<redb::Error>),
}

impl Error {
    /// Whether it is not known if the change is on the disk.
    pub fn is_uncertain(&self) -> bool {
        matches!(self, Self::Database(_))
    }

    /// Whether the disk is full.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Database(error) if io_of(error).is_some_and(is_full))
    }
}

fn io_of(error: &redb::Error) -> Option<&std::io::Error> {
    if let redb::Error::Io(error) = error { Some(error) } else { None }
}

/// Whether a disk, or what somebody may use of it, is full.
fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

/// The database's errors come in one type a call; each becomes [`Error::Database`].
macro_rules! from_redb {
    ($($source:ty),*) => {$(
        impl From<$source> for Error {
            fn from(error: $source) -> Self {
                Self::Database(Box::new(error.into()))
            }
        }
    )*};
}
from_redb!(redb::Error, redb::StorageError, redb::TableError, redb::TransactionError, redb::CommitError);
