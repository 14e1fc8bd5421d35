//! The question whether the result of extracting a layer is there already.

use super::expected_chain::ExpectedChain;
use super::refusal::Refusal;
use crate::containerd::key;
use crate::containerd::label::{self, Labels};
use crate::digest::Digest;
use crate::state::metadata::Snapshot;

/// What a Prepare for an extraction asks.
pub struct Request<'a> {
    /// The key that the client named.
    pub key: &'a str,
    /// The name of the parent, or "".
    pub parent: &'a str,
    /// What the client sent.
    pub labels: &'a Labels,
    /// The chain ID that is asked for.
    pub target: Digest,
}

/// containerd unpacks layers without their parents: somebody declared the capability "rebase".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "layer {0} was asked for without its parent: the capability \"rebase\" is switched on for this snapshotter, and the image would come out broken; remove \"rebase\" from proxy_plugins.cvmfs-snapshotter.capabilities in containerd's configuration"
)]
pub struct Rebase(pub Digest);

impl<'a> Request<'a> {
    /// The request that a Prepare makes, `None` if it is an ordinary one.
    ///
    /// Labels alone do not make one: annotations of pods reach the Prepare of the pause container (contract.md, rule 8).
    pub fn new(key: &'a str, parent: &'a str, labels: &'a Labels) -> Result<Option<Self>, Rebase> {
        let Some(target) = key::extraction_target(key) else { return Ok(None) };
        if parent.is_empty() && labels.contains_key(label::PARENT_CHAIN_ID) {
            return Err(Rebase(target));
        }
        let asked = labels.get(label::TARGET).and_then(|asked| asked.parse().ok());
        Ok((asked == Some(target)).then_some(Self { key, parent, labels, target }))
    }

    /// The reference of the image that is being pulled, or "".
    pub fn image(&self) -> &'a str {
        self.labels.get(label::IMAGE_REF).map_or("", String::as_str)
    }

    /// The digest of the layer's blob.
    pub fn layer(&self) -> Result<Digest, Refusal> {
        let name = [label::LAYER_DIGEST, label::STARGZ_DIGEST].into_iter().find_map(|name| self.labels.get(name));
        name.ok_or(Refusal::NoDigest)?.parse().map_err(Refusal::InvalidDigest)
    }

    /// The layers above this one, as far as the client says.
    pub fn layers_above(&self) -> impl Iterator<Item = Digest> {
        let layers = self.labels.get(label::IMAGE_LAYERS).map_or("", String::as_str);
        layers.split(',').skip(1).filter_map(|digest| digest.trim().parse().ok())
    }

    /// What the image says that the layer is. `chain`: the snapshots below, nearest first.
    pub fn expected(&self, chain: &[Snapshot]) -> ExpectedChain {
        ExpectedChain::asked_for(self.target, self.labels, chain.first())
    }
}
