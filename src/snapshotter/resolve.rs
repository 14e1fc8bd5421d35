//! From the chain of a snapshot to the layers of its stack, with everything in place on the disk.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::error::Error;
use super::plans::{PlanError, plan, stacked};
use crate::digest::Digest;
use crate::in_place::{Cause, ExpectedChain, LayerLocation, LayerQuery, Repositories, Unavailable};
use crate::markers::WalkError;
use crate::overlay::stack::Layer;
use crate::state::State;
use crate::state::metadata::Snapshot;

/// What a chain is resolved with.
pub(super) struct Resolver<'a> {
    pub state: &'a State,
    pub repositories: &'a Repositories,
    pub limit: Duration,
}

/// A chain that can be mounted.
pub(super) struct Resolved {
    /// Its layers, nearest first.
    pub layers: Vec<Layer>,
    /// The owner of the root of the nearest layer; `None` if there is none.
    pub owner: Option<(u32, u32)>,
}

impl Resolver<'_> {
    /// Makes sure that every snapshot of the chain (nearest first) has its files, and says what they are.
    ///
    /// Links, covers, seals and erases that are missing or lead elsewhere are made again.
    pub(super) fn resolve(&self, chain: &[Snapshot]) -> Result<Resolved, Error> {
        let State { directories, .. } = self.state;
        let mut owner = None;
        let mut queries = Vec::new();
        for (depth, snapshot) in chain.iter().enumerate() {
            match snapshot.remote_layer() {
                Some(layer) => {
                    let expected = ExpectedChain::of(snapshot, chain.get(depth + 1));
                    queries.push(LayerQuery { layer, link: directories.link(snapshot.id), expected });
                }
                None => {
                    let of = directories.check_local(snapshot.id)?;
                    if queries.is_empty() {
                        owner.get_or_insert(of);
                    }
                }
            }
        }
        let deadline = Instant::now() + self.limit;
        // A repeated layer is asked about once.
        let mut seen = HashSet::new();
        queries.retain(|query| seen.insert(query.layer));
        let located = if queries.is_empty() {
            Default::default()
        } else {
            self.repositories.locate(&queries, deadline).map_err(Error::Unavailable)?
        };
        let mut layers = Vec::with_capacity(chain.len());
        let mut used = HashSet::new();
        for snapshot in chain {
            let Some(layer) = snapshot.remote_layer() else {
                layers.push(Layer { id: snapshot.id, remote: None });
                continue;
            };
            let at = &located[&layer];
            let plan = plan(self.state, layer, at, deadline).map_err(|error| unavailable(layer, at, &error))?;
            let is_top_most = used.is_empty();
            if used.insert(layer) {
                directories.ensure_link(snapshot.id, &at.source.repository.layer_directory(layer))?;
                directories.ensure_overlay_directories(snapshot.id, &plan, is_top_most)?;
            }
            owner.get_or_insert((plan.root.uid, plan.root.gid));
            layers.push(stacked(self.state, snapshot.id, layer, &plan));
        }
        Ok(Resolved { layers, owner })
    }
}

fn unavailable(layer: Digest, at: &LayerLocation<'_>, error: &PlanError) -> Error {
    let repository = &at.source.repository;
    let cause = match error {
        PlanError::Walk(WalkError::Repository(fault)) => Cause::Fault(fault.clone()),
        PlanError::Walk(error) => Cause::Markers(error.clone()),
        PlanError::Metadata(error) => Cause::LocalDisk(error.to_string()),
    };
    let causes = vec![(repository.name().to_owned(), repository.path().to_owned(), cause)];
    Error::Unavailable(Box::new(Unavailable { layer, causes }))
}
