//! The snapshots: what each request means for the store, the directories and the repositories.
//!
//! Every method may block: on the disk, and on a repository within its time limits. Each is complete in itself, so that
//! a caller that goes away in the middle leaves nothing half-done.
//!
//! Commit, Remove, Stat, Update, List and Usage never ask a repository.

mod chain;
mod error;
mod list;
mod remote;
mod sites;

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

pub use error::{Cause, Error, Unavailable};
pub use sites::Sites;

use crate::key;
use crate::label::{self, Labels};
use crate::stack::{self, Access, Mount};
use crate::store::{Content, Created, Kind, New, Snapshot, Store, Usage, What};
use crate::tree::Tree;
use remote::{Decision, Request};

/// All snapshots below one state directory.
pub struct Snapshotter {
    store: Store,
    tree: Tree,
    sites: RwLock<Arc<Sites>>,
    /// How long a request may wait for slow repositories, and for the markers of its layers.
    marker_limit: Duration,
    /// Ids that have a directory, or soon will, and are not in the store yet.
    in_flight: Mutex<HashSet<u64>>,
}

impl Snapshotter {
    /// The snapshots of an open store and its directories.
    pub fn new(store: Store, tree: Tree, sites: Sites, marker_limit: Duration) -> Self {
        Self { store, tree, sites: RwLock::new(Arc::new(sites)), marker_limit, in_flight: Mutex::default() }
    }

    /// The repositories in use.
    pub fn sites(&self) -> Arc<Sites> {
        self.sites.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Uses other repositories from now on. Snapshots whose layers have moved with them are found again by digest.
    pub fn set_sites(&self, sites: Sites) {
        *self.sites.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(sites);
    }

    /// The snapshot of a key or name.
    pub fn stat(&self, name: &str) -> Result<Snapshot, Error> {
        Ok(self.store.read()?.get(name)?)
    }

    /// Makes an active snapshot on top of `parent` (a committed one, or "") and says how it is mounted.
    ///
    /// For the extraction of a layer that lies in a repository the answer is [`Error::Held`]: the result is there.
    pub fn prepare(&self, key: &str, parent: &str, labels: Labels) -> Result<Mount, Error> {
        let chain = self.check_new(key, parent, &labels)?;
        if let Some(request) = Request::new(key, parent, &labels)? {
            match self.decide(&request, &chain)? {
                Decision::InPlace => return Err(Error::Held(labels[label::TARGET].clone())),
                Decision::Download => {}
            }
        }
        self.create(key, parent, labels, &chain, What::Active)
    }

    /// Makes a read-only snapshot of `parent` and says how it is mounted.
    pub fn view(&self, key: &str, parent: &str, labels: Labels) -> Result<Mount, Error> {
        let chain = self.check_new(key, parent, &labels)?;
        self.create(key, parent, labels, &chain, What::View)
    }

    /// How an active snapshot or a view is mounted.
    pub fn mounts(&self, key: &str) -> Result<Mount, Error> {
        let reader = self.store.read()?;
        let snapshot = reader.get(key)?;
        let has_directory = match snapshot.kind {
            Kind::Committed => return Err(Error::Committed(key.to_owned())),
            Kind::Active => true,
            Kind::View => snapshot.parent.is_empty(),
        };
        let chain = reader.chain(&snapshot.parent)?;
        drop(reader);
        if has_directory {
            self.tree.check_local(snapshot.id)?;
        }
        if snapshot.kind == Kind::Active {
            self.tree.ensure_work(snapshot.id)?;
        }
        let resolved = self.resolve(&chain)?;
        self.mount(&snapshot, &resolved.layers)
    }

    /// Turns the active snapshot `key` into the committed snapshot `name`, with these labels in place of its own.
    pub fn commit(&self, name: &str, key: &str, labels: Labels) -> Result<(), Error> {
        label::check(&labels)?;
        if name.is_empty() {
            return Err(Error::Invalid("a committed snapshot needs a name".to_owned()));
        }
        let reader = self.store.read()?;
        if reader.find(name)?.is_some() {
            return Err(crate::store::Error::Exists(name.to_owned()).into());
        }
        let active = reader.get(key)?;
        if active.kind != Kind::Active {
            return Err(crate::store::Error::NotActive { name: key.to_owned(), kind: active.kind }.into());
        }
        drop(reader);
        let usage = self.tree.usage(active.id)?;
        // containerd holds its database meanwhile, and this flushes what others wrote to the file system, too. Without it
        // a power cut leaves files without content under a name that containerd never looks at again.
        self.tree.sync(active.id, || self.store.skip_ids())?;
        Ok(self.store.commit(name, key, labels, usage)?)
    }

    /// Removes a snapshot that no other stands on. Its files are deleted later.
    pub fn remove(&self, key: &str) -> Result<(), Error> {
        let removed = self.store.remove(key)?;
        if let Err(error) = self.tree.discard(removed.id) {
            tracing::warn!(key, %error, "the files of a removed snapshot are still there; the next clean-up takes them");
        }
        if let Some(layer) = removed.unused_layer {
            for site in self.sites().iter() {
                site.finder.forget(layer);
            }
        }
        Ok(())
    }

    /// Changes labels: all of them, or those that `fields` (`labels`, `labels.<name>`) names. An empty value removes.
    pub fn update(&self, name: &str, labels: &Labels, fields: &[String]) -> Result<Snapshot, Error> {
        let mut replace = fields.is_empty();
        let mut single = Vec::new();
        for field in fields {
            match field.strip_prefix("labels.") {
                Some(label) => single.push(label),
                None if field == "labels" => replace = true,
                None => {
                    let message = format!("cannot update {field:?} of snapshot {name:?}: only labels can be changed");
                    return Err(Error::Invalid(message));
                }
            }
        }
        let updated = self.store.update(name, |old| {
            if replace {
                return labels.clone();
            }
            let mut new = old;
            for label in single {
                match labels.get(label) {
                    Some(value) => new.insert(label.to_owned(), value.clone()),
                    None => new.remove(label),
                };
            }
            new
        })?;
        Ok(updated)
    }

    /// The local disk that a snapshot takes without its parents: nothing for a view and for a layer in a repository.
    pub fn usage(&self, key: &str) -> Result<Usage, Error> {
        let snapshot = self.stat(key)?;
        match (snapshot.kind, snapshot.content) {
            (Kind::View, _) | (_, Content::Remote(_)) => Ok(Usage::default()),
            (_, Content::Local(Some(usage))) => Ok(usage),
            (_, Content::Local(None)) => Ok(self.tree.usage(snapshot.id)?),
        }
    }

    /// Deletes what removals and crashes left on the disk, and waits for it.
    pub fn cleanup(&self) -> Result<(), Error> {
        // In this order: an id that is listed is in flight until it is in the store, and the store is read last.
        let ids = self.tree.ids()?;
        let in_flight = self.lock_in_flight().clone();
        let reader = self.store.read()?;
        let mut first_error = None;
        for id in ids {
            let discarded = if reader.has_id(id)? {
                self.tree.discard_unfinished(id)
            } else if in_flight.contains(&id) {
                Ok(())
            } else {
                tracing::info!(snapshot = id, "directory of no snapshot is deleted");
                self.tree.discard(id)
            };
            first_error = first_error.or(discarded.err());
        }
        drop(reader);
        let emptied = self.tree.empty_trash();
        self.store.refill();
        emptied?;
        first_error.map_or(Ok(()), |error| Err(error.into()))
    }

    /// Reads from the store, as proof that it works.
    pub fn check(&self) -> Result<(), Error> {
        self.store.read()?.has_id(0)?;
        Ok(())
    }

    /// The checks that come before anything else; the chain of the parent.
    fn check_new(&self, key: &str, parent: &str, labels: &Labels) -> Result<Vec<Snapshot>, Error> {
        label::check(labels)?;
        if key.is_empty() {
            return Err(Error::Invalid("a snapshot needs a key".to_owned()));
        }
        let reader = self.store.read()?;
        if reader.find(key)?.is_some() {
            return Err(crate::store::Error::Exists(key.to_owned()).into());
        }
        Ok(reader.chain(parent)?)
    }

    /// Makes an ordinary snapshot.
    fn create(
        &self,
        key: &str,
        parent: &str,
        labels: Labels,
        chain: &[Snapshot],
        what: What<'_>,
    ) -> Result<Mount, Error> {
        let resolved = self.resolve(chain)?;
        let in_flight = InFlight::new(self)?;
        let id = in_flight.id();
        let is_active = matches!(what, What::Active);
        if is_active || parent.is_empty() {
            // Labels of an extraction come from the image, and what is extracted is for every image with this layer.
            let mapped = if key::extraction_target(key).is_some() { None } else { mapped_owner(&labels) };
            if mapped.is_some() {
                tracing::warn!(
                    key,
                    "a container in a user namespace: this is not supported, and containerd copies its whole image; on containerd 2 name the capability \"only-remap-ids\" to have it fail at once"
                );
            }
            let owner = mapped.or(resolved.owner);
            self.tree.create_local(id, owner, is_active)?;
        }
        // Before it is stored: a snapshot that cannot be mounted does not come to be.
        let kind = if is_active { Kind::Active } else { Kind::View };
        let mount = self.mount_of(id, key, kind, &resolved.layers)?;
        match in_flight.store(New { id, key, parent, labels, what })? {
            Created::New(_) => Ok(mount),
            Created::Held(held) => Err(Error::Held(held.name)),
        }
    }

    fn mount(&self, snapshot: &Snapshot, layers: &[stack::Layer]) -> Result<Mount, Error> {
        self.mount_of(snapshot.id, &snapshot.name, snapshot.kind, layers)
    }

    fn mount_of(&self, id: u64, key: &str, kind: Kind, layers: &[stack::Layer]) -> Result<Mount, Error> {
        let access = match kind {
            Kind::View => Access::View { id },
            _ if key::extraction_target(key).is_some() => Access::Extract { id },
            _ => Access::Write { id },
        };
        // Looked at each time: the module may be loaded by the first mount.
        let index_off = Path::new("/sys/module/overlay/parameters/index").exists();
        let mount = stack::mount(self.tree.snapshots(), access, layers, index_off);
        mount.map_err(|cause| Error::TooLarge { name: key.to_owned(), cause })
    }

    fn lock_in_flight(&self) -> std::sync::MutexGuard<'_, HashSet<u64>> {
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The owner that a container in a user namespace has for root.
fn mapped_owner(labels: &Labels) -> Option<(u32, u32)> {
    let root = |name| labels.get(name).and_then(|mapping| label::mapped_root(mapping));
    root(label::UID_MAPPING).zip(root(label::GID_MAPPING))
}

/// A snapshot that is being made. Its directory goes when this is dropped, unless it is kept.
struct InFlight<'a> {
    snapshotter: &'a Snapshotter,
    id: u64,
    keep: std::cell::Cell<bool>,
}

impl<'a> InFlight<'a> {
    fn new(snapshotter: &'a Snapshotter) -> Result<Self, Error> {
        let id = snapshotter.store.new_id()?;
        snapshotter.lock_in_flight().insert(id);
        Ok(Self { snapshotter, id, keep: std::cell::Cell::new(false) })
    }

    fn id(&self) -> u64 {
        self.id
    }

    /// Stores the snapshot, whose directory is kept from then on.
    fn store(&self, new: New<'_>) -> Result<Created, Error> {
        let result = self.snapshotter.store.create(new);
        let keep = match &result {
            Ok(created) => matches!(created, Created::New(_)),
            // It may be stored all the same. If it is not, clean-up takes the directory.
            Err(error) => error.is_uncertain(),
        };
        self.keep.set(keep);
        Ok(result?)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        if !self.keep.get()
            && let Err(error) = self.snapshotter.tree.discard(self.id)
        {
            tracing::warn!(snapshot = self.id, %error, "left over; the next clean-up takes it");
        }
        self.snapshotter.lock_in_flight().remove(&self.id);
    }
}
