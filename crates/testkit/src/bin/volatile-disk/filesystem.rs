//! The FUSE requests, all of which the one thread of fuser answers: in the order in which they come.

use std::ffi::OsStr;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, SystemTime};

use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner, OpenFlags,
    ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request, WriteFlags,
};

use crate::medium::Medium;

/// How long a cut waits for a flush.
const AT_FLUSH: Duration = Duration::from_millis(200);
const TTL: Duration = Duration::from_secs(1);
/// The inode of `disk-0`; the root has 1.
const FIRST: u64 = 2;

/// The disks, of which each begins with what a cut left of the one before.
pub(crate) struct Disks {
    bytes: u64,
    state: Mutex<State>,
    /// Told when the disk is frozen or thawed.
    changed: Condvar,
}

/// What fails with EIO.
pub(crate) enum Failing {
    Nothing,
    /// Every write and flush.
    All,
    /// Writes of data that have this in them.
    WritesOf(Vec<u8>),
}

impl Failing {
    fn write(&self, data: &[u8]) -> bool {
        match self {
            Self::Nothing => false,
            Self::All => true,
            Self::WritesOf(text) => data.windows(text.len()).any(|part| part == text),
        }
    }
}

struct State {
    number: u64,
    disk: Medium,
    /// The one before, which is still mounted when the power is cut.
    old: Medium,
    frozen: bool,
    freezes_at_flush: bool,
    failing: Failing,
}

impl Disks {
    pub(crate) fn new(bytes: u64) -> Self {
        let state = State {
            number: 0,
            disk: Medium::default(),
            old: Medium::default(),
            frozen: false,
            freezes_at_flush: false,
            failing: Failing::Nothing,
        };
        Self { bytes, state: Mutex::new(state), changed: Condvar::new() }
    }

    pub(crate) fn freeze(&self) -> String {
        self.state.lock().unwrap().frozen = true;
        "frozen".into()
    }

    pub(crate) fn freeze_at_flush(&self) -> String {
        let mut state = self.state.lock().unwrap();
        state.freezes_at_flush = true;
        let (mut state, _) = self.changed.wait_timeout_while(state, AT_FLUSH, |state| !state.frozen).unwrap();
        (state.frozen, state.freezes_at_flush) = (true, false);
        "frozen".into()
    }

    pub(crate) fn thaw(&self) -> String {
        self.state.lock().unwrap().frozen = false;
        self.changed.notify_all();
        "thawed".into()
    }

    pub(crate) fn fail(&self, failing: Failing) -> String {
        self.state.lock().unwrap().failing = failing;
        "so be it".into()
    }

    pub(crate) fn cut(&self, seed: u64) -> String {
        let mut state = self.state.lock().unwrap();
        let (next, survivors) = state.disk.cut(&mut fastrand::Rng::with_seed(seed));
        state.old = std::mem::replace(&mut state.disk, next);
        state.number += 1;
        format!("disk-{} {} {} {}", state.number, survivors.written, survivors.kept, survivors.torn)
    }

    /// Works on a disk, as soon as it is not frozen.
    fn with<T>(&self, inode: INodeNo, work: impl FnOnce(&mut Medium, &Failing) -> T) -> Result<T, Errno> {
        let mut state = self.state.lock().unwrap();
        while state.frozen {
            state = self.changed.wait(state).unwrap();
        }
        let State { number, disk, old, failing, .. } = &mut *state;
        match inode.0.checked_sub(FIRST) {
            Some(wanted) if wanted == *number => Ok(work(disk, failing)),
            Some(wanted) if wanted + 1 == *number => Ok(work(old, failing)),
            _ => Err(Errno::EIO),
        }
    }

    /// As [`Self::with`], unless it is to fail.
    fn change(
        &self,
        inode: INodeNo,
        fails: impl FnOnce(&Failing) -> bool,
        work: impl FnOnce(&mut Medium),
    ) -> Result<(), Errno> {
        let change = |disk: &mut Medium, failing: &Failing| {
            if fails(failing) {
                return Err(Errno::EIO);
            }
            work(disk);
            Ok(())
        };
        self.with(inode, change)?
    }

    fn before_flush(&self) {
        let mut state = self.state.lock().unwrap();
        if std::mem::take(&mut state.freezes_at_flush) {
            state.frozen = true;
            self.changed.notify_all();
        }
    }

    fn attributes(&self, inode: INodeNo) -> FileAttr {
        let is_root = inode == INodeNo::ROOT;
        let time = SystemTime::UNIX_EPOCH;
        FileAttr {
            ino: inode,
            size: if is_root { 0 } else { self.bytes },
            blocks: 0,
            atime: time,
            mtime: time,
            ctime: time,
            crtime: time,
            kind: if is_root { FileType::Directory } else { FileType::RegularFile },
            perm: if is_root { 0o700 } else { 0o600 },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

/// The disks as files.
pub(crate) struct Served(pub(crate) Arc<Disks>);

impl Filesystem for Served {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let number = name.to_str().and_then(|name| name.strip_prefix("disk-")?.parse::<u64>().ok());
        match number {
            Some(number) => reply.entry(&TTL, &self.0.attributes(INodeNo(FIRST + number)), Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&TTL, &self.0.attributes(inode));
    }

    /// Without the kernel's cache: what the loop device writes is written here.
    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.0.with(inode, |disk, _| disk.read(offset, size as usize)) {
            Ok(data) => reply.data(&data),
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.0.change(inode, |failing| failing.write(data), |disk| disk.write(offset, data)) {
            Ok(()) => reply.written(data.len() as u32),
            Err(error) => reply.error(error),
        }
    }

    fn fsync(&self, _: &Request, inode: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.0.before_flush();
        match self.0.change(inode, |failing| matches!(failing, Failing::All), Medium::flush) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(error),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        // Of a descriptor that is closed: not of the disk.
        reply.ok();
    }
}
