//! Deleting what was removed, off the path of any request.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::sync::{Arc, Mutex};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, RenameFlags, ResolveFlag, openat2, renameat2};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::{Error, extras, make_directory};

/// Directories deeper than this are moved to the top first: a container can nest them without limit, and each level
/// takes a descriptor.
const MAX_DEPTH: usize = 64;

/// The directory of removed snapshots, and the thread that empties it.
pub(super) struct Trash {
    bin: Arc<Bin>,
    wake: SyncSender<()>,
}

struct Bin {
    path: PathBuf,
    /// Held while it is emptied.
    emptying: Mutex<()>,
}

impl Trash {
    /// Opens it, and begins to delete what an earlier process left.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        match make_directory(path, 0o700) {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {}
            result => result?,
        }
        let bin = Arc::new(Bin { path: path.to_owned(), emptying: Mutex::new(()) });
        let (wake, woken) = mpsc::sync_channel(1);
        let thread = std::thread::Builder::new().name("trash".to_owned());
        let bins = bin.clone();
        thread
            .spawn(move || {
                for () in woken {
                    if let Err(error) = bins.empty() {
                        tracing::warn!(%error, "a removed snapshot is not deleted yet; it is tried again at the next clean-up");
                    }
                }
            })
            .map_err(|e| Error::io("start the thread that empties", path, e))?;
        let trash = Self { bin, wake };
        trash.wake();
        Ok(trash)
    }

    fn wake(&self) {
        match self.wake.try_send(()) {
            // Full: it will look anyway. Gone: only if the thread panicked; clean-up does its work.
            Ok(()) | Err(TrySendError::Full(()) | TrySendError::Disconnected(())) => {}
        }
    }

    /// Moves a snapshot's directory here.
    pub(super) fn take(&self, directory: &Path, id: u64) -> Result<(), Error> {
        let rename = || fs::rename(directory, self.bin.path.join(id.to_string()));
        let renamed = match rename() {
            Err(e) if e.kind() == io::ErrorKind::NotFound && !self.bin.path.exists() => {
                make_directory(&self.bin.path, 0o700)?;
                rename()
            }
            result => result,
        };
        match renamed {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(Error::io("remove", directory, e)),
        }
        self.wake();
        Ok(())
    }

    pub(super) fn empty(&self) -> Result<(), Error> {
        self.bin.empty()
    }
}

impl Bin {
    /// Deletes all there is; the first error, after having tried everything.
    fn empty(&self) -> Result<(), Error> {
        let _guard = extras::lock(&self.emptying);
        let io = |e: io::Error| Error::io("empty", &self.path, e);
        let top = File::open(&self.path).map_err(io)?;
        loop {
            let mut remover = Remover { top: top.as_fd(), moved: 0, error: None };
            for entry in fs::read_dir(&self.path).map_err(io)? {
                let name = entry.map_err(io)?.file_name();
                remover.remove(top.as_fd(), Path::new(&name), &self.path.join(&name), 0);
            }
            match remover.error {
                Some(error) => return Err(error),
                None if remover.moved == 0 => return Ok(()),
                None => {}
            }
        }
    }
}

/// Deletes trees below one directory.
struct Remover<'a> {
    top: BorrowedFd<'a>,
    /// Directories moved to the top because they were too deep.
    moved: usize,
    error: Option<Error>,
}

impl Remover<'_> {
    /// Deletes an entry, as far as that is possible. `path` is for messages.
    fn remove(&mut self, parent: BorrowedFd<'_>, name: &Path, path: &Path, depth: usize) {
        if let Err(errno) = self.try_remove(parent, name, path, depth) {
            let error = match errno {
                Errno::ENOENT => return,
                Errno::EXDEV | Errno::EBUSY => Error::Mounted(path.to_owned()),
                other => Error::io("delete", path, other.into()),
            };
            self.error.get_or_insert(error);
        }
    }

    fn try_remove(&mut self, parent: BorrowedFd<'_>, name: &Path, path: &Path, depth: usize) -> Result<(), Errno> {
        match unlinkat(parent, name, UnlinkatFlags::NoRemoveDir) {
            Err(Errno::EISDIR | Errno::EPERM) => {}
            result => return result,
        }
        if depth >= MAX_DEPTH {
            // Deleted in the next round.
            static NUMBER: AtomicU64 = AtomicU64::new(0);
            let aside = format!("deep-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
            match renameat2(parent, name, self.top, aside.as_str(), RenameFlags::RENAME_NOREPLACE) {
                // One of an earlier process; the next number is tried in the next round.
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(e) => return Err(e),
            }
            self.moved += 1;
            return Ok(());
        }
        let how = OpenHow::new()
            .flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_XDEV);
        let mut directory = Dir::from_fd(openat2(parent, name, how)?)?;
        let mut names = Vec::new();
        for entry in directory.iter() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(PathBuf::from(std::ffi::OsStr::from_bytes(name)));
            }
        }
        for name in names {
            self.remove(directory.as_fd(), &name, &path.join(&name), depth + 1);
        }
        unlinkat(parent, name, UnlinkatFlags::RemoveDir)
    }
}
