//! Keys: an extraction is recognised by exactly the form that containerd's unpacker writes.
//!
//! An input as text: the key.

use std::sync::LazyLock;

use cvmfs_snapshotter::containerd::key::extraction_target;
use cvmfs_snapshotter::digest::Digest;
use regex::Regex;

static PREFIX: LazyLock<Regex> = LazyLock::new(|| Regex::new("(?s)^[^/]*/[0-9]+/").expect("a constant"));
static EXTRACTION: LazyLock<Regex> =
    LazyLock::new(|| Regex::new("(?s)^extract-.* (sha256:[0-9a-f]{64})$").expect("a constant"));

/// Panics unless exactly the unpacker's form is an extraction.
pub fn check(data: &[u8]) {
    let Ok(key) = std::str::from_utf8(data) else { return };
    let client_key = PREFIX.find(key).map_or(key, |prefix| &key[prefix.end()..]);
    let expected = EXTRACTION.captures(client_key).map(|found| found[1].to_owned());
    assert_eq!(extraction_target(key).map(|target| target.to_string()), expected, "{key:?}");

    // Whatever stands around it, the unpacker's form is recognised, and only in its place.
    let target = Digest::of(data);
    let namespace = key.replace('/', "");
    assert_eq!(extraction_target(&format!("{namespace}/7/extract-{key} {target}")), Some(target), "{key:?}");
    assert_eq!(extraction_target(&format!("{namespace}/7/x{key} {target}")), None, "{key:?}");
    assert_eq!(extraction_target(&format!("{namespace}/7/extract-{key} {target}0")), None, "{key:?}");
    assert_eq!(extraction_target(&format!("{namespace}/7/default/7/extract-{key} {target}")), None, "{key:?}");
}
