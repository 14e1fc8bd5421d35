//! Extracting single entries into a directory that nothing can lead out of.
//!
//! A parent directory is always opened beneath the layer's root ([`crate::sys::beneath`]), and an entry is made in it by its
//! last component, with calls that do not follow a symlink there. So no name and no link of an archive reaches anything
//! outside, whatever the archive has put in place before.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat};
use nix::sys::stat::{
    FchmodatFlags, FileStat, Mode, SFlag, UtimensatFlags, fchmod, fchmodat, fstatat, futimens, makedev, mkdirat,
    mknodat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, fchownat, linkat, symlinkat, unlinkat};
use xattr::FileExt;

use super::deferred::{Deferred, Directories, TooMany};
use super::entry::Time;
use super::name::Name;
use crate::overlay::path::as_path;
use crate::sys::beneath;
use crate::sys::flush::close_written;

/// Owner, mode, time and extended attributes of an entry.
pub(super) struct Attributes {
    /// Owner.
    pub(super) uid: Uid,
    /// Group.
    pub(super) gid: Gid,
    /// Permission, set-id and sticky bits.
    pub(super) mode: Mode,
    /// Modification time, and access time too, which layers do not agree on.
    pub(super) mtime: Time,
    /// Extended attributes, full names.
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Why an entry cannot be placed.
#[derive(Debug)]
pub(super) enum ExtractError {
    /// The archive asks for something that is not allowed.
    Refused(String),
    /// The system does not do it: what was tried, and its answer.
    System(&'static str, io::Error),
}

impl From<TooMany> for ExtractError {
    fn from(_: TooMany) -> Self {
        Self::Refused("the layer has more directories, or longer names of them, than fit into memory".to_owned())
    }
}

type Extracted<T = ()> = Result<T, ExtractError>;

/// For `map_err`: names what was tried.
fn failed<E: Into<io::Error>>(action: &'static str) -> impl FnOnce(E) -> ExtractError {
    move |error| ExtractError::System(action, error.into())
}

fn refused<T>(why: &str) -> Extracted<T> {
    Err(ExtractError::Refused(why.to_owned()))
}

/// Told the name of an extended attribute that the file system does not take.
pub(super) type XattrLost<'a> = dyn Fn(&OsStr) + Sync + 'a;

/// What would be inherited by all that is made in a directory.
const DEFAULT_ACL: &[u8] = b"system.posix_acl_default";

/// The root of a layer that is being unpacked.
pub(super) struct Root<'a> {
    root: OwnedFd,
    /// The parent that was used last: archives are mostly sorted by directory.
    parent: Option<(Vec<u8>, OwnedFd)>,
    deferred: Directories,
    /// Whether each file has to be synced.
    syncs_files: bool,
    xattr_lost: &'a XattrLost<'a>,
}

impl<'a> Root<'a> {
    /// Places entries below the directory `root`.
    pub(super) fn new(root: OwnedFd, syncs_files: bool, xattr_lost: &'a XattrLost<'a>) -> Self {
        let mut deferred = Directories::default();
        // The first one is never too many.
        let _ = deferred.insert(Name(Vec::new()), Deferred::unlisted());
        Self { root, parent: None, deferred, syncs_files, xattr_lost }
    }

    /// Makes a file, has `write` fill it, and gives it its attributes.
    pub(super) fn file<E>(
        &mut self,
        name: &Name,
        attributes: &Attributes,
        write: impl FnOnce(&File) -> Result<(), E>,
    ) -> Result<(), E>
    where
        E: From<ExtractError>,
    {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = self
            .make(name, "create the file", |parent, last| openat(parent, last, flags, Mode::S_IRUSR | Mode::S_IWUSR))?;
        let file = File::from(file);
        write(&file)?;
        self.own(&file, attributes)?;
        self.set_xattrs(&file, &attributes.xattrs)?;
        let time = timespec(attributes.mtime);
        futimens(&file, &time, &time).map_err(failed("set the time"))?;
        Ok(close_written(file, self.syncs_files).map_err(failed("write and close the file"))?)
    }

    /// Makes a directory, or gives one that is there new attributes.
    pub(super) fn directory(&mut self, name: &Name, attributes: Attributes) -> Extracted {
        if !name.is_root() {
            let (parent, last) = name.split();
            let fd = self.parent(parent)?;
            match mkdirat(fd, last, Mode::S_IRWXU) {
                Ok(()) => {}
                Err(Errno::EEXIST) => {
                    if !is_directory(&stat(fd, last)?) {
                        remove(fd, last)?;
                        mkdirat(fd, last, Mode::S_IRWXU).map_err(failed("create the directory"))?;
                    }
                }
                Err(error) => return Err(failed("create the directory")(error)),
            }
        }
        let directory = self.open_directory(&name.0)?;
        self.own(&directory, &attributes)?;
        let (acls, others): (Vec<_>, _) = attributes.xattrs.into_iter().partition(|(key, _)| key == DEFAULT_ACL);
        self.set_xattrs(&directory, &others)?;
        let earlier = self.deferred.default_acl(name).cloned();
        let default_acl = acls.into_iter().last().map(|(_, acl)| acl).or(earlier);
        Ok(self.deferred.insert(name.clone(), Deferred { unlisted: false, mtime: attributes.mtime, default_acl })?)
    }

    /// Makes a symbolic link; where it leads is not looked at.
    pub(super) fn symlink(&mut self, name: &Name, target: &[u8], attributes: &Attributes) -> Extracted {
        if target.is_empty() || target.contains(&0) {
            return refused("it is a symbolic link without a valid target");
        }
        self.make(name, "create the symbolic link", |parent, last| symlinkat(OsStr::from_bytes(target), parent, last))?;
        self.finish_by_name(name, attributes, false)
    }

    /// Makes a device or a named pipe.
    pub(super) fn node(&mut self, name: &Name, kind: SFlag, device: (u32, u32), attributes: &Attributes) -> Extracted {
        let device = makedev(device.0.into(), device.1.into());
        self.make(name, "create the device or pipe (which takes CAP_MKNOD)", |parent, last| {
            mknodat(parent, last, kind, Mode::S_IRUSR | Mode::S_IWUSR, device)
        })?;
        self.finish_by_name(name, attributes, true)
    }

    /// Makes another name of an entry of this layer. As in containerd, attributes of a later header win.
    pub(super) fn hard_link(&mut self, name: &Name, target: &[u8], attributes: &Attributes) -> Extracted {
        let target = match Name::parse(target) {
            Ok(target) if !target.is_root() => target,
            _ => return refused("it is a hard link to something that is outside of the layer"),
        };
        if target != *name {
            let (target_parent, target_last) = target.split();
            let target_fd = match open_beneath(&self.root, target_parent) {
                Ok(fd) => fd,
                Err(Errno::ELOOP) => return refused("it is a hard link whose target lies behind a symbolic link"),
                Err(Errno::ENOENT | Errno::ENOTDIR) => return refused("it is a hard link to something not there"),
                Err(error) => return Err(failed("open the parent of the hard link's target")(error)),
            };
            match fstatat(&target_fd, target_last, AtFlags::AT_SYMLINK_NOFOLLOW) {
                Ok(stat) if is_directory(&stat) => return refused("it is a hard link to a directory"),
                Ok(_) => {}
                Err(Errno::ENOENT) => return refused("it is a hard link to something not there"),
                Err(error) => return Err(failed("look at the hard link's target")(error)),
            }
            self.make(name, "create the hard link", |parent, last| {
                // What stood at `name` may have held the target, which is then gone.
                linkat(&target_fd, target_last, parent, last, AtFlags::empty())
            })?;
        }
        let (parent, last) = name.split();
        let now = stat(self.parent(parent)?, last)?;
        let time = attributes.mtime;
        let same = now.st_uid == attributes.uid.as_raw()
            && now.st_gid == attributes.gid.as_raw()
            && (now.st_mode & 0o7777 == attributes.mode.bits() || is_symlink(&now))
            && (now.st_mtime, now.st_mtime_nsec) == (time.seconds, i64::from(time.nanos));
        // Not touched without need: chown takes file capabilities away, and headers of hard links often lack them.
        if same && attributes.xattrs.is_empty() {
            return Ok(());
        }
        self.finish_by_name(name, attributes, !is_symlink(&now))
    }

    /// Gives the directories their times and extended attributes. Nothing may be placed afterwards.
    ///
    /// Returns the directories below the root that the archive does not list.
    pub(super) fn finish(&mut self) -> Result<Vec<Vec<u8>>, (Vec<u8>, ExtractError)> {
        self.parent = None;
        let mut unlisted = Vec::new();
        for (name, deferred) in self.deferred.take() {
            self.finish_directory(&name, &deferred).map_err(|error| (name.0.clone(), error))?;
            if deferred.unlisted && !name.is_root() {
                unlisted.push(name.0);
            }
        }
        unlisted.reverse();
        Ok(unlisted)
    }

    fn finish_directory(&self, name: &Name, deferred: &Deferred) -> Extracted {
        let directory = self.open_directory(&name.0)?;
        if let Some(acl) = &deferred.default_acl {
            let name = OsStr::from_bytes(DEFAULT_ACL);
            self.check_xattr(name, directory.set_xattr(name, acl))?;
        }
        let time = timespec(deferred.mtime);
        futimens(&directory, &time, &time).map_err(failed("set the time"))
    }

    /// Makes a new entry; an existing one of this name is removed first.
    fn make<T>(
        &mut self,
        name: &Name,
        action: &'static str,
        mut create: impl FnMut(&OwnedFd, &OsStr) -> nix::Result<T>,
    ) -> Extracted<T> {
        if name.is_root() {
            return refused("it would replace the layer's root by something that is not a directory");
        }
        let (parent, last) = name.split();
        let fd = self.parent(parent)?;
        match create(fd, last) {
            Err(Errno::EEXIST) => {}
            result => return result.map_err(failed(action)),
        }
        let tree = is_directory(&stat(fd, last)?);
        remove(fd, last)?;
        if tree {
            self.parent = None;
            self.deferred.remove_tree(name);
        }
        create(self.parent(parent)?, last).map_err(failed(action))
    }

    /// The directory in which an entry is to be made; missing ones are made.
    fn parent(&mut self, path: &[u8]) -> Extracted<&OwnedFd> {
        if self.parent.as_ref().is_none_or(|(known, _)| known != path) {
            let fd = match open_beneath(&self.root, path) {
                Err(Errno::ENOENT) => {
                    self.make_parents(path)?;
                    open_beneath(&self.root, path)
                }
                result => result,
            };
            let fd = fd.map_err(|error| match error {
                Errno::ELOOP | Errno::EXDEV => {
                    ExtractError::Refused("its name leads through a symbolic link".to_owned())
                }
                Errno::ENOTDIR => ExtractError::Refused("its name leads through something not a directory".to_owned()),
                error => failed("open the parent directory")(error),
            })?;
            self.parent = Some((path.to_vec(), fd));
        }
        match &self.parent {
            Some((_, fd)) => Ok(fd),
            None => unreachable!("set above"),
        }
    }

    /// Directories that the archive leaves out: root's, mode 0755, time 0.
    fn make_parents(&mut self, path: &[u8]) -> Extracted {
        let ends = path.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(i, _)| i).chain([path.len()]);
        for end in ends {
            let name = Name(path[..end].to_vec());
            let (above, last) = name.split();
            // An error here means that `above` is no directory: the caller finds that out, too.
            let Ok(fd) = open_beneath(&self.root, above) else { return Ok(()) };
            match mkdirat(&fd, last, Mode::S_IRWXU) {
                Err(Errno::EEXIST) => continue,
                result => result.map_err(failed("create the parent directory"))?,
            }
            let directory = self.open_directory(&name.0)?;
            fchown(&directory, Some(Uid::from_raw(0)), Some(Gid::from_raw(0))).map_err(failed("set the owner"))?;
            fchmod(&directory, Mode::from_bits_truncate(0o755)).map_err(failed("set the mode"))?;
            self.deferred.insert(name, Deferred::unlisted())?;
        }
        Ok(())
    }

    fn open_directory(&self, path: &[u8]) -> Extracted<File> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
        let opened = beneath::open_same_file_system(&self.root, as_path(path), flags);
        Ok(File::from(opened.map_err(failed("open the directory"))?))
    }

    /// Owner first: changing it takes the set-id bits away.
    fn own(&self, file: &File, attributes: &Attributes) -> Extracted {
        fchown(file, Some(attributes.uid), Some(attributes.gid)).map_err(failed("set the owner"))?;
        fchmod(file, attributes.mode).map_err(failed("set the mode"))
    }

    fn set_xattrs(&self, file: &File, xattrs: &[(Vec<u8>, Vec<u8>)]) -> Extracted {
        for (name, value) in xattrs {
            let name = OsStr::from_bytes(name);
            self.check_xattr(name, file.set_xattr(name, value))?;
        }
        Ok(())
    }

    /// File systems without `security.` attributes are common (NFS), and so is an image with a file capability: that is a
    /// loss to be told, not a reason to stop. A `user.` attribute is content, but for overlayfs' own.
    fn check_xattr(&self, name: &OsStr, result: io::Result<()>) -> Extracted {
        match result {
            Err(error) if error.raw_os_error() == Some(Errno::EOPNOTSUPP as i32) => {
                if [&b"security."[..], b"system.", b"user.overlay."].iter().any(|p| name.as_bytes().starts_with(p)) {
                    (self.xattr_lost)(name);
                    Ok(())
                } else {
                    Err(failed("set an extended attribute")(error))
                }
            }
            result => result.map_err(failed("set an extended attribute")),
        }
    }

    /// Attributes of what cannot be opened. Not for directories.
    fn finish_by_name(&mut self, name: &Name, attributes: &Attributes, mode: bool) -> Extracted {
        let (parent, last) = name.split();
        self.parent(parent)?;
        let Some((_, fd)) = &self.parent else { unreachable!("opened above") };
        fchownat(fd, last, Some(attributes.uid), Some(attributes.gid), AtFlags::AT_SYMLINK_NOFOLLOW)
            .map_err(failed("set the owner"))?;
        if mode {
            // It is no symbolic link: `mode` is false for those, and nobody else works in this directory.
            fchmodat(fd, last, attributes.mode, FchmodatFlags::FollowSymlink).map_err(failed("set the mode"))?;
        }
        if !attributes.xattrs.is_empty() {
            let path = by_descriptor(fd, last);
            for (name, value) in &attributes.xattrs {
                let name = OsStr::from_bytes(name);
                self.check_xattr(name, xattr::set(&path, name, value))?;
            }
        }
        let time = timespec(attributes.mtime);
        utimensat(fd, last, &time, &time, UtimensatFlags::NoFollowSymlink).map_err(failed("set the time"))
    }
}

fn open_beneath(root: &OwnedFd, path: &[u8]) -> nix::Result<OwnedFd> {
    beneath::open_same_file_system(root, as_path(path), OFlag::O_PATH | OFlag::O_DIRECTORY)
}

fn stat(parent: impl AsFd, last: &OsStr) -> Extracted<FileStat> {
    fstatat(parent, last, AtFlags::AT_SYMLINK_NOFOLLOW).map_err(failed("look at what is there already"))
}

fn is_directory(stat: &FileStat) -> bool {
    stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits()
}

fn is_symlink(stat: &FileStat) -> bool {
    stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFLNK.bits()
}

/// A path for calls that take no descriptor of a parent.
fn by_descriptor(parent: &OwnedFd, last: &OsStr) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", parent.as_raw_fd())).join(last)
}

/// Removes an entry, a directory with its content. Symbolic links are removed, not followed.
fn remove(parent: &OwnedFd, last: &OsStr) -> Extracted {
    let result = match unlinkat(parent, last, UnlinkatFlags::NoRemoveDir) {
        Err(Errno::EISDIR | Errno::EPERM) => std::fs::remove_dir_all(by_descriptor(parent, last)),
        result => result.map_err(io::Error::from),
    };
    result.map_err(failed("remove what an earlier entry put there"))
}

fn timespec(time: Time) -> TimeSpec {
    TimeSpec::new(time.seconds, time.nanos.into())
}

/// Opens a directory by an absolute path, to be a root.
pub(super) fn open_root(path: &std::path::Path) -> io::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Ok(openat(AT_FDCWD, path, flags, Mode::empty())?)
}
