//! What hides the deleted files of a published layer.
//!
//! A layer in a repository is not an overlayfs layer: its deletions are ordinary files called `.wh.<name>`, its opaque
//! directories hold a file `.wh..wh..opq`, and CernVM-FS adds catalog markers. [`walk`] finds them, [`plan`] says what
//! has to stand above and below the layer so that overlayfs shows what the image means, and [`finder`] remembers.
//!
//! A plan is a pure function of the layer's content; it holds the attributes of the directories that it repeats, so
//! that nothing has to be asked of the repository when it is written to the disk.

mod finder;
mod list;
mod plan;
mod queue;
mod walk;

pub use finder::Finder;
pub use plan::{Attributes, Plan, Shape};
pub use walk::WalkError;

/// Deletes the entry of this name (after the prefix) in the layers below (OCI image-spec, layer.md, "Whiteouts").
pub(crate) const WHITEOUT_PREFIX: &[u8] = b".wh.";
/// Hides everything that the layers below have in this directory.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Other names of aufs that mean nothing, and only have to be hidden.
const AUFS_PREFIX: &[u8] = b".wh..wh.";
/// The root of a catalog of CernVM-FS. Every layer has one in its root.
pub(crate) const CATALOG: &[u8] = b".cvmfscatalog";
/// The root of a catalog that CernVM-FS made by itself.
const AUTO_CATALOG: &[u8] = b".cvmfsautocatalog";

#[cfg(test)]
mod tests;
