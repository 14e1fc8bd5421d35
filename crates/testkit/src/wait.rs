//! Waits for what other processes do.

use std::time::{Duration, Instant};

/// How long anything may take that takes milliseconds on an idle machine.
pub const LIMIT: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(10);

/// Waits until `done`, and panics with `what` if that takes longer than [`LIMIT`].
#[track_caller]
pub fn eventually(what: &str, done: impl FnMut() -> bool) {
    assert!(wait_until(LIMIT, done), "not within {LIMIT:?}: {what}");
}

/// Lets time pass: for a random moment, for a helper that is told to be slow, and to see that something does not happen.
/// What does happen is waited for with [`eventually`].
#[expect(clippy::disallowed_methods, reason = "the one place where a test sleeps")]
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Looks again and again; tells whether it was done within the limit.
pub fn wait_until(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while !done() {
        if start.elapsed() > limit {
            return false;
        }
        pause(POLL);
    }
    true
}
