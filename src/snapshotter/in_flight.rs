//! Snapshots that are being made: they have a directory, or soon will, and are not in the store yet.

use std::cell::Cell;
use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::error::Error;
use crate::state::State;
use crate::state::metadata::{Created, New};

/// Their ids.
#[derive(Debug, Default)]
pub(super) struct InFlight(Mutex<HashSet<u64>>);

/// One of them. Its directory goes when this is dropped, unless it is kept.
pub(super) struct Making<'a> {
    all: &'a InFlight,
    state: &'a State,
    id: u64,
    keep: Cell<bool>,
}

impl InFlight {
    /// Begins one, with a new id.
    pub(super) fn begin<'a>(&'a self, state: &'a State) -> Result<Making<'a>, Error> {
        let id = state.metadata.new_id()?;
        self.lock().insert(id);
        Ok(Making { all: self, state, id, keep: Cell::new(false) })
    }

    /// The ids at this moment.
    pub(super) fn ids(&self) -> HashSet<u64> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Making<'_> {
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Stores the snapshot, whose directory is kept from then on.
    pub(super) fn store(&self, new: New<'_>) -> Result<Created, Error> {
        let result = self.state.metadata.create(new);
        let keep = match &result {
            Ok(created) => matches!(created, Created::New(_)),
            // It may be stored all the same. If it is not, clean-up takes the directory.
            Err(error) => error.is_uncertain(),
        };
        self.keep.set(keep);
        Ok(result?)
    }
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        if !self.keep.get()
            && let Err(error) = self.state.directories.discard(self.id)
        {
            tracing::warn!(snapshot = self.id, %error, "cannot delete the directory of a snapshot that was not made; the next clean-up does");
        }
        self.all.lock().remove(&self.id);
    }
}
