//! The mutations, each one durable transaction.

use std::time::SystemTime;

use redb::{ReadableTable, Table, WriteTransaction};

use super::error::Error;
use super::kind::Kind;
use super::plan::StoredPlan;
use super::read::{existing, find};
use super::record::{Content, Snapshot, Usage};
use super::store::Store;
use super::tables::{CHILDREN, LAYERS, NAMES, NO_PARENT, PLANS, SHAPES, SNAPSHOTS, TARGETS};
use crate::containerd::label::{self, Labels};
use crate::digest::Digest;
use crate::state::reserved_space::ReservedSpace;

/// A snapshot to be made.
#[derive(Debug)]
pub struct New<'a> {
    /// Its id, from [`Store::new_id`].
    pub id: u64,
    /// The key that the client named. It must be free, also for a remote commit, which gets a name of its own.
    pub key: &'a str,
    /// The name of the parent, or "".
    pub parent: &'a str,
    /// The labels.
    pub labels: Labels,
    /// What is to be made.
    pub kind: NewKind<'a>,
}

/// The ways in which a snapshot begins.
#[derive(Debug, Clone, Copy)]
pub enum NewKind<'a> {
    /// Active, with a directory of its own.
    Active,
    /// A view.
    View,
    /// Committed at once: the layer lies in a repository.
    Remote {
        /// The digest of the layer.
        layer: Digest,
        /// The chain ID that the client asked for.
        target: &'a str,
        /// What hides the layer's deleted files.
        plan: &'a StoredPlan,
    },
}

/// What [`Store::create`] did.
#[derive(Debug)]
pub enum Created {
    /// It made this snapshot.
    New(Snapshot),
    /// There was a remote commit for the target and the parent already.
    Existing(Snapshot),
}

/// What [`Store::remove`] took out.
#[derive(Debug, Clone, Copy)]
pub struct Removed {
    /// The id of the snapshot, whose directory is now an orphan.
    pub id: u64,
    /// The layer whose last user it was.
    pub unused_layer: Option<Digest>,
}

/// The tables that nearly every mutation touches.
struct Tables<'t> {
    snapshots: Table<'t, &'static str, &'static [u8]>,
    names: Table<'t, u64, &'static str>,
    children: Table<'t, (u64, u64), ()>,
    targets: Table<'t, (&'static str, u64), ()>,
}

impl<'t> Tables<'t> {
    fn open(transaction: &'t WriteTransaction) -> Result<Self, Error> {
        Ok(Self {
            snapshots: transaction.open_table(SNAPSHOTS)?,
            names: transaction.open_table(NAMES)?,
            children: transaction.open_table(CHILDREN)?,
            targets: transaction.open_table(TARGETS)?,
        })
    }

    fn get(&self, name: &str) -> Result<Snapshot, Error> {
        find(&self.snapshots, name)?.ok_or_else(|| Error::NotFound(name.to_owned()))
    }

    fn must_be_free(&self, name: &str) -> Result<(), Error> {
        match self.snapshots.get(name)? {
            Some(_) => Err(Error::Exists(name.to_owned())),
            None => Ok(()),
        }
    }

    /// The id of a snapshot that may be a parent.
    fn parent_id(&self, name: &str) -> Result<u64, Error> {
        if name.is_empty() {
            return Ok(NO_PARENT);
        }
        match find(&self.snapshots, name)? {
            None => Err(Error::ParentNotFound(name.to_owned())),
            Some(parent) if parent.kind != Kind::Committed => Err(Error::ParentNotCommitted(name.to_owned())),
            Some(parent) => Ok(parent.id),
        }
    }

    fn insert(&mut self, snapshot: &Snapshot, parent_id: u64) -> Result<(), Error> {
        self.snapshots.insert(snapshot.name.as_str(), snapshot.encode().as_slice())?;
        self.names.insert(snapshot.id, snapshot.name.as_str())?;
        self.children.insert((parent_id, snapshot.id), ())?;
        if let Some(target) = snapshot.target() {
            self.targets.insert((target, snapshot.id), ())?;
        }
        Ok(())
    }

    fn delete(&mut self, snapshot: &Snapshot, parent_id: u64) -> Result<(), Error> {
        self.snapshots.remove(snapshot.name.as_str())?;
        self.names.remove(snapshot.id)?;
        self.children.remove((parent_id, snapshot.id))?;
        if let Some(target) = snapshot.target() {
            self.targets.remove((target, snapshot.id))?;
        }
        Ok(())
    }
}

impl Store {
    /// Makes a snapshot, after looking again at its key, its parent and, for a remote one, at its target.
    pub fn create(&self, new: New<'_>) -> Result<Created, Error> {
        let transaction = self.begin_write()?;
        let mut tables = Tables::open(&transaction)?;
        tables.must_be_free(new.key)?;
        let parent_id = tables.parent_id(new.parent)?;
        let (name, kind, content) = match new.kind {
            NewKind::Active => (new.key.to_owned(), Kind::Active, Content::Local(None)),
            NewKind::View => (new.key.to_owned(), Kind::View, Content::Local(None)),
            NewKind::Remote { layer, target, plan } => {
                if let Some(existing) = existing(&tables.snapshots, &tables.targets, &tables.names, target, new.parent)?
                {
                    return Ok(Created::Existing(existing));
                }
                transaction.open_table(LAYERS)?.insert((layer.as_bytes(), new.id), ())?;
                put_plan(&transaction, layer, plan)?;
                // No key of containerd's has this form, and the id makes it unique: the same target may exist
                // on top of several parents.
                let name = format!("{target}@{}", new.id);
                tables.must_be_free(&name)?;
                (name, Kind::Committed, Content::Remote(layer))
            }
        };
        let now = SystemTime::now();
        let snapshot = Snapshot {
            id: new.id,
            name,
            kind,
            parent: new.parent.to_owned(),
            labels: new.labels,
            created: now,
            updated: now,
            content,
        };
        tables.insert(&snapshot, parent_id)?;
        drop(tables);
        transaction.commit()?;
        Ok(Created::New(snapshot))
    }

    /// Turns the active snapshot `key` into the committed snapshot `name`, with `labels` in place of its own.
    pub fn commit(&self, name: &str, key: &str, labels: Labels, usage: Usage) -> Result<(), Error> {
        let transaction = self.begin_write()?;
        let mut tables = Tables::open(&transaction)?;
        tables.must_be_free(name)?;
        let active = tables.get(key)?;
        if active.kind != Kind::Active {
            return Err(Error::NotActive { name: key.to_owned(), kind: active.kind });
        }
        let parent_id = tables.parent_id(&active.parent)?;
        tables.delete(&active, parent_id)?;
        let now = SystemTime::now();
        let committed = Snapshot {
            name: name.to_owned(),
            kind: Kind::Committed,
            labels,
            created: now,
            updated: now,
            content: Content::Local(Some(usage)),
            ..active
        };
        tables.insert(&committed, parent_id)?;
        drop(tables);
        Ok(transaction.commit()?)
    }

    /// Removes a snapshot that no other stands on, and the marker plan of its layer if nothing else uses that.
    pub fn remove(&self, name: &str) -> Result<Removed, Error> {
        let mut attempted = None;
        let mut result = self.try_remove(name, &mut attempted);
        for room in [ReservedSpace::release, ReservedSpace::settle] {
            match result {
                Err(error) if error.is_full() => room(&self.reserved_space),
                result => return result,
            }
            result = match (self.try_remove(name, &mut attempted), attempted) {
                // What failed before may have been stored all the same.
                (Err(Error::NotFound(_)), Some(removed)) => return Ok(removed),
                (result, _) => result,
            };
        }
        result
    }

    /// `attempted` is what will have been removed, if this fails only when it is written.
    fn try_remove(&self, name: &str, attempted: &mut Option<Removed>) -> Result<Removed, Error> {
        let transaction = self.begin_write()?;
        let mut tables = Tables::open(&transaction)?;
        let snapshot = tables.get(name)?;
        if tables.children.range((snapshot.id, 0)..=(snapshot.id, u64::MAX))?.next().is_some() {
            return Err(Error::HasChildren(name.to_owned()));
        }
        let parent_id = tables.parent_id(&snapshot.parent)?;
        tables.delete(&snapshot, parent_id)?;
        let mut unused_layer = None;
        if let Content::Remote(layer) = snapshot.content {
            let bytes = layer.as_bytes();
            let mut layers = transaction.open_table(LAYERS)?;
            layers.remove((bytes, snapshot.id))?;
            if layers.range((bytes, 0)..=(bytes, u64::MAX))?.next().is_none() {
                transaction.open_table(PLANS)?.remove(bytes)?;
                transaction.open_table(SHAPES)?.remove(bytes)?;
                unused_layer = Some(layer);
            }
        }
        drop(tables);
        let removed = Removed { id: snapshot.id, unused_layer };
        *attempted = Some(removed);
        transaction.commit()?;
        Ok(removed)
    }

    /// Changes the labels of a snapshot.
    pub fn update(&self, name: &str, change: impl FnOnce(Labels) -> Labels) -> Result<Snapshot, Error> {
        let transaction = self.begin_write()?;
        let mut tables = Tables::open(&transaction)?;
        let mut snapshot = tables.get(name)?;
        let parent_id = tables.parent_id(&snapshot.parent)?;
        tables.delete(&snapshot, parent_id)?;
        snapshot.labels = change(snapshot.labels);
        label::check(&snapshot.labels)?;
        snapshot.updated = SystemTime::now();
        tables.insert(&snapshot, parent_id)?;
        drop(tables);
        transaction.commit()?;
        Ok(snapshot)
    }

    /// Replaces the marker plan of a layer, if the layer is still used.
    pub fn replace_plan(&self, layer: Digest, plan: &StoredPlan) -> Result<(), Error> {
        let transaction = self.begin_write()?;
        let bytes = layer.as_bytes();
        let used = transaction.open_table(LAYERS)?.range((bytes, 0)..=(bytes, u64::MAX))?.next().is_some();
        if used {
            put_plan(&transaction, layer, plan)?;
            transaction.commit()?;
        }
        Ok(())
    }
}

fn put_plan(transaction: &WriteTransaction, layer: Digest, plan: &StoredPlan) -> Result<(), Error> {
    let mut plans = transaction.open_table(PLANS)?;
    plans.insert(layer.as_bytes(), (plan.identity.as_str(), plan.bytes()))?;
    transaction.open_table(SHAPES)?.insert(layer.as_bytes(), plan.shape.bits())?;
    Ok(())
}
