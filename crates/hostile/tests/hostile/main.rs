//! Hostile input: the properties that the fuzzers in `fuzz/` look for counter-examples to, on the inputs that are kept in
//! `fuzz/corpus` and on changed ones.
//!
//! ```text
//! HOSTILE_CASES=100000 HOSTILE_SEED=7 cargo test -p hostile
//! ```

mod bombs;
mod mutate;

use std::env;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use hostile::{config, filter, key, labels, markers, unpack, update};
use testkit::{is_root, programs};

/// Takes some seconds for each property.
const CASES: u64 = 3000;

fn setting(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name} is not a number")))
}

/// Checks what is kept for a target, and changed inputs made of it.
fn hostile(target: &str, check: impl Fn(&[u8])) {
    let directory = programs::sources().join("fuzz/corpus").join(target);
    let mut corpus: Vec<(String, Vec<u8>)> = fs::read_dir(&directory)
        .expect("the corpus")
        .map(|entry| {
            let entry = entry.expect("an entry");
            (entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path()).expect("an input"))
        })
        .collect();
    corpus.sort();
    assert!(!corpus.is_empty(), "{} is empty", directory.display());
    let told = |what: String, data: &[u8]| {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| check(data))) {
            eprintln!("{target}, {what}: {}", data.escape_ascii());
            resume_unwind(panic);
        }
    };
    for (name, data) in &corpus {
        told(name.clone(), data);
    }
    let (first, cases) = (setting("HOSTILE_SEED", 1) << 32, setting("HOSTILE_CASES", CASES));
    let inputs: Vec<&[u8]> = corpus.iter().map(|(_, data)| data.as_slice()).collect();
    for seed in first..first + cases {
        told(format!("seed {seed}"), &mutate::input(seed, &inputs));
    }
    println!("{target}: {} kept inputs and {cases} changed ones", corpus.len());
}

#[test]
fn filters() {
    hostile("filter", filter::check);
}

#[test]
fn labels_digests_and_mappings() {
    hostile("labels", labels::check);
}

#[test]
fn keys() {
    hostile("key", key::check);
}

#[test]
fn configurations() {
    hostile("config", config::check);
}

#[test]
fn update_masks() {
    if is_root() {
        let root = update::private_root();
        hostile("update", |data| root.check(data));
    }
}

#[test]
fn markers_of_layers() {
    if is_root() {
        let root = markers::private_root();
        hostile("markers", |data| root.check(data));
    }
}

#[test]
fn images() {
    if is_root() {
        let root = unpack::private_root();
        hostile("unpack", |data| root.check(data));
    }
}
