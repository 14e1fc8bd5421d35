//! An image in the making, a repository to unpack it into, and what is there then.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::entries::{archive, directory, file};

pub(crate) fn sha256(content: &[u8]) -> String {
    hex::encode(Sha256::digest(content))
}

pub(crate) fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// A layer of an image in the making: a blob and what the image says about it.
#[derive(Clone)]
pub(crate) struct TestLayer {
    pub(crate) blob: Vec<u8>,
    pub(crate) digest: String,
    pub(crate) diff_id: String,
    pub(crate) media_type: &'static str,
}

impl TestLayer {
    pub(crate) fn new(tar: &[u8], blob: Vec<u8>) -> Self {
        let digest = sha256(&blob);
        Self { blob, digest, diff_id: sha256(tar), media_type: "application/vnd.oci.image.layer.v1.tar+gzip" }
    }

    pub(crate) fn gzip(tar: &[u8]) -> Self {
        Self::new(tar, gzip(tar))
    }

    pub(crate) fn plain(tar: &[u8]) -> Self {
        Self::new(tar, tar.to_vec())
    }
}

/// A place for an image and a repository, removed at the end.
pub(crate) struct Bench {
    directory: TempDir,
}

impl Bench {
    pub(crate) fn new(layers: &[TestLayer]) -> Self {
        let bench = Self { directory: tempfile::tempdir().unwrap() };
        let image = bench.image();
        fs::create_dir_all(image.join("blobs/sha256")).unwrap();
        fs::write(image.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        let manifest = bench.add_image(layers, "linux", "amd64");
        bench.write_index(&[manifest]);
        bench
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn image(&self) -> PathBuf {
        self.path("image")
    }

    pub(crate) fn blob(&self, content: &[u8]) -> String {
        let digest = sha256(content);
        fs::write(self.image().join("blobs/sha256").join(&digest), content).unwrap();
        digest
    }

    /// Writes an image's blobs and returns its descriptor.
    pub(crate) fn add_image(&self, layers: &[TestLayer], os: &str, architecture: &str) -> Value {
        let diff_ids: Vec<String> = layers.iter().map(|l| format!("sha256:{}", l.diff_id)).collect();
        let config = json!({
            "os": os, "architecture": architecture, "rootfs": { "type": "layers", "diff_ids": diff_ids }
        });
        let config = config.to_string();
        let descriptors: Vec<Value> = layers
            .iter()
            .map(|layer| {
                fs::write(self.image().join("blobs/sha256").join(&layer.digest), &layer.blob).unwrap();
                json!({
                    "mediaType": layer.media_type,
                    "digest": format!("sha256:{}", layer.digest),
                    "size": layer.blob.len(),
                })
            })
            .collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": format!("sha256:{}", self.blob(config.as_bytes())),
                "size": config.len(),
            },
            "layers": descriptors,
        })
        .to_string();
        json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": format!("sha256:{}", self.blob(manifest.as_bytes())),
            "size": manifest.len(),
            "platform": { "os": os, "architecture": architecture },
        })
    }

    pub(crate) fn write_index(&self, manifests: &[Value]) {
        let index = json!({ "schemaVersion": 2, "manifests": manifests });
        fs::write(self.image().join("index.json"), index.to_string()).unwrap();
    }

    pub(crate) fn command(&self, image: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cvmfs-snapshotter"));
        command.arg("unpack").arg(image).arg(self.path("repository"));
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(&self.image()).args(arguments).output().unwrap()
    }

    /// Runs and expects success; returns what it printed.
    pub(crate) fn unpack(&self) -> String {
        let output = self.run(&[]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs and expects failure; returns the message.
    pub(crate) fn refuse(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(!message.contains("panicked"), "{message}");
        message
    }

    pub(crate) fn layer_directory(&self, digest: &str) -> PathBuf {
        self.path("repository/.layers").join(&digest[..2]).join(digest)
    }

    pub(crate) fn layerfs(&self, layer: &TestLayer) -> PathBuf {
        self.layer_directory(&layer.digest).join("layerfs")
    }

    pub(crate) fn staging(&self) -> Vec<String> {
        list(&self.path("repository/.layers/.tmp"))
    }

    /// Nothing of any layer is there, and nothing is left in staging.
    pub(crate) fn assert_nothing_appeared(&self) {
        let shown: Vec<String> = list(&self.path("repository/.layers"));
        assert_eq!(shown, [".tmp"]);
        assert_eq!(self.staging(), [""; 0]);
    }
}

pub(crate) fn list(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(directory).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

pub(crate) fn simple() -> TestLayer {
    TestLayer::gzip(&archive(&[directory("etc/"), file("etc/motd", "hello"), file("etc/.wh.shadow", "")]))
}

/// Everything that can be known about what lies below a directory.
pub(crate) fn tree(root: &Path) -> BTreeMap<Vec<u8>, String> {
    let mut known = BTreeMap::new();
    let mut inodes = BTreeMap::new();
    for entry in walkdir::WalkDir::new(root).sort_by_file_name() {
        let entry = entry.unwrap();
        let meta = entry.metadata().unwrap();
        let name = entry.path().strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
        let content = if meta.is_file() {
            sha256(&fs::read(entry.path()).unwrap())
        } else if meta.is_symlink() {
            fs::read_link(entry.path()).unwrap().into_os_string().into_vec().escape_ascii().to_string()
        } else {
            String::new()
        };
        let mut xattrs: Vec<String> = xattr::list(entry.path())
            .unwrap()
            .map(|name| {
                let value = xattr::get(entry.path(), &name).unwrap().unwrap();
                format!("{}={}", name.to_string_lossy(), value.escape_ascii())
            })
            .collect();
        xattrs.sort();
        // The first name of an inode stands for it, so that hard links are compared too.
        let first = inodes.entry(meta.ino()).or_insert_with(|| name.clone()).escape_ascii().to_string();
        let size = if meta.is_dir() { 0 } else { meta.size() };
        known.insert(
            name,
            format!(
                "{:o} {}:{} {}.{:09} rdev {} size {size} {content} {xattrs:?} as {first}",
                meta.mode(),
                meta.uid(),
                meta.gid(),
                meta.mtime(),
                meta.mtime_nsec(),
                meta.rdev(),
            ),
        );
    }
    known
}

#[track_caller]
pub(crate) fn assert_same_tree(ours: &Path, theirs: &Path) {
    let (ours, theirs) = (tree(ours), tree(theirs));
    for name in ours.keys().chain(theirs.keys()) {
        assert_eq!(ours.get(name), theirs.get(name), "{}", name.escape_ascii());
    }
}
