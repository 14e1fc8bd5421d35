//! Remembers the plans of layers, and has each layer walked once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::error::WalkError;
use super::walk::{Walk, Walkers};
use crate::digest::Digest;
use crate::overlay::plan::Plan;
use crate::repository::{Repository, automount};

/// The plans in memory are forgotten when they have more bytes than this; the store has those that are in use.
const MAX_BYTES: usize = 32 * 1024 * 1024;
/// A plan takes more memory than its encoded form: vectors in vectors.
const OVERHEAD: usize = 512;

/// The plans of the layers of one repository.
pub struct PlanCache {
    repository: Arc<Repository>,
    walkers: Mutex<Walkers>,
    known: Arc<Mutex<Known>>,
}

/// What there is of a layer's plan.
enum Begun {
    Known(Arc<Plan>),
    Walk(Arc<Walk>),
}

#[derive(Default)]
struct Known {
    plans: HashMap<(Digest, String), Arc<Plan>>,
    bytes: usize,
    /// Those that are under way, each with its number.
    walks: HashMap<(Digest, String), (u64, Arc<Walk>)>,
    /// The number of the last one.
    begun: u64,
}

impl Known {
    fn insert(&mut self, key: (Digest, String), plan: Arc<Plan>) {
        let size = size(&plan);
        if self.bytes + size > MAX_BYTES {
            self.plans.clear();
            self.bytes = 0;
        }
        if self.plans.insert(key, plan).is_none() {
            self.bytes += size;
        }
    }
}

fn size(plan: &Plan) -> usize {
    let paths = [&plan.whiteouts, &plan.opaque, &plan.erased];
    let paths: usize = paths.iter().flat_map(|paths| paths.iter()).map(|path| path.len() + 24).sum();
    let directories = plan.directories.iter().map(|(path, attributes)| path.len() + 24 + attributes.bytes());
    OVERHEAD + paths + plan.root.bytes() + directories.sum::<usize>()
}

impl PlanCache {
    /// Nothing is known yet.
    pub fn new(repository: Arc<Repository>) -> Self {
        Self { walkers: Mutex::new(Walkers::new(repository.clone())), repository, known: Arc::default() }
    }

    /// The plan of a layer with this content, if it is in memory.
    pub fn known(&self, layer: Digest, identity: &str) -> Option<Arc<Plan>> {
        self.lock().plans.get(&(layer, identity.to_owned())).cloned()
    }

    /// Keeps a plan that was found earlier.
    pub fn remember(&self, layer: Digest, identity: &str, plan: Arc<Plan>) {
        self.lock().insert((layer, identity.to_owned()), plan);
    }

    /// Forgets a layer that nothing uses any more.
    pub fn forget(&self, layer: Digest) {
        let mut known = self.lock();
        known.plans.retain(|(digest, _), _| *digest != layer);
        known.bytes = known.plans.values().map(|plan| size(plan)).sum();
    }

    /// Has the layer walked in the background, unless its plan is known.
    pub fn look_ahead(&self, layer: Digest, identity: &str) {
        // If it cannot begin, the layer's own Prepare says why.
        let _ = self.begin(layer, identity, false);
    }

    /// The plan of a layer. Waits until `deadline` if it has to be found; the walk goes on after that.
    pub fn find(&self, layer: Digest, identity: &str, deadline: Instant) -> Result<Arc<Plan>, WalkError> {
        match self.begin(layer, identity, true)? {
            Begun::Known(plan) => Ok(plan),
            Begun::Walk(walk) => walk.wait(deadline),
        }
    }

    /// The plan, or the walk that is under way for it, or a new one. `wanted`: the caller waits for it.
    fn begin(&self, layer: Digest, identity: &str, wanted: bool) -> Result<Begun, WalkError> {
        let key = (layer, identity.to_owned());
        if let Some(plan) = self.known(layer, identity) {
            return Ok(Begun::Known(plan));
        }
        let mount = automount::mount_at(self.repository.path());
        // Plans and walks under one lock: a walk that ends in between would be begun again.
        let mut known = self.lock();
        if let Some(plan) = known.plans.get(&key) {
            return Ok(Begun::Known(plan.clone()));
        }
        let mut walkers = self.walkers.lock().unwrap_or_else(PoisonError::into_inner);
        if known.walks.values().any(|(_, walk)| walk.mount != mount) {
            // Its threads may hang in a mount that was replaced. What they still find is kept.
            known.walks.clear();
            *walkers = Walkers::new(self.repository.clone());
        }
        if let Some((_, walk)) = known.walks.get(&key).filter(|(_, walk)| !walk.has_ended()) {
            if wanted {
                walkers.hurry(walk);
            }
            return Ok(Begun::Walk(walk.clone()));
        }
        known.begun += 1;
        let (shared, ended, number) = (Arc::downgrade(&self.known), key.clone(), known.begun);
        let walk = walkers.begin(layer, mount, wanted, move |result| {
            let Some(known) = shared.upgrade() else { return };
            let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
            // Another one may have been begun since.
            if known.walks.get(&ended).is_some_and(|(other, _)| *other == number) {
                known.walks.remove(&ended);
            }
            if let Ok(plan) = result {
                known.insert(ended.clone(), plan.clone());
            }
        })?;
        known.walks.insert(key, (number, walk.clone()));
        Ok(Begun::Walk(walk))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
