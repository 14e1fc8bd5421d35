//! The lock on the state directory: one daemon works on it.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;

/// The state directory is not ours.
#[derive(Debug)]
pub(super) enum LockError {
    /// Another process has the lock.
    InUse,
    /// A call failed.
    Io(io::Error),
}

/// The lock, taken before the store is looked at: two processes that make a new store would each work on one of their
/// own.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Lock {
    /// Takes the lock, or fails at once.
    pub(super) fn take(root: &Path) -> Result<Self, LockError> {
        let directory = File::open(root).map_err(LockError::Io)?;
        match directory.try_lock() {
            Ok(()) => Ok(Self(directory)),
            Err(TryLockError::WouldBlock) => Err(LockError::InUse),
            Err(TryLockError::Error(error)) => Err(LockError::Io(error)),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing it is not enough while a child that was just forked has it open, too.
        let _ = self.0.unlock();
    }
}
