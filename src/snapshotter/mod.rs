//! The snapshots: what each request means for the store, the directories and the repositories.
//!
//! A facade: one method a request. Every method may block: on the disk, and on a repository within its time limits. Each
//! is complete in itself, so that a caller that goes away in the middle leaves nothing half-done.
//!
//! Commit, Remove, Stat, Update, List and Usage never ask a repository.

mod cleanup;
mod error;
mod in_flight;
mod list;
mod mounting;
mod plans;
mod prepare;
mod resolve;

use std::sync::Arc;
use std::time::Duration;

pub use error::Error;
pub use prepare::Prepared;

use crate::containerd::filter::Filters;
use crate::containerd::label::{self, Labels};
use crate::in_place::{Current, Repositories};
use crate::overlay::mount::Mount;
use crate::state::State;
use crate::state::metadata::{self, Content, EncodedSnapshots, Kind, NewKind, Snapshot, Usage};
use in_flight::InFlight;
use prepare::Preparation;
use resolve::Resolver;

/// All snapshots below one state directory.
pub struct Snapshotter {
    state: State,
    repositories: Current,
    /// How long a request may wait for slow repositories, and for the deletions of its layers.
    limit: Duration,
    in_flight: InFlight,
}

impl Snapshotter {
    /// The snapshots of an open state directory.
    ///
    /// `limit`: how long a request may wait for slow repositories, and for the deletions of its layers.
    pub fn new(state: State, repositories: Repositories, limit: Duration) -> Self {
        Self { state, repositories: Current::new(repositories), limit, in_flight: InFlight::default() }
    }

    /// The repositories in use.
    pub fn repositories(&self) -> Arc<Repositories> {
        self.repositories.get()
    }

    /// Uses other repositories from now on. Snapshots whose layers have moved with them are found again by digest.
    pub fn set_repositories(&self, repositories: Repositories) {
        self.repositories.set(repositories);
    }

    /// The snapshot of a key or name.
    pub fn stat(&self, name: &str) -> Result<Snapshot, Error> {
        Ok(self.state.metadata.read()?.get(name)?)
    }

    /// Makes an active snapshot on top of `parent` (a committed one, or "") and says how it is mounted.
    ///
    /// For the extraction of a layer that lies in a repository the answer is [`Prepared::Existing`].
    pub fn prepare(&self, key: &str, parent: &str, labels: Labels) -> Result<Prepared, Error> {
        self.preparation().prepare(key, parent, labels)
    }

    /// Makes a read-only snapshot of `parent` and says how it is mounted.
    pub fn view(&self, key: &str, parent: &str, labels: Labels) -> Result<Mount, Error> {
        self.preparation().create(key, parent, labels, NewKind::View)
    }

    /// How an active snapshot or a view is mounted.
    pub fn mounts(&self, key: &str) -> Result<Mount, Error> {
        let State { metadata, directories } = &self.state;
        let reader = metadata.read()?;
        let snapshot = reader.get(key)?;
        let has_directory = match snapshot.kind {
            Kind::Committed => return Err(Error::Committed(key.to_owned())),
            Kind::Active => true,
            Kind::View => snapshot.parent.is_empty(),
        };
        let chain = reader.chain(&snapshot.parent)?;
        drop(reader);
        if has_directory {
            directories.check_local(snapshot.id)?;
        }
        if snapshot.kind == Kind::Active {
            directories.ensure_work(snapshot.id)?;
        }
        let repositories = self.repositories();
        let resolver = Resolver { state: &self.state, repositories: &repositories, limit: self.limit };
        let resolved = resolver.resolve(&chain)?;
        mounting::mount(directories, snapshot.id, key, snapshot.kind, &resolved.layers)
    }

    /// Turns the active snapshot `key` into the committed snapshot `name`, with these labels in place of its own.
    pub fn commit(&self, name: &str, key: &str, labels: Labels) -> Result<(), Error> {
        let State { metadata, directories } = &self.state;
        label::check(&labels)?;
        if name.is_empty() {
            return Err(Error::Invalid("a committed snapshot needs a name".to_owned()));
        }
        let reader = metadata.read()?;
        if reader.find(name)?.is_some() {
            return Err(metadata::Error::Exists(name.to_owned()).into());
        }
        let active = reader.get(key)?;
        if active.kind != Kind::Active {
            return Err(metadata::Error::NotActive { name: key.to_owned(), kind: active.kind }.into());
        }
        drop(reader);
        let usage = directories.usage(active.id)?;
        // containerd holds its database meanwhile, and this flushes what others wrote to the file system, too. Without it
        // a power cut leaves files without content under a name that containerd never looks at again.
        directories.sync(active.id, || metadata.skip_ids())?;
        Ok(metadata.commit(name, key, labels, usage)?)
    }

    /// Removes a snapshot that no other stands on. Its files are deleted later.
    pub fn remove(&self, key: &str) -> Result<(), Error> {
        let removed = self.state.metadata.remove(key)?;
        if let Err(error) = self.state.directories.discard(removed.id) {
            tracing::warn!(key, %error, "cannot delete the files of a removed snapshot now; the next clean-up does");
        }
        if let Some(layer) = removed.unused_layer {
            self.repositories().forget(layer);
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
        let updated = self.state.metadata.update(name, |old| {
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
            (_, Content::Local(None)) => Ok(self.state.directories.usage(snapshot.id)?),
        }
    }

    /// All snapshots, not decoded yet.
    pub fn all(&self) -> Result<EncodedSnapshots, Error> {
        Ok(self.state.metadata.read()?.all()?)
    }

    /// The snapshots that a filter matches.
    ///
    /// containerd asks for a target on top of a parent and takes the first: those whose repository is healthy come
    /// first, then the local ones, then the rest.
    pub fn select(&self, filters: &Filters) -> Result<Vec<Snapshot>, Error> {
        let mut matching = list::matching(self.state.metadata.read()?, filters)?;
        if matching.len() > 1 {
            let repositories = self.repositories();
            matching.sort_by_cached_key(|snapshot| match snapshot.remote_layer() {
                None => 1,
                Some(_) => match self.state.directories.link(snapshot.id) {
                    Some(link) if repositories.is_healthy(&link) => 0,
                    _ => 2,
                },
            });
        }
        Ok(matching)
    }

    /// Deletes what removals and crashes left on the disk, and waits for it.
    pub fn cleanup(&self) -> Result<(), Error> {
        cleanup::cleanup(&self.state, &self.in_flight)
    }

    /// Reads from the store, as proof that it works.
    pub fn check(&self) -> Result<(), Error> {
        self.state.metadata.read()?.has_id(0)?;
        Ok(())
    }

    fn preparation(&self) -> Preparation<'_> {
        Preparation {
            state: &self.state,
            repositories: &self.repositories,
            limit: self.limit,
            in_flight: &self.in_flight,
        }
    }
}
