//! Which snapshots a listing shows.

use super::error::Error;
use crate::containerd::filter::{Fields, Filters, IndexKey};
use crate::containerd::label;
use crate::state::metadata::{Lookup, Reader, Snapshot};

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

/// The snapshots that a filter matches, in the order of their ids or names.
pub(super) fn matching(reader: Reader, filters: &Filters) -> Result<Vec<Snapshot>, Error> {
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
    Ok(matching)
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
