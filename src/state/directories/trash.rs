//! Deleting what was removed, off the path of any request.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, PoisonError};

use nix::errno::Errno;

use super::error::Error;
use super::make::make_directory;
use crate::sys::remove_tree::Remover;

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
                        tracing::warn!(%error, "cannot delete a removed snapshot now; the next clean-up tries again");
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
        let _guard = self.emptying.lock().unwrap_or_else(PoisonError::into_inner);
        let io = |e: io::Error| Error::io("empty", &self.path, e);
        let top = File::open(&self.path).map_err(io)?;
        let mut remover = Remover::new(top.as_fd());
        for entry in fs::read_dir(&self.path).map_err(io)? {
            let name = entry.map_err(io)?.file_name();
            remover.delete(Path::new(&name), &self.path.join(&name));
        }
        remover.finish().map_err(|(path, errno)| match errno {
            Errno::EXDEV | Errno::EBUSY => Error::Mounted(path),
            other => Error::io("delete", &path, other.into()),
        })
    }
}
