//! One entry of an archive, and why it could not be read.

use std::io;

/// A piece of a sparse file that has content.
pub(super) struct Extent {
    /// Where it begins in the file.
    pub(super) offset: u64,
    /// Its bytes.
    pub(super) length: u64,
}

/// What an entry makes.
pub(super) enum Kind {
    /// A file of so many bytes.
    File {
        /// Bytes of content.
        size: u64,
    },
    /// A file with holes.
    Sparse {
        /// Bytes of the file, holes included.
        size: u64,
        /// The pieces with content, in order.
        extents: Vec<Extent>,
    },
    /// A directory.
    Directory,
    /// A symbolic link with this target, which is not looked at.
    Symlink(Vec<u8>),
    /// Another name of an entry of this layer.
    HardLink(Vec<u8>),
    /// A character device.
    Char(u32, u32),
    /// A block device.
    Block(u32, u32),
    /// A named pipe.
    Fifo,
}

/// A point in time: seconds and nanoseconds since 1970, the seconds possibly negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Time {
    /// Whole seconds, rounded down.
    pub(super) seconds: i64,
    /// Nanoseconds after that.
    pub(super) nanos: u32,
}

/// One entry of an archive.
pub(super) struct Entry {
    /// The name as in the archive.
    pub(super) path: Vec<u8>,
    /// What it is.
    pub(super) kind: Kind,
    /// Permission, set-id and sticky bits.
    pub(super) mode: u32,
    /// Owner.
    pub(super) uid: u64,
    /// Group.
    pub(super) gid: u64,
    /// Modification time.
    pub(super) mtime: Time,
    /// Extended attributes, full names.
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Why the next entry could not be read.
pub(super) enum ReadError {
    /// The stream itself failed.
    Io(io::Error),
    /// The archive is malformed.
    Malformed(String),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

pub(super) fn malformed<T>(why: impl std::fmt::Display) -> Result<T, ReadError> {
    Err(ReadError::Malformed(why.to_string()))
}
