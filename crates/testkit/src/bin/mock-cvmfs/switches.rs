//! What the control socket changes while the mock serves.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Duration;

use fuser::Errno;
use serde::Serialize;

use crate::layout::Place;

/// A failure that is switched on.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) errno: Errno,
    /// Only for this layer.
    pub(crate) layer: Option<String>,
    /// Also for catalogs that were loaded before.
    pub(crate) loaded: bool,
}

/// Requests that arrived, to prove that something does not ask the repository.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Counts {
    pub(crate) total: u64,
    pub(crate) operations: BTreeMap<&'static str, u64>,
    pub(crate) layers: BTreeMap<String, u64>,
}

#[derive(Default)]
struct State {
    hidden: HashSet<String>,
    versions: HashMap<String, u64>,
    failure: Option<Failure>,
    /// Directory entries above the layers' own catalogs that were seen.
    known: HashSet<PathBuf>,
    /// Layers whose own catalog was loaded.
    loaded: HashSet<String>,
    counts: Counts,
}

pub(crate) struct Switches {
    revision: AtomicU64,
    slow: AtomicU64,
    state: Mutex<State>,
    gate: Mutex<Gate>,
    gate_changed: Condvar,
}

/// Whether requests are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gate {
    Open,
    /// The request of this process is the last one to be taken.
    Closing(u32),
    Shut,
}

impl Switches {
    pub(crate) fn new(revision: u64) -> Self {
        Self {
            revision: AtomicU64::new(revision),
            slow: AtomicU64::new(0),
            state: Mutex::default(),
            gate: Mutex::new(Gate::Open),
            gate_changed: Condvar::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn revision(&self) -> u64 {
        self.revision.load(Ordering::Relaxed)
    }

    pub(crate) fn new_revision(&self) -> u64 {
        self.revision.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Takes a layer out of the repository, or puts it back.
    pub(crate) fn hide(&self, digest: &str, hide: bool) {
        let mut state = self.state();
        if hide {
            state.hidden.insert(digest.to_owned());
            state.loaded.remove(digest);
            state.known.retain(|path| Place::of(path).digest() != Some(digest));
        } else {
            state.hidden.remove(digest);
        }
    }

    pub(crate) fn is_hidden(&self, path: &Path) -> bool {
        Place::of(path).digest().is_some_and(|digest| self.state().hidden.contains(digest))
    }

    /// How often the content of a layer was published again.
    pub(crate) fn version(&self, digest: &str) -> u64 {
        self.state().versions.get(digest).copied().unwrap_or_default()
    }

    pub(crate) fn republish(&self, digest: &str) {
        *self.state().versions.entry(digest.to_owned()).or_default() += 1;
    }

    pub(crate) fn fail(&self, failure: Option<Failure>) {
        self.state().failure = failure;
    }

    /// Whether the directory entry `path` can be answered; once it was, it can be for ever.
    pub(crate) fn find(&self, path: &Path) -> Result<(), Errno> {
        let mut state = self.state();
        let place = Place::of(path);
        match (place, failing(&state, place)) {
            (Place::Outside, _) => Ok(()),
            (Place::Inside(digest), Some(failure)) if failure.loaded || !state.loaded.contains(digest) => {
                Err(failure.errno)
            }
            (Place::Inside(digest), _) => {
                state.loaded.insert(digest.to_owned());
                Ok(())
            }
            (_, Some(failure)) if failure.loaded || !state.known.contains(path) => Err(failure.errno),
            _ => Ok(()),
        }
    }

    /// Remembers that an entry was found.
    pub(crate) fn found(&self, path: &Path) {
        if matches!(Place::of(path), Place::Fan | Place::Layer(_)) {
            self.state().known.insert(path.to_owned());
        }
    }

    /// As [`Self::find`], for what needs the catalog at `path` itself, such as listing a layer's root.
    pub(crate) fn load(&self, path: &Path) -> Result<(), Errno> {
        let is_root = crate::layout::is_layer_root(path);
        if is_root { self.find(&path.join("x")) } else { self.find(path) }
    }

    pub(crate) fn set_slow(&self, delay: Duration) {
        self.slow.store(delay.as_millis() as u64, Ordering::Relaxed);
    }

    pub(crate) fn slow(&self) -> Duration {
        Duration::from_millis(self.slow.load(Ordering::Relaxed))
    }

    pub(crate) fn count(&self, operation: &'static str, path: &Path) {
        let mut state = self.state();
        state.counts.total += 1;
        *state.counts.operations.entry(operation).or_default() += 1;
        if let Some(digest) = Place::of(path).digest() {
            *state.counts.layers.entry(digest.to_owned()).or_default() += 1;
        }
    }

    /// The counts since the last reset.
    pub(crate) fn counts(&self, reset: bool) -> Counts {
        let mut state = self.state();
        if reset { std::mem::take(&mut state.counts) } else { state.counts.clone() }
    }

    /// Where the thread that takes requests from the kernel stops while the mock hangs. True for the request that was
    /// sent to shut the gate.
    pub(crate) fn pass(&self, process: u32) -> bool {
        let mut gate = self.gate.lock().unwrap();
        let last = *gate == Gate::Closing(process);
        if last {
            *gate = Gate::Shut;
            self.gate_changed.notify_all();
        }
        drop(self.gate_changed.wait_while(gate, |gate| *gate == Gate::Shut).unwrap());
        last
    }

    /// Shuts the gate behind the next request of a process.
    pub(crate) fn shut_after(&self, process: u32) {
        *self.gate.lock().unwrap() = Gate::Closing(process);
    }

    pub(crate) fn shut(&self) {
        *self.gate.lock().unwrap() = Gate::Shut;
    }

    pub(crate) fn open(&self) {
        *self.gate.lock().unwrap() = Gate::Open;
        self.gate_changed.notify_all();
    }

    /// Waits until the gate is shut; false if it takes longer than `limit`.
    pub(crate) fn wait_shut(&self, limit: Duration) -> bool {
        let gate = self.gate.lock().unwrap();
        let (gate, _) = self.gate_changed.wait_timeout_while(gate, limit, |gate| *gate != Gate::Shut).unwrap();
        *gate == Gate::Shut
    }

    pub(crate) fn is_shut(&self) -> bool {
        *self.gate.lock().unwrap() == Gate::Shut
    }
}

fn failing(state: &State, place: Place<'_>) -> Option<Failure> {
    let failure = state.failure.as_ref()?;
    let concerned = failure.layer.as_deref().is_none_or(|layer| place.digest() == Some(layer));
    concerned.then(|| failure.clone())
}
