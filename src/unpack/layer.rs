//! Unpacking one layer: every entry of its archive placed below a directory, exactly as it is.
//!
//! Exactly means without translation: `.wh.` files are ordinary files here, as DUCC leaves them. Entries
//! are applied in order, a later one replaces an earlier one of the same name, except that a directory over a directory
//! keeps what is in it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use nix::sys::stat::{Mode, SFlag};
use nix::unistd::{Gid, Uid};

use super::archive::{Input, TarReader};
use super::blob::LayerStream;
use super::entry::{Entry, Kind, ReadError};
use super::error::{LayerError, quote};
use super::extract::{Attributes, ExtractError, Root, XattrLost};
use super::name::Name;

/// The beginning of the names of extended attributes that only root can set.
pub(super) const TRUSTED: &[u8] = b"trusted.";

impl Input for LayerStream<'_> {}
impl Input for &mut LayerStream<'_> {}

/// What can stop one entry.
enum EntryError {
    Extract(ExtractError),
    Read(ReadError),
}

impl From<ExtractError> for EntryError {
    fn from(error: ExtractError) -> Self {
        Self::Extract(error)
    }
}

impl From<ReadError> for EntryError {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

fn refused<T>(why: impl Into<String>) -> Result<T, EntryError> {
    Err(EntryError::Extract(ExtractError::Refused(why.into())))
}

/// Unpacks the archive in `stream` into `root` and returns the directories below the root that it does not list.
/// `syncs_files`: whether each file has to be synced. `xattr_lost` is told each extended attribute that is left out.
///
/// # Errors
///
/// At the first entry that is malformed, refused, or cannot be placed.
pub(super) fn extract<R: Input + BufRead>(
    stream: R,
    root: OwnedFd,
    syncs_files: bool,
    xattr_lost: &XattrLost<'_>,
) -> Result<Vec<Vec<u8>>, LayerError> {
    let mut reader = TarReader::new(stream);
    let mut root = Root::new(root, syncs_files, xattr_lost);
    let mut last = Vec::new();
    loop {
        let entry = match reader.next() {
            Ok(Some(entry)) => entry,
            Ok(None) => break,
            Err(error) => return Err(read_error(error, &last)),
        };
        extract_entry(&mut reader, &mut root, &entry, xattr_lost).map_err(|error| match error {
            EntryError::Read(error) => read_error(error, &entry.path),
            EntryError::Extract(error) => extract_error(error, &entry.path),
        })?;
        last = entry.path;
    }
    root.finish().map_err(|(path, error)| extract_error(error, &path))
}

fn read_error(error: ReadError, after: &[u8]) -> LayerError {
    match error {
        ReadError::Io(error) => LayerError::Read(error),
        ReadError::Malformed(why) => LayerError::Tar { after: quote(after), why },
    }
}

fn extract_error(error: ExtractError, entry: &[u8]) -> LayerError {
    let entry = quote(entry);
    match error {
        ExtractError::Refused(why) => LayerError::Refused { entry, why },
        ExtractError::System(action, source) => LayerError::Place { entry, action, source },
    }
}

fn extract_entry<R: Input + BufRead>(
    reader: &mut TarReader<R>,
    root: &mut Root<'_>,
    entry: &Entry,
    xattr_lost: &XattrLost<'_>,
) -> Result<(), EntryError> {
    let name = match Name::parse(&entry.path) {
        Ok(name) => name,
        Err(why) => return refused(why),
    };
    let attributes = attributes(entry, xattr_lost)?;
    match &entry.kind {
        Kind::File { size } => root
            .file(&name, &attributes, |mut file: &File| written(reader.content(*size, |piece| file.write_all(piece))?)),
        Kind::Sparse { size, extents } => root.file(&name, &attributes, |mut file: &File| {
            for extent in extents {
                written(file.seek(SeekFrom::Start(extent.offset)).map(|_| ()))?;
                written(reader.content(extent.length, |piece| file.write_all(piece))?)?;
            }
            written(file.set_len(*size))
        }),
        Kind::Directory => Ok(root.directory(&name, attributes)?),
        Kind::Symlink(target) => Ok(root.symlink(&name, target, &attributes)?),
        Kind::HardLink(target) => Ok(root.hard_link(&name, target, &attributes)?),
        Kind::Char(major, minor) => Ok(root.node(&name, SFlag::S_IFCHR, (*major, *minor), &attributes)?),
        Kind::Block(major, minor) => Ok(root.node(&name, SFlag::S_IFBLK, (*major, *minor), &attributes)?),
        Kind::Fifo => Ok(root.node(&name, SFlag::S_IFIFO, (0, 0), &attributes)?),
    }
}

fn written(result: io::Result<()>) -> Result<(), EntryError> {
    result.map_err(|error| ExtractError::System("write the file", error).into())
}

fn attributes(entry: &Entry, xattr_lost: &XattrLost<'_>) -> Result<Attributes, EntryError> {
    // The largest id means "leave it" to chown.
    let id = |id: u64| u32::try_from(id).ok().filter(|id| *id != u32::MAX);
    let (Some(uid), Some(gid)) = (id(entry.uid), id(entry.gid)) else {
        return refused(format!("its owner {}:{} is not one that Linux has", entry.uid, entry.gid));
    };
    Ok(Attributes {
        uid: Uid::from_raw(uid),
        gid: Gid::from_raw(gid),
        mode: Mode::from_bits_truncate(entry.mode),
        mtime: entry.mtime,
        // overlayfs obeys `trusted.overlay.*`: they hide files or graft other directories in. containerd keeps none of them.
        xattrs: entry.xattrs.iter().filter(|(name, _)| !is_trusted(name, xattr_lost)).cloned().collect(),
    })
}

/// Whether an extended attribute is one that only root can set; told as lost if it is.
fn is_trusted(name: &[u8], xattr_lost: &XattrLost<'_>) -> bool {
    let is_trusted = name.starts_with(TRUSTED);
    if is_trusted {
        xattr_lost(OsStr::from_bytes(name));
    }
    is_trusted
}
