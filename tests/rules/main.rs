//! What containerd demands of a snapshotter, asked of the running daemon: the twenty rules (`rule_NN_…`; the first one is
//! tested where containerd's configuration is printed), the code for each error, keys, times, updates and usage.
//!
//! Citations are of containerd's source.

#![allow(clippy::result_large_err, reason = "the type is tonic's")]

mod codes;
mod keys;
mod mounts;
mod outside;
mod protocol;
mod requests;
mod updates;
mod usage;

use testkit::{Client, Daemon, Settings};

/// A daemon without repositories in use, and a client of it; `None` if it cannot run here.
fn start() -> Option<(Daemon, Client)> {
    if !testkit::is_root() {
        return None;
    }
    let directory = std::path::PathBuf::from("/nonexistent/layers");
    let repositories = vec![("none".to_owned(), directory, "directory", String::new())];
    let daemon = Daemon::start(&Settings { repositories, ..Settings::default() });
    let client = daemon.client();
    Some((daemon, client))
}
