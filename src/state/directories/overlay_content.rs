//! What is written into cover, seal and erase.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, UtimensatFlags, fchmodat, mkdirat, mknodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchownat};
use xattr::FileExt;

use super::error::Error;
use crate::overlay::names::CATALOG;
use crate::overlay::path::{ancestors, as_path};
use crate::overlay::plan::{Attributes, Plan};

/// Tells containerd's reader of lower directories to stop; it means nothing to the kernel, whose attribute needs a
/// privilege and another name.
const OPAQUE_XATTR: &str = "user.overlay.opaque";
/// Tried out, and taken away again.
const PROBE_XATTR: &str = "user.cvmfs-snapshotter.probe";
/// Whether extended attributes of users can be set below a directory. It needs no room there: a start on a full disk is
/// what makes room again.
pub(super) fn takes_user_xattrs(directory: &Path) -> Result<bool, Error> {
    let set = xattr::set(directory, PROBE_XATTR, b"y").and_then(|()| xattr::remove(directory, PROBE_XATTR));
    match set {
        Ok(()) => Ok(true),
        Err(e) if matches!(e.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => Ok(true),
        Err(e) if e.kind() == ErrorKind::Unsupported => Ok(false),
        Err(e) => Err(Error::io("set an extended attribute on", directory, e)),
    }
}

/// Whiteouts, in directories with the attributes of the layer's own.
pub(super) fn write_cover(path: &Path, plan: &Plan) -> io::Result<()> {
    let top = File::open(path)?;
    for (directory, _) in &plan.directories {
        mkdirat(&top, as_path(directory), Mode::S_IRWXU)?;
    }
    for whiteout in &plan.whiteouts {
        make_whiteout(&top, as_path(whiteout))?;
    }
    // Every layer has a catalog marker in its root.
    make_whiteout(&top, Path::new(CATALOG))?;
    // The deepest first: a directory's time changes with what is made in it.
    for (directory, attributes) in plan.directories.iter().rev() {
        apply(&top, as_path(directory), attributes)?;
    }
    apply(&top, Path::new("."), &plan.root)
}

pub(super) fn write_seal(path: &Path, plan: &Plan) -> io::Result<()> {
    let top = File::open(path)?;
    make_directories(
        &top,
        plan.opaque.iter().flat_map(|path| ancestors(path).filter(|above| !above.is_empty()).chain([path.as_slice()])),
    )?;
    for directory in &plan.opaque {
        open_directory(&top, as_path(directory))?.set_xattr(OPAQUE_XATTR, b"y")?;
    }
    Ok(())
}

pub(super) fn write_erase(path: &Path, plan: &Plan) -> io::Result<()> {
    let top = File::open(path)?;
    make_directories(&top, plan.erased.iter().flat_map(|path| ancestors(path).filter(|above| !above.is_empty())))?;
    for whiteout in &plan.erased {
        make_whiteout(&top, as_path(whiteout))?;
    }
    Ok(())
}

/// The merged tree shows the attributes of what lies above, so these do not matter.
fn make_directories<'a>(top: &File, paths: impl Iterator<Item = &'a [u8]>) -> io::Result<()> {
    for directory in paths.collect::<BTreeSet<_>>() {
        mkdirat(top, as_path(directory), Mode::from_bits_truncate(0o755))?;
    }
    Ok(())
}

/// A character device 0/0, which everybody may make since Linux 5.8.
fn make_whiteout(top: &File, path: &Path) -> io::Result<()> {
    match mknodat(top, path, SFlag::S_IFCHR, Mode::empty(), 0) {
        // A catalog marker of the root that is in the plan as well.
        Err(nix::errno::Errno::EEXIST) => Ok(()),
        result => Ok(result?),
    }
}

fn apply(top: &File, path: &Path, attributes: &Attributes) -> io::Result<()> {
    let Attributes { mode, uid, gid, mtime, xattrs } = attributes;
    fchownat(top, path, Some(Uid::from_raw(*uid)), Some(Gid::from_raw(*gid)), AtFlags::AT_SYMLINK_NOFOLLOW)?;
    if !xattrs.is_empty() {
        let directory = open_directory(top, path)?;
        for (key, value) in xattrs {
            set_xattr(&directory, std::ffi::OsStr::from_bytes(key), value)?;
        }
    }
    // After the owner and the ACL, which change it.
    fchmodat(top, path, Mode::from_bits_truncate(*mode), FchmodatFlags::FollowSymlink)?;
    let time = TimeSpec::new(mtime.0, mtime.1);
    utimensat(top, path, &time, &time, UtimensatFlags::NoFollowSymlink)?;
    Ok(())
}

/// What the file system under the state directory cannot keep is left out: nothing is lost but the attribute.
fn set_xattr(directory: &File, key: &std::ffi::OsStr, value: &[u8]) -> io::Result<()> {
    match directory.set_xattr(key, value) {
        Err(e) if e.kind() == ErrorKind::Unsupported => Ok(()),
        result => result,
    }
}

fn open_directory(top: &File, path: &Path) -> io::Result<File> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Ok(File::from(openat(top.as_fd(), path, flags, Mode::empty())?))
}
