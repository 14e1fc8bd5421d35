//! The image that the demo shows.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use testkit::{Entry, Image};

/// Enough to see that a download takes time, and little enough to be made at once.
const DATA_FILES: u64 = 48;
const DATA_FILE_BYTES: usize = 1 << 20;

/// An image in an OCI layout.
pub(crate) struct Subject {
    /// The layout.
    pub(crate) layout: PathBuf,
    /// Its name there, which is its name in the registry as well.
    pub(crate) name: String,
    /// What to say about each layer; empty if nothing is known.
    remarks: &'static [&'static str],
}

/// A layer, as the manifest has it.
pub(crate) struct Layer {
    /// `sha256:` and the hash of the compressed archive.
    pub(crate) digest: String,
    /// The size of the compressed archive.
    pub(crate) bytes: u64,
    /// What is in it.
    pub(crate) remark: &'static str,
}

impl Subject {
    /// Makes a small image in a new layout.
    pub(crate) fn small(layout: PathBuf) -> Self {
        let mut data = vec![Entry::dir("app"), Entry::dir("app/data"), Entry::dir("app/cache")];
        data.push(Entry::file("app/notes.txt", "of the second layer\n"));
        data.push(Entry::file("app/cache/old", "of the second layer\n"));
        let mut state = 0x9e37_79b9_7f4a_7c15;
        for number in 0..DATA_FILES {
            data.push(Entry::file(&format!("app/data/{number:02}"), noise(&mut state)));
        }
        let deletions = vec![
            Entry::dir("app"),
            Entry::whiteout("app/notes.txt"),
            Entry::dir("etc"),
            Entry::whiteout("etc/group"),
            Entry::dir("app/cache"),
            Entry::opaque("app/cache"),
            Entry::file("app/cache/new", "of the fourth layer\n"),
        ];
        let hello = "#!/bin/sh\necho \"Hello from a container: $(ls /app/data | wc -l) files of data are there.\"\n";
        let program = vec![Entry::dir("app"), Entry::file("app/hello", hello).mode(0o755)];
        let image = Image::busybox().layer(data).layer(vec![]).layer(deletions).layer(vec![]).layer(program);
        let name = "demo/app:1".to_owned();
        image.cmd(&["/app/hello"]).write(&layout, &name);
        let remarks = &[
            "busybox, /etc",
            "/app: 48 files of data, notes.txt, cache/old",
            "empty",
            "deletes /app/notes.txt and /etc/group; /app/cache is opaque and has only: new",
            "empty, the same as above",
            "/app/hello",
        ];
        Self { layout, name, remarks }
    }

    /// The first image of a layout that is there already.
    pub(crate) fn existing(layout: PathBuf) -> Self {
        let mut subject = Self { layout, name: String::new(), remarks: &[] };
        let index = subject.read("index.json");
        let name = index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"].as_str();
        subject.name = name.unwrap_or_else(|| panic!("{} has no named image", subject.layout.display())).to_owned();
        subject
    }

    /// The layers, the lowest first.
    pub(crate) fn layers(&self) -> Vec<Layer> {
        let layers = self.manifest().1["layers"].as_array().expect("the layers of a manifest").clone();
        let layer = |(index, layer): (usize, &Value)| Layer {
            digest: layer["digest"].as_str().expect("the digest of a layer").to_owned(),
            bytes: layer["size"].as_u64().expect("the size of a layer"),
            remark: self.remarks.get(index).copied().unwrap_or_default(),
        };
        layers.iter().enumerate().map(layer).collect()
    }

    /// Copies the image without its layers into a new layout: the index, the manifest and the configuration.
    pub(crate) fn copy_without_layers(&self, layout: &Path) {
        let (digest, manifest) = self.manifest();
        fs::create_dir_all(layout.join("blobs/sha256")).expect("a folder for a layout");
        let config = manifest["config"]["digest"].as_str().expect("the digest of the configuration");
        for file in ["index.json", "oci-layout", &blob(&digest), &blob(config)] {
            fs::copy(self.layout.join(file), layout.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        }
    }

    /// The manifest, with its digest.
    fn manifest(&self) -> (String, Value) {
        let index = self.read("index.json");
        let mut manifests = index["manifests"].as_array().into_iter().flatten();
        let found = manifests.find(|one| one["annotations"]["org.opencontainers.image.ref.name"] == *self.name);
        let digest = found.and_then(|one| one["digest"].as_str());
        let digest = digest.unwrap_or_else(|| panic!("{} has no image {}", self.layout.display(), self.name));
        (digest.to_owned(), self.read(&blob(digest)))
    }

    fn read(&self, file: &str) -> Value {
        let path = self.layout.join(file);
        let text = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }
}

fn blob(digest: &str) -> String {
    format!("blobs/{}", digest.replace(':', "/"))
}

/// Bytes that do not compress (xorshift).
fn noise(state: &mut u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(DATA_FILE_BYTES);
    while bytes.len() < DATA_FILE_BYTES {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes
}
