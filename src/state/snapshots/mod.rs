//! The directories of the snapshots.
//!
//! ```text
//! <root>/                     0700
//!   metadata.redb             the store
//!   snapshots/<id>/           0700
//!     fs                      local: the files; remote: a link to the layer in its repository
//!     work                    overlayfs' work directory of an active snapshot
//!     c, s, e                 cover, seal, erase of a remote layer (see `markers`)
//!     plan                    which plan c, s and e were made of
//!     new                     what is being made for a remote layer, or what a crash left of it
//!     .<n>                    c, s or e that was replaced while a container may be using it
//!   trash/<id>                removed snapshots, on their way out
//! ```
//!
//! **What is lost is lost loudly.** The files of a local snapshot are made once, durably, before the store knows of the
//! snapshot; where they are missing later, that is an error. Everything of a remote snapshot can be derived and is made
//! again when it is needed.
//!
//! **Nothing is edited.** c, s and e appear whole, by a rename; one that has to change is exchanged for a new one, and
//! the old one stays until the snapshot is removed.
//!
//! **Removal** is a rename into `trash`; the rest happens later, follows no link and stays on this file system.

mod error;
mod extras;
mod flush;
mod remove;
mod usage;

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

pub use error::Error;

use crate::stack::{FS, WORK};
use flush::Flusher;
use remove::Trash;

/// The directories below one root.
pub struct Tree {
    root: PathBuf,
    snapshots: PathBuf,
    trash: Trash,
    flusher: Flusher,
    /// Whether the file system takes extended attributes of users, which seals need.
    seals: bool,
    /// Held while c, s and e are made.
    extras: Mutex<()>,
}

impl Tree {
    /// Makes the state directory, or checks that it is nobody else's to look into: files that are set-uid to root lie
    /// below it. One that is empty, as kubelet makes it for a pod, is closed to others.
    pub fn prepare_root(root: &Path) -> Result<(), Error> {
        private_directory(root)?;
        private_directory(&root.join("snapshots"))
    }

    /// Opens the directories below a root that [`Tree::prepare_root`] has seen.
    pub fn open(root: &Path) -> Result<Self, Error> {
        let snapshots = root.join("snapshots");
        let trash = Trash::open(&root.join("trash"))?;
        let flusher = Flusher::open(&snapshots)?;
        let seals = extras::takes_user_xattrs(&snapshots)?;
        if !seals {
            tracing::warn!(
                root = %root.display(),
                "the file system takes no extended attributes of users: containerd may read /etc/passwd of a lower layer where an image replaced /etc; use ext4, xfs or btrfs"
            );
        }
        Ok(Self { root: root.to_owned(), snapshots, trash, flusher, seals, extras: Mutex::new(()) })
    }

    /// Whether any snapshot has a directory.
    pub fn is_empty(root: &Path) -> Result<bool, Error> {
        let snapshots = root.join("snapshots");
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
        let _guard = extras::lock(&self.extras);
        let directory = self.directory(id);
        match make_directory(&directory, 0o700) {
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::AlreadyExists => {}
            result => result?,
        }
        let link = directory.join(FS);
        let made = self.new_path(id)?;
        let placed = symlink(layer, &made).and_then(|()| fs::rename(&made, &link));
        placed.map_err(|e| Error::io("make the link", &link, e))?;
        tracing::info!(snapshot = id, layer = %layer.display(), "linked to the layer again");
        Ok(())
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
        self.flusher.flush(id, &self.fs(id), next_id)
    }

    /// The disk that the files of a local snapshot take. Walks through all of them.
    pub fn usage(&self, id: u64) -> Result<crate::store::Usage, Error> {
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
                    tracing::warn!(directory = %self.snapshots.display(), ?name, "not made by this snapshotter, left alone");
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

/// Makes a directory of mode 0700, or refuses one that others may enter and that has something in it.
fn private_directory(path: &Path) -> Result<(), Error> {
    match DirBuilder::new().recursive(true).mode(0o700).create(path) {
        Ok(()) => {}
        Err(e) => return Err(Error::io("make", path, e)),
    }
    let metadata = fs::metadata(path).map_err(|e| Error::io("look at", path, e))?;
    let mode = metadata.mode() & 0o777;
    if !metadata.is_dir() {
        return Err(Error::io("use", path, ErrorKind::NotADirectory.into()));
    }
    if mode & 0o077 == 0 {
        return Ok(());
    }
    let is_empty = fs::read_dir(path).map_err(|e| Error::io("read", path, e))?.next().is_none();
    // Somebody else who may write there could put something into it meanwhile.
    if !is_empty || mode & 0o022 != 0 || metadata.uid() != nix::unistd::geteuid().as_raw() {
        return Err(Error::Open { path: path.to_owned(), mode });
    }
    tracing::info!(path = %path.display(), mode = format_args!("{mode:o}"), "the new directory is closed to others");
    fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(|e| Error::io("change the mode of", path, e))
}

/// Makes a directory whose mode does not depend on the umask.
fn make_directory(path: &Path, mode: u32) -> Result<(), Error> {
    DirBuilder::new().mode(mode).create(path).map_err(|e| Error::io("make", path, e))?;
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(|e| Error::io("change the mode of", path, e))
}

fn sync(directory: &Path) -> Result<(), Error> {
    File::open(directory).and_then(|dir| dir.sync_all()).map_err(|e| Error::io("sync", directory, e))
}

#[cfg(test)]
mod tests;
