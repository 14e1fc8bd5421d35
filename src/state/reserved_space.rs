//! Space reserved for removing snapshots: on a full disk a removal frees space, but has to write first.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::posix_fallocate;

use super::layout;

/// A removal writes some hundred KiB, more in a store of very many snapshots.
const BYTES: u64 = 4 * 1024 * 1024;
/// `st_blocks` counts in this unit (stat(2)).
const BLOCK: u64 = 512;

/// A file that takes up room and has no content. It may be missing, or smaller than it should be.
#[derive(Debug)]
pub(super) struct ReservedSpace(PathBuf);

impl ReservedSpace {
    pub(super) fn new(root: &Path) -> Self {
        Self(root.join(layout::RESERVED_SPACE))
    }

    /// Takes the room, as far as there is any.
    pub(super) fn fill(&self) {
        if fs::symlink_metadata(&self.0).is_ok_and(|file| file.is_file() && file.blocks() * BLOCK >= BYTES) {
            return;
        }
        let open = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&self.0);
        let length = i64::try_from(BYTES).unwrap_or(i64::MAX);
        let filled = open.and_then(|file| Ok(posix_fallocate(&file, 0, length)?));
        if let Err(error) = filled {
            tracing::warn!(path = %self.0.display(), %error, "no space can be reserved: removals may fail when the disk is full; make room on it");
        }
    }

    /// Gives the room away, if there is any.
    pub(super) fn release(&self) {
        if fs::remove_file(&self.0).is_ok() {
            tracing::warn!(path = %self.0.display(), "the disk is full: the reserved space is used");
        }
    }

    /// Waits until the room can be used: some file systems have it only when the removal of the file is on the disk.
    pub(super) fn settle(&self) {
        if let Some(root) = self.0.parent() {
            let _ = fs::File::open(root).map(|root| nix::unistd::syncfs(&root));
        }
    }
}
