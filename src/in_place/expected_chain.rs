//! What an image says that one of its layers is, and whether a repository's layer is that.
//!
//! containerd compares diff IDs when it extracts a layer, and a layer in place is never extracted: an image could pair the
//! diff IDs of another image with any digest of the repository, and so change what everybody gets who pulls that other
//! image. So the chain ID of the parent and the recorded diff ID have to give the chain ID that is asked for.

use super::refusal::Refusal;
use crate::config::Verify;
use crate::containerd::label::{self, Labels};
use crate::digest::Digest;
use crate::repository::Fault;
use crate::state::metadata::Snapshot;

/// The chain IDs of a layer and of those below it.
pub struct ExpectedChain {
    /// Of the layer and those below; `None` if it is not known.
    target: Option<Digest>,
    parent: Parent,
}

/// The chain ID of the layers below.
#[derive(Clone, Copy)]
enum Parent {
    /// There are none.
    None,
    Known(Digest),
    Unknown,
}

impl ExpectedChain {
    /// What a request for `target` on top of `parent` says.
    pub(super) fn asked_for(target: Digest, labels: &Labels, parent: Option<&Snapshot>) -> Self {
        Self { target: Some(target), parent: Parent::of(labels, parent) }
    }

    /// What a remote snapshot on top of `parent` was asked for.
    pub fn of(snapshot: &Snapshot, parent: Option<&Snapshot>) -> Self {
        // The name that the store gave it; labels can be changed.
        let target = snapshot.name.split_once('@').and_then(|(target, _)| target.parse().ok());
        Self { target, parent: Parent::of(&snapshot.labels, parent) }
    }

    /// Whether a layer with this recorded diff ID is the one that the image names.
    pub(super) fn verify(&self, verify: Verify, diff_id: Result<Option<Digest>, Fault>) -> Result<(), Refusal> {
        if verify == Verify::Off {
            return Ok(());
        }
        let parent = match self.parent {
            Parent::None => Some(None),
            Parent::Known(parent) => Some(Some(parent)),
            Parent::Unknown => None,
        };
        match (diff_id.map_err(Refusal::Repository)?, parent, self.target) {
            (Some(diff_id), Some(parent), Some(target)) if diff_id.chain(parent) == target => Ok(()),
            (Some(diff_id), Some(_), Some(_)) => Err(Refusal::OtherDiffId(diff_id)),
            (None, ..) if verify == Verify::Required => Err(Refusal::NoDiffId),
            (Some(_), ..) if verify == Verify::Required => Err(Refusal::ParentUnknown),
            _ => Ok(()),
        }
    }
}

impl Parent {
    fn of(labels: &Labels, parent: Option<&Snapshot>) -> Self {
        let Some(parent) = parent else { return Self::None };
        let name = parent.target().or_else(|| labels.get(label::PARENT_CHAIN_ID).map(String::as_str));
        name.and_then(|name| name.parse().ok()).map_or(Self::Unknown, Self::Known)
    }
}
