//! Listing one directory of a layer. Only directories are opened; everything else is known from the listing.

use std::os::fd::OwnedFd;

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{SFlag, fstatat};

use super::error::{MAX_MARKERS, MAX_PENDING, MAX_PENDING_BYTES, WalkError};
use super::names::{Marker, is_catalog, is_root_catalog, is_whiteout};
use crate::overlay::path::{RelativePath, as_path, join};
use crate::sys::{beneath, errno};

/// What a directory has that matters.
#[derive(Default)]
pub(super) struct Listing {
    /// Its directories, by their paths below the layer's root.
    pub directories: Vec<RelativePath>,
    /// The bytes of these paths.
    pub directory_bytes: usize,
    pub markers: Vec<Marker>,
}

impl Listing {
    /// The layer's root, which is to be listed.
    pub(super) fn of_root() -> Self {
        Self { directories: vec![Vec::new()], ..Self::default() }
    }

    fn add_directory(&mut self, path: RelativePath) {
        self.directory_bytes += path.len();
        self.directories.push(path);
    }
}

/// Lists one directory of the layer.
pub(super) fn list(root: &OwnedFd, directory: &[u8]) -> Result<Listing, WalkError> {
    let io = |e| WalkError::io(directory, e);
    let opened = beneath::open(root, as_path(directory), OFlag::O_RDONLY | OFlag::O_DIRECTORY).map_err(io)?;
    // The listing has the first one for itself.
    let parent = opened.try_clone().map_err(|e| io(errno::of(&e)))?;
    let mut listing = Listing::default();
    for entry in Dir::from_fd(opened).map_err(io)?.iter() {
        let entry = entry.map_err(io)?;
        if listing.markers.len() > MAX_MARKERS {
            return Err(WalkError::TooMany);
        }
        if listing.directories.len() > MAX_PENDING || listing.directory_bytes > MAX_PENDING_BYTES {
            return Err(WalkError::TooWide);
        }
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        if is_root_catalog(directory, name) {
            continue;
        }
        let marker = || Marker { directory: directory.to_vec(), name: name.to_vec() };
        if is_whiteout(name) {
            listing.markers.push(marker());
            continue;
        }
        let is_directory = match entry.file_type() {
            Some(kind) => kind == Type::Directory,
            // Some file systems do not tell types in a listing.
            None => is_directory(&parent, name).map_err(io)?,
        };
        if is_directory {
            listing.add_directory(join(directory, name));
        } else if is_catalog(name) {
            listing.markers.push(marker());
        }
    }
    Ok(listing)
}

fn is_directory(parent: &OwnedFd, name: &[u8]) -> Result<bool, Errno> {
    let stat = fstatat(parent, as_path(name), AtFlags::AT_SYMLINK_NOFOLLOW)?;
    Ok(SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFDIR)
}
