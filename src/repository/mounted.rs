//! Which mount a path lies in, told without asking that mount anything.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// What identifies the mount at a path, as long as somebody uses it: its id and its device (proc(5), `mountinfo`).
pub(crate) fn mount_at(path: &Path) -> Option<String> {
    find(&std::fs::read("/proc/self/mountinfo").ok()?, path).map(|mount| mount.identity)
}

/// Whether a path is still to be mounted by an automounter.
pub(super) fn is_automount(path: &Path) -> bool {
    std::fs::read("/proc/self/mountinfo").ok().and_then(|mounts| find(&mounts, path)).is_some_and(|m| m.is_automount)
}

#[derive(Debug, PartialEq, Eq)]
struct Mount {
    identity: String,
    is_automount: bool,
}

/// The last of the longest mount points wins: it lies on top.
fn find(mountinfo: &[u8], path: &Path) -> Option<Mount> {
    let mut best: Option<(usize, &[u8])> = None;
    for line in mountinfo.split(|byte| *byte == b'\n') {
        let Some(point) = line.split(|byte| *byte == b' ').nth(4).map(unescape) else { continue };
        let is_longer = best.as_ref().is_none_or(|(length, _)| point.len() >= *length);
        if is_longer && path.starts_with(Path::new(std::ffi::OsStr::from_bytes(&point))) {
            best = Some((point.len(), line));
        }
    }
    let mut fields = best?.1.split(|byte| *byte == b' ');
    let (id, device) = (fields.next()?, fields.nth(1)?);
    // The type follows a dash, before which there may be any number of fields.
    let is_automount = fields.skip_while(|field| *field != b"-").nth(1) == Some(b"autofs");
    let identity = format!("{} {}", String::from_utf8_lossy(id), String::from_utf8_lossy(device));
    Some(Mount { identity, is_automount })
}

/// The kernel writes blanks and backslashes as three octal digits.
fn unescape(point: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(point.len());
    let mut rest = point;
    while let [first, tail @ ..] = rest {
        let digits = tail.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if *first == b'\\' => {
                plain.push(byte);
                rest = &tail[3..];
            }
            _ => {
                plain.push(*first);
                rest = tail;
            }
        }
    }
    plain
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
