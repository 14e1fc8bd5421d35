//! Which mount a path lies in, told without asking that mount anything.

use std::path::Path;

use crate::sys::mount_table;

/// What identifies the mount at a path, as long as somebody uses it: its id and its device.
pub(crate) fn mount_at(path: &Path) -> Option<String> {
    look(path).map(|mount| mount.identity)
}

/// Whether a path is still to be mounted by an automounter.
pub(super) fn is_automount(path: &Path) -> bool {
    look(path).is_some_and(|mount| mount.is_automount)
}

/// The mount that a path lies in.
pub(super) fn look(path: &Path) -> Option<Mount> {
    find(&mount_table::read().ok()?, path)
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mount {
    /// As [`mount_at`] gives it.
    pub identity: String,
    /// Whether something else is still to be mounted over it.
    pub is_automount: bool,
}

/// The last of the longest mount points wins: it lies on top.
fn find(table: &[u8], path: &Path) -> Option<Mount> {
    let above = mount_table::parse(table).filter(|mount| path.starts_with(&mount.point));
    let mount = above.max_by_key(|mount| mount.point.as_os_str().len())?;
    let text = String::from_utf8_lossy;
    let identity = format!("{} {}", text(mount.id), text(mount.device));
    Some(Mount { identity, is_automount: mount.kind == b"autofs" })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &[u8] = b"22 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
        30 22 0:40 / /cvmfs rw - autofs x rw\n\
        31 30 0:41 / /cvmfs/a.b ro - fuse cvmfs2 ro\n\
        32 30 0:42 / /cvmfs/a.b ro - fuse cvmfs2 ro\n\
        33 30 0:43 / /cvmfs/with\\040blank\\134x ro - fuse cvmfs2 ro\n";

    #[test]
    fn the_top_most_mount_of_the_longest_point_is_the_one() {
        for (path, expected) in [
            ("/cvmfs/a.b", "32 0:42"),
            ("/cvmfs/a.b/sub", "32 0:42"),
            ("/cvmfs/a.bc", "30 0:40"),
            ("/cvmfs/with blank\\x/y", "33 0:43"),
            ("/srv/layers", "22 8:1"),
        ] {
            assert_eq!(find(MOUNTS, Path::new(path)).map(|mount| mount.identity).as_deref(), Some(expected), "{path}");
        }
        assert_eq!(find(b"", Path::new("/")), None);
    }

    #[test]
    fn what_is_not_mounted_yet_is_told_from_what_is() {
        let mounts = b"22 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
            30 22 0:40 / /cvmfs rw shared:7 master:1 - autofs x rw\n\
            31 30 0:41 / /cvmfs/a.b ro - fuse autofs ro\n\
            32 22 0:42 / /mnt/direct rw - autofs systemd-1 rw\n\
            33 22 0:43 / /mnt/done rw - autofs systemd-1 rw\n\
            34 33 0:44 / /mnt/done ro - fuse cvmfs2 ro\n";
        for (path, expected) in [
            ("/cvmfs/a.b/sub", false),
            ("/cvmfs/c.d", true),
            ("/mnt/direct/sub", true),
            ("/mnt/done", false),
            ("/srv", false),
        ] {
            assert_eq!(find(mounts, Path::new(path)).map(|mount| mount.is_automount), Some(expected), "{path}");
        }
    }
}
