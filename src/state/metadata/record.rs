//! One snapshot, and how it is encoded.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::error::Error;
use super::kind::Kind;
use crate::containerd::label::{Labels, TARGET};
use crate::digest::Digest;

/// Local disk that a snapshot takes, without its parents.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Bytes of allocated blocks.
    pub bytes: u64,
    /// Number of inodes.
    pub inodes: u64,
}

/// Where the files of a snapshot are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// In its own directory. The usage is known once it is committed.
    Local(Option<Usage>),
    /// In a repository, under the digest of the layer's compressed blob.
    Remote(#[serde(with = "digest_bytes")] Digest),
}

/// A snapshot as the store knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Names its directory.
    pub id: u64,
    /// Its key (view, active) or name (committed).
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// The name of the parent, or "".
    pub parent: String,
    /// Its labels.
    pub labels: Labels,
    /// When it was prepared, or committed.
    pub created: SystemTime,
    /// When it was created, or its labels were changed.
    pub updated: SystemTime,
    /// Where its files are.
    pub content: Content,
}

impl Snapshot {
    /// The chain ID that this snapshot was made for, as its label says.
    pub fn target(&self) -> Option<&str> {
        self.labels.get(TARGET).map(String::as_str)
    }

    /// The digest of the layer, if it lies in a repository.
    pub fn remote_layer(&self) -> Option<Digest> {
        match self.content {
            Content::Remote(digest) => Some(digest),
            Content::Local(_) => None,
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let record = Record {
            id: self.id,
            kind: self.kind,
            parent: &self.parent,
            labels: self.labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect(),
            created: self.created,
            updated: self.updated,
            content: self.content,
        };
        postcard::to_stdvec(&record).unwrap_or_else(|e| unreachable!("a record of plain data is encodable: {e}"))
    }

    pub(super) fn decode(name: &str, bytes: &[u8]) -> Result<Self, Error> {
        let record: Record<'_> = postcard::from_bytes(bytes).map_err(|_| Error::Damaged(name.to_owned()))?;
        Ok(Self {
            id: record.id,
            name: name.to_owned(),
            kind: record.kind,
            parent: record.parent.to_owned(),
            labels: record.labels.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
            created: record.created,
            updated: record.updated,
            content: record.content,
        })
    }
}

/// The encoded form (postcard); its fields and their order are part of format 1.
#[derive(Serialize, Deserialize)]
struct Record<'a> {
    id: u64,
    kind: Kind,
    parent: &'a str,
    #[serde(borrow)]
    labels: Vec<(&'a str, &'a str)>,
    created: SystemTime,
    updated: SystemTime,
    content: Content,
}

mod digest_bytes {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::digest::Digest;

    pub(super) fn serialize<S: Serializer>(digest: &Digest, serializer: S) -> Result<S::Ok, S::Error> {
        digest.as_bytes().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        <[u8; 32]>::deserialize(deserializer).map(Digest::from_bytes)
    }
}
