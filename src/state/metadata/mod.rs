//! The metadata of all snapshots, in one redb file.
//!
//! ```text
//! <root>/metadata.redb
//!   meta       name -> number                     format version, first id that is not reserved yet
//!   snapshots  key or name -> record              see `record`
//!   names      id -> key or name
//!   children   (id of the parent or 0, id)
//!   targets    (value of containerd.io/snapshot.ref, id)
//!   layers     (layer digest, id)                 remote snapshots only
//!   plans      layer digest -> identity, plan     what hides the deleted files of a remote layer
//!   shapes     layer digest -> bits               which directories that plan calls for, see `Shape`
//! ```
//!
//! **Durability.** Every mutation is one transaction, and is on the disk when the call returns. What is on the disk
//! outside this file follows it: directories are made before the transaction and removed after it.
//!
//! **Concurrency.** One writer at a time; readers see the last committed state and never wait. Checks that a mutation
//! depends on are made inside its transaction.
//!
//! **Ids.** An id names a directory, so no id is ever used twice: ids are reserved in blocks, durably, before the first
//! of the block is given out.
//!
//! **Damage.** Opening compares every page with its checksum, and refuses a file that something else has changed. Nothing
//! is ever rolled back to an older state: commits are in two phases, so that the newest is always whole.
//!
//! **Full disks.** A removal makes room and has to write first: the reserved space beside the store takes up the
//! room for that, and is given away when there is no other.
//!
//! **Format.** `meta.format` is 2. A file of format 1, which has no table `shapes`, gets it when it is opened. A file with a
//! greater number is refused and left alone.

mod encoded;
mod error;
mod file;
mod ids;
mod kind;
mod migrate;
mod plan;
mod read;
mod record;
mod store;
mod tables;
mod write;

pub use encoded::EncodedSnapshots;
pub use error::{Error, OpenError};
pub use kind::Kind;
pub use plan::StoredPlan;
pub use read::{Lookup, Reader};
pub use record::{Content, Snapshot, Usage};
pub use store::Store;
pub use write::{Created, New, NewKind, Removed};

#[cfg(test)]
mod tests;
