//! Makes images for the tests, in an OCI image layout.

mod entry;

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::path::Path;

use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

pub use entry::Entry;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

#[derive(Clone, Debug)]
enum Layer {
    Entries(Vec<Entry>),
    /// The blob as it is.
    Gzip(Vec<u8>),
}

/// An image to be made.
#[derive(Clone, Debug, Default)]
pub struct Image {
    layers: Vec<Layer>,
    config: BTreeMap<String, Value>,
}

impl Image {
    /// An image without layers.
    pub fn new() -> Self {
        Self::default()
    }

    /// An image with a shell: one layer with Debian's static busybox and links to the usual programs.
    pub fn busybox() -> Self {
        let busybox = std::fs::read("/bin/busybox").expect("/bin/busybox, of the package busybox-static");
        let mut layer = vec![Entry::dir("bin"), Entry::dir("etc"), Entry::dir("tmp").mode(0o1777)];
        layer.push(Entry::file("bin/busybox", busybox).mode(0o755));
        layer.push(Entry::file("etc/passwd", "root:x:0:0:root:/:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n"));
        layer.push(Entry::file("etc/group", "root:x:0:\nuser:x:1000:\n"));
        // What containers have mounts on, so that nobody has to make it in their root.
        layer.extend(["dev", "proc", "run", "sys"].map(Entry::dir));
        layer.extend(["etc/hostname", "etc/hosts", "etc/resolv.conf"].map(|path| Entry::file(path, "")));
        for name in
            "cat chmod chown cp echo env find grep head id ln ls mkdir mv rm rmdir sed sh sha256sum sleep sort stat tail \
            test touch true wc"
                .split_whitespace()
        {
            layer.push(Entry::symlink(&format!("bin/{name}"), "busybox"));
        }
        Self::new().layer(layer).cmd(&["/bin/sh"])
    }

    /// The image of the pods' sandboxes: it only sleeps.
    pub fn pause() -> Self {
        Self::busybox().cmd(&["/bin/sleep", "100000"])
    }

    /// Adds a layer on top.
    pub fn layer(mut self, entries: Vec<Entry>) -> Self {
        self.layers.push(Layer::Entries(entries));
        self
    }

    /// Adds a layer below all others.
    pub fn below(mut self, entries: Vec<Entry>) -> Self {
        self.layers.insert(0, Layer::Entries(entries));
        self
    }

    /// Adds a layer on top that is in an archive already, compressed with gzip.
    pub fn blob(mut self, gzip: impl Into<Vec<u8>>) -> Self {
        self.layers.push(Layer::Gzip(gzip.into()));
        self
    }

    /// Sets the command.
    pub fn cmd(mut self, cmd: &[&str]) -> Self {
        self.config.insert("Cmd".into(), json!(cmd));
        self
    }

    /// Sets the user.
    pub fn user(mut self, user: &str) -> Self {
        self.config.insert("User".into(), json!(user));
        self
    }

    /// Declares a volume: a path of which every container has a copy of its own.
    pub fn volume(mut self, path: &str) -> Self {
        let volumes = self.config.entry("Volumes".into()).or_insert_with(|| json!({}));
        volumes[path] = json!({});
        self
    }

    /// Writes the image into the layout in `dir`, which is made if need be, under a name such as `test/box:1`. An image
    /// that had this name loses it.
    pub fn write(&self, dir: &Path, name: &str) -> Written {
        std::fs::create_dir_all(dir.join("blobs/sha256")).expect("a folder for the layout");
        std::fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("oci-layout");
        let mut layers = Vec::new();
        let mut descriptors = Vec::new();
        for layer in &self.layers {
            let (layer, descriptor) = write_layer(dir, layer, layers.last());
            layers.push(layer);
            descriptors.push(descriptor);
        }
        let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let mut settings = self.config.clone();
        settings.insert("Env".into(), json!(["PATH=/bin"]));
        let config = json!({
            "created": "2020-09-13T12:26:40Z", "architecture": arch, "os": "linux", "config": settings,
            "rootfs": {"type": "layers", "diff_ids": layers.iter().map(|layer| &layer.diff_id).collect::<Vec<_>>()},
            "history": layers.iter().map(|_| json!({"created_by": "tests"})).collect::<Vec<_>>(),
        });
        let config = write_blob(dir, "application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
        let manifest = write_manifest(dir, name, &config, &json!(descriptors));
        Written { manifest, layers }
    }
}

/// Writes an image that lies: it has the configuration of one image, and so its diff IDs, and the layers of another.
pub fn forge(dir: &Path, name: &str, config: &Written, layers: &Written) -> String {
    let part = |image: &Written, part: &str| {
        let path = dir.join("blobs").join(image.manifest.replace(':', "/"));
        let manifest = std::fs::read(path).expect("a manifest of the layout");
        serde_json::from_slice::<Value>(&manifest).expect("a manifest of ours")[part].take()
    };
    write_manifest(dir, name, &part(config, "config"), &part(layers, "layers"))
}

fn write_manifest(dir: &Path, name: &str, config: &Value, layers: &Value) -> String {
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "layers": layers, "config": config});
    let mut descriptor = write_blob(dir, MANIFEST, manifest.to_string().as_bytes());
    let digest = descriptor["digest"].as_str().expect("a digest").to_owned();
    descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": name});
    add_to_index(dir, name, descriptor);
    digest
}

/// What [`Image::write`] made.
#[derive(Clone, Debug)]
pub struct Written {
    /// The digest of the manifest.
    pub manifest: String,
    /// The layers, the lowest first.
    pub layers: Vec<WrittenLayer>,
}

/// The names of a layer.
#[derive(Clone, Debug)]
pub struct WrittenLayer {
    /// The digest of the compressed archive.
    pub digest: String,
    /// The digest of the archive itself.
    pub diff_id: String,
    /// The name of this layer on top of those below.
    pub chain_id: String,
}

impl Layer {
    /// The archive, plain and compressed.
    fn archive(&self) -> (Vec<u8>, Vec<u8>) {
        let entries = match self {
            Self::Entries(entries) => entries,
            Self::Gzip(gzip) => {
                let mut tar = Vec::new();
                GzDecoder::new(gzip.as_slice()).read_to_end(&mut tar).expect("an archive compressed with gzip");
                return (tar, gzip.clone());
            }
        };
        let mut tar = tar::Builder::new(Vec::new());
        for entry in entries {
            entry.append(&mut tar).unwrap_or_else(|err| panic!("{}: {err}", entry.path()));
        }
        let tar = tar.into_inner().expect("an archive in memory");
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(&tar).expect("a stream in memory");
        (tar, gzip.finish().expect("a stream in memory"))
    }
}

fn write_layer(dir: &Path, layer: &Layer, below: Option<&WrittenLayer>) -> (WrittenLayer, Value) {
    let (tar, gzip) = layer.archive();
    let descriptor = write_blob(dir, "application/vnd.oci.image.layer.v1.tar+gzip", &gzip);
    let digest = descriptor["digest"].as_str().expect("a digest").to_owned();
    let diff_id = sha256(&tar);
    let chain_id = match below {
        Some(below) => sha256(format!("{} {diff_id}", below.chain_id).as_bytes()),
        None => diff_id.clone(),
    };
    (WrittenLayer { digest, diff_id, chain_id }, descriptor)
}

fn write_blob(dir: &Path, media_type: &str, content: &[u8]) -> Value {
    let digest = sha256(content);
    let path = dir.join("blobs").join(digest.replace(':', "/"));
    std::fs::write(path, content).expect("a blob of the layout");
    json!({"mediaType": media_type, "digest": digest, "size": content.len()})
}

fn add_to_index(dir: &Path, name: &str, descriptor: Value) {
    let path = dir.join("index.json");
    let mut manifests = match std::fs::read(&path) {
        Ok(index) => serde_json::from_slice::<Value>(&index).expect("index.json")["manifests"].take(),
        Err(_) => json!([]),
    };
    let manifests = manifests.as_array_mut().expect("the manifests of an index");
    manifests.retain(|old| old["annotations"]["org.opencontainers.image.ref.name"] != name);
    manifests.push(descriptor);
    let index = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": manifests,
    });
    std::fs::write(path, index.to_string()).expect("index.json");
}

fn sha256(content: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(content)))
}
