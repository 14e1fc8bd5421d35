//! Writing clients' files to the disk.
//!
//! The kernel writes later, and when that fails it takes the pages for written and tells of it once: each descriptor that
//! was open before (syncfs(2), since Linux 5.8). Nobody knows whose files it was. So one descriptor stays open, which
//! hears of every failure, and after one no snapshot of before can be committed any more.

use std::fs::File;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::error::Error;

pub(super) struct Flusher {
    /// That of the snapshots.
    directory: File,
    /// Snapshots with a lesser id may have lost files. Locked while the disk is written to, so a second waiter also sees the
    /// failure.
    lost_below: Mutex<u64>,
}

impl Flusher {
    pub(super) fn open(snapshots: &Path) -> Result<Self, Error> {
        let directory = File::open(snapshots).map_err(|e| Error::io("open", snapshots, e))?;
        Ok(Self { directory, lost_below: Mutex::new(0) })
    }

    /// Writes the whole file system: syncing every file by itself takes far longer.
    ///
    /// `id` and `path` are of the snapshot that it is done for. Snapshots that are made later have ids from `next_id` on.
    pub(super) fn flush(&self, id: u64, path: &Path, next_id: impl FnOnce() -> u64) -> Result<(), Error> {
        let mut lost_below = self.lost_below.lock().unwrap_or_else(PoisonError::into_inner);
        if id < *lost_below {
            return Err(Error::Unwritten(path.to_owned()));
        }
        nix::unistd::syncfs(&self.directory).map_err(|e| {
            *lost_below = next_id();
            Error::io("write to the disk", path, e.into())
        })
    }
}
