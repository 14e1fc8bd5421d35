//! The directories around a remote layer: cover, seal and erase.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, RenameFlags, openat, renameat2};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, UtimensatFlags, fchmodat, mkdirat, mknodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchownat};
use xattr::FileExt;

use super::{Error, Tree, make_directory};
use crate::markers::{Attributes, CATALOG, Plan};
use crate::stack::{COVER, ERASE, SEAL};

/// Tells containerd's reader of lower directories to stop; it means nothing to the kernel, whose attribute needs a
/// privilege and another name.
const OPAQUE_XATTR: &str = "user.overlay.opaque";
/// Tried out, and taken away again.
const PROBE_XATTR: &str = "user.cvmfs-snapshotter.probe";
/// The file that says which plan cover, seal and erase were made of.
const PLAN: &str = "plan";
/// What is being made, before it has its name. Nobody uses it, so that it may be taken away by whoever holds the lock.
const NEW: &str = "new";

pub(super) fn lock(mutex: &Mutex<()>) -> MutexGuard<'_, ()> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tree {
    /// Makes sure that a remote snapshot has the directories that `plan` calls for, and its cover if `cover` asks for it.
    pub fn ensure_extras(&self, id: u64, plan: &Plan, cover: bool) -> Result<(), Error> {
        let shape = plan.shape();
        let wanted = [(COVER, cover || shape.cover), (SEAL, self.has_seals() && shape.seal), (ERASE, shape.erase)];
        let directory = self.directory(id);
        let missing = || {
            let is_current = fs::read(directory.join(PLAN)).is_ok_and(|is| is == plan.fingerprint().as_bytes());
            // The file is about all that there is, so what is there is made again with it.
            let is_missing = |name: &str, wanted: bool| match directory.join(name) {
                path if is_current => wanted && !path.is_dir(),
                path => wanted || exists(&path),
            };
            let names = wanted.iter().filter(|(name, wanted)| is_missing(name, *wanted)).map(|(name, _)| *name);
            (is_current, names.collect::<Vec<_>>())
        };
        if missing().1.is_empty() {
            return Ok(());
        }
        let _guard = lock(&self.extras);
        let (is_current, names) = missing();
        let write_plan = || {
            let (made, file) = (self.new_path(id)?, directory.join(PLAN));
            let wrote = fs::write(&made, plan.fingerprint()).and_then(|()| fs::rename(&made, &file));
            wrote.map_err(|e| Error::io("write", &file, e))
        };
        // Where nothing could be of another plan it comes first: a crash before it would have all made twice.
        let is_first = [COVER, SEAL, ERASE].iter().all(|name| !exists(&directory.join(name)));
        if !is_current && is_first {
            write_plan()?;
        } else if !is_current {
            // A crash amid the exchange leaves some of each plan.
            remove(&directory.join(PLAN))?;
        }
        for name in names {
            let made = self.new_path(id)?;
            make_directory(&made, 0o755)?;
            let wrote = match name {
                COVER => write_cover(&made, plan),
                SEAL => write_seal(&made, plan),
                _ => write_erase(&made, plan),
            };
            let wrote = wrote.map_err(|e| Error::io("write", &made, e));
            if let Err(error) = wrote.and_then(|()| put(&made, &directory, name)) {
                // What cannot be removed now is taken away later.
                let _ = fs::remove_dir_all(&made);
                return Err(error);
            }
        }
        if !is_current && !is_first {
            write_plan()?;
        }
        Ok(())
    }

    /// Where something is made for a snapshot before it has its name. Needs the lock.
    pub(super) fn new_path(&self, id: u64) -> Result<PathBuf, Error> {
        let path = self.directory(id).join(NEW);
        remove(&path)?;
        Ok(path)
    }

    /// Takes away what a crash left of something that was being made for a snapshot.
    pub fn discard_unfinished(&self, id: u64) -> Result<(), Error> {
        // Without the lock first: there is hardly ever anything.
        if !exists(&self.directory(id).join(NEW)) {
            return Ok(());
        }
        match self.extras.try_lock() {
            // Somebody makes something, which this may be. The next clean-up looks again.
            Err(TryLockError::WouldBlock) => Ok(()),
            _guard => self.new_path(id).map(drop),
        }
    }
}

fn exists(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// Removes whatever is there, if anything. Follows no link.
fn remove(path: &Path) -> Result<(), Error> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(e) => Err(e),
    };
    match removed {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(Error::io("remove", path, e)),
        _ => Ok(()),
    }
}

/// Renames something to a name that is free.
fn rename_aside(from: &Path, directory: &Path) -> Result<PathBuf, Error> {
    for n in 0u64.. {
        let path = directory.join(format!(".{n}"));
        match renameat2(AT_FDCWD, from, AT_FDCWD, &path, RenameFlags::RENAME_NOREPLACE) {
            Ok(()) => return Ok(path),
            Err(nix::errno::Errno::EEXIST) => {}
            Err(e) => return Err(Error::io("rename", from, e.into())),
        }
    }
    unreachable!("there is a free number")
}

/// Gives a finished directory its name. One that has it already stays under another: a mounted overlay may use it.
fn put(made: &Path, directory: &Path, name: &str) -> Result<(), Error> {
    let place = directory.join(name);
    let swap = |made: &Path, flags| renameat2(AT_FDCWD, made, AT_FDCWD, &place, flags);
    let done = match swap(made, RenameFlags::RENAME_NOREPLACE) {
        // By way of the name that the other one will have: under that of what is being made it would be taken away.
        Err(nix::errno::Errno::EEXIST) => swap(&rename_aside(made, directory)?, RenameFlags::RENAME_EXCHANGE),
        result => result,
    };
    done.map_err(|e| Error::io("put in place", &place, e.into()))
}

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
fn write_cover(path: &Path, plan: &Plan) -> io::Result<()> {
    let top = File::open(path)?;
    for (directory, _) in &plan.directories {
        mkdirat(&top, name(directory), Mode::S_IRWXU)?;
    }
    for whiteout in &plan.whiteouts {
        make_whiteout(&top, name(whiteout))?;
    }
    // Every layer has a catalog marker in its root.
    make_whiteout(&top, name(CATALOG))?;
    // The deepest first: a directory's time changes with what is made in it.
    for (directory, attributes) in plan.directories.iter().rev() {
        apply(&top, name(directory), attributes)?;
    }
    apply(&top, Path::new("."), &plan.root)
}

fn write_seal(path: &Path, plan: &Plan) -> io::Result<()> {
    let top = File::open(path)?;
    make_directories(&top, plan.opaque.iter().flat_map(|path| parents(path).chain([path.as_slice()])))?;
    for directory in &plan.opaque {
        open_directory(&top, name(directory))?.set_xattr(OPAQUE_XATTR, b"y")?;
    }
    Ok(())
}

fn write_erase(path: &Path, plan: &Plan) -> io::Result<()> {
    let top = File::open(path)?;
    make_directories(&top, plan.erased.iter().flat_map(|path| parents(path)))?;
    for whiteout in &plan.erased {
        make_whiteout(&top, name(whiteout))?;
    }
    Ok(())
}

/// The merged tree shows the attributes of what lies above, so these do not matter.
fn make_directories<'a>(top: &File, paths: impl Iterator<Item = &'a [u8]>) -> io::Result<()> {
    for directory in paths.collect::<BTreeSet<_>>() {
        mkdirat(top, name(directory), Mode::from_bits_truncate(0o755))?;
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

fn name(path: &[u8]) -> &Path {
    Path::new(std::ffi::OsStr::from_bytes(path))
}

/// The directories that a path lies in, without the root.
fn parents(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(slash, _)| &path[..slash])
}
