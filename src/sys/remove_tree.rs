//! Deleting directories with all that is in them, however deep, without following a link or leaving the file system.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::dir::{Dir, Entry};
use nix::errno::Errno;
use nix::fcntl::renameat;
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::beneath;

/// Directories deeper than this are moved to the top first: they can be nested without limit, and each level takes two
/// descriptors.
const MAX_DEPTH: usize = 64;

/// So many names of a directory are held at a time: a container can make millions of long ones.
const BATCH: usize = 1024;
/// A listing need not show what was there all the time, while entries are removed.
const PASSES: usize = 3;

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

    fn remove(&mut self, parent: BorrowedFd<'_>, name: &Path, path: &Path, depth: usize) {
        match self.try_remove(parent, name, path, depth) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => drop(self.error.get_or_insert_with(|| (path.to_owned(), errno))),
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
        // What is made meanwhile is for a later attempt: a process that still has the directory could go on for ever.
        for _ in 0..PASSES {
            self.empty(opened.as_fd(), path, depth)?;
            match unlinkat(parent, name, UnlinkatFlags::RemoveDir) {
                Err(Errno::ENOTEMPTY | Errno::EEXIST) if self.error.is_none() => {}
                result => return result,
            }
        }
        Err(Errno::ENOTEMPTY)
    }

    /// Deletes what is in a directory.
    fn empty(&mut self, directory: BorrowedFd<'_>, path: &Path, depth: usize) -> Result<(), Errno> {
        let listing = beneath::open_directory(directory, Path::new("."))?;
        let mut entries = Dir::from_fd(listing)?.into_iter();
        loop {
            let batch: Vec<PathBuf> = entries.by_ref().take(BATCH).map(name_of).collect::<Result<_, _>>()?;
            if batch.is_empty() {
                return Ok(());
            }
            for name in batch.iter().filter(|name| *name != Path::new(".") && *name != Path::new("..")) {
                self.remove(directory, name, &path.join(name), depth + 1);
            }
        }
    }
}

fn name_of(entry: Result<Entry, Errno>) -> Result<PathBuf, Errno> {
    Ok(PathBuf::from(std::ffi::OsStr::from_bytes(entry?.file_name().to_bytes())))
}
