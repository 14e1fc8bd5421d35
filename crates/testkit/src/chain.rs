//! An image as containerd's unpacker sees it: layers, chain IDs, and the labels that it sends along.

use crate::client::{Labels, labels};
use crate::layer::{Layer, sha256};

/// Which client pulls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// containerd up to 2.2.
    Old,
    /// containerd 2.3 and later, which names the diff ID and the parent's chain ID too.
    New,
}

/// The layers of an image that a client pulls, the lowest first. Their content is made up; [`crate::Image`] is a real one.
#[derive(Clone, Debug)]
pub struct Chain {
    /// The name of the image.
    pub reference: String,
    /// The layers, the lowest first.
    pub layers: Vec<Layer>,
}

impl Chain {
    /// An image of these layers, the lowest first.
    pub fn new(name: &str, layers: &[&Layer]) -> Self {
        let layers = layers.iter().map(|layer| (*layer).clone()).collect();
        Self { reference: format!("registry.example/{name}:1"), layers }
    }

    /// The chain ID of each layer.
    pub fn ids(&self) -> Vec<String> {
        let mut chain: Vec<String> = Vec::new();
        for layer in &self.layers {
            let id = match chain.last() {
                None => format!("sha256:{}", layer.diff_id),
                Some(parent) => format!("sha256:{}", sha256(&format!("{parent} sha256:{}", layer.diff_id))),
            };
            chain.push(id);
        }
        chain
    }

    /// The labels with which the layer at `index` is prepared and committed.
    pub fn labels(&self, index: usize, style: Style) -> Labels {
        let chain = self.ids();
        let above: Vec<_> = self.layers[index..].iter().map(|layer| format!("sha256:{}", layer.digest)).collect();
        let mut labels = labels(&[
            ("containerd.io/snapshot.ref", &chain[index]),
            ("containerd.io/snapshot/cri.image-ref", &self.reference),
            ("containerd.io/snapshot/cri.layer-digest", &above[0]),
            ("containerd.io/snapshot/cri.image-layers", &above.join(",")),
            ("containerd.io/snapshot/cri.manifest-digest", &format!("sha256:{}", sha256(&self.reference))),
        ]);
        if style == Style::New {
            let diff_id = format!("sha256:{}", self.layers[index].diff_id);
            labels.insert("containerd.io/snapshot/diff-id".into(), diff_id);
            if index > 0 {
                labels.insert("containerd.io/snapshot/parent-chain-id".into(), chain[index - 1].clone());
            }
        }
        labels
    }
}
