//! containerd's side of a pull: the metadata layer of one namespace above the snapshotter, and the unpacker.
//!
//! containerd: core/metadata/snapshot.go (`createSnapshot`), core/unpack/unpacker.go.

use std::collections::HashMap;

use containerd_snapshots::tonic::Code;

use crate::chain::{Chain, Style};
use crate::client::{Client, Info};
use crate::mounted::upper;

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
    /// An empty one.
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
    pub fn pull(&mut self, image: &Chain) -> Vec<Pulled> {
        let chain = image.ids();
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
    pub fn in_place(&mut self, image: &Chain) -> Vec<bool> {
        self.pull(image).iter().map(|layer| layer.in_place).collect()
    }

    fn layer(&mut self, image: &Chain, index: usize, target: &str, parent: &str) -> Pulled {
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
