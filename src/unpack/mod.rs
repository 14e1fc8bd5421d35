//! `cvmfs-snapshotter unpack IMAGE DIR`: puts the layers of an image into the layout of a repository, so that NFS or any
//! shared directory can serve them.
//!
//! # Layout on disk
//!
//! ```text
//! DIR/.layers/
//!   <d[0:2]>/<d>/                 0755  one layer; d = hex of the digest of its (compressed) blob
//!     layerfs/                          its content: owners, modes, times, links, devices, xattrs as in the archive,
//!                                       `.wh.` markers as the plain files that they are there
//!     .metadata/layers.json             diff ID, digest, size and time, as DUCC writes them
//!     .metadata/unlisted-directories    directories that the archive has entries in and does not list, each ended by
//!                                       NUL; only if there are any. Owner, mode and time of such a directory are those
//!                                       of the layers below, so that the layer is used in place as the lowest one only
//!   .tmp/                         0700  layers in the making
//!     <d>.<pid>-<time>-<n>/             becomes <d[0:2]>/<d>
//!     <d>.<pid>-<time>-<n>.lock         held with flock as long as the run lives
//! ```
//!
//! It is what DUCC, CernVM-FS' publisher of images, makes, except for `.cvmfscatalog` in `layerfs`, which a publisher on
//! CernVM-FS adds, and for `unlisted-directories`, which it does not know.
//!
//! # A layer appears whole or not at all
//!
//! It is unpacked into `.tmp`, every file is closed with a check, its digest and diff ID are compared with what the image
//! says, its file system is synced ([`crate::sys::flush`]), and only then it is renamed to its place, which is synced too.
//! A disk that failed since the layer was begun may have lost its files: then it is not published, whoever heard of it. What
//! fails on the way removes its staging directory; what a crash leaves there the next run removes.
//!
//! # Several runs at once
//!
//! need not know of each other: each has staging directories of its own, and the rename never replaces a layer. The
//! slower run drops its copy and counts the layer as there. A run removes the staging directory of another only if it
//! gets the lock, that is, if the other is dead. The lock file is there before the directory and goes after it. On NFS
//! this holds between hosts, as flock does there.
//!
//! # Layers are not trusted
//!
//! No entry reaches anything outside of its layer (`extract`), a header takes no more memory than `archive` allows,
//! and what is not understood refuses the layer. The size of a layer is not limited: the disk is.

mod archive;
mod blob;
mod deferred;
mod entry;
mod error;
mod extract;
mod image;
mod layer;
mod name;
mod pax;
mod progress;
mod source;
mod stage;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use indicatif::HumanBytes;

use crate::digest::Digest;

pub use self::error::{Error, LayerError};
pub use self::image::{Layer, Platform};
pub use self::progress::{Bars, Lines, Outcome, Progress, Quiet};

use self::blob::{Hashes, LayerStream};
use self::source::{Blob, Source};
use self::stage::{Presence, Stage, Target};

/// Unpack an image's layers into the layout of a repository
///
/// Puts every layer of IMAGE into DIR/.layers, where the snapshotter finds it once DIR, or what it is mounted as, is
/// configured as a repository. Layers that are there already are left alone. Must run as root, because files keep their
/// owners.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// OCI layout: a directory, or a tar archive (plain, gzip or zstd)
    pub image: PathBuf,
    /// Directory to hold .layers; it is made if it is missing
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
    /// Image to take if there are several platforms [default: this machine's]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub platform: Option<Platform>,
    /// Image to take if there are several names
    #[arg(long = "ref", value_name = "NAME")]
    pub reference: Option<String>,
    /// Layers to unpack at the same time
    #[arg(long, value_name = "N", default_value_t = default_jobs(), value_parser = clap::value_parser!(u16).range(1..=64))]
    pub jobs: u16,
    /// Say nothing but warnings and errors
    #[arg(long, short)]
    pub quiet: bool,
}

/// A layer keeps two threads busy; more than four at once only make a disk seek.
fn default_jobs() -> u16 {
    std::thread::available_parallelism().map_or(2, |n| u16::try_from(n.get()).unwrap_or(4).clamp(2, 4))
}

/// What to unpack, and where.
#[derive(Clone, Debug)]
pub struct Options {
    /// OCI layout, a directory or an archive.
    pub image: PathBuf,
    /// Directory that holds, or will hold, `.layers`.
    pub directory: PathBuf,
    /// Platform to take; `None` for the host's, or the only one there is.
    pub platform: Option<Platform>,
    /// Value of the annotation `org.opencontainers.image.ref.name` (or containerd's full name) to take.
    pub reference: Option<String>,
    /// Layers in work at the same time, at least one.
    pub jobs: usize,
}

/// What a run did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Layers of the image, lowest first, repeated ones repeated.
    pub layers: Vec<Layer>,
    /// Different layers that this run has published.
    pub new: usize,
    /// Different layers that were there, or that another run published meanwhile.
    pub present: usize,
    /// Bytes of the blobs of the new layers.
    pub compressed_bytes: u64,
    /// Bytes of the tar streams of the new layers.
    pub uncompressed_bytes: u64,
    /// Extended attributes that the file system cannot hold.
    pub lost_xattrs: u64,
    /// Attributes `trusted.*`, which overlayfs may obey: containerd keeps none of them either.
    pub trusted_xattrs: u64,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} layers: {} new", self.layers.len(), self.new)?;
        if self.new > 0 {
            write!(f, " ({}, {} unpacked)", HumanBytes(self.compressed_bytes), HumanBytes(self.uncompressed_bytes))?;
        }
        write!(f, ", {} there already", self.present)?;
        match self.layers.len() - self.new - self.present {
            0 => Ok(()),
            repeated => write!(f, ", {repeated} repeated"),
        }
    }
}

/// The command: runs with progress on standard error and prints the summary.
///
/// # Errors
///
/// Those of [`run`].
pub fn main(args: Args) -> Result<(), Error> {
    let options = Options {
        image: args.image,
        directory: args.directory,
        platform: args.platform,
        reference: args.reference,
        jobs: usize::from(args.jobs),
    };
    let quiet = args.quiet;
    let summary = run_with(&options, |layers| -> Box<dyn Progress> {
        if quiet {
            Box::new(Quiet)
        } else if progress::interactive() {
            Box::new(Bars::new(layers.iter().map(|layer| layer.size).sum()))
        } else {
            Box::new(Lines)
        }
    })?;
    if !quiet {
        println!("{summary}");
    }
    Ok(())
}

/// Unpacks the layers of an image that are not there yet.
///
/// # Errors
///
/// The first that occurred. Layers in work at that time are finished, no others are begun; what is published stays.
pub fn run(options: &Options, progress: &dyn Progress) -> Result<Summary, Error> {
    run_with(options, |_| progress)
}

fn run_with<P: std::ops::Deref<Target: Progress>>(
    options: &Options,
    progress: impl FnOnce(&[&Layer]) -> P,
) -> Result<Summary, Error> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Error::NotRoot);
    }
    // Before the target, which a typing error in the image's name should not make.
    options.image.metadata().map_err(|source| Error::Image { path: options.image.clone(), source })?;
    let target = Target::open(&options.directory)?;
    let source = Source::open(&options.image, || target.spool())?;
    let layers = image::layers(&source, &options.image, options.platform.as_ref(), options.reference.as_deref())?;
    let different = different(&layers)?;
    let progress = progress(&different);
    let run = Run {
        source: &source,
        target: &target,
        progress: &*progress,
        warned: AtomicBool::new(false),
        lost_xattrs: AtomicU64::new(0),
        trusted_xattrs: AtomicU64::new(0),
        options,
    };
    let mut summary = run.all(&different)?;
    summary.layers = layers;
    Ok(summary)
}

/// Every layer once.
fn different(layers: &[Layer]) -> Result<Vec<&Layer>, Error> {
    let mut known: HashMap<Digest, &Layer> = HashMap::new();
    let mut different = Vec::new();
    for layer in layers {
        match known.insert(layer.digest, layer) {
            None => different.push(layer),
            Some(other) if other.diff_id == layer.diff_id => {}
            Some(other) => return Err(layer_error(layer, diff_id_error(layer, other.diff_id))),
        }
    }
    Ok(different)
}

fn layer_error(layer: &Layer, source: LayerError) -> Error {
    Error::Layer { digest: layer.digest, source }
}

fn diff_id_error(layer: &Layer, actual: Digest) -> LayerError {
    LayerError::DiffId { expected: layer.diff_id, actual }
}

/// What the threads of a run share.
struct Run<'a, P: Progress + ?Sized> {
    source: &'a Source,
    target: &'a Target,
    progress: &'a P,
    options: &'a Options,
    warned: AtomicBool,
    lost_xattrs: AtomicU64,
    trusted_xattrs: AtomicU64,
}

impl<P: Progress + ?Sized> Run<'_, P> {
    fn all(&self, layers: &[&Layer]) -> Result<Summary, Error> {
        let next = AtomicUsize::new(0);
        let result = Mutex::new((Summary::default(), None));
        let threads = self.options.jobs.clamp(1, layers.len().max(1));
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while let Some(layer) = layers.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let unpacked = self.one(layer);
                        let mut result = result.lock().unwrap_or_else(PoisonError::into_inner);
                        match unpacked {
                            Ok(Some(hashes)) => {
                                result.0.new += 1;
                                result.0.compressed_bytes += layer.size;
                                result.0.uncompressed_bytes += hashes.size;
                            }
                            Ok(None) => result.0.present += 1,
                            Err(error) => {
                                self.progress.failed(layer);
                                result.1.get_or_insert(error);
                                next.store(layers.len(), Ordering::Relaxed);
                            }
                        }
                    }
                });
            }
        });
        let (mut summary, error) = result.into_inner().unwrap_or_else(PoisonError::into_inner);
        summary.lost_xattrs = self.lost_xattrs.load(Ordering::Relaxed);
        if summary.lost_xattrs > 0 {
            self.progress.warning(&format!("{} extended attributes were left out in all", summary.lost_xattrs));
        }
        summary.trusted_xattrs = self.trusted_xattrs.load(Ordering::Relaxed);
        if summary.trusted_xattrs > 0 {
            self.progress.warning(&format!(
                "{} extended attributes trusted.* were left out, as containerd does: overlayfs would obey some of them",
                summary.trusted_xattrs
            ));
        }
        error.map_or(Ok(summary), Err)
    }

    /// Unpacks one layer; `None` if it is there.
    fn one(&self, layer: &Layer) -> Result<Option<Hashes>, Error> {
        if let Presence::Present(recorded) = self.target.presence(&layer.digest)? {
            return match recorded {
                Some(recorded) if recorded != layer.diff_id => Err(layer_error(layer, diff_id_error(layer, recorded))),
                _ => {
                    self.progress.finished(layer, Outcome::Present);
                    Ok(None)
                }
            };
        }
        self.progress.started(layer);
        let unpacked = self.unpack(layer).map_err(|error| layer_error(layer, error))?;
        self.progress.finished(layer, if unpacked.is_some() { Outcome::New } else { Outcome::Present });
        Ok(unpacked)
    }

    fn unpack(&self, layer: &Layer) -> Result<Option<Hashes>, LayerError> {
        let blob = self.source.open_blob(&layer.digest).map_err(LayerError::Read)?;
        if blob.size() != layer.size {
            return Err(LayerError::Size { expected: layer.size, actual: blob.size() });
        }
        let stage = self.target.stage(layer)?;
        let (hashes, unlisted) = match self.extract(layer, &stage, blob) {
            // Damage is the better explanation of an archive that cannot be read.
            Err(error @ (LayerError::Read(_) | LayerError::Tar { .. })) => {
                let blob = self.source.open_blob(&layer.digest).map_err(LayerError::Read)?;
                let actual = blob::digest_of(blob).map_err(LayerError::Read)?;
                return Err(if actual == layer.digest { error } else { LayerError::Digest { actual } });
            }
            result => result?,
        };
        if hashes.blob != layer.digest {
            return Err(LayerError::Digest { actual: hashes.blob });
        }
        if hashes.diff_id != layer.diff_id {
            return Err(diff_id_error(layer, hashes.diff_id));
        }
        if !unlisted.is_empty() {
            self.progress.warning(&format!(
                "layer {} has entries in {} directories that its archive does not list: what the layers below have \
                 counts there, so that the snapshotter uses it in place only as the lowest layer of an image",
                layer.digest,
                unlisted.len()
            ));
        }
        let published = self.target.publish(&stage, layer, &hashes, &unlisted)?;
        Ok(published.then_some(hashes))
    }

    fn extract(&self, layer: &Layer, stage: &Stage, blob: Blob<'_>) -> Result<(Hashes, Vec<Vec<u8>>), LayerError> {
        let advance = |bytes| self.progress.advanced(layer, bytes);
        let xattr_lost = |name: &OsStr| self.xattr_lost(layer, name);
        let root = stage.layerfs()?;
        std::thread::scope(|scope| {
            let mut stream = LayerStream::start(scope, blob, &advance);
            let unlisted = layer::extract(&mut stream, root, self.target.syncs_files(), &xattr_lost)?;
            Ok((stream.finish().map_err(LayerError::Read)?, unlisted))
        })
    }

    fn xattr_lost(&self, layer: &Layer, name: &OsStr) {
        if name.as_bytes().starts_with(layer::TRUSTED) {
            self.trusted_xattrs.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.lost_xattrs.fetch_add(1, Ordering::Relaxed);
        if !self.warned.swap(true, Ordering::Relaxed) {
            self.progress.warning(&format!(
                "the file system of {} does not support the extended attribute {} (first in layer {}): such attributes \
                 are left out, so that file capabilities will be missing in containers",
                self.options.directory.display(),
                name.display(),
                layer.digest
            ));
        }
    }
}
