//! A containerd snapshotter whose read-only layers already lie unpacked on a file system of the host: CernVM-FS, NFS or
//! any directory.

pub mod filter;
pub mod unpack;
