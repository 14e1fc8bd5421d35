//! What has to stand around a layer in a repository so that overlayfs shows what the image means.
//!
//! * **cover**, above the layer: a whiteout for each marker, which hides the marker itself, and for each deleted name
//!   that the layer does not have. The merged tree shows the cover's directories, so they repeat the attributes of the
//!   layer's own.
//! * **seal**, below it: each hidden path as an opaque directory. The kernel never shows it; containerd's own reader of
//!   lower directories, which looks users up in `/etc/passwd`, needs it to stop there.
//! * **erase**, below that: a whiteout for each hidden path that the layer has as a directory. It ends the merge of that
//!   directory at the layer: the meaning of "opaque", without an attribute that needs a privilege.
//!
//! A plan depends on the content of the layer alone. It holds the attributes of the directories that it repeats, so that
//! nothing has to be asked of the repository when it is written to the disk.

use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use super::path::RelativePath;
use crate::digest::Digest;

/// Name and value of an extended attribute.
pub(crate) type Xattr = (Vec<u8>, Vec<u8>);

/// Attributes of a directory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attributes {
    /// Permissions, with set-id and sticky bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time: seconds and nanoseconds since the epoch.
    pub mtime: (i64, i64),
    /// Extended attributes (`user.*`, POSIX ACLs) of a layer that is not on CernVM-FS.
    pub xattrs: Vec<Xattr>,
}

impl Attributes {
    /// Memory that they take, about.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Self>()
            + self.xattrs.iter().map(|(key, value)| size_of::<Xattr>() + key.len() + value.len()).sum::<usize>()
    }
}

/// What stands above and below one layer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The attributes of the layer's root.
    pub root: Attributes,
    /// The directories of the cover but its root, parents first.
    pub directories: Vec<(RelativePath, Attributes)>,
    /// The whiteouts of the cover, without the one for the root's catalog marker that every cover has.
    pub whiteouts: Vec<RelativePath>,
    /// The opaque directories of the seal.
    pub opaque: Vec<RelativePath>,
    /// The whiteouts of the erase.
    pub erased: Vec<RelativePath>,
    /// Nothing below this layer is visible.
    pub hides_all: bool,
    #[serde(skip)]
    pub(crate) fingerprint: OnceLock<String>,
}

/// Which of the directories a layer needs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Shape {
    /// It has a cover of its own even where it is not the top-most remote layer.
    pub cover: bool,
    /// It has a seal.
    pub seal: bool,
    /// It has an erase.
    pub erase: bool,
    /// The stack ends with it.
    pub hides_all: bool,
}

impl Shape {
    /// The shape as a number, for the store: one bit each, in the order of the fields.
    pub(crate) fn bits(self) -> u8 {
        let Self { cover, seal, erase, hides_all } = self;
        [cover, seal, erase, hides_all].into_iter().rev().fold(0, |bits, bit| bits << 1 | u8::from(bit))
    }

    /// The shape of such a number.
    pub(crate) fn from_bits(bits: u8) -> Self {
        let bit = |n: u8| bits >> n & 1 == 1;
        Self { cover: bit(0), seal: bit(1), erase: bit(2), hides_all: bit(3) }
    }
}

impl Plan {
    /// Which directories this plan calls for.
    pub fn shape(&self) -> Shape {
        Shape {
            cover: !self.whiteouts.is_empty(),
            seal: !self.hides_all && !self.opaque.is_empty(),
            erase: !self.hides_all && !self.erased.is_empty(),
            hides_all: self.hides_all,
        }
    }

    /// What tells this plan from others.
    pub fn fingerprint(&self) -> &str {
        self.fingerprint.get_or_init(|| Digest::of(&self.encode()).hex())
    }

    /// The form in which the store keeps it (postcard).
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_stdvec(self).unwrap_or_else(|e| unreachable!("a plan of plain data is encodable: {e}"))
    }

    /// The plan in the form of [`Plan::encode`]; `None` if the bytes are not one.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        postcard::from_bytes(bytes).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_encoded_is_decoded() {
        let plan = Plan { whiteouts: vec![b"a/\xff".to_vec()], hides_all: true, ..Plan::default() };
        assert_eq!(Plan::decode(&plan.encode()), Some(plan));
        assert_eq!(Plan::decode(b"\xff\xff"), None);
    }

    #[test]
    fn a_shape_is_one_bit_for_each_directory() {
        for bits in 0..16 {
            assert_eq!(Shape::from_bits(bits).bits(), bits);
        }
        // Stores on the disk have these numbers.
        assert_eq!(Shape { cover: true, seal: false, erase: true, hides_all: false }.bits(), 0b0101);
        assert_eq!(Shape { cover: true, seal: false, erase: false, hides_all: true }.bits(), 0b1001);
    }
}
