//! Making directories.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;

use super::error::Error;

/// Makes a directory of mode 0700, or refuses one that others may enter and that has something in it.
pub(super) fn private_directory(path: &Path) -> Result<(), Error> {
    match DirBuilder::new().recursive(true).mode(0o700).create(path) {
        Ok(()) => {}
        Err(e) => return Err(Error::io("make", path, e)),
    }
    let metadata = fs::metadata(path).map_err(|e| Error::io("look at", path, e))?;
    let mode = metadata.mode() & 0o777;
    if !metadata.is_dir() {
        return Err(Error::io("use", path, ErrorKind::NotADirectory.into()));
    }
    if mode & 0o077 == 0 {
        return Ok(());
    }
    let is_empty = fs::read_dir(path).map_err(|e| Error::io("read", path, e))?.next().is_none();
    // Somebody else who may write there could put something into it meanwhile.
    if !is_empty || mode & 0o022 != 0 || metadata.uid() != nix::unistd::geteuid().as_raw() {
        return Err(Error::Open { path: path.to_owned(), mode });
    }
    tracing::info!(path = %path.display(), mode = format_args!("{mode:o}"), "closed the new directory to other users");
    fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(|e| Error::io("change the mode of", path, e))
}

/// Makes a directory whose mode does not depend on the umask.
pub(super) fn make_directory(path: &Path, mode: u32) -> Result<(), Error> {
    DirBuilder::new().mode(mode).create(path).map_err(|e| Error::io("make", path, e))?;
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(|e| Error::io("change the mode of", path, e))
}

/// Puts the entries of a directory on the disk.
pub(super) fn sync(directory: &Path) -> Result<(), Error> {
    File::open(directory).and_then(|dir| dir.sync_all()).map_err(|e| Error::io("sync", directory, e))
}
