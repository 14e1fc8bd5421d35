//! The images of a test: their layout, the registry that serves it, and the repository that their layers are in.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::common::image::{Image, Written};
use crate::common::output;
use crate::common::registry::Registry;
use crate::common::sandbox::Sandbox;
use crate::mock_support::{Mock, Options};

/// What serves the repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The stand-in for CernVM-FS, with all the catalog files that a publisher can add.
    Cvmfs,
    /// A plain directory.
    Directory,
}

/// Images, of which the registry has manifest and configuration, and the repository the layers.
pub(crate) struct Site {
    pub(crate) registry: Registry,
    kind: Kind,
    layout: PathBuf,
    backing: PathBuf,
    aside: PathBuf,
    mountpoint: PathBuf,
    mock: Option<Mock>,
}

impl Site {
    /// A repository that has the pause image of CRI only.
    pub(crate) fn new(sandbox: &Sandbox, kind: Kind) -> Self {
        let layout = sandbox.mkdir("layout");
        Image::pause().write(&layout, "test/pause:1");
        Self::of(sandbox, kind, &layout, "test/pause:1")
    }

    /// A repository and a registry for a layout that is there already.
    pub(crate) fn of(sandbox: &Sandbox, kind: Kind, layout: &Path, name: &str) -> Self {
        let backing = sandbox.mkdir("repository");
        let mountpoint = match kind {
            Kind::Cvmfs => sandbox.mkdir("cvmfs/test.cern.ch"),
            Kind::Directory => backing.clone(),
        };
        let mock = (kind == Kind::Cvmfs).then(|| {
            let options = Options { autocatalogs: true, ..Options::default() };
            Mock::start(&backing, &mountpoint, options)
        });
        let registry = Registry::start(layout).expect("the registry");
        let aside = sandbox.mkdir("aside");
        let site = Self { registry, kind, layout: layout.into(), backing, aside, mountpoint, mock };
        site.unpack(name);
        site.registry.withhold_layers().expect("the layers of the layout");
        site
    }

    /// Makes an image and puts its layers into the repository; the registry does not serve them.
    pub(crate) fn publish(&self, name: &str, image: &Image) -> Written {
        let written = image.write(&self.layout, name);
        self.unpack(name);
        for layer in &written.layers {
            self.registry.withhold(&layer.digest);
        }
        written
    }

    fn unpack(&self, name: &str) {
        let (layout, backing) = (self.layout.to_string_lossy(), self.backing.to_string_lossy());
        let args = ["unpack", "--quiet", "--ref", name, &layout, &backing];
        output::run(env!("CARGO_BIN_EXE_cvmfs-snapshotter"), &args, "/usr/bin:/bin", Duration::from_secs(120)).ok();
        if let Some(mock) = &self.mock {
            mock.revision();
        }
    }

    /// Takes layers out of the repository.
    pub(crate) fn hide<'a>(&self, layers: impl IntoIterator<Item = &'a String>) {
        for digest in layers {
            let (hash, path) = self.layer(digest);
            match &self.mock {
                Some(mock) => mock.hide(hash),
                None => fs::rename(path, self.aside.join(hash)).expect("a layer of the repository"),
            }
        }
    }

    /// Ends [`Site::hide`].
    pub(crate) fn show<'a>(&self, layers: impl IntoIterator<Item = &'a String>) {
        for digest in layers {
            let (hash, path) = self.layer(digest);
            match &self.mock {
                Some(mock) => mock.show(hash),
                None => fs::rename(self.aside.join(hash), path).expect("a layer put aside"),
            }
        }
    }

    fn layer<'a>(&self, digest: &'a str) -> (&'a str, PathBuf) {
        let hash = digest.strip_prefix("sha256:").expect("a digest");
        (hash, self.backing.join(".layers").join(&hash[..2]).join(hash))
    }

    /// The configuration of a daemon that uses the repository.
    pub(crate) fn config(&self) -> String {
        let kind = match self.kind {
            Kind::Cvmfs => "cvmfs",
            Kind::Directory => "directory",
        };
        format!("[[repositories]]\nname = \"test.cern.ch\"\npath = {:?}\nkind = \"{kind}\"\n", self.mountpoint)
    }

    /// What serves the repository, to be killed and mounted again.
    #[allow(dead_code, reason = "for the tests of Kubernetes")]
    pub(crate) fn mock(&mut self) -> &mut Mock {
        self.mock.as_mut().expect("a repository of kind cvmfs")
    }

    /// The layout with the images.
    pub(crate) fn layout(&self) -> &Path {
        &self.layout
    }

    /// The path of the repository that the daemon uses.
    pub(crate) fn path(&self) -> &Path {
        &self.mountpoint
    }

    /// Which of the layers were asked for at the registry since [`Registry::forget`], by their position.
    pub(crate) fn asked_for(&self, image: &Written) -> Vec<usize> {
        let asked = |(index, _): &(usize, _)| self.registry.asked_for(&image.layers[*index].digest) > 0;
        image.layers.iter().enumerate().filter(asked).map(|(index, _)| index).collect()
    }
}
