//! Digests, user mappings and sets of labels.
//!
//! An input as text: taken as a digest and as a mapping as it is, and as labels a line each, `name=value`, where
//! `value*N` stands for N times the value.

use std::collections::HashMap;

use cvmfs_snapshotter::containerd::label::{self, MAX_BYTES};
use cvmfs_snapshotter::digest::Digest;

/// Panics unless digests, mappings and sets of labels mean what they say.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    check_digest(text);
    check_mapping(text);
    check_labels(text);
}

fn check_digest(text: &str) {
    let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let hex = text.strip_prefix("sha256:").filter(|hex| hex.len() == 64 && hex.bytes().all(is_hex));
    match (text.parse::<Digest>(), hex) {
        (Ok(digest), Some(hex)) => {
            assert_eq!((digest.to_string().as_str(), digest.hex().as_str()), (text, hex));
            assert_eq!(Digest::from_bytes(*digest.as_bytes()), digest);
            assert_eq!(digest.chain(None), digest);
            assert_eq!(digest.chain(Some(digest)), Digest::of(format!("{text} {text}").as_bytes()));
        }
        (Err(error), None) => assert!(error.to_string().len() < 1024, "{error}"),
        (parsed, _) => panic!("{text:?} is {parsed:?}"),
    }
}

fn check_mapping(text: &str) {
    // The first entry for ID 0, by the meaning of the three numbers.
    let number = |field: &str| -> Option<u32> {
        let digits = field.strip_prefix('+').unwrap_or(field);
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        // More digits than a number may have are zeros in front.
        let digits = digits.trim_start_matches('0');
        match digits.len() {
            _ if !is_number => None,
            0 => Some(0),
            1..=10 => u32::try_from(digits.parse::<u64>().ok()?).ok(),
            _ => None,
        }
    };
    let mut expected = None;
    for entry in text.split(',') {
        let fields: Vec<Option<u32>> = entry.split(':').take(3).map(number).collect();
        if let [Some(0), Some(host), Some(1..)] = fields[..] {
            expected = Some(host);
            break;
        }
    }
    assert_eq!(label::mapped_root(text), expected, "{text:?}");
}

fn check_labels(text: &str) {
    let mut sent = HashMap::new();
    for line in text.lines() {
        let (name, value) = line.split_once('=').unwrap_or((line, ""));
        let value = match value.rsplit_once('*').map(|(value, times)| (value, times.parse::<usize>())) {
            Some((value, Ok(times))) if times * value.len() <= 2 * MAX_BYTES => value.repeat(times),
            _ => value.to_owned(),
        };
        sent.insert(name.to_owned(), value);
    }
    let kept: Vec<(&String, &String)> = sent.iter().filter(|(_, value)| !value.is_empty()).collect();
    let bytes: usize = kept.iter().map(|(name, value)| name.len() + value.len()).sum();
    match label::accept(sent.clone()) {
        Ok(labels) => {
            assert!(bytes <= MAX_BYTES, "{bytes} bytes were accepted");
            assert!(kept.len() == labels.len() && kept.iter().all(|(name, value)| labels.get(*name) == Some(*value)));
            assert_eq!(label::check(&labels), Ok(()));
            assert_eq!(label::accept(labels.clone().into_iter().collect()), Ok(labels));
        }
        Err(error) => assert!(bytes > MAX_BYTES && error.to_string().contains(&bytes.to_string()), "{error}"),
    }
}
