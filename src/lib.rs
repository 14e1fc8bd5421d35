//! A containerd snapshotter whose read-only layers already lie unpacked on a file system of the host: CernVM-FS, NFS or
//! any directory.
//!
//! containerd asks over gRPC ([`server`], [`service`]); [`snapshotter`] decides what a request means for the metadata
//! ([`store`]), the directories ([`tree`]) and the layers in place ([`repository`], [`markers`]), and [`stack`] says how
//! the result is mounted. The daemon itself mounts nothing.

mod beneath;
pub mod cli;
pub mod config;
pub mod containers;
pub mod digest;
pub mod filter;
pub mod key;
pub mod label;
pub mod logging;
pub mod markers;
mod mountinfo;
mod remedy;
mod removal;
pub mod repository;
pub mod server;
pub mod service;
pub mod snapshotter;
pub mod stack;
pub mod store;
pub mod tree;
pub mod unpack;
