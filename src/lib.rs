//! A containerd snapshotter whose read-only layers already lie unpacked on a file system of the host: CernVM-FS, NFS or
//! any directory.

pub mod digest;
pub mod filter;
pub mod key;
pub mod label;
pub mod markers;
pub mod repository;
pub mod stack;
pub mod store;
pub mod tree;
pub mod unpack;
