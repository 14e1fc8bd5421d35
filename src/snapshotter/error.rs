//! Why a request was not carried out.

use std::path::PathBuf;

use crate::digest::Digest;
use crate::label::TooLarge as LabelsTooLarge;
use crate::repository::Trouble;
use crate::stack::TooLarge as StackTooLarge;
use crate::{store, tree};

/// A request was not carried out; what was there before is unchanged.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The metadata store refused or failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The local disk failed.
    #[error(transparent)]
    Tree(#[from] tree::Error),
    /// Too many labels.
    #[error(transparent)]
    Labels(#[from] LabelsTooLarge),
    /// An argument that makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// The answer of the remote protocol: the target is there, nothing needs to be extracted.
    #[error("target snapshot {0:?} is held already")]
    Held(String),
    /// A snapshot that cannot be mounted.
    #[error("snapshot {0:?} is committed: only active snapshots and views can be mounted")]
    Committed(String),
    /// containerd unpacks layers without their parents.
    #[error(
        "layer {0} was asked for without its parent: the capability \"rebase\" is switched on for this snapshotter, and the image would come out broken; remove \"rebase\" from proxy_plugins.cvmfs-snapshotter.capabilities in containerd's configuration"
    )]
    Rebase(String),
    /// A layer in a repository cannot be used now.
    #[error("{0}")]
    Unavailable(Box<Unavailable>),
    /// More layers than overlayfs takes.
    #[error("snapshot {name:?} has too many layers: {cause}; use an image with fewer layers")]
    TooLarge {
        /// The key that was asked for.
        name: String,
        /// What is too large.
        cause: StackTooLarge,
    },
}

/// A snapshot needs a layer that is in no repository now.
#[derive(Debug)]
pub struct Unavailable {
    /// Which layer.
    pub layer: Digest,
    /// Where each repository stands: name, path and cause.
    pub causes: Vec<(String, PathBuf, Cause)>,
}

/// Why a repository does not serve a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// It is healthy and does not have it.
    Missing,
    /// The repository, or the layer in it, cannot be used.
    Trouble(Trouble),
    /// The layer cannot be used in place.
    Layer(String),
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing => f.write_str("does not have it"),
            Self::Trouble(trouble) => trouble.fmt(f),
            Self::Layer(why) => f.write_str(why),
        }
    }
}

impl std::fmt::Display for Unavailable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "layer {} cannot be used now", self.layer)?;
        if self.causes.is_empty() {
            return f.write_str(": no repository is configured; name the one that it was published in");
        }
        for (name, path, cause) in &self.causes {
            write!(f, "; repository {name:?} at {} {cause}", path.display())?;
        }
        f.write_str("; remedy: ")?;
        let remedies = self.causes.iter().filter_map(|(_, path, cause)| match cause {
            Cause::Trouble(trouble) => Some(trouble.remedy(path)),
            Cause::Missing | Cause::Layer(_) => None,
        });
        match remedies.collect::<Vec<_>>().as_slice() {
            [] => f.write_str("publish the layer again, or remove the image and pull it again"),
            remedies => f.write_str(&remedies.join("; ")),
        }
    }
}
