//! containerd's side of a pull: the metadata layer of one namespace above the snapshotter, and the unpacker.
//!
//! containerd: core/metadata/snapshot.go (`createSnapshot`), core/unpack/unpacker.go.

use std::collections::HashMap;

use containerd_snapshots::tonic::Code;

use super::{Client, Info, Labels, Layer, sha256, upper};

/// Which client pulls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// containerd up to 2.2.
    Old,
    /// containerd 2.3 and later, which names the diff ID and the parent's chain ID too.
    New,
}

/// An image: its layers, the lowest first.
#[derive(Clone, Debug)]
pub struct Image {
    pub reference: String,
    pub layers: Vec<Layer>,
}

impl Image {
    pub fn new(name: &str, layers: &[&Layer]) -> Self {
        let layers = layers.iter().map(|layer| (*layer).clone()).collect();
        Self { reference: format!("registry.example/{name}:1"), layers }
    }

    /// The chain IDs of the layers.
    pub fn chain(&self) -> Vec<String> {
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
        let chain = self.chain();
        let above: Vec<_> = self.layers[index..].iter().map(|layer| format!("sha256:{}", layer.digest)).collect();
        let mut labels = super::labels(&[
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

/// The backend key of an extraction.
pub fn extract_key(namespace: &str, number: u64, target: &str) -> String {
    format!("{namespace}/{number}/extract-56540932{number}-akKs {target}")
}

/// A layer after a pull.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulled {
    /// Its name in the snapshotter.
    pub name: String,
    /// Whether it was used in place.
    pub in_place: bool,
}

/// A namespace of containerd.
pub struct Namespace<'c> {
    client: &'c Client,
    name: String,
    style: Style,
    sequence: u64,
    /// Chain ID to the name in the snapshotter.
    known: HashMap<String, String>,
}

impl<'c> Namespace<'c> {
    pub fn new(client: &'c Client, name: &str, style: Style) -> Self {
        Self { client, name: name.to_owned(), style, sequence: 0, known: HashMap::new() }
    }

    /// Has keys numbered from here on: for one of several that share a namespace.
    pub fn start_at(&mut self, number: u64) {
        self.sequence = number;
    }

    fn next(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    /// A backend key for a client's key.
    pub fn key(&mut self, key: &str) -> String {
        let number = self.next();
        format!("{}/{number}/{key}", self.name)
    }

    /// Pulls an image; panics where containerd would fail the pull. The answer has the lowest layer first.
    pub fn pull(&mut self, image: &Image) -> Vec<Pulled> {
        let chain = image.chain();
        let mut parent = String::new();
        let mut pulled = Vec::new();
        for (index, target) in chain.iter().enumerate() {
            let layer = match self.known.get(target) {
                Some(name) => Pulled { in_place: false, name: name.clone() },
                None => self.layer(image, index, target, &parent),
            };
            self.known.insert(target.clone(), layer.name.clone());
            parent.clone_from(&layer.name);
            pulled.push(layer);
        }
        pulled
    }

    /// As [`Self::pull`], and only which layers were used in place.
    pub fn in_place(&mut self, image: &Image) -> Vec<bool> {
        self.pull(image).iter().map(|layer| layer.in_place).collect()
    }

    fn layer(&mut self, image: &Image, index: usize, target: &str, parent: &str) -> Pulled {
        let labels = image.labels(index, self.style);
        let number = self.next();
        let key = extract_key(&self.name, number, target);
        match self.client.prepare(&key, parent, &labels) {
            Err(status) if status.code() == Code::AlreadyExists => {
                let info = self.find(target, parent);
                assert_eq!(self.client.stat(&info.name).unwrap(), info);
                assert_eq!(self.client.stat(&key).unwrap_err().code(), Code::NotFound, "the key is left behind");
                Pulled { name: info.name, in_place: true }
            }
            Err(status) => panic!("the pull of {} fails at layer {index}: {status}", image.reference),
            Ok(mounts) => {
                assert!(!mounts.last().unwrap().options.iter().any(|option| option == "ro"), "{mounts:?}");
                image.layers[index].extract(&upper(&mounts));
                let name = self.key(target);
                self.client.commit(&name, &key, &labels).unwrap();
                Pulled { name, in_place: false }
            }
        }
    }

    /// What the metadata layer takes for an answer "exists already".
    pub fn find(&self, target: &str, parent: &str) -> Info {
        let listed = self.client.list(&[&target_filter(target, parent)]).unwrap();
        let is_it = |info: &&Info| {
            info.kind == 3 && info.parent == parent && info.labels["containerd.io/snapshot.ref"] == target
        };
        listed.iter().find(is_it).unwrap_or_else(|| panic!("target {target} is not found: {listed:?}")).clone()
    }

    /// Forgets what was pulled, as after the removal of the images.
    pub fn forget(&mut self) {
        self.known.clear();
    }
}

/// containerd: core/metadata/snapshot.go, the filter for a target; `%q` of the parent.
pub fn target_filter(target: &str, parent: &str) -> String {
    format!("labels.\"containerd.io/snapshot.ref\"=={target},parent=={}", quote(parent))
}

/// Go's `%q`, for printable text.
fn quote(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
