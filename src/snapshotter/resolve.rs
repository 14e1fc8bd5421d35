//! From the snapshots that one stands on to the layers of its stack, with everything in place on the disk.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use super::Snapshotter;
use super::error::{Cause, Error, Unavailable};
use super::remote::Named;
use super::sites::{Located, Wanted};
use crate::digest::Digest;
use crate::markers::{Plan, WalkError};
use crate::stack::{Layer, Remote};
use crate::store::{Snapshot, StoredPlan};

/// A chain that can be mounted.
pub(super) struct Resolved {
    /// Its layers, nearest first.
    pub layers: Vec<Layer>,
    /// The owner of the root of the nearest layer; `None` if there is none.
    pub owner: Option<(u32, u32)>,
}

impl Snapshotter {
    /// Makes sure that every snapshot of the chain (nearest first) has its files, and says what they are.
    ///
    /// Links, covers, seals and erases that are missing or lead elsewhere are made again.
    pub(super) fn resolve(&self, chain: &[Snapshot]) -> Result<Resolved, Error> {
        let mut owner = None;
        let mut wanted = Vec::new();
        for (depth, snapshot) in chain.iter().enumerate() {
            match snapshot.remote_layer() {
                Some(layer) => {
                    let named = Named::of(snapshot, chain.get(depth + 1));
                    wanted.push(Wanted { layer, link: self.tree.link(snapshot.id), named });
                }
                None => {
                    let of = self.tree.check_local(snapshot.id)?;
                    if wanted.is_empty() {
                        owner.get_or_insert(of);
                    }
                }
            }
        }
        let sites = self.sites();
        let deadline = Instant::now() + self.marker_limit;
        // A repeated layer is asked about once.
        let mut seen = HashSet::new();
        wanted.retain(|wanted| seen.insert(wanted.layer));
        let located = if wanted.is_empty() {
            Default::default()
        } else {
            sites.locate(&wanted, deadline).map_err(Error::Unavailable)?
        };
        let mut layers = Vec::with_capacity(chain.len());
        let mut used = HashSet::new();
        for snapshot in chain {
            let Some(layer) = snapshot.remote_layer() else {
                layers.push(Layer { id: snapshot.id, remote: None });
                continue;
            };
            let at = &located[&layer];
            let plan = self.plan(layer, at, deadline).map_err(|error| unavailable(layer, at, &error))?;
            let is_top_most = used.is_empty();
            if used.insert(layer) {
                self.tree.ensure_link(snapshot.id, &at.site.repository.layer_directory(layer))?;
                self.tree.ensure_extras(snapshot.id, &plan, is_top_most)?;
            }
            owner.get_or_insert((plan.root.uid, plan.root.gid));
            layers.push(self.layer(snapshot.id, layer, &plan));
        }
        Ok(Resolved { layers, owner })
    }

    /// A remote layer in the stack, with the directories that can be made for it here.
    pub(super) fn layer(&self, id: u64, layer: Digest, plan: &Plan) -> Layer {
        let mut shape = plan.shape();
        shape.seal &= self.tree.has_seals();
        Layer { id, remote: Some(Remote { layer, shape }) }
    }

    /// The marker plan of a layer: from memory, from the store, or by a walk through the layer.
    pub(super) fn plan(&self, layer: Digest, at: &Located<'_>, deadline: Instant) -> Result<Arc<Plan>, PlanError> {
        let finder = &at.site.finder;
        if let Some(plan) = finder.known(layer, &at.identity) {
            return Ok(plan);
        }
        let stored = self.store.read()?.plan(layer)?;
        if let Some(plan) = stored.as_ref().filter(|s| s.identity == at.identity).and_then(|s| Plan::decode(&s.bytes)) {
            let plan = Arc::new(plan);
            finder.remember(layer, &at.identity, plan.clone());
            return Ok(plan);
        }
        let plan = finder.find(layer, &at.identity, deadline)?;
        if stored.is_some() {
            // The layer is in use, and its content has another identity than before.
            self.store.replace_plan(layer, &StoredPlan { identity: at.identity.clone(), bytes: plan.encode() })?;
        }
        Ok(plan)
    }

    /// The shapes of the chain's layers as far as they are known without asking a repository, for an estimate.
    pub(super) fn estimate(&self, chain: &[Snapshot]) -> Result<Vec<Layer>, Error> {
        let reader = self.store.read()?;
        let layer = |snapshot: &Snapshot| {
            let Some(layer) = snapshot.remote_layer() else { return Ok(Layer { id: snapshot.id, remote: None }) };
            let plan = reader.plan(layer)?.and_then(|stored| Plan::decode(&stored.bytes)).unwrap_or_default();
            Ok(self.layer(snapshot.id, layer, &plan))
        };
        chain.iter().map(layer).collect()
    }
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub(super) enum PlanError {
    #[error(transparent)]
    Walk(#[from] WalkError),
    #[error(transparent)]
    Store(#[from] crate::store::Error),
}

fn unavailable(layer: Digest, at: &Located<'_>, error: &PlanError) -> Error {
    let repository = &at.site.repository;
    let cause = match error {
        PlanError::Walk(WalkError::Repository(trouble)) => Cause::Trouble(trouble.clone()),
        other => Cause::Layer(format!("serves it in a way that cannot be used: {other}")),
    };
    let causes = vec![(repository.name().to_owned(), repository.path().to_owned(), cause)];
    Error::Unavailable(Box::new(Unavailable { layer, causes }))
}
