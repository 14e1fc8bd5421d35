//! Images of random layers, some of which lie in the repository.

use std::path::Path;
use std::sync::Arc;

use testkit::layer_model::disk;
use testkit::layer_model::generate::{Random, layers};
use testkit::layer_model::{Entries, File, Layer, What};
use testkit::{Chain, sha256};

/// An image, as its layers' content and as its manifest.
pub(crate) struct Image {
    pub(crate) layers: Vec<Arc<Layer>>,
    pub(crate) manifest: Chain,
    pub(crate) chain: Vec<String>,
}

/// More than a file system keeps in an inode, and more than one page.
const CONTENT: usize = 40_000;

/// Images that share their lower layers here and there; their published layers are in `repository` then.
pub(crate) fn images(count: u64, seed: u64, repository: &Path) -> Vec<Image> {
    let mut random = Random::new(seed);
    let mut images: Vec<Image> = Vec::new();
    for number in 0..count {
        let mut stack: Vec<Arc<Layer>> = Vec::new();
        if !images.is_empty() && random.chance(40) {
            let base = &images[random.below(images.len())].layers;
            stack.extend(base[..1 + random.below(base.len())].iter().cloned());
        }
        // The kernel's limit of options is another test's, and so are layers that are never used.
        let valid = layers(&mut random).into_iter().filter(|layer| layer.root.is_valid());
        for layer in valid.take(7 - stack.len().min(6)) {
            stack.push(Arc::new(with_content(layer, &mut random)));
        }
        if stack.is_empty() {
            stack.push(Arc::new(written(Entries::new())));
        }
        images.push(image(number, stack, repository));
    }
    images
}

/// A layer to be written gets files of some size.
fn with_content(mut layer: Layer, random: &mut Random) -> Layer {
    if !layer.published {
        let entries = layer.root.entries_mut().expect("a layer is a directory");
        for _ in 0..random.below(4) {
            let (size, number) = (random.below(CONTENT), random.below(1 << 30));
            entries.insert(format!("file-{number}"), file(number, size));
        }
    }
    layer
}

/// A file whose text depends on a number.
pub(crate) fn file(number: usize, size: usize) -> File {
    let mut text = String::new();
    while text.len() < size {
        text += &format!("{number} {}\n", text.len());
    }
    File { mode: 0o644, uid: 0, gid: 0, mtime: 1_600_000_000, what: What::Regular(text) }
}

/// A layer of what a container has written.
pub(crate) fn written(entries: Entries) -> Layer {
    let root = File { mode: 0o755, uid: 0, gid: 0, mtime: 1_600_000_000, what: What::Dir(entries) };
    Layer { published: false, root }
}

fn image(number: u64, layers: Vec<Arc<Layer>>, repository: &Path) -> Image {
    let manifests = layers.iter().map(|layer| {
        let text = format!("{} {:?}", layer.published, layer.root);
        testkit::Layer { digest: sha256(&format!("blob {text}")), diff_id: sha256(&text), files: Vec::new() }
    });
    let manifest = Chain { reference: format!("registry.example/{number}:1"), layers: manifests.collect() };
    for (layer, names) in layers.iter().zip(&manifest.layers).filter(|(layer, _)| layer.published) {
        let path = repository.join(names.path());
        if !path.exists() {
            std::fs::create_dir_all(&path).unwrap();
            disk::write_published(&path, &layer.root).unwrap();
            names.record(repository, &names.diff_id);
        }
    }
    let chain = manifest.ids();
    Image { layers, manifest, chain }
}
