//! Why a request was not carried out.

use crate::containerd::label::TooLarge as LabelsTooLarge;
use crate::in_place::{Rebase, Unavailable};
use crate::overlay::mount::TooLarge as StackTooLarge;
use crate::state::{directories, metadata};

/// A request was not carried out; what was there before is unchanged.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The metadata store refused or failed.
    #[error(transparent)]
    Metadata(#[from] metadata::Error),
    /// The local disk failed.
    #[error(transparent)]
    Directories(#[from] directories::Error),
    /// Too many labels.
    #[error(transparent)]
    Labels(#[from] LabelsTooLarge),
    /// An argument that makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// A snapshot that cannot be mounted.
    #[error("snapshot {0:?} is committed: only active snapshots and views can be mounted")]
    Committed(String),
    /// containerd unpacks layers without their parents.
    #[error(transparent)]
    Rebase(#[from] Rebase),
    /// A layer in a repository cannot be used now.
    #[error("{0}")]
    Unavailable(Box<Unavailable>),
    /// More layers than overlayfs takes.
    #[error("snapshot {name:?} has too many layers: {cause}; use an image with fewer layers")]
    TooLarge {
        /// The key that was asked for.
        name: String,
        /// What is too large.
        cause: StackTooLarge,
    },
}
