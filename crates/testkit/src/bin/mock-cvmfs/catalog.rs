//! Catalogs and the extended attributes that CernVM-FS makes up.

use std::path::Path;

use sha2::{Digest, Sha256};

use crate::backing::Backing;
use crate::layout::Place;
use crate::switches::Switches;

/// The names that are listed, at the root only; every path answers them by name.
pub(crate) const NAMES: &[&str] = &["user.catalog_counters", "user.fqrn", "user.pid", "user.revision"];

/// The value of an attribute, or `None` if there is no such attribute: those of the files themselves are lost.
pub(crate) fn attribute(name: &str, path: &Path, fqrn: &str, backing: &Backing, switches: &Switches) -> Option<String> {
    match name {
        "user.fqrn" => Some(fqrn.to_owned()),
        "user.revision" => Some(switches.revision().to_string()),
        "user.pid" => Some(std::process::id().to_string()),
        "user.catalog_counters" => Some(counters(path, backing, switches)),
        _ => None,
    }
}

/// The client looks for the catalog below the path, and so loads the layer's own at its root. Where it cannot, the call
/// succeeds, with this text and no hash (read in CernVM-FS's `catalog_mgr_impl.h`, not measured).
fn counters(path: &Path, backing: &Backing, switches: &Switches) -> String {
    let mountpoint = path.ancestors().find(|directory| backing.has_catalog(directory));
    let (hash, mountpoint) = match mountpoint {
        Some(_) if switches.load(path).is_err() => (String::new(), "error: failed to load catalog!".to_owned()),
        Some(directory) => {
            let version = Place::of(directory).digest().map_or(0, |digest| switches.version(digest));
            let mountpoint = format!("/{}", directory.display());
            (hash(&format!("{mountpoint} {version}")), mountpoint)
        }
        None => (hash(&format!("root {}", switches.revision())), String::new()),
    };
    let counts = ["chunked", "chunked_size", "chunks", "dir", "external", "external_file_size", "file_size", "nested"]
        .into_iter()
        .chain(["regular", "special", "symlink", "xattr"])
        .map(|name| format!("{name},0\n"))
        .collect::<String>();
    format!("catalog_hash: {hash}\ncatalog_mountpoint: {mountpoint}\n{counts}")
}

/// Stable, and as long as a SHA-1.
fn hash(text: &str) -> String {
    hex::encode(&Sha256::digest(text)[..20])
}
