//! How a test says that it cannot run here, so that `make test` counts it as skipped and not as passed.
//!
//! Where the environment has `REQUIRE_PRIVILEGED=1`, as in CI and in `make test` as root, a test that lacks a privilege
//! fails instead: nobody reads a green run for tests that did not run.

use std::io::Write as _;
use std::path::Path;

const REQUIRE: &str = "REQUIRE_PRIVILEGED";

/// Says loudly why the test that calls this is skipped. For what the kernel or the machine does not have; a missing
/// privilege is for [`lacks`].
pub fn skip(why: &str) {
    let thread = std::thread::current();
    // Not by eprintln!, whose output the test harness swallows when a test passes.
    let _ = writeln!(std::io::stderr(), "\nSKIPPED {}: {why}", thread.name().unwrap_or("a test"));
}

/// As [`skip`], for lack of a privilege.
///
/// # Panics
///
/// With `REQUIRE_PRIVILEGED=1` in the environment.
#[track_caller]
pub fn lacks(why: &str) {
    let required = std::env::var_os(REQUIRE).is_some_and(|value| value == "1");
    assert!(!required, "{why}, and {REQUIRE}=1 forbids to skip the test");
    skip(why);
}

/// Whether the test can run as it needs root; says so if it cannot.
#[must_use]
#[track_caller]
pub fn is_root() -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        lacks("it needs root");
    }
    is_root
}

/// Whether the test can run as it mounts FUSE, for which it needs root and `/dev/fuse`; says so if it cannot.
#[must_use]
#[track_caller]
pub fn has_fuse() -> bool {
    if !is_root() {
        return false;
    }
    let has_fuse = Path::new("/dev/fuse").exists();
    if !has_fuse {
        lacks("it needs /dev/fuse");
    }
    has_fuse
}
