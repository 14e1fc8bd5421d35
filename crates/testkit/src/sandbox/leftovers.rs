//! What containers leave outside of the folder of their sandbox.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::wait::wait_until;

const CGROUPS: &str = "/sys/fs/cgroup";
/// Where shims keep the state of runc, by namespace and ID.
pub const RUNC: &str = "/run/containerd/runc";
/// Where clients have the pipes of their containers.
const PIPES: &str = "/run/containerd/fifo";

/// What containers that were killed leave outside of a sandbox's folder: state of runc, sockets of shims, named pipes, cgroups.
#[derive(Default)]
pub(super) struct Leftovers {
    /// The namespace and the ID of each task.
    tasks: Vec<(String, String)>,
    sockets: Vec<PathBuf>,
    pipes: Vec<PathBuf>,
}

impl Leftovers {
    pub(super) fn find(dir: &Path) -> Self {
        let socket = regex::Regex::new("/run/containerd/s/[0-9a-f]{64}").expect("a constant");
        let mut found = Self { pipes: pipes(dir), ..Self::default() };
        for state in subdirs(dir) {
            for namespace in subdirs(&state.join("state/io.containerd.runtime.v2.task")) {
                for task in subdirs(&namespace) {
                    for file in ["address", "bootstrap.json"] {
                        let text = fs::read_to_string(task.join(file)).unwrap_or_default();
                        found.sockets.extend(socket.find_iter(&text).map(|path| path.as_str().into()));
                    }
                    found.tasks.push((name_of(&namespace), name_of(&task)));
                }
            }
        }
        found
    }

    /// Most of these are gone already, in good order: only what is there can be removed.
    pub(super) fn remove(&self, cgroup: &str) {
        for socket in &self.sockets {
            let _ = fs::remove_file(socket);
        }
        for hierarchy in subdirs(Path::new(CGROUPS)).into_iter().chain([CGROUPS.into()]) {
            for (_, task) in &self.tasks {
                wait_until(Duration::from_secs(2), || gone(&hierarchy.join(cgroup).join(task)));
            }
            remove_cgroups(&hierarchy.join(cgroup));
        }
        for (namespace, task) in &self.tasks {
            let _ = fs::remove_dir_all(Path::new(RUNC).join(namespace).join(task));
        }
        // Tests that need another namespace put something behind the name of their first.
        for namespace in subdirs(Path::new(RUNC)).iter().filter(|dir| name_of(dir).starts_with(cgroup)) {
            let _ = fs::remove_dir(namespace);
        }
        for pipes in &self.pipes {
            let _ = fs::remove_dir_all(pipes);
        }
    }
}

/// The pipes of this sandbox's containers. nerdctl leaves those of `run --rm` behind, when nothing but containerd's log
/// knows the container any more.
fn pipes(dir: &Path) -> Vec<PathBuf> {
    let log = fs::read_to_string(dir.join("containerd.log")).unwrap_or_default();
    let ours = |pipes: &PathBuf| {
        let names = fs::read_dir(pipes).into_iter().flatten().flatten().map(|entry| entry.file_name());
        names.into_iter().any(|name| {
            let id = name.to_str().and_then(|name| name.strip_suffix("-stdout"));
            id.is_some_and(|id| log.contains(id))
        })
    };
    subdirs(Path::new(PIPES)).into_iter().filter(ours).collect()
}

/// Removes a cgroup and those in it, which kubelet makes for its pods.
fn remove_cgroups(cgroup: &Path) {
    for inner in subdirs(cgroup) {
        remove_cgroups(&inner);
    }
    wait_until(Duration::from_secs(2), || gone(cgroup));
}

/// Removes a cgroup; the kernel may need a moment after the end of its last process.
fn gone(cgroup: &Path) -> bool {
    fs::remove_dir(cgroup).is_ok() || !cgroup.exists()
}

fn subdirs(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
