//! The configured repositories, in the order in which they are searched.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use super::expected_chain::ExpectedChain;
use super::unavailable::{Cause, Unavailable};
use crate::config::Verify;
use crate::digest::Digest;
use crate::markers::PlanCache;
use crate::repository::{Question, Repository, State};

/// One source of layers: a repository and the plans of its layers.
pub struct Source {
    /// Where the layers lie.
    pub repository: Arc<Repository>,
    /// What is known of its layers' deletions.
    pub plans: PlanCache,
    /// Whether somebody looks ahead.
    pub(super) looks_ahead: AtomicBool,
}

impl Source {
    fn new(repository: Arc<Repository>) -> Arc<Self> {
        Arc::new(Self { plans: PlanCache::new(repository.clone()), repository, looks_ahead: AtomicBool::default() })
    }
}

/// The repositories of one configuration.
pub struct Repositories(Vec<Arc<Source>>);

/// The repositories in use, which a reload exchanges. A request takes them anew before each of its steps, so that it does
/// not wait for one that was taken out meanwhile.
pub struct Current(RwLock<Arc<Repositories>>);

impl Current {
    /// Begins with these.
    pub fn new(repositories: Repositories) -> Self {
        Self(RwLock::new(Arc::new(repositories)))
    }

    /// Those in use at this moment.
    pub fn get(&self) -> Arc<Repositories> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Uses others from now on. Snapshots whose layers have moved with them are found again by digest.
    pub fn set(&self, repositories: Repositories) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(repositories);
    }
}

/// A layer that is looked for.
pub struct LayerQuery {
    /// Which layer.
    pub layer: Digest,
    /// Where its link leads to now.
    pub link: Option<PathBuf>,
    /// What the image says that it is.
    pub expected: ExpectedChain,
}

/// A layer that was found.
#[derive(Clone)]
pub struct LayerLocation<'a> {
    /// Where it lies.
    pub source: &'a Source,
    /// What identifies its content.
    pub identity: String,
}

impl Repositories {
    /// The repositories, in the order in which they are to be searched.
    pub fn new(repositories: Vec<Arc<Repository>>) -> Self {
        Self(repositories.into_iter().map(Source::new).collect())
    }

    /// Replaces the repositories. What is known of those that stay is kept.
    #[must_use]
    pub fn change(&self, repositories: Vec<Arc<Repository>>) -> Self {
        let known =
            |repository: &Arc<Repository>| self.0.iter().find(|source| Arc::ptr_eq(&source.repository, repository));
        let source = |repository| known(&repository).cloned().unwrap_or_else(|| Source::new(repository));
        Self(repositories.into_iter().map(source).collect())
    }

    /// The repositories, in the order in which they are searched.
    pub fn repositories(&self) -> impl Iterator<Item = &Arc<Repository>> {
        self.0.iter().map(|source| &source.repository)
    }

    /// Asks every repository once, in the background, so that automounts are triggered and the log says what is wrong.
    pub fn probe_all(&self) {
        for source in &self.0 {
            let repository = source.repository.clone();
            let name = format!("probe {}", repository.name());
            let probe = move || drop(repository.probe());
            if let Err(error) = std::thread::Builder::new().name(name).spawn(probe) {
                tracing::warn!(%error, "cannot probe a repository at start; it is asked when it is needed");
            }
        }
    }

    /// The sources, in the order in which they are searched.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Source>> {
        self.0.iter()
    }

    /// Forgets what is known of a layer that nothing uses any more.
    pub fn forget(&self, layer: Digest) {
        for source in &self.0 {
            source.plans.forget(layer);
        }
    }

    /// Whether the repository that a link leads to answered when it was last asked; true if it was not asked yet.
    pub fn is_healthy(&self, link: &Path) -> bool {
        let source = self.0.iter().find(|source| source.repository.contains(link));
        source.is_some_and(|source| !matches!(source.repository.state(), State::Faulty(_)))
    }

    /// Finds layers: first where their links lead to, then in the order of the configuration.
    ///
    /// What the link leads to was compared with the chain when it was made. Every other place is compared now, as it
    /// would be for a new snapshot: a repository that was refused then must not step in when the right one is away.
    pub fn locate<'a>(
        &'a self,
        queries: &[LayerQuery],
        deadline: Instant,
    ) -> Result<HashMap<Digest, LayerLocation<'a>>, Box<Unavailable>> {
        let mut found = HashMap::new();
        let mut asked: Vec<(Digest, usize)> = Vec::new();
        let mut causes: HashMap<(Digest, usize), Cause> = HashMap::new();
        let is_linked = |source: &Source, query: &LayerQuery| {
            query.link.as_deref().is_some_and(|link| link == source.repository.layer_directory(query.layer))
        };
        for only_linked in [true, false] {
            for (index, source) in self.0.iter().enumerate() {
                let layers: Vec<&LayerQuery> = queries
                    .iter()
                    .filter(|query| {
                        !found.contains_key(&query.layer)
                            && !asked.contains(&(query.layer, index))
                            && (!only_linked || is_linked(source, query))
                    })
                    .collect();
                if layers.is_empty() {
                    continue;
                }
                asked.extend(layers.iter().map(|query| (query.layer, index)));
                let verify = if only_linked { Verify::Off } else { source.repository.verify() };
                let question = |query: &&LayerQuery| Question { layer: query.layer, records: verify != Verify::Off };
                let answers = match source.repository.ask(layers.iter().map(question).collect(), deadline) {
                    Ok(answers) => answers,
                    Err(fault) => {
                        let fault = |query: &LayerQuery| ((query.layer, index), Cause::Fault(fault.clone()));
                        causes.extend(layers.into_iter().map(fault));
                        continue;
                    }
                };
                for (query, answer) in layers.into_iter().zip(answers) {
                    let LayerQuery { layer, expected, .. } = query;
                    let cause = match answer {
                        Ok(Some(present)) => match expected.verify(verify, present.diff_id) {
                            Ok(()) => {
                                found.insert(*layer, LayerLocation { source, identity: present.identity });
                                continue;
                            }
                            Err(mismatch) => Cause::Mismatch(mismatch),
                        },
                        Ok(None) => Cause::Missing,
                        Err(fault) => Cause::Fault(fault),
                    };
                    causes.insert((*layer, index), cause);
                }
            }
        }
        let Some(LayerQuery { layer, .. }) = queries.iter().find(|query| !found.contains_key(&query.layer)) else {
            return Ok(found);
        };
        let causes = self.0.iter().enumerate().filter_map(|(index, source)| {
            let cause = causes.remove(&(*layer, index))?;
            Some((source.repository.name().to_owned(), source.repository.path().to_owned(), cause))
        });
        Err(Box::new(Unavailable { layer: *layer, causes: causes.collect() }))
    }
}
