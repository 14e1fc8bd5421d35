//! The directory that layers are published in: staging, locks, and the rename that makes a layer appear.
//!
//! `mod.rs` says what the rules are.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, Flock, FlockArg, RenameFlags, renameat2};
use nix::sys::statfs::{FUSE_SUPER_MAGIC, statfs};

use super::blob::Hashes;
use super::error::{Error, LayerError};
use super::extract::open_root;
use super::image::Layer;
use crate::digest::Digest;
use crate::repository::layout::{self, LAYERFS, METADATA};
use crate::sys::flush::{FlushError, Flusher, close_written};
use crate::sys::remove_tree::Remover;

const LOCK_SUFFIX: &str = ".lock";

/// A directory that holds, or will hold, `.layers`.
pub(super) struct Target {
    layers: PathBuf,
    staging: PathBuf,
    flusher: Flusher,
    /// Whether each file has to be synced: on FUSE a sync of the file system does not reach who serves it.
    syncs_files: bool,
    /// How many layers were begun.
    begun: AtomicU64,
}

/// What is where a layer belongs.
pub(super) enum Presence {
    /// Nothing.
    Absent,
    /// The layer, and the diff ID that its `layers.json` gives, if it gives one.
    Present(Option<Digest>),
}

/// For `map_err`.
fn target_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Target { action, path, source }
}

fn stage_error<E: Into<io::Error>>(action: &'static str, path: &Path) -> impl FnOnce(E) -> LayerError {
    let path = path.to_owned();
    move |source| LayerError::Stage { action, path, source: source.into() }
}

impl Target {
    /// Opens `directory`, makes it and what is needed in it, and removes what crashed runs left over.
    pub(super) fn open(directory: &Path) -> Result<Self, Error> {
        let layers = directory.join(layout::LAYERS);
        let staging = layers.join(layout::STAGING);
        fs::create_dir_all(directory).map_err(target_error("create", directory))?;
        make_directory(&layers, 0o755).map_err(target_error("create", &layers))?;
        // Half a layer has set-id programs, too.
        make_directory(&staging, 0o700).map_err(target_error("create", &staging))?;
        sync_directory(directory).map_err(target_error("sync", directory))?;
        // Before the first write; what an earlier run left is not published.
        let flusher = Flusher::open(&layers).map_err(target_error("open", &layers))?;
        let kind = statfs(&layers).map_err(|e| target_error("look at the file system of", &layers)(e.into()))?;
        let syncs_files = kind.filesystem_type() == FUSE_SUPER_MAGIC;
        let target = Self { layers, staging, flusher, syncs_files, begun: AtomicU64::new(0) };
        target.clean().map_err(target_error("remove what an earlier run left in", &target.staging))?;
        Ok(target)
    }

    /// A file without a name, on the file system of the target.
    pub(super) fn spool(&self) -> Result<File, Error> {
        let path = self.staging.join(format!("spool.{}", unique()));
        let options = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).to_owned();
        let file = options.open(&path).map_err(target_error("create", &path))?;
        fs::remove_file(&path).map_err(target_error("unlink", &path))?;
        Ok(file)
    }

    fn place(&self, digest: &Digest) -> PathBuf {
        self.layers.join(layout::place(*digest))
    }

    /// Whether each file that is written has to be synced by itself.
    pub(super) fn syncs_files(&self) -> bool {
        self.syncs_files
    }

    /// Whether a layer is there already.
    pub(super) fn presence(&self, digest: &Digest) -> Result<Presence, Error> {
        let place = self.place(digest);
        let layerfs = place.join(LAYERFS);
        match fs::symlink_metadata(&layerfs) {
            Ok(meta) if meta.is_dir() => Ok(Presence::Present(recorded_diff_id(&place, *digest)?)),
            Ok(_) => Err(Error::Obstacle { path: place }),
            Err(error) if error.kind() == ErrorKind::NotFound => match fs::symlink_metadata(&place) {
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(Presence::Absent),
                Ok(_) => Err(Error::Obstacle { path: place }),
                Err(error) => Err(target_error("look at", &place)(error)),
            },
            Err(error) => Err(target_error("look at", &layerfs)(error)),
        }
    }

    /// Starts a layer: an empty staging directory that no other run touches.
    pub(super) fn stage(&self, layer: &Layer) -> Result<Stage, LayerError> {
        loop {
            let name = format!("{}.{}", layer.digest.hex(), unique());
            let path = self.staging.join(&name);
            let lock_path = self.staging.join(name + LOCK_SUFFIX);
            // The lock is there before the directory and goes after it.
            let options = OpenOptions::new().write(true).create_new(true).mode(0o600).to_owned();
            let file = options.open(&lock_path).map_err(stage_error("create", &lock_path))?;
            let lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => lock,
                // Another run takes it for a left-over just now, and removes it.
                Err((_, Errno::EWOULDBLOCK)) => continue,
                Err((_, error)) => {
                    let _ = fs::remove_file(&lock_path);
                    return Err(stage_error("lock", &lock_path)(error));
                }
            };
            if lock.metadata().map_err(stage_error("look at", &lock_path))?.nlink() == 0 {
                continue;
            }
            let number = self.begun.fetch_add(1, Ordering::Relaxed);
            let stage = Stage { number, path, lock_path, _lock: lock };
            stage.build().map_err(stage_error("create", &stage.path))?;
            return Ok(stage);
        }
    }

    /// Makes a staged layer appear. False if another run was faster.
    ///
    /// `unlisted`: the directories that its archive does not list.
    pub(super) fn publish(
        &self,
        stage: &Stage,
        layer: &Layer,
        hashes: &Hashes,
        unlisted: &[Vec<u8>],
    ) -> Result<bool, LayerError> {
        let metadata = stage.path.join(METADATA);
        make_directory(&metadata, 0o755).map_err(stage_error("create", &metadata))?;
        let write = |name: &str, content: &[u8]| {
            let file = metadata.join(name);
            let written = File::create_new(&file).and_then(|mut created| {
                created.write_all(content)?;
                created.set_permissions(Permissions::from_mode(0o644))?;
                close_written(created, self.syncs_files)
            });
            written.map_err(stage_error("write", &file))
        };
        let record = layout::layers_json_text(layer.digest, hashes.diff_id, hashes.size, SystemTime::now());
        write(layout::LAYERS_JSON, record.as_bytes())?;
        if !unlisted.is_empty() {
            let content: Vec<u8> = unlisted.iter().flat_map(|path| path.iter().copied().chain([0])).collect();
            write(layout::UNLISTED_DIRECTORIES, &content)?;
        }
        // Everything of the layer is on the disk before its name is.
        self.flusher.flush(stage.number, || self.begun.load(Ordering::Relaxed)).map_err(|error| match error {
            FlushError::Failed(errno) => stage_error("write to the disk", &stage.path)(errno),
            FlushError::Lost => LayerError::Lost,
        })?;
        let place = self.place(&layer.digest);
        let parent = place.parent().unwrap_or(&self.layers).to_owned();
        make_directory(&parent, 0o755).map_err(stage_error("create", &parent))?;
        let renamed = match renameat2(AT_FDCWD, &stage.path, AT_FDCWD, &place, RenameFlags::RENAME_NOREPLACE) {
            // NFS has no such flag. A plain rename replaces a directory only if it is empty, so that no layer is lost.
            Err(Errno::EINVAL | Errno::ENOSYS) => fs::rename(&stage.path, &place),
            result => result.map_err(io::Error::from),
        };
        match renamed {
            Ok(()) => {
                sync_directory(&parent).map_err(stage_error("sync", &parent))?;
                sync_directory(&self.layers).map_err(stage_error("sync", &self.layers))?;
                Ok(true)
            }
            Err(error)
                if matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::DirectoryNotEmpty)
                    && place.join(LAYERFS).is_dir() =>
            {
                Ok(false)
            }
            Err(error) => Err(stage_error("move the finished layer to", &place)(error)),
        }
    }

    /// Removes staging directories that no living run holds.
    fn clean(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.staging)? {
            let entry = entry?;
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if let Some(stem) = name.strip_suffix(LOCK_SUFFIX) {
                let file = match OpenOptions::new().write(true).open(&path) {
                    Ok(file) => file,
                    Err(error) if error.kind() == ErrorKind::NotFound => continue,
                    Err(error) => return Err(error),
                };
                match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                    Ok(_lock) => {
                        remove_staged(&self.staging.join(stem))?;
                        gone(fs::remove_file(&path))?;
                    }
                    Err((_, Errno::EWOULDBLOCK)) => {}
                    Err((_, error)) => return Err(error.into()),
                }
            } else if entry.file_type()?.is_dir() && !self.staging.join(name + LOCK_SUFFIX).exists() {
                // The lock comes first and goes last: a directory without one belongs to nobody.
                remove_staged(&path)?;
            }
        }
        Ok(())
    }
}

/// Somebody else has removed it: fine.
fn gone(result: io::Result<()>) -> io::Result<()> {
    result.or_else(|error| if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

/// Removes a staging directory, which may be deeper than this process has descriptors.
fn remove_staged(path: &Path) -> io::Result<()> {
    let (Some(staging), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    let staging = File::open(staging)?;
    let mut remover = Remover::new(staging.as_fd());
    remover.delete(Path::new(name), path);
    remover.finish().map_err(|(_, errno)| errno.into())
}

/// A layer in the making; removed when dropped, unless it was published.
pub(super) struct Stage {
    number: u64,
    path: PathBuf,
    lock_path: PathBuf,
    _lock: Flock<File>,
}

impl Stage {
    fn build(&self) -> io::Result<()> {
        make_directory(&self.path, 0o755)?;
        // A default ACL of the target would be inherited by every file of the layer.
        match xattr::remove(&self.path, "system.posix_acl_default") {
            Err(error) if !matches!(error.raw_os_error(), Some(nix::libc::ENODATA | nix::libc::EOPNOTSUPP)) => {
                return Err(error);
            }
            _ => {}
        }
        make_directory(&self.path.join(LAYERFS), 0o755)
    }

    /// The directory that the layer's entries go to.
    pub(super) fn layerfs(&self) -> Result<OwnedFd, LayerError> {
        let path = self.path.join(LAYERFS);
        open_root(&path).map_err(stage_error("open", &path))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // What cannot be removed now the next run removes.
        let _ = remove_staged(&self.path);
        let _ = fs::remove_file(&self.lock_path);
    }
}

/// Makes a directory with exactly this mode, whatever the umask and the parent's set-group-id bit; one that is there
/// is left as it is.
fn make_directory(path: &Path, mode: u32) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => {
            std::os::unix::fs::lchown(path, Some(0), Some(0))?;
            fs::set_permissions(path, Permissions::from_mode(mode))
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// A name that no other staging directory has.
fn unique() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos());
    format!("{}-{nanos:x}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// The diff ID in the `layers.json` of a published layer; `None` if there is none.
fn recorded_diff_id(place: &Path, layer: Digest) -> Result<Option<Digest>, Error> {
    let path = place.join(METADATA).join(layout::LAYERS_JSON);
    let mut text = Vec::new();
    let read = File::open(&path).and_then(|file| file.take(layout::MAX_LAYERS_JSON).read_to_end(&mut text));
    match read {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(target_error("read", &path)(error)),
    }
    match layout::diff_id(&text, layer) {
        Ok(Some(diff_id)) => Ok(Some(diff_id)),
        // The snapshotter would refuse the layer at each pull.
        Ok(None) | Err(layout::Malformed) => Err(Error::Record { path, layer: place.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer() -> Layer {
        let digest = |n| Digest::from_bytes([n; 32]);
        Layer { digest: digest(1), diff_id: digest(2), size: 3 }
    }

    fn hashes() -> Hashes {
        Hashes { blob: layer().digest, diff_id: layer().diff_id, size: 1024 }
    }

    fn entries(path: &Path) -> Vec<String> {
        fs::read_dir(path).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn the_first_to_publish_wins() {
        if !testkit::is_root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let target = Target::open(directory.path()).unwrap();
        assert!(matches!(target.presence(&layer().digest), Ok(Presence::Absent)));
        let (first, second) = (target.stage(&layer()).unwrap(), target.stage(&layer()).unwrap());
        assert!(target.publish(&first, &layer(), &hashes(), &[]).unwrap());
        assert!(!target.publish(&second, &layer(), &hashes(), &[]).unwrap());
        drop((first, second));
        assert_eq!(entries(&target.staging), [""; 0]);
        let Ok(Presence::Present(diff_id)) = target.presence(&layer().digest) else { panic!("not there") };
        assert_eq!(diff_id, Some(layer().diff_id));
    }

    #[test]
    fn only_what_nobody_holds_is_cleaned() {
        if !testkit::is_root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let target = Target::open(directory.path()).unwrap();
        let held = target.stage(&layer()).unwrap();
        fs::create_dir_all(target.staging.join("dead/layerfs/x")).unwrap();
        fs::write(target.staging.join("dead.lock"), "").unwrap();
        fs::create_dir(target.staging.join("orphan")).unwrap();
        Target::open(directory.path()).unwrap();
        let mut left = entries(&target.staging);
        left.sort();
        let name = held.path.file_name().unwrap().to_str().unwrap();
        assert_eq!(left, [name.to_owned(), format!("{name}.lock")]);
    }

    #[test]
    fn something_else_in_the_layers_place_is_an_error() {
        if !testkit::is_root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let target = Target::open(directory.path()).unwrap();
        fs::create_dir_all(target.place(&layer().digest).join("junk")).unwrap();
        assert!(matches!(target.presence(&layer().digest), Err(Error::Obstacle { .. })));
        let stage = target.stage(&layer()).unwrap();
        assert!(target.publish(&stage, &layer(), &hashes(), &[]).is_err());
    }

    #[test]
    fn a_record_that_does_not_name_the_layer_is_an_error() {
        if !testkit::is_root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let target = Target::open(directory.path()).unwrap();
        let place = target.place(&layer().digest);
        fs::create_dir_all(place.join("layerfs")).unwrap();
        assert!(matches!(target.presence(&layer().digest), Ok(Presence::Present(None))), "no record");
        fs::create_dir(place.join(".metadata")).unwrap();
        let other = Digest::from_bytes([9; 32]);
        let of_another = layout::layers_json_text(other, layer().diff_id, 1, SystemTime::UNIX_EPOCH);
        let without_digest = format!(r#"[{{"diff-digest":"{}"}}]"#, layer().diff_id);
        for text in ["", "[]", "no JSON", &of_another, &without_digest] {
            fs::write(place.join(".metadata/layers.json"), text).unwrap();
            assert!(matches!(target.presence(&layer().digest), Err(Error::Record { .. })), "{text}");
        }
    }
}
