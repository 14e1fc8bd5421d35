//! What tests of the running daemon need: the daemon itself with the privileges that it has on a node, a client that
//! talks as containerd does, repositories written by hand, and mounts.

#![allow(dead_code, unreachable_pub, unused_imports, reason = "every test program uses another part of it")]
#![allow(clippy::result_large_err, reason = "the type is tonic's")]

mod client;
mod daemon;
mod layers;
mod mounted;
mod namespace;
mod site;

pub use client::{Client, Info, Labels, labels, times as times_of};
pub use daemon::{BINARY, Daemon, Settings};
pub use layers::{Layer, sha256};
pub use mounted::{Mounted, lowers, names, option, upper};
pub use namespace::{Image, Namespace, Pulled, Style, extract_key, target_filter};
pub use site::{Kind, Site};

use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long anything may take that takes milliseconds on an idle machine.
pub const LIMIT: Duration = Duration::from_secs(20);

/// Waits until `done`, and panics with `what` if that takes too long.
pub fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < LIMIT, "not within {LIMIT:?}: {what}");
        sleep(Duration::from_millis(10));
    }
}

pub(crate) use crate::mock_support::skip::is_root;
