//! A containerd snapshotter whose read-only layers already lie unpacked on a file system of the host: CernVM-FS, NFS or
//! any directory.
//!
//! The rooms, in the order in which a request passes through them; no two of them depend on each other in a circle:
//!
//! * [`cli`]: the arguments, one file a command; [`config`]: the file; [`telemetry`]: the log.
//! * [`grpc`]: all of gRPC.
//! * [`snapshotter`]: a facade, one method a request.
//! * [`in_place`]: is a layer used where it lies?
//! * [`state`]: everything below the state directory.
//! * [`markers`]: which files of the layers below a layer deletes; [`repository`]: where layers lie.
//! * [`overlay`] and [`containerd`]: pure; what overlayfs is asked for, and what containerd sends.
//! * `sys`: what the kernel is asked for.
//!
//! Beside them: [`unpack`] puts images into a repository, and [`containers`] looks at running containers.

pub mod cli;
pub mod config;
pub mod containerd;
pub mod containers;
pub mod digest;
pub mod grpc;
pub mod in_place;
pub mod markers;
pub mod overlay;
pub mod repository;
pub mod snapshotter;
pub mod state;
mod sys;
pub mod telemetry;
pub mod unpack;
