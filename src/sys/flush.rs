//! Writing a file system to the disk, and knowing whose files were lost when that fails.
//!
//! The kernel writes later. When that fails it treats the pages as written, and reports the failure once to each
//! descriptor that was open before (syncfs(2), since Linux 5.8). Nobody knows whose files it was. So one descriptor, opened
//! before the first write, stays open and hears of every failure; after one, nothing that was begun before counts as
//! written any more.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use nix::unistd::syncfs;

/// Writes one file system.
pub(crate) struct Flusher {
    file_system: File,
    /// What has a lesser number may have lost files. Locked while the disk is written to, so a second waiter also sees the
    /// failure.
    lost_below: Mutex<u64>,
}

/// Files may not be on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FlushError {
    /// The disk failed now.
    Failed(Errno),
    /// The disk failed before, after this was begun.
    Lost,
}

impl Flusher {
    /// For the file system that a directory lies on. To be opened before anything is written.
    pub(crate) fn open(directory: &Path) -> io::Result<Self> {
        Ok(Self { file_system: File::open(directory)?, lost_below: Mutex::new(0) })
    }

    /// Writes the whole file system: syncing every file by itself takes far longer.
    ///
    /// `number`: of what it is done for. What is begun later has numbers from `next` on.
    pub(crate) fn flush(&self, number: u64, next: impl FnOnce() -> u64) -> Result<(), FlushError> {
        let mut lost_below = self.lost_below.lock().unwrap_or_else(PoisonError::into_inner);
        if number < *lost_below {
            return Err(FlushError::Lost);
        }
        syncfs(&self.file_system).map_err(|errno| {
            *lost_below = next();
            FlushError::Failed(errno)
        })
    }
}

/// Closes a file that was written, with a check: file systems that write at the end (NFS, many on FUSE) fail only now.
///
/// `sync`: whether it has to be on the disk then.
pub(crate) fn close_written(file: File, sync: bool) -> io::Result<()> {
    if sync {
        file.sync_all()?;
    }
    Ok(nix::unistd::close(file)?)
}
