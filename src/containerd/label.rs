//! The labels of snapshots: the names that matter, and the rules for a set of them.

use std::collections::{BTreeMap, HashMap};

/// The labels of a snapshot, sorted by name, none with an empty value.
pub type Labels = BTreeMap<String, String>;

/// The chain ID that the client wants to find committed: makes a Prepare a question for a remote snapshot.
pub const TARGET: &str = "containerd.io/snapshot.ref";
/// The digest of the layer's compressed blob.
pub const LAYER_DIGEST: &str = "containerd.io/snapshot/cri.layer-digest";
/// The same, as stargz's own client sends it.
pub const STARGZ_DIGEST: &str = "containerd.io/snapshot/remote/stargz.digest";
/// The digests of this layer and of those above it, comma-separated.
pub const IMAGE_LAYERS: &str = "containerd.io/snapshot/cri.image-layers";
/// The reference of the image that is being pulled.
pub const IMAGE_REF: &str = "containerd.io/snapshot/cri.image-ref";
/// The chain ID of the layers below, sent by containerd 2.3 and later.
pub const PARENT_CHAIN_ID: &str = "containerd.io/snapshot/parent-chain-id";
/// The user ID mapping of a container in a user namespace.
pub const UID_MAPPING: &str = "containerd.io/snapshot/uidmapping";
/// The group ID mapping of a container in a user namespace.
pub const GID_MAPPING: &str = "containerd.io/snapshot/gidmapping";

/// The most bytes that the labels of one snapshot may have together, names and values.
///
/// A message of List carries 100 snapshots, clients accept 16 MiB, and a List that fails stops containerd's garbage
/// collection: 100 × 128 KiB leaves room.
pub const MAX_BYTES: usize = 128 * 1024;

/// The labels of one snapshot are larger than [`MAX_BYTES`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the labels have {0} bytes, at most {MAX_BYTES} are accepted: a larger listing would stop containerd's garbage collection; use fewer or shorter labels"
)]
pub struct TooLarge(usize);

/// Labels as a client sent them: those with an empty value are left out, since containerd takes them for removed.
pub fn accept(labels: HashMap<String, String>) -> Result<Labels, TooLarge> {
    let labels: Labels = labels.into_iter().filter(|(_, value)| !value.is_empty()).collect();
    check(&labels)?;
    Ok(labels)
}

/// Whether the labels are small enough to be stored.
pub fn check(labels: &Labels) -> Result<(), TooLarge> {
    let bytes = labels.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > MAX_BYTES { Err(TooLarge(bytes)) } else { Ok(()) }
}

/// The host ID that container ID 0 is mapped to by a mapping label (`container:host:length[,…]`), or `None` if the
/// label says nothing about ID 0.
pub fn mapped_root(mapping: &str) -> Option<u32> {
    mapping.split(',').find_map(|entry| {
        let mut fields = entry.split(':').map(str::parse::<u32>);
        let (Some(Ok(container)), Some(Ok(host)), Some(Ok(length))) = (fields.next(), fields.next(), fields.next())
        else {
            return None;
        };
        (container == 0 && length > 0).then_some(host)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_20_an_empty_value_removes_the_label() {
        let sent = HashMap::from([("a".into(), "1".into()), ("b".into(), String::new())]);
        assert_eq!(accept(sent).unwrap(), Labels::from([("a".into(), "1".into())]));
    }

    #[test]
    fn labels_have_a_size_limit() {
        let label = |n| HashMap::from([("k".to_owned(), "v".repeat(n))]);
        assert!(accept(label(MAX_BYTES - 1)).is_ok());
        assert_eq!(accept(label(MAX_BYTES)), Err(TooLarge(MAX_BYTES + 1)));
    }

    #[test]
    fn the_mapped_root_is_read_from_the_mapping() {
        assert_eq!(mapped_root("0:100000:65536"), Some(100_000));
        assert_eq!(mapped_root("1:5:1,0:7:1"), Some(7));
        for none in ["", "0", "0:x:1", "1:100000:65536", "0:1:0"] {
            assert_eq!(mapped_root(none), None, "{none}");
        }
    }
}
