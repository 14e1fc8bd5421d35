//! The names of what overlayfs is given, in the directory of a snapshot.

/// The directory with the files of a snapshot, or the symbolic link to its layer in a repository.
pub(crate) const FS: &str = "fs";
/// overlayfs' work directory of an active snapshot.
pub(crate) const WORK: &str = "work";
/// The directory above a remote layer. Short, like the next two: the page of mount options has room for 4095 bytes.
pub(crate) const COVER: &str = "c";
/// The directory below a remote layer that containerd's own reader stops at.
pub(crate) const SEAL: &str = "s";
/// The directory below a remote layer that ends the merge of its opaque directories.
pub(crate) const ERASE: &str = "e";
/// The file in the root of every layer on CernVM-FS, which the top-most cover hides: it marks the root of a catalog.
pub(crate) const CATALOG: &str = ".cvmfscatalog";
