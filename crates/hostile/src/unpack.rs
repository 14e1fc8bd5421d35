//! `unpack`: whatever an image holds, nothing outside of the target is made, changed or followed, a layer appears only if
//! its digests are true, and what fails leaves nothing.
//!
//! An input: a byte of [`Flag`]s, then the layer's archive, or what it is made of.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use arbitrary::{Arbitrary, Unstructured};
use cvmfs_snapshotter::digest::Digest;
use cvmfs_snapshotter::unpack::{Layer, Options, Progress, run};

use crate::archive;
use crate::private_root::{PrivateRoot, Sentinel};

/// What is done with the rest of an input.
pub struct Flag;

impl Flag {
    /// The blob is compressed with gzip.
    const GZIP: u8 = 1;
    /// The blob is compressed with zstd.
    const ZSTD: u8 = 1 << 1;
    /// The image gives another digest of the blob.
    pub const WRONG_DIGEST: u8 = 1 << 2;
    /// The image gives another diff ID.
    const WRONG_DIFF_ID: u8 = 1 << 3;
    /// The image gives another size.
    const WRONG_SIZE: u8 = 1 << 4;
    /// The input is the whole image, an archive.
    const IMAGE: u8 = 1 << 5;
    /// The input is entries of an archive in short, see [`archive::of_entries`]; otherwise its blocks.
    const ENTRIES: u8 = 1 << 6;
    /// The checksums of headers are left as they are.
    const RAW: u8 = 1 << 7;
}

const IMAGE: &str = "/image";
const TARGET: &str = "/target";

/// The root directory in which inputs are checked.
pub fn private_root() -> PrivateRoot {
    PrivateRoot::new(|| Sentinel::new(&[IMAGE, TARGET]), |sentinel, data| check(sentinel, data))
}

struct Silent;

impl Progress for Silent {}

fn check(sentinel: &Sentinel, data: &[u8]) {
    let Some((&flags, data)) = data.split_first() else { return };
    let has = |flag: u8| flags & flag != 0;
    let mut tar = if has(Flag::ENTRIES) {
        archive::of_entries(&Vec::arbitrary(&mut Unstructured::new(data)).unwrap_or_default())
    } else {
        data.to_vec()
    };
    if !has(Flag::RAW) && !has(Flag::ENTRIES) {
        archive::repair(&mut tar);
    }
    let (digest, blob) = if has(Flag::IMAGE) {
        fs::write(IMAGE, &tar).expect("an image");
        (None, tar)
    } else {
        let blob = if has(Flag::GZIP) {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(&tar).and_then(|()| encoder.finish()).expect("compression in memory")
        } else if has(Flag::ZSTD) {
            zstd::encode_all(&tar[..], 1).expect("compression in memory")
        } else {
            tar
        };
        (Some(write_image(Path::new(IMAGE), flags, &blob)), blob)
    };

    let options = Options { image: IMAGE.into(), directory: TARGET.into(), platform: None, reference: None, jobs: 1 };
    let result = run(&options, &Silent);
    sentinel.check();
    match result {
        Ok(summary) => {
            if let Some(digest) = digest {
                let lies = Flag::WRONG_DIGEST | Flag::WRONG_DIFF_ID | Flag::WRONG_SIZE;
                assert_eq!(flags & lies, 0, "a lie was not found");
                assert_eq!((digest, summary.new), (Digest::of(&blob), 1));
            }
            for Layer { digest, .. } in &summary.layers {
                let hex = digest.hex();
                let directory = Path::new(TARGET).join(".layers").join(&hex[..2]).join(&hex);
                assert!(fs::symlink_metadata(directory.join("layerfs")).expect("the layer").is_dir());
                let metadata = fs::symlink_metadata(directory.join(".metadata/layers.json")).expect("its metadata");
                assert!(metadata.is_file() && metadata.nlink() == 1);
            }
        }
        Err(error) => {
            let message = error.to_string();
            assert!(!message.is_empty() && message.len() < 16 * 1024, "{message}");
            let layers = Path::new(TARGET).join(".layers");
            if layers.exists() && digest.is_some() {
                assert_eq!(names(&layers), [".tmp"], "after {message}");
            }
        }
    }
    let staging = Path::new(TARGET).join(".layers/.tmp");
    if staging.exists() {
        assert_eq!(names(&staging), [""; 0]);
    }
    for path in [IMAGE, TARGET] {
        match fs::symlink_metadata(path) {
            Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path).expect("a removal"),
            Ok(_) => fs::remove_file(path).expect("a removal"),
            Err(_) => {}
        }
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("a directory");
    entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
}

/// An OCI layout with one layer; the digest that the image gives the layer.
pub fn write_image(image: &Path, flags: u8, blob: &[u8]) -> Digest {
    let blobs = image.join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("a directory");
    let put = |name: Digest, content: &[u8]| fs::write(blobs.join(name.hex()), content).expect("a blob");
    let document = |content: &serde_json::Value| {
        let content = content.to_string();
        let digest = Digest::of(content.as_bytes());
        put(digest, content.as_bytes());
        (digest.to_string(), content.len())
    };
    let lie = |flag: u8, truth: Digest| if flags & flag == 0 { truth } else { Digest::of(b"a lie") };
    let digest = lie(Flag::WRONG_DIGEST, Digest::of(blob));
    let diff_id = lie(Flag::WRONG_DIFF_ID, Digest::of(&decompressed(blob)));
    let size = blob.len() + usize::from(flags & Flag::WRONG_SIZE != 0);
    put(digest, blob);
    let (config, config_size) = document(&serde_json::json!({
        "os": "linux", "architecture": "amd64", "rootfs": { "type": "layers", "diff_ids": [diff_id.to_string()] },
    }));
    let (manifest, manifest_size) = document(&serde_json::json!({
        "schemaVersion": 2,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": config_size,
        },
        "layers": [{
            "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest.to_string(), "size": size,
        }],
    }));
    let index = serde_json::json!({
        "schemaVersion": 2,
        "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": manifest, "size": manifest_size,
        }],
    });
    fs::write(image.join("index.json"), index.to_string()).expect("an index");
    digest
}

/// What the blob's content is, as far as it can be read: that of a damaged one does not matter.
fn decompressed(blob: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    let read = match blob {
        [0x1f, 0x8b, ..] => flate2::bufread::MultiGzDecoder::new(blob).read_to_end(&mut content),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            zstd::stream::read::Decoder::new(blob).and_then(|mut d| d.read_to_end(&mut content))
        }
        _ => {
            content = blob.to_vec();
            Ok(0)
        }
    };
    drop(read);
    content
}
