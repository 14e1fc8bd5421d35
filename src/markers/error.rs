//! Why the markers of a layer are not known, and the limits of what is looked at.

use std::path::PathBuf;
use std::time::Duration;

use nix::errno::Errno;

use crate::overlay::path::as_path;
use crate::repository::Fault;

/// The most bytes of names and attributes of the directories of a cover. Every deletion repeats all directories that it
/// lies in, each with its whole path.
pub(super) const MAX_DIRECTORY_BYTES: usize = 8 * 1024 * 1024;
/// The most markers of a layer that is used in place.
pub(super) const MAX_MARKERS: usize = 64 * 1024;
/// The most bytes of their paths.
pub(super) const MAX_MARKER_BYTES: usize = 8 * 1024 * 1024;

/// The most directories of a layer that wait to be listed.
pub(super) const MAX_PENDING: usize = 256 * 1024;
/// The most bytes of their paths.
pub(super) const MAX_PENDING_BYTES: usize = 64 * 1024 * 1024;

/// Why the markers of a layer are not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WalkError {
    /// A call failed.
    #[error("cannot look for deleted files at {path:?} in the layer: {}", .errno.desc())]
    Io {
        /// The path below the layer's root.
        path: PathBuf,
        /// The cause.
        errno: Errno,
    },
    /// The repository cannot be used.
    #[error("cannot look for deleted files: the repository {0}")]
    Repository(Fault),
    /// A name that no layer may have.
    #[error("{0:?} is not a valid whiteout")]
    InvalidMarker(PathBuf),
    /// More than is kept.
    #[error("it deletes more than {MAX_MARKERS} files of the layers below")]
    TooMany,
    /// More than is kept.
    #[error(
        "the directories that it deletes files from have more than {MAX_DIRECTORY_BYTES} bytes of names and attributes"
    )]
    TooLarge,
    /// More than is kept.
    #[error(
        "it has more than {MAX_PENDING} directories beside each other, or longer paths of them than {MAX_PENDING_BYTES} bytes"
    )]
    TooWide,
    /// Not finished yet; the walk goes on.
    #[error("its deleted files were not found within {:.1} s; the search continues, try again later", .0.as_secs_f32())]
    TimeOut(Duration),
    /// No thread could be started.
    #[error("cannot start a thread to look for deleted files: {}", .0.desc())]
    Thread(Errno),
    /// A bug.
    #[error("looking for its deleted files panicked; please report this, with the log")]
    Panicked,
}

impl WalkError {
    /// Its short name, which never changes: for metrics and scripts.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Io { .. } | Self::Thread(_) | Self::Panicked => "markers-failed",
            Self::Repository(fault) => fault.name(),
            Self::InvalidMarker(_) => "invalid-whiteout",
            Self::TooMany | Self::TooLarge | Self::TooWide => "too-many-deletions",
            Self::TimeOut(_) => "markers-slow",
        }
    }

    pub(super) fn io(path: &[u8], errno: Errno) -> Self {
        Self::Io { path: as_path(path).to_owned(), errno }
    }
}
