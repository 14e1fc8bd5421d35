//! Where layers lie unpacked: the repositories, and what they answer.
//!
//! A repository is a file system of the host that may be missing, dead or hung at any time. It is asked on a thread of
//! its own, under a time limit; see [`Fault`] for what the answers can be. No descriptor in it outlives a request.

pub(crate) mod automount;
mod fault;
pub(crate) mod layout;
mod probe;
mod worker;

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;

pub use fault::{Fault, State};

use crate::config::{Kind, Timeouts, Verify};
use crate::digest::Digest;
use worker::{NoAnswer, Progress, Worker};

/// After a failed automount, requests do not wait again for this long: a pull has many requests, and each would wait as
/// long for a server that is away.
const BETWEEN_MOUNTS: Duration = Duration::from_secs(120);

/// More identities than this are not remembered; an image has at most 127 layers.
const MAX_IDENTITIES: usize = 16 * 1024;

/// How long a repository may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// For one step of a request.
    pub probe: Duration,
    /// For the first answer of all, and for one that has to wait for an automount.
    pub first_mount: Duration,
}

impl From<Timeouts> for Limits {
    fn from(timeouts: Timeouts) -> Self {
        Self { probe: timeouts.probe, first_mount: timeouts.first_mount }
    }
}

/// One repository.
pub struct Repository {
    name: String,
    path: PathBuf,
    kind: Kind,
    verify: Verify,
    limits: Limits,
    worker: Mutex<Attached>,
    state: Mutex<State>,
    identities: Arc<Mutex<Identities>>,
}

/// The thread that asks.
struct Attached {
    worker: Arc<Worker>,
    /// The mount that it waits for, or hangs in, since it was last asked and did not answer at once.
    hangs_in: Option<Option<String>>,
    /// When an automount that a request waited for failed, if none has worked since.
    mount_failed: Option<Instant>,
}

/// Identities found in one revision.
#[derive(Default)]
struct Identities {
    revision: Option<String>,
    known: HashMap<Digest, String>,
}

/// What is asked about a layer.
#[derive(Debug, Clone, Copy)]
pub struct Question {
    /// Which layer.
    pub layer: Digest,
    /// Whether what the publisher recorded of it is wanted.
    pub records: bool,
}

/// A layer that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Present {
    /// What identifies its content.
    pub identity: String,
    /// The diff ID that the publisher recorded, if it was asked for and is known.
    pub diff_id: Result<Option<Digest>, Fault>,
    /// Whether the publisher recorded directories that the archive leaves out: what the layers below have counts there,
    /// which a layer in place cannot show. False if it was not asked for.
    pub leaves_out_directories: bool,
}

/// The answer about one layer: there, not there, or trouble with this layer alone.
pub type Answer = Result<Option<Present>, Fault>;

impl Repository {
    /// A repository; nothing is asked of it yet.
    pub fn new(name: String, path: PathBuf, kind: Kind, verify: Verify, limits: Limits) -> std::io::Result<Self> {
        let worker =
            Mutex::new(Attached { worker: Arc::new(Worker::start(&name)?), hangs_in: None, mount_failed: None });
        let state = Mutex::new(State::Unknown);
        Ok(Self { name, path, kind, verify, limits, worker, state, identities: Arc::default() })
    }

    /// Whether it is what such a configuration asks for.
    pub fn is(&self, name: &str, path: &Path, kind: Kind, verify: Verify, limits: Limits) -> bool {
        (self.name.as_str(), self.path.as_path(), self.kind, self.verify, self.limits)
            == (name, path, kind, verify, limits)
    }

    /// Its name in the configuration.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The directory that `.layers` is in.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether its layers are compared with the chain ID.
    pub fn verify(&self) -> Verify {
        self.verify
    }

    /// What it answered last.
    pub fn state(&self) -> State {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The directory of a layer in it, whether it is there or not.
    pub fn layer_directory(&self, layer: Digest) -> PathBuf {
        self.path.join(layout::layerfs(layer))
    }

    /// Whether a path lies in this repository.
    pub fn contains(&self, path: &Path) -> bool {
        path.starts_with(&self.path)
    }

    /// Asks whether it is healthy. Blocks, within the time limit.
    ///
    /// An automount that fails meanwhile counts for nothing: at the start of a machine its network may not be there yet.
    pub fn probe(&self) -> Result<(), Fault> {
        self.try_ask(Vec::new(), Instant::now()).map(|_| ())
    }

    /// Asks about layers; the answers are in the order of the questions. Blocks, within the time limit.
    ///
    /// `deadline`: until when a slow repository that makes progress is waited for.
    pub fn ask(&self, questions: Vec<Question>, deadline: Instant) -> Result<Vec<Answer>, Fault> {
        let result = self.try_ask(questions, deadline);
        if result.is_err() && automount::is_automount(&self.path) {
            self.attached().mount_failed.get_or_insert_with(Instant::now);
        }
        result
    }

    fn try_ask(&self, questions: Vec<Question>, deadline: Instant) -> Result<Vec<Answer>, Fault> {
        let questions: Arc<[Question]> = questions.into();
        let job = || {
            let (name, path, kind) = (self.name.clone(), self.path.clone(), self.kind);
            let (identities, questions) = (self.identities.clone(), questions.clone());
            move |progress: &Progress| answer(&name, &path, kind, &questions, &identities, progress)
        };
        let soon = self.limits.probe / 4;
        let worker = self.worker();
        let mut result = worker.call(soon, || self.step_limit(), deadline, job());
        // Or another one of those who waited has noticed it first.
        let has_changed = || self.is_mounted_anew() || !Arc::ptr_eq(&worker, &self.worker());
        if matches!(result, Err(NoAnswer::Stuck(_))) && has_changed() {
            result = self.worker().call(soon, || self.step_limit(), deadline, job());
        }
        if result.is_ok() {
            self.attached().hangs_in = None;
        }
        let result = match result {
            Ok(answered) => answered,
            Err(NoAnswer::Stuck(time)) => Err(Fault::Hung(time)),
            // Nothing is wrong with it.
            Err(NoAnswer::Late(time)) => return Err(Fault::Slow(time)),
        };
        if result.is_ok() {
            self.attached().mount_failed = None;
        }
        self.note(match &result {
            Ok(_) => State::Healthy,
            Err(fault) => State::Faulty(fault.clone()),
        });
        result
    }

    /// Opens the directory of a layer for a walk. Hangs if the repository does: only for threads that may.
    pub(crate) fn open_layer(&self, layer: Digest) -> Result<OwnedFd, Fault> {
        let root = probe::open_root(&self.path, self.kind)?;
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
        root.open(&layout::layerfs(layer), flags).map_err(|e| Fault::of("open layerfs", e))
    }

    /// How long a step of a request may take that has not been answered at once.
    fn step_limit(&self) -> Duration {
        let mount = automount::look(&self.path);
        let is_automount = mount.as_ref().is_some_and(|mount| mount.is_automount);
        if !is_automount {
            self.attached().hangs_in.get_or_insert_with(|| mount.map(|mount| mount.identity));
        }
        // An automounter takes an idle repository away again, and then any request is a first one. This is looked up here
        // and not for each request: the table of mounts of a busy node is long.
        let waits = self.state() == State::Unknown || (is_automount && self.may_wait_for_mount());
        if !waits {
            return self.limits.probe;
        }
        tracing::info!(repository = self.name, path = %self.path.display(), "waiting for the repository's first answer, or for its automount");
        self.limits.first_mount.max(self.limits.probe)
    }

    fn may_wait_for_mount(&self) -> bool {
        let mut attached = self.attached();
        if attached.mount_failed.is_some_and(|at| at.elapsed() > BETWEEN_MOUNTS) {
            attached.mount_failed = None;
        }
        attached.mount_failed.is_none()
    }

    fn attached(&self) -> std::sync::MutexGuard<'_, Attached> {
        self.worker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn worker(&self) -> Arc<Worker> {
        self.attached().worker.clone()
    }

    /// Whether the worker hangs in a mount that was replaced meanwhile; then there is a new worker.
    ///
    /// A lazy unmount does not release a thread that waits for a client which is alive and does not answer: the thread is
    /// abandoned, and ends with that client.
    fn is_mounted_anew(&self) -> bool {
        let now = automount::mount_at(&self.path);
        let mut attached = self.attached();
        if attached.hangs_in.as_ref().is_none_or(|before| *before == now) {
            return false;
        }
        let Ok(worker) = Worker::start(&self.name) else { return false };
        attached.worker = Arc::new(worker);
        attached.hangs_in = None;
        tracing::info!(repository = self.name, path = %self.path.display(), "the repository was mounted again; the old mount still hangs");
        true
    }

    fn note(&self, now: State) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let same_kind = std::mem::discriminant(&*state) == std::mem::discriminant(&now);
        let changed = match (&*state, &now) {
            (State::Faulty(before), State::Faulty(after)) => {
                std::mem::discriminant(before) != std::mem::discriminant(after)
            }
            _ => !same_kind,
        };
        if changed {
            match &now {
                State::Faulty(fault) => tracing::warn!(
                    repository = self.name,
                    path = %self.path.display(),
                    remedy = fault.remedy(&self.path),
                    "repository {now}"
                ),
                _ => tracing::info!(repository = self.name, path = %self.path.display(), "repository {now}"),
            }
        }
        *state = now;
    }
}

/// On the worker's thread: the answers to all questions.
fn answer(
    name: &str,
    path: &Path,
    kind: Kind,
    questions: &[Question],
    identities: &Mutex<Identities>,
    progress: &Progress,
) -> Result<Vec<Answer>, Fault> {
    let root = probe::open_root(path, kind)?;
    progress.step();
    let mut answers = Vec::with_capacity(questions.len());
    for question in questions {
        answers.push(answer_one(name, &root, *question, identities));
        progress.step();
    }
    Ok(answers)
}

fn answer_one(name: &str, root: &probe::Root, question: Question, identities: &Mutex<Identities>) -> Answer {
    let Question { layer, records } = question;
    let Some(directory) = root.layer(layer)? else { return Ok(None) };
    let known = |identities: &Identities| {
        (root.revision.is_some() && identities.revision == root.revision)
            .then(|| identities.known.get(&layer).cloned())
            .flatten()
    };
    let found = known(&identities.lock().unwrap_or_else(PoisonError::into_inner));
    let identity = match found {
        Some(identity) => identity,
        None => {
            let identity = root.identity(name, layer, &directory)?;
            let mut identities = identities.lock().unwrap_or_else(PoisonError::into_inner);
            if identities.revision != root.revision || identities.known.len() >= MAX_IDENTITIES {
                *identities = Identities { revision: root.revision.clone(), known: HashMap::new() };
            }
            identities.known.insert(layer, identity.clone());
            identity
        }
    };
    // Not remembered: a client that is mounted with other settings shows the same content as somebody else's.
    let owner = probe::owner(&directory)?;
    let identity = format!("{identity} owner {owner}");
    let (diff_id, leaves_out_directories) = match records {
        true => (root.diff_id(layer), root.leaves_out_directories(layer)?),
        false => (Ok(None), false),
    };
    Ok(Some(Present { identity, diff_id, leaves_out_directories }))
}

#[cfg(test)]
mod tests;
