//! The entries of a tar stream, with their extensions applied and checked.
//!
//! `tar-core` parses the headers; this module feeds it, keeps the content apart, and settles what the formats leave open
//! the way that Go's `archive/tar` does, since that is what containerd applies layers with and what most layers were
//! written by:
//!
//! * links, devices, fifos and directories have no content, whatever their size field says;
//! * a PAX record with an empty value says nothing;
//! * global PAX headers are ignored.
//!
//! A header is held in memory while it is parsed, so its size is limited: [`HEADER_LIMIT`].

use std::io::{self, BufRead, Read};

use tar_core::EntryType;
use tar_core::parse::{Limits, ParseEvent, ParsedEntry, Parser};

use super::entry::{Entry, Extent, Kind, ReadError, Time, malformed};
use super::pax::check_pax;

/// Most bytes of long names and PAX records for one entry. The kernel limits a path to 4 KiB and the xattrs of a file
/// to 64 KiB for each value.
pub(super) const HEADER_LIMIT: u32 = 1024 * 1024;
/// Most bytes of one entry's headers with all that the parser wants to see at once, the map of a sparse file too. Its
/// 10 000 pieces take less than half of a MiB.
const BUFFER_LIMIT: usize = 2 * HEADER_LIMIT as usize;
/// The parser begins anew with every block of the map of a sparse file. So many bytes are parsed again in one archive,
/// which is the four largest maps.
const REPARSE_LIMIT: u64 = 1024 * 1024 * 1024;
/// Headers of fewer bytes do not count as parsed again: those of nearly all files but sparse ones.
const SMALL_HEADER: usize = 64 * 1024;
/// The kernel's PATH_MAX without the final NUL.
const PATH_LIMIT: u32 = 4095;

/// A stream in which bytes can be passed over.
pub(super) trait Input: Read + Sized {
    /// Passes over `n` bytes.
    ///
    /// # Errors
    ///
    /// `UnexpectedEof` if there are fewer, where that is noticed.
    fn skip(&mut self, n: u64) -> io::Result<()> {
        let skipped = io::copy(&mut self.by_ref().take(n), &mut io::sink())?;
        if skipped < n { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }
}

/// Reads the entries of an archive one after the other. The content of an entry is read between two calls of
/// [`TarReader::next`]; what is left of it is passed over.
pub(super) struct TarReader<R> {
    input: R,
    parser: Parser,
    /// Bytes that were read for a header and turned out to be content (at most one block).
    ahead: Vec<u8>,
    /// Content of the current entry not read yet.
    content: u64,
    /// Bytes between that content and the next header.
    padding: u64,
    /// Bytes taken from `input`.
    position: u64,
    /// Bytes of large headers that were parsed, as often as they were.
    parsed: u64,
    has_end: bool,
}

impl<R: Input> TarReader<R> {
    /// Reads the archive that begins where `input` stands.
    pub(super) fn new(input: R) -> Self {
        let limits = Limits { max_metadata_size: HEADER_LIMIT, max_path_len: Some(PATH_LIMIT), ..Limits::default() };
        let mut parser = Parser::new(limits);
        // Times before 1970 are errors to the parser. `check_pax` does what this switches off.
        parser.set_ignore_pax_errors(true);
        Self { input, parser, ahead: Vec::new(), content: 0, padding: 0, position: 0, parsed: 0, has_end: false }
    }

    /// Whether the mark of the archive's end was read; one that is cut off between two entries has none.
    pub(super) fn has_end(&self) -> bool {
        self.has_end
    }

    /// The stream; at the end of the archive it stands behind the end marker.
    pub(super) fn into_inner(self) -> R {
        self.input
    }

    /// Where the content of the current entry begins in the stream. Only right before any of it is read.
    pub(super) fn content_position(&self) -> u64 {
        self.position - self.ahead.len() as u64
    }

    /// The next entry, `None` at the end of the archive.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, ReadError> {
        self.pass_over(self.content + self.padding)?;
        (self.content, self.padding) = (0, 0);
        let mut header = std::mem::take(&mut self.ahead);
        loop {
            let (consumed, entry, sparse) = match self.parser.parse(&header) {
                Ok(ParseEvent::NeedData { min_bytes }) => {
                    // The parser asks for what it has where a number in the map of a sparse file does not end.
                    if min_bytes <= header.len() {
                        return malformed("the map of a sparse file is malformed");
                    }
                    // It takes the blocks of such a map one by one, also those that say nothing but that there are more.
                    if min_bytes > BUFFER_LIMIT {
                        return malformed(format_args!("the header of an entry has more than {BUFFER_LIMIT} bytes"));
                    }
                    if header.len() > SMALL_HEADER {
                        self.parsed += header.len() as u64;
                    }
                    if self.parsed > REPARSE_LIMIT {
                        return malformed("the maps of its sparse files have too many pieces");
                    }
                    if !self.read_more(&mut header, min_bytes)? {
                        // Go and GNU tar take a missing or a single zero block at the end for an end.
                        return if header.iter().all(|b| *b == 0) {
                            Ok(None)
                        } else {
                            malformed("it ends in the middle of a header")
                        };
                    }
                    continue;
                }
                Ok(ParseEvent::GlobalExtensions { consumed, .. }) => {
                    header.drain(..consumed);
                    continue;
                }
                Ok(ParseEvent::End { .. }) => {
                    self.has_end = true;
                    return Ok(None);
                }
                Ok(ParseEvent::Entry { consumed, entry }) => (consumed, entry, None),
                Ok(ParseEvent::SparseEntry { consumed, entry, sparse_map, real_size }) => {
                    let extents =
                        sparse_map.iter().map(|e| Extent { offset: e.offset, length: e.length }).collect::<Vec<_>>();
                    (consumed, entry, Some((extents, real_size)))
                }
                Err(error) => return malformed(error),
            };
            let (entry, content) = convert(&entry, sparse)?;
            self.content = content;
            self.padding = content.wrapping_neg() % 512;
            self.ahead = header.split_off(consumed);
            return Ok(Some(entry));
        }
    }

    /// Fills `header` up to `want` bytes; false if the stream ends before.
    fn read_more(&mut self, header: &mut Vec<u8>, want: usize) -> io::Result<bool> {
        let missing = want.saturating_sub(header.len()) as u64;
        let n = self.input.by_ref().take(missing).read_to_end(header)? as u64;
        self.position += n;
        Ok(n == missing)
    }

    fn pass_over(&mut self, n: u64) -> Result<(), ReadError> {
        let ahead = usize::try_from(n).map_or(self.ahead.len(), |n| n.min(self.ahead.len()));
        self.ahead.drain(..ahead);
        let n = n - ahead as u64;
        if n > 0 {
            self.input.skip(n).or_else(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => malformed("it ends in the middle of a file"),
                _ => Err(error.into()),
            })?;
            self.position += n;
        }
        Ok(())
    }
}

impl<R: Input + BufRead> TarReader<R> {
    /// Gives the next `length` bytes of the current entry's content to `write`, piece by piece. An error of `write` is
    /// handed through as the inner result.
    pub(super) fn content(
        &mut self,
        mut length: u64,
        mut write: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<io::Result<()>, ReadError> {
        debug_assert!(length <= self.content);
        self.content -= length;
        let ahead = usize::try_from(length).map_or(self.ahead.len(), |n| n.min(self.ahead.len()));
        if ahead > 0 {
            let piece: Vec<u8> = self.ahead.drain(..ahead).collect();
            length -= ahead as u64;
            if let Err(error) = write(&piece) {
                return Ok(Err(error));
            }
        }
        while length > 0 {
            let piece = self.input.fill_buf()?;
            if piece.is_empty() {
                return malformed("it ends in the middle of a file");
            }
            let n = usize::try_from(length).map_or(piece.len(), |length| length.min(piece.len()));
            let written = write(&piece[..n]);
            self.input.consume(n);
            self.position += n as u64;
            length -= n as u64;
            if let Err(error) = written {
                return Ok(Err(error));
            }
        }
        Ok(Ok(()))
    }
}

/// Our form of an entry, and the number of bytes of content that follow it in the stream.
fn convert(entry: &ParsedEntry<'_>, sparse: Option<(Vec<Extent>, u64)>) -> Result<(Entry, u64), ReadError> {
    let mut mtime = Time { seconds: entry.mtime.cast_signed(), nanos: 0 };
    if let Some(pax) = entry.pax {
        let found = check_pax(pax)?;
        mtime = found.mtime.unwrap_or(mtime);
        if found.sparse_1 && found.size {
            return malformed("a sparse file of PAX version 1.0 with a PAX size is not supported");
        }
    }
    let target = || entry.link_target.as_ref().map(|target| target.to_vec()).unwrap_or_default();
    let device = || (entry.dev_major.unwrap_or(0), entry.dev_minor.unwrap_or(0));
    let kind = match entry.entry_type {
        // The byte 0 is from before there were directories: they are files whose name ends with a slash.
        EntryType::Regular if entry.header.as_ustar().typeflag[0] == 0 && entry.path.ends_with(b"/") => Kind::Directory,
        EntryType::Regular | EntryType::Continuous | EntryType::GnuSparse => match sparse {
            None => Kind::File { size: entry.size },
            Some((extents, size)) => {
                check_extents(&extents, size, entry.size)?;
                Kind::Sparse { size, extents }
            }
        },
        EntryType::Directory => Kind::Directory,
        EntryType::Symlink => Kind::Symlink(target()),
        EntryType::Link => Kind::HardLink(target()),
        EntryType::Char => Kind::Char(device().0, device().1),
        EntryType::Block => Kind::Block(device().0, device().1),
        EntryType::Fifo => Kind::Fifo,
        other => {
            return malformed(format_args!(
                "entry {} has the type {:?}, which layers do not have",
                super::error::quote(&entry.path),
                char::from(other.to_byte())
            ));
        }
    };
    let content = match kind {
        Kind::File { .. } | Kind::Sparse { .. } => entry.size,
        _ => 0,
    };
    if content.checked_add(512).is_none() {
        return malformed("an entry has an impossible size");
    }
    let entry = Entry {
        path: entry.path.to_vec(),
        kind,
        mode: entry.mode & 0o7777,
        uid: entry.uid,
        gid: entry.gid,
        mtime,
        xattrs: entry.xattrs.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect(),
    };
    Ok((entry, content))
}

/// The pieces of a sparse file lie in order within it and are what the archive holds for it.
fn check_extents(extents: &[Extent], size: u64, content: u64) -> Result<(), ReadError> {
    let mut end = 0;
    let mut sum = 0;
    for extent in extents {
        if extent.offset < end || extent.length > size || extent.offset > size - extent.length {
            return malformed("the pieces of a sparse file overlap or lie outside of it");
        }
        end = extent.offset + extent.length;
        sum += extent.length;
    }
    if sum == content { Ok(()) } else { malformed("a sparse file has another size than its pieces") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extents_lie_within_the_file() {
        let extents = |list: &[(u64, u64)]| list.iter().map(|&(offset, length)| Extent { offset, length }).collect();
        let check = |list: &[(u64, u64)], size, content| {
            let list: Vec<Extent> = extents(list);
            check_extents(&list, size, content).is_ok()
        };
        assert!(check(&[], 100, 0));
        assert!(check(&[(0, 10), (50, 50)], 100, 60));
        assert!(!check(&[(0, 10), (50, 51)], 100, 61));
        assert!(!check(&[(50, 10), (0, 10)], 100, 20));
        assert!(!check(&[(0, 10)], 100, 11));
        assert!(!check(&[(u64::MAX, 2)], u64::MAX, 2));
    }
}
