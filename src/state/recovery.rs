//! What an operator does when the store is lost or damaged.

use std::path::{Path, PathBuf};

/// How a copy of the store helps.
pub(super) const COPY: &str = "If nothing was pulled, run or removed since a copy of the file was made, put that copy in its place and start again. Otherwise:";

/// How to go on without a store, step by step.
///
/// containerd keeps a record of its own of every snapshot, and does not ask for one again that it believes to be there:
/// with a new store alone every pull of an image that it had fails with "already exists".
pub(super) fn way_back(root: &Path) -> String {
    // Without a slash at its end.
    let root = root.components().collect::<PathBuf>();
    let root = root.display();
    format!(
        "(1) stop kubelet, if there is one; \
         (2) `mv --no-target-directory '{root}' '{root}.lost'`: what containers have written is in {root}.lost/snapshots/*/fs then; \
         (3) start the snapshotter, which begins anew; \
         (4) have containerd forget the containers and images that used it, in each namespace of `nerdctl namespace ls` but k8s.io and moby \
         (with --namespace, which is default otherwise): \
         `nerdctl ps --all --quiet | xargs --no-run-if-empty nerdctl rm --force`, then \
         `nerdctl images --quiet | sort --unique | xargs --no-run-if-empty nerdctl rmi --force`. \
         These remove those of other snapshotters, too: where there are such, name yours one by one (ctr containers info tells the Snapshotter of each); \
         (5) on a node of Kubernetes, which is drained best before that: `crictl rmp --force --all`, then `crictl rmi --all`, and start kubelet; \
         (6) pull them again; \
         (7) when nothing is missed: `rm --recursive --one-file-system '{root}.lost'`"
    )
}
