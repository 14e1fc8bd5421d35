//! Mounting, unmounting, and what the kernel has to forget.
//!
//! # Hanging
//!
//! A caller whose request waits in the kernel's queue can be killed; one whose request was taken by a process that does
//! not answer interrupts cannot, and fuser does not let us answer them. So a mock that hangs must not take requests at
//! all: a child process sends one, the thread that reads requests stops on it, and whatever comes later stays in the
//! queue. It must be another process, as one that waits for itself cannot be killed either. (A mount that was taken out of
//! the tree, but is in use, cannot be asked like that: it holds one request, whose caller has to wait for the end.)

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use fuser::{Config, MountOption, Notifier, Session, SessionACL};
use nix::mount::{MntFlags, umount2};

use crate::filesystem::{Mock, Shared};

pub(crate) struct Mounts {
    mock: Mock,
    mountpoint: PathBuf,
    /// How to reach the kernel about the present mount; `None` while unmounted.
    notifier: Mutex<Option<Notifier>>,
    poker: Mutex<Option<Child>>,
}

impl Mounts {
    pub(crate) fn new(mock: Mock, mountpoint: PathBuf) -> Self {
        Self { mock, mountpoint, notifier: Mutex::new(None), poker: Mutex::new(None) }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        self.mock.shared()
    }

    /// Mounts with the options of the real client.
    pub(crate) fn mount(&self) -> io::Result<()> {
        let mut notifier = self.notifier.lock().unwrap();
        if notifier.is_some() {
            return Err(io::Error::other("it is mounted"));
        }
        let mut config = Config::default();
        config.acl = SessionACL::All;
        config.mount_options = vec![
            MountOption::FSName("cvmfs2".into()),
            MountOption::RO,
            MountOption::NoSuid,
            MountOption::NoDev,
            MountOption::DefaultPermissions,
        ];
        let session = Session::new(self.mock.clone(), &self.mountpoint, &config)?;
        *notifier = Some(session.notifier());
        thread::spawn(move || session.run());
        Ok(())
    }

    /// Takes the mount out of the tree; what uses it goes on.
    pub(crate) fn unmount(&self) -> io::Result<()> {
        let mut notifier = self.notifier.lock().unwrap();
        if notifier.take().is_none() {
            return Err(io::Error::other("it is not mounted"));
        }
        Ok(umount2(&self.mountpoint, MntFlags::MNT_DETACH)?)
    }

    /// Unmounts and ends the process; overlays that are left get ENOTCONN.
    #[expect(clippy::disallowed_methods, reason = "it is called on the thread of a connection, and all is released")]
    pub(crate) fn quit(&self) -> ! {
        self.unhang();
        let _ = self.unmount();
        std::process::exit(0);
    }

    pub(crate) fn hang(&self) -> io::Result<()> {
        let switches = &self.shared().switches;
        if switches.is_shut() {
            return Ok(());
        }
        if self.notifier.lock().unwrap().is_none() {
            switches.shut();
            return Ok(());
        }
        let mut child = Command::new(std::env::current_exe()?)
            .arg("--poke")
            .arg(&self.mountpoint)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        switches.shut_after(child.id());
        drop(child.stdin.take());
        *self.poker.lock().unwrap() = Some(child);
        if switches.wait_shut(Duration::from_secs(10)) {
            return Ok(());
        }
        self.unhang();
        Err(io::Error::other("the request that starts the hang did not arrive"))
    }

    pub(crate) fn unhang(&self) {
        self.shared().switches.open();
        if let Some(mut child) = self.poker.lock().unwrap().take() {
            let _ = child.wait();
        }
    }

    /// A new revision, of which the kernel hears at once, as after `cvmfs_talk remount sync`. With a layer, that one
    /// appeared or vanished.
    pub(crate) fn new_revision(&self, layer: Option<&str>) -> u64 {
        let shared = Arc::clone(self.shared());
        let revision = shared.switches.new_revision();
        let Some(notifier) = self.notifier.lock().unwrap().clone() else { return revision };
        let layer = layer.map(str::to_owned);
        let forget = move || {
            let negative = std::mem::take(&mut *shared.negative.lock().unwrap());
            for (parent, name) in negative {
                let _ = notifier.inval_entry(shared.backing.inode(&parent), &name);
            }
            if let Some(digest) = layer {
                let fan = Path::new(".layers").join(digest.get(..2).unwrap_or_default());
                let _ = notifier.inval_entry(shared.backing.inode(&fan), digest.as_ref());
            }
        };
        let thread = thread::spawn(forget);
        // The kernel's answer may wait for requests that are held.
        if !self.shared().switches.is_shut() {
            let _ = thread.join();
        }
        revision
    }
}
