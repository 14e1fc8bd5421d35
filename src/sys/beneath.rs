//! The one way to open a path below a directory that somebody else may change: openat2(2).
//!
//! The path leads through no symbolic link and not out of the directory, whatever is exchanged meanwhile. What others can write
//! to (the layers of a repository, an archive's tree, the files of a snapshot) is opened here.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

/// Opens a path below `top`; the empty path is `top` itself. ELOOP: the path leads through a symbolic link.
pub(crate) fn open(top: impl AsFd, path: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
    resolve(top, path, flags, ResolveFlag::empty())
}

/// As [`open`], and the path leads to no other file system. EXDEV: something is mounted there.
pub(crate) fn open_same_file_system(top: impl AsFd, path: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
    resolve(top, path, flags, ResolveFlag::RESOLVE_NO_XDEV)
}

/// Opens a directory for listing, on the same file system.
pub(crate) fn open_directory(top: impl AsFd, path: &Path) -> nix::Result<OwnedFd> {
    open_same_file_system(top, path, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW)
}

fn resolve(top: impl AsFd, path: &Path, flags: OFlag, more: ResolveFlag) -> nix::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    // No symbolic links: none of /proc's either.
    let policy = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | more;
    openat2(top, path, OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(policy))
}
