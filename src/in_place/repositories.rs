//! The configured repositories, in the order in which they are searched.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::error::{Cause, Unavailable};
use super::remote::Named;
use crate::digest::Digest;
use crate::markers::Finder;
use crate::repository::{Question, Repository, State, Verify};

/// A repository and the marker plans of its layers.
pub(super) struct Site {
    pub repository: Arc<Repository>,
    pub finder: Finder,
    /// Whether somebody looks ahead.
    ahead: AtomicBool,
}

/// Looks ahead in a repository, which one thread does at a time: all images share the one that asks the repository.
pub(super) struct Ahead(pub Arc<Site>);

impl Ahead {
    /// Begins, unless somebody does it already.
    pub(super) fn begin(site: &Arc<Site>) -> Option<Self> {
        (!site.ahead.swap(true, Ordering::Acquire)).then(|| Self(site.clone()))
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.0.ahead.store(false, Ordering::Release);
    }
}

impl Site {
    fn new(repository: Arc<Repository>) -> Arc<Self> {
        Arc::new(Self { finder: Finder::new(repository.clone()), repository, ahead: AtomicBool::default() })
    }
}

/// All repositories.
pub struct Sites(Vec<Arc<Site>>);

/// A layer that is looked for.
pub(super) struct Wanted {
    pub layer: Digest,
    /// Where its link leads to now.
    pub link: Option<PathBuf>,
    /// What the chain says that it is.
    pub named: Named,
}

/// A layer that was found.
#[derive(Clone)]
pub(super) struct Located<'a> {
    pub site: &'a Site,
    /// What identifies its content.
    pub identity: String,
}

impl Sites {
    /// The repositories, in the order in which they are to be searched.
    pub fn new(repositories: Vec<Arc<Repository>>) -> Self {
        Self(repositories.into_iter().map(Site::new).collect())
    }

    /// Other repositories, some of which may be among these: of those everything that is known stays known.
    #[must_use]
    pub fn change(&self, repositories: Vec<Arc<Repository>>) -> Self {
        let known = |repository: &Arc<Repository>| self.0.iter().find(|site| Arc::ptr_eq(&site.repository, repository));
        let site = |repository| known(&repository).cloned().unwrap_or_else(|| Site::new(repository));
        Self(repositories.into_iter().map(site).collect())
    }

    /// The repositories, in the order in which they are searched.
    pub fn repositories(&self) -> impl Iterator<Item = &Arc<Repository>> {
        self.0.iter().map(|site| &site.repository)
    }

    /// Asks every repository once, in the background, so that automounts are triggered and the log says what is wrong.
    pub fn probe_all(&self) {
        for site in &self.0 {
            let repository = site.repository.clone();
            let name = format!("probe {}", repository.name());
            let probe = move || drop(repository.probe());
            if let Err(error) = std::thread::Builder::new().name(name).spawn(probe) {
                tracing::warn!(%error, "cannot probe a repository at start; it is asked when it is needed");
            }
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Site>> {
        self.0.iter()
    }

    /// Whether the repository that a link leads to answered when it was last asked; true if it was not asked yet.
    pub(super) fn is_healthy(&self, link: &Path) -> bool {
        let site = self.0.iter().find(|site| site.repository.contains(link));
        site.is_some_and(|site| !matches!(site.repository.state(), State::Troubled(_)))
    }

    /// Finds layers: first where their links lead to, then in the order of the configuration.
    ///
    /// What the link leads to was compared with the chain when it was made. Every other place is compared now, as it
    /// would be for a new snapshot: a repository that was refused then must not step in when the right one is away.
    pub(super) fn locate<'a>(
        &'a self,
        wanted: &[Wanted],
        deadline: Instant,
    ) -> Result<HashMap<Digest, Located<'a>>, Box<Unavailable>> {
        let mut found = HashMap::new();
        let mut asked: Vec<(Digest, usize)> = Vec::new();
        let mut causes: HashMap<(Digest, usize), Cause> = HashMap::new();
        let is_linked = |site: &Site, wanted: &Wanted| {
            wanted.link.as_deref().is_some_and(|link| link == site.repository.layer_directory(wanted.layer))
        };
        for only_linked in [true, false] {
            for (index, site) in self.0.iter().enumerate() {
                let layers: Vec<&Wanted> = wanted
                    .iter()
                    .filter(|wanted| {
                        !found.contains_key(&wanted.layer)
                            && !asked.contains(&(wanted.layer, index))
                            && (!only_linked || is_linked(site, wanted))
                    })
                    .collect();
                if layers.is_empty() {
                    continue;
                }
                asked.extend(layers.iter().map(|wanted| (wanted.layer, index)));
                let verify = if only_linked { Verify::Off } else { site.repository.verify() };
                let question = |wanted: &&Wanted| Question { layer: wanted.layer, records: verify != Verify::Off };
                let answers = match site.repository.ask(layers.iter().map(question).collect(), deadline) {
                    Ok(answers) => answers,
                    Err(trouble) => {
                        let trouble = |wanted: &Wanted| ((wanted.layer, index), Cause::Trouble(trouble.clone()));
                        causes.extend(layers.into_iter().map(trouble));
                        continue;
                    }
                };
                for (Wanted { layer, named, .. }, answer) in layers.into_iter().zip(answers) {
                    let cause = match answer {
                        Ok(Some(present)) => match named.verify(verify, present.diff_id) {
                            Ok(()) => {
                                found.insert(*layer, Located { site, identity: present.identity });
                                continue;
                            }
                            Err(reason) => Cause::Layer(reason),
                        },
                        Ok(None) => Cause::Missing,
                        Err(trouble) => Cause::Trouble(trouble),
                    };
                    causes.insert((*layer, index), cause);
                }
            }
        }
        let Some(Wanted { layer, .. }) = wanted.iter().find(|wanted| !found.contains_key(&wanted.layer)) else {
            return Ok(found);
        };
        let causes = self.0.iter().enumerate().filter_map(|(index, site)| {
            let cause = causes.remove(&(*layer, index))?;
            Some((site.repository.name().to_owned(), site.repository.path().to_owned(), cause))
        });
        Err(Box::new(Unavailable { layer: *layer, causes: causes.collect() }))
    }
}
