//! What an image says that one of its layers is, and whether a repository's layer is that.
//!
//! containerd compares diff IDs when it extracts a layer, and a layer in place is never extracted: an image could pair the
//! diff IDs of another image with any digest of the repository, and so change what everybody gets who pulls that other
//! image. So the chain ID of the parent and the recorded diff ID have to give the chain ID that is asked for.

use crate::config::Verify;
use crate::containerd::label::{self, Labels};
use crate::digest::Digest;
use crate::repository::Fault;
use crate::state::metadata::Snapshot;

/// A repository's layer is not the one that the image names, or this cannot be told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// The layer is another one.
    #[error(
        "has it with the diff ID {0}, which is not the one that the image names: the image does not fit its layers, or layers.json of the repository is wrong"
    )]
    OtherDiffId(Digest),
    /// The configuration asks for a diff ID, and there is none.
    #[error("records no diff ID for it, and the configuration requires one")]
    NoDiffId,
    /// The configuration asks for a comparison, and there is nothing to compare with.
    #[error("cannot be compared with the image: the chain ID of the parent is not known")]
    ParentUnknown,
    /// The record cannot be read.
    #[error("{0}")]
    Unreadable(Fault),
}

impl Mismatch {
    /// Its short name, which never changes: for metrics and scripts.
    pub fn name(&self) -> &'static str {
        match self {
            Self::OtherDiffId(_) => "other-diff-id",
            Self::NoDiffId => "no-diff-id",
            Self::ParentUnknown => "parent-unknown",
            Self::Unreadable(fault) => fault.name(),
        }
    }
}

/// The chain IDs of a layer and of those below it.
#[derive(Debug, Clone, Copy)]
pub struct ExpectedChain {
    /// Of the layer and those below; `None` if it is not known.
    target: Option<Digest>,
    parent: Parent,
}

/// The chain ID of the layers below.
#[derive(Debug, Clone, Copy)]
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
    pub(super) fn verify(&self, verify: Verify, diff_id: Result<Option<Digest>, Fault>) -> Result<(), Mismatch> {
        if verify == Verify::Off {
            return Ok(());
        }
        let parent = match self.parent {
            Parent::None => Some(None),
            Parent::Known(parent) => Some(Some(parent)),
            Parent::Unknown => None,
        };
        match (diff_id.map_err(Mismatch::Unreadable)?, parent, self.target) {
            (Some(diff_id), Some(parent), Some(target)) if diff_id.chain(parent) == target => Ok(()),
            (Some(diff_id), Some(_), Some(_)) => Err(Mismatch::OtherDiffId(diff_id)),
            (None, ..) if verify == Verify::Required => Err(Mismatch::NoDiffId),
            (Some(_), ..) if verify == Verify::Required => Err(Mismatch::ParentUnknown),
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
