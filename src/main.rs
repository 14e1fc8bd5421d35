//! The program `cvmfs-snapshotter`.

use std::process::ExitCode;

fn main() -> ExitCode {
    cvmfs_snapshotter::cli::main()
}
