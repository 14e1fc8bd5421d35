//! The configured repositories, in the order in which they are searched.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use super::error::{Cause, Unavailable};
use crate::digest::Digest;
use crate::markers::Finder;
use crate::repository::{Question, Repository, State};

/// A repository and the marker plans of its layers.
pub(super) struct Site {
    pub repository: Arc<Repository>,
    pub finder: Finder,
}

impl Site {
    fn new(repository: Arc<Repository>) -> Arc<Self> {
        Arc::new(Self { finder: Finder::new(repository.clone()), repository })
    }
}

/// All repositories.
pub struct Sites(Vec<Arc<Site>>);

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

    pub(super) fn iter(&self) -> impl Iterator<Item = &Site> {
        self.0.iter().map(|site| &**site)
    }

    /// Whether the repository that a link leads to answered when it was last asked; true if it was not asked yet.
    pub(super) fn is_healthy(&self, link: &Path) -> bool {
        let site = self.0.iter().find(|site| site.repository.contains(link));
        site.is_some_and(|site| !matches!(site.repository.state(), State::Troubled(_)))
    }

    /// Finds layers: first where their links lead to, then in the order of the configuration.
    ///
    /// `wanted`: the layers, each with where its link leads to now.
    pub(super) fn locate<'a>(
        &'a self,
        wanted: &[(Digest, Option<std::path::PathBuf>)],
    ) -> Result<HashMap<Digest, Located<'a>>, Box<Unavailable>> {
        let mut found = HashMap::new();
        let mut asked: Vec<(Digest, usize)> = Vec::new();
        let mut causes: HashMap<(Digest, usize), Cause> = HashMap::new();
        let preferred = |site: &Site, link: &Option<std::path::PathBuf>| {
            link.as_deref().is_some_and(|link| site.repository.contains(link))
        };
        for only_preferred in [true, false] {
            for (index, site) in self.0.iter().enumerate() {
                let layers: Vec<Digest> = wanted
                    .iter()
                    .filter(|(layer, link)| {
                        !found.contains_key(layer)
                            && !asked.contains(&(*layer, index))
                            && (!only_preferred || preferred(site, link))
                    })
                    .map(|(layer, _)| *layer)
                    .collect();
                if layers.is_empty() {
                    continue;
                }
                asked.extend(layers.iter().map(|layer| (*layer, index)));
                let questions = layers.iter().map(|layer| Question { layer: *layer, diff_id: false }).collect();
                match site.repository.ask(questions) {
                    Err(trouble) => {
                        causes.extend(layers.iter().map(|layer| ((*layer, index), Cause::Trouble(trouble.clone()))));
                    }
                    Ok(answers) => {
                        for (layer, answer) in layers.into_iter().zip(answers) {
                            match answer {
                                Ok(Some(present)) => {
                                    found.insert(layer, Located { site, identity: present.identity });
                                }
                                Ok(None) => drop(causes.insert((layer, index), Cause::Missing)),
                                Err(trouble) => drop(causes.insert((layer, index), Cause::Trouble(trouble))),
                            }
                        }
                    }
                }
            }
        }
        let Some((layer, _)) = wanted.iter().find(|(layer, _)| !found.contains_key(layer)) else {
            return Ok(found);
        };
        let causes = self.0.iter().enumerate().filter_map(|(index, site)| {
            let cause = causes.remove(&(*layer, index))?;
            Some((site.repository.name().to_owned(), site.repository.path().to_owned(), cause))
        });
        Err(Box::new(Unavailable { layer: *layer, causes: causes.collect() }))
    }
}
