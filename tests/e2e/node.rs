//! A node: the daemon, containerd and a client that fit together.

use std::path::{Path, PathBuf};

use crate::tree::Tree;
use testkit::{Containerd, Daemon, ImageSite, Nerdctl, Output, Sandbox, Snapshotter, Version};

/// Which containerd and which nerdctl.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Release {
    /// containerd 2.4 and nerdctl 2.3: pulls through containerd's transfer service.
    New,
    /// containerd 1.6 and nerdctl 1.7: the client pulls.
    Old,
}

/// A daemon and a containerd that uses it.
pub(crate) struct Node<'a> {
    pub(crate) daemon: Daemon,
    pub(crate) containerd: Containerd<'a>,
    release: Release,
}

impl<'a> Node<'a> {
    pub(crate) fn start(sandbox: &'a Sandbox, release: Release, site: &ImageSite) -> Self {
        let daemon = Daemon::start_in(sandbox, &site.config());
        let version = match release {
            Release::New => Version::V2_4,
            Release::Old => Version::V1_6,
        };
        let containerd = Containerd::start(sandbox, version, Snapshotter::Cvmfs(&daemon), &site.registry);
        Self { daemon, containerd, release }
    }

    fn nerdctl_version(&self) -> Nerdctl {
        match self.release {
            Release::New => Nerdctl::V2_3,
            Release::Old => Nerdctl::V1_7,
        }
    }

    /// Runs nerdctl.
    pub(crate) fn nerdctl(&self, args: &[&str]) -> Output {
        self.containerd.nerdctl(self.nerdctl_version(), args)
    }

    /// nerdctl itself.
    pub(crate) fn nerdctl_program(&self) -> PathBuf {
        self.nerdctl_version().program()
    }

    /// Pulls an image.
    #[track_caller]
    pub(crate) fn pull(&self, reference: &str) {
        self.nerdctl(&["pull", "--quiet", reference]).ok();
    }

    /// Runs a command in a container of its own, which must succeed.
    #[track_caller]
    pub(crate) fn run(&self, reference: &str, command: &[&str]) {
        self.nerdctl(&[&["run", "--rm", "--network=none", reference][..], command].concat()).ok();
    }

    /// Runs a command in a running container, which must succeed.
    #[track_caller]
    pub(crate) fn exec(&self, container: &str, command: &[&str]) {
        self.nerdctl(&[&["exec", container][..], command].concat()).ok();
    }

    /// Starts a container that sleeps, and returns its ID.
    #[track_caller]
    pub(crate) fn start_sleeping(&self, reference: &str) -> String {
        let args = ["run", "-d", "--network=none", reference, "sleep", "10000"];
        self.nerdctl(&args).ok().trim().to_owned()
    }

    /// Removes a container, running or not.
    #[track_caller]
    pub(crate) fn remove(&self, container: &str) {
        self.nerdctl(&["rm", "-f", container]).ok();
    }

    /// The root of a running container as this machine sees it: without the mounts that the container has in it.
    pub(crate) fn rootfs(&self, container: &str) -> PathBuf {
        self.rootfs_in(&self.containerd.namespace(), container)
    }

    /// As [`Node::rootfs`], in another namespace.
    pub(crate) fn rootfs_in(&self, namespace: &str, container: &str) -> PathBuf {
        let socket = self.containerd.socket();
        let state = socket.parent().expect("containerd's folder").join("state/io.containerd.runtime.v2.task");
        state.join(namespace).join(container).join("rootfs")
    }

    /// The tree of a container of this image.
    #[track_caller]
    pub(crate) fn tree_of(&self, reference: &str) -> Tree {
        let container = self.start_sleeping(reference);
        let tree = Tree::read(&self.rootfs(&container));
        self.remove(&container);
        tree
    }

    /// How many snapshots have a directory.
    pub(crate) fn snapshots(&self) -> usize {
        std::fs::read_dir(self.daemon.root().join("snapshots")).expect("the snapshots").count()
    }
}

/// The lines of the mount table that name a path, but for a mount on the path itself.
pub(crate) fn mounts_naming(path: &Path) -> Vec<String> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let path = path.to_string_lossy();
    let ours = |line: &&str| line.contains(&*path) && line.split(' ').nth(4) != Some(&path);
    table.lines().filter(ours).map(Into::into).collect()
}
