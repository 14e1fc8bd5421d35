//! What lies in the state directory, and what a crash leaves there.
//!
//! ```text
//! <root>/                     0700  locked as long as the daemon runs
//!   metadata.redb                   the store: the truth about every snapshot (see `metadata`)
//!   reserve                         takes up room, which a removal on a full disk is given (see `reserved_space`)
//!   snapshots/<id>/           0700  one snapshot (see `directories`)
//!     fs                            local: the files; remote: a link to the layer in its repository
//!     work                          overlayfs' work directory of an active snapshot
//!     c, s, e                       cover, seal and erase of a remote layer
//!     plan                          the fingerprint of the plan that c, s and e were made of
//!     new                           something in the making for a remote layer
//!     .<n>                          a c, s or e that was replaced while a container may have been using it
//!   trash/<id>                      removed snapshots, on their way out
//! ```
//!
//! **A crash** leaves one of these, and each is taken away or made again:
//!
//! | left behind | when | what happens to it |
//! |---|---|---|
//! | `metadata.redb.new` | while a new store was made | it is overwritten by the next start |
//! | a directory whose id is not in the store | between making it and the commit, or between a removal and its rename | clean-up moves it to the trash |
//! | `new` in a snapshot | while something was made for it | the next one who makes something there, or clean-up, deletes it |
//! | no `fs`, `c`, `s`, `e` or `plan` of a remote layer | before they were made | the next request that needs them makes them |
//! | `trash/<id>` | while it was deleted | the next start and every clean-up go on with it |
//!
//! The store itself is either before or after a mutation, never in between.

use std::path::{Path, PathBuf};

/// The file of the store.
pub(super) const METADATA: &str = "metadata.redb";
/// A store in the making.
pub(super) const NEW_METADATA: &str = "metadata.redb.new";
/// The file that takes up room.
pub(super) const RESERVED_SPACE: &str = "reserve";
const SNAPSHOTS: &str = "snapshots";
const TRASH: &str = "trash";

/// The directory that all snapshots are in.
pub(crate) fn snapshots(root: &Path) -> PathBuf {
    root.join(SNAPSHOTS)
}

/// The directory of removed snapshots.
pub(super) fn trash(root: &Path) -> PathBuf {
    root.join(TRASH)
}
