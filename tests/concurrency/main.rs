//! Many clients at once, and clients that go away in the middle.
//!
//! | file | what it proves |
//! |---|---|
//! | `crowd` | 32 clients with shared layers get what one after the other would get |
//! | `points` | a request that is held at, or cancelled at, each of its steps is done wholly all the same |
//! | `clean_up` | a clean-up spares what others are making meanwhile |
//! | `threads` | a hung repository takes a bounded number of threads with it |
//! | `held` | holds a process at a system call |

#![allow(clippy::result_large_err, reason = "the type is tonic's")]

mod clean_up;
mod crowd;
mod held;
mod points;
mod threads;

use testkit::{Client, Daemon, Info};

const VIEW: i32 = 1;

/// After a clean-up there is a directory for each snapshot that has one, and no other.
#[track_caller]
fn assert_no_orphan(daemon: &Daemon, client: &Client) {
    client.cleanup().unwrap();
    let has_directory = |info: &&Info| info.kind != VIEW || info.parent.is_empty();
    let expected = client.list(&[]).unwrap().iter().filter(has_directory).count();
    assert_eq!(daemon.ids().len(), expected, "{:?} {:?}", daemon.ids(), client.keys());
    assert!(testkit::names(&daemon.root().join("trash")).is_empty());
}
