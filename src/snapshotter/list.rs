//! Which snapshots a listing shows, and in which order.

use super::{Error, Snapshotter};
use crate::filter::{Fields, Filters, IndexKey};
use crate::label;
use crate::store::{Lookup, Rows, Snapshot};

impl Fields for Snapshot {
    fn name(&self) -> &str {
        &self.name
    }

    fn parent(&self) -> &str {
        &self.parent
    }

    fn kind(&self) -> &str {
        self.kind.as_str()
    }

    fn label(&self, key: &str) -> Option<&str> {
        self.labels.get(key).map(String::as_str)
    }
}

impl Snapshotter {
    /// All snapshots, not decoded yet.
    pub fn all(&self) -> Result<Rows, Error> {
        Ok(self.store.read()?.all()?)
    }

    /// The snapshots that a filter matches.
    ///
    /// containerd asks for a target on top of a parent and takes the first: those whose repository is healthy come
    /// first, then the local ones, then the rest.
    pub fn select(&self, filters: &Filters) -> Result<Vec<Snapshot>, Error> {
        let reader = self.store.read()?;
        let candidates = match lookups(filters) {
            Some(lookups) => reader.lookup(&lookups)?,
            None => reader.all()?,
        };
        drop(reader);
        let mut matching = Vec::new();
        for candidate in candidates {
            let snapshot = candidate?;
            if filters.matches(&snapshot) {
                matching.push(snapshot);
            }
        }
        if matching.len() > 1 {
            matching.sort_by_cached_key(|snapshot| self.rank(snapshot));
        }
        Ok(matching)
    }

    fn rank(&self, snapshot: &Snapshot) -> u8 {
        match snapshot.remote_layer() {
            None => 1,
            Some(_) if self.tree.link(snapshot.id).is_some_and(|link| self.sites().is_healthy(&link)) => 0,
            Some(_) => 2,
        }
    }
}

/// The indexes that answer a filter, `None` if everything has to be looked at.
fn lookups(filters: &Filters) -> Option<Vec<Lookup>> {
    let lookup = |key| match key {
        IndexKey::Name(name) => Some(Lookup::Name(name)),
        IndexKey::Parent(parent) => Some(Lookup::Parent(parent)),
        IndexKey::Label { key, value } if key == label::TARGET => Some(Lookup::Target(value)),
        IndexKey::Label { .. } => None,
    };
    filters.index_keys()?.into_iter().map(lookup).collect()
}
