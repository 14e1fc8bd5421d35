//! From the markers of a layer to its plan.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::OnceLock;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{FileStat, SFlag, fstat, fstatat};

use super::error::{MAX_DIRECTORY_BYTES, WalkError};
use super::names::{Marker, Meaning, meaning};
use crate::overlay::path::{RelativePath, ancestors, as_path, join, split};
use crate::overlay::plan::{Attributes, Plan, Xattr};
use crate::sys::{beneath, errno};

/// Makes the plan of a layer from its markers, with look-ups in the layer.
///
/// `with_xattrs`: whether extended attributes of directories are part of the image; those that CernVM-FS shows are
/// its own.
pub(super) fn plan(layer: &OwnedFd, markers: &[Marker], with_xattrs: bool) -> Result<Plan, WalkError> {
    let root = attributes(layer, with_xattrs, b"")?;
    let mut whiteouts: BTreeSet<RelativePath> = BTreeSet::new();
    let mut hidden = BTreeSet::new();
    for marker in markers {
        whiteouts.insert(join(&marker.directory, &marker.name));
        match meaning(&marker.name) {
            Some(Meaning::Opaque) => hidden.insert(marker.directory.clone()),
            Some(Meaning::Deleted(name)) => hidden.insert(join(&marker.directory, name)),
            Some(Meaning::Nothing) => continue,
            None => return Err(WalkError::InvalidMarker(as_path(&join(&marker.directory, &marker.name)).to_owned())),
        };
    }
    let hides_all = hidden.contains(&Vec::new());
    // What lies below a hidden path is hidden with it.
    let hidden: Vec<_> = hidden.iter().filter(|path| !ancestors(path).any(|a| hidden.contains(a))).collect();
    let mut erased = Vec::new();
    for path in &hidden {
        match kind_of(layer, path)? {
            None => drop(whiteouts.insert(path.to_vec())),
            Some(kind) if kind == SFlag::S_IFDIR => erased.push(path.to_vec()),
            Some(_) => {}
        }
    }
    let opaque = hidden.into_iter().cloned().collect();
    let mut directories = BTreeMap::new();
    let mut bytes = 0;
    for path in &whiteouts {
        for directory in ancestors(path).filter(|a| !a.is_empty()) {
            if !directories.contains_key(directory) {
                let fd = open_beneath(layer, directory).map_err(|e| WalkError::io(directory, e))?;
                let attributes = attributes(&fd, with_xattrs, directory)?;
                bytes += directory.len() + attributes.bytes();
                if bytes > MAX_DIRECTORY_BYTES {
                    return Err(WalkError::TooLarge);
                }
                directories.insert(directory.to_vec(), attributes);
            }
        }
    }
    // A directory sorts before what is in it.
    Ok(Plan {
        root,
        directories: directories.into_iter().collect(),
        whiteouts: whiteouts.into_iter().collect(),
        opaque,
        erased,
        hides_all,
        fingerprint: OnceLock::new(),
    })
}

/// The type of an entry whose parent is a real directory of the layer; `None` if there is no such entry.
fn kind_of(layer: &OwnedFd, path: &[u8]) -> Result<Option<SFlag>, WalkError> {
    let Some((parent, name)) = split(path) else { return Ok(Some(SFlag::S_IFDIR)) };
    let io = |e| WalkError::io(path, e);
    let parent = open_beneath(layer, parent).map_err(io)?;
    match fstatat(&parent, as_path(name), AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()))),
        Err(Errno::ENOENT) => Ok(None),
        Err(e) => Err(io(e)),
    }
}

fn attributes(directory: &OwnedFd, with_xattrs: bool, path: &[u8]) -> Result<Attributes, WalkError> {
    let io = |e| WalkError::io(path, e);
    let stat: FileStat = fstat(directory).map_err(io)?;
    let xattrs = if with_xattrs { xattrs(directory).map_err(io)? } else { Vec::new() };
    Ok(Attributes {
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: (stat.st_mtime, stat.st_mtime_nsec),
        xattrs,
    })
}

/// The attributes that may be repeated on another directory without a privilege.
fn xattrs(directory: &OwnedFd) -> Result<Vec<Xattr>, Errno> {
    // Through /proc, since the descriptor may be one for look-ups only.
    let path = format!("/proc/self/fd/{}", directory.as_raw_fd());
    let names = match xattr::list_deref(&path).map_err(|e| errno::of(&e)) {
        Ok(names) => names,
        Err(Errno::ENOTSUP) => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let mut xattrs = Vec::new();
    let mut total = 0;
    for name in names {
        let bytes = name.as_bytes();
        let is_user = bytes.starts_with(b"user.") && !bytes.starts_with(b"user.overlay.");
        if !is_user && !bytes.starts_with(b"system.posix_acl_") {
            continue;
        }
        if let Some(value) = xattr::get_deref(&path, &name).map_err(|e| errno::of(&e))? {
            total += bytes.len() + value.len();
            if total > MAX_DIRECTORY_BYTES {
                return Err(Errno::E2BIG);
            }
            xattrs.push((bytes.to_vec(), value));
        }
    }
    Ok(xattrs)
}

/// Opens a directory of the layer, for look-ups.
fn open_beneath(layer: &OwnedFd, path: &[u8]) -> Result<OwnedFd, Errno> {
    beneath::open(layer, as_path(path), OFlag::O_PATH | OFlag::O_DIRECTORY)
}
