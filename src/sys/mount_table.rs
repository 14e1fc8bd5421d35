//! The kernel's table of mounts: proc(5), `/proc/<pid>/mountinfo`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount<'a> {
    /// Its number, which may be used again once it is gone.
    pub id: &'a [u8],
    /// The device of its file system, `major:minor`.
    pub device: &'a [u8],
    /// Where it is mounted.
    pub point: PathBuf,
    /// The type of its file system.
    pub kind: &'a [u8],
    /// The options of its file system, separated by commas and escaped.
    pub options: &'a [u8],
}

/// The mounts that this process sees, in the order in which they were made.
pub(crate) fn read() -> std::io::Result<Vec<u8>> {
    std::fs::read("/proc/self/mountinfo")
}

/// The mounts of a table; a line that is none is left out.
pub(crate) fn parse(table: &[u8]) -> impl Iterator<Item = Mount<'_>> {
    table.split(|byte| *byte == b'\n').filter_map(line)
}

fn line(line: &[u8]) -> Option<Mount<'_>> {
    let mut fields = line.split(|byte| *byte == b' ');
    let (id, device) = (fields.next()?, fields.nth(1)?);
    let point = PathBuf::from(OsString::from_vec(unescape(fields.nth(1)?)));
    // The type follows a dash, before which there may be any number of fields.
    let mut rest = fields.skip_while(|field| *field != b"-").skip(1);
    Some(Mount { id, device, point, kind: rest.next()?, options: rest.nth(1).unwrap_or_default() })
}

/// The kernel writes blanks, backslashes and what else would be ambiguous as three octal digits.
pub(crate) fn unescape(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
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

    #[test]
    fn lines_are_taken_apart() {
        let table =
            b"36 35 98:0 /mnt1 /mnt\\0402\\134x rw,noatime master:1 shared:2 - ext3 /dev/root rw,errors=continue\n\
            37 35 0:5 / /x rw - tmpfs none rw\n\nhalf a line\n";
        let mounts: Vec<_> = parse(table).collect();
        assert_eq!(mounts.len(), 2, "{mounts:?}");
        let Mount { id, device, point, kind, options } = &mounts[0];
        assert_eq!((*id, *device, *kind), (&b"36"[..], &b"98:0"[..], &b"ext3"[..]));
        assert_eq!(point.as_os_str(), "/mnt 2\\x");
        assert_eq!(*options, b"rw,errors=continue");
        assert_eq!(mounts[1].kind, b"tmpfs");
    }

    #[test]
    fn what_is_no_escape_stays() {
        for (text, plain) in [("a\\040b", "a b"), ("\\054", ","), ("\\9", "\\9"), ("\\", "\\"), ("\\04", "\\04")] {
            assert_eq!(unescape(text.as_bytes()), plain.as_bytes(), "{text}");
        }
    }
}
