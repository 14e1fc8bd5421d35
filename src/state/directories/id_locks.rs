//! One lock for each snapshot: making covers for one does not hold up another.

use std::collections::HashSet;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// The locks of all ids.
#[derive(Debug, Default)]
pub(super) struct IdLocks {
    held: Mutex<HashSet<u64>>,
    released: Condvar,
}

/// Holds the lock of one id.
#[derive(Debug)]
pub(super) struct IdGuard<'a> {
    locks: &'a IdLocks,
    id: u64,
}

impl IdLocks {
    /// Waits for the lock of this id.
    pub(super) fn lock(&self, id: u64) -> IdGuard<'_> {
        let mut held = self.held();
        while !held.insert(id) {
            held = self.released.wait(held).unwrap_or_else(PoisonError::into_inner);
        }
        IdGuard { locks: self, id }
    }

    /// The lock of this id, unless somebody holds it.
    pub(super) fn try_lock(&self, id: u64) -> Option<IdGuard<'_>> {
        let is_free = self.held().insert(id);
        is_free.then(|| IdGuard { locks: self, id })
    }

    fn held(&self) -> MutexGuard<'_, HashSet<u64>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for IdGuard<'_> {
    fn drop(&mut self) {
        self.locks.held().remove(&self.id);
        self.locks.released.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn one_id_holds_up_itself_and_no_other() {
        let locks = IdLocks::default();
        let one = locks.lock(1);
        drop(locks.lock(2));
        assert!(locks.try_lock(1).is_none());
        let (got, seen) = mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let _one = locks.lock(1);
                got.send(()).unwrap();
            });
            assert!(seen.try_recv().is_err(), "held");
            drop(one);
            seen.recv_timeout(Duration::from_secs(60)).unwrap();
        });
        assert!(locks.try_lock(1).is_some(), "released");
    }
}
