//! How a test says that it cannot run here, so that `make test` counts it as skipped.

use std::io::Write as _;

/// Says loudly why the test that calls this is skipped.
#[allow(dead_code, reason = "some test programs have no test that is skipped")]
pub(crate) fn skip(why: &str) {
    let thread = std::thread::current();
    // Not by eprintln!, whose output the test harness swallows when a test passes.
    let _ = writeln!(std::io::stderr(), "\nSKIPPED {}: {why}", thread.name().unwrap_or("a test"));
}

/// Whether the test can run; says so if it cannot.
#[allow(dead_code, reason = "not every test needs root")]
pub(crate) fn is_root() -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        skip("it needs root");
    }
    is_root
}
