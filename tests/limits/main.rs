//! Figures: how much the daemon can hold, and what a hung repository costs those who do not need it. What is claimed of them
//! (`docs/reliability.md`) is asserted.
//!
//! `make limits` runs them, one after the other and with the release build. `SNAPSHOTS` and `REQUESTS` change the size.
//!
//! | file | what it measures |
//! |---|---|
//! | `many` | many snapshots: listings beside writers, the start after a kill |
//! | `memory` | resident memory after many requests |
//! | `hung` | latency beside a repository that hangs |
//! | `times` | what they all use |

#![allow(clippy::result_large_err, reason = "the type is tonic's")]

mod hung;
mod many;
mod memory;
mod times;

/// A number from the environment.
fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|e| panic!("{name}={text}: {e}")))
}
