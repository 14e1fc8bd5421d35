//! A repository of either kind.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::layer::Layer;
use crate::mock::{Mock, Options};
use crate::sandbox::Sandbox;
use crate::settings::{RepositoryEntry, Settings};
use crate::skip;

/// What the repository is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A plain directory.
    Directory,
    /// The stand-in for CernVM-FS.
    Cvmfs,
}

/// A repository. Where it is a plain directory, "gone" means renamed.
pub struct Site {
    /// What it is.
    pub kind: Kind,
    /// The stand-in for CernVM-FS; `None` for a plain directory.
    pub mock: Option<Mock>,
    backing: PathBuf,
    mountpoint: PathBuf,
    /// For what is taken out of the repository, and for files of the test.
    beside: PathBuf,
    _folder: Option<TempDir>,
}

impl Site {
    /// An empty repository; `None` if it cannot be made here.
    pub fn new(kind: Kind) -> Option<Self> {
        Self::in_own_folder(kind, kind == Kind::Cvmfs)
    }

    /// One that can be made to hang, die and fail: also a repository of kind `directory` lies on FUSE then, as it may lie
    /// on NFS.
    pub fn on_fuse(kind: Kind) -> Option<Self> {
        Self::in_own_folder(kind, true)
    }

    fn in_own_folder(kind: Kind, on_fuse: bool) -> Option<Self> {
        let possible = if on_fuse { skip::has_fuse() } else { skip::is_root() };
        let folder = possible.then(|| tempfile::tempdir().expect("a temporary folder"))?;
        let beside = folder.path().to_owned();
        let (backing, mountpoint) = (beside.join("backing"), beside.join("repository"));
        let options = on_fuse.then(Options::default);
        Some(Self::make(kind, options, backing, mountpoint, beside, Some(folder)))
    }

    /// An empty repository in a sandbox, with all the catalog files that a publisher of CernVM-FS can add.
    pub fn in_sandbox(sandbox: &Sandbox, kind: Kind) -> Self {
        let (backing, mountpoint) = (sandbox.join("repository"), sandbox.join("cvmfs/test.cern.ch"));
        let options = (kind == Kind::Cvmfs).then(|| Options { autocatalogs: true, ..Options::default() });
        Self::make(kind, options, backing, mountpoint, sandbox.mkdir("beside"), None)
    }

    fn make(
        kind: Kind,
        fuse: Option<Options>,
        backing: PathBuf,
        mountpoint: PathBuf,
        beside: PathBuf,
        folder: Option<TempDir>,
    ) -> Self {
        fs::create_dir_all(backing.join(".layers")).expect("the backing directory");
        fs::create_dir_all(beside.join("hidden")).expect("a folder for hidden layers");
        let mock = fuse.map(|options| {
            fs::create_dir_all(&mountpoint).expect("the mount point");
            Mock::start(&backing, &mountpoint, options)
        });
        Self { kind, mock, backing, mountpoint, beside, _folder: folder }
    }

    /// What is served.
    pub fn backing(&self) -> &Path {
        &self.backing
    }

    /// Where the daemon finds it.
    pub fn path(&self) -> &Path {
        if self.mock.is_some() { &self.mountpoint } else { &self.backing }
    }

    /// The stand-in for CernVM-FS, to break it.
    ///
    /// # Panics
    ///
    /// If the repository is a plain directory.
    pub fn mock(&self) -> &Mock {
        self.mock.as_ref().expect("a repository on FUSE")
    }

    /// As [`Self::mock`], to kill it, to unmount it and to mount it again.
    pub fn mock_mut(&mut self) -> &mut Mock {
        self.mock.as_mut().expect("a repository on FUSE")
    }

    /// The kind as the configuration names it.
    pub fn kind_name(&self) -> &'static str {
        match self.kind {
            Kind::Directory => "directory",
            Kind::Cvmfs => "cvmfs",
        }
    }

    /// An entry of a configuration.
    pub fn entry(&self, name: &str, more: &str) -> RepositoryEntry {
        (name.to_owned(), self.path().to_owned(), self.kind_name(), more.to_owned())
    }

    /// A configuration with this repository, called `main`.
    pub fn settings(&self) -> Settings {
        Settings { repositories: vec![self.entry("main", "")], ..Settings::default() }
    }

    /// A configuration with this repository and short time limits.
    pub fn short_limits(&self) -> Settings {
        Settings { repositories: vec![self.entry("main", "")], ..Settings::short_limits() }
    }

    /// Publishes a layer, which is visible at once.
    pub fn publish(&self, layer: &Layer) {
        layer.publish(&self.backing);
        self.published(layer);
    }

    /// Makes a layer that was written to the backing directory visible.
    pub fn published(&self, layer: &Layer) {
        match &self.mock {
            Some(_) => self.revise(),
            None => fs::write(self.backing.join(layer.path()).join(".cvmfscatalog"), "").expect("a catalog file"),
        }
    }

    /// Makes all that was written to the backing directory visible.
    pub fn revise(&self) {
        if let Some(mock) = &self.mock {
            mock.revision();
        }
    }

    /// Takes the repository away: unmounted, or its directory renamed.
    pub fn unmount(&mut self) {
        match &mut self.mock {
            Some(mock) => mock.unmount(),
            None => fs::rename(&self.backing, self.beside("aside")).expect("the repository is there"),
        }
    }

    /// Ends [`Self::unmount`], and the death of the client.
    pub fn remount(&mut self) {
        match &mut self.mock {
            Some(mock) => mock.remount(),
            None => fs::rename(self.beside("aside"), &self.backing).expect("the repository was put aside"),
        }
    }

    /// A revision without the layer.
    pub fn hide(&self, layer: &Layer) {
        self.hide_digest(&layer.digest);
    }

    /// Ends [`Self::hide`].
    pub fn show(&self, layer: &Layer) {
        self.show_digest(&layer.digest);
    }

    /// A revision without the layer of this digest, which has no `sha256:` in front.
    pub fn hide_digest(&self, digest: &str) {
        match &self.mock {
            Some(mock) => mock.hide(digest),
            None => fs::rename(self.holder_of(digest), self.hidden(digest)).expect("a layer of the repository"),
        }
    }

    /// Ends [`Self::hide_digest`].
    pub fn show_digest(&self, digest: &str) {
        match &self.mock {
            Some(mock) => mock.show(digest),
            None => fs::rename(self.hidden(digest), self.holder_of(digest)).expect("a hidden layer"),
        }
    }

    /// The directory of a layer where it is served from.
    pub fn holder(&self, layer: &Layer) -> PathBuf {
        self.holder_of(&layer.digest)
    }

    fn holder_of(&self, digest: &str) -> PathBuf {
        self.backing.join(".layers").join(&digest[..2]).join(digest)
    }

    fn hidden(&self, digest: &str) -> PathBuf {
        self.beside("hidden").join(digest)
    }

    /// A path of the test's own beside the repository.
    pub fn beside(&self, name: impl AsRef<Path>) -> PathBuf {
        self.beside.join(name)
    }
}
