//! What can go wrong while unpacking. Every message says what happened, to what, why, and what to do about it.

use std::io;
use std::path::PathBuf;

use crate::digest::{Digest, InvalidDigest};

/// Why a run failed. Layers that were published before the failure stay: each is whole.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The effective user is not root, so that owners and devices could not be kept.
    #[error(
        "unpack must run as root, because files get the owners, devices and capabilities that the layer names: run it \
         with sudo, or as root of a user namespace (`unshare --map-auto --map-root-user`)"
    )]
    NotRoot,
    /// The image cannot be read.
    #[error("cannot read {}: {}", path.display(), explain(source))]
    Image {
        /// The image, or a file of it.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The path is neither an OCI layout nor an archive of one.
    #[error("{} is not an OCI layout (a directory or tar archive with `oci-layout` and `index.json`): {why}", path.display())]
    NotAnImage {
        /// The image.
        path: PathBuf,
        /// What was found instead.
        why: String,
    },
    /// The image has another format, which skopeo translates.
    #[error("{} has no index.json: it is not an OCI layout; make one with `skopeo copy {transport}:{} oci:DIRECTORY`", path.display(), path.display())]
    OtherFormat {
        /// The image.
        path: PathBuf,
        /// What skopeo calls the format.
        transport: &'static str,
    },
    /// A JSON document of the image is malformed.
    #[error("{what} of the image is malformed: {why}")]
    Malformed {
        /// `index.json`, or the role and digest of a blob.
        what: String,
        /// The parser's message.
        why: String,
    },
    /// A manifest, index or config does not hash to the digest it is referred to by.
    #[error("{what} is damaged: its digest should be {expected} and is {actual}; get the image again")]
    DocumentDigest {
        /// The role of the blob.
        what: &'static str,
        /// The digest in the descriptor.
        expected: Digest,
        /// The digest of the bytes.
        actual: Digest,
    },
    /// A blob that is referred to is not in the image.
    #[error("{what} {digest} is not in the image: the copy is not complete, get the image again")]
    MissingBlob {
        /// The role of the blob.
        what: &'static str,
        /// Its digest.
        digest: Digest,
    },
    /// A non-distributable layer that was left out of the copy.
    #[error(
        "layer {digest} is non-distributable ({media_type}) and its blob is not in the image: its vendor alone serves \
         it, and no repository can; use an image without such layers, or add the blob to the copy"
    )]
    ForeignLayer {
        /// The layer.
        digest: Digest,
        /// Its media type.
        media_type: String,
    },
    /// The media type is none that can be unpacked.
    #[error("layer {digest} has media type {media_type}, which is not a tar layer that can be unpacked")]
    MediaType {
        /// The layer.
        digest: Digest,
        /// Its media type.
        media_type: String,
    },
    /// A digest that is not `sha256:` and 64 hex digits.
    #[error("the image refers to a blob in a way that is not supported: {0}")]
    Digest(#[from] InvalidDigest),
    /// A platform that is not `os/arch` or `os/arch/variant`.
    #[error("{0:?} is not a platform: write os/architecture or os/architecture/variant, for example linux/arm64")]
    Platform(String),
    /// No image fits.
    #[error("no image here fits {wanted}; there is:{listing}")]
    NoMatch {
        /// The platform and reference that were asked for.
        wanted: String,
        /// The images, one a line.
        listing: String,
    },
    /// Several images fit.
    #[error("several images fit {wanted}: choose with --ref NAME or --platform OS/ARCH; there is:{listing}")]
    Ambiguous {
        /// The platform and reference that were asked for.
        wanted: String,
        /// The images, one a line.
        listing: String,
    },
    /// The config gives another number of diff IDs than the manifest has layers.
    #[error("the image is inconsistent: its manifest has {layers} layers, its config has {diff_ids} diff IDs")]
    LayerCount {
        /// Layers of the manifest.
        layers: usize,
        /// Diff IDs of the config.
        diff_ids: usize,
    },
    /// The target directory cannot be used.
    #[error("cannot {action} {}: {}", path.display(), explain(source))]
    Target {
        /// What was tried.
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Something stands where the layer belongs, which is not a layer.
    #[error("{} is there but has no directory `layerfs`: it is not a layer that unpack made; remove it and run again", path.display())]
    Obstacle {
        /// The path.
        path: PathBuf,
    },
    /// A layer is there, and its record is not about it.
    #[error("{} does not say what the layer beside it is, so that the snapshotter would not use it; remove {} and run again", path.display(), layer.display())]
    Record {
        /// The record.
        path: PathBuf,
        /// The directory of the layer.
        layer: PathBuf,
    },
    /// One layer could not be unpacked; nothing of it appears.
    #[error("layer {digest} was not unpacked: {source}")]
    Layer {
        /// The layer.
        digest: Digest,
        /// The cause.
        source: LayerError,
    },
}

/// Why one layer could not be unpacked. Nothing of it appears in the repository then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayerError {
    /// The blob has another size than its descriptor says.
    #[error("the blob has {actual} bytes and should have {expected}: get the image again")]
    Size {
        /// Bytes in the descriptor.
        expected: u64,
        /// Bytes of the blob.
        actual: u64,
    },
    /// The blob is not what its name says.
    #[error("the blob's digest is {actual}: the blob is damaged, get the image again")]
    Digest {
        /// The digest of the bytes.
        actual: Digest,
    },
    /// The content is not what the image's config says.
    #[error(
        "its content has the diff ID {actual}, but the image's config says {expected}: the image is damaged or forged, \
         get it again from a source you trust"
    )]
    DiffId {
        /// The diff ID in the config.
        expected: Digest,
        /// The diff ID of the content, or the one that the repository has recorded.
        actual: Digest,
    },
    /// The blob cannot be read or decompressed.
    #[error("the blob cannot be read: {}", explain(.0))]
    Read(io::Error),
    /// The disk failed since the layer was begun, and nobody knows which files were lost.
    #[error(
        "the disk failed while it was written, and may have lost some of its files: look at the kernel's log (`dmesg`), and run again"
    )]
    Lost,
    /// The tar stream is malformed.
    #[error("the tar archive is malformed after entry {after}: {why}")]
    Tar {
        /// The last entry that was read.
        after: String,
        /// What is wrong.
        why: String,
    },
    /// An entry would leave the layer, or is otherwise not allowed.
    #[error("entry {entry} is refused: {why}")]
    Refused {
        /// The entry's name, escaped.
        entry: String,
        /// The reason.
        why: String,
    },
    /// The file system refused something.
    #[error("entry {entry}: cannot {action}: {}", explain(source))]
    Place {
        /// The entry's name, escaped.
        entry: String,
        /// What was tried.
        action: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// The staging directory cannot be used.
    #[error("cannot {action} {}: {}", path.display(), explain(source))]
    Stage {
        /// What was tried.
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// The text of an error of the system, with the remedy where the error alone does not suggest it.
fn explain(error: &io::Error) -> String {
    use nix::libc;
    let remedy = match error.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT) => "free space (or inodes, or quota) there and run again",
        Some(libc::EPERM | libc::EACCES) => {
            "the file system or the user namespace does not let this user do that (NFS: export with no_root_squash)"
        }
        Some(libc::EROFS) => "mount the file system writable",
        Some(libc::EOPNOTSUPP) => "the file system has no support for it: unpack to one that has",
        Some(libc::ENAMETOOLONG) => "the name or path is longer than the file system allows",
        Some(libc::ENOSYS) => "unpack needs Linux 5.6 or later, and a sandbox that allows openat2",
        Some(libc::ENOLCK) => "the file system has no locks: mount it with locking",
        _ => return error.to_string(),
    };
    format!("{error}; {remedy}")
}

/// A name out of an archive, quoted and safe to print.
pub(super) fn quote(name: &[u8]) -> String {
    format!("\"{}\"", name.escape_ascii())
}
