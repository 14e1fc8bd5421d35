//! A repository of either kind.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::{Layer, Settings, is_root};
use crate::mock_support::{self, Mock, Options};

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
    pub kind: Kind,
    /// `None` for a plain directory.
    pub mock: Option<Mock>,
    directory: TempDir,
}

impl Site {
    /// An empty repository; `None` if it cannot be made here.
    pub fn new(kind: Kind) -> Option<Self> {
        Self::make(kind, kind == Kind::Cvmfs)
    }

    /// One that can be made to hang, die and fail: also a repository of kind `directory` lies on FUSE then, as it may lie
    /// on NFS.
    pub fn moody(kind: Kind) -> Option<Self> {
        Self::make(kind, true)
    }

    fn make(kind: Kind, on_fuse: bool) -> Option<Self> {
        if !is_root() || (on_fuse && !mock_support::available()) {
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let backing = directory.path().join("backing");
        fs::create_dir_all(backing.join(".layers")).unwrap();
        let mock = on_fuse.then(|| {
            let mountpoint = directory.path().join("repository");
            fs::create_dir(&mountpoint).unwrap();
            Mock::start(&backing, &mountpoint, Options::default())
        });
        Some(Self { kind, mock, directory })
    }

    /// What is served.
    pub fn backing(&self) -> PathBuf {
        self.directory.path().join("backing")
    }

    /// Where the daemon finds it.
    pub fn path(&self) -> PathBuf {
        match &self.mock {
            Some(mock) => mock.mountpoint().to_owned(),
            None => self.backing(),
        }
    }

    pub fn mock(&self) -> &Mock {
        self.mock.as_ref().expect("a repository on FUSE")
    }

    pub fn kind_name(&self) -> &'static str {
        match self.kind {
            Kind::Directory => "directory",
            Kind::Cvmfs => "cvmfs",
        }
    }

    /// An entry of a configuration.
    pub fn entry(&self, name: &str, more: &str) -> (String, PathBuf, &'static str, String) {
        (name.to_owned(), self.path(), self.kind_name(), more.to_owned())
    }

    /// A configuration with this repository, called `main`.
    pub fn settings(&self) -> Settings {
        Settings { repositories: vec![self.entry("main", "")], ..Settings::default() }
    }

    /// A configuration with this repository and short time limits.
    pub fn impatient(&self) -> Settings {
        Settings { repositories: vec![self.entry("main", "")], ..Settings::impatient() }
    }

    /// Publishes a layer, which is visible at once.
    pub fn publish(&self, layer: &Layer) {
        layer.publish(&self.backing());
        self.published(layer);
    }

    /// Makes a layer that was written to the backing directory visible.
    pub fn published(&self, layer: &Layer) {
        match &self.mock {
            Some(mock) => drop(mock.revision()),
            None => fs::write(self.backing().join(layer.path()).join(".cvmfscatalog"), "").unwrap(),
        }
    }

    /// Takes the repository away: unmounted, or its directory renamed.
    pub fn unmount(&mut self) {
        match &mut self.mock {
            Some(mock) => mock.unmount(),
            None => fs::rename(self.backing(), self.aside()).unwrap(),
        }
    }

    /// Ends [`Self::unmount`], and the death of the client.
    pub fn remount(&mut self) {
        match &mut self.mock {
            Some(mock) => mock.remount(),
            None => fs::rename(self.aside(), self.backing()).unwrap(),
        }
    }

    /// A revision without the layer.
    pub fn hide(&self, layer: &Layer) {
        match &self.mock {
            Some(mock) => mock.hide(&layer.digest),
            None => fs::rename(self.holder(layer), self.holder(layer).with_extension("hidden")).unwrap(),
        }
    }

    /// Ends [`Self::hide`].
    pub fn show(&self, layer: &Layer) {
        match &self.mock {
            Some(mock) => mock.show(&layer.digest),
            None => fs::rename(self.holder(layer).with_extension("hidden"), self.holder(layer)).unwrap(),
        }
    }

    /// The directory of a layer where it is served from.
    pub fn holder(&self, layer: &Layer) -> PathBuf {
        self.backing().join(layer.path()).parent().unwrap().to_owned()
    }

    fn aside(&self) -> PathBuf {
        self.directory.path().join("aside")
    }

    /// A path of the test's own beside the repository.
    pub fn beside(&self, name: impl AsRef<Path>) -> PathBuf {
        self.directory.path().join(name)
    }
}
