//! From the markers of a layer to the directories that make overlayfs honour them.
//!
//! ```text
//! lowerdir = ... : cover : layer : seal : erase : <the layers below> ...
//! ```
//!
//! * **cover**, above the layer: a whiteout for each marker, which hides the marker itself, and for each deleted name
//!   that the layer does not have. Its directories are what the merged tree shows, so they carry the attributes of the
//!   layer's own.
//! * **seal**, below it: each hidden path as an opaque directory. The kernel never shows it; containerd's own reader of
//!   lower directories, which looks users up in `/etc/passwd`, needs it to stop there.
//! * **erase**, below that: a whiteout for each hidden path that the layer has as a directory, which ends the merge of
//!   that directory at the layer: the meaning of "opaque", without an attribute that takes a privilege.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::sync::OnceLock;

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::{FileStat, SFlag, fstat, fstatat};
use serde::{Deserialize, Serialize};

use super::list::{Marker, bytes_path, open_beneath};
use super::walk::WalkError;
use crate::digest::Digest;

use super::{AUFS_PREFIX, AUTO_CATALOG, CATALOG, OPAQUE, WHITEOUT_PREFIX};

/// The most bytes of names and attributes of the directories of a cover. Every deletion repeats all directories that it
/// lies in, each with its whole path.
pub(super) const MAX_DIRECTORY_BYTES: usize = 8 * 1024 * 1024;

/// A path below the root of the layer, as bytes: names need not be UTF-8. The root is empty.
pub(crate) type RelativePath = Vec<u8>;

/// Name and value of an extended attribute.
pub(crate) type Xattr = (Vec<u8>, Vec<u8>);

/// Attributes of a directory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attributes {
    /// Permissions, with set-id and sticky bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time: seconds and nanoseconds since the epoch.
    pub mtime: (i64, i64),
    /// Extended attributes (`user.*`, POSIX ACLs) of a layer that is not on CernVM-FS.
    pub xattrs: Vec<Xattr>,
}

impl Attributes {
    /// Memory that they take, about.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>()
            + self.xattrs.iter().map(|(key, value)| size_of::<Xattr>() + key.len() + value.len()).sum::<usize>()
    }
}

/// What stands above and below one layer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The attributes of the layer's root.
    pub root: Attributes,
    /// The directories of the cover but its root, parents first.
    pub directories: Vec<(RelativePath, Attributes)>,
    /// The whiteouts of the cover, without the one for the root's catalog marker that every cover has.
    pub whiteouts: Vec<RelativePath>,
    /// The opaque directories of the seal.
    pub opaque: Vec<RelativePath>,
    /// The whiteouts of the erase.
    pub erased: Vec<RelativePath>,
    /// Nothing below this layer is visible.
    pub hides_all: bool,
    #[serde(skip)]
    pub(crate) fingerprint: OnceLock<String>,
}

/// Which of the directories a layer needs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Shape {
    /// It has a cover of its own even where it is not the top-most remote layer.
    pub cover: bool,
    /// It has a seal.
    pub seal: bool,
    /// It has an erase.
    pub erase: bool,
    /// The stack ends with it.
    pub hides_all: bool,
}

impl Plan {
    /// Which directories this plan calls for.
    pub fn shape(&self) -> Shape {
        Shape {
            cover: !self.whiteouts.is_empty(),
            seal: !self.hides_all && !self.opaque.is_empty(),
            erase: !self.hides_all && !self.erased.is_empty(),
            hides_all: self.hides_all,
        }
    }

    /// What tells this plan from others.
    pub fn fingerprint(&self) -> &str {
        self.fingerprint.get_or_init(|| Digest::of(&self.encode()).hex())
    }

    /// The form in which the store keeps it (postcard).
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_stdvec(self).unwrap_or_else(|e| unreachable!("a plan of plain data is encodable: {e}"))
    }

    /// The plan in the form of [`Plan::encode`]; `None` if the bytes are not one.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        postcard::from_bytes(bytes).ok()
    }

    /// Makes the plan of a layer from its markers, with look-ups in the layer.
    ///
    /// `with_xattrs`: whether extended attributes of directories are part of the image; those that CernVM-FS shows are
    /// its own.
    pub(super) fn of(layer: &OwnedFd, markers: &[Marker], with_xattrs: bool) -> Result<Self, WalkError> {
        let root = attributes(layer, with_xattrs, b"")?;
        let mut whiteouts: BTreeSet<RelativePath> = BTreeSet::new();
        let mut hidden = BTreeSet::new();
        for marker in markers {
            whiteouts.insert(join(&marker.directory, &marker.name));
            match meaning(&marker.name) {
                Some(Meaning::Opaque) => hidden.insert(marker.directory.clone()),
                Some(Meaning::Deleted(name)) => hidden.insert(join(&marker.directory, name)),
                Some(Meaning::Nothing) => continue,
                None => return Err(WalkError::InvalidMarker(bytes_path(&join(&marker.directory, &marker.name)))),
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
        Ok(Self {
            root,
            directories: directories.into_iter().collect(),
            whiteouts: whiteouts.into_iter().collect(),
            opaque,
            erased,
            hides_all,
            fingerprint: OnceLock::new(),
        })
    }
}

enum Meaning<'a> {
    Opaque,
    Deleted(&'a [u8]),
    Nothing,
}

/// What a marker of this name means, `None` if no layer may have it.
fn meaning(name: &[u8]) -> Option<Meaning<'_>> {
    if name == OPAQUE {
        return Some(Meaning::Opaque);
    }
    if name.starts_with(AUFS_PREFIX) || name == CATALOG || name == AUTO_CATALOG {
        return Some(Meaning::Nothing);
    }
    match name.strip_prefix(WHITEOUT_PREFIX) {
        // It would delete the directory itself or its parent; containerd refuses such a layer, too.
        Some(b"" | b"." | b"..") | None => None,
        Some(deleted) => Some(Meaning::Deleted(deleted)),
    }
}

/// The type of an entry whose parent is a real directory of the layer; `None` if there is no such entry.
fn kind_of(layer: &OwnedFd, path: &[u8]) -> Result<Option<SFlag>, WalkError> {
    let Some((parent, name)) = split(path) else { return Ok(Some(SFlag::S_IFDIR)) };
    let io = |e| WalkError::io(path, e);
    let parent = open_beneath(layer, parent).map_err(io)?;
    match fstatat(&parent, &bytes_path(name), AtFlags::AT_SYMLINK_NOFOLLOW) {
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
    use std::os::fd::AsRawFd;
    use std::os::unix::ffi::OsStrExt;
    let errno = |e: std::io::Error| Errno::from_raw(e.raw_os_error().unwrap_or_default());
    // Through /proc, since the descriptor may be one for look-ups only.
    let path = format!("/proc/self/fd/{}", directory.as_raw_fd());
    let names = match xattr::list_deref(&path).map_err(errno) {
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
        if let Some(value) = xattr::get_deref(&path, &name).map_err(errno)? {
            total += bytes.len() + value.len();
            if total > MAX_DIRECTORY_BYTES {
                return Err(Errno::E2BIG);
            }
            xattrs.push((bytes.to_vec(), value));
        }
    }
    Ok(xattrs)
}

pub(super) fn join(directory: &[u8], name: &[u8]) -> RelativePath {
    if directory.is_empty() { name.to_vec() } else { [directory, b"/", name].concat() }
}

/// Parent and name; `None` for the root.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.is_empty() {
        return None;
    }
    match path.iter().rposition(|b| *b == b'/') {
        Some(slash) => Some((&path[..slash], &path[slash + 1..])),
        None => Some((&[], path)),
    }
}

/// The directories that a path lies in, the root last; none for the root.
fn ancestors(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::successors(split(path).map(|(parent, _)| parent), |path| split(path).map(|(parent, _)| parent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ancestors_end_at_the_root() {
        let all: Vec<&[u8]> = ancestors(b"a/b/c").collect();
        assert_eq!(all, [&b"a/b"[..], b"a", b""]);
        assert_eq!(ancestors(b"").count(), 0);
    }

    #[test]
    fn names_that_delete_no_entry_are_invalid() {
        for bad in [&b".wh."[..], b".wh..", b".wh..."] {
            assert!(meaning(bad).is_none(), "{}", String::from_utf8_lossy(bad));
        }
        assert!(matches!(meaning(b".wh..wh.plnk"), Some(Meaning::Nothing)));
        assert!(matches!(meaning(b".wh..wh..opq"), Some(Meaning::Opaque)));
        assert!(matches!(meaning(b".wh..x"), Some(Meaning::Deleted(b".x"))));
        assert!(matches!(meaning(b".wh.\xff\n"), Some(Meaning::Deleted(b"\xff\n"))));
    }

    #[test]
    fn what_was_encoded_is_decoded() {
        let plan = Plan { whiteouts: vec![b"a/\xff".to_vec()], hides_all: true, ..Plan::default() };
        assert_eq!(Plan::decode(&plan.encode()), Some(plan));
        assert_eq!(Plan::decode(b"\xff\xff"), None);
    }
}
