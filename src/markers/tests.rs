use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::*;
use crate::config::{Kind, Verify};
use crate::digest::Digest;
use crate::overlay::plan::{Plan, Shape};
use crate::repository::{Limits, Repository, layout};

const LIMIT: Duration = Duration::from_secs(30);

struct Scratch {
    directory: tempfile::TempDir,
    cache: PlanCache,
}

const LAYER: Digest = Digest::from_bytes([1; 32]);

impl Scratch {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir_all(directory.path().join(layout::layerfs(LAYER))).unwrap();
        let limits = Limits { probe: LIMIT, first_mount: LIMIT };
        let path = directory.path().to_owned();
        let repository = Repository::new("test".into(), path, Kind::Directory, Verify::Off, limits).unwrap();
        Self { directory, cache: PlanCache::new(Arc::new(repository)) }
    }

    fn layer(&self) -> PathBuf {
        self.directory.path().join(layout::layerfs(LAYER))
    }

    fn file(&self, path: &str) {
        let path = self.layer().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }

    fn plan(&self, identity: &str) -> Result<Arc<Plan>, WalkError> {
        self.cache.find(LAYER, identity, Instant::now() + LIMIT)
    }
}

fn names(paths: &[Vec<u8>]) -> Vec<String> {
    paths.iter().map(|path| String::from_utf8_lossy(path).into_owned()).collect()
}

/// A layer with every kind of marker, published and recorded on a real CernVM-FS.
#[test]
fn all_markers_of_the_recorded_layer_are_found() {
    let scratch = Scratch::new();
    // Cargo and the sandbox of tests/unit_sandbox.rs start tests in the folder of the package.
    let data = Path::new("tests/data/cvmfs-catalog");
    let status = std::process::Command::new("tar")
        .args(["--no-same-owner", "-xzf"])
        .arg(data.join("layer.tar.gz"))
        .arg("-C")
        .arg(scratch.layer())
        .status();
    assert!(status.unwrap().success());
    scratch.file(".cvmfscatalog");
    let plan = scratch.plan("1").unwrap();
    let recorded = fs::read_to_string(data.join("markers.txt")).unwrap();
    // The root's catalog marker is the top-most cover's to hide.
    let recorded: BTreeSet<&str> = recorded.lines().filter(|name| *name != ".cvmfscatalog").collect();
    let whiteouts = names(&plan.whiteouts);
    let hidden: BTreeSet<&str> = whiteouts.iter().map(String::as_str).collect();
    let missing: Vec<_> = recorded.difference(&hidden).collect();
    assert!(missing.is_empty(), "not found: {missing:?}");
    // What is hidden beside the markers are the deleted names that the layer does not have itself.
    let deleted: Vec<_> = hidden.difference(&recorded).collect();
    insta::assert_debug_snapshot!(deleted);
    insta::assert_debug_snapshot!((names(&plan.opaque), names(&plan.erased), plan.hides_all));
}

#[test]
fn every_shape_of_marker_means_what_the_image_specification_says() {
    let scratch = Scratch::new();
    for path in
        ["a/.wh.gone", "a/.wh.own", "a/own", "b/.wh.dir", "b/dir/x", "o/.wh..wh..opq", "o/in/.wh.y", "p/.wh..wh.plnk"]
    {
        scratch.file(path);
    }
    fs::create_dir_all(scratch.layer().join("q/.wh..wh.orph")).unwrap();
    scratch.file("q/.wh..wh.orph/.wh.inside");
    scratch.file("r/.cvmfscatalog");
    scratch.file("r/.cvmfsautocatalog");
    symlink("a", scratch.layer().join("link")).unwrap();
    let plan = scratch.plan("1").unwrap();
    insta::assert_debug_snapshot!((names(&plan.whiteouts), names(&plan.opaque), names(&plan.erased), plan.shape()));
}

#[test]
fn an_opaque_root_hides_all_that_is_below() {
    let scratch = Scratch::new();
    scratch.file(".wh..wh..opq");
    scratch.file("a/.wh.x");
    let plan = scratch.plan("1").unwrap();
    assert_eq!(plan.shape(), Shape { cover: true, seal: false, erase: false, hides_all: true });
}

#[test]
fn a_layer_without_markers_needs_nothing() {
    let scratch = Scratch::new();
    scratch.file("usr/bin/x");
    scratch.file(".cvmfscatalog");
    assert_eq!(scratch.plan("1").unwrap().shape(), Shape::default());
}

#[test]
fn an_invalid_marker_refuses_the_layer_and_is_looked_at_again() {
    let scratch = Scratch::new();
    scratch.file("a/.wh..");
    assert_eq!(scratch.plan("1"), Err(WalkError::InvalidMarker("a/.wh..".into())));
    fs::remove_file(scratch.layer().join("a/.wh..")).unwrap();
    assert!(scratch.plan("1").is_ok(), "an error is not kept");
}

#[test]
fn a_plan_is_kept_for_the_content_that_it_was_made_of() {
    let scratch = Scratch::new();
    let before = scratch.plan("1").unwrap();
    scratch.file(".wh.new");
    assert!(Arc::ptr_eq(&scratch.plan("1").unwrap(), &before));
    assert_eq!(names(&scratch.plan("2").unwrap().whiteouts), [".wh.new", "new"]);
    scratch.cache.forget(LAYER);
    assert!(scratch.cache.known(LAYER, "1").is_none());
}

#[test]
fn many_threads_share_one_walk_of_a_large_layer() {
    let scratch = Scratch::new();
    for n in 0..2000 {
        scratch.file(&format!("d{}/d{}/.wh.{n}", n % 50, n % 7));
    }
    let plans = std::thread::scope(|scope| {
        let find = || scratch.plan("1").unwrap();
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(find)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    assert!(plans.iter().all(|plan| Arc::ptr_eq(plan, &plans[0])));
    assert_eq!(plans[0].whiteouts.len(), 4000);
}

#[test]
fn a_layer_that_cannot_be_opened_is_an_error() {
    let scratch = Scratch::new();
    fs::remove_dir(scratch.layer()).unwrap();
    assert!(matches!(scratch.plan("1"), Err(WalkError::Repository(_))));
}

#[test]
fn what_a_cover_repeats_is_bounded() {
    let scratch = Scratch::new();
    let deep = [&"d".repeat(254)[..]; 13].join("/");
    for n in 0..350 {
        scratch.file(&format!("{n:0254}/{deep}/.wh.x"));
    }
    assert_eq!(scratch.plan("1").unwrap_err(), WalkError::TooLarge);
}
