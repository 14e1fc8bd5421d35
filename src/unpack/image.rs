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
/// Most entries that are looked at, in all indexes: few as they are, indexes within indexes can have any number of them.
const ENTRY_LIMIT: usize = 20_000;
/// Most bytes of documents that are read on the way to an image. Each takes some thousand.
const DOCUMENTS_LIMIT: usize = 256 * 1024 * 1024;
/// Most bytes of their names, which nested indexes hand on to all that is in them.
const NAMES_LIMIT: usize = 8 * 1024 * 1024;
/// So many images are listed in a message.
const LISTED: usize = 100;
/// Longer names are nobody's: a reference has at most some hundred bytes.
const NAME_LIMIT: usize = 1024;
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
    let mut collector = Collector { source, path, found: Vec::new(), entries: 0, bytes: 0, name_bytes: 0 };
    collector.collect(&index, &[], 0)?;
    let chosen = choose(collector.found, platform, reference)?;
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

/// Finds the images of a layout.
struct Collector<'a> {
    source: &'a Source,
    path: &'a Path,
    found: Vec<Candidate>,
    entries: usize,
    bytes: usize,
    name_bytes: usize,
}

impl Collector<'_> {
    /// All images below `index`, those of nested indexes with the names of the index.
    fn collect(&mut self, index: &ImageIndex, names: &[String], depth: usize) -> Result<(), Error> {
        for descriptor in index.manifests() {
            self.entries += 1;
            if self.entries > ENTRY_LIMIT {
                return Err(self.too_large(format_args!("more than {ENTRY_LIMIT} entries in all its indexes")));
            }
            let digest: Digest = descriptor.digest().to_string().parse()?;
            let annotation = |key| descriptor.annotations().as_ref().and_then(|all| all.get(key)).cloned();
            if annotation("vnd.docker.reference.type").is_some() {
                // An attestation about an image, not an image.
                continue;
            }
            let mut names = names.to_vec();
            let own = [annotation(REF_NAME), annotation(CONTAINERD_NAME)].into_iter().flatten();
            names.extend(own.filter(|name| name.len() <= NAME_LIMIT));
            self.name_bytes += names.iter().map(String::len).sum::<usize>();
            if self.name_bytes > NAMES_LIMIT {
                return Err(self.too_large(format_args!("more than {NAMES_LIMIT} bytes of names in all its indexes")));
            }
            let here = self.source.has(&digest);
            let media_type = descriptor.media_type().to_string();
            if media_type.contains("image.index") || media_type.contains("manifest.list") {
                if here && depth < DEPTH_LIMIT {
                    let nested = self.document("index", &digest)?;
                    self.collect(&nested, &names, depth + 1)?;
                }
            } else {
                let mut platform = descriptor.platform().as_ref().map(|p| Platform {
                    os: p.os().to_string(),
                    architecture: p.architecture().to_string(),
                    variant: p.variant().clone(),
                });
                if here && platform.is_none() {
                    platform = self.platform_of(&digest)?;
                }
                match self.found.iter_mut().find(|known| known.digest == digest) {
                    // docker lists an image once for each tag.
                    Some(known) => known.names.extend(names),
                    None => self.found.push(Candidate { digest, names, platform, here }),
                }
            }
        }
        Ok(())
    }

    /// The platform that an image's config names.
    fn platform_of(&mut self, manifest: &Digest) -> Result<Option<Platform>, Error> {
        let manifest: ImageManifest = self.document("manifest", manifest)?;
        let Ok(config) = manifest.config().digest().to_string().parse() else { return Ok(None) };
        if !self.source.has(&config) {
            return Ok(None);
        }
        // Not every manifest is one of an image: then it has no such config, and no platform.
        let Ok(config) = self.document::<ImageConfiguration>("config", &config) else { return Ok(None) };
        Ok(Some(Platform {
            os: config.os().to_string(),
            architecture: config.architecture().to_string(),
            variant: config.variant().clone(),
        }))
    }

    fn document<T: serde::de::DeserializeOwned>(&mut self, what: &'static str, digest: &Digest) -> Result<T, Error> {
        let content = read_document(self.source, self.path, what, digest)?;
        self.bytes += content.len();
        if self.bytes > DOCUMENTS_LIMIT {
            return Err(
                self.too_large(format_args!("more than {DOCUMENTS_LIMIT} bytes of indexes, manifests and configs"))
            );
        }
        parse(&format!("{what} {digest}"), &content)
    }

    fn too_large(&self, what: impl fmt::Display) -> Error {
        Error::NotAnImage { path: self.path.to_owned(), why: format!("it has {what}") }
    }
}

fn choose(candidates: Vec<Candidate>, platform: Option<&Platform>, reference: Option<&str>) -> Result<Digest, Error> {
    let listing = || candidates.iter().take(LISTED).map(Candidate::describe).collect::<String>();
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

fn document<T: serde::de::DeserializeOwned>(
    source: &Source,
    path: &Path,
    what: &'static str,
    digest: &Digest,
) -> Result<T, Error> {
    parse(&format!("{what} {digest}"), &read_document(source, path, what, digest)?)
}

/// Reads a document and checks that it is the one that `digest` names.
fn read_document(source: &Source, path: &Path, what: &'static str, digest: &Digest) -> Result<Vec<u8>, Error> {
    let content = source.read_blob(digest).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Error::MissingBlob { what, digest: *digest },
        _ => Error::Image { path: path.join(format!("blobs/sha256/{}", digest.hex())), source: error },
    })?;
    let actual = digest_of(&content[..]).map_err(|source| Error::Image { path: path.to_owned(), source })?;
    if actual != *digest {
        return Err(Error::DocumentDigest { what, expected: *digest, actual });
    }
    Ok(content)
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
