//! The images of a test: their layout, the registry that serves it, and the repository that their layers are in.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::image::{Image, Written};
use crate::mock::Mock;
use crate::output::run;
use crate::programs;
use crate::registry::Registry;
use crate::sandbox::Sandbox;
use crate::settings::repository_table;
use crate::site::{Kind, Site};

/// For one image; a real one has some hundred MB.
const UNPACK_LIMIT: Duration = Duration::from_secs(120);

/// Images, of which the registry has manifest and configuration, and the repository the layers, which our own `unpack`
/// has put there.
pub struct ImageSite {
    /// What serves manifests and configurations, and layers that are not in the repository.
    pub registry: Registry,
    repository: Site,
    layout: PathBuf,
}

impl ImageSite {
    /// A repository that has the pause image of CRI only.
    pub fn new(sandbox: &Sandbox, kind: Kind) -> Self {
        let layout = sandbox.mkdir("layout");
        Image::pause().write(&layout, "test/pause:1");
        Self::of(sandbox, kind, &layout, "test/pause:1")
    }

    /// A repository and a registry for a layout that is there already.
    pub fn of(sandbox: &Sandbox, kind: Kind, layout: &Path, name: &str) -> Self {
        let repository = Site::in_sandbox(sandbox, kind);
        let registry = Registry::start(layout).expect("the registry");
        let site = Self { registry, repository, layout: layout.into() };
        site.unpack(name);
        site.registry.withhold_layers().expect("the layers of the layout");
        site
    }

    /// Makes an image and puts its layers into the repository; the registry does not serve them.
    pub fn publish(&self, name: &str, image: &Image) -> Written {
        let written = image.write(&self.layout, name);
        self.unpack(name);
        for layer in &written.layers {
            self.registry.withhold(&layer.digest);
        }
        written
    }

    fn unpack(&self, name: &str) {
        let (layout, backing) = (self.layout.to_string_lossy(), self.repository.backing().to_string_lossy());
        let args = ["unpack", "--quiet", "--ref", name, &layout, &backing];
        run(programs::daemon(), &args, "/usr/bin:/bin", UNPACK_LIMIT).ok();
        self.repository.revise();
    }

    /// Takes layers out of the repository.
    pub fn hide<'a>(&self, layers: impl IntoIterator<Item = &'a String>) {
        layers.into_iter().for_each(|digest| self.repository.hide_digest(hash(digest)));
    }

    /// Ends [`Self::hide`].
    pub fn show<'a>(&self, layers: impl IntoIterator<Item = &'a String>) {
        layers.into_iter().for_each(|digest| self.repository.show_digest(hash(digest)));
    }

    /// The configuration of a daemon that uses the repository.
    pub fn config(&self) -> String {
        repository_table(&self.repository.entry("test.cern.ch", ""))
    }

    /// The stand-in for CernVM-FS, to break it.
    pub fn mock(&mut self) -> &mut Mock {
        self.repository.mock_mut()
    }

    /// The layout with the images.
    pub fn layout(&self) -> &Path {
        &self.layout
    }

    /// The path of the repository that the daemon uses.
    pub fn path(&self) -> &Path {
        self.repository.path()
    }

    /// Which of the layers were asked for at the registry since [`Registry::forget`], by their position.
    pub fn asked_for(&self, image: &Written) -> Vec<usize> {
        let asked = |(index, _): &(usize, _)| self.registry.asked_for(&image.layers[*index].digest) > 0;
        image.layers.iter().enumerate().filter(asked).map(|(index, _)| index).collect()
    }
}

fn hash(digest: &str) -> &str {
    digest.strip_prefix("sha256:").expect("a digest")
}
