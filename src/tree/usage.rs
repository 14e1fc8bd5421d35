//! The disk that a directory takes, counted as containerd's own snapshotters do: each inode once, its allocated blocks,
//! the root included (containerd/continuity: fs/du_unix.go).

use std::collections::HashSet;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use walkdir::WalkDir;

use super::Error;
use crate::store::Usage;

/// `st_blocks` counts in this unit, whatever the file system's block size is (stat(2)).
const BLOCK: u64 = 512;

pub(super) fn of(directory: &Path) -> Result<Usage, Error> {
    let mut seen = HashSet::new();
    let mut usage = Usage::default();
    for entry in WalkDir::new(directory).same_file_system(true) {
        // What a running container removes meanwhile is not there to be counted.
        let metadata = match entry.and_then(|entry| entry.metadata()) {
            Ok(metadata) => metadata,
            Err(e) if e.depth() > 0 && e.io_error().is_some_and(|e| e.kind() == ErrorKind::NotFound) => continue,
            Err(e) => return Err(Error::io("measure", directory, e.into())),
        };
        if seen.insert((metadata.dev(), metadata.ino())) {
            usage.bytes += metadata.blocks() * BLOCK;
            usage.inodes += 1;
        }
    }
    Ok(usage)
}
