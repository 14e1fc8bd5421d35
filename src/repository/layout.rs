//! Every path below a repository, and the one reader and writer of `layers.json`. Pure.
//!
//! ```text
//! <repository>/.layers/
//!   <d[0:2]>/<d>/                        one layer; d = hex of the digest of its (compressed) blob
//!     layerfs/                           its content; deletions are files called .wh.<name>
//!     .metadata/layers.json              its diff ID, digest, size and time
//!     .metadata/unlisted-directories     `unpack` only: directories that the archive has entries in and does not list
//!   .tmp/                                `unpack` only: layers in the making
//! ```
//!
//! It is the layout of DUCC, CernVM-FS' publisher of images.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use humantime_serde::re::humantime::format_rfc3339_seconds;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// The directory of all layers, below the root of a repository.
pub(crate) const LAYERS: &str = ".layers";
/// Layers in the making, below [`LAYERS`]. Its name does not have two letters, so it never holds layers.
pub(crate) const STAGING: &str = ".tmp";
/// The content of a layer, in the layer's directory.
pub(crate) const LAYERFS: &str = "layerfs";
/// What the publisher recorded of a layer, in the layer's directory.
pub(crate) const METADATA: &str = ".metadata";
/// The record of diff IDs, in [`METADATA`].
pub(crate) const LAYERS_JSON: &str = "layers.json";
/// In [`METADATA`]: the directories that the archive of the layer does not list, each ended by NUL. It is there only if
/// there are such directories below the root.
pub(crate) const UNLISTED_DIRECTORIES: &str = "unlisted-directories";

/// `layers.json` has one entry of some 300 bytes; more than this is not read.
pub(crate) const MAX_LAYERS_JSON: u64 = 1024 * 1024;

/// The directory of a layer, below [`LAYERS`].
pub(crate) fn place(layer: Digest) -> PathBuf {
    let hex = layer.hex();
    Path::new(&hex[..2]).join(&hex)
}

/// The directory with the content of a layer, below the root of a repository.
pub(crate) fn layerfs(layer: Digest) -> PathBuf {
    directory(layer).join(LAYERFS)
}

/// `layers.json` of a layer, below the root of a repository.
pub(crate) fn layers_json(layer: Digest) -> PathBuf {
    directory(layer).join(METADATA).join(LAYERS_JSON)
}

/// The record of a layer's unlisted directories, below the root of a repository.
pub(crate) fn unlisted_directories(layer: Digest) -> PathBuf {
    directory(layer).join(METADATA).join(UNLISTED_DIRECTORIES)
}

fn directory(layer: Digest) -> PathBuf {
    Path::new(LAYERS).join(place(layer))
}

/// One entry of `layers.json`, as far as it matters here.
#[derive(Deserialize)]
struct Recorded {
    #[serde(rename = "compressed-diff-digest")]
    blob: String,
    #[serde(rename = "diff-digest")]
    diff_id: String,
}

/// One entry of `layers.json`, with the fields that DUCC writes.
#[derive(Serialize)]
struct Written {
    id: String,
    #[serde(rename = "compressed-diff-digest")]
    blob: String,
    #[serde(rename = "diff-digest")]
    diff_id: String,
    #[serde(rename = "diff-size")]
    size: u64,
    created: String,
}

/// The text is not one that a publisher writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

/// The diff ID that the text of a `layers.json` gives for a layer; `None` if it does not name the layer.
pub(crate) fn diff_id(text: &[u8], layer: Digest) -> Result<Option<Digest>, Malformed> {
    let entries: Vec<Recorded> = serde_json::from_slice(text).map_err(|_| Malformed)?;
    let name = layer.to_string();
    let entry = entries.iter().find(|entry| entry.blob == name);
    entry.map(|entry| entry.diff_id.parse().map_err(|_| Malformed)).transpose()
}

/// The text of the `layers.json` of a layer with this diff ID and this size of the tar stream in bytes.
pub(crate) fn layers_json_text(layer: Digest, diff_id: Digest, size: u64, created: SystemTime) -> String {
    let entry = Written {
        id: diff_id.hex(),
        blob: layer.to_string(),
        diff_id: diff_id.to_string(),
        size,
        created: format_rfc3339_seconds(created).to_string(),
    };
    let list = serde_json::to_string(&[entry]).unwrap_or_else(|e| unreachable!("plain data is JSON: {e}"));
    format!("{list}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_a_layer_is_the_publishers() {
        let layer = Digest::from_bytes([0xab; 32]);
        let hex = "ab".repeat(32);
        assert_eq!(layerfs(layer), PathBuf::from(format!(".layers/ab/{hex}/layerfs")));
        assert_eq!(layers_json(layer), PathBuf::from(format!(".layers/ab/{hex}/.metadata/layers.json")));
    }

    #[test]
    fn the_diff_id_is_the_one_recorded_for_this_blob() {
        let layer = Digest::from_bytes([1; 32]);
        let (diff, other) = (Digest::from_bytes([2; 32]), Digest::from_bytes([3; 32]));
        let entry = |blob: &Digest, diff: &str| {
            format!(
                r#"{{"id":"x","compressed-diff-digest":"{blob}","diff-digest":"{diff}","diff-size":1,"created":""}}"#
            )
        };
        let right = format!("[{},{}]", entry(&other, &other.to_string()), entry(&layer, &diff.to_string()));
        assert_eq!(diff_id(right.as_bytes(), layer), Ok(Some(diff)));
        assert_eq!(diff_id(b"[]", layer), Ok(None));
        for bad in ["", "{}", "null", &format!("[{}]", entry(&layer, "sha256:..")), "[{}]"] {
            assert_eq!(diff_id(bad.as_bytes(), layer), Err(Malformed), "{bad}");
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let [layer, diff] = [1, 2].map(|n| Digest::from_bytes([n; 32]));
        let text = layers_json_text(layer, diff, 1024, SystemTime::UNIX_EPOCH);
        assert_eq!(diff_id(text.as_bytes(), layer), Ok(Some(diff)));
        insta::assert_snapshot!(text, @r#"[{"id":"0202020202020202020202020202020202020202020202020202020202020202","compressed-diff-digest":"sha256:0101010101010101010101010101010101010101010101010101010101010101","diff-digest":"sha256:0202020202020202020202020202020202020202020202020202020202020202","diff-size":1024,"created":"1970-01-01T00:00:00Z"}]"#);
    }
}
