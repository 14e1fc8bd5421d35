//! The running containers that use layers in a repository, and whether these layers still answer.
//!
//! A container keeps the file systems that it was started on. When the client of a repository dies and is started again,
//! new containers get the new mount, but those that were running stay on the dead one until they are started again.
//! Nobody but the kernel knows this, so its table of mounts is read, and every container's root is looked at.

mod overlay;
mod probe;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use probe::{Health, LOOK, look};

use crate::config::Repository;
use crate::overlay::names::FS;
use crate::sys::mount_table;
use overlay::Overlay;

/// The configuration of a container has some ten kB.
const MAX_SPEC_BYTES: u64 = 4 * 1024 * 1024;
/// The folder that containerd gives the root of a container in its bundle.
const ROOTFS: &str = "rootfs";

/// A container, or another user of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Container {
    /// containerd's namespace; `None` if the mount is not the root of a container.
    pub namespace: Option<String>,
    /// Its ID.
    pub id: Option<String>,
    /// What its client calls it: a name of nerdctl, or pod and container of Kubernetes.
    pub name: Option<String>,
    /// Where its root is mounted.
    pub root: PathBuf,
    /// The repositories that its layers lie in, by name; by path if they are not configured any more.
    pub repositories: Vec<String>,
    /// How many of its layers lie in a repository.
    pub layers_in_place: usize,
    /// Whether its layers answer.
    pub health: Health,
}

/// The containers whose layers lie in repositories, by namespace and ID. Blocks, for at most `limit` and what the kernel
/// takes for its table.
///
/// `root`: the state directory. The caller must be root in the mount namespace of containerd.
pub fn running(root: &Path, repositories: &[Repository], limit: Duration) -> std::io::Result<Vec<Container>> {
    let table = mount_table::read()?;
    let mut found = in_table(&table, root, repositories, |link| std::fs::read_link(link).ok());
    let roots: Vec<PathBuf> = found.iter().map(|container| container.root.clone()).collect();
    for (container, health) in found.iter_mut().zip(probe::all(&roots, limit)) {
        container.health = health;
        // Another mount may have anything beside it.
        container.name = container.id.is_some().then(|| name(&container.root)).flatten();
    }
    Ok(found)
}

/// The containers in a table of mounts, of which nothing was asked yet. `read_link`: readlink(2), `None` if it is no link.
fn in_table(
    table: &[u8],
    root: &Path,
    repositories: &[Repository],
    read_link: impl Fn(&Path) -> Option<PathBuf>,
) -> Vec<Container> {
    let snapshots = root.join("snapshots");
    let mut seen = HashSet::new();
    let mut found = BTreeMap::new();
    for mount in mount_table::parse(table) {
        let Some(overlay) = Overlay::of(&mount, &snapshots) else { continue };
        // One overlay may be mounted at several places.
        if !seen.insert(mount.device.to_vec()) {
            continue;
        }
        let links: Vec<_> = overlay.snapshots.iter().filter_map(|id| read_link(&snapshots.join(id).join(FS))).collect();
        if links.is_empty() {
            continue;
        }
        let names: BTreeSet<String> = links.iter().map(|link| repository_of(link, repositories)).collect();
        let (namespace, id) = owner(&mount.point).unzip();
        let container = Container {
            namespace,
            id,
            name: None,
            repositories: names.into_iter().collect(),
            layers_in_place: links.len(),
            health: Health::Unknown,
            root: mount.point,
        };
        found.insert((container.namespace.clone(), container.id.clone(), container.root.clone()), container);
    }
    found.into_values().collect()
}

fn repository_of(link: &Path, repositories: &[Repository]) -> String {
    let configured = repositories.iter().find(|repository| link.starts_with(&repository.path));
    configured.map_or_else(
        || {
            let mut above = link.ancestors();
            above.find(|path| path.ends_with(".layers")).and_then(Path::parent).unwrap_or(link).display().to_string()
        },
        |repository| repository.name.clone(),
    )
}

/// Namespace and ID of the container whose root is mounted there: `.../io.containerd.runtime.v2.task/NAMESPACE/ID/rootfs`.
fn owner(root: &Path) -> Option<(String, String)> {
    let mut parts = root.iter().rev().map(|part| part.to_string_lossy().into_owned());
    (parts.next()? == ROOTFS).then_some(())?;
    let (id, namespace) = (parts.next()?, parts.next()?);
    parts.next()?.starts_with("io.containerd.runtime.").then_some((namespace, id))
}

/// What the client calls the container, from the configuration in its bundle.
fn name(root: &Path) -> Option<String> {
    #[derive(Deserialize)]
    struct Spec {
        #[serde(default)]
        annotations: BTreeMap<String, String>,
    }
    let mut text = String::new();
    let (no_wait, no_link) = (nix::libc::O_NONBLOCK, nix::libc::O_NOFOLLOW);
    let file =
        File::options().read(true).custom_flags(no_wait | no_link).open(root.with_file_name("config.json")).ok()?;
    file.metadata().ok().filter(std::fs::Metadata::is_file)?;
    file.take(MAX_SPEC_BYTES).read_to_string(&mut text).ok()?;
    let Spec { annotations } = serde_json::from_str(&text).ok()?;
    let get = |name: &str| annotations.get(name).map(String::as_str);
    match (get("io.kubernetes.cri.sandbox-namespace"), get("io.kubernetes.cri.sandbox-name")) {
        (Some(namespace), Some(pod)) => Some(match get("io.kubernetes.cri.container-name") {
            Some(container) => format!("{namespace}/{pod} {container}"),
            None => format!("{namespace}/{pod}"),
        }),
        _ => get("nerdctl/name").map(Into::into),
    }
}

#[cfg(test)]
mod tests;
