//! Reading a layer's blob: decompress it and hash both sides.
//!
//! A thread of its own reads, hashes and inflates the blob, the caller hashes and uses what comes out: on two cores a
//! layer takes about as long as the slower half.

use std::io::{self, BufRead, BufReader, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};

use flate2::bufread::MultiGzDecoder;
use sha2::{Digest as _, Sha256};

use crate::digest::Digest;

/// Size of the pieces handed from the inflating thread to the placing one.
const CHUNK: usize = 256 * 1024;
/// Pieces that may wait: 2 MiB for each layer in work.
const WAITING: usize = 8;

/// Most bytes behind the end of the archive, which end up nowhere: a small blob can have any number. GNU tar fills up
/// 10 KiB, others a MiB.
const PADDING_LIMIT: usize = 64 * 1024 * 1024;

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

/// Undoes the compression that the first bytes show, whatever the media type says. All members of a gzip blob and all
/// frames of a zstd blob are read.
///
/// # Errors
///
/// Those of `input`, and of zstd when it cannot get memory.
pub(super) fn decompress<'a, R: BufRead + 'a>(mut input: R) -> io::Result<Box<dyn Read + 'a>> {
    // A `BufRead` over a file fills its buffer at once, so four bytes are there unless the blob is shorter.
    let head = input.fill_buf()?;
    if head.starts_with(GZIP) {
        Ok(Box::new(MultiGzDecoder::new(input)))
    } else if head.starts_with(ZSTD) || is_skippable_frame(head) {
        Ok(Box::new(zstd::stream::read::Decoder::with_buffer(input)?))
    } else {
        Ok(Box::new(input))
    }
}

/// zstd:chunked and other seekable variants may begin with a skippable frame (0x184D2A50 to 0x184D2A5F).
fn is_skippable_frame(head: &[u8]) -> bool {
    matches!(head, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..])
}

/// Hashes what is read through it.
struct Hashing<'p, R> {
    inner: R,
    hash: Sha256,
    advance: &'p (dyn Fn(u64) + Sync),
}

impl<R: Read> Read for Hashing<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.hash.update(&buffer[..n]);
        (self.advance)(n as u64);
        Ok(n)
    }
}

/// The digest of everything in `input`.
pub(super) fn digest_of(mut input: impl Read) -> io::Result<Digest> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; CHUNK];
    loop {
        match input.read(&mut buffer)? {
            0 => return Ok(Digest::from_bytes(hash.finalize().into())),
            n => hash.update(&buffer[..n]),
        }
    }
}

/// What a layer turned out to be.
pub(super) struct Hashes {
    /// Digest of the blob, as it is stored.
    pub(super) blob: Digest,
    /// Digest of the uncompressed stream.
    pub(super) diff_id: Digest,
    /// Bytes of the uncompressed stream.
    pub(super) size: u64,
}

/// The uncompressed bytes of a layer. Ends with the blob, not with the tar archive in it: padding after the archive
/// belongs to the diff ID.
pub(super) struct LayerStream<'scope> {
    chunks: Receiver<io::Result<Vec<u8>>>,
    inflater: ScopedJoinHandle<'scope, Option<Digest>>,
    current: Vec<u8>,
    used: usize,
    hash: Sha256,
    size: u64,
}

impl<'scope> LayerStream<'scope> {
    /// Starts to read `blob`; `advance` is told the number of compressed bytes as they are read.
    pub(super) fn start<'env, R: Read + Send + 'scope>(
        scope: &'scope Scope<'scope, 'env>,
        blob: R,
        advance: &'scope (dyn Fn(u64) + Sync),
    ) -> Self {
        let (sender, chunks) = sync_channel(WAITING);
        let inflater = scope.spawn(move || {
            inflate(blob, advance, &sender).unwrap_or_else(|error| {
                // Nobody listens if the placing side failed first.
                let _ = sender.send(Err(error));
                None
            })
        });
        Self { chunks, inflater, current: Vec::new(), used: 0, hash: Sha256::new(), size: 0 }
    }

    /// Reads to the end of the blob and gives both digests.
    ///
    /// # Errors
    ///
    /// Those of reading and decompressing, and if there is more than padding can be.
    pub(super) fn finish(mut self) -> io::Result<Hashes> {
        let mut padding = 0;
        loop {
            match self.fill_buf()?.len() {
                0 => break,
                n => {
                    self.consume(n);
                    padding += n;
                }
            }
            if padding > PADDING_LIMIT {
                return Err(io::Error::other(format!("more than {PADDING_LIMIT} bytes follow the end of the archive")));
            }
        }
        match self.inflater.join() {
            Ok(Some(blob)) => {
                Ok(Hashes { blob, diff_id: Digest::from_bytes(self.hash.finalize().into()), size: self.size })
            }
            _ => Err(io::Error::other("decompressing stopped early")),
        }
    }
}

impl BufRead for LayerStream<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        // An error of `recv` means that the other side is done and has sent everything.
        if self.used == self.current.len()
            && let Ok(chunk) = self.chunks.recv()
        {
            self.current = chunk?;
            self.used = 0;
            self.hash.update(&self.current);
            self.size += self.current.len() as u64;
        }
        Ok(&self.current[self.used..])
    }

    fn consume(&mut self, n: usize) {
        self.used += n;
    }
}

impl Read for LayerStream<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(buffer)?;
        self.consume(n);
        Ok(n)
    }
}

/// Sends the uncompressed content of `blob` and returns the digest of the blob; `None` if nobody listens any more.
fn inflate<R: Read>(
    blob: R,
    advance: &(dyn Fn(u64) + Sync),
    sender: &SyncSender<io::Result<Vec<u8>>>,
) -> io::Result<Option<Digest>> {
    let mut blob = BufReader::with_capacity(CHUNK, Hashing { inner: blob, hash: Sha256::new(), advance });
    let mut content = decompress(&mut blob)?;
    loop {
        let mut chunk = Vec::with_capacity(CHUNK);
        content.by_ref().take(CHUNK as u64).read_to_end(&mut chunk)?;
        if chunk.is_empty() {
            break;
        }
        if sender.send(Ok(chunk)).is_err() {
            return Ok(None);
        }
    }
    drop(content);
    // The digest is that of the whole blob, also of what a decoder leaves unread.
    io::copy(&mut blob, &mut io::sink())?;
    Ok(Some(Digest::from_bytes(blob.into_inner().hash.finalize().into())))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn read(blob: &[u8]) -> io::Result<(Vec<u8>, Hashes)> {
        let advance = |_| ();
        std::thread::scope(|scope| {
            let mut stream = LayerStream::start(scope, blob, &advance);
            let mut content = Vec::new();
            stream.read_to_end(&mut content)?;
            Ok((content, stream.finish()?))
        })
    }

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn every_compression_gives_the_same_content() {
        let content: Vec<u8> = (0..1_000_000u32).flat_map(u32::to_le_bytes).collect();
        let (left, right) = content.split_at(1_234_567);
        let two_frames = [zstd::encode_all(left, 1).unwrap(), zstd::encode_all(right, 1).unwrap()].concat();
        for blob in [content.clone(), gzip(&content), [gzip(left), gzip(right)].concat(), two_frames] {
            let (read, hashes) = read(&blob).unwrap();
            assert!(read == content);
            assert_eq!(hashes.size, content.len() as u64);
            assert_eq!(hashes.blob, digest_of(&blob[..]).unwrap());
            assert_eq!(hashes.diff_id, digest_of(&content[..]).unwrap());
        }
    }

    #[test]
    fn damage_is_an_error_and_an_unread_stream_ends() {
        let blob = gzip(&vec![7; 3_000_000]);
        assert!(read(&blob[..blob.len() - 9]).is_err());
        assert!(read(&[&blob[..], b"rubbish"].concat()).is_err());
        let big = gzip(&(0..4_000_000u32).flat_map(u32::to_le_bytes).collect::<Vec<u8>>());
        let advance = |_| ();
        // Dropped unread, more than the channel holds: the thread must not wait for ever.
        std::thread::scope(|scope| drop(LayerStream::start(scope, &big[..], &advance)));
    }

    #[test]
    fn short_and_empty_blobs() {
        assert_eq!(read(b"").unwrap().0, b"");
        assert_eq!(read(b"ab").unwrap().0, b"ab");
    }
}
