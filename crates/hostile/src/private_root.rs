//! A root directory for one thread, in memory: whatever escapes from where it belongs still lands where it is seen.
//!
//! The thread has a mount namespace of its own and is chrooted into a tmpfs, so that absolute names and `..` lead nowhere
//! else, and all is gone when the thread or the process ends, however it ends.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// Bounds what a hostile input can take.
const TMPFS: &str = "mode=0755,size=64m,nr_inodes=50k";

/// No input takes longer, also on a slow machine.
const LIMIT: Duration = Duration::from_secs(60);

/// The thread, which checks one input after the other.
pub struct PrivateRoot {
    inputs: SyncSender<Vec<u8>>,
    results: Receiver<thread::Result<()>>,
}

impl PrivateRoot {
    /// `make` is called once in the new root, `check` with what it made and each input.
    pub fn new<S: 'static>(make: fn() -> S, check: fn(&mut S, &[u8])) -> Self {
        let (inputs, next) = sync_channel::<Vec<u8>>(0);
        let (done, results) = sync_channel(0);
        thread::spawn(move || {
            enter();
            let mut state = make();
            for data in next {
                let result = catch_unwind(AssertUnwindSafe(|| check(&mut state, &data)));
                if done.send(result).is_err() {
                    break;
                }
            }
        });
        Self { inputs, results }
    }

    /// Checks one input; panics as the check does.
    pub fn check(&self, data: &[u8]) {
        self.inputs.send(data.to_vec()).expect("the thread of the root");
        if let Err(panic) = self.results.recv_timeout(LIMIT).expect("an end within the time limit") {
            resume_unwind(panic);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "of this thread only, which has left the directory of the others")]
fn enter() {
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_FS).expect("a mount namespace");
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_PRIVATE | MsFlags::MS_REC, none).expect("private mounts");
    // Over a directory that every system has; only this thread sees it.
    let root = Path::new("/tmp");
    mount(Some("tmpfs"), root, Some("tmpfs"), MsFlags::empty(), Some(TMPFS)).expect("a tmpfs");
    let proc = root.join("proc");
    fs::create_dir(&proc).expect("a directory");
    mount(Some("/proc"), &proc, none, MsFlags::MS_BIND | MsFlags::MS_REC, none).expect("/proc");
    nix::unistd::chroot(root).expect("a root");
    std::env::set_current_dir("/").expect("the root");
}

/// What stands in the root outside of where a check works.
pub struct Sentinel {
    inside: Vec<PathBuf>,
    before: BTreeMap<PathBuf, String>,
}

impl Sentinel {
    /// Sets targets up that an attack would like to reach, and remembers them. `inside`: where the check may work.
    pub fn new(inside: &[&str]) -> Self {
        fs::create_dir_all("/outside/directory").expect("a directory");
        fs::create_dir_all("/etc").expect("a directory");
        for file in ["/outside/file", "/outside/directory/file", "/etc/passwd", "/a", "/b"] {
            fs::write(file, file).expect("a file");
        }
        symlink("/outside/directory", "/outside/link").expect("a link");
        let inside = inside.iter().map(PathBuf::from).chain([PathBuf::from("/proc")]).collect();
        let mut sentinel = Self { inside, before: BTreeMap::new() };
        sentinel.before = sentinel.look();
        sentinel
    }

    /// Panics if anything outside was made, changed or removed.
    pub fn check(&self) {
        let now = self.look();
        if now != self.before {
            panic!("outside of {:?}: before {:#?}, now {now:#?}", self.inside, self.before);
        }
    }

    fn look(&self) -> BTreeMap<PathBuf, String> {
        let walk = walkdir::WalkDir::new("/").min_depth(1).into_iter();
        let entries = walk.filter_entry(|entry| !self.inside.iter().any(|inside| inside == entry.path()));
        entries
            .map(|entry| {
                let entry = entry.expect("an entry of the root");
                let meta = entry.metadata().expect("an entry of the root");
                let content = if meta.is_file() { fs::read(entry.path()).expect("a file") } else { Vec::new() };
                let line = format!(
                    "inode {} mode {:o} owner {}:{} links {} mtime {}.{} ctime {}.{} {}",
                    meta.ino(),
                    meta.mode(),
                    meta.uid(),
                    meta.gid(),
                    meta.nlink(),
                    meta.mtime(),
                    meta.mtime_nsec(),
                    meta.ctime(),
                    meta.ctime_nsec(),
                    content.escape_ascii(),
                );
                (entry.into_path(), line)
            })
            .collect()
    }
}
