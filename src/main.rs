//! The program `cvmfs-snapshotter`.

fn main() {}
