//! Finding the markers of a layer by walking through its directories.
//!
//! Several threads share the work of a repository's walks. They may hang with it, so their number is fixed, and nobody
//! waits for one without a time limit.

use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::build;
use super::error::{MAX_MARKER_BYTES, MAX_MARKERS, MAX_PENDING, MAX_PENDING_BYTES, WalkError};
use super::list::{Listing, list};
use super::names::Marker;
use super::queue::{Queue, Rank};
use crate::config::Kind;
use crate::digest::Digest;
use crate::overlay::path::RelativePath;
use crate::overlay::plan::Plan;
use crate::repository::Repository;
use crate::sys::errno;

/// Threads that walk in one repository. CernVM-FS' client gains little from more: 20 200 directories took 4.6 s with
/// one thread, 3.4 s with eight.
const THREADS: usize = 4;

/// The walks of one repository and the threads that work on them.
#[derive(Clone)]
pub(super) struct Walkers {
    repository: Arc<Repository>,
    work: Arc<Mutex<Work>>,
}

#[derive(Default)]
struct Work {
    queue: Queue<Task>,
    threads: usize,
}

/// One step of a walk: to open the layer, or to list one of its directories.
struct Task {
    walk: Arc<Walk>,
    step: Step,
}

enum Step {
    Open,
    List(RelativePath),
}

/// Called with the result of a walk.
type OnEnd = Box<dyn Fn(&Result<Arc<Plan>, WalkError>) + Send + Sync>;

/// One walk, and what it has found so far.
pub(super) struct Walk {
    pub(super) layer: Digest,
    /// Its place in the queue. Locked after that.
    rank: Mutex<Rank>,
    /// The mount that the repository was in when it began.
    pub(super) mount: Option<String>,
    state: Mutex<Progress>,
    finished: Condvar,
    on_end: OnEnd,
}

#[derive(Default)]
struct Progress {
    root: Option<Arc<OwnedFd>>,
    /// Directories that are queued or being listed.
    pending: usize,
    /// Bytes of the paths of those that are queued.
    pending_bytes: usize,
    markers: Vec<Marker>,
    marker_bytes: usize,
    /// What its threads still find does not count.
    ended: bool,
    result: Option<Result<Arc<Plan>, WalkError>>,
}

impl Walkers {
    pub(super) fn new(repository: Arc<Repository>) -> Self {
        Self { repository, work: Arc::default() }
    }

    /// Begins a walk. `wanted`: somebody waits for it. `on_end` is called with its result, once, on another thread.
    pub(super) fn begin(
        &self,
        layer: Digest,
        mount: Option<String>,
        wanted: bool,
        on_end: impl Fn(&Result<Arc<Plan>, WalkError>) + Send + Sync + 'static,
    ) -> Result<Arc<Walk>, WalkError> {
        let mut work = self.lock();
        let rank = Mutex::new(work.queue.rank(wanted));
        let (state, finished, on_end) = (Mutex::default(), Condvar::new(), Box::new(on_end));
        let walk = Arc::new(Walk { layer, rank, mount, state, finished, on_end });
        if let (Err(e), 0) = (self.add_thread(&mut work), work.threads) {
            return Err(WalkError::Thread(errno::of(&e)));
        }
        work.queue.push(walk.rank(), [Task { walk: walk.clone(), step: Step::Open }]);
        Ok(walk)
    }

    /// Goes on with a walk before others: somebody waits for it now.
    pub(super) fn hurry(&self, walk: &Walk) {
        let mut work = self.lock();
        let mut rank = walk.rank.lock().unwrap_or_else(PoisonError::into_inner);
        *rank = work.queue.hurry(*rank);
    }

    fn lock(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add_thread(&self, work: &mut Work) -> std::io::Result<()> {
        if work.threads < THREADS {
            let walkers = self.clone();
            let name = format!("walk {}", self.repository.name());
            std::thread::Builder::new().name(name).spawn(move || walkers.work())?;
            work.threads += 1;
        }
        Ok(())
    }

    /// A thread: works until there is nothing left.
    fn work(&self) {
        loop {
            let Task { walk, step } = {
                let mut work = self.lock();
                let Some(task) = work.queue.pop() else {
                    work.threads -= 1;
                    return;
                };
                task
            };
            // A bug must cost neither this thread nor the whole time limit of those who wait.
            if catch_unwind(AssertUnwindSafe(|| self.step(&walk, step))).is_err() {
                tracing::error!(layer = %walk.layer, "looking for deleted files panicked; please report this");
                walk.abandon();
            }
        }
    }

    fn step(&self, walk: &Arc<Walk>, step: Step) {
        let found = match step {
            Step::Open => {
                let opened = self.repository.open_layer(walk.layer).map_err(WalkError::Repository);
                let found = opened.map(|root| {
                    walk.lock().root = Some(Arc::new(root));
                    Listing::of_root()
                });
                walk.lock().pending = 1;
                found
            }
            Step::List(directory) => {
                let root = {
                    let mut state = walk.lock();
                    state.pending_bytes = state.pending_bytes.saturating_sub(directory.len());
                    state.root.clone()
                };
                let Some(root) = root else { return };
                list(&root, &directory)
            }
        };
        self.record(walk, found);
    }

    /// Adds what a task found; the last task of a walk makes the plan.
    fn record(&self, walk: &Arc<Walk>, found: Result<Listing, WalkError>) {
        let mut state = walk.lock();
        if state.ended {
            return;
        }
        state.pending -= 1;
        let Listing { directories, directory_bytes, markers } = match found {
            Ok(listing) => listing,
            Err(error) => {
                drop(state);
                return walk.end(Err(error));
            }
        };
        state.marker_bytes += markers.iter().map(|marker| marker.directory.len() + marker.name.len()).sum::<usize>();
        state.markers.extend(markers);
        if state.markers.len() > MAX_MARKERS || state.marker_bytes > MAX_MARKER_BYTES {
            drop(state);
            return walk.end(Err(WalkError::TooMany));
        }
        state.pending += directories.len();
        state.pending_bytes += directory_bytes;
        if state.pending > MAX_PENDING || state.pending_bytes > MAX_PENDING_BYTES {
            drop(state);
            return walk.end(Err(WalkError::TooWide));
        }
        if state.pending == 0 {
            let markers = std::mem::take(&mut state.markers);
            let root = state.root.clone();
            drop(state);
            let Some(root) = root else { return };
            let with_xattrs = self.repository.kind() == Kind::Directory;
            let plan = build::plan(&root, &markers, with_xattrs).map(Arc::new);
            // Before a waiter sees the end: it may unmount the repository at once.
            drop(root);
            return walk.end(plan);
        }
        drop(state);
        let more = directories.len() > 1;
        let mut work = self.lock();
        let task = |directory| Task { walk: walk.clone(), step: Step::List(directory) };
        work.queue.push(walk.rank(), directories.into_iter().map(task));
        if more {
            // If no further thread can be started, the others do the work.
            let _ = self.add_thread(&mut work);
        }
    }
}

impl Walk {
    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rank(&self) -> Rank {
        *self.rank.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the result until `deadline`.
    pub(super) fn wait(&self, deadline: Instant) -> Result<Arc<Plan>, WalkError> {
        let begin = Instant::now();
        let limit = deadline.saturating_duration_since(begin);
        let state = self.lock();
        let waited = self.finished.wait_timeout_while(state, limit, |state| state.result.is_none());
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.result.clone().unwrap_or(Err(WalkError::TimeOut(limit)))
    }

    fn end(&self, result: Result<Arc<Plan>, WalkError>) {
        {
            let mut state = self.lock();
            if state.ended {
                return;
            }
            // The descriptor goes with the walk: an idle daemon keeps nothing in a repository open.
            *state = Progress { ended: true, ..Progress::default() };
        }
        // Before those who wait hear of it: when they ask again, this walk is not under way any more.
        (self.on_end)(&result);
        self.lock().result = Some(result);
        self.finished.notify_all();
    }

    /// Whether its result is there: somebody who begins to wait now would get an old one.
    pub(super) fn has_ended(&self) -> bool {
        self.lock().result.is_some()
    }

    /// Ends the walk after a panic, wherever that was.
    fn abandon(&self) {
        let error = Err(WalkError::Panicked);
        {
            let mut state = self.lock();
            if state.result.is_some() {
                return;
            }
            *state = Progress { ended: true, ..Progress::default() };
        }
        // As in `end`, before those who wait hear of it. It may be what has panicked.
        let _ = catch_unwind(AssertUnwindSafe(|| (self.on_end)(&error)));
        self.lock().result = Some(error);
        self.finished.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::Verify;
    use crate::repository::{Limits, layout};

    /// Longer than any of these walks takes.
    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn a_panic_costs_neither_a_thread_nor_the_time_of_those_who_wait() {
        let directory = tempfile::tempdir().unwrap();
        let layer = Digest::from_bytes([1; 32]);
        std::fs::create_dir_all(directory.path().join(layout::layerfs(layer))).unwrap();
        let limits = Limits { probe: LONG, first_mount: LONG };
        let path = directory.path().to_owned();
        let repository = Repository::new("test".into(), path, Kind::Directory, Verify::Off, limits).unwrap();
        let walkers = Walkers::new(Arc::new(repository));
        for _ in 0..=THREADS {
            let walk = walkers.begin(layer, None, true, |_| panic!("on purpose")).unwrap();
            assert_eq!(walk.wait(Instant::now() + LONG), Err(WalkError::Panicked));
            assert!(walk.has_ended());
        }
        let walk = walkers.begin(layer, None, true, |_| ()).unwrap();
        assert!(walk.wait(Instant::now() + LONG).is_ok());
    }
}
