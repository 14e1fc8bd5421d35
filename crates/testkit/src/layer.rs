//! Layers: what is in them, and how they lie in a repository.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode, SFlag, mknod};
use sha2::{Digest, Sha256};

/// The hexadecimal digits.
pub fn sha256(text: &str) -> String {
    hex::encode(Sha256::digest(text))
}

/// A layer of an image.
#[derive(Clone, Debug)]
pub struct Layer {
    /// The hexadecimal digest of the compressed blob.
    pub digest: String,
    /// The hexadecimal digest of the tar.
    pub diff_id: String,
    /// Paths and texts; a path that ends with `/` is a directory, deletions are `.wh.` files.
    pub files: Vec<(String, String)>,
}

impl Layer {
    /// A layer with digests made of its name.
    pub fn new(name: &str, files: &[(&str, &str)]) -> Self {
        let files = files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
        Self { digest: sha256(&format!("blob {name}")), diff_id: sha256(&format!("diff {name}")), files }
    }

    /// Its directory below the root of a repository.
    pub fn path(&self) -> PathBuf {
        Path::new(".layers").join(&self.digest[..2]).join(&self.digest).join("layerfs")
    }

    fn metadata(&self) -> PathBuf {
        self.path().with_file_name(".metadata").join("layers.json")
    }

    /// Publishes it: its files, and the record of its diff ID.
    pub fn publish(&self, repository: &Path) {
        self.publish_without_record(repository);
        self.record(repository, &self.diff_id);
    }

    /// As publishers did before they recorded diff IDs.
    pub fn publish_without_record(&self, repository: &Path) {
        let root = repository.join(self.path());
        fs::create_dir_all(&root).unwrap();
        for (path, text) in &self.files {
            let place = root.join(path);
            fs::create_dir_all(if path.ends_with('/') { &place } else { place.parent().unwrap() }).unwrap();
            if !path.ends_with('/') {
                fs::write(place, text).unwrap();
            }
        }
    }

    /// Writes the record of the diff ID.
    pub fn record(&self, repository: &Path, diff_id: &str) {
        let path = repository.join(self.metadata());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let digest = &self.digest;
        let record = serde_json::json!([{
            "id": diff_id, "compressed-diff-digest": format!("sha256:{digest}"),
            "diff-digest": format!("sha256:{diff_id}"), "diff-size": 1, "created": "2024-01-01T00:00:00Z",
        }]);
        fs::write(path, record.to_string()).unwrap();
    }

    /// Extracts it as containerd does: deletions become whiteouts, or opaque directories where the layer has the name.
    pub fn extract(&self, upper: &Path) {
        for (path, text) in self.files.iter().filter(|(path, _)| marker(path).is_none()) {
            let place = upper.join(path);
            fs::create_dir_all(if path.ends_with('/') { &place } else { place.parent().unwrap() }).unwrap();
            if !path.ends_with('/') {
                fs::write(&place, text).unwrap();
                fs::set_permissions(&place, PermissionsExt::from_mode(0o644)).unwrap();
            }
        }
        for (path, deleted) in self.files.iter().filter_map(|(path, _)| Some((path, marker(path)?))) {
            let directory = upper.join(path).parent().unwrap().to_owned();
            fs::create_dir_all(&directory).unwrap();
            let place = if deleted == ".wh..opq" { directory } else { directory.join(deleted) };
            if place.is_dir() {
                xattr::set(place, "trusted.overlay.opaque", b"y").unwrap();
            } else if !place.exists() {
                mknod(&place, SFlag::S_IFCHR, Mode::empty(), 0).unwrap();
            }
        }
    }
}

/// The name that a whiteout file deletes.
fn marker(path: &str) -> Option<&str> {
    path.rsplit('/').next().unwrap().strip_prefix(".wh.")
}
