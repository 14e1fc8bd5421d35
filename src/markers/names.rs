//! The names of the markers, and what they mean.

use crate::overlay::names;
use crate::overlay::path::RelativePath;

/// Deletes the entry of this name (after the prefix) in the layers below (OCI image-spec, layer.md, "Whiteouts").
const WHITEOUT_PREFIX: &[u8] = b".wh.";
/// Hides everything that the layers below have in this directory.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Other names of aufs that mean nothing, and only have to be hidden.
const AUFS_PREFIX: &[u8] = b".wh..wh.";
/// The root of a catalog of CernVM-FS. Every layer has one in its root.
const CATALOG: &[u8] = names::CATALOG.as_bytes();
/// The root of a catalog that CernVM-FS made by itself.
const AUTO_CATALOG: &[u8] = b".cvmfsautocatalog";

/// An entry that is hidden, and may mean that others are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Marker {
    /// The directory it is in.
    pub directory: RelativePath,
    /// Its name.
    pub name: Vec<u8>,
}

#[derive(Debug)]
pub(super) enum Meaning<'a> {
    Opaque,
    Deleted(&'a [u8]),
    Nothing,
}

/// What a marker of this name means, `None` if no layer may have it.
pub(super) fn meaning(name: &[u8]) -> Option<Meaning<'_>> {
    if name == OPAQUE {
        return Some(Meaning::Opaque);
    }
    if name.starts_with(AUFS_PREFIX) || name == CATALOG || name == AUTO_CATALOG {
        return Some(Meaning::Nothing);
    }
    match name.strip_prefix(WHITEOUT_PREFIX) {
        // It would delete the directory itself or its parent; containerd refuses such a layer, too.
        Some(b"" | b"." | b"..") | None => None,
        Some(deleted) => Some(Meaning::Deleted(deleted)),
    }
}

/// Whether it is a whiteout or an opaque marker, of whatever type. What is in a directory of such a name means nothing.
pub(super) fn is_whiteout(name: &[u8]) -> bool {
    name.starts_with(WHITEOUT_PREFIX)
}

/// Whether the publisher makes files of this name. A directory of this name is the image's own.
pub(super) fn is_catalog(name: &[u8]) -> bool {
    name == AUTO_CATALOG || name == CATALOG
}

/// Whether the top-most cover hides it: every layer has one in its root.
pub(super) fn is_root_catalog(directory: &[u8], name: &[u8]) -> bool {
    directory.is_empty() && name == CATALOG
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_delete_no_entry_are_invalid() {
        for bad in [&b".wh."[..], b".wh..", b".wh..."] {
            assert!(meaning(bad).is_none(), "{}", String::from_utf8_lossy(bad));
        }
        assert!(matches!(meaning(b".wh..wh.plnk"), Some(Meaning::Nothing)));
        assert!(matches!(meaning(b".wh..wh..opq"), Some(Meaning::Opaque)));
        assert!(matches!(meaning(b".wh..x"), Some(Meaning::Deleted(b".x"))));
        assert!(matches!(meaning(b".wh.\xff\n"), Some(Meaning::Deleted(b"\xff\n"))));
    }
}
