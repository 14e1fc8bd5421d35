//! The state directory: what the daemon knows and keeps, and everything that is on the local disk.
//!
//! [`layout`] shows what is in it and what a crash leaves there. [`metadata`] is the truth about the snapshots,
//! [`directories`] follow it: they are made before a mutation is committed, and removed after it.

pub mod directories;
mod error;
pub(crate) mod layout;
mod lock;
pub mod metadata;
mod recovery;
mod reserved_space;

use std::path::Path;

pub use error::OpenError;

use directories::Directories;
use metadata::Store;

/// Everything below one state directory, which is locked as long as this lives.
pub struct State {
    /// The metadata of the snapshots.
    pub metadata: Store,
    /// The directories of the snapshots.
    pub directories: Directories,
}

impl State {
    /// Opens the state directory, and makes it if it is not there.
    ///
    /// Refuses one whose store is missing or older than its directories: a clean-up would then delete what containers have
    /// written.
    pub fn open(root: &Path) -> Result<Self, OpenError> {
        Directories::prepare_root(root)?;
        // From here on everything is safe from a second process.
        let lock = Store::lock(root)?;
        let store = Store::path(root);
        let has_store = store.try_exists().map_err(|source| metadata::OpenError::Io { path: store.clone(), source })?;
        if !has_store && !Directories::is_empty(root)? {
            return Err(OpenError::StoreLost { store, root: root.to_owned() });
        }
        let metadata = Store::open_locked(root, lock)?;
        let directories = Directories::open(root)?;
        refuse_older_copy(&metadata, &directories)?;
        Ok(Self { metadata, directories })
    }
}

/// Ids are reserved in the store before they are used, and each start reserves new ones: what was made after a copy of a
/// stopped daemon's store has an id that the copy has not reserved. Of a copy that was made while it ran the last few ids
/// cannot be told.
fn refuse_older_copy(metadata: &Store, directories: &Directories) -> Result<(), OpenError> {
    let reserved = metadata.skip_ids();
    match directories.ids()?.into_iter().max() {
        Some(newest) if newest >= reserved => Err(OpenError::StoreOld {
            store: Store::path(directories.root()),
            directory: directories.snapshots().join(newest.to_string()),
            root: directories.root().to_owned(),
        }),
        _ => Ok(()),
    }
}
