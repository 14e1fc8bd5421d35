//! Listing one directory of a layer, and opening what lies in it.
//!
//! Only directories are opened; everything else is known from the listing.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{SFlag, fstatat};

use super::plan::{RelativePath, join};
use super::walk::{MAX_MARKERS, MAX_PENDING, MAX_PENDING_BYTES, WalkError};
use super::{AUTO_CATALOG, CATALOG, WHITEOUT_PREFIX};

/// An entry that is hidden, and may mean that others are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Marker {
    /// The directory it is in.
    pub directory: RelativePath,
    /// Its name.
    pub name: Vec<u8>,
}

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
    let opened = openat2(root, &dot(directory), beneath(OFlag::O_RDONLY | OFlag::O_DIRECTORY)).map_err(io)?;
    // The listing has the first one for itself.
    let parent = opened.try_clone().map_err(|e| io(Errno::from_raw(e.raw_os_error().unwrap_or_default())))?;
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
        if directory.is_empty() && name == CATALOG {
            // Hidden by the top-most cover, as every layer has one.
            continue;
        }
        let marker = || Marker { directory: directory.to_vec(), name: name.to_vec() };
        if name.starts_with(WHITEOUT_PREFIX) {
            // Of any type; what is in a directory of such a name means nothing.
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
    let stat = fstatat(parent, &bytes_path(name), AtFlags::AT_SYMLINK_NOFOLLOW)?;
    Ok(SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFDIR)
}

/// Whether the publisher makes files of this name. A directory of this name is the image's own.
fn is_catalog(name: &[u8]) -> bool {
    name == AUTO_CATALOG || name == CATALOG
}

/// Opens a directory of the layer, for look-ups.
pub(super) fn open_beneath(root: &OwnedFd, path: &[u8]) -> Result<OwnedFd, Errno> {
    openat2(root, &dot(path), beneath(OFlag::O_PATH | OFlag::O_DIRECTORY))
}

fn beneath(flags: OFlag) -> OpenHow {
    OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS)
}

fn dot(path: &[u8]) -> PathBuf {
    if path.is_empty() { PathBuf::from(".") } else { bytes_path(path) }
}

pub(super) fn bytes_path(path: &[u8]) -> PathBuf {
    Path::new(OsStr::from_bytes(path)).to_owned()
}
