//! The plan of a layer: from memory, from the store, or by looking for the layer's deletions.

use std::sync::Arc;
use std::time::Instant;

use crate::digest::Digest;
use crate::in_place::LayerLocation;
use crate::markers::WalkError;
use crate::overlay::plan::Plan;
use crate::overlay::stack::{Layer, Remote};
use crate::state::State;
use crate::state::metadata::{self, Reader, Snapshot, StoredPlan};

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub(super) enum PlanError {
    #[error(transparent)]
    Walk(#[from] WalkError),
    #[error(transparent)]
    Metadata(#[from] metadata::Error),
}

/// The plan of a layer. Blocks until `deadline` if its deletions have to be found.
pub(super) fn plan(
    state: &State,
    layer: Digest,
    at: &LayerLocation<'_>,
    deadline: Instant,
) -> Result<Arc<Plan>, PlanError> {
    let plans = &at.source.plans;
    if let Some(plan) = plans.known(layer, &at.identity) {
        return Ok(plan);
    }
    let stored = state.metadata.read()?.plan(layer)?;
    if let Some(plan) = stored.as_ref().filter(|stored| stored.identity == at.identity).and_then(StoredPlan::decode) {
        let plan = Arc::new(plan);
        plans.remember(layer, &at.identity, plan.clone());
        return Ok(plan);
    }
    let plan = plans.find(layer, &at.identity, deadline)?;
    if stored.is_some() {
        // The layer is in use, and its content has another identity than before.
        state.metadata.replace_plan(layer, &StoredPlan::new(at.identity.clone(), &plan))?;
    }
    Ok(plan)
}

/// A remote layer in the stack, with the directories that can be made for it here.
pub(super) fn stacked(state: &State, id: u64, layer: Digest, plan: &Plan) -> Layer {
    let mut shape = plan.shape();
    shape.seal &= state.directories.has_seals();
    Layer { id, remote: Some(Remote { layer, shape }) }
}

/// The layers of a chain as far as they are known without asking a repository, to tell whether its stack fits.
pub(super) fn estimate(state: &State, reader: &Reader, chain: &[Snapshot]) -> Result<Vec<Layer>, metadata::Error> {
    let layer = |snapshot: &Snapshot| {
        let Some(layer) = snapshot.remote_layer() else { return Ok(Layer { id: snapshot.id, remote: None }) };
        let mut shape = reader.shape(layer)?.unwrap_or_default();
        shape.seal &= state.directories.has_seals();
        Ok(Layer { id: snapshot.id, remote: Some(Remote { layer, shape }) })
    };
    chain.iter().map(layer).collect()
}
