//! What containerd sends: keys, labels and filters. Pure: nothing here knows how snapshots are stored.

pub mod filter;
pub mod key;
pub mod label;
