//! What the end-to-end tests share: a sandbox that cleans up after them, the daemon, containerd of several versions with
//! its clients, a registry and the images in it.
//!
//! Declare the [`Sandbox`] first, so that it is dropped last.

#![allow(dead_code, unreachable_pub, reason = "each test program uses a part of it only")]

pub mod blocks;
pub mod containerd;
pub mod daemon;
pub mod image;
pub mod output;
pub mod registry;
pub mod sandbox;

use std::io::Write as _;
use std::path::{Path, PathBuf};

/// Tells whether a test that mounts and runs containers cannot run here, and says so loudly. Use it as
/// `if common::cannot_run() { return; }`: `make test` counts such a test as skipped.
pub fn cannot_run() -> bool {
    let why = if !nix::unistd::geteuid().is_root() {
        "it needs root"
    } else if !Path::new("/dev/fuse").exists() {
        "it needs /dev/fuse"
    } else {
        return false;
    };
    let thread = std::thread::current();
    // Not by eprintln!, whose output the test harness swallows when a test passes.
    let _ = writeln!(std::io::stderr(), "\nSKIPPED {}: {why}", thread.name().unwrap_or("?"));
    true
}

/// The path of a program that `tools/build` made.
pub fn tool(tool: &str, program: &str) -> PathBuf {
    let path = tool_dir(tool).join(program);
    assert!(path.exists(), "{} is not there: run tools/build {tool}", path.display());
    path
}

/// The folder with the programs of a tool.
pub fn tool_dir(tool: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("build/tools").join(tool).join("bin")
}
