//! From an image to its layers: index, manifest and config, each checked against the digest that names it.

use std::fmt;
use std::io;
use std::path::Path;
use std::str::FromStr;

use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex, ImageManifest};

use super::blob::digest_of;
use super::error::Error;
use super::source::Source;
use crate::digest::Digest;

/// Indexes within indexes are followed this deep.
const DEPTH_LIMIT: usize = 4;
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The full name, where containerd and docker write the archive.
const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// What an image is built for: `os/architecture[/variant]` in the names that Go uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    os: String,
    architecture: String,
    variant: Option<String>,
}

impl Platform {
    /// The platform of this machine.
    #[must_use]
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "x86" => "386",
            "aarch64" => "arm64",
            "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
            "powerpc64" => "ppc64",
            "loongarch64" => "loong64",
            other => other,
        };
        Self { os: std::env::consts::OS.to_owned(), architecture: architecture.to_owned(), variant: None }
    }

    /// Whether an image for `other` is what was asked for; a variant counts only if it was asked for.
    fn accepts(&self, other: &Self) -> bool {
        self.os == other.os
            && self.architecture == other.architecture
            && (self.variant.is_none() || self.variant == other.variant)
    }
}

impl FromStr for Platform {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let parts: Vec<&str> = text.split('/').collect();
        match parts[..] {
            _ if parts.contains(&"") => Err(Error::Platform(text.to_owned())),
            [os, architecture] => Ok(Self { os: os.into(), architecture: architecture.into(), variant: None }),
            [os, architecture, variant] => {
                Ok(Self { os: os.into(), architecture: architecture.into(), variant: Some(variant.into()) })
            }
            _ => Err(Error::Platform(text.to_owned())),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

/// One layer, as the image describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Digest of the blob: the layer's name in a repository.
    pub digest: Digest,
    /// Digest of the uncompressed tar stream, from the image's config.
    pub diff_id: Digest,
    /// Bytes of the blob.
    pub size: u64,
}

/// One image of an index.
struct Candidate {
    digest: Digest,
    names: Vec<String>,
    platform: Option<Platform>,
    here: bool,
}

/// The layers of the image in `source`, lowest first. `path` is for messages.
///
/// # Errors
///
/// If no image or several fit, and if a document is missing, damaged or malformed.
pub(super) fn layers(
    source: &Source,
    path: &Path,
    platform: Option<&Platform>,
    reference: Option<&str>,
) -> Result<Vec<Layer>, Error> {
    let content = source.read("index.json").map_err(|source| Error::Image { path: path.join("index.json"), source })?;
    let index: ImageIndex = parse("index.json", &content)?;
    let mut candidates = Vec::new();
    collect(source, path, &index, &[], 0, &mut candidates)?;
    let chosen = choose(candidates, platform, reference)?;
    let manifest: ImageManifest = document(source, path, "manifest", &chosen)?;
    let config: ImageConfiguration =
        document(source, path, "config", &manifest.config().digest().to_string().parse()?)?;
    let diff_ids = config.rootfs().diff_ids();
    if diff_ids.len() != manifest.layers().len() {
        return Err(Error::LayerCount { layers: manifest.layers().len(), diff_ids: diff_ids.len() });
    }
    manifest.layers().iter().zip(diff_ids).map(|(layer, diff_id)| describe(source, layer, diff_id)).collect()
}

fn describe(source: &Source, layer: &Descriptor, diff_id: &str) -> Result<Layer, Error> {
    let digest: Digest = layer.digest().to_string().parse()?;
    let media_type = layer.media_type().to_string();
    if media_type.ends_with("+encrypted") {
        return Err(Error::MediaType { digest, media_type });
    }
    if !source.has(&digest) {
        let foreign = media_type.contains("nondistributable") || media_type.contains("foreign");
        return Err(if foreign {
            Error::ForeignLayer { digest, media_type }
        } else {
            Error::MissingBlob { what: "layer", digest }
        });
    }
    Ok(Layer { digest, diff_id: diff_id.parse()?, size: layer.size() })
}

/// All images below `index`, those of nested indexes with the names of the index.
fn collect(
    source: &Source,
    path: &Path,
    index: &ImageIndex,
    names: &[String],
    depth: usize,
    found: &mut Vec<Candidate>,
) -> Result<(), Error> {
    for descriptor in index.manifests() {
        let digest: Digest = descriptor.digest().to_string().parse()?;
        let annotation = |key| descriptor.annotations().as_ref().and_then(|all| all.get(key)).cloned();
        if annotation("vnd.docker.reference.type").is_some() {
            // An attestation about an image, not an image.
            continue;
        }
        let mut names = names.to_vec();
        names.extend([annotation(REF_NAME), annotation(CONTAINERD_NAME)].into_iter().flatten());
        let here = source.has(&digest);
        let media_type = descriptor.media_type().to_string();
        if media_type.contains("image.index") || media_type.contains("manifest.list") {
            if here && depth < DEPTH_LIMIT {
                collect(source, path, &document(source, path, "index", &digest)?, &names, depth + 1, found)?;
            }
        } else {
            let mut platform = descriptor.platform().as_ref().map(|p| Platform {
                os: p.os().to_string(),
                architecture: p.architecture().to_string(),
                variant: p.variant().clone(),
            });
            if here && platform.is_none() {
                platform = platform_of(source, path, &digest)?;
            }
            match found.iter_mut().find(|known| known.digest == digest) {
                // docker lists an image once for each tag.
                Some(known) => known.names.extend(names),
                None => found.push(Candidate { digest, names, platform, here }),
            }
        }
    }
    Ok(())
}

/// The platform that an image's config names.
fn platform_of(source: &Source, path: &Path, manifest: &Digest) -> Result<Option<Platform>, Error> {
    let manifest: ImageManifest = document(source, path, "manifest", manifest)?;
    let Ok(config) = manifest.config().digest().to_string().parse() else { return Ok(None) };
    if !source.has(&config) {
        return Ok(None);
    }
    // Not every manifest is one of an image: then it has no such config, and no platform.
    let Ok(config) = document::<ImageConfiguration>(source, path, "config", &config) else { return Ok(None) };
    Ok(Some(Platform {
        os: config.os().to_string(),
        architecture: config.architecture().to_string(),
        variant: config.variant().clone(),
    }))
}

fn choose(candidates: Vec<Candidate>, platform: Option<&Platform>, reference: Option<&str>) -> Result<Digest, Error> {
    let listing = || candidates.iter().map(Candidate::describe).collect::<String>();
    let host = Platform::host();
    let wanted_platform = platform.unwrap_or(&host);
    let wanted = reference.map_or_else(|| wanted_platform.to_string(), |name| format!("{name:?}, {wanted_platform}"));
    let named: Vec<&Candidate> = candidates
        .iter()
        .filter(|c| c.here && reference.is_none_or(|name| c.names.iter().any(|n| n == name)))
        .collect();
    let fitting: Vec<&Candidate> = match named[..] {
        // Publishing for another architecture is common: the only image there is what is meant.
        [only] if platform.is_none() => vec![only],
        _ => named.into_iter().filter(|c| c.platform.as_ref().is_some_and(|p| wanted_platform.accepts(p))).collect(),
    };
    match fitting[..] {
        [one] => Ok(one.digest),
        [] => Err(Error::NoMatch { wanted, listing: listing() }),
        _ => Err(Error::Ambiguous { wanted, listing: listing() }),
    }
}

impl Candidate {
    fn describe(&self) -> String {
        let platform = self.platform.as_ref().map_or_else(|| "no platform".to_owned(), ToString::to_string);
        let names = self.names.join(", ");
        let absent = if self.here { "" } else { "  (not in this copy)" };
        format!("\n  {}  {platform}  {names}{absent}", self.digest)
    }
}

/// Reads a document and checks that it is the one that `digest` names.
fn document<T: serde::de::DeserializeOwned>(
    source: &Source,
    path: &Path,
    what: &'static str,
    digest: &Digest,
) -> Result<T, Error> {
    let content = source.read_blob(digest).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Error::MissingBlob { what, digest: *digest },
        _ => Error::Image { path: path.join(format!("blobs/sha256/{}", digest.hex())), source: error },
    })?;
    let actual = digest_of(&content[..]).map_err(|source| Error::Image { path: path.to_owned(), source })?;
    if actual != *digest {
        return Err(Error::DocumentDigest { what, expected: *digest, actual });
    }
    parse(&format!("{what} {digest}"), &content)
}

fn parse<T: serde::de::DeserializeOwned>(what: &str, content: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(content).map_err(|error| Error::Malformed { what: what.to_owned(), why: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_strict() {
        let hex = "0123456789abcdef".repeat(4);
        assert_eq!(format!("sha256:{hex}").parse::<Digest>().unwrap().hex(), hex);
        for bad in [
            hex.clone(),
            format!("sha256:{}", &hex[1..]),
            format!("sha256:{}", hex.to_uppercase()),
            format!("sha512:{hex}{hex}"),
            "sha256:../../..".to_owned(),
            String::new(),
        ] {
            assert!(bad.parse::<Digest>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn platforms() {
        let parse = |text: &str| text.parse::<Platform>();
        assert_eq!(parse("linux/arm/v7").unwrap().to_string(), "linux/arm/v7");
        for bad in ["", "linux", "linux/", "/amd64", "a/b/c/d"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
        assert!(parse("linux/arm64").unwrap().accepts(&parse("linux/arm64/v8").unwrap()));
        assert!(!parse("linux/arm/v6").unwrap().accepts(&parse("linux/arm/v7").unwrap()));
        assert!(!parse("linux/arm/v6").unwrap().accepts(&parse("linux/arm").unwrap()));
    }

    fn candidate(n: u8, platform: Option<&str>, name: &str, here: bool) -> Candidate {
        let platform = platform.map(|p| p.parse().unwrap());
        Candidate { digest: Digest::from_bytes([n; 32]), names: vec![name.to_owned()], platform, here }
    }

    #[test]
    fn choosing() {
        let all = || {
            vec![
                candidate(1, Some("linux/amd64"), "a", true),
                candidate(2, Some("linux/arm64/v8"), "a", true),
                candidate(3, Some("linux/s390x"), "a", false),
                candidate(4, Some("linux/amd64"), "b", true),
            ]
        };
        let pick = |list: Vec<Candidate>, platform: Option<&str>, name| {
            choose(list, platform.map(|p| p.parse().unwrap()).as_ref(), name).map(|d| d.as_bytes()[0])
        };
        assert_eq!(pick(all(), Some("linux/amd64"), Some("a")).unwrap(), 1);
        assert_eq!(pick(all(), Some("linux/arm64"), None).unwrap(), 2);
        assert_eq!(pick(all(), Some("linux/amd64"), Some("b")).unwrap(), 4);
        assert!(matches!(pick(all(), Some("linux/amd64"), None), Err(Error::Ambiguous { .. })));
        let error = pick(all(), Some("linux/s390x"), None).unwrap_err().to_string();
        assert!(error.contains("linux/s390x  a  (not in this copy)"), "{error}");
        assert!(matches!(pick(vec![], None, None), Err(Error::NoMatch { .. })));
        // The only one, for another machine or for none in particular.
        assert_eq!(pick(vec![candidate(5, Some("plan9/mips"), "x", true)], None, None).unwrap(), 5);
        assert_eq!(pick(vec![candidate(5, None, "x", true)], None, None).unwrap(), 5);
        assert!(pick(vec![candidate(5, None, "x", true)], Some("linux/amd64"), None).is_err());
    }
}
