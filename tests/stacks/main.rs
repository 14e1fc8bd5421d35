//! Random layers, published and local, mounted as the daemon says, are what the OCI layer rules say.
//!
//! ```text
//! STACKS_CASES=2000 STACKS_SEED=7 cargo test --test stacks
//! ```
//!
//! A case is what containerd does: a Prepare for each layer, with the labels of a pull; a layer that the daemon
//! does not have is written into the upper directory and committed; then a container and a view are mounted.
//!
//! Left out, because containerd's own snapshotter gets them wrong as well: an opaque root of a local layer, and
//! whiteouts that hide nothing. A case that fails is made smaller before it is shown.

mod verifier;

use std::env;

use testkit::has_fuse;
use testkit::layer_model::generate::{Random, layers};
use testkit::layer_model::{Entries, File, Layer, What};
use verifier::{Outcome, Verifier};

/// Takes some seconds.
const CASES: u64 = 150;

fn setting(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name} is not a number")))
}

/// Panics with the smallest layers that fail as these do.
fn must_be_right(verifier: &mut Verifier<'_>, what: &str, layers: &[Layer]) -> Outcome {
    let mut problem = match verifier.verify(layers) {
        Ok(outcome) => return outcome,
        Err(problem) => problem,
    };
    let mut smallest = layers.to_vec();
    while let Some((smaller, next)) = smaller(&smallest)
        .into_iter()
        .find_map(|layers| verifier.verify(&layers).err().map(|problem| (layers, problem)))
    {
        (smallest, problem) = (smaller, next);
    }
    let layers = smallest.iter().enumerate().map(|(number, layer)| format!("  layer {number}: {layer}"));
    panic!("{what}, as small as possible:\n{}{problem}", layers.collect::<String>());
}

/// The same with one layer less, or one entry less.
fn smaller(layers: &[Layer]) -> Vec<Vec<Layer>> {
    let mut all = Vec::new();
    for number in 0..layers.len() {
        if layers.len() > 1 {
            let mut fewer = layers.to_vec();
            fewer.remove(number);
            all.push(fewer);
        }
        for path in layers[number].root.paths() {
            let (dir, name) = path.rsplit_once('/').unwrap_or(("", &path));
            let mut fewer = layers.to_vec();
            let entries = fewer[number].root.at_mut(dir).and_then(File::entries_mut).expect("a directory");
            entries.remove(name);
            all.push(fewer);
        }
    }
    all
}

#[test]
fn random_layers() {
    if !has_fuse() {
        return;
    }
    let first = setting("STACKS_SEED", 1) * 1_000_000;
    let cases = setting("STACKS_CASES", CASES);
    println!("seeds {first} to {}", first + cases - 1);
    verifier::with_verifier(|verifier| {
        for seed in first..first + cases {
            let layers = layers(&mut Random::new(seed));
            let outcome = must_be_right(verifier, &format!("seed {seed}"), &layers);
            let valid = layers.iter().take_while(|layer| layer.root.is_valid());
            assert_eq!(outcome.in_place, valid.filter(|layer| layer.published).count(), "seed {seed}");
        }
        verifier.must_be_empty();
    });
}

fn dir(entries: impl IntoIterator<Item = (String, File)>) -> File {
    let entries: Entries = entries.into_iter().collect();
    File { mode: 0o755, uid: 0, gid: 0, mtime: 1_600_000_000, what: What::Dir(entries) }
}

fn regular(content: &str) -> File {
    File { mode: 0o644, uid: 0, gid: 0, mtime: 1_600_000_000, what: What::Regular(content.into()) }
}

/// The layer of this number, which needs all that can stand around a layer: it deletes and replaces something of the one
/// below.
fn hiding(number: usize) -> Layer {
    let own = dir([(".wh..wh..opq".into(), regular("")), (format!("only-{number}"), regular(""))]);
    let mut entries = vec![("dir".to_owned(), own), (format!("file-{number}"), regular("kept or deleted"))];
    if number > 0 && number.is_multiple_of(2) {
        entries.push((format!(".wh.file-{}", number - 1), regular("")));
    }
    Layer { published: true, root: dir(entries) }
}

#[test]
fn an_image_of_127_layers_in_place() {
    if !has_fuse() {
        return;
    }
    // Every tenth hides something; one in the middle is local.
    let layers: Vec<Layer> = (0..127)
        .map(|number| match number {
            _ if number % 10 == 0 => hiding(number),
            _ => Layer { published: number != 63, root: dir([(format!("file-{number}"), regular("kept"))]) },
        })
        .collect();
    verifier::with_verifier(|verifier| {
        let outcome = must_be_right(verifier, "127 layers", &layers);
        assert_eq!(outcome.in_place, 126);
    });
}

#[test]
fn what_does_not_fit_into_a_mount_is_downloaded() {
    if !has_fuse() {
        return;
    }
    let layers: Vec<Layer> = (0..127).map(hiding).collect();
    verifier::with_verifier(|verifier| {
        let outcome = must_be_right(verifier, "127 layers that all hide something", &layers);
        assert!((1..127).contains(&outcome.in_place), "{}", outcome.in_place);
        let log = verifier.log();
        let reason = "has it, but the image has too many layers to use it in place";
        assert!(log.lines().any(|line| line.contains("layer is downloaded") && line.contains(reason)), "{reason}");
    });
}
