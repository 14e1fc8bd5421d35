//! The FUSE requests.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use fuser::{
    Errno, FileAttr, FileHandle, Filesystem, FopenFlags, Generation, INodeNo, InitFlags, KernelConfig, LockOwner,
    OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyXattr,
    Request,
};

use crate::backing::{Backing, Entry};
use crate::catalog;
use crate::layout::Place;
use crate::switches::Switches;

/// How long the kernel may answer from its cache, as CernVM-FS's default CVMFS_KCACHE_TIMEOUT.
const TTL: Duration = Duration::from_secs(60);

/// The file system; clones are the same one, so that it can be mounted again.
#[derive(Clone)]
pub(crate) struct Mock(Arc<Shared>);

pub(crate) struct Shared {
    pub(crate) backing: Backing,
    pub(crate) switches: Switches,
    /// Entries above the layers' contents that the kernel was told are missing: a new revision may have them.
    pub(crate) negative: Mutex<HashSet<(PathBuf, OsString)>>,
    fqrn: String,
    files: Mutex<HashMap<u64, Arc<File>>>,
    directories: Mutex<HashMap<u64, Arc<Vec<Entry>>>>,
    handles: AtomicU64,
}

impl Mock {
    pub(crate) fn new(backing: Backing, fqrn: String, revision: u64) -> Self {
        Self(Arc::new(Shared {
            backing,
            switches: Switches::new(revision),
            negative: Mutex::default(),
            fqrn,
            files: Mutex::default(),
            directories: Mutex::default(),
            handles: AtomicU64::new(1),
        }))
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.0
    }

    /// Every request goes through here: counted, held while the mock hangs, and delayed on a thread of its own, since
    /// the real client has many.
    fn serve(
        &self,
        request: &Request,
        name: &'static str,
        path: PathBuf,
        work: impl FnOnce(&Shared, &Path) + Send + 'static,
    ) {
        if !self.0.switches.pass(request.pid()) {
            self.0.switches.count(name, &path);
        }
        let delay = self.0.switches.slow();
        if delay.is_zero() {
            return work(&self.0, &path);
        }
        let shared = Arc::clone(&self.0);
        thread::spawn(move || {
            testkit::pause(delay);
            work(&shared, &path);
        });
    }

    fn path(&self, inode: INodeNo) -> PathBuf {
        self.0.backing.path(inode)
    }
}

impl Shared {
    fn attributes(&self, path: &Path) -> Result<FileAttr, Errno> {
        if self.switches.is_hidden(path) {
            return Err(Errno::ENOENT);
        }
        self.switches.find(path)?;
        let attributes = self.backing.attributes(path)?;
        self.switches.found(path);
        Ok(attributes)
    }

    fn open(&self, path: &Path) -> Result<FileHandle, Errno> {
        self.switches.find(path)?;
        let file = self.backing.open(path)?;
        let handle = self.handles.fetch_add(1, Ordering::Relaxed);
        self.files.lock().unwrap().insert(handle, Arc::new(file));
        Ok(FileHandle(handle))
    }

    fn open_directory(&self, path: &Path) -> Result<FileHandle, Errno> {
        if self.switches.is_hidden(path) {
            return Err(Errno::ENOENT);
        }
        self.switches.load(path)?;
        let entries = self.backing.entries(path, |child| self.switches.is_hidden(child))?;
        let handle = self.handles.fetch_add(1, Ordering::Relaxed);
        self.directories.lock().unwrap().insert(handle, Arc::new(entries));
        Ok(FileHandle(handle))
    }

    fn read(&self, handle: FileHandle, offset: u64, size: u32) -> Result<Vec<u8>, Errno> {
        let file = self.files.lock().unwrap().get(&handle.0).cloned().ok_or(Errno::EBADF)?;
        let mut buffer = vec![0; size as usize];
        let mut filled = 0;
        while filled < buffer.len() {
            match file.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        buffer.truncate(filled);
        Ok(buffer)
    }
}

impl Filesystem for Mock {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // As libfuse, so that one slow look-up does not hold the others of the same directory.
        let _ = config.add_capabilities(InitFlags::FUSE_PARALLEL_DIROPS);
        Ok(())
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let path = self.path(parent).join(name);
        self.serve(request, "lookup", path, |shared, path| match shared.attributes(path) {
            Ok(attributes) => reply.entry(&TTL, &attributes, Generation(0)),
            Err(error) if error.code() == Errno::ENOENT.code() => {
                if let (false, Some(parent), Some(name)) =
                    (matches!(Place::of(path), Place::Inside(_)), path.parent(), path.file_name())
                {
                    shared.negative.lock().unwrap().insert((parent.to_owned(), name.to_owned()));
                }
                // Inode 0 with a time to live is what makes the kernel remember that there is nothing.
                let nothing = FileAttr { ino: INodeNo(0), ..absent() };
                reply.entry(&TTL, &nothing, Generation(0));
            }
            Err(error) => reply.error(error),
        });
    }

    fn getattr(&self, request: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        self.serve(request, "getattr", self.path(inode), |shared, path| match shared.attributes(path) {
            Ok(attributes) => reply.attr(&TTL, &attributes),
            Err(error) => reply.error(error),
        });
    }

    fn readlink(&self, request: &Request, inode: INodeNo, reply: ReplyData) {
        self.serve(request, "readlink", self.path(inode), |shared, path| match shared.backing.read_link(path) {
            Ok(target) => reply.data(target.as_os_str().as_bytes()),
            Err(error) => reply.error(error.into()),
        });
    }

    fn open(&self, request: &Request, inode: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.serve(request, "open", self.path(inode), |shared, path| match shared.open(path) {
            Ok(handle) => reply.opened(handle, FopenFlags::FOPEN_KEEP_CACHE),
            Err(error) => reply.error(error),
        });
    }

    fn read(
        &self,
        request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.serve(request, "read", self.path(inode), move |shared, _| match shared.read(handle, offset, size) {
            Ok(data) => reply.data(&data),
            Err(error) => reply.error(error),
        });
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.0.files.lock().unwrap().remove(&handle.0);
        reply.ok();
    }

    fn opendir(&self, request: &Request, inode: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.serve(request, "opendir", self.path(inode), |shared, path| match shared.open_directory(path) {
            Ok(handle) => reply.opened(handle, FopenFlags::empty()),
            Err(error) => reply.error(error),
        });
    }

    fn readdir(&self, request: &Request, inode: INodeNo, handle: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        self.serve(request, "readdir", self.path(inode), move |shared, _| {
            let entries = shared.directories.lock().unwrap().get(&handle.0).cloned();
            let Some(entries) = entries else { return reply.error(Errno::EBADF) };
            for (index, entry) in entries.iter().enumerate().skip(offset as usize) {
                if reply.add(entry.inode, index as u64 + 1, entry.kind, &entry.name) {
                    break;
                }
            }
            reply.ok();
        });
    }

    fn releasedir(&self, _: &Request, _: INodeNo, handle: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.0.directories.lock().unwrap().remove(&handle.0);
        reply.ok();
    }

    /// The real client says that names have no length at all.
    fn statfs(&self, request: &Request, inode: INodeNo, reply: ReplyStatfs) {
        self.serve(request, "statfs", self.path(inode), |_, _| {
            reply.statfs(1 << 20, 1 << 19, 1 << 19, 1 << 20, 1 << 19, 4096, 0, 4096);
        });
    }

    fn getxattr(&self, request: &Request, inode: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let name = name.to_owned();
        self.serve(request, "getxattr", self.path(inode), move |shared, path| {
            let value = name
                .to_str()
                .and_then(|name| catalog::attribute(name, path, &shared.fqrn, &shared.backing, &shared.switches));
            match value {
                Some(value) => sized(reply, size, value.as_bytes()),
                None => reply.error(Errno::NO_XATTR),
            }
        });
    }

    fn listxattr(&self, request: &Request, inode: INodeNo, size: u32, reply: ReplyXattr) {
        self.serve(request, "listxattr", self.path(inode), move |_, path| {
            let names = if path.as_os_str().is_empty() { catalog::NAMES } else { &[] };
            let list: String = names.iter().map(|name| format!("{name}\0")).collect();
            sized(reply, size, list.as_bytes());
        });
    }
}

/// The protocol of extended attributes: a size of 0 asks for the size.
fn sized(reply: ReplyXattr, size: u32, value: &[u8]) {
    if size == 0 {
        reply.size(value.len() as u32);
    } else if value.len() > size as usize {
        reply.error(Errno::ERANGE);
    } else {
        reply.data(value);
    }
}

fn absent() -> FileAttr {
    let time = std::time::SystemTime::UNIX_EPOCH;
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: time,
        mtime: time,
        ctime: time,
        crtime: time,
        kind: fuser::FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}
