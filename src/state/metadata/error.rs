//! What can go wrong in the store.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::Kind;
use crate::remedy::remedy;

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

/// How a copy of the store helps.
pub const COPY: &str = "If nothing was pulled, run or removed since a copy of the file was made, put that copy in its place and start again. Otherwise:";

/// How to go on without a store, step by step.
///
/// containerd keeps a record of its own of every snapshot, and does not ask for one again that it believes to be there:
/// with a new store alone every pull of an image that it had fails with "already exists".
pub fn way_back(root: &Path) -> String {
    // Without a slash at its end.
    let root = root.components().collect::<PathBuf>();
    let root = root.display();
    format!(
        "(1) stop kubelet, if there is one; \
         (2) `mv --no-target-directory '{root}' '{root}.lost'`: what containers have written is in {root}.lost/snapshots/*/fs then; \
         (3) start the snapshotter, which begins anew; \
         (4) have containerd forget the containers and images that used it, in each namespace of `nerdctl namespace ls` but k8s.io and moby \
         (with --namespace, which is default otherwise): \
         `nerdctl ps --all --quiet | xargs --no-run-if-empty nerdctl rm --force`, then \
         `nerdctl images --quiet | sort --unique | xargs --no-run-if-empty nerdctl rmi --force`. \
         These remove those of other snapshotters, too: where there are such, name yours one by one (ctr containers info tells the Snapshotter of each); \
         (5) on a node of Kubernetes, which is drained best before that: `crictl rmp --force --all`, then `crictl rmi --all`, and start kubelet; \
         (6) pull them again; \
         (7) when nothing is missed: `rm --recursive --one-file-system '{root}.lost'`"
    )
}

impl OpenError {
    pub(super) fn io<T>(path: &Path, result: std::io::Result<T>) -> Result<T, Self> {
        result.map_err(|source| Self::Io { path: path.to_owned(), source })
    }

    pub(super) fn from_redb(path: &Path, error: redb::DatabaseError) -> Self {
        let path = path.to_owned();
        match error {
            redb::DatabaseError::DatabaseAlreadyOpen => Self::InUse(path),
            // An empty file, or one that does not begin as a store does, is as damaged as any.
            redb::DatabaseError::Storage(redb::StorageError::Io(source))
                if !matches!(source.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof) =>
            {
                Self::Io { path, source }
            }
            other => Self::Unreadable { path, source: Box::new(other.into()) },
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
    Labels(#[from] crate::label::TooLarge),
    /// A record cannot be decoded, or an index points to nothing.
    #[error("the metadata store is damaged at {0:?}; stop the snapshotter and look at what it says at the next start")]
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
pub(super) fn is_full(error: &std::io::Error) -> bool {
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
