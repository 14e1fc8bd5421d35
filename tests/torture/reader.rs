//! Lower directories as containerd 2.3 and later reads them, without a mount, to look users up.
//!
//! Each path is looked for in each directory by itself, from the top: the first that has it wins, a whiteout or an opaque
//! directory on the way ends the search (containerd: internal/fsview/overlay.go, `lstatDirect`). So it does not see what
//! the kernel sees where a layer has something else than a directory, or a whiteout, on the way to a path that a layer
//! above has again: that is so with containerd's own snapshotter, and left out here.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use containerd_snapshots::api::types::Mount;

use testkit::layer_model::disk;
use testkit::layer_model::{File, Layer, MARKER, OPAQUE, What, join};
use testkit::{lowers, option, upper};

const OPAQUE_XATTRS: [&str; 2] = ["trusted.overlay.opaque", "user.overlay.opaque"];

/// Compares what the reader finds with what the layers come to.
pub(crate) fn compare(mounts: &[Mount], layers: &[Layer], expected: &File) -> Result<(), String> {
    let mut directories = Vec::new();
    if mounts[0].r#type == "bind" {
        directories.push(PathBuf::from(&mounts[0].source));
    } else {
        directories.extend(option(mounts, "upperdir").map(|_| upper(mounts)));
        directories.extend(lowers(mounts));
    }
    let paths: BTreeSet<String> = layers.iter().flat_map(|layer| layer.root.paths()).collect();
    for path in paths.iter().filter(|path| !path.contains(MARKER) && is_plain(layers, path)) {
        let found = look_up(&directories, path);
        let wanted = expected.at(path);
        let right = match (&found, wanted.map(|file| &file.what)) {
            (None, None) => true,
            (Some(found), Some(What::Dir(_))) => found.is_dir(),
            (Some(found), Some(What::Regular(text))) => fs::read_to_string(found).is_ok_and(|is| is == *text),
            (Some(found), Some(What::Link(target))) => fs::read_link(found).is_ok_and(|is| is == Path::new(target)),
            // Not opened: some devices of a random layer exist.
            (Some(found), Some(_)) => found.symlink_metadata().is_ok(),
            _ => false,
        };
        if !right {
            let wanted = wanted.map(ToString::to_string);
            return Err(format!("containerd's reader finds {found:?} for {path:?}, expected {wanted:?}"));
        }
    }
    Ok(())
}

/// Whether containerd's reader can see a path as the kernel does.
fn is_plain(layers: &[Layer], path: &str) -> bool {
    let above = path.match_indices('/').map(|(slash, _)| &path[..slash]);
    let mut above = above.map(|parent| {
        let (directory, name) = parent.rsplit_once('/').unwrap_or(("", parent));
        let whiteout = join(directory, &format!("{MARKER}{name}"));
        layers.iter().all(|layer| {
            let is_directory = layer.root.at(parent).is_none_or(|file| file.entries().is_some());
            is_directory && (layer.published || layer.root.at(&whiteout).is_none())
        })
    });
    above.all(|plain| plain)
        // Of a local layer the kernel does not honour this one.
        && layers.iter().all(|layer| layer.published || layer.root.at(OPAQUE).is_none())
}

/// Where the reader finds a path, to which it goes down name by name.
fn look_up(directories: &[PathBuf], path: &str) -> Option<PathBuf> {
    let slashes = path.match_indices('/').map(|(slash, _)| slash);
    for parent in slashes.map(|slash| &path[..slash]) {
        look_up_name(directories, parent)?;
    }
    look_up_name(directories, path)
}

fn look_up_name(directories: &[PathBuf], path: &str) -> Option<PathBuf> {
    for directory in directories {
        let place = disk::place(directory, path);
        let above = place.ancestors().skip(1).take_while(|parent| parent.starts_with(directory));
        let stops = above.into_iter().any(is_opaque);
        if let Ok(metadata) = place.symlink_metadata() {
            let is_whiteout = metadata.file_type().is_char_device() && metadata.rdev() == 0;
            return (!is_whiteout).then_some(place);
        }
        if stops {
            return None;
        }
    }
    None
}

fn is_opaque(directory: &Path) -> bool {
    directory.is_dir()
        && OPAQUE_XATTRS
            .iter()
            .any(|name| xattr::get(directory, name).is_ok_and(|value| value.as_deref() == Some(b"y")))
}
