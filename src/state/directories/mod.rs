//! The directories of the snapshots; [`crate::state::layout`] shows what is in them.
//!
//! **What is lost is lost loudly.** The files of a local snapshot are made once, durably, before the store knows of the
//! snapshot; where they are missing later, that is an error. Everything of a remote snapshot can be derived and is made
//! again when it is needed.
//!
//! **Nothing is edited.** Cover, seal and erase appear whole, by a rename; one that has to change is exchanged for a new
//! one, and the old one stays until the snapshot is removed.
//!
//! **Removal** is a rename into the trash; the rest happens later, follows no link and stays on this file system.

mod error;
mod id_locks;
mod make;
mod overlay_content;
mod overlay_directories;
mod trash;
mod usage;

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, lchown, symlink};
use std::path::{Path, PathBuf};

pub use error::Error;

use super::layout;
use super::metadata::Usage;
use crate::overlay::names::{FS, WORK};
use crate::overlay::plan::Plan;
use crate::sys::flush::{FlushError, Flusher};
use id_locks::IdLocks;
use make::{make_directory, private_directory, sync};
use overlay_directories::{Wanted, new_path};
use trash::Trash;

/// The directories of all snapshots below one root.
pub struct Directories {
    root: PathBuf,
    snapshots: PathBuf,
    trash: Trash,
    flusher: Flusher,
    /// Whether the file system takes extended attributes of users, which seals need.
    seals: bool,
    /// A snapshot's lock is held while something is made or deleted in its directory.
    locks: IdLocks,
}

impl Directories {
    /// Makes the state directory, or checks that only its owner can enter it: files that are set-uid to root lie below it.
    /// An empty one, as kubelet makes it for a pod, is closed to others.
    pub fn prepare_root(root: &Path) -> Result<(), Error> {
        private_directory(root)?;
        private_directory(&layout::snapshots(root))
    }

    /// Opens the directories below a root that [`Directories::prepare_root`] has seen.
    pub fn open(root: &Path) -> Result<Self, Error> {
        let snapshots = layout::snapshots(root);
        let trash = Trash::open(&layout::trash(root))?;
        let flusher = Flusher::open(&snapshots).map_err(|e| Error::io("open", &snapshots, e))?;
        let seals = overlay_content::takes_user_xattrs(&snapshots)?;
        if !seals {
            tracing::warn!(
                root = %root.display(),
                "the file system takes no extended attributes of users: containerd may read /etc/passwd of a lower layer where an image replaced /etc; use ext4, xfs or btrfs"
            );
        }
        Ok(Self { root: root.to_owned(), snapshots, trash, flusher, seals, locks: IdLocks::default() })
    }

    /// Whether any snapshot has a directory.
    pub fn is_empty(root: &Path) -> Result<bool, Error> {
        let snapshots = layout::snapshots(root);
        match fs::read_dir(&snapshots) {
            Ok(mut entries) => Ok(entries.next().is_none()),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(true),
            Err(e) => Err(Error::io("read", &snapshots, e)),
        }
    }

    /// The directory that all snapshots are in.
    pub fn snapshots(&self) -> &Path {
        &self.snapshots
    }

    /// Whether remote layers have seals here.
    pub fn has_seals(&self) -> bool {
        self.seals
    }

    fn directory(&self, id: u64) -> PathBuf {
        self.snapshots.join(id.to_string())
    }

    fn fs(&self, id: u64) -> PathBuf {
        self.directory(id).join(FS)
    }

    /// Makes the directories of a local snapshot. They are on the disk when this returns.
    ///
    /// `owner`: of the root of its files, which is root's own where this is `None`.
    pub fn create_local(&self, id: u64, owner: Option<(u32, u32)>, work: bool) -> Result<(), Error> {
        let directory = self.directory(id);
        make_directory(&directory, 0o700)?;
        let fs = directory.join(FS);
        make_directory(&fs, 0o755)?;
        if let Some((uid, gid)) = owner {
            lchown(&fs, Some(uid), Some(gid)).map_err(|e| Error::io("change the owner of", &fs, e))?;
        }
        if work {
            make_directory(&directory.join(WORK), 0o711)?;
        }
        sync(&directory)?;
        sync(&self.snapshots)
    }

    /// Makes the directory of a remote snapshot, whose files are at `layer`.
    pub fn create_remote(&self, id: u64, layer: &Path) -> Result<(), Error> {
        let directory = self.directory(id);
        make_directory(&directory, 0o700)?;
        let link = directory.join(FS);
        symlink(layer, &link).map_err(|e| Error::io("make the link", &link, e))
    }

    /// Where the link of a remote snapshot leads to, if there is one.
    pub fn link(&self, id: u64) -> Option<PathBuf> {
        fs::read_link(self.fs(id)).ok()
    }

    /// Makes sure that a remote snapshot leads to its layer.
    pub fn ensure_link(&self, id: u64, layer: &Path) -> Result<(), Error> {
        if self.link(id).as_deref() == Some(layer) {
            return Ok(());
        }
        let _guard = self.locks.lock(id);
        let directory = self.directory(id);
        match make_directory(&directory, 0o700) {
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::AlreadyExists => {}
            result => result?,
        }
        let link = directory.join(FS);
        let made = new_path(&directory)?;
        let placed = symlink(layer, &made).and_then(|()| fs::rename(&made, &link));
        placed.map_err(|e| Error::io("make the link", &link, e))?;
        tracing::info!(snapshot = id, layer = %layer.display(), "linked to the layer again");
        Ok(())
    }

    /// Makes sure that a remote snapshot has the directories that `plan` calls for, and its cover if `cover` asks for it.
    pub fn ensure_overlay_directories(&self, id: u64, plan: &Plan, cover: bool) -> Result<(), Error> {
        let shape = plan.shape();
        let wanted = Wanted { cover: cover || shape.cover, seal: self.seals && shape.seal, erase: shape.erase };
        overlay_directories::ensure(&self.directory(id), plan, wanted, || self.locks.lock(id))
    }

    /// Takes away what a crash left of something that was being made for a snapshot.
    pub fn discard_unfinished(&self, id: u64) -> Result<(), Error> {
        let directory = self.directory(id);
        // Without the lock first: there is hardly ever anything.
        if !overlay_directories::is_unfinished(&directory) {
            return Ok(());
        }
        match self.locks.try_lock(id) {
            // Somebody makes something, which this may be. The next clean-up looks again.
            None => Ok(()),
            Some(_guard) => new_path(&directory).map(drop),
        }
    }

    /// Makes sure that the files of a local snapshot are there; the owner of their root.
    pub fn check_local(&self, id: u64) -> Result<(u32, u32), Error> {
        let fs = self.fs(id);
        match fs::symlink_metadata(&fs) {
            Ok(metadata) if metadata.is_dir() => Ok((metadata.uid(), metadata.gid())),
            Ok(_) => Err(Error::Lost(fs)),
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Err(Error::Lost(fs)),
            Err(e) => Err(Error::io("look at", &fs, e)),
        }
    }

    /// Makes sure that an active snapshot has its work directory: overlayfs keeps nothing in it between two mounts.
    pub fn ensure_work(&self, id: u64) -> Result<(), Error> {
        match make_directory(&self.directory(id).join(WORK), 0o711) {
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::AlreadyExists => Ok(()),
            result => result,
        }
    }

    /// Puts the files of a local snapshot on the disk, so that a power cut cannot leave half of them under a name that
    /// the store has already. Fails for a snapshot that an earlier failure of the disk may have taken files from.
    ///
    /// Snapshots that are made later have ids from `next_id` on.
    pub fn sync(&self, id: u64, next_id: impl FnOnce() -> u64) -> Result<(), Error> {
        self.flusher.flush(id, next_id).map_err(|error| match error {
            FlushError::Failed(errno) => Error::io("write to the disk", &self.fs(id), errno.into()),
            FlushError::Lost => Error::Unwritten(self.fs(id)),
        })
    }

    /// The disk that the files of a local snapshot take. Walks through all of them.
    pub fn usage(&self, id: u64) -> Result<Usage, Error> {
        self.check_local(id)?;
        usage::of(&self.fs(id))
    }

    /// Takes the directory of a snapshot away; its files are deleted later.
    pub fn discard(&self, id: u64) -> Result<(), Error> {
        self.trash.take(&self.directory(id), id)
    }

    /// Waits until everything that was taken away is deleted.
    pub fn empty_trash(&self) -> Result<(), Error> {
        self.trash.empty()
    }

    /// The ids that have a directory.
    pub fn ids(&self) -> Result<Vec<u64>, Error> {
        let entries = fs::read_dir(&self.snapshots).map_err(|e| Error::io("read", &self.snapshots, e))?;
        let mut ids = Vec::new();
        for entry in entries {
            let name = entry.map_err(|e| Error::io("read", &self.snapshots, e))?.file_name();
            match name.to_str().and_then(|name| name.parse().ok()) {
                Some(id) => ids.push(id),
                None => {
                    tracing::warn!(directory = %self.snapshots.display(), ?name, "this is not a snapshot's directory; leaving it alone");
                }
            }
        }
        Ok(ids)
    }

    /// The state directory.
    pub fn root(&self) -> &Path {
        &self.root
    }
}

#[cfg(test)]
mod tests;
