//! What is asked of a repository, in calls that may hang: only for its worker's thread.
//!
//! Nothing here is kept open when a function returns, so that an idle daemon never keeps a repository busy.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};
use nix::sys::statfs::{FUSE_SUPER_MAGIC, statfs};

use super::fault::Fault;
use super::layout;
use crate::config::Kind;
use crate::digest::Digest;
use crate::overlay::names;
use crate::sys::{beneath, errno};

/// A healthy repository, opened.
pub(super) struct Root {
    directory: OwnedFd,
    /// The revision of a CernVM-FS repository.
    pub revision: Option<String>,
}

/// Looks whether the repository is there and healthy.
pub(super) fn open_root(path: &Path, kind: Kind) -> Result<Root, Fault> {
    match kind {
        Kind::Cvmfs => open_cvmfs(path),
        Kind::Directory => open_directory(path),
    }
}

fn open_cvmfs(path: &Path) -> Result<Root, Fault> {
    let info = statfs(path).map_err(|e| missing_or(e, "there is no such directory", "statfs"))?;
    if info.filesystem_type() != FUSE_SUPER_MAGIC {
        return Err(Fault::NotMounted("no FUSE file system is mounted there"));
    }
    match get_xattr(path, "user.fqrn") {
        Ok(_) => {}
        Err(Errno::ENODATA | Errno::ENOTSUP) => {
            return Err(Fault::NotMounted("what is mounted there is not CernVM-FS"));
        }
        Err(e) => return Err(Fault::of("getxattr user.fqrn", e)),
    }
    let revision = get_xattr(path, "user.revision").ok();
    Ok(Root { directory: open_path(path).map_err(|e| Fault::of("open", e))?, revision })
}

fn open_directory(path: &Path) -> Result<Root, Fault> {
    let directory = open_path(path).map_err(|e| missing_or(e, "there is no such directory", "open"))?;
    // Opened for reading: a dead server or client answers this, while a look-up may come from the kernel's cache.
    let layers =
        open(&path.join(layout::LAYERS), OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty());
    layers.map_err(|e| missing_or(e, "it has no directory .layers", "open .layers"))?;
    Ok(Root { directory, revision: None })
}

fn open_path(path: &Path) -> Result<OwnedFd, Errno> {
    open(path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
}

fn missing_or(errno: Errno, missing: &'static str, call: &'static str) -> Fault {
    match errno {
        Errno::ENOENT | Errno::ENOTDIR => Fault::NotMounted(missing),
        other => Fault::of(call, other),
    }
}

impl Root {
    /// The directory of a layer (usable for look-ups only), or `None` if the repository does not have it.
    pub(super) fn layer(&self, layer: Digest) -> Result<Option<OwnedFd>, Fault> {
        match self.open(&layout::layerfs(layer), OFlag::O_PATH | OFlag::O_DIRECTORY) {
            Ok(directory) => Ok(Some(directory)),
            Err(Errno::ENOENT) => Ok(None),
            Err(e) => Err(Fault::of("open layerfs", e)),
        }
    }

    /// What identifies the content of a layer: its markers are found again when this changes.
    ///
    /// CernVM-FS: the hash of the catalog whose root the layer is, which covers every name and attribute in it.
    /// Elsewhere: inode and change time of the layer's directory.
    pub(super) fn identity(&self, repository: &str, layer: Digest, directory: &OwnedFd) -> Result<String, Fault> {
        if self.revision.is_some() {
            // The catalog of a layer is loaded by the first look-up inside it.
            let _ = self.open(&layout::layerfs(layer).join(names::CATALOG), OFlag::O_PATH);
            let path = format!("/proc/self/fd/{}", directory.as_raw_fd());
            match get_xattr(Path::new(&path), "user.catalog_counters") {
                Ok(counters) => {
                    return catalog_hash(&counters).map(|hash| format!("catalog {hash}")).ok_or(Fault::Unreachable);
                }
                Err(Errno::ENODATA | Errno::ENOTSUP) => {}
                Err(e) => return Err(Fault::of("getxattr user.catalog_counters", e)),
            }
        }
        let stat: FileStat = fstat(directory).map_err(|e| Fault::of("stat layerfs", e))?;
        Ok(format!("{repository} inode {} ctime {}.{:09}", stat.st_ino, stat.st_ctime, stat.st_ctime_nsec))
    }

    /// The diff ID that the publisher recorded for a layer; `None` if there is no record.
    pub(super) fn diff_id(&self, layer: Digest) -> Result<Option<Digest>, Fault> {
        // Looked at before it is opened for reading: opening a device or a pipe has effects.
        let found = match self.open(&layout::layers_json(layer), OFlag::O_PATH) {
            Ok(found) => found,
            Err(Errno::ENOENT) => return Ok(None),
            Err(e) => return Err(Fault::of("open layers.json", e)),
        };
        let stat: FileStat = fstat(&found).map_err(|e| Fault::of("stat layers.json", e))?;
        if SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) != SFlag::S_IFREG {
            return Err(Fault::Failed("layers.json is not a file", Errno::EINVAL));
        }
        let again = format!("/proc/self/fd/{}", found.as_raw_fd());
        let file = open(again.as_str(), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty());
        let file = File::from(file.map_err(|e| Fault::of("open layers.json", e))?);
        let mut text = Vec::new();
        let read = file.take(layout::MAX_LAYERS_JSON).read_to_end(&mut text);
        read.map_err(|e| Fault::of("read layers.json", errno::of(&e)))?;
        layout::diff_id(&text, layer)
            .map_err(|layout::Malformed| Fault::Failed("layers.json is not what a publisher writes", Errno::EINVAL))
    }

    /// Whether the archive of a layer leaves out directories that it has entries in, as `unpack` records it.
    pub(super) fn leaves_out_directories(&self, layer: Digest) -> Result<bool, Fault> {
        match self.open(&layout::unlisted_directories(layer), OFlag::O_PATH) {
            Ok(_) => Ok(true),
            Err(Errno::ENOENT) => Ok(false),
            Err(e) => Err(Fault::of("open the record of unlisted directories", e)),
        }
    }

    /// Opens a path below the root that leads through no symlink and not out of it.
    pub(super) fn open(&self, path: &Path, flags: OFlag) -> Result<OwnedFd, Errno> {
        beneath::open(&self.directory, path, flags)
    }
}

/// Who owns a directory.
pub(super) fn owner(directory: &OwnedFd) -> Result<String, Fault> {
    let stat: FileStat = fstat(directory).map_err(|e| Fault::of("stat layerfs", e))?;
    Ok(format!("{}:{}", stat.st_uid, stat.st_gid))
}

/// The hash in `user.catalog_counters`. The client answers also if it cannot load the catalog: then the mountpoint is an
/// error message, or the hash is not one.
fn catalog_hash(counters: &str) -> Option<&str> {
    let value = |name: &str| counters.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let hash = value("catalog_hash:")?;
    let mountpoint = value("catalog_mountpoint:")?;
    // Hashes of other algorithms than SHA-1 have a suffix, like `-shake128`.
    let is_hash = hash.len() >= 40 && hash.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    (is_hash && !mountpoint.starts_with("error")).then_some(hash)
}

fn get_xattr(path: &Path, name: &str) -> Result<String, Errno> {
    match xattr::get_deref(path, name) {
        Ok(Some(value)) => Ok(String::from_utf8_lossy(&value).trim_end_matches('\0').trim().to_owned()),
        Ok(None) => Err(Errno::ENODATA),
        Err(e) => Err(errno::of(&e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_catalog_that_is_not_loaded_has_no_hash() {
        let hash = "48f335c9fc87719abfc42da049b21630514199cd";
        let counters =
            |hash: &str, mountpoint: &str| format!("catalog_hash: {hash}\ncatalog_mountpoint: {mountpoint}\ndir,44\n");
        assert_eq!(catalog_hash(&counters(hash, "/.layers/91/x/layerfs")), Some(hash));
        assert_eq!(catalog_hash(&counters(hash, "")), Some(hash), "the root catalog");
        assert_eq!(catalog_hash(&counters(hash, "error: failed to load catalog!")), None);
        assert_eq!(catalog_hash(&counters("", "/x")), None);
        assert_eq!(catalog_hash(&counters("0", "/x")), None);
        assert_eq!(catalog_hash(""), None);
    }
}
