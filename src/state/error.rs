//! Why a state directory cannot be used.

use std::path::PathBuf;

use super::recovery::{COPY, way_back};
use super::{directories, metadata};

/// Nothing was changed, but for a new format of the store.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The store cannot be opened.
    #[error(transparent)]
    Metadata(#[from] metadata::OpenError),
    /// The directories cannot be used.
    #[error(transparent)]
    Directories(#[from] directories::Error),
    /// There are snapshots and no store.
    #[error(
        "{store} is missing, but {root}/snapshots has snapshot directories that only it describes; nothing was changed. {} {}", COPY, way_back(.root)
    )]
    StoreLost {
        /// The file of the store.
        store: PathBuf,
        /// The state directory.
        root: PathBuf,
    },
    /// There are snapshots that the store has never heard of.
    #[error(
        "{store} does not know the snapshot in {directory}, which was made after it: it is an older copy, and with it everything newer would be deleted; no snapshot was changed. Put the newest file back in its place. If it is lost: {}", way_back(.root)
    )]
    StoreOld {
        /// The file of the store.
        store: PathBuf,
        /// The directory of the newest snapshot.
        directory: PathBuf,
        /// The state directory.
        root: PathBuf,
    },
}

impl OpenError {
    /// Whether trying again cannot help: an operator has to act.
    pub fn needs_an_operator(&self) -> bool {
        match self {
            Self::Directories(error) => matches!(error, directories::Error::Open { .. }),
            Self::Metadata(error) => {
                matches!(error, metadata::OpenError::Format { .. } | metadata::OpenError::Unreadable { .. })
            }
            Self::StoreLost { .. } | Self::StoreOld { .. } => true,
        }
    }
}
