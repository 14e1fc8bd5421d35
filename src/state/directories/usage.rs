//! The disk that a directory takes, counted as containerd's own snapshotters do: each inode once, its allocated blocks,
//! the root included (containerd/continuity: fs/du_unix.go).
//!
//! A container may change its files meanwhile: nothing is opened by a path that it could redirect.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};

use super::error::Error;
use crate::state::metadata::Usage;
use crate::sys::{beneath, errno};

/// `st_blocks` counts in this unit, whatever the file system's block size is (stat(2)).
const BLOCK: u64 = 512;
/// A path that is longer than this goes on from a descriptor: the kernel takes none of more than 4096 bytes.
const PATH_BYTES: usize = 2048;
/// So many descriptors may be held for that. What is deeper is not measured: containerd's own snapshotters give up where a
/// path has 4096 bytes.
const MAX_TOPS: usize = 32;

/// A directory that is still to be listed.
struct Pending {
    top: Rc<OwnedFd>,
    /// The number of tops above.
    tops: usize,
    /// The path of its parent below `top`.
    parent: Rc<Path>,
    name: OsString,
}

#[derive(Default)]
struct Count {
    usage: Usage,
    /// Inodes with several names.
    seen: HashSet<u64>,
}

impl Count {
    fn add(&mut self, stat: &FileStat) {
        if stat.st_nlink > 1 && !is_directory(stat) && !self.seen.insert(stat.st_ino) {
            return;
        }
        self.usage.bytes += u64::try_from(stat.st_blocks).unwrap_or_default() * BLOCK;
        self.usage.inodes += 1;
    }
}

pub(super) fn of(directory: &Path) -> Result<Usage, Error> {
    measure(directory).map_err(|e| Error::io("measure", directory, e.into()))
}

fn measure(directory: &Path) -> nix::Result<Usage> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let top = openat(AT_FDCWD, directory, flags, Mode::empty())?;
    let root = fstat(&top)?;
    let mut count = Count::default();
    count.add(&root);
    let mut pending = vec![Pending { top: Rc::new(top), tops: 0, parent: Path::new("").into(), name: ".".into() }];
    while let Some(Pending { top, tops, parent, name }) = pending.pop() {
        let path: Rc<Path> = parent.join(name).into();
        let opened = match beneath::open_directory(&*top, &path) {
            Ok(opened) => opened,
            // A running container has removed or replaced it.
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::EXDEV) => continue,
            Err(e) => return Err(e),
        };
        let mut listing = Dir::from_fd(opened.try_clone().map_err(|e| errno::of(&e))?)?;
        let opened = Rc::new(opened);
        let below = match path.as_os_str().len() > PATH_BYTES {
            true => (opened.clone(), tops + 1, Path::new("").into()),
            false => (top, tops, path),
        };
        for entry in listing.iter() {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            let stat = match fstatat(&*opened, name, AtFlags::AT_SYMLINK_NOFOLLOW | AtFlags::AT_NO_AUTOMOUNT) {
                Ok(stat) => stat,
                Err(Errno::ENOENT) => continue,
                Err(e) => return Err(e),
            };
            if stat.st_dev != root.st_dev {
                continue;
            }
            count.add(&stat);
            if is_directory(&stat) {
                let (top, tops, parent) = below.clone();
                if tops > MAX_TOPS {
                    return Err(Errno::ENAMETOOLONG);
                }
                pending.push(Pending { top, tops, parent, name: name.to_owned() });
            }
        }
    }
    Ok(count.usage)
}

fn is_directory(stat: &FileStat) -> bool {
    SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFDIR
}
