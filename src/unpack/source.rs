//! Where the blobs of an image are: a directory, or a tar archive whose blobs are read in place.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::libc;

use super::archive::{Input, TarReader};
use super::blob::decompress;
use super::entry::{Kind, ReadError};
use super::error::Error;
use crate::digest::Digest;

/// Most bytes of a JSON document: registries limit manifests to 4 MiB.
const DOCUMENT_LIMIT: u64 = 16 * 1024 * 1024;

/// The files of an OCI layout.
pub(super) enum Source {
    /// An OCI layout directory.
    Directory(PathBuf),
    /// An archive of one: the names of its files, where each begins, and its size.
    Archive {
        /// The uncompressed archive.
        file: File,
        /// Every regular file of the archive that a layout has.
        index: HashMap<Vec<u8>, (u64, u64)>,
        /// Whether it is there to its end.
        is_whole: bool,
    },
}

/// One file of the layout, open for reading. Knows its size.
pub(super) enum Blob<'a> {
    /// A file of a directory.
    File(File, u64),
    /// A section of an archive: from here to there.
    Section(&'a File, u64, u64),
}

impl Blob<'_> {
    /// Bytes left to read.
    pub(super) fn size(&self) -> u64 {
        match self {
            Self::File(_, size) => *size,
            Self::Section(_, from, to) => to - from,
        }
    }
}

impl Read for Blob<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::File(file, _) => file.read(buffer),
            Self::Section(file, from, to) => {
                let n = usize::try_from(*to - *from).map_or(buffer.len(), |left| left.min(buffer.len()));
                let n = file.read_at(&mut buffer[..n], *from)?;
                *from += n as u64;
                Ok(n)
            }
        }
    }
}

impl Source {
    /// Opens the image at `path`. A compressed archive is decompressed into a file without a name in `spool`.
    ///
    /// # Errors
    ///
    /// If it cannot be read or is not an OCI layout.
    pub(super) fn open(path: &Path, spool: impl FnOnce() -> Result<File, Error>) -> Result<Self, Error> {
        let image_error = |source| Error::Image { path: path.to_owned(), source };
        let source = if path.metadata().map_err(image_error)?.is_dir() {
            Self::Directory(path.to_owned())
        } else {
            open_archive(path, spool)?
        };
        source.check(path)?;
        Ok(source)
    }

    fn check(&self, path: &Path) -> Result<(), Error> {
        if self.exists("index.json") {
            return Ok(());
        }
        let transport = match self {
            Self::Archive { .. } if self.exists("manifest.json") => "docker-archive",
            Self::Directory(_) if self.exists("manifest.json") => "dir",
            Self::Archive { is_whole: false, .. } => {
                // As `nerdctl save` leaves it if it returns before containerd has sent everything.
                let why =
                    "it is cut off, as it has neither index.json nor the mark of an archive's end: write it again";
                return Err(Error::NotAnImage { path: path.to_owned(), why: why.to_owned() });
            }
            _ => return Err(Error::NotAnImage { path: path.to_owned(), why: "it has no index.json".to_owned() }),
        };
        Err(Error::OtherFormat { path: path.to_owned(), transport })
    }

    fn exists(&self, name: &str) -> bool {
        match self {
            Self::Directory(path) => path.join(name).exists(),
            Self::Archive { index, .. } => index.contains_key(name.as_bytes()),
        }
    }

    fn open_file(&self, name: &str) -> io::Result<Blob<'_>> {
        match self {
            Self::Directory(path) => {
                // Looked at before it is opened for reading: opening a device or a pipe has effects.
                let found = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(path.join(name))?;
                let meta = found.metadata()?;
                if !meta.is_file() {
                    return Err(io::Error::other("it is not a regular file"));
                }
                let file = File::open(format!("/proc/self/fd/{}", found.as_raw_fd()))?;
                Ok(Blob::File(file, meta.len()))
            }
            Self::Archive { file, index, .. } => match index.get(name.as_bytes()) {
                Some((position, size)) => Ok(Blob::Section(file, *position, position + size)),
                None => Err(io::ErrorKind::NotFound.into()),
            },
        }
    }

    /// The content of a small file.
    pub(super) fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let file = self.open_file(name)?;
        if file.size() > DOCUMENT_LIMIT {
            return Err(io::Error::other(format!("it has {} bytes, more than a document may have", file.size())));
        }
        let mut content = Vec::new();
        file.take(DOCUMENT_LIMIT).read_to_end(&mut content)?;
        Ok(content)
    }

    /// Whether a blob is there.
    pub(super) fn has(&self, digest: &Digest) -> bool {
        self.exists(&blob_name(digest))
    }

    /// Opens a blob; `NotFound` if there is none.
    pub(super) fn open_blob(&self, digest: &Digest) -> io::Result<Blob<'_>> {
        self.open_file(&blob_name(digest))
    }

    /// The content of a blob that is a document.
    pub(super) fn read_blob(&self, digest: &Digest) -> io::Result<Vec<u8>> {
        self.read(&blob_name(digest))
    }
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// Others are not remembered: an archive may have any number of long names.
fn is_of_layout(name: &[u8]) -> bool {
    matches!(name, b"index.json" | b"manifest.json")
        || name.strip_prefix(b"blobs/sha256/").is_some_and(|hex| hex.len() == 64)
}

impl Input for File {
    fn skip(&mut self, n: u64) -> io::Result<()> {
        let n = i64::try_from(n).map_err(io::Error::other)?;
        self.seek(SeekFrom::Current(n)).map(|_| ())
    }
}

fn open_archive(path: &Path, spool: impl FnOnce() -> Result<File, Error>) -> Result<Source, Error> {
    let image_error = |source| Error::Image { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(image_error)?;
    let mut head = [0; 512];
    let n = file.read_at(&mut head, 0).map_err(image_error)?;
    if n == head.len() && tar_core::Header::from_bytes(&head).verify_checksum().is_err() {
        // Not a tar archive; compressed perhaps.
        let mut content = decompress(BufReader::with_capacity(1 << 20, &file)).map_err(image_error)?;
        let mut plain = spool()?;
        let mut buffer = vec![0; 1 << 20];
        loop {
            let n = content.read(&mut buffer).map_err(image_error)?;
            if n == 0 {
                break;
            }
            plain.write_all(&buffer[..n]).map_err(|source| Error::Target {
                action: "decompress the archive for reading below",
                path: path.to_owned(),
                source,
            })?;
        }
        drop(content);
        file = plain;
    }
    file.seek(SeekFrom::Start(0)).map_err(image_error)?;
    let mut reader = TarReader::new(file);
    let mut index = HashMap::new();
    loop {
        match reader.next() {
            Ok(Some(entry)) => {
                if let Kind::File { size } = entry.kind {
                    let name = entry.path.strip_prefix(b"./").unwrap_or(&entry.path);
                    if is_of_layout(name) {
                        index.insert(name.to_vec(), (reader.content_position(), size));
                    }
                }
            }
            Ok(None) => break,
            Err(ReadError::Io(error)) => return Err(image_error(error)),
            Err(ReadError::Malformed(why)) => {
                return Err(Error::NotAnImage { path: path.to_owned(), why: format!("as a tar archive: {why}") });
            }
        }
    }
    let is_whole = reader.has_end();
    Ok(Source::Archive { file: reader.into_inner(), index, is_whole })
}
