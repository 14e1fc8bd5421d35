//! From the layers of a snapshot to its mount on this host.

use std::path::Path;

use super::error::Error;
use crate::containerd::key;
use crate::overlay::mount::{Access, Mount, mount as overlay_mount};
use crate::overlay::stack::Layer;
use crate::state::directories::Directories;
use crate::state::metadata::Kind;

/// The mount of the snapshot with this id and key on top of `layers` (nearest first).
pub(super) fn mount(
    directories: &Directories,
    id: u64,
    key: &str,
    kind: Kind,
    layers: &[Layer],
) -> Result<Mount, Error> {
    let access = match kind {
        Kind::View => Access::View { id },
        _ if key::extraction_target(key).is_some() => Access::Extract { id },
        _ => Access::Write { id },
    };
    // Looked at each time: the module may be loaded by the first mount.
    let index_off = Path::new("/sys/module/overlay/parameters/index").exists();
    let mount = overlay_mount(directories.snapshots(), access, layers, index_off);
    mount.map_err(|cause| Error::TooLarge { name: key.to_owned(), cause })
}
