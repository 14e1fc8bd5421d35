//! Deleting directories with all that is in them, however deep, without following a link or leaving the file system.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::renameat;
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::beneath;

/// Directories deeper than this are moved to the top first: they can be nested without limit, and each level takes a
/// descriptor.
const MAX_DEPTH: usize = 64;

/// So many names of a directory are held at a time: a container can make millions of long ones.
const BATCH: usize = 1024;

/// Deletes trees below one directory.
pub(crate) struct Remover<'a> {
    top: BorrowedFd<'a>,
    moved: Vec<String>,
    error: Option<(PathBuf, Errno)>,
}

impl<'a> Remover<'a> {
    /// Deletes entries of this directory. What is too deep appears in it for a while, as `deep-<process>-<number>`.
    pub(crate) fn new(top: BorrowedFd<'a>) -> Self {
        Self { top, moved: Vec::new(), error: None }
    }

    /// Deletes an entry of the directory, as far as that is possible. `path` is for messages.
    pub(crate) fn delete(&mut self, name: &Path, path: &Path) {
        self.remove(self.top, name, path, 0);
        while let Some(name) = self.moved.pop() {
            self.remove(self.top, Path::new(&name), &path.with_file_name(&name), 0);
        }
    }

    /// What could not be deleted first, and why; EXDEV or EBUSY if something is mounted there.
    pub(crate) fn finish(self) -> Result<(), (PathBuf, Errno)> {
        self.error.map_or(Ok(()), Err)
    }

    /// Whether it is gone.
    fn remove(&mut self, parent: BorrowedFd<'_>, name: &Path, path: &Path, depth: usize) -> bool {
        match self.try_remove(parent, name, path, depth) {
            Ok(()) | Err(Errno::ENOENT) => true,
            Err(errno) => {
                self.error.get_or_insert_with(|| (path.to_owned(), errno));
                false
            }
        }
    }

    fn try_remove(&mut self, parent: BorrowedFd<'_>, name: &Path, path: &Path, depth: usize) -> Result<(), Errno> {
        let refused = match unlinkat(parent, name, UnlinkatFlags::NoRemoveDir) {
            Err(refused @ (Errno::EISDIR | Errno::EPERM)) => refused,
            result => return result,
        };
        if depth >= MAX_DEPTH {
            static NUMBER: AtomicU64 = AtomicU64::new(0);
            loop {
                let number = NUMBER.fetch_add(1, Ordering::Relaxed);
                let aside = format!("deep-{}-{number}", std::process::id());
                // Replaces nothing but an empty directory. Not with RENAME_NOREPLACE, which NFS does not have.
                match renameat(parent, name, self.top, aside.as_str()) {
                    Ok(()) => {
                        self.moved.push(aside);
                        return Ok(());
                    }
                    // One of an earlier process.
                    Err(Errno::EEXIST | Errno::ENOTEMPTY | Errno::ENOTDIR) => {}
                    Err(e) => return Err(e),
                }
            }
        }
        let opened = match beneath::open_directory(parent, name) {
            // It is no directory, and cannot be deleted for another reason.
            Err(Errno::ENOTDIR | Errno::ELOOP) => return Err(refused),
            result => result?,
        };
        let mut directory = Dir::from_fd(opened)?;
        loop {
            let names = some_names(&mut directory)?;
            let mut gone = 0;
            for name in &names {
                gone += usize::from(self.remove(directory.as_fd(), name, &path.join(name), depth + 1));
            }
            // None: what is left stays, and has left its error.
            if gone == 0 {
                break;
            }
        }
        unlinkat(parent, name, UnlinkatFlags::RemoveDir)
    }
}

/// The first names in a directory.
fn some_names(directory: &mut Dir) -> Result<Vec<PathBuf>, Errno> {
    let mut names = Vec::new();
    for entry in directory.iter() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(PathBuf::from(std::ffi::OsStr::from_bytes(name)));
        }
        if names.len() == BATCH {
            break;
        }
    }
    Ok(names)
}
