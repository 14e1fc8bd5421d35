//! What the key of a snapshot says.
//!
//! containerd's metadata store turns a client's key into `<namespace>/<number>/<client's key>`. The client's keys are
//! opaque, but for one form: the unpacker asks for the snapshot that a layer is extracted into as
//! `extract-<anything> <chain ID>` (containerd: core/snapshots, `UnpackKeyFormat`).

use crate::digest::Digest;

/// The chain ID that an extraction key ends with, or `None` if the key is not one of an extraction.
pub fn extraction_target(key: &str) -> Option<Digest> {
    let client_key = client_key(key).unwrap_or(key);
    let (name, target) = client_key.rsplit_once(' ')?;
    if !name.starts_with("extract-") {
        return None;
    }
    target.parse().ok()
}

/// The key without namespace and number.
fn client_key(key: &str) -> Option<&str> {
    let (_namespace, rest) = key.split_once('/')?;
    let (number, client_key) = rest.split_once('/')?;
    let is_number = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    is_number.then_some(client_key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_08_only_the_unpackers_keys_are_extractions() {
        let target = format!("sha256:{}", "1b".repeat(32));
        let digest: Digest = target.parse().unwrap();
        for key in [
            format!("default/7/extract-56540932-akKs {target}"),
            format!("extract-1 {target}"),
            format!("a.b_c/12/extract-1-x y {target}"),
        ] {
            assert_eq!(extraction_target(&key), Some(digest), "{key}");
        }
        for key in [
            format!("k8s.io/6/{target}"),
            format!("k8s.io/6/x/extract-1 {target}"),
            format!("k8s.io/x/extract-1 {target}"),
            format!("k8s.io/6/ extract-1 {target}"),
            format!("k8s.io/6/extract-1 {target}0"),
            format!("k8s.io/6/extract-1{target}"),
            "k8s.io/6/extract-1 sha256:../..".into(),
            "k8s.io/6/extract-".into(),
            String::new(),
        ] {
            assert_eq!(extraction_target(&key), None, "{key}");
        }
    }
}
