//! Every reason why a layer is downloaded although it might lie in a repository.

use std::fmt;
use std::sync::Arc;

use super::expected_chain::Mismatch;
use super::unavailable::Unavailable;
use crate::containerd::label;
use crate::digest::{Digest, InvalidDigest};
use crate::markers::WalkError;
use crate::overlay::mount::TooLarge;
use crate::repository::Fault;
use crate::state::directories;

/// One reason. Where it is about a repository, its text continues a sentence that begins with the repository's name.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Refusal {
    /// containerd or its client is not configured to say which layer it wants.
    #[error(
        "the client sent no label {}: compare containerd's configuration with what `containerd-config` prints",
        label::LAYER_DIGEST
    )]
    NoDigest,
    /// The label is malformed.
    #[error("label {label}: {0}", label = label::LAYER_DIGEST)]
    InvalidDigest(InvalidDigest),
    /// There is nowhere to look.
    #[error("no repository is configured")]
    NoRepository,
    /// The repository is healthy and does not have the layer.
    #[error("does not have it")]
    Missing,
    /// The repository, or the layer in it, cannot be used now.
    #[error("{0}")]
    Repository(Fault),
    /// The layer is not what the image says, or this cannot be told.
    #[error("{0}")]
    Mismatch(#[from] Mismatch),
    /// The layers below matter where the archive of this one is silent.
    #[error(
        "has it, but its archive leaves out directories: their owners, modes and times are those of the layers below, which a layer in place cannot show"
    )]
    UnlistedDirectories,
    /// It is not known which files it deletes.
    #[error("has it, but {0}")]
    Markers(WalkError),
    /// overlayfs would not take the image.
    #[error("has it, but the image has too many layers to use it in place: {0}")]
    TooManyLayers(TooLarge),
    /// The state directory's file system cannot hold what hides its deleted files.
    #[error("has it, but what hides its deleted files cannot be made: {0}")]
    CannotHide(Arc<directories::Error>),
    /// Another layer is in place for the same chain ID already, and cannot be used now.
    #[error("{0}")]
    ExistingUnavailable(Arc<Unavailable>),
    /// Another layer is in place for the same chain ID already, and it is not proved that it is the same.
    #[error("layer {layer} is in place for it already; repository {repository:?} {why}")]
    ExistingUnproved {
        /// That layer.
        layer: Digest,
        /// Where it lies.
        repository: String,
        /// Why not.
        why: Box<Refusal>,
    },
    /// See [`Refusal::ExistingUnproved`].
    #[error("has no record of its diff ID that would prove that it is the same")]
    NoProof,
}

impl Refusal {
    /// The short name of the reason, which never changes: for metrics and scripts.
    pub fn name(&self) -> &'static str {
        match self {
            Self::NoDigest => "no-layer-digest",
            Self::InvalidDigest(_) => "invalid-layer-digest",
            Self::NoRepository => "no-repository",
            Self::Missing => "not-published",
            Self::Repository(fault) => fault.name(),
            Self::Mismatch(mismatch) => mismatch.name(),
            Self::UnlistedDirectories => "unlisted-directories",
            Self::Markers(error) => error.name(),
            Self::TooManyLayers(_) => "too-many-layers",
            Self::CannotHide(_) => "local-disk",
            Self::ExistingUnavailable(_) => "existing-unavailable",
            Self::ExistingUnproved { .. } | Self::NoProof => "existing-unproved",
        }
    }
}

/// Why a layer is downloaded: one reason of its own, or one for each repository in the order of the search.
#[derive(Debug, Clone)]
pub enum Refusals {
    /// It was not searched for.
    Request(Refusal),
    /// Each repository's name and reason; never empty.
    Repositories(Vec<(String, Refusal)>),
}

impl Refusals {
    /// The reasons of the repositories that were searched.
    pub fn of_repositories(reasons: Vec<(String, Refusal)>) -> Self {
        if reasons.is_empty() { Self::Request(Refusal::NoRepository) } else { Self::Repositories(reasons) }
    }

    /// Whether a layer that is in place already is what cannot be used: an operator should look at it.
    pub fn concerns_existing(&self) -> bool {
        matches!(self, Self::Request(Refusal::ExistingUnavailable(_) | Refusal::ExistingUnproved { .. }))
    }

    /// The short name of the reason that counts: of several repositories, the first that has more to say than that it
    /// lacks the layer.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Request(refusal) => refusal.name(),
            Self::Repositories(reasons) => {
                let telling = reasons.iter().map(|(_, refusal)| refusal).find(|r| !matches!(r, Refusal::Missing));
                telling.unwrap_or(&Refusal::Missing).name()
            }
        }
    }
}

impl fmt::Display for Refusals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request(refusal) => refusal.fmt(f),
            Self::Repositories(reasons) => {
                for (n, (name, refusal)) in reasons.iter().enumerate() {
                    let separator = if n == 0 { "" } else { "; " };
                    write!(f, "{separator}repository {name:?} {refusal}")?;
                }
                Ok(())
            }
        }
    }
}
