//! Which snapshots an overlay is made of, as the kernel lists it.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use crate::sys::mount_table::{Mount, unescape};

/// An overlay of our snapshots.
pub(super) struct Overlay {
    /// The names of the directories of its snapshots, which are their ids.
    pub snapshots: BTreeSet<String>,
}

impl Overlay {
    /// The overlay of a mount, if it is one that has a directory of ours.
    pub(super) fn of(mount: &Mount<'_>, snapshots: &Path) -> Option<Self> {
        (mount.kind == b"overlay").then_some(())?;
        let mut lowers = Vec::new();
        let mut is_ours = false;
        for option in mount.options.split(|byte| *byte == b',') {
            let Some((name, value)) = split(option) else { continue };
            match name {
                b"upperdir" => is_ours |= path(value).starts_with(snapshots),
                // One option for all, or one for each since Linux 6.8.
                b"lowerdir" => lowers.extend(value.split(|byte| *byte == b':').map(path)),
                b"lowerdir+" => lowers.push(path(value)),
                _ => {}
            }
        }
        is_ours |= lowers.iter().any(|lower| lower.starts_with(snapshots));
        is_ours.then(|| Self { snapshots: lowers.iter().filter_map(|lower| snapshot(lower, snapshots)).collect() })
    }
}

fn split(option: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = option.iter().position(|byte| *byte == b'=')?;
    Some((&option[..at], &option[at + 1..]))
}

fn path(value: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(unescape(value)))
}

/// The snapshot of a lower directory. containerd makes them relative to the directory of all snapshots where the options
/// would be too long.
fn snapshot(lower: &Path, snapshots: &Path) -> Option<String> {
    let below = if lower.is_absolute() { lower.strip_prefix(snapshots).ok()? } else { lower };
    Some(below.iter().next()?.to_str()?.to_owned())
}
