//! Paths below the root of a layer, as bytes: names need not be UTF-8.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A path without a slash at either end. The root is empty.
pub(crate) type RelativePath = Vec<u8>;

/// The path for a system call.
pub(crate) fn as_path(path: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(path))
}

/// The path of an entry of a directory.
pub(crate) fn join(directory: &[u8], name: &[u8]) -> RelativePath {
    if directory.is_empty() { name.to_vec() } else { [directory, b"/", name].concat() }
}

/// Parent and name; `None` for the root.
pub(crate) fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.is_empty() {
        return None;
    }
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => Some((&path[..slash], &path[slash + 1..])),
        None => Some((&[], path)),
    }
}

/// The directories that a path lies in, the nearest first and the root last; none for the root.
pub(crate) fn ancestors(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::successors(split(path).map(|(parent, _)| parent), |path| split(path).map(|(parent, _)| parent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ancestors_end_at_the_root() {
        let all: Vec<&[u8]> = ancestors(b"a/b/c").collect();
        assert_eq!(all, [&b"a/b"[..], b"a", b""]);
        assert_eq!(ancestors(b"").count(), 0);
    }
}
