//! All of gRPC. A new release of `containerd-snapshots` changes this room and no other.
//!
//! `containerd-snapshots` 0.3.0 ties the whole program to tonic 0.9, and with it to hyper 0.14 and h2 0.3. A release on a
//! newer tonic lets us delete: `tower`'s older generation, the entry for h2 in `deny.toml`, [`server`]'s time limit for
//! draining as far as tonic has one of its own, and [`incoming`] where tonic survives a failed accept.
//!
//! [`service`] has the ten calls, [`convert`] the messages, [`status`] the code of every error; [`server`] serves them on
//! the listener that [`socket`] makes or [`systemd`] hands over.

mod convert;
mod health;
mod incoming;
mod server;
mod service;
mod socket;
mod status;
mod systemd;

pub use health::check as health;
pub use health::connect;
pub use server::{Error as ServerError, serve};
pub use socket::{Error as SocketError, listen};
pub use systemd::inherited;

#[cfg(test)]
mod tests;
