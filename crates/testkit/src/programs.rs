//! Where the programs are that the tests run.

use std::path::{Path, PathBuf};

/// The root of the sources, which has the README, `fuzz/` and `build/`.
pub fn sources() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("this crate lies in crates/testkit")
}

/// The daemon under test.
///
/// # Panics
///
/// If it was not built.
pub fn daemon() -> PathBuf {
    built("cvmfs-snapshotter", "cargo build")
}

/// A program of this crate.
///
/// # Panics
///
/// If it was not built: Cargo builds it before the tests of the whole workspace, but not before those of another package.
pub fn helper(name: &str) -> PathBuf {
    built(name, "cargo build --workspace --bins")
}

/// A program of this workspace, with the same profile as the program that asks.
fn built(name: &str, command: &str) -> PathBuf {
    // Cargo tells a test where the programs of its own package are.
    if let Some(path) = std::env::var_os(format!("CARGO_BIN_EXE_{name}")) {
        return path.into();
    }
    // A test is in `target/<profile>/deps/`; the programs are one folder above.
    let this = std::env::current_exe().expect("the path of this program");
    let folder = this.parent().expect("a folder");
    let folder = if folder.ends_with("deps") { folder.parent().expect("target/<profile>") } else { folder };
    let path = folder.join(name);
    let release = if folder.ends_with("release") { " --release" } else { "" };
    assert!(path.exists(), "{} was not built: run `{command}{release}`, or test with --workspace", path.display());
    path
}

/// The path of a program that `tools/build` made.
///
/// # Panics
///
/// If it was not built.
pub fn tool(tool: &str, program: &str) -> PathBuf {
    let path = tool_dir(tool).join(program);
    assert!(path.exists(), "{} was not built: run `tools/build {tool}`", path.display());
    path
}

/// The folder with the programs of a tool.
pub fn tool_dir(tool: &str) -> PathBuf {
    sources().join("build/tools").join(tool).join("bin")
}
