//! The errors of the local disk.

use std::io;
use std::path::{Path, PathBuf};

use crate::sys::disk_error::remedy;

/// A directory of a snapshot could not be made, read or removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A call failed.
    #[error("cannot {what} {path}: {source}{}", remedy(.source))]
    Io {
        /// What was to be done.
        what: &'static str,
        /// To what.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The state directory can be entered by others.
    #[error(
        "{path} has mode {mode:04o}: others can reach set-uid files of images in it; run `chmod 700 {path}` and start again"
    )]
    Open {
        /// The directory.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The files of a local snapshot are gone.
    #[error(
        "the files of the snapshot are missing: there is no directory {0}; it was removed by something else; remove the container or image that uses it, and pull again"
    )]
    Lost(PathBuf),
    /// The kernel could not write everything to the disk after this snapshot was made.
    #[error(
        "the disk failed since {0} was made, and may have lost some of its files; remove the snapshot (pull its image again), and look at the kernel's log (`dmesg`)"
    )]
    Unwritten(PathBuf),
    /// Something is mounted where a removed snapshot is.
    #[error("something is mounted on {0}: not deleted; unmount it")]
    Mounted(PathBuf),
}

impl Error {
    pub(super) fn io(what: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { what, path: path.to_owned(), source }
    }

    /// Whether the disk is full.
    pub fn is_full(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        matches!(self, Self::Io { source, .. } if matches!(source.kind(), StorageFull | QuotaExceeded))
    }
}
