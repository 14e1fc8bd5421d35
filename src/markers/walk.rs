//! Finding the markers of a layer by walking through its directories.
//!
//! Several threads share the work of a
//! repository's walks. They may hang with it, so there is a fixed number of them, and nobody waits for one without a
//! time limit.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::list::{Listing, Marker, bytes_path, list};
use super::plan::{MAX_DIRECTORY_BYTES, Plan, RelativePath};
use super::queue::{Queue, Rank};
use crate::digest::Digest;
use crate::repository::{Kind, Repository, Trouble};

/// Threads that walk in one repository. CernVM-FS' client gains little from more: 20 200 directories took 4.6 s with
/// one thread, 3.4 s with eight.
const THREADS: usize = 4;
/// The most markers of a layer that is used in place.
pub(super) const MAX_MARKERS: usize = 64 * 1024;
/// The most bytes of their paths.
const MAX_MARKER_BYTES: usize = 8 * 1024 * 1024;

/// The most directories of a layer that wait to be listed.
pub(super) const MAX_PENDING: usize = 256 * 1024;
/// The most bytes of their paths.
pub(super) const MAX_PENDING_BYTES: usize = 64 * 1024 * 1024;

/// Why the markers of a layer are not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WalkError {
    /// A call failed.
    #[error("cannot look for deleted files at {path:?} in the layer: {}", .errno.desc())]
    Io {
        /// The path below the layer's root.
        path: PathBuf,
        /// The cause.
        errno: Errno,
    },
    /// The repository cannot be used.
    #[error("cannot look for deleted files: the repository {0}")]
    Repository(Trouble),
    /// A name that no layer may have.
    #[error("{0:?} is not a valid whiteout")]
    InvalidMarker(PathBuf),
    /// More than is kept.
    #[error("it deletes more than {MAX_MARKERS} files of the layers below")]
    TooMany,
    /// More than is kept.
    #[error(
        "the directories that it deletes files from have more than {MAX_DIRECTORY_BYTES} bytes of names and attributes"
    )]
    TooLarge,
    /// More than is kept.
    #[error(
        "it has more than {MAX_PENDING} directories beside each other, or longer paths of them than {MAX_PENDING_BYTES} bytes"
    )]
    TooWide,
    /// Not finished yet; the walk goes on.
    #[error("looking for its deleted files takes longer than {:.1} s; it goes on, try again later", .0.as_secs_f32())]
    TimeOut(Duration),
    /// No thread could be started.
    #[error("cannot start a thread to look for deleted files: {}", .0.desc())]
    Thread(Errno),
}

impl WalkError {
    pub(super) fn io(path: &[u8], errno: Errno) -> Self {
        Self::Io { path: bytes_path(path), errno }
    }
}

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

enum Task {
    Begin(Arc<Walk>),
    List(Arc<Walk>, RelativePath),
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
            return Err(WalkError::Thread(Errno::from_raw(e.raw_os_error().unwrap_or_default())));
        }
        work.queue.push(walk.rank(), [Task::Begin(walk.clone())]);
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
            let task = {
                let mut work = self.lock();
                let Some(task) = work.queue.pop() else {
                    work.threads -= 1;
                    return;
                };
                task
            };
            let (walk, found) = match task {
                Task::Begin(walk) => {
                    let opened = self.repository.open_layer(walk.layer).map_err(WalkError::Repository);
                    let found = opened.map(|root| {
                        walk.lock().root = Some(Arc::new(root));
                        Listing::of_root()
                    });
                    walk.lock().pending = 1;
                    (walk, found)
                }
                Task::List(walk, directory) => {
                    let root = {
                        let mut state = walk.lock();
                        state.pending_bytes = state.pending_bytes.saturating_sub(directory.len());
                        state.root.clone()
                    };
                    let Some(root) = root else { continue };
                    (walk, list(&root, &directory))
                }
            };
            self.record(&walk, found);
        }
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
            let plan = Plan::of(&root, &markers, with_xattrs).map(Arc::new);
            // Before anybody hears of the end: whoever does may unmount the repository at once.
            drop(root);
            return walk.end(plan);
        }
        drop(state);
        let more = directories.len() > 1;
        let mut work = self.lock();
        work.queue.push(walk.rank(), directories.into_iter().map(|directory| Task::List(walk.clone(), directory)));
        if more {
            // The threads that there are do the work if there can be no more.
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
}
