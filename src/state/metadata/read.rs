//! Reading: a view of one committed state.

use std::collections::BTreeSet;

use redb::{ReadOnlyTable, ReadTransaction, ReadableTable};

use super::encoded::EncodedSnapshots;
use super::error::Error;
use super::kind::Kind;
use super::plan::StoredPlan;
use super::record::{Content, Snapshot};
use super::tables::{CHILDREN, LAYERS, NAMES, NO_PARENT, PLANS, SHAPES, SNAPSHOTS, TARGETS};
use crate::digest::Digest;
use crate::overlay::plan::Shape;

/// A view of the store at one moment. Drop it soon: the file cannot reuse what it still shows.
pub struct Reader {
    transaction: ReadTransaction,
    snapshots: ReadOnlyTable<&'static str, &'static [u8]>,
}

/// A condition of a listing that an index answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// The one of this key or name.
    Name(String),
    /// The children of the snapshot of this name; of none if empty.
    Parent(String),
    /// Those whose label `containerd.io/snapshot.ref` has this value.
    Target(String),
}

impl Reader {
    pub(super) fn new(transaction: ReadTransaction) -> Result<Self, Error> {
        let snapshots = transaction.open_table(SNAPSHOTS)?;
        Ok(Self { transaction, snapshots })
    }

    /// The snapshot of this key or name.
    pub fn get(&self, name: &str) -> Result<Snapshot, Error> {
        self.find(name)?.ok_or_else(|| Error::NotFound(name.to_owned()))
    }

    /// The snapshot of this key or name, if there is one.
    pub fn find(&self, name: &str) -> Result<Option<Snapshot>, Error> {
        find(&self.snapshots, name)
    }

    /// The committed snapshot `name` and all that it stands on, the nearest first; nothing for "".
    pub fn chain(&self, name: &str) -> Result<Vec<Snapshot>, Error> {
        let mut chain = Vec::new();
        let mut next = name.to_owned();
        while !next.is_empty() {
            let snapshot = match self.find(&next)? {
                Some(snapshot) => snapshot,
                None if chain.is_empty() => return Err(Error::ParentNotFound(next)),
                None => return Err(Error::Damaged(next)),
            };
            if snapshot.kind != Kind::Committed {
                return Err(Error::ParentNotCommitted(next));
            }
            next.clone_from(&snapshot.parent);
            chain.push(snapshot);
        }
        Ok(chain)
    }

    /// The remote commit for `target` on top of `parent`.
    pub fn existing(&self, target: &str, parent: &str) -> Result<Option<Snapshot>, Error> {
        let targets = self.transaction.open_table(TARGETS)?;
        let names = self.transaction.open_table(NAMES)?;
        existing(&self.snapshots, &targets, &names, target, parent)
    }

    /// Whether a snapshot has this id.
    pub fn has_id(&self, id: u64) -> Result<bool, Error> {
        Ok(self.transaction.open_table(NAMES)?.get(id)?.is_some())
    }

    /// The plan of a layer that is in use.
    pub fn plan(&self, layer: Digest) -> Result<Option<StoredPlan>, Error> {
        // One that could not be decoded when the shapes were made has none: it is made again when it is needed.
        let shape = self.shape(layer)?.unwrap_or_default();
        let plans = self.transaction.open_table(PLANS)?;
        let plan = plans.get(layer.as_bytes())?.map(|guard| {
            let (identity, bytes) = guard.value();
            StoredPlan::from_stored(identity.to_owned(), shape, bytes.to_owned())
        });
        Ok(plan)
    }

    /// Which directories the plan of a layer calls for, if there is one.
    pub fn shape(&self, layer: Digest) -> Result<Option<Shape>, Error> {
        let shapes = self.transaction.open_table(SHAPES)?;
        Ok(shapes.get(layer.as_bytes())?.map(|guard| Shape::from_bits(guard.value())))
    }

    /// Whether a snapshot uses the layer in place.
    pub fn uses_layer(&self, layer: Digest) -> Result<bool, Error> {
        let layers = self.transaction.open_table(LAYERS)?;
        let bytes = layer.as_bytes();
        Ok(layers.range((bytes, 0)..=(bytes, u64::MAX))?.next().transpose()?.is_some())
    }

    /// All snapshots in the order of their names.
    pub fn all(&self) -> Result<EncodedSnapshots, Error> {
        let mut found = EncodedSnapshots::default();
        for row in self.snapshots.iter()? {
            let (name, record) = row?;
            found.push(name.value(), record.value());
        }
        Ok(found)
    }

    /// The snapshots that any of the `lookups` is about, each once, in the order of their ids.
    pub fn lookup(&self, lookups: &[Lookup]) -> Result<EncodedSnapshots, Error> {
        let mut ids = BTreeSet::new();
        for lookup in lookups {
            self.ids(lookup, &mut ids)?;
        }
        let names = self.transaction.open_table(NAMES)?;
        let mut found = EncodedSnapshots::default();
        for id in ids {
            let name = name_of(&names, id)?;
            match self.snapshots.get(name.as_str())? {
                Some(record) => found.push(&name, record.value()),
                None => return Err(Error::Damaged(name)),
            }
        }
        Ok(found)
    }

    fn ids(&self, lookup: &Lookup, ids: &mut BTreeSet<u64>) -> Result<(), Error> {
        match lookup {
            Lookup::Name(name) => ids.extend(self.find(name)?.map(|s| s.id)),
            Lookup::Parent(name) => {
                let parent = if name.is_empty() { Some(NO_PARENT) } else { self.find(name)?.map(|s| s.id) };
                let Some(parent) = parent else { return Ok(()) };
                for row in self.transaction.open_table(CHILDREN)?.range((parent, 0)..=(parent, u64::MAX))? {
                    ids.insert(row?.0.value().1);
                }
            }
            Lookup::Target(target) => {
                let target = target.as_str();
                for row in self.transaction.open_table(TARGETS)?.range((target, 0)..=(target, u64::MAX))? {
                    ids.insert(row?.0.value().1);
                }
            }
        }
        Ok(())
    }
}

/// The snapshot of this key or name in a table of a read or write transaction.
pub(super) fn find(
    snapshots: &impl ReadableTable<&'static str, &'static [u8]>,
    name: &str,
) -> Result<Option<Snapshot>, Error> {
    snapshots.get(name)?.map(|guard| Snapshot::decode(name, guard.value())).transpose()
}

/// The remote commit for `target` on top of `parent`, in tables of a read or write transaction.
pub(super) fn existing(
    snapshots: &impl ReadableTable<&'static str, &'static [u8]>,
    targets: &impl ReadableTable<(&'static str, u64), ()>,
    names: &impl ReadableTable<u64, &'static str>,
    target: &str,
    parent: &str,
) -> Result<Option<Snapshot>, Error> {
    for row in targets.range((target, 0)..=(target, u64::MAX))? {
        let name = name_of(names, row?.0.value().1)?;
        let snapshot = find(snapshots, &name)?.ok_or(Error::Damaged(name))?;
        if snapshot.parent == parent && matches!(snapshot.content, Content::Remote(_)) {
            return Ok(Some(snapshot));
        }
    }
    Ok(None)
}

fn name_of(names: &impl ReadableTable<u64, &'static str>, id: u64) -> Result<String, Error> {
    let name = names.get(id)?.map(|guard| guard.value().to_owned());
    name.ok_or_else(|| Error::Damaged(format!("id {id}")))
}
