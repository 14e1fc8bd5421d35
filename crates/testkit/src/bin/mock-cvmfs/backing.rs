//! The directory that is served, as a publisher would have stored it.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use fuser::{FileAttr, FileType, INodeNo};
use sha2::{Digest, Sha256};

use crate::layout::{Place, is_layer_root};

const CATALOG: &str = ".cvmfscatalog";
const AUTOCATALOG: &str = ".cvmfsautocatalog";

pub(crate) struct Backing {
    root: PathBuf,
    autocatalogs: bool,
    inodes: Mutex<Inodes>,
}

/// One inode per path, for ever: so hard links become separate files, as they do in CernVM-FS.
struct Inodes {
    paths: Vec<PathBuf>,
    numbers: HashMap<PathBuf, u64>,
}

/// An entry of a directory.
pub(crate) struct Entry {
    pub(crate) inode: INodeNo,
    pub(crate) kind: FileType,
    pub(crate) name: OsString,
}

impl Backing {
    pub(crate) fn new(root: PathBuf, autocatalogs: bool) -> Self {
        let inodes = Inodes { paths: vec![PathBuf::new()], numbers: HashMap::from([(PathBuf::new(), 1)]) };
        Self { root, autocatalogs, inodes: Mutex::new(inodes) }
    }

    /// The path, relative to the root, of an inode that was given out before.
    pub(crate) fn path(&self, inode: INodeNo) -> PathBuf {
        let index = usize::try_from(inode.0 - 1).expect("an inode of ours");
        self.inodes.lock().unwrap().paths[index].clone()
    }

    pub(crate) fn inode(&self, path: &Path) -> INodeNo {
        let mut inodes = self.inodes.lock().unwrap();
        if let Some(number) = inodes.numbers.get(path) {
            return INodeNo(*number);
        }
        inodes.paths.push(path.to_owned());
        let number = inodes.paths.len() as u64;
        inodes.numbers.insert(path.to_owned(), number);
        INodeNo(number)
    }

    pub(crate) fn attributes(&self, path: &Path) -> io::Result<FileAttr> {
        let inode = self.inode(path);
        match self.root.join(path).symlink_metadata() {
            Ok(metadata) => attributes(inode, &metadata),
            Err(error) if self.is_added(path) => {
                let parent = path.parent().ok_or(error)?;
                let owner = self.root.join(parent).symlink_metadata()?;
                Ok(FileAttr {
                    kind: FileType::RegularFile,
                    perm: 0o644,
                    nlink: 1,
                    size: 0,
                    blocks: 0,
                    rdev: 0,
                    ..attributes(inode, &owner)?
                })
            }
            Err(error) => Err(error),
        }
    }

    pub(crate) fn open(&self, path: &Path) -> io::Result<File> {
        match File::open(self.root.join(path)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.is_added(path) => File::open("/dev/null"),
            result => result,
        }
    }

    pub(crate) fn read_link(&self, path: &Path) -> io::Result<PathBuf> {
        fs::read_link(self.root.join(path))
    }

    /// The entries of a directory, without those for which `hidden` holds, after `.` and `..`.
    pub(crate) fn entries(&self, path: &Path, hidden: impl Fn(&Path) -> bool) -> io::Result<Vec<Entry>> {
        let directory =
            |path: &Path, name: &str| Entry { inode: self.inode(path), kind: FileType::Directory, name: name.into() };
        let mut entries = vec![directory(path, "."), directory(path.parent().unwrap_or(path), "..")];
        for entry in fs::read_dir(self.root.join(path))? {
            let entry = entry?;
            let child = path.join(entry.file_name());
            if hidden(&child) {
                continue;
            }
            let kind = FileType::from_std(entry.file_type()?).ok_or(io::ErrorKind::InvalidData)?;
            entries.push(Entry { inode: self.inode(&child), kind, name: entry.file_name() });
        }
        for name in [CATALOG, AUTOCATALOG] {
            let child = path.join(name);
            if self.is_added(&child) && self.root.join(&child).symlink_metadata().is_err() {
                entries.push(Entry { inode: self.inode(&child), kind: FileType::RegularFile, name: name.into() });
            }
        }
        Ok(entries)
    }

    /// Whether a directory has a catalog of its own: every layer's root, and those that the publisher chose.
    pub(crate) fn has_catalog(&self, directory: &Path) -> bool {
        is_layer_root(directory) || self.has_autocatalog(directory)
    }

    /// A third of the directories below the layers' roots, the same ones in every run.
    fn has_autocatalog(&self, directory: &Path) -> bool {
        let chosen = || directory.file_name().is_some_and(|name| Sha256::digest(name.as_encoded_bytes())[0] % 3 == 0);
        self.autocatalogs
            && matches!(Place::of(directory), Place::Inside(_))
            && chosen()
            && self.root.join(directory).symlink_metadata().is_ok_and(|metadata| metadata.is_dir())
    }

    /// Whether the path is a catalog file, which is there even if the directory that is served does not have it.
    fn is_added(&self, path: &Path) -> bool {
        let Some(parent) = path.parent() else { return false };
        (path.ends_with(CATALOG) && self.has_catalog(parent))
            || (path.ends_with(AUTOCATALOG) && self.has_autocatalog(parent))
    }
}

fn attributes(inode: INodeNo, metadata: &Metadata) -> io::Result<FileAttr> {
    let kind = FileType::from_std(metadata.file_type()).ok_or(io::ErrorKind::InvalidData)?;
    let time = seconds(metadata.mtime());
    Ok(FileAttr {
        ino: inode,
        size: metadata.size(),
        blocks: metadata.size().div_ceil(512),
        atime: time,
        mtime: time,
        ctime: time,
        crtime: time,
        kind,
        perm: (metadata.mode() & 0o7777) as u16,
        nlink: if metadata.is_dir() { metadata.nlink() as u32 } else { 1 },
        uid: metadata.uid(),
        gid: metadata.gid(),
        // The C library's encoding is the kernel's as long as the numbers fit 32 bits.
        rdev: metadata.rdev() as u32,
        blksize: 4096,
        flags: 0,
    })
}

/// CernVM-FS keeps whole seconds.
fn seconds(since_epoch: i64) -> SystemTime {
    let distance = Duration::from_secs(since_epoch.unsigned_abs());
    if since_epoch < 0 { SystemTime::UNIX_EPOCH - distance } else { SystemTime::UNIX_EPOCH + distance }
}
